//! A server that shows one thing and has another signed.

use super::*;
use portcullis_model::GitOid;

const TEXT: &str = "change-7 revision 1: fix the till\nmain of shop, head 222222222222\n";

fn oid(digit: &str) -> GitOid {
    digit.repeat(40).parse().unwrap()
}

fn draft() -> Value {
    json!({
        "ledger": {"origin": "example.com/log", "size": 12, "root": Digest::of(b"root")},
        "request": "request-11",
        "subject": {
            "kind": "change", "change": "change-7", "revision": 1, "repository": "shop",
            "branch": "main", "base": oid("1"), "head": oid("2"), "tree": oid("3"),
            "manifest": Digest::of(b"manifest"),
        },
        "policy": Digest::of(b"policy"),
        "shown": Digest::of(TEXT.as_bytes()),
        "count": 1,
        "expires_index": 100,
        "expires": "2026-11-21T09:00:00.000Z",
    })
}

fn status() -> Status {
    Status {
        origin: "example.com/log".to_owned(),
        size: 12,
        policy: Digest::of(b"policy"),
        time: None,
        solo: false,
    }
}

fn own() -> Own {
    Own {
        approver: "ada".parse().unwrap(),
        key_class: KeyClass::Software,
        carry: Carry::Exact,
        nonce: "00".repeat(16),
    }
}

fn try_with(text: &str, draft: Value) -> Result<Complete, Refusal> {
    complete(
        RequestId(11),
        Shown {
            text: text.to_owned(),
            draft,
        },
        &status(),
        own(),
    )
}

#[test]
fn an_honest_draft_becomes_the_approvers_statement() {
    let done = try_with(TEXT, draft()).unwrap();
    assert_eq!(done.statement.approver.as_str(), "ada");
    assert_eq!(done.statement.request, RequestId(11));
    let lines = statement_lines(&done.statement, "SHA256:x");
    for part in [
        "change-7",
        &oid("2").to_string(),
        &oid("3").to_string(),
        "SHA256:x",
    ] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
}

#[test]
fn whose_statement_it_is_is_not_for_the_server_to_say() {
    let mut forged = draft();
    forged["approver"] = json!("eve");
    forged["carry"] = json!("same-diff");
    forged["nonce"] = json!("ff".repeat(16));
    let done = try_with(TEXT, forged).unwrap();
    assert_eq!(done.statement.approver.as_str(), "ada");
    assert_eq!(done.statement.carry, Carry::Exact);
    assert_eq!(done.statement.nonce, "00".repeat(16));
}

#[test]
fn a_draft_for_anything_else_is_refused() {
    let changed: [(&str, Value); 7] = [
        ("request", json!("request-12")),
        ("policy", json!(Digest::of(b"other"))),
        ("shown", json!(Digest::of(b"other text"))),
        ("count", json!(2)),
        (
            "ledger",
            json!({"origin": "other", "size": 12, "root": Digest::of(b"root")}),
        ),
        (
            "ledger",
            json!({"origin": "example.com/log", "size": 13, "root": Digest::of(b"root")}),
        ),
        ("unknown", json!(true)),
    ];
    for (field, value) in changed {
        let mut forged = draft();
        forged[field] = value;
        let refusal = try_with(TEXT, forged).unwrap_err();
        assert_eq!(refusal.code, "approval-draft-mismatch", "{field}");
    }
    assert!(try_with(TEXT, json!("draft")).is_err());
}

/// The text is signed over, but it is about something else.
#[test]
fn a_text_that_does_not_name_the_subject_is_refused() {
    for text in [
        "a harmless change",
        &TEXT.replace("222222222222", "333333333333"),
    ] {
        let mut forged = draft();
        forged["shown"] = json!(Digest::of(text.as_bytes()));
        let refusal = try_with(text, forged).unwrap_err();
        assert_eq!(refusal.code, "approval-draft-mismatch", "{text}");
    }
}
