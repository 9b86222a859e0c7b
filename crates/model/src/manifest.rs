//! The inventory's records, as people write them in TOML and as activation signs them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::digest::Digest;
use crate::id::{
    AgentId, EndpointId, EnvironmentId, GroupId, HostId, HumanId, RepositoryId, ServiceId,
};
use crate::key::{KeyClass, PublicKey};
use crate::limits::HUMAN_MAX_KEYS;
use crate::principal::Mode;
use crate::refusal::Refusal;
use crate::time::Timestamp;

/// A person. Name and mail are kept apart, so that a person can be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Human {
    /// Pseudonymous id.
    pub id: HumanId,
    /// SSH keys, 1 to 16.
    pub keys: Vec<PublicKey>,
    /// Whether the person takes part in quorums.
    #[serde(default)]
    pub administrator: bool,
    /// Salted digest of name and mail, which stand outside the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Digest>,
}

/// Named people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub id: GroupId,
    /// Who is in it.
    pub members: BTreeSet<HumanId>,
}

/// A stage of work that an agent may take part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Writes changes.
    Write,
    /// Runs tests.
    Test,
    /// Comments on changes; never approves.
    Review,
    /// Takes part in deployments, never in production's decision.
    Deploy,
}

/// An agent. What lacks owner, purpose or expiry is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its name.
    pub id: AgentId,
    /// The human who answers for it.
    pub owner: HumanId,
    /// What it is for, in a sentence.
    pub purpose: String,
    /// The model behind it.
    pub model: String,
    /// The program that drives the model.
    pub runtime: String,
    /// Tools that it may use.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tools: BTreeSet<String>,
    /// Repositories that it may work on.
    pub repositories: BTreeSet<RepositoryId>,
    /// Build systems that it touches.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub build_systems: BTreeSet<String>,
    /// Ticket systems that it is fed from.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ticketing: BTreeSet<String>,
    /// Ways by which its work reaches an environment.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub deployment_paths: BTreeSet<String>,
    /// Stages that it takes part in.
    pub phases: BTreeSet<Phase>,
    /// The most sensitive environment that its work may reach.
    pub environment_ceiling: Sensitivity,
    /// Path globs that no task of it may exceed.
    #[serde(default = "everything")]
    pub paths: Vec<String>,
    /// Model endpoints that tasks may lend it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub endpoints: BTreeSet<EndpointId>,
    /// Hosts (`name:port`) that tasks may let it reach.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
    /// Groups whose members may task it, besides its owner and the administrators.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tasked_by: BTreeSet<GroupId>,
    /// When a person looks at this record again.
    pub review_by: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
}

fn everything() -> Vec<String> {
    vec!["**".to_owned()]
}

/// What a service does for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceRole {
    /// Runs test jobs.
    Test,
    /// Runs build jobs and signs provenance.
    Build,
    /// The server itself: performs effects.
    Control,
}

/// A service with a key of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub id: ServiceId,
    /// The human who answers for it.
    pub owner: HumanId,
    /// What it is for, in a sentence.
    pub purpose: String,
    /// Its Ed25519 key.
    pub key: PublicKey,
    /// What it may do.
    pub roles: BTreeSet<ServiceRole>,
    /// When a person looks at this record again.
    pub review_by: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
}

/// Whose machine a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostClass {
    /// Run by a developer: what it says about containment is its claim.
    SelfRun,
    /// Run by the platform team.
    Managed,
}

/// A machine that launches runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub id: HostId,
    /// The human who answers for it.
    pub owner: HumanId,
    /// Its Ed25519 key.
    pub key: PublicKey,
    /// Whose machine it is.
    pub class: HostClass,
    /// When it ends by itself.
    pub expires: Timestamp,
}

/// How much harm an environment can do. What is not classified counts as production.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Sensitivity {
    /// Nothing of value.
    Development,
    /// Looks like production, has none of its data.
    Staging,
    /// Everything else.
    #[default]
    Production,
}

/// Where releases run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Its name.
    pub id: EnvironmentId,
    /// Whose releases run here.
    pub repository: RepositoryId,
    /// How much harm it can do.
    #[serde(default)]
    pub sensitivity: Sensitivity,
    /// Groups whose members may ask for a release, besides the administrators.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub deployers: BTreeSet<GroupId>,
    /// TCP port on loopback that the proxy serves.
    pub port: u16,
    /// TCP port that a released process listens on, inside its own network.
    #[serde(default = "default_service_port")]
    pub service_port: u16,
    /// How traffic moves to a release.
    #[serde(default)]
    pub canary: Canary,
    /// Who must have witnessed the ledger before a release is let in.
    #[serde(default, skip_serializing_if = "Witnessing::is_none")]
    pub witnesses: Witnessing,
}

