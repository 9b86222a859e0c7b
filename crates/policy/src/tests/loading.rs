//! What does not load, and how it says so.

use crate::{BASE, DEFAULT, PolicyFile, PolicySet, Problem};

fn organisation(text: &str) -> Vec<Problem> {
    match PolicySet::check(&[PolicyFile::new("org.cedar", text)], &[]) {
        Ok(_) => Vec::new(),
        Err(problems) => problems,
    }
}

fn repository(text: &str) -> Vec<Problem> {
    let default = PolicyFile::new("default.cedar", DEFAULT);
    match PolicySet::check(&[default], &[PolicyFile::new(".portcullis/a.cedar", text)]) {
        Ok(_) => Vec::new(),
        Err(problems) => problems,
    }
}

fn places(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|p| format!("{}:{}:{}", p.file, p.line, p.column))
        .collect()
}

const HEAD: &str = "@id(\"x\") @reason(\"r\") @next(\"n\")\n";

#[test]
fn a_typo_in_a_fact_is_named_with_its_place_and_the_nearest_name() {
    let text = format!(
        "{HEAD}forbid (principal, action == Action::\"git.push\", resource)\nwhen {{\n  context.protectd\n}};"
    );
    let problems = organisation(&text);
    assert_eq!(places(&problems), ["org.cedar:4:3"]);
    assert!(problems[0].message.contains("protectd"), "{}", problems[0]);
    assert!(problems[0].next.contains("protected"), "{}", problems[0]);
}

#[test]
fn syntax_unknown_actions_and_wrong_types_are_refused() {
    for (text, word) in [
        (
            "forbid (principal, action, resource) when { context. };",
            "not Cedar",
        ),
        (
            "forbid (principal, action == Action::\"git.pushh\", resource);",
            "git.pushh",
        ),
        (
            "forbid (principal, action == Action::\"git.push\", resource) when { context.protected > 3 };",
            "type",
        ),
        (
            "forbid (principal, action == Action::\"git.push\", resource) when { context.protected == \"yes\" };",
            "",
        ),
        ("forbid (principal is Person, action, resource);", "Person"),
        ("forbid (principal == ?principal, action, resource);", ""),
    ] {
        let problems = organisation(&format!("{HEAD}{text}"));
        assert!(!problems.is_empty(), "{text}");
        let all = problems.iter().map(ToString::to_string).collect::<String>();
        assert!(all.contains(word), "{text}: {all}");
        assert!(problems.iter().all(|p| !p.next.is_empty()));
    }
}

#[test]
fn a_rule_that_can_never_apply_is_refused() {
    let problems = organisation(&format!(
        "{HEAD}forbid (principal is Human, action == Action::\"git.push\", resource is Change);"
    ));
    assert!(!problems.is_empty());
}

#[test]
fn every_rule_explains_itself() {
    let problems = organisation("forbid (principal, action, resource);");
    let all = problems.iter().map(ToString::to_string).collect::<String>();
    for key in ["@id", "@reason", "@next"] {
        assert!(all.contains(&format!("no {key}")), "{all}");
    }
    let typo = organisation(
        "@id(\"x\") @reson(\"r\") @reason(\"r\") @next(\"n\") forbid (principal, action, resource);",
    );
    assert!(typo[0].next.contains("@reason"), "{}", typo[0]);
}

#[test]
fn a_repository_may_only_demand_more() {
    let permit = "@id(\"let-me\") @reason(\"r\") @next(\"n\") @needs(\"m\")\npermit (principal, action == Action::\"git.fetch\", resource);";
    let problems = repository(permit);
    assert_eq!(places(&problems), [".portcullis/a.cedar:1:1"]);
    assert!(problems[0].message.contains("can't permit"));
    assert!(organisation(permit).is_empty());

    let more = format!(
        "{HEAD}forbid (principal, action == Action::\"change.land\", resource) unless {{ context.approvals.parties >= 2 }};"
    );
    assert!(repository(&more).is_empty());
}

