use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const AUDIENCE: &str = "https://gate.example";
const NOW: Timestamp = Timestamp::from_ms(1_795_250_000_000);

struct House {
    domain: TrustDomain,
    issuer: TokenIssuer,
    verifier: TokenVerifier,
    run: SpiffeId,
    holder: Thumbprint,
}

fn house() -> House {
    let domain: TrustDomain = "ship.example".parse().unwrap();
    let issuer = TokenIssuer::new(domain.clone(), P256Key::generate().unwrap());
    let keys = vec![
        P256Key::generate().unwrap().public().clone(),
        issuer.public().clone(),
    ];
    House {
        verifier: TokenVerifier::new(domain.clone(), AUDIENCE, keys).unwrap(),
        run: SpiffeId::run(&domain, &"fix-bot".parse().unwrap(), RunId(42)),
        holder: *P256Key::generate().unwrap().public().thumbprint(),
        issuer,
        domain,
    }
}

impl House {
    fn request(&self) -> TokenRequest<'_> {
        TokenRequest {
            subject: &self.run,
            audience: AUDIENCE,
            holder: self.holder,
            life_ms: 600_000,
        }
    }

    fn issue(&self) -> IssuedToken {
        self.issuer.issue(&self.request(), NOW).unwrap()
    }

    fn code(&self, text: &str, now: Timestamp) -> String {
        match self.verifier.verify(text, now) {
            Ok(_) => "ok".to_owned(),
            Err(refusal) => refusal.code,
        }
    }

    /// The code for a token whose header and claims were changed and signed again by the issuer.
    fn resigned(&self, change: impl Fn(&mut Value, &mut Value)) -> String {
        let mut claims = serde_json::to_value(self.issue().claims).unwrap();
        let mut header = json!({
            "alg": "ES256", "typ": "JWT", "kid": self.issuer.public().thumbprint().to_string()
        });
        change(&mut header, &mut claims);
        self.code(&jws::sign(&self.issuer.key, &header, &claims).unwrap(), NOW)
    }
}

#[test]
fn what_was_issued_verifies_until_it_expires() {
    let house = house();
    let token = house.issue();
    assert_eq!(
        house.verifier.verify(token.text.expose(), NOW).unwrap(),
        token.claims
    );
    assert_eq!(token.claims.holder(), &house.run);
    assert_eq!(token.claims.expires(), NOW.plus_ms(600_000));
    let text = token.text.expose();
    assert_eq!(house.code(text, NOW.plus_ms(599_999)), "ok");
    assert_eq!(house.code(text, NOW.plus_ms(600_000)), "token-expired");
    assert_eq!(
        house.code(text, Timestamp::from_ms(NOW.as_ms() - 10_001)),
        "token-time"
    );
    assert!(!format!("{token:?}").contains(text));
}

#[test]
fn other_algorithms_types_and_keys_are_refused() {
    let house = house();
    assert_eq!(house.resigned(|_, _| {}), "ok");
    for algorithm in ["none", "HS256", "RS256", "es256", ""] {
        let code = house.resigned(|header, _| header["alg"] = json!(algorithm));
        assert_eq!(code, "token-algorithm", "{algorithm}");
    }
    let code = house.resigned(|header, _| header["typ"] = json!("dpop+jwt"));
    assert_eq!(code, "malformed-token");
    let code = house.resigned(|header, _| header["crit"] = json!(["b64"]));
    assert_eq!(code, "malformed-token");
    let code = house.resigned(|header, _| header["kid"] = json!(house.holder.to_string()));
    assert_eq!(code, "token-key");

    // HMAC with the public key as the secret, and no signature at all.
    let text = house.issue().text;
    let (signed, _) = text.expose().rsplit_once('.').unwrap();
    let mac = aws_lc_rs::hmac::sign(
        &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, house.issuer.public().point()),
        signed.as_bytes(),
    );
    for signature in [URL_SAFE_NO_PAD.encode(mac), String::new(), "A".repeat(86)] {
        assert_ne!(house.code(&format!("{signed}.{signature}"), NOW), "ok");
    }
    // Somebody else's signature under our key id.
    let other = TokenIssuer::new(house.domain.clone(), P256Key::generate().unwrap());
    let header = json!({"alg": "ES256", "typ": "JWT",
        "kid": house.issuer.public().thumbprint().to_string()});
    let forged = jws::sign(&other.key, &header, &house.issue().claims).unwrap();
    assert_eq!(house.code(&forged, NOW), "token-signature");
    let foreign = other.issue(&house.request(), NOW).unwrap();
    assert_eq!(house.code(foreign.text.expose(), NOW), "token-key");
}

