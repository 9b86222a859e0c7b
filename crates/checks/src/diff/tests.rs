use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// A throw-away repository driven by the real git.
pub(crate) struct Repository(pub(crate) tempfile::TempDir);

impl Repository {
    pub(crate) fn new() -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        repository.git(&["init", "-q"]);
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("git")
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("HOME", "/nonexistent")])
            .args(["-c", "user.name=t", "-c", "user.email=t@localhost"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "x"]);
        String::from_utf8(self.git(&["rev-parse", "HEAD"]))
            .unwrap()
            .trim()
            .to_owned()
    }

    pub(crate) fn raw(&self, base: &str, head: &str) -> Vec<u8> {
        self.git(&[DIFF_ARGUMENTS, &[base, head, "--"]].concat())
    }

    pub(crate) fn diff(&self, base: &str, head: &str) -> Diff {
        parse(&self.raw(base, head)).unwrap()
    }
}

fn lines(lines: &[Line]) -> Vec<(u32, &[u8], bool)> {
    lines
        .iter()
        .map(|line| (line.number, line.content.as_slice(), line.newline))
        .collect()
}

/// Base and head with every kind of difference, and the file named by its path.
fn odd_repository() -> (Repository, String, String) {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    let r = Repository::new();
    r.write("a.txt", "one\ntwo\nthree\n");
    r.write("bin", b"x\0y");
    r.write("gone", "gone\n");
    r.write("kind", "text\n");
    r.write("mode", "same\n");
    r.write("hidden.rs", "fn a() {}\n");
    symlink("a.txt", r.path().join("link")).unwrap();
    let base = r.commit();
    r.write(".gitattributes", "*.rs -diff\n*.txt binary\n");
    r.write("a.txt", "one\r\nTWO\nthree");
    r.write("bin", b"x\0z");
    std::fs::remove_file(r.path().join("gone")).unwrap();
    std::fs::remove_file(r.path().join("kind")).unwrap();
    std::fs::remove_file(r.path().join("link")).unwrap();
    symlink("/etc/passwd", r.path().join("kind")).unwrap();
    symlink("../../etc", r.path().join("link")).unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(r.path().join("mode"), mode).unwrap();
    r.write("hidden.rs", "fn a() {}\nfn b() {}\n");
    r.write("empty", "");
    r.write(
        "fake b/x",
        "-- a/other\n++ b/other\n@@ -1 +1 @@\ndiff --git a/q b/q\n\\ No newline\n",
    );
    r.write("we\"ird\tn\nl", "q\n");
    let raw = std::ffi::OsStr::from_bytes(b"lat\xff");
    std::fs::write(r.path().join(raw), b"caf\xe9\n").unwrap();
    r.git(&["add", "-A"]);
    r.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{base},sub"),
    ]);
    r.git(&["commit", "-q", "-m", "x"]);
    let head = String::from_utf8(r.git(&["rev-parse", "HEAD"]))
        .unwrap()
        .trim()
        .to_owned();
    (r, base, head)
}

fn file<'a>(diff: &'a Diff, path: &[u8]) -> &'a FileChange {
    diff.files
        .iter()
        .find(|file| file.path().as_bytes() == path)
        .unwrap()
}

