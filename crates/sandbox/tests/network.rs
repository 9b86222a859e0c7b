//! The listener inside, and the socket of a released service.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::thread;

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use portcullis_model::Refusal;
use portcullis_sandbox::channel::{Authority, Capture, Channel, First, Gateway, Prover};
use portcullis_sandbox::{Expose, Protection, spawn};
use support::{Ordinary, eventually, run, shell, start, stdout, workspace};

#[test]
fn what_connects_inside_arrives_at_the_listener_and_at_no_other() {
    let workspace = workspace();
    let mut spec = shell(
        &workspace,
        "exec 3<>/dev/tcp/127.0.0.1/3128; echo hello >&3; head -n 1 <&3; env | grep -ic proxy",
    );
    spec.command[0] = "bash".into();
    spec.use_channel(3128);
    let running = start(&spec);
    let listener = running.listener().expect("handle").expect("listener");
    assert_eq!(
        listener.local_addr().expect("address").to_string(),
        "127.0.0.1:3128"
    );
    // Bound inside: the host has nothing there.
    assert!(std::net::TcpStream::connect("127.0.0.1:3128").is_err());
    let (mut stream, peer) = listener.accept().expect("accept");
    assert!(peer.ip().is_loopback());
    let mut line = [0; 6];
    stream.read_exact(&mut line).expect("line");
    stream.write_all(b"answer\n").expect("answer");
    drop(stream);
    let outcome = running.wait().expect("outcome");
    assert!(stdout(&outcome).starts_with("answer\n"), "{outcome:?}");
    assert_eq!(stdout(&outcome).lines().last(), Some("9"), "{outcome:?}");
}

#[test]
fn a_service_is_reached_through_its_socket_while_it_lives() {
    let (workspace, place) = (workspace(), workspace());
    let socket = place.path().join("service.sock");
    let script = "import socket,threading\ns=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('127.0.0.1',8080)); s.listen(64)\ndef serve(c):\n  d=b''\n  while True:\n    b=c.recv(65536)\n    if not b: break\n    d+=b\n  c.sendall(d[::-1]); c.close()\nwhile True:\n  threading.Thread(target=serve,args=(s.accept()[0],)).start()\n";
    let mut spec = shell(&workspace, "");
    spec.command = vec!["python3".into(), "-c".into(), script.into()];
    spec.expose = Some(Expose {
        inside_port: 8080,
        socket: socket.clone(),
        mode: 0o600,
    });
    if !std::path::Path::new("/usr/bin/python3").exists() {
        return;
    }
    let running = start(&spec);
    assert_eq!(
        fs::metadata(&socket).expect("socket").permissions().mode() & 0o777,
        0o600
    );
    let ask = |body: &[u8]| -> Vec<u8> {
        let mut stream = UnixStream::connect(&socket).expect("connect");
        let mut back = Vec::new();
        let mut writer = stream.try_clone().expect("clone");
        let body = body.to_vec();
        let sent = thread::spawn(move || {
            let _ = writer.write_all(&body);
            let _ = writer.shutdown(Shutdown::Write);
        });
        let _ = stream.read_to_end(&mut back);
        sent.join().expect("sent");
        back
    };
    eventually("it serves", || ask(b"abc") == b"cba");
    let big = (0..1_000_000_u32).map(|at| at as u8).collect::<Vec<_>>();
    let reversed = big.iter().rev().copied().collect::<Vec<_>>();
    assert!(ask(&big) == reversed, "a large body is changed");
    let many: Vec<_> = (0..20)
        .map(|_| UnixStream::connect(&socket).expect("connect"))
        .collect();
    assert_eq!(ask(b"xyz"), b"zyx");
    drop(many);
    // The same place can't be taken twice while it is served.
    assert_eq!(spawn(&spec).expect_err("taken").code, "expose-socket");
    assert_eq!(ask(b"12"), b"21");
    running.kill();
    running.wait().expect("outcome");
    assert!(!socket.exists());
    // A dead socket in the way is no hindrance.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("dead"));
    let again = start(&spec);
    eventually("it serves again", || ask(b"abc") == b"cba");
    drop(again);
    assert!(!socket.exists());
    fs::write(&socket, "a file").expect("file");
    assert_eq!(spawn(&spec).expect_err("a file").code, "expose-socket");
    assert_eq!(fs::read_to_string(&socket).expect("kept"), "a file");
}

