//! What others know of the ledger, compared with the copy.

use portcullis_gateway::http::plain::PlainClient;
use portcullis_model::statement::{EntryRange, KnownBy, KnownPoint, LedgerPoint, Restoration};
use portcullis_model::{Digest, Refusal};
use portcullis_server::witnesses::{Seen, seen};
use portcullis_store::SignedCheckpoint;

use super::stage::Staged;

/// What was found.
pub(super) struct Found {
    /// What a person signs.
    pub(super) restoration: Restoration,
    /// Who could not be asked, and why.
    pub(super) warnings: Vec<Refusal>,
}

/// The first entry that can be another: entry 0 is the genesis, which is the same.
const FIRST: u64 = 1;

/// Compares the copy with checkpoints that were held, with the directory that it replaces, and with
/// what the configured witnesses saw.
///
/// # Errors
/// A held checkpoint is not one of this log, or the copy can't be read.
pub(super) async fn compare(staged: &Staged, held: &[String]) -> Result<Found, Refusal> {
    let handle = staged.ledger.handle();
    let signed = handle.checkpoint();
    let from = LedgerPoint {
        origin: staged.key.name().to_string(),
        size: signed.size,
        root: signed.root,
    };
    let mut known = Vec::new();
    let mut warnings = Vec::new();
    // The first index at which an entry can be another, for each who knew of other entries.
    let mut parted: Vec<u64> = Vec::new();
    let agrees = |size: u64, root: &Digest| -> Result<bool, Refusal> {
        Ok(size > from.size || handle.root(size)? == *root)
    };

    let mut shared = None;
    if let Some(replaced) = &staged.replaced {
        match replaced
            .extent()
            .and_then(|extent| Ok((extent, replaced.shared_with(&handle)?)))
        {
            Ok((extent, same)) => {
                shared = Some(same);
                if same < extent.size.min(from.size) {
                    parted.push(same);
                }
                known.push(KnownPoint {
                    by: KnownBy::Replaced,
                    size: extent.size,
                    root: extent.root,
                });
            }
            Err(refusal) => warnings.push(Refusal {
                message: format!(
                    "what the replaced directory has can't be told: {}",
                    refusal.message
                ),
                ..refusal
            }),
        }
    }
    for note in held {
        let held = SignedCheckpoint::verify(note, &staged.key)?;
        let in_replaced = match &staged.replaced {
            Some(replaced) => replaced.has(held.size, &held.root).unwrap_or(false),
            None => false,
        };
        if !agrees(held.size, &held.root)? {
            // Where it is the replaced directory's own, it parts from the copy where that does.
            parted.push(shared.filter(|_| in_replaced).unwrap_or(FIRST));
        }
        let point = KnownPoint {
            by: KnownBy::Held,
            size: held.size,
            root: Some(held.root),
        };
        if !known.contains(&point) {
            known.push(point);
        }
    }
    let client = PlainClient::new(staged.config.extra_authorities.as_deref())?;
    for witness in &staged.config.log.witnesses {
        let key: portcullis_evidence::cosignature::WitnessKey = witness.key.parse()?;
        let size = match seen(&client, witness, &signed.note).await {
            Ok(Seen::This) => from.size,
            Ok(Seen::Entries(size)) => size,
            Ok(Seen::Another) => {
                parted.push(FIRST);
                from.size
            }
            Err(refusal) => {
                warnings.push(Refusal {
                    message: format!("{} could not be asked: {}", key.name(), refusal.message),
                    ..refusal
                });
                continue;
            }
        };
        known.push(KnownPoint {
            by: KnownBy::Witness(key.name().to_string()),
            size,
            root: None,
        });
    }
    let newest = known.iter().map(|point| point.size).max().unwrap_or(0);
    let parted = parted.into_iter().min();
    let lost = (newest > from.size || parted.is_some())
        .then(|| {
            Some(EntryRange {
                from: parted.unwrap_or(from.size).min(from.size),
                to: newest.checked_sub(1)?,
            })
        })
        .flatten();
    let restoration = Restoration { from, known, lost };
    restoration.validate()?;
    Ok(Found {
        restoration,
        warnings,
    })
}
