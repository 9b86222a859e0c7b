//! A ledger in memory that tests write to. The fold checks what entries say, not signatures, so
//! envelopes here carry true payloads and empty signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use portcullis_model::event::{
    ActivationCompleted, ActivationProposed, ApprovalGiven, ArtifactBuilt, ChangePushed,
    CheckVerdict, ChecksCompleted, DecisionRecord, Effect, EffectAttempted, EffectConcluded,
    EffectIntended, EffectOutcome, GenesisCreated, JobClaimed, JobFinished, JobKind, JobOutcome,
    JobRequested, KeyFloor, Needed, ReleaseAdmitted, RequestOpened, RolloutEnded, RolloutOutcome,
    RolloutStarted, RolloutStepped, RunStarted, Step, TaskAccepted, TestCounts, TestVerdict,
    TestsCompleted,
};
use portcullis_model::manifest::{
    Activation, Agent, Canary, Environment, Group, Host, HostClass, Human, Phase, PolicyFiles,
    Repository, Sensitivity, Service, ServiceRole,
};
use portcullis_model::statement::{
    APPROVAL_TYPE, Approval, ApprovalSubject, Carry, Command as Commanded, Envelope,
    EnvelopeSignature, LedgerPoint, Output, SignedCommand,
};
use portcullis_model::task::{Budgets, Capabilities, Target};
use portcullis_model::{
    Actor, ArtifactId, Body, ChangeId, Containment, Digest, Event, Fold as _, GitOid, JobId,
    KeyClass, LedgerIndex, Mode, Principal, PublicKey, Refusal, ReleaseId, RequestId, RolloutId,
    RunId, Scope, Task, TaskId, Timestamp, canonical,
};

use crate::change::{evidence_digest, party_of_push, subject_of};
use crate::release::coverage;
use crate::{Command, State};

pub(super) const ORIGIN: &str = "ledger.example/shop";
pub(super) const DAY_MS: u64 = 24 * 3_600_000;

/// A ledger, its state, and the time.
#[derive(Clone)]
pub(super) struct World {
    pub(super) state: State,
    pub(super) now: Timestamp,
    pub(super) log: Vec<Event>,
    nonces: u64,
}

/// Any id or other thing that has a text.
pub(super) fn id<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(super) fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// The commit, tree or other object number `n`.
pub(super) fn oid(n: u64) -> GitOid {
    id(&format!("{n:040x}"))
}

/// The commit that the repository's record takes as it is.
pub(super) fn base() -> GitOid {
    oid(0x100)
}

pub(super) fn main_branch() -> (portcullis_model::RepositoryId, String) {
    (id("shop"), "main".to_owned())
}

pub(super) fn key(seed: u8) -> PublicKey {
    let mut blob = Vec::new();
    for part in [&b"ssh-ed25519"[..], &[seed; 32]] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    id(&format!("ssh-ed25519 {}", STANDARD.encode(blob)))
}

pub(super) fn hardware_key(seed: u8) -> PublicKey {
    let name = "sk-ssh-ed25519@openssh.com";
    let mut blob = Vec::new();
    for part in [name.as_bytes(), &[seed; 32], b"ssh:"] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    id(&format!("{name} {}", STANDARD.encode(blob)))
}

/// A person who signs with a hardware key.
pub(super) fn human(name: &str) -> Actor {
    by_key(name, KeyClass::Presence)
}

pub(super) fn by_key(name: &str, class: KeyClass) -> Actor {
    let fingerprint = format!("SHA256:{}", STANDARD_NO_PAD.encode(name));
    Actor::signed(Principal::Human(id(name)), fingerprint, class)
}

pub(super) fn service(name: &str) -> Actor {
    let key = format!("SHA256:{name}");
    Actor::signed(Principal::Service(id(name)), key, KeyClass::Software)
}

pub(super) fn control() -> Actor {
    Actor::unsigned(Principal::Service(id("control")))
}

pub(super) fn host(name: &str) -> Actor {
    let key = format!("SHA256:{name}");
    Actor::signed(Principal::Host(id(name)), key, KeyClass::Software)
}

pub(super) fn in_run(run: RunId) -> Actor {
    Actor::unsigned(Principal::Agent(id("fixer"), Some(run)))
}

