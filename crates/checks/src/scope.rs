//! What a task may touch, held against what a revision touched.
//!
//! Allowed patterns are matched on the exact bytes of a path, case-sensitively: a twin of an
//! allowed path (other case, other Unicode spelling) gets nothing. Denied patterns are matched on
//! the exact path *and* on what the least strict file system would open ([`crate::path::fold`]),
//! in any case: a twin of a denied path is denied. In doubt, closed.

use std::collections::{BTreeMap, BTreeSet};

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};
use portcullis_model::task::Operation;
use portcullis_model::{GitOid, Refusal, Scope};

use crate::diff::{Diff, FileChange, FileMode, GitPath, Status};
use crate::path::fold;

#[cfg(test)]
mod tests;

/// Everything in which `diff` goes past `scope`, in the diff's order, bounds last.
///
/// # Errors
/// A pattern of the scope is no glob.
pub fn violations(diff: &Diff, scope: &Scope) -> Result<Vec<Violation>, Refusal> {
    let matcher = Matcher::new(scope)?;
    let moved = moved_objects(diff);
    let mut found = Vec::new();
    for file in &diff.files {
        for path in file.paths() {
            match matcher.path(path) {
                PathVerdict::Inside => {}
                PathVerdict::Denied { pattern } => {
                    found.push(Violation::Denied {
                        path: path.clone(),
                        pattern,
                    });
                }
                PathVerdict::Outside { twin } => {
                    found.push(Violation::Outside {
                        path: path.clone(),
                        twin,
                    });
                }
            }
        }
        for operation in operations(file) {
            if !permitted(operation, file, &scope.operations, &moved) {
                found.push(Violation::Operation {
                    path: file.path().clone(),
                    operation,
                });
            }
        }
    }
    let files = u64::try_from(diff.files.len()).unwrap_or(u64::MAX);
    if files > scope.max_files {
        found.push(Violation::TooManyFiles {
            files,
            max: scope.max_files,
        });
    }
    let lines = diff.line_count();
    if lines > scope.max_lines {
        found.push(Violation::TooManyLines {
            lines,
            max: scope.max_lines,
        });
    }
    Ok(found)
}

/// One way in which a diff goes past its scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// No allowed pattern matches the path.
    Outside {
        /// The path.
        path: GitPath,
        /// Whether it differs from an allowed path only in case or Unicode spelling.
        twin: bool,
    },
    /// A denied pattern matches the path, or what a file system may make of it.
    Denied {
        /// The path.
        path: GitPath,
        /// The pattern.
        pattern: String,
    },
    /// The kind of operation is not allowed.
    Operation {
        /// The path.
        path: GitPath,
        /// What was done.
        operation: Operation,
    },
    /// More files differ than allowed.
    TooManyFiles {
        /// How many differ.
        files: u64,
        /// How many may.
        max: u64,
    },
    /// More lines were added and removed than allowed.
    TooManyLines {
        /// How many.
        lines: u64,
        /// How many may be.
        max: u64,
    },
}

/// What a scope says of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathVerdict {
    /// Allowed and not denied.
    Inside,
    /// Denied by this pattern.
    Denied {
        /// The pattern.
        pattern: String,
    },
    /// Not allowed.
    Outside {
        /// Whether it differs from an allowed path only in case or Unicode spelling.
        twin: bool,
    },
}

/// A scope's patterns, compiled, for asking about many paths.
pub struct Matcher {
    allowed: GlobSet,
    allowed_folded: GlobSet,
    denied: GlobSet,
    denied_folded: GlobSet,
    deny: Vec<String>,
}

impl Matcher {
    /// Compiles the patterns of `scope`.
    ///
    /// # Errors
    /// A pattern is no glob.
    pub fn new(scope: &Scope) -> Result<Self, Refusal> {
        Ok(Self {
            allowed: globs(&scope.allow, false)?,
            allowed_folded: globs(&scope.allow, true)?,
            denied: globs(&scope.deny, false)?,
            denied_folded: globs(&scope.deny, true)?,
            deny: scope.deny.clone(),
        })
    }

