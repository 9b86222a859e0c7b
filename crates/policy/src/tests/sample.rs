//! Requests to vary: each is permitted by the base as it stands.

use std::collections::BTreeSet;

use portcullis_model::event::{CheckVerdict, KeyFloor, TestVerdict};
use portcullis_model::manifest::{HostClass, Sensitivity};
use portcullis_model::statement::BreakerScope;
use portcullis_model::{Containment, GitOid, KeyClass, Mode, RequestId, RunId, TaskId, Timestamp};

use crate::action::*;
use crate::request::*;
use crate::{Approval, Approvals, Party};

pub(super) fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(super) fn genesis() -> Genesis {
    Genesis {
        solo: false,
        quorum: 1,
        key_floor: KeyFloor::default(),
    }
}

pub(super) fn around() -> Circumstances {
    Circumstances {
        caused_by: CausedBy::Itself,
        containment: None,
        mode: Mode::Enforce,
        taint: BTreeSet::new(),
        breaker: false,
        key_class: KeyClass::Presence,
        now: Timestamp::from_ms(1_800_000_000_000),
        genesis: genesis(),
    }
}

pub(super) fn human(id: &str) -> Actor {
    Actor::Human(HumanActor {
        id: id.parse().unwrap(),
        groups: BTreeSet::new(),
        administrator: false,
        active: true,
    })
}

pub(super) fn administrator(id: &str) -> Actor {
    Actor::Human(HumanActor {
        id: id.parse().unwrap(),
        groups: BTreeSet::new(),
        administrator: true,
        active: true,
    })
}

pub(super) fn agent() -> Actor {
    Actor::Agent(AgentActor {
        id: "fixer".parse().unwrap(),
        run: Some(RunId(42)),
        owner: "ada".parse().unwrap(),
        groups: BTreeSet::new(),
        active: true,
    })
}

pub(super) fn service() -> Actor {
    Actor::Service(ServiceActor {
        id: "control".parse().unwrap(),
        groups: BTreeSet::new(),
        active: true,
    })
}

pub(super) fn host() -> Actor {
    Actor::Host(HostActor {
        id: "laptop".parse().unwrap(),
        active: true,
    })
}

pub(super) fn request(actor: Actor, action: Action) -> Request {
    let containment = matches!(actor, Actor::Agent(_)).then_some(Containment::Contained);
    Request {
        actor,
        circumstances: Circumstances {
            containment,
            ..around()
        },
        action,
    }
}

pub(super) fn task() -> Option<TaskFacts> {
    Some(TaskFacts {
        id: TaskId(portcullis_model::Digest::of(b"task")),
        verified: true,
        expired: false,
        revoked: false,
        signer: "ada".to_owned(),
        capabilities: BTreeSet::new(),
        repositories: ["web".parse().unwrap()].into(),
        wider_than_agent: BTreeSet::new(),
        exhausted: BTreeSet::new(),
    })
}

pub(super) fn fixer() -> AgentTarget {
    AgentTarget {
        id: "fixer".parse().unwrap(),
        owner: "ada".parse().unwrap(),
        active: true,
        tasked_by: ["maintainers".parse().unwrap()].into(),
    }
}

pub(super) fn environment(sensitivity: Sensitivity) -> EnvironmentTarget {
    EnvironmentTarget {
        id: "shop".parse().unwrap(),
        sensitivity,
        deployers: ["ops".parse().unwrap()].into(),
    }
}

pub(super) fn approval(human: &str, party: Party, key_class: KeyClass) -> Approval {
    Approval {
        human: human.parse().unwrap(),
        party,
        key_class,
        administrator: true,
    }
}

/// An approval by someone who had no hand in it.
pub(super) fn other(human: &str, key_class: KeyClass) -> Approval {
    approval(human, Party::Other(human.to_owned()), key_class)
}

pub(super) fn going_on() -> RunContinue {
    RunContinue {
        run: RunId(42),
        agent: fixer(),
        window: 1,
        window_over: true,
        task_asks: false,
        denials: 0,
        new_taint: BTreeSet::new(),
        newly_exhausted: BTreeSet::new(),
        pushes: 0,
        calls: 0,
        approvals: Approvals::default(),
    }
}

