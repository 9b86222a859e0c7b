use portcullis_model::{RunId, Secret};
use serde_json::{Value, json};

use super::*;
use crate::client::RunKey;
use crate::house::{House, NOW, replay};

const URL: &str = "https://gate.example/git/web/info/refs";

const fn call(url: &str) -> Call<'_> {
    Call { method: "GET", url }
}

impl House {
    fn code(&self, headers: [&str; 2], call: Call<'_>, now: Timestamp) -> String {
        match self.authenticate(headers, call, now) {
            Ok(_) => "ok".to_owned(),
            Err(refusal) => refusal.code,
        }
    }
}

#[test]
fn a_run_is_known_by_its_token_and_key_once_per_proof() {
    let house = House::new();
    let credential = house.credential();
    let [(name, authorization), (proof_name, proof)] = credential.headers("GET", URL, NOW).unwrap();
    assert_eq!((name, proof_name), ("authorization", "dpop"));
    let headers = [authorization.expose().as_str(), proof.expose().as_str()];
    let query = format!("{URL}?service=git-upload-pack");
    let caller = house.authenticate(headers, call(&query), NOW).unwrap();
    assert_eq!(caller.claims.run, RunId(42));
    assert_eq!(caller.proof.key, *credential.key().public());
    assert_eq!(house.code(headers, call(URL), NOW), "dpop-replayed");
    assert_eq!(
        house.code(headers, call(URL), NOW.plus_ms(20_000)),
        "dpop-replayed"
    );
    assert_eq!(
        house.code(headers, call(URL), NOW.plus_ms(21_000)),
        "dpop-stale"
    );
    // A run makes many requests; each has a proof of its own.
    let [_, (_, proof)] = credential.headers("GET", URL, NOW).unwrap();
    assert_eq!(
        house.code([headers[0], proof.expose()], call(URL), NOW),
        "ok"
    );
}

#[test]
fn a_refused_proof_is_not_remembered_and_costs_no_room() {
    let house = House::new();
    let credential = house.credential();
    let [(_, authorization), (_, proof)] = credential.headers("GET", URL, NOW).unwrap();
    let headers = [authorization.expose().as_str(), proof.expose().as_str()];
    let early = Timestamp::from_ms(NOW.as_ms() - 6_000);
    for (call, now, code) in [
        (
            Call {
                method: "POST",
                url: URL,
            },
            NOW,
            "dpop-target",
        ),
        (
            Call {
                method: "get",
                url: URL,
            },
            NOW,
            "dpop-target",
        ),
        (
            call("https://gate.example/git/web/info"),
            NOW,
            "dpop-target",
        ),
        (
            call("https://evil.example/git/web/info/refs"),
            NOW,
            "dpop-target",
        ),
        (
            call("http://gate.example/git/web/info/refs"),
            NOW,
            "dpop-target",
        ),
        (call(URL), NOW.plus_ms(21_000), "dpop-stale"),
        (call(URL), early, "dpop-future"),
    ] {
        assert_eq!(house.code(headers, call, now), code);
    }
    assert_eq!(house.replay.held(), 0);
    assert_eq!(house.code(headers, call(URL), NOW), "ok");
    let late = NOW.plus_ms(600_000);
    assert_eq!(house.code(headers, call(URL), late), "token-expired");
}

#[test]
fn a_stolen_token_is_worth_nothing_without_its_key() {
    let house = House::new();
    let (victim, thief) = (house.credential(), house.credential());
    let [(_, stolen), (_, victims_proof)] = victim.headers("GET", URL, NOW).unwrap();
    let [(_, own), (_, proof)] = thief.headers("GET", URL, NOW).unwrap();
    // The thief's proof is for the thief's token; also one made for the stolen token fails.
    assert_eq!(
        house.code([stolen.expose(), proof.expose()], call(URL), NOW),
        "dpop-token"
    );
    let token = stolen.expose().strip_prefix("DPoP ").unwrap().to_owned();
    let forged = RunKey::generate()
        .unwrap()
        .with_token(Secret::new(token.clone()));
    let [_, (_, proof)] = forged.headers("GET", URL, NOW).unwrap();
    assert_eq!(
        house.code([stolen.expose(), proof.expose()], call(URL), NOW),
        "dpop-key"
    );
    assert_eq!(
        house.code([own.expose(), victims_proof.expose()], call(URL), NOW),
        "dpop-token"
    );
    // A proof of possession from the start request is none for a call.
    let start = RunKey::generate()
        .unwrap()
        .possession("GET", URL, NOW)
        .unwrap()
        .1;
    assert_eq!(
        house.code([stolen.expose(), start.expose()], call(URL), NOW),
        "dpop-token"
    );
    // And the token alone, under the scheme of bearers, is none either.
    let bearer = format!("Bearer {token}");
    assert_eq!(
        house.code([&bearer, victims_proof.expose()], call(URL), NOW),
        "dpop-missing"
    );
    assert_eq!(
        house.code([&token, victims_proof.expose()], call(URL), NOW),
        "dpop-missing"
    );
}

