//! The channel between a plain client and a gateway that answers what it was asked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use portcullis_model::Refusal;

use super::forward::Forwarder;
use super::meant::Meant;
use super::names::Names;
use super::{
    Authority, Capture, Channel, First, Gateway, Header, Opening, Patience, Prover, Session, inlet,
};

struct Proof;

impl Prover for Proof {
    fn first(&self, method: &str, url: &str) -> Result<First, Refusal> {
        let proof = HeaderValue::try_from(format!("{method} {url}")).expect("value");
        let headers = vec![
            (HeaderName::from_static("dpop"), proof),
            (
                HeaderName::from_static("authorization"),
                HeaderValue::from_static("DPoP token"),
            ),
        ];
        Ok(First {
            headers,
            offered: None,
        })
    }
}

struct NoProof;

impl Prover for NoProof {
    fn first(&self, _: &str, _: &str) -> Result<First, Refusal> {
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

/// Half of everything that a client may say, and then nothing: each is let go in bounded time, and
/// the ledger is told where it was said to a host that no task names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_half_a_thing_is_let_go_in_time() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let hello = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    for (said, named, told) in [
        (&b""[..], true, true),
        (b"P", false, true),
        (b"GET / HTTP/1.1\r\nhost: a.exam", false, true),
        (b"GET / HTTP/1.1\r\nhost: a.exam", true, false),
        (hello, false, true),
        (hello, true, false),
        (preface, false, true),
        (preface, true, false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let server = listener.local_addr().expect("address");
        let name = |host: &str| [format!("{host}:80")].into();
        let capture = Capture {
            authority: Authority::new(Default::default(), Duration::from_secs(60)).expect("keys"),
            hosts: name(if named { "a.example" } else { "b.example" }),
            tunnels: Default::default(),
        };
        let gateway = Gateway {
            server: format!("http://{server}"),
            tls: None,
        };
        let names = Arc::new(Names::default());
        let proof = Arc::new(Proof);
        let mut forwarder =
            Forwarder::new(&gateway, proof, server, Some(capture), names).expect("forwarder");
        forwarder.patience = Patience {
            first: Duration::from_millis(60),
            head: Duration::from_millis(90),
        };
        let (mut client, inside) = tokio::io::duplex(64 * 1024);
        client.write_all(said).await.expect("said");
        let meant = Meant::read("a.example:80").expect("host");
        let served = tokio::spawn(inlet::understood(inside, meant, Arc::new(forwarder)));
        let reading = tokio::spawn(async move {
            let mut heard = Vec::new();
            let _ = client.read_to_end(&mut heard).await;
        });
        let report = thread::spawn(move || {
            listener.set_nonblocking(false).expect("blocking");
            let (mut stream, _) = listener.accept().ok()?;
            let mut head = vec![0; 4096];
            let count = stream.read(&mut head).ok()?;
            let answer = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).ok()?;
            Some(String::from_utf8_lossy(&head[..count]).into_owned())
        });
        let ended = tokio::time::timeout(Duration::from_secs(20), served).await;
        assert!(ended.is_ok_and(|ended| ended.is_ok()), "{said:?}");
        reading.await.expect("the client sees the end");
        // Who was told nothing would wait for ever.
        if !told {
            drop(TcpStream::connect(server));
        }
        let report = report.join().expect("gateway").unwrap_or_default();
        let recorded = report.contains("portcullis-refusal: not-understood");
        assert_eq!(recorded, told, "{said:?}: {report}");
    }
}

/// Offers a session, of which the answer's header says the name.
struct Sessions;

impl Prover for Sessions {
    fn first(&self, _: &str, _: &str) -> Result<First, Refusal> {
        let header = (
            HeaderName::from_static("dpop"),
            HeaderValue::from_static("first"),
        );
        Ok(First {
            headers: vec![header],
            offered: Some(Box::new(Offered)),
        })
    }
}

struct Offered;