#[test]
fn the_bridge_has_the_runs_user_no_rights_and_only_its_own_descriptors() {
    let user = Ordinary::new();
    for helper in [support::helper(), user.helper()] {
        let socket = user.directory.path().join("bridge.sock");
        let mut spec = portcullis_sandbox::Spec::new(&user.workspace, ["sleep", "1000"]);
        spec.helper = Some(helper);
        spec.expose = Some(Expose {
            inside_port: 8080,
            socket: socket.clone(),
            mode: 0o600,
        });
        let running = start(&spec);
        let status = |pid: &str| fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        let of = |status: &str, name: &str| {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .expect("line");
            line.split_whitespace().nth(1).expect("value").to_owned()
        };
        let supervisor = of(&status(&running.pid().to_string()), "PPid:");
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"));
        let children = children.expect("children");
        let own = running.pid().to_string();
        let bridge = children
            .split_whitespace()
            .find(|pid| *pid != own)
            .expect("bridge");
        // It gives its rights up once it has joined the network.
        eventually("it has given up its rights", || {
            of(&status(bridge), "NoNewPrivs:") == "1"
        });
        let status = status(bridge);
        assert_eq!(of(&status, "Uid:"), running.uid().to_string());
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(of(&status, set), "0000000000000000", "{status}");
        }
        if support::is_root() {
            let held = fs::read_dir(format!("/proc/{bridge}/fd"))
                .expect("descriptors")
                .count();
            assert_eq!(held, 6, "standard ones, listener, two namespaces");
        }
        // Nothing serves inside: the connection ends without an answer.
        let mut answer = Vec::new();
        let mut stream = UnixStream::connect(&socket).expect("connect");
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"");
        drop(running);
        assert!(!socket.exists());
        assert!(!std::path::Path::new(&format!("/proc/{bridge}")).exists());
    }
}

#[test]
fn loopback_works_inside_and_is_all_there_is() {
    let workspace = workspace();
    let outcome = run(&shell(
        &workspace,
        "cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /proc/net/route | wc -l",
    ));
    let output = stdout(&outcome);
    assert_eq!(
        output.split_whitespace().collect::<Vec<_>>(),
        ["lo", "1"],
        "{output}"
    );
}

struct Proof;

impl Prover for Proof {
    fn first(&self, method: &str, url: &str) -> Result<First, Refusal> {
        let value = HeaderValue::try_from(format!("{method} {url}"))
            .map_err(|error| Refusal::internal(error.to_string()))?;
        Ok(First {
            headers: vec![(HeaderName::from_static("dpop"), value)],
            offered: None,
        })
    }
}

#[test]
fn stock_tools_leave_through_the_channel_and_read_the_reason_of_a_refusal() {
    if !std::path::Path::new("/usr/bin/curl").exists() {
        return;
    }
    let gateway = std::net::TcpListener::bind("127.0.0.1:0").expect("gateway");
    let server = format!("http://{}", gateway.local_addr().expect("address"));
    let served = thread::spawn(move || {
        let mut heads = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = gateway.accept().expect("accept");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).expect("head");
                head.extend(byte);
            }
            let answer = "HTTP/1.1 403 Forbidden\r\ncontent-length: 13\r\nconnection: close\r\n\r\nnot this host";
            stream.write_all(answer.as_bytes()).expect("answer");
            heads.push(String::from_utf8_lossy(&head).into_owned());
        }
        heads
    });
    let workspace = workspace();
    let mut spec = shell(
        &workspace,
        "curl -s http://example.org/x; echo; curl -sS https://example.org/y; curl -s --noproxy '*' http://example.org/ || echo no other way",
    );
    spec.use_channel(3128);
    let running = start(&spec);
    let listener = running.listener().expect("handle").expect("listener");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let guard = runtime.enter();
    let channel =
        Channel::start(listener, &Gateway { server, tls: None }, Arc::new(Proof)).expect("channel");
    let outcome = running.wait().expect("outcome");
    drop((channel, guard));
    let output = stdout(&outcome);
    assert!(
        output.starts_with("not this host\n") && output.ends_with("no other way\n"),
        "{outcome:?}"
    );
    let heads = served.join().expect("gateway");
    assert!(
        heads[0].contains("portcullis-target: http://example.org/x\r\n"),
        "{heads:?}"
    );
    assert!(
        heads[0].contains("dpop: GET http://127.0.0.1:"),
        "{heads:?}"
    );
    assert!(
        heads[1].contains("portcullis-target: example.org:443\r\n"),
        "{heads:?}"
    );
}

