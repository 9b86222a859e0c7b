//! Real sockets: an endpoint that plays a model, hosts that play the outside.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use portcullis_model::{LedgerIndex, Recorded, Recorder, Refusal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::egress::{EgressClient, destination_of};
use super::model::{Endpoint, ModelCall, ModelClient};
use super::tunnel::{Ended, Tunnel, TunnelBounds};
use super::*;

struct Ledger;

impl Recorder for Ledger {
    type Command = ();

    async fn append(&self, (): ()) -> Result<LedgerIndex, Refusal> {
        Ok(1)
    }
}

fn room() -> room::Room {
    room::Rooms::default().of(portcullis_model::RunId(1))
}

async fn recorded() -> Recorded<()> {
    Ledger.record((), ()).await.unwrap()
}

type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

/// Answers by the path that is asked for, and remembers what came.
async fn outside(tls: Option<Arc<rustls::ServerConfig>>) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Seen = Arc::default();
    let log = seen.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (log, tls) = (log.clone(), tls.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let log = log.clone();
                    async move { Ok::<_, Infallible>(reply(&log, request).await) }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                match tls {
                    Some(config) => {
                        let acceptor = tokio_rustls::TlsAcceptor::from(config);
                        if let Ok(stream) = acceptor.accept(stream).await {
                            let _ = builder
                                .serve_connection(TokioIo::new(stream), service)
                                .await;
                        }
                    }
                    None => {
                        let _ = builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    }
                }
            });
        }
    });
    (address, seen)
}