pub(super) fn person(name: &str, seed: u8, administrator: bool) -> Human {
    Human {
        id: id(name),
        keys: vec![hardware_key(seed)],
        administrator,
        profile: None,
    }
}

pub(super) fn agent_record(name: &str) -> Agent {
    Agent {
        id: id(name),
        owner: id("dan"),
        purpose: "fixes bugs".into(),
        model: "m".into(),
        runtime: "r".into(),
        tools: BTreeSet::new(),
        repositories: [id("shop")].into(),
        build_systems: BTreeSet::new(),
        ticketing: BTreeSet::new(),
        deployment_paths: BTreeSet::new(),
        phases: [Phase::Write].into(),
        environment_ceiling: Sensitivity::Production,
        paths: vec!["src/**".into(), "docs/**".into()],
        endpoints: BTreeSet::new(),
        hosts: ["example.org:443".to_owned()].into(),
        tasked_by: [id("developers")].into(),
        review_by: Timestamp::from_ms(1_900_000_000_000),
        expires: Timestamp::from_ms(1_900_000_000_000),
    }
}

pub(super) fn service_record(name: &str, seed: u8, role: ServiceRole) -> Service {
    Service {
        id: id(name),
        owner: id("ada"),
        purpose: "works".into(),
        key: key(seed),
        roles: [role].into(),
        review_by: Timestamp::from_ms(1_900_000_000_000),
        expires: Timestamp::from_ms(1_900_000_000_000),
    }
}

pub(super) fn host_record(name: &str, seed: u8, class: HostClass) -> Host {
    Host {
        id: id(name),
        owner: id("dan"),
        key: key(seed),
        class,
        expires: Timestamp::from_ms(1_900_000_000_000),
    }
}

pub(super) fn environment_record(name: &str, sensitivity: Sensitivity, port: u16) -> Environment {
    Environment {
        id: id(name),
        repository: id("shop"),
        sensitivity,
        deployers: BTreeSet::new(),
        port,
        service_port: 8080,
        canary: Canary::default(),
        witnesses: Default::default(),
    }
}

pub(super) fn repository_record() -> Repository {
    Repository {
        id: id("shop"),
        upstream: "upstream.git".into(),
        default_branch: "main".into(),
        baseline: Some(base()),
        protected: vec!["**".into()],
        deploys_on_landing: None,
        max_pack_bytes: 1 << 20,
        mode: Mode::Enforce,
    }
}

pub(super) fn policy_files(text: &str) -> PolicyFiles {
    PolicyFiles {
        digest: digest(text),
        files: BTreeMap::from([("default.cedar".to_owned(), digest(text))]),
    }
}

/// A team: Ada, Bob and Cyd administer, Dan owns the agent, Eve is a developer, Flo just works
/// here. One administrator besides the author activates a record.
pub(super) fn genesis() -> GenesisCreated {
    GenesisCreated {
        created: Timestamp::from_ms(1_795_000_000_000),
        origin: ORIGIN.into(),
        trust_domain: "shop.example".into(),
        log_key: key(200),
        authority: "authority".into(),
        quorum: 1,
        solo: false,
        key_floor: KeyFloor::default(),
        fold_version: crate::state::FOLD_VERSION,
        humans: vec![
            person("ada", 1, true),
            person("bob", 2, true),
            person("cyd", 3, true),
            person("dan", 4, false),
            person("eve", 5, false),
            person("flo", 6, false),
        ],
        groups: vec![Group {
            id: id("developers"),
            members: [id("dan"), id("eve")].into(),
        }],
        agents: vec![agent_record("fixer")],
        services: vec![
            service_record("control", 20, ServiceRole::Control),
            service_record("builder", 21, ServiceRole::Build),
            service_record("tester", 22, ServiceRole::Test),
        ],
        hosts: vec![
            host_record("laptop", 30, HostClass::SelfRun),
            host_record("farm", 31, HostClass::Managed),
        ],
        environments: vec![
            environment_record("staging", Sensitivity::Staging, 8001),
            environment_record("production", Sensitivity::Production, 8002),
        ],
        repositories: vec![repository_record()],
        endpoints: vec![],
        policy: policy_files("policy one"),
    }
}

