//! What every handler and the worker share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use portcullis_checks::outgoing::without_secrets;
use portcullis_evidence::note::{KeyName, VerifierKey};
use portcullis_flow::{Command, State};
use portcullis_gateway::http::AddressRule;
use portcullis_gateway::http::egress::EgressClient;
use portcullis_gateway::http::model::ModelClient;
use portcullis_gateway::http::plain::PlainClient;
use portcullis_gateway::http::room::Rooms;
use portcullis_identity::custody::{self, P256Purpose};
use portcullis_identity::svid::Authority;
use portcullis_identity::token::{TokenIssuer, TokenVerifier};
use portcullis_identity::{ReplayCache, ReplayLimits, TrustDomain, dpop};
use portcullis_model::event::{DecisionRecord, RequestDenied};
use portcullis_model::statement::BreakerScope;
use portcullis_model::{
    Actor, Body, Digest, Fold as _, GitOid, Principal, Refusal, RepositoryId, RunId, ServiceId,
    Timestamp,
};
use portcullis_policy::{Ask, Decision, Permit, PolicyFile, PolicySet, Recall, Request, decide};
use portcullis_store::{
    Clock, Ledger, LedgerHandle, LedgerOptions, LogKey, OpenReport, SystemClock,
};

use crate::api::gateway::calls::Calls;
use crate::api::gateway::looks::Looks;
use crate::api::gateway::void::Voids;
use crate::config::Config;
use crate::home::Home;
use crate::init::{log_signer, read_policy};
use crate::kept::KeptFiles;
use crate::mirrors::Mirrors;
use crate::witnesses::Witnesses;
use crate::worker::Settled;

/// The audience of run tokens: our own gateway.
pub const AUDIENCE: &str = "portcullis-gateway";

/// Most pieces of the log in memory at once; a bundle has up to 16 MiB.
const LOG_READS_MAX: usize = 16;

/// The running server.
pub struct App {
    /// Local settings.
    pub config: Config,
    /// Where what stands.
    pub home: Home,
    /// The ledger.
    pub ledger: LedgerHandle<State>,
    /// Issues SVIDs.
    pub authority: Authority,
    /// Issues tokens.
    pub tokens: TokenIssuer,
    /// Verifies tokens.
    pub verifier: TokenVerifier,
    /// Remembers proofs of possession.
    pub replay: ReplayCache,
    /// Name and key under which checkpoints verify.
    pub log_key: VerifierKey,
    /// Mirrors of governed repositories.
    pub mirrors: Mirrors,
    /// Sends calls to model endpoints.
    pub models: ModelClient,
    /// Sends requests to named hosts.
    pub egress: EgressClient,
    /// Memory for bodies of requests.
    pub rooms: Rooms,
    /// Turns for long looks at what leaves.
    pub(crate) looks: Looks,
    /// The addresses that may be reached.
    pub addresses: AddressRule,
    /// What tasks keep in.
    pub kept: KeptFiles,
    /// Where in the ledger the entries stand that a bundle needs and the state does not keep.
    pub index: crate::bundle::Index,
    /// How often runs asked beforehand what would be refused.
    pub questions: Questions,
    /// Which runs' launchers were heard of.
    pub heard: Heard,
    /// Work that needs no further look while this server runs.
    pub settled: Settled,
    /// Who cosigns the log's checkpoints.
    pub witnesses: Witnesses,
    /// How many pieces of the log are read at once.
    pub log_reads: tokio::sync::Semaphore,
    /// How many clients follow the ledger.
    pub tails: Arc<tokio::sync::Semaphore>,
    /// What looks at rollouts remember of one another.
    pub rollouts: crate::worker::rollout::Memory,
    /// What was halted before the ledger could say so.
    halted: ArcSwap<BTreeSet<BreakerScope>>,
    /// Says that it changed.
    halt_told: tokio::sync::watch::Sender<()>,
    /// Grants and outcomes of calls that wait to be written.
    pub(crate) calls: Calls,
    /// Who waits for the end of which run.
    pub(crate) voids: Voids,
    /// What runs were permitted lately.
    recalls: Mutex<BTreeMap<RunId, Recall>>,
    policies: Mutex<BTreeMap<Vec<Digest>, Arc<PolicySet>>>,
}

/// Policy's answer, ready to be recorded.
pub enum Verdict {
    /// Leave to do it once.
    Permit(Permit, DecisionRecord),
    /// A "no"; with what would change it, if approvals would.
    No(Box<Refusal>, DecisionRecord, Option<Box<Ask>>),
}

