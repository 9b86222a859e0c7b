use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// One entry as bytes, with a correct checksum.
fn entry(kind: u8, path: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8], most: usize| {
        let bytes = &bytes[..bytes.len().min(most)];
        header[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, path, 100);
    put(100, b"0000755\0", 8);
    put(124, format!("{:011o}\0", content.len()).as_bytes(), 12);
    put(148, b"        ", 8);
    put(156, &[kind], 1);
    put(157, link, 100);
    put(257, b"ustar\x0000", 8);
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().div_ceil(BLOCK) * BLOCK, 0);
    bytes
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.extend_from_slice(&[0; 2 * BLOCK]);
    bytes
}

fn file(path: &str) -> Vec<u8> {
    entry(b'0', path.as_bytes(), b"", b"x")
}

fn link(path: &str, target: &str) -> Vec<u8> {
    entry(b'2', path.as_bytes(), target.as_bytes(), b"")
}

fn code(entries: &[Vec<u8>]) -> String {
    match read(&archive(entries), Limits::default()) {
        Ok(tree) => format!("{} entries", tree.len()),
        Err(refusal) => refusal.code,
    }
}

#[test]
fn what_tar_and_git_write_is_read() {
    let source = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    fs::create_dir_all(source.path().join("d".repeat(120))).unwrap();
    fs::create_dir(source.path().join("empty")).unwrap();
    fs::write(source.path().join(&long), "long").unwrap();
    fs::write(source.path().join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(
        source.path().join("run.sh"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    symlink(&long, source.path().join("link")).unwrap();
    for format in ["gnu", "pax"] {
        let made = Command::new("tar")
            .args(["--format", format, "-cf", "-", "-C"])
            .arg(source.path())
            .arg(".")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{format}");
        let target = tempfile::tempdir().unwrap();
        let count = unpack(&made.stdout, target.path(), None, Limits::default()).unwrap();
        assert_eq!(count, 5, "{format}");
        assert_eq!(fs::read(target.path().join("link")).unwrap(), b"long");
        let mode = |name: &str| {
            fs::metadata(target.path().join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        assert_eq!(mode("run.sh") & 0o777, 0o755);
        assert_eq!(mode(&long) & 0o777, 0o644);
        assert!(target.path().join("empty").is_dir());
    }
}

#[test]
fn nothing_leads_out_of_the_tree() {
    let hostile = "hostile-source-archive";
    for entries in [
        vec![file("../x")],
        vec![file("/etc/x")],
        vec![file("a/../../x")],
        vec![file("a/./x")],
        vec![file("a//x")],
        vec![file("x/")],
        vec![file("")],
        vec![link("l", "/etc/passwd")],
        vec![link("l", "../x")],
        vec![link("a/l", "../../x")],
        vec![link("l", "a/../../x")],
        vec![link("l", "")],
        // A link that is stepped through, before and after.
        vec![link("l", "a"), file("l/x")],
        vec![file("l/x"), link("l", "a")],
        // `l/..` is above the tree, though it does not look like it.
        vec![link("l", "."), link("m", "l/../x")],
        vec![file("a"), file("a")],
        vec![file("a"), file("a/b")],
        vec![entry(b'1', b"hard", b"/etc/shadow", b"")],
        vec![entry(b'3', b"device", b"", b"")],
        vec![entry(b'6', b"pipe", b"", b"")],
    ] {
        assert_eq!(
            code(&entries),
            hostile,
            "{:?}",
            String::from_utf8_lossy(&entries.concat())
        );
    }
    // The same shapes where they stay inside.
    let good = [
        entry(b'5', b"./", b"", b""),
        link("l", "a/b"),
        link("a/m", "../c"),
        link("a/b/n", "../../l/./x"),
        file("./a/b/x"),
    ];
    assert_eq!(code(&good), "6 entries");
}

#[test]
fn names_in_extensions_are_judged_like_others() {
    let pax = |records: &[u8]| entry(b'x', b"pax", b"", records);
    assert_eq!(
        code(&[pax(b"13 path=../x\n"), file("good")]),
        "hostile-source-archive"
    );
    assert_eq!(
        code(&[entry(b'L', b"long", b"", b"/etc/x\0"), file("good")]),
        "hostile-source-archive"
    );
    let long_link = entry(b'K', b"long", b"", b"/etc/x\0");
    assert_eq!(
        code(&[long_link, link("good", "x")]),
        "hostile-source-archive"
    );
    for records in [
        &b"999 path=x\n"[..],
        b"13 path=x\n",
        b"path=x\n",
        b"0 \n",
        b"+9 path=x\n",
        b"9 pathxxx\n",
        b"20 GNU.sparse.major=1\n",
        b"10 size=-1\n",
    ] {
        let refused = code(&[pax(records), file("good")]);
        assert_eq!(
            refused,
            "malformed-source-archive",
            "{:?}",
            String::from_utf8_lossy(records)
        );
    }
    assert_eq!(
        code(&[entry(b'g', b"pax", b"", b"9 path=x\n"), file("a")]),
        "malformed-source-archive"
    );
    assert_eq!(
        code(&[entry(b'g', b"pax", b"", b"13 comment=x\n"), file("a")]),
        "1 entries"
    );
}

#[test]
fn archives_that_are_cut_padded_or_too_large_are_refused() {
    let whole = archive(&[file("a"), file("b")]);
    for cut in [0, 100, BLOCK, BLOCK + 1, whole.len() - 2 * BLOCK] {
        assert!(read(&whole[..cut], Limits::default()).is_err(), "{cut}");
    }
    let mut after = whole.clone();
    after.extend_from_slice(&file("c"));
    assert!(read(&after, Limits::default()).is_err());
    let mut changed = whole.clone();
    changed[0] = b'z';
    assert!(
        read(&changed, Limits::default()).is_err(),
        "the checksum must be looked at"
    );
    let few = Limits {
        entries: 1,
        bytes: 100,
    };
    assert_eq!(
        read(&whole, few).unwrap_err().code,
        "source-archive-too-large"
    );
    let small = Limits {
        entries: 10,
        bytes: 1,
    };
    assert_eq!(
        read(&whole, small).unwrap_err().code,
        "source-archive-too-large"
    );
    let deep = "d/".repeat(DEPTH_MAX) + "x";
    let long = entry(b'L', b"long", b"", deep.as_bytes());
    assert_eq!(code(&[long, file("x")]), "hostile-source-archive");
}

#[test]
fn a_refused_archive_leaves_nothing() {
    let target = tempfile::tempdir().unwrap();
    let bytes = archive(&[file("good"), file("../bad")]);
    assert!(unpack(&bytes, target.path(), None, Limits::default()).is_err());
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
}

/// Few names, so that entries meet each other.
fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[abl]",
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new())
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

fn any_entry() -> impl Strategy<Value = Vec<u8>> {
    (
        prop::sample::select(b"0522211gxLK".to_vec()),
        name(),
        name(),
    )
        .prop_map(|(kind, path, target)| {
            let content = if matches!(kind, b'0' | b'L' | b'K') {
                target.as_bytes()
            } else {
                b""
            };
            entry(kind, path.as_bytes(), target.as_bytes(), content)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is accepted lies below the directory, and so does all that its links lead to.
    #[test]
    fn every_accepted_archive_stays_inside(entries in prop::collection::vec(any_entry(), 1..8)) {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("x"), "outside").unwrap();
        for name in ["a", "b", "l"] {
            fs::create_dir(outer.path().join(name)).unwrap();
        }
        let into = outer.path().join("tree");
        fs::create_dir(&into).unwrap();
        if unpack(&archive(&entries), &into, None, Limits::default()).is_ok() {
            let root = into.canonicalize().unwrap();
            let mut waiting = vec![into.clone()];
            while let Some(folder) = waiting.pop() {
                for found in fs::read_dir(folder).unwrap() {
                    let path = found.unwrap().path();
                    if let Ok(real) = path.canonicalize() {
                        prop_assert!(real.starts_with(&root), "{path:?} leads to {real:?}");
                    }
                    if fs::symlink_metadata(&path).unwrap().is_dir() {
                        waiting.push(path);
                    }
                }
            }
        }
        // Beside the tree all is as it was.
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 5);
        prop_assert_eq!(fs::read(outer.path().join("x")).unwrap(), b"outside");
        for name in ["a", "b", "l"] {
            prop_assert_eq!(fs::read_dir(outer.path().join(name)).unwrap().count(), 0);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&bytes, Limits::default());
    }

    /// One changed byte of a good archive never makes it write elsewhere or panic.
    #[test]
    fn a_changed_byte_is_read_or_refused(at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = archive(&[file("a/b"), link("l", "a"), file("c")]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read(&bytes, Limits::default());
    }
}
