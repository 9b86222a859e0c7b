//! Every type of event has its sentence; one snapshot holds them all.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use portcullis_model::event::*;
use portcullis_model::manifest::{Activation, Group, Human, PolicyFiles};
use portcullis_model::statement::{
    Approval, BreakerScope, EntryRange, Envelope, EnvelopeSignature, KnownBy, KnownPoint,
    LedgerPoint, Output, Restoration,
};
use portcullis_model::task::{Budgets, Capabilities, Target};
use portcullis_model::{
    Cause, Containment, Digest, GitOid, Party, Principal, PublicKey, Scope, Task, TaskId, Timestamp,
};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN76zuqnjypL54/w4763l7q1Sn3IBYHptJ5wcYfEWkzI";

fn oid(digit: &str) -> GitOid {
    digit.repeat(40).parse().unwrap()
}

fn digest(of: &str) -> Digest {
    Digest::of(of.as_bytes())
}

fn envelope() -> Envelope {
    Envelope {
        payload_type: "x".into(),
        payload: String::new(),
        signatures: vec![EnvelopeSignature {
            keyid: "k".into(),
            sig: String::new(),
        }],
    }
}

fn decision() -> DecisionRecord {
    DecisionRecord {
        policy: digest("policy"),
        at: 3,
        rules: vec!["default.cedar:12 allow".into()],
    }
}

fn change_subject() -> ApprovalSubject {
    ApprovalSubject::Change {
        change: ChangeId(7),
        revision: 2,
        repository: "shop".parse().unwrap(),
        branch: "main".into(),
        base: oid("1"),
        head: oid("2"),
        tree: oid("3"),
        manifest: digest("manifest"),
    }
}

fn approval(subject: ApprovalSubject, carry: Carry) -> Approval {
    Approval {
        ledger: LedgerPoint {
            origin: "log".into(),
            size: 9,
            root: digest("root"),
        },
        request: RequestId(11),
        subject,
        task: None,
        checks: None,
        policy: digest("policy"),
        shown: digest("shown"),
        count: 1,
        carry,
        approver: "ada".parse().unwrap(),
        key_class: KeyClass::Software,
        expires_index: 99,
        expires: Timestamp::from_ms(1_000),
        nonce: "00".repeat(16),
    }
}

fn task() -> Task {
    Task {
        windows: Default::default(),
        together: false,
        version: 1,
        origin: "log".into(),
        text: digest("text"),
        source: None,
        agent: "fixer".parse().unwrap(),
        targets: vec![Target {
            repository: "shop".parse().unwrap(),
            branch: "main".into(),
            base: oid("1"),
            scope: Scope::over(&["src/**".into()]),
        }],
        capabilities: Capabilities::default(),
        budgets: Budgets::default(),
        containment: Containment::Contained,
        allowed_gaps: BTreeSet::new(),
        change: None,
        not_before: Timestamp::from_ms(0),
        expires: Timestamp::from_ms(1),
        nonce: "00".repeat(16),
        signer: "ada".parse().unwrap(),
    }
}

fn genesis() -> GenesisCreated {
    let key: PublicKey = KEY.parse().unwrap();
    GenesisCreated {
        created: Timestamp::from_ms(0),
        origin: "example.com/log".into(),
        trust_domain: "example.com".into(),
        log_key: key.clone(),
        authority: String::new(),
        quorum: 1,
        solo: true,
        key_floor: KeyFloor::default(),
        fold_version: 1,
        humans: vec![Human {
            id: "ada".parse().unwrap(),
            keys: vec![key],
            administrator: true,
            profile: None,
        }],
        groups: Vec::new(),
        agents: Vec::new(),
        services: Vec::new(),
        hosts: Vec::new(),
        environments: Vec::new(),
        repositories: Vec::new(),
        endpoints: Vec::new(),
        policy: PolicyFiles {
            digest: digest("policy"),
            files: BTreeMap::new(),
        },
    }
}

