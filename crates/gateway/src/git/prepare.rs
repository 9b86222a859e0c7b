//! What would land, where that is not the pushed commits themselves: a merge, a squash, or the same
//! commits on a later base.
//!
//! Git's merge makes the tree; our own trees ([`super::tree`]) say what it must be. Two pieces of
//! code that share nothing, so that a defect in either makes a mismatch and not a wrong branch. Both
//! read what differs and leave the rest of the tree alone; a git before 2.40 makes the tree by its
//! index, which holds every path. Nothing here depends on the time: the same order gives the same
//! commit, and a restart finds it.

use std::collections::BTreeSet;

use portcullis_model::event::LandingMethod;
use portcullis_model::{ChangeId, Digest, GitOid, Refusal};

use super::cat_file::Kind;
use super::command::LONG;
use super::commit::{COMMIT_MAX_BYTES, CommitInfo, Ident};
use super::objects::ObjectView;
use super::repository::Repository;
use super::tree::RawEntry;

/// Refs that keep what was prepared: `refs/portcullis/landing/<change>/<revision>`.
pub const LANDING_PREFIX: &str = "refs/portcullis/landing/";
/// Most commits of a change that are made anew.
pub const COMMITS_MAX: usize = 1_000;

/// What to make.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Of which change.
    pub change: ChangeId,
    /// Of which revision.
    pub revision: u64,
    /// How.
    pub method: LandingMethod,
    /// The commit that the revision stands on.
    pub base: GitOid,
    /// Its newest commit.
    pub head: GitOid,
    /// What it shall stand on.
    pub onto: GitOid,
    /// Who commits.
    pub committer: Ident,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The commit that would land.
    pub head: GitOid,
    /// Its tree.
    pub tree: GitOid,
    /// The manifest from `onto` to `head`.
    pub manifest: Digest,
    /// Commits from `onto` to `head`, newest first.
    pub commits: Vec<GitOid>,
}

impl Repository {
    /// Makes the commit that would land, beside what was pushed. Nothing moves.
    ///
    /// # Errors
    /// `change-conflicts`: the diff does not fit what it shall stand on. `landing-mismatch`: git
    /// made another tree than our own code. `too-many-commits`.
    pub async fn prepare(&self, order: &Preparation) -> Result<Made, Refusal> {
        let objects = self.objects();
        let entries = objects.raw_entries(&order.base, &order.head).await?;
        let wanted = objects
            .apply(&order.onto, &entries)
            .await
            .map_err(|no| contradicts(order, no))?;
        let commits = objects
            .commits_between(&order.base, &order.head, COMMITS_MAX)
            .await?;
        let infos = objects.commit_infos(&commits).await?;
        let linear = infos.iter().all(|commit| commit.parents.len() == 1);
        let maker = Maker::new(self, &objects, &order.onto).await?;
        let whole = Step {
            base: &order.base,
            onto: &order.onto,
            head: &order.head,
        };
        let (head, tree) = match order.method {
            LandingMethod::FastForward | LandingMethod::Rebase if linear => {
                self.replay(order, &maker, &infos).await?
            }
            LandingMethod::Rebase => {
                return Err(Refusal::denied(
                    "merge-in-rebase",
                    "the change has a merge in it, and this branch takes rebased commits only",
                )
                .expected("commits with one parent each")
                .next("rebase the change without merges and push again"));
            }
            LandingMethod::FastForward | LandingMethod::Merge => {
                let tree = maker.tree(order, &whole, &entries).await?;
                let draft = Draft {
                    tree: &tree,
                    parents: &[&order.onto, &order.head],
                    author: format!("{} {}", order.committer, when(&infos)),
                    message: &format!("Merge {} into {}", order.change, order.onto.short()),
                    when: when(&infos),
                };
                (self.commit(order, &draft).await?, tree)
            }
            LandingMethod::Squash => {
                let tree = maker.tree(order, &whole, &entries).await?;
                let draft = Draft {
                    tree: &tree,
                    parents: &[&order.onto],
                    author: author_line(&objects, &order.head).await?,
                    message: &squashed(&infos),
                    when: when(&infos),
                };
                (self.commit(order, &draft).await?, tree)
            }
        };
        if tree != wanted {
            return Err(super::land::mismatch(&wanted, &tree));
        }
        let made = Made {
            manifest: objects.manifest(&order.onto, &head).await?,
            commits: objects
                .commits_between(&order.onto, &head, COMMITS_MAX + 1)
                .await?,
            head,
            tree,
        };
        let name = format!("{LANDING_PREFIX}{}/{}", order.change.0, order.revision);
        self.git()
            .on(&self.changes_dir(), "update-ref")
            .args(["update-ref", &name, made.head.as_str()])
            .output()
            .await?;
        Ok(made)
    }