impl Verdict {
    /// The permit with its record.
    ///
    /// # Errors
    /// The answer is no.
    pub fn into_permit(self) -> Result<(Permit, DecisionRecord), Refusal> {
        match self {
            Self::Permit(permit, record) => Ok((permit, record)),
            Self::No(refusal, _, _) => Err(*refusal),
        }
    }
}

impl Verdict {
    /// For acts whose own entry is the record: the permit ends here, and the entry follows.
    ///
    /// # Errors
    /// The answer is no.
    pub fn require(self) -> Result<(), Refusal> {
        let (_spent, _) = self.into_permit()?;
        Ok(())
    }
}

/// How often each run asked beforehand what would be refused. In memory: a restart forgets what was
/// not yet pushed.
#[derive(Default)]
pub struct Questions(Mutex<BTreeMap<RunId, u64>>);

impl Questions {
    /// One more.
    pub fn count(&self, run: RunId) {
        if let Ok(mut counts) = self.0.lock() {
            *counts.entry(run).or_default() += 1;
        }
    }

    /// So far.
    pub fn of(&self, run: RunId) -> u64 {
        self.0
            .lock()
            .ok()
            .and_then(|counts| counts.get(&run).copied())
            .unwrap_or_default()
    }
}

/// Which runs' launchers were heard of since this server started. In memory: a launcher that lives
/// asks again and again whether its run may go on, so a restart learns anew.
pub struct Heard {
    since: Timestamp,
    runs: Mutex<BTreeSet<RunId>>,
}

impl Heard {
    /// Longest time from a run's start to the first word of its launcher, in milliseconds: above
    /// that, the answer to the start was lost, and nobody knows of the run.
    pub const PATIENCE_MS: u64 = 60_000;

    const fn new(since: Timestamp) -> Self {
        Self {
            since,
            runs: Mutex::new(BTreeSet::new()),
        }
    }

    /// This run's launcher asked.
    pub fn of(&self, run: RunId) {
        if let Ok(mut runs) = self.runs.lock() {
            runs.insert(run);
        }
    }

    /// A run that no launcher ever asked about, though it had the time; the oldest.
    pub fn never(&self, state: &State, now: Timestamp) -> Option<RunId> {
        let mut heard = self.runs.lock().ok()?;
        heard.retain(|id| state.runs.get(id).is_some_and(|run| run.end.is_none()));
        state
            .runs
            .open()
            .find(|run| {
                let from = run.started.max(self.since);
                now >= from.plus_ms(Self::PATIENCE_MS) && !heard.contains(&run.id)
            })
            .map(|run| run.id)
    }
}

/// The server's clock, at the edge.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ms = since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    Timestamp::from_ms(ms.saturating_add_signed(crate::fault::clock_offset_ms()))
}

/// The same clock for the sequencer, beside the one that nobody sets.
struct ServerClock;

impl Clock for ServerClock {
    fn wall(&self) -> Timestamp {
        now()
    }

    fn elapsed_ms(&self) -> u64 {
        SystemClock.elapsed_ms()
    }
}

/// What a server does with the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Writes it.
    Lead,
    /// Reads it, and is there to take over.
    Follow,
}

/// Waits until a ledger that is followed has its first signed entries.
async fn begun(handle: &LedgerHandle<State>) -> Result<(), Refusal> {
    /// A leader signs within moments of its first entry.
    const BEGIN_MAX: std::time::Duration = std::time::Duration::from_secs(10);
    let mut size = handle.subscribe();
    let first = size.wait_for(|size| *size > 0);
    match tokio::time::timeout(BEGIN_MAX, first).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Refusal::unavailable(
            "ledger-empty",
            "the ledger that this server would follow has no entries",
        )
        .next("start the server that leads, and then this one again")),
    }
}

/// The server as an actor.
pub fn control() -> Actor {
    // "control" is a valid name, which a test pins.
    let id: Result<ServiceId, Refusal> = "control".parse();
    Actor::unsigned(id.map_or(Principal::Unknown, Principal::Service))
}

