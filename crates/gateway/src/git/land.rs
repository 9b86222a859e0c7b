//! Landing: one branch moves from one commit to another, or nothing happens.

use std::path::Path;
use std::time::Duration;

use portcullis_model::{GitOid, Recorded, Refusal};

use super::command::{FAR_SETTINGS, last_words};
use super::names::branch_ref;
use super::repository::{Repository, ls_remote};
use super::upstream::{Access, Upstream};

/// Longest time for the push to an upstream.
pub const LAND_TIME: Duration = Duration::from_secs(120);

/// What shall land.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Land {
    /// The branch.
    pub branch: String,
    /// Where it must stand.
    pub old: GitOid,
    /// Where it shall stand: a descendant of `old`.
    pub new: GitOid,
    /// The tree that was approved; `new` must have exactly it.
    pub tree: GitOid,
    /// The pushed base and head whose diff this is, where `new` is not the pushed head itself.
    pub diff_of: Option<(GitOid, GitOid)>,
}

/// A landing that shall not have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeBack {
    /// The branch.
    pub branch: String,
    /// Where the landing put it; if it stands elsewhere, it stays there.
    pub from: GitOid,
    /// Where it was before.
    pub to: GitOid,
}

/// How it went, read back from where it landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landed {
    /// The branch stands at the new commit, or has moved on from it.
    Done {
        /// Where the branch stands.
        observed: GitOid,
    },
    /// The branch does not hold the new commit, and this attempt won't change that. The refusal's
    /// code is stable: `branch-moved`, `branch-busy`, `work-tree-not-clean`, `upstream-refused`,
    /// `upstream-unreachable`, `landing-mismatch`, `not-fast-forward`.
    Failed(Refusal),
    /// Nobody knows yet; [`Repository::observe`] later. The refusal says why.
    Unknown(Refusal),
}

impl Repository {
    /// Moves the branch, in the embedded repository or on the upstream, by compare-and-swap; reads
    /// it back. A work tree that has the branch checked out moves along if it is clean.
    pub async fn land<P>(&self, permit: Recorded<P>, land: &Land, access: &Access) -> Landed {
        let _used = permit.spend();
        let _one = self.landing_lock().await;
        if let Err(refusal) = self.check_land(land).await {
            return Landed::Failed(refusal);
        }
        let pushed = self.push(land, access).await;
        let observed = self.observe(&land.branch, access).await;
        // The mirror must show what landed before anyone asks it.
        let synced = self.sync(access).await;
        let refusal = match (pushed, observed) {
            (_, Ok(Some(observed))) if observed == land.new => return Landed::Done { observed },
            (_, Ok(Some(observed))) if observed != land.old => {
                if self.has_moved_on(land, &observed).await {
                    return Landed::Done { observed };
                }
                if synced.is_err() {
                    return Landed::Unknown(moved(land, &observed));
                }
                return Landed::Failed(moved(land, &observed));
            }
            (Err(Attempt::Refused(refusal)), Ok(Some(_))) if refusal.code == "branch-moved" => {
                // It stands where it should: somebody else held its lock for a moment.
                return Landed::Failed(
                    Refusal::conflict("branch-busy", "somebody else was moving the branch")
                        .received(refusal.received.as_deref().unwrap_or_default())
                        .next("land it again; the branch stands where the change expects it"),
                );
            }
            (Err(Attempt::Refused(refusal)), Ok(_)) => return Landed::Failed(refusal),
            (Err(Attempt::CutShort(refusal)), Ok(_)) => refusal,
            (Ok(()), Ok(observed)) => not_visible(land, observed.as_ref()),
            (_, Err(refusal)) => refusal,
        };
        Landed::Unknown(refusal)
    }

    /// Whether `land` would land now, as far as can be told without moving anything: the tree is
    /// recomputed, and the branch is looked at where it counts.
    ///
    /// # Errors
    /// `landing-mismatch`, `not-fast-forward`, `branch-moved`; `upstream-unreachable`,
    /// `upstream-refused`, `git-timeout`.
    pub async fn check(&self, land: &Land, access: &Access) -> Result<(), Refusal> {
        self.check_land(land).await?;
        match self.observe(&land.branch, access).await? {
            Some(observed) if observed == land.old => Ok(()),
            observed => Err(moved(land, observed.as_ref().unwrap_or(&GitOid::zero()))),
        }
    }

