//! The proof file of one entry: index, inclusion proof and the log's checkpoint in one small text,
//! enough to check offline that the log holds the entry.
//!
//! Source: c2sp.org/tlog-proof v1. By custom such files end in `.tlog-proof`.

#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_model::{Digest, LedgerIndex, Refusal};

use crate::checkpoint::{UnverifiedCheckpoint, VerifiedCheckpoint, parse_hash, parse_size};
use crate::merkle::{PROOF_MAX_HASHES, leaf_hash, verify_inclusion};
use crate::note::{NOTE_MAX_BYTES, VerifierKey};

/// Largest extra data in bytes, decoded. We write none.
pub const EXTRA_MAX_BYTES: usize = 64 * 1024;
/// Largest proof file in bytes.
pub const TLOG_PROOF_MAX_BYTES: usize = NOTE_MAX_BYTES + EXTRA_MAX_BYTES * 2;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// A proof that was read or made; nothing of it is checked but its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedProof {
    /// Opaque data that nothing authenticates; never act on it.
    pub untrusted_extra: Option<Vec<u8>>,
    /// Position of the entry.
    pub index: LedgerIndex,
    /// Sibling hashes from the leaf up.
    pub hashes: Vec<Digest>,
    /// The log's checkpoint.
    pub checkpoint: UnverifiedCheckpoint,
}

/// Proof that a log holds an entry: made by [`UnverifiedProof::verify`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEntry {
    index: LedgerIndex,
    leaf: Digest,
    checkpoint: VerifiedCheckpoint,
}

impl UnverifiedProof {
    /// Reads a proof file.
    ///
    /// # Errors
    /// Longer than [`TLOG_PROOF_MAX_BYTES`] or any departure from the format.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > TLOG_PROOF_MAX_BYTES {
            return Err(malformed("a file that is too large"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("bytes that are not UTF-8"))?;
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or_else(|| malformed("no empty line before the checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(FIRST_LINE) {
            return Err(malformed("another first line"));
        }
        let untrusted_extra = lines
            .next_if(|line| line.starts_with("extra "))
            .map(parse_extra)
            .transpose()?;
        let index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(parse_size)
            .ok_or_else(|| malformed("no line with the index"))?;
        let hashes: Vec<Digest> = lines
            .take(PROOF_MAX_HASHES + 1)
            .map(|line| parse_hash(line).ok_or_else(|| malformed("a line that is not a hash")))
            .collect::<Result<_, _>>()?;
        if hashes.len() > PROOF_MAX_HASHES {
            return Err(malformed("more hashes than a tree has levels"));
        }
        Ok(Self {
            untrusted_extra,
            index,
            hashes,
            checkpoint: UnverifiedCheckpoint::parse(checkpoint.as_bytes())?,
        })
    }

    /// Checks that the log whose key is `log_key` holds exactly the bytes `entry`.
    ///
    /// # Errors
    /// The checkpoint isn't that log's, or the hashes don't lead from the entry to its root.
    pub fn verify(&self, entry: &[u8], log_key: &VerifierKey) -> Result<LoggedEntry, Refusal> {
        let leaf = leaf_hash(entry);
        let checkpoint = self.checkpoint.verify(log_key)?;
        let claim = checkpoint.checkpoint();
        verify_inclusion(leaf, self.index, claim.size, &self.hashes, claim.root)?;
        Ok(LoggedEntry {
            index: self.index,
            leaf,
            checkpoint,
        })
    }
}

impl fmt::Display for UnverifiedProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = &self.untrusted_extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", STANDARD.encode(hash.as_bytes()))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

impl LoggedEntry {
    /// Where the entry stands.
    pub const fn index(&self) -> LedgerIndex {
        self.index
    }

    /// The entry's leaf hash.
    pub const fn leaf_hash(&self) -> Digest {
        self.leaf
    }

    /// The checkpoint that covers it.
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }
}

fn parse_extra(line: &str) -> Result<Vec<u8>, Refusal> {
    line.strip_prefix("extra ")
        .and_then(|base64| STANDARD.decode(base64).ok())
        .filter(|bytes| bytes.len() <= EXTRA_MAX_BYTES)
        .ok_or_else(|| malformed("extra data that is not base64, or too much of it"))
}

fn malformed(received: &str) -> Refusal {
    Refusal::malformed("ledger proof")
        .expected("c2sp.org/tlog-proof@v1: index, hashes, an empty line, a checkpoint")
        .received(received)
}
