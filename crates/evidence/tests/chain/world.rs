//! A whole ledger, made by the fold from real signatures: two administrators, a reviewer, an agent,
//! a builder, a repository, two environments.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use portcullis_evidence::chain::{About, Bundle, BundledEntry, Bytes};
use portcullis_evidence::checkpoint::Checkpoint;
use portcullis_evidence::dsse::{self, PAYLOAD_COMMAND, PAYLOAD_IN_TOTO};
use portcullis_evidence::intoto::{Predicate, ResourceDescriptor, Statement};
use portcullis_evidence::merkle::{MemoryTree, inclusion_proof, leaf_hash};
use portcullis_evidence::signer::Signer;
use portcullis_evidence::slsa::{BuildDefinition, Builder, Provenance, RunDetails};
use portcullis_evidence::sshsig::SshPrivateKey;
use portcullis_evidence::statement::{StatementType, UnsignedStatement};
use portcullis_evidence::test_result::{TestOutcome, TestResult};
use portcullis_evidence::vsa::{VerificationResult, VerificationSummary, Verifier};
use portcullis_flow::{Command as Recording, State};
use portcullis_model::digest::encode_hex;
use portcullis_model::event::*;
use portcullis_model::manifest::*;
use portcullis_model::statement::*;
use portcullis_model::{
    Actor, ArtifactId, ChangeId, Containment, Digest, Event, Fold as _, GitOid, JobId, KeyClass,
    LedgerIndex, Mode, Party, Principal, PublicKey, ReleaseId, RepositoryId, RequestId, RunId,
    Scope, Secret, Task, TaskId, TaskText, Timestamp, canonical,
};

pub(crate) const NOW: u64 = 1_795_250_000_000;
const DAY: u64 = 86_400_000;

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) events: Vec<Event>,
    pub(crate) blobs: BTreeMap<Digest, Bytes>,
    pub(crate) objects: BTreeMap<GitOid, Bytes>,
    pub(crate) log: Signer,
    pub(crate) builder: Signer,
    pub(crate) host: Signer,
    pub(crate) people: BTreeMap<&'static str, SshPrivateKey>,
    pub(crate) policy: Digest,
    pub(crate) base: GitOid,
    time: u64,
    nonce: u64,
    tested: BTreeMap<(GitOid, GitOid), JobId>,
}

pub(crate) struct Options {
    pub(crate) solo: bool,
    pub(crate) mode: Mode,
    pub(crate) class: HostClass,
    /// What both environments demand.
    pub(crate) witnesses: Witnessing,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            solo: false,
            mode: Mode::Enforce,
            class: HostClass::Managed,
            witnesses: Witnessing::default(),
        }
    }
}

pub(crate) fn key(seed: u8) -> SshPrivateKey {
    SshPrivateKey::from_seed(&Secret::new([seed; 32]), "")
        .unwrap()
        .0
}

