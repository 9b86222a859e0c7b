//! `doctor`: what this machine offers, what is missing, and how to mend it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_model::Refusal;
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::progress;
use crate::signing::Agent;
use crate::time::now;

/// How far this machine's clock may be from the server's, in milliseconds: signed commands live for
/// minutes, and a start's proof for less.
const CLOCK_APART_MAX_MS: u64 = 5_000;

/// Looks at this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {}

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Good,
    /// It works without, with less.
    Lacking,
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Found {
    what: String,
    state: State,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Found {
    fn good(what: &str, why: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            state: State::Good,
            why: why.into(),
            next: None,
        }
    }

    fn not(state: State, what: &str, why: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            state,
            why: why.into(),
            next: Some(next.into()),
        }
    }

    fn of(state: State, what: &str, refusal: &Refusal) -> Self {
        let received = refusal.received.as_deref().unwrap_or_default();
        let why = if received.is_empty() {
            refusal.message.clone()
        } else {
            format!("{} ({received})", refusal.message)
        };
        Self {
            what: what.to_owned(),
            state,
            why,
            next: refusal.next.clone(),
        }
    }
}

impl Doctor {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let looking = tokio::task::spawn_blocking(portcullis_sandbox::probe);
        let probed = progress::during("trying the sandbox", looking).await;
        let mut found = vec![program("git", &["--version"], true), ssh(), keys(context)];
        match probed {
            Ok(Ok(results)) => found.extend(results.into_iter().map(protection)),
            Ok(Err(refusal)) => found.push(Found::of(State::Bad, "sandbox", &refusal)),
            Err(error) => found.push(Found::not(
                State::Bad,
                "sandbox",
                error.to_string(),
                "report this: the probe must not fail so",
            )),
        }
        let home = context.home();
        if home.exists() {
            found.extend(modes(&home));
            found.extend(store(&home).await);
        }
        found.extend(server(context).await);
        context.out().print(&found, || describe(&found))?;
        let bad = found.iter().any(|one| one.state == State::Bad);
        Ok(if bad { Exit::Failed } else { Exit::Done })
    }
}

fn program(name: &str, arguments: &[&str], needed: bool) -> Found {
    let output = Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => {
            let said = if output.stdout.is_empty() {
                output.stderr
            } else {
                output.stdout
            };
            let first = String::from_utf8_lossy(&said)
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            Found::good(name, first)
        }
        Err(error) => Found::not(
            if needed { State::Bad } else { State::Lacking },
            name,
            error.to_string(),
            format!("install {name}"),
        ),
    }
}

/// ssh-keygen has no option that only says its version; ssh of the same package does.
fn ssh() -> Found {
    let there = Command::new("ssh-keygen")
        .arg("-?")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match there {
        Ok(_) => Found {
            what: "ssh-keygen".to_owned(),
            ..program("ssh", &["-V"], false)
        },
        Err(error) => Found::not(
            State::Lacking,
            "ssh-keygen",
            error.to_string(),
            "install OpenSSH's client; without it only unencrypted key files and the ssh-agent sign",
        ),
    }
}

fn keys(context: &Context) -> Found {
    let agent = match Agent::from_environment() {
        Some(agent) => format!(
            "; an ssh-agent with {} keys",
            agent.keys().map_or(0, |keys| keys.len())
        ),
        None => "; no ssh-agent".to_owned(),
    };
    match context.keys() {
        Ok(keys) => {
            let shown: Vec<String> = keys
                .iter()
                .map(|key| format!("{} ({})", key.public().fingerprint(), key.public().class()))
                .collect();
            Found::good("signing keys", format!("{}{agent}", shown.join(", ")))
        }
        Err(refusal) => Found::of(State::Lacking, "signing keys", &refusal),
    }
}

fn protection(result: portcullis_sandbox::ProbeResult) -> Found {
    let what = format!("sandbox {}", result.protection.name());
    if result.available {
        return Found::good(&what, result.why);
    }
    let may_be_missing = result.protection.may_be_missing();
    let state = if may_be_missing {
        State::Lacking
    } else {
        State::Bad
    };
    let mut next = result.how_to_mend.unwrap_or_default();
    if may_be_missing {
        next.push_str(&format!(
            "; or a task allows it with --allow-gap {}",
            result.protection.name()
        ));
    }
    Found::not(state, &what, result.why, next.trim_start_matches("; "))
}

