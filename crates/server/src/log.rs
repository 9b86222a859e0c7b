//! The log's own listener: checkpoint, tiles and entries for readers who may not reach the rest.
//!
//! Off unless `[log] listen` names an address. Then everyone who connects may read, or, with
//! `[log] readers`, everyone who shows one of its tokens. Requests are GET, connections, their
//! lives and the time for a request's head are bounded: this is the one listener that may face
//! strangers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next, map_response};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use portcullis_model::{Digest, Refusal, RefusalKind};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::api::{self, problem};
use crate::app::{App, text};
use crate::config::LogConfig;
use crate::home::Home;

/// Most connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection lives: time for a large bundle over a slow line, and an end for one that
/// reads a byte a minute.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// Largest file of readers' tokens in bytes.
const READERS_MAX_BYTES: u64 = 64 * 1024;
/// Shortest token in bytes: 128 bits in base64 are 22.
const TOKEN_MIN_BYTES: usize = 22;

/// Who may read the log at its own listener.
#[derive(Clone, Debug)]
pub enum Readers {
    /// Everyone.
    Everyone,
    /// Whoever shows a token with one of these digests.
    Holders(Vec<Digest>),
}

impl Readers {
    /// Reads the tokens, if the configuration names a file of them.
    ///
    /// # Errors
    /// The file can't be read, holds none, or one that is too short to be secret.
    pub fn open(home: &Home, config: &LogConfig) -> Result<Self, Refusal> {
        let Some(name) = &config.readers else {
            return Ok(Self::Everyone);
        };
        let path = home.secrets().join(name.as_str());
        let refused = |received: &str| {
            Refusal::malformed("file of readers' tokens")
                .expected(&format!(
                    "a token of at least {TOKEN_MIN_BYTES} characters a line"
                ))
                .received(received)
                .next(format!(
                    "write one with `openssl rand -base64 24 > {}`",
                    path.display()
                ))
        };
        let file = text(&Home::read(&path, READERS_MAX_BYTES)?)?;
        let mut digests = Vec::new();
        for line in file.lines().map(str::trim).filter(|line| !line.is_empty()) {
            // Said without the token.
            if line.len() < TOKEN_MIN_BYTES || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(refused("a line that is shorter, or has other characters"));
            }
            digests.push(Digest::of(line.as_bytes()));
        }
        if digests.is_empty() {
            return Err(refused("no token"));
        }
        Ok(Self::Holders(digests))
    }

    /// Whether a request with this `authorization` may read.
    fn admits(&self, authorization: Option<&str>) -> bool {
        match self {
            Self::Everyone => true,
            Self::Holders(digests) => authorization
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                // Digests are compared, so the time it takes says nothing about a token.
                .is_some_and(|(_, token)| digests.contains(&Digest::of(token.trim().as_bytes()))),
        }
    }
}

/// Serves the log at `listener` until the task is aborted.
pub async fn serve(app: Arc<App>, listener: TcpListener, readers: Readers) {
    let router = Router::new()
        .merge(api::log::routes())
        .fallback(absent)
        .layer(middleware::from_fn_with_state(Arc::new(readers), admit))
        .layer(map_response(problem::of_router))
        .with_state(app);
    serve_bounded(listener, router).await;
}

/// Serves `router` with bounds on connections, their lives and their heads.
pub(crate) async fn serve_bounded(listener: TcpListener, router: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the log's listener could not accept: {error}");
                // Out of file descriptors, most likely: others must end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _best_effort = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A client that goes away, or that takes too long, ends here.
            let _ended = tokio::time::timeout(CONNECTION_LIFE, connection).await;
        });
    }
}

async fn admit(
    Shared(readers): Shared<Arc<Readers>>,
    request: Request,
    next: Next,
) -> Result<Response, Response> {
    let shown = api::one_header(request.headers(), "authorization")
        .map_err(|refusal| api::Problem(refusal).into_response())?;
    if readers.admits(shown) {
        let mut response = next.run(request).await;
        if matches!(*readers, Readers::Holders(_)) {
            withhold(&mut response);
        }
        return Ok(response);
    }
    let refusal = Refusal::new(
        RefusalKind::Denied,
        "log-reader-unknown",
        "this log is for readers with a token",
    )
    .expected("authorization: Bearer TOKEN")
    .next("ask the log's operator for a token; `portcullis ledger verify URL --token-file FILE` shows it");
    let mut response = api::Problem(refusal).into_response();
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        header::HeaderValue::from_static("Bearer"),
    );
    Err(response)
}

/// What was read with a token is not for caches that others share.
fn withhold(response: &mut Response) {
    let control = response.headers().get(header::CACHE_CONTROL);
    let private = control
        .and_then(|value| value.to_str().ok())
        .map(|value| value.replace("public", "private"));
    if let Some(value) = private.and_then(|value| value.parse().ok()) {
        response.headers_mut().insert(header::CACHE_CONTROL, value);
    }
}

async fn absent(request: Request) -> api::Problem {
    Refusal::not_found("page", request.uri().path())
        .expected("checkpoint or tile/… (c2sp.org/tlog-tiles)")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(text: &str) -> Result<Readers, Refusal> {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        std::fs::create_dir(home.secrets()).unwrap();
        std::fs::write(home.secrets().join("readers"), text).unwrap();
        let config = LogConfig {
            readers: Some("readers".parse().unwrap()),
            ..LogConfig::default()
        };
        Readers::open(&home, &config)
    }

    #[test]
    fn a_token_admits_and_nothing_like_it() {
        let token = "q3JvbGwgdG9rZW4gb2YgdGVzdHM";
        let open = readers(&format!("\n{token}\nanother-token-of-some-length\n")).unwrap();
        assert!(open.admits(Some(&format!("Bearer {token}"))));
        assert!(open.admits(Some("bearer another-token-of-some-length")));
        for bad in [
            None,
            Some(""),
            Some(token),
            Some("Bearer"),
            Some("Bearer "),
            Some("Basic q3JvbGwgdG9rZW4gb2YgdGVzdHM"),
            Some("Bearer q3JvbGwgdG9rZW4gb2YgdGVzdH"),
            Some("Bearer q3JvbGwgdG9rZW4gb2YgdGVzdHM q3JvbGwgdG9rZW4gb2YgdGVzdHM"),
        ] {
            assert!(!open.admits(bad), "{bad:?}");
        }
        assert!(Readers::Everyone.admits(None));
    }

    #[test]
    fn tokens_that_are_none_are_refused_and_not_told() {
        for bad in [
            "",
            "\n\n",
            "q3JvbGwgdG9rZW4",
            "has a space in the middle of it",
        ] {
            let refusal = readers(bad).unwrap_err();
            assert!(bad.trim().is_empty() || !refusal.to_string().contains(bad));
        }
    }
}