/// What the gateway was asked, as `METHOD path target`.
type Asked = Arc<std::sync::Mutex<Vec<String>>>;

/// A gateway that says hello to everything, in one thread a connection.
fn gateway() -> (String, Asked) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("gateway");
    let server = format!("http://{}", listener.local_addr().expect("address"));
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let log = Arc::clone(&log);
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut one = [0];
                while stream.read_exact(&mut one).is_ok() {
                    bytes.push(one[0]);
                    if !bytes.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let head = String::from_utf8_lossy(&bytes).into_owned();
                    let first = head.lines().next().expect("line");
                    let of = |name: &str| {
                        let line = head.lines().find_map(|line| line.strip_prefix(name));
                        line.unwrap_or("-").to_owned()
                    };
                    let line = format!(
                        "{} {} {}",
                        first.trim_end_matches(" HTTP/1.1"),
                        of("portcullis-target: "),
                        of("portcullis-refusal: "),
                    );
                    log.lock().expect("log").push(line);
                    bytes.clear();
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n");
                }
            });
        }
    });
    (server, asked)
}

/// Runs a script whose every connection is captured; what it printed, and what was asked.
fn captured(script: &str, hosts: &[&str], ports: &[u16]) -> (String, Vec<String>) {
    captured_by(support::helper(), None, script, hosts, ports)
}

/// As [`captured`], by a helper of its own.
fn captured_by(
    helper: std::path::PathBuf,
    gap: Option<Protection>,
    script: &str,
    hosts: &[&str],
    ports: &[u16],
) -> (String, Vec<String>) {
    let (server, asked) = gateway();
    let (workspace, given) = (workspace(), workspace());
    let named = hosts
        .iter()
        .flat_map(|host| {
            [80, 443]
                .iter()
                .chain(ports)
                .map(move |port| format!("{host}:{port}"))
        })
        .collect();
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    let authority = Authority::new(hosts, std::time::Duration::from_secs(600)).expect("authority");
    fs::write(given.path().join("ca-certificates.crt"), authority.bundle()).expect("bundle");
    let mut spec = shell(&workspace, script);
    spec.command[0] = "bash".into();
    spec.helper = Some(helper);
    spec.allowed_gaps = gap.into_iter().collect();
    spec.capture = Some(3128);
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    spec.capture_all(ports.iter().copied(), given.path(), bundle.as_ref());
    let running = start(&spec);
    let (by, lacking) = (running.protections(), running.gaps());
    assert_eq!(
        lacking.keys().copied().collect::<Vec<_>>(),
        Vec::from_iter(gap)
    );
    assert_eq!(by.contains_key(&Protection::EveryPort), gap.is_none());
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let guard = runtime.enter();
    let capture = Capture {
        authority,
        hosts: named,
        tunnels: Default::default(),
    };
    let gateway = Gateway { server, tls: None };
    let inlets = running.inlets().expect("inlets");
    let channel = Channel::capture(inlets, &gateway, Arc::new(Proof), capture).expect("channel");
    let outcome = running.wait().expect("outcome");
    drop((channel, guard));
    let asked = asked.lock().expect("log").clone();
    let printed = stdout(&outcome);
    let said = support::stderr(&outcome);
    assert!(said.is_empty(), "{said}");
    (printed, asked)
}

