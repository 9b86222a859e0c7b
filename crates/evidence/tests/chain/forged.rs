//! A server that lies and seals its lie: every entry is in its tree, its checkpoint is signed with
//! the log's key, and still a link breaks, because somebody else's signature is missing.

use portcullis_evidence::chain::{About, Auditor, LinkName, Report};
use portcullis_evidence::dsse::{self, PAYLOAD_IN_TOTO};
use portcullis_evidence::intoto::{Predicate, ResourceDescriptor, Statement};
use portcullis_evidence::test_result::{TestOutcome, TestResult};
use portcullis_model::event::{Body, Effect, EffectOutcome};
use portcullis_model::manifest::{Activation, Human};
use portcullis_model::statement::{Approval, ApprovalSubject};
use portcullis_model::{
    Actor, ArtifactId, Digest, Event, KeyClass, Mode, Party, ReleaseId, Timestamp, canonical,
};

use crate::world::{NOW, Options, World, key, principal, signer};
use crate::{released, report};

type Made = (World, ArtifactId, ReleaseId);

fn made() -> Made {
    released(&Options::default(), &["dan"])
}

fn verdict((world, artifact, release): &Made) -> Report {
    report(world, &world.about(*artifact, "production", Some(*release)))
}

fn audit(world: &World) -> Result<(), (u64, portcullis_model::Refusal)> {
    let mut auditor = Auditor::new();
    let blob = |digest: &Digest| world.blobs.get(digest).map(|bytes| bytes.0.clone());
    for event in &world.events {
        auditor
            .take(event, &blob)
            .map_err(|refusal| (event.index, refusal))?;
    }
    Ok(())
}

/// Breaks the world by `lie`, seals it, and looks which link breaks first.
fn first_broken(lie: impl FnOnce(&mut Made)) -> LinkName {
    let mut made = made();
    lie(&mut made);
    let report = verdict(&made);
    report.first_broken.expect("the lie was believed").name
}

fn approval_of(made: &mut Made, change: bool) -> &mut Event {
    made.0.find(|body| {
        matches!(body, Body::ApprovalGiven(body) if match body.statement.subject {
            ApprovalSubject::Change { .. } => change,
            ApprovalSubject::Release { .. } => !change,
            _ => false,
        })
    })
}

/// Replaces an approval by another statement, genuinely signed by whom it names.
fn sign_anew(made: &mut Made, change: bool, edit: impl FnOnce(&mut Approval)) {
    let event = approval_of(made, change);
    let index = event.index;
    let Body::ApprovalGiven(body) = event.body.clone() else {
        unreachable!()
    };
    let mut statement = body.statement;
    edit(&mut statement);
    let envelope = made.0.sign_approval(&statement);
    let actor = made.0.person(statement.approver.as_str());
    let event = &mut made.0.events[usize::try_from(index).unwrap()];
    event.actor = actor;
    event.body = portcullis_model::event::ApprovalGiven {
        statement,
        envelope,
    }
    .into();
}

#[test]
fn an_honest_ledger_passes_the_auditor() {
    audit(&made().0).unwrap();
}

#[test]
fn a_task_wider_than_what_was_signed() {
    let lie = |made: &mut Made| {
        let event = made.0.find(|body| matches!(body, Body::TaskAccepted(_)));
        let Body::TaskAccepted(body) = &mut event.body else {
            unreachable!()
        };
        body.payload.targets[0].scope.max_files = 9_999;
        let bytes = canonical::to_vec(&body.payload).unwrap();
        use base64::Engine as _;
        body.envelope.payload = base64::engine::general_purpose::STANDARD.encode(&bytes);
        body.task = portcullis_model::TaskId(Digest::of(&bytes));
    };
    assert_eq!(first_broken(lie), LinkName::Task);
    let mut made = made();
    lie(&mut made);
    assert_eq!(
        audit(&made.0).unwrap_err().1.code,
        "signature-does-not-verify"
    );
}

