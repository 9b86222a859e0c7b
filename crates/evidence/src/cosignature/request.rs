//! `add-checkpoint`: a log shows a witness its newest checkpoint, with the proof that it contains
//! the one that the witness saw last (c2sp.org/tlog-witness).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::{Digest, Refusal};

use crate::checkpoint::{UnverifiedCheckpoint, VerifiedCheckpoint, parse_hash, parse_size};
use crate::merkle::{empty_root, verify_consistency};
use crate::note::{
    NOTE_MAX_BYTES, NOTE_MAX_SIGNATURES, NoteSignature, VerifierKey, parse_signature,
};

/// Most hashes of the proof in a request (c2sp.org/tlog-witness).
const PROOF_MAX_LINES: usize = 63;
/// Largest request in bytes: the size, the proof, the checkpoint.
pub const ADD_CHECKPOINT_MAX_BYTES: usize = 32 + PROOF_MAX_LINES * 45 + NOTE_MAX_BYTES;
/// Largest answer in bytes: as many signature lines as a note takes.
pub const COSIGNATURES_MAX_BYTES: usize = NOTE_MAX_BYTES;
/// Content type of the answer that says what the witness saw last.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// A request; nothing of it is checked but its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// Size of the tree that the witness saw last, as the log believes.
    pub old_size: u64,
    /// Proof that the tree of that size is a prefix of the checkpoint's.
    pub proof: Vec<Digest>,
    /// The log's checkpoint.
    pub checkpoint: UnverifiedCheckpoint,
}

/// Why a witness does not cosign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessNo {
    /// 400: it can't be read, or the old size is larger than the new one.
    #[error("this is not an add-checkpoint request: {0}")]
    Malformed(String),
    /// 404: the witness was not told to watch this log.
    #[error("this witness does not watch the log {0}")]
    UnknownLog(String),
    /// 403: none of the log's keys signed the checkpoint.
    #[error("the log's key did not sign this checkpoint")]
    NotSigned,
    /// 409: the witness saw another size last.
    #[error("this witness saw {known} entries last")]
    Conflict {
        /// That size.
        known: u64,
    },
    /// 422: the proof does not lead from what the witness saw to the new checkpoint.
    #[error("the consistency proof does not hold")]
    Inconsistent,
}

impl AddCheckpoint {
    /// Reads a request.
    ///
    /// # Errors
    /// Longer than [`ADD_CHECKPOINT_MAX_BYTES`] or any departure from the format.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |received: &str| {
            Refusal::malformed("add-checkpoint request")
                .expected(
                    "old SIZE, proof lines, an empty line, a checkpoint (c2sp.org/tlog-witness)",
                )
                .received(received)
        };
        if bytes.len() > ADD_CHECKPOINT_MAX_BYTES {
            return Err(malformed("a request that is too large"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("bytes that are not UTF-8"))?;
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or_else(|| malformed("no empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(parse_size)
            .ok_or_else(|| malformed("no line with the old size"))?;
        let proof: Vec<Digest> = lines
            .take(PROOF_MAX_LINES + 1)
            .map(|line| parse_hash(line).ok_or_else(|| malformed("a line that is not a hash")))
            .collect::<Result<_, _>>()?;
        if proof.len() > PROOF_MAX_LINES {
            return Err(malformed("more hashes than a tree has levels"));
        }
        Ok(Self {
            old_size,
            proof,
            checkpoint: UnverifiedCheckpoint::parse(checkpoint.as_bytes())?,
        })
    }
}

/// The body of the request.
impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        for hash in &self.proof {
            writeln!(f, "{}", STANDARD.encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

/// A witness's decision: may it cosign, given the log's key and the checkpoint that it cosigned
/// last? Whoever calls this keeps what it answers, durably and in one step with the comparison,
/// before anything is signed.
///
/// # Errors
/// Why not.
pub fn judge(
    request: &AddCheckpoint,
    log: Option<&VerifierKey>,
    known: Option<(u64, Digest)>,
) -> Result<VerifiedCheckpoint, WitnessNo> {
    let claim = request.checkpoint.claim();
    let log = log
        .filter(|key| *key.name() == claim.origin)
        .ok_or_else(|| WitnessNo::UnknownLog(claim.origin.to_string()))?;
    let verified = request
        .checkpoint
        .verify(log)
        .map_err(|_| WitnessNo::NotSigned)?;
    if request.old_size > claim.size {
        return Err(WitnessNo::Malformed(
            "the old size is larger than the new one".to_owned(),
        ));
    }
    let (size, root) = known.unwrap_or((0, empty_root()));
    if request.old_size != size {
        return Err(WitnessNo::Conflict { known: size });
    }
    if claim.size == size && claim.root != root {
        return Err(WitnessNo::Conflict { known: size });
    }
    verify_consistency(size, root, claim.size, claim.root, &request.proof)
        .map_err(|_| WitnessNo::Inconsistent)?;
    Ok(verified)
}

/// Reads a witness's answer: signature lines.
///
/// # Errors
/// Too long, too many lines, or a line of another form.
pub fn parse_cosignatures(bytes: &[u8]) -> Result<Vec<NoteSignature>, Refusal> {
    let malformed = |received: &str| {
        Refusal::malformed("cosignature response")
            .expected("lines of `— name base64`, each with a newline (c2sp.org/tlog-witness)")
            .received(received)
    };
    if bytes.len() > COSIGNATURES_MAX_BYTES {
        return Err(malformed("an answer that is too large"));
    }
    let lines = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.strip_suffix('\n'))
        .ok_or_else(|| malformed("no text, or no newline at its end"))?;
    let signatures: Vec<NoteSignature> = lines
        .split('\n')
        .take(NOTE_MAX_SIGNATURES + 1)
        .map(parse_signature)
        .collect::<Result<_, _>>()?;
    if signatures.len() > NOTE_MAX_SIGNATURES {
        return Err(malformed("more signatures than a note takes"));
    }
    Ok(signatures)
}

/// Writes a witness's answer.
pub fn write_cosignatures(signatures: &[NoteSignature]) -> String {
    signatures
        .iter()
        .map(|signature| format!("{signature}\n"))
        .collect()
}

/// Reads the answer that says what the witness saw last.
///
/// # Errors
/// Not one decimal number and a newline.
pub fn parse_known_size(bytes: &[u8]) -> Result<u64, Refusal> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.strip_suffix('\n'))
        .and_then(parse_size)
        .ok_or_else(|| {
            Refusal::malformed("witness conflict")
                .expected("a size and a newline (text/x.tlog.size)")
                .received(&String::from_utf8_lossy(bytes))
        })
}