async fn reply(log: &Seen, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let path = head.uri.path().to_owned();
    log.lock()
        .unwrap()
        .push((head.uri.to_string(), head.headers, body));
    let (status, kind, body) = match path.as_str() {
        "/v1/chat" => (200, "application/json", r#"{"id":"1","model":"m-served"}"#.to_owned()),
        "/v1/stream" => (
            200,
            "text/event-stream",
            "event: message_start\ndata: {\"message\":{\"model\":\"m-stream\"}}\n\ndata: [DONE]\n\n".to_owned(),
        ),
        "/v1/big" => (200, "application/json", "x".repeat(100_000)),
        "/v1/away" => (302, "text/plain", String::new()),
        _ => (404, "text/plain", "no".to_owned()),
    };
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .header("set-cookie", "a=b")
        .header("portcullis-session", "theirs")
        .header("location", "http://127.0.0.1:1/elsewhere")
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

fn json(body: &str) -> Request<Full<Bytes>> {
    Request::post("/model/m/chat")
        .header("content-type", "application/json")
        .header("authorization", "Bearer from-inside")
        .header("x-api-key", "from-inside")
        .header("cookie", "from=inside")
        .header("x-auth-key", "from-inside")
        .header("x-forwarded-for", "1.2.3.4")
        .header("anthropic-version", "2023-06-01")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap()
}

async fn call(
    base: &str,
    rest: &str,
    bounds: Bounds,
    client: &ModelClient,
) -> Result<(StatusCode, HeaderMap, Result<Bytes, String>, Observation), Refusal> {
    let key = Credential::new("sk-outside".into());
    let endpoint = Endpoint::new(base, "authorization", "Bearer ", Some(&key)).unwrap();
    let call = ModelCall::read(json(r#"{"model":"m-asked","x":[1]}"#), rest, &room()).await?;
    assert_eq!(call.model_asked(), Some("m-asked"));
    let forwarded = client
        .forward(recorded().await, &endpoint, call, bounds, never())
        .await?;
    let (head, body) = forwarded.response.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .map_err(|error| error.to_string());
    let observation = forwarded.ending.told().await.unwrap();
    Ok((head.status, head.headers, body, observation))
}

#[tokio::test]
async fn a_model_call_leaves_with_our_key_and_nothing_of_theirs() {
    let (address, seen) = outside(None).await;
    let client = ModelClient::new(None).unwrap();
    let base = format!("http://{address}/v1");
    let bounds = Bounds {
        keep_bytes: 1_000,
        ..Bounds::default()
    };
    let (status, headers, body, observation) = call(&base, "/chat", bounds, &client).await.unwrap();
    assert_eq!(status, 200);
    assert!(!headers.contains_key("set-cookie"));
    assert!(!headers.contains_key("portcullis-session"));
    let (path, sent, request) = seen.lock().unwrap()[0].clone();
    assert_eq!(path, "/v1/chat");
    assert_eq!(sent.get_all("authorization").iter().count(), 1);
    assert_eq!(sent["authorization"], "Bearer sk-outside");
    for name in ["x-api-key", "cookie", "x-auth-key", "x-forwarded-for"] {
        assert!(!sent.contains_key(name), "{name}");
    }
    assert_eq!(sent["anthropic-version"], "2023-06-01");
    assert_eq!(sent["host"], address.to_string());
    assert_eq!(observation.model_asked.as_deref(), Some("m-asked"));
    assert_eq!(observation.model_served.as_deref(), Some("m-served"));
    assert_eq!(observation.bytes_out, request.len() as u64);
    let body = body.unwrap();
    assert_eq!(observation.bytes_in, body.len() as u64);
    assert_eq!(
        observation.answer_digest,
        portcullis_model::Digest::of(&body)
    );
    assert_eq!(observation.answer, body);
    assert!(observation.answer_whole && observation.result.is_ok());
    assert_eq!(observation.request.unwrap(), request);

    let (_, _, _, observation) = call(&base, "/stream", bounds, &client).await.unwrap();
    assert_eq!(observation.model_served.as_deref(), Some("m-stream"));
}

#[tokio::test]
async fn bounds_cut_an_answer_and_redirects_are_not_followed() {
    let (address, seen) = outside(None).await;
    let client = ModelClient::new(None).unwrap();
    let base = format!("http://{address}/v1");
    let bounds = Bounds {
        answer_bytes: 50_000,
        ..Bounds::default()
    };
    let (_, _, body, observation) = call(&base, "/big", bounds, &client).await.unwrap();
    assert!(body.is_err());
    assert!(
        observation
            .result
            .unwrap_err()
            .contains("larger than 50000")
    );
    let (status, ..) = call(&base, "/away", Bounds::default(), &client)
        .await
        .unwrap();
    assert_eq!(status, 302);
    assert_eq!(seen.lock().unwrap().len(), 2);
    let gone = call("http://127.0.0.1:1", "/x", Bounds::default(), &client).await;
    assert_eq!(gone.unwrap_err().code, "model-unreachable");
    let big = Request::post("/")
        .body(Full::new(Bytes::from(vec![b' '; 9 << 20])))
        .unwrap();
    for (rest, foreign) in [
        ("/v1beta/models/m:generateContent?key=theirs", true),
        ("/chat?alt=sse&access_token=theirs", true),
        ("/chat?alt=sse&key=the-gateway-adds-the-key", false),
        ("/chat?max_tokens=5", false),
    ] {
        let call = ModelCall::read(json("{}"), rest, &room()).await.unwrap();
        assert_eq!(call.foreign_credential().is_some(), foreign, "{rest}");
    }
    let refusal = ModelCall::read(big, "/x", &room()).await.unwrap_err();
    assert_eq!(refusal.code, "model-request-too-large");
}

#[tokio::test]
async fn an_endpoint_that_is_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let bounds = Bounds {
        head_time: Duration::from_millis(50),
        ..Bounds::default()
    };
    let client = ModelClient::new(None).unwrap();
    let refusal = call(&base, "/x", bounds, &client).await.unwrap_err();
    assert_eq!(refusal.code, "model-timeout");
}

#[tokio::test]
async fn only_authorities_that_are_named_are_trusted() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key =
        rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let (address, _) = outside(Some(Arc::new(config))).await;
    let base = format!("https://localhost:{}/v1", address.port());
    let stranger = ModelClient::new(None).unwrap();
    let refusal = call(&base, "/chat", Bounds::default(), &stranger)
        .await
        .unwrap_err();
    assert_eq!(refusal.code, "model-unreachable");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, issued.cert.pem()).unwrap();
    let known = ModelClient::new(Some(&file)).unwrap();
    let (status, ..) = call(&base, "/chat", Bounds::default(), &known)
        .await
        .unwrap();
    assert_eq!(status, 200);
    // A certificate for another name does not help.
    let other = format!("https://127.0.0.1:{}/v1", address.port());
    assert!(
        call(&other, "/chat", Bounds::default(), &known)
            .await
            .is_err()
    );
    std::fs::write(&file, "nothing").unwrap();
    assert!(ModelClient::new(Some(&file)).is_err());
}

fn near() -> AddressRule {
    AddressRule::also(["127.0.0.1".parse().unwrap()])
}

fn never() -> Stop {
    Box::pin(std::future::pending())
}

#[tokio::test]
async fn a_request_goes_where_it_was_decided_and_nowhere_inside() {
    let (address, seen) = outside(None).await;
    let request = |uri: String| {
        Request::get(uri)
            .header("proxy-authorization", "x")
            .header("x-forwarded-for", "1.2.3.4")
            .header("host", "another.example")
            .body(Bytes::new())
            .unwrap()
    };
    let uri = format!("http://{address}/v1/chat?q=1");
    let destination = destination_of(&uri.parse().unwrap()).unwrap();
    let bounds = Bounds::default();
    let client = EgressClient::new(near(), None).unwrap();
    // The second request goes over the connection of the first.
    for _ in 0..2 {
        let asked = request(uri.clone());
        let forwarded = client
            .forward(recorded().await, &destination, asked, bounds, never())
            .await
            .unwrap();
        assert_eq!(forwarded.response.status(), 200);
        forwarded.response.into_body().collect().await.unwrap();
        assert!(forwarded.ending.told().await.unwrap().result.is_ok());
    }
    let (path, sent, _) = seen.lock().unwrap()[0].clone();
    assert_eq!(path, "/v1/chat?q=1");
    assert_eq!(sent["host"], address.to_string());
    for name in ["proxy-authorization", "x-forwarded-for"] {
        assert!(!sent.contains_key(name), "{name}");
    }

    let public = EgressClient::new(AddressRule::public(), None).unwrap();
    let asked = request(uri.clone());
    let refused = public
        .forward(recorded().await, &destination, asked, bounds, never())
        .await;
    assert_eq!(refused.err().unwrap().code, "address-not-public");
    let other = Destination::new("example.com", 80).unwrap();
    let refused = client
        .forward(recorded().await, &other, request(uri), bounds, never())
        .await;
    assert_eq!(refused.err().unwrap().code, "destination-differs");
    for uri in ["ftp://a/", "http://u:p@a/", "/a", "http://127.1/"] {
        assert!(destination_of(&uri.parse().unwrap()).is_err(), "{uri}");
    }
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_host_whose_certificate_does_not_hold_is_named_with_the_reason() {
    let day = Duration::from_secs(86_400);
    for (expired, words) in [
        (true, "has expired"),
        (false, "nobody that the server trusts"),
    ] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(1970, 1, 1);
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + day;
        }
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, certificate.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let (address, _) = outside(Some(Arc::new(config))).await;
        let uri = format!("https://localhost:{}/v1/chat", address.port());
        let destination = destination_of(&uri.parse().unwrap()).unwrap();
        let rule = near().with_pinned([("localhost".to_owned(), vec![address.ip()])]);
        let client = EgressClient::new(rule, expired.then_some(file.as_path())).unwrap();
        let asked = Request::get(uri).body(Bytes::new()).unwrap();
        let bounds = Bounds::default();
        let refusal = client
            .forward(recorded().await, &destination, asked, bounds, never())
            .await
            .err()
            .unwrap();
        assert_eq!(refusal.code, "destination-certificate");
        assert!(refusal.message.contains(words), "{refusal}");
    }
}

