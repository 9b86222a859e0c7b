//! `init`: a server's directory, its genesis, and examples to begin with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use portcullis_model::manifest::{Agent, Environment, Phase, Repository, Sensitivity};
use portcullis_model::{AgentId, Digest, HumanId, PublicKey, Refusal, RepositoryId, Timestamp};
use portcullis_server::home::Home;
use portcullis_server::init::{InitPlan, InitReport, floor_for, init};
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::task_file::write_file;
use crate::time::now;
use crate::{git, output, random, signing};

mod examples;

#[cfg(test)]
mod tests;

/// How long the first agent's record lasts, in milliseconds (90 days): then a person looks again.
const AGENT_LIFE_MS: u64 = 90 * 24 * 3_600 * 1_000;

/// Makes a server's directory; run again, says what stands.
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// The directory [default: that of --home, or ./portcullis]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The first administrator; the keys are those of --key [default: your login name]
    #[arg(long, value_name = "ID")]
    human: Option<HumanId>,
    /// Another administrator with a public key; may be repeated, for several keys too
    #[arg(long, value_name = "ID=FILE.pub")]
    administrator: Vec<Named<HumanId>>,
    /// How many administrators bring a record into force, its author excluded
    #[arg(long, value_name = "N", default_value_t = 1)]
    quorum: u32,
    /// One person works alone: own approvals count, and verification says so
    #[arg(long)]
    solo: bool,
    /// Name of the ledger, as in its checkpoints [default: this host's name and a random part]
    #[arg(long, value_name = "NAME")]
    origin: Option<String>,
    /// SPIFFE trust domain [default: this host's name]
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,
    /// A repository on this machine to govern; may be repeated
    #[arg(long, value_name = "NAME=PATH")]
    repository: Vec<Named<RepositoryId>>,
    /// A first agent, for those repositories
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentId>,
    /// The most sensitive environment that the agent's work may reach
    #[arg(long, value_enum, default_value_t = Ceiling::Staging, requires = "agent")]
    ceiling: Ceiling,
    /// An environment and the loopback port that its proxy serves; may be repeated. Production
    /// unless said otherwise; of the only repository unless said otherwise
    #[arg(long, value_name = "NAME[:SENSITIVITY][@REPOSITORY]=PORT")]
    environment: Vec<EnvironmentOption>,
    /// Where the server shall listen [default: 127.0.0.1:7117]
    #[arg(long, value_name = "ADDRESS", env = "PORTCULLIS_LISTEN")]
    listen: Option<SocketAddr>,
    /// Keep the ledger in this PostgreSQL (15 or later) instead of SQLite: postgres://USER@HOST/DB,
    /// without a password
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

/// A name and a path.
#[derive(Clone, Debug)]
pub(crate) struct Named<T> {
    id: T,
    path: PathBuf,
}

impl<T: FromStr<Err = Refusal>> FromStr for Named<T> {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let (id, path) = text
            .split_once('=')
            .filter(|(_, path)| !path.is_empty())
            .ok_or_else(|| {
                Refusal::malformed("option")
                    .expected("NAME=PATH")
                    .received(text)
            })?;
        Ok(Self {
            id: id.parse()?,
            path: path.into(),
        })
    }
}

/// How much harm an environment can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ceiling {
    /// Nothing of value
    Development,
    /// Looks like production, has none of its data
    Staging,
    /// Everything else
    Production,
}

impl From<Ceiling> for Sensitivity {
    fn from(ceiling: Ceiling) -> Self {
        match ceiling {
            Ceiling::Development => Self::Development,
            Ceiling::Staging => Self::Staging,
            Ceiling::Production => Self::Production,
        }
    }
}

/// An environment as the option says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvironmentOption {
    id: portcullis_model::EnvironmentId,
    sensitivity: Sensitivity,
    repository: Option<RepositoryId>,
    port: u16,
}

impl FromStr for EnvironmentOption {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::malformed("environment")
                .expected("NAME[:SENSITIVITY][@REPOSITORY]=PORT, such as staging:staging=8081")
                .received(text)
        };
        let (name, port) = text.split_once('=').ok_or_else(malformed)?;
        let (name, repository) = match name.split_once('@') {
            Some((name, repository)) => (name, Some(repository.parse()?)),
            None => (name, None),
        };
        let (name, sensitivity) = match name.split_once(':') {
            Some((name, sensitivity)) => (
                name,
                Ceiling::from_str(sensitivity, false)
                    .map_err(|_| malformed())?
                    .into(),
            ),
            None => (name, Sensitivity::Production),
        };
        let port = port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(malformed)?;
        Ok(Self {
            id: name.parse()?,
            sensitivity,
            repository,
            port,
        })
    }
}

