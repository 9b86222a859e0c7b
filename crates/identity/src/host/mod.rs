//! A host's word that it starts this task with this run key, so that a task file which starts on
//! one host is worth nothing on another, and worth nothing twice.
//!
//! The signature is over the DSSE v1 pre-authentication encoding of the statement's canonical
//! JSON under [`START_PAYLOAD_TYPE`]; so it is a DSSE signature, whoever writes the envelope.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::{HostId, PublicKey, Refusal, TaskId, Timestamp, canonical};
use serde::{Deserialize, Serialize};

use crate::key::{Ed25519Key, P256PublicKey, Thumbprint, ed25519_verifies, random_text};
use crate::spiffe::TrustDomain;

/// DSSE payload type of a [`StartStatement`].
pub const START_PAYLOAD_TYPE: &str = "application/vnd.portcullis.host-start.v1+json";
/// How old a start statement may be, in milliseconds: the time to send one request, twice over.
pub const START_MAX_AGE_MS: u64 = 60_000;
/// How far ahead of our clock a host's may be, in milliseconds.
pub const START_MAX_AHEAD_MS: u64 = 5_000;
/// Largest signed statement in bytes, before base64: its fields are all bounded names.
pub const START_MAX_BYTES: usize = 4 * 1024;
/// Longest nonce in bytes; ours have 22.
pub const NONCE_MAX_BYTES: usize = 64;

/// What the host says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartStatement {
    /// The host that speaks.
    pub host: HostId,
    /// A value that this host has never used before; the ledger refuses a second use.
    pub nonce: String,
    /// The key made for the run, by thumbprint.
    pub run_key: Thumbprint,
    /// The task, by the digest of its signed payload.
    pub task: TaskId,
    /// When the host said so.
    pub time: Timestamp,
    /// The trust domain in which the run is to live.
    pub trust_domain: TrustDomain,
}

impl StartStatement {
    /// A statement with a fresh nonce.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn new(
        trust_domain: TrustDomain,
        host: HostId,
        task: TaskId,
        run_key: Thumbprint,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            host,
            nonce: random_text()?,
            run_key,
            task,
            time: now,
            trust_domain,
        })
    }
}

/// A statement and its signature as they travel; nothing in it is known to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnverifiedStart {
    /// Base64 of the statement's canonical JSON.
    pub payload: String,
    /// Base64 of the host key's Ed25519 signature.
    pub signature: String,
}

/// What the server knows, against which a statement is held.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedStart<'a> {
    /// Its own trust domain.
    pub trust_domain: &'a TrustDomain,
    /// The host, as enrolled.
    pub host: &'a HostId,
    /// The key with which it was enrolled.
    pub host_key: &'a PublicKey,
    /// The task in the same request, after its own signature was verified.
    pub task: TaskId,
    /// The key that the same request names, and then proves
    /// ([`crate::dpop::verify_possession`]).
    pub run_key: &'a P256PublicKey,
}

/// Signs `statement` with the host's key.
///
/// # Errors
/// The statement does not serialise.
pub fn sign_start(
    key: &Ed25519Key,
    statement: &StartStatement,
) -> Result<UnverifiedStart, Refusal> {
    let payload = canonical::to_vec(statement)?;
    Ok(UnverifiedStart {
        signature: STANDARD.encode(key.sign(&pae(START_PAYLOAD_TYPE, &payload))),
        payload: STANDARD.encode(payload),
    })
}

/// The host a start claims to come from: to look up its enrolled key, and for nothing else.
///
/// # Errors
/// The payload is too large or no statement.
pub fn claimed_host(start: &UnverifiedStart) -> Result<HostId, Refusal> {
    read(start).map(|(_, statement)| statement.host)
}

/// The statement, if the enrolled host made it now, for this task and this key. Whether its nonce
/// was used before, the ledger says.
///
/// # Errors
/// Malformed or in another spelling (`malformed-host-start`); not signed by the enrolled key
/// (`host-start-signature`); another trust domain, host, task or key (`host-start-mismatch`); too
/// old (`host-start-stale`) or from the future (`host-start-future`).
pub fn verify_start(
    start: &UnverifiedStart,
    expected: &ExpectedStart<'_>,
    now: Timestamp,
) -> Result<StartStatement, Refusal> {
    let (payload, statement) = read(start)?;
    let signature = STANDARD
        .decode(&start.signature)
        .map_err(|_| malformed("the signature in base64"))?;
    if !ed25519_verifies(
        expected.host_key,
        &pae(START_PAYLOAD_TYPE, &payload),
        &signature,
    ) {
        return Err(Refusal::denied(
            "host-start-signature",
            format!(
                "this start is not signed by the enrolled key of host {}",
                expected.host
            ),
        )
        .expected(expected.host_key.fingerprint())
        .next("start on the host itself, or enrol its present key"));
    }
    for (what, expected, received) in [
        (
            "trust domain",
            expected.trust_domain.to_string(),
            statement.trust_domain.to_string(),
        ),
        (
            "host",
            expected.host.to_string(),
            statement.host.to_string(),
        ),
        (
            "task",
            expected.task.to_string(),
            statement.task.to_string(),
        ),
        (
            "run key",
            expected.run_key.thumbprint().to_string(),
            statement.run_key.to_string(),
        ),
    ] {
        if expected != received {
            return Err(Refusal::denied(
                "host-start-mismatch",
                format!("this host signed the start of another {what}"),
            )
            .expected(&expected)
            .received(&received));
        }
    }
    check_time(statement.time, now)?;
    Ok(statement)
}

/// DSSE v1 pre-authentication encoding: type and payload, each with its length, so that neither
/// can be read as part of the other.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

fn read(start: &UnverifiedStart) -> Result<(Vec<u8>, StartStatement), Refusal> {
    if start.payload.len() > START_MAX_BYTES.div_ceil(3) * 4 {
        return Err(malformed(&format!("at most {START_MAX_BYTES} bytes")));
    }
    let payload = STANDARD
        .decode(&start.payload)
        .map_err(|_| malformed("the statement in base64"))?;
    let statement: StartStatement = canonical::from_slice("host start", &payload)?;
    if statement.nonce.is_empty() || statement.nonce.len() > NONCE_MAX_BYTES {
        return Err(malformed("a nonce of 1 to 64 bytes"));
    }
    Ok((payload, statement))
}

fn check_time(made: Timestamp, now: Timestamp) -> Result<(), Refusal> {
    let refusal = |code: &str, message: &str| {
        Refusal::denied(code, message)
            .expected(&format!("made at about {now}"))
            .received(&made.to_string())
            .next("set the host's clock by NTP and start again")
    };
    if made > now.plus_ms(START_MAX_AHEAD_MS) {
        Err(refusal(
            "host-start-future",
            "this start comes from the future",
        ))
    } else if now.ms_since(made) > START_MAX_AGE_MS {
        Err(refusal("host-start-stale", "this start is too old"))
    } else {
        Ok(())
    }
}

fn malformed(expected: &str) -> Refusal {
    Refusal::malformed("host start").expected(expected)
}

#[cfg(test)]
mod tests;
