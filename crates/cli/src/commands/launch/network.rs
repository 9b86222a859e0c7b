//! The way out of a job's sandbox: a forward proxy of this process, at the far end of the only
//! socket that the job has.
//!
//! It lends exactly the hosts that the job declares. The grant is the job's claim, which was in
//! the ledger before the builder got its order; that entry is the server's, so no permit is held
//! here, and every connection is held against the list anew. Names are resolved and dialled out
//! here ([`Destination::connect`]): inside there is no resolver and no route. Nothing that says
//! who calls is passed on, and nothing of ours is added.
//!
//! | bound | what happens past it |
//! |---|---|
//! | connections at once | further ones wait |
//! | bytes of the whole job, each way | connections break, new ones are refused |
//! | silence on a connection | it ends |
//! | the job's time limit | the sandbox ends, and the proxy with it |

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_gateway::http::egress::destination_of;
use portcullis_gateway::http::{AddressRule, Destination};
use portcullis_model::{Refusal, RefusalKind};
use portcullis_server::builder::network::{
    FETCHED_MAX, Fetched, HostUse, NetworkUse, REFUSED_MAX, RefusedUse, URL_MAX_BYTES,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

mod exchange;
mod metered;

use exchange::Watched;
use metered::Metered;

/// Most connections at once: more than any package manager opens.
const CONNECTIONS_MAX: usize = 64;
/// Bytes that a job may send (1 GiB): it fetches; what it makes goes another way.
const OUT_MAX_BYTES: u64 = 1024 * 1024 * 1024;
/// Bytes that a job may receive (16 GiB): toolchains and all dependencies of a large build.
const IN_MAX_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// Longest silence on a connection to the outside.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// Longest time for a request's head.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Largest head of a request or an answer, in bytes.
const HEAD_MAX_BYTES: usize = 64 * 1024;

/// What a request gets.
type Reply = Response<Either<Full<Bytes>, Watched>>;

/// The hosts that a job declares, before it runs.
pub(super) struct Declared {
    hosts: BTreeMap<Destination, Arc<Meter>>,
    rule: AddressRule,
}

impl Declared {
    /// `None` where nothing is declared: then there is no way out at all.
    ///
    /// # Errors
    /// A host that isn't `name:port`.
    pub(super) fn new(hosts: &[String], allow_loopback: bool) -> Result<Option<Self>, Refusal> {
        if hosts.is_empty() {
            return Ok(None);
        }
        let hosts = hosts
            .iter()
            .map(|host| Ok((host.parse()?, Arc::default())))
            .collect::<Result<_, Refusal>>()?;
        let rule = if allow_loopback {
            AddressRule::also([
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ])
        } else {
            AddressRule::public()
        };
        Ok(Some(Self { hosts, rule }))
    }

    /// Serves the socket until [`Network::end`].
    ///
    /// # Errors
    /// No thread or no runtime.
    pub(super) fn serve(self, listener: std::net::TcpListener) -> Result<Network, Refusal> {
        let unusable = |error: std::io::Error| {
            Refusal::unavailable("job-network", "the job's way out can't be served")
                .received(&error.to_string())
        };
        listener.set_nonblocking(true).map_err(unusable)?;
        let shared = Arc::new(Shared {
            declared: self,
            told: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        // A runtime and a thread of its own: the caller waits for the sandbox without one.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(unusable)?;
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("job-network".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, &serving) => {}
                        // Sent or dropped, it is over.
                        _ = stopped => {}
                    }
                });
                // A name that is still being looked up holds nobody.
                runtime.shutdown_background();
            })
            .map_err(unusable)?;
        Ok(Network {
            stop,
            thread,
            shared,
        })
    }
}

/// A job's way out, being served.
pub(super) struct Network {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Network {
    /// Ends every connection and tells what went through. Called when the sandbox has ended.
    ///
    /// # Errors
    /// The proxy broke, so that what it counted is not the whole of it.
    pub(super) fn end(self) -> Result<NetworkUse, Refusal> {
        let _ = self.stop.send(());
        self.thread
            .join()
            .map_err(|_| Refusal::internal("the job's proxy broke"))?;
        Ok(self.shared.used())
    }
}

/// Counts of one declared host.
#[derive(Debug, Default)]
struct Meter {
    connections: AtomicU64,
    failures: AtomicU64,
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
}

/// What every connection knows.
struct Shared {
    declared: Declared,
    /// What is told one by one.
    told: Mutex<NetworkUse>,
}

impl Shared {
    /// The destination's counts, if a job may reach it now.
    fn allow(&self, destination: &Destination) -> Result<&Arc<Meter>, Refusal> {
        let meter = self.declared.hosts.get(destination).ok_or_else(|| {
            let hosts: Vec<String> = self
                .declared
                .hosts
                .keys()
                .map(ToString::to_string)
                .collect();
            Refusal::denied(
                "host-not-declared",
                format!("this job does not declare {destination}"),
            )
            .expected(&hosts.join(", "))
            .received(&destination.to_string())
            .next("name it in `hosts` of .portcullis/jobs.toml on the protected branch")
        })?;
        self.within_bytes()?;
        Ok(meter)
    }