    /// What the scope says of `path`.
    pub fn path(&self, path: &GitPath) -> PathVerdict {
        let folded = fold(&path.lossy());
        let exact = Candidate::from_bytes(path.as_bytes());
        let denied = [
            self.denied.matches_candidate(&exact),
            self.denied_folded.matches(&folded),
        ];
        if let Some(at) = denied.iter().flatten().min() {
            let pattern = self.deny.get(*at).cloned().unwrap_or_default();
            return PathVerdict::Denied { pattern };
        }
        if self.allowed.is_match_candidate(&exact) {
            return PathVerdict::Inside;
        }
        PathVerdict::Outside {
            twin: self.allowed_folded.is_match(&folded),
        }
    }
}

/// Compiles path patterns: `*` and `?` stay within a directory, `**` does not.
///
/// # Errors
/// A pattern is no glob.
pub fn globs(patterns: &[String], any_case: bool) -> Result<GlobSet, Refusal> {
    let malformed = |pattern: &str| {
        Refusal::malformed("path pattern")
            .expected("a glob relative to the repository's root, such as src/**")
            .received(pattern)
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .backslash_escape(true)
            .case_insensitive(any_case)
            .build()
            .map_err(|_| malformed(pattern))?;
        set.add(glob);
    }
    set.build().map_err(|_| malformed("all patterns together"))
}

/// What was done to one file. A link or submodule counts beside the plain operation; a file that
/// is new and executable is added and has its mode set.
pub fn operations(file: &FileChange) -> BTreeSet<Operation> {
    let mut done = BTreeSet::new();
    done.insert(match file.status {
        Status::Added | Status::Copied => Operation::Add,
        Status::Deleted => Operation::Delete,
        Status::Renamed => Operation::Rename,
        Status::Modified if !file.content_differs() => Operation::Mode,
        Status::Modified | Status::TypeChanged => Operation::Modify,
    });
    if file.status == Status::Renamed && file.content_differs() {
        done.insert(Operation::Modify);
    }
    if file.status != Status::Deleted {
        let either = |mode| file.old_mode == mode || file.new_mode == mode;
        if either(FileMode::Symlink) {
            done.insert(Operation::Symlink);
        }
        if either(FileMode::Submodule) {
            done.insert(Operation::Submodule);
        }
        let executable = |mode| mode == FileMode::Executable;
        if executable(file.old_mode) != executable(file.new_mode)
            && file.new_mode != FileMode::Symlink
            && file.new_mode != FileMode::Submodule
        {
            done.insert(Operation::Mode);
        }
    }
    done
}

/// Objects that were deleted at one path and added at another: renames without a change. Each
/// counts as often as it has a partner.
fn moved_objects(diff: &Diff) -> BTreeSet<GitOid> {
    let mut sides: BTreeMap<&GitOid, (usize, usize)> = BTreeMap::new();
    for file in &diff.files {
        match file.status {
            Status::Deleted => sides.entry(&file.old_oid).or_default().0 += 1,
            Status::Added => sides.entry(&file.new_oid).or_default().1 += 1,
            Status::Modified | Status::TypeChanged | Status::Renamed | Status::Copied => {}
        }
    }
    sides
        .into_iter()
        .filter(|(_, (deleted, added))| deleted == added && *deleted > 0)
        .map(|(oid, _)| oid.clone())
        .collect()
}

/// A rename is permitted as such, or as what git shows: a deletion and an addition.
fn permitted(
    operation: Operation,
    file: &FileChange,
    allowed: &BTreeSet<Operation>,
    moved: &BTreeSet<GitOid>,
) -> bool {
    if allowed.contains(&operation) {
        return true;
    }
    match operation {
        Operation::Add => allowed.contains(&Operation::Rename) && moved.contains(&file.new_oid),
        Operation::Delete => allowed.contains(&Operation::Rename) && moved.contains(&file.old_oid),
        Operation::Rename => {
            allowed.contains(&Operation::Add) && allowed.contains(&Operation::Delete)
        }
        Operation::Modify | Operation::Mode | Operation::Symlink | Operation::Submodule => false,
    }
}
