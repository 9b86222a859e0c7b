//! `init` and `serve`: what they make, and what they leave alone.

use std::fs;

use crate::house::{House, Plan, mode};

#[test]
fn run_twice_it_says_what_stands_and_changes_nothing() {
    let house = House::furnished(Plan::default());
    let before = house.files_below("");
    let texts: Vec<Vec<u8>> = before.keys().map(|path| fs::read(path).unwrap()).collect();
    let home = house.home().to_str().unwrap();
    let key = format!("{}.pub", house.key("ada").display());
    let again = house
        .cli(
            "ada",
            &["init", home, "--solo", "--human", "ada", "--key", &key],
        )
        .ok();
    let said = again.json();
    assert_eq!(said["made"], serde_json::json!([]), "{again:?}");
    assert!(
        said["stood"].to_string().contains("genesis.json"),
        "{again:?}"
    );
    assert_eq!(house.files_below(""), before);
    for (path, text) in before.keys().zip(texts) {
        assert_eq!(fs::read(path).unwrap(), text, "{}", path.display());
    }
}

#[test]
fn keys_are_their_owners_alone() {
    let house = House::furnished(Plan::default());
    let keys: Vec<_> = house.files_below("keys").into_keys().collect();
    let private = keys
        .iter()
        .filter(|path| path.extension().unwrap() == "key");
    assert_eq!(private.clone().count(), 5);
    for path in private {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    for folder in ["", "keys", "secrets", "policy"] {
        assert_eq!(mode(&house.home().join(folder)), 0o700, "{folder}");
    }
}