pub(super) fn push() -> GitPush {
    GitPush {
        repository: "web".parse().unwrap(),
        reference: "refs/heads/main".to_owned(),
        task: task(),
        in_task: true,
        update: UpdateKind::FastForward,
        protected: true,
        for_review: true,
        deploys_to: Deploys::Nothing,
        paths_outside_scope: BTreeSet::new(),
        over_scope: BTreeSet::new(),
        pack_bytes: 10,
        pack_limit_bytes: 100,
        commits_in_other_names: BTreeSet::new(),
        denials_so_far: 0,
    }
}

pub(super) fn land() -> ChangeLand {
    ChangeLand {
        repository: "web".parse().unwrap(),
        reference: "refs/heads/main".to_owned(),
        change: portcullis_model::ChangeId(50),
        task: task(),
        protected: true,
        by_agent: true,
        checks: Some(CheckVerdict::Pass),
        escalations: BTreeSet::new(),
        tests: Some(TestVerdict::Passed),
        deploys_to: Deploys::Nothing,
        above_ceiling: BTreeSet::new(),
        model_changes: BTreeSet::new(),
        approvals: Approvals(vec![other("grace", KeyClass::Presence)]),
    }
}

pub(super) fn admit(sensitivity: Sensitivity) -> ReleaseAdmit {
    ReleaseAdmit {
        environment: environment(sensitivity),
        repository: "web".parse().unwrap(),
        provenance_verified: true,
        every_commit_covered: true,
        contains_agent_work: true,
        above_ceiling: BTreeSet::new(),
        canary: true,
        unproven_commits: 0,
        revoked: false,
        approvals: Approvals(vec![other("grace", KeyClass::Presence)]),
    }
}

pub(super) fn rollout(command: RolloutVerb) -> RolloutCommand {
    RolloutCommand {
        environment: environment(Sensitivity::Production),
        command,
        contains_agent_work: true,
        target_admitted: true,
        target_revoked: false,
        telemetry_reliable: true,
        thresholds_explicit: true,
        blast_radius_bounded: true,
        approvals: Approvals::default(),
    }
}

pub(super) fn inventory(operation: InventoryOperation) -> InventoryChange {
    InventoryChange {
        record: InventoryRecord::Agent(fixer()),
        operation,
        widens: BTreeSet::new(),
        touches_keys: false,
        complete: true,
        approvals: Approvals(vec![other("grace", KeyClass::Presence)]),
    }
}

pub(super) fn model_call() -> ModelCall {
    ModelCall {
        endpoint: "models".parse().unwrap(),
        model: "large".to_owned(),
        declared: true,
        task: task(),
        in_task: true,
        model_changes: BTreeSet::new(),
        secrets: BTreeSet::new(),
        kept_files: BTreeSet::new(),
    }
}

pub(super) fn connect() -> NetConnect {
    NetConnect {
        host: "crates.example.com".to_owned(),
        port: 443,
        method: "GET".to_owned(),
        path: "/index".to_owned(),
        task: task(),
        named_in_task: true,
        private_address: false,
        foreign_credential: false,
        opaque: false,
        secrets: BTreeSet::new(),
        kept_files: BTreeSet::new(),
    }
}

pub(super) fn start() -> RunStart {
    RunStart {
        agent: fixer(),
        task: task(),
        host: "laptop".parse().unwrap(),
        host_enrolled: true,
        host_class: HostClass::Managed,
        demands_managed_host: false,
        gaps: BTreeSet::new(),
    }
}

pub(super) fn approve() -> RequestApprove {
    RequestApprove {
        request: RequestId(60),
        asks: "change.land".to_owned(),
        own_party: false,
        key_class_needed: KeyClass::Presence,
        current: true,
    }
}

