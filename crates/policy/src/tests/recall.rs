//! What is remembered is what would be decided, and nothing that a rule reads is left out.

use portcullis_model::{Mode, Timestamp};

use super::sample::{agent, connect, request};
use crate::recall::{Reads, Recall};
use crate::{Action, PolicyFile, PolicySet, Request, decide};

fn set(more: &str) -> PolicySet {
    let files = [
        PolicyFile::new("default.cedar", crate::DEFAULT),
        PolicyFile::new("more.cedar", more),
    ];
    PolicySet::load(&files, &[]).unwrap()
}

fn rule(condition: &str) -> String {
    format!(
        "@id(\"mine\")\n@reason(\"No.\")\n@next(\"Don't.\")\n\
         forbid (principal, action == Action::\"net.connect\", resource)\nwhen {{ {condition} }};\n"
    )
}

/// A connection at a time, with a path.
fn ask(now_ms: u64, path: &str) -> Request {
    let mut facts = connect();
    facts.path = path.to_owned();
    let mut request = request(agent(), Action::NetConnect(facts));
    request.circumstances.now = Timestamp::from_ms(now_ms);
    request
}

/// Whether a permit for `first` is given again for `second`; where it is, it is the one that
/// would be given anyway.
fn again(set: &PolicySet, first: &Request, second: &Request) -> bool {
    let mut recall = Recall::default();
    let permit = decide(set, first, 1).into_permit().unwrap();
    recall.remember(set, first, &permit);
    let Some(given) = recall.permit(set, second, 7) else {
        return false;
    };
    let anew = decide(set, second, 7).into_permit().unwrap();
    assert_eq!(given.at(), 7);
    assert_eq!(
        (given.rules(), given.policy(), given.standing()),
        (anew.rules(), anew.policy(), anew.standing())
    );
    true
}

#[test]
fn a_fact_that_a_rule_reads_is_never_left_out() {
    let first = ask(1_000, "/a");
    let (later, elsewhere) = (ask(2_000, "/a"), ask(1_000, "/b"));
    for (condition, time, path) in [
        ("context.port == 22", false, false),
        ("context.now_ms > 900000000", true, false),
        ("context[\"now\\u{5f}ms\"] > 900000000", true, false),
        ("context.path like \"/secret*\"", false, true),
        ("context.path == \"/x\" && context.now_ms < 5", true, true),
        (
            "if context has path then context.path == \"/x\" else false",
            false,
            true,
        ),
    ] {
        let set = set(&rule(condition));
        assert!(again(&set, &first, &first), "{condition}");
        assert_eq!(!again(&set, &first, &later), time, "{condition}");
        assert_eq!(!again(&set, &first, &elsewhere), path, "{condition}");
    }
    // The context as a whole.
    let whole =
        serde_json::json!({"==": {"left": {"Var": "context"}, "right": {"Var": "context"}}});
    assert_eq!(Reads::of_syntax(&whole), Reads::ALL);
}

#[test]
fn any_other_fact_asks_anew() {
    let plain = set("");
    let first = ask(1_000, "/a");
    let mut recall = Recall::default();
    let permit = decide(&plain, &first, 1).into_permit().unwrap();
    recall.remember(&plain, &first, &permit);
    assert!(recall.permit(&plain, &ask(9_000, "/b"), 2).is_some());
    assert!(
        recall
            .permit(&set(&rule("context.port == 1")), &first, 2)
            .is_none()
    );
    let changed = |change: &dyn Fn(&mut Request)| {
        let mut request = ask(1_000, "/a");
        change(&mut request);
        recall.permit(&plain, &request, 2).is_none()
    };
    assert!(changed(&|request| request.circumstances.breaker = true));
    assert!(changed(&|request| {
        request
            .circumstances
            .taint
            .insert("host:example.org:443".to_owned());
    }));
    assert!(changed(
        &|request| request.circumstances.mode = Mode::Observe
    ));
    for change in [
        |facts: &mut crate::action::NetConnect| facts.port = 1,
        |facts: &mut crate::action::NetConnect| facts.method = "POST".to_owned(),
        |facts: &mut crate::action::NetConnect| facts.foreign_credential = true,
        |facts: &mut crate::action::NetConnect| {
            facts.secrets.insert("github-token".to_owned());
        },
        |facts: &mut crate::action::NetConnect| facts.task = None,
    ] {
        assert!(changed(&|request| {
            if let Action::NetConnect(facts) = &mut request.action {
                change(facts);
            }
        }));
    }
}

#[test]
fn the_memory_is_bounded() {
    let plain = set("");
    let mut recall = Recall::default();
    let at_port = |port| {
        let mut request = ask(1, "/a");
        if let Action::NetConnect(facts) = &mut request.action {
            facts.port = port;
        }
        request
    };
    for port in 0..100 {
        let request = at_port(port);
        let permit = decide(&plain, &request, 1).into_permit().unwrap();
        recall.remember(&plain, &request, &permit);
    }
    assert!(recall.permit(&plain, &at_port(99), 1).is_some());
    let kept = (0..100).filter(|port| recall.permit(&plain, &at_port(*port), 1).is_some());
    assert_eq!(kept.count(), 32);
}