    /// Moves the branch back to where it stood before a landing, by compare-and-swap: whatever came
    /// on top of it meanwhile stays, and then the answer is `branch-moved`. Reads it back.
    pub async fn take_back<P>(
        &self,
        permit: Recorded<P>,
        back: &TakeBack,
        access: &Access,
    ) -> Landed {
        let _used = permit.spend();
        let _one = self.landing_lock().await;
        let land = Land {
            branch: back.branch.clone(),
            old: back.from.clone(),
            new: back.to.clone(),
            // It stood there already, so nothing is recomputed.
            tree: back.to.clone(),
            diff_of: None,
        };
        let pushed = self.push(&land, access).await;
        let observed = self.observe(&land.branch, access).await;
        // The mirror must show where the branch stands before anyone asks it.
        let _looked = self.sync(access).await;
        match (pushed, observed) {
            (_, Err(refusal)) => Landed::Unknown(refusal),
            (_, Ok(Some(observed))) if observed == back.to => Landed::Done { observed },
            (_, Ok(observed)) if observed.as_ref() != Some(&back.from) => {
                Landed::Failed(moved(&land, observed.as_ref().unwrap_or(&GitOid::zero())))
            }
            // It stands where it should: somebody else held its lock for a moment.
            (Err(Attempt::Refused(refusal)), Ok(_)) if refusal.code == "branch-moved" => {
                Landed::Unknown(refusal)
            }
            (Err(Attempt::Refused(refusal)), Ok(_)) => Landed::Failed(refusal),
            (Err(Attempt::CutShort(refusal)), Ok(_)) => Landed::Unknown(refusal),
            (Ok(()), Ok(_)) => Landed::Unknown(not_visible(&land, Some(&back.from))),
        }
    }

    /// Where the branch stands where it counts: on the upstream, or in the embedded repository.
    ///
    /// # Errors
    /// `upstream-unreachable`, `upstream-refused`, `git-timeout`.
    pub async fn observe(&self, branch: &str, access: &Access) -> Result<Option<GitOid>, Refusal> {
        let name = branch_ref(branch)?;
        if *self.upstream() == Upstream::Embedded {
            return self.tip(branch).await;
        }
        let text = ls_remote(
            self.git(),
            self.upstream(),
            access,
            &self.mirror_dir(),
            &[],
            &[&name],
        )
        .await?;
        text.lines()
            .filter_map(|line| line.split_once('\t'))
            .find(|(_, found)| *found == name)
            .map(|(oid, _)| oid.parse())
            .transpose()
    }

    /// The approved tree, and history that only grows.
    async fn check_land(&self, land: &Land) -> Result<(), Refusal> {
        branch_ref(&land.branch)?;
        let objects = self.objects();
        let commit = objects.commit_info(&land.new).await?;
        if commit.tree != land.tree {
            return Err(mismatch(&land.tree, &commit.tree));
        }
        let recomputed = objects.recompute_tree(&land.old, &land.new).await?;
        if recomputed != land.tree {
            return Err(mismatch(&land.tree, &recomputed));
        }
        // Made from something that people looked at: the same diff, applied here by our own code,
        // must give the very tree.
        if let Some((base, head)) = &land.diff_of {
            let entries = objects.raw_entries(base, head).await?;
            let signed = objects.apply(&land.old, &entries).await.map_err(|no| {
                if no.code == "diff-contradicts-base" {
                    mismatch(&land.tree, &land.new).received(&no.to_string())
                } else {
                    no
                }
            })?;
            if signed != land.tree {
                return Err(mismatch(&signed, &land.tree));
            }
        }
        if objects.is_ancestor(&land.old, &land.new).await? {
            return Ok(());
        }
        Err(Refusal::denied(
            "not-fast-forward",
            "landing would take commits off the branch",
        )
        .expected(&format!("a descendant of {}", land.old))
        .received(land.new.as_str())
        .next("rebase the change on the branch, then push it again"))
    }