    /// Each commit again, oldest first.
    async fn replay(
        &self,
        order: &Preparation,
        maker: &Maker<'_>,
        infos: &[CommitInfo],
    ) -> Result<(GitOid, GitOid), Refusal> {
        let objects = self.objects();
        let mut onto = order.onto.clone();
        let mut tree = objects.commit_info(&onto).await?.tree;
        for commit in infos.iter().rev() {
            let parent = commit.parents.first().unwrap_or(&order.base);
            let entries = objects.raw_entries(parent, &commit.oid).await?;
            // What only the whole of the change leaves as it was may still stand in the way.
            objects
                .apply(&onto, &entries)
                .await
                .map_err(|no| contradicts(order, no))?;
            let step = Step {
                base: parent,
                onto: &onto,
                head: &commit.oid,
            };
            tree = maker.tree(order, &step, &entries).await?;
            let draft = Draft {
                tree: &tree,
                parents: &[&onto],
                author: author_line(&objects, &commit.oid).await?,
                message: &commit.message,
                when: when(std::slice::from_ref(commit)),
            };
            onto = self.commit(order, &draft).await?;
        }
        Ok((onto, tree))
    }

    async fn commit(&self, order: &Preparation, draft: &Draft<'_>) -> Result<GitOid, Refusal> {
        let mut text = format!("tree {}\n", draft.tree);
        for parent in draft.parents {
            text.push_str(&format!("parent {parent}\n"));
        }
        text.push_str(&format!("author {}\n", draft.author));
        text.push_str(&format!("committer {} {}\n\n", order.committer, draft.when));
        text.push_str(draft.message.trim_end());
        text.push_str(&trailer(order, draft.message));
        let done = self
            .git()
            .on(&self.changes_dir(), "hash-object")
            .args(["hash-object", "-t", "commit", "-w", "--stdin"])
            .finish(text.as_bytes())
            .await?
            .succeeded()?;
        String::from_utf8_lossy(&done).trim().parse()
    }
}

/// The parts of a commit object.
struct Draft<'a> {
    tree: &'a GitOid,
    parents: &'a [&'a GitOid],
    /// The line as it stands in another commit.
    author: String,
    message: &'a str,
    /// When it is committed: seconds and zone.
    when: String,
}

/// A line that leads from the commit to its change, unless the message has it.
fn trailer(order: &Preparation, message: &str) -> String {
    let line = format!("Portcullis-Change: {}", order.change);
    if message.lines().any(|known| known == line) {
        return "\n".to_owned();
    }
    format!("\n\n{line}\n")
}

/// When the newest of these was committed.
fn when(infos: &[CommitInfo]) -> String {
    let newest = infos.iter().map(|commit| commit.committed_at).max();
    format!("{} +0000", newest.unwrap_or_default().max(0))
}

/// The message of one commit that stands for several: the first one's, and the subjects of all.
fn squashed(infos: &[CommitInfo]) -> String {
    let Some((first, rest)) = infos.split_last() else {
        return String::new();
    };
    if rest.is_empty() {
        return first.message.clone();
    }
    let seen: BTreeSet<&str> = BTreeSet::from([first.subject()]);
    let subjects: String = rest
        .iter()
        .rev()
        .map(CommitInfo::subject)
        .filter(|subject| !seen.contains(subject))
        .map(|subject| format!("* {subject}\n"))
        .collect();
    format!("{}\n\n{subjects}", first.message.trim_end())
}

/// The author's line of a commit as it stands, with time and zone.
async fn author_line(objects: &ObjectView, oid: &GitOid) -> Result<String, Refusal> {
    let object = objects
        .cat_file()?
        .object(oid, COMMIT_MAX_BYTES)
        .await?
        .filter(|object| object.kind == Kind::Commit)
        .ok_or_else(|| Refusal::not_found("commit", oid))?;
    String::from_utf8_lossy(&object.content)
        .lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix("author "))
        .map(str::to_owned)
        .ok_or_else(|| Refusal::malformed("commit").expected("an author"))
}

/// One diff, and what it goes on.
struct Step<'a> {
    base: &'a GitOid,
    onto: &'a GitOid,
    head: &'a GitOid,
}