#[test]
fn a_run_that_its_host_did_not_sign_for() {
    let first = first_broken(|made| {
        let event = made.0.find(|body| matches!(body, Body::RunStarted(_)));
        let Body::RunStarted(body) = &mut event.body else {
            unreachable!()
        };
        body.run_key = "another".to_owned();
    });
    assert_eq!(first, LinkName::Run);
    // A self-run host's containment told as a managed host's.
    let options = Options {
        class: portcullis_model::manifest::HostClass::SelfRun,
        ..Options::default()
    };
    let mut made = released(&options, &["dan"]);
    let honest = verdict(&made);
    assert!(honest.holds());
    assert!(
        honest
            .does_not_prove
            .iter()
            .any(|says| says.contains("those hosts' claim"))
    );
    made.0
        .find(|body| matches!(body, Body::RunStarted(_)))
        .containment = Some(portcullis_model::Containment::Contained);
    assert_eq!(verdict(&made).first_broken.unwrap().name, LinkName::Run);
}

#[test]
fn a_push_with_another_tree_or_without_its_signer() {
    let edit = |edit: fn(&mut portcullis_model::event::ChangePushed)| {
        first_broken(move |made| {
            let event = made.0.find(|body| matches!(body, Body::ChangePushed(_)));
            let Body::ChangePushed(body) = &mut event.body else {
                unreachable!()
            };
            edit(body);
        })
    };
    assert_eq!(
        edit(|body| body.tree = "1".repeat(40).parse().unwrap()),
        LinkName::Revision
    );
    assert_eq!(
        edit(|body| body.head = "1".repeat(40).parse().unwrap()),
        LinkName::Revision
    );
    assert_eq!(
        edit(|body| {
            body.party.0.remove(&principal("human:ada"));
        }),
        LinkName::Revision
    );
    assert_eq!(
        edit(|body| {
            body.commits.pop();
        }),
        LinkName::Revision
    );
}

fn forge<P: Predicate>(made: &mut Made, old: Digest, statement: &Statement<P>, by_builder: bool) {
    let signer = if by_builder { signer(11) } else { signer(99) };
    let envelope = dsse::sign(PAYLOAD_IN_TOTO, statement.to_json().unwrap(), &signer).unwrap();
    made.0.swap_blob(&old, &envelope.to_json().unwrap());
}

fn finished(made: &Made, kind: portcullis_model::event::JobKind) -> Digest {
    let job = made
        .0
        .state
        .jobs
        .values()
        .rfind(|job| job.kind == kind)
        .unwrap();
    job.finished().unwrap().attestation.unwrap()
}

#[test]
fn test_results_by_another_key_or_exchanged_after_the_service_signed() {
    use portcullis_model::event::JobKind;
    for by_builder in [false, true] {
        let first = first_broken(|made| {
            let commit = made
                .0
                .state
                .jobs
                .values()
                .rfind(|job| job.kind == JobKind::Test)
                .unwrap()
                .commit
                .clone();
            let result = TestResult {
                result: TestOutcome::Passed,
                configuration: Vec::new(),
                url: None,
                passed_tests: vec!["a".to_owned(), "b".to_owned(), "d".to_owned()],
                warned_tests: Vec::new(),
                failed_tests: Vec::new(),
            };
            let subject = vec![ResourceDescriptor::git_commit(
                "portcullis:repository:shop",
                &commit,
            )];
            let statement = Statement::new(subject, result).unwrap();
            let old = finished(made, JobKind::Test);
            forge(made, old, &statement, by_builder);
        });
        // The service's own signature names the digest of the attestation that it delivered.
        assert_eq!(first, LinkName::Tests);
    }
}

#[test]
fn approvals_that_do_not_count() {
    type Edit = Box<dyn FnOnce(&mut Approval)>;
    let cases: Vec<(&str, Edit)> = vec![
        (
            "the task's signer",
            Box::new(|said| said.approver = "ada".parse().unwrap()),
        ),
        (
            "somebody unknown",
            Box::new(|said| said.approver = "eve".parse().unwrap()),
        ),
        (
            "another head",
            Box::new(|said| {
                if let ApprovalSubject::Change { head, .. } = &mut said.subject {
                    *head = "2".repeat(40).parse().unwrap();
                }
            }),
        ),
        (
            "other checks",
            Box::new(|said| said.checks = Some(Digest::of(b"other"))),
        ),
        (
            "another policy",
            Box::new(|said| said.policy = Digest::of(b"other")),
        ),
        (
            "another ledger",
            Box::new(|said| said.ledger.origin = "example.org/log".to_owned()),
        ),
        (
            "expired by time",
            Box::new(|said| said.expires = Timestamp::from_ms(NOW)),
        ),
        ("expired by index", Box::new(|said| said.expires_index = 1)),
        ("more times", Box::new(|said| said.count = 2)),
        (
            "a class that its key has not",
            Box::new(|said| said.key_class = KeyClass::Presence),
        ),
        (
            "another request",
            Box::new(|said| said.request = portcullis_model::RequestId(1)),
        ),
    ];
    for (what, edit) in cases {
        let first = first_broken(|made| sign_anew(made, true, edit));
        assert!(
            matches!(first, LinkName::Approvals | LinkName::Keys),
            "{what}: {first}"
        );
    }
    let first = first_broken(|made| {
        sign_anew(made, false, |said| {
            if let ApprovalSubject::Release { digest, .. } = &mut said.subject {
                *digest = Digest::of(b"another app");
            }
        })
    });
    assert_eq!(first, LinkName::Admission);
}

