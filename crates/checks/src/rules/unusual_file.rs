//! Files that are not what they seem, or that carry more than text.

use std::collections::BTreeMap;

use super::Rule;
use super::unusual_text::mixed_word;
use crate::analyse::{Level, Sink, Subject};
use crate::diff::{FileMode, Status};
use crate::path::{fold, is_ignorable};

pub(super) const RULES: &[&Rule] = &[
    &BINARY,
    &EXECUTABLE,
    &SYMLINK_OUTSIDE,
    &SUBMODULE,
    &ODD_PATH,
    &TWINS,
    &TYPE_CHANGED,
    &LFS_POINTER,
];

const CHECK: &str = "unusual-file";

/// A binary file that is no ordinary image or font is added or changed. Example: `tests/bad.xz`.
/// Reason: nobody can review it, and a build may use it (CVE-2024-3094).
static BINARY: Rule = Rule {
    id: "binary-added",
    check: CHECK,
    level: Level::Escalate,
    title: "A binary file that can not be reviewed is added or changed",
    next: "add the source it is made from, or have a person approve the exact file",
};

/// A file becomes executable. Example: `docs/notes` gets mode 755. Reason: it is one step from
/// data to program.
static EXECUTABLE: Rule = Rule {
    id: "executable-added",
    check: CHECK,
    level: Level::Escalate,
    title: "A file becomes executable",
    next: "clear the executable bit, or have a person approve the program",
};

/// A symbolic link leaves the tree or enters `.git`. Example: `config -> /etc/passwd`. Reason:
/// whoever reads or writes through it touches something else than the repository.
static SYMLINK_OUTSIDE: Rule = Rule {
    id: "symlink-outside",
    check: CHECK,
    level: Level::Escalate,
    title: "A symbolic link points out of the tree",
    next: "link to a path inside the repository, or take the link out of the change",
};

/// A submodule is added, moved to another commit or removed. Example: `vendor/lib` at a commit of
/// a fork. Reason: its content comes from elsewhere and is in no diff.
static SUBMODULE: Rule = Rule {
    id: "submodule-edit",
    check: CHECK,
    level: Level::Escalate,
    title: "A submodule is added, changed or removed",
    next: "have a person look at the exact commit of the submodule, or take it out of the change",
};

/// A path that some systems read otherwise. Example: `.git\u{200c}ignore`, `aux.txt`, `a\b`, a
/// name that ends in a dot or is not UTF-8. Reason: on another machine it is another file.
static ODD_PATH: Rule = Rule {
    id: "odd-path",
    check: CHECK,
    level: Level::Escalate,
    title: "A path has characters or names that some systems read otherwise",
    next: "use plain letters, digits, `-`, `_` and `.` in the path",
};

/// Two paths of the change are one file on some systems. Example: `Readme.md` and `README.md`.
/// Reason: the one that is checked out last wins.
static TWINS: Rule = Rule {
    id: "path-twins",
    check: CHECK,
    level: Level::Escalate,
    title: "Two added paths are the same file on some systems",
    next: "rename one of the two files",
};

/// An entry changes its kind. Example: the file `LICENSE` becomes a link. Reason: what reads it
/// follows the link.
static TYPE_CHANGED: Rule = Rule {
    id: "type-changed",
    check: CHECK,
    level: Level::Escalate,
    title: "A file becomes a link or submodule, or the other way round",
    next: "keep the kind of the entry, or have a person approve the exchange",
};

/// A file is a pointer to content elsewhere. Example: `model.bin` holds
/// `version https://git-lfs.github.com/spec/v1`. Reason: what is checked out is in no diff, no pack
/// and no tree, and whoever holds the other store decides what it is.
static LFS_POINTER: Rule = Rule {
    id: "lfs-pointer",
    check: CHECK,
    level: Level::Escalate,
    title: "A file points to content outside the repository",
    next: "add the content itself, or have a person approve the exact object",
};

/// How a pointer of Git LFS begins, in every version of its specification.
const LFS_BEGINS: &[&[u8]] = &[
    b"version https://git-lfs.github.com/spec/",
    b"version https://hawser.github.com/spec/",
];

pub(crate) fn check(files: &[Subject<'_>], sink: &mut Sink<'_>) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for subject in files {
        let file = subject.file;
        if file.status == Status::TypeChanged {
            let message = format!("{:?} becomes {:?}", file.old_mode, file.new_mode);
            sink.file(&TYPE_CHANGED, subject, None, message);
        }
        if file.old_mode == FileMode::Submodule || file.new_mode == FileMode::Submodule {
            let message = format!(
                "submodule {} becomes {}",
                file.old_oid.short(),
                file.new_oid.short()
            );
            sink.file(&SUBMODULE, subject, None, message);
        }
        if file.new_path.is_none() {
            continue;
        }
        binary(subject, sink);
        let first = file.added().find(|line| line.number == 1);
        if first.is_some_and(|line| {
            let begins = |start: &&[u8]| line.content.starts_with(start);
            LFS_BEGINS.iter().any(begins)
        }) {
            let message = "its content is in an LFS store, not in the change";
            sink.file(&LFS_POINTER, subject, None, message);
        }
        if file.new_mode == FileMode::Executable && file.old_mode != FileMode::Executable {
            sink.file(&EXECUTABLE, subject, None, "the executable bit is set");
        }
        if file.new_mode == FileMode::Symlink {
            symlink(subject, sink);
        }
        if matches!(
            file.status,
            Status::Added | Status::Renamed | Status::Copied
        ) {
            if let Some(why) = oddity(subject) {
                sink.file(&ODD_PATH, subject, None, why);
            }
            let shown = file.path().to_string();
            if let Some(other) = seen.insert(fold(&subject.path), shown.clone()) {
                sink.file(
                    &TWINS,
                    subject,
                    None,
                    format!("{shown} and {other} are one file on some systems"),
                );
            }
        }
    }
}

