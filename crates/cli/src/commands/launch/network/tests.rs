//! The proxy without a sandbox: a client on this machine, and a server that says what it got.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use portcullis_model::Digest;

use super::*;

/// A server that answers each connection with what it was sent, up to the empty line.
fn echo() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut head).unwrap_or(0) > 2 {}
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nSet-Cookie: a=b\r\n\r\n{head}",
                head.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

fn proxy(hosts: &[String], allow_loopback: bool) -> (Network, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let declared = Declared::new(hosts, allow_loopback).unwrap().unwrap();
    (declared.serve(listener).unwrap(), address)
}

fn ask(proxy: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(url: &str, more: &str) -> String {
    format!("GET {url} HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n{more}\r\n")
}

#[test]
fn a_declared_host_is_reached_without_saying_who_calls_and_all_is_counted() {
    let upstream = echo();
    let (network, address) = proxy(&[upstream.to_string()], true);
    let credentials = "Authorization: Bearer x\r\nProxy-Authorization: Basic x\r\nCookie: c\r\n";
    let answer = ask(
        address,
        &get(&format!("http://{upstream}/a/b?token=t"), credentials),
    );
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!head.to_lowercase().contains("set-cookie"), "{answer}");
    assert!(body.starts_with("GET /a/b?token=t HTTP/1.1\r\n"), "{body}");
    let sent = body.to_lowercase();
    assert!(sent.contains(&format!("host: {upstream}")), "{body}");
    for word in ["authorization", "cookie", "elsewhere", "connection"] {
        assert!(!sent.contains(word), "{body}");
    }
    let used = network.end().unwrap();
    assert_eq!(used.hosts.len(), 1);
    let host = &used.hosts[0];
    assert_eq!(
        (host.host.as_str(), host.port),
        ("127.0.0.1", upstream.port())
    );
    assert_eq!((host.connections, host.failures), (1, 0));
    let size = body.len() as u64;
    assert_eq!(host.bytes_out, size);
    assert!(host.bytes_in > size, "{host:?}");
    assert_eq!((used.refusals, used.fetches), (0, 1));
    let expected = Fetched {
        method: "GET".to_owned(),
        url: format!("http://{upstream}/a/b"),
        status: 200,
        digest: Digest::of(body.as_bytes()),
        size,
        whole: true,
    };
    assert_eq!(used.fetched, vec![expected]);
}

#[test]
fn each_request_of_a_connection_is_held_against_the_list() {
    let (upstream, other) = (echo(), echo());
    let (network, address) = proxy(&[upstream.to_string()], true);
    let first = format!("GET http://{upstream}/ HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = ask(address, &(first + &get(&format!("http://{other}/"), "")));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("HTTP/1.1 403"), "{answer}");
    let used = network.end().unwrap();
    assert_eq!(used.refused[0].destination, other.to_string());
    assert_eq!(used.hosts[0].connections, 1);
}

#[test]
fn a_tunnel_passes_bytes_both_ways_and_goes_nowhere_else() {
    let upstream = echo();
    let (network, address) = proxy(&[upstream.to_string()], true);
    let connect =
        |to: &str| format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    let inner = "GET /inner HTTP/1.0\r\n\r\n";
    let answer = ask(address, &(connect(&upstream.to_string()) + inner));
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(inner), "{answer}");
    let elsewhere = ask(address, &connect("127.0.0.1:1"));
    assert!(elsewhere.starts_with("HTTP/1.1 403"), "{elsewhere}");
    assert!(elsewhere.contains("host-not-declared") && elsewhere.contains(&upstream.to_string()));
    let used = network.end().unwrap();
    assert_eq!(used.hosts[0].connections, 1);
    assert_eq!(used.hosts[0].bytes_out, inner.len() as u64);
    assert!(used.hosts[0].bytes_in > inner.len() as u64);
    assert!(used.fetched.is_empty());
}