impl App {
    /// Opens the home: keys, ledger, policy. As the leader an empty ledger gets the genesis.
    ///
    /// # Errors
    /// Something is missing or unreadable, another server runs on the same data, or the ledger
    /// does not verify.
    pub async fn open(
        home: Home,
        role: Role,
    ) -> Result<(Arc<Self>, Ledger<State>, OpenReport), Refusal> {
        let config = Config::read(&text(&Home::read(&home.config(), 64 * 1024)?)?)?;
        let genesis_bytes = Home::read(
            &home.genesis(),
            portcullis_model::limits::ENTRY_MAX_BYTES as u64,
        )?;
        let genesis = portcullis_model::Event::decode(0, &genesis_bytes)?;
        let Body::GenesisCreated(body) = &genesis.body else {
            return Err(Refusal::malformed("genesis").expected("a genesis.created entry"));
        };
        let trust_domain: TrustDomain = body.trust_domain.parse()?;
        let started = now();
        let ca = custody::load_p256(&home.key("ca"), P256Purpose::TrustDomainCa)?;
        let certificate = text(&Home::read(&home.authority(), 64 * 1024)?)?;
        let authority = Authority::open(trust_domain.clone(), &ca, &certificate, started)?;
        let token_key = custody::load_p256(&home.key("token"), P256Purpose::TokenSigning)?;
        let tokens = TokenIssuer::new(trust_domain.clone(), token_key);
        let verifier = TokenVerifier::new(trust_domain, AUDIENCE, vec![tokens.public().clone()])?;
        let signer = log_signer(&home)?;
        let name: KeyName = body.origin.parse()?;
        let log_key = VerifierKey::from_public_key(name.clone(), signer.public_key())?;
        if *signer.public_key() != body.log_key {
            return Err(Refusal::denied(
                "wrong-log-key",
                "the log's key is not the one in the genesis",
            )
            .expected(body.log_key.fingerprint())
            .received(signer.public_key().fingerprint()));
        }
        let mut options = LedgerOptions::new(LogKey::new(name, signer));
        options.clock = Arc::new(ServerClock);
        options.clock_was_ahead_until = config.clock_was_ahead_until;
        options.store = config.store(&home)?;
        let (ledger, report) = match role {
            Role::Lead => Ledger::<State>::open(&home.ledger(), options)?,
            Role::Follow => Ledger::<State>::follow(&home.ledger(), &options)?,
        };
        let handle = ledger.handle();
        if role == Role::Follow {
            begun(&handle).await?;
        }
        if handle.size() == 0 {
            for file in read_policy(&home.policy())? {
                handle.blobs().put(file.text.as_bytes())?;
            }
            handle.submit_blocking(Command::one(control(), body.clone()))?;
        } else if handle.entry(0)?.bytes != genesis_bytes {
            return Err(Refusal::denied(
                "wrong-genesis",
                "the ledger does not begin with this genesis",
            )
            .expected(&Digest::of(&genesis_bytes).to_string())
            .received(&Digest::of(&handle.entry(0)?.bytes).to_string()));
        }
        let mirrors = Mirrors::open(
            &home,
            config.extra_authorities.as_deref(),
            config.mirror_max_mib.saturating_mul(1024 * 1024),
        )
        .await?;
        let models = ModelClient::new(config.extra_authorities.as_deref())?;
        let addresses = config.address_rule();
        let egress = EgressClient::new(addresses.clone(), config.extra_authorities.as_deref())?;
        let witnesses = Witnesses::new(
            &config.log.witnesses,
            config.log.quorum,
            PlainClient::new(config.extra_authorities.as_deref())?,
        )?;
        let app = Self {
            config,
            home,
            ledger: handle,
            authority,
            tokens,
            verifier,
            replay: ReplayCache::new(ReplayLimits::default(), dpop::PROOF_MAX_AGE_S, started),
            log_key,
            mirrors,
            models,
            egress,
            rooms: Rooms::default(),
            looks: Looks::default(),
            addresses,
            kept: KeptFiles::default(),
            index: crate::bundle::Index::default(),
            questions: Questions::default(),
            heard: Heard::new(started),
            settled: Settled::default(),
            witnesses,
            log_reads: tokio::sync::Semaphore::new(LOG_READS_MAX),
            tails: Arc::new(tokio::sync::Semaphore::new(crate::api::ledger::TAILS_MAX)),
            rollouts: crate::worker::rollout::Memory::default(),
            halted: ArcSwap::from_pointee(BTreeSet::new()),
            halt_told: tokio::sync::watch::Sender::new(()),
            calls: Calls::default(),
            voids: Voids::default(),
            recalls: Mutex::new(BTreeMap::new()),
            policies: Mutex::new(BTreeMap::new()),
        };
        app.policy(&app.state(), &[])?;
        Ok((Arc::new(app), ledger, report))
    }

