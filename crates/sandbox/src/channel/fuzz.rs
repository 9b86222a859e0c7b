//! Bytes that nobody chose, and bytes chosen by somebody who knows how parsers differ. Each target
//! is one function over bytes; a fixed number of cases runs with the other tests, always the same;
//! `PORTCULLIS_FUZZ_CASES` raises it for a long run by hand.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_model::Refusal;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::io::AsyncWriteExt as _;

use super::heads::Watched;
use super::meant::{Meant, Protocol, Scheme, protocol};
use super::names::Names;
use super::route::{Route, route};

/// Cases of each target when nobody asks for more.
const CASES: u32 = 256;

/// Runs a target over random bytes, and over valid samples with a few bytes changed.
fn fuzz(samples: &[&[u8]], target: impl Fn(&[u8])) {
    let cases = std::env::var("PORTCULLIS_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(CASES);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let samples: Vec<Vec<u8>> = samples.iter().map(|sample| sample.to_vec()).collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..6);
    let mutated = (prop::sample::select(samples), changes).prop_map(|(mut bytes, changes)| {
        for (place, byte, kind) in changes {
            if bytes.is_empty() {
                bytes.push(byte);
                continue;
            }
            let at = place.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    });
    let random = prop::collection::vec(any::<u8>(), 0..300);
    runner
        .run(&prop_oneof![3 => mutated, 1 => random], |bytes| {
            target(&bytes);
            Ok(())
        })
        .expect("no case fails");
}

/// The outcome of a request that the one who serves sees, and the one beside it did not.
const DIFFER: &str = "differ";

/// What becomes of each request that a client's bytes hold: the URL that goes on, or the code of the
/// refusal.
fn outcomes(bytes: &[u8]) -> Vec<Result<String, String>> {
    let meant = Meant::read("a.example:80").expect("host");
    let found = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&found);
    let serve = move |request: Request<Incoming>, once: Result<(), Refusal>| {
        let (log, meant) = (Arc::clone(&log), meant.clone());
        async move {
            let (head, body) = request.into_parts();
            let (method, uri) = (&head.method, &head.uri);
            let url = meant.url(Scheme::Http, method, uri, head.version, &head.headers);
            let url = once.and(url);
            log.lock().expect("log").push(url.map_err(
                |refusal| match refusal.received.as_deref() {
                    Some(received) if received.contains("two readers") => DIFFER.to_owned(),
                    Some(_) | None => refusal.code,
                },
            ));
            // As the gateway does: read whole, or not at all.
            let _ = body.collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        client.write_all(bytes).await.expect("fits");
        let reading = tokio::spawn(async move {
            // All is in memory and on one thread: by then the server has read all that there is.
            // Not before is it the end, since HTTP/2 forgets requests at the end of a connection.
            for _ in 0..64 {
                tokio::task::yield_now().await;
            }
            let _ = client.shutdown().await;
            let mut sink = tokio::io::sink();
            let _ = tokio::io::copy(&mut client, &mut sink).await;
        });
        if bytes.starts_with(b"PRI * HTTP/2.0") {
            let _ = http2::Builder::new(TokioExecutor::new())
                .enable_connect_protocol()
                .serve_connection(
                    TokioIo::new(server),
                    service_fn(|request| serve(request, Ok(()))),
                )
                .await;
        } else {
            let (server, heads) = Watched::new(server);
            let _ = http1::Builder::new()
                .half_close(true)
                .serve_connection(
                    TokioIo::new(server),
                    service_fn(|request| serve(request, heads.next())),
                )
                .await;
        }
        let _ = reading.await;
    });
    let found = found.lock().expect("log");
    found.clone()
}

const GET: &[u8] = b"GET /x?y HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n";
const POST: &[u8] = b"POST /x HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &[u8] = b"POST /x HTTP/1.1\r\nhost: A.example.\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
const BOTH: &[u8] = b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /y HTTP/1.1\r\nHost: a.example\r\n\r\n";
const TRAILED: &[u8] = b"POST /x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\nx: y\r\n\r\n";
const ABSOLUTE: &[u8] = b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// Whether a carriage return or a line feed stands alone.
fn half_line_ends(bytes: &[u8]) -> bool {
    let whole = bytes.windows(2).filter(|two| two == b"\r\n").count();
    let of = |wanted: u8| bytes.iter().filter(|byte| **byte == wanted).count();
    of(b'\r') > whole || of(b'\n') > whole
}

#[test]
fn no_bytes_lead_to_another_host() {
    let two = [GET, CHUNKED, GET].concat();
    let behind = [TRAILED, BOTH].concat();
    let samples = [GET, POST, CHUNKED, ABSOLUTE, &two, BOTH, &behind];
    fuzz(&samples, |bytes| {
        let _ = protocol(bytes);
        let found = outcomes(bytes);
        // Both readers find the same requests, until one is refused behind which one reads no more.
        let refused = |one: &Result<String, String>| {
            let code = one.as_ref().err().map(String::as_str);
            matches!(code, Some("ambiguous-length" | "transfer-coding"))
        };
        let agreed = found.iter().position(refused).unwrap_or(found.len());
        // But in a chunked body only where lines end by both bytes.
        let differ = |one: &Result<String, String>| *one == Err(DIFFER.to_owned());
        assert!(
            half_line_ends(bytes) || !found[..agreed].iter().any(differ),
            "{found:?} of {bytes:?}"
        );
        for url in found.into_iter().flatten() {
            assert!(url.starts_with("http://a.example/"), "{url} of {bytes:?}");
            assert!(url.parse::<http::Uri>().is_ok(), "{url}");
        }
    });
}

#[test]
fn the_tricks_of_parsers_that_differ_do_not_work() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let post = "POST / HTTP/1.1\r\nHost: a.example\r\n";
    let cases = [
        // A length and a coding, in both orders, and two of the same.
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Content-Length: 0\r\nContent-Length: 44\r\n\r\n{smuggled}"),
        format!("{post}Content-Length: 0, 44\r\n\r\n{smuggled}"),
        format!("{post}Content-Length: +0\r\n\r\n{smuggled}"),
        format!(
            "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{smuggled}"),
        // A head in what hyper takes for trailers, before one that says its end twice.
        format!(
            "{post}Transfer-Encoding: chunked\r\n\r\n0\r\n\n{smuggled}{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        // A folded header, a bare carriage return, a space before the colon.
        "GET / HTTP/1.1\r\nHost: a.example\r\nX: y\r\n Host: b.example\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a.example\r\nX: y\rHost: b.example\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost : b.example\r\n\r\n".to_owned(),
        // The host in other places.
        "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
        "GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n".to_owned(),
        "GET http://a.example@b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
        "GET //b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a.example\0.b.example\r\n\r\n".to_owned(),
        "CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
        "GET /\u{0}b HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
    ];
    // Said in two ways, whichever comes first, and however much alike: not read at all.
    let twice = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ];
    for ends in twice {
        let found = outcomes(format!("{post}{ends}\r\n\r\n0\r\n\r\n{smuggled}").as_bytes());
        let first = found
            .first()
            .map(|one| one.as_ref().map_err(String::as_str));
        assert!(
            matches!(first, None | Some(Err("ambiguous-length"))),
            "{ends}: {found:?}"
        );
        assert!(found.iter().all(Result::is_err), "{ends}: {found:?}");
    }
    for case in cases {
        let urls: Vec<String> = outcomes(case.as_bytes()).into_iter().flatten().collect();
        assert!(
            urls.iter().all(|url| url == "http://a.example/"),
            "{urls:?} of {case:?}"
        );
        assert!(urls.len() <= 1, "{urls:?} of {case:?}");
    }
    // What ends its lines with a line feed alone is read as what it says, and written anew.
    let bare = outcomes(b"GET /x HTTP/1.1\nHost: b.example\n\n");
    assert!(bare.iter().all(Result::is_err), "{bare:?}");
}

