use super::*;

fn place() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    (directory, path)
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_was_made_can_be_loaded_and_is_the_owners_alone() {
    let (_directory, path) = place();
    let made = create_p256(&path, P256Purpose::TokenSigning).unwrap();
    let read = load_p256(&path, P256Purpose::TokenSigning).unwrap();
    assert_eq!(made.public(), read.public());
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);

    let (_directory, path) = place();
    let made = create_ed25519(&path, Ed25519Purpose::Log).unwrap();
    let read = load_ed25519(&path, Ed25519Purpose::Log).unwrap();
    assert_eq!(made.public_bytes(), read.public_bytes());
}

#[test]
fn nothing_is_ever_overwritten_not_even_through_a_link() {
    let (directory, path) = place();
    std::fs::write(&path, "precious").unwrap();
    let refusal = create_p256(&path, P256Purpose::TokenSigning).unwrap_err();
    assert_eq!(refusal.code, "key-file-exists");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");

    let (dangling, target) = (
        directory.path().join("link"),
        directory.path().join("target"),
    );
    std::os::unix::fs::symlink(&target, &dangling).unwrap();
    assert!(create_ed25519(&dangling, Ed25519Purpose::Log).is_err());
    assert!(!target.exists());
}

#[test]
fn a_file_that_others_can_use_is_refused_with_the_command_that_mends_it() {
    let (_directory, path) = place();
    create_p256(&path, P256Purpose::TrustDomainCa).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o601, 0o666, 0o610] {
        set_mode(&path, mode);
        let refusal = load_p256(&path, P256Purpose::TrustDomainCa).unwrap_err();
        assert_eq!(refusal.code, "key-file-mode", "{mode:o}");
        assert!(refusal.to_string().contains("chmod 600"), "{refusal}");
    }
    set_mode(&path, 0o400);
    assert!(load_p256(&path, P256Purpose::TrustDomainCa).is_ok());
}

#[test]
fn another_users_file_is_refused_for_root_too() {
    let path = Path::new("/k");
    assert!(judge(path, true, 0o100_600, 1000, 1000).is_ok());
    for us in [0, 1001] {
        let refusal = judge(path, true, 0o100_600, 1000, us).unwrap_err();
        assert_eq!(refusal.code, "key-file-owner");
        assert!(refusal.to_string().contains("chown"), "{refusal}");
    }
    assert!(judge(path, false, 0o600, 0, 0).is_err());
}

#[test]
fn a_key_serves_one_purpose() {
    let (_directory, path) = place();
    create_p256(&path, P256Purpose::TokenSigning).unwrap();
    let refusal = load_p256(&path, P256Purpose::TrustDomainCa).unwrap_err();
    assert_eq!(refusal.code, "key-file-purpose");
    assert!(load_ed25519(&path, Ed25519Purpose::Host).is_err());
}

#[test]
fn links_directories_pipes_and_broken_files_are_refused() {
    let (directory, path) = place();
    assert_eq!(
        load_p256(&path, P256Purpose::TokenSigning)
            .unwrap_err()
            .kind,
        RefusalKind::NotFound
    );
    create_p256(&path, P256Purpose::TokenSigning).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let refusal = load_p256(&link, P256Purpose::TokenSigning).unwrap_err();
    assert!(refusal.to_string().contains("symbolic link"), "{refusal}");
    assert!(load_p256(directory.path(), P256Purpose::TokenSigning).is_err());
    let pipe = directory.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    assert!(load_p256(&pipe, P256Purpose::TokenSigning).is_err());

    let whole = std::fs::read_to_string(&path).unwrap();
    for length in 0..whole.trim_end().len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(
            load_p256(&path, P256Purpose::TokenSigning).is_err(),
            "{length}"
        );
    }
    std::fs::write(&path, format!("{whole}{}", " ".repeat(8192))).unwrap();
    assert!(load_p256(&path, P256Purpose::TokenSigning).is_err());
}

#[test]
fn no_refusal_repeats_a_byte_of_a_key() {
    let (_directory, path) = place();
    create_p256(&path, P256Purpose::TokenSigning).unwrap();
    let whole = std::fs::read_to_string(&path).unwrap();
    let body = whole.lines().nth(2).unwrap().to_owned();
    for broken in [
        whole.replace("-----END", "----END"),
        whole.replace("token-signing", "log"),
        whole.replacen("M", "!", 1),
        whole.lines().skip(1).collect::<Vec<_>>().join("\n"),
    ] {
        std::fs::write(&path, broken).unwrap();
        let refusal = load_p256(&path, P256Purpose::TokenSigning).unwrap_err();
        assert!(!format!("{refusal:?}").contains(&body[..16]), "{refusal:?}");
    }
}

#[test]
fn openssl_reads_our_key_file() {
    let (_directory, path) = place();
    create_p256(&path, P256Purpose::TokenSigning).unwrap();
    let Ok(output) = std::process::Command::new("openssl")
        .args(["pkey", "-noout", "-text", "-in"])
        .arg(&path)
        .output()
    else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("P-256"), "{text}");
}