impl Init {
    /// Runs it.
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let folder = self.directory.clone().unwrap_or_else(|| context.home());
        let home = Home::new(&folder);
        let time = now();
        let mut report = InitReport::default();
        if home.genesis().exists() {
            // What it was made with stands in its genesis; options change nothing any more.
            report.stood.push(home.genesis());
            report.notes.push(
                "this is a home already; change it by signed commands, such as `portcullis agent add`"
                    .to_owned(),
            );
            for path in [
                home.config(),
                home.policy().join("default.cedar"),
                home.key("log"),
            ] {
                if path.exists() {
                    report.stood.push(path);
                }
            }
        } else {
            let plan = self.plan(context, time)?;
            report = init(&home, &plan, time)?;
            report.notes.extend(checked_out(&plan.repositories));
            examples::write(&folder, &plan, time, &mut report)?;
        }
        let genesis = Digest::of(&Home::read(&home.genesis(), 1 << 20)?);
        tell(context, &folder, &report, genesis)?;
        Ok(Exit::Done)
    }

    fn plan(&self, context: &Context, time: Timestamp) -> Result<InitPlan, Refusal> {
        let administrators = self.administrators(context)?;
        if administrators.len() == 1 && !self.solo {
            return Err(Refusal::malformed("genesis")
                .expected("a second administrator, or --solo: nobody approves own work otherwise")
                .received("one administrator")
                .next("name another with --administrator ID=FILE.pub, or declare --solo"));
        }
        let owner = administrators
            .first()
            .map(|(id, _)| id.clone())
            .ok_or_else(|| Refusal::internal("an administrator list without any"))?;
        let repositories = self
            .repository
            .iter()
            .map(repository)
            .collect::<Result<Vec<_>, Refusal>>()?;
        let keys: Vec<PublicKey> = administrators
            .iter()
            .flat_map(|(_, keys)| keys.iter().cloned())
            .collect();
        let host = host_name();
        Ok(InitPlan {
            quorum: self.quorum,
            solo: self.solo,
            origin: match &self.origin {
                Some(origin) => origin.clone(),
                None => {
                    let unique = random::nonce()?;
                    format!("{host}/portcullis-{}", unique.get(..8).unwrap_or_default())
                }
            },
            trust_domain: self.trust_domain.clone().unwrap_or(host),
            environments: self
                .environment
                .iter()
                .map(|option| environment(option, &repositories))
                .collect::<Result<_, _>>()?,
            agents: self
                .agent
                .iter()
                .map(|id| self.agent(id, &owner, time))
                .collect(),
            repositories,
            listen: self.listen,
            store: self.store.clone(),
            key_floor: floor_for(&keys),
            administrators,
        })
    }

    /// The first administrator with the keys of `--key` or `~/.ssh`, then the others.
    fn administrators(&self, context: &Context) -> Result<Vec<(HumanId, Vec<PublicKey>)>, Refusal> {
        let keys = if context.global.key.is_empty() {
            let home = std::env::var_os("HOME").map(PathBuf::from);
            signing::usual_public_keys(home.as_deref())
                .into_iter()
                .map(|(_, key)| key)
                .collect()
        } else {
            context
                .global
                .key
                .iter()
                .map(|path| signing::public_key(path))
                .collect::<Result<Vec<_>, _>>()?
        };
        if keys.is_empty() {
            return Err(
                Refusal::unavailable("no-key", "the first administrator has no SSH key")
                    .expected("an ed25519, ecdsa or sk- key in ~/.ssh, or one named by --key")
                    .next("make one with `ssh-keygen -t ed25519`, or name one with --key FILE.pub"),
            );
        }
        let mut administrators = vec![(self.first()?, keys)];
        for Named { id, path } in &self.administrator {
            let key = signing::public_key(path)?;
            match administrators.iter_mut().find(|(known, _)| known == id) {
                Some((_, keys)) => keys.push(key),
                None => administrators.push((id.clone(), vec![key])),
            }
        }
        Ok(administrators)
    }

    fn first(&self) -> Result<HumanId, Refusal> {
        if let Some(human) = &self.human {
            return Ok(human.clone());
        }
        let login = std::env::var("USER")
            .or_else(|_| std::env::var("LOGNAME"))
            .unwrap_or_default();
        login.to_lowercase().parse().map_err(|_| {
            Refusal::malformed("genesis")
                .expected("--human ID, since the login name is no id")
                .received(&login)
        })
    }

    fn agent(&self, id: &AgentId, owner: &HumanId, time: Timestamp) -> Agent {
        Agent {
            id: id.clone(),
            owner: owner.clone(),
            purpose: "works on signed tasks".to_owned(),
            model: "any".to_owned(),
            runtime: "any command".to_owned(),
            tools: Default::default(),
            repositories: self
                .repository
                .iter()
                .map(|named| named.id.clone())
                .collect(),
            build_systems: Default::default(),
            ticketing: Default::default(),
            deployment_paths: Default::default(),
            phases: [Phase::Write].into(),
            environment_ceiling: self.ceiling.into(),
            paths: vec!["**".to_owned()],
            endpoints: Default::default(),
            hosts: Default::default(),
            tasked_by: Default::default(),
            review_by: time.plus_ms(AGENT_LIFE_MS),
            expires: time.plus_ms(AGENT_LIFE_MS),
        }
    }
}

