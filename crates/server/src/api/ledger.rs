//! The ledger, read: entries, checkpoint, proofs, and new entries as they come.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State as Shared};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use portcullis_evidence::checkpoint::UnverifiedCheckpoint;
use portcullis_evidence::tlog_proof::UnverifiedProof;
use portcullis_model::digest::encode_hex;
use portcullis_model::{LedgerIndex, Refusal};
use portcullis_store::Entry;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Problem};
use crate::app::App;

/// Most entries in one answer.
const ENTRIES_MAX: usize = 1_000;
/// Most clients that follow the ledger at once; each holds a connection and a page of entries.
pub(crate) const TAILS_MAX: usize = 256;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/ledger/entries", get(entries))
        .route("/v1/ledger/checkpoint", get(checkpoint))
        .route("/v1/ledger/proof/{index}", get(proof))
        .route("/v1/ledger/tail", get(tail))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    #[serde(default)]
    from: LedgerIndex,
    limit: Option<usize>,
}

async fn entries(Shared(app): Shared<Arc<App>>, Query(range): Query<Range>) -> Answer {
    let limit = range.limit.unwrap_or(ENTRIES_MAX).min(ENTRIES_MAX);
    let ledger = app.ledger.clone();
    let found = blocking(move || ledger.entries(range.from, limit)).await?;
    let size = app.ledger.size();
    let next = found
        .last()
        .map(|entry| entry.index + 1)
        .filter(|next| *next < size);
    let items: Vec<Value> = found.iter().map(shown).collect();
    Ok(axum::Json(
        json!({ "items": items, "next": next, "size": size }),
    ))
}

fn shown(entry: &Entry) -> Value {
    let document: Value = serde_json::from_slice(&entry.bytes).unwrap_or(Value::Null);
    let leaf = portcullis_evidence::merkle::leaf_hash(&entry.bytes);
    json!({ "index": entry.index, "entry": document, "leaf": encode_hex(leaf.as_bytes()) })
}

async fn checkpoint(Shared(app): Shared<Arc<App>>) -> Result<String, Problem> {
    Ok(app.ledger.checkpoint().note.clone())
}

/// A C2SP tlog-proof of one entry.
async fn proof(
    Shared(app): Shared<Arc<App>>,
    Path(index): Path<LedgerIndex>,
) -> Result<String, Problem> {
    let ledger = app.ledger.clone();
    let text = blocking(move || {
        let signed = ledger.checkpoint();
        let proof = UnverifiedProof {
            untrusted_extra: None,
            index,
            hashes: ledger.inclusion_proof(index, signed.size)?,
            checkpoint: UnverifiedCheckpoint::parse(signed.note.as_bytes())?,
        };
        Ok(proof.to_string())
    })
    .await?;
    Ok(text)
}

/// Every entry from an index on, as server-sent events; none is missed or sent twice. A client that
/// lost the connection says what it saw last (`last-event-id`, WHATWG HTML section 9.2) and gets what
/// follows; so does one that asks by `from`.
async fn tail(
    Shared(app): Shared<Arc<App>>,
    headers: HeaderMap,
    Query(range): Query<Range>,
) -> Result<Sse<impl Stream<Item = Result<Sent, Infallible>>>, Problem> {
    let from = match super::one_header(&headers, "last-event-id")? {
        None | Some("") => range.from,
        Some(last) => last
            .parse::<LedgerIndex>()
            .ok()
            .and_then(|last| last.checked_add(1))
            .ok_or_else(|| {
                Refusal::malformed("last-event-id")
                    .expected("the index of an entry")
                    .received(last)
            })?,
    };
    let slot = Arc::clone(&app.tails).try_acquire_owned().map_err(|_| {
        Refusal::unavailable("too-many-tails", "too many follow the ledger already")
            .expected(&format!("at most {TAILS_MAX} at once"))
            .next("close one, or read pages of /v1/ledger/entries")
    })?;
    let tail = app.ledger.tail(from);
    let sent = stream::unfold(
        (tail, Vec::<Entry>::new().into_iter(), slot),
        |(mut tail, mut ready, slot)| async {
            loop {
                if let Some(entry) = ready.next() {
                    let data = String::from_utf8_lossy(&entry.bytes).into_owned();
                    let event = Sent::default().id(entry.index.to_string()).data(data);
                    return Some((Ok(event), (tail, ready, slot)));
                }
                ready = tail.next().await.ok()?.into_iter();
            }
        },
    );
    Ok(Sse::new(sent).keep_alive(KeepAlive::default()))
}

/// Runs a read of the database off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|_| Refusal::internal("a read of the ledger was cut off"))?
}