/// One action of each kind and class of resource, with its name for the matrix.
pub(super) fn actions() -> Vec<(&'static str, Action)> {
    let none = Approvals::default;
    let approved = || Approvals(vec![other("grace", KeyClass::Presence)]);
    let staging = Deploys::To(Sensitivity::Staging);
    let production = Deploys::To(Sensitivity::Production);
    vec![
        (
            "task.sign own agent",
            Action::TaskSign(TaskSign {
                agent: fixer(),
                repositories: BTreeSet::new(),
                wider_than_agent: BTreeSet::new(),
                life_ms: 1,
                allowed_gaps: BTreeSet::new(),
                demands_managed_host: false,
            }),
        ),
        ("run.start managed host", Action::RunStart(start())),
        (
            "run.stop",
            Action::RunStop(RunStop {
                run: RunId(42),
                agent: fixer(),
            }),
        ),
        ("run.continue quiet", Action::RunContinue(going_on())),
        (
            "run.continue denied often",
            Action::RunContinue(RunContinue {
                denials: 5,
                ..going_on()
            }),
        ),
        (
            "run.continue tainted, approved",
            Action::RunContinue(RunContinue {
                new_taint: set(&["host:example.org"]),
                approvals: Approvals(vec![other("ben", KeyClass::Software)]),
                ..going_on()
            }),
        ),
        (
            "run.continue budget used up",
            Action::RunContinue(RunContinue {
                newly_exhausted: set(&["calls"]),
                ..going_on()
            }),
        ),
        (
            "run.continue task asks",
            Action::RunContinue(RunContinue {
                task_asks: true,
                ..going_on()
            }),
        ),
        (
            "git.fetch in task",
            Action::GitFetch(GitFetch {
                repository: "web".parse().unwrap(),
                task: task(),
                in_task: true,
            }),
        ),
        (
            "git.fetch other repository",
            Action::GitFetch(GitFetch {
                repository: "pay".parse().unwrap(),
                task: task(),
                in_task: false,
            }),
        ),
        ("git.push for review", Action::GitPush(push())),
        (
            "git.push protected",
            Action::GitPush(GitPush {
                for_review: false,
                ..push()
            }),
        ),
        (
            "git.push topic",
            Action::GitPush(GitPush {
                for_review: false,
                protected: false,
                ..push()
            }),
        ),
        (
            "git.push deploying",
            Action::GitPush(GitPush {
                for_review: false,
                protected: false,
                deploys_to: production,
                ..push()
            }),
        ),
        ("model.call declared", Action::ModelCall(model_call())),
        (
            "model.call undeclared",
            Action::ModelCall(ModelCall {
                declared: false,
                ..model_call()
            }),
        ),
        ("net.connect named", Action::NetConnect(connect())),
        (
            "net.connect unnamed",
            Action::NetConnect(NetConnect {
                named_in_task: false,
                ..connect()
            }),
        ),
        (
            "net.connect private",
            Action::NetConnect(NetConnect {
                private_address: true,
                ..connect()
            }),
        ),
        (
            "lease.issue",
            Action::LeaseIssue(LeaseIssue {
                endpoint: "models".parse().unwrap(),
                task: task(),
                in_task: true,
                life_ms: 300_000,
            }),
        ),
        (
            "change.land unapproved",
            Action::ChangeLand(ChangeLand {
                approvals: none(),
                ..land()
            }),
        ),
        ("change.land approved", Action::ChangeLand(land())),
        (
            "change.land escalated",
            Action::ChangeLand(ChangeLand {
                escalations: set(&["pipeline"]),
                approvals: none(),
                ..land()
            }),
        ),
        (
            "change.land blocked",
            Action::ChangeLand(ChangeLand {
                checks: Some(CheckVerdict::Block),
                ..land()
            }),
        ),
        (
            "change.land tests failed",
            Action::ChangeLand(ChangeLand {
                tests: Some(TestVerdict::Failed),
                ..land()
            }),
        ),
        (
            "change.land to staging",
            Action::ChangeLand(ChangeLand {
                deploys_to: staging,
                approvals: none(),
                ..land()
            }),
        ),
        (
            "change.land to production",
            Action::ChangeLand(ChangeLand {
                deploys_to: production,
                approvals: none(),
                ..land()
            }),
        ),
        (
            "commit.accept",
            Action::CommitAccept(CommitAccept {
                repository: "web".parse().unwrap(),
                commit: GitOid::zero(),
                approvals: none(),
            }),
        ),
        ("request.approve", Action::RequestApprove(approve())),
        (
            "request.reject",
            Action::RequestReject(RequestReject {
                request: RequestId(60),
                asks: "change.land".to_owned(),
                own_party: false,
            }),
        ),
        (
            "job.run build landed",
            Action::JobRun(job(JobPurpose::Build, true)),
        ),
        (
            "job.run build unlanded",
            Action::JobRun(job(JobPurpose::Build, false)),
        ),
        ("job.run test", Action::JobRun(job(JobPurpose::Test, false))),
        (
            "release.admit staging",
            Action::ReleaseAdmit(ReleaseAdmit {
                approvals: none(),
                ..admit(Sensitivity::Staging)
            }),
        ),
        (
            "release.admit production unapproved",
            Action::ReleaseAdmit(ReleaseAdmit {
                approvals: none(),
                ..admit(Sensitivity::Production)
            }),
        ),
        (
            "release.admit production approved",
            Action::ReleaseAdmit(admit(Sensitivity::Production)),
        ),
        (
            "release.revoke",
            Action::ReleaseRevoke(ReleaseRevoke {
                release: portcullis_model::ReleaseId(70),
                environment: environment(Sensitivity::Production),
            }),
        ),
        (
            "rollout.command step",
            Action::RolloutCommand(rollout(RolloutVerb::Step)),
        ),
        (
            "rollout.command rollback",
            Action::RolloutCommand(rollout(RolloutVerb::Rollback)),
        ),
        (
            "rollout.command blind rollback",
            Action::RolloutCommand(RolloutCommand {
                telemetry_reliable: false,
                ..rollout(RolloutVerb::Rollback)
            }),
        ),
        (
            "inventory.change add unapproved",
            Action::InventoryChange(InventoryChange {
                approvals: none(),
                ..inventory(InventoryOperation::Add)
            }),
        ),
        (
            "inventory.change add approved",
            Action::InventoryChange(inventory(InventoryOperation::Add)),
        ),
        (
            "inventory.change suspend",
            Action::InventoryChange(InventoryChange {
                approvals: none(),
                ..inventory(InventoryOperation::Suspend)
            }),
        ),
        (
            "policy.activate unapproved",
            Action::PolicyActivate(PolicyActivate {
                checked: true,
                tests_failed: 0,
                approvals: none(),
            }),
        ),
        (
            "policy.activate approved",
            Action::PolicyActivate(PolicyActivate {
                checked: true,
                tests_failed: 0,
                approvals: approved(),
            }),
        ),
        (
            "mode.change approved",
            Action::ModeChange(ModeChange {
                repository: "web".parse().unwrap(),
                stage: "git".to_owned(),
                from: Mode::Enforce,
                to: Mode::Observe,
                approvals: approved(),
            }),
        ),
        (
            "breaker.trip",
            Action::BreakerTrip(BreakerTrip {
                scope: BreakerScope::Everywhere,
            }),
        ),
        (
            "breaker.reset unapproved",
            Action::BreakerReset(BreakerReset {
                scope: BreakerScope::Everywhere,
                approvals: none(),
            }),
        ),
        (
            "breaker.reset approved",
            Action::BreakerReset(BreakerReset {
                scope: BreakerScope::Everywhere,
                approvals: approved(),
            }),
        ),
    ]
}

pub(super) fn job(purpose: JobPurpose, commit_landed: bool) -> JobRun {
    JobRun {
        repository: "web".parse().unwrap(),
        job: "unit".to_owned(),
        purpose,
        from_protected_base: true,
        commit_landed,
        contains_agent_work: true,
        undeclared_hosts: BTreeSet::new(),
    }
}
