//! Proof of possession per request (DPoP, RFC 9449): each request carries a short JWT, signed by
//! the run's key, over its method, its URL, the time and the token that it goes with.
//!
//! Cheap checks come first and the signature near the end, so that nonsense costs little; the
//! replay memory comes last, so that only proofs that hold take room in it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_model::{Digest, Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use crate::jws::{self, UnverifiedJws};
use crate::key::{P256Key, P256PublicKey, Thumbprint, random_text};
use crate::replay::ReplayCache;
use crate::session::Share;
use crate::token::{Claims, TokenVerifier};

mod target;

pub use target::{URL_MAX_BYTES, normalise_url};

/// Largest proof in bytes: the longest URL, the key, the digests, in base64.
pub const PROOF_MAX_BYTES: usize = 8 * 1024;
/// How old a proof may be, in seconds: a slow network, no more. The replay memory holds as much.
pub const PROOF_MAX_AGE_S: u64 = 20;
/// How far ahead of our clock a proof may be made, in seconds: hosts kept by NTP are closer.
pub const PROOF_MAX_AHEAD_S: u64 = 5;
/// Longest identifier of a proof in bytes; ours have 22.
pub const PROOF_ID_MAX_BYTES: usize = 128;

const WHAT: &str = "dpop proof";
const TYPE: &str = "dpop+jwt";
const SCHEME: &str = "DPoP ";

/// The request as the server received it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The HTTP method, in capitals.
    pub method: &'a str,
    /// The absolute URL under which the server is known, with the path of the request. A query
    /// and a fragment are left aside, as RFC 9449 §4.3 has it.
    pub url: &'a str,
}

/// The two headers of a request.
#[derive(Clone, Copy, Debug)]
pub struct UnverifiedHeaders<'a> {
    /// `Authorization`: `DPoP` and the token.
    pub authorization: &'a str,
    /// `DPoP`: the proof. A request with several such headers must be refused before this.
    pub dpop: &'a str,
}

/// A proof that held, and is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The key that made it.
    pub key: P256PublicKey,
    /// Its identifier.
    pub id: String,
    /// When it was made, in whole seconds.
    pub made: Timestamp,
    /// The launcher's share of a session's key, where it offers one.
    pub session: Option<Share>,
}

/// Who calls: a run that holds a valid token and has just proved its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What its token says.
    pub claims: Claims,
    /// Its proof for this call.
    pub proof: Proof,
}

/// Identifies the caller of one request: token and proof together.
///
/// # Errors
/// As [`TokenVerifier::verify`] and [`verify_call`]; `dpop-missing` when the authorization is not
/// of the scheme `DPoP`.
pub fn authenticate(
    verifier: &TokenVerifier,
    replay: &ReplayCache,
    headers: UnverifiedHeaders<'_>,
    call: Call<'_>,
    now: Timestamp,
) -> Result<Caller, Refusal> {
    let token = headers.authorization.strip_prefix(SCHEME).ok_or_else(|| {
        Refusal::denied("dpop-missing", "this request does not say who makes it")
            .expected("the headers `authorization: DPoP <token>` and `dpop: <proof>`")
    })?;
    let claims = verifier.verify(token, now)?;
    let proof = verify_call(replay, headers.dpop, call, token, &claims.cnf.jkt, now)?;
    Ok(Caller { claims, proof })
}

/// Verifies the proof that goes with a token already verified, whose text is `token` and whose
/// holder's key is `bound`.
///
/// # Errors
/// Not a proof of this form (`malformed-dpop-proof`), another algorithm (`dpop-proof-algorithm`),
/// another method or URL (`dpop-target`), too old (`dpop-stale`) or too new (`dpop-future`), for
/// another token (`dpop-token`), by another key (`dpop-key`), bad signature
/// (`dpop-proof-signature`), used before (`dpop-replayed`), memory full (`dpop-replay-full`,
/// `dpop-replay-holder-full`).
pub fn verify_call(
    replay: &ReplayCache,
    proof: &str,
    call: Call<'_>,
    token: &str,
    bound: &Thumbprint,
    now: Timestamp,
) -> Result<Proof, Refusal> {
    verify(replay, proof, call, Some(token), bound, now)
}

/// Verifies the proof in a request that asks for an identity, when there is no token yet.
/// `claimed` is the key that the request names and the identity is then bound to.
///
/// Anyone can make keys, and each key's proofs take room in `replay`. So verify the host's start
/// (its signed command), which names the same key, before this.
///
/// # Errors
/// As [`verify_call`]; a proof made to go with a token is refused (`dpop-token`).
pub fn verify_possession(
    replay: &ReplayCache,
    proof: &str,
    call: Call<'_>,
    claimed: &Thumbprint,
    now: Timestamp,
) -> Result<Proof, Refusal> {
    verify(replay, proof, call, None, claimed, now)
}