fn binary(subject: &Subject<'_>, sink: &mut Sink<'_>) {
    let file = subject.file;
    let reviewable = file.new_mode == FileMode::Submodule || file.new_mode == FileMode::Symlink;
    if file.binary && file.content_differs() && !reviewable && !is_picture_or_font(subject) {
        sink.file(
            &BINARY,
            subject,
            None,
            "this file is binary and can not be reviewed as text",
        );
    }
}

/// Whether the content begins as its extension promises, for formats that only show something.
fn is_picture_or_font(subject: &Subject<'_>) -> bool {
    let folded = fold(&subject.path);
    let extension = folded
        .rsplit_once('.')
        .map_or("", |(_, extension)| extension);
    let first = subject.file.added().find(|line| line.number == 1);
    let start = first
        .map(|line| line.content.as_slice())
        .unwrap_or_default();
    match extension {
        // The signature ends in a line feed, which is not part of the line.
        "png" => start.starts_with(b"\x89PNG\r"),
        "jpg" | "jpeg" => start.starts_with(b"\xff\xd8\xff"),
        "gif" => start.starts_with(b"GIF8"),
        "webp" => start.starts_with(b"RIFF"),
        "ico" => start.starts_with(b"\0\0\x01\0"),
        "woff" => start.starts_with(b"wOFF"),
        "woff2" => start.starts_with(b"wOF2"),
        _ => false,
    }
}

fn symlink(subject: &Subject<'_>, sink: &mut Sink<'_>) {
    let target: Vec<u8> = subject
        .file
        .added()
        .map(|line| line.content.as_slice())
        .collect::<Vec<_>>()
        .join(&b'\n');
    let target = String::from_utf8_lossy(&target);
    if let Some(why) = leaves_tree(&subject.path, &target) {
        sink.file(
            &SYMLINK_OUTSIDE,
            subject,
            None,
            format!("the link to `{target}` {why}"),
        );
    }
}

/// Why a link at `path` to `target` leaves the repository, as far as names tell.
fn leaves_tree(path: &str, target: &str) -> Option<&'static str> {
    if target.starts_with(['/', '\\', '~']) || target.contains(':') {
        return Some("is absolute");
    }
    let mut depth = path.split('/').count().saturating_sub(1);
    for part in target.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return Some("climbs out of the repository"),
            },
            part if fold(part) == ".git" => return Some("enters git's own directory"),
            _ => depth += 1,
        }
    }
    None
}

/// What is odd about a new path, if anything.
fn oddity(subject: &Subject<'_>) -> Option<String> {
    let path = subject.file.path();
    let Some(text) = path.as_str() else {
        return Some("the path is not UTF-8".into());
    };
    if let Some(c) = text.chars().find(|c| is_ignorable(*c)) {
        return Some(format!(
            "the path holds U+{:04X}, which can not be seen",
            u32::from(c)
        ));
    }
    if mixed_word(text).is_some() {
        return Some("a word of the path mixes scripts that look alike".into());
    }
    text.split('/').find_map(odd_part)
}

fn odd_part(part: &str) -> Option<String> {
    let folded = fold(part);
    let stem = folded.split('.').next().unwrap_or_default();
    let numbered = stem
        .strip_prefix("com")
        .or_else(|| stem.strip_prefix("lpt"));
    let device = matches!(stem, "con" | "prn" | "aux" | "nul" | "conin$" | "conout$")
        || numbered.is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|b| b.is_ascii_digit()));
    let short = part.split_once('~').is_some_and(|(stem, rest)| {
        stem.len() <= 6 && rest.starts_with(|c: char| c.is_ascii_digit())
    });
    if part.ends_with(['.', ' ']) || part.starts_with(' ') {
        Some(format!(
            "`{part}` begins or ends with a character that some systems drop"
        ))
    } else if part.contains(['\\', ':', '*', '?', '"', '<', '>', '|']) {
        Some(format!(
            "`{part}` has a character that some systems read otherwise"
        ))
    } else if device {
        Some(format!("`{part}` is the name of a device on Windows"))
    } else if short {
        Some(format!(
            "`{part}` looks like a short name, which may stand for another file"
        ))
    } else if folded == ".git" || part == ".." || part == "." {
        Some(format!("`{part}` is reserved"))
    } else {
        None
    }
}
