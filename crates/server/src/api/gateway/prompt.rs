//! Notes what a run's models are told, and which model answers, where it is news.

use std::collections::BTreeSet;

use portcullis_flow::State;
use portcullis_gateway::http::prompt::{Prompt, is_same_model};
use portcullis_model::event::PromptSeen;
use portcullis_model::{Refusal, RunId};

use crate::app::App;
use crate::worker;

/// Fills in what `prompt` tells the model, and records it before it is sent, if it is news.
pub(super) async fn note(
    app: &App,
    mut told: PromptSeen,
    prompt: Prompt,
) -> Result<PromptSeen, Refusal> {
    told.system = prompt.system;
    told.tools = prompt.tools;
    told.instructions = prompt.instructions;
    // A swap that was seen stays news until a call shows otherwise.
    let state = app.state();
    let last = state
        .runs
        .get(&told.run)
        .and_then(|run| run.prompts.get(&told.endpoint))
        .map(|prompts| prompts.last.clone());
    let same = last.is_some_and(|last| {
        PromptSeen {
            model_served: None,
            ..last
        } == told
    });
    if !same {
        record(app, told.clone()).await?;
    }
    Ok(told)
}

/// The answer names a model; if it is not the one that was asked for, that is news.
pub(super) async fn answered(app: &App, mut told: PromptSeen, served: Option<&str>) {
    let Some(served) = served else { return };
    if told.model_asked.is_empty() || is_same_model(&told.model_asked, served) {
        return;
    }
    told.model_served = Some(served.to_owned());
    if let Err(refusal) = record(app, told).await {
        tracing::warn!(
            error.code = refusal.code,
            "a swapped model could not be recorded: {refusal}"
        );
    }
}

async fn record(app: &App, told: PromptSeen) -> Result<(), Refusal> {
    match worker::record(app, told).await {
        Err(refusal) if refusal.code == "prompt-known" => Ok(()),
        // Nothing was lent, which policy says in words.
        Err(refusal) if refusal.code == "not-lent" => Ok(()),
        other => other,
    }
}

/// What changed within the run so far.
pub(super) fn changes(state: &State, run: RunId) -> BTreeSet<String> {
    state
        .runs
        .get(&run)
        .into_iter()
        .flat_map(|run| run.model_changes.iter())
        .cloned()
        .collect()
}
