//! The checks of a revision: what changed, held against the task and the protected base's rules.

use portcullis_checks::analyse::{Configuration, Context, Report, analyse};
use portcullis_flow::change::{Change, Revision};
use portcullis_model::document::from_toml;
use portcullis_model::event::ChecksCompleted;
use portcullis_model::{ChangeId, Digest, GitOid, Refusal, Scope};

use crate::app::{App, text};

/// Where a repository configures its checks; read from the protected base only.
pub const CONFIGURATION: &str = ".portcullis/checks.toml";
/// Largest configuration file, in bytes.
pub const CONFIGURATION_MAX_BYTES: u64 = 64 * 1024;

/// Runs the checks of a revision and records what they found.
///
/// # Errors
/// The objects can't be read, or the revision was superseded.
pub async fn run(app: &App, id: ChangeId, number: u64) -> Result<(), Refusal> {
    let state = app.state();
    let change = state
        .changes
        .get(&id)
        .ok_or_else(|| Refusal::not_found("change", id))?;
    let revision = change.latest();
    if revision.number != number {
        return Ok(());
    }
    let pushed = &revision.pushed;
    let (report, configuration) =
        analyse_between(app, &state, change, &pushed.base, &pushed.head).await?;
    let stored = app.ledger.blobs().put(&report.to_bytes()?)?;
    let body = ChecksCompleted {
        change: id,
        revision: number,
        verdict: report.verdict,
        escalations: report.escalations.clone(),
        blocks: report.blocks.clone(),
        report: stored,
        configuration,
    };
    super::record(app, body).await
}

/// What the checks that `base` configures say of what a change does between two commits; and the
/// digest of their configuration.
pub(super) async fn analyse_between(
    app: &App,
    state: &portcullis_flow::State,
    change: &Change,
    base: &GitOid,
    head: &GitOid,
) -> Result<(Report, Digest), Refusal> {
    let mirror = app.mirrors.get(state, &change.repository).await?;
    let objects = mirror.objects();
    let configured = objects
        .read_file(base, CONFIGURATION, CONFIGURATION_MAX_BYTES)
        .await?;
    let configuration: Configuration = match &configured {
        Some(bytes) => from_toml("checks configuration", &text(bytes)?)?,
        None => Configuration::default(),
    };
    let context = Context::new(configuration)?;
    let bytes = objects.diff(base, head).await?;
    let diff = portcullis_checks::diff::parse(&bytes)?;
    let scope = scope_of(state, change, change.latest());
    let report = analyse(&diff, scope.as_ref(), &context);
    Ok((report, context.digest()?))
}

/// The scope that a revision by a run is held against; people have none.
pub fn scope_of(
    state: &portcullis_flow::State,
    change: &Change,
    revision: &Revision,
) -> Option<Scope> {
    let run = revision.run.and_then(|run| state.runs.get(&run))?;
    let task = state.tasks.get(&run.task)?;
    // A run without a target here may touch nothing.
    Some(
        task.payload
            .target(&change.repository)
            .map_or_else(|| Scope::over(&[]), |target| target.scope.clone()),
    )
}