#[test]
fn no_frames_of_http2_lead_to_another_host() {
    // A preface, settings, and a HEADERS frame that names `:authority` literally.
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("short");
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let literal = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).expect("short");
        [
            &[0x00, length(name)],
            name.as_bytes(),
            &[length(value)],
            value.as_bytes(),
        ]
        .concat()
    };
    let request = |fields: &[(&str, &str)]| {
        let block: Vec<u8> = fields
            .iter()
            .flat_map(|(name, value)| literal(name, value))
            .collect();
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, &[]),
            frame(1, 5, 1, &block),
        ]
        .concat()
    };
    let base = [(":method", "GET"), (":scheme", "http"), (":path", "/x")];
    let with = |more: &[(&'static str, &'static str)]| request(&[&base[..], more].concat());
    let good = with(&[(":authority", "a.example")]);
    assert_eq!(outcomes(&good), [Ok("http://a.example/x".to_owned())]);
    for more in [
        &[(":authority", "b.example")][..],
        &[(":authority", "a.example"), ("host", "b.example")],
        &[(":authority", "b.example"), ("host", "a.example")],
        &[(":authority", "a.example"), (":authority", "b.example")],
        &[(":authority", "a.example@b.example")],
        &[(":authority", "a.example"), (":path", "/y")],
        &[("x", "y"), (":authority", "a.example")],
        &[("host", "b.example")],
        &[
            (":authority", "a.example"),
            ("transfer-encoding", "chunked"),
        ],
        &[(":authority", "a.example"), ("Host", "a.example")],
    ] {
        let urls: Vec<_> = outcomes(&with(more)).into_iter().flatten().collect();
        assert_eq!(urls, [""; 0], "{more:?}");
    }
    fuzz(&[&good], |bytes| {
        for url in outcomes(bytes).into_iter().flatten() {
            assert!(url.starts_with("http://a.example/"), "{url} of {bytes:?}");
        }
    });
}