    /// The signed note that the log's readers get: where witnesses are configured, the newest that
    /// enough of them cosigned; the log's own until then, and where there are none. Until then also
    /// after a restore, whose entry must be there for the witnesses' operators to read.
    pub fn public_checkpoint(&self) -> String {
        let state = self.state();
        let restored = state.restored.last().map_or(0, |restored| restored.entry);
        match self.witnesses.newest() {
            Some(cosigned) if cosigned.size > restored => cosigned.checkpoint.to_string(),
            Some(_) | None => self.ledger.checkpoint().note.clone(),
        }
    }

    /// The newest state.
    pub fn state(&self) -> Arc<State> {
        self.ledger.state()
    }

    /// The organisation's policy in force, with a repository's own files on top.
    ///
    /// # Errors
    /// A file of the policy is missing or does not load; then everything is denied.
    pub fn policy(
        &self,
        state: &State,
        repository: &[PolicyFile],
    ) -> Result<Arc<PolicySet>, Refusal> {
        let files = state
            .inventory
            .policy
            .as_ref()
            .ok_or_else(|| Refusal::denied("no-policy", "no policy is in force"))?;
        let mut key = vec![files.digest];
        key.extend(
            repository
                .iter()
                .map(|file| Digest::of(file.text.as_bytes())),
        );
        if let Some(set) = self
            .policies
            .lock()
            .ok()
            .and_then(|cache| cache.get(&key).cloned())
        {
            return Ok(set);
        }
        let mut organisation = Vec::with_capacity(files.files.len());
        for (name, digest) in &files.files {
            let bytes = self.ledger.blobs().get(digest)?;
            organisation.push(PolicyFile::new(name.clone(), text(&bytes)?));
        }
        let plain = PolicySet::load(&organisation, &[])?;
        if plain.digest() != files.digest {
            return Err(Refusal::denied(
                "policy-altered",
                "the policy's files are not those in force",
            )
            .expected(&files.digest.to_string())
            .received(&plain.digest().to_string()));
        }
        let set = Arc::new(if repository.is_empty() {
            plain
        } else {
            PolicySet::load(&organisation, repository)?
        });
        if let Ok(mut cache) = self.policies.lock() {
            // A policy changes rarely; repositories' bases move. The bound keeps both.
            const CACHED_MAX_SETS: usize = 64;
            if cache.len() >= CACHED_MAX_SETS {
                cache.clear();
            }
            cache.insert(key, Arc::clone(&set));
        }
        Ok(set)
    }

    /// A repository's own policy files, from the protected base.
    ///
    /// # Errors
    /// The base can't be read, or a file is no text; then everything about it is denied.
    pub async fn repository_policy(
        &self,
        state: &State,
        repository: &RepositoryId,
        base: &GitOid,
    ) -> Result<Vec<PolicyFile>, Refusal> {
        let mirror = self.mirrors.get(state, repository).await?;
        mirror.policy_files(base).await
    }

    /// The permit that [`decide`](Self::decide) would give, if the run asked the same before.
    pub(crate) fn recalled(&self, state: &State, run: RunId, request: &Request) -> Option<Permit> {
        let set = self.policy(state, &[]).ok()?;
        let recalls = self.recalls.lock().ok()?;
        recalls.get(&run)?.permit(&set, request, state.size())
    }

    /// Notes what was permitted, for when the run asks the same again.
    pub(crate) fn remember(&self, state: &State, run: RunId, request: &Request, permit: &Permit) {
        /// Runs that are remembered at most; the memory begins anew then.
        const RUNS_MAX: usize = 1_024;
        let Ok(set) = self.policy(state, &[]) else {
            return;
        };
        if let Ok(mut recalls) = self.recalls.lock() {
            if recalls.len() >= RUNS_MAX && !recalls.contains_key(&run) {
                recalls.clear();
            }
            recalls
                .entry(run)
                .or_default()
                .remember(&set, request, permit);
        }
    }

