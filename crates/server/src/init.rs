//! `portcullis init`: keys, genesis, policies, examples. It never overwrites.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use portcullis_evidence::signer::Signer;
use portcullis_flow::state::FOLD_VERSION;
use portcullis_identity::custody::{self, Ed25519Purpose, P256Purpose};
use portcullis_identity::svid::Authority;
use portcullis_identity::{Ed25519Key, TrustDomain};
use portcullis_model::event::{GenesisCreated, KeyFloor};
use portcullis_model::manifest::{
    Agent, Environment, Host, HostClass, Human, PolicyFiles, Repository, Service, ServiceRole,
};
use portcullis_model::{
    Actor, Body, Cause, Digest, Event, HumanId, KeyClass, Mode, Principal, PublicKey, Refusal,
    Timestamp,
};
use portcullis_policy::{DEFAULT, PolicyFile, PolicySet, SCHEMA};

use crate::config::Config;
use crate::home::Home;

/// How long the trust domain's certificate and the first services' records last, in milliseconds
/// (one year): long enough to forget about, short enough to be reviewed.
const FIRST_LIFE_MS: u64 = 365 * 24 * 3_600 * 1_000;

/// What `init` is told.
#[derive(Clone, Debug)]
pub struct InitPlan {
    /// First administrators with their keys; the first also owns the first records.
    pub administrators: Vec<(HumanId, Vec<PublicKey>)>,
    /// How many administrators activate something.
    pub quorum: u32,
    /// Whether one person works alone.
    pub solo: bool,
    /// Name of the ledger.
    pub origin: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Repositories to govern.
    pub repositories: Vec<Repository>,
    /// Environments.
    pub environments: Vec<Environment>,
    /// Agents.
    pub agents: Vec<Agent>,
    /// Where the server shall listen, if not on the default.
    pub listen: Option<std::net::SocketAddr>,
    /// Key classes demanded.
    pub key_floor: KeyFloor,
    /// The PostgreSQL that keeps the ledger, if it isn't SQLite.
    pub store: Option<String>,
}

/// What `init` did, line by line, for the person.
#[derive(Clone, Debug, Default)]
pub struct InitReport {
    /// Files made.
    pub made: Vec<PathBuf>,
    /// Files that stood already and were left alone.
    pub stood: Vec<PathBuf>,
    /// What the person should know.
    pub notes: Vec<String>,
}

/// Makes the directory. Run again, it makes only what is missing and says what stands.
///
/// # Errors
/// A file can't be written, or the plan is not a valid genesis; then nothing that stood is changed.
pub fn init(home: &Home, plan: &InitPlan, now: Timestamp) -> Result<InitReport, Refusal> {
    let mut report = InitReport::default();
    if home.genesis().exists() {
        report.stood.push(home.genesis());
        report.notes.push(format!(
            "{} is a home already; its genesis was left as it is",
            home.root().display()
        ));
        return Ok(report);
    }
    for folder in [
        home.root().to_owned(),
        home.root().join("keys"),
        home.policy(),
        home.secrets(),
        home.builder(),
    ] {
        make_folder(&folder)?;
    }
    let keys = make_keys(home, &mut report)?;
    let trust_domain: TrustDomain = plan.trust_domain.parse()?;
    let ca = load_or_create_ca(home, &mut report)?;
    let authority = Authority::create(trust_domain, &ca, FIRST_LIFE_MS * 4, now)?;
    write_new(
        &home.authority(),
        authority.certificate().pem().as_bytes(),
        0o644,
        &mut report,
    )?;
    let mut config = match plan.listen {
        Some(listen) => Config::TEMPLATE.replace("127.0.0.1:7117", &listen.to_string()),
        None => Config::TEMPLATE.to_owned(),
    };
    if let Some(url) = &plan.store {
        check_store(url)?;
        config.push_str(&format!("\n[store]\nurl = {}\n", toml_text(url)));
    }
    write_new(&home.config(), config.as_bytes(), 0o644, &mut report)?;
    write_new(
        &home.policy().join("default.cedar"),
        DEFAULT.as_bytes(),
        0o644,
        &mut report,
    )?;
    write_new(
        &home.policy().join("schema.cedarschema"),
        SCHEMA.as_bytes(),
        0o644,
        &mut report,
    )?;
    let genesis = genesis(home, plan, &keys, &authority, now)?;
    let event = Event {
        index: 0,
        time: now,
        actor: Actor::unsigned(Principal::Service("control".parse()?)),
        cause: Cause::default(),
        mode: Mode::Enforce,
        containment: None,
        body: Body::GenesisCreated(genesis),
    };
    // What can't be folded must not become a genesis.
    let mut state = <portcullis_flow::State as portcullis_model::Fold>::empty();
    portcullis_model::Fold::apply(&mut state, &event)?;
    write_new(&home.genesis(), &event.encode()?, 0o644, &mut report)?;
    if plan.key_floor != KeyFloor::default() {
        report.notes.push(
            "this genesis lowers the key class for production and governance to software keys: \
             a signature then says that somebody could read a key file, not that a human was there"
                .to_owned(),
        );
    }
    if plan.solo {
        report.notes.push(
            "one person works alone: own approvals count, and verification says self-approved"
                .to_owned(),
        );
    }
    Ok(report)
}

