//! WebSockets: what a run says over one is read frame by frame, joined to messages, looked at and
//! only then said to the host, in frames of our own.
//!
//! A message is held until it is whole and was looked at. What is not exactly RFC 6455, larger than
//! is held, or must not leave ends the connection: the program gets a close frame with the reason,
//! the host one without, unless it was the host whose frames are none. No extension passes the handshake, since compressed messages could not be
//! looked at as they are. What the host says is read as well, so that a close frame of ours comes
//! between two of its frames, and passes as it comes.

mod frame;
mod hear;
mod pace;
mod say;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use portcullis_model::Refusal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::Stop;
use super::headers::strip_answer;
use super::room::Room;
use super::tunnel::{Ended, TunnelBounds, TunnelOutcome, idle};
use super::upload::HELD_TIME;
use frame::{CONTROL_MAX_BYTES, Head, Kind, Wrong};
pub(super) use pace::Pace;

/// The only version of the protocol (RFC 6455, 4.1); others frame differently.
const VERSION: &str = "13";
/// How long a side has to take its close frame, and the program to go away after it.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// How long is waited for the end of what was begun.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For a message, from its first part on.
    message: Duration,
    /// For a side that is told that it is over.
    close: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            message: HELD_TIME,
            close: CLOSE_PATIENCE,
        }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A whole message.
    Message,
    /// What a control frame carries. These stand between the parts of messages and belong to none.
    Control,
}

/// Looks at what a run says before it leaves. The server does by policy; tests do otherwise.
pub trait Looks: Send {
    /// Looks at it.
    ///
    /// # Errors
    /// Why it must not leave. The denial is recorded by then.
    fn look(&mut self, what: Said, said: &[u8])
    -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Records that the connection was refused for another reason than what was said.
    fn refused(&mut self, refusal: &Refusal) -> impl Future<Output = ()> + Send;
}

/// A host's answer to the wish for a WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    /// Its head. Without an agreement, its body is left out.
    pub answer: Response<()>,
    outside: Option<hyper::upgrade::OnUpgrade>,
}

impl WebSocket {
    /// Takes the answer in.
    ///
    /// # Errors
    /// `no-websocket`: the host switched to another protocol.
    pub(super) fn answered(mut answer: Response<Incoming>) -> Result<Self, Refusal> {
        let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched && !says_websocket(answer.headers()) {
            return Err(Refusal::unavailable(
                "no-websocket",
                "the host switched to another protocol than that of WebSockets",
            )
            .expected("101 with `upgrade: websocket`"));
        }
        let outside = switched.then(|| hyper::upgrade::on(&mut answer));
        let (mut head, _) = answer.into_parts();
        strip_answer(&mut head.headers);
        head.headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        head.extensions.clear();
        if switched {
            say_websocket(&mut head.headers);
        }
        Ok(Self {
            answer: Response::from_parts(head, ()),
            outside,
        })
    }