    fn within_bytes(&self) -> Result<(), Refusal> {
        let sum = |count: fn(&Meter) -> &AtomicU64| {
            let counts = self.declared.hosts.values();
            counts
                .map(|meter| count(meter).load(Ordering::Relaxed))
                .sum::<u64>()
        };
        let (out, back) = (sum(|meter| &meter.bytes_out), sum(|meter| &meter.bytes_in));
        if out <= OUT_MAX_BYTES && back <= IN_MAX_BYTES {
            return Ok(());
        }
        Err(Refusal::denied(
            "job-network-bytes",
            "this job has used up what it may send or receive",
        )
        .expected(&format!(
            "at most {OUT_MAX_BYTES} bytes out and {IN_MAX_BYTES} bytes in"
        ))
        .received(&format!("{out} bytes out, {back} bytes in")))
    }

    async fn connect(self: &Arc<Self>, destination: &Destination) -> Result<Metered, Refusal> {
        let meter = self.allow(destination)?;
        let stream: Result<TcpStream, Refusal> = destination.connect(&self.declared.rule).await;
        let counted = match &stream {
            Ok(_) => &meter.connections,
            Err(_) => &meter.failures,
        };
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(Metered::new(stream?, Arc::clone(meter), Arc::clone(self)))
    }

    fn note_refused(&self, destination: String, code: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.refusals += 1;
        let known =
            |known: &&mut RefusedUse| known.destination == destination && known.code == code;
        if let Some(known) = told.refused.iter_mut().find(known) {
            known.count += 1;
        } else if told.refused.len() < REFUSED_MAX {
            told.refused.push(RefusedUse {
                destination,
                code: code.to_owned(),
                count: 1,
            });
        }
    }

    fn note_fetched(&self, fetched: Fetched) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.fetches += 1;
        // The job chooses method and path; neither may make the record grow past its bound.
        let length = fetched.method.len() + fetched.url.len();
        if told.fetched.len() < FETCHED_MAX && length <= URL_MAX_BYTES {
            told.fetched.push(fetched);
        }
    }

    fn used(&self) -> NetworkUse {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let hosts = self.declared.hosts.iter().map(|(host, meter)| HostUse {
            host: host.host().to_owned(),
            port: host.port(),
            connections: meter.connections.load(Ordering::Relaxed),
            failures: meter.failures.load(Ordering::Relaxed),
            bytes_out: meter.bytes_out.load(Ordering::Relaxed),
            bytes_in: meter.bytes_in.load(Ordering::Relaxed),
        });
        NetworkUse {
            hosts: hosts.collect(),
            ..told.clone()
        }
    }
}

/// Takes connections until it is dropped.
async fn accept(listener: std::net::TcpListener, shared: &Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::new(place), Arc::clone(shared)));
            }
            // Out of descriptors, or a client that went away: the next may fare better.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One connection from inside. `place` is held by it and by all that it started.
async fn serve(stream: TcpStream, place: Arc<OwnedSemaphorePermit>, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let (place, shared) = (Arc::clone(&place), Arc::clone(&shared));
        async move { Ok::<_, Infallible>(answer(request, place, &shared).await) }
    });
    // However it ends, the client notices by itself.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(
    request: Request<Incoming>,
    place: Arc<OwnedSemaphorePermit>,
    shared: &Arc<Shared>,
) -> Reply {
    let (named, result) = match asked(&request) {
        Ok(destination) => (
            destination.to_string(),
            pass(request, &destination, place, shared).await,
        ),
        Err(refusal) => ("malformed".to_owned(), Err(refusal)),
    };
    result.unwrap_or_else(|refusal| {
        let unreachable = refusal.kind == RefusalKind::Unavailable;
        if !unreachable {
            shared.note_refused(named, &refusal.code);
        }
        refused(&refusal, unreachable)
    })
}

async fn pass(
    request: Request<Incoming>,
    destination: &Destination,
    place: Arc<OwnedSemaphorePermit>,
    shared: &Arc<Shared>,
) -> Result<Reply, Refusal> {
    let outside = shared.connect(destination).await?;
    if request.method() == Method::CONNECT {
        Ok(exchange::tunnel(request, outside, place))
    } else {
        exchange::forward(request, destination, outside, place, shared).await
    }
}

/// Where a request wants to go.
fn asked(request: &Request<Incoming>) -> Result<Destination, Refusal> {
    if request.method() == Method::CONNECT {
        let authority = request.uri().authority().map_or("", |given| given.as_str());
        authority.parse()
    } else {
        if request.uri().scheme_str() == Some("https") {
            return Err(Refusal::malformed("destination")
                .expected("http://host[:port]/path; for https, CONNECT host:port")
                .received(&request.uri().to_string()));
        }
        destination_of(request.uri())
    }
}

/// A refusal as the tool inside prints it.
fn refused(refusal: &Refusal, unreachable: bool) -> Reply {
    let text = format!("portcullis: {}: {refusal}\n", refusal.code);
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(text))));
    *response.status_mut() = if unreachable {
        StatusCode::BAD_GATEWAY
    } else {
        StatusCode::FORBIDDEN
    };
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests;
