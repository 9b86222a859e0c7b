//! The worst that each agent could do, in one sentence.

use crate::engine::{AgentRun, Assumption, Credential};
use crate::report::{AgentReport, Decision, SinkKind, Verdict};

/// One report per agent step.
pub(crate) fn of(runs: &[AgentRun], verdicts: &[Verdict]) -> Vec<AgentReport> {
    runs.iter()
        .map(|run| {
            let credentials: Vec<String> = run.credentials.iter().map(Credential::words).collect();
            AgentReport {
                name: run.name.to_owned(),
                file: run.file.clone(),
                line: run.line,
                blast_radius: sentence(run, verdicts),
                credentials,
                open_to_anyone: run.open,
            }
        })
        .collect()
}

fn sentence(run: &AgentRun, verdicts: &[Verdict]) -> String {
    let who = if run.open {
        "any account"
    } else {
        "whoever may write here"
    };
    let reached = |assumption: &[Assumption]| -> Vec<String> {
        let mut kinds: Vec<(SinkKind, String)> = verdicts
            .iter()
            .filter(|verdict| {
                verdict.verdict == Decision::Reachable && assumption.contains(&verdict.assumption)
            })
            .filter(|verdict| {
                verdict
                    .path
                    .iter()
                    .any(|step| step.file == run.file && step.line == run.line)
            })
            .map(|verdict| (verdict.kind, verdict.sink.clone()))
            .collect();
        kinds.sort();
        kinds.dedup();
        kinds
            .into_iter()
            .map(|(kind, sink)| format!("{} ({sink})", verb(kind)))
            .collect()
    };
    let open = reached(&[Assumption::Unprotected, Assumption::Settings]);
    let closed = reached(&[Assumption::Protected]);
    let can = if !open.is_empty() {
        open.join(", ")
    } else if run.writes && run.shell {
        "change every branch and tag that its token may write".to_owned()
    } else if run.writes {
        "hand changes to later steps that hold a token that writes".to_owned()
    } else {
        "read the repository and write comments at most".to_owned()
    };
    let mut text = format!(
        "Tasked by {who} ({}), {} could at worst {can} with no person deciding",
        run.event, run.name
    );
    if !open.is_empty() {
        let rest = if closed.is_empty() {
            "; with a protected default branch, nothing of it".to_owned()
        } else if closed == open {
            "; a protected default branch changes nothing".to_owned()
        } else {
            format!(
                "; with a protected default branch still {}",
                closed.join(", ")
            )
        };
        if verdicts
            .iter()
            .any(|verdict| verdict.assumption == Assumption::Protected)
        {
            text.push_str(&rest);
        }
    }
    text.push('.');
    text
}

fn verb(kind: SinkKind) -> &'static str {
    match kind {
        SinkKind::Merge => "land commits",
        SinkKind::Release => "make a release",
        SinkKind::Publish => "publish",
        SinkKind::Deploy => "deploy",
    }
}
