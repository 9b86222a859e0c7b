//! Names of repositories that a condition compares.

use super::{Expr, Scope, Value};

/// Whether two names, of where a pull request comes from and of this repository, are of one
/// repository: known whatever they are, as only a fork is another one.
pub(super) fn same_repository(left: &Expr, right: &Expr, scope: &dyn Scope) -> Option<bool> {
    /// Where a change comes from, and what says whether that is a fork.
    const HEADS: &[(&str, &str)] = &[
        ("github.event.pull_request.head.repo.", "full_name"),
        ("github.event.pull_request.head.repo.", "owner.login"),
        ("github.event.pull_request.head.repo.", "owner.id"),
        ("github.event.pull_request.head.repo.", "id"),
        ("github.event.workflow_run.head_repository.", "full_name"),
        ("github.event.workflow_run.head_repository.", "owner.login"),
        ("github.event.workflow_run.head_repository.", "id"),
    ];
    const OWN: &[&str] = &[
        "github.repository",
        "github.repository_owner",
        "github.repository_id",
        "github.repository_owner_id",
        "github.event.repository.full_name",
        "github.event.repository.owner.login",
        "github.event.repository.id",
        "github.event.pull_request.base.repo.full_name",
        "github.event.pull_request.base.repo.owner.login",
        "github.event.pull_request.base.repo.id",
    ];
    let (Expr::Path(left), Expr::Path(right)) = (left, right) else {
        return None;
    };
    let own = |path: &str| OWN.contains(&path);
    let head = match (own(left), own(right)) {
        (true, false) => right,
        (false, true) => left,
        _ => return None,
    };
    let (place, _) = HEADS
        .iter()
        .find(|(place, property)| head.strip_prefix(place) == Some(*property))?;
    match scope.value(&format!("{place}fork")) {
        Value::Bool(fork) => Some(!fork),
        _ => None,
    }
}
