//! What test batteries of firewalls and proxies try beyond the reading of requests (`hostile`): names
//! and addresses in other dress, TLS that is not quite TLS, name services by other ways.

use std::time::Duration;

use crate::egress::{NO_PROXY, allow, house_that_reaches, house_with, without_interruptions};
use crate::house::{Outside, Plan, Reply, wait_until};

/// `proxy NAME HOST`: asks for it as of a proxy; `over NAME BYTES`: says this over TLS.
const TRIES: &str = r#"
import re, socket, ssl, sys
host, port = sys.argv[1], int(sys.argv[2])
H = f'{host}:{port}'
end = 'connection: close\r\n\r\n'
def heard(one):
    all = b''
    try:
        while piece := one.recv(65536):
            all += piece
    except OSError:
        pass
    return all
def said(text):
    found = re.findall(r'HTTP/1.[01] (\d+)|"code":"([a-z-]+)"', text.decode('latin-1'))
    return ' '.join(next(part for part in one if part) for one in found) or 'refused'
def talk(place, data):
    try:
        with socket.create_connection(place, 20) as one:
            one.settimeout(20)
            one.sendall(data.encode() if isinstance(data, str) else data)
            one.shutdown(socket.SHUT_WR)
            return said(heard(one))
    except OSError as error:
        return type(error).__name__
def proxy(name, place, path='/x'):
    print(name, talk(('127.0.0.1', 3128), f'GET http://{place}{path} HTTP/1.1\r\nHost: {place}\r\n{end}'.encode()))
def over(name, place, data, sni=host, alpn=None):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    try:
        with socket.create_connection(place, 20) as raw, context.wrap_socket(raw, server_hostname=sni) as one:
            one.settimeout(20)
            one.sendall(data.encode() if isinstance(data, str) else data)
            print(name, said(heard(one)))
    except OSError as error:
        print(name, type(error).__name__)
# Addresses of ours and of the machine's, as somebody else writes them.
for form in ['127.1', '0177.0.0.1', '0x7f.0.0.1', '0x7f000001', '2130706433', '017700000001', '127.0.0.1.', '127.000.000.001']:
    proxy('form ' + form, form)
for form in ['[::ffff:7f00:1]', '[0:0:0:0:0:ffff:127.0.0.1]', '[64:ff9b::7f00:1]', '[64:ff9b::a9fe:a9fe]', '[2002:7f00:1::]', '[2001:0:7f00:1::]', '[fe80::1]', '[ff02::1]', '[fec0::1]', '[::]']:
    proxy('six ' + form, form)
for form in ['[fe80::1%25lo]', '[::1%lo]', '[::1', '127.0.0.1%00.files.test', 'files.test%2eevil.test', 'files.test%00.evil.test', 'files%2etest', 'files.test\\@evil.test', 'evil.test#@files.test', 'files.test@evil.test', 'files..test', '.files.test', 'xn--files-test']:
    proxy('odd ' + form, form)
# One letter of another alphabet, full-width letters and dots, soft hyphens: as bytes and as IDNA.
for form in ['files.t\u0435st', 'files\u3002test', '\uff46iles.test', 'fi\u00adles.test', 'files.xn--tst-qdd']:
    proxy('twin ' + form.encode('unicode_escape').decode(), form)
for form in ['100.80.80.80', '168.63.129.16', '192.0.0.192', '100.100.100.200', '169.254.170.2', 'metadata.tencentyun.com', 'metadata', 'instance-data.ec2.internal', 'kubernetes.default.svc', 'host.docker.internal']:
    proxy('metadata ' + form, form)
proxy('resolves-here', f'localhost:{port}')
proxy('doh', 'dns.google', '/dns-query?dns=EjQBAAABAAAAAAAABGxlYWsEdGVzdAAAEAAB')
for place in [('64:ff9b::a9fe:a9fe', 80), ('::ffff:169.254.169.254', 80), ('fe80::1', 80), ('100.80.80.80', 80)]:
    print('straight', place[0], talk(place, f'GET / HTTP/1.1\r\nHost: {place[0] if "." in place[0] and ":" not in place[0] else "[" + place[0] + "]"}\r\n{end}'))
