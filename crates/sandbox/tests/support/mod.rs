//! What the tests share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_sandbox::{Outcome, Running, Spec, spawn};
use tempfile::TempDir;

/// The program that calls `helper_main`.
pub(crate) fn helper() -> PathBuf {
    env!("CARGO_BIN_EXE_portcullis-sandbox").into()
}

/// A workspace that everybody's runs may use.
pub(crate) fn workspace() -> TempDir {
    let directory = TempDir::new().expect("directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("mode");
    directory
}

/// A spec of this test's user.
pub(crate) fn spec<W: Into<OsString>>(
    workspace: &TempDir,
    command: impl IntoIterator<Item = W>,
) -> Spec {
    let mut spec = Spec::new(workspace.path(), command);
    spec.helper = Some(helper());
    spec.deadline_ms = Some(60_000);
    spec
}

pub(crate) fn shell(workspace: &TempDir, script: &str) -> Spec {
    spec(workspace, ["sh", "-c", script])
}

pub(crate) fn start(spec: &Spec) -> Running {
    spawn(spec).unwrap_or_else(|refusal| panic!("{refusal}"))
}

pub(crate) fn run(spec: &Spec) -> Outcome {
    start(spec).wait().expect("outcome")
}

pub(crate) fn stdout(outcome: &Outcome) -> String {
    let captured = outcome.captured.as_ref().expect("captured");
    String::from_utf8_lossy(&captured.stdout).into_owned()
}

pub(crate) fn stderr(outcome: &Outcome) -> String {
    let captured = outcome.captured.as_ref().expect("captured");
    String::from_utf8_lossy(&captured.stderr).into_owned()
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0)
}

/// The launcher's own program, started by an ordinary user: this one, or `nobody` for root.
pub(crate) struct Ordinary {
    pub(crate) directory: TempDir,
    pub(crate) workspace: PathBuf,
    program: PathBuf,
}

const NOBODY: u32 = 65_534;

impl Ordinary {
    pub(crate) fn new() -> Self {
        let directory = workspace();
        let program = directory.path().join("launcher");
        fs::copy(helper(), &program).expect("copy");
        let workspace = directory.path().join("workspace");
        fs::create_dir(&workspace).expect("workspace");
        if is_root() {
            std::os::unix::fs::chown(&workspace, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        Self {
            directory,
            workspace,
            program,
        }
    }

    /// A helper that is this user, for the library in this process.
    pub(crate) fn helper(&self) -> PathBuf {
        if !is_root() {
            return self.program.clone();
        }
        let script = self.directory.path().join("helper");
        let program = self.program.display();
        let text = format!(
            "#!/bin/sh\nexec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups '{program}' \"$@\"\n"
        );
        fs::write(&script, text).expect("script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode");
        script
    }

    pub(crate) fn command<W: Into<OsString>>(&self, words: impl IntoIterator<Item = W>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("run")
            .arg(&self.workspace)
            .arg("--")
            .args(words.into_iter().map(Into::into));
        command.env_remove("HOME");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

/// The hostile program, copied into a workspace.
pub(crate) fn bring_attempt(workspace: &Path) {
    let built = helper().with_file_name("examples").join("attempt");
    let copied = workspace.join("attempt");
    fs::copy(&built, &copied)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo test` builds it", built.display()));
    fs::set_permissions(&copied, fs::Permissions::from_mode(0o755)).expect("mode");
}

/// A helper on a machine whose kernel lacks something, made in `directory`.
pub(crate) fn helper_without(directory: &Path, lacking: &str) -> PathBuf {
    bring_attempt(directory);
    let script = directory.join("helper");
    let text = format!(
        "#!/bin/sh\nexec '{}' without {lacking} '{}' \"$@\"\n",
        directory.join("attempt").display(),
        helper().display()
    );
    fs::write(&script, text).expect("script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode");
    script
}

/// Waits for something that must come.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Host processes whose command line holds a mark.
pub(crate) fn processes_with(mark: &str) -> Vec<i32> {
    fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
        })
        .collect()
}

/// All directories below one.
pub(crate) fn walk(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path().display().to_string());
            found.extend(walk(&entry.path()));
        }
    }
    found
}
