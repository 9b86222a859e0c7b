//! Approving: the person reads, this program checks that what is signed is what was read, the key
//! signs.

use std::io::{BufRead as _, IsTerminal as _};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use portcullis_model::statement::{Approval, ApprovalSubject, Carry, Envelope};
use portcullis_model::{Digest, HumanId, KeyClass, Refusal, RefusalKind, RequestId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Client;
use crate::context::{Context, Status};
use crate::exit::Exit;
use crate::{output, progress, random};

#[cfg(test)]
mod tests;

/// Approves a request.
#[derive(Debug, clap::Args)]
pub(crate) struct Approve {
    /// Which; `latest` takes the newest that waits, and waits for the checks of a change under way
    #[arg(value_name = "REQUEST")]
    request: Wanted,
    /// Whether the approval moves to a later base
    #[arg(long, value_enum, default_value_t)]
    carry: CarryChoice,
    /// Sign without asking: the text was read before
    #[arg(long)]
    yes: bool,
}

/// The request that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    One(RequestId),
    Latest,
}

impl FromStr for Wanted {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text {
            "latest" => Ok(Self::Latest),
            _ => text.parse().map(Self::One),
        }
    }
}

/// Whether an approval moves to a later base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CarryChoice {
    /// Exactly the tree that is signed
    #[default]
    Exact,
    /// The same diff on a later base, if the branch moved elsewhere and everything ran again
    SameDiff,
}

/// What the server shows of a request.
#[derive(Debug, Deserialize)]
struct Shown {
    text: String,
    draft: Value,
}

#[derive(Serialize)]
struct Posted {
    envelope: Envelope,
}

/// What the approver adds to the server's draft.
struct Own {
    approver: HumanId,
    key_class: KeyClass,
    carry: Carry,
    nonce: String,
}

impl Approve {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let client = context.client()?;
        let request = match self.request {
            Wanted::One(request) => request,
            Wanted::Latest => {
                progress::during("waiting for checks and tests", latest(&client)).await?
            }
        };
        let path = format!("/v1/requests/{request}");
        let shown: Shown = client.get(&path).await?;
        let status = context.status(&client).await?;
        let signer = context.signer(&client).await?;
        let own = Own {
            approver: signer.human.clone(),
            key_class: signer.key.public().class(),
            carry: match self.carry {
                CarryChoice::Exact => Carry::Exact,
                CarryChoice::SameDiff => Carry::SameDiff,
            },
            nonce: random::nonce()?,
        };
        let approval = complete(request, shown, &status, own)?;
        let fingerprint = signer.key.public().fingerprint();
        context.out().tell(&output::clean(&approval.text))?;
        context.out().tell(&output::clean(&statement_lines(
            &approval.statement,
            fingerprint,
        )))?;
        if !self.yes {
            ask(request)?;
        }
        let unsigned = portcullis_evidence::approval::to_sign(&approval.statement)?;
        let posted = Posted {
            envelope: signer.key.sign(&unsigned)?,
        };
        let answer = progress::during(
            "waiting for the server",
            client.post("/v1/approvals", &posted),
        )
        .await?;
        let satisfied = answer
            .get("satisfied")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        context.out().print(&answer, || {
            let index = answer
                .get("index")
                .map(ToString::to_string)
                .unwrap_or_default();
            let rest = if satisfied {
                "nothing more is needed"
            } else {
                "others have to approve too"
            };
            format!(
                "approved {} as {} (entry {index}); {rest}",
                request, signer.human
            )
        })?;
        Ok(Exit::Done)
    }
}

/// A statement that is ready to be signed, and the text that it binds.
#[derive(Debug)]
struct Complete {
    text: String,
    statement: Approval,
}