#[test]
fn whatever_is_not_declared_or_not_plain_is_refused_and_counted() {
    let (network, address) = proxy(&["example.com:80".to_owned()], true);
    for (request, code) in [
        (get("http://example.com:81/", ""), "host-not-declared"),
        (get("http://example.org/", ""), "host-not-declared"),
        (
            get("http://example.com.evil.example/", ""),
            "host-not-declared",
        ),
        (
            get("http://me:secret@example.com/", ""),
            "malformed-destination",
        ),
        (get("https://example.com/", ""), "malformed-destination"),
        (get("/v1/status", ""), "malformed-destination"),
    ] {
        let answer = ask(address, &request);
        assert!(answer.starts_with("HTTP/1.1 403"), "{request}: {answer}");
        assert!(answer.contains(code), "{request}: {answer}");
    }
    let used = network.end().unwrap();
    assert_eq!(used.refusals, 6);
    assert_eq!(used.hosts[0].connections + used.hosts[0].failures, 0);
    assert_eq!(used.refused.last().unwrap().destination, "malformed");
    assert_eq!(used.refused.last().unwrap().count, 3);
}

#[test]
fn this_machine_is_refused_unless_the_builder_allows_it_even_when_declared() {
    let upstream = echo();
    let names = [
        upstream.to_string(),
        format!("localhost:{}", upstream.port()),
    ];
    let (network, address) = proxy(&names, false);
    for name in &names {
        let answer = ask(address, &get(&format!("http://{name}/"), ""));
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("address-not-public"), "{answer}");
    }
    let used = network.end().unwrap();
    assert_eq!(used.refusals, 2);
    for host in &used.hosts {
        assert_eq!((host.connections, host.failures, host.bytes_in), (0, 1, 0));
    }
}

#[test]
fn a_host_that_does_not_answer_is_a_failure_not_a_refusal() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let (network, address) = proxy(&[closed.to_string()], true);
    let answer = ask(address, &get(&format!("http://{closed}/"), ""));
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    let used = network.end().unwrap();
    assert_eq!((used.refusals, used.hosts[0].failures), (0, 1));
}

#[test]
fn what_is_told_is_bounded_and_bytes_end_it() {
    let declared = Declared::new(&["a.example:80".to_owned()], false)
        .unwrap()
        .unwrap();
    let shared = Shared {
        declared,
        told: Mutex::default(),
    };
    for number in 0..1_000 {
        shared.note_refused(format!("h{number}:80"), "host-not-declared");
        shared.note_fetched(Fetched {
            method: "GET".to_owned(),
            url: format!("http://a.example:80/{number}"),
            status: 200,
            digest: Digest::of(b""),
            size: 0,
            whole: true,
        });
    }
    assert_eq!(shared.used().fetched.len(), FETCHED_MAX);
    shared.told.lock().unwrap().fetched.truncate(1);
    shared.note_fetched(Fetched {
        method: "X".repeat(URL_MAX_BYTES),
        ..shared.used().fetched[0].clone()
    });
    assert_eq!(shared.used().fetched.len(), 1, "a long one is only counted");
    let used = shared.used();
    assert_eq!((used.refused.len(), used.refusals), (REFUSED_MAX, 1_000));
    assert_eq!(used.fetches, 1_001);
    let host: Destination = "a.example:80".parse().unwrap();
    let meter = shared.allow(&host).unwrap();
    meter.bytes_out.store(OUT_MAX_BYTES + 1, Ordering::Relaxed);
    assert_eq!(shared.allow(&host).unwrap_err().code, "job-network-bytes");
    meter.bytes_out.store(0, Ordering::Relaxed);
    meter.bytes_in.store(IN_MAX_BYTES + 1, Ordering::Relaxed);
    assert_eq!(shared.allow(&host).unwrap_err().code, "job-network-bytes");
}

#[test]
fn an_answer_that_was_cut_short_is_told_as_such() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap();
    let (network, address) = proxy(&[upstream.to_string()], true);
    let mut client = TcpStream::connect(address).unwrap();
    client
        .write_all(get(&format!("http://{upstream}/big"), "").as_bytes())
        .unwrap();
    let (mut server, _) = listener.accept().unwrap();
    // An answer before the question would be a broken one.
    assert!(server.read(&mut [0; 4096]).unwrap() > 0);
    server
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst\n")
        .unwrap();
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    while line != "first\n" {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
    // The sandbox has ended meanwhile.
    let used = network.end().unwrap();
    assert_eq!((used.fetches, used.fetched.len()), (1, 1));
    let fetched = &used.fetched[0];
    assert_eq!((fetched.whole, fetched.size), (false, 6));
    assert_eq!(fetched.digest, Digest::of(b"first\n"));
    // Nothing is held open.
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    server.read_to_end(&mut Vec::new()).unwrap();
    assert!(TcpStream::connect(address).is_err());
}
