//! The event vocabulary: what the ledger says, version by version.
//!
//! An entry is {type, version, stream, actor, time, cause, mode, containment, body} in canonical
//! JSON; its bytes are the Merkle leaf. Written types are frozen: a change is a new version and an
//! upcaster in [`Event::decode`]. Reasons, texts and other bodies are blobs, named by digest.

mod body;

pub use body::*;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical;
use crate::id::LedgerIndex;
use crate::limits::ENTRY_MAX_BYTES;
use crate::principal::{Actor, Cause, Containment, Mode};
use crate::refusal::Refusal;
use crate::time::Timestamp;

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it stands. Not part of the bytes: the position in the log says it.
    pub index: LedgerIndex,
    /// When it was recorded, by the sequencer's clock. It never decides order.
    pub time: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What led to it.
    pub cause: Cause,
    /// Whether it was enforced.
    pub mode: Mode,
    /// How much we control of the run that it is about.
    pub containment: Option<Containment>,
    /// What happened.
    pub body: Body,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    r#type: String,
    version: u32,
    stream: String,
    time: Timestamp,
    actor: Actor,
    #[serde(default, skip_serializing_if = "is_default")]
    cause: Cause,
    #[serde(default, skip_serializing_if = "is_default")]
    mode: Mode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    containment: Option<Containment>,
    body: Value,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Event {
    /// The canonical bytes: the Merkle leaf.
    ///
    /// # Errors
    /// It is larger than [`ENTRY_MAX_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, Refusal> {
        let (r#type, version, body) = self.body.to_stored()?;
        let bytes = canonical::to_vec(&Stored {
            r#type,
            version,
            stream: self.body.stream(self.index),
            time: self.time,
            actor: self.actor.clone(),
            cause: self.cause.clone(),
            mode: self.mode,
            containment: self.containment,
            body,
        })?;
        if bytes.len() > ENTRY_MAX_BYTES {
            return Err(Refusal::limit("entry-too-large", "this entry is too large")
                .expected(&format!("at most {ENTRY_MAX_BYTES} bytes"))
                .received(&format!("{} bytes", bytes.len())));
        }
        Ok(bytes)
    }

    /// Reads an entry of any version ever written. `index` is its position.
    ///
    /// # Errors
    /// The type or version is unknown, or the bytes are not the canonical form of an event.
    pub fn decode(index: LedgerIndex, bytes: &[u8]) -> Result<Self, Refusal> {
        let stored: Stored = serde_json::from_slice(bytes)
            .map_err(|error| Refusal::malformed("ledger entry").received(&error.to_string()))?;
        let body = Body::from_stored(&stored.r#type, stored.version, stored.body)?;
        if stored.stream != body.stream(index) {
            return Err(Refusal::malformed("ledger entry")
                .expected(&format!("stream {}", body.stream(index)))
                .received(&stored.stream));
        }
        if stored.actor.kind != stored.actor.principal.kind() {
            return Err(Refusal::malformed("ledger entry")
                .expected("the kind that the principal has")
                .received(&format!(
                    "{} for {}",
                    stored.actor.kind, stored.actor.principal
                )));
        }
        let event = Self {
            index,
            time: stored.time,
            actor: stored.actor,
            cause: stored.cause,
            mode: stored.mode,
            containment: stored.containment,
            body,
        };
        // Values inside have other spellings too (a time with a small `z`); one event, one leaf.
        if event.encode()? != bytes {
            return Err(Refusal::malformed("ledger entry")
                .expected("the one canonical form of the event")
                .received("another spelling of the same values"));
        }
        Ok(event)
    }
}
