//! Terminals: one that the caller holds, and the caller's own.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use portcullis_sandbox::Terminal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use support::{Ordinary, shell, start, workspace};

/// Reads what a terminal shows until `wanted` is there.
fn until(screen: &mut File, seen: &mut String, wanted: &str) {
    let began = Instant::now();
    let mut buffer = [0; 4096];
    while !seen.contains(wanted) {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "no {wanted:?} in {seen:?}"
        );
        match screen.read(&mut buffer) {
            Ok(count) => seen.push_str(&String::from_utf8_lossy(&buffer[..count])),
            Err(error) => panic!("no {wanted:?} in {seen:?}: {error}"),
        }
    }
}

const SCRIPT: &str = "trap 'echo size; stty size' WINCH; trap 'echo interrupted; exit 7' INT; test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo ready; while :; do sleep 0.01; done";

#[test]
fn a_held_terminal_has_size_keys_and_an_end() {
    let workspace = workspace();
    let mut spec = shell(&workspace, SCRIPT);
    spec.terminal = Terminal::Pty {
        rows: 30,
        columns: 90,
    };
    let running = start(&spec);
    let terminal = running.terminal().expect("terminal");
    let mut screen = terminal.file().expect("file");
    let mut seen = String::new();
    until(&mut screen, &mut seen, "ready");
    assert!(
        seen.contains("/dev/pts/0") && seen.contains("30 90"),
        "{seen:?}"
    );
    terminal.resize(50, 120).expect("resize");
    until(&mut screen, &mut seen, "50 120");
    screen.write_all(b"\x03").expect("ctrl-c");
    until(&mut screen, &mut seen, "interrupted");
    assert_eq!(running.wait().expect("outcome").exit_code(), 7);
}

#[test]
fn the_callers_terminal_is_mirrored_and_given_back() {
    let user = Ordinary::new();
    let master =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("pty");
    grantpt(&master).expect("grant");
    unlockpt(&master).expect("unlock");
    let slave = ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )
    .expect("slave");
    if support::is_root() {
        rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(65_534)), None).expect("owner");
    }
    let size = |rows, columns| Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size(24, 80)).expect("size");
    let before = tcgetattr(&slave).expect("settings");
    let mut command = user.command(["sh", "-c", SCRIPT]);
    let end = |slave: &OwnedFd| Stdio::from(slave.try_clone().expect("clone"));
    command
        .stdin(end(&slave))
        .stdout(end(&slave))
        .stderr(end(&slave));
    // SAFETY: both are system calls that are safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        })
    };
    let mut child = command.spawn().expect("starts");
    let mut screen = File::from(master);
    let mut seen = String::new();
    until(&mut screen, &mut seen, "ready");
    assert!(seen.contains("24 80"), "{seen:?}");
    assert!(
        !tcgetattr(&slave)
            .expect("settings")
            .local_modes
            .contains(LocalModes::ICANON)
    );
    tcsetwinsize(&screen, size(40, 100)).expect("size");
    until(&mut screen, &mut seen, "40 100");
    screen.write_all(b"\x03").expect("ctrl-c");
    until(&mut screen, &mut seen, "interrupted");
    let status = child.wait().expect("waits");
    assert_eq!(status.code(), Some(7), "{seen:?}");
    let after = tcgetattr(&slave).expect("settings");
    assert_eq!(after.local_modes, before.local_modes);
}
