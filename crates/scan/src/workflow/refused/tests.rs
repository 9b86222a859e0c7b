use super::{expressions, fault};

#[test]
fn an_expression_ends_at_braces_outside_of_texts() {
    let found: Vec<_> = expressions("a ${{ format('}}', 1) }} b ${{ x }} c ${{ y").collect();
    assert_eq!(found, [Some(" format('}}', 1) "), Some(" x "), None]);
}

#[test]
fn faults_of_expressions() {
    let all = super::ALL_IN_STEPS;
    for good in [
        "github.event_name == 'push'",
        "contains(fromJSON('[\"a\"]'), github.actor) && !cancelled()",
        "github.event.pull_request.labels.*.name",
        "steps.a.outputs['b-c'] || 'it''s'",
        "matrix.version[0] >= 1.5 && -1 < 2",
        "github.event.inputs.replace",
    ] {
        assert_eq!(fault(good, &all), None, "{good}");
    }
    for bad in [
        "github.event_name == \"push\"",
        "github.run_number + 1",
        "a ? b : c",
        "replace(github.ref, 'a', 'b')",
        "github.ref == 'x",
        "github.ref = 'x'",
        "github.ref ==",
        "",
    ] {
        assert!(fault(bad, &all).is_some(), "{bad}");
    }
    assert!(fault("env.A", &["needs"]).is_some());
    assert_eq!(fault("github.event.env.A", &["needs"]), None);
}
