//! Named hosts: each request looked at, decided, recorded, and only then forwarded. What is read
//! from a source that the task does not trust leaves its label on the run before it is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use portcullis_checks::outgoing::{Found, Kept};
use portcullis_flow::run::TAINT_MAX_LABELS;
use portcullis_gateway::http::egress::{destination_of, readable};
use portcullis_gateway::http::room::Room;
use portcullis_gateway::http::tunnel::{Tunnel, TunnelBounds};
use portcullis_gateway::http::upload::{Begun, Upload, begin};
use portcullis_gateway::http::{Bounds, Destination, Forwarded, foreign_credential};
use portcullis_identity::session;
use portcullis_model::event::{CallObserved, LeaseKind, TaintAdded};
use portcullis_model::refusal::BY_LAUNCHERS;
use portcullis_model::{EndpointId, Refusal, RefusalKind};
use portcullis_policy::action::{Action, NetConnect};

use super::super::{Problem, one_header};
use super::calls::{self, Outcome};
use super::http::{self, decide, record_outcome, texts};
use super::looks::{is_long, look};
use super::upload::{self, BrokenOff, Passing, Rest};
use super::void::until_void;
use super::{Caller, active, authenticate, kept, websocket};
use crate::app::{App, now};
use crate::facts;
use crate::worker;

/// Headers between launcher and server that go no further, and are not looked at as what leaves: by
/// chance, a proof can look like a credential.
const OURS: [HeaderName; 6] = [
    header::AUTHORIZATION,
    HeaderName::from_static("dpop"),
    HeaderName::from_static(session::HEADER),
    HeaderName::from_static("portcullis-target"),
    HeaderName::from_static("portcullis-target-authorization"),
    HeaderName::from_static("portcullis-refusal"),
];
/// A request for another host, which the launcher names in `portcullis-target`.
pub(super) async fn request(app: &Arc<App>, mut request: Request) -> Result<Response, Problem> {
    let caller = authenticate(app, &request)?;
    let uri: Uri = target(request.headers())?.parse().map_err(|_| {
        Refusal::malformed("destination").expected("http:// or https://, host and path")
    })?;
    let destination = destination_of(&uri)?;
    if let Some((id, rest)) = endpoint_of(&caller, &uri) {
        let caller = active(app, caller, &LeaseKind::Endpoint(id.clone())).await?;
        for name in OURS {
            request.headers_mut().remove(name);
        }
        return Box::pin(http::call(app, caller, &id, &rest, request)).await;
    }
    let lease = LeaseKind::Host(destination.to_string());
    let caller = active(app, caller, &lease).await?;
    let asks_to_switch = is_websocket(request.headers());
    let upgrade = asks_to_switch.then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    let asks = head.headers.remove("portcullis-target-authorization");
    for name in OURS {
        head.headers.remove(name);
    }
    let room = app.rooms.of(caller.run.id);
    let begun = begin(body, &room, upload::is_encoded(&head.headers)).await?;
    let (body, rest) = match begun {
        Begun::Whole(body) => (body, None),
        Begun::Large(..) if asks_to_switch => {
            let resource = format!("host {destination}");
            let refused = Err(websocket::with_a_body());
            return Ok(noted(app, &caller, &resource, refused).await?);
        }
        Begun::Large(first, rest) => (first, Some((upload::check(&head.headers), Rest::new(rest)))),
    };
    let mut facts = facts_of(app, &caller, &destination, &lease);
    facts.method = head.method.as_str().to_owned();
    facts.path = uri.path().to_owned();
    // Its own header again, under the name that it would leave by.
    if let Some(value) = asks {
        head.headers.insert(header::AUTHORIZATION, value);
    }
    facts.foreign_credential = foreign_credential(&head.headers, &uri).is_some();
    let resource = format!("host {destination}");
    let looked = look_at(app, &caller, &head.headers, &uri, &body, &mut facts).await;
    noted(app, &caller, &resource, looked).await?;
    let rest = match rest {
        Some((length, rest)) => Some((noted(app, &caller, &resource, length).await?, rest)),
        None => None,
    };
    // Whatever passes later is decided with the same facts.
    let upgrade = upgrade.map(|upgrade| (upgrade, facts.clone()));
    let rest = rest.map(|(length, rest)| (length, rest, facts.clone()));
    let permit = decide(app, &caller, Action::NetConnect(facts), &resource).await?;
    taint(app, &caller, &destination, &head.method, &uri).await?;
    let recorded = calls::grant(app, &caller, permit, &lease).await;
    let recorded = noted(app, &caller, &resource, recorded).await?;
    head.uri = uri;
    if let Some((upgrade, facts)) = upgrade {
        let opening = websocket::Opening {
            recorded,
            destination: &destination,
            lease,
            request: Request::from_parts(head, body),
            inside: upgrade,
        };
        let passing = Passing {
            kept: kept::files(app, &caller).await?,
            caller,
            facts,
            resource,
        };
        return Ok(Box::pin(websocket::open(app, passing, opening)).await?);
    }
    let (body, broken) = match rest {
        None => (Upload::from(body), BrokenOff::default()),
        Some((length, rest, facts)) => {
            let passing = Passing {
                kept: kept::files(app, &caller).await?,
                caller: caller.clone(),
                facts,
                resource: resource.clone(),
            };
            upload::stream(app, passing, length, body, rest)
        }
    };
    let onward = Request::from_parts(head, body);
    let bounds = Bounds::default();
    let stop = until_void(app, &caller);
    let forwarded = app
        .egress
        .forward(recorded, &destination, onward, bounds, stop)
        .await;
    if let (Err(_), Some(refusal)) = (&forwarded, broken.take()) {
        calls::ended(app, &caller, Outcome::none(&lease));
        return Err(refusal.into());
    }
    let forwarded = answered(app, &caller, &lease, &resource, forwarded).await?;
    Ok(passed_on(app, caller, lease, forwarded))
}