#[test]
fn an_approval_whose_class_the_server_raised() {
    let mut made = made();
    approval_of(&mut made, true).actor.key_class = Some(KeyClass::Verified);
    assert_eq!(
        verdict(&made).first_broken.unwrap().name,
        LinkName::Approvals
    );
    assert_eq!(audit(&made.0).unwrap_err().1.code, "actor-not-proved");
}

#[test]
fn a_landing_of_something_else_or_of_nothing() {
    let first = first_broken(|made| {
        let event = made.0.find(|body| matches!(body, Body::EffectConcluded(_)));
        let Body::EffectConcluded(body) = &mut event.body else {
            unreachable!()
        };
        body.outcome = EffectOutcome::Failed;
    });
    assert_eq!(first, LinkName::Coverage);
    let first = first_broken(|made| {
        let event = made.0.find(|body| matches!(body, Body::EffectIntended(_)));
        let Body::EffectIntended(body) = &mut event.body else {
            unreachable!()
        };
        let Effect::Land { tree, .. } = &mut body.effect else {
            unreachable!()
        };
        *tree = "3".repeat(40).parse().unwrap();
    });
    assert_eq!(first, LinkName::Revision);
    let first = first_broken(|made| {
        let event = made.0.find(|body| matches!(body, Body::EffectIntended(_)));
        event.actor = Actor::unsigned(principal("service:builder"));
    });
    assert_eq!(first, LinkName::Landing);
}

#[test]
fn a_provenance_that_names_too_little() {
    use portcullis_model::event::JobKind;
    let first = first_broken(|made| {
        let old = finished(made, JobKind::Build);
        let artifact = made.0.state.artifacts[&made.1].clone();
        let mut bare = World::new(&Options::default());
        bare.base = made.0.base.clone();
        let statement = bare.provenance(&artifact.commit, &artifact.output.digest);
        forge(made, old, &statement, true);
    });
    assert_eq!(first, LinkName::Build);
}

#[test]
fn an_admission_without_a_human_or_with_other_content() {
    let edit = |edit: fn(&mut portcullis_model::event::ReleaseAdmitted)| {
        first_broken(move |made| {
            let event = made.0.find(|body| matches!(body, Body::ReleaseAdmitted(_)));
            let Body::ReleaseAdmitted(body) = &mut event.body else {
                unreachable!()
            };
            edit(body);
        })
    };
    assert_eq!(edit(|body| body.request = None), LinkName::Admission);
    assert_eq!(edit(|body| body.changes.clear()), LinkName::Admission);
    assert_eq!(edit(|body| body.agent_work = false), LinkName::Admission);
    assert_eq!(
        edit(|body| body.decision.policy = Digest::of(b"none")),
        LinkName::Policy
    );
    assert_eq!(
        edit(|body| body.environment = "staging".parse().unwrap()),
        LinkName::Admission
    );
}

#[test]
fn a_person_let_in_without_a_quorum() {
    // The approval of dan's record is by its author.
    let first = first_broken(|made| {
        let index = made
            .0
            .find(|body| matches!(body, Body::ApprovalGiven(_)))
            .index;
        let Body::ApprovalGiven(body) = made.0.events[usize::try_from(index).unwrap()].body.clone()
        else {
            unreachable!()
        };
        let mut statement = body.statement;
        statement.approver = "ada".parse().unwrap();
        let envelope = made.0.sign_approval(&statement);
        let actor = made.0.person("ada");
        let event = &mut made.0.events[usize::try_from(index).unwrap()];
        event.actor = actor;
        event.body = portcullis_model::event::ApprovalGiven {
            statement,
            envelope,
        }
        .into();
    });
    assert_eq!(first, LinkName::Keys);
    // The record is another one than its author signed.
    let first = first_broken(|made| {
        let event = made
            .0
            .find(|body| matches!(body, Body::ActivationProposed(_)));
        let Body::ActivationProposed(body) = &mut event.body else {
            unreachable!()
        };
        body.activation = Activation::Human(Human {
            id: "dan".parse().unwrap(),
            keys: vec![key(4).public_key().clone()],
            administrator: true,
            profile: None,
        });
    });
    assert_eq!(first, LinkName::Keys);
}