/// Refuses what is no URL of a PostgreSQL, before anything is made.
fn check_store(url: &str) -> Result<(), Refusal> {
    portcullis_store::PostgresOptions {
        url: url.to_owned(),
        password: None,
        authorities: None,
        address: String::new(),
    }
    .check()
}

/// A text as it stands in TOML.
fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

struct FirstKeys {
    log: PublicKey,
    builder: PublicKey,
    host: PublicKey,
}

fn make_keys(home: &Home, report: &mut InitReport) -> Result<FirstKeys, Refusal> {
    Ok(FirstKeys {
        log: ed25519(home, "log", Ed25519Purpose::Log, report)?.public()?,
        builder: ed25519(home, "builder", Ed25519Purpose::Service, report)?.public()?,
        host: ed25519(home, "host", Ed25519Purpose::Host, report)?.public()?,
    })
}

fn ed25519(
    home: &Home,
    name: &str,
    purpose: Ed25519Purpose,
    report: &mut InitReport,
) -> Result<Ed25519Key, Refusal> {
    let path = home.key(name);
    if path.exists() {
        report.stood.push(path.clone());
        return custody::load_ed25519(&path, purpose);
    }
    report.made.push(path.clone());
    custody::create_ed25519(&path, purpose)
}

fn load_or_create_ca(
    home: &Home,
    report: &mut InitReport,
) -> Result<portcullis_identity::P256Key, Refusal> {
    for (name, purpose) in [("token", P256Purpose::TokenSigning)] {
        if !home.key(name).exists() {
            custody::create_p256(&home.key(name), purpose)?;
            report.made.push(home.key(name));
        }
    }
    let path = home.key("ca");
    if path.exists() {
        report.stood.push(path.clone());
        return custody::load_p256(&path, P256Purpose::TrustDomainCa);
    }
    report.made.push(path.clone());
    custody::create_p256(&path, P256Purpose::TrustDomainCa)
}

