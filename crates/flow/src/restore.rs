//! The ledger goes on from an older copy of itself.
//!
//! Entries that were lost may have taken authority away: a run ended, a person's keys, a release
//! revoked. All of that is back. So the entry that says what is lost halts what agents do, in the
//! same fold, until people reset the breaker by their approvals.

use portcullis_model::event::LedgerRestored;
use portcullis_model::statement::{BreakerScope, Command, KnownBy, Restoration};
use portcullis_model::{Digest, Event, KeyClass, LedgerIndex, Refusal};
use serde::{Deserialize, Serialize};

use crate::breaker;
use crate::inventory::mismatch;
use crate::state::State;

/// A restoration that stands in the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    /// The entry.
    pub entry: LedgerIndex,
    /// What it says.
    pub restoration: Restoration,
}

impl State {
    /// The entry in which people signed that this point, which somebody knew, is lost.
    pub fn lost_by(&self, by: &KnownBy, size: u64, root: Option<&Digest>) -> Option<LedgerIndex> {
        self.restored
            .iter()
            .rev()
            .find(|restored| restored.restoration.names(by, size, root))
            .map(|restored| restored.entry)
    }
}

/// An administrator says so, right behind what the copy has.
pub(crate) fn restored(
    state: &mut State,
    event: &Event,
    body: &LedgerRestored,
) -> Result<(), Refusal> {
    let human = event.actor.require_human()?.clone();
    if !state.inventory.human(&human)?.manifest.administrator {
        return Err(Refusal::denied(
            "not-administrator",
            "only an administrator lets the ledger go on from a copy",
        )
        .received(human.as_str()));
    }
    let floor = state.genesis()?.key_floor.breaker_reset;
    let class = event.actor.key_class.unwrap_or(KeyClass::Software);
    if class < floor {
        return Err(
            Refusal::denied("key-class-too-low", "this takes a stronger key")
                .expected(&format!("a key of class {floor}"))
                .received(&class.to_string())
                .next("sign with another key: name it with --key FILE"),
        );
    }
    match state.take_command(event, &body.envelope)? {
        Command::RestoreLedger { restoration, why }
            if restoration == body.restoration && why == body.why => {}
        other => return Err(mismatch("restore-ledger with this range", &other)),
    }
    let restoration = &body.restoration;
    restoration.validate()?;
    let origin = &state.genesis()?.origin;
    if restoration.from.origin != *origin || restoration.from.size != event.index {
        return Err(Refusal::conflict(
            "restore-of-another-point",
            "what was signed is about another point than this",
        )
        .expected(&format!("{origin} with {} entries", event.index))
        .received(&format!(
            "{} with {} entries",
            restoration.from.origin, restoration.from.size
        )));
    }
    if !restoration.loses_nothing() {
        breaker::halt(state, event, &BreakerScope::Everywhere, false)?;
    }
    state.restored.push_back(Restored {
        entry: event.index,
        restoration: restoration.clone(),
    });
    Ok(())
}
