use std::io::Write as _;

use portcullis_model::{Digest, ReleaseId};
use tempfile::TempDir;

use super::*;

/// One entry of a test's archive, written raw so that it can say what no honest tool writes.
enum Entry<'a> {
    File(&'a str, u32, &'a [u8]),
    Folder(&'a str),
    Link(&'a str, &'a str),
    HardLink(&'a str, &'a str),
    Device(&'a str),
}

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let (name, kind, mode, link, body): (&str, u8, u32, &str, &[u8]) = match entry {
            Entry::File(name, mode, body) => (name, b'0', *mode, "", body),
            Entry::Folder(name) => (name, b'5', 0o755, "", b""),
            Entry::Link(name, to) => (name, b'2', 0o777, to, b""),
            Entry::HardLink(name, to) => (name, b'1', 0o644, to, b""),
            Entry::Device(name) => (name, b'3', 0o666, "", b""),
        };
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        // Longer names have their front in a field of its own.
        let (front, name) = if name.len() > 100 {
            name.split_at(100)
        } else {
            ("", name)
        };
        put(0, name.as_bytes());
        put(345, front.trim_end_matches('/').as_bytes());
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", body.len()).as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1_024, 0);
    bytes
}

fn spec(directory: &TempDir, name: &str, bytes: &[u8]) -> TargetSpec {
    let root = directory.path();
    let artifact = root.join("artifact");
    fs::File::create(&artifact)
        .unwrap()
        .write_all(bytes)
        .unwrap();
    TargetSpec {
        release: ReleaseId(3),
        artifact,
        name: name.to_owned(),
        digest: Digest::of(bytes),
        workspace: root.join("workspace"),
        service_socket: root.join("s"),
        service_port: 8080,
        control_socket: root.join("c"),
        lock: root.join("lock"),
        service_log: root.join("service.log"),
        supervisor_log: root.join("supervisor.log"),
        user: None,
    }
}

#[test]
fn one_file_is_executable_and_alone_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let spec = spec(&directory, "service", b"#!/bin/sh\n");
    assert_eq!(workspace(&spec).unwrap(), ["/workspace/service"]);
    let file = spec.workspace.join("service");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o755
    );
    // What a service left behind or did to itself is gone at the next start.
    fs::write(spec.workspace.join("left"), "x").unwrap();
    fs::write(&file, "altered").unwrap();
    workspace(&spec).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::read_dir(&spec.workspace).unwrap().count(), 1);
}

#[test]
fn an_archive_is_unpacked_with_modes_and_inner_links() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = archive(&[
        Entry::File("./run", 0o755, b"go"),
        Entry::Folder("lib/"),
        Entry::File("lib/deep/data", 0o600, b"data"),
        Entry::Link("lib/run", "../run"),
    ]);
    let spec = spec(&directory, "service.tar", &bytes);
    assert_eq!(workspace(&spec).unwrap(), ["./run"]);
    let root = &spec.workspace;
    assert_eq!(
        fs::metadata(root.join("run")).unwrap().permissions().mode() & 0o777,
        0o755
    );
    assert_eq!(
        fs::metadata(root.join("lib/deep/data"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o644
    );
    assert_eq!(fs::read(root.join("lib/run")).unwrap(), b"go");
}

#[test]
fn nothing_gets_out_of_the_workspace() {
    let run = || Entry::File("run", 0o755, b"go");
    let attacks = [
        (
            "parent",
            vec![run(), Entry::File("../escaped", 0o644, b"x")],
        ),
        (
            "parent inside",
            vec![run(), Entry::File("a/../../escaped", 0o644, b"x")],
        ),
        (
            "absolute",
            vec![run(), Entry::File("/tmp/escaped", 0o644, b"x")],
        ),
        ("link out", vec![run(), Entry::Link("out", "../..")]),
        ("link to root", vec![run(), Entry::Link("out", "/etc")]),
        (
            "link out from a folder",
            vec![run(), Entry::Link("a/out", "../../x")],
        ),
        (
            "through a link",
            vec![
                run(),
                Entry::Link("a", "."),
                Entry::File("a/x", 0o644, b"x"),
            ],
        ),
        (
            "over a link",
            vec![
                run(),
                Entry::Link("x", "run"),
                Entry::File("x", 0o644, b"x"),
            ],
        ),
        ("twice", vec![run(), run()]),
        (
            "hard link",
            vec![run(), Entry::HardLink("x", "/etc/passwd")],
        ),
        ("device", vec![run(), Entry::Device("null")]),
        ("no run", vec![Entry::File("other", 0o755, b"x")]),
        (
            "run is a link",
            vec![
                Entry::File("other", 0o755, b"go"),
                Entry::Link("run", "other"),
            ],
        ),
        (
            "folder over a file",
            vec![run(), Entry::File("run/x", 0o644, b"x")],
        ),
    ];
    for (what, entries) in attacks {
        let directory = tempfile::tempdir().unwrap();
        let spec = spec(&directory, "service.tar", &archive(&entries));
        assert!(workspace(&spec).is_err(), "{what}");
        assert!(!directory.path().join("escaped").exists(), "{what}");
        assert_eq!(
            fs::read(spec.workspace.join("run")).unwrap_or(b"go".to_vec()),
            b"go",
            "{what}"
        );
    }
    assert!(!Path::new("/tmp/escaped").exists());
}

#[test]
fn archives_that_are_too_large_deep_or_broken_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let deep = format!("{}x", "a/".repeat(DEPTH_MAX));
    for bytes in [
        archive(&[
            Entry::File("run", 0o755, b"go"),
            Entry::File(&deep, 0o644, b"x"),
        ]),
        b"not an archive at all, whatever its name says".repeat(20),
        archive(&[Entry::File("run", 0o755, b"go")])[..513].to_vec(),
    ] {
        let spec = spec(&directory, "service.tar", &bytes);
        assert!(workspace(&spec).is_err());
    }
    // The size that a header claims is refused before anything of it is written.
    let mut huge = archive(&[Entry::File("run", 0o755, b"go")]);
    huge[124..135].copy_from_slice(b"77777777777");
    huge[148..156].copy_from_slice(b"        ");
    let sum: u32 = huge[..512].iter().map(|byte| u32::from(*byte)).sum();
    huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let spec = spec(&directory, "service.tar", &huge);
    assert!(
        workspace(&spec)
            .unwrap_err()
            .to_string()
            .contains("unpacked")
    );
}
