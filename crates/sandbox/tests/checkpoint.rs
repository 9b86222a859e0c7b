//! Keeping a workspace and winding it back, however hostile it is.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use portcullis_sandbox::checkpoint::{Bounds, Checkpoints};
use support::{bring_attempt, eventually, shell, spec, start, workspace};
use tempfile::TempDir;

fn of(workspace: &TempDir) -> (Checkpoints, TempDir) {
    bounded(workspace, Bounds::default())
}

fn bounded(workspace: &TempDir, bounds: Bounds) -> (Checkpoints, TempDir) {
    let store = TempDir::new().expect("store");
    let made = Checkpoints::create(workspace.path(), store.path(), bounds);
    (made.unwrap_or_else(|refusal| panic!("{refusal}")), store)
}

/// Everything below: kind, mode and content, by path.
fn seen(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, data) = (entry.path(), entry.metadata().expect("metadata"));
        let what = if data.is_symlink() {
            format!("link {:?}", fs::read_link(&path).expect("link"))
        } else if data.is_dir() {
            found.extend(seen(&path));
            format!("directory {:o}", data.mode())
        } else if data.is_file() {
            format!(
                "{:o} {:?}",
                data.mode(),
                fs::read(&path).unwrap_or_default()
            )
        } else {
            "special".to_owned()
        };
        found.insert(path, what);
    }
    found
}

fn fill(top: &Path) {
    for (name, text) in [
        ("src/main.rs", "fn main() {}"),
        ("untracked", "new"),
        (".git/HEAD", "ref: refs/heads/work"),
        (".git/hooks/post-checkout", "#!/bin/sh\ntouch /tmp/executed"),
        ("-rf", "a name like an option"),
        ("a\nb", "a name with a line feed"),
        (".gitignore", "*"),
        ("target/debug/big", "ignored by git, kept all the same"),
    ] {
        let path = top.join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        fs::write(path, text).expect("file");
    }
    fs::write(top.join(OsStr::from_bytes(b"odd \xff\xfe")), "bytes").expect("odd");
    // Programs that git would start for whoever adds this tree.
    fs::write(
        top.join(".git/config"),
        "[core]\n fsmonitor = touch executed\n[filter \"x\"]\n clean = touch executed\n",
    )
    .expect("config");
    fs::write(top.join(".gitattributes"), "* filter=x\n").expect("attributes");
    fs::create_dir(top.join("empty")).expect("empty");
    symlink("src/main.rs", top.join("link")).expect("link");
    symlink("/etc/passwd", top.join("outside")).expect("link");
    let tool = top.join("tool");
    fs::write(&tool, "#!/bin/sh\n").expect("tool");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o750)).expect("mode");
}

#[test]
fn everything_comes_back_as_it_was_and_what_did_not_change_is_left_alone() {
    let workspace = workspace();
    let top = workspace.path();
    fill(top);
    let (mut checkpoints, store) = of(&workspace);
    let first = checkpoints.keep().expect("keeps").expect("something");
    assert_eq!(first.number, 1);
    let before = seen(top);
    let same = fs::metadata(top.join("untracked")).expect("file").ino();
    assert_eq!(checkpoints.keep().expect("keeps"), None, "nothing changed");

    fs::write(top.join("src/main.rs"), "fn main() { evil() }").expect("write");
    fs::remove_file(top.join("-rf")).expect("remove");
    fs::remove_file(top.join("link")).expect("remove");
    fs::write(top.join("link"), "a file now").expect("write");
    fs::remove_dir_all(top.join("target")).expect("remove");
    symlink("/", top.join("target")).expect("link");
    fs::create_dir_all(top.join("new/deep")).expect("new");
    fs::write(top.join("new/deep/file"), "x").expect("new");
    fs::set_permissions(top.join("tool"), fs::Permissions::from_mode(0o644)).expect("mode");
    fs::set_permissions(top.join("new"), fs::Permissions::from_mode(0o000)).expect("mode");
    let second = checkpoints.keep().expect("keeps").expect("something");
    assert_eq!(second.number, 2);
    assert_ne!(second.manifest, first.manifest);
    assert_eq!(checkpoints.list().len(), 2);

    assert!(
        checkpoints.wind_back(1, second.manifest).is_err(),
        "another content"
    );
    assert!(
        checkpoints.wind_back(7, first.manifest).is_err(),
        "no such number"
    );
    let wound = checkpoints
        .wind_back(1, first.manifest)
        .expect("winds back");
    assert!(wound.written >= 5 && wound.removed >= 3, "{wound:?}");
    assert_eq!(seen(top), before);
    let now = fs::metadata(top.join("untracked")).expect("file").ino();
    assert_eq!(now, same);
    assert!(!top.join("executed").exists() && !Path::new("/tmp/executed").exists());
    // What came later is gone, and its number is not given again.
    assert!(checkpoints.wind_back(2, second.manifest).is_err());
    fs::write(top.join("more"), "x").expect("write");
    assert_eq!(checkpoints.keep().expect("keeps").expect("kept").number, 3);
    drop(store);
}

