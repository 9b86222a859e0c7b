//! What the file says that shows an upstream who the server is.

use super::*;

fn write(file: &Path, content: &[u8], mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(file, content).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn read(text: &str) -> Result<Access, Refusal> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upstream-shop.toml");
    write(&file, text.as_bytes(), 0o600);
    access_to(folder.path(), &"shop".parse().unwrap())
}

#[test]
fn it_holds_a_password_or_the_way_to_a_key() {
    let none = tempfile::tempdir().unwrap();
    let access = access_to(none.path(), &"shop".parse().unwrap()).unwrap();
    assert!(matches!(access, Access::None));
    let access = read("username = \"bot\"\npassword = \"open-sesame\"\n").unwrap();
    assert!(!format!("{access:?}").contains("open-sesame"));
    assert!(matches!(access, Access::Password { username, .. } if username == "bot"));
    let access = read("ssh_key = \"/srv/key\"\nknown_hosts = \"/srv/hosts\"\n").unwrap();
    assert!(matches!(
        access,
        Access::SshKey { key_file, known_hosts }
            if key_file == Path::new("/srv/key") && known_hosts == Path::new("/srv/hosts")
    ));
}

#[test]
fn anything_else_is_refused_and_not_repeated() {
    for text in [
        "",
        "username = \"bot\"\n",
        "password = \"open-sesame\"\n",
        "ssh_key = \"/srv/key\"\n",
        "username = \"bot\"\npassword = \"open-sesame\"\nssh_key = \"/srv/key\"\n",
        "username = \"bot\"\npassword = \"open-sesame\"\ntoken = \"x\"\n",
        "username = \"bot\"\npassword = 7\n",
        "username = \"bot\"\npassword = \"open-sesame\n",
        "open-sesame",
    ] {
        let refusal = read(text).unwrap_err();
        assert_eq!(refusal.code, "malformed-upstream-access", "{text:?}");
        let told = format!("{refusal} {refusal:?}");
        assert!(!told.contains("open-sesame"), "{told}");
        assert!(told.contains("upstream-shop.toml"), "{told}");
    }
    let long = format!("username = \"{}\"\n", "x".repeat(20_000));
    assert_eq!(read(&long).unwrap_err().code, "file-too-large");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("upstream-shop.toml")).unwrap();
    let refusal = access_to(folder.path(), &"shop".parse().unwrap()).unwrap_err();
    assert_eq!(refusal.code, "file-unreadable");
    write(
        &folder.path().join("upstream-web.toml"),
        &[0xff, 0xfe],
        0o600,
    );
    assert!(access_to(folder.path(), &"web".parse().unwrap()).is_err());
}

#[test]
fn a_credential_that_others_can_read_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upstream-shop.toml");
    let text = "username = \"bot\"\npassword = \"open-sesame\"\n";
    let key = folder.path().join("key");
    let key_text = format!("ssh_key = {key:?}\nknown_hosts = \"/srv/hosts\"\n");
    let look = || access_to(folder.path(), &"shop".parse().unwrap());
    for mode in [0o644, 0o640, 0o604, 0o660, 0o666] {
        write(&file, text.as_bytes(), mode);
        let refusal = look().unwrap_err();
        assert_eq!(refusal.code, "credential-file-open", "{mode:o}");
        let told = format!("{refusal} {refusal:?}");
        assert!(
            told.contains(&format!("chmod 600 {}", file.display())),
            "{told}"
        );
        assert!(!told.contains("open-sesame"), "{told}");
        // The key's file counts alike.
        write(&file, key_text.as_bytes(), 0o600);
        write(&key, b"key", mode);
        let refusal = look().unwrap_err();
        assert_eq!(refusal.code, "credential-file-open", "{mode:o}");
        assert!(refusal.message.contains("key"), "{refusal}");
        write(&key, b"key", 0o600);
        assert!(look().is_ok());
    }
}

#[tokio::test]
async fn an_upstream_that_was_too_large_is_not_fetched_by_everyone_who_asks() {
    let root = tempfile::tempdir().unwrap();
    let upstream = root.path().join("upstream");
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.arg("-C").arg(root.path()).args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null");
        assert!(git.status().unwrap().success(), "{arguments:?}");
    };
    git(&["init", "-q", "-b", "main", "upstream"]);
    let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
    let commit = ["-C", "upstream", "commit", "-q", "--allow-empty", "-m", "a"];
    git(&[&identity[..], &commit[..]].concat());
    let home = Home::new(root.path().join("home"));
    let mirrors = Mirrors::open(&home, None, 10).await.unwrap();
    let shop: RepositoryId = "shop".parse().unwrap();
    let from = upstream.to_str().unwrap();
    let refusal = mirrors.get_from(&shop, from).await.err().unwrap();
    assert_eq!(refusal.code, "mirror-too-large", "{refusal}");
    // It is not looked at again; another address is.
    std::fs::rename(&upstream, root.path().join("away")).unwrap();
    for _ in 0..2 {
        let again = mirrors.get_from(&shop, from).await.err().unwrap();
        assert_eq!(again, refusal);
    }
    let away = root.path().join("away");
    let other = mirrors.get_from(&shop, away.to_str().unwrap()).await;
    assert_eq!(other.err().unwrap().code, "mirror-too-large");
    // What else is in the way is looked at each time.
    let gone = root.path().join("gone");
    let refusal = mirrors.get_from(&shop, gone.to_str().unwrap()).await;
    assert_eq!(refusal.err().unwrap().code, "upstream-unreachable");
    std::fs::rename(&away, &gone).unwrap();
    let refusal = mirrors.get_from(&shop, gone.to_str().unwrap()).await;
    assert_eq!(refusal.err().unwrap().code, "mirror-too-large");
}
