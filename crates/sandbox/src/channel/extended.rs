//! WebSockets over HTTP/2 (RFC 8441). Towards the gateway, and from there to the host, they are
//! those of HTTP/1.1 (RFC 6455): the request is turned into one here, and the answer back.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use portcullis_model::Refusal;

/// What every key is joined with (RFC 6455, 1.3).
const JOINED_WITH: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A WebSocket that was asked for over HTTP/2, by what the host has to answer.
pub(super) struct Expected(String);

/// Turns an extended `CONNECT` for a WebSocket into the request of HTTP/1.1 that means the same.
///
/// # Errors
/// `not-understood` for every other protocol, such as UDP in HTTP.
pub(super) fn opened<B>(request: &mut Request<B>) -> Result<Option<Expected>, Refusal> {
    let Some(protocol) = request.extensions_mut().remove::<Protocol>() else {
        return Ok(None);
    };
    if protocol.as_str() != "websocket" {
        return Err(Refusal::denied(
            "not-understood",
            "another protocol is asked for over HTTP/2 than that of WebSockets",
        )
        .expected("`:protocol` websocket (RFC 8441)")
        .received(protocol.as_str())
        .next("only a task that names the host among its tunnels lets other protocols pass"));
    }
    let key = key()?;
    let value = HeaderValue::from_str(&key)
        .map_err(|error| Refusal::internal(format!("a key in base64: {error}")))?;
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    headers.insert(SEC_WEBSOCKET_KEY, value);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    Ok(Some(Expected(accepted(&key))))
}

impl Expected {
    /// Turns the answer into that of HTTP/2. One that opens nothing passes as it is, unless it could
    /// be taken for one that does.
    ///
    /// # Errors
    /// `no-websocket`.
    pub(super) fn answered<B>(&self, mut response: Response<B>) -> Result<Response<B>, Refusal> {
        let refused = |received: &str| {
            Err(Refusal::unavailable(
                "no-websocket",
                "the host answered without opening the WebSocket",
            )
            .expected("101 with `sec-websocket-accept` for the key that was sent")
            .received(received)
            .next("ask the host in plain HTTP whether it serves WebSockets there"))
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return if response.status().is_success() {
                refused(response.status().as_str())
            } else {
                Ok(response)
            };
        }
        let accept = response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept != self.0) {
            return refused("101 for another key");
        }
        *response.status_mut() = StatusCode::OK;
        for name in [CONNECTION, UPGRADE, CONTENT_LENGTH] {
            response.headers_mut().remove::<HeaderName>(name);
        }
        Ok(response)
    }
}

/// Sixteen bytes that nobody has used before.
fn key() -> Result<String, Refusal> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Refusal::internal("no random bytes"))?;
    Ok(STANDARD.encode(bytes))
}

fn accepted(key: &str) -> String {
    let joined = format!("{key}{JOINED_WITH}");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, joined.as_bytes()))
}

#[cfg(test)]
#[path = "extended_tests.rs"]
mod over_http2;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_held_against_the_key() {
        // The example of RFC 6455, 1.3.
        assert_eq!(
            accepted("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        let expected = Expected("right".to_owned());
        let answer = |status: u16, accept: &str| {
            let response = Response::builder()
                .status(status)
                .header(SEC_WEBSOCKET_ACCEPT, accept)
                .header(UPGRADE, "websocket")
                .body(());
            expected
                .answered(response.expect("response"))
                .map(|response| (response.status().as_u16(), response.headers().len()))
                .map_err(|refusal| refusal.code)
        };
        assert_eq!(answer(101, "right"), Ok((200, 0)));
        assert_eq!(answer(101, "wrong"), Err("no-websocket".to_owned()));
        assert_eq!(answer(200, "right"), Err("no-websocket".to_owned()));
        assert_eq!(answer(403, "x"), Ok((403, 2)));
    }
}