    /// Decides a request at `state`, with a repository's own files on top of the policy.
    pub fn decide(&self, state: &State, request: &Request, repository: &[PolicyFile]) -> Verdict {
        let in_force = state.policy().unwrap_or_else(|| Digest::of(b""));
        let set = match self.policy(state, repository) {
            Ok(set) => set,
            Err(refusal) => {
                let record = DecisionRecord {
                    policy: in_force,
                    at: state.size(),
                    rules: Vec::new(),
                };
                return Verdict::No(Box::new(refusal), record, None);
            }
        };
        let decision = decide(&set, request, state.size());
        let decision = match portcullis_policy::modes::apply(request, decision) {
            portcullis_policy::modes::Applied::Enforced(decision) => decision,
            portcullis_policy::modes::Applied::Unenforced(unenforced) => {
                tracing::info!(
                    action = request.action.name(),
                    "not enforced: would have been {}: {}",
                    unenforced.would.answer,
                    unenforced.would.reason
                );
                Decision::Permit(unenforced.permit)
            }
        };
        let rules = decision
            .summary()
            .rules
            .iter()
            .map(ToString::to_string)
            .collect();
        let record = DecisionRecord {
            policy: in_force,
            at: state.size(),
            rules,
        };
        match decision {
            Decision::Permit(permit) => Verdict::Permit(permit, record),
            Decision::Deny(denial) => Verdict::No(Box::new(Refusal::from(&denial)), record, None),
            Decision::Ask(ask) => {
                Verdict::No(Box::new(Refusal::from(&ask)), record, Some(Box::new(ask)))
            }
        }
    }

    /// Records that something was denied to a run. The denial stands whether or not this works.
    pub async fn record_denial(
        &self,
        actor: Actor,
        run: Option<RunId>,
        action: &str,
        resource: String,
        refusal: &Refusal,
        decision: DecisionRecord,
    ) {
        let body = RequestDenied {
            run,
            action: action.to_owned(),
            resource: without_secrets(&resource).chars().take(400).collect(),
            code: refusal.code.clone(),
            decision,
        };
        if let Err(error) = self.ledger.submit(Command::one(actor, body)).await {
            tracing::warn!(
                error.code = error.code,
                "a denial could not be recorded: {error}"
            );
        }
    }

    /// A decision record for what the state itself refuses.
    pub fn state_decision(&self, state: &State) -> DecisionRecord {
        DecisionRecord {
            policy: state.policy().unwrap_or_else(|| Digest::of(b"")),
            at: state.size(),
            rules: Vec::new(),
        }
    }

    /// Halts at once, before the ledger knows.
    pub fn halt(&self, scope: &BreakerScope) {
        self.halted.rcu(|halted| {
            let mut halted = BTreeSet::clone(halted);
            halted.insert(scope.clone());
            halted
        });
        self.halt_told.send_replace(());
    }

    /// Changes whenever something was halted ahead of the ledger.
    pub(crate) fn halts(&self) -> tokio::sync::watch::Receiver<()> {
        self.halt_told.subscribe()
    }

    /// What is halted in memory and is not in the ledger: before it says so, or instead.
    pub fn halted_ahead(&self, state: &State) -> Vec<BreakerScope> {
        self.halted
            .load()
            .iter()
            .filter(|scope| !state.breakers.contains_key(*scope))
            .cloned()
            .collect()
    }

    /// Lets go of a halt, after the ledger said so.
    pub fn release_halt(&self, scope: &BreakerScope) {
        self.halted.rcu(|halted| {
            let mut halted = BTreeSet::clone(halted);
            halted.remove(scope);
            halted
        });
    }

    /// The scope that is halted for this, by the ledger or ahead of it.
    pub fn halted_for(
        &self,
        state: &State,
        agent: Option<&portcullis_model::AgentId>,
        repositories: &[&RepositoryId],
        environment: Option<&portcullis_model::EnvironmentId>,
    ) -> Option<BreakerScope> {
        let known = portcullis_flow::breaker::tripped_for(
            state,
            agent,
            repositories.iter().copied(),
            environment,
        );
        known.or_else(|| {
            self.halted
                .load()
                .iter()
                .find(|scope| match scope {
                    BreakerScope::Everywhere => true,
                    BreakerScope::Agent(id) => agent == Some(id),
                    BreakerScope::Repository(id) => repositories.contains(&id),
                    BreakerScope::Environment(id) => environment == Some(id),
                })
                .cloned()
        })
    }

    /// Number of entries that the newest state folds.
    pub fn size(&self) -> u64 {
        self.state().next_index()
    }
}

/// Bytes as UTF-8 text.
///
/// # Errors
/// They are not.
pub fn text(bytes: &[u8]) -> Result<String, Refusal> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        Refusal::malformed("text")
            .expected("UTF-8")
            .received("other bytes")
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_server_acts_as_a_service() {
        assert_eq!(super::control().principal.to_string(), "service:control");
    }
}
