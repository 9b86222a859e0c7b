//! What a push holds, read from its quarantine.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_checks::diff::Diff;
use portcullis_checks::scope::{Violation, violations};
use portcullis_flow::State;
use portcullis_flow::change::party_of_push;
use portcullis_gateway::git::commit::{CommitInfo, Ident};
use portcullis_gateway::git::{PackLimits, Quarantine, rules};
use portcullis_model::{Digest, GitOid, Party, Principal, Refusal, RepositoryId, RunId, Scope};

/// What a push holds, read from its quarantine.
pub(super) struct Content {
    pub(super) base: GitOid,
    pub(super) tree: GitOid,
    pub(super) manifest: Digest,
    pub(super) commits: Vec<GitOid>,
    pub(super) diff_bytes: Vec<u8>,
    pub(super) diff: Diff,
}

pub(super) async fn read(
    state: &State,
    quarantine: &Quarantine,
    key: &(RepositoryId, String),
    head: &GitOid,
    tip: &GitOid,
) -> Result<Content, Refusal> {
    let objects = quarantine.objects();
    let earlier = |at: &GitOid| revision_of(state, key, at, tip);
    let straight = straight(quarantine.commits(), head, tip, earlier);
    let base = match &straight {
        Some(_) => Some(tip.clone()),
        None => objects.merge_base(head, tip).await?,
    };
    let branch = state.branches.get(key);
    let base = base
        .filter(|base| branch.is_some_and(|branch| branch.stood_at(base)))
        .ok_or_else(|| {
            Refusal::denied("base-unknown", "the change does not stand on its branch")
                .expected(&format!("commits on top of {}", tip.short()))
                .received(head.as_str())
                .next("git fetch origin; git rebase origin/<branch>; push again")
        })?;
    if base == *head {
        return Err(Refusal::denied(
            "nothing-new",
            "the push holds nothing that the branch lacks",
        )
        .expected("at least one commit on top of the branch")
        .next("commit your work, then push again"));
    }
    let commits = async {
        match straight {
            Some(commits) => Ok(commits),
            None => {
                objects
                    .commits_between(&base, head, PackLimits::default().commits)
                    .await
            }
        }
    };
    let tree = async {
        match quarantine.commits().iter().find(|one| one.oid == *head) {
            Some(known) => Ok(known.tree.clone()),
            None => Ok(objects.commit_info(head).await?.tree),
        }
    };
    // Each of these waits for a process; a client waits for the slowest.
    let (commits, tree, manifest, diff_bytes) = tokio::try_join!(
        commits,
        tree,
        quarantine.manifest(&base, head),
        objects.diff(&base, head)
    )?;
    Ok(Content {
        tree,
        manifest,
        diff: portcullis_checks::diff::parse(&diff_bytes)?,
        base,
        commits,
        diff_bytes,
    })
}

/// The commits of a push that stands on the branch's tip in one line, newest first: what most
/// pushes are, and told from what was just read, down to a revision that was taken in before.
fn straight(
    commits: &[CommitInfo],
    head: &GitOid,
    tip: &GitOid,
    earlier: impl Fn(&GitOid) -> Option<Vec<GitOid>>,
) -> Option<Vec<GitOid>> {
    let known: BTreeMap<&GitOid, &CommitInfo> = commits.iter().map(|one| (&one.oid, one)).collect();
    let mut line = Vec::new();
    let mut at = head;
    while at != tip {
        let Some(commit) = known.get(at) else {
            line.extend(earlier(at)?);
            break;
        };
        let [parent] = commit.parents.as_slice() else {
            return None;
        };
        line.push(at.clone());
        at = parent;
    }
    let bound = PackLimits::default().commits;
    (1..=bound).contains(&line.len()).then_some(line)
}

/// The commits from `tip` to `head`, if a revision that stands on it was taken in with that head.
fn revision_of(
    state: &State,
    key: &(RepositoryId, String),
    head: &GitOid,
    tip: &GitOid,
) -> Option<Vec<GitOid>> {
    let change = state.changes.get(state.proposed.get(head)?)?;
    let mut revisions = change.revisions.iter().rev();
    revisions
        .find(|revision| {
            let pushed = &revision.pushed;
            (&pushed.repository, &pushed.branch) == (&key.0, &key.1)
                && pushed.head == *head
                && pushed.base == *tip
        })
        .map(|revision| revision.pushed.commits.clone())
}

