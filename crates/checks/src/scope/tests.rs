use super::*;
use crate::diff::{Hunk, Line};

/// A change of one path, with `lines` added lines.
fn change(path: &str, status: Status, lines: u32) -> FileChange {
    let oid = |name: &str| -> GitOid {
        portcullis_model::Digest::of(name.as_bytes()).hex()[..40]
            .parse()
            .unwrap()
    };
    let (old, new) = match status {
        Status::Added => (None, Some(path)),
        Status::Deleted => (Some(path), None),
        _ => (Some(path), Some(path)),
    };
    let mode = |side: Option<&str>| {
        if side.is_some() {
            FileMode::Regular
        } else {
            FileMode::Absent
        }
    };
    FileChange {
        old_path: old.map(GitPath::new),
        new_path: new.map(GitPath::new),
        status,
        old_mode: mode(old),
        new_mode: mode(new),
        old_oid: old.map_or_else(GitOid::zero, |path| oid(&format!("old {path}"))),
        new_oid: new.map_or_else(GitOid::zero, |path| oid(&format!("new {path}"))),
        binary: false,
        hunks: vec![Hunk {
            removed: Vec::new(),
            added: (1..=lines)
                .map(|number| Line {
                    number,
                    content: b"x".to_vec(),
                    newline: true,
                })
                .collect(),
        }],
    }
}

fn scope(allow: &[&str], deny: &[&str]) -> Scope {
    let own = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    Scope {
        deny: own(deny),
        ..Scope::over(&own(allow))
    }
}

fn found(files: Vec<FileChange>, scope: &Scope) -> Vec<Violation> {
    violations(&Diff { files }, scope).unwrap()
}

fn verdict(scope: &Scope, path: &str) -> PathVerdict {
    Matcher::new(scope).unwrap().path(&GitPath::new(path))
}

#[test]
fn patterns_stay_within_directories() {
    let s = scope(&["src/*.rs", "docs/**"], &["docs/secret/**"]);
    assert_eq!(verdict(&s, "src/a.rs"), PathVerdict::Inside);
    assert_eq!(verdict(&s, "docs/a/b/c.md"), PathVerdict::Inside);
    for outside in [
        "src/a/b.rs",
        "src",
        "docs",
        "asrc/a.rs",
        "x/docs/a",
        "docs2/a",
        "",
    ] {
        assert_eq!(
            verdict(&s, outside),
            PathVerdict::Outside { twin: false },
            "{outside}"
        );
    }
    assert_eq!(
        verdict(&s, "docs/secret/a"),
        PathVerdict::Denied {
            pattern: "docs/secret/**".into()
        }
    );
}

#[test]
fn twins_gain_nothing_and_lose_everything() {
    let s = scope(&["src/**", "web/**"], &["src/Auth/**"]);
    for twin in [
        "SRC/a.rs",
        "src./a.rs",
        "s\u{200b}rc/a.rs",
        "\u{ff53}rc/a.rs",
    ] {
        assert_eq!(
            verdict(&s, twin),
            PathVerdict::Outside { twin: true },
            "{twin:?}"
        );
    }
    for denied in [
        "src/Auth/a",
        "src/auth/a",
        "SRC/AUTH/a",
        "src/auth /a",
        "src/a\u{fe0f}uth/a",
        "src\\auth\\a",
    ] {
        assert!(
            matches!(verdict(&s, denied), PathVerdict::Denied { .. }),
            "{denied:?}"
        );
    }
}

#[test]
fn an_empty_scope_allows_nothing() {
    let s = scope(&[], &[]);
    assert_eq!(found(vec![change("a", Status::Modified, 1)], &s).len(), 1);
}

#[test]
fn bad_patterns_are_refused() {
    assert_eq!(
        Matcher::new(&scope(&["a["], &[])).err().unwrap().code,
        "malformed-path-pattern"
    );
}