/// Makes a proof with `key` for one request, to go with `token` if there is one, and with the share
/// of a [session](crate::session) if one is offered.
///
/// # Errors
/// The URL is not an absolute `http` or `https` one, or the system gave no randomness.
pub fn create(
    key: &P256Key,
    call: Call<'_>,
    token: Option<&str>,
    session: Option<Share>,
    now: Timestamp,
) -> Result<String, Refusal> {
    let header = Header {
        alg: jws::ALGORITHM.to_owned(),
        jwk: key.public().clone(),
        typ: TYPE.to_owned(),
    };
    let claims = ProofClaims {
        ath: token.map(token_digest),
        htm: call.method.to_owned(),
        htu: normalise_url(call.url)?,
        iat: now.as_ms() / 1_000,
        jti: random_text()?,
        session,
    };
    jws::sign(key, &header, &claims)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    jwk: P256PublicKey,
    typ: String,
}

/// RFC 9449 §4.2, and our own `session`. We give out no server nonces, so the claim `nonce` is as
/// unknown as any other.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofClaims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    htm: String,
    htu: String,
    iat: u64,
    jti: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<Share>,
}

fn verify(
    replay: &ReplayCache,
    text: &str,
    call: Call<'_>,
    token: Option<&str>,
    bound: &Thumbprint,
    now: Timestamp,
) -> Result<Proof, Refusal> {
    let proof = UnverifiedJws::<Header, ProofClaims>::read(WHAT, text, PROOF_MAX_BYTES)?;
    jws::check_algorithm(WHAT, &proof.header.alg)?;
    if proof.header.typ != TYPE {
        return Err(Refusal::malformed(WHAT)
            .expected(&format!("typ {TYPE}"))
            .received(&proof.header.typ));
    }
    check_target(&proof.claims, call)?;
    check_time(proof.claims.iat, now)?;
    if proof.claims.ath != token.map(token_digest) {
        return Err(Refusal::denied(
            "dpop-token",
            "this proof was made for another token than the one it came with",
        ));
    }
    if proof.header.jwk.thumbprint() != bound {
        return Err(Refusal::denied(
            "dpop-key",
            "this request is bound to another key than the one that proves it",
        )
        .expected(&bound.to_string())
        .received(&proof.header.jwk.thumbprint().to_string()));
    }
    let id = &proof.claims.jti;
    if id.is_empty() || id.len() > PROOF_ID_MAX_BYTES {
        return Err(Refusal::malformed(WHAT).expected("a jti of 1 to 128 bytes"));
    }
    let key = proof.header.jwk.clone();
    let (_, claims) = proof.verify(WHAT, &key)?;
    let last_second = claims.iat.saturating_add(PROOF_MAX_AGE_S);
    replay.insert(key.thumbprint(), &claims.jti, last_second, now)?;
    Ok(Proof {
        key,
        id: claims.jti,
        made: Timestamp::from_ms(claims.iat.saturating_mul(1_000)),
        session: claims.session,
    })
}

fn check_target(claims: &ProofClaims, call: Call<'_>) -> Result<(), Refusal> {
    let expected = normalise_url(call.url)?;
    if claims.htm == call.method && normalise_url(&claims.htu)? == expected {
        return Ok(());
    }
    Err(
        Refusal::denied("dpop-target", "this proof was made for another request")
            .expected(&format!("{} {expected}", call.method))
            .received(&format!("{} {}", claims.htm, claims.htu)),
    )
}

fn check_time(made_s: u64, now: Timestamp) -> Result<(), Refusal> {
    let now_s = now.as_ms() / 1_000;
    let refusal = |code: &str, message: &str| {
        Refusal::denied(code, message)
            .expected(&format!(
                "made between {PROOF_MAX_AGE_S} s ago and {PROOF_MAX_AHEAD_S} s from now"
            ))
            .received(&format!(
                "made at {made_s}, now {now_s} (seconds since 1970)"
            ))
            .next("set the clocks of both machines by NTP, make a new proof and repeat")
    };
    if made_s > now_s.saturating_add(PROOF_MAX_AHEAD_S) {
        Err(refusal("dpop-future", "this proof comes from the future"))
    } else if now_s > made_s.saturating_add(PROOF_MAX_AGE_S) {
        Err(refusal("dpop-stale", "this proof is too old"))
    } else {
        Ok(())
    }
}

/// `ath`: base64url of SHA-256 of the token's text (RFC 9449 §4.2).
fn token_digest(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Digest::of(token.as_bytes()).as_bytes())
}

#[cfg(test)]
mod tests;
