//! WebSockets: each message that leaves is looked at as a body is. What policy denied of a body is
//! denied of a message, and recorded alike; the connection ends with it.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use portcullis_checks::outgoing::{Found, Messages};
use portcullis_gateway::http::tunnel::TunnelBounds;
use portcullis_gateway::http::websocket::{Looks, Said};
use portcullis_gateway::http::{Bounds, Destination};
use portcullis_model::event::LeaseKind;
use portcullis_model::{Recorded, Refusal};
use portcullis_policy::Permit;
use portcullis_policy::action::{Action, NetConnect};

use super::calls::{self, Outcome};
use super::egress::answered;
use super::http::{decide, noted, texts};
use super::looks::is_long;
use super::upload::Passing;
use super::void::until_void;
use crate::app::App;

/// A WebSocket that was decided on and recorded.
pub(super) struct Opening<'a> {
    pub(super) recorded: Recorded<Permit>,
    pub(super) destination: &'a Destination,
    pub(super) lease: LeaseKind,
    pub(super) request: Request<Bytes>,
    /// Where the program speaks once it was told that the host agreed.
    pub(super) inside: hyper::upgrade::OnUpgrade,
}

/// Asks the host, and passes what is said in a task of its own.
pub(super) async fn open(
    app: &Arc<App>,
    passing: Passing,
    opening: Opening<'_>,
) -> Result<Response, Refusal> {
    let Opening {
        recorded,
        destination,
        lease,
        request,
        inside,
    } = opening;
    let caller = passing.caller.clone();
    let socket = app
        .egress
        .websocket(recorded, destination, request, Bounds::default())
        .await;
    let socket = answered(app, &caller, &lease, &passing.resource, socket).await?;
    let status = socket.answer.status();
    let headers = socket.answer.headers().clone();
    let (app, stop) = (Arc::clone(app), until_void(app, &caller));
    tokio::spawn(async move {
        let looks = Look {
            app: Arc::clone(&app),
            passing,
            lease: lease.clone(),
            messages: Messages::default(),
            control: Messages::default(),
        };
        let room = app.rooms.of(caller.run.id);
        let bounds = TunnelBounds::default();
        let outcome = socket.run(inside, &room, looks, bounds, stop).await;
        let outcome = Outcome {
            lease,
            status: status.as_u16(),
            bytes: outcome.map_or((0, 0), |outcome| (outcome.bytes_out, outcome.bytes_in)),
        };
        calls::ended(&app, &caller, outcome);
    });
    Ok((status, headers, Body::empty()).into_response())
}

/// A WebSocket is asked for with a body that does not end soon: where its frames would begin is not
/// clear.
pub(super) fn with_a_body() -> Refusal {
    Refusal::denied("not-understood", "a WebSocket is asked for with a body")
        .expected("the request of a WebSocket without a body (RFC 6455, 4.1)")
        .received("a body that is large, or pauses")
}

struct Look {
    app: Arc<App>,
    passing: Passing,
    lease: LeaseKind,
    messages: Messages,
    /// What control frames carry, which goes on from the last one: a ping between two messages does
    /// not part them.
    control: Messages,
}

impl Looks for Look {
    async fn look(&mut self, what: Said, said: &[u8]) -> Result<(), Refusal> {
        let before = match what {
            Said::Message => &mut self.messages,
            Said::Control => &mut self.control,
        };
        let looked = if is_long(said.len()) {
            let (mut messages, kept) = (std::mem::take(before), Arc::clone(&self.passing.kept));
            let look = || {
                let said = said.to_vec();
                move || (messages.look(&kept, &said), messages)
            };
            let (looked, messages) = self.app.looks.apart(look).await?;
            *before = messages;
            looked
        } else {
            before.look(&self.passing.kept, said)
        };
        match looked {
            Ok(()) => Ok(()),
            Err(found) => self.decide(found).await,
        }
    }

    async fn refused(&mut self, refusal: &Refusal) {
        let Passing {
            caller, resource, ..
        } = &self.passing;
        let refused = Err::<(), _>(refusal.clone());
        // What is denied is recorded by this; the refusal itself is told already.
        let _same = noted(&self.app, caller, "net.connect", resource, refused).await;
    }
}

impl Look {
    /// Has policy decide on a message in which something was found. Where it permits that, as while
    /// a repository is only observed, the message has a grant of its own before it leaves.
    async fn decide(&self, found: Found) -> Result<(), Refusal> {
        let Passing {
            caller,
            facts,
            resource,
            ..
        } = &self.passing;
        let mut facts: NetConnect = facts.clone();
        facts.secrets.extend(texts(found.secrets));
        facts.kept_files.extend(found.kept_files);
        let action = Action::NetConnect(facts);
        let permit = decide(&self.app, caller, action, resource).await?;
        let recorded = calls::grant(&self.app, caller, permit, &self.lease).await;
        let recorded = noted(&self.app, caller, "net.connect", resource, recorded).await?;
        let _used = recorded.spend();
        // Its bytes are a part of the connection's.
        let outcome = Outcome {
            lease: self.lease.clone(),
            status: StatusCode::SWITCHING_PROTOCOLS.as_u16(),
            bytes: (0, 0),
        };
        calls::ended(&self.app, caller, outcome);
        Ok(())
    }
}