#[test]
fn bounds_count_files_and_lines() {
    let s = Scope {
        max_files: 2,
        max_lines: 10,
        ..scope(&["**"], &[])
    };
    let files = |count: u32, lines| {
        (0..count)
            .map(|at| change(&format!("f{at}"), Status::Modified, lines))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(files(2, 5), &s), []);
    assert_eq!(
        found(files(3, 1), &s),
        [Violation::TooManyFiles { files: 3, max: 2 }]
    );
    assert_eq!(
        found(files(2, 6), &s),
        [Violation::TooManyLines { lines: 12, max: 10 }]
    );
}

#[test]
fn operations_need_to_be_allowed() {
    let only = |operations: &[Operation]| Scope {
        operations: operations.iter().copied().collect(),
        ..scope(&["**"], &[])
    };
    let denied = |file: FileChange, operation| {
        let path = file.path().clone();
        assert_eq!(
            found(vec![file], &only(&[])).last(),
            Some(&Violation::Operation { path, operation })
        );
    };
    denied(change("a", Status::Added, 1), Operation::Add);
    denied(change("a", Status::Modified, 1), Operation::Modify);
    denied(change("a", Status::Deleted, 0), Operation::Delete);
    let mut mode = change("a", Status::Modified, 0);
    mode.new_oid = mode.old_oid.clone();
    mode.new_mode = FileMode::Executable;
    denied(mode, Operation::Mode);
    let mut executable = change("a", Status::Added, 1);
    executable.new_mode = FileMode::Executable;
    assert_eq!(found(vec![executable], &only(&[Operation::Add])).len(), 1);
    let mut link = change("a", Status::Added, 1);
    link.new_mode = FileMode::Symlink;
    assert_eq!(found(vec![link.clone()], &only(&[Operation::Add])).len(), 1);
    assert_eq!(
        found(vec![link], &only(&[Operation::Add, Operation::Symlink])),
        []
    );
    let mut module = change("a", Status::Modified, 1);
    module.new_mode = FileMode::Submodule;
    module.old_mode = FileMode::Submodule;
    denied(module, Operation::Submodule);
}

#[test]
fn a_move_is_a_rename_and_both_ends_are_judged() {
    let mut gone = change("src/a", Status::Deleted, 0);
    let mut came = change("src/b", Status::Added, 0);
    came.new_oid = gone.old_oid.clone();
    let renames = Scope {
        operations: [Operation::Rename].into(),
        ..scope(&["src/**"], &[])
    };
    assert_eq!(found(vec![gone.clone(), came.clone()], &renames), []);
    let modifies = Scope {
        operations: [Operation::Modify].into(),
        ..renames.clone()
    };
    assert_eq!(found(vec![gone.clone(), came.clone()], &modifies).len(), 2);
    // A deletion with no partner is none.
    assert_eq!(found(vec![gone.clone()], &renames).len(), 1);
    gone.old_path = Some(GitPath::new("lib/a"));
    assert_eq!(
        found(vec![gone, came], &renames),
        [Violation::Outside {
            path: GitPath::new("lib/a"),
            twin: false
        }]
    );
}

#[test]
fn names_that_are_not_text_are_matched_by_bytes() {
    let s = scope(&["src/*"], &["src/*.key"]);
    let matcher = Matcher::new(&s).unwrap();
    assert_eq!(
        matcher.path(&GitPath::new(*b"src/\xff")),
        PathVerdict::Inside
    );
    assert!(matches!(
        matcher.path(&GitPath::new(*b"src/\xff.key")),
        PathVerdict::Denied { .. }
    ));
    assert!(matches!(
        matcher.path(&GitPath::new(*b"\xff/a")),
        PathVerdict::Outside { .. }
    ));
}

proptest::proptest! {
    /// Whatever a path looks like: outside the allowed directory it is never inside.
    #[test]
    fn nothing_outside_gets_in(path in "\\PC{0,30}") {
        let s = scope(&["src/**"], &[]);
        let inside = verdict(&s, &path) == PathVerdict::Inside;
        proptest::prop_assert_eq!(inside, path.starts_with("src/") && path.len() > 4);
    }
}