#[test]
fn claims_that_do_not_fit_are_refused_though_signed() {
    let house = house();
    let with = |name: &'static str, value: Value| {
        house.resigned(move |_, claims| claims[name] = value.clone())
    };
    let iat = NOW.as_ms() / 1_000;
    assert_eq!(
        with("aud", json!(["https://other.example"])),
        "token-audience"
    );
    assert_eq!(
        with("aud", json!([AUDIENCE, "https://b"])),
        "malformed-token"
    );
    assert_eq!(with("aud", json!(AUDIENCE)), "malformed-token");
    assert_eq!(
        with("iss", json!("spiffe://other.example")),
        "token-trust-domain"
    );
    assert_eq!(
        with("iss", json!("spiffe://ship.example/x")),
        "token-trust-domain"
    );
    assert_eq!(
        with(
            "sub",
            json!("spiffe://other.example/agent/fix-bot/run/run-42")
        ),
        "token-trust-domain"
    );
    assert_eq!(
        with("sub", json!("spiffe://ship.example/service/ci")),
        "token-subject"
    );
    assert_eq!(with("run", json!("run-43")), "token-subject");
    assert_eq!(
        with("act", json!({"sub": "spiffe://other.example/x"})),
        "token-trust-domain"
    );
    assert_eq!(with("iat", json!(iat + 11)), "token-time");
    assert_eq!(with("exp", json!(iat + 3_601)), "token-time");
    assert_eq!(with("exp", json!(u64::MAX)), "token-time");
    assert_eq!(with("exp", json!(iat)), "token-expired");
    assert_eq!(with("exp", json!(-1)), "malformed-token");
    assert_eq!(with("cnf", json!({})), "malformed-token");
    assert_eq!(with("cnf", json!({"jkt": "short"})), "malformed-token");
    assert_eq!(with("admin", json!(true)), "malformed-token");
}

#[test]
fn an_exchange_lengthens_the_chain_and_nothing_else() {
    let house = house();
    let first = house.issue().claims;
    let tool: SpiffeId = "spiffe://ship.example/service/tool".parse().unwrap();
    let key = *P256Key::generate().unwrap().public().thumbprint();
    let request = TokenRequest {
        holder: key,
        life_ms: TOKEN_MAX_LIFE_MS,
        ..house.request()
    };
    let mut claims = house
        .issuer
        .exchange(&first, &tool, &request, NOW)
        .unwrap()
        .claims;
    assert_eq!(
        (claims.sub.clone(), claims.run, claims.exp),
        (first.sub.clone(), first.run, first.exp)
    );
    assert_eq!(claims.holder(), &tool);
    assert_eq!(claims.cnf.jkt, key);
    for depth in 2..=ACT_MAX_DEPTH {
        let next = house
            .issuer
            .exchange(&claims, &tool, &request, NOW)
            .unwrap();
        assert_eq!(house.code(next.text.expose(), NOW), "ok", "{depth}");
        claims = next.claims;
    }
    assert_eq!(claims.actors().count(), ACT_MAX_DEPTH);
    let refusal = house
        .issuer
        .exchange(&claims, &tool, &request, NOW)
        .unwrap_err();
    assert_eq!(refusal.code, "token-chain");

    let other = SpiffeId::run(&house.domain, &"fix-bot".parse().unwrap(), RunId(43));
    let request = TokenRequest {
        subject: &other,
        ..request
    };
    let refusal = house
        .issuer
        .exchange(&first, &tool, &request, NOW)
        .unwrap_err();
    assert_eq!(refusal.code, "token-exchange-subject");
    let request = house.request();
    let late = NOW.plus_ms(600_000);
    assert_eq!(
        house
            .issuer
            .exchange(&first, &tool, &request, late)
            .unwrap_err()
            .code,
        "token-expired"
    );
}