# TLS that carries something else, or says it is for somebody else.
question = b'\x00\x1b\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04leak\x04test\x00\x00\x10\x00\x01'
hello = bytes.fromhex('160301002f0100002b0303') + bytes(32) + bytes.fromhex('00000213010100')
get = f'GET /x HTTP/1.1\r\nHost: {H}\r\n{end}'
over('sni', (host, port), get, sni='other.test')
over('no-sni-host', (host, port), f'GET /x HTTP/1.1\r\nHost: other.test\r\n{end}', sni=None)
over('host', (host, port), f'GET /x HTTP/1.1\r\nHost: other.test\r\n{end}')
over('absolute', (host, port), f'GET https://other.test/x HTTP/1.1\r\nHost: {H}\r\n{end}')
over('scheme', (host, port), f'GET http://{H}/x HTTP/1.1\r\nHost: {H}\r\n{end}')
over('connect', (host, port), f'CONNECT other.test:443 HTTP/1.1\r\nHost: {H}\r\n{end}')
over('both-lengths', (host, port), f'POST /x HTTP/1.1\r\nHost: {H}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n')
over('websocket-host', (host, port), f'GET /x HTTP/1.1\r\nHost: other.test\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n')
over('alpn', (host, port), get, alpn=['acme-tls/1'])
over('alpn-h3', (host, port), get, alpn=['h3', 'imap'])
over('tls-in-tls', (host, port), hello)
over('ssh-in-tls', (host, port), 'SSH-2.0-x\r\n')
over('dot', ('8.8.8.8', 853), question, sni='dns.google')
over('dot-no-sni', ('9.9.9.9', 853), question, sni=None)
over('doh-address', ('1.1.1.1', 443), f'GET /dns-query HTTP/1.1\r\nHost: 1.1.1.1\r\n{end}', sni=None)
over('front', (host, 443), f'GET /x HTTP/1.1\r\nHost: other.test\r\n{end}')
print('half-hello', talk((host, port), hello[:20]))
print('old-hello', talk(('192.0.2.1', 443), bytes.fromhex('802e0103010015000000100100800200800300800400800500800600400700c0') + bytes(16)))
print('torn-hello', talk(('192.0.2.2', 443), hello[:9] + b'GET / HTTP/1.1\r\n\r\n'))
# Protocols in which the program speaks first, at their own ports and at ours.
for name, place, data in [('smtp', ('mail.test', 25), 'EHLO leak\r\n'), ('ftp', ('ftp.test', 21), 'USER leak\r\n'), ('irc', ('irc.test', 6667), 'NICK leak\r\n'), ('redis', ('redis.test', 6379), '*1\r\n$4\r\nPING\r\n'), ('socks4', (host, port), b'\x04\x01\x00\x50\x01\x01\x01\x01\x00'), ('proxy-line', (host, port), f'PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n{get}'), ('stun', (host, port), b'\x00\x01\x00\x00\x21\x12\xa4\x42' + bytes(12))]:
    print(name, talk(place, data))
def datagram(place, data, family):
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(0.2)
        try:
            one.sendto(data, place)
            return f'heard {one.recv(512)}'
        except OSError:
            return 'silent'
quic = b'\xc3\x00\x00\x00\x01\x08' + bytes(8) + b'\x00\x00\x44\x96' + bytes(1200)
for name, place, data, family in [('quic', ('198.18.0.1', 443), quic, socket.AF_INET), ('ntp', ('8.8.8.8', 123), b'\x1b' + bytes(47), socket.AF_INET), ('mdns', ('ff02::fb', 5353), question[2:], socket.AF_INET6), ('syslog', ('192.0.2.1', 514), b'<1>leak', socket.AF_INET), ('zone', ('fe80::1', 53, 0, 1), question[2:], socket.AF_INET6)]:
    print('datagram', name, datagram(place, data, family))
for kind, number in [(socket.SOCK_RAW, socket.IPPROTO_ICMP), (socket.SOCK_DGRAM, socket.IPPROTO_ICMP)]:
    try:
        socket.socket(socket.AF_INET, kind, number).sendto(b'\x08\x00' + b'leak', ('8.8.8.8', 0))
        print('icmp sent')
    except OSError:
        print('icmp refused')
"#;

