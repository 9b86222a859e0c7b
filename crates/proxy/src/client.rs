//! The control plane's side of the control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use portcullis_model::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::wire::{ConfigAck, HeartbeatRequest, Routing, StableAck, StableRequest, Stats};

/// Longest wait for an answer: the proxy waits for its disk at most a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest answer in bytes that is read.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Steers one proxy. Each call opens its own connection, so a proxy may restart in between.
#[derive(Clone, Debug)]
pub struct ProxyControl {
    socket: PathBuf,
}

impl ProxyControl {
    /// The proxy that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Puts a configuration in force. The same one again is answered in the same way, so an
    /// answer that was lost can be asked for by repeating.
    ///
    /// # Errors
    /// `proxy-epoch-stale` (a conflict): a higher epoch or a command to stay on stable came
    /// before. `malformed-proxy-config`: a field is out of bounds. `proxy-unreachable`: no answer,
    /// and it is unknown whether the configuration is in force; read [`ProxyControl::stats`].
    pub async fn configure(&self, routing: &Routing) -> Result<ConfigAck, Refusal> {
        self.call(Method::PUT, "/v1/config", Some(routing)).await
    }

    /// Sends everything to stable, and refuses configurations up to `refuse_up_to_epoch` from now
    /// on. Works without disk.
    ///
    /// # Errors
    /// `proxy-unreachable`: no answer.
    pub async fn to_stable(&self, refuse_up_to_epoch: Option<u64>) -> Result<StableAck, Refusal> {
        let request = StableRequest { refuse_up_to_epoch };
        self.call(Method::POST, "/v1/stable", Some(&request)).await
    }

    /// Says that this epoch is being watched.
    ///
    /// # Errors
    /// `proxy-epoch-differs` or `proxy-fallen-back` (conflicts): what is watched is not what is
    /// served. `proxy-unreachable`: no answer.
    pub async fn heartbeat(&self, epoch: u64) -> Result<(), Refusal> {
        let request = HeartbeatRequest { epoch };
        let _: HeartbeatRequest = self
            .call(Method::POST, "/v1/heartbeat", Some(&request))
            .await?;
        Ok(())
    }

    /// What is served and counted.
    ///
    /// # Errors
    /// `proxy-unreachable`: no answer.
    pub async fn stats(&self) -> Result<Stats, Refusal> {
        self.call(Method::GET, "/v1/stats", None::<&()>).await
    }

    async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Refusal> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| Refusal::internal(format!("a request does not serialise: {error}")))?
            .unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "proxy")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Refusal::internal(format!("a request can't be made: {error}")))?;
        let (ok, body) = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request))
            .await
            .map_err(|_| self.unreachable(&"no answer within 3 s"))?
            .map_err(|error| self.unreachable(&error))?;
        let garbled = |error: serde_json::Error| {
            Refusal::unavailable(
                "proxy-garbled",
                format!("the proxy's answer can't be read: {error}"),
            )
        };
        if ok {
            serde_json::from_slice(&body).map_err(garbled)
        } else {
            Err(serde_json::from_slice::<Refusal>(&body).map_err(garbled)?)
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(bool, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let exchange = async {
            let response = sender.send_request(request).await?;
            let ok = response.status().is_success();
            let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES)
                .collect()
                .await?;
            Ok((ok, body.to_bytes()))
        };
        let result = exchange.await;
        connection.abort();
        result
    }

    fn unreachable(&self, cause: &dyn std::fmt::Display) -> Refusal {
        Refusal::unavailable(
            "proxy-unreachable",
            format!(
                "the proxy does not answer on {}: {cause}",
                self.socket.display()
            ),
        )
        .next("start the proxy, or check `control_socket`; it serves as last told meanwhile")
    }
}