#[test]
fn keys_end_when_their_holder_does() {
    let mut world = World::new(&Options::default());
    world.hire("dan");
    let base = world.base.clone();
    let (change, _, task) = world.change(&base, "one");
    world.land(change, Some(task), &["dan"]);
    // Retired afterwards: what was approved before stands.
    let command = portcullis_model::statement::Command::RetireHuman {
        human: "dan".parse().unwrap(),
        why: Digest::of(b"left"),
    };
    let (actor, envelope) = world.command("human:ada", command);
    let body = portcullis_model::event::PrincipalEnded {
        subject: portcullis_model::event::Ended::HumanRetired("dan".parse().unwrap()),
        why: Digest::of(b"left"),
        envelope,
    };
    let ended = world.record(actor, body);
    let commit = world.state.changes[&change].latest().pushed.head.clone();
    let about = About::Commit {
        repository: crate::world::repository(),
        commit,
    };
    assert!(report(&world, &about).holds());
    audit(&world).unwrap();
    // Moved before the approval, it does not.
    let ended = usize::try_from(ended).unwrap();
    let mut event = world.events.remove(ended);
    event.time = Timestamp::from_ms(NOW + 1);
    let place = 4;
    world.events.insert(place, event);
    for (index, event) in (0..).zip(&mut world.events) {
        event.index = index;
    }
    assert!(audit(&world).is_err());
}

#[test]
fn work_that_was_only_observed_is_never_called_enforced() {
    let options = Options {
        mode: Mode::Observe,
        ..Options::default()
    };
    let made = released(&options, &["dan"]);
    let report = verdict(&made);
    assert!(report.holds(), "{:?}", report.first_broken);
    assert_eq!(report.source_level.level, 2);
    assert!(report.source_level.why_not_more.contains("not enforced"));
    let said: Vec<_> = report
        .links
        .iter()
        .filter(|link| link.says.contains("not in enforce mode"))
        .collect();
    assert_eq!(said.len(), 1);
    assert!(
        report
            .does_not_prove
            .iter()
            .any(|says| says.contains("rules were enforced"))
    );
}

#[test]
fn levels_count_people_without_a_hand_in_it() {
    assert_eq!(verdict(&made()).source_level.level, 3);
    let two = released(&Options::default(), &["dan", "ben"]);
    assert_eq!(verdict(&two).source_level.level, 4);
    assert_eq!(verdict(&two).source_level.why_not_more, "");
    // A person's own change takes one more person.
    let mut world = World::new(&Options::default());
    let base = world.base.clone();
    let (change, commit) = world.own_change("ada", &base, "own");
    world.land(change, None, &["ben"]);
    audit(&world).unwrap();
    let about = About::Commit {
        repository: crate::world::repository(),
        commit,
    };
    let own = report(&world, &about);
    assert!(own.holds(), "{:?}", own.first_broken);
    assert_eq!(own.source_level.level, 4);
    // The push that she signed was of another commit.
    let event = world.find(|body| matches!(body, Body::ChangePushed(_)));
    let Body::ChangePushed(body) = &mut event.body else {
        unreachable!()
    };
    let envelope = body.envelope.as_mut().unwrap();
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let text = String::from_utf8(base64.decode(&envelope.payload).unwrap()).unwrap();
    envelope.payload = base64.encode(text.replace("refs/for/main", "refs/for/side"));
    assert_eq!(
        report(&world, &about).first_broken.unwrap().name,
        LinkName::Revision
    );
    assert!(audit(&world).is_err());
}

#[test]
fn one_person_alone_is_told_as_such() {
    let options = Options {
        solo: true,
        ..Options::default()
    };
    let made = released(&options, &["ada"]);
    let report = verdict(&made);
    assert!(report.holds(), "{:?}", report.first_broken);
    assert!(report.self_approved);
    assert_eq!(report.source_level.level, 3);
    assert!(
        report
            .proves
            .iter()
            .any(|says| says.starts_with("Self-approved"))
    );
    assert!(!verdict(&self::made()).self_approved);
}

