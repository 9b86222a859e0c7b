//! What a reviewer reads before signing: one text, whose digest the signature binds.

use std::fmt::Write as _;

use portcullis_flow::State;
use portcullis_flow::approval::{Request, tally};
use portcullis_flow::change::Revision;
use portcullis_flow::together;
use portcullis_model::event::{CheckVerdict, TestVerdict, TestsCompleted};
use portcullis_model::refusal::visible;
use portcullis_model::statement::{ApprovalSubject, Carry};
use portcullis_model::{Digest, HumanId, KeyClass, Refusal};
use serde_json::{Value, json};

use crate::app::{App, now};

/// How long an approval stays good after it was drafted, in milliseconds (1 day) and entries.
const APPROVAL_LIFE_MS: u64 = 24 * 3_600 * 1_000;
const APPROVAL_LIFE_ENTRIES: u64 = 1_000_000;
/// Longest diff that is shown, in bytes; a longer one is cut with a clear word, and the signature
/// then says so, since the cut stands in the text.
const DIFF_SHOWN_MAX_BYTES: usize = 512 * 1024;

/// One line about a subject.
pub fn summary(subject: &ApprovalSubject) -> String {
    match subject {
        ApprovalSubject::Change {
            change,
            revision,
            repository,
            branch,
            head,
            ..
        } => {
            format!(
                "land {change} revision {revision} ({}) on {repository} {branch}",
                head.short()
            )
        }
        ApprovalSubject::Release {
            artifact,
            environment,
            repository,
            commit,
            ..
        } => {
            format!(
                "release {artifact} of {repository} ({}) to {environment}",
                commit.short()
            )
        }
        ApprovalSubject::Activation { subject, .. } => format!("bring {subject} into force"),
        ApprovalSubject::BreakerReset { scope } => format!("reset the breaker for {scope}"),
        ApprovalSubject::Resume { run, way, .. } => format!("let {run} go on {way}"),
        ApprovalSubject::Unproven {
            repository,
            branch,
            from,
            to,
        } => format!(
            "accept what reached {repository} {branch} past Portcullis ({}..{})",
            from.short(),
            to.short()
        ),
    }
}

/// The whole text that a reviewer reads.
///
/// # Errors
/// A blob that must be shown is missing.
pub fn document(app: &App, state: &State, request: &Request) -> Result<String, Refusal> {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        let shown: String = value.chars().flat_map(visible).collect();
        // Writing to a string can't fail.
        let _ = writeln!(text, "{label:<11} {shown}");
    };
    line("request", &request.id.to_string());
    line("asks", &summary(&request.subject));
    for rule in &request.because {
        line("rule", rule);
    }
    line("needs", &needs(request));
    line("party", &names(request.party.0.iter()));
    line("counts", &who_counts(state, request));
    if let Some(task) = request.task.and_then(|id| state.tasks.get(&id)) {
        line(
            "task",
            &format!("task-{}", Digest::of(&task.envelope.payload_bytes()?).hex()),
        );
        line("signer", task.payload.signer.as_str());
        line("agent", task.payload.agent.as_str());
        if let Some(agent) = state.inventory.agents.get(&task.payload.agent) {
            line("owner", agent.manifest.owner.as_str());
            line(
                "model",
                &format!("{} in {}", agent.manifest.model, agent.manifest.runtime),
            );
        }
        if let Ok(bytes) = app.ledger.blobs().get(&task.payload.text)
            && let Ok(order) = serde_json::from_slice::<portcullis_model::TaskText>(&bytes)
        {
            line("title", &order.title);
            for part in order.text.lines() {
                line("", part);
            }
        }
        for target in &task.payload.targets {
            line(
                "scope",
                &format!(
                    "{} {}: {}",
                    target.repository,
                    target.branch,
                    target.scope.allow.join(" ")
                ),
            );
        }
    }
    match &request.subject {
        ApprovalSubject::Change { change, .. } => {
            if let Some(change) = state.changes.get(change) {
                if let Some((id, task)) = together::task_of(state, change) {
                    for (member, target) in together::members(state, id, task)
                        .into_iter()
                        .zip(&task.targets)
                        .filter(|(_, target)| target.repository != change.repository)
                    {
                        let what = member.map_or("a change".to_owned(), |one| one.id.to_string());
                        line(
                            "lands with",
                            &format!("{what} in {}, or not at all", target.repository),
                        );
                    }
                }
                change_text(app, change.latest(), &mut text)?;
            }
        }
        ApprovalSubject::Release {
            artifact,
            digest,
            environment,
            commit,
            provenance,
            ..
        } => {
            line("artifact", &format!("{artifact} {digest}"));
            line("commit", commit.as_str());
            line("provenance", &provenance.to_string());
            let covered = portcullis_flow::release::coverage(state, *artifact, environment)?;
            for id in &covered.changes {
                if let Some(change) = state.changes.get(id) {
                    line(
                        "contains",
                        &format!("{id} by {}", names(change.party.0.iter())),
                    );
                }
            }
            line(
                "agents' work",
                if covered.agent_work {
                    "yes: it starts as a canary"
                } else {
                    "no"
                },
            );
        }
        ApprovalSubject::Activation { .. } => {
            let record = serde_json::to_string_pretty(&request.activation)
                .map_err(|error| Refusal::internal(error.to_string()))?;
            text.push_str("\nrecord\n");
            push_visible(&record, &mut text);
        }
        ApprovalSubject::BreakerReset { scope } => {
            let trip = state.breakers.get(scope);
            line(
                "tripped",
                &trip.map_or_else(
                    || "not any more".to_owned(),
                    |trip| format!("at {} (entry {})", trip.time, trip.entry),
                ),
            );
        }
        ApprovalSubject::Resume { run, frozen, way } => {
            if let Some(run) = state.runs.get(run) {
                resume_text(run, *frozen, way, &mut line);
            }
        }
        ApprovalSubject::Unproven { from, to, .. } => {
            line("from", from.as_str());
            line("to", to.as_str());
        }
    }
    Ok(text)
}

