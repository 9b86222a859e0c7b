//! Raw commit objects out of a repository, by one `git cat-file` process.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_evidence::chain::Bytes;
use portcullis_model::{GitOid, Refusal};

/// Largest commit object in bytes: a message longer than a book is no message.
const COMMIT_MAX_BYTES: u64 = 1024 * 1024;
/// Longest answer line in bytes: id, kind, size.
const HEADER_MAX_BYTES: u64 = 256;

/// The objects of `oids`. Blocks; nothing of the machine's git configuration counts.
///
/// # Errors
/// Git can't be run, or one of them is no commit here.
pub(super) fn read(
    git_dir: &Path,
    oids: impl Iterator<Item = GitOid>,
) -> Result<BTreeMap<GitOid, Bytes>, Refusal> {
    let unreadable = |error: std::io::Error| {
        Refusal::unavailable("git-unreadable", "commit objects can't be read")
            .received(&error.to_string())
    };
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let mut child = Command::new("git")
        .args(["-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null"])
        .args(["-c", "core.alternateRefsCommand=true", "--git-dir"])
        .arg(git_dir)
        .args(["cat-file", "--batch"])
        .env_clear()
        .env("PATH", path)
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(unreadable)?;
    let result = ask(&mut child, oids, unreadable);
    // Its standard input is closed, so it ends by itself; a kill makes sure.
    let _ended = child.kill();
    let _reaped = child.wait();
    result
}

fn ask(
    child: &mut std::process::Child,
    oids: impl Iterator<Item = GitOid>,
    unreadable: impl Fn(std::io::Error) -> Refusal + Copy,
) -> Result<BTreeMap<GitOid, Bytes>, Refusal> {
    let (Some(mut questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Refusal::internal("git was started without pipes"));
    };
    let mut answers = BufReader::new(answers);
    let mut objects = BTreeMap::new();
    for oid in oids {
        writeln!(questions, "{oid}").map_err(unreadable)?;
        questions.flush().map_err(unreadable)?;
        let mut header = String::new();
        (&mut answers)
            .take(HEADER_MAX_BYTES)
            .read_line(&mut header)
            .map_err(unreadable)?;
        let parts: Vec<&str> = header.split_whitespace().collect();
        let size = match parts.as_slice() {
            [answered, "commit", size] if *answered == oid.as_str() => size
                .parse::<u64>()
                .ok()
                .filter(|size| *size <= COMMIT_MAX_BYTES),
            _ => None,
        }
        .ok_or_else(|| Refusal::not_found("commit", &oid))?;
        let mut bytes = Vec::new();
        (&mut answers)
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let mut newline = [0];
        answers.read_exact(&mut newline).map_err(unreadable)?;
        objects.insert(oid, Bytes(bytes));
    }
    Ok(objects)
}
