//! Bodies that are many, large and do not end: bounded, and said so; and those that wait for an
//! answer to what they said so far.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use crate::egress::{NO_PROXY, house_that_reaches};
use crate::house::{Outside, Reply};

/// Begins `MANY` bodies of eight mebibytes at once, holds back the last byte of each until some were
/// refused for want of room, then finishes the rest, and one more. They say that they are packed, so
/// that they have to be held whole, and are not, so that they do not leave.
const FLOOD: &str = r#"
import socket, sys, threading
host, port = sys.argv[1].split(':')
MANY, SIZE = 24, 8 * 1024 * 1024
refused = threading.Event()
told = []
def ask(number, hold):
    one = socket.create_connection((host, int(port)), 60)
    one.settimeout(60)
    head = f'POST /up{number} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: {SIZE}\r\nconnection: close\r\n'
    head += 'content-encoding: gzip\r\n\r\n' if hold else '\r\n'
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
    codes = ['no-room-for-body', 'body-not-readable']
    code = ' '.join(code for code in codes if f'"{code}"' in text)
    told.append((status, code))
threads = [threading.Thread(target=ask, args=(number, True)) for number in range(MANY)]
for thread in threads: thread.start()
for thread in threads: thread.join()
whole, refused = ('403', 'body-not-readable'), ('503', 'no-room-for-body')
print('whole', whole in told, 'refused', refused in told, 'other', set(told) - {whole, refused})
told.clear()
ask(MANY, False)
print('after', told)
"#;

#[test]
fn many_bodies_that_do_not_end_fill_a_runs_share_and_get_words() {
    let outside = Outside::new(|asked| Reply::ok("text/plain", asked.body.len().to_string()));
    let host = format!("files.test:{}", outside.port);
    let hosts = [host.clone()];
    let house = house_that_reaches(&hosts, ("flood.py", FLOOD));
    let task = house.task("ada", &["--trust", &host]);
    let done = house
        .run(&task, &format!("{NO_PROXY}python3 flood.py {host}"))
        .ok();
    assert_eq!(
        done.out, "whole True refused True other set()\nafter [('200', '')]\n",
        "{done:?}"
    );
    let seen = outside.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].body.len(), 8 * 1024 * 1024);
}

/// Says each chunk again that it hears, until the last.
fn echo(stream: TcpStream) {
    let mut heard = BufReader::new(stream.try_clone().unwrap());
    let mut said = stream;
    loop {
        let mut line = String::new();
        let mut body = Vec::new();
        if heard.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        body.resize(length + 2, 0);
        if heard.read_exact(&mut body).is_err() {
            return;
        }
        let again = [line.as_bytes(), &body].concat();
        if said.write_all(&again).is_err() || length == 0 {
            return;
        }
    }
}

/// Speaks, waits for the answer to what it said, and speaks on.
const TALK: &str = r#"
import socket, sys
host, port = sys.argv[1].split(':')
def talk(*words):
    with socket.create_connection((host, int(port)), 20) as one:
        one.settimeout(20)
        one.sendall(f'POST /talk HTTP/1.1\r\nhost: {host}:{port}\r\ntransfer-encoding: chunked\r\n\r\n'.encode())
        heard = b''
        for word in words:
            one.sendall(f'{len(word):x}\r\n{word}\r\n'.encode())
            while word.encode() not in heard:
                piece = one.recv(65536)
                if not piece:
                    return 'the end'
                heard += piece
        one.sendall(b'0\r\n\r\n')
        while not heard.endswith(b'0\r\n\r\n'):
            piece = one.recv(65536)
            if not piece:
                return 'no end'
            heard += piece
        return f'{len(words)} of {len(words)}'
print(talk('one', 'two', 'three'))
print(talk('one', 'key ' + sys.argv[2], 'three'))
"#;

#[test]
fn who_speaks_and_waits_for_an_answer_is_answered_and_a_secret_still_stays() {
    let outside = Outside::new(|_| {
        Reply::Raw(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            echo,
        )
    });
    let host = format!("talk.test:{}", outside.port);
    let hosts = [host.clone()];
    let house = house_that_reaches(&hosts, ("talk.py", TALK));
    let token = format!("ghp_{}", "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx");
    let task = house.task("ada", &["--trust", &host]);
    let done = house
        .run(&task, &format!("{NO_PROXY}python3 talk.py {host} {token}"))
        .ok();
    assert_eq!(done.out, "3 of 3\nthe end\n", "{done:?}");
    let denied = house.entries("request.denied");
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!(denied[0].body["code"], "base-secret-leaves");
}