/// Completes the server's draft, and checks that it says what is shown.
///
/// The server is not trusted here: a draft for another request, another ledger or another text, or
/// one whose subject the text does not name, is refused before anything is signed.
fn complete(
    request: RequestId,
    shown: Shown,
    status: &Status,
    own: Own,
) -> Result<Complete, Refusal> {
    let Value::Object(mut fields) = shown.draft else {
        return Err(mismatch("draft", "a statement", "something else"));
    };
    for (name, value) in [
        ("approver", json!(own.approver)),
        ("key_class", json!(own.key_class)),
        ("carry", json!(own.carry)),
        ("nonce", json!(own.nonce)),
    ] {
        // Whose statement it is, is not for the server to say.
        fields.insert(name.to_owned(), value);
    }
    let statement: Approval = serde_json::from_value(Value::Object(fields))
        .map_err(|error| mismatch("draft", "one approval statement", &error.to_string()))?;
    let text = Digest::of(shown.text.as_bytes());
    let compared = [
        (
            "request",
            request.to_string(),
            statement.request.to_string(),
        ),
        (
            "ledger",
            status.origin.clone(),
            statement.ledger.origin.clone(),
        ),
        (
            "policy",
            status.policy.to_string(),
            statement.policy.to_string(),
        ),
        ("text", text.to_string(), statement.shown.to_string()),
        ("count", "1".to_owned(), statement.count.to_string()),
    ];
    for (what, expected, received) in compared {
        if expected != received {
            return Err(mismatch(what, &expected, &received));
        }
    }
    if statement.ledger.size > status.size {
        return Err(mismatch(
            "ledger size",
            &format!("at most {}", status.size),
            &statement.ledger.size.to_string(),
        ));
    }
    for named in must_be_named(&statement.subject) {
        if !shown.text.contains(&named) {
            return Err(mismatch(
                "subject",
                &format!("a text that names {named}"),
                "one that does not",
            ));
        }
    }
    Ok(Complete {
        text: shown.text,
        statement,
    })
}

/// What the text that a person reads must name, so that it is about what is signed.
fn must_be_named(subject: &ApprovalSubject) -> Vec<String> {
    match subject {
        ApprovalSubject::Change {
            change,
            repository,
            branch,
            head,
            ..
        } => vec![
            change.to_string(),
            repository.to_string(),
            branch.clone(),
            head.short().to_owned(),
        ],
        ApprovalSubject::Release {
            artifact,
            environment,
            ..
        } => {
            vec![artifact.to_string(), environment.to_string()]
        }
        ApprovalSubject::Activation { subject, .. } => vec![subject.clone()],
        ApprovalSubject::BreakerReset { scope } => vec![scope.to_string()],
        ApprovalSubject::Resume { run, frozen, way } => {
            let mut named = vec![run.to_string(), format!("entry {frozen}"), way.to_string()];
            named.extend(way.checkpoint.map(|point| point.manifest.to_string()));
            named
        }
        ApprovalSubject::Unproven {
            repository,
            branch,
            to,
            ..
        } => {
            vec![
                repository.to_string(),
                branch.clone(),
                to.short().to_owned(),
            ]
        }
    }
}

fn mismatch(what: &str, expected: &str, received: &str) -> Refusal {
    Refusal::new(
        RefusalKind::Conflict,
        "approval-draft-mismatch",
        format!("the server asks to sign something else than it shows ({what})"),
    )
    .expected(expected)
    .received(received)
    .next("look again with `portcullis request show`; if it stays so, do not trust this server")
}