/// At least one of every type.
fn bodies() -> Vec<Body> {
    let task_id = TaskId(digest("task"));
    let why = digest("why");
    let job = JobId(20);
    let output = Output {
        name: "shop".into(),
        digest: digest("artifact"),
        size: 9,
    };
    let needed = Needed {
        humans: 1,
        parties: 1,
        key_class: KeyClass::Presence,
        administrators: false,
    };
    vec![
        genesis().into(),
        ActivationProposed {
            activation: Activation::Group(Group {
                id: "makers".parse().unwrap(),
                members: BTreeSet::new(),
            }),
            why,
            envelope: envelope(),
        }
        .into(),
        ActivationCompleted {
            request: RequestId(11),
        }
        .into(),
        PrincipalEnded {
            subject: Ended::AgentSuspended("fixer".parse().unwrap()),
            why,
            envelope: envelope(),
        }
        .into(),
        TaskAccepted {
            task: task_id,
            payload: task(),
            envelope: envelope(),
            decision: decision(),
        }
        .into(),
        RunStarted {
            task: task_id,
            agent: "fixer".parse().unwrap(),
            host: "local".parse().unwrap(),
            run_key: "key".into(),
            gaps: ["memory-limit".to_owned()].into(),
            deadline: Timestamp::from_ms(3_600_000),
            leases: vec![LeaseKind::Identity, LeaseKind::Git("shop".parse().unwrap())],
            envelope: envelope(),
            decision: decision(),
        }
        .into(),
        RunEnded {
            run: RunId(5),
            end: RunEnd::Exited { status: 0 },
            envelope: None,
        }
        .into(),
        RunEnded {
            run: RunId(5),
            end: RunEnd::Denials,
            envelope: None,
        }
        .into(),
        RequestDenied {
            run: Some(RunId(5)),
            action: "git.push".into(),
            resource: "repository shop ref refs/heads/main".into(),
            code: "protected-ref".into(),
            decision: decision(),
        }
        .into(),
        CallObserved {
            run: RunId(5),
            lease: LeaseKind::Endpoint("model".parse().unwrap()),
            model_asked: Some("large".into()),
            model_served: Some("small".into()),
            status: 200,
            bytes: (10, 20),
            request: None,
            answer: None,
        }
        .into(),
        CallsObserved {
            run: RunId(5),
            granted: vec![CallsGranted {
                lease: LeaseKind::Host("crates.io:443".into()),
                count: 3,
            }],
            ended: vec![CallsEnded {
                lease: LeaseKind::Host("crates.io:443".into()),
                status: 0,
                bytes: vec![(10, 0), (7, 0)],
            }],
        }
        .into(),
        PromptSeen {
            run: RunId(5),
            endpoint: "model".parse().unwrap(),
            model_asked: "large".into(),
            model_served: None,
            system: Some(digest("system")),
            tools: None,
            instructions: None,
        }
        .into(),
        TaintAdded {
            run: RunId(5),
            label: "host:crates.io:443".into(),
            origin: "GET https://crates.io/index".into(),
        }
        .into(),
        LeaseRefused {
            run: RunId(5),
            lease: LeaseKind::Host("crates.io:443".into()),
        }
        .into(),
        ChangePushed {
            change: None,
            repository: "shop".parse().unwrap(),
            branch: "main".into(),
            base: oid("1"),
            head: oid("2"),
            tree: oid("3"),
            manifest: digest("manifest"),
            diff: digest("diff"),
            files: 1,
            lines: 9,
            commits: vec![oid("2")],
            run: Some(RunId(5)),
            party: Party::default(),
            questions: 0,
            envelope: None,
            decision: decision(),
        }
        .into(),
        ChecksCompleted {
            change: ChangeId(7),
            revision: 1,
            verdict: CheckVerdict::Escalate,
            escalations: ["pipeline-edit".to_owned()].into(),
            blocks: BTreeSet::new(),
            report: digest("report"),
            configuration: digest("configuration"),
        }
        .into(),
        TestsCompleted {
            change: ChangeId(7),
            revision: 1,
            verdict: TestVerdict::Missing,
            head: Some(job),
            base: None,
            counts: TestCounts {
                passed: 3,
                failed: 0,
                missing: 1,
            },
            report: digest("report"),
        }
        .into(),
        ChangeClosed {
            change: ChangeId(7),
            why,
            envelope: envelope(),
        }
        .into(),
        JobRequested {
            kind: JobKind::Build,
            repository: "shop".parse().unwrap(),
            commit: oid("2"),
            configured_by: oid("1"),
            configuration: digest("configuration"),
            change: Some(ChangeId(7)),
        }
        .into(),
        JobClaimed {
            job,
            service: "builder".parse().unwrap(),
            envelope: envelope(),
        }
        .into(),
        JobFinished {
            job,
            outcome: JobOutcome::Succeeded,
            attestation: None,
            report: None,
            outputs: vec![output.clone()],
            envelope: None,
        }
        .into(),
        RequestOpened {
            subject: change_subject(),
            task: Some(task_id),
            checks: None,
            needed,
            party: Party::default(),
            because: vec!["default.cedar:20 ask-agents-change".into()],
            decision: decision(),
            expires: Timestamp::from_ms(1_000),
            envelope: None,
        }
        .into(),
        ApprovalGiven {
            statement: approval(change_subject(), Carry::SameDiff),
            envelope: envelope(),
        }
        .into(),
        ApprovalGiven {
            statement: approval(
                ApprovalSubject::BreakerReset {
                    scope: BreakerScope::Everywhere,
                },
                Carry::Exact,
            ),
            envelope: envelope(),
        }
        .into(),
        RequestRejected {
            request: RequestId(11),
            why,
            envelope: envelope(),
        }
        .into(),
        RequestWithdrawn {
            request: RequestId(11),
            code: "base-moved".into(),
        }
        .into(),
        EffectIntended {
            effect: Effect::Land {
                change: ChangeId(7),
                revision: 2,
                repository: "shop".parse().unwrap(),
                branch: "main".into(),
                old: oid("1"),
                new: oid("2"),
                tree: oid("3"),
                request: Some(RequestId(11)),
                prepared: None,
                together: None,
            },
            decision: Some(decision()),
        }
        .into(),
        EffectAttempted {
            effect: 30,
            attempt: 1,
        }
        .into(),
        EffectConcluded {
            effect: 30,
            outcome: EffectOutcome::Unknown,
            code: Some("remote-silent".into()),
        }
        .into(),
        LandingPrepared {
            change: ChangeId(7),
            revision: 2,
            method: LandingMethod::Squash,
            root: oid("4"),
            base: oid("4"),
            head: oid("5"),
            tree: oid("6"),
            manifest: digest("manifest"),
            commits: vec![oid("5")],
            batch: 1,
        }
        .into(),
        LandingTested {
            change: ChangeId(7),
            prepared: 31,
            with: Some(33),
            own: false,
            tests: TestVerdict::Passed,
            head: Some(job),
            base: Some(job),
            counts: TestCounts {
                passed: 4,
                failed: 0,
                missing: 0,
            },
            report: digest("report"),
            checks: CheckVerdict::Pass,
            escalations: BTreeSet::new(),
            findings: digest("findings"),
        }
        .into(),
        QueueHalted {
            repository: "shop".parse().unwrap(),
            branch: "main".into(),
            change: ChangeId(7),
            code: "landing-mismatch".into(),
            expected: oid("3").to_string(),
            found: oid("6").to_string(),
        }
        .into(),
        QueueResumed {
            repository: "shop".parse().unwrap(),
            branch: "main".into(),
            why,
            envelope: envelope(),
        }
        .into(),
        CommitsUnproven {
            repository: "shop".parse().unwrap(),
            branch: "main".into(),
            from: None,
            to: oid("4"),
            commits: 2,
        }
        .into(),
        ArtifactBuilt {
            job,
            repository: "shop".parse().unwrap(),
            commit: oid("2"),
            output,
            provenance: digest("provenance"),
        }
        .into(),
        ReleaseAdmitted {
            artifact: portcullis_model::ArtifactId(40),
            environment: "production".parse().unwrap(),
            request: Some(RequestId(11)),
            changes: vec![ChangeId(7)],
            agent_work: true,
            verification: digest("verification"),
            decision: decision(),
        }
        .into(),
        ReleaseRevoked {
            release: ReleaseId(41),
            why,
            envelope: envelope(),
        }
        .into(),
        RolloutStarted {
            release: ReleaseId(41),
            environment: "production".parse().unwrap(),
            stable: Some(ReleaseId(31)),
            canary: true,
            seed: 1,
            epoch: 2,
        }
        .into(),
        RolloutStepped {
            rollout: RolloutId(42),
            step: Step::Hold,
            weight: 50,
            epoch: 2,
            code: "no-data".into(),
            evidence: BTreeMap::new(),
            state: serde_json::Value::Null,
            envelope: None,
        }
        .into(),
        RolloutEnded {
            rollout: RolloutId(42),
            outcome: RolloutOutcome::RolledBack,
            code: "harm".into(),
            envelope: None,
        }
        .into(),
        EnvironmentReverted {
            environment: "production".parse().unwrap(),
            to: Some(ReleaseId(31)),
            epoch: 4,
            why,
            envelope: Some(envelope()),
        }
        .into(),
        BreakerTripped {
            scope: BreakerScope::Agent("fixer".parse().unwrap()),
            why,
            revert: true,
            envelope: Some(envelope()),
        }
        .into(),
        BreakerReset {
            request: RequestId(11),
        }
        .into(),
        RunCheckpointed {
            run: RunId(11),
            number: 3,
            manifest: why,
            entries: 12,
            bytes: 3_456,
        }
        .into(),
        RunReviewed {
            run: RunId(11),
            window: 2,
            causes: [ReviewCause::Window, ReviewCause::Denials].into(),
            taint: Default::default(),
            stop: Some(Stop {
                needed: Needed {
                    humans: 1,
                    parties: 1,
                    key_class: KeyClass::Software,
                    administrators: false,
                },
                because: vec!["default.cedar:1 run-denied-again".into()],
            }),
            decision: decision(),
        }
        .into(),
        RunResumed {
            run: RunId(11),
            request: RequestId(12),
        }
        .into(),
        IncidentOpened {
            code: "effect-unknown".into(),
            about: Some(30),
            facts: [("attempts".to_owned(), "3".to_owned())].into(),
        }
        .into(),
        ServerStarted {
            program: "0.1.0".into(),
            fold_version: 1,
            found: LedgerPoint {
                origin: "log".into(),
                size: 50,
                root: digest("root"),
            },
            store: None,
        }
        .into(),
        LedgerRestored {
            restoration: Restoration {
                from: LedgerPoint {
                    origin: "log".into(),
                    size: 25,
                    root: digest("root"),
                },
                known: vec![KnownPoint {
                    by: KnownBy::Held,
                    size: 40,
                    root: Some(digest("held")),
                }],
                lost: Some(EntryRange { from: 25, to: 39 }),
            },
            why,
            envelope: envelope(),
        }
        .into(),
    ]
}

