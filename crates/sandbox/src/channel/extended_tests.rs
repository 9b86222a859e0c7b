//! WebSockets over HTTP/2 between a client and a gateway that speaks for the host.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_model::Refusal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::accepted;
use crate::channel::forward::Forwarder;
use crate::channel::meant::Meant;
use crate::channel::names::Names;
use crate::channel::{Authority, Capture, First, Gateway, Prover, inlet};

struct Proof;

impl Prover for Proof {
    fn first(&self, _: &str, _: &str) -> Result<First, Refusal> {
        let header = HeaderName::from_static("dpop");
        Ok(First {
            headers: vec![(header, HeaderValue::from_static("proof"))],
            offered: None,
        })
    }
}

/// Reads a head, and answers it: as told, with `KEY` for the right answer to its key. Then says what
/// it hears, in upper case.
fn gateway(answer: &'static str) -> (std::net::SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let head = head(&mut stream);
        let key = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-key: "))
            .unwrap_or_default();
        let answer = answer.replace("KEY", &accepted(key));
        stream.write_all(answer.as_bytes()).expect("answer");
        let mut heard = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut heard) {
            let loud = heard[..count].to_ascii_uppercase();
            stream.write_all(&loud).expect("echo");
        }
        head
    });
    (address, served)
}

fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("head");
        head.extend(byte);
    }
    String::from_utf8(head).expect("text")
}

/// Asks for a protocol at `a.example`; gives the answer's status and text, or what came over it after
/// "hello", and the head that the gateway was asked with.
async fn asked(answer: &'static str, protocol: &'static str, host: &str) -> (u16, String, String) {
    let (server, served) = gateway(answer);
    let gateway = Gateway {
        server: format!("http://{server}"),
        tls: None,
    };
    let capture = Capture {
        authority: Authority::new(Default::default(), Duration::from_secs(60)).expect("keys"),
        hosts: ["a.example:80".to_owned()].into(),
        tunnels: Default::default(),
    };
    let forwarder = Forwarder::new(
        &gateway,
        Arc::new(Proof),
        server,
        Some(capture),
        Arc::new(Names::default()),
    );
    let (client, inside) = tokio::io::duplex(64 * 1024);
    let meant = Meant::read("a.example:80").expect("host");
    let forwarder = Arc::new(forwarder.expect("forwarder"));
    let serving = tokio::spawn(inlet::understood(inside, meant, forwarder));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(client))
        .await
        .expect("handshake");
    let connection = tokio::spawn(connection);
    // The client may ask only once it has seen that it may.
    let ready = async {
        loop {
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.method_mut() = Method::CONNECT;
            *request.uri_mut() = format!("http://{host}/socket?x=1").parse().expect("uri");
            request
                .headers_mut()
                .insert("sec-websocket-version", HeaderValue::from_static("13"));
            request
                .extensions_mut()
                .insert(Protocol::from_static(protocol));
            match sender.send_request(request).await {
                Ok(response) => return response,
                Err(error) => assert!(error.is_user(), "{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    let response = tokio::time::timeout(Duration::from_secs(10), ready);
    let mut response = response.await.expect("in time");
    let status = response.status().as_u16();
    let said = if status == 200 {
        assert!(response.headers().get("sec-websocket-accept").is_none());
        let upgraded = hyper::upgrade::on(&mut response).await.expect("open");
        let mut stream = TokioIo::new(upgraded);
        stream.write_all(b"hello").await.expect("say");
        let mut heard = vec![0; 5];
        stream.read_exact(&mut heard).await.expect("hear");
        String::from_utf8(heard).expect("text")
    } else {
        let body = response.into_body().collect().await.expect("body");
        String::from_utf8(body.to_bytes().to_vec()).expect("text")
    };
    drop(sender);
    connection.abort();
    serving.abort();
    let _ = serving.await;
    (status, said, served.join().expect("gateway"))
}

const OPENED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: KEY\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_over_http2_is_one_of_http1_from_there_on() {
    let (status, said, head) = asked(OPENED, "websocket", "a.example").await;
    assert_eq!((status, said.as_str()), (200, "HELLO"));
    assert!(
        head.starts_with("GET /gateway/v1/egress HTTP/1.1\r\n"),
        "{head}"
    );
    for line in [
        "portcullis-target: http://a.example/socket?x=1\r\n",
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-version: 13\r\n",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_opens_none_is_said_to_open_none() {
    let denied =
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nportcullis-refusal: no-permit\r\n\r\nno";
    let (status, said, _) = asked(denied, "websocket", "a.example").await;
    assert_eq!((status, said.as_str()), (403, "no"));
    // To the client of HTTP/2 a success would be an open one.
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n",
    ] {
        let (status, said, _) = asked(answer, "websocket", "a.example").await;
        assert!(status == 502 && said.contains("no-websocket"), "{said}");
    }
}

/// Refused before anything is asked of the gateway but to record it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_protocols_and_other_hosts_are_refused_and_recorded() {
    let recorded = "HTTP/1.1 204 No Content\r\n\r\n";
    for (protocol, host, code) in [
        ("connect-udp", "a.example", "not-understood"),
        ("connect-ip", "a.example", "not-understood"),
        ("webtransport", "a.example", "not-understood"),
        ("websocket", "b.example", "host-mismatch"),
        ("websocket", "a.example:81", "host-mismatch"),
    ] {
        let (status, said, head) = asked(recorded, protocol, host).await;
        assert_eq!(status, 403, "{protocol} {said}");
        assert!(said.contains(code), "{protocol} {said}");
        assert!(head.starts_with("POST /gateway/v1/refused "), "{head}");
        assert!(
            head.contains(&format!("portcullis-refusal: {code}\r\n")),
            "{head}"
        );
    }
}
