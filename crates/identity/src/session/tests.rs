use portcullis_model::Secret;

use super::*;
use crate::client::{RunCredential, RunSession};
use crate::dpop::Call;
use crate::house::{House, NOW, TOKEN_LIFE_MS};

const URL: &str = "https://gate.example/gateway/v1/egress";
const SAID: Said<'_> = Said {
    method: "GET",
    path: "/gateway/v1/egress",
    destination: "https://example.org/a?b",
};

impl House {
    fn caller(&self, headers: &[(&'static str, Secret<String>); 2], url: &str) -> Caller {
        let [(_, authorization), (_, dpop)] = headers;
        let call = Call { method: "GET", url };
        self.authenticate([authorization.expose(), dpop.expose()], call, NOW)
            .unwrap()
    }

    /// Both halves of a session.
    fn open(&self, credential: &RunCredential) -> (RunSession, Session) {
        let (headers, opening) = credential.opening("GET", URL, NOW).unwrap();
        let (session, share) = Session::open(&self.caller(&headers, URL)).unwrap().unwrap();
        (opening.accept(&share.to_string()).unwrap(), session)
    }

    fn outcome(
        &self,
        session: &mut Session,
        value: &str,
        said: Said<'_>,
        now: Timestamp,
    ) -> String {
        match session.verify(&self.verifier, value, said, now) {
            Ok(claims) => claims.run.to_string(),
            Err(refusal) => refusal.code,
        }
    }
}

#[test]
fn requests_are_known_one_after_the_other_and_each_once() {
    let (house, mut proofs) = (House::new(), Vec::new());
    let credential = house.credential();
    let (mut ours, mut theirs) = house.open(&credential);
    for _ in 0..3 {
        let proof = credential.next(&mut ours, SAID).unwrap();
        assert!(proof.len() <= VALUE_MAX_BYTES);
        assert_eq!(house.outcome(&mut theirs, &proof, SAID, NOW), "run-42");
        proofs.push(proof);
    }
    for proof in &proofs {
        assert_eq!(
            house.outcome(&mut theirs, proof, SAID, NOW),
            "session-number"
        );
    }
    // What comes too early does not hold either, and does no harm.
    let fourth = credential.next(&mut ours, SAID).unwrap();
    let fifth = credential.next(&mut ours, SAID).unwrap();
    assert_eq!(
        house.outcome(&mut theirs, &fifth, SAID, NOW),
        "session-number"
    );
    assert_eq!(house.outcome(&mut theirs, &fourth, SAID, NOW), "run-42");
    assert_eq!(house.outcome(&mut theirs, &fifth, SAID, NOW), "run-42");
}

#[test]
fn a_proof_is_for_one_request_of_one_session() {
    let house = House::new();
    let credential = house.credential();
    let (mut ours, mut theirs) = house.open(&credential);
    let (_, mut other) = house.open(&credential);
    let proof = credential.next(&mut ours, SAID).unwrap();
    let others = [
        Said {
            method: "POST",
            ..SAID
        },
        Said {
            path: "/gateway/v1/egress?",
            ..SAID
        },
        Said {
            destination: "https://example.org/a?c",
            ..SAID
        },
        Said {
            destination: "",
            ..SAID
        },
        // The same bytes, cut elsewhere.
        Said {
            path: "/gateway/v1/egressh",
            destination: "ttps://example.org/a?b",
            ..SAID
        },
    ];
    for said in others {
        assert_eq!(
            house.outcome(&mut theirs, &proof, said, NOW),
            "session-proof"
        );
    }
    assert_eq!(
        house.outcome(&mut other, &proof, SAID, NOW),
        "session-proof"
    );
    let (number, mac) = proof.split_once('.').unwrap();
    let flipped = if mac.starts_with('A') { "B" } else { "A" };
    let forged = format!("{number}.{flipped}{}", &mac[1..]);
    assert_eq!(
        house.outcome(&mut theirs, &forged, SAID, NOW),
        "session-proof"
    );
    for text in [
        "",
        ".",
        "1",
        &format!("1.{mac}="),
        &format!("+1.{mac}"),
        &format!("-1.{mac}"),
        &format!(" 1.{mac}"),
        &format!("1.{}", &mac[1..]),
        &format!("1.{mac}.1"),
        &format!("99999999999999999999.{mac}"),
        &format!("{}1.{mac}", "0".repeat(40)),
    ] {
        let code = house.outcome(&mut theirs, text, SAID, NOW);
        assert_eq!(code, "malformed-session-proof", "{text}");
    }
    assert_eq!(house.outcome(&mut theirs, &proof, SAID, NOW), "run-42");
}

#[test]
fn a_session_is_worth_as_much_as_the_token_that_opened_it() {
    let house = House::new();
    let credential = house.credential();
    let (mut ours, mut theirs) = house.open(&credential);
    let proof = credential.next(&mut ours, SAID).unwrap();
    let late = NOW.plus_ms(TOKEN_LIFE_MS);
    assert_eq!(
        house.outcome(&mut theirs, &proof, SAID, late),
        "token-expired"
    );
    // With a new token the launcher begins anew.
    credential.renew(house.token(credential.key()));
    assert_eq!(credential.next(&mut ours, SAID), None);
    let (mut ours, mut theirs) = house.open(&credential);
    let proof = credential.next(&mut ours, SAID).unwrap();
    assert_eq!(house.outcome(&mut theirs, &proof, SAID, NOW), "run-42");
}

#[test]
fn nobody_but_the_runs_key_can_offer_a_share() {
    let house = House::new();
    let credential = house.credential();
    let (headers, _) = credential.opening("GET", URL, NOW).unwrap();
    let (honest, mine) = (
        &headers[1].1,
        Offer::new(*credential.key().thumbprint()).unwrap(),
    );
    // The claims with another share in them, under the signature over the first.
    let parts: Vec<&str> = honest.expose().split('.').collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let begin = claims.find("\"session\":\"").unwrap() + "\"session\":\"".len();
    let altered = format!(
        "{}{}{}",
        &claims[..begin],
        mine.share(),
        &claims[begin + 43..]
    );
    let forged = format!(
        "{}.{}.{}",
        parts[0],
        URL_SAFE_NO_PAD.encode(altered),
        parts[2]
    );
    let call = Call {
        method: "GET",
        url: URL,
    };
    let refused = house.authenticate([headers[0].1.expose(), &forged], call, NOW);
    assert_eq!(refused.unwrap_err().code, "dpop-proof-signature");
}

#[test]
fn shares_that_are_none_open_nothing() {
    let house = House::new();
    let credential = house.credential();
    for share in [
        "",
        "short",
        &"A".repeat(42),
        &"A".repeat(44),
        &"*".repeat(43),
    ] {
        let (_, opening) = credential.opening("GET", URL, NOW).unwrap();
        let refused = opening.accept(share).map(|_| ()).unwrap_err();
        assert_eq!(refused.code, "malformed-session-share", "{share}");
    }
    // A point of small order would make a key that everybody knows.
    let zero = "A".repeat(43);
    let (_, opening) = credential.opening("GET", URL, NOW).unwrap();
    assert_eq!(
        opening.accept(&zero).map(|_| ()).unwrap_err().code,
        "session-share"
    );
    let (headers, _) = credential.opening("GET", URL, NOW).unwrap();
    let mut caller = house.caller(&headers, URL);
    caller.proof.session = Some(zero.parse().unwrap());
    assert_eq!(
        Session::open(&caller).map(|_| ()).unwrap_err().code,
        "session-share"
    );
    // A share that somebody put in the answer's place leaves both halves with different keys.
    let (headers, opening) = credential.opening("GET", URL, NOW).unwrap();
    let (mut theirs, _) = Session::open(&house.caller(&headers, URL))
        .unwrap()
        .unwrap();
    let other = Offer::new(*credential.key().thumbprint()).unwrap().share();
    let mut ours = opening.accept(&other.to_string()).unwrap();
    let proof = credential.next(&mut ours, SAID).unwrap();
    assert_eq!(
        house.outcome(&mut theirs, &proof, SAID, NOW),
        "session-proof"
    );
    // Without an offer there is no session.
    let plain = credential.headers("GET", URL, NOW).unwrap();
    assert!(Session::open(&house.caller(&plain, URL)).unwrap().is_none());
}