/// Witnesses of the ledger, and how many of them must have cosigned a checkpoint that covers the
/// evidence for a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witnessing {
    /// Their keys as they print them, `name+id+key` (c2sp.org/tlog-cosignature), at most
    /// [`WITNESSES_MAX`].
    #[serde(default)]
    pub keys: BTreeSet<String>,
    /// How many of them, at least 1 where there are any.
    #[serde(default)]
    pub quorum: u32,
}

/// Most witnesses of one environment: a checkpoint has room for their signatures beside others.
pub const WITNESSES_MAX: usize = 16;

impl Witnessing {
    /// Whether nobody is demanded.
    pub fn is_none(&self) -> bool {
        self.keys.is_empty() && self.quorum == 0
    }

    fn validate(&self) -> Result<(), Refusal> {
        let keys = self.keys.len();
        let quorum = usize::try_from(self.quorum).unwrap_or(usize::MAX);
        let fits = self.is_none() || (1..=keys).contains(&quorum);
        if keys > WITNESSES_MAX || !fits {
            return Err(Refusal::malformed("witnesses")
                .expected(&format!(
                    "at most {WITNESSES_MAX} keys and a quorum from 1 to their number"
                ))
                .received(&format!("{keys} keys and a quorum of {quorum}")));
        }
        for key in &self.keys {
            let mut parts = key.splitn(3, '+');
            let named = parts.next().is_some_and(|name| !name.is_empty());
            let id = parts.next().unwrap_or_default();
            let encoded = parts.next().unwrap_or_default();
            let id = id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !named || !id || encoded.len() != 44 || key.chars().any(char::is_whitespace) {
                return Err(Refusal::malformed("witness key")
                    .expected("name+8 hex digits+44 characters of base64, as `portcullis witness` prints it")
                    .received(key));
            }
        }
        Ok(())
    }
}

const fn default_service_port() -> u16 {
    8080
}

/// How traffic moves to a release that contains an agent's work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Weights of the steps in per mille, rising; full traffic follows the last.
    #[serde(default = "default_steps")]
    pub steps: Vec<u32>,
    /// Chance of a false rollback under continuous looking, in parts per million.
    #[serde(default = "default_alpha_ppm")]
    pub alpha_ppm: u32,
    /// How much worse a canary may be and still count as "not worse", in per mille of requests.
    #[serde(default = "default_margin")]
    pub margin_per_mille: u32,
    /// Errors served by the canary that roll it back at once.
    #[serde(default = "default_max_errors")]
    pub max_errors: u64,
    /// Fewest canary requests in a step.
    #[serde(default = "default_min_requests")]
    pub min_requests: u64,
    /// Shortest step in milliseconds.
    #[serde(default = "default_step_ms")]
    pub min_step_ms: u64,
    /// Longest step in milliseconds before it holds and asks.
    #[serde(default = "default_max_step_ms")]
    pub max_step_ms: u64,
}

fn default_steps() -> Vec<u32> {
    vec![50, 250, 500]
}
const fn default_alpha_ppm() -> u32 {
    10_000
}
const fn default_margin() -> u32 {
    20
}
const fn default_max_errors() -> u64 {
    50
}
const fn default_min_requests() -> u64 {
    50
}
const fn default_step_ms() -> u64 {
    30_000
}
const fn default_max_step_ms() -> u64 {
    3_600_000
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            alpha_ppm: default_alpha_ppm(),
            margin_per_mille: default_margin(),
            max_errors: default_max_errors(),
            min_requests: default_min_requests(),
            min_step_ms: default_step_ms(),
            max_step_ms: default_max_step_ms(),
        }
    }
}

/// A governed repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Its name.
    pub id: RepositoryId,
    /// Where landed commits go: a path or URL that plain git understands. Its credential stays
    /// with the server.
    pub upstream: String,
    /// The branch that tasks start from when they name none.
    #[serde(default = "default_branch")]
    pub default_branch: String,
    /// Commit of the default branch up to which history is taken as it is, on the word of whoever
    /// activates this record. Every later commit must be proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<crate::digest::GitOid>,
    /// Branch globs that nobody pushes to directly.
    #[serde(default = "default_protected")]
    pub protected: Vec<String>,
    /// An environment to which landing on the default branch deploys by itself; landing then takes
    /// that environment's rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploys_on_landing: Option<EnvironmentId>,
    /// Largest pack accepted, in bytes.
    #[serde(default = "default_max_pack")]
    pub max_pack_bytes: u64,
    /// Whether decisions about it are enforced.
    #[serde(default)]
    pub mode: Mode,
}

fn default_branch() -> String {
    "main".to_owned()
}
fn default_protected() -> Vec<String> {
    vec!["**".to_owned()]
}
const fn default_max_pack() -> u64 {
    64 * 1024 * 1024
}

