//! Approvals: who counts, for what, until when.

use std::fs;

use portcullis_model::statement::Approval;
use portcullis_model::{KeyClass, Timestamp};
use serde_json::{Value, json};

use crate::house::{Answer, House, Plan, committing, nonce, now, wait_until};

/// A team whose agent has proposed something, and the request about it.
fn asked() -> (House, String, String) {
    let house = House::new(Plan::team());
    let change = house.propose("ada", "src/a.txt", "good morning");
    let request = house.await_request(&change);
    (house, change, request)
}

/// A statement over what a request asks, as `person` would sign it.
fn statement(house: &House, person: &str, request: &str) -> Approval {
    let shown = house.get(&format!("/v1/requests/{request}"));
    let mut draft = shown["draft"].clone();
    let fields = draft.as_object_mut().unwrap();
    fields.insert("approver".to_owned(), json!(person));
    fields.insert("key_class".to_owned(), json!(KeyClass::Software));
    fields.insert("nonce".to_owned(), json!(nonce()));
    serde_json::from_value(draft).unwrap()
}

/// Signs a statement with a person's key and sends it.
fn send(house: &House, key: &str, statement: &Approval) -> Answer {
    let unsigned = portcullis_evidence::approval::to_sign(statement).unwrap();
    let envelope: portcullis_model::statement::Envelope =
        unsigned.sign_with(&house.private_key(key)).unwrap().into();
    house.post("/v1/approvals", &json!({ "envelope": envelope }))
}

