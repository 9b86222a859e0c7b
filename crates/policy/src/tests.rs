use super::*;
#[test]
fn loads() {
    match PolicySet::embedded() {
        Ok(_) => {}
        Err(e) => panic!("{e}"),
    }
}
