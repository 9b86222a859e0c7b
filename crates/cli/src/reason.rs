//! Reasons: said by a person, sent beside the command, named in it by digest.

use std::str::FromStr;

use portcullis_model::limits::REASON_MAX_BYTES;
use portcullis_model::{Digest, Refusal};

/// Why somebody does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason(String);

impl Reason {
    /// The text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// What a command names.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl FromStr for Reason {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text.trim().is_empty() || text.len() > REASON_MAX_BYTES {
            return Err(Refusal::malformed("reason")
                .expected(&format!("1 to {REASON_MAX_BYTES} bytes of text"))
                .received(&format!("{} bytes", text.len())));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The reason of commands that must have one.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Why {
    /// Why; whoever reads the ledger later sees it
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: Reason,
}
