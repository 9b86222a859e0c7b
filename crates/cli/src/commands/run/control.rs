//! Whether a run may go on: asked of the server all the time, while it runs.
//!
//! The server's word decides, and its silence too: a server that is away for two seconds can't
//! revoke anything, so the run stands still until it is back. [`Watch`] decides, [`follow`] asks
//! and acts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use portcullis_identity::RunCredential;
use portcullis_model::{Refusal, RefusalKind};
use portcullis_sandbox::Running;
use serde::Deserialize;
use serde_json::Value;

use super::tell;
use crate::time::now;

/// The server's path.
pub(super) const PATH: &str = "/gateway/v1/control";
/// How long the server may be away before its runs stand still.
const AWAY_MAX: Duration = Duration::from_secs(2);
/// Longest time for one answer: the server waits up to a second for news.
const ANSWER_PATIENCE: Duration = Duration::from_millis(2_500);
/// Pause after a try that failed, and between answers that came at once.
const PAUSE: Duration = Duration::from_millis(200);
/// Largest answer in bytes.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Answer {
    /// Whether everything stands still.
    freeze: bool,
    /// Why it has ended, if it has.
    #[serde(default)]
    end: Option<Value>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing new.
    GoOn,
    /// Stand still.
    Freeze(String),
    /// Go on.
    Thaw,
    /// End, with everything.
    End(String),
}

/// What is known of the server's will.
#[derive(Debug)]
pub(super) struct Watch {
    frozen: bool,
    heard: Instant,
}

impl Watch {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            frozen: false,
            heard: now,
        }
    }

    /// What an answer, or its absence, means.
    pub(super) fn next(&mut self, answer: Result<Answer, Refusal>, now: Instant) -> Order {
        match answer {
            Ok(Answer {
                end: Some(reason), ..
            }) => {
                self.heard = now;
                Order::End(format!("the run was ended: {}", reason_text(&reason)))
            }
            Ok(Answer { freeze, end: None }) => {
                self.heard = now;
                self.set(
                    freeze,
                    "a breaker is tripped; the run stands still until it is reset",
                )
            }
            // The server is there and does not take this run for one of its own any more.
            Err(refusal) if is_final(&refusal) => {
                self.heard = now;
                Order::End(format!("the server ended the run: {}", refusal.message))
            }
            Err(_) if now.saturating_duration_since(self.heard) > AWAY_MAX => self.set(
                true,
                "the server is away; the run stands still until it is back",
            ),
            Err(_) => Order::GoOn,
        }
    }

    fn set(&mut self, freeze: bool, why: &str) -> Order {
        match (std::mem::replace(&mut self.frozen, freeze), freeze) {
            (false, true) => Order::Freeze(why.to_owned()),
            (true, false) => Order::Thaw,
            (true, true) | (false, false) => Order::GoOn,
        }
    }
}

/// Whether asking again can't help. A proof that came late or twice can. A token ends with its run,
/// to the second: the deadline is the sandbox's to keep, exactly.
fn is_final(refusal: &Refusal) -> bool {
    match refusal.kind {
        RefusalKind::Denied => {
            !refusal.code.starts_with("dpop-") && refusal.code != "token-expired"
        }
        RefusalKind::NotFound | RefusalKind::Malformed | RefusalKind::NeedsApproval => true,
        RefusalKind::Conflict
        | RefusalKind::Limit
        | RefusalKind::Unavailable
        | RefusalKind::Internal => false,
    }
}

/// The server's reason as a person reads it.
fn reason_text(reason: &Value) -> String {
    let named = ["how", "reason", "kind", "type"]
        .iter()
        .find_map(|name| reason.get(name));
    match named.unwrap_or(reason).as_str() {
        Some("human") => "a person ended it (`portcullis runs show` says who and why)".to_owned(),
        Some("rights") => "its agent, its signer or this host lost the right to run".to_owned(),
        Some("denials") => "its quota of denied requests is used up".to_owned(),
        Some("deadline") => "its deadline is over".to_owned(),
        Some("lost") => "the server had not heard of it for too long".to_owned(),
        Some("exited") => "its command has ended".to_owned(),
        Some(other) => crate::output::clean_line(other),
        None => crate::output::clean_line(&reason.to_string()),
    }
}