fn genesis(
    home: &Home,
    plan: &InitPlan,
    keys: &FirstKeys,
    authority: &Authority,
    now: Timestamp,
) -> Result<GenesisCreated, Refusal> {
    let owner = plan
        .administrators
        .first()
        .map(|(id, _)| id.clone())
        .ok_or_else(|| {
            Refusal::malformed("genesis")
                .expected("at least one administrator with an SSH key")
                .next("name one with --human ID --key FILE.pub")
        })?;
    let expires = now.plus_ms(FIRST_LIFE_MS);
    let service = |id: &str, purpose: &str, key: &PublicKey, roles: &[ServiceRole]| {
        Ok::<_, Refusal>(Service {
            id: id.parse()?,
            owner: owner.clone(),
            purpose: purpose.to_owned(),
            key: key.clone(),
            roles: roles.iter().copied().collect(),
            review_by: expires,
            expires,
        })
    };
    Ok(GenesisCreated {
        created: now,
        origin: plan.origin.clone(),
        trust_domain: plan.trust_domain.clone(),
        log_key: keys.log.clone(),
        authority: base64::engine::general_purpose::STANDARD.encode(&authority.certificate().der),
        quorum: plan.quorum,
        solo: plan.solo,
        key_floor: plan.key_floor.clone(),
        fold_version: FOLD_VERSION,
        humans: plan
            .administrators
            .iter()
            .map(|(id, keys)| Human {
                id: id.clone(),
                keys: keys.clone(),
                administrator: true,
                profile: None,
            })
            .collect(),
        groups: Vec::new(),
        agents: plan.agents.clone(),
        services: vec![
            service(
                "control",
                "performs what was decided and recorded",
                &keys.log,
                &[ServiceRole::Control],
            )?,
            service(
                "builder",
                "runs tests and builds from protected bases",
                &keys.builder,
                &[ServiceRole::Test, ServiceRole::Build],
            )?,
        ],
        hosts: vec![Host {
            id: "local".parse()?,
            owner: owner.clone(),
            key: keys.host.clone(),
            class: if plan.solo {
                HostClass::SelfRun
            } else {
                HostClass::Managed
            },
            expires,
        }],
        environments: plan.environments.clone(),
        repositories: plan.repositories.clone(),
        endpoints: Vec::new(),
        policy: policy_files(&read_policy(&home.policy())?)?,
    })
}

/// The organisation's policy files in a folder, by name.
///
/// # Errors
/// The folder or a file can't be read.
pub fn read_policy(folder: &Path) -> Result<Vec<PolicyFile>, Refusal> {
    let mut files = Vec::new();
    let unreadable = |error: std::io::Error| {
        Refusal::unavailable(
            "policy-unreadable",
            format!("{} can't be read", folder.display()),
        )
        .received(&error.to_string())
    };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let cedar = path
            .extension()
            .is_some_and(|extension| extension == "cedar");
        if let (true, Some(name)) = (cedar, path.file_name().and_then(|name| name.to_str())) {
            let bytes = Home::read(&path, portcullis_model::limits::DOCUMENT_MAX_BYTES as u64)?;
            let text = String::from_utf8(bytes).map_err(|_| {
                Refusal::malformed("policy file")
                    .expected("UTF-8 text")
                    .received(name)
            })?;
            files.push(PolicyFile::new(name, text));
        }
    }
    files.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(files)
}

/// The record of a policy that comes into force.
///
/// # Errors
/// The files don't load.
pub fn policy_files(files: &[PolicyFile]) -> Result<PolicyFiles, Refusal> {
    let set = PolicySet::load(files, &[])?;
    let digests: BTreeMap<String, Digest> = files
        .iter()
        .map(|file| (file.name.clone(), Digest::of(file.text.as_bytes())))
        .collect();
    Ok(PolicyFiles {
        digest: set.digest(),
        files: digests,
    })
}

/// Key classes for a team whose keys are `keys`: the design's floor, or software where no
/// administrator holds a hardware key.
pub fn floor_for(keys: &[PublicKey]) -> KeyFloor {
    if keys.iter().any(|key| key.class() >= KeyClass::Presence) {
        return KeyFloor::default();
    }
    KeyFloor {
        production: KeyClass::Software,
        breaker_reset: KeyClass::Software,
        policy: KeyClass::Software,
        keys: KeyClass::Software,
    }
}

fn make_folder(path: &Path) -> Result<(), Refusal> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| {
            Refusal::unavailable(
                "folder-unwritable",
                format!("{} can't be made", path.display()),
            )
            .received(&error.to_string())
        })
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, report: &mut InitReport) -> Result<(), Refusal> {
    if path.exists() {
        report.stood.push(path.to_owned());
        return Ok(());
    }
    let unwritable = |error: std::io::Error| {
        Refusal::unavailable(
            "file-unwritable",
            format!("{} can't be written", path.display()),
        )
        .received(&error.to_string())
    };
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(unwritable)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(unwritable)?;
    report.made.push(path.to_owned());
    Ok(())
}

/// The log's signer, out of its key file.
///
/// # Errors
/// The key file can't be read, or others could read it.
pub fn log_signer(home: &Home) -> Result<Signer, Refusal> {
    let key = custody::load_ed25519(&home.key("log"), Ed25519Purpose::Log)?;
    Signer::from_seed(key.seed())
}
