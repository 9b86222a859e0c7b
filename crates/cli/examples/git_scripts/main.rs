//! Git's own test scripts for HTTP, pointed at a running server.
//!
//! The scripts start a web server of their own, Apache, by its command line. This program answers to
//! the same command line, so that the scripts run as they are:
//!
//! ```sh
//! cargo build -p portcullis-cli --bins --example git_scripts
//! cd git/t     # of git's source, built with `make`
//! GIT_TEST_HTTPD=1 LIB_HTTPD_MODULE_PATH=/tmp \
//!   LIB_HTTPD_PATH=…/target/debug/examples/git_scripts bash t5541-http-push-smart.sh -v
//! ```
//!
//! For each repository that a script puts below its document root and asks for, it makes a home with
//! `portcullis init`, starts `portcullis serve`, has a task signed for the repository's default
//! branch, and starts a run of it. Requests to `/smart/<name>` go into that run's sandbox, and from
//! there as a run's git sends them: to the launcher's channel, with proof of possession, to the
//! server, under the policy that `init` writes. Nothing of the product knows of it.
//!
//! What Apache would do in front of git (redirects, passwords, the log of requests) it does itself.
//! The scripts refuse to run as root; an ordinary user needs unprivileged user namespaces. The
//! folder `portcullis` beside the document root keeps homes, the servers' logs and the runs' words.
#![expect(clippy::print_stdout, reason = "the scripts read what Apache prints")]

#[allow(dead_code, reason = "other examples use more of it")]
#[path = "../common/mod.rs"]
mod common;
mod front;
mod house;
mod inside;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::Outcome;

/// What the scripts look for to know the web server's version.
const VERSION: &str = "Server version: Apache/2.4.62 (portcullis stands in for it)";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|one| one == name)?;
        arguments.get(at + 1).cloned()
    };
    match arguments.first().map(String::as_str) {
        Some("-v" | "-V") => {
            println!("{VERSION}");
            return Ok(());
        }
        Some("inside") => {
            let socket = after("inside").ok_or("inside takes a socket")?;
            return inside::relay(Path::new(&socket));
        }
        Some("front") => {
            let root = PathBuf::from(after("front").ok_or("front takes a folder")?);
            let port = after("--port").ok_or("front takes a port")?.parse()?;
            return front::run(root, port);
        }
        _ => {}
    }
    let root = PathBuf::from(after("-d").ok_or("this stands in for Apache: see its source")?);
    match after("-k").as_deref() {
        Some("start") => {
            let listen = after("-c").ok_or("no port to listen at")?;
            let port = listen.rsplit_once(':').ok_or("no port to listen at")?.1;
            start(&root, port)
        }
        Some("stop") => stop(&root),
        _ => Err("-k start or -k stop".into()),
    }
}

/// Starts the front as Apache starts itself: in the background, answering when this returns.
fn start(root: &Path, port: &str) -> Outcome<()> {
    let log = fs::File::create(root.join("error.log"))?;
    let child = Command::new(std::env::current_exe()?)
        .arg("front")
        .arg(root)
        .args(["--port", port])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    fs::write(root.join("httpd.pid"), child.id().to_string())?;
    for _ in 0..200 {
        if fs::read_to_string(root.join("error.log"))?.contains("ready") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("the front does not answer".into())
}

/// Ends the front, which ends what it started.
fn stop(root: &Path) -> Outcome<()> {
    let pid = fs::read_to_string(root.join("httpd.pid"))?;
    common::done(Command::new("kill").args(["-TERM", pid.trim()]))?;
    for _ in 0..200 {
        if !Path::new("/proc").join(pid.trim()).exists() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("the front does not end".into())
}
