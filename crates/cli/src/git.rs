//! Plain git, asked for facts about a repository on this machine.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_model::{GitOid, Refusal};

/// Most bytes of an answer that is a name or an id.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;

/// Runs git in `folder` and gives what it prints, at most `max` bytes.
///
/// # Errors
/// git is missing, it failed (its words are in `received`), or it said more.
pub(crate) fn run(folder: &Path, arguments: &[&str], max: u64) -> Result<Vec<u8>, Refusal> {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(arguments);
    // What a surrounding git (a hook, for instance) says about its own repository is not meant here.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GIT_") {
            command.env_remove(name);
        }
    }
    command
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        Refusal::unavailable("git-missing", "git can't be started")
            .received(&error.to_string())
            .next("install git 2.30 or newer; `portcullis doctor` checks it")
    })?;
    let mut out = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(max + 1)
            .read_to_end(&mut out)
            .map_err(|error| failed(arguments, &error.to_string()))?;
    }
    if out.len() as u64 > max {
        let _ = child.kill();
        let _ = child.wait();
        return Err(
            Refusal::limit("git-answer-too-large", "git said more than is read")
                .expected(&format!("at most {max} bytes"))
                .received(&format!("git {}", arguments.join(" "))),
        );
    }
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(ANSWER_MAX_BYTES).read_to_string(&mut words);
    }
    let status = child
        .wait()
        .map_err(|error| failed(arguments, &error.to_string()))?;
    if status.success() {
        Ok(out)
    } else {
        Err(failed(arguments, words.trim()))
    }
}

/// One line of an answer.
///
/// # Errors
/// As [`run`], or it isn't text.
pub(crate) fn line(folder: &Path, arguments: &[&str]) -> Result<String, Refusal> {
    let out = run(folder, arguments, ANSWER_MAX_BYTES)?;
    String::from_utf8(out)
        .map(|text| text.trim_end_matches('\n').to_owned())
        .map_err(|_| failed(arguments, "an answer that isn't text"))
}

/// The commit that `revision` names in `folder`.
///
/// # Errors
/// There is none.
pub(crate) fn commit(folder: &Path, revision: &str) -> Result<GitOid, Refusal> {
    let wanted = format!("{revision}^{{commit}}");
    line(
        folder,
        &[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &wanted,
        ],
    )
    .map_err(|_| {
        Refusal::not_found("commit", revision)
            .expected("a branch, tag or commit of the repository in this directory")
            .next("`git rev-parse REV` says what git takes it for")
    })?
    .parse()
}

fn failed(arguments: &[&str], words: &str) -> Refusal {
    let what = arguments.first().copied().unwrap_or_default();
    Refusal::unavailable("git-failed", format!("git {what} failed")).received(words)
}
