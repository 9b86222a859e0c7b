//! WebSockets: what is said over one is looked at, message by message, whoever speaks it and by
//! whichever version of HTTP.

use std::collections::BTreeSet;
use std::path::Path;

use crate::agents::{have, npm_packages, run_with};
use crate::egress::{NO_PROXY, house_that_reaches};
use crate::house::{Heard, House, Outside, Reply};

const PLANS: &str =
    "The next thing is a toaster.\nIt toasts on both sides.\nNobody may know of it yet.\n";

/// A token that no scanner of this repository finds in the source.
fn token() -> String {
    format!("ghp_{}", "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx")
}

/// A host that echoes, and what it hears.
fn echoing() -> (Outside, Heard) {
    let heard = Heard::default();
    let log = heard.clone();
    (Outside::new(move |_| Reply::Socket(log.clone())), heard)
}

fn codes(house: &House) -> Vec<String> {
    house
        .entries("request.denied")
        .iter()
        .map(|entry| entry.body["code"].as_str().unwrap().to_owned())
        .collect()
}

/// What the library's client does: talks of all kinds that pass, then what must not leave.
const CLIENT: &str = r#"
const WebSocket = require('ws');
const [host, token] = process.argv.slice(2);
const plans = require('fs').readFileSync('plans/next.md', 'utf8');
const talk = (name, speak) => new Promise((done) => {
    const socket = new WebSocket(`ws://${host}/socket`, { perMessageDeflate: true });
    const heard = [];
    socket.on('open', () => speak(socket));
    socket.on('message', (data, binary) => {
        heard.push(`${binary ? 'bytes' : 'text'}:${data.length > 20 ? data.length : data}`);
        if (socket.told) socket.told(heard.length);
    });
    socket.on('pong', (data) => { heard.push(`pong:${data}`); if (socket.told) socket.told(heard.length); });
    socket.on('error', (error) => heard.push(`error:${error.code}`));
    socket.on('close', (code, reason) => {
        console.log(name, socket.extensions || 'plain', heard.join(' ') || '-', code, String(reason).split(':')[0]);
        done();
    });
});
// Says each group once the one before was echoed.
const oneByOne = (...groups) => (socket) => {
    socket.told = () => { for (const text of groups.shift() || []) socket.send(text); };
    socket.told();
};
(async () => {
    await talk('good', (socket) => {
        socket.send('hello');
        socket.send(Buffer.from([1, 2, 3]));
        socket.send('one ', { fin: false });
        socket.ping('are you there');
        socket.send('two', { fin: true });
        socket.send(Buffer.alloc(3000000, 7));
        socket.told = (count) => { if (count === 5) socket.close(1000, 'enough'); };
    });
    await talk('secret', oneByOne(['fine'], [`{"key":"${token}"}`, 'after']));
    await talk('parts', (socket) => { socket.send(token.slice(0, 9), { fin: false }); socket.send(token.slice(9), { fin: true }); });
    await talk('cut', oneByOne(['x ' + token.slice(0, 9)], [token.slice(9)]));
    await talk('apart', (socket) => {
        const next = [() => socket.ping('between'), () => socket.send(token.slice(9))];
        socket.told = () => { if (next.length) next.shift()(); };
        socket.send('x ' + token.slice(0, 9));
    });
    await talk('ping', (socket) => socket.ping(token));
    await talk('kept', (socket) => socket.send(JSON.stringify({ file: plans })));
    await talk('lines', oneByOne(...plans.trim().split('\n').map((line) => [line])));
    await talk('large', (socket) => socket.send(Buffer.alloc(9 * 1024 * 1024, 7)));
})();
"#;

