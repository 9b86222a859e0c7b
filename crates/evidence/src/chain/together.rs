//! A change that landed together with others of its task, or not at all: a bundle shows all of
//! them, in the entries where the fold puts them.

use portcullis_model::event::{Body, Effect, EffectConcluded, EffectOutcome};
use portcullis_model::{LedgerIndex, Refusal, Task, TaskId};

use super::book::{Book, Landing};
use super::change::{Land, Push, require_control};

/// What a landing says of the others that it happened with; none if its task orders none.
///
/// The intents follow each other in the order of the task's targets, and each was done: then every
/// one of them landed, since a landing is taken back only where another one failed.
pub(super) fn together(
    book: &Book<'_>,
    land: &Land<'_>,
    landing: Landing<'_>,
    pushes: &[Push<'_>],
) -> Result<Option<String>, Refusal> {
    let (id, task) = match (ordered(book, pushes), land.together) {
        (None, None) => return Ok(None),
        (Some((id, task)), Some(named)) if id == named => (id, task),
        (ordered, named) => {
            let text = |id: Option<TaskId>| id.map_or("no task".to_owned(), |id| id.to_string());
            return Err(refused(format!(
                "{} did not land together with what its task names",
                land.change
            ))
            .expected(&text(ordered.map(|(id, _)| id)))
            .received(&text(named)));
        }
    };
    let place = task
        .targets
        .iter()
        .position(|target| target.repository == *land.repository && target.branch == land.branch)
        .and_then(|place| u64::try_from(place).ok());
    let first = place
        .and_then(|place| landing.intent.index.checked_sub(place))
        .ok_or_else(|| refused(format!("{} is for no target of its task", land.change)))?;
    for (index, target) in (first..).zip(&task.targets) {
        let intent = book.sound(index)?;
        require_control(book, intent)?;
        let fits = match &intent.body {
            Body::EffectIntended(body) => matches!(
                &body.effect,
                Effect::Land { repository, branch, together, .. }
                    if *repository == target.repository
                        && *branch == target.branch
                        && *together == Some(id)
            ),
            _ => false,
        };
        let done = done(book, index);
        if !fits || !done {
            return Err(refused(format!(
                "the task's change in {} did not land with {}",
                target.repository, land.change
            ))
            .expected(&format!(
                "entry {index}: the landing on {}, and that it was done",
                target.branch
            )));
        }
    }
    Ok(Some(format!(
        "together with the task's {} other changes",
        task.targets.len().saturating_sub(1)
    )))
}

fn done(book: &Book<'_>, intent: LedgerIndex) -> bool {
    let concluded = book.events().find(|event| {
        matches!(
            &event.body,
            Body::EffectConcluded(EffectConcluded { effect, outcome: EffectOutcome::Done, .. })
                if *effect == intent
        )
    });
    concluded.is_some_and(|event| {
        book.sound(event.index).is_ok() && require_control(book, event).is_ok()
    })
}

/// The task of the newest run behind the change that orders its changes to land together.
fn ordered<'a>(book: &'a Book<'_>, pushes: &[Push<'_>]) -> Option<(TaskId, &'a Task)> {
    pushes.iter().rev().find_map(|(_, push)| {
        let Body::RunStarted(run) = &book.sound(push.run?.0).ok()?.body else {
            return None;
        };
        let wanted = run.task;
        book.events().find_map(|event| match &event.body {
            Body::TaskAccepted(task) if task.task == wanted && task.payload.together => {
                Some((wanted, &task.payload))
            }
            _ => None,
        })
    })
}

fn refused(message: String) -> Refusal {
    Refusal::denied("landed-apart", message)
}