#[test]
fn links_lead_nowhere_outside_neither_when_kept_nor_when_wound_back() {
    let (workspace, outside) = (workspace(), workspace());
    let top = workspace.path();
    fs::write(outside.path().join("precious"), "the host's own").expect("file");
    fs::create_dir(top.join("src")).expect("src");
    fs::write(top.join("src/precious"), "the run's own").expect("file");
    let (mut checkpoints, _store) = of(&workspace);
    let first = checkpoints.keep().expect("keeps").expect("something");
    // Winding back must replace the link, not write through it.
    fs::remove_dir_all(top.join("src")).expect("remove");
    symlink(outside.path(), top.join("src")).expect("link");
    symlink(outside.path().join("precious"), top.join("also")).expect("link");
    checkpoints
        .wind_back(1, first.manifest)
        .expect("winds back");
    assert_eq!(
        fs::read_to_string(outside.path().join("precious")).expect("precious"),
        "the host's own"
    );
    assert_eq!(fs::read_dir(outside.path()).expect("outside").count(), 1);
    assert_eq!(
        fs::read_to_string(top.join("src/precious")).expect("file"),
        "the run's own"
    );
    assert!(fs::symlink_metadata(top.join("also")).is_err());
}

#[test]
fn pipes_and_sockets_do_not_hold_it_up_and_stay() {
    let workspace = workspace();
    let top = workspace.path();
    let made = std::process::Command::new("mkfifo")
        .arg(top.join("pipe"))
        .status();
    assert!(made.is_ok_and(|status| status.success()));
    let _socket = std::os::unix::net::UnixListener::bind(top.join("socket")).expect("socket");
    let (mut checkpoints, _store) = of(&workspace);
    let first = checkpoints.keep().expect("keeps");
    assert_eq!(first.map(|kept| kept.entries), Some(0));
    fs::write(top.join("file"), "x").expect("file");
    checkpoints
        .wind_back(1, first.expect("kept").manifest)
        .expect("winds back");
    assert!(top.join("pipe").exists() && top.join("socket").exists());
    assert!(!top.join("file").exists());
}

