//! The channel between a plain client and a gateway that answers what it was asked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use portcullis_model::Refusal;

use super::{Channel, Gateway, Prover};

struct Proof;

impl Prover for Proof {
    fn headers(&self, method: &str, url: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
        let proof = HeaderValue::try_from(format!("{method} {url}")).expect("value");
        Ok(vec![
            (HeaderName::from_static("dpop"), proof),
            (
                HeaderName::from_static("authorization"),
                HeaderValue::from_static("DPoP token"),
            ),
        ])
    }
}

struct NoProof;

impl Prover for NoProof {
    fn headers(&self, _: &str, _: &str) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
        Err(Refusal::denied("run-ended", "the run has ended"))
    }
}

/// A gateway that answers one connection with `answer` after it has read a head, hands the rest to
/// `then`, and returns the head.
fn gateway(
    answer: &'static str,
    then: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("head");
            head.extend(byte);
        }
        stream.write_all(answer.as_bytes()).expect("answer");
        then(&mut stream);
        String::from_utf8(head).expect("text")
    });
    (address, served)
}

async fn channel(server: SocketAddr, prover: Arc<dyn Prover>) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let gateway = Gateway {
        server: format!("http://{server}/"),
        tls: None,
    };
    Channel::start(listener, &gateway, prover).expect("starts")
}

fn say(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("timeout");
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nkeep-alive: x\r\n\r\nhello";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_request_becomes_egress_with_a_proof_and_without_claims() {
    let (server, served) = gateway(OK, |_| {});
    let channel = channel(server, Arc::new(Proof)).await;
    let answer = say(
        channel.address(),
        "GET http://example.org/x?y=1 HTTP/1.1\r\nhost: example.org\r\nauthorization: Bearer own\r\n\
         portcullis-target: http://10.0.0.1/\r\ndpop: forged\r\nconnection: close\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
        "{answer}"
    );
    assert!(!answer.contains("keep-alive: x"), "{answer}");
    let head = served.join().expect("served");
    assert!(
        head.starts_with("GET /gateway/v1/egress HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("portcullis-target: http://example.org/x?y=1\r\n"),
        "{head}"
    );
    assert!(
        head.contains(&format!("dpop: GET http://{server}/gateway/v1/egress\r\n")),
        "{head}"
    );
    assert!(
        !head.contains("forged") && !head.contains("10.0.0.1"),
        "{head}"
    );
    // The proof stands alone; what the program meant for the other host is beside it.
    assert!(head.contains("authorization: DPoP token\r\n"), "{head}");
    assert!(
        head.contains("portcullis-target-authorization: Bearer own\r\n"),
        "{head}"
    );
    assert!(!head.contains("\nauthorization: Bearer"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_gateway_comes_back_with_its_reason() {
    let (server, served) = gateway(
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\ncontent-type: text/plain\r\n\r\nno: scope",
        |_| {},
    );
    let channel = channel(server, Arc::new(Proof)).await;
    let answer = say(
        channel.address(),
        "POST /git/shop/git-receive-pack HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.ends_with("no: scope"),
        "{answer}"
    );
    let head = served.join().expect("served");
    assert!(
        head.starts_with("POST /gateway/v1/git/shop/git-receive-pack HTTP/1.1"),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_is_spliced_after_the_switch_only() {
    let (server, served) = gateway(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: portcullis-tunnel\r\n\r\n",
        |stream| {
            let mut four = [0; 4];
            stream.read_exact(&mut four).expect("ping");
            assert_eq!(&four, b"ping");
            stream.write_all(b"pong").expect("pong");
        },
    );
    let channel = channel(server, Arc::new(Proof)).await;
    let address = channel.address();
    let got = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream
            .write_all(b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\nping")
            .expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        answer
    })
    .await
    .expect("client");
    assert!(
        got.starts_with("HTTP/1.1 200") && got.ends_with("pong"),
        "{got}"
    );
    let head = served.join().expect("served");
    assert!(
        head.starts_with("GET /gateway/v1/tunnel HTTP/1.1"),
        "{head}"
    );
    assert!(head.contains("upgrade: portcullis-tunnel\r\n"), "{head}");
    assert!(
        head.contains("portcullis-target: example.org:443\r\n"),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_tunnel_is_not_a_tunnel() {
    let (server, _served) = gateway(
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 7\r\n\r\nno host",
        |_| {},
    );
    let channel = channel(server, Arc::new(Proof)).await;
    let answer = say(
        channel.address(),
        "CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("no host"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_proof_without_server_and_without_sense_nothing_is_sent() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .expect("bind")
        .local_addr()
        .expect("address");
    let close = "host: x\r\nconnection: close\r\n\r\n";
    let gone = channel(nobody, Arc::new(Proof)).await;
    let answer = say(
        gone.address(),
        &format!("GET /model/m/v1 HTTP/1.1\r\n{close}"),
    );
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("gateway can't be reached"),
        "{answer}"
    );
    let answer = say(
        gone.address(),
        &format!("GET /api/v1/tasks HTTP/1.1\r\n{close}"),
    );
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let void = channel(nobody, Arc::new(NoProof)).await;
    let answer = say(void.address(), &format!("GET /ask HTTP/1.1\r\n{close}"));
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("the run has ended"),
        "{answer}"
    );
    let huge = format!("GET /ask HTTP/1.1\r\nx: {}\r\n{close}", "y".repeat(200_000));
    let mut stream = TcpStream::connect(gone.address()).expect("connect");
    // The other side may close before it has read all.
    let _ = stream.write_all(huge.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(
        !answer.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}