    async fn push(&self, land: &Land, access: &Access) -> Result<(), Attempt> {
        let name = branch_ref(&land.branch).map_err(Attempt::Refused)?;
        let mut call = self
            .git()
            .on(&self.changes_dir(), "push")
            .args(["push", "--porcelain", "--atomic", "--no-verify", "--quiet"])
            .args([format!("--force-with-lease={name}:{}", land.old)]);
        if self.upstream().is_local() {
            call = call.args([format!(
                "--receive-pack=git {FAR_SETTINGS} \
                 -c receive.denyCurrentBranch=updateInstead receive-pack"
            )]);
        }
        let finished = call
            .args([self.upstream().argument(&self.mirror_dir())])
            .args([format!("{}:{name}", land.new)])
            .transport(self.upstream().protocols(), access, self.git())
            .time(LAND_TIME)
            .finish(&[])
            .await
            .map_err(Attempt::CutShort)?;
        if finished.status.success() {
            return Ok(());
        }
        let porcelain = String::from_utf8_lossy(&finished.stdout).into_owned();
        let words = format!("{}\n{porcelain}", finished.stderr);
        Err(classify(&words, land, self.upstream()))
    }

    /// Whether the branch was at the new commit and went on.
    async fn has_moved_on(&self, land: &Land, observed: &GitOid) -> bool {
        self.objects()
            .is_ancestor(&land.new, observed)
            .await
            .unwrap_or(false)
    }
}

/// Why a push did not end well.
enum Attempt {
    /// The other side said no: nothing moved.
    Refused(Refusal),
    /// It may or may not have happened.
    CutShort(Refusal),
}

fn classify(words: &str, land: &Land, upstream: &Upstream) -> Attempt {
    let says = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
    let status = words
        .lines()
        .find(|line| line.starts_with('!') || line.contains("[remote rejected]"))
        .unwrap_or_else(|| last_words(words));
    if says(&[
        "Working directory has",
        "Up-to-date check failed",
        "Could not update working tree",
        "unstaged changes",
        "staged changes",
    ]) {
        let place = match upstream {
            Upstream::Path(path) => path.as_path(),
            Upstream::Embedded | Upstream::Url(_) => Path::new("the upstream repository"),
        };
        return Attempt::Refused(
            Refusal::conflict(
                "work-tree-not-clean",
                format!(
                    "`{}` is checked out in {} with changes that are not committed",
                    land.branch,
                    place.display()
                ),
            )
            .expected("a clean work tree, or another branch checked out")
            .received(status)
            .next("commit or stash the changes there, then approve the change again: `portcullis request list`"),
        );
    }
    if says(&[
        "stale info",
        "cannot lock ref",
        "failed to update ref",
        "non-fast-forward",
        "fetch first",
        "reference already exists",
    ]) {
        return Attempt::Refused(
            Refusal::conflict(
                "branch-moved",
                format!("`{}` is no longer where the change stands on", land.branch),
            )
            .expected(land.old.as_str())
            .received(status)
            .next("rebase the change on the branch as it is now, then push it again"),
        );
    }
    if says(&[
        "[remote rejected]",
        "pre-receive hook declined",
        "protected branch",
    ]) {
        return Attempt::Refused(
            Refusal::conflict(
                "upstream-refused",
                "the upstream repository does not take the commit",
            )
            .received(status)
            .next("let the server's account push to this branch on the upstream"),
        );
    }
    let refusal = super::repository::upstream_failure("push to", words);
    if refusal.code == "upstream-refused" {
        Attempt::Refused(refusal)
    } else {
        Attempt::CutShort(refusal)
    }
}

fn not_visible(land: &Land, observed: Option<&GitOid>) -> Refusal {
    Refusal::unavailable(
        "landing-not-visible",
        "the upstream took the push and does not show it",
    )
    .expected(land.new.as_str())
    .received(observed.map_or("no such branch", GitOid::as_str))
}

fn moved(land: &Land, observed: &GitOid) -> Refusal {
    Refusal::conflict(
        "branch-moved",
        format!("`{}` moved while the change was landing", land.branch),
    )
    .expected(land.old.as_str())
    .received(observed.as_str())
    .next("rebase the change on the branch as it is now, then push it again")
}

pub(super) fn mismatch(expected: &GitOid, found: &GitOid) -> Refusal {
    Refusal::denied(
        "landing-mismatch",
        "what would land is not the tree that was approved",
    )
    .expected(expected.as_str())
    .received(found.as_str())
    .next("do not land it by hand; look at what made this commit")
}
