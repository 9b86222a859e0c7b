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