/// What each of them comes to.
const OUTCOMES: &[&str] = &[
    "form 127.1 400",
    "form 0177.0.0.1 400",
    "form 0x7f.0.0.1 400",
    "form 0x7f000001 400",
    "form 2130706433 400",
    "form 017700000001 400",
    "form 127.0.0.1. 400",
    "form 127.000.000.001 400",
    "six [::ffff:7f00:1] 403 base-private-address",
    "six [0:0:0:0:0:ffff:127.0.0.1] 403 base-private-address",
    "six [64:ff9b::7f00:1] 403 base-private-address",
    "six [64:ff9b::a9fe:a9fe] 403 base-private-address",
    "six [2002:7f00:1::] 403 base-private-address",
    "six [2001:0:7f00:1::] 403 base-private-address",
    "six [fe80::1] 403 base-private-address",
    "six [ff02::1] 403 base-private-address",
    "six [fec0::1] 403 base-private-address",
    "six [::] 403 base-private-address",
    "odd [fe80::1%25lo] 400",
    "odd [::1%lo] 400",
    "odd [::1 400",
    "odd 127.0.0.1%00.files.test 400",
    "odd files.test%2eevil.test 400",
    "odd files.test%00.evil.test 400",
    "odd files%2etest 400",
    "odd files.test\\@evil.test 400",
    "odd evil.test#@files.test 403 host-mismatch",
    "odd files.test@evil.test 400",
    "odd files..test 400",
    "odd .files.test 400",
    "odd xn--files-test 403 no-permit",
    "twin files.t\\u0435st 400",
    "twin files\\u3002test 400",
    "twin \\uff46iles.test 400",
    "twin fi\\xadles.test 400",
    "twin files.xn--tst-qdd 403 no-permit",
    "metadata 100.80.80.80 403 base-private-address",
    "metadata 168.63.129.16 403 base-private-address",
    "metadata 192.0.0.192 403 base-private-address",
    "metadata 100.100.100.200 403 base-private-address",
    "metadata 169.254.170.2 403 base-private-address",
    "metadata metadata.tencentyun.com 403 no-permit",
    "metadata metadata 403 no-permit",
    "metadata instance-data.ec2.internal 403 no-permit",
    "metadata kubernetes.default.svc 403 no-permit",
    "metadata host.docker.internal 403 no-permit",
    "resolves-here 403 address-not-public",
    "doh 403 no-permit",
    "straight 64:ff9b::a9fe:a9fe 403 base-private-address",
    "straight ::ffff:169.254.169.254 403 base-private-address",
    "straight fe80::1 OSError",
    "straight 100.80.80.80 403 base-private-address",
    "sni 403 host-mismatch",
    "no-sni-host 403 host-mismatch",
    "host 403 host-mismatch",
    "absolute 403 host-mismatch",
    "scheme 400 malformed-request-target",
    "connect 400 malformed-request-target",
    "both-lengths 400 ambiguous-length",
    "websocket-host 403 host-mismatch",
    "alpn SSLError",
    "alpn-h3 SSLError",
    "tls-in-tls 400",
    "ssh-in-tls 400",
    "dot 400",
    "dot-no-sni 400",
    "doh-address 403 no-permit",
    "front 403 host-mismatch",
    "half-hello refused",
    "old-hello refused",
    "torn-hello refused",
    "smtp 400",
    "ftp 400",
    "irc 400",
    "redis refused",
    "socks4 refused",
    "proxy-line 400",
    "stun refused",
    "datagram quic silent",
    "datagram ntp silent",
    "datagram mdns silent",
    "datagram syslog silent",
    "datagram zone silent",
    "icmp refused",
    "icmp refused",
];

#[test]
fn names_addresses_and_tls_in_other_dress_lead_nowhere_else() {
    let outside = Outside::new(|_| Reply::ok("text/plain", "fine\n"));
    let host = format!("files.test:{}", outside.port);
    let elsewhere = format!("localhost:{}", outside.port);
    let plan = Plan {
        files: vec![
            ("README.md", "# Shop\n".to_owned()),
            ("src/greeting.txt", "hi\n".to_owned()),
            ("tries.py", TRIES.to_owned()),
        ],
        ..Plan::default()
    };
    let house = house_with(plan, std::slice::from_ref(&host), "");
    // Permitted by everybody, and yet it leads to an address that is open to another name alone.
    allow(&house, &[host.clone(), elsewhere.clone()], "");
    without_interruptions(&house);
    let task = house.task("ada", &["--trust", &host, "--host", &elsewhere]);
    let script = format!("{NO_PROXY}python3 tries.py files.test {}\n", outside.port);
    let done = house.run(&task, &script).ok();
    assert_eq!(done.out.lines().collect::<Vec<_>>(), OUTCOMES, "{done:?}");
    assert_eq!(outside.seen().len(), 0, "{:?}", outside.seen());
    let denied = house.entries("request.denied");
    for (resource, code) in [
        ("host 8.8.8.8:853", "host-mismatch"),
        ("host 9.9.9.9:853", "not-understood"),
        ("host 192.0.2.1:443", "not-understood"),
        ("host 192.0.2.2:443", "not-understood"),
        ("host mail.test:25", "not-understood"),
        ("host irc.test:6667", "not-understood"),
        ("host redis.test:6379", "not-understood"),
        ("host files.test:443", "host-mismatch"),
        ("host 1.1.1.1:443", "no-permit"),
        ("host dns.google:80", "no-permit"),
        ("host files.xn--tst-qdd:80", "no-permit"),
    ] {
        let told = denied
            .iter()
            .any(|entry| entry.body["resource"] == resource && entry.body["code"] == code);
        assert!(told, "{resource} {code}: {denied:?}");
    }
}

