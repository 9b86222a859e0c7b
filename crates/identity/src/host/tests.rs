use portcullis_model::Digest;

use super::*;
use crate::key::P256Key;

const NOW: Timestamp = Timestamp::from_ms(1_795_250_000_000);

struct House {
    domain: TrustDomain,
    host: HostId,
    key: Ed25519Key,
    enrolled: PublicKey,
    task: TaskId,
    run: P256Key,
}

fn house() -> House {
    let key = Ed25519Key::generate().unwrap();
    House {
        domain: "ship.example".parse().unwrap(),
        host: "laptop".parse().unwrap(),
        enrolled: key.public().unwrap(),
        key,
        task: TaskId(Digest::of(b"task")),
        run: P256Key::generate().unwrap(),
    }
}

impl House {
    fn start(&self) -> UnverifiedStart {
        sign_start(&self.key, &self.statement()).unwrap()
    }

    fn statement(&self) -> StartStatement {
        let run_key = *self.run.public().thumbprint();
        StartStatement::new(
            self.domain.clone(),
            self.host.clone(),
            self.task,
            run_key,
            NOW,
        )
        .unwrap()
    }

    fn expected(&self) -> ExpectedStart<'_> {
        ExpectedStart {
            trust_domain: &self.domain,
            host: &self.host,
            host_key: &self.enrolled,
            task: self.task,
            run_key: self.run.public(),
        }
    }

    fn code(&self, start: &UnverifiedStart) -> String {
        code(verify_start(start, &self.expected(), NOW))
    }
}

fn code(result: Result<StartStatement, Refusal>) -> String {
    result.map_or_else(|refusal| refusal.code, |_| "ok".to_owned())
}

#[test]
fn a_host_starts_a_task_with_a_key_for_a_minute() {
    let house = house();
    let start = house.start();
    assert_eq!(claimed_host(&start).unwrap(), house.host);
    let statement = verify_start(&start, &house.expected(), NOW).unwrap();
    assert_eq!(statement.task, house.task);
    assert_ne!(statement.nonce, house.statement().nonce);
    let at = |now| code(verify_start(&start, &house.expected(), now));
    assert_eq!(at(NOW.plus_ms(START_MAX_AGE_MS)), "ok");
    assert_eq!(at(NOW.plus_ms(START_MAX_AGE_MS + 1)), "host-start-stale");
    assert_eq!(
        at(Timestamp::from_ms(NOW.as_ms() - START_MAX_AHEAD_MS - 1)),
        "host-start-future"
    );
}

#[test]
fn it_is_worth_nothing_for_another_task_key_host_or_domain() {
    let house = house();
    let start = house.start();
    let other_run = P256Key::generate().unwrap();
    let other_host: HostId = "server".parse().unwrap();
    let other_domain: TrustDomain = "other.example".parse().unwrap();
    let other_key = Ed25519Key::generate().unwrap().public().unwrap();
    let expected = house.expected();
    for (expected, wanted) in [
        (
            ExpectedStart {
                task: TaskId(Digest::of(b"other")),
                ..expected
            },
            "host-start-mismatch",
        ),
        (
            ExpectedStart {
                run_key: other_run.public(),
                ..expected
            },
            "host-start-mismatch",
        ),
        (
            ExpectedStart {
                host: &other_host,
                ..expected
            },
            "host-start-mismatch",
        ),
        (
            ExpectedStart {
                trust_domain: &other_domain,
                ..expected
            },
            "host-start-mismatch",
        ),
        (
            ExpectedStart {
                host_key: &other_key,
                ..expected
            },
            "host-start-signature",
        ),
    ] {
        assert_eq!(code(verify_start(&start, &expected, NOW)), wanted);
    }
}

#[test]
fn a_signature_over_the_same_bytes_of_another_type_does_not_hold() {
    let house = house();
    let payload = canonical::to_vec(&house.statement()).unwrap();
    let with = |message: &[u8]| UnverifiedStart {
        payload: STANDARD.encode(&payload),
        signature: STANDARD.encode(house.key.sign(message)),
    };
    assert_eq!(house.code(&with(&pae(START_PAYLOAD_TYPE, &payload))), "ok");
    assert_eq!(house.code(&with(&payload)), "host-start-signature");
    assert_eq!(
        house.code(&with(&pae("application/json", &payload))),
        "host-start-signature"
    );
}

#[test]
fn other_spellings_and_unknown_fields_are_refused_though_signed() {
    let house = house();
    let payload = String::from_utf8(canonical::to_vec(&house.statement()).unwrap()).unwrap();
    for other in [
        format!("{payload} "),
        payload.replacen('{', r#"{"admin":true,"#, 1),
        payload.replacen(",", ", ", 1),
        payload.replace("laptop", "Laptop"),
        "x".repeat(START_MAX_BYTES + 8),
    ] {
        let start = UnverifiedStart {
            signature: STANDARD.encode(house.key.sign(&pae(START_PAYLOAD_TYPE, other.as_bytes()))),
            payload: STANDARD.encode(other),
        };
        assert_eq!(house.code(&start), "malformed-host-start");
        assert!(claimed_host(&start).is_err());
    }
}

#[test]
fn the_encoding_is_that_of_the_dsse_specification() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}