#[test]
fn bounds_hold_and_leave_what_was_kept_before() {
    let workspace = workspace();
    let top = workspace.path();
    fs::write(top.join("small"), "x").expect("file");
    let bounds = Bounds {
        entries: 20,
        bytes: 10_000,
        kept: 3,
    };
    let (mut checkpoints, store) = bounded(&workspace, bounds);
    let first = checkpoints.keep().expect("keeps").expect("something");
    fs::write(top.join("large"), vec![b'x'; 20_000]).expect("file");
    assert_eq!(
        checkpoints.keep().expect_err("large").code,
        "checkpoint-too-large"
    );
    fs::remove_file(top.join("large")).expect("remove");
    // A file that claims more than there is on any disk.
    let sparse = fs::File::create(top.join("sparse")).expect("file");
    sparse.set_len(1 << 40).expect("sparse");
    assert_eq!(
        checkpoints.keep().expect_err("sparse").code,
        "checkpoint-too-large"
    );
    fs::remove_file(top.join("sparse")).expect("remove");
    for number in 0..30 {
        fs::write(top.join(format!("file-{number}")), "x").expect("file");
    }
    assert_eq!(
        checkpoints.keep().expect_err("many").code,
        "checkpoint-too-many"
    );
    for number in 0..30 {
        fs::remove_file(top.join(format!("file-{number}"))).expect("remove");
    }
    let mut deep = top.join("deep");
    for _ in 0..200 {
        fs::create_dir(&deep).expect("directory");
        deep = deep.join("d");
    }
    assert!(checkpoints.keep().is_err());
    fs::remove_dir_all(top.join("deep")).expect("remove");
    // The oldest go, the first stays, and so do no bytes of those that went.
    for number in 0..6 {
        fs::write(top.join("changing"), format!("{number}").repeat(1_000)).expect("file");
        checkpoints.keep().expect("keeps").expect("something");
    }
    let numbers: Vec<u64> = checkpoints
        .list()
        .iter()
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(numbers.len(), 3);
    assert_eq!(numbers[0], 1);
    let kept: u64 = fs::read_dir(store.path().join("objects"))
        .expect("objects")
        .flatten()
        .map(|entry| entry.metadata().expect("metadata").len())
        .sum();
    assert!(kept <= 2_001, "{kept}");
    checkpoints
        .wind_back(1, first.manifest)
        .expect("winds back");
    assert_eq!(fs::read_dir(top).expect("top").count(), 1);
}

#[test]
fn a_run_that_swaps_names_while_it_is_kept_gets_nothing_of_the_host() {
    let (workspace, outside) = (workspace(), workspace());
    bring_attempt(workspace.path());
    let secret = "the-host's-secret-in-one-piece";
    fs::write(outside.path().join("secret"), secret).expect("secret");
    let words = [
        "./attempt".to_owned(),
        "flip".to_owned(),
        format!("outside={}", outside.path().display()),
    ];
    let running = start(&spec(&workspace, words));
    eventually("it flips", || workspace.path().join("ready").exists());
    let (mut checkpoints, store) = of(&workspace);
    // Not frozen, so that the race is real.
    for _ in 0..300 {
        let _ = checkpoints.keep();
    }
    running.kill();
    for object in fs::read_dir(store.path().join("objects"))
        .expect("objects")
        .flatten()
    {
        let bytes = fs::read(object.path()).expect("object");
        assert!(!String::from_utf8_lossy(&bytes).contains(secret));
    }
}

#[test]
fn a_run_goes_on_in_a_workspace_that_was_wound_back() {
    let workspace = workspace();
    let top = workspace.path();
    let running = start(&shell(
        &workspace,
        "echo good > work; echo 1 > step
         while [ ! -e go ]; do sleep 0.01; done
         rm work; mkdir -p bad/deep; echo bad > bad/deep/file; echo 2 > step
         while [ -e bad ]; do sleep 0.01; done
         echo 3 > step; cat work; exit 7",
    ));
    let step = |wanted: &str| {
        let wanted = format!("{wanted}\n");
        eventually("the step", || {
            fs::read_to_string(top.join("step")).is_ok_and(|text| text == wanted)
        });
    };
    step("1");
    let started = running.processes_started().expect("counts");
    assert!(started >= 2, "{started}");
    let (mut checkpoints, _store) = of(&workspace);
    running.freeze().expect("freezes");
    let first = checkpoints.keep().expect("keeps").expect("something");
    let owner = fs::metadata(top.join("work")).expect("work").uid();
    running.thaw().expect("thaws");
    fs::write(top.join("go"), "").expect("go");
    step("2");
    running.freeze().expect("freezes");
    checkpoints
        .wind_back(1, first.manifest)
        .expect("winds back");
    assert!(top.join("work").exists() && !top.join("bad").exists());
    assert_eq!(fs::metadata(top.join("work")).expect("work").uid(), owner);
    running.thaw().expect("thaws");
    let outcome = running.wait().expect("outcome");
    assert_eq!(outcome.exit_code(), 7);
    assert_eq!(support::stdout(&outcome), "good\n");
    assert_eq!(
        fs::read_to_string(top.join("step")).expect("step"),
        "3\n",
        "the same processes went on"
    );
}
