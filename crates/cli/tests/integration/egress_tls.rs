//! HTTPS from inside: TLS ends in the launcher and begins anew at the server, each end checked.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use crate::egress::{NO_PROXY, allow, house_with, without_interruptions};
use crate::house::{Behind, Heard, Outside, Plan, Reply, Voucher, whole_seconds};

/// When no test runs any more.
fn century() -> SystemTime {
    SystemTime::now() + Duration::from_secs(100 * 365 * 86_400)
}

#[test]
fn https_works_in_every_program_and_each_name_is_held_against_the_others() {
    let files = tempfile::tempdir().unwrap();
    let root = files.path().to_owned();
    let outside = Outside::new(move |asked| {
        match asked.path() {
        "/a" => Reply::ok("text/plain", "fine\n"),
        "/events" => Reply::Raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n".to_vec(),
            drop,
        ),
        "/socket" => Reply::Socket(Heard::default()),
        path => std::fs::read(root.join(path.trim_start_matches('/')))
            .map_or_else(|_| Reply::none(), |bytes| Reply::ok("application/octet-stream", bytes)),
    }
    });
    let (voucher, stranger) = (Voucher::new(), Voucher::new());
    let plain = Behind::Plain(outside.port);
    let first = format!("web.test:{}", voucher.shield("web.test", century(), plain));
    let second = format!(
        "two.test:{}",
        voucher.shield("two.test", century(), Behind::Http2)
    );
    let past = SystemTime::now() - Duration::from_secs(60);
    let old = format!("old.test:{}", voucher.shield("old.test", past, plain));
    let wrong = format!(
        "wrong.test:{}",
        voucher.shield("web.test", century(), plain)
    );
    let unknown = format!(
        "unknown.test:{}",
        stranger.shield("unknown.test", century(), plain)
    );
    let hosts = [
        first.clone(),
        second.clone(),
        old.clone(),
        wrong.clone(),
        unknown.clone(),
    ];
    let authorities = files.path().join("authorities.pem");
    std::fs::write(&authorities, &voucher.pem).unwrap();
    let more = format!("extra_authorities = \"{}\"", authorities.display());
    let house = house_with(Plan::default(), &hosts, &more);
    allow(&house, &hosts, "");
    without_interruptions(&house);
    house.make_repository("library", &[("lib.txt", "good day\n".to_owned())], true);
    let bare = house.path("library");
    house.git(&bare, &["update-server-info"]).ok();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(&bare)
        .arg(files.path().join("library.git"))
        .status();
    assert!(copied.unwrap().success());
    let node =
        "fetch(process.argv[1]).then(a => a.text()).then(t => process.stdout.write('node ' + t))";
    let python = "import sys, urllib.request as u; print('python', u.urlopen(sys.argv[1]).read().decode(), end='')";
    let socket = "import os, ssl, socket, sys\n\
         host, port = sys.argv[1].split(':')\n\
         raw = socket.create_connection((host, int(port)))\n\
         s = ssl.create_default_context().wrap_socket(raw, server_hostname=host)\n\
         s.sendall(('GET /socket HTTP/1.1\\r\\nHost: %s\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\nSec-WebSocket-Key: x\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n' % sys.argv[1]).encode())\n\
         got = b''\n\
         while b'\\r\\n\\r\\n' not in got: got += s.recv(512)\n\
         s.sendall(b'\\x81\\x85\\0\\0\\0\\0frame')\n\
         print('socket', got.split(b'\\r\\n')[0].decode()[:12], s.recv(7)[2:].decode())\n";
    let script = format!(
        "{NO_PROXY}say() {{ printf '%s ' \"$1\"; shift; curl -sS --max-time 30 -o /tmp/out -w '%{{http_version}} %{{http_code}}' \"$@\"; \
         printf ' %s\\n' \"$(grep -o '\"code\":\"[^\"]*' /tmp/out | cut -d'\"' -f4)\"; }}\n\
         say curl --http1.1 https://{first}/a\n\
         say h2 --http2 https://{first}/a\n\
         say two --http2 https://{second}/b; cat /tmp/out\n\
         curl -sSN https://{first}/events\n\
         python3 -c \"$PYTHON\" https://{first}/a\n\
         python3 -c \"$SOCKET\" {first}\n\
         if command -v node >/dev/null; then node -e \"$NODE\" https://{first}/a; else echo node fine; fi\n\
         git clone --quiet https://{first}/library.git /tmp/l && cat /tmp/l/lib.txt\n\
         say sni --connect-to {second}:{first} https://{second}/a\n\
         say host -H 'Host: other.test' https://{first}/a\n\
         say host2 --http2 -H 'Host: other.test' https://{first}/a\n\
         say expired https://{old}/a\n\
         say wrong https://{wrong}/a\n\
         say unknown https://{unknown}/a\n\
         curl -sS --cacert /dev/null https://{first}/a >/dev/null 2>&1 || echo only ours is trusted\n"
    );
    let script = format!(
        "export NODE={} PYTHON={} SOCKET={}\n{script}",
        quoted(node),
        quoted(python),
        quoted(socket)
    );
    let mut options = Vec::new();
    for host in &hosts {
        options.extend(["--trust", host.as_str()]);
    }
    let done = house.run(&house.task("ada", &options), &script).ok();
    let lines: Vec<&str> = done
        .out
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let version = format!("HTTP/2.0 https://{second}/b");
    let expected = [
        "curl 1.1 200",
        "h2 2 200",
        "two 2 200",
        &version,
        "data: 1",
        "data: 2",
        "python fine",
        "socket HTTP/1.1 101 frame",
        "node fine",
        "good day",
        "sni 2 403 host-mismatch",
        "host 2 403 host-mismatch",
        "host2 2 403 host-mismatch",
        "expired 2 503 destination-certificate",
        "wrong 2 503 destination-certificate",
        "unknown 2 503 destination-certificate",
        "only ours is trusted",
    ];
    assert_eq!(lines, expected, "{done:?}");
    let denied = house.entries("request.denied");
    let mismatches = denied
        .iter()
        .filter(|entry| entry.body["code"] == "host-mismatch");
    assert_eq!(mismatches.count(), 3, "{denied:?}");
    for asked in outside.seen() {
        assert!(asked.head.contains(&format!("host: {first}")), "{asked:?}");
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// When the certificate of the test below ends.
static ENDS: OnceLock<SystemTime> = OnceLock::new();

/// Goes on until the certificate is over, and a little longer.
fn outlive(mut stream: TcpStream) {
    let after = *ENDS.get().unwrap() + Duration::from_secs(1);
    while SystemTime::now() < after {
        if stream.write_all(b"1\r\n.\r\n").is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ended = stream.write_all(b"4\r\nlast\r\n0\r\n\r\n");
}

#[test]
fn a_certificate_that_ends_during_a_request_refuses_the_next_one() {
    let outside = Outside::new(|_| {
        Reply::Raw(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            outlive,
        )
    });
    let voucher = Voucher::new();
    // Long enough for a house to be built and a run to start on a busy machine.
    let ends = SystemTime::UNIX_EPOCH + whole_seconds(SystemTime::now() + Duration::from_secs(25));
    ENDS.set(ends).unwrap();
    let behind = Behind::Plain(outside.port);
    let host = format!("brief.test:{}", voucher.shield("brief.test", ends, behind));
    let files = tempfile::tempdir().unwrap();
    let authorities = files.path().join("authorities.pem");
    std::fs::write(&authorities, &voucher.pem).unwrap();
    let more = format!("extra_authorities = \"{}\"", authorities.display());
    let hosts = [host.clone()];
    let house = house_with(Plan::default(), &hosts, &more);
    allow(&house, &hosts, "");
    let script = format!(
        "{NO_PROXY}curl -sS --max-time 60 https://{host}/long | tail -c 4; echo\n\
         curl -sS --max-time 20 https://{host}/again | grep -o 'has expired' | head -n 1\n"
    );
    let done = house
        .run(&house.task("ada", &["--trust", &host]), &script)
        .ok();
    assert_eq!(done.out, "last\nhas expired\n", "{done:?}");
    assert_eq!(outside.seen().len(), 1);
}

/// Speaks, waits for the answer to what it said, and speaks on; then reads how the call ended.
const CALL: &str = "const call = require('http2').connect('https://' + process.argv[1]);
const stream = call.request({ ':method': 'POST', ':path': '/shop.Desk/Talk', 'content-type': 'application/grpc', te: 'trailers' });
const words = ['one', 'two', 'three'];
let heard = '';
stream.on('response', head => console.log('status', head[':status'], head['content-type']));
stream.on('data', piece => {
    heard += piece;
    if (!heard.endsWith(words[0])) return;
    words.shift();
    if (words.length) stream.write(words[0]); else stream.end();
});
stream.on('trailers', last => console.log('trailers', last['grpc-status'], last['grpc-message'], last['set-cookie']));
stream.on('close', () => { console.log('heard', heard); call.close(); });
stream.write(words[0]);
";

#[test]
fn a_call_of_grpc_goes_both_ways_and_tells_how_it_ended() {
    let voucher = Voucher::new();
    let host = format!(
        "desk.test:{}",
        voucher.shield("desk.test", century(), Behind::Http2)
    );
    let files = tempfile::tempdir().unwrap();
    let authorities = files.path().join("authorities.pem");
    std::fs::write(&authorities, &voucher.pem).unwrap();
    let more = format!("extra_authorities = \"{}\"", authorities.display());
    let hosts = [host.clone()];
    let house = house_with(Plan::default(), &hosts, &more);
    allow(&house, &hosts, "");
    let script = format!(
        "{NO_PROXY}export CALL={}\n\
         command -v node >/dev/null || {{ echo node is not here; exit 0; }}\n\
         node -e \"$CALL\" {host}",
        quoted(CALL)
    );
    let done = house
        .run(&house.task("ada", &["--trust", &host]), &script)
        .ok();
    if done.out == "node is not here\n" {
        return;
    }
    let expected =
        "status 200 application/grpc\ntrailers 0 trailers undefined\nheard onetwothree\n";
    assert_eq!(done.out, expected, "{done:?}");
}
