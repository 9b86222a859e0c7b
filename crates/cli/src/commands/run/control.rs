//! Whether a run may go on: asked of the server all the time, while it runs.
//!
//! The server's word decides, and its silence too: a server that is away for two seconds can't
//! revoke anything, so the run stands still until it is back. [`Watch`] decides, [`follow`] asks
//! and acts: it holds the run still and lets it go, winds it back, has its workspace kept, and
//! renews its token in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use portcullis_identity::RunCredential;
use portcullis_model::statement::CheckpointRef;
use portcullis_model::{LedgerIndex, Refusal, RefusalKind, Secret, Timestamp};
use portcullis_sandbox::checkpoint::Kept;
use serde::Deserialize;
use serde_json::{Value, json};

use super::keep::Keeper;
use super::tell;
use crate::time::now;

/// The server's paths.
const CONTROL: &str = "/gateway/v1/control";
const IDENTITY: &str = "/gateway/v1/identity";
const CHECKPOINT: &str = "/gateway/v1/checkpoint";
/// How long before its end a token is renewed at the latest; a shorter one at half of its life.
const RENEW_BEFORE_MS: u64 = 900_000;
/// Most checkpoints that wait to be told to the server.
const UNTOLD_MAX: usize = 16;
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
    /// Why it does.
    #[serde(default)]
    why: Option<String>,
    /// How it last went on.
    #[serde(default)]
    resumed: Option<Resumed>,
    /// When it ends.
    #[serde(default)]
    deadline: Option<Timestamp>,
    /// Why it has ended, if it has.
    #[serde(default)]
    end: Option<Value>,
}

/// How a run went on that had stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct Resumed {
    /// The entry that let it.
    entry: LedgerIndex,
    /// Where its workspace is wound back to first.
    #[serde(default)]
    checkpoint: Option<CheckpointRef>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing new.
    GoOn,
    /// Stand still.
    Freeze(String),
    /// Wind the workspace back, then go on, or stand still for this reason.
    WindBack(CheckpointRef, Option<String>),
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
    /// The newest entry that let the run go on and was carried out.
    resumed: LedgerIndex,
}

impl Watch {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            frozen: false,
            heard: now,
            resumed: 0,
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
            Ok(answer) => {
                self.heard = now;
                let why = answer.freeze.then(|| {
                    answer.why.map_or_else(
                        || "the server says that the run stands still".to_owned(),
                        |why| crate::output::clean_line(&why),
                    )
                });
                if let Some(resumed) = answer.resumed
                    && resumed.entry > self.resumed
                {
                    self.resumed = resumed.entry;
                    if let Some(point) = resumed.checkpoint {
                        self.frozen = why.is_some();
                        return Order::WindBack(point, why);
                    }
                }
                self.set(why.is_some(), why.as_deref().unwrap_or_default())
            }
            // The server is there and does not take this run for one of its own any more.
            Err(refusal) if is_final(&refusal) => {
                self.heard = now;
                Order::End(format!("the server ended the run: {}", refusal.message))
            }
            Err(refusal) if now.saturating_duration_since(self.heard) > AWAY_MAX => {
                self.set(true, away_because(&refusal))
            }
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

/// Why nothing was heard for too long.
fn away_because(refusal: &Refusal) -> &'static str {
    match refusal.code.as_str() {
        "dpop-stale" | "dpop-future" | "token-expired" | "token-time" => {
            "the server takes no proof of this machine's, since their clocks differ; the run stands still until both are right (`date -u` on both)"
        }
        _ => "the server is away; the run stands still until it is back",
    }
}