/// A declared model endpoint: a base URL inside, the key added outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Its name; inside the sandbox it is the path `/model/<id>/`.
    pub id: EndpointId,
    /// Where requests go, such as `https://api.example.com/v1`.
    pub base_url: String,
    /// Header that carries the key, such as `authorization` or `x-api-key`.
    #[serde(default = "default_header")]
    pub header: String,
    /// What stands before the key in that header, such as `Bearer `.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Name of the secret in the server's `secrets` folder; empty means the endpoint takes no key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret: String,
    /// Models that may be asked for; empty means any, and what was asked is recorded all the same.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub models: BTreeSet<String>,
}

fn default_header() -> String {
    "authorization".to_owned()
}

/// The files of a policy, by name and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFiles {
    /// Digest over schema, base and organisation files, as `policy` computes it.
    pub digest: Digest,
    /// Digest of each file; the bytes are blobs.
    pub files: BTreeMap<String, Digest>,
}

/// Anything that takes a quorum to come into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "record")]
pub enum Activation {
    /// A person, new or with other keys.
    Human(Human),
    /// A group.
    Group(Group),
    /// An agent; also brings a suspended one back.
    Agent(Agent),
    /// A service.
    Service(Service),
    /// A host.
    Host(Host),
    /// An environment.
    Environment(Environment),
    /// A repository, or another mode of it.
    Repository(Repository),
    /// A model endpoint.
    Endpoint(Endpoint),
    /// A policy.
    Policy(PolicyFiles),
}

impl Activation {
    /// What it is about, such as `agent fixer`.
    pub fn subject(&self) -> String {
        match self {
            Self::Human(record) => format!("human {}", record.id),
            Self::Group(record) => format!("group {}", record.id),
            Self::Agent(record) => format!("agent {}", record.id),
            Self::Service(record) => format!("service {}", record.id),
            Self::Host(record) => format!("host {}", record.id),
            Self::Environment(record) => format!("environment {}", record.id),
            Self::Repository(record) => format!("repository {}", record.id),
            Self::Endpoint(record) => format!("endpoint {}", record.id),
            Self::Policy(record) => format!("policy {}", record.digest.short()),
        }
    }

    /// The digest that approvers sign.
    ///
    /// # Errors
    /// It does not serialise.
    pub fn digest(&self) -> Result<Digest, Refusal> {
        Ok(Digest::of(&canonical::to_vec(self)?))
    }

    /// The least key class that its approval takes when genesis lowers nothing.
    pub const fn key_class(&self) -> KeyClass {
        match self {
            Self::Human(_) | Self::Service(_) | Self::Host(_) | Self::Policy(_) => {
                KeyClass::Presence
            }
            Self::Group(_)
            | Self::Agent(_)
            | Self::Environment(_)
            | Self::Repository(_)
            | Self::Endpoint(_) => KeyClass::Software,
        }
    }

    /// Checks what can be checked without state.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), Refusal> {
        match self {
            Self::Human(record) => record.validate(),
            Self::Agent(record) => {
                require_text("agent purpose", &record.purpose)?;
                require_text("agent model", &record.model)?;
                require_text("agent runtime", &record.runtime)?;
                crate::task::Scope::over(&record.paths).validate()
            }
            Self::Service(record) => require_text("service purpose", &record.purpose),
            Self::Environment(record) => {
                record.witnesses.validate()?;
                record.canary.validate()
            }
            Self::Repository(record) => crate::task::check_branch(&record.default_branch),
            Self::Group(_) | Self::Host(_) | Self::Endpoint(_) | Self::Policy(_) => Ok(()),
        }
    }
}

impl Human {
    /// Checks the number of keys.
    ///
    /// # Errors
    /// No key, or more than [`HUMAN_MAX_KEYS`].
    pub fn validate(&self) -> Result<(), Refusal> {
        if self.keys.is_empty() || self.keys.len() > HUMAN_MAX_KEYS {
            return Err(Refusal::malformed("human")
                .expected(&format!("1 to {HUMAN_MAX_KEYS} keys"))
                .received(&format!("{} keys", self.keys.len())));
        }
        Ok(())
    }
}

impl Canary {
    /// Checks that steps rise within 1 to 999 per mille and that α is a chance.
    ///
    /// # Errors
    /// The value that is wrong.
    pub fn validate(&self) -> Result<(), Refusal> {
        let rising = self
            .steps
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a < b));
        let inside = self.steps.iter().all(|step| (1..1000).contains(step));
        if self.steps.is_empty() || !rising || !inside {
            return Err(Refusal::malformed("canary step list")
                .expected("rising weights from 1 to 999 per mille, such as [50, 250, 500]")
                .received(&format!("{:?}", self.steps)));
        }
        if !(1..500_000).contains(&self.alpha_ppm) {
            return Err(Refusal::malformed("canary alpha_ppm")
                .expected("1 to 499999 parts per million")
                .received(&self.alpha_ppm.to_string()));
        }
        Ok(())
    }
}

fn require_text(what: &str, text: &str) -> Result<(), Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::malformed(what)
            .expected("a sentence")
            .received("nothing"));
    }
    Ok(())
}