/// A tunnel to a named host and port: bytes pass both ways, unread, until the run ends or is
/// halted.
pub(super) async fn tunnel(app: &Arc<App>, mut request: Request) -> Result<Response, Problem> {
    let caller = authenticate(app, &request)?;
    let destination: Destination = target(request.headers())?.parse()?;
    let lease = LeaseKind::Tunnel(destination.to_string());
    let caller = active(app, caller, &lease).await?;
    let mut facts = facts_of(app, &caller, &destination, &lease);
    facts.method = "CONNECT".to_owned();
    facts.opaque = true;
    let resource = format!("tunnel to {destination}");
    let permit = decide(app, &caller, Action::NetConnect(facts), &resource).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    let uri: Uri = destination
        .to_string()
        .parse()
        .map_err(|_| Refusal::malformed("destination").received(&destination.to_string()))?;
    taint(app, &caller, &destination, request.method(), &uri).await?;
    let recorded = http::grant(app, &caller, permit, &lease, None).await;
    let recorded = noted(app, &caller, &resource, recorded).await?;
    let tunnel = Tunnel::open(recorded, &destination, &app.addresses).await;
    let tunnel = noted(app, &caller, &resource, tunnel).await?;
    let (app, stop) = (Arc::clone(app), until_void(app, &caller));
    tokio::spawn(async move {
        let outcome = tunnel.run(upgrade, TunnelBounds::default(), stop).await;
        let bytes = (outcome.bytes_out, outcome.bytes_in);
        let status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
        record_outcome(&app, &caller, outcome_of(&caller, lease, status, bytes)).await;
    });
    Ok((
        StatusCode::SWITCHING_PROTOCOLS,
        [
            (header::CONNECTION, "upgrade"),
            (header::UPGRADE, "portcullis-tunnel"),
        ],
        Body::empty(),
    )
        .into_response())
}

