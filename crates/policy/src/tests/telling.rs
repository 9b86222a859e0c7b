//! What people and programs are told: rule, missing fact, way forward; and tests of policies.

use portcullis_model::{Refusal, RefusalKind};

use super::sample::*;
use super::{PERMIT_ALL, embedded, with};
use crate::action::*;
use crate::testing::{Change, diff, fixtures, replay, run_tests};
use crate::{Answer, DEFAULT_TESTS, Decision, PolicyFile, decide, explain};

fn refusal(action: Action) -> Refusal {
    decide(&embedded(), &request(agent(), action), 3)
        .into_permit()
        .unwrap_err()
}

#[test]
fn a_denial_names_rule_place_fact_and_way_forward() {
    let refusal = refusal(Action::GitPush(GitPush {
        paths_outside_scope: set(&[".github/workflows/ci.yml"]),
        ..push()
    }));
    assert_eq!(refusal.kind, RefusalKind::Denied);
    assert_eq!(refusal.code, "base-scope");
    let line = 1 + crate::BASE
        .lines()
        .position(|line| line == "@id(\"base-scope\")")
        .unwrap();
    assert_eq!(refusal.rule, Some(format!("base.cedar:{line} base-scope")));
    assert_eq!(
        refusal.received.as_deref(),
        Some("paths_outside_scope is [\".github/workflows/ci.yml\"]")
    );
    assert!(refusal.next.unwrap().contains("scope"));
}

#[test]
fn when_no_permit_applies_the_nearest_is_named_with_what_it_needs() {
    let refusal = refusal(Action::NetConnect(NetConnect {
        named_in_task: false,
        ..connect()
    }));
    assert_eq!(refusal.code, "no-permit");
    assert!(refusal.rule.unwrap().ends_with("hosts-named-in-task"));
    assert_eq!(
        refusal.expected.as_deref(),
        Some("A host named in the task.")
    );
    assert_eq!(refusal.received.as_deref(), Some("named_in_task is false"));
    assert!(refusal.next.is_some());
}

#[test]
fn long_lists_are_cut_and_hostile_names_shown() {
    let paths: Vec<String> = (0..40).map(|n| format!("dir/\u{1b}[2Jfile{n}")).collect();
    let Decision::Deny(denial) = decide(
        &embedded(),
        &request(
            agent(),
            Action::GitPush(GitPush {
                paths_outside_scope: paths.into_iter().collect(),
                ..push()
            }),
        ),
        0,
    ) else {
        panic!("outside the scope");
    };
    let facts = denial.facts.join(" ");
    assert!(
        facts.contains("and 35 more") && !facts.contains('\u{1b}'),
        "{facts}"
    );
}

#[test]
fn a_permit_says_what_it_was_decided_on() {
    let set = embedded();
    let request = request(agent(), Action::GitPush(push()));
    let permit = decide(&set, &request, 41).into_permit().unwrap();
    assert_eq!(permit.at(), 41);
    assert_eq!(permit.policy(), set.digest());
    assert_eq!(permit.request(), request.digest().unwrap());
    let record = permit.record();
    assert_eq!((record.at, record.policy), (41, set.digest()));
    assert!(
        record.rules[0].ends_with(" push-for-review-by-agents"),
        "{record:?}"
    );
}

#[test]
fn deciding_again_gives_the_same() {
    let set = embedded();
    for (_, action) in actions() {
        let request = request(agent(), action);
        assert_eq!(decide(&set, &request, 1), decide(&set, &request, 1));
    }
}

#[test]
fn the_explanation_goes_through_every_rule_of_the_action() {
    let request = request(
        agent(),
        Action::GitPush(GitPush {
            for_review: false,
            ..push()
        }),
    );
    let story = explain(&embedded(), &request);
    for part in [
        "Run \"run-42\" (kind agent) asks for git.push on Ref \"web:refs/heads/main\"",
        "denied: An agent does not push to a protected branch.",
        "applies  forbid base.cedar:",
        "does not permit default.cedar:",
        "for_review is false",
        "pack_bytes > context.pack_limit_bytes",
    ] {
        assert!(story.contains(part), "{part} is missing in:\n{story}");
    }
    assert!(!story.contains("change.land"), "{story}");
}

#[test]
fn a_test_that_expects_something_else_fails_with_the_reason() {
    let text = DEFAULT_TESTS.replace("rule = \"base-scope\"", "rule = \"base-names\"");
    let file = PolicyFile::new(
        "t.toml",
        text.replacen("expect = \"permit\"", "expect = \"deny\"", 1),
    );
    let report = run_tests(&embedded(), &[file]).unwrap();
    let failed: Vec<String> = report.failed().map(ToString::to_string).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(
        failed[0].contains("expected deny, decided permit"),
        "{failed:?}"
    );
    assert!(failed[1].contains("base-scope"), "{failed:?}");
}

#[test]
fn a_test_file_with_unknown_fields_or_fixtures_is_refused() {
    for (text, word) in [
        (
            DEFAULT_TESTS.replace("in_task = true", "in_taks = true"),
            "in_taks",
        ),
        (
            DEFAULT_TESTS.replace("like = \"release\"", "like = \"relase\""),
            "relase",
        ),
        (
            DEFAULT_TESTS.replace("expect = \"ask\"", "expect = \"maybe\""),
            "maybe",
        ),
        (
            "[[test]]\nname = \"x\"\nexpect = \"deny\"\nexpected = 1".to_owned(),
            "expected",
        ),
    ] {
        let refusal = run_tests(&embedded(), &[PolicyFile::new("t.toml", text)]).unwrap_err();
        assert!(refusal.to_string().contains(word), "{refusal}");
    }
}

#[test]
fn a_replay_tells_what_would_have_been_decided_otherwise() {
    let file = PolicyFile::new("t.toml", DEFAULT_TESTS);
    let requests: Vec<_> = fixtures(&file).unwrap().into_values().collect();
    let loose = with(PERMIT_ALL);
    assert!(replay(&embedded(), &embedded(), &requests).is_empty());
    let differences = replay(&embedded(), &loose, &requests);
    assert_eq!(differences.len(), 1, "{differences:?}");
    let landing = &differences[0];
    assert_eq!(landing.action, "change.land");
    assert_eq!(
        (landing.old.answer, landing.new.answer),
        (Answer::Ask, Answer::Permit)
    );
    assert!(landing.loosens());
    assert!(!replay(&loose, &embedded(), &requests)[0].loosens());
}

#[test]
fn a_diff_names_each_rule_that_differs_and_whether_it_may_loosen() {
    let changed = crate::DEFAULT.replacen("denials_so_far >= 30", "denials_so_far >= 300", 1);
    let new = with(&changed);
    let changes = diff(&embedded(), &new);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].rule.rule.id, "push-after-many-denials");
    assert_eq!(
        (changes[0].change, changes[0].may_loosen()),
        (Change::Changed, true)
    );

    let nothing = crate::PolicySet::load(&[], &[]).unwrap();
    let removed = diff(&embedded(), &nothing);
    assert!(
        removed
            .iter()
            .all(|change| change.change == Change::Removed)
    );
    for change in removed {
        assert_eq!(change.may_loosen(), !change.rule.permits, "{change}");
    }
}
