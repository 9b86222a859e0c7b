//! Pure helpers for deciding on a push: what kind of update, and in whose name.

use super::commit::{CommitInfo, Ident};
use super::names::{BRANCH_PREFIX, PROPOSAL_PREFIX, TAG_PREFIX, check_ref_name};
use super::push::RefCommand;

/// What a command would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpdateKind {
    /// Proposes a change (`refs/for/<branch>`).
    Propose,
    /// A new branch.
    Create,
    /// A branch moves on to a descendant.
    FastForward,
    /// A branch moves to what is no descendant: history would be lost.
    Force,
    /// A branch goes away.
    Delete,
    /// A tag is made, moved or deleted.
    Tag,
    /// Any other ref, or a name that is none.
    Other,
}

impl UpdateKind {
    /// Its name in policy requests and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Propose => "propose",
            Self::Create => "create",
            Self::FastForward => "fast-forward",
            Self::Force => "force",
            Self::Delete => "delete",
            Self::Tag => "tag",
            Self::Other => "other",
        }
    }
}

/// What can be said of a command before its objects are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstLook {
    /// Whatever the objects are.
    Settled(UpdateKind),
    /// A branch that moves: fast-forward or force, as [`moved`] says.
    Moves,
}

/// Kind of update and the short name it is about: the branch, the tag, or the full name.
pub fn classify(command: &RefCommand) -> (FirstLook, &str) {
    let name = command.name.as_str();
    if check_ref_name(name).is_err() {
        return (FirstLook::Settled(UpdateKind::Other), name);
    }
    if let Some(branch) = name.strip_prefix(PROPOSAL_PREFIX) {
        let kind = if command.new.is_zero() {
            UpdateKind::Delete
        } else {
            UpdateKind::Propose
        };
        return (FirstLook::Settled(kind), branch);
    }
    if let Some(tag) = name.strip_prefix(TAG_PREFIX) {
        return (FirstLook::Settled(UpdateKind::Tag), tag);
    }
    let Some(branch) = name.strip_prefix(BRANCH_PREFIX) else {
        return (FirstLook::Settled(UpdateKind::Other), name);
    };
    let look = match (command.old.is_zero(), command.new.is_zero()) {
        (_, true) => FirstLook::Settled(UpdateKind::Delete),
        (true, false) => FirstLook::Settled(UpdateKind::Create),
        (false, false) => FirstLook::Moves,
    };
    (look, branch)
}

/// The kind of a move, once `old` is known to be an ancestor of `new` or not.
pub const fn moved(old_is_ancestor: bool) -> UpdateKind {
    if old_is_ancestor {
        UpdateKind::FastForward
    } else {
        UpdateKind::Force
    }
}

/// A commit that names somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignName {
    /// The commit.
    pub commit: portcullis_model::GitOid,
    /// Whether it is the author or the committer.
    pub role: Role,
    /// Who is named.
    pub named: Ident,
}

/// In which role a commit names someone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who wrote it.
    Author,
    /// Who committed it.
    Committer,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Author => "author",
            Self::Committer => "committer",
        })
    }
}

/// Everyone that `commits` name beside `identity`, name and mail address exactly. The same
/// address under another name is somebody else, and so is the same name with another address.
pub fn names_outside(identity: &Ident, commits: &[CommitInfo]) -> Vec<ForeignName> {
    commits
        .iter()
        .flat_map(|commit| {
            [
                (Role::Author, &commit.author),
                (Role::Committer, &commit.committer),
            ]
            .into_iter()
            .filter(|(_, named)| *named != identity)
            .map(|(role, named)| ForeignName {
                commit: commit.oid.clone(),
                role,
                named: named.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use portcullis_model::GitOid;

    use super::*;

    fn command(old: char, new: char, name: &str) -> RefCommand {
        let oid = |c: char| c.to_string().repeat(40).parse::<GitOid>().unwrap();
        RefCommand {
            old: oid(old),
            new: oid(new),
            name: name.to_owned(),
        }
    }

    #[test]
    fn every_command_has_one_kind() {
        use FirstLook::{Moves, Settled};
        for (old, new, name, look, short) in [
            (
                '0',
                '1',
                "refs/for/main",
                Settled(UpdateKind::Propose),
                "main",
            ),
            (
                '1',
                '0',
                "refs/for/main",
                Settled(UpdateKind::Delete),
                "main",
            ),
            (
                '0',
                '1',
                "refs/heads/a/b",
                Settled(UpdateKind::Create),
                "a/b",
            ),
            ('1', '0', "refs/heads/a", Settled(UpdateKind::Delete), "a"),
            ('1', '2', "refs/heads/a", Moves, "a"),
            ('1', '2', "refs/tags/v1", Settled(UpdateKind::Tag), "v1"),
            (
                '0',
                '1',
                "refs/portcullis/changes/1/1",
                Settled(UpdateKind::Other),
                "refs/portcullis/changes/1/1",
            ),
            (
                '0',
                '1',
                "refs/heads/../x",
                Settled(UpdateKind::Other),
                "refs/heads/../x",
            ),
            ('0', '1', "HEAD", Settled(UpdateKind::Other), "HEAD"),
        ] {
            assert_eq!(classify(&command(old, new, name)), (look, short), "{name}");
        }
        assert_eq!(moved(true), UpdateKind::FastForward);
        assert_eq!(moved(false), UpdateKind::Force);
    }
}
