//! A change that landed on a later base than people saw: the chain holds for the same diff, tested
//! again there, by approvals that carry, and every lie about one of these breaks a named link.

use portcullis_evidence::chain::{About, Bytes, LinkName, Report, verify};
use portcullis_model::event::{
    Body, Effect, EffectIntended, LandingMethod, LandingPrepared, LandingTested, TestVerdict,
};
use portcullis_model::statement::Carry;
use portcullis_model::{Digest, GitOid, LedgerIndex};

use crate::world::{Options, World, commit, entry, oid_of, repository, tree, trees};
use crate::{report, subject};

struct Carried {
    world: World,
    landed: GitOid,
    prepared: LedgerIndex,
    tested: LedgerIndex,
}

impl Carried {
    fn about(&self) -> About {
        About::Commit {
            repository: repository(),
            commit: self.landed.clone(),
        }
    }

    fn body(&mut self, index: LedgerIndex) -> &mut Body {
        &mut self.world.events[usize::try_from(index).unwrap()].body
    }

    fn prepared(&mut self) -> &mut LandingPrepared {
        match self.body(self.prepared) {
            Body::LandingPrepared(body) => body,
            other => panic!("{other:?}"),
        }
    }

    fn tested(&mut self) -> &mut LandingTested {
        match self.body(self.tested) {
            Body::LandingTested(body) => body,
            other => panic!("{other:?}"),
        }
    }
}

/// Two changes on one base; the first lands, and the second after it, squashed.
fn carried(carry: Carry) -> Carried {
    carried_by(carry, false)
}

/// The same; in a batch, a third change stands behind the second, and the tests run on it.
fn carried_by(carry: Carry, batch: bool) -> Carried {
    let mut world = World::new(&Options::default());
    world.hire("dan");
    let base = world.base.clone();
    let (first, tip, task) = world.change(&base, "one");
    // A bundle of the second holds no commits of the first, but the bases and the trees in which
    // what was signed and what landed differ from them.
    world.objects.retain(|oid, _| *oid == tip);
    commit(&mut world.objects, &[], "0");
    for name in ["0", "one", "two", "two on one"] {
        world.objects.extend(trees(name));
    }
    let (second, head, other) = world.change(&base, "two");
    world.carry = carry;
    let mut effect = world.approved(second, Some(other), &["dan"], None);
    let behind = batch.then(|| {
        let own = world.objects.clone();
        let (third, _, task) = world.change(&base, "three");
        world.approved(third, Some(task), &["dan"], None);
        world.objects = own;
        third
    });
    world.land(first, Some(task), &["dan"]);
    let landed = commit(&mut world.objects, &[&tip], "two on one");
    let manifest = world.state.changes[&second].latest().pushed.manifest;
    let prepared = world.control(LandingPrepared {
        change: second,
        revision: 1,
        method: LandingMethod::Squash,
        root: tip.clone(),
        base: tip.clone(),
        head: landed.clone(),
        tree: tree("two on one"),
        manifest,
        commits: vec![landed.clone()],
        batch: if batch { 2 } else { 1 },
    });
    assert_ne!(head, landed);
    let (last, with) = match behind {
        None => (landed.clone(), None),
        Some(third) => {
            let last = commit(&mut world.objects, &[&landed], "three on two on one");
            world.objects.remove(&last);
            let with = world.control(LandingPrepared {
                change: third,
                revision: 1,
                method: LandingMethod::Squash,
                root: tip.clone(),
                base: landed.clone(),
                head: last.clone(),
                tree: tree("three on two on one"),
                manifest: world.state.changes[&third].latest().pushed.manifest,
                commits: vec![last.clone()],
                batch: 2,
            });
            (last, Some(with))
        }
    };
    let tested = world.retest(second, prepared, &last, &tip, with);
    if let Effect::Land {
        old,
        new,
        tree: signed,
        prepared: entry,
        ..
    } = &mut effect
    {
        *old = tip;
        *new = landed.clone();
        *signed = tree("two on one");
        *entry = Some(prepared);
    }
    let decision = Some(world.decision());
    let intent = world.control(EffectIntended { effect, decision });
    world.conclude(intent);
    Carried {
        world,
        landed,
        prepared,
        tested,
    }
}

fn look(made: &Carried) -> Report {
    report(&made.world, &made.about())
}