#[tokio::test]
async fn an_answer_under_way_is_cut_when_stopped_and_told_when_the_host_breaks_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (hang_up, mut hung_up) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let mut streams = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 2_048];
            let _ = stream.read(&mut buffer).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            streams.push(stream);
        }
        let _ = hung_up.recv().await;
    });
    let uri = format!("http://{address}/");
    let destination = destination_of(&uri.parse().unwrap()).unwrap();
    let client = EgressClient::new(near(), None).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stops: [Stop; 2] = [
        Box::pin(async move {
            let _ = stopped.await;
        }),
        never(),
    ];
    let mut under_way = Vec::new();
    for stop in stops {
        let asked = Request::get(&uri).body(Bytes::new()).unwrap();
        let forwarded = client
            .forward(
                recorded().await,
                &destination,
                asked,
                Bounds::default(),
                stop,
            )
            .await
            .unwrap();
        let mut body = forwarded.response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "data: 1\n\n");
        under_way.push((body, forwarded.ending));
    }
    drop(stop);
    let (mut cut, ending) = under_way.remove(0);
    assert!(cut.frame().await.unwrap().is_err());
    let result = ending.told().await.unwrap().result;
    assert!(result.unwrap_err().contains("halted"));
    drop(hang_up);
    let (mut broken, ending) = under_way.remove(0);
    assert!(broken.frame().await.unwrap().is_err());
    let result = ending.told().await.unwrap().result;
    assert!(result.unwrap_err().contains("broke off"));
}