/// What a run did until it stood still, and what it would go on with.
fn resume_text(
    run: &portcullis_flow::run::Run,
    frozen: u64,
    way: &portcullis_model::statement::ResumeWay,
    line: &mut impl FnMut(&str, &str),
) {
    line("run", &run.id.to_string());
    match run.frozen.as_ref().filter(|stop| stop.entry == frozen) {
        Some(stop) => {
            let causes: Vec<_> = stop.causes.iter().map(|cause| cause.name()).collect();
            line(
                "stands still",
                &format!(
                    "since {} (entry {frozen}): {}",
                    stop.since,
                    causes.join(", ")
                ),
            );
            for label in &stop.seen.taint {
                line("read from", label);
            }
            for budget in &stop.seen.exhausted {
                line("used up", budget);
            }
        }
        None => line("stands still", "not any more"),
    }
    line(
        "did so far",
        &format!(
            "{} pushes, {} calls, {} denials; window {}",
            run.used.pushes, run.used.calls, run.used.denials, run.window
        ),
    );
    for lease in &run.leases {
        let kept = if way.without.contains(lease) {
            "no longer"
        } else {
            "still"
        };
        line("is lent", &format!("{kept} {lease}"));
    }
    line("until", &way.deadline.unwrap_or(run.deadline).to_string());
    if let Some(point) = way.checkpoint {
        line(
            "wound back",
            &format!("to checkpoint {} ({})", point.number, point.manifest),
        );
    }
}

fn needs(request: &Request) -> String {
    let needed = &request.needed;
    let who = match (needed.administrators, needed.humans) {
        (true, 1) => "administrator",
        (true, _) => "administrators",
        (false, 1) => "person",
        (false, _) => "people",
    };
    let parties = if needed.parties == 1 {
        "party"
    } else {
        "parties"
    };
    format!(
        "{} {who} of {} {parties}, each with a {} key or better",
        needed.humans, needed.parties, needed.key_class
    )
}

fn who_counts(state: &State, request: &Request) -> String {
    let given = tally(state, request, now());
    let eligible: Vec<&HumanId> = state
        .inventory
        .humans
        .iter()
        .filter(|(id, person)| {
            state.inventory.human(id).is_ok()
                && (!request.needed.administrators || person.manifest.administrator)
                && (state.solo() || !portcullis_flow::approval::in_party(state, &request.party, id))
        })
        .map(|(id, _)| id)
        .collect();
    let own = if state.solo() {
        " (one person works alone: counts as self-approved)"
    } else {
        ""
    };
    format!(
        "{} approved; may approve: {}{own}",
        given.humans,
        names(eligible.iter())
    )
}

fn names<T: std::fmt::Display>(items: impl Iterator<Item = T>) -> String {
    let all: Vec<String> = items.map(|item| item.to_string()).collect();
    if all.is_empty() {
        "nobody".to_owned()
    } else {
        all.join(", ")
    }
}

