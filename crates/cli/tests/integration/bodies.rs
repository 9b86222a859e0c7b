//! Bodies that are many, large and do not end: bounded, and said so.

use crate::egress::{NO_PROXY, allow, house_with, without_interruptions};
use crate::house::{House, Outside, Plan, Reply};

/// Begins `MANY` bodies of eight mebibytes at once, holds back the last byte of each until some were
/// refused for want of room, then finishes the rest, and one more.
const FLOOD: &str = r#"
import socket, sys, threading
host, port = sys.argv[1].split(':')
MANY, SIZE = 24, 8 * 1024 * 1024
refused = threading.Event()
told = []
def ask(number, hold):
    one = socket.create_connection((host, int(port)), 60)
    one.settimeout(60)
    head = f'POST /up{number} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: {SIZE}\r\nconnection: close\r\n\r\n'
    one.sendall(head.encode())
    answer = b''
    try:
        one.sendall(b'x' * (SIZE - 1))
        if hold:
            # An answer before the end is a refusal.
            one.settimeout(0.2)
            while not refused.is_set():
                try:
                    answer = one.recv(65536)
                    refused.set()
                    break
                except TimeoutError:
                    pass
            one.settimeout(60)
        if not answer:
            one.sendall(b'x')
    except OSError:
        pass
    try:
        while piece := one.recv(65536):
            answer += piece
    except OSError:
        pass
    text = answer.decode(errors='replace')
    status = text.split(' ')[1] if ' ' in text else 'none'
    code = 'no-room-for-body' if '"no-room-for-body"' in text else ''
    told.append((status, code))
threads = [threading.Thread(target=ask, args=(number, True)) for number in range(MANY)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('fine', sum(1 for status, _ in told if status == '200') > 0)
print('refused', sum(1 for one in told if one == ('503', 'no-room-for-body')) > 0)
print('other', [one for one in told if one[0] != '200' and one != ('503', 'no-room-for-body')])
told.clear()
ask(MANY, False)
print('after', told)
"#;

#[test]
fn many_bodies_that_do_not_end_fill_a_runs_share_and_get_words() {
    let outside = Outside::new(|asked| Reply::ok("text/plain", asked.body.len().to_string()));
    let host = format!("files.test:{}", outside.port);
    let hosts = [host.clone()];
    let plan = Plan {
        files: vec![
            ("README.md", "# Shop\n".to_owned()),
            ("src/greeting.txt", "hi\n".to_owned()),
            ("flood.py", FLOOD.to_owned()),
        ],
        ..Plan::default()
    };
    let house: House = house_with(plan, &hosts, "");
    allow(&house, &hosts, "");
    without_interruptions(&house);
    let task = house.task("ada", &["--trust", &host]);
    let done = house
        .run(&task, &format!("{NO_PROXY}python3 flood.py {host}"))
        .ok();
    assert_eq!(
        done.out, "fine True\nrefused True\nother []\nafter [('200', '')]\n",
        "{done:?}"
    );
    for asked in outside.seen() {
        assert_eq!(asked.body.len(), 8 * 1024 * 1024, "{}", asked.line);
    }
}