#[test]
fn no_layer_can_replace_or_imitate_a_rule_of_another() {
    let theirs = "@id(\"land\") @reason(\"r\") @next(\"n\")\nforbid (principal, action, resource);";
    assert!(
        repository(theirs)[0]
            .message
            .contains("taken by default.cedar:")
    );
    for text in [
        "@id(\"base-new\") @reason(\"r\") @next(\"n\") forbid (principal, action, resource);",
        "@id(\"x\") @reason(\"r\") @next(\"n\") @always(\"y\") forbid (principal, action, resource);",
    ] {
        assert_eq!(organisation(text).len(), 1, "{text}");
    }
    let twice = [PolicyFile::new("base.cedar", DEFAULT)];
    assert!(
        PolicySet::check(&twice, &[]).is_err(),
        "a file named like the base"
    );
}

#[test]
fn a_permit_names_its_actions_and_its_needs() {
    let problems = organisation(&format!("{HEAD}permit (principal, action, resource);"));
    let all = problems.iter().map(ToString::to_string).collect::<String>();
    assert!(
        all.contains("names no action") && all.contains("@needs"),
        "{all}"
    );
}

#[test]
fn all_problems_of_all_files_come_at_once_in_order() {
    let one = PolicyFile::new("a.cedar", "permit (");
    let two = PolicyFile::new(
        "b.cedar",
        format!(
            "{HEAD}forbid (principal, action, resource) when {{ context.nothing }};\nforbid (principal, action, resource);"
        ),
    );
    let problems = PolicySet::check(&[one, two], &[]).err().unwrap();
    let files: Vec<_> = problems.iter().map(|p| p.file.as_str()).collect();
    let mut sorted = files.clone();
    sorted.sort_unstable();
    assert_eq!(files, sorted);
    assert!(files.contains(&"a.cedar") && files.contains(&"b.cedar"));
    let refusal = crate::refusal(&problems).to_string();
    assert!(refusal.contains("b.cedar:2:"), "{refusal}");
}

#[test]
fn the_digest_covers_every_byte_every_name_and_every_layer() {
    let forbid = format!("{HEAD}forbid (principal, action == Action::\"git.push\", resource);");
    let file = |name: &str, text: &str| PolicyFile::new(name, text);
    let digest = |organisation: &[PolicyFile], repository: &[PolicyFile]| {
        PolicySet::load(organisation, repository).unwrap().digest()
    };
    let first = digest(&[file("a.cedar", &forbid)], &[]);
    assert_eq!(first, digest(&[file("a.cedar", &forbid)], &[]));
    for other in [
        digest(&[file("b.cedar", &forbid)], &[]),
        digest(&[], &[file("a.cedar", &forbid)]),
        digest(&[file("a.cedar", &format!("{forbid}\n"))], &[]),
        digest(&[], &[]),
    ] {
        assert_ne!(first, other);
    }
}

#[test]
fn hostile_text_is_refused_in_bounded_time() {
    for text in [
        "(".repeat(200_000),
        "permit(principal,action,resource) when { ".to_owned() + &"!".repeat(7_000) + "true };",
        "permit(principal,action,resource) when { ".to_owned() + &"true && ".repeat(900) + "true };",
        "permit(principal,action,resource) when { ".to_owned()
            + &"if true then true else ".repeat(300)
            + "true };",
        "@id(\"\u{202e}evil\") @reason(\"a\nb\") @next(\"n\") forbid (principal, action, resource);".to_owned(),
        "\u{0}".to_owned(),
        ";;;".to_owned(),
        "x".repeat(300_000),
        HEAD.repeat(100),
    ] {
        assert!(!organisation(&text).is_empty() || text == ";;;", "{:.60}", text);
    }
}

#[test]
fn the_embedded_files_load_and_the_base_only_permits_less_authority() {
    let set = super::embedded();
    assert!(!BASE.is_empty());
    for rule in &set.rules {
        if rule.layer == crate::Layer::Base && rule.permits {
            for action in crate::set::ACTIONS {
                let reduces = matches!(
                    action,
                    "breaker.trip"
                        | "run.stop"
                        | "request.reject"
                        | "release.revoke"
                        | "rollout.command"
                        | "inventory.change"
                );
                assert!(!rule.is_about_action(action) || reduces, "{}", rule.at);
            }
        }
    }
}