fn change_text(app: &App, revision: &Revision, text: &mut String) -> Result<(), Refusal> {
    let pushed = &revision.pushed;
    let mut line = |label: &str, value: &str| {
        let shown: String = value.chars().flat_map(visible).collect();
        let _ = writeln!(text, "{label:<11} {shown}");
    };
    line("base", pushed.base.as_str());
    line("head", pushed.head.as_str());
    line("tree", pushed.tree.as_str());
    line("manifest", &pushed.manifest.to_string());
    line(
        "size",
        &format!(
            "files {}, lines {}, commits {}",
            pushed.files,
            pushed.lines,
            pushed.commits.len()
        ),
    );
    if pushed.questions > 0 {
        line(
            "asked",
            &format!(
                "the agent asked {} times what would be refused",
                pushed.questions
            ),
        );
    }
    if let Some(tests) = &revision.tests {
        line("tests", &tests_said(tests));
    }
    if let Some(checks) = &revision.checks {
        line(
            "checks",
            match checks.verdict {
                CheckVerdict::Pass => "nothing to see",
                CheckVerdict::Escalate => "somebody must look",
                CheckVerdict::Block => "it can't land",
            },
        );
        let bytes = app.ledger.blobs().get(&checks.report)?;
        let report: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        for finding in report
            .get("findings")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let field = |name: &str| {
                finding
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let at = match (field("path"), finding.get("line").and_then(Value::as_u64)) {
                ("", _) => String::new(),
                (path, Some(number)) => format!("{path}:{number} "),
                (path, None) => format!("{path} "),
            };
            line(
                "",
                &format!(
                    "{at}{} ({}): {}",
                    field("rule"),
                    field("level"),
                    field("message")
                ),
            );
        }
    }
    text.push_str("\ndiff\n");
    text.push_str(&diff_text(app, &pushed.diff)?);
    Ok(())
}

/// A diff's bytes as text, with control and direction-changing characters made visible.
///
/// # Errors
/// The blob is missing.
pub fn diff_text(app: &App, digest: &Digest) -> Result<String, Refusal> {
    let bytes = app.ledger.blobs().get(digest)?;
    // The raw part stands before the patch, apart by a NUL; people read the patch.
    let patch = match bytes.windows(2).position(|pair| pair == b"\0\0") {
        Some(at) => bytes.get(at + 2..).unwrap_or_default(),
        None => bytes.as_slice(),
    };
    let shown = patch
        .get(..patch.len().min(DIFF_SHOWN_MAX_BYTES))
        .unwrap_or_default();
    let mut text = String::with_capacity(shown.len());
    push_visible(&String::from_utf8_lossy(shown), &mut text);
    if patch.len() > shown.len() {
        let _ = writeln!(
            text,
            "\n[cut: {} of {} bytes are shown; fetch the change to see the rest]",
            shown.len(),
            patch.len()
        );
    }
    Ok(text)
}

fn tests_said(tests: &TestsCompleted) -> String {
    let counts = &tests.counts;
    match tests.verdict {
        TestVerdict::NotConfigured => {
            "not configured by the protected base (.portcullis/jobs.toml)".to_owned()
        }
        TestVerdict::Passed => format!("passed: {}, all of the base's among them", counts.passed),
        TestVerdict::Failed => {
            format!("FAILED: {} passed, {} failed", counts.passed, counts.failed)
        }
        TestVerdict::Missing => format!(
            "MISSING: {} of the base's did not run; {} passed",
            counts.missing, counts.passed
        ),
    }
}

fn push_visible(from: &str, into: &mut String) {
    for character in from.chars() {
        match character {
            '\n' | '\t' => into.push(character),
            _ => into.extend(visible(character)),
        }
    }
    if !into.ends_with('\n') {
        into.push('\n');
    }
}

/// The statement that an approver completes and signs.
///
/// # Errors
/// The ledger is empty.
pub fn draft(app: &App, state: &State, request: &Request, text: &str) -> Result<Value, Refusal> {
    let checkpoint = app.ledger.checkpoint();
    let mut draft = json!({
        "ledger": {
            "origin": state.genesis()?.origin,
            "size": checkpoint.size,
            "root": checkpoint.root,
        },
        "request": request.id,
        "subject": request.subject,
        "policy": state.policy(),
        "shown": Digest::of(text.as_bytes()),
        "count": 1,
        "carry": Carry::Exact,
        "key_class": KeyClass::Software.max(request.needed.key_class),
        "expires_index": state.size() + APPROVAL_LIFE_ENTRIES,
        "expires": now().plus_ms(APPROVAL_LIFE_MS).min(request.expires),
    });
    if let Some(fields) = draft.as_object_mut() {
        if let Some(task) = request.task {
            fields.insert("task".to_owned(), json!(task));
        }
        if let Some(checks) = request.checks {
            fields.insert("checks".to_owned(), json!(checks));
        }
    }
    Ok(draft)
}
