//! Real backends, a real proxy, a small client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use portcullis_proxy::{Backend, Limits, Proxy, ProxyConfig, ProxyControl, Routing, Stats};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed()
}

/// A release: answers with its name, or as its path says.
pub(crate) struct Release {
    pub(crate) backend: Backend,
    pub(crate) served: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Release {
    pub(crate) async fn tcp(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Backend::Tcp(listener.local_addr().unwrap());
        let served = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&served);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(TokioIo::new(stream), name, Arc::clone(&counter)));
            }
        });
        Self {
            backend,
            served,
            task,
        }
    }

    pub(crate) fn unix(name: &'static str, path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let served = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&served);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(TokioIo::new(stream), name, Arc::clone(&counter)));
            }
        });
        Self {
            backend: Backend::Unix(path.to_owned()),
            served,
            task,
        }
    }

    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<I>(io: I, name: &'static str, served: Arc<AtomicU64>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        served.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, Infallible>(respond(name, request).await) }
    });
    // A request whose client has gone ends in an error here; that is what tests provoke.
    drop(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(io, service)
            .with_upgrades()
            .await,
    );
}

async fn respond(name: &'static str, mut request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/fail" => Response::builder()
            .status(StatusCode::INTERNAL_SERVER_ERROR)
            .body(full(name))
            .unwrap(),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            Response::new(full(name))
        }
        // One chunk, then nothing, or an end where none is.
        "/cut" => streaming(vec![Some("half"), None], Duration::from_millis(20)),
        "/stall" => streaming(vec![Some("half"), Some("rest")], Duration::from_secs(20)),
        "/stream" => streaming(vec![Some("one"), Some("two")], Duration::from_millis(300)),
        "/echo" => {
            let head = format!(
                "{} {}\n{:?}",
                request.method(),
                request.uri(),
                request.headers()
            );
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let length = body.len();
            Response::new(full(format!("{head}\nbody of {length} bytes")))
        }
        "/headers" => Response::builder()
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("x-public", "2")
            .header("x-portcullis-release", "forged")
            .body(full(name))
            .unwrap(),
        "/socket" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut socket = TokioIo::new(upgrade.await.unwrap());
                let mut buffer = [0; 64];
                while let Ok(count @ 1..) = socket.read(&mut buffer).await {
                    socket.write_all(&buffer[..count]).await.unwrap();
                }
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "echo")
                .body(full(""))
                .unwrap()
        }
        _ => Response::new(full(name)),
    }
}

/// Chunks with a pause after each; `None` breaks the body off.
fn streaming(chunks: Vec<Option<&'static str>>, pause: Duration) -> Response<Body> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for chunk in chunks {
            let frame = match chunk {
                Some(text) => Ok(Frame::data(Bytes::from(text))),
                None => Err(std::io::Error::other("cut")),
            };
            if sender.send(frame).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    });
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    Response::new(BodyExt::boxed(StreamBody::new(stream)))
}

/// A proxy in this process.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) control: ProxyControl,
    pub(crate) config: ProxyConfig,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    _dir: Option<tempfile::TempDir>,
}

pub(crate) fn limits() -> Limits {
    Limits {
        response_timeout_ms: 600,
        body_idle_timeout_ms: 600,
        drain_timeout_ms: 3_000,
        ..Limits::default()
    }
}

pub(crate) fn config(dir: &Path) -> ProxyConfig {
    ProxyConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        control_socket: dir.join("control.sock"),
        state_file: dir.join("state"),
        limits: limits(),
    }
}

impl Running {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut running = Self::with(config(dir.path())).await;
        running._dir = Some(dir);
        running
    }

    pub(crate) async fn with(config: ProxyConfig) -> Self {
        let proxy = Proxy::bind(&config).await.unwrap();
        let address = proxy.address();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(proxy.run(async move { drop(stopped.await) }));
        Self {
            address,
            control: ProxyControl::new(config.control_socket.clone()),
            config,
            stop: Some(stop),
            task,
            _dir: None,
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.config.state_file.parent().unwrap().to_owned()
    }

    /// Both releases and a share for the canary.
    pub(crate) async fn route(&self, epoch: u64, stable: &Release, canary: &Release, weight: u16) {
        let routing = routing(epoch, &stable.backend, Some(&canary.backend), weight);
        self.control.configure(&routing).await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        get(self.address, path, &[]).await
    }

    pub(crate) async fn stats(&self) -> Stats {
        self.control.stats().await.unwrap()
    }

    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn stopped(self) {
        self.task.await.unwrap();
    }
}

pub(crate) fn routing(
    epoch: u64,
    stable: &Backend,
    canary: Option<&Backend>,
    weight: u16,
) -> Routing {
    Routing {
        epoch,
        seed: 7,
        stable: stable.clone(),
        canary: canary.cloned(),
        weight_per_mille: weight,
        heartbeat_ttl_ms: 60_000,
        sticky: None,
        mark_responses: true,
    }
}

/// A connection to the proxy that is kept for several requests.
pub(crate) struct Client {
    sender: hyper::client::conn::http1::SendRequest<Body>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        Self { sender }
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        self.sender.ready().await.unwrap();
        self.sender.send_request(request).await.unwrap()
    }

    pub(crate) async fn get(&mut self, path: &str) -> (StatusCode, String) {
        let response = self.send(request("GET", path, &[], full(""))).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Request<Body> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "example.test");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).unwrap()
}

pub(crate) async fn get(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, String) {
    let response = Client::connect(address)
        .await
        .send(request("GET", path, headers, full("")))
        .await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Waits until `done` says so; a second is long on any machine.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    for _ in 0..200 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not happen");
}
