//! Agents that nobody declared: their marks in the git history.
//!
//! `git log` streams through here; what is kept is one counter per agent, so memory does not grow
//! with the history. The repository's own configuration is not trusted: nothing is fetched, no
//! helper program is started, and a git that says nothing for long is ended.

mod count;
mod marks;

use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::report::HistoryReport;

pub(crate) use count::count;

/// Most commits read.
const COMMITS_MAX: u64 = 2_000_000;
/// How long git may say nothing before it is ended.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Reads the history of a checkout; `Ok(None)` without git or without commits.
///
/// # Errors
/// Why it could not be read, in words.
pub(crate) fn read(
    root: &Path,
    declared: &[String],
    commits_max: u64,
) -> Result<Option<HistoryReport>, String> {
    let git = root.join(".git");
    if !git.exists() {
        return Ok(None);
    }
    let commits_max = commits_max.min(COMMITS_MAX);
    let mut child = command(&git, commits_max).spawn().map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            "git is not installed".to_owned()
        } else {
            format!("git could not be started: {error}")
        }
    })?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("git could not be heard".to_owned());
    };
    let progress = AtomicU64::new(0);
    let child = Mutex::new(child);
    let (done, ended) = mpsc::channel::<()>();
    let (mut report, silent) = std::thread::scope(|scope| {
        let (watched, heard) = (&child, &progress);
        let watch = scope.spawn(move || watch(watched, heard, &ended, SILENCE_MAX));
        let report = count(
            BufReader::with_capacity(64 * 1024, stdout),
            declared,
            &progress,
        );
        drop(done);
        (report, watch.join().unwrap_or(false))
    });
    let mut said = Vec::new();
    let _ = stderr.take(4 * 1024).read_to_end(&mut said);
    let status = child.into_inner().map(|mut child| child.wait());
    report.truncated = report.commits >= commits_max;
    if silent {
        return Err(format!(
            "git said nothing for {} seconds and was ended after {} commits",
            SILENCE_MAX.as_secs(),
            report.commits
        ));
    }
    let fine = matches!(status, Ok(Ok(status)) if status.success());
    if report.commits > 0 && (fine || report.truncated) {
        return Ok(Some(report));
    }
    let said = String::from_utf8_lossy(&said);
    // A repository that was just made has no commit yet, which is no trouble.
    if fine || said.contains("does not have any commits") || said.contains("bad default revision") {
        return Ok(None);
    }
    let first = said.lines().next().unwrap_or("git failed without a word");
    Err(format!("git says: {}", first.trim()))
}

/// Ends git when no commit came for so long; true if it had to.
fn watch(
    child: &Mutex<Child>,
    progress: &AtomicU64,
    ended: &mpsc::Receiver<()>,
    silence: Duration,
) -> bool {
    let mut before = u64::MAX;
    loop {
        match ended.recv_timeout(silence) {
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        let now = progress.load(Ordering::Relaxed);
        if now == before || (before == u64::MAX && now == 0) {
            if let Ok(mut child) = child.lock() {
                let _ = child.kill();
            }
            return true;
        }
        before = now;
    }
}

fn command(git: &Path, commits_max: u64) -> Command {
    let mut command = Command::new("git");
    command
        // Named outright, so that a broken `.git` never makes git look in directories above.
        .arg("--git-dir")
        .arg(git)
        .args([
            "-c",
            "safe.directory=*",
            "-c",
            "log.showSignature=false",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "protocol.allow=never",
            "--no-pager",
            "log",
            "-z",
            "--no-color",
            "--no-decorate",
            "--no-patch",
            "--no-mailmap",
            "--no-show-signature",
            "--no-notes",
            "--encoding=UTF-8",
        ])
        .arg(format!("--max-count={commits_max}"))
        .arg(count::FORMAT)
        .arg("HEAD")
        .arg("--")
        // Nothing is fetched, whatever the checkout's own configuration says.
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A hook's environment names another repository.
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_NAMESPACE",
        "GIT_EXTERNAL_DIFF",
        "GIT_TRACE",
    ] {
        command.env_remove(name);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_that_says_nothing_is_ended() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let child = Mutex::new(child);
        let (_open, ended) = mpsc::channel();
        let silence = Duration::from_millis(10);
        assert!(watch(&child, &AtomicU64::new(0), &ended, silence));
        let status = child.into_inner().unwrap().wait().unwrap();
        assert!(!status.success());
    }
}