/// A repository on this machine: where it is, its default branch, and where that stands.
fn repository(named: &Named<RepositoryId>) -> Result<Repository, Refusal> {
    let path = named.path.canonicalize().map_err(|error| {
        Refusal::not_found("repository", named.path.display())
            .received(&error.to_string())
            .next("name a git repository on this machine with --repository NAME=PATH")
    })?;
    let upstream = path.to_str().ok_or_else(|| {
        Refusal::malformed("repository path")
            .expected("UTF-8")
            .received(&path.display().to_string())
    })?;
    git::line(&path, &["rev-parse", "--git-dir"])?;
    let default_branch =
        git::line(&path, &["symbolic-ref", "--short", "HEAD"]).map_err(|refusal| {
            Refusal::unavailable(
                "no-default-branch",
                format!("{upstream} has no branch checked out"),
            )
            .received(refusal.received.as_deref().unwrap_or_default())
            .next("check out the default branch with `git switch`")
        })?;
    // A repository without commits has no tip; then every commit must be proven.
    let baseline = git::commit(&path, &format!("refs/heads/{default_branch}")).ok();
    Ok(Repository {
        id: named.id.clone(),
        upstream: upstream.to_owned(),
        default_branch,
        baseline,
        protected: vec!["**".to_owned()],
        deploys_on_landing: None,
        max_pack_bytes: 64 * 1024 * 1024,
        mode: Default::default(),
    })
}

fn environment(
    option: &EnvironmentOption,
    repositories: &[Repository],
) -> Result<Environment, Refusal> {
    let repository = match (&option.repository, repositories) {
        (Some(repository), _) => repository.clone(),
        (None, [only]) => only.id.clone(),
        (None, _) => {
            return Err(Refusal::malformed("environment")
                .expected("@REPOSITORY in --environment, since there isn't exactly one repository")
                .received(option.id.as_str()));
        }
    };
    Ok(Environment {
        id: option.id.clone(),
        repository,
        sensitivity: option.sensitivity,
        deployers: Default::default(),
        port: option.port,
        service_port: 8080,
        canary: Default::default(),
        witnesses: Default::default(),
    })
}

/// What landing does to the files of a branch that is checked out.
fn checked_out(repositories: &[Repository]) -> Vec<String> {
    repositories
        .iter()
        .filter(|repository| {
            let path = Path::new(&repository.upstream);
            git::line(path, &["rev-parse", "--is-bare-repository"]).is_ok_and(|bare| bare == "false")
        })
        .map(|repository| {
            format!(
                "{} has {} checked out: a landing updates the files there too, and is refused while \
                 something is uncommitted",
                repository.id, repository.default_branch
            )
        })
        .collect()
}

/// This host's name as a DNS label.
fn host_name() -> String {
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name: String = name
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.to_owned()
    }
}

fn tell(
    context: &Context,
    folder: &Path,
    report: &InitReport,
    genesis: Digest,
) -> Result<(), Refusal> {
    let paths = |paths: &[PathBuf]| {
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
    };
    let (made, stood) = (paths(&report.made), paths(&report.stood));
    let home = folder.display();
    let next = [
        format!("portcullis serve --home {home}"),
        "portcullis task new \"what to do\" --agent AGENT --paths 'src/**' --sign".to_owned(),
        "portcullis run --task task.json -- COMMAND…".to_owned(),
        "portcullis request list, portcullis approve REQUEST".to_owned(),
    ];
    let answer = json!({
        "home": home.to_string(), "made": made, "stood": stood, "notes": report.notes,
        "genesis": genesis, "next": next,
    });
    context.out().print(&answer, || {
        let mut out = String::new();
        for (word, paths) in [("made ", &made), ("stood", &stood)] {
            for path in paths {
                out.push_str(&format!("{word}  {path}\n"));
            }
        }
        for note in &report.notes {
            out.push_str(&format!("note   {note}\n"));
        }
        out.push_str(&format!("\ngenesis {genesis}\n"));
        out.push_str(
            "  keep this digest where the server can't change it: verification begins there\n",
        );
        if !made.is_empty() {
            out.push_str("\nnext\n");
            for step in &next {
                out.push_str(&format!("  {step}\n"));
            }
        }
        output::clean(&out)
    })
}

/// Writes an example that was not there yet.
fn write_example(path: &Path, bytes: &[u8], report: &mut InitReport) -> Result<(), Refusal> {
    if path.exists() {
        report.stood.push(path.to_owned());
        return Ok(());
    }
    write_file(path, bytes, false)?;
    report.made.push(path.to_owned());
    Ok(())
}