#[test]
fn a_message_that_must_not_leave_does_not_and_the_program_hears_why() {
    let packages = npm_packages();
    if !have("ws", &packages.join("ws")) || !have("node", Path::new("/usr/bin/node")) {
        return;
    }
    let (outside, heard) = echoing();
    let host = format!("web.test:{}", outside.port);
    let hosts = [host.clone()];
    let house = house_that_reaches(&hosts, ("plans/next.md", PLANS));
    let task = house.task("ada", &["--trust", &host, "--keep", "plans/**"]);
    let script = format!(
        "{NO_PROXY}cat > /tmp/client.js <<'EOF'\n{CLIENT}\nEOF\nNODE_PATH={} node /tmp/client.js {host} {}",
        packages.display(),
        token()
    );
    let done = run_with(&house, &task, &[&packages], &script).ok();
    let lines: Vec<&str> = done.out.lines().collect();
    let echo = "text:hello bytes:\u{1}\u{2}\u{3} pong:are you there text:one two bytes:3000000";
    // A ping passes at once, before the message that it stands in.
    assert_eq!(
        lines[0],
        format!("good plain {echo} 1000 enough"),
        "{done:?}"
    );
    assert_eq!(
        lines[1..],
        [
            "secret plain text:fine 1008 base-secret-leaves",
            "parts plain - 1008 base-secret-leaves",
            "cut plain text:x ghp_wWPw5 1008 base-secret-leaves",
            "apart plain text:x ghp_wWPw5 pong:between 1008 base-secret-leaves",
            "ping plain - 1008 base-secret-leaves",
            "kept plain - 1008 base-kept-file",
            "lines plain text:28 text:24 1008 base-kept-file",
            "large plain - 1009 message-too-large",
        ],
        "{done:?}"
    );
    let heard = heard.lock().unwrap().clone();
    let all: Vec<u8> = heard.iter().flat_map(|(_, said)| said.clone()).collect();
    let all = String::from_utf8_lossy(&all);
    assert!(!all.contains(&token()[9..]) && !all.contains("Nobody may know"));
    assert!(!all.contains("after"));
    for asked in outside.seen() {
        assert!(
            !asked.head.contains("sec-websocket-extensions"),
            "{asked:?}"
        );
    }
    let mut expected = vec!["base-secret-leaves"; 5];
    expected.extend(["base-kept-file", "base-kept-file", "message-too-large"]);
    assert_eq!(codes(&house), expected);
}

/// Says bytes that are no frames, or none of a client's, and prints how it is told so.
const RAW: &str = r#"
import socket, struct, sys
host = sys.argv[1]
KEY = b'\x01\x02\x03\x04'
def masked(first, payload):
    length = len(payload)
    head = bytes([first, 0x80 | length]) if length < 126 else bytes([first, 0xfe]) + struct.pack('>H', length)
    return head + KEY + bytes(b ^ KEY[i % 4] for i, b in enumerate(payload))
def open(more=''):
    name, port = host.split(':')
    one = socket.create_connection((name, int(port)), 30)
    one.settimeout(30)
    version = more or 'Sec-WebSocket-Version: 13\r\n'
    one.sendall(f'GET /socket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n{version}\r\n'.encode())
    got = b''
    while b'\r\n\r\n' not in got:
        piece = one.recv(4096)
        if not piece: break
        got += piece
    head, _, rest = got.partition(b'\r\n\r\n')
    return one, int(head.split()[1]), rest
def told(name, said):
    one, status, got = open()
    try:
        one.sendall(said)
        while piece := one.recv(4096):
            got += piece
    except OSError:
        pass
    code = struct.unpack('>H', got[2:4])[0] if got[:1] == b'\x88' else got[:12]
    print(name, status, code, got[4:].split(b':')[0].decode())
told('unmasked', b'\x81\x05hello')
told('reserved', masked(0xc1, b'hello'))
told('unknown', masked(0x83, b'hello'))
told('http', b'POST /up HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\n\r\nhello')
told('text', masked(0x81, b'\xff\xfe'))
told('control', masked(0x89, b'x' * 126))
one, status, _ = open('Sec-WebSocket-Version: 8\r\n')
print('version', status)
one, status, _ = open('Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8\r\n')
print('versions', status)
"#;

