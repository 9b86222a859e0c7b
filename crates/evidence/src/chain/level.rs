//! Which level of SLSA's source track (version 1.2) the evidence supports, and plain words on what
//! a verification proves.
//!
//! Source: slsa.dev/spec/v1.2/source-requirements. Level 1: version controlled. Level 2: history
//! is kept and each revision has provenance. Level 3: technical controls are enforced all the
//! time. Level 4: two trusted persons agreed to every change; an agent is no person, so an agent's
//! change takes two reviewers who had no hand in it.

use portcullis_model::manifest::Sensitivity;
use portcullis_model::{Containment, KeyClass};
use serde::{Deserialize, Serialize};

use super::artifact::Shown;
use super::change::Examined;

/// A level of SLSA's source track.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceLevel {
    /// 0 (the chain is broken) to 4.
    pub level: u8,
    /// What keeps it from being higher; empty at 4.
    pub why_not_more: String,
}

/// The level of everything shown: that of its weakest part.
pub(super) fn of(shown: &Shown, holds: bool) -> SourceLevel {
    if !holds {
        return level(0, "the chain is broken");
    }
    let past = (!shown.unproven.is_empty()).then(|| {
        level(
            1,
            "commits reached the branch past the gate; humans accepted them, and nothing shows how they were made",
        )
    });
    let changes = shown.changes.iter().map(of_change);
    past.into_iter()
        .chain(changes)
        .min_by_key(|level| level.level)
        .unwrap_or_else(|| {
            level(
                1,
                "no landed change is shown, only the repository's baseline",
            )
        })
}

fn of_change(change: &Examined) -> SourceLevel {
    let id = change.id.map_or_else(String::new, |id| id.to_string());
    if !change.enforced {
        return level(
            2,
            &format!("{id} landed while the repository's rules were observed, not enforced"),
        );
    }
    let people = change.answer.independent.len();
    let authors = usize::from(change.author.is_some() && !change.by_agent);
    if people + authors >= 2 {
        return level(4, "");
    }
    let why = match (change.by_agent, people) {
        (true, 0) => format!(
            "{id} is an agent's work and no human without a hand in it agreed; level 4 takes two"
        ),
        (true, _) => format!(
            "{id} is an agent's work, and an agent is no trusted person: level 4 takes two humans without a hand in it, and {people} agreed"
        ),
        (false, _) => format!("{id} was agreed to by its author alone; level 4 takes two people"),
    };
    level(3, &why)
}

fn level(level: u8, why: &str) -> SourceLevel {
    SourceLevel {
        level,
        why_not_more: why.to_owned(),
    }
}

/// What holds, in plain words.
pub(super) fn proves(shown: &Shown, self_approved: bool) -> Vec<String> {
    let mut says = vec![
        "The log whose key the pinned genesis names holds every entry shown, and its checkpoint covers them.".to_owned(),
        "Every key that counted was in the genesis, or came into force by a quorum that the genesis demands.".to_owned(),
    ];
    let agents = shown.changes.iter().filter(|one| one.by_agent).count();
    let people = shown.changes.len() - agents;
    if agents > 0 {
        says.push(format!(
            "{}: each was ordered by a task that a person signed, in a run that its host signed for.",
            counted(agents, "change is an agent's work", "changes are agents' work")
        ));
    }
    if people > 0 {
        says.push(format!(
            "{}, each signed by its author.",
            counted(
                people,
                "change is a person's own",
                "changes are people's own"
            )
        ));
    }
    let approved = shown
        .changes
        .iter()
        .filter(|one| !one.answer.humans.is_empty())
        .count();
    if approved > 0 {
        says.push(format!(
            "{} by humans, each by a signature over exactly the commit, tree, checks and policy that landed.",
            counted(approved, "change was approved", "changes were approved")
        ));
    }
    if shown.built {
        says.push("The artifact is the output of a build of exactly the landed commit, by a service that is no agent, and its provenance says so.".to_owned());
        says.push("No commit between the release before and the artifact is left out.".to_owned());
    }
    if let (Some((environment, sensitivity)), true) = (&shown.environment, shown.admitted) {
        says.push(match (&shown.release, sensitivity) {
            (Some(answer), _) => format!(
                "A human's signature over exactly this artifact for {environment} let it in: {}.",
                answer.says()
            ),
            (None, Sensitivity::Production) => format!("Nothing let it into {environment}."),
            (None, Sensitivity::Development | Sensitivity::Staging) => {
                format!("It was let into {environment} by proof alone.")
            }
        });
    }
    if shown.witnessed > 0 {
        says.push(format!(
            "{} of the environment's witnesses saw exactly this history of the log, and no other.",
            shown.witnessed
        ));
    }
    if self_approved {
        says.push("Self-approved: somebody who had a hand in it approved it, as a one-person team's genesis allows.".to_owned());
    }
    says
}