#[test]
fn only_runs_of_this_domain_get_tokens_and_not_for_long() {
    let house = house();
    let id = |text: &str| text.parse::<SpiffeId>().unwrap();
    for subject in [
        "spiffe://ship.example/service/ci",
        "spiffe://b/agent/a/run/run-1",
    ] {
        let subject = id(subject);
        let request = TokenRequest {
            subject: &subject,
            ..house.request()
        };
        assert!(house.issuer.issue(&request, NOW).is_err(), "{subject}");
    }
    for life_ms in [0, 999, TOKEN_MAX_LIFE_MS + 1] {
        let request = TokenRequest {
            life_ms,
            ..house.request()
        };
        assert_eq!(
            house.issuer.issue(&request, NOW).unwrap_err().code,
            "token-life"
        );
    }
}

#[test]
fn an_independent_library_agrees_in_both_directions() {
    let house = house();
    let token = house.issue();
    let jwk = serde_json::from_value(serde_json::to_value(house.issuer.public()).unwrap()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    rules.set_audience(&[AUDIENCE]);
    rules.validate_exp = false;
    let read = jsonwebtoken::decode::<Claims>(token.text.expose(), &key, &rules).unwrap();
    assert_eq!(read.claims, token.claims);

    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some(house.issuer.public().thumbprint().to_string());
    let key = jsonwebtoken::EncodingKey::from_ec_der(house.issuer.key.pkcs8().expose());
    let text = jsonwebtoken::encode(&header, &token.claims, &key).unwrap();
    assert_eq!(house.verifier.verify(&text, NOW).unwrap(), token.claims);
}

#[test]
fn large_deep_and_repeated_input_is_refused() {
    let house = house();
    assert_eq!(
        house.code(&"a".repeat(TOKEN_MAX_BYTES + 1), NOW),
        "malformed-token"
    );
    let mut deep = json!({"sub": "spiffe://ship.example/x"});
    for _ in 0..40 {
        deep = json!({"sub": "spiffe://ship.example/x", "act": deep});
    }
    let code = house.resigned(|_, claims| claims["act"] = deep.clone());
    assert_eq!(code, "token-chain");

    let token = house.issue();
    let parts: Vec<_> = token.text.expose().split('.').collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let twice = claims.replacen('{', r#"{"run":"run-42","#, 1);
    let signed = format!("{}.{}", parts[0], URL_SAFE_NO_PAD.encode(twice));
    let signature = URL_SAFE_NO_PAD.encode(house.issuer.key.sign(signed.as_bytes()).unwrap());
    assert_eq!(
        house.code(&format!("{signed}.{signature}"), NOW),
        "malformed-token"
    );
    for other in [
        format!("{}=", token.text.expose()),
        format!("{}.x", token.text.expose()),
        format!(" {}", token.text.expose()),
        token.text.expose().replace('.', ".."),
    ] {
        assert_eq!(house.code(&other, NOW), "malformed-token");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn one_changed_character_anywhere_is_refused(at in 0.0..1.0f64, to in "[A-Za-z0-9_.-]") {
        let house = house();
        let token = house.issue();
        let text = token.text.expose();
        #[expect(
            clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
            reason = "an index within a short text"
        )]
        let at = (at * text.len() as f64) as usize;
        let mut other = text.clone();
        other.replace_range(at..=at, &to);
        if other != *text {
            proptest::prop_assert_ne!(house.code(&other, NOW), "ok");
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let house = house();
        proptest::prop_assert_ne!(house.code(&text, NOW), "ok");
    }
}
