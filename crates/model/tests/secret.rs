//! A secret does not print, whatever it is wrapped in.

use std::collections::BTreeMap;

use portcullis_model::Secret;

#[test]
fn a_secret_does_not_print_in_any_wrapping() {
    const VALUE: &str = "hunter2-is-no-secret";
    let secret = Secret::new(VALUE.to_owned());
    let copies = BTreeMap::from([("key", Some(vec![secret.clone()]))]);
    for shown in [
        format!("{secret:?}"),
        format!("{secret:#?}"),
        format!("{copies:?}"),
        format!("{:?}", Err::<(), _>(secret.clone())),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(secret.expose(), VALUE);
}