#[test]
fn a_carried_landing_is_proved_and_says_so() {
    let made = carried(Carry::SameDiff);
    let report = look(&made);
    assert!(report.holds(), "{:?}", report.first_broken);
    let all: String = report.links.iter().map(|link| link.says.as_str()).collect();
    for said in [
        "with the same diff by its trees (1 paths)",
        "for the same diff on a later base",
        "ran again on its later base",
    ] {
        assert!(all.contains(said), "{said}: {all}");
    }
}

#[test]
fn a_batch_that_passed_together_says_what_it_does_not_prove() {
    let alone = look(&carried(Carry::SameDiff));
    let report = look(&carried_by(Carry::SameDiff, true));
    assert!(report.holds(), "{:?}", report.first_broken);
    let all: String = report.links.iter().map(|link| link.says.as_str()).collect();
    assert!(all.contains("together with changes behind it"), "{all}");
    let said = |report: &Report| {
        report
            .does_not_prove
            .join(" ")
            .contains("ran once for a batch")
    };
    assert!(
        said(&report) && !said(&alone),
        "{:?}",
        report.does_not_prove
    );
    // An agent's work with one person's agreement, in a batch or not.
    assert_eq!(
        (report.source_level.level, alone.source_level.level),
        (3, 3)
    );
    assert!(
        report
            .source_level
            .why_not_more
            .contains("level 4 takes two humans")
    );
}

/// The lie is sealed anew, and breaks this link.
fn broken(link: LinkName, lie: impl FnOnce(&mut Carried)) {
    let mut made = carried(Carry::SameDiff);
    lie(&mut made);
    let found = look(&made).first_broken.expect("the lie was believed");
    assert_eq!(found.name, link, "{}", found.says);
}

#[test]
fn every_lie_about_what_was_prepared_breaks_the_revision() {
    broken(LinkName::Revision, |made| {
        made.prepared().manifest = Digest::of(b"another diff");
    });
    broken(LinkName::Revision, |made| {
        made.prepared().tree = tree("something else");
    });
    broken(LinkName::Revision, |made| made.prepared().revision = 2);
    broken(LinkName::Revision, |made| {
        let base = made.world.base.clone();
        made.prepared().base = base;
    });
    broken(LinkName::Revision, |made| made.prepared().commits.clear());
    broken(LinkName::Revision, |made| {
        let Body::LandingPrepared(_) = made.body(made.prepared) else {
            unreachable!()
        };
        made.prepared = made.tested;
        let tested = made.tested;
        let index = made.world.events.len();
        for event in &mut made.world.events[..index] {
            if let Body::EffectIntended(EffectIntended {
                effect: Effect::Land { prepared, .. },
                ..
            }) = &mut event.body
                && prepared.is_some()
            {
                *prepared = Some(tested);
            }
        }
    });
}

/// Lands a commit with another tree on the later base, and lies about it everywhere: in what was
/// prepared, in the intent, in the jobs' commit. Only the trees themselves tell.
fn forged(root: Vec<u8>, more: &[Vec<u8>]) -> Report {
    let mut made = carried(Carry::SameDiff);
    let tree = oid_of("tree", &root);
    let objects = &mut made.world.objects;
    objects.retain(|oid, _| !trees("two on one").iter().any(|(known, _)| known == oid));
    for bytes in more.iter().chain([&root]) {
        objects.insert(oid_of("tree", bytes), Bytes(bytes.clone()));
    }
    let Bytes(honest) = objects.remove(&made.landed).unwrap();
    let honest = String::from_utf8(honest).unwrap();
    let (_, rest) = honest.split_once('\n').unwrap();
    let bytes = format!("tree {tree}\n{rest}").into_bytes();
    let landed = oid_of("commit", &bytes);
    objects.insert(landed.clone(), Bytes(bytes));
    for event in &mut made.world.events {
        let text = String::from_utf8(event.encode().unwrap()).unwrap();
        let text = text
            .replace(made.landed.as_str(), landed.as_str())
            .replace(trees("two on one")[0].0.as_str(), tree.as_str());
        *event = portcullis_model::Event::decode(event.index, text.as_bytes()).unwrap();
    }
    made.landed = landed;
    look(&made)
}