pub(super) fn solo_genesis() -> GenesisCreated {
    GenesisCreated {
        solo: true,
        humans: vec![person("ada", 1, true), person("dan", 4, false)],
        groups: vec![],
        agents: vec![Agent {
            owner: id("ada"),
            tasked_by: BTreeSet::new(),
            ..agent_record("fixer")
        }],
        ..genesis()
    }
}

/// What one human of another party takes.
pub(super) fn one_human() -> Needed {
    Needed {
        humans: 1,
        parties: 1,
        key_class: KeyClass::Software,
        administrators: false,
    }
}

impl World {
    pub(super) fn team() -> Self {
        Self::from(genesis()).unwrap()
    }

    pub(super) fn solo() -> Self {
        Self::from(solo_genesis()).unwrap()
    }

    pub(super) fn from(genesis: GenesisCreated) -> Result<Self, Refusal> {
        let mut world = Self {
            state: State::empty(),
            now: genesis.created,
            log: Vec::new(),
            nonces: 0,
        };
        world.record(control(), genesis)?;
        Ok(world)
    }

    /// Decides and applies. The two must agree, and every event must survive its bytes.
    pub(super) fn record(
        &mut self,
        actor: Actor,
        body: impl Into<Body>,
    ) -> Result<LedgerIndex, Refusal> {
        let command = Command::one(actor, body);
        let events = self.state.decide(&command, self.now)?;
        let first = self.state.next_index();
        for event in events {
            let bytes = State::encode(&event).unwrap();
            assert_eq!(State::decode(event.index, &bytes).unwrap(), event);
            self.state.apply(&event).expect("what was decided applies");
            self.log.push(event);
        }
        Ok(first)
    }