#[test]
fn commits_past_the_gate_take_a_human() {
    let mut world = World::new(&Options::default());
    let base = world.base.clone();
    let (change, head, task) = world.change(&base, "one");
    world.land(change, Some(task), &["ben"]);
    let past = "4".repeat(40).parse::<portcullis_model::GitOid>().unwrap();
    let request =
        portcullis_model::RequestId(world.control(portcullis_model::event::CommitsUnproven {
            repository: crate::world::repository(),
            branch: "main".to_owned(),
            from: Some(head.clone()),
            to: past.clone(),
            commits: 1,
        }));
    let subject = ApprovalSubject::Unproven {
        repository: crate::world::repository(),
        branch: "main".to_owned(),
        from: head,
        to: past.clone(),
    };
    let (second, head, task) = world.change(&past, "two");
    world.land(second, Some(task), &["ben"]);
    let artifact = world.build(&head);
    let about = world.about(artifact, "production", None);
    let before = report(&world, &about);
    assert_eq!(before.first_broken.unwrap().name, LinkName::Coverage);
    world.approve("ben", request, subject, None, None);
    let after = report(&world, &about);
    assert!(after.holds(), "{:?}", after.first_broken);
    assert_eq!(after.source_level.level, 1);
    // An entry left out leaves a gap.
    let mut bundle = world.seal(about.clone());
    bundle
        .entries
        .retain(|entry| !entry.bytes.contains("commits.unproven"));
    let gone = portcullis_evidence::chain::verify(
        &bundle.to_bytes().unwrap(),
        &world.genesis(),
        &crate::subject(&about),
    )
    .unwrap();
    assert_eq!(gone.first_broken.unwrap().name, LinkName::Coverage);
}

#[test]
fn a_party_cannot_shrink_on_the_way_to_its_request() {
    let first = first_broken(|made| {
        let event = made.0.find(|body| {
            matches!(body, Body::RequestOpened(body) if matches!(body.subject, ApprovalSubject::Change { .. }))
        });
        let Body::RequestOpened(body) = &mut event.body else {
            unreachable!()
        };
        body.party = Party::default();
    });
    assert_eq!(first, LinkName::Approvals);
}

#[test]
fn a_second_release_covers_what_came_since_the_first() {
    let mut world = World::new(&Options::default());
    let base = world.base.clone();
    let (change, first, task) = world.change(&base, "one");
    world.land(change, Some(task), &["ben"]);
    let artifact = world.build(&first);
    let one = world.admit(artifact, "production", Some("ben"));
    world.complete(one);
    let (change, second, task) = world.change(&first, "two");
    world.land(change, Some(task), &["ben"]);
    let artifact = world.build(&second);
    let two = world.admit(artifact, "production", Some("ben"));
    audit(&world).unwrap();
    let about = |previous| About::Artifact {
        digest: world.state.artifacts[&artifact].output.digest,
        environment: Some("production".parse().unwrap()),
        previous,
        release: Some(two),
    };
    // The file may not hold commits that no link looks at, so those of the first release go.
    let verified = |previous| {
        let about = about(previous);
        let mut bundle = world.seal(about.clone());
        loop {
            let bytes = bundle.to_bytes().unwrap();
            let report = portcullis_evidence::chain::verify(
                &bytes,
                &world.genesis(),
                &crate::subject(&about),
            )
            .unwrap();
            match &report.first_broken {
                Some(link) if link.name == LinkName::Bundle => {
                    let named = |id: &str| link.says.contains(id);
                    bundle.blobs.retain(|digest, _| !named(&digest.to_string()));
                    bundle.objects.retain(|oid, _| !named(oid.as_str()));
                }
                _ => return report,
            }
        }
    };
    let report = verified(Some(one));
    assert!(report.holds(), "{:?}", report.first_broken);
    assert!(
        report
            .does_not_prove
            .iter()
            .any(|says| says.contains(&one.to_string()))
    );
    let landed: Vec<_> = report
        .links
        .iter()
        .filter(|link| link.name == LinkName::Landing)
        .collect();
    assert_eq!(landed.len(), 1);
    // Told to be the first, it contains more than its admission says.
    assert_eq!(
        verified(None).first_broken.unwrap().name,
        LinkName::Admission
    );
    // A release can't stand on itself.
    assert_eq!(
        verified(Some(two)).first_broken.unwrap().name,
        LinkName::Coverage
    );
}
