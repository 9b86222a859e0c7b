//! When what was lent to a run is void: every exchange of it that is under way is cut at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portcullis_flow::run::Run;
use portcullis_gateway::http::Stop;
use portcullis_model::RunId;
use tokio::sync::watch;

use super::{Caller, halts};
use crate::app::{App, now};

/// Longest between two looks at the clock, which may be set: everything else is told.
const LOOK: Duration = Duration::from_secs(1);

/// Who waits for which run's end: one watcher for all exchanges of a run.
#[derive(Default)]
pub(crate) struct Voids(Mutex<BTreeMap<RunId, watch::Receiver<bool>>>);

impl Voids {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, watch::Receiver<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends when what was lent to the run is void, or the run is halted.
pub(super) fn until_void(app: &Arc<App>, caller: &Caller) -> Stop {
    let mut told = {
        let mut voids = app.voids.lock();
        let known = voids.entry(caller.run.id).or_insert_with(|| {
            let (sender, receiver) = watch::channel(false);
            tokio::spawn(watch_over(Arc::clone(app), caller.run.id, sender));
            receiver
        });
        known.clone()
    };
    Box::pin(async move {
        // A watcher that is gone can't tell any more, which ends it as well.
        let _told = told.wait_for(|void| *void).await;
    })
}

async fn watch_over(app: Arc<App>, id: RunId, sender: watch::Sender<bool>) {
    let (mut entries, mut halted) = (app.ledger.subscribe(), app.halts());
    loop {
        entries.borrow_and_update();
        halted.borrow_and_update();
        let state = app.state();
        let run = state.runs.get(&id);
        if run.is_none_or(|run| is_void(&app, run)) {
            app.voids.lock().remove(&id);
            sender.send_replace(true);
            return;
        }
        {
            // Under the lock nobody joins: the one receiver that is left is the map's own.
            let mut voids = app.voids.lock();
            if sender.receiver_count() <= 1 {
                voids.remove(&id);
                return;
            }
        }
        let left = run.map_or(0, |run| run.deadline.ms_since(now()));
        let look = Duration::from_millis(left).min(LOOK);
        tokio::select! {
            changed = entries.changed() => if changed.is_err() {
                app.voids.lock().remove(&id);
                return;
            },
            _ = halted.changed() => {}
            () = tokio::time::sleep(look) => {}
        }
    }
}

fn is_void(app: &App, run: &Run) -> bool {
    run.require_not_over(now()).is_err() || halts(app, &app.state(), run)
}