/// The statement, field by field, as this program read it.
fn statement_lines(approval: &Approval, fingerprint: &str) -> String {
    let mut lines = vec![
        String::new(),
        format!(
            "You sign, as {} with {fingerprint} ({}):",
            approval.approver, approval.key_class
        ),
    ];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<12} {value}"));
    line("request", approval.request.to_string());
    match &approval.subject {
        ApprovalSubject::Change {
            change,
            revision,
            repository,
            branch,
            base,
            head,
            tree,
            manifest,
        } => {
            line(
                "land",
                format!("{change} revision {revision} on {branch} of {repository}"),
            );
            line("base", base.to_string());
            line("head", head.to_string());
            line("tree", tree.to_string());
            line("manifest", manifest.to_string());
        }
        ApprovalSubject::Release {
            artifact,
            digest,
            environment,
            repository,
            commit,
            provenance,
        } => {
            line("release", format!("{artifact} to {environment}"));
            line("artifact", digest.to_string());
            line("built from", format!("{commit} of {repository}"));
            line("provenance", provenance.to_string());
        }
        ApprovalSubject::Activation { subject, record } => {
            line("activate", subject.clone());
            line("record", record.to_string());
        }
        ApprovalSubject::BreakerReset { scope } => line("reset", format!("the breaker {scope}")),
        ApprovalSubject::Resume { run, frozen, way } => {
            line("resume", format!("{run}, {way}"));
            line("stopped", format!("by entry {frozen}"));
            if let Some(point) = way.checkpoint {
                line("checkpoint", format!("{} {}", point.number, point.manifest));
            }
        }
        ApprovalSubject::Unproven {
            repository,
            branch,
            from,
            to,
        } => {
            line(
                "accept",
                format!("unproven commits on {branch} of {repository}"),
            );
            line("after", from.to_string());
            line("up to", to.to_string());
        }
    }
    if let Some(task) = &approval.task {
        line("task", task.to_string());
    }
    if let Some(checks) = &approval.checks {
        line("checks", checks.to_string());
    }
    line("policy", approval.policy.to_string());
    line("text shown", approval.shown.to_string());
    line(
        "carry",
        match approval.carry {
            Carry::Exact => "exactly this".to_owned(),
            Carry::SameDiff => "the same diff on a later base".to_owned(),
        },
    );
    line(
        "until",
        format!("{} or entry {}", approval.expires, approval.expires_index),
    );
    line(
        "ledger",
        format!(
            "{} at {} entries",
            approval.ledger.origin, approval.ledger.size
        ),
    );
    lines.join("\n")
}

/// The newest request that waits. While a change's checks or tests are under way, its request may
/// still come.
async fn latest(client: &Client) -> Result<RequestId, Refusal> {
    /// Longest wait: what takes longer is looked at later.
    const WAIT_MAX: Duration = Duration::from_secs(120);
    /// How often the server is asked.
    const EVERY: Duration = Duration::from_millis(200);
    /// Between the end of the tests and the request lies one decision.
    const GRACE: Duration = Duration::from_secs(2);
    let (began, until) = (Instant::now(), Instant::now() + WAIT_MAX);
    loop {
        let open: Vec<Waiting> = client.items("/v1/requests?open=true").await?;
        let newest = open
            .iter()
            .filter(|one| one.status == "open")
            .map(|one| one.id)
            .max();
        if let Some(request) = newest {
            return Ok(request);
        }
        let changes: Vec<UnderWay> = client.items("/v1/changes?open=true").await?;
        let coming = changes.iter().any(|change| {
            change.request.is_none() && (change.checks.is_none() || change.tests.is_none())
        });
        if (!coming && began.elapsed() > GRACE) || Instant::now() >= until {
            return Err(Refusal::not_found("request", "that waits")
                .next("see `portcullis change list` and `portcullis request list`"));
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[derive(Deserialize)]
struct Waiting {
    id: RequestId,
    status: String,
}

#[derive(Deserialize)]
struct UnderWay {
    request: Option<RequestId>,
    checks: Option<Value>,
    tests: Option<Value>,
}

fn ask(request: RequestId) -> Result<(), Refusal> {
    if !std::io::stdin().is_terminal() {
        return Err(Refusal::new(
            RefusalKind::Malformed,
            "not-a-terminal",
            "nobody can be asked here, since standard input is no terminal",
        )
        .expected("a person at a terminal, or --yes")
        .next(format!(
            "read it with `portcullis request show {request}`, then repeat with --yes"
        )));
    }
    output::note("Approve? Type yes to sign:");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" {
        return Ok(());
    }
    Err(Refusal::unavailable("not-approved", "nothing was signed")
        .expected("yes")
        .received(answer.trim())
        .next(format!(
            "to say no for good: portcullis reject {request} --why TEXT"
        )))
}