impl Content {
    fn violations(&self, scope: Option<&Scope>) -> Result<Vec<Violation>, Refusal> {
        match scope {
            Some(scope) => violations(&self.diff, scope),
            None => Ok(Vec::new()),
        }
    }

    /// Paths that the scope does not hold.
    pub(super) fn outside(&self, scope: Option<&Scope>) -> Result<BTreeSet<String>, Refusal> {
        Ok(self
            .violations(scope)?
            .iter()
            .filter_map(|violation| match violation {
                Violation::Outside { path, .. } | Violation::Denied { path, .. } => {
                    Some(path.to_string())
                }
                Violation::Operation { .. }
                | Violation::TooManyFiles { .. }
                | Violation::TooManyLines { .. } => None,
            })
            .collect())
    }

    /// What goes beyond the scope otherwise: operations, files, lines.
    pub(super) fn over(&self, scope: Option<&Scope>) -> Result<BTreeSet<String>, Refusal> {
        Ok(self
            .violations(scope)?
            .iter()
            .filter_map(|violation| match violation {
                Violation::Outside { .. } | Violation::Denied { .. } => None,
                Violation::Operation { path, operation } => Some(format!("{operation} {path}")),
                Violation::TooManyFiles { files, max } => Some(format!("{files} files of {max}")),
                Violation::TooManyLines { lines, max } => Some(format!("{lines} lines of {max}")),
            })
            .collect())
    }
}

/// Commits of a run that name somebody else as author or committer.
pub(super) fn other_names(identity: Option<&Ident>, quarantine: &Quarantine) -> BTreeSet<String> {
    let Some(identity) = identity else {
        return BTreeSet::new();
    };
    rules::names_outside(identity, quarantine.commits())
        .into_iter()
        .map(|foreign| format!("{} {}", foreign.commit.short(), foreign.named))
        .collect()
}

/// Agents that commits of a person's push name as author or committer, with their people. A commit
/// that was copied or rebased has another id, and keeps its author.
pub(super) fn agents_named(state: &State, commits: &[CommitInfo]) -> Result<Party, Refusal> {
    let domain = &state.genesis()?.trust_domain;
    let mut party = Party::default();
    for ident in commits
        .iter()
        .flat_map(|commit| [&commit.author, &commit.committer])
    {
        let Some(run) = agent_address(&ident.email, domain) else {
            continue;
        };
        match run.and_then(|id| state.runs.get(&id)) {
            Some(run) => {
                let agent = Principal::Agent(run.agent.clone(), Some(run.id));
                party
                    .0
                    .extend(party_of_push(state, &agent, Some(run.id), None).0);
            }
            // It says that it is an agent's, and we don't know whose.
            None => {
                party.0.insert(Principal::Unknown);
            }
        }
    }
    Ok(party)
}

/// The run that an agent's mail address names, if it names one; none if it is no agent's address.
fn agent_address(email: &str, trust_domain: &str) -> Option<Option<RunId>> {
    // Mail hosts are not told apart by case.
    let email = email.trim().to_ascii_lowercase();
    let host = format!("@agents.{}", trust_domain.to_ascii_lowercase());
    let local = email.strip_suffix(&host)?;
    Some(local.rsplit_once('+').and_then(|(_, run)| run.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_address_is_known_by_its_host() {
        let of = |email: &str| agent_address(email, "shop.example");
        assert_eq!(of("ada@shop.example"), None);
        assert_eq!(of("ada@agents.shop.example.evil"), None);
        let run = RunId(7);
        let own = format!("fixer+{run}@agents.shop.example");
        assert_eq!(of(&own), Some(Some(run)));
        assert_eq!(of(&own.to_ascii_uppercase()), Some(Some(run)));
        assert_eq!(of("fixer+nothing@agents.shop.example"), Some(None));
        assert_eq!(of("fixer@agents.shop.example"), Some(None));
    }
}
