use portcullis_model::{Digest, ReleaseId};

use super::*;

fn output(name: &str, bytes: &[u8]) -> Output {
    Output {
        name: name.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

#[test]
fn what_is_installed_is_what_was_admitted() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::with_program(directory.path().join("staging"), "/bin/false");
    let release = place.release(ReleaseId(7));
    let wanted = output("service", b"right");
    let other = install(&release, &wanted, 8080, || Ok(b"wrong".to_vec())).unwrap_err();
    assert_eq!(other.code, "artifact-altered");
    assert!(!release.spec_file().exists());
    install(&release, &wanted, 8080, || Ok(b"right".to_vec())).unwrap();
    let spec = TargetSpec::read(&release.spec_file()).unwrap();
    assert_eq!((spec.release, spec.digest), (ReleaseId(7), wanted.digest));
    // Again needs no bytes; a file that somebody altered does.
    install(&release, &wanted, 8080, || {
        panic!("the bytes stand there already")
    })
    .unwrap();
    fs::remove_file(&spec.artifact).unwrap();
    fs::write(&spec.artifact, b"altered").unwrap();
    assert_eq!(
        prepare::workspace(&spec).unwrap_err().code,
        "artifact-altered"
    );
    install(&release, &wanted, 8080, || Ok(b"right".to_vec())).unwrap();
    assert!(prepare::workspace(&spec).is_ok());
}

#[test]
fn names_with_folders_and_homes_too_deep_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::with_program(directory.path().join("staging"), "/bin/false");
    for name in ["../up", "a/b", "", "..", "nul\0"] {
        let refused = install(&place.release(ReleaseId(1)), &output(name, b"x"), 1, || {
            Ok(b"x".to_vec())
        });
        assert_eq!(
            refused.unwrap_err().code,
            "malformed-artifact-name",
            "{name:?}"
        );
    }
    let deep = Place::with_program(directory.path().join("d".repeat(90)), "/bin/false");
    let refused = install(&deep.release(ReleaseId(1)), &output("x", b"x"), 1, || {
        Ok(b"x".to_vec())
    });
    assert_eq!(refused.unwrap_err().code, "path-too-long");
}

#[test]
fn each_release_has_a_user_of_its_own_and_none_is_root() {
    let users: std::collections::BTreeSet<u32> =
        (0..1_000).map(|id| user_of(ReleaseId(id))).collect();
    assert_eq!(users.len(), 1_000);
    assert!(users.iter().all(|user| *user >= RELEASE_USERS_FROM));
    assert!(user_of(ReleaseId(u64::MAX)) >= RELEASE_USERS_FROM);
}

#[test]
fn the_proxy_reads_the_file_that_is_written_for_it() {
    let place = Place::with_program("/run/x", "/bin/false");
    let text = proxy_file(&place, 8081).unwrap();
    let config: portcullis_proxy::ProxyConfig = toml::from_str(&text).unwrap();
    assert_eq!(config.listen, ([127, 0, 0, 1], 8081).into());
    assert_eq!(config.control_socket, place.proxy_socket());
}

#[test]
fn an_empty_home_has_nothing_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(
        stop_all(&Home::new(directory.path())).unwrap(),
        Vec::<String>::new()
    );
}