    pub(super) fn must(&mut self, actor: Actor, body: impl Into<Body>) -> LedgerIndex {
        self.record(actor, body)
            .unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    /// Takes in what a command leads to, which must be something.
    #[track_caller]
    pub(super) fn take(&mut self, command: &Command) {
        for event in self.state.decide(command, self.now).unwrap() {
            self.state.apply(&event).unwrap();
            self.log.push(event);
        }
    }

    /// The code of the refusal that this must meet.
    #[track_caller]
    pub(super) fn refused(&self, actor: Actor, body: impl Into<Body>) -> String {
        match self.clone().record(actor, body) {
            Ok(index) => panic!("entry {index} should have been refused"),
            Err(refusal) => refusal.code,
        }
    }

    pub(super) fn later(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    pub(super) fn nonce(&mut self) -> String {
        self.nonces += 1;
        format!("{:032x}", self.nonces)
    }

    pub(super) fn decision(&self) -> DecisionRecord {
        DecisionRecord {
            policy: self.state.policy().unwrap(),
            at: self.state.size(),
            rules: vec!["default.cedar:1 allow".into()],
        }
    }

    pub(super) fn signed(&mut self, actor: &Actor, command: Commanded) -> SignedCommand {
        SignedCommand {
            version: 1,
            origin: ORIGIN.into(),
            principal: actor.principal.clone(),
            issued: self.now,
            expires: self.now.plus_ms(60_000),
            nonce: self.nonce(),
            command,
        }
    }

    pub(super) fn command(&mut self, actor: &Actor, command: Commanded) -> Envelope {
        let command = self.signed(actor, command);
        command_envelope(&command)
    }

    // The inventory.

    pub(super) fn propose(
        &mut self,
        author: &str,
        activation: &Activation,
    ) -> Result<RequestId, Refusal> {
        let actor = human(author);
        let envelope = self.command(
            &actor,
            Commanded::Propose {
                activation: activation.clone(),
                why: digest("why"),
            },
        );
        let body = ActivationProposed {
            activation: activation.clone(),
            why: digest("why"),
            envelope,
        };
        self.record(actor, body).map(RequestId)
    }

    pub(super) fn complete_activation(&mut self, request: RequestId) -> Result<(), Refusal> {
        self.record(control(), ActivationCompleted { request })
            .map(|_| ())
    }

    /// Ada proposes, Bob approves, it comes into force.
    pub(super) fn activate(&mut self, activation: &Activation) {
        let request = self.propose("ada", activation).unwrap();
        self.approve("bob", request).unwrap();
        self.complete_activation(request).unwrap();
    }

    // Tasks and runs.

    pub(super) fn task(&mut self) -> Task {
        Task {
            version: 1,
            origin: ORIGIN.into(),
            text: digest("text"),
            source: None,
            agent: id("fixer"),
            targets: vec![Target {
                repository: id("shop"),
                branch: "main".into(),
                base: base(),
                scope: Scope::over(&["src/**".into()]),
            }],
            capabilities: Capabilities {
                hosts: ["example.org:443".to_owned()].into(),
                ..Capabilities::default()
            },
            budgets: Budgets {
                runs: 3,
                pushes: 3,
                denials: 3,
                ..Budgets::default()
            },
            windows: Default::default(),
            together: false,
            containment: Containment::ContainedClaimed,
            allowed_gaps: BTreeSet::new(),
            change: None,
            not_before: self.now,
            expires: self.now.plus_ms(DAY_MS),
            nonce: self.nonce(),
            signer: id("dan"),
        }
    }

    pub(super) fn accepted(&self, task: &Task) -> TaskAccepted {
        TaskAccepted {
            task: task.id().unwrap(),
            payload: task.clone(),
            envelope: task_envelope(task),
            decision: self.decision(),
        }
    }

    pub(super) fn accept(&mut self, task: &Task) -> TaskId {
        let body = self.accepted(task);
        self.must(human(task.signer.as_str()), body);
        task.id().unwrap()
    }

    /// The start of a run under `task` on `name`, with this change made to what is signed.
    pub(super) fn start(&mut self, task: &Task, name: &str, gaps: &[&str]) -> RunStarted {
        let actor = host(name);
        let gaps: BTreeSet<String> = gaps.iter().map(|gap| (*gap).to_owned()).collect();
        let envelope = self.command(
            &actor,
            Commanded::StartRun {
                task: task_envelope(task),
                run_key: "thumbprint".into(),
                run_public_key: "04".into(),
                source: None,
                gaps: gaps.clone(),
            },
        );
        RunStarted {
            task: task.id().unwrap(),
            agent: task.agent.clone(),
            host: id(name),
            run_key: "thumbprint".into(),
            gaps,
            deadline: self.now.plus_ms(task.budgets.wall_ms),
            leases: crate::run::leases_of(task),
            envelope,
            decision: self.decision(),
        }
    }

    pub(super) fn run_of(&mut self, task: &Task) -> RunId {
        let body = self.start(task, "laptop", &[]);
        RunId(self.must(host("laptop"), body))
    }

    /// A run under a task of its own.
    pub(super) fn run(&mut self) -> RunId {
        let task = self.task();
        self.accept(&task);
        self.run_of(&task)
    }

    // Changes.

    pub(super) fn tip(&self) -> GitOid {
        self.state.branches[&main_branch()].tip.clone()
    }

    pub(super) fn pushed(
        &self,
        actor: &Actor,
        run: Option<RunId>,
        change: Option<ChangeId>,
        head: u64,
    ) -> ChangePushed {
        ChangePushed {
            change,
            repository: id("shop"),
            branch: "main".into(),
            base: self.tip(),
            head: oid(head),
            tree: oid(head + 0x10_000),
            manifest: digest(&format!("manifest {head}")),
            diff: digest(&format!("diff {head}")),
            files: 1,
            lines: 2,
            commits: vec![oid(head)],
            run,
            party: party_of_push(&self.state, &actor.principal, run, change),
            questions: 0,
            envelope: None,
            decision: self.decision(),
        }
    }

    /// A change by a run.
    pub(super) fn push(&mut self, run: RunId, head: u64) -> ChangeId {
        let body = self.pushed(&in_run(run), Some(run), None, head);
        ChangeId(self.must(in_run(run), body))
    }

    /// A person's own change.
    pub(super) fn push_by(&mut self, name: &str, head: u64) -> ChangeId {
        let actor = human(name);
        let mut body = self.pushed(&actor, None, None, head);
        body.envelope = Some(envelope("application/x-push", b"push".to_vec()));
        ChangeId(self.must(actor, body))
    }

    pub(super) fn checks(&self, change: ChangeId, verdict: CheckVerdict) -> ChecksCompleted {
        let rules = |wanted| match verdict == wanted {
            true => BTreeSet::from(["some-rule".to_owned()]),
            false => BTreeSet::new(),
        };
        ChecksCompleted {
            change,
            revision: self.state.changes[&change].latest().number,
            verdict,
            escalations: rules(CheckVerdict::Escalate),
            blocks: rules(CheckVerdict::Block),
            report: digest("checks"),
            configuration: digest("configuration"),
        }
    }

    pub(super) fn tests(&self, change: ChangeId, verdict: TestVerdict) -> TestsCompleted {
        TestsCompleted {
            change,
            revision: self.state.changes[&change].latest().number,
            verdict,
            head: None,
            base: None,
            counts: TestCounts::default(),
            report: digest("tests"),
        }
    }

    /// Checks pass, no tests are configured.
    pub(super) fn ready(&mut self, change: ChangeId) {
        let checks = self.checks(change, CheckVerdict::Pass);
        self.must(control(), checks);
        let tests = self.tests(change, TestVerdict::NotConfigured);
        self.must(control(), tests);
    }

    // Requests and approvals.

    pub(super) fn opened(&self, change: ChangeId) -> RequestOpened {
        let change = &self.state.changes[&change];
        let revision = change.latest();
        RequestOpened {
            subject: subject_of(change),
            task: None,
            checks: evidence_digest(revision),
            needed: one_human(),
            party: change.party.clone(),
            because: vec!["base.cedar:1 ask".into()],
            decision: self.decision(),
            expires: self.now.plus_ms(DAY_MS),
            envelope: None,
        }
    }

    pub(super) fn ask(&mut self, change: ChangeId) -> RequestId {
        let body = self.opened(change);
        RequestId(self.must(control(), body))
    }

    pub(super) fn statement(&mut self, name: &str, request: RequestId) -> Approval {
        let known = &self.state.requests[&request];
        let (subject, task, checks) = (known.subject.clone(), known.task, known.checks);
        Approval {
            ledger: LedgerPoint {
                origin: ORIGIN.into(),
                size: self.state.size(),
                root: digest("root"),
            },
            request,
            subject,
            task,
            checks,
            policy: self.state.policy().unwrap(),
            shown: digest("shown"),
            count: 1,
            carry: Carry::Exact,
            approver: id(name),
            key_class: KeyClass::Software,
            expires_index: self.state.size() + 10_000,
            expires: self.now.plus_ms(DAY_MS),
            nonce: self.nonce(),
        }
    }

    pub(super) fn approve(&mut self, name: &str, request: RequestId) -> Result<(), Refusal> {
        let body = approval(self.statement(name, request));
        self.record(human(name), body).map(|_| ())
    }

    // Landing.

    pub(super) fn landing(&self, change: ChangeId, request: Option<RequestId>) -> EffectIntended {
        let known = &self.state.changes[&change];
        let revision = known.latest();
        EffectIntended {
            effect: Effect::Land {
                change,
                revision: revision.number,
                repository: known.repository.clone(),
                branch: known.branch.clone(),
                old: revision.pushed.base.clone(),
                new: revision.pushed.head.clone(),
                tree: revision.pushed.tree.clone(),
                request,
                prepared: None,
                together: None,
            },
            decision: Some(self.decision()),
        }
    }

    pub(super) fn conclude(&mut self, effect: LedgerIndex, outcome: EffectOutcome) {
        self.must(control(), EffectAttempted { effect, attempt: 1 });
        let body = EffectConcluded {
            effect,
            outcome,
            code: None,
        };
        self.must(control(), body);
    }

    pub(super) fn land(&mut self, change: ChangeId, request: Option<RequestId>) {
        let body = self.landing(change, request);
        let effect = self.must(control(), body);
        self.conclude(effect, EffectOutcome::Done);
    }

    /// A run's change all the way to its landing, approved by Ada.
    pub(super) fn landed(&mut self, head: u64) -> ChangeId {
        let run = self.run();
        let change = self.push(run, head);
        self.ready(change);
        let request = self.ask(change);
        self.approve("ada", request).unwrap();
        self.land(change, Some(request));
        change
    }

    // Jobs and artifacts.

    pub(super) fn job(&mut self, kind: JobKind, commit: &GitOid, configured_by: &GitOid) -> JobId {
        let body = JobRequested {
            kind,
            repository: id("shop"),
            commit: commit.clone(),
            configured_by: configured_by.clone(),
            configuration: digest("jobs"),
            change: None,
        };
        JobId(self.must(control(), body))
    }

    pub(super) fn claim(&mut self, name: &str, job: JobId) -> Result<(), Refusal> {
        let actor = service(name);
        let envelope = self.command(&actor, Commanded::ClaimJob { job: Some(job) });
        let body = JobClaimed {
            job,
            service: id(name),
            envelope,
        };
        self.record(actor, body).map(|_| ())
    }

    pub(super) fn finished(
        &mut self,
        name: &str,
        job: JobId,
        succeeded: bool,
        outputs: Vec<Output>,
    ) -> JobFinished {
        let envelope = self.command(
            &service(name),
            Commanded::FinishJob {
                job,
                succeeded,
                attestation: digest("attestation"),
                report: digest("report"),
                outputs: outputs.clone(),
            },
        );
        JobFinished {
            job,
            outcome: match succeeded {
                true => JobOutcome::Succeeded,
                false => JobOutcome::Failed,
            },
            attestation: Some(digest("attestation")),
            report: Some(digest("report")),
            outputs,
            envelope: Some(envelope),
        }
    }

    pub(super) fn test_job(
        &mut self,
        commit: &GitOid,
        configured_by: &GitOid,
        good: bool,
    ) -> JobId {
        let job = self.job(JobKind::Test, commit, configured_by);
        self.claim("tester", job).unwrap();
        let body = self.finished("tester", job, good, vec![]);
        self.must(service("tester"), body);
        job
    }

    pub(super) fn build(&mut self, commit: &GitOid) -> ArtifactId {
        let job = self.job(JobKind::Build, commit, commit);
        self.claim("builder", job).unwrap();
        let made = output(commit);
        let body = self.finished("builder", job, true, vec![made.clone()]);
        self.must(service("builder"), body);
        let body = built(job, commit, made);
        ArtifactId(self.must(control(), body))
    }

    // Releases and rollouts.

    pub(super) fn release_request(
        &mut self,
        name: &str,
        artifact: ArtifactId,
        environment: &str,
    ) -> RequestOpened {
        let actor = human(name);
        let envelope = self.command(
            &actor,
            Commanded::Release {
                artifact,
                environment: id(environment),
            },
        );
        let known = &self.state.artifacts[&artifact];
        RequestOpened {
            subject: ApprovalSubject::Release {
                artifact,
                digest: known.output.digest,
                environment: id(environment),
                repository: known.repository.clone(),
                commit: known.commit.clone(),
                provenance: known.provenance,
            },
            task: None,
            checks: None,
            needed: Needed {
                key_class: KeyClass::Presence,
                ..one_human()
            },
            party: coverage(&self.state, artifact, &id(environment))
                .map(|covered| crate::release::party_of(&self.state, &covered))
                .unwrap_or_default(),
            because: vec![],
            decision: self.decision(),
            expires: self.now.plus_ms(DAY_MS),
            envelope: Some(envelope),
        }
    }

    pub(super) fn approved_release(
        &mut self,
        artifact: ArtifactId,
        environment: &str,
    ) -> RequestId {
        let body = self.release_request("dan", artifact, environment);
        let request = RequestId(self.must(human("dan"), body));
        self.approve("ada", request).unwrap();
        request
    }

    pub(super) fn admission(
        &self,
        artifact: ArtifactId,
        environment: &str,
        request: Option<RequestId>,
    ) -> ReleaseAdmitted {
        let covered = coverage(&self.state, artifact, &id(environment)).unwrap_or_default();
        ReleaseAdmitted {
            artifact,
            environment: id(environment),
            request,
            changes: covered.changes,
            agent_work: covered.agent_work,
            verification: digest("verification"),
            decision: self.decision(),
        }
    }

    pub(super) fn admit(&mut self, artifact: ArtifactId, environment: &str) -> ReleaseId {
        let request = match environment {
            "production" => Some(self.approved_release(artifact, environment)),
            _ => None,
        };
        let body = self.admission(artifact, environment, request);
        ReleaseId(self.must(control(), body))
    }

    pub(super) fn rollout(&self, release: ReleaseId) -> RolloutStarted {
        let known = &self.state.releases[&release];
        let running = &self.state.environments[&known.environment];
        RolloutStarted {
            release,
            environment: known.environment.clone(),
            stable: running.stable,
            canary: known.agent_work && running.stable.is_some(),
            seed: 7,
            epoch: running.epoch + 1,
        }
    }

    pub(super) fn roll(&mut self, release: ReleaseId) -> RolloutId {
        let body = self.rollout(release);
        RolloutId(self.must(control(), body))
    }

    pub(super) fn step(&self, rollout: RolloutId, step: Step, weight: u32) -> RolloutStepped {
        let known = &self.state.rollouts[&rollout];
        let moves = step == Step::Advance && known.weight > 0;
        RolloutStepped {
            rollout,
            step,
            weight,
            epoch: known.epoch + u64::from(moves),
            code: "evidence".into(),
            evidence: BTreeMap::new(),
            state: serde_json::Value::Null,
            envelope: None,
        }
    }

    pub(super) fn advance(&mut self, rollout: RolloutId, weight: u32) {
        let body = self.step(rollout, Step::Advance, weight);
        self.must(control(), body);
        let known = &self.state.rollouts[&rollout];
        let effect = Effect::SetTraffic {
            rollout,
            epoch: known.epoch,
            weight,
        };
        let body = EffectIntended {
            effect,
            decision: None,
        };
        let effect = self.must(control(), body);
        self.conclude(effect, EffectOutcome::Done);
    }

    pub(super) fn end_rollout(&self, rollout: RolloutId, outcome: RolloutOutcome) -> RolloutEnded {
        RolloutEnded {
            rollout,
            outcome,
            code: "code".into(),
            envelope: None,
        }
    }

    /// A release all the way to serving everything.
    pub(super) fn serve(&mut self, artifact: ArtifactId, environment: &str) -> ReleaseId {
        let release = self.admit(artifact, environment);
        let rollout = self.roll(release);
        let steps: &[u32] = match self.state.rollouts[&rollout].canary {
            true => &[50, 250, 500, 1000],
            false => &[1000],
        };
        for weight in steps {
            self.advance(rollout, *weight);
        }
        let body = self.end_rollout(rollout, RolloutOutcome::Completed);
        self.must(control(), body);
        release
    }
}

pub(super) fn envelope(payload_type: &str, payload: Vec<u8>) -> Envelope {
    Envelope {
        payload_type: payload_type.to_owned(),
        payload: STANDARD.encode(payload),
        signatures: vec![EnvelopeSignature {
            keyid: String::new(),
            sig: String::new(),
        }],
    }
}

pub(super) fn command_envelope(command: &SignedCommand) -> Envelope {
    envelope(
        SignedCommand::PAYLOAD_TYPE,
        canonical::to_vec(command).unwrap(),
    )
}

pub(super) fn task_envelope(task: &Task) -> Envelope {
    envelope(Task::PAYLOAD_TYPE, canonical::to_vec(task).unwrap())
}

pub(super) fn approval(statement: Approval) -> ApprovalGiven {
    let payload = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": APPROVAL_TYPE,
        "predicate": statement,
    });
    ApprovalGiven {
        envelope: envelope(
            "application/vnd.in-toto+json",
            payload.to_string().into_bytes(),
        ),
        statement,
    }
}

pub(super) fn output(commit: &GitOid) -> Output {
    Output {
        name: "shop".into(),
        digest: digest(&format!("binary of {commit}")),
        size: 10,
    }
}

pub(super) fn built(job: JobId, commit: &GitOid, output: Output) -> ArtifactBuilt {
    ArtifactBuilt {
        job,
        repository: id("shop"),
        commit: commit.clone(),
        output,
        provenance: digest("attestation"),
    }
}
