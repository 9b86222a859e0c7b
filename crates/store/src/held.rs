//! Whether a ledger still is what checkpoints kept elsewhere say that it was.
//!
//! A data directory that was copied back in time is whole and signed, and nothing inside it tells.
//! What tells is a checkpoint that was kept outside: a witness's, an auditor's, or the server's own
//! in a file on another disk.

use std::ops::Range;

use portcullis_model::{Fold, Refusal};

use crate::checkpoint::SignedCheckpoint;
use crate::handle::LedgerHandle;

/// How a held checkpoint contradicts a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// The ledger has fewer entries than were signed: the last ones are lost.
    Behind {
        /// What was signed.
        held: SignedCheckpoint,
        /// Entries that the ledger has.
        size: u64,
    },
    /// The ledger has other entries than were signed: it was behind, and was written on.
    Forked {
        /// What was signed.
        held: SignedCheckpoint,
    },
}

impl Contradiction {
    /// The checkpoint that says so.
    pub const fn held(&self) -> &SignedCheckpoint {
        match self {
            Self::Behind { held, .. } | Self::Forked { held } => held,
        }
    }

    /// Indexes among which entries are lost: all of these if the ledger is behind, and some of
    /// these if it is forked.
    pub const fn lost(&self) -> Range<u64> {
        match self {
            Self::Behind { held, size } => *size..held.size,
            Self::Forked { held } => 0..held.size,
        }
    }

    /// It in words, with what to do.
    pub fn refusal(&self) -> Refusal {
        let signed = self.held().size;
        match self {
            Self::Behind { size, .. } => Refusal::conflict(
                "ledger-restored",
                format!(
                    "the data directory went back in time: entries {size} to {} were signed and are not there",
                    signed.saturating_sub(1)
                ),
            )
            .expected(&format!("at least {signed} entries"))
            .received(&format!("{size} entries")),
            Self::Forked { held } => Refusal::conflict(
                "ledger-forked",
                format!(
                    "the data directory went back in time and was written on: its first {signed} entries are not those that were signed"
                ),
            )
            .expected(&format!("root {}", held.root))
            .received("another root"),
        }
        .next("stop the server and bring back the newer data directory, if there is one; otherwise look at what is lost, and reset the breaker by signature")
    }
}

impl<F: Fold> LedgerHandle<F> {
    /// Compares the ledger with checkpoints that were kept elsewhere, whose signatures were checked
    /// ([`SignedCheckpoint::verify`]). The gravest contradiction: a fork before a loss, and of
    /// several losses the largest.
    ///
    /// # Errors
    /// The database can't be read.
    pub fn contradiction<'a>(
        &self,
        held: impl IntoIterator<Item = &'a SignedCheckpoint>,
    ) -> Result<Option<Contradiction>, Refusal> {
        let size = self.checkpoint().size;
        let mut behind: Option<&SignedCheckpoint> = None;
        for held in held {
            if held.size > size {
                behind = behind
                    .filter(|other| other.size >= held.size)
                    .or(Some(held));
            } else if self.root(held.size)? != held.root {
                return Ok(Some(Contradiction::Forked { held: held.clone() }));
            }
        }
        Ok(behind.map(|held| Contradiction::Behind {
            held: held.clone(),
            size,
        }))
    }
}