/// Asks and acts until the run is over.
pub(super) async fn follow(server: &str, credential: Arc<RunCredential>, running: Arc<Running>) {
    let mut watch = Watch::new(Instant::now());
    let mut wanted = None;
    loop {
        let asked = Instant::now();
        let answer = tokio::time::timeout(ANSWER_PATIENCE, ask(server, &credential))
            .await
            .unwrap_or_else(|_| Err(away("no answer in time")));
        let failed = answer.is_err();
        let order = watch.next(answer, Instant::now());
        match order {
            Order::GoOn => {}
            Order::Freeze(why) => {
                tell(&why);
                wanted = Some(true);
            }
            Order::Thaw => {
                tell("the run goes on");
                wanted = Some(false);
            }
            Order::End(why) => {
                tell(&why);
                running.kill();
                return;
            }
        }
        if let Some(freeze) = wanted {
            let (sandbox, act) = (Arc::clone(&running), freeze);
            let done = tokio::task::spawn_blocking(move || {
                if act {
                    sandbox.freeze()
                } else {
                    sandbox.thaw()
                }
            })
            .await;
            match done {
                Ok(Ok(())) => wanted = None,
                Ok(Err(refusal)) if refusal.code == "run-ended" => return,
                // What can't be frozen must not go on; a thaw is tried again.
                Ok(Err(refusal)) if freeze => {
                    tell(&format!("the run can't be frozen, so it ends: {refusal}"));
                    running.kill();
                    return;
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        if failed || asked.elapsed() < PAUSE {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn ask(server: &str, credential: &RunCredential) -> Result<Answer, Refusal> {
    let url = format!("{server}{PATH}");
    let uri: http::Uri = url
        .parse()
        .map_err(|_| Refusal::malformed("server URL").received(server))?;
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let stream = tokio::net::TcpStream::connect(&authority)
        .await
        .map_err(|error| away(&error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| away(&error.to_string()))?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(PATH)
        .header(HOST, &authority);
    for (name, value) in credential.headers("GET", &url, now())? {
        request = request.header(name, value.expose());
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| Refusal::internal(format!("a request can't be made: {error}")))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| away(&error.to_string()))?;
    let good = response.status().is_success();
    let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES)
        .collect()
        .await
        .map_err(|error| away(&error.to_string()))?
        .to_bytes();
    if good {
        return serde_json::from_slice(&body).map_err(|error| away(&error.to_string()));
    }
    Err(problem(&body))
}

/// An RFC 9457 problem, as far as it matters here.
fn problem(body: &[u8]) -> Refusal {
    #[derive(Deserialize)]
    struct Problem {
        title: String,
        code: String,
        kind: RefusalKind,
    }
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Refusal::new(problem.kind, &problem.code, problem.title),
        Err(_) => away("an answer that no Portcullis wrote"),
    }
}

fn away(received: &str) -> Refusal {
    Refusal::unavailable("server-unreachable", "the server does not answer").received(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(freeze: bool) -> Result<Answer, Refusal> {
        Ok(Answer { freeze, end: None })
    }

    #[test]
    fn a_breaker_freezes_once_and_a_reset_thaws_once() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        assert_eq!(watch.next(answer(false), start), Order::GoOn);
        assert!(matches!(watch.next(answer(true), start), Order::Freeze(_)));
        assert_eq!(watch.next(answer(true), start), Order::GoOn);
        assert_eq!(watch.next(answer(false), start), Order::Thaw);
        assert_eq!(watch.next(answer(false), start), Order::GoOn);
    }

    #[test]
    fn a_server_that_is_away_freezes_after_two_seconds_and_its_return_decides() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut watch = Watch::new(start);
        assert_eq!(watch.next(Err(away("x")), at(1_900)), Order::GoOn);
        assert!(matches!(
            watch.next(Err(away("x")), at(2_100)),
            Order::Freeze(_)
        ));
        assert_eq!(watch.next(Err(away("x")), at(9_000)), Order::GoOn);
        // Back with a tripped breaker: it stays as it is.
        assert_eq!(watch.next(answer(true), at(9_100)), Order::GoOn);
        assert_eq!(watch.next(answer(false), at(9_200)), Order::Thaw);
        // The two seconds are counted from the last answer.
        assert_eq!(watch.next(Err(away("x")), at(11_100)), Order::GoOn);
        assert!(matches!(
            watch.next(Err(away("x")), at(11_300)),
            Order::Freeze(_)
        ));
    }

    #[test]
    fn an_end_ends_and_so_does_a_server_that_does_not_know_the_run() {
        let start = Instant::now();
        let ended = Answer {
            freeze: true,
            end: Some(serde_json::json!({ "reason": "rights" })),
        };
        match Watch::new(start).next(Ok(ended), start) {
            Order::End(why) => assert!(why.contains("lost the right"), "{why}"),
            other => panic!("{other:?}"),
        }
        let unknown = Err(Refusal::denied(
            "run-unknown",
            "this run is not in the ledger",
        ));
        assert!(matches!(
            Watch::new(start).next(unknown, start),
            Order::End(_)
        ));
        // A proof that was too late is made anew.
        let stale = Err(Refusal::denied("dpop-stale", "too old"));
        assert_eq!(Watch::new(start).next(stale, start), Order::GoOn);
    }
}
