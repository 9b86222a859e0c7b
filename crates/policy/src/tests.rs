use super::*;
#[test]
fn the_default_policy_passes_its_own_tests() {
    let set = PolicySet::embedded().unwrap_or_else(|e| panic!("{e}"));
    let file = PolicyFile::new("default.tests.toml", DEFAULT_TESTS);
    let report = testing::run_tests(&set, &[file]).unwrap_or_else(|e| panic!("{e}"));
    let failed: Vec<_> = report.failed().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(report.outcomes.len() >= 20);
    for (name, request) in
        testing::fixtures(&PolicyFile::new("default.tests.toml", DEFAULT_TESTS)).unwrap()
    {
        println!("== {name}\n{}", explain(&set, &request));
    }
}