#[test]
fn every_kind_of_difference_is_read_exactly() {
    let (r, base, head) = odd_repository();
    let diff = r.diff(&base, &head);
    assert_eq!(diff.files.len(), 13, "{diff:#?}");

    let a = file(&diff, b"a.txt");
    assert_eq!((a.status, a.binary), (Status::Modified, false));
    assert_eq!(
        lines(&a.hunks[0].added),
        [
            (1, &b"one\r"[..], true),
            (2, b"TWO", true),
            (3, b"three", false)
        ]
    );
    assert_eq!(lines(&a.hunks[0].removed).len(), 3);
    assert_eq!(a.added().next().unwrap().text(), "one");

    assert!(file(&diff, b"bin").binary);
    let gone = file(&diff, b"gone");
    assert_eq!(
        (gone.status, gone.new_path.clone()),
        (Status::Deleted, None)
    );
    assert_eq!(lines(&gone.hunks[0].removed), [(1, &b"gone"[..], true)]);

    let kind = file(&diff, b"kind");
    assert_eq!(kind.status, Status::TypeChanged);
    assert_eq!(
        (kind.old_mode, kind.new_mode),
        (FileMode::Regular, FileMode::Symlink)
    );
    assert_eq!(kind.added().next().unwrap().content, b"/etc/passwd");
    assert_eq!(kind.removed().next().unwrap().content, b"text");

    let mode = file(&diff, b"mode");
    assert_eq!(
        (mode.old_mode, mode.new_mode),
        (FileMode::Regular, FileMode::Executable)
    );
    assert!(mode.hunks.is_empty() && !mode.content_differs());

    assert_eq!(
        file(&diff, b"link").added().next().unwrap().content,
        b"../../etc"
    );
    assert_eq!(file(&diff, b"sub").new_mode, FileMode::Submodule);
    assert!(file(&diff, b"empty").hunks.is_empty());
    assert_eq!(
        file(&diff, b"we\"ird\tn\nl")
            .added()
            .next()
            .unwrap()
            .content,
        b"q"
    );
    let latin = file(&diff, b"lat\xff");
    assert_eq!(latin.path().as_str(), None);
    assert_eq!(latin.path().to_string(), "lat\\xff");
    assert_eq!(latin.added().next().unwrap().content, b"caf\xe9");
}

#[test]
fn content_can_not_pose_as_a_header() {
    let (r, base, head) = odd_repository();
    let diff = r.diff(&base, &head);
    let fake = file(&diff, b"fake b/x");
    let added: Vec<_> = fake.added().map(|line| line.text().into_owned()).collect();
    assert_eq!(
        added,
        [
            "-- a/other",
            "++ b/other",
            "@@ -1 +1 @@",
            "diff --git a/q b/q",
            "\\ No newline"
        ]
    );
}

/// The change itself adds attributes that tell git to show nothing.
#[test]
fn attributes_hide_nothing() {
    let (r, base, head) = odd_repository();
    let diff = r.diff(&base, &head);
    assert_eq!(
        file(&diff, b"hidden.rs").added().next().unwrap().content,
        b"fn b() {}"
    );
    assert_eq!(file(&diff, b"a.txt").added().count(), 3);
}

#[test]
fn configuration_changes_nothing() {
    let (r, base, head) = odd_repository();
    let plain = r.raw(&base, &head);
    for (key, value) in [
        ("diff.noprefix", "true"),
        ("diff.mnemonicPrefix", "true"),
        ("diff.renames", "copies"),
        ("diff.interHunkContext", "5"),
        ("diff.context", "7"),
        ("diff.algorithm", "patience"),
        ("diff.submodule", "log"),
        ("diff.ignoreSubmodules", "all"),
        ("diff.relative", "true"),
        ("color.ui", "always"),
        ("core.quotePath", "false"),
        ("diff.external", "/bin/false"),
        ("diff.suppressBlankEmpty", "true"),
    ] {
        r.git(&["config", key, value]);
    }
    let configured = parse(&r.raw(&base, &head)).unwrap();
    assert_eq!(configured, parse(&plain).unwrap());
}

#[test]
fn nothing_changed_is_an_empty_diff() {
    let r = Repository::new();
    r.write("a", "a\n");
    let base = r.commit();
    assert_eq!(r.diff(&base, &base), Diff::default());
    assert_eq!(parse(b"").unwrap(), Diff::default());
}

#[test]
fn renames_of_other_callers_are_read() {
    let r = Repository::new();
    r.write("old", "a\nb\nc\nd\ne\nf\n");
    let base = r.commit();
    r.git(&["mv", "old", "new"]);
    r.write("new", "a\nb\nc\nd\ne\nX\n");
    let head = r.commit();
    let raw = r.git(&[
        "diff-tree",
        "-r",
        "-z",
        "--raw",
        "-p",
        "-U0",
        "--full-index",
        "-M",
        &base,
        &head,
    ]);
    let diff = parse(&raw).unwrap();
    assert_eq!(diff.files[0].status, Status::Renamed);
    assert_eq!(diff.files[0].paths().count(), 2);
    assert_eq!(diff.line_count(), 2);
}

