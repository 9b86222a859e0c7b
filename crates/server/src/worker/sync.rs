//! Looks at upstream branches, so that a commit that reached one past us is noticed.

use std::sync::Arc;
use std::time::Duration;

use portcullis_flow::State;
use portcullis_model::event::CommitsUnproven;
use portcullis_model::{GitOid, Refusal, RepositoryId};

use crate::app::App;
use crate::mirrors::Mirror;

/// Looks at every governed branch, again and again.
pub async fn run(app: Arc<App>) {
    let every = Duration::from_secs(app.config.sync_every_s.max(1));
    loop {
        let state = app.state();
        for repository in state.inventory.repositories.keys() {
            if let Err(refusal) = repository_once(&app, repository).await {
                tracing::warn!(repository = %repository, error.code = refusal.code, "upstream could not be looked at: {}", refusal.message);
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// Looks at one repository's known branches and its default branch.
///
/// # Errors
/// Upstream can't be reached, or the ledger can't be written.
pub async fn repository_once(app: &App, repository: &RepositoryId) -> Result<(), Refusal> {
    let before = app.state();
    let record = before.inventory.repository(repository)?;
    let mut branches: Vec<String> = before
        .branches
        .keys()
        .filter(|(id, _)| id == repository)
        .map(|(_, branch)| branch.clone())
        .collect();
    if !branches.contains(&record.default_branch) {
        branches.push(record.default_branch.clone());
    }
    let mirror = app.mirrors.get(&before, repository).await?;
    let synced = mirror.sync().await;
    // Whatever upstream says: a mirror that may take no more needs it most.
    mirror.sweep(|run| before.runs.get(&run).is_some_and(|run| run.end.is_some()))?;
    tidy(&mirror, repository);
    let mut failed = match synced {
        Ok(()) => None,
        // Upstream itself can be asked, and what it says may be known by its objects.
        Err(refusal) if matches!(refusal.code.as_str(), "mirror-too-large" | "disk-full") => {
            Some(refusal)
        }
        Err(refusal) => return Err(refusal),
    };
    for branch in branches {
        match branch_once(app, &before, repository, &branch).await {
            Ok(_) => {}
            // Another branch may have moved to what is here.
            Err(refusal) if failed.is_some() => failed = Some(refusal),
            Err(refusal) => return Err(refusal),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Puts a repository's packs together where they are many; the looks go on meanwhile.
fn tidy(mirror: &Arc<Mirror>, repository: &RepositoryId) {
    let (mirror, repository) = (Arc::clone(mirror), repository.clone());
    tokio::spawn(async move {
        match mirror.repository.tidy().await {
            Ok(0) => {}
            Ok(stores) => {
                tracing::info!(repository = %repository, "packs of {stores} stores were put together");
            }
            Err(refusal) => {
                tracing::warn!(repository = %repository, error.code = refusal.code, "packs could not be put together: {refusal}");
            }
        }
    });
}

/// Compares one branch upstream with what the ledger explains.
///
/// # Errors
/// The mirror can't be read, or the ledger can't be written.
pub async fn branch_once(
    app: &App,
    before: &State,
    repository: &RepositoryId,
    branch: &str,
) -> Result<Option<GitOid>, Refusal> {
    let mirror = app.mirrors.get(before, repository).await?;
    let Some(upstream) = mirror.repository.observe(branch, mirror.access()).await? else {
        return Ok(None);
    };
    let key = (repository.clone(), branch.to_owned());
    let known = before.branches.get(&key);
    let after = app.state();
    let moved_meanwhile = match (known, after.branches.get(&key)) {
        (None, None) => false,
        (Some(one), Some(other)) => {
            one.tip != other.tip || one.landing.is_some() || other.landing.is_some()
        }
        (None, Some(_)) | (Some(_), None) => true,
    };
    // A landing of ours may be what moved it; the next look will tell.
    if moved_meanwhile || known.is_some_and(|known| known.tip == upstream) {
        return Ok(Some(upstream));
    }
    if let Err(refusal) = mirror.sync().await
        && !mirror.objects().has_commit(&upstream).await?
    {
        return Err(refusal);
    }
    let from = known.map(|known| known.tip.clone());
    let commits = match &from {
        Some(from) => mirror.count_between(from, &upstream).await?,
        None => 0,
    };
    let body = CommitsUnproven {
        repository: repository.clone(),
        branch: branch.to_owned(),
        from,
        to: upstream.clone(),
        commits,
    };
    match super::record(app, body).await {
        Ok(()) => Ok(Some(upstream)),
        // Another look recorded it first.
        Err(refusal) if matches!(refusal.code.as_str(), "branch-moved" | "branch-landing") => {
            Ok(Some(upstream))
        }
        Err(refusal) => Err(refusal),
    }
}