#[test]
fn what_is_no_frame_is_not_passed_on() {
    let (outside, heard) = echoing();
    let host = format!("web.test:{}", outside.port);
    let hosts = [host.clone()];
    let house = house_that_reaches(&hosts, ("raw.py", RAW));
    let task = house.task("ada", &["--trust", &host]);
    let script = format!("{NO_PROXY}python3 raw.py {host}");
    let done = house.run(&task, &script).ok();
    assert_eq!(
        done.out,
        "unmasked 101 1002 not-understood\n\
         reserved 101 1002 not-understood\n\
         unknown 101 1002 not-understood\n\
         http 101 1002 not-understood\n\
         text 101 1007 not-understood\n\
         control 101 1002 not-understood\n\
         version 403\n\
         versions 403\n",
        "{done:?}"
    );
    // Each connection's goodbye alone.
    let heard: BTreeSet<_> = heard.lock().unwrap().iter().cloned().collect();
    assert_eq!(heard, [(0x88, vec![0x03, 0xe9])].into());
    assert_eq!(codes(&house), vec!["not-understood"; 8]);
    assert_eq!(outside.seen().len(), 6);
}

/// Opens WebSockets over HTTP/2, and asks for UDP in HTTP.
const OVER_HTTP2: &str = r"
const [host, token] = process.argv.slice(2);
const client = require('http2').connect('http://' + host);
const masked = (text) => {
    const said = Buffer.from(text), key = Buffer.from([1, 2, 3, 4]);
    for (let at = 0; at < said.length; at++) said[at] ^= key[at % 4];
    return Buffer.concat([Buffer.from([0x81, 0x80 | said.length]), key, said]);
};
const open = (protocol, ...texts) => new Promise((done) => {
    const stream = client.request({
        ':method': 'CONNECT', ':protocol': protocol, ':scheme': 'http', ':path': '/socket',
        ':authority': host, 'sec-websocket-version': '13',
        'sec-websocket-extensions': 'permessage-deflate',
    });
    let heard = Buffer.alloc(0);
    stream.on('response', (head) => {
        const status = head[':status'];
        stream.on('data', (piece) => {
            heard = Buffer.concat([heard, piece]);
            if (status !== 200) return;
            if (heard[0] === 0x88) {
                done(`closed ${heard.readUInt16BE(2)} ${heard.subarray(4).toString().split(':')[0]}`);
                stream.close();
            } else if (heard.length === 2 + heard[1]) {
                const said = heard.subarray(2).toString();
                heard = Buffer.alloc(0);
                if (texts.length) { stream.write(masked(texts.shift())); return; }
                done(`200 ${said}`);
                stream.close();
            }
        });
        stream.on('end', () => { if (status !== 200) done(`${status} ${JSON.parse(heard).code}`); });
        if (status === 200) stream.write(masked(texts.shift()));
    });
});
client.on('remoteSettings', async (settings) => {
    console.log('offered', settings.enableConnectProtocol);
    console.log('websocket', await open('websocket', 'one', 'two'));
    console.log('secret', await open('websocket', 'one', 'key ' + token));
    console.log('udp', await open('connect-udp'));
    client.close();
});
";

#[test]
fn a_web_socket_over_http2_is_one_of_http1_to_the_host_and_looked_at_alike() {
    if !have("node", Path::new("/usr/bin/node")) {
        return;
    }
    let (outside, heard) = echoing();
    let host = format!("web.test:{}", outside.port);
    let hosts = [host.clone()];
    let house = house_that_reaches(&hosts, ("over.js", OVER_HTTP2));
    let task = house.task("ada", &["--trust", &host]);
    let script = format!("{NO_PROXY}node over.js {host} {}", token());
    let done = house.run(&task, &script).ok();
    assert_eq!(
        done.out,
        "offered true\nwebsocket 200 two\nsecret closed 1008 base-secret-leaves\nudp 403 not-understood\n",
        "{done:?}"
    );
    let seen = outside.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    for asked in seen {
        assert!(
            asked.line == "GET /socket" && asked.head.contains("upgrade: websocket"),
            "{asked:?}"
        );
        assert!(!asked.head.contains("extensions"), "{asked:?}");
    }
    let said = heard.lock().unwrap().clone();
    assert!(
        !said.iter().any(|(_, said)| said.starts_with(b"key")),
        "{said:?}"
    );
    assert_eq!(codes(&house), ["base-secret-leaves", "not-understood"]);
}
