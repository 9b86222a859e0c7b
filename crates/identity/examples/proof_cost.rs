//! What identifying a caller costs: `cargo run --release -p portcullis-identity --example
//! proof_cost`. Prints microseconds per operation on one core, beside a bare ES256 verification
//! on the same machine.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring program, not a part of the product"
)]

use std::time::Instant;

use portcullis_identity::dpop::{self, Call, PROOF_MAX_AGE_S, UnverifiedHeaders};
use portcullis_identity::svid::Authority;
use portcullis_identity::token::{TokenIssuer, TokenRequest, TokenVerifier};
use portcullis_identity::{P256Key, ReplayCache, ReplayLimits, RunKey, SpiffeId, TrustDomain};
use portcullis_model::{RunId, Timestamp};

const ROUNDS: u32 = 5_000;
const URL: &str = "https://gate.example/git/web/git-receive-pack";

fn main() {
    let now = Timestamp::from_ms(1_795_250_000_000);
    let domain: TrustDomain = "ship.example".parse().unwrap();
    let run = SpiffeId::run(&domain, &"fix-bot".parse().unwrap(), RunId(42));
    let issuer = TokenIssuer::new(domain.clone(), P256Key::generate().unwrap());
    let keys = vec![issuer.public().clone()];
    let verifier = TokenVerifier::new(domain.clone(), "https://gate.example", keys).unwrap();
    let key = RunKey::generate().unwrap();
    let public = key.public().clone();
    let request = TokenRequest {
        subject: &run,
        audience: "https://gate.example",
        holder: *key.thumbprint(),
        life_ms: 600_000,
    };
    let token = issuer.issue(&request, now).unwrap();
    let credential = key.with_token(token.text.clone());
    let call = Call {
        method: "POST",
        url: URL,
    };

    let bare = P256Key::generate().unwrap();
    let signature = bare.sign(b"message").unwrap();
    let yardstick = measure("ES256 verification alone", None, || {
        assert!(bare.public().verifies(b"message", &signature));
    });
    let mut headers = Vec::new();
    measure("headers made by the launcher", Some(yardstick), || {
        headers.push(credential.headers("POST", URL, now).unwrap());
    });
    for (what, with_token) in [
        ("proof verified, token kept verified", false),
        ("proof and token verified", true),
    ] {
        let limits = ReplayLimits::default();
        let replay = ReplayCache::new(limits, PROOF_MAX_AGE_S, Timestamp::from_ms(0));
        let mut next = headers.iter();
        measure(what, Some(yardstick), || {
            let [(_, authorization), (_, proof)] = next.next().unwrap();
            if with_token {
                let headers = UnverifiedHeaders {
                    authorization: authorization.expose(),
                    dpop: proof.expose(),
                };
                dpop::authenticate(&verifier, &replay, headers, call, now).unwrap();
            } else {
                let text = token.text.expose();
                let bound = &token.claims.cnf.jkt;
                verifier.check(&token.claims, now).unwrap();
                dpop::verify_call(&replay, proof.expose(), call, text, bound, now).unwrap();
            }
        });
    }
    let authority =
        Authority::create(domain, &P256Key::generate().unwrap(), 86_400_000, now).unwrap();
    measure("X.509-SVID issued", Some(yardstick), || {
        authority.issue(&run, &public, 600_000, now).unwrap();
    });
}

/// Runs `work` [`ROUNDS`] times; prints and returns microseconds per round.
fn measure(what: &str, yardstick: Option<f64>, mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        work();
    }
    let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    let ratio = yardstick.map_or_else(String::new, |bare| {
        format!(", {:.2} of a bare verification", each / bare)
    });
    println!(
        "{what}: {each:.1} µs, {:.0}/s on one core{ratio}",
        1e6 / each
    );
    each
}