/// What a launcher refused before it came here: recorded as a denial of the run's.
pub(super) async fn refused(app: &Arc<App>, request: Request) -> Result<Response, Problem> {
    let caller = authenticate(app, &request)?;
    let destination: Destination = target(request.headers())?.parse()?;
    let said = one_header(request.headers(), "portcullis-refusal")?.unwrap_or_default();
    let code = BY_LAUNCHERS
        .into_iter()
        .find(|code| *code == said)
        .ok_or_else(|| {
            Refusal::malformed("refusal code")
                .expected(&BY_LAUNCHERS.join(", "))
                .received(said)
        })?;
    let refusal = Refusal::new(RefusalKind::Denied, code, "refused by the launcher");
    app.record_denial(
        caller.actor(),
        Some(caller.run.id),
        "net.connect",
        format!("host {destination}"),
        &refusal,
        app.state_decision(&caller.state),
    )
    .await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// As [`noted`], for a request whose grant is recorded: that no answer came is its outcome.
pub(super) async fn answered<T>(
    app: &Arc<App>,
    caller: &Caller,
    lease: &LeaseKind,
    resource: &str,
    result: Result<T, Refusal>,
) -> Result<T, Refusal> {
    if result.is_err() {
        calls::ended(app, caller, Outcome::none(lease));
    }
    noted(app, caller, resource, result).await
}

/// The answer; how the exchange ended is noted once it did.
fn passed_on(app: &Arc<App>, caller: Caller, lease: LeaseKind, forwarded: Forwarded) -> Response {
    let app = Arc::clone(app);
    forwarded.ending.then(move |seen| {
        let outcome = Outcome {
            lease,
            status: seen.status,
            bytes: (seen.bytes_out, seen.bytes_in),
        };
        calls::ended(&app, &caller, outcome);
    });
    forwarded.response.map(Body::new).into_response()
}

/// What is denied outside of policy (an address that isn't public, a body that can't be looked at)
/// is recorded as any other denial.
async fn noted<T>(
    app: &App,
    caller: &Caller,
    resource: &str,
    result: Result<T, Refusal>,
) -> Result<T, Refusal> {
    http::noted(app, caller, "net.connect", resource, result).await
}

fn target(headers: &HeaderMap) -> Result<&str, Refusal> {
    one_header(headers, "portcullis-target")?.ok_or_else(|| {
        Refusal::malformed("destination").expected("a `portcullis-target` header by the launcher")
    })
}

/// The endpoint lent to the run below whose base URL this one lies, and what is left of it. So a
/// program whose base URL can't be changed gets the credential added all the same.
fn endpoint_of(caller: &Caller, uri: &Uri) -> Option<(EndpointId, String)> {
    let lent = caller.run.leases.iter().filter_map(|lease| match lease {
        LeaseKind::Endpoint(id) => caller.state.inventory.endpoints.get(id),
        LeaseKind::Identity | LeaseKind::Git(_) | LeaseKind::Host(_) | LeaseKind::Tunnel(_) => None,
    });
    let path = uri.path_and_query().map_or("/", |both| both.as_str());
    lent.into_iter().find_map(|record| {
        let base: Uri = record.base_url.parse().ok()?;
        let there = base.scheme() == uri.scheme()
            && destination_of(&base).ok()? == destination_of(uri).ok()?;
        let rest = path.strip_prefix(base.path().trim_end_matches('/'))?;
        (there && (rest.is_empty() || rest.starts_with(['/', '?'])))
            .then(|| (record.id.clone(), rest.to_owned()))
    })
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn facts_of(
    app: &App,
    caller: &Caller,
    destination: &Destination,
    lease: &LeaseKind,
) -> NetConnect {
    NetConnect {
        host: destination.host().to_owned(),
        port: destination.port(),
        method: String::new(),
        path: String::new(),
        task: facts::task(&caller.state, caller.run.task, Some(&caller.run), now()),
        named_in_task: caller.run.leases.contains(lease),
        // A name is resolved when it is dialled; then its addresses are held against the rule.
        private_address: destination
            .host()
            .parse()
            .is_ok_and(|address| app.addresses.check(address).is_err()),
        foreign_credential: false,
        opaque: false,
        secrets: BTreeSet::new(),
        kept_files: BTreeSet::new(),
    }
}

/// Looks for what must not leave: in the body, in method and URL, and in what headers say.
async fn look_at(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    uri: &Uri,
    body: &Bytes,
    facts: &mut NetConnect,
) -> Result<(), Refusal> {
    /// About what the first line and the headers of a request come to, in bytes.
    const AROUND_BYTES: usize = 1024;
    let mut around = String::with_capacity(AROUND_BYTES);
    // A method may be any word.
    around.push_str(&facts.method);
    around.push(' ');
    around.push_str(uri.path_and_query().map_or("", |both| both.as_str()));
    for (name, value) in headers {
        around.push('\n');
        around.push_str(name.as_str());
        around.push_str(": ");
        around.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    let kept = kept::files(app, caller).await?;
    let room = app.rooms.of(caller.run.id);
    // What is packed may become much more.
    let looked = if is_long(body.len() + around.len()) || upload::is_encoded(headers) {
        let (headers, body) = (headers.clone(), body.clone());
        let look = move || unpack_and_look(&headers, &body, &around, &kept, &room);
        app.looks.apart(|| look).await?
    } else {
        unpack_and_look(headers, body, &around, &kept, &room)
    };
    let found = looked?;
    facts.secrets.extend(texts(found.secrets));
    facts.kept_files.extend(found.kept_files);
    Ok(())
}

fn unpack_and_look(
    headers: &HeaderMap,
    body: &Bytes,
    around: &str,
    kept: &Kept,
    room: &Room,
) -> Result<Found, Refusal> {
    let plain = readable(headers, body, room)?;
    Ok(look([plain.as_ref(), around.as_bytes()], kept))
}

/// Notes that the run is about to read from a source that its task does not trust.
async fn taint(
    app: &App,
    caller: &Caller,
    destination: &Destination,
    method: &Method,
    uri: &Uri,
) -> Result<(), Refusal> {
    /// Longest origin that is told, in characters.
    const ORIGIN_MAX_CHARS: usize = 400;
    let name = destination.to_string();
    let state = app.state();
    let trusted = state
        .tasks
        .get(&caller.run.task)
        .is_some_and(|task| task.payload.capabilities.trusted.contains(&name));
    let label = format!("host:{name}");
    let known = state
        .runs
        .get(&caller.run.id)
        .is_some_and(|run| run.taint.contains(&label) || run.taint.len() >= TAINT_MAX_LABELS);
    if trusted || known {
        return Ok(());
    }
    // The query may hold what the ledger must not.
    let place = uri.to_string();
    let place = place.split('?').next().unwrap_or_default();
    let body = TaintAdded {
        run: caller.run.id,
        label,
        origin: format!("{method} {place}")
            .chars()
            .take(ORIGIN_MAX_CHARS)
            .collect(),
    };
    match worker::record(app, body).await {
        // Two requests at a time: the other one said it.
        Err(refusal) if refusal.code == "already-tainted" => Ok(()),
        other => other,
    }
}

fn outcome_of(caller: &Caller, lease: LeaseKind, status: u16, bytes: (u64, u64)) -> CallObserved {
    CallObserved {
        run: caller.run.id,
        lease,
        model_asked: None,
        model_served: None,
        status,
        bytes,
        request: None,
        answer: None,
    }
}
