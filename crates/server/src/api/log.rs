//! The log for its readers, as C2SP tlog-tiles has it: checkpoint, tiles of hashes, entry bundles.
//!
//! The same routes stand below `/log` of the server's own listener, and at the root of the log's
//! listener, if one is configured ([`crate::log`]). Nothing else is answered there.

use std::io::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use portcullis_evidence::tiles::{Kind, Piece};
use portcullis_model::Refusal;

use super::Problem;
use super::ledger::blocking;
use crate::app::App;

/// A full piece never changes: a year, the longest that caches take.
const FULL: &str = "public, max-age=31536000, immutable";
/// A partial piece never changes either, but is asked for until it is full, and then no more.
const PARTIAL: &str = "public, max-age=86400, immutable";
/// A checkpoint is asked for anew each time.
const CHECKPOINT: &str = "no-cache";
/// What is not there may be there soon.
const ABSENT: &str = "no-store";
/// Bundles below this many bytes are not worth compressing.
const GZIP_MIN_BYTES: usize = 512;

/// `checkpoint` and `tile/…`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
}

async fn checkpoint(Shared(app): Shared<Arc<App>>) -> Result<Response, Problem> {
    let note = app.public_checkpoint();
    if note.is_empty() {
        return Err(Refusal::unavailable(
            "checkpoint-unsigned",
            "the log has signed no checkpoint yet",
        )
        .into());
    }
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, CHECKPOINT),
    ];
    Ok((headers, note).into_response())
}

async fn tile(
    Shared(app): Shared<Arc<App>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    match piece(app, &path, &headers).await {
        Ok(response) => response,
        Err(refusal) => {
            let mut response = Problem(refusal).into_response();
            // A path that no tile has is as absent as a tile that is not there yet.
            if response.status() == StatusCode::BAD_REQUEST {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(ABSENT));
            response
        }
    }
}

async fn piece(app: Arc<App>, path: &str, asked: &HeaderMap) -> Result<Response, Refusal> {
    let piece: Piece = format!("tile/{path}")
        .parse()
        .map_err(|refusal: Refusal| Refusal {
            kind: portcullis_model::RefusalKind::NotFound,
            ..refusal
        })?;
    let gzip = piece.kind() == Kind::Entries && accepts_gzip(asked);
    let ledger = app.ledger.clone();
    // Bundles have up to 16 MiB: only so many are in memory at once.
    let slot = app.log_reads.acquire().await;
    let _slot = slot.map_err(|_| Refusal::internal("the log's readers have no bound"))?;
    let (bytes, gzipped) = blocking(move || {
        let bytes = ledger.piece(&piece)?;
        if !gzip || bytes.len() < GZIP_MIN_BYTES {
            return Ok((bytes, false));
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let packed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
        Ok(packed.map_or((bytes, false), |packed| (packed, true)))
    })
    .await?;
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_TYPE, "application/octet-stream");
    set(
        header::CACHE_CONTROL,
        if piece.is_full() { FULL } else { PARTIAL },
    );
    if piece.kind() == Kind::Entries {
        set(header::VARY, "accept-encoding");
    }
    if gzipped {
        set(header::CONTENT_ENCODING, "gzip");
    }
    Ok(response)
}

/// Whether the client asks for gzip, and does not weigh it with zero (RFC 9110 section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = weight.trim().strip_prefix("q=").unwrap_or("1").trim();
            name.trim().eq_ignore_ascii_case("gzip") && weight.parse::<f32>().is_ok_and(|q| q > 0.0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_ask() {
        let asks = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            accepts_gzip(&headers)
        };
        for yes in [
            "gzip",
            "identity, GZIP",
            "br;q=1.0, gzip;q=0.5",
            "gzip; q=1",
        ] {
            assert!(asks(yes), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "gzip;q=0.0", "x-gzipped", "br"] {
            assert!(!asks(no), "{no}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