/// Frames of HTTP/2 that cost their reader more than their writer, over connections of their own.
/// After each a request is asked as usual.
const FLOODS: &str = r#"
import socket, struct, subprocess, sys
host, port = sys.argv[1], int(sys.argv[2])
def frame(kind, flags, stream, payload=b''):
    return struct.pack('>I', len(payload))[1:] + bytes([kind, flags]) + struct.pack('>I', stream) + payload
def literal(name, value, how=0x00):
    name, value = name.encode(), value.encode()
    return bytes([how]) + number(len(name)) + name + number(len(value)) + value
def number(value):
    if value < 127:
        return bytes([value])
    value, found = value - 127, b'\x7f'
    while value >= 128:
        found, value = found + bytes([value % 128 + 128]), value // 128
    return found + bytes([value])
head = b''.join(literal(*pair) for pair in [(':method', 'GET'), (':scheme', 'http'), (':path', '/x'), (':authority', f'{host}:{port}')])
begin = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + frame(4, 0, 0)
post = frame(1, 4, 1, head.replace(literal(':method', 'GET'), literal(':method', 'POST')))
big = literal('x-big', 'v' * 4000, 0x40)
floods = {
    'resets': b''.join(frame(1, 5, 2 * n + 1, head) + frame(3, 0, 2 * n + 1, b'\0\0\0\x08') for n in range(20_000)),
    'continuations': frame(1, 1, 1, head) + frame(9, 0, 1, literal('x', 'y' * 16_000)) * 4_000,
    'empty continuations': frame(1, 1, 1, head) + frame(9, 0, 1) * 200_000,
    'settings': frame(4, 0, 0, struct.pack('>HI', 4, 65535)) * 200_000,
    'pings': frame(6, 0, 0, bytes(8)) * 200_000,
    'table': frame(1, 4, 1, head + big) + b''.join(frame(1, 5, 2 * n + 3, head + b'\xbe' * 8_000) for n in range(500)),
    'empty data': post + frame(0, 0, 1) * 200_000,
    'windows': frame(1, 5, 1, head) + frame(8, 0, 0, struct.pack('>I', 1)) * 200_000,
    'priorities': frame(2, 0, 3, struct.pack('>IB', 1, 5)) * 200_000,
    'unknown kinds': frame(0xee, 0, 0, b'x' * 8_000) * 5_000,
}
for name, bytes_ in floods.items():
    with socket.create_connection((host, port), 30) as one:
        one.settimeout(20)
        try:
            one.sendall(begin)
            one.sendall(bytes_)
        except OSError:
            pass
    after = subprocess.run(['curl', '-s', '-o', '/dev/null', '-w', '%{http_code}', '--max-time', '20', '--http2-prior-knowledge', f'http://{host}:{port}/after'], capture_output=True, text=True)
    print(name, after.stdout, flush=True)
many = []
for _ in range(1_500):
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex((host, port))
    many.append(one)
del many
after = subprocess.run(['curl', '-s', '-o', '/dev/null', '-w', '%{http_code}', '--max-time', '30', f'http://{host}:{port}/after'], capture_output=True, text=True)
print('connections', after.stdout, flush=True)
print('over', flush=True)
"#;

#[test]
fn floods_of_frames_leave_the_launcher_answering_and_small() {
    let outside = Outside::new(|_| Reply::ok("text/plain", "fine\n"));
    let host = format!("files.test:{}", outside.port);
    let hosts = [host.clone()];
    let house = house_that_reaches(&hosts, ("floods.py", FLOODS));
    let task = house.task("ada", &["--trust", &host]);
    let script = format!(
        "{NO_PROXY}python3 floods.py files.test {}; sleep 1000",
        outside.port
    );
    let run = house.start_run(&task, &script);
    wait_until("all floods are over", || {
        run.out().contains("over\n").then_some(())
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.id())).unwrap();
    run.terminate();
    run.wait(Duration::from_secs(20));
    let out = run.out();
    assert_eq!(out.lines().count(), 12, "{out}");
    for line in out.lines().filter(|line| *line != "over") {
        assert!(line.ends_with(" 200"), "{out}");
    }
    // The floods are more than a hundred megabytes, and unpack to more; at rest it has about 50.
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most: u64 = most
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(most < 150_000, "{most} kB");
}