/// Keys and secrets that others may read.
fn modes(home: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for folder in ["keys", "secrets", "ledger"] {
        let folder = home.join(folder);
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        let private = |path: &Path| {
            path.extension().is_some_and(|extension| extension == "key")
                || folder.ends_with("secrets")
        };
        let files = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| private(path));
        for path in files.chain([folder.clone()]) {
            let mode = std::fs::metadata(&path).map_or(0, |found| found.permissions().mode());
            if mode & 0o077 != 0 {
                let wanted = if path.is_dir() { "700" } else { "600" };
                found.push(Found::not(
                    State::Bad,
                    "file modes",
                    format!(
                        "others may reach {} (mode {:04o})",
                        path.display(),
                        mode & 0o7777
                    ),
                    format!("chmod {wanted} {}", path.display()),
                ));
            }
        }
    }
    if found.is_empty() {
        found.push(Found::good(
            "file modes",
            format!("only the owner reaches keys in {}", home.display()),
        ));
    }
    found
}

/// The PostgreSQL that keeps the ledger, if this home names one.
async fn store(home: &Path) -> Option<Found> {
    use portcullis_server::config::Config;
    use portcullis_server::home::Home;
    let home = Home::new(home);
    let text = Home::read(&home.config(), 64 * 1024).ok()?;
    let options =
        Config::read(&String::from_utf8_lossy(&text)).and_then(|config| config.store(&home));
    let options = match options {
        Ok(portcullis_store::StoreOptions::Postgres(options)) => options,
        Ok(portcullis_store::StoreOptions::Sqlite) => return None,
        Err(refusal) => return Some(Found::of(State::Bad, "store", &refusal)),
    };
    let probed = tokio::task::spawn_blocking(move || options.probe())
        .await
        .ok()?;
    Some(match probed {
        Ok(status) => {
            let leader = match &status.leader {
                Some(leader) => format!("{leader} leads"),
                None => "nobody leads".to_owned(),
            };
            let told = format!(
                "PostgreSQL {}, {} entries, {leader}",
                status.version, status.size
            );
            Found::good("store", told)
        }
        Err(refusal) => Found::of(State::Bad, "store", &refusal),
    })
}

async fn server(context: &Context) -> Vec<Found> {
    let client = match context.client() {
        Ok(client) => client,
        Err(refusal) => return vec![Found::of(State::Bad, "server", &refusal)],
    };
    let status = match context.status(&client).await {
        Ok(status) => status,
        // No server is nothing bad on a machine that only runs agents or CI.
        Err(refusal) => return vec![Found::of(State::Lacking, "server", &refusal)],
    };
    let told = format!(
        "{} at {}, {} entries",
        status.origin,
        client.url(),
        status.size
    );
    let mut found = vec![Found::good("server", told)];
    if let Some(theirs) = status.time {
        let apart = theirs.ms_since(now()).max(now().ms_since(theirs));
        found.push(if apart > CLOCK_APART_MAX_MS {
            Found::not(
                State::Bad,
                "clock",
                format!("this machine and the server are {apart} ms apart"),
                "set the clock right; signed commands are refused until then",
            )
        } else {
            Found::good("clock", format!("{apart} ms from the server's"))
        });
    }
    found
}

fn describe(found: &[Found]) -> String {
    let widest = found.iter().map(|one| one.what.len()).max().unwrap_or(0);
    let mut out = String::new();
    for one in found {
        let state = match one.state {
            State::Good => "good   ",
            State::Lacking => "lacking",
            State::Bad => "BAD    ",
        };
        out.push_str(&format!(
            "{state}  {:<widest$}  {}\n",
            one.what,
            output::clean_line(&one.why)
        ));
        if let Some(next) = &one.next {
            out.push_str(&format!(
                "{:widest$}             next: {}\n",
                "",
                output::clean_line(next)
            ));
        }
    }
    out
}