#[test]
fn no_question_about_a_name_breaks_the_table() {
    let question =
        b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01";
    let reverse = b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x011\x010\x0218\x03198\x07in-addr\x04arpa\x00\x00\x0c\x00\x01";
    let names = Names::default();
    fuzz(&[question, reverse], |bytes| {
        if let Some(answer) = names.answer(bytes) {
            assert_eq!(answer[..2], bytes[..2]);
            assert_eq!(answer[2] & 0x80, 0x80, "it is an answer");
            assert!(answer.len() <= bytes.len() + 300, "no amplifier");
        }
    });
}

#[test]
fn what_the_channel_itself_is_asked_has_one_reading() {
    fuzz(
        &[
            b"GET http://a.example/x",
            b"GET /git/shop.git/info/refs",
            b"CONNECT a.example:443",
        ],
        |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let Some((method, target)) = text.split_once(' ') else {
                return;
            };
            let request = Request::builder().method(method).uri(target).body(());
            let Ok(request) = request else { return };
            match route(&request, "127.0.0.1:3128") {
                Ok(Route::Own(path)) => {
                    assert!(path.starts_with("/gateway/v1/"), "{path}");
                    assert!(!path.contains("/../"), "{path}");
                }
                Ok(Route::Egress(_, meant)) => {
                    let again = Meant::read(&meant.authority()).expect("one spelling");
                    assert_eq!(again, meant);
                }
                Ok(Route::Tunnel(target)) => {
                    if let Ok(meant) = Meant::read(&target) {
                        assert_eq!(Meant::read(&meant.authority()), Ok(meant));
                    }
                }
                Err(refusal) => assert!(!refusal.code.is_empty()),
            }
            let _: Option<Protocol> = protocol(bytes);
        },
    );
}