/// The first git whose merge of two commits takes their base from us, and needs no index.
const MERGES_TREES: (u32, u32) = (2, 40);

/// How git makes trees.
enum Maker<'a> {
    Merge(&'a ObjectView),
    Index(Index<'a>),
}

impl<'a> Maker<'a> {
    async fn new(
        repository: &Repository,
        objects: &'a ObjectView,
        onto: &GitOid,
    ) -> Result<Self, Refusal> {
        if repository.git().version() >= MERGES_TREES {
            return Ok(Self::Merge(objects));
        }
        Self::by_index(repository, objects, onto).await
    }

    async fn by_index(
        repository: &Repository,
        objects: &'a ObjectView,
        onto: &GitOid,
    ) -> Result<Self, Refusal> {
        let folder = tempfile::Builder::new()
            .prefix("index-")
            .tempdir_in(repository.dir())
            .map_err(|error| super::command::unwritable(repository.dir(), &error))?;
        let index = Index { objects, folder };
        index.read(onto).await?;
        Ok(Self::Index(index))
    }

    /// The tree of a step whose `entries` were found to fit: so there is nothing to merge within a
    /// file, and a conflict is one that our own code overlooked.
    async fn tree(
        &self,
        order: &Preparation,
        step: &Step<'_>,
        entries: &[RawEntry],
    ) -> Result<GitOid, Refusal> {
        let objects = match self {
            Self::Merge(objects) => objects,
            Self::Index(index) => {
                index.apply(entries).await?;
                return index.write_tree().await;
            }
        };
        let done = objects
            .git("merge-tree")
            .args([
                "-c",
                "merge.renames=false",
                "-c",
                "merge.directoryRenames=false",
            ])
            .args(["merge-tree", "--write-tree", "--no-messages"])
            .args([format!("--merge-base={}", step.base)])
            .args([step.onto.as_str(), step.head.as_str()])
            .time(LONG)
            .finish(&[])
            .await?;
        match done.status.code() {
            Some(0) => String::from_utf8_lossy(&done.stdout).trim().parse(),
            Some(1) => Err(conflicts(
                order,
                &Refusal::conflict("merge-conflict", "git finds a conflict")
                    .received("git finds a conflict"),
            )),
            _ => Err(super::command::failed("merge-tree", &done.stderr)),
        }
    }
}

/// An index of git's in a folder of its own, which goes with it.
struct Index<'a> {
    objects: &'a ObjectView,
    folder: tempfile::TempDir,
}

impl Index<'_> {
    async fn read(&self, commit: &GitOid) -> Result<(), Refusal> {
        self.call("read-tree")
            .args(["read-tree", commit.as_str()])
            .time(LONG)
            .output()
            .await
            .map(|_| ())
    }

    async fn apply(&self, entries: &[RawEntry]) -> Result<(), Refusal> {
        let mut input = Vec::new();
        // What goes away first, so that a file may take a folder's place.
        let mut sorted: Vec<&RawEntry> = entries.iter().collect();
        sorted.sort_by_key(|entry| entry.new_mode != 0);
        for entry in sorted {
            input.extend_from_slice(format!("{:o} {}\t", entry.new_mode, entry.new_oid).as_bytes());
            input.extend_from_slice(&entry.path);
            input.push(0);
        }
        if input.is_empty() {
            return Ok(());
        }
        self.call("update-index")
            .args(["update-index", "-z", "--index-info"])
            .time(LONG)
            .finish(&input)
            .await?
            .succeeded()
            .map(|_| ())
    }

    async fn write_tree(&self) -> Result<GitOid, Refusal> {
        self.call("write-tree")
            .args(["write-tree"])
            .time(LONG)
            .text()
            .await?
            .parse()
    }

    fn call(&self, what: &'static str) -> super::command::Invocation {
        let file = self.folder.path().join("index");
        self.objects.git(what).env("GIT_INDEX_FILE", file)
    }
}

fn contradicts(order: &Preparation, no: Refusal) -> Refusal {
    if no.code == "diff-contradicts-base" {
        conflicts(order, &no)
    } else {
        no
    }
}

fn conflicts(order: &Preparation, no: &Refusal) -> Refusal {
    Refusal::conflict(
        "change-conflicts",
        format!("{} changes what the branch changed as well", order.change),
    )
    .expected(&format!("a diff that fits {}", order.onto.short()))
    .received(no.received.as_deref().unwrap_or_default())
    .next("fetch, rebase onto the branch and push again")
}