#[test]
fn every_connection_arrives_whatever_the_program_knows_of_proxies() {
    if !std::path::Path::new("/usr/bin/curl").exists() {
        return;
    }
    let (printed, asked) = captured(
        "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy\n\
         curl -sS --http1.1 https://a.example/one\n\
         curl -sS --http2 -w '%{http_version}\n' https://b.example/two\n\
         curl -sS http://c.example/three\n\
         curl -sS http://d.example:8123/four\n\
         curl -sS http://93.184.216.34/five\n\
         curl -sS http://e.example:65535/high\n\
         curl -sSk https://e.example:1025/secure\n\
         curl -sS http://10.0.0.7:6379/inner\n\
         curl -sS http://[fd00::1]:3128/local\n\
         curl -sSk https://[2606:4700::1111]/six\n\
         curl -sSk https://169.254.169.254/latest\n",
        &["a.example"],
        &[8123],
    );
    assert_eq!(
        printed,
        "hello\nhello\n2\nhello\nhello\nhello\nhello\nhello\nhello\nhello\nhello\nhello\n"
    );
    assert_eq!(
        asked,
        [
            "GET /gateway/v1/egress https://a.example/one -",
            "GET /gateway/v1/egress https://b.example/two -",
            "GET /gateway/v1/egress http://c.example/three -",
            "GET /gateway/v1/egress http://d.example:8123/four -",
            "GET /gateway/v1/egress http://93.184.216.34/five -",
            "GET /gateway/v1/egress http://e.example:65535/high -",
            "GET /gateway/v1/egress https://e.example:1025/secure -",
            "GET /gateway/v1/egress http://10.0.0.7:6379/inner -",
            "GET /gateway/v1/egress http://[fd00::1]:3128/local -",
            "GET /gateway/v1/egress https://[2606:4700::1111]/six -",
            "GET /gateway/v1/egress https://169.254.169.254/latest -",
        ]
    );
}

#[test]
fn what_disagrees_or_is_not_understood_is_refused_with_words_and_told_to_the_ledger() {
    if !std::path::Path::new("/usr/bin/curl").exists() {
        return;
    }
    let (printed, asked) = captured(
        "code() { grep -o '\"code\":\"[a-z-]*\"'; }\n\
         curl -s -H 'Host: b.example' https://a.example/ | code\n\
         curl -s --http2 -H 'Host: b.example' https://a.example/ | code\n\
         curl -s --resolve b.example:443:1.2.3.4 https://b.example/ | code\n\
         curl -s --connect-to a.example:443:b.example:443 https://a.example/ | code\n\
         curl -s -x http://127.0.0.1:3128 -H 'Host: b.example' http://a.example/ | code\n\
         curl -s -p -x http://127.0.0.1:3128 -H 'Host: b.example' https://a.example/ | code\n\
         exec 3<>/dev/tcp/a.example/443; echo 'hello there' >&3; cat <&3; exec 3>&-\n\
         exec 3<>/dev/tcp/a.example/80; printf '\\0\\1\\2' >&3; cat <&3; exec 3>&-\n\
         exec 3<>/dev/tcp/a.example/22; printf 'SSH-2.0-x\\r\\n' >&3; head -c 12 <&3; echo; exec 3>&-\n\
         exec 3<>/dev/tcp/b.example/5432; exec 3>&-\n\
         exec 3<>/dev/tcp/a.example/443; exec 3>&-\n\
         exec 3<>/dev/tcp/b.example/6379; printf 'PING\\r\\n' >&3; head -c 12 <&3; echo; exec 3>&-\n\
         curl -sS --cacert /dev/null https://b.example:9999/ 2>/dev/null\n\
         curl -s -x http://127.0.0.1:3128 --path-as-is --request-target 'http://me:word@a.example/' http://a.example/ | head -n 1\n\
         (exec 3<>/dev/tcp/127.0.0.1/9) 2>/dev/null || echo nobody here\n",
        &["a.example", "b.example"],
        &[],
    );
    let code = "\"code\":\"host-mismatch\"\n";
    assert_eq!(
        printed,
        format!(
            "{code}{code}{code}{code}{code}{code}HTTP/1.1 400\nHTTP/1.1 400\n\
             this is not a valid request target\nnobody here\n"
        )
    );
    // A connection that is closed without a word is told of by itself, beside the next one.
    let mut told: Vec<&str> = asked.iter().map(String::as_str).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "POST /gateway/v1/refused 1.2.3.4:443 host-mismatch",
            "POST /gateway/v1/refused a.example:22 not-understood",
            "POST /gateway/v1/refused a.example:443 host-mismatch",
            "POST /gateway/v1/refused a.example:443 host-mismatch",
            "POST /gateway/v1/refused a.example:443 host-mismatch",
            "POST /gateway/v1/refused a.example:443 not-understood",
            "POST /gateway/v1/refused a.example:80 host-mismatch",
            "POST /gateway/v1/refused a.example:80 malformed-request-target",
            "POST /gateway/v1/refused a.example:80 not-understood",
            "POST /gateway/v1/refused b.example:443 host-mismatch",
            "POST /gateway/v1/refused b.example:5432 not-understood",
            "POST /gateway/v1/refused b.example:6379 not-understood",
            "POST /gateway/v1/refused b.example:9999 not-understood",
        ]
    );
}

