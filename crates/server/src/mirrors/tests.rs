//! What the file says that shows an upstream who the server is.

use super::*;

fn read(text: &str) -> Result<Access, Refusal> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("upstream-shop.toml"), text).unwrap();
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
    std::fs::write(folder.path().join("upstream-web.toml"), [0xff, 0xfe]).unwrap();
    assert!(access_to(folder.path(), &"web".parse().unwrap()).is_err());
}
