//! Tasks: what a human ordered.

use std::sync::Arc;

use portcullis_model::event::TaskAccepted;
use portcullis_model::statement::Envelope;
use portcullis_model::{Digest, Event, HumanId, LedgerIndex, Refusal, Task, canonical};
use serde::{Deserialize, Serialize};

use crate::State;

/// A task that was taken in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskState {
    /// What was signed.
    pub payload: Task,
    /// The signature.
    pub envelope: Envelope,
    /// The entry that took it in.
    pub entry: LedgerIndex,
    /// Runs started under it.
    pub runs: u64,
}

/// A task is taken in. Its signature was checked at the edge; who may task whom is checked here
/// again, so that a verifier sees it.
pub(crate) fn accepted(
    state: &mut State,
    event: &Event,
    body: &TaskAccepted,
) -> Result<(), Refusal> {
    let task = &body.payload;
    task.validate()?;
    let signer = event.actor.require_human()?;
    let bytes = body.envelope.payload_bytes()?;
    if body.envelope.payload_type != Task::PAYLOAD_TYPE
        || bytes != canonical::to_vec(task)?
        || body.task.0 != Digest::of(&bytes)
        || *signer != task.signer
        || event.actor.key.is_none()
    {
        return Err(
            Refusal::denied("task-altered", "the task is not what was signed")
                .expected("the signed bytes, by the signer they name")
                .next("sign the task again with `portcullis task sign`"),
        );
    }
    state.check_decision(&body.decision)?;
    check_timely(task, event.time)?;
    if task.origin != state.genesis()?.origin {
        return Err(
            Refusal::denied("wrong-ledger", "this task is meant for another ledger")
                .expected(&state.genesis()?.origin)
                .received(&task.origin),
        );
    }
    check_signer(state, task, signer, event)?;
    if state.tasks.contains_key(&body.task) {
        return Err(Refusal::conflict(
            "task-known",
            "this task was taken in before",
        ));
    }
    if state.task_nonces.contains(&task.nonce) {
        return Err(Refusal::denied(
            "nonce-replayed",
            "the task's nonce was used by another task",
        )
        .expected("a nonce that was never used")
        .next("make the task anew with `portcullis task new` and sign it"));
    }
    state.task_nonces.insert(task.nonce.clone());
    state.tasks.insert(
        body.task,
        Arc::new(TaskState {
            payload: task.clone(),
            envelope: body.envelope.clone(),
            entry: event.index,
            runs: 0,
        }),
    );
    Ok(())
}

/// Checks a task's window.
///
/// # Errors
/// It has not begun, or is over.
pub fn check_timely(task: &Task, now: portcullis_model::Timestamp) -> Result<(), Refusal> {
    if now < task.not_before {
        return Err(
            Refusal::denied("task-too-early", "the task's window has not begun")
                .expected(&format!("a time at or after {}", task.not_before))
                .received(&now.to_string()),
        );
    }
    if now >= task.expires {
        return Err(Refusal::denied("task-expired", "the task has expired")
            .expected(&format!("a time before {}", task.expires))
            .received(&now.to_string())
            .next("make the task anew with `portcullis task new` and sign it"));
    }
    Ok(())
}

fn check_signer(
    state: &State,
    task: &Task,
    signer: &HumanId,
    event: &Event,
) -> Result<(), Refusal> {
    let person = state.inventory.human(signer)?;
    let agent = state.inventory.agent(&task.agent, event.time)?;
    let allowed = person.manifest.administrator
        || agent.owner == *signer
        || state.inventory.in_any_group(signer, agent.tasked_by.iter());
    if allowed {
        return Ok(());
    }
    Err(Refusal::denied(
        "signer-not-allowed",
        format!("{signer} may not give tasks to agent {}", task.agent),
    )
    .expected(&format!(
        "its owner {}, an administrator, or a member of {:?}",
        agent.owner, agent.tasked_by
    ))
    .received(signer.as_str())
    .next("ask one of them to sign, or have the agent's `tasked_by` extended"))
}

/// What a task wants beyond its agent's record: nothing if it may run. Each item names the field.
pub fn wider_than_agent(task: &Task, agent: &portcullis_model::manifest::Agent) -> Vec<String> {
    let mut wider = Vec::new();
    for target in &task.targets {
        if !agent.repositories.contains(&target.repository) {
            wider.push(format!("repository {}", target.repository));
        }
        for pattern in &target.scope.allow {
            if !agent.paths.iter().any(|ceiling| covers(ceiling, pattern)) {
                wider.push(format!("paths {pattern}"));
            }
        }
    }
    for endpoint in task.capabilities.endpoints.difference(&agent.endpoints) {
        wider.push(format!("endpoint {endpoint}"));
    }
    for host in task.capabilities.hosts.difference(&agent.hosts) {
        wider.push(format!("host {host}"));
    }
    for host in task.capabilities.tunnels.difference(&agent.hosts) {
        wider.push(format!("tunnel {host}"));
    }
    if !agent
        .phases
        .contains(&portcullis_model::manifest::Phase::Write)
    {
        wider.push("phase write".to_owned());
    }
    wider
}

/// Whether every path that `inner` matches is matched by `outer`, as far as that can be told from
/// the patterns: the same, everything, or below a `prefix/**`. What can't be told is no.
fn covers(outer: &str, inner: &str) -> bool {
    if outer == "**" || outer == inner {
        return true;
    }
    match outer.strip_suffix("/**") {
        Some(prefix) if !prefix.contains(['*', '?', '[', '{', '\\']) => inner
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('/')),
        _ => {
            !inner.contains(['*', '?', '[', '{', '\\'])
                && globset::GlobBuilder::new(outer)
                    .literal_separator(true)
                    .build()
                    .is_ok_and(|glob| glob.compile_matcher().is_match(inner))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_narrower_pattern_is_covered_and_a_doubtful_one_is_not() {
        for (outer, inner) in [
            ("**", "src/**"),
            ("src/**", "src/**"),
            ("src/**", "src/a/*.rs"),
            ("docs/*.md", "docs/a.md"),
        ] {
            assert!(covers(outer, inner), "{outer} {inner}");
        }
        for (outer, inner) in [
            ("src/**", "**"),
            ("src/**", "srcs/a"),
            ("src/*", "src/a/b"),
            ("*.md", "*.m?"),
            ("s*/**", "src/**"),
        ] {
            assert!(!covers(outer, inner), "{outer} {inner}");
        }
    }
}