/// What nobody should read into it.
pub(super) fn does_not_prove(shown: &Shown, self_approved: bool) -> Vec<String> {
    let mut says = vec![
        "That no key was revoked, nobody retired and no release revoked in entries that the bundle leaves out, or after its checkpoint: ask the log for those.".to_owned(),
        "That the tests are good, the checks see everything, or the reviewers understood what they read.".to_owned(),
        "That the policy is wise, or that its rules were evaluated rightly: the files are here, and can be replayed.".to_owned(),
        "That the files are the whole of the policy's digest: the program's built-in base rules and schema are part of it.".to_owned(),
        "That the builder's machine was sound: its signature says what it saw.".to_owned(),
    ];
    if shown.witnessed == 0 {
        says.insert(
            1,
            "That the log shows everyone the same history: that takes witnesses, or a checkpoint of your own to compare.".to_owned(),
        );
    }
    let answers = shown
        .changes
        .iter()
        .map(|one| &one.answer)
        .chain(&shown.unproven)
        .chain(&shown.release);
    let software = answers
        .clone()
        .any(|answer| answer.least == Some(KeyClass::Software));
    if software {
        says.push("That a human was there at each approval: some were signed with software keys, which says that somebody could use the key file.".to_owned());
    }
    if self_approved || answers.clone().any(|answer| answer.self_approved) {
        says.push("That a second person looked: own approvals counted.".to_owned());
    }
    let has = |wanted: Containment| {
        shown
            .changes
            .iter()
            .any(|one| one.containment.contains(&wanted))
    };
    if has(Containment::ContainedClaimed) {
        says.push("That runs were contained: their hosts are run by developers, and containment is those hosts' claim.".to_owned());
    }
    if shown.changes.iter().any(|one| one.by_agent) {
        says.push("That a push came out of the run that it is recorded for: an agent has no key, and the gateway's word stands for the channel.".to_owned());
    }
    let observed = shown.changes.iter().filter(|one| !one.enforced).count();
    if observed > 0 {
        says.push(format!(
            "That rules were enforced on {}: the repository only observed or warned.",
            counted(observed, "change", "changes")
        ));
    }
    let untested = shown.changes.iter().filter(|one| !one.tested).count();
    if untested > 0 {
        says.push(format!(
            "That {} passed any tests.",
            counted(untested, "change", "changes")
        ));
    }
    let batched = shown
        .changes
        .iter()
        .filter(|one| one.tested_in_batch)
        .count();
    if batched > 0 {
        says.push(format!(
            "That {} passed tests as it landed, by itself: they ran once for a batch, on what stood behind it.",
            counted(batched, "change", "changes")
        ));
    }
    let inner: usize = shown
        .changes
        .iter()
        .filter(|one| one.tested)
        .map(|one| one.inner_commits)
        .sum();
    if inner > 0 {
        says.push(format!(
            "That {} below the newest of a change passed tests alone: they ran on the newest.",
            counted(inner, "commit", "commits")
        ));
    }
    let alone = shown.changes.iter().filter(|one| one.without_human).count();
    if alone > 0 {
        says.push(format!(
            "That a human looked at {}: policy decided by itself.",
            counted(alone, "change", "changes")
        ));
    }
    let carried = shown.changes.iter().filter(|one| one.carried).count();
    if carried > 0 {
        says.push(format!(
            "That {} landed on a later base as its people saw it in every way: the diff is the same, recomputed here from the trees, the rest of the tree is what the branch held, and that it lies outside what the change depends on is the server's reading of the build files.",
            counted(carried, "change", "changes")
        ));
    }
    if !shown.unproven.is_empty() {
        says.push(
            "How the commits that came past the gate were made: humans accepted them as they are."
                .to_owned(),
        );
    }
    let older: usize = shown.changes.iter().map(|one| one.older_parents).sum();
    if older > 0 {
        says.push(format!(
            "What {} from before the pushed commits holds: it counts as older history on the log's word.",
            counted(older, "merge parent", "merge parents")
        ));
    }
    match shown.previous {
        Some(previous) => says.push(format!(
            "That {previous}, on which this builds, was right: it has a bundle of its own."
        )),
        None => says.push(
            "What stands in the repository's baseline: history up to it was taken as it is."
                .to_owned(),
        ),
    }
    says
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_that_no_test_ran_on_are_counted() {
        let change = |tested, inner_commits| Examined {
            tested,
            inner_commits,
            ..Examined::default()
        };
        let said = |changes: Vec<Examined>| {
            let shown = Shown {
                changes,
                ..Shown::default()
            };
            let says = does_not_prove(&shown, false);
            says.into_iter()
                .find(|line| line.contains("below the newest"))
        };
        assert_eq!(said(vec![change(true, 0)]), None);
        // Where nothing was tested that is said of the whole.
        assert_eq!(said(vec![change(false, 2)]), None);
        assert_eq!(
            said(vec![change(true, 2), change(true, 1), change(false, 4)]).as_deref(),
            Some(
                "That 3 commits below the newest of a change passed tests alone: they ran on the newest."
            )
        );
    }
}
