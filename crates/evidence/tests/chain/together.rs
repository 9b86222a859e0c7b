//! Changes of one task that landed together: an auditor who is shown one of them sees all, and no
//! lie about the others is believed.

use std::collections::BTreeSet;

use portcullis_evidence::chain::{About, Bundle, LinkName, Report, verify};
use portcullis_model::event::{Body, Effect, EffectIntended, EffectOutcome};
use portcullis_model::{GitOid, LedgerIndex, RepositoryId, TaskId};

use crate::subject;
use crate::world::{Options, World};

struct Both {
    world: World,
    heads: Vec<(RepositoryId, GitOid)>,
    intents: Vec<LedgerIndex>,
    /// Commits of each place.
    commits: Vec<BTreeSet<GitOid>>,
}

fn both() -> Both {
    let mut world = World::new(&Options::default());
    world.hire("dan");
    world.open_web();
    let base = world.base.clone();
    let (task, run) = world.run(&base);
    let mut heads = Vec::new();
    let mut effects = Vec::new();
    let mut commits = Vec::new();
    let mut known = BTreeSet::new();
    for place in world.targets.clone() {
        world.go_to(&place);
        let (change, head) = world.change_in(run, &base, place.as_str());
        effects.push(world.approved(change, Some(task), &["dan"], Some(task)));
        heads.push((place, head));
        let all: BTreeSet<GitOid> = world.objects.keys().cloned().collect();
        commits.push(all.difference(&known).cloned().collect());
        known = all;
    }
    let mut intents = Vec::new();
    for effect in effects {
        let decision = Some(world.decision());
        intents.push(world.control(EffectIntended { effect, decision }));
    }
    for intent in &intents {
        world.conclude(*intent);
    }
    Both {
        world,
        heads,
        intents,
        commits,
    }
}

/// The bundle of one of the commits, as a server makes it: without the other's objects.
fn bundle(both: &Both, place: usize) -> Bundle {
    let mut bundle = both.world.seal(about(&both.heads[place]));
    let own = &both.commits[place];
    bundle.objects.retain(|oid, _| own.contains(oid));
    bundle
}

fn look(both: &Both, place: usize, bundle: &Bundle) -> Report {
    let bytes = bundle.to_bytes().unwrap();
    let subject = subject(&about(&both.heads[place]));
    verify(&bytes, &both.world.genesis(), &subject).unwrap()
}

fn about((repository, commit): &(RepositoryId, GitOid)) -> About {
    About::Commit {
        repository: repository.clone(),
        commit: commit.clone(),
    }
}

fn landing(report: &Report) -> &str {
    let mut links = report.links.iter();
    let link = links.find(|link| link.name == LinkName::Landing).unwrap();
    &link.says
}

#[test]
fn each_of_them_shows_that_all_landed() {
    let both = both();
    for place in 0..2 {
        let report = look(&both, place, &bundle(&both, place));
        assert!(report.holds(), "{:?}", report.first_broken);
        let says = landing(&report);
        assert!(says.contains("together with the task's 1 other"), "{says}");
    }
}

/// What an entry says is changed, the log sealed anew, and the first commit looked at.
fn broken(lie: impl FnOnce(&mut Both)) {
    let mut both = both();
    lie(&mut both);
    let report = look(&both, 0, &bundle(&both, 0));
    let link = report.first_broken.expect("the lie was believed");
    assert_eq!(link.name, LinkName::Landing, "{}", link.says);
}

fn together_of(both: &mut Both, place: usize) -> &mut Option<TaskId> {
    let index = usize::try_from(both.intents[place]).unwrap();
    match &mut both.world.events[index].body {
        Body::EffectIntended(EffectIntended {
            effect: Effect::Land { together, .. },
            ..
        }) => together,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lie_about_the_others_breaks_the_landing() {
    broken(|both| {
        let second = both.intents[1];
        let event = both
            .world
            .find(|body| matches!(body, Body::EffectConcluded(ended) if ended.effect == second));
        let Body::EffectConcluded(ended) = &mut event.body else {
            unreachable!()
        };
        ended.outcome = EffectOutcome::Failed;
    });
    broken(|both| *together_of(both, 0) = None);
    broken(|both| *together_of(both, 1) = None);
    broken(|both| {
        let other = "11".repeat(32);
        *together_of(both, 0) = Some(format!("task-{other}").parse().unwrap());
    });
    broken(|both| {
        let index = usize::try_from(both.intents[1]).unwrap();
        let Body::EffectIntended(body) = &mut both.world.events[index].body else {
            unreachable!()
        };
        let Effect::Land { branch, .. } = &mut body.effect else {
            unreachable!()
        };
        "elsewhere".clone_into(branch);
    });
}

#[test]
fn a_bundle_that_leaves_the_others_out_proves_nothing() {
    let both = both();
    let mut bundle = bundle(&both, 0);
    let second = both.intents[1];
    bundle.entries.retain(|entry| entry.index != second);
    let link = look(&both, 0, &bundle).first_broken.unwrap();
    assert_eq!(link.name, LinkName::Landing, "{}", link.says);
}