    /// Passes what is said, once the inside has been told. `None` where the host said no, or a side
    /// went away before it began. `room`: for messages until they were looked at.
    pub async fn run(
        self,
        inside: hyper::upgrade::OnUpgrade,
        room: &Room,
        looks: impl Looks,
        bounds: TunnelBounds,
        stop: Stop,
    ) -> Option<TunnelOutcome> {
        let outside = self.outside?;
        let both = async { tokio::try_join!(inside, outside) };
        match tokio::time::timeout(bounds.idle_time, both).await {
            Ok(Ok((inside, outside))) => {
                let (inside, outside) = (TokioIo::new(inside), TokioIo::new(outside));
                let patience = Patience::default();
                Some(pass((inside, outside), room, looks, (bounds, patience), stop).await)
            }
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

/// Makes a request ask the host for a WebSocket, without extensions.
///
/// # Errors
/// `not-understood`: another version of the protocol.
pub(super) fn ask_for_websocket(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let mut versions = headers.get_all(SEC_WEBSOCKET_VERSION).iter();
    match (versions.next(), versions.next()) {
        (Some(version), None) if version == VERSION => {}
        (first, _) => {
            let received = first.map_or("none", |version| version.to_str().unwrap_or_default());
            return Err(Refusal::denied(
                "not-understood",
                "another version of WebSockets is asked for than what is understood here",
            )
            .expected("`sec-websocket-version: 13` (RFC 6455)")
            .received(received));
        }
    }
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    say_websocket(headers);
    Ok(())
}

fn say_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

fn says_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// A close frame of ours, by the codes of RFC 6455, 7.4.1, and the registry that it opened.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Close {
    code: u16,
    reason: String,
}

impl Close {
    const GOING_AWAY: u16 = 1001;
    const PROTOCOL: u16 = 1002;
    const NOT_TEXT: u16 = 1007;
    const POLICY: u16 = 1008;
    const TOO_LARGE: u16 = 1009;
    const TRY_AGAIN: u16 = 1013;

    fn why(code: u16, refusal: &Refusal) -> Self {
        let mut reason = format!("{}: {}", refusal.code, refusal.message);
        let mut end = reason.len().min(CONTROL_MAX_BYTES - 2);
        while !reason.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        reason.truncate(end);
        Self { code, reason }
    }

    fn written(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut payload = self.code.to_be_bytes().to_vec();
        payload.extend(self.reason.bytes());
        let head = Head {
            last: true,
            kind: Kind::Close,
            length: u64::try_from(payload.len()).unwrap_or(0),
        };
        let mut bytes = head.written(mask);
        if let Some(key) = mask {
            frame::mask(&mut payload, key, 0);
        }
        bytes.append(&mut payload);
        bytes
    }
}

/// Four bytes that nobody can know before: so nobody inside chooses what bytes a host reads.
fn fresh_mask() -> Result<[u8; 4], Ended> {
    let mut key = [0; 4];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| Ended::Broken)?;
    Ok(key)
}

fn not_understood(what: &'static str, wrong: Wrong) -> Refusal {
    Refusal::denied("not-understood", what)
        .expected(wrong.expected)
        .received(wrong.received)
        .next("only a task that names the host among its tunnels lets other protocols pass")
}

/// Passes messages both ways until both sides have ended, a bound is reached, something is refused,
/// or `stop` is ready.
async fn pass<I, O>(
    (inside, outside): (I, O),
    room: &Room,
    mut looks: impl Looks,
    (bounds, patience): (TunnelBounds, Patience),
    stop: impl Future<Output = ()>,
) -> TunnelOutcome
where
    I: AsyncRead + AsyncWrite,
    O: AsyncRead + AsyncWrite,
{
    let (out, back) = (AtomicU64::new(0), AtomicU64::new(0));
    let pace = room.pace();
    let (inside_read, inside_write) = tokio::io::split(inside);
    let (outside_read, outside_write) = tokio::io::split(outside);
    let (tell, told) = watch::channel(None::<Close>);
    let mut refused_host = None;
    let saying = say::Saying {
        inside: inside_read,
        outside: outside_write,
        room,
        looks: &mut looks,
        pace: &pace,
        patience,
        sent: &out,
        most: bounds.bytes_out,
    };
    let hearing = hear::Hearing {
        outside: outside_read,
        inside: inside_write,
        heard: &back,
        most: bounds.bytes_in,
        told: told.clone(),
        gathered: Vec::new(),
    };
    let both = async {
        let heard = async {
            match hearing.run().await {
                Ok(()) => Ok(()),
                Err(hear::Over::Ended(ended)) => Err(ended),
                Err(hear::Over::Wrong(wrong)) => {
                    refused_host = Some(wrong);
                    Err(Ended::Refused)
                }
            }
        };
        let (said, ()) = tokio::try_join!(saying.run(&tell), heard)?;
        Ok::<_, Ended>(said)
    };
    let ended = tokio::select! {
        result = both => match result {
            Ok(()) if told.borrow().is_some() => Ended::Refused,
            Ok(()) => Ended::Closed,
            Err(ended) => ended,
        },
        () = given_up(told.clone(), patience) => Ended::Refused,
        () = idle(&out, &back, bounds.idle_time) => Ended::Idle,
        () = tokio::time::sleep(bounds.total_time) => Ended::Time,
        () = stop => Ended::Stopped,
    };
    if let Some(wrong) = refused_host {
        let refusal = not_understood("the host says something that is no WebSocket frame", wrong);
        looks.refused(&refusal).await;
    }
    TunnelOutcome {
        bytes_out: out.load(Ordering::Relaxed),
        bytes_in: back.load(Ordering::Relaxed),
        ended,
    }
}

/// Ready some time after the program was to be told that it is over.
async fn given_up(mut told: watch::Receiver<Option<Close>>, patience: Patience) {
    if told.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(2 * patience.close).await;
}