#[test]
fn two_approvers_at_once_land_it_once() {
    let (house, change, request) = asked();
    let codes: Vec<i32> = std::thread::scope(|scope| {
        let house = &house;
        let approve = |person: &'static str| {
            let request = request.clone();
            scope.spawn(move || house.approve(person, &request).code)
        };
        let threads = [approve("bob"), approve("cyd")];
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(codes.contains(&0), "{codes:?}");
    let landed = house.await_landed(&change);
    assert_eq!(house.tip("main"), landed);
    assert_eq!(house.entries("effect.intended").len(), 1);
    let done = house.entries("effect.concluded");
    assert_eq!((done.len(), &done[0].body["outcome"]), (1, &json!("done")));
    house
        .approve("cyd", &request)
        .exits(1)
        .refused("request-closed");
}

#[test]
fn whoever_had_a_hand_in_it_does_not_count() {
    let (house, change, request) = asked();
    house.approve("ada", &request).exits(3).refused("own-party");
    let own = statement(&house, "ada", &request);
    send(&house, "ada", &own).refused(403, "own-party");
    // Nor does a signature by the author in somebody else's name.
    let forged = statement(&house, "bob", &request);
    let answer = send(&house, "ada", &forged);
    assert_eq!(answer.status, 403, "{answer:?}");
    answer.code();
    assert!(house.entries("approval.given").is_empty());
    assert_eq!(house.change(&change)["status"], "open");
    house.approve("bob", &request).ok();
    house.await_landed(&change);
}

#[test]
fn a_quorum_is_counted_without_the_author() {
    let house = House::new(Plan {
        quorum: 2,
        ..Plan::team()
    });
    let record = House::agent_record("fixer", "owner = \"bob\"");
    let asked = house.add("bob", "agent", &record).exits(4).json();
    let request = asked["request"].as_str().unwrap();
    house.approve("bob", request).exits(3).refused("own-party");
    house.approve("ada", request).ok();
    assert!(house.entries("activation.completed").is_empty());
    house
        .approve("ada", request)
        .exits(1)
        .refused("already-approved");
    assert!(house.entries("activation.completed").is_empty());
    house.approve("cyd", request).ok();
    house.await_entry("activation.completed", |_| true);
}

#[test]
fn a_statement_for_anything_else_is_refused() {
    let (house, change, request) = asked();
    let good = statement(&house, "bob", &request);
    let expired = Timestamp::from_ms(now().as_ms() - 1_000);
    type Spoil = Box<dyn Fn(&mut Approval)>;
    let spoilt: Vec<(&str, Spoil)> = vec![
        (
            "approval-expired",
            Box::new(move |one| one.expires = expired),
        ),
        ("approval-expired", Box::new(|one| one.expires_index = 1)),
        ("statement-mismatch", Box::new(|one| one.count = 2)),
        ("statement-mismatch", Box::new(|one| one.task = None)),
        ("statement-mismatch", Box::new(|one| one.checks = None)),
        (
            "statement-mismatch",
            Box::new(|one| one.ledger.origin = "example.com/other".to_owned()),
        ),
        (
            "statement-mismatch",
            Box::new(|one| one.ledger.size += 1_000),
        ),
        (
            "policy-changed",
            Box::new(|one| one.policy = portcullis_model::Digest::of(b"another")),
        ),
        (
            "key-class-too-low",
            Box::new(|one| one.key_class = KeyClass::Presence),
        ),
    ];
    for (code, spoil) in spoilt {
        let mut statement = good.clone();
        spoil(&mut statement);
        let answer = send(&house, "bob", &statement);
        assert_eq!(answer.code(), code, "{answer:?}");
    }
    let mut other = serde_json::to_value(&good).unwrap();
    other["subject"]["tree"] = json!("0123456789abcdef0123456789abcdef01234567");
    let other: Approval = serde_json::from_value(other).unwrap();
    let answer = send(&house, "bob", &other);
    assert!(answer.status < 500 && answer.status >= 400, "{answer:?}");
    assert!(house.entries("approval.given").is_empty());

    assert_eq!(send(&house, "bob", &good).status, 200);
    let again = Approval {
        approver: "cyd".parse().unwrap(),
        ..good
    };
    let answer = send(&house, "cyd", &again);
    assert_ne!(answer.status, 200, "a nonce counts once: {answer:?}");
    house.await_landed(&change);
}

#[test]
fn an_approval_read_under_another_policy_is_refused() {
    let (house, change, request) = asked();
    let stale = statement(&house, "bob", &request);
    let folder = house.policy_with("note.cedar", "// Read by everyone.\n");
    let asked = house
        .cli("ada", &["policy", "activate", &folder, "--why", "a note"])
        .exits(4)
        .json();
    house
        .approve("cyd", asked["request"].as_str().unwrap())
        .ok();
    house.await_entry("activation.completed", |_| true);
    send(&house, "bob", &stale).refused(409, "policy-changed");
    if let Some(request) = house.open_request(&change) {
        house.approve("bob", &request).ok();
        house.await_landed(&change);
    }
}

#[test]
fn a_rejection_reaches_the_next_run_and_a_new_revision_asks_anew() {
    let (house, change, request) = asked();
    let why = "Say please, and sign with your name.";
    house.cli("bob", &["reject", &request, "--why", why]).ok();
    house
        .approve("cyd", &request)
        .exits(1)
        .refused("request-closed");
    let task = house.task("ada", &["--change", &change]);
    let script = format!(
        "cat \"$PORTCULLIS_FEEDBACK\"\n{}\ngit push",
        committing("src/a.txt", "good morning, please")
    );
    let done = house.run(&task, &script).ok();
    assert!(done.out.contains(why), "{done:?}");
    assert!(
        done.err
            .contains(&format!("{change} got a new revision (revision 2)")),
        "{done:?}"
    );
    let anew = house.await_request(&change);
    assert_ne!(anew, request);
    house.approve("bob", &anew).ok();
    house.await_landed(&change);
    let text = house.git_line(&house.shop(), &["show", "main:src/a.txt"]);
    assert_eq!(text, "good morning, please");
}

#[test]
fn a_newer_revision_overtakes_what_was_asked() {
    let (house, change, request) = asked();
    let stale = statement(&house, "bob", &request);
    let task = house.task("ada", &["--change", &change]);
    house
        .run(
            &task,
            &format!("{}\ngit push", committing("src/a.txt", "good evening")),
        )
        .ok();
    let answer = wait_until("the old request is overtaken", || {
        let open = house.get("/v1/requests?open=true").to_string();
        (!open.contains(&format!("\"{request}\""))).then(|| send(&house, "bob", &stale))
    });
    answer.refused(409, "request-closed");
    assert_eq!(house.change(&change)["status"], "open");
}

#[test]
fn a_reviewer_sees_what_is_hidden() {
    let house = House::new(Plan::team());
    let script = "printf 'safe \\342\\200\\256 evil \\033[2Jgone\\n' > src/a.txt\n\
        git add -A\ngit commit -qm hidden\ngit push";
    house.run(&house.task("ada", &[]), script).ok();
    let change = wait_until("the change is there", || {
        Some(
            house.get("/v1/changes")["items"][0]["id"]
                .as_str()?
                .to_owned(),
        )
    });
    let diff = house
        .request("GET", &format!("/v1/changes/{change}/diff"), &[], b"")
        .text();
    assert!(diff.contains("u{202e}") && diff.contains("u{1b}"), "{diff}");
    assert!(
        !diff.contains('\u{202e}') && !diff.contains('\u{1b}'),
        "{diff}"
    );
    let request = house.await_request(&change);
    let shown: Value = house.get(&format!("/v1/requests/{request}"));
    let text = shown["text"].as_str().unwrap();
    for told in [
        "ada",
        "helper",
        "Greet politely",
        "src/a.txt",
        "may approve: bob, cyd",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
    assert!(
        !text.contains('\u{202e}') && !text.contains('\u{1b}'),
        "{text}"
    );
    assert!(fs::metadata(house.home()).is_ok());
}
