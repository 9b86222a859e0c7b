//! Checkouts of every kind, healthy and broken: bare, empty, worktree, submodule, sparse, shallow,
//! with pipes and impossible names in the tree, or changing while they are read. What can be read is
//! audited, and what can't is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_scan::{Options, Report, scan};

const PUBLISH: &str = "on:\n  schedule: [{cron: '0 0 * * *'}]\njobs:\n  p:\n    runs-on: x\n    steps: [{run: npm publish}]\n";

fn git(directory: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org"])
        .args([
            "-c",
            "commit.gpgsign=false",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A repository with one publishing workflow and two commits, one by an agent.
fn repository() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::create_dir_all(path.join(".github/workflows")).unwrap();
    std::fs::create_dir_all(path.join("src")).unwrap();
    std::fs::write(path.join("src/x"), "x").unwrap();
    std::fs::write(path.join(".github/workflows/publish.yml"), PUBLISH).unwrap();
    git(path, &["init", "-q"]);
    git(path, &["add", "."]);
    git(path, &["commit", "-qm", "Start"]);
    git(
        path,
        &[
            "commit",
            "-qm",
            "Help\n\nMade-with: Cursor",
            "--allow-empty",
        ],
    );
    git(
        path,
        &[
            "remote",
            "add",
            "origin",
            "https://example.org/acme/widget.git",
        ],
    );
    directory
}

fn read(path: &Path) -> Report {
    scan(&Options {
        path: path.to_owned(),
        history_commits: 100,
        ..Options::default()
    })
    .unwrap()
}

fn publishes(report: &Report) -> bool {
    report
        .verdicts()
        .any(|verdict| verdict.sink == "npm publish")
}

/// Everything that the report says was not read, as one text.
fn told(report: &Report) -> String {
    report.repositories[0]
        .problems
        .iter()
        .map(|problem| format!("{}: {}\n", problem.file, problem.message))
        .collect()
}

fn binary(arguments: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis-scan"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_bare_repository_is_refused_with_what_to_do() {
    let bare = tempfile::tempdir().unwrap();
    git(bare.path(), &["init", "-q", "--bare"]);
    let output = binary(&[bare.path().as_os_str()]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("bare") && said.contains("git clone"),
        "{said}"
    );
    // The `.git` directory of a checkout is the same mistake.
    let checkout = repository();
    let output = binary(&[checkout.path().join(".git").as_os_str()]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_new_repository_without_commits_is_no_trouble() {
    let directory = tempfile::tempdir().unwrap();
    git(directory.path(), &["init", "-q"]);
    let output = binary(&[directory.path().as_os_str()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("No pipeline was found"), "{said}");
    assert!(said.contains("nothing is committed"), "{said}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_worktree_knows_its_repository_and_its_history() {
    let main = repository();
    let place = tempfile::tempdir().unwrap();
    let worktree = place.path().join("tree");
    git(
        main.path(),
        &["worktree", "add", "-q", worktree.to_str().unwrap()],
    );
    let report = read(&worktree);
    assert!(publishes(&report));
    assert_eq!(report.repositories[0].name.as_deref(), Some("acme/widget"));
    let history = report.repositories[0].history.as_ref().unwrap();
    assert_eq!((history.commits, history.agents.len()), (2, 1));
}

#[test]
fn a_submodule_is_named_and_not_mixed_in() {
    let (main, inner) = (repository(), repository());
    let url = format!("file://{}", inner.path().display());
    git(
        main.path(),
        &["submodule", "--quiet", "add", &url, "parts/inner"],
    );
    std::fs::write(
        main.path().join("parts/inner/.gitlab-ci.yml"),
        "a: {script: cargo publish}",
    )
    .unwrap();
    let report = read(main.path());
    assert!(publishes(&report));
    assert!(
        !report
            .verdicts()
            .any(|verdict| verdict.sink.contains("cargo"))
    );
    assert!(
        told(&report).contains("parts/inner: a repository of its own"),
        "{}",
        told(&report)
    );
    // By itself it is a checkout like any other.
    assert!(publishes(&read(&main.path().join("parts/inner"))));
}

#[test]
fn what_is_missing_in_a_checkout_is_told() {
    let main = repository();
    let place = tempfile::tempdir().unwrap();
    let url = format!("file://{}", main.path().display());
    let shallow = place.path().join("shallow");
    git(
        place.path(),
        &["clone", "-q", "--depth", "1", &url, "shallow"],
    );
    let report = read(&shallow);
    assert!(told(&report).contains("shallow"), "{}", told(&report));
    assert_eq!(report.repositories[0].history.as_ref().unwrap().commits, 1);

    git(
        main.path(),
        &["sparse-checkout", "set", "--no-cone", "src/*"],
    );
    let report = read(main.path());
    assert!(!publishes(&report));
    assert!(told(&report).contains("sparse"), "{}", told(&report));

    let part = read(&main.path().join("src"));
    assert!(told(&part).contains("scan that"), "{}", told(&part));
}

#[test]
fn a_broken_git_directory_costs_the_history_alone() {
    for damage in ["nothing", "file", "empty", "head", "objects"] {
        let main = repository();
        let git = main.path().join(".git");
        match damage {
            "file" => {
                std::fs::remove_dir_all(&git).unwrap();
                std::fs::write(&git, "gitdir: /nowhere/at/all\n").unwrap();
            }
            "empty" => {
                std::fs::remove_dir_all(&git).unwrap();
                std::fs::create_dir(&git).unwrap();
            }
            "head" => std::fs::write(git.join("HEAD"), [0xff, 0, 7]).unwrap(),
            "objects" => {
                std::fs::remove_dir_all(git.join("objects")).unwrap();
                std::fs::create_dir(git.join("objects")).unwrap();
            }
            _ => {}
        }
        let report = read(main.path());
        assert!(publishes(&report), "{damage}");
        let history = report.repositories[0].history.is_some();
        assert_eq!(history, damage == "nothing", "{damage}: {}", told(&report));
        assert!(
            history || told(&report).contains("history was not read"),
            "{damage}: {}",
            told(&report)
        );
    }
}

#[cfg(unix)]
#[test]
fn pipes_sockets_and_impossible_names_are_told_and_never_waited_for() {
    use std::os::unix::ffi::OsStrExt as _;
    let main = repository();
    let workflows = main.path().join(".github/workflows");
    let pipe = |path: &Path| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
    };
    pipe(&workflows.join("pipe.yml"));
    pipe(&main.path().join("renovate.json"));
    let _socket = std::os::unix::net::UnixListener::bind(workflows.join("socket.yml")).unwrap();
    std::fs::write(workflows.join(OsStr::from_bytes(b"b\xff\xfe.yml")), PUBLISH).unwrap();
    std::fs::write(
        workflows.join("two\nlines \u{1b}[31m.yml"),
        PUBLISH.replace("npm", "yarn"),
    )
    .unwrap();
    std::os::unix::fs::symlink("/dev/zero", workflows.join("zero.yml")).unwrap();
    std::os::unix::fs::symlink("workflows", main.path().join(".github/actions")).unwrap();
    let mut deep = main.path().to_owned();
    for _ in 0..60 {
        deep.push("d");
    }
    std::fs::create_dir_all(&deep).unwrap();
    // Pipes where git's own files should be: nothing here may wait for them either.
    std::fs::remove_file(main.path().join(".git/config")).unwrap();
    pipe(&main.path().join(".git/config"));
    let report = scan(&Options {
        path: main.path().to_owned(),
        history_commits: 0,
        ..Options::default()
    })
    .unwrap();
    let told = told(&report);
    for word in [
        "pipe.yml: a pipe",
        "renovate.json: a pipe",
        "socket.yml: a pipe",
        "not UTF-8",
        "zero.yml",
        ".github/actions: a link",
        "deeper than",
    ] {
        assert!(told.contains(word), "{word} is missing in {told}");
    }
    assert!(publishes(&report));
    assert!(
        report
            .verdicts()
            .any(|verdict| verdict.sink == "yarn publish")
    );
    let output = binary(&[main.path().as_os_str(), OsStr::new("--no-history")]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        !output.stdout.contains(&0x1b),
        "a name spoke to the terminal"
    );
}

#[test]
fn files_that_change_while_they_are_read_do_no_harm() {
    let main = repository();
    let workflows = main.path().join(".github/workflows");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                let path = workflows.join(format!("w{}.yml", turn % 50));
                let _ = match turn % 4 {
                    0 => std::fs::remove_file(&path),
                    1 => std::fs::write(&path, PUBLISH.repeat(turn % 7)),
                    2 => std::fs::create_dir(&path),
                    _ => std::fs::remove_dir(&path),
                };
            }
        });
        for _ in 0..20 {
            assert!(publishes(&read(main.path())));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_push_to_main_counts_where_master_is_checked_out_and_no_remote_names_the_default() {
    let directory = repository();
    let path = directory.path();
    let push = "on:\n  schedule: [{cron: '0 0 * * *'}]\npermissions: {contents: write}\njobs:\n  p:\n    runs-on: x\n    steps: [{uses: actions/checkout@v4}, {run: 'git push origin HEAD:main'}]\n";
    std::fs::write(path.join(".github/workflows/push.yml"), push).unwrap();
    let merges = || {
        read(path).repositories[0]
            .verdicts
            .iter()
            .map(|verdict| verdict.sink.clone())
            .collect::<Vec<_>>()
    };
    git(path, &["checkout", "-q", "-B", "master"]);
    assert!(
        merges().contains(&"branch main".to_owned()),
        "{:?}",
        merges()
    );
    // A remote that says so settles it: `main` is then an old or a future name.
    std::fs::create_dir_all(path.join(".git/refs/remotes/origin")).unwrap();
    std::fs::write(
        path.join(".git/refs/remotes/origin/HEAD"),
        "ref: refs/remotes/origin/master\n",
    )
    .unwrap();
    assert!(
        !merges().contains(&"branch main".to_owned()),
        "{:?}",
        merges()
    );
}

/// Nothing tells what the repository is called, and still only a fork is another one.
#[test]
fn a_fork_is_told_apart_where_no_remote_names_the_repository() {
    let merges = |condition: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir_all(path.join(".github/workflows")).unwrap();
        let workflow = format!(
            "on: pull_request_target\njobs:\n  m:\n    if: {condition}\n    runs-on: x\n    steps:\n      - run: gh pr merge 1\n        env: {{GH_REPO: a/b, GH_TOKEN: '${{{{ secrets.PAT }}}}'}}\n"
        );
        std::fs::write(path.join(".github/workflows/merge.yml"), workflow).unwrap();
        read(path)
            .verdicts()
            .any(|verdict| verdict.verdict == portcullis_scan::report::Decision::Reachable)
    };
    for own in [
        "github.repository",
        "github.event.pull_request.base.repo.full_name",
    ] {
        let head = "github.event.pull_request.head.repo.full_name";
        assert!(!merges(&format!("{head} == {own}")), "{own}");
        assert!(merges(&format!("{head} != {own}")), "{own}");
    }
    assert!(!merges(
        "github.event.pull_request.head.repo.owner.login == github.repository_owner"
    ));
}
