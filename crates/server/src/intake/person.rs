//! Who people are: what stands outside the ledger and can be erased from it.

use std::sync::Arc;

use portcullis_flow::State;
use portcullis_model::document::from_json;
use portcullis_model::event::{Ended, PrincipalEnded};
use portcullis_model::statement::Profile;
use portcullis_model::{Digest, HumanId, Refusal};
use portcullis_store::Person;
use serde_json::{Value, json};

use super::{Verified, check_fresh, check_timely, human_id, record};
use crate::api::ledger::blocking;
use crate::app::App;

/// Keeps name and mail address of a person. No entry says so, since nothing follows from it.
pub(super) async fn name(
    app: &Arc<App>,
    verified: &Verified,
    human: &HumanId,
    profile: Digest,
) -> Result<Value, Refusal> {
    check_timely(app, verified)?;
    require_own_or_administrator(&app.state(), verified, human)?;
    let [text] = verified.attachments.as_slice() else {
        return Err(Refusal::malformed("command")
            .expected("the person's name and mail address as the one attachment")
            .received(&format!("{} attachments", verified.attachments.len())));
    };
    if Digest::of(text.as_bytes()) != profile {
        // Said without the text: it is what may not be written down.
        return Err(Refusal::denied(
            "profile-altered",
            "name and mail address are not those that were signed",
        )
        .next("give the command again"));
    }
    let profile: Profile = from_json("profile", text.as_bytes())?;
    let person = Person {
        name: profile.name,
        mail: profile.mail,
    };
    let (ledger, human) = (app.ledger.clone(), human.clone());
    blocking(move || ledger.private().set_person(&human, &person)).await?;
    Ok(json!({ "index": null }))
}

/// Erases name and mail address, then records that, with the end of the person's rights. A crash
/// in between leaves them erased and unrecorded; the command can be given again.
pub(super) async fn forget(
    app: &Arc<App>,
    verified: &Verified,
    human: HumanId,
    why: Digest,
) -> Result<Value, Refusal> {
    check_fresh(app, verified)?;
    let state = app.state();
    require_own_or_administrator(&state, verified, &human)?;
    // What the fold would refuse must not be done before.
    let body = PrincipalEnded {
        subject: Ended::HumanForgotten(human.clone()),
        why,
        envelope: verified.envelope.clone(),
    };
    let last = state
        .inventory
        .administrators()
        .all(|known| *known == human);
    if !last {
        let ledger = app.ledger.clone();
        blocking(move || ledger.private().forget_person(&human)).await?;
    }
    record(app, verified, body).await
}

fn require_own_or_administrator(
    state: &State,
    verified: &Verified,
    human: &HumanId,
) -> Result<(), Refusal> {
    let by = human_id(verified)?;
    if !state.inventory.humans.contains_key(human) {
        return Err(Refusal::not_found("human", human));
    }
    let administrator = state
        .inventory
        .administrators()
        .any(|administrator| administrator == by);
    if administrator || by == human {
        return Ok(());
    }
    Err(Refusal::denied(
        "not-owner",
        "only the person or an administrator may do this",
    )
    .received(by.as_str()))
}
