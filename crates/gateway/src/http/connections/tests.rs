//! A host of raw bytes, so that it can misbehave.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::tls;
use super::*;

/// What a host says to one request, and whether it hangs up then.
struct Said(&'static str, bool);

const GOES_ON: bool = false;
const HANGS_UP: bool = true;

struct Host {
    port: u16,
    connections: Arc<AtomicUsize>,
    /// Bodies as far as they came, each when its connection ended.
    ended: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Host {
    async fn start(said: impl IntoIterator<Item = Said>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let said: Arc<Mutex<VecDeque<Said>>> = Arc::new(Mutex::new(said.into_iter().collect()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (tell, ended) = mpsc::unbounded_channel();
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (said, tell) = (Arc::clone(&said), tell.clone());
                tokio::spawn(async move { tell.send(serve(stream, &said).await) });
            }
        });
        Self {
            port,
            connections,
            ended,
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Answers each head that comes; gives back what came after the last one.
async fn serve(mut stream: TcpStream, said: &Mutex<VecDeque<Said>>) -> Vec<u8> {
    let mut came = Vec::new();
    loop {
        if stream.read_buf(&mut came).await.unwrap_or(0) == 0 {
            return came;
        }
        let Some(end) = came.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        came.drain(..end + 4);
        let next = said.lock().unwrap().pop_front();
        let Some(Said(text, hangs_up)) = next else {
            return came;
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        if hangs_up {
            return came;
        }
    }
}

fn connections() -> Connections {
    let rule = AddressRule::also([IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    Connections::new(rule, tls::client(None).unwrap())
}

async fn send(connections: &Connections, port: u16, body: Upload) -> Response<Coming> {
    let destination = Destination::new("127.0.0.1", port).unwrap();
    let request = Request::post(format!("http://127.0.0.1:{port}/x?y=1"))
        .body(body)
        .unwrap();
    connections.send(&destination, request).await.unwrap()
}

/// The text of an answer, whose connection is then as a gateway leaves it.
async fn read(answer: Response<Coming>) -> String {
    let mut body = answer.into_body();
    let first = body.at_once().await;
    if let Some(Some(Ok(frame))) = first
        && body.is_over()
    {
        body.put_back().await;
        return String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
    }
    String::from_utf8(
        body.left(LINGERS)
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap()
}

async fn ask(connections: &Connections, host: &Host) -> String {
    read(send(connections, host.port, Upload::from(Bytes::new())).await).await
}

/// What happened on sockets until now is known to this process afterwards.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

const ONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none";
const TWO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo";

#[tokio::test]
async fn a_connection_serves_request_after_request() {
    let host = Host::start([
        Said(ONE, GOES_ON),
        Said(TWO, GOES_ON),
        Said("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthree", GOES_ON),
    ])
    .await;
    let connections = connections();
    for expected in ["one", "two", "three"] {
        assert_eq!(ask(&connections, &host).await, expected);
    }
    assert_eq!(host.connections(), 1);
}

#[tokio::test]
async fn what_a_host_ended_or_will_end_is_not_used_again() {
    let closing = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\none";
    let mut host = Host::start([
        Said(closing, GOES_ON),
        Said(ONE, HANGS_UP),
        Said(TWO, GOES_ON),
    ])
    .await;
    let connections = connections();
    for expected in ["one", "one", "two"] {
        assert_eq!(ask(&connections, &host).await, expected);
        if expected == "one" {
            host.ended.recv().await.unwrap();
            settle().await;
        }
    }
    assert_eq!(host.connections(), 3);
}

#[tokio::test]
async fn what_a_host_says_unasked_answers_nobody() {
    let more = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\noneHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    let host = Host::start([Said(more, GOES_ON), Said(TWO, GOES_ON)]).await;
    let connections = connections();
    assert_eq!(ask(&connections, &host).await, "one");
    settle().await;
    assert_eq!(ask(&connections, &host).await, "two");
    assert_eq!(host.connections(), 2);
}

#[tokio::test]
async fn a_body_goes_on_after_an_early_answer_and_the_connection_waits_for_its_end() {
    let mut host = Host::start([Said(ONE, GOES_ON), Said(TWO, GOES_ON)]).await;
    let connections = connections();
    let (body, upload) = Upload::streamed(Some(6));
    let answer = send(&connections, host.port, upload).await;
    assert_eq!(read(answer).await, "one");
    // Its body is still under way: the next request takes another connection.
    assert_eq!(ask(&connections, &host).await, "two");
    assert_eq!(host.connections(), 2);
    assert!(body.send(Bytes::from_static(b"abc")).await);
    assert!(body.send(Bytes::from_static(b"def")).await);
    drop(body);
    settle().await;
    drop(connections);
    let mut came = vec![host.ended.recv().await.unwrap()];
    came.push(host.ended.recv().await.unwrap());
    assert!(came.contains(&b"abcdef".to_vec()), "{came:?}");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_on_takes_its_connection_along() {
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun";
    let mut host = Host::start([Said(long, GOES_ON), Said(TWO, GOES_ON)]).await;
    let connections = connections();
    let answer = send(&connections, host.port, Upload::from(Bytes::new())).await;
    let mut body = answer.into_body();
    assert!(matches!(body.at_once().await, Some(Some(Ok(_)))));
    assert!(!body.is_over());
    drop(body);
    host.ended.recv().await.unwrap();
    assert_eq!(ask(&connections, &host).await, "two");
    assert_eq!(host.connections(), 2);
}