#[test]
fn possession_is_proved_before_there_is_a_token() {
    let (key, replay) = (RunKey::generate().unwrap(), replay());
    let url = "https://gate.example/runs";
    let (name, proof) = key.possession("POST", url, NOW).unwrap();
    assert_eq!(name, "dpop");
    let start = Call {
        method: "POST",
        url,
    };
    let bound = *key.thumbprint();
    let stranger = *P256Key::generate().unwrap().public().thumbprint();
    let refusal = verify_possession(&replay, proof.expose(), start, &stranger, NOW).unwrap_err();
    assert_eq!(refusal.code, "dpop-key");
    let proved = verify_possession(&replay, proof.expose(), start, &bound, NOW).unwrap();
    assert_eq!(proved.key, *key.public());
    let again = verify_possession(&replay, proof.expose(), start, &bound, NOW).unwrap_err();
    assert_eq!(again.code, "dpop-replayed");
    let [_, (_, other)] = key
        .with_token(Secret::new("token".to_owned()))
        .headers("POST", url, NOW)
        .unwrap();
    let refusal = verify_possession(&replay, other.expose(), start, &bound, NOW).unwrap_err();
    assert_eq!(refusal.code, "dpop-token");
}

/// The code for a proof of which one part was changed and the whole signed by its own key.
fn resigned(change: impl Fn(&mut Value, &mut Value)) -> String {
    let key = P256Key::generate().unwrap();
    let mut header = json!({
        "alg": "ES256", "typ": "dpop+jwt", "jwk": serde_json::to_value(key.public()).unwrap()
    });
    let mut claims = json!({
        "htm": "GET", "htu": URL, "iat": NOW.as_ms() / 1_000, "jti": "0123456789abcdef"
    });
    change(&mut header, &mut claims);
    let text = jws::sign(&key, &header, &claims).unwrap();
    let bound = serde_json::from_value(header["jwk"].clone())
        .map_or(*key.public().thumbprint(), |key: P256PublicKey| {
            *key.thumbprint()
        });
    match verify_possession(&replay(), &text, call(URL), &bound, NOW) {
        Ok(_) => "ok".to_owned(),
        Err(refusal) => refusal.code,
    }
}

#[test]
fn every_rule_of_the_form_is_kept() {
    assert_eq!(resigned(|_, _| {}), "ok");
    let header =
        |name: &'static str, value: Value| resigned(move |header, _| header[name] = value.clone());
    let claim =
        |name: &'static str, value: Value| resigned(move |_, claims| claims[name] = value.clone());
    for algorithm in ["none", "HS256", "ES384"] {
        assert_eq!(header("alg", json!(algorithm)), "dpop-proof-algorithm");
    }
    assert_eq!(header("typ", json!("JWT")), "malformed-dpop-proof");
    assert_eq!(header("kid", json!("x")), "malformed-dpop-proof");
    assert_eq!(
        header("jwk", json!({"kty": "oct", "k": "AA"})),
        "malformed-dpop-proof"
    );
    let other = P256Key::generate().unwrap();
    let other = serde_json::to_value(other.public()).unwrap();
    assert_eq!(header("jwk", other), "dpop-proof-signature");
    assert_eq!(
        resigned(|header, _| header["jwk"]["d"] = json!("AA")),
        "malformed-dpop-proof"
    );
    assert_eq!(claim("jti", json!("")), "malformed-dpop-proof");
    assert_eq!(claim("jti", json!("x".repeat(129))), "malformed-dpop-proof");
    assert_eq!(claim("htu", json!("/git")), "malformed-url");
    assert_eq!(claim("iat", json!(u64::MAX)), "dpop-future");
    assert_eq!(claim("iat", json!("1")), "malformed-dpop-proof");
    assert_eq!(claim("extra", json!(1)), "malformed-dpop-proof");
    assert_eq!(claim("nonce", json!("x")), "malformed-dpop-proof");
    assert_eq!(claim("ath", json!("x")), "dpop-token");
}

#[test]
fn a_signature_in_its_other_form_is_still_the_same_proof() {
    // ECDSA lets anyone turn (r, s) into (r, n - s); the memory must not be keyed by the text.
    let (key, replay) = (RunKey::generate().unwrap(), replay());
    let proof = key.possession("GET", URL, NOW).unwrap().1;
    let (signed, signature) = proof.expose().rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let order = portcullis_model::digest::decode_hex(
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    )
    .unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i16::from(order[at]) - i16::from(bytes[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        bytes[32 + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    let twin = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes));
    assert!(verify_possession(&replay, proof.expose(), call(URL), key.thumbprint(), NOW).is_ok());
    let refusal = verify_possession(&replay, &twin, call(URL), key.thumbprint(), NOW).unwrap_err();
    assert_eq!(refusal.code, "dpop-replayed");
}

#[test]
fn the_example_of_the_rfc_is_read() {
    // RFC 9449 §4.1, figure 2; made at 1562262616.
    let proof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
    let token_call = Call {
        method: "POST",
        url: "https://server.example.com/token",
    };
    let then = Timestamp::from_ms(1_562_262_616_000);
    let bound = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
        .parse()
        .unwrap();
    let proved = verify_possession(&replay(), proof, token_call, &bound, then).unwrap();
    assert_eq!(proved.id, "-BwC3ESc6acc2lTc");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}|[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{86}") {
        let bound = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".parse().unwrap();
        proptest::prop_assert!(verify_possession(&replay(), &text, call(URL), &bound, NOW).is_err());
    }
}
