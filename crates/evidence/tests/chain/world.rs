//! A whole ledger, made by the fold from real signatures: two administrators, a reviewer, an agent,
//! a builder, a repository, two environments.

mod ship;
mod work;

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
    /// Where changes are made.
    place: RepositoryId,
    /// What a task works on.
    pub(crate) targets: Vec<RepositoryId>,
    /// Whether approvals carry to a later base.
    pub(crate) carry: Carry,
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
            place: repository(),
            targets: vec![repository()],
            carry: Carry::Exact,
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

    /// A second repository, `web`, which the agent may work on too; a task is for both, together.
    pub(crate) fn open_web(&mut self) {
        let web: RepositoryId = "web".parse().unwrap();
        let shop = self.state.inventory.repositories[&repository()].clone();
        let record = Repository {
            id: web.clone(),
            ..(*shop).clone()
        };
        self.activate(Activation::Repository(record), "ada", Some("ben"));
        let fixer: portcullis_model::AgentId = "fixer".parse().unwrap();
        let mut record = self.state.inventory.agents[&fixer].manifest.clone();
        record.repositories.insert(web.clone());
        self.activate(Activation::Agent(record), "ada", Some("ben"));
        self.targets = vec![repository(), web];
    }

    /// From here on, changes are made in `place`.
    pub(crate) fn go_to(&mut self, place: &RepositoryId) {
        self.place = place.clone();
        self.tested.clear();
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
            carry: self.carry,
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

/// The tree that a name stands for: `src` with a file for each word of it that is no "on".
pub(crate) fn tree(name: &str) -> GitOid {
    trees(name)[0].0.clone()
}

/// The tree objects of a name, the root first.
pub(crate) fn trees(name: &str) -> [(GitOid, Bytes); 2] {
    let mut files: Vec<String> = name.split(" on ").map(str::to_owned).collect();
    files.push("0".to_owned());
    files.sort();
    files.dedup();
    let entries = files.iter().flat_map(|file| {
        let blob = oid_of("blob", file.as_bytes());
        entry("100644", file, &blob)
    });
    let source = entries.collect::<Vec<u8>>();
    let source_id = oid_of("tree", &source);
    let root = entry("40000", "src", &source_id);
    let root_id = oid_of("tree", &root);
    [(root_id, Bytes(root)), (source_id, Bytes(source))]
}

/// One entry of a tree object.
pub(crate) fn entry(mode: &str, name: &str, oid: &GitOid) -> Vec<u8> {
    let id = portcullis_model::digest::decode_hex(oid.as_str()).unwrap();
    [format!("{mode} {name}\0").as_bytes(), &id].concat()
}

/// The id that git gives an object.
pub(crate) fn oid_of(kind: &str, bytes: &[u8]) -> GitOid {
    let framed = [format!("{kind} {}\0", bytes.len()).as_bytes(), bytes].concat();
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &framed);
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
    let oid = oid_of("commit", &bytes);
    objects.insert(oid.clone(), Bytes(bytes));
    oid
}