impl Opening for Offered {
    fn answered(self: Box<Self>, headers: &mut HeaderMap) -> Option<Box<dyn Session>> {
        let name = headers.remove("portcullis-session")?;
        Some(Box::new(Numbered(name, 0)))
    }
}

struct Numbered(HeaderValue, u32);

impl Session for Numbered {
    fn next(&mut self, method: &str, path: &str, target: &str) -> Option<Vec<Header>> {
        self.1 += 1;
        let name = self.0.to_str().expect("text");
        let proof = format!("{name} {} {method} {path} {target}", self.1);
        // Two requests, and it is over.
        let header = (
            HeaderName::from_static("portcullis-session"),
            HeaderValue::try_from(proof).expect("value"),
        );
        (self.1 <= 2).then(|| vec![header])
    }
}

/// Answers so many requests on each of its connections, and then hangs up; gives their heads with
/// their bodies.
fn gateway_of(
    connections: &'static [&'static [&'static str]],
) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let served = thread::spawn(move || {
        let mut requests = Vec::new();
        for answers in connections {
            let (mut stream, _) = listener.accept().expect("accept");
            for answer in *answers {
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).expect("head");
                    request.extend(byte);
                }
                if String::from_utf8_lossy(&request).contains("content-length: 4") {
                    let mut body = [0; 4];
                    stream.read_exact(&mut body).expect("body");
                    request.extend(body);
                }
                stream.write_all(answer.as_bytes()).expect("answer");
                requests.push(String::from_utf8(request).expect("text"));
            }
        }
        requests
    });
    (address, served)
}

const OPENED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nportcullis-session: one\r\n\r\nhi";
const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
const LAST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\
    portcullis-refusal: session-unknown\r\n\r\nno";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_follow_are_proved_by_the_session_of_their_connection() {
    let (server, served) = gateway_of(&[&[OPENED, PLAIN, PLAIN, OPENED, LAST], &[PLAIN]]);
    let channel = channel(server, Arc::new(Sessions)).await;
    let ask = |text: &str| {
        let answer = say(
            channel.address(),
            &format!("{text}host: a.example\r\nconnection: close\r\n\r\n"),
        );
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.contains("portcullis-session"), "{answer}");
    };
    for _ in 0..5 {
        ask("GET http://a.example/x HTTP/1.1\r\n");
    }
    // The connection is gone by now; a new one begins anew, and nothing of the request is lost.
    ask_with_body(channel.address());
    let heads = served.join().expect("served");
    let proofs: Vec<_> = heads
        .iter()
        .map(|head| {
            let lines = head
                .lines()
                .filter(|line| line.starts_with("dpop") || line.starts_with("portcullis-session"));
            lines.collect::<Vec<_>>().join("; ")
        })
        .collect();
    let by = |number: u32| {
        format!("portcullis-session: one {number} GET /gateway/v1/egress http://a.example/x")
    };
    let expected = [
        "dpop: first".to_owned(),
        by(1),
        by(2),
        "dpop: first".to_owned(),
        by(1),
        "dpop: first".to_owned(),
    ];
    assert_eq!(proofs, expected);
    assert!(heads[5].ends_with("\r\n\r\nbody"), "{}", heads[5]);
}

fn ask_with_body(channel: SocketAddr) {
    let answer = say(
        channel,
        "POST http://a.example/x HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\
         content-length: 4\r\n\r\nbody",
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_refused_ends_its_connection() {
    let (server, served) = gateway_of(&[&[OPENED, REFUSED], &[OPENED]]);
    let channel = channel(server, Arc::new(Sessions)).await;
    let text = "GET http://a.example/x HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
    assert!(say(channel.address(), text).starts_with("HTTP/1.1 200"));
    assert!(say(channel.address(), text).starts_with("HTTP/1.1 403"));
    assert!(say(channel.address(), text).starts_with("HTTP/1.1 200"));
    let heads = served.join().expect("served");
    assert!(heads[2].contains("dpop: first"), "{}", heads[2]);
}
