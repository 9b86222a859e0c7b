//! What a run's task keeps in.

use std::sync::Arc;

use portcullis_checks::outgoing::Kept;
use portcullis_model::Refusal;

use super::Caller;
use crate::app::App;

/// The files that must not leave by this run's requests.
pub(super) async fn files(app: &App, caller: &Caller) -> Result<Arc<Kept>, Refusal> {
    app.kept
        .of(&caller.state, &app.mirrors, caller.run.task)
        .await
}
