//! HTTP on its way through.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Client, Release, Running, full, get, request, routing};

async fn alone(stable: &Release) -> Running {
    let proxy = Running::start().await;
    let routing = routing(1, &stable.backend, None, 0);
    proxy.control.configure(&routing).await.unwrap();
    proxy
}

async fn raw(proxy: &Running, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(5), read)
        .await
        .expect("the proxy ends the connection")
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn heads_are_cleaned_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let stable = Release::unix("stable", &dir.path().join("app.sock"));
    let proxy = alone(&stable).await;
    let headers = [
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("proxy-authorization", "Basic abc"),
        ("x-portcullis-release", "canary"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-end", "2"),
    ];
    let seen = get(proxy.address, "/echo?a=b", &headers).await.1;
    assert!(seen.starts_with("GET /echo?a=b\n"), "{seen}");
    for gone in ["x-hop", "proxy-authorization", "canary", "\"connection\""] {
        assert!(!seen.contains(gone), "{gone}: {seen}");
    }
    for kept in ["example.test", "192.0.2.1", "127.0.0.1", "x-end"] {
        assert!(seen.contains(kept), "{kept}: {seen}");
    }
    let response = Client::connect(proxy.address)
        .await
        .send(request("GET", "/headers", &[], full("")))
        .await;
    assert!(!response.headers().contains_key("x-private"));
    assert_eq!(response.headers()["x-public"], "2");
    assert_eq!(response.headers()["x-portcullis-release"], "stable");
}

#[tokio::test]
async fn bodies_pass_whole_and_as_they_come() {
    let stable = Release::tcp("stable").await;
    let proxy = alone(&stable).await;
    let mut client = Client::connect(proxy.address).await;
    let megabytes = full(vec![b'x'; 3 << 20]);
    let response = client.send(request("POST", "/echo", &[], megabytes)).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"body of 3145728 bytes"));

    let response = client.send(request("GET", "/stream", &[], full(""))).await;
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "one");
    let first_came = std::time::Instant::now();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "two");
    let apart = first_came.elapsed();
    assert!(
        apart > Duration::from_millis(100),
        "the first was held back"
    );
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_and_ends_with_the_proxy() {
    let stable = Release::tcp("stable").await;
    let mut proxy = alone(&stable).await;
    let mut client = Client::connect(proxy.address).await;
    let headers = [("connection", "Upgrade"), ("upgrade", "echo")];
    let mut response = client
        .send(request("GET", "/socket", &headers, full("")))
        .await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "echo");
    let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
    let mut socket = TokioIo::new(upgraded);
    for word in [b"hello", b"again"] {
        socket.write_all(word).await.unwrap();
        let mut back = [0; 5];
        socket.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, word);
    }
    let stats = proxy.stats().await;
    assert_eq!(
        (stats.upgrades, stats.stable.requests, stats.stable.errors),
        (1, 1, 0)
    );
    proxy.stop();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(2), socket.read_to_end(&mut rest));
    assert!(ended.await.is_ok(), "the tunnel outlived the proxy");
    proxy.stopped().await;
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    let stable = Release::tcp("stable").await;
    let proxy = alone(&stable).await;
    for (bad, statuses) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\nconnection: close\r\n\r\n",
            "405",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "400",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let bad = bad.replace("HTTP/1.1\r\n\r\n", "HTTP/1.1\r\nconnection: close\r\n\r\n");
        let answer = raw(&proxy, &bad).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {statuses}")),
            "{bad:?}: {answer}"
        );
    }
    assert_eq!(stable.served(), 0);

    // Both framings at once: one of them counts, and only one request arrives behind us.
    let smuggled = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 44\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    raw(&proxy, smuggled).await;
    assert!(stable.served() <= 1);
}

#[tokio::test]
async fn the_target_names_the_host_and_old_clients_are_served() {
    let stable = Release::tcp("stable").await;
    let proxy = alone(&stable).await;
    let absolute =
        "GET http://real.test/echo?q HTTP/1.1\r\nhost: other.test\r\nconnection: close\r\n\r\n";
    let answer = raw(&proxy, absolute).await;
    assert!(answer.contains("GET /echo?q"), "{answer}");
    assert!(
        answer.contains("real.test") && !answer.contains("other.test"),
        "{answer}"
    );
    let answer = raw(&proxy, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.0 200") && answer.ends_with("stable"),
        "{answer}"
    );
}

#[tokio::test]
async fn heads_and_waiting_are_bounded() {
    let stable = Release::tcp("stable").await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::support::config(dir.path());
    config.limits.header_timeout_ms = 300;
    config.limits.max_header_bytes = 8_192;
    config.limits.max_connections = 2;
    let proxy = Running::with(config).await;
    let routing = routing(1, &stable.backend, None, 0);
    proxy.control.configure(&routing).await.unwrap();
    let long = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(20_000)
    );
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(long.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 431");
    drop(stream);
    // Two that say nothing fill the proxy, until their time is up.
    let idle = [
        TcpStream::connect(proxy.address).await.unwrap(),
        TcpStream::connect(proxy.address).await.unwrap(),
    ];
    let began = std::time::Instant::now();
    assert_eq!(proxy.get("/").await.0, 200);
    assert!(
        began.elapsed() > Duration::from_millis(100),
        "the bound did not hold"
    );
    drop(idle);
    assert_eq!(stable.served(), 1);
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_takes_no_new_ones() {
    let stable = Release::tcp("stable").await;
    let mut proxy = alone(&stable).await;
    let response = Client::connect(proxy.address)
        .await
        .send(request("GET", "/stream", &[], full("")))
        .await;
    proxy.stop();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "onetwo");
    let address = proxy.address;
    let socket = proxy.config.control_socket.clone();
    proxy.stopped().await;
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_backend_that_closes_kept_connections_is_no_error() {
    // It answers one request per connection, says keep-alive, and closes.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = portcullis_proxy::Backend::Tcp(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4_096];
                if stream.read(&mut buffer).await.unwrap() > 0 {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.unwrap();
                    // Take the next request, and leave without a word.
                    drop(stream.read(&mut buffer).await);
                }
            });
        }
    });
    let proxy = Running::start().await;
    let routing = routing(1, &backend, None, 0);
    proxy.control.configure(&routing).await.unwrap();
    let mut client = Client::connect(proxy.address).await;
    for _ in 0..6 {
        assert_eq!(
            client.get("/").await,
            (200.try_into().unwrap(), "ok".into())
        );
    }
    assert_eq!(proxy.stats().await.stable.errors, 0);
}
