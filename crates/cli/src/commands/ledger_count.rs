//! What a verification counts by itself, entry by entry: the tree, the fold, every signature.

use portcullis_evidence::chain::{Auditor, BlobLookup};
use portcullis_evidence::merkle::{Frontier, Node, leaf_hash};
use portcullis_evidence::tiles::TILE_HEIGHT;
use portcullis_flow::State;
use portcullis_model::{Body, Digest, Event, Fold as _, Refusal};
use serde::{Deserialize, Serialize};

use crate::commands::ledger_remote;
use crate::commands::ledger_verify::{Genesis, broken};

/// What was counted so far.
#[derive(Default)]
pub(crate) struct Count {
    frontier: Frontier,
    state: Option<State>,
    /// Every signature in every entry, checked again.
    pub(crate) audit: Audit,
}

/// Every signature in every entry, checked again against the keys that counted at that point.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Audit {
    auditor: Option<Auditor>,
    /// How many there were.
    pub(crate) signatures: u64,
    /// How many attestations stand beside the entries and were not given.
    pub(crate) missing: u64,
}

impl Audit {
    /// Takes the next entry.
    ///
    /// # Errors
    /// What does not hold of its signatures.
    pub(crate) fn take(&mut self, event: &Event, blob: &BlobLookup<'_>) -> Result<(), Refusal> {
        let audited = self
            .auditor
            .get_or_insert_with(Auditor::new)
            .take(event, blob)?;
        self.signatures += u64::from(audited.signature.is_some());
        self.missing += audited.missing.len() as u64;
        Ok(())
    }

    /// Whether somebody's approval of own work counted.
    pub(crate) fn self_approved(&self) -> bool {
        self.auditor.as_ref().is_some_and(Auditor::self_approved)
    }

    /// What a reader must know beside "it holds".
    pub(crate) fn says_of_itself(&self) -> String {
        let mut says = String::new();
        if self.self_approved() {
            says.push_str("\nself-approved: somebody's approval of own work counted");
        }
        if self.missing > 0 {
            says.push_str(&format!(
                "\n{} attestations stand beside the entries and were not looked at: verify with --home, or a bundle",
                self.missing
            ));
        }
        says
    }
}

impl Count {
    /// What was verified before.
    pub(crate) fn resumed(frontier: Frontier, state: State, audit: Audit) -> Self {
        Self {
            frontier,
            state: Some(state),
            audit,
        }
    }

    /// The tree so far.
    pub(crate) const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The fold so far.
    pub(crate) const fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Takes the next entry in; gives the hash over the bundle that it filled, if it did.
    ///
    /// # Errors
    /// What does not hold of it, with its index.
    pub(crate) fn take(
        &mut self,
        genesis: &Genesis,
        index: u64,
        bytes: &[u8],
        leaf: Digest,
    ) -> Result<Option<(Node, Digest)>, Refusal> {
        if index == 0 && bytes != genesis.bytes {
            return Err(broken("entry 0 is not the pinned genesis")
                .expected(&genesis.digest().to_string())
                .received(&Digest::of(bytes).to_string()));
        }
        let at = |refusal| ledger_remote::at_entry(index, refusal);
        let event = ledger_remote::event(index, bytes)?;
        let state = self.state.get_or_insert_with(State::empty);
        state.apply(&event).map_err(at)?;
        self.audit.take(&event, &|_| None).map_err(at)?;
        check_restored(&event, &self.frontier).map_err(at)?;
        append(&mut self.frontier, leaf)
    }
}

/// Appends to a tree; gives the hash over the bundle that the leaf filled, if it did.
fn append(frontier: &mut Frontier, leaf: Digest) -> Result<Option<(Node, Digest)>, Refusal> {
    let completed = frontier
        .append(leaf)
        .map_err(|error| broken(&error.to_string()))?;
    Ok(completed
        .into_iter()
        .find(|(node, _)| node.level == TILE_HEIGHT))
}

/// The tree beside entries that somebody else folds.
#[derive(Default)]
pub(crate) struct Beside {
    /// The tree so far.
    pub(crate) frontier: Frontier,
    /// Every signature so far.
    pub(crate) audit: Audit,
}

impl Beside {
    /// Takes the next entry.
    ///
    /// # Errors
    /// What does not hold of it, with its index.
    pub(crate) fn take(&mut self, event: &Event, blob: &BlobLookup<'_>) -> Result<(), Refusal> {
        let at = |refusal| ledger_remote::at_entry(event.index, refusal);
        self.audit.take(event, blob).map_err(at)?;
        check_restored(event, &self.frontier).map_err(at)?;
        append(&mut self.frontier, leaf_hash(&event.encode()?)).map(drop)
    }
}

/// Whoever let the ledger go on from a copy signed which one: it is what stands before the entry.
fn check_restored(event: &Event, before: &Frontier) -> Result<(), Refusal> {
    let Body::LedgerRestored(body) = &event.body else {
        return Ok(());
    };
    let from = &body.restoration.from;
    if (from.size, from.root) == (before.size(), before.root()) {
        return Ok(());
    }
    Err(
        broken("the copy that the ledger went on from is not the one that was signed")
            .expected(&format!("{} entries with root {}", from.size, from.root))
            .received(&format!(
                "{} entries with root {}",
                before.size(),
                before.root()
            )),
    )
}