/// Whether asking again can't help. A proof that came late or twice can. A token ends with its run,
/// to the second: the deadline is the sandbox's to keep, exactly.
fn is_final(refusal: &Refusal) -> bool {
    match refusal.kind {
        RefusalKind::Denied => {
            !refusal.code.starts_with("dpop-")
                && !["token-expired", "token-time"].contains(&refusal.code.as_str())
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

/// How long past its time a run gets before it is ended from here. Its supervisor ends it at its
/// time; this is for one that does nothing any more.
const OVERDUE: Duration = Duration::from_secs(3);

/// Asks and acts until the run is over, which is at `deadline` at the latest, and after `life`.
pub(super) async fn follow(
    server: &str,
    credential: Arc<RunCredential>,
    keeper: Arc<Keeper>,
    deadline: Timestamp,
    life: Duration,
) {
    let mut watch = Watch::new(Instant::now());
    let over = Instant::now() + life + OVERDUE;
    let mut renewal = Renewal::at_start(deadline);
    let mut untold: Vec<Kept> = Vec::new();
    let mut wanted = None;
    loop {
        let asked = Instant::now();
        let answer = in_time(ask(server, &credential)).await;
        let failed = answer.is_err();
        let ends = answer.as_ref().ok().and_then(|answer| answer.deadline);
        match watch.next(answer, Instant::now()) {
            Order::GoOn => {}
            Order::Freeze(why) => {
                tell(&why);
                wanted = Some(true);
            }
            Order::Thaw => wanted = Some(false),
            Order::WindBack(point, why) => {
                let done = blocking(&keeper, move |keeper| keeper.wind_back(point)).await;
                match done {
                    Ok(said) => tell(&said),
                    Err(refusal) if refusal.code == "run-ended" => return,
                    // What can't be wound back must not go on.
                    Err(refusal) => {
                        tell(&format!(
                            "the run can't be wound back, so it ends: {refusal}"
                        ));
                        keeper.running().kill();
                        return;
                    }
                }
                wanted = Some(why.is_some());
            }
            Order::End(why) => {
                tell(&why);
                keeper.running().kill();
                return;
            }
        }
        if Instant::now() >= over {
            tell("the run's time is over, and its supervisor did not end it; it is ended now");
            keeper.running().kill();
            return;
        }
        // Earlier than the sandbox knows, where people said so when they let it go on.
        if ends.is_some_and(|ends| ends < deadline && now() >= ends) {
            tell("the deadline that people set when they let it go on is over");
            keeper.running().kill();
            return;
        }
        if let Some(freeze) = wanted {
            let done = blocking(&keeper, move |keeper| {
                if freeze {
                    keeper.freeze().map(|kept| (kept, 0))
                } else {
                    keeper.thaw().map(|died| (None, died))
                }
            })
            .await;
            match done {
                Ok((kept, died)) => {
                    wanted = None;
                    untold.extend(kept);
                    if !freeze {
                        tell(&going_on(died));
                    }
                }
                Err(refusal) if refusal.code == "run-ended" => return,
                // What can't be frozen must not go on; a thaw is tried again.
                Err(refusal) if freeze => {
                    tell(&format!("the run can't be frozen, so it ends: {refusal}"));
                    keeper.running().kill();
                    return;
                }
                Err(_) => {}
            }
        }
        if !failed {
            untold.extend(
                blocking(&keeper, |keeper| Ok(keeper.turn()))
                    .await
                    .ok()
                    .flatten(),
            );
            tell_checkpoints(server, &credential, &mut untold).await;
            renewal.turn(server, &credential).await;
        }
        if failed || asked.elapsed() < PAUSE {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn going_on(died: usize) -> String {
    match died {
        0 => "the run goes on".to_owned(),
        1 => "the run goes on; a connection of it died meanwhile".to_owned(),
        more => format!("the run goes on; {more} connections of it died meanwhile"),
    }
}

/// Runs what blocks beside the runtime.
async fn blocking<T: Send + 'static>(
    keeper: &Arc<Keeper>,
    act: impl FnOnce(&Keeper) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let keeper = Arc::clone(keeper);
    tokio::task::spawn_blocking(move || act(&keeper))
        .await
        .unwrap_or_else(|_| Err(Refusal::internal("an act on the run was cut off")))
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    tokio::time::timeout(ANSWER_PATIENCE, answer)
        .await
        .unwrap_or_else(|_| Err(away("no answer in time")))
}

/// Tells the server what was kept, so that people can choose it. What it refuses isn't told again;
/// what it did not hear is, the oldest first.
async fn tell_checkpoints(server: &str, credential: &RunCredential, untold: &mut Vec<Kept>) {
    while let Some(kept) = untold.first() {
        let body = json!({
            "number": kept.number,
            "manifest": kept.manifest,
            "entries": kept.entries,
            "bytes": kept.bytes,
        });
        let body = Bytes::from(body.to_string());
        match in_time(call(server, Method::POST, CHECKPOINT, body, credential)).await {
            Err(refusal) if refusal.kind == RefusalKind::Unavailable => break,
            Ok(_) | Err(_) => {
                untold.remove(0);
            }
        }
    }
    let surplus = untold.len().saturating_sub(UNTOLD_MAX);
    untold.drain(..surplus);
}

/// When the token is renewed.
struct Renewal {
    at: Instant,
}

impl Renewal {
    /// The first token lasts an hour at most, and no longer than the run.
    fn at_start(deadline: Timestamp) -> Self {
        let life = deadline.ms_since(now()).min(3_600_000);
        Self::after(life)
    }

    fn after(life_ms: u64) -> Self {
        let wait = life_ms.saturating_sub(RENEW_BEFORE_MS).max(life_ms / 2);
        Self {
            at: Instant::now() + Duration::from_millis(wait),
        }
    }

    async fn turn(&mut self, server: &str, credential: &RunCredential) {
        #[derive(Deserialize)]
        struct Renewed {
            token: String,
            life_ms: u64,
        }
        if Instant::now() < self.at {
            return;
        }
        let answer = in_time(call(
            server,
            Method::POST,
            IDENTITY,
            Bytes::new(),
            credential,
        ))
        .await;
        *self = match answer.and_then(|body| {
            serde_json::from_slice::<Renewed>(&body).map_err(|error| away(&error.to_string()))
        }) {
            Ok(renewed) => {
                credential.renew(Secret::new(renewed.token));
                Self::after(renewed.life_ms)
            }
            // The old one is still good for a while.
            Err(_) => Self::after(10_000),
        };
    }
}

async fn ask(server: &str, credential: &RunCredential) -> Result<Answer, Refusal> {
    let body = call(server, Method::GET, CONTROL, Bytes::new(), credential).await?;
    serde_json::from_slice(&body).map_err(|error| away(&error.to_string()))
}

/// One request of the launcher's own, proved with the run's key.
async fn call(
    server: &str,
    method: Method,
    path: &str,
    body: Bytes,
    credential: &RunCredential,
) -> Result<Bytes, Refusal> {
    let url = format!("{server}{path}");
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
    let proofs = credential.headers(method.as_str(), &url, now())?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, &authority);
    for (name, value) in proofs {
        request = request.header(name, value.expose());
    }
    let request = request
        .body(Full::new(body))
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
    if good { Ok(body) } else { Err(problem(&body)) }
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
        Ok(serde_json::from_value(json!({ "freeze": freeze })).unwrap())
    }

    #[test]
    fn a_run_is_wound_back_once_and_before_it_goes_on() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        let resumed = |entry: u64, freeze: bool, wound: bool| -> Result<Answer, Refusal> {
            let point = json!({ "number": 2, "manifest": portcullis_model::Digest::of(b"x") });
            let checkpoint = if wound { point } else { Value::Null };
            Ok(serde_json::from_value(json!({
                "freeze": freeze,
                "why": "because",
                "resumed": { "entry": entry, "checkpoint": checkpoint },
            }))
            .unwrap())
        };
        assert!(matches!(watch.next(answer(true), start), Order::Freeze(_)));
        assert!(matches!(
            watch.next(resumed(9, false, true), start),
            Order::WindBack(_, None)
        ));
        // The same word again is not carried out again.
        assert_eq!(watch.next(resumed(9, false, true), start), Order::GoOn);
        // It stood still again before anybody asked: wound back, and it stays so.
        match watch.next(resumed(12, true, true), start) {
            Order::WindBack(_, Some(why)) => assert_eq!(why, "because"),
            other => panic!("{other:?}"),
        }
        assert_eq!(watch.next(resumed(15, false, false), start), Order::Thaw);
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
    fn clocks_that_differ_hold_a_run_and_are_named() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for code in ["dpop-stale", "dpop-future", "token-expired", "token-time"] {
            let mut watch = Watch::new(start);
            let refused = || Err(Refusal::denied(code, "not now"));
            assert_eq!(watch.next(refused(), at(1_900)), Order::GoOn);
            match watch.next(refused(), at(2_100)) {
                Order::Freeze(why) => assert!(why.contains("clocks differ"), "{why}"),
                other => panic!("{other:?}"),
            }
            assert_eq!(watch.next(answer(false), at(2_200)), Order::Thaw);
        }
    }

    #[test]
    fn an_end_ends_and_so_does_a_server_that_does_not_know_the_run() {
        let start = Instant::now();
        let ended = json!({ "freeze": true, "end": { "reason": "rights" } });
        match Watch::new(start).next(Ok(serde_json::from_value(ended).unwrap()), start) {
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