/// Serves at a port of its own on loopback, both families and all addresses, while the same port of
/// every other address is the launcher's.
const OWN_AND_OTHERS: &str = r#"
cat > own.py <<'END'
import socket, sys, threading
def serve(family, address):
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((address, 8443))
    one.listen(8)
    while True:
        there, _ = one.accept()
        there.sendall(b'my own\n')
        there.close()
for family, address in [(socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::1')]:
    threading.Thread(target=serve, args=(family, address), daemon=True).start()
def ask(address):
    for attempt in range(200):
        try:
            with socket.create_connection((address, 8443), 10) as there:
                there.sendall(b'GET / HTTP/1.1\r\nhost: a.example:8443\r\n\r\n')
                return there.recv(100).decode().split('\r\n')[0].strip()
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
    return 'refused'
for address in ['127.0.0.1', '127.7.7.7', '0.0.0.0', '::1', 'localhost', 'sandbox', 'a.example']:
    print(address, ask(address))
for family, far in [(socket.AF_INET, '8.8.8.8'), (socket.AF_INET6, '2606:4700::1111')]:
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.connect((far, 80))
        own = one.getsockname()[0]
    print('by the way to another', own, ask(own))
sys.stdout.flush()
END
python3 own.py
"#;

#[test]
fn a_program_inside_listens_at_the_ports_of_the_tasks_hosts() {
    if !std::path::Path::new("/usr/bin/python3").exists() {
        return;
    }
    let (printed, asked) = captured(OWN_AND_OTHERS, &["a.example"], &[8443]);
    assert_eq!(
        printed,
        "127.0.0.1 my own\n127.7.7.7 my own\n0.0.0.0 my own\n::1 my own\nlocalhost my own\n\
         sandbox my own\na.example HTTP/1.1 200 OK\nby the way to another 127.0.0.1 my own\n\
         by the way to another ::1 my own\n"
    );
    assert_eq!(asked, ["GET /gateway/v1/egress http://a.example:8443/ -"]);
}

#[test]
fn a_kernel_without_the_filter_captures_the_ports_that_were_asked_for_and_refuses_the_rest() {
    if !std::path::Path::new("/usr/bin/curl").exists() {
        return;
    }
    let directory = workspace();
    let helper = support::helper_without(directory.path(), "every-port");
    let (printed, asked) = captured_by(
        helper,
        Some(Protection::EveryPort),
        "unset http_proxy HTTP_PROXY\n\
         curl -sS http://a.example/one\n\
         curl -sS http://b.example:8123/two\n\
         curl -s --max-time 10 http://b.example:8124/three || echo refused $?\n",
        &["a.example"],
        &[8123],
    );
    assert_eq!(printed, "hello\nhello\nrefused 7\n");
    assert_eq!(
        asked,
        [
            "GET /gateway/v1/egress http://a.example/one -",
            "GET /gateway/v1/egress http://b.example:8123/two -",
        ]
    );
}
