//! A connection to the server, with the session that a run's proof opened on it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::serve::{IncomingStream, Listener};
use portcullis_identity::Thumbprint;
use portcullis_identity::dpop::Caller;
use portcullis_identity::session::{self, Said, Session, Share};
use portcullis_model::{Refusal, RunId};
use tokio::net::{TcpListener, TcpStream};

use super::super::{Entrance, one_header};
use crate::app::{App, now};

const SESSION: HeaderName = HeaderName::from_static(session::HEADER);

/// What lasts as long as a connection. A launcher's requests come one after the other; whoever sends
/// several at once (over HTTP/2) mixes up its own sessions, and is refused.
#[derive(Clone, Default)]
pub(crate) struct Connection(Arc<Mutex<Sessions>>);

#[derive(Default)]
struct Sessions {
    open: Option<Session>,
    /// What the answer that is being made has to say.
    tell: Option<Share>,
}

/// Makes each connection that comes in an entrance of its own.
#[derive(Clone)]
pub(crate) struct Entrances(pub(crate) Entrance);

impl tower_service::Service<IncomingStream<'_, Incoming>> for Entrances {
    type Response = Entrance;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Entrance, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: IncomingStream<'_, Incoming>) -> Self::Future {
        std::future::ready(Ok(self.0.of(Connection::default())))
    }
}

/// Where connections come in.
pub(crate) struct Incoming(pub(crate) TcpListener);

impl Listener for Incoming {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Head and body of an answer go out in two writes; the second must not wait for the
        // client's delayed acknowledgement of the first.
        let _best_effort = stream.set_nodelay(true);
        (stream, address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the session that a proof offers, in place of any before.
    pub(super) fn begin(&self, caller: &Caller) -> Result<(), Refusal> {
        let opened = Session::open(caller)?;
        let mut sessions = self.lock();
        (sessions.open, sessions.tell) = opened.unzip();
        Ok(())
    }

    /// Adds to an answer what the launcher needs for the session that its request opened.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let share = self.lock().tell.take();
        if let Some(share) = share
            && let Ok(share) = HeaderValue::from_str(&share.to_string())
        {
            headers.insert(SESSION, share);
        }
    }

    /// Which run sends this request, and the key that proved it. A request that does not hold ends
    /// the session.
    pub(super) fn identify(
        &self,
        app: &App,
        request: &Request,
        proof: &str,
    ) -> Result<(RunId, Thumbprint), Refusal> {
        let path = request.uri().path_and_query();
        let said = Said {
            method: request.method().as_str(),
            path: path.map_or("/", |path| path.as_str()),
            destination: one_header(request.headers(), "portcullis-target")?.unwrap_or_default(),
        };
        let mut sessions = self.lock();
        let session = sessions.open.as_mut().ok_or_else(unknown)?;
        match session.verify(&app.verifier, proof, said, now()) {
            Ok(claims) => Ok((claims.run, claims.cnf.jkt)),
            Err(refusal) => {
                sessions.open = None;
                Err(refusal)
            }
        }
    }
}

/// No session was opened on this connection.
pub(super) fn unknown() -> Refusal {
    Refusal::denied(
        "session-unknown",
        "no session was opened on this connection, or it is over",
    )
    .expected("a token and a proof (`authorization`, `dpop`) with the connection's first request")
    .next("send them, and repeat")
}