pub(crate) fn signer(seed: u8) -> Signer {
    Signer::from_seed(&Secret::new([seed; 32])).unwrap()
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

pub(crate) fn repository() -> RepositoryId {
    "shop".parse().unwrap()
}

pub(crate) fn principal(text: &str) -> Principal {
    text.parse().unwrap()
}

impl World {
    pub(crate) fn new(options: &Options) -> Self {
        let mut blobs = BTreeMap::new();
        let mut blob = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            blobs.insert(digest, Bytes(bytes.to_vec()));
            digest
        };
        let file = blob(b"permit (principal, action, resource);");
        let policy = Digest::of(b"the policy with its base");
        let people: BTreeMap<_, _> = [
            ("ada", key(1)),
            ("ben", key(2)),
            ("dan", key(3)),
            ("eve", key(4)),
        ]
        .into();
        let human = |id: &str, administrator: bool| Human {
            id: id.parse().unwrap(),
            keys: vec![people[id].public_key().clone()],
            administrator,
            profile: None,
        };
        let expires = at(NOW + 365 * DAY);
        let service = |id: &str, key: &PublicKey, roles: &[ServiceRole]| Service {
            id: id.parse().unwrap(),
            owner: "ada".parse().unwrap(),
            purpose: "works".to_owned(),
            key: key.clone(),
            roles: roles.iter().copied().collect(),
            review_by: expires,
            expires,
        };
        let environment = |id: &str, sensitivity, port| Environment {
            id: id.parse().unwrap(),
            repository: repository(),
            sensitivity,
            deployers: BTreeSet::new(),
            port,
            service_port: 8080,
            canary: Canary::default(),
            witnesses: options.witnesses.clone(),
        };
        let (log, builder, host) = (signer(10), signer(11), signer(12));
        let mut objects = BTreeMap::new();
        let base = commit(&mut objects, &[], "0");
        objects.clear();
        let mut humans = vec![human("ada", true)];
        if !options.solo {
            humans.push(human("ben", true));
        }
        let genesis = GenesisCreated {
            created: at(NOW),
            origin: "example.com/log".to_owned(),
            trust_domain: "example.com".to_owned(),
            log_key: log.public_key().clone(),
            authority: String::new(),
            quorum: 1,
            solo: options.solo,
            key_floor: KeyFloor {
                production: KeyClass::Software,
                breaker_reset: KeyClass::Software,
                policy: KeyClass::Software,
                keys: KeyClass::Software,
            },
            fold_version: portcullis_flow::state::FOLD_VERSION,
            humans,
            groups: Vec::new(),
            agents: vec![Agent {
                id: "fixer".parse().unwrap(),
                owner: "ada".parse().unwrap(),
                purpose: "fixes".to_owned(),
                model: "m".to_owned(),
                runtime: "r".to_owned(),
                tools: BTreeSet::new(),
                repositories: [repository()].into(),
                build_systems: BTreeSet::new(),
                ticketing: BTreeSet::new(),
                deployment_paths: BTreeSet::new(),
                phases: [Phase::Write].into(),
                environment_ceiling: Sensitivity::Production,
                paths: vec!["**".to_owned()],
                endpoints: BTreeSet::new(),
                hosts: BTreeSet::new(),
                tasked_by: BTreeSet::new(),
                review_by: expires,
                expires,
            }],
            services: vec![
                service("control", log.public_key(), &[ServiceRole::Control]),
                service(
                    "builder",
                    builder.public_key(),
                    &[ServiceRole::Test, ServiceRole::Build],
                ),
            ],
            hosts: vec![Host {
                id: "local".parse().unwrap(),
                owner: "ada".parse().unwrap(),
                key: host.public_key().clone(),
                class: options.class,
                expires,
            }],
            environments: vec![
                environment("production", Sensitivity::Production, 8001),
                environment("staging", Sensitivity::Staging, 8002),
            ],
            repositories: vec![Repository {
                id: repository(),
                upstream: "/srv/shop.git".to_owned(),
                default_branch: "main".to_owned(),
                baseline: Some(base.clone()),
                protected: vec!["**".to_owned()],
                deploys_on_landing: None,
                max_pack_bytes: 1 << 20,
                mode: options.mode,
            }],
            endpoints: Vec::new(),
            policy: PolicyFiles {
                digest: policy,
                files: [("default.cedar".to_owned(), file)].into(),
            },
        };
        let mut world = Self {
            state: State::empty(),
            events: Vec::new(),
            blobs,
            objects,
            log,
            builder,
            host,
            people,
            policy,
            base,
            time: NOW,
            nonce: 0,
            tested: BTreeMap::new(),
        };
        world.control(genesis);
        world
    }

    pub(crate) fn record(&mut self, actor: Actor, body: impl Into<Body>) -> LedgerIndex {
        self.time += 1_000;
        let events = self
            .state
            .decide(&Recording::one(actor, body), at(self.time))
            .unwrap_or_else(|refusal| panic!("{refusal}"));
        for event in events {
            self.state.apply(&event).unwrap();
            self.events.push(event);
        }
        self.state.size() - 1
    }

    pub(crate) fn control(&mut self, body: impl Into<Body>) -> LedgerIndex {
        self.record(Actor::unsigned(principal("service:control")), body)
    }

    pub(crate) fn blob(&mut self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest, Bytes(bytes.to_vec()));
        digest
    }

    fn fresh(&mut self) -> String {
        self.nonce += 1;
        format!("{:032x}", self.nonce)
    }

    pub(crate) fn decision(&self) -> DecisionRecord {
        DecisionRecord {
            policy: self.policy,
            at: self.state.size(),
            rules: Vec::new(),
        }
    }

    /// The command's envelope and its actor.
    pub(crate) fn command(&mut self, who: &str, command: Command) -> (Actor, Envelope) {
        let principal = principal(who);
        let nonce = self.fresh();
        let signed = SignedCommand {
            version: 1,
            origin: "example.com/log".to_owned(),
            principal: principal.clone(),
            issued: at(self.time),
            expires: at(self.time + 60_000),
            nonce,
            command,
        };
        if let Principal::Human(id) = &principal {
            let key = &self.people[id.as_str()];
            let envelope = UnsignedStatement::new(StatementType::Command, &signed)
                .unwrap()
                .sign_with(key)
                .unwrap();
            return (self.person(id.as_str()), envelope.into());
        }
        let signer = if who == "service:builder" {
            &self.builder
        } else {
            &self.host
        };
        let payload = canonical::to_vec(&signed).unwrap();
        let envelope = dsse::sign(PAYLOAD_COMMAND, payload, signer).unwrap();
        let mut actor = Actor::signed(
            principal.clone(),
            signer.public_key().fingerprint().to_owned(),
            KeyClass::Software,
        );
        if let Principal::Host(id) = principal {
            actor.host = Some(id);
        }
        (actor, envelope.into())
    }

    pub(crate) fn person(&self, id: &str) -> Actor {
        Actor::signed(
            principal(&format!("human:{id}")),
            self.people[id].public_key().fingerprint().to_owned(),
            KeyClass::Software,
        )
    }

    /// A record comes into force: proposed by the first, approved by the second.
    pub(crate) fn activate(&mut self, activation: Activation, by: &str, approver: Option<&str>) {
        let command = Command::Propose {
            activation: activation.clone(),
            why: Digest::of(b"because"),
        };
        let (actor, envelope) = self.command(&format!("human:{by}"), command);
        let subject = ApprovalSubject::Activation {
            subject: activation.subject(),
            record: activation.digest().unwrap(),
        };
        let request = RequestId(self.record(
            actor,
            ActivationProposed {
                activation,
                why: Digest::of(b"because"),
                envelope,
            },
        ));
        if let Some(approver) = approver {
            self.approve(approver, request, subject, None, None);
        }
        self.control(ActivationCompleted { request });
    }

    pub(crate) fn hire(&mut self, id: &'static str) {
        let record = Human {
            id: id.parse().unwrap(),
            keys: vec![self.people[id].public_key().clone()],
            administrator: false,
            profile: None,
        };
        self.activate(Activation::Human(record), "ada", Some("ben"));
    }

    pub(crate) fn approval(
        &mut self,
        who: &str,
        request: RequestId,
        subject: ApprovalSubject,
        task: Option<TaskId>,
        checks: Option<Digest>,
    ) -> Approval {
        Approval {
            ledger: LedgerPoint {
                origin: "example.com/log".to_owned(),
                size: 1,
                root: Digest::of(b"root"),
            },
            request,
            subject,
            task,
            checks,
            policy: self.policy,
            shown: Digest::of(b"shown"),
            count: 1,
            carry: Carry::Exact,
            approver: who.parse().unwrap(),
            key_class: KeyClass::Software,
            expires_index: 10_000,
            expires: at(self.time + DAY),
            nonce: self.fresh(),
        }
    }

    pub(crate) fn sign_approval(&self, statement: &Approval) -> Envelope {
        portcullis_evidence::approval::to_sign(statement)
            .unwrap()
            .sign_with(&self.people[statement.approver.as_str()])
            .unwrap()
            .into()
    }

    pub(crate) fn approve(
        &mut self,
        who: &str,
        request: RequestId,
        subject: ApprovalSubject,
        task: Option<TaskId>,
        checks: Option<Digest>,
    ) {
        let statement = self.approval(who, request, subject, task, checks);
        let envelope = self.sign_approval(&statement);
        let actor = self.person(who);
        self.record(
            actor,
            ApprovalGiven {
                statement,
                envelope,
            },
        );
    }

    /// A task signed by ada, and a run under it.
    pub(crate) fn run(&mut self, base: &GitOid) -> (TaskId, RunId) {
        let text = TaskText {
            title: "Fix the till".to_owned(),
            text: String::new(),
        };
        let text = self.blob(&canonical::to_vec(&text).unwrap());
        let payload = Task {
            version: 1,
            origin: "example.com/log".to_owned(),
            text,
            source: None,
            agent: "fixer".parse().unwrap(),
            targets: vec![portcullis_model::task::Target {
                repository: repository(),
                branch: "main".to_owned(),
                base: base.clone(),
                scope: Scope::over(&["src/**".to_owned()]),
            }],
            capabilities: Default::default(),
            budgets: Default::default(),
            windows: Default::default(),
            containment: Containment::ContainedClaimed,
            allowed_gaps: BTreeSet::new(),
            change: None,
            not_before: at(NOW),
            expires: at(NOW + 20 * DAY),
            nonce: self.fresh(),
            signer: "ada".parse().unwrap(),
        };
        let envelope: Envelope = UnsignedStatement::new(StatementType::Task, &payload)
            .unwrap()
            .sign_with(&self.people["ada"])
            .unwrap()
            .into();
        let task = payload.id().unwrap();
        let body = TaskAccepted {
            task,
            payload,
            envelope: envelope.clone(),
            decision: self.decision(),
        };
        let actor = self.person("ada");
        self.record(actor, body);
        let start = Command::StartRun {
            task: envelope,
            run_key: "thumb".to_owned(),
            run_public_key: "04".to_owned(),
            source: None,
            gaps: BTreeSet::new(),
        };
        let (actor, envelope) = self.command("host:local", start);
        let body = RunStarted {
            task,
            agent: "fixer".parse().unwrap(),
            host: "local".parse().unwrap(),
            run_key: "thumb".to_owned(),
            gaps: BTreeSet::new(),
            deadline: at(NOW + DAY),
            leases: vec![LeaseKind::Identity, LeaseKind::Git(repository())],
            envelope,
            decision: self.decision(),
        };
        (task, RunId(self.record(actor, body)))
    }

    /// An agent's change on `base`, checked and tested: its id, its head, its task.
    pub(crate) fn change(&mut self, base: &GitOid, name: &str) -> (ChangeId, GitOid, TaskId) {
        let (task, run) = self.run(base);
        let first = commit(&mut self.objects, &[base], &format!("{name} 1"));
        let head = commit(&mut self.objects, &[&first], name);
        let agent = Principal::Agent("fixer".parse().unwrap(), Some(run));
        let body = ChangePushed {
            change: None,
            repository: repository(),
            branch: "main".to_owned(),
            base: base.clone(),
            head: head.clone(),
            tree: tree(name),
            manifest: Digest::of(name.as_bytes()),
            diff: Digest::of(b"diff"),
            files: 1,
            lines: 2,
            commits: vec![head.clone(), first],
            run: Some(run),
            party: Party([agent.clone(), principal("human:ada")].into()),
            questions: 0,
            envelope: None,
            decision: self.decision(),
        };
        let change = ChangeId(self.record(Actor::unsigned(agent), body));
        self.examine(change, base, &head);
        (change, head, task)
    }

    /// A person's change, by git's own signed push.
    pub(crate) fn own_change(
        &mut self,
        who: &str,
        base: &GitOid,
        name: &str,
    ) -> (ChangeId, GitOid) {
        let head = commit(&mut self.objects, &[base], name);
        let certificate = format!(
            "certificate version 0.1\npusher key {NOW} +0000\nnonce {}\n\n{} {head} refs/for/main\n",
            self.fresh(),
            GitOid::zero()
        );
        let signature = self.people[who]
            .sign("git", certificate.as_bytes())
            .unwrap();
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        let envelope = Envelope {
            payload_type: "application/vnd.git.push-certificate".to_owned(),
            payload: base64.encode(&certificate),
            signatures: vec![EnvelopeSignature {
                keyid: self.people[who].public_key().fingerprint().to_owned(),
                sig: base64.encode(signature.to_binary()),
            }],
        };
        let body = ChangePushed {
            change: None,
            repository: repository(),
            branch: "main".to_owned(),
            base: base.clone(),
            head: head.clone(),
            tree: tree(name),
            manifest: Digest::of(name.as_bytes()),
            diff: Digest::of(b"diff"),
            files: 1,
            lines: 2,
            commits: vec![head.clone()],
            run: None,
            party: Party([principal(&format!("human:{who}"))].into()),
            questions: 0,
            envelope: Some(envelope),
            decision: self.decision(),
        };
        let actor = self.person(who);
        let change = ChangeId(self.record(actor, body));
        self.examine(change, base, &head);
        (change, head)
    }

    fn examine(&mut self, change: ChangeId, base: &GitOid, head: &GitOid) {
        let report = self.blob(format!("[\"no findings\",\"{head}\"]").as_bytes());
        self.control(ChecksCompleted {
            change,
            revision: 1,
            verdict: CheckVerdict::Pass,
            escalations: BTreeSet::new(),
            blocks: BTreeSet::new(),
            report,
            configuration: Digest::of(b"checks"),
        });
        let on_base = match self.tested.get(&(base.clone(), base.clone())) {
            Some(job) => *job,
            None => self.test(base, base, None, &["a", "b"]),
        };
        let on_head = self.test(head, base, Some(change), &["a", "b", "c"]);
        let attested = |world: &Self, job: JobId| {
            world.state.jobs[&job]
                .finished()
                .unwrap()
                .attestation
                .unwrap()
        };
        let summary = serde_json::json!({
            "verdict": "passed",
            "head": attested(self, on_head),
            "base": attested(self, on_base),
        });
        let report = self.blob(&canonical::to_vec(&summary).unwrap());
        self.control(TestsCompleted {
            change,
            revision: 1,
            verdict: TestVerdict::Passed,
            head: Some(on_head),
            base: Some(on_base),
            counts: TestCounts {
                passed: 3,
                failed: 0,
                missing: 0,
            },
            report,
        });
    }

    fn test(
        &mut self,
        commit: &GitOid,
        base: &GitOid,
        change: Option<ChangeId>,
        passed: &[&str],
    ) -> JobId {
        let configuration = self.blob(b"[test]");
        let result = TestResult {
            result: TestOutcome::Passed,
            configuration: Vec::new(),
            url: None,
            passed_tests: passed.iter().map(|name| (*name).to_owned()).collect(),
            warned_tests: Vec::new(),
            failed_tests: Vec::new(),
        };
        let subject = vec![ResourceDescriptor::git_commit(
            "portcullis:repository:shop",
            commit,
        )];
        let attestation = self.attest(Statement::new(subject, result).unwrap());
        let job = self.job(
            JobRequested {
                kind: JobKind::Test,
                repository: repository(),
                commit: commit.clone(),
                configured_by: base.clone(),
                configuration,
                change,
            },
            attestation,
            Vec::new(),
        );
        self.tested.insert((commit.clone(), base.clone()), job);
        job
    }

    pub(crate) fn attest<P: Predicate>(&mut self, statement: Statement<P>) -> Digest {
        let envelope =
            dsse::sign(PAYLOAD_IN_TOTO, statement.to_json().unwrap(), &self.builder).unwrap();
        self.blob(&envelope.to_json().unwrap())
    }

    fn job(&mut self, asked: JobRequested, attestation: Digest, outputs: Vec<Output>) -> JobId {
        let job = JobId(self.control(asked));
        let (actor, envelope) =
            self.command("service:builder", Command::ClaimJob { job: Some(job) });
        let service = "builder".parse().unwrap();
        self.record(
            actor,
            JobClaimed {
                job,
                service,
                envelope,
            },
        );
        let report = Digest::of(b"log");
        let finish = Command::FinishJob {
            job,
            succeeded: true,
            attestation,
            report,
            outputs: outputs.clone(),
        };
        let (actor, envelope) = self.command("service:builder", finish);
        let body = JobFinished {
            job,
            outcome: JobOutcome::Succeeded,
            attestation: Some(attestation),
            report: Some(report),
            outputs,
            envelope: Some(envelope),
        };
        self.record(actor, body);
        job
    }

    pub(crate) fn subject(&self, change: ChangeId) -> ApprovalSubject {
        portcullis_flow::change::subject_of(&self.state.changes[&change])
    }

    /// Asks for a change, has it approved, and lands it.
    pub(crate) fn land(&mut self, change: ChangeId, task: Option<TaskId>, approvers: &[&str]) {
        let known = self.state.changes[&change].clone();
        let checks = portcullis_flow::change::evidence_digest(known.latest());
        let subject = self.subject(change);
        let request = (!approvers.is_empty()).then(|| {
            RequestId(self.control(RequestOpened {
                subject: subject.clone(),
                task,
                checks,
                needed: Needed {
                    humans: 1,
                    parties: 1,
                    key_class: KeyClass::Software,
                    administrators: false,
                },
                party: known.party.clone(),
                because: Vec::new(),
                decision: self.decision(),
                expires: at(self.time + DAY),
                envelope: None,
            }))
        });
        for approver in approvers {
            self.approve(approver, request.unwrap(), subject.clone(), task, checks);
        }
        let pushed = &known.latest().pushed;
        let effect = Effect::Land {
            change,
            revision: 1,
            repository: repository(),
            branch: "main".to_owned(),
            old: pushed.base.clone(),
            new: pushed.head.clone(),
            tree: pushed.tree.clone(),
            request,
            prepared: None,
        };
        let decision = Some(self.decision());
        let effect = self.control(EffectIntended { effect, decision });
        self.control(EffectAttempted { effect, attempt: 1 });
        self.control(EffectConcluded {
            effect,
            outcome: EffectOutcome::Done,
            code: None,
        });
    }

    pub(crate) fn provenance(&self, commit: &GitOid, digest: &Digest) -> Statement<Provenance> {
        let changes: Vec<_> =
            portcullis_flow::release::changes_since_admitted(&self.state, &repository(), commit)
                .into_iter()
                .map(|change| serde_json::json!({ "change": change }))
                .collect();
        let predicate = Provenance {
            build_definition: BuildDefinition {
                build_type: "urn:portcullis:build:sandbox:v1".to_owned(),
                external_parameters: Default::default(),
                internal_parameters: [("changes".to_owned(), changes.into())]
                    .into_iter()
                    .collect(),
                resolved_dependencies: vec![ResourceDescriptor::git_commit(
                    "portcullis:repository:shop",
                    commit,
                )],
            },
            run_details: RunDetails {
                builder: Builder {
                    id: "spiffe://example.com/service/builder".to_owned(),
                    builder_dependencies: Vec::new(),
                    version: BTreeMap::new(),
                },
                metadata: None,
                byproducts: Vec::new(),
            },
        };
        Statement::new(vec![ResourceDescriptor::file("app", digest)], predicate).unwrap()
    }

    pub(crate) fn build(&mut self, commit: &GitOid) -> ArtifactId {
        let digest = Digest::of(format!("app of {commit}").as_bytes());
        let statement = self.provenance(commit, &digest);
        let provenance = self.attest(statement);
        let output = Output {
            name: "app".to_owned(),
            digest,
            size: 3,
        };
        let configuration = self.blob(b"[build]");
        let job = self.job(
            JobRequested {
                kind: JobKind::Build,
                repository: repository(),
                commit: commit.clone(),
                configured_by: commit.clone(),
                configuration,
                change: None,
            },
            provenance,
            vec![output.clone()],
        );
        ArtifactId(self.control(ArtifactBuilt {
            job,
            repository: repository(),
            commit: commit.clone(),
            output,
            provenance,
        }))
    }

    pub(crate) fn summary(&mut self, artifact: ArtifactId, by: &Signer) -> Digest {
        let digest = self.state.artifacts[&artifact].output.digest;
        let predicate = VerificationSummary {
            verifier: Verifier {
                id: "spiffe://example.com/service/control".to_owned(),
                version: BTreeMap::new(),
            },
            time_verified: at(self.time),
            resource_uri: "portcullis:environment:production".to_owned(),
            policy: ResourceDescriptor {
                uri: Some("portcullis:policy".to_owned()),
                ..ResourceDescriptor::of_digest(&self.policy)
            },
            input_attestations: Vec::new(),
            verification_result: VerificationResult::Passed,
            verified_levels: Vec::new(),
            dependency_levels: BTreeMap::new(),
            slsa_version: None,
        };
        let statement =
            Statement::new(vec![ResourceDescriptor::file("app", &digest)], predicate).unwrap();
        let envelope = dsse::sign(PAYLOAD_IN_TOTO, statement.to_json().unwrap(), by).unwrap();
        self.blob(&envelope.to_json().unwrap())
    }

    /// Asks for a release, has it approved, admits it.
    pub(crate) fn admit(
        &mut self,
        artifact: ArtifactId,
        environment: &str,
        approver: Option<&str>,
    ) -> ReleaseId {
        let environment: portcullis_model::EnvironmentId = environment.parse().unwrap();
        let known = self.state.artifacts[&artifact].clone();
        let covered =
            portcullis_flow::release::coverage(&self.state, artifact, &environment).unwrap();
        let control = signer(10);
        let checks = approver.map(|_| self.summary(artifact, &control));
        let request = approver.map(|approver| {
            let command = Command::Release {
                artifact,
                environment: environment.clone(),
            };
            let (actor, envelope) = self.command("human:ada", command);
            let subject = ApprovalSubject::Release {
                artifact,
                digest: known.output.digest,
                environment: environment.clone(),
                repository: repository(),
                commit: known.commit.clone(),
                provenance: known.provenance,
            };
            let body = RequestOpened {
                subject: subject.clone(),
                task: None,
                checks,
                needed: Needed {
                    humans: 1,
                    parties: 1,
                    key_class: KeyClass::Software,
                    administrators: false,
                },
                party: portcullis_flow::release::party_of(&self.state, &covered),
                because: Vec::new(),
                decision: self.decision(),
                expires: at(self.time + DAY),
                envelope: Some(envelope),
            };
            let request = RequestId(self.record(actor, body));
            self.approve(approver, request, subject, None, checks);
            request
        });
        let verification = self.summary(artifact, &control);
        let body = ReleaseAdmitted {
            artifact,
            environment,
            request,
            changes: covered.changes,
            agent_work: covered.agent_work,
            verification,
            decision: self.decision(),
        };
        ReleaseId(self.control(body))
    }

    /// Moves all traffic to a release.
    pub(crate) fn roll_out(&mut self, release: ReleaseId) {
        let known = self.state.releases[&release].clone();
        let running = self.state.environments[&known.environment].clone();
        let rollout = portcullis_model::RolloutId(self.control(RolloutStarted {
            release,
            environment: known.environment.clone(),
            stable: running.stable,
            canary: running.stable.is_some(),
            seed: 1,
            epoch: running.epoch + 1,
        }));
        self.control(RolloutEnded {
            rollout,
            outcome: RolloutOutcome::Failed,
            code: "start-failed".to_owned(),
            envelope: None,
        });
    }

    /// Moves all traffic to a release, to the end.
    pub(crate) fn complete(&mut self, release: ReleaseId) {
        let known = self.state.releases[&release].clone();
        let running = self.state.environments[&known.environment].clone();
        let epoch = running.epoch + 1;
        let rollout = portcullis_model::RolloutId(self.control(RolloutStarted {
            release,
            environment: known.environment.clone(),
            stable: running.stable,
            canary: running.stable.is_some(),
            seed: 1,
            epoch,
        }));
        let decision = None;
        let effect = Effect::StartRelease { release };
        let effect = self.control(EffectIntended { effect, decision });
        self.finish_effect(effect);
        self.control(RolloutStepped {
            rollout,
            step: Step::Advance,
            weight: 1000,
            epoch,
            code: "complete".to_owned(),
            evidence: BTreeMap::new(),
            state: serde_json::Value::Null,
            envelope: None,
        });
        let effect = Effect::SetTraffic {
            rollout,
            epoch,
            weight: 1000,
        };
        let effect = self.control(EffectIntended {
            effect,
            decision: None,
        });
        self.finish_effect(effect);
        self.control(RolloutEnded {
            rollout,
            outcome: RolloutOutcome::Completed,
            code: "complete".to_owned(),
            envelope: None,
        });
    }

    fn finish_effect(&mut self, effect: LedgerIndex) {
        self.control(EffectAttempted { effect, attempt: 1 });
        self.control(EffectConcluded {
            effect,
            outcome: EffectOutcome::Done,
            code: None,
        });
    }

    /// The tree over all events, signed, as a bundle with everything.
    pub(crate) fn seal(&self, about: About) -> Bundle {
        let entries: Vec<Vec<u8>> = self
            .events
            .iter()
            .map(|event| event.encode().unwrap())
            .collect();
        let mut tree = MemoryTree::default();
        for entry in &entries {
            tree.append(leaf_hash(entry)).unwrap();
        }
        let checkpoint =
            Checkpoint::new("example.com/log".parse().unwrap(), tree.size(), tree.root())
                .sign(&self.log)
                .unwrap();
        let entries = entries
            .into_iter()
            .zip(0..)
            .map(|(bytes, index)| BundledEntry {
                index,
                bytes: String::from_utf8(bytes).unwrap(),
                proof: inclusion_proof(&tree, index, tree.size()).unwrap(),
            })
            .collect();
        Bundle {
            version: 1,
            about,
            checkpoint: checkpoint.note().to_string(),
            entries,
            blobs: self.blobs.clone(),
            objects: self.objects.clone(),
        }
    }

    pub(crate) fn genesis(&self) -> Vec<u8> {
        self.events[0].encode().unwrap()
    }

    pub(crate) fn about(
        &self,
        artifact: ArtifactId,
        environment: &str,
        release: Option<ReleaseId>,
    ) -> About {
        About::Artifact {
            digest: self.state.artifacts[&artifact].output.digest,
            environment: Some(environment.parse().unwrap()),
            previous: None,
            release,
        }
    }

    /// Replaces one blob everywhere: in the blobs, and its digest in every entry.
    pub(crate) fn swap_blob(&mut self, old: &Digest, new: &[u8]) -> Digest {
        self.blobs.remove(old);
        let new = self.blob(new);
        let events = std::mem::take(&mut self.events);
        self.events = events
            .into_iter()
            .map(|event| {
                let text = String::from_utf8(event.encode().unwrap()).unwrap();
                let text = text.replace(&old.to_string(), &new.to_string());
                Event::decode(event.index, text.as_bytes()).unwrap()
            })
            .collect();
        new
    }

    pub(crate) fn find(&mut self, wanted: impl Fn(&Body) -> bool) -> &mut Event {
        self.events
            .iter_mut()
            .find(|event| wanted(&event.body))
            .unwrap()
    }
}

/// The tree that a name stands for.
pub(crate) fn tree(name: &str) -> GitOid {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("tree {name}").as_bytes());
    encode_hex(hash.as_ref()).parse().unwrap()
}

/// A commit object with this tree and these parents.
pub(crate) fn commit(
    objects: &mut BTreeMap<GitOid, Bytes>,
    parents: &[&GitOid],
    name: &str,
) -> GitOid {
    let mut text = format!("tree {}\n", tree(name));
    for parent in parents {
        text.push_str(&format!("parent {parent}\n"));
    }
    text.push_str(&format!(
        "author A <a@b> 0 +0000\ncommitter A <a@b> 0 +0000\n\n{name}\n"
    ));
    let bytes = text.into_bytes();
    let framed = [
        format!("commit {}\0", bytes.len()).into_bytes(),
        bytes.clone(),
    ]
    .concat();
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &framed);
    let oid: GitOid = encode_hex(hash.as_ref()).parse().unwrap();
    objects.insert(oid.clone(), Bytes(bytes));
    oid
}