#[test]
fn what_is_cut_or_forged_is_refused() {
    let (r, base, head) = odd_repository();
    let raw = r.raw(&base, &head);
    for cut in 1..raw.len() {
        // A cut may only be accepted where a whole patch ends and nothing of the raw half lacks;
        // that is the end alone, or before a last section without hunks.
        if let Ok(diff) = parse(&raw[..cut]) {
            assert_eq!(diff.files.len(), 13);
            assert_eq!(raw[cut - 1], b'\n');
        }
    }
    for (from, to) in [
        (&b"diff --git"[..], &b"diff --got"[..]),
        (b"+++ ", b"$$$ "),
        (b"@@ -1,3", b"@@ -1,4"),
    ] {
        let at = raw
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        let mut forged = raw.clone();
        forged[at..at + to.len()].copy_from_slice(to);
        assert!(parse(&forged).is_err(), "{}", String::from_utf8_lossy(to));
    }
    let other = raw
        .windows(6)
        .position(|window| window == b"index ")
        .unwrap();
    let mut forged = raw.clone();
    forged[other + 6] = if forged[other + 6] == b'0' {
        b'1'
    } else {
        b'0'
    };
    let refusal = parse(&forged).unwrap_err();
    assert_eq!(refusal.code, "malformed-diff");
    assert_eq!(
        refusal.expected.as_deref(),
        Some("the object ids of the raw half")
    );
    assert!(parse(&[raw.as_slice(), b"x"].concat()).is_err());
}

#[test]
fn too_much_is_refused_by_name() {
    let refusal = parse(&vec![b'x'; DIFF_MAX_BYTES + 1]).unwrap_err();
    assert_eq!(refusal.code, "diff-too-large");
    let oid = "1".repeat(40);
    let zero = "0".repeat(40);
    let record = format!(":000000 100644 {zero} {oid} A\0p\0");
    let refusal = parse(record.repeat(DIFF_MAX_FILES + 1).as_bytes()).unwrap_err();
    assert_eq!(refusal.code, "diff-too-large");
    let long = format!(
        ":000000 100644 {zero} {oid} A\0{}\0",
        "p".repeat(PATH_MAX_BYTES + 1)
    );
    assert!(parse(long.as_bytes()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let mut framed = b":000000 100644 ".to_vec();
        framed.extend(bytes);
        let _ = parse(&framed);
    }

    #[test]
    fn mutated_output_never_panics(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        static RAW: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let (r, base, head) = odd_repository();
            r.raw(&base, &head)
        });
        let mut raw = RAW.clone();
        for (at, byte) in flips {
            let at = at.index(raw.len());
            raw[at] = byte;
        }
        let _ = parse(&raw);
    }

}

proptest! {
    // Each case runs git seven times.
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What git says of two random texts is what the parser gives: applied, it makes the second.
    #[test]
    fn hunks_rebuild_the_new_file(
        old in proptest::collection::vec("[ab@+\\\\ -]{0,3}", 0..8),
        new in proptest::collection::vec("[ab@+\\\\ -]{0,3}", 0..8),
    ) {
        let r = Repository::new();
        let (old, new) = (old.join("\n"), new.join("\n"));
        r.write("f", &old);
        let base = r.commit();
        r.write("f", &new);
        let head = r.commit();
        let diff = r.diff(&base, &head);
        let mut lines: Vec<Vec<u8>> = split(old.as_bytes());
        for hunk in diff.files.iter().flat_map(|file| file.hunks.iter().rev()) {
            let start = hunk.removed.first().map(|line| line.number as usize - 1);
            let added = hunk.added.iter().map(|line| {
                let mut bytes = line.content.clone();
                if line.newline { bytes.push(b'\n'); }
                bytes
            });
            match start {
                Some(start) => { lines.splice(start..start + hunk.removed.len(), added); }
                None => {
                    // Nothing removed: the place follows from the lines before it.
                    let first = hunk.added[0].number as usize - 1;
                    let shift: isize = diff.files[0].hunks.iter()
                        .take_while(|other| *other != hunk)
                        .map(|other| other.added.len() as isize - other.removed.len() as isize)
                        .sum();
                    let at = usize::try_from(first as isize - shift).unwrap();
                    lines.splice(at..at, added);
                }
            }
        }
        prop_assert_eq!(lines.concat(), new.as_bytes());
    }
}

fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}