#[test]
fn a_tree_that_is_not_the_signed_diff_on_the_later_base_is_found_from_the_trees() {
    let blob = |text: &str| oid_of("blob", text.as_bytes());
    let file = |name: &str, text: &str| entry("100644", name, &blob(text));
    let sources = |files: &[Vec<u8>]| {
        let source = files.concat();
        (entry("40000", "src", &oid_of("tree", &source)), source)
    };
    // As it should be, the root is believed, as far as the signed tests go.
    let honest = [file("0", "0"), file("one", "one"), file("two", "two")];
    let (root, source) = sources(&honest);
    assert_eq!(oid_of("tree", &root), tree("two on one"));
    let report = forged(root, &[source]);
    let link = report
        .links
        .iter()
        .find(|link| link.name == LinkName::Revision);
    assert!(link.unwrap().says.contains("by its trees"), "{link:?}");
    let mut lies: Vec<(Vec<u8>, Vec<Vec<u8>>)> = Vec::new();
    for files in [
        // What landed before is taken back, as a squash from a stale base does.
        vec![file("0", "0"), file("two", "two")],
        // Another text, another mode, one file more, and none at all.
        vec![file("0", "0"), file("one", "one"), file("two", "evil")],
        vec![
            file("0", "0"),
            file("one", "one"),
            entry("100755", "two", &blob("two")),
        ],
        vec![
            file("0", "0"),
            file("evil", "evil"),
            file("one", "one"),
            file("two", "two"),
        ],
        vec![file("0", "0"), file("one", "one")],
        // Not as git writes it: a name twice, which tools read in different ways.
        vec![
            file("0", "0"),
            file("one", "one"),
            file("two", "two"),
            file("two", "evil"),
        ],
    ] {
        let (root, source) = sources(&files);
        lies.push((root, vec![source]));
    }
    // A directory with nothing in it, which no diff of files shows.
    let (root, source) = sources(&honest);
    let empty = entry("40000", "hidden", &oid_of("tree", b""));
    lies.push(([empty, root.clone()].concat(), vec![source, Vec::new()]));
    // A tree that is not in the bundle.
    lies.push((root, Vec::new()));
    for (root, more) in lies {
        let broken = forged(root, &more)
            .first_broken
            .expect("the lie was believed");
        assert_eq!(broken.name, LinkName::Revision, "{}", broken.says);
    }
}

#[test]
fn every_lie_about_the_tests_there_breaks_the_tests() {
    broken(LinkName::Tests, |made| {
        made.tested().tests = TestVerdict::Failed
    });
    broken(LinkName::Tests, |made| {
        made.tested().tests = TestVerdict::NotConfigured
    });
    // Jobs of the commit that people saw, on the base that they saw.
    broken(LinkName::Tests, |made| {
        let Body::TestsCompleted(seen) = &made
            .world
            .find(|body| matches!(body, Body::TestsCompleted(_)))
            .body
        else {
            unreachable!()
        };
        let (head, base) = (seen.head, seen.base);
        let tested = made.tested();
        tested.head = head;
        tested.base = base;
    });
    broken(LinkName::Tests, |made| {
        made.tested().report = Digest::of(b"[\"no findings\"]");
    });
    // As if it had been tested with a batch whose end does not stand on it.
    broken(LinkName::Tests, |made| {
        let entry = made.prepared;
        made.tested().with = Some(entry);
    });
    let made = carried(Carry::SameDiff);
    let mut bundle = made.world.seal(made.about());
    bundle.entries.retain(|entry| entry.index != made.tested);
    let bytes = bundle.to_bytes().unwrap();
    let report = verify(&bytes, &made.world.genesis(), &subject(&made.about())).unwrap();
    assert_eq!(report.first_broken.unwrap().name, LinkName::Tests);
}

#[test]
fn an_approval_for_its_exact_base_does_not_carry() {
    broken(LinkName::Approvals, |made| {
        let event = made.world.events.iter_mut().rev().find(|event| {
            matches!(&event.body, Body::ApprovalGiven(given)
                if given.statement.carry == Carry::SameDiff)
        });
        // The last one is the first change's; what carried the second stands before it.
        let last = event.unwrap().index;
        let index = made
            .world
            .events
            .iter()
            .filter(|event| event.index < last)
            .rfind(|event| {
                matches!(&event.body, Body::ApprovalGiven(given)
                    if given.statement.carry == Carry::SameDiff)
            })
            .unwrap()
            .index;
        let Body::ApprovalGiven(given) = made.body(index) else {
            unreachable!()
        };
        given.statement.carry = Carry::Exact;
        let statement = given.statement.clone();
        // She signed it so herself.
        let envelope = made.world.sign_approval(&statement);
        let Body::ApprovalGiven(given) = made.body(index) else {
            unreachable!()
        };
        given.envelope = envelope;
    });
}