#[test]
fn a_body_that_can_not_be_looked_at_does_not_leave() {
    use std::io::Write as _;
    let coded = |coding: &str, body: &[u8]| {
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", coding.parse().unwrap());
        egress::readable(&headers, &Bytes::copy_from_slice(body), &room())
    };
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(b"hello").unwrap();
    let packed = packer.finish().unwrap();
    assert_eq!(coded("gzip", &packed).unwrap(), "hello");
    assert_eq!(coded("identity", b"hello").unwrap(), "hello");
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..66 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    for (coding, body) in [
        ("br", &b"x"[..]),
        ("gzip", b"x"),
        ("gzip, gzip", &packed),
        ("gzip", &bomb),
    ] {
        let refusal = coded(coding, body).unwrap_err();
        assert_eq!(refusal.code, "body-not-readable", "{coding}");
    }
}

/// Echoes in capitals.
async fn echo() -> Destination {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = vec![0; 4_096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    buffer[..count].make_ascii_uppercase();
                    let _ = stream.write_all(&buffer[..count]).await;
                }
            });
        }
    });
    Destination::new("127.0.0.1", port).unwrap()
}

#[tokio::test]
async fn a_tunnel_passes_bytes_within_bounds_and_until_it_is_stopped() {
    let destination = echo().await;
    let refused = Tunnel::open(recorded().await, &destination, &AddressRule::public()).await;
    assert_eq!(refused.unwrap_err().code, "address-not-public");
    let bounds = TunnelBounds {
        bytes_out: 100,
        idle_time: Duration::from_millis(200),
        ..TunnelBounds::default()
    };
    for (ending, expected) in [
        ("close", Ended::Closed),
        ("flood", Ended::Bytes),
        ("idle", Ended::Idle),
        ("stop", Ended::Stopped),
    ] {
        let tunnel = Tunnel::open(recorded().await, &destination, &near())
            .await
            .unwrap();
        let (mut client, inside) = tokio::io::duplex(1_000);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(tunnel.splice(inside, bounds, async {
            let _ = stopped.await;
        }));
        client.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HELLO");
        let mut stop = Some(stop);
        match ending {
            "close" => client.shutdown().await.unwrap(),
            "flood" => client.write_all(&[b'x'; 200]).await.unwrap(),
            "stop" => drop(stop.take()),
            _ => {}
        }
        let outcome = task.await.unwrap();
        assert_eq!(outcome.ended, expected, "{ending}");
        assert!(outcome.bytes_out <= 100 && outcome.bytes_in >= 5);
    }
}

#[tokio::test]
async fn connect_works_with_a_real_client_over_an_upgrade() {
    let destination = echo().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(|mut request: Request<Incoming>| async move {
            let destination: Destination = request.uri().to_string().parse().unwrap();
            let tunnel = Tunnel::open(recorded().await, &destination, &near())
                .await
                .unwrap();
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(tunnel.run(upgrade, TunnelBounds::default(), std::future::pending()));
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
    });
    let mut client = tokio::net::TcpStream::connect(gateway).await.unwrap();
    let head = format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1_024];
    let count = client.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
    client.write_all(b"through").await.unwrap();
    let mut answer = [0; 7];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"THROUGH");
}