fn event(index: u64, body: Body) -> Event {
    Event {
        index,
        time: Timestamp::from_ms(1_795_250_000_000),
        actor: Actor::unsigned(Principal::Service("control".parse().unwrap())),
        cause: Cause::default(),
        mode: Mode::Enforce,
        containment: None,
        body,
    }
}

#[test]
fn every_type_of_event_has_its_sentence() {
    let bodies = bodies();
    let told: BTreeSet<&str> = bodies.iter().map(Body::type_name).collect();
    let known: BTreeSet<&str> = Body::TYPES.iter().map(|(name, _)| *name).collect();
    assert_eq!(told, known, "a type without an example here");
    let sentences: Vec<String> = bodies
        .into_iter()
        .enumerate()
        .map(|(index, body)| {
            let name = body.type_name();
            format!("{name}: {}", sentence(&event(index as u64, body)))
        })
        .collect();
    insta::assert_snapshot!(sentences.join("\n"));
}

#[test]
fn the_proof_the_cause_and_the_mode_are_told() {
    let mut told = event(
        9,
        RequestWithdrawn {
            request: RequestId(1),
            code: "closed".into(),
        }
        .into(),
    );
    let key: PublicKey = KEY.parse().unwrap();
    told.actor = Actor::signed(
        Principal::Human("ada".parse().unwrap()),
        key.fingerprint().to_owned(),
        KeyClass::Presence,
    );
    told.cause.agents.insert("fixer".parse().unwrap());
    told.cause.humans.insert("ada".parse().unwrap());
    told.cause.run = Some(RunId(5));
    told.mode = Mode::Observe;
    let said = sentence(&told);
    assert!(
        said.contains("human:ada (hardware key, touched SHA256:"),
        "{said}"
    );
    assert!(said.contains("observed only"), "{said}");
    assert!(said.ends_with("behind it: agent:fixer in run-5"), "{said}");
    told.actor.host = Some("local".parse().unwrap());
    told.containment = Some(Containment::Contained);
    assert!(sentence(&told).contains("via host local"));
}
