//! Chapters: into environments, on evidence.

use std::time::Instant;

use portcullis_model::Refusal;
use serde_json::Value;

use super::looks::{Entry, number, text};
use super::ship::{self, Shipped, approve};
use super::stage::{Stage, shown};
use super::traffic::{Traffic, once};

/// The first release: to staging by proof alone, to production with an approval.
///
/// # Errors
/// Something went otherwise.
pub(super) fn first(stage: &Stage, shipped: &Shipped) -> Result<Traffic, Refusal> {
    let story = &stage.story;
    story.chapter("Admitted by proof, and to production by a person")?;
    story.say(
        "Nothing is admitted that does not prove where all of it comes from: before each release \
         the server recomputes the whole chain from the evidence. Staging takes a release by that \
         proof alone.",
    )?;
    stage.typed(&[
        "release",
        "new",
        &shipped.artifact,
        "--environment",
        "staging",
    ])?;
    completed(stage, "staging", &shipped.artifact)?;
    answers(
        stage,
        stage.ports.staging,
        "/price?item=coffee",
        "coffee 350",
    )?;
    story.good("staging runs it, as a process of its own user and namespaces: GET /price?item=coffee says `coffee 350`")?;
    story.say("Production takes a person, always. No setting switches that off.")?;
    let request = to_production(stage, shipped)?;
    approve(stage, &request, true)?;
    completed(stage, "production", &shipped.artifact)?;
    answers(
        stage,
        stage.ports.production,
        "/price?item=coffee",
        "coffee 350",
    )?;
    story.good(
        "production serves it; from now on customers ask for prices, a few hundred times a second",
    )?;
    Ok(Traffic::start(stage.ports.production))
}

/// A good release that proves itself as a canary.
///
/// # Errors
/// Something went otherwise.
pub(super) fn good(stage: &Stage, traffic: &Traffic) -> Result<Shipped, Refusal> {
    let story = &stage.story;
    story.chapter("The next release proves itself on little traffic")?;
    let shipped = ship::again(stage, &ship::MEMBERS)?;
    let request = to_production(stage, &shipped)?;
    let (from, before) = (stage.size()?, traffic.served());
    approve(stage, &request, true)?;
    story.say(
        "It has an agent's work in it, so it starts as a canary: 20 % of the requests, then 50 %, \
         then all. Each step up needs evidence that it is not worse than the stable release, by a \
         test that may be looked at as often as one likes.",
    )?;
    let rollout = rollout_end(stage, &shipped.artifact)?;
    stage.expect(
        text(&rollout, "/status") == "completed",
        "the good release's rollout",
        "completed",
        || rollout.to_string(),
    )?;
    for step in steps(stage, from, &text(&rollout, "/id"))? {
        story.printed(&told(&step))?;
    }
    story.say(
        "These are betting scores that begin at 1. A release that does no harm takes `harm` to 100 \
         with a chance of at most 1 %, however often one looks; `not worse` must reach 20 to go on.",
    )?;
    let served = traffic.served().since(before);
    stage.expect(
        served.bad + served.lost == 0,
        "the customers meanwhile",
        "no error",
        || format!("{served:?}"),
    )?;
    answers(
        stage,
        stage.ports.production,
        "/price?item=tea&member=1",
        "tea 270",
    )?;
    story.good(&format!(
        "promoted; {} requests meanwhile, none of them failed",
        served.all()
    ))?;
    Ok(shipped)
}

/// A bad release that passed its tests and is caught.
///
/// # Errors
/// Something went otherwise.
pub(super) fn bad(stage: &Stage, traffic: &Traffic) -> Result<Shipped, Refusal> {
    let story = &stage.story;
    story.chapter("A bad release, caught and taken back by itself")?;
    story.say(
        "The agent's next change takes a slot for each request and forgets to give it back when a \
         header is missing. Its tests always send the header, or make one request only. They pass, \
         and Ada does not see it either.",
    )?;
    let shipped = ship::again(stage, &ship::CURRENCY)?;
    let stable = text(&environment(stage, "production")?, "/stable");
    let request = to_production(stage, &shipped)?;
    let (from, before, since) = (stage.size()?, traffic.served(), Instant::now());
    approve(stage, &request, true)?;
    let rollout = rollout_end(stage, &shipped.artifact)?;
    stage.expect(
        text(&rollout, "/status") == "rolled-back",
        "the bad release's rollout",
        "rolled-back",
        || rollout.to_string(),
    )?;
    let took = since.elapsed();
    let steps = steps(stage, from, &text(&rollout, "/id"))?;
    let last = steps
        .last()
        .ok_or_else(|| stage.failure("the rollout", "its evidence in the ledger", "no step"))?;
    stage.expect(
        text(&last.body, "/step") == "rollback",
        "the last step",
        "rollback",
        || last.body.to_string(),
    )?;
    story.printed(&told(last))?;
    let (errors, bound) = (
        number(&last.body, "/evidence/canary_errors_total"),
        number(&last.body, "/evidence/canary_errors_bound"),
    );
    story.good(&format!(
        "rolled back {:.1} s after the approval, nobody asked: {errors} requests of the canary \
         failed, and {bound} would have been the most in any case",
        took.as_secs_f64()
    ))?;
    let after = text(&environment(stage, "production")?, "/stable");
    stage.expect(after == stable, "what serves now", &stable, || {
        after.clone()
    })?;
    settle(stage, traffic)?;
    let served = traffic.served().since(before);
    stage.expect(
        served.bad > 0 && served.lost == 0,
        "what customers saw",
        "some errors, no silence",
        || format!("{served:?}"),
    )?;
    story.say(&format!(
        "{} of {} customers' requests failed in that time. The commit stays on main, the release \
         stays admitted, and neither serves anybody.",
        served.bad,
        served.all(),
    ))?;
    Ok(shipped)
}

/// Asks for production; gives the request that opens.
fn to_production(stage: &Stage, shipped: &Shipped) -> Result<String, Refusal> {
    let arguments = [
        "release",
        "new",
        &shipped.artifact,
        "--environment",
        "production",
    ];
    stage.story.typed(&shown(&arguments))?;
    let done = stage.run_for(&arguments, 4)?;
    stage.story.printed(&done.both())?;
    let open = stage.items("/v1/requests?open=true")?;
    open.iter()
        .rev()
        .find(|request| text(request, "/subject/artifact") == shipped.artifact)
        .map(|request| text(request, "/id"))
        .ok_or_else(|| {
            stage.failure(
                "the release to production",
                "a request to people",
                &done.both(),
            )
        })
}

/// Waits until the artifact serves alone in the environment.
fn completed(stage: &Stage, environment: &str, artifact: &str) -> Result<(), Refusal> {
    let rollout = rollout_in(stage, environment, artifact)?;
    stage.expect(
        text(&rollout, "/status") == "completed",
        &format!("the rollout to {environment}"),
        "completed",
        || rollout.to_string(),
    )
}

fn rollout_end(stage: &Stage, artifact: &str) -> Result<Value, Refusal> {
    rollout_in(stage, "production", artifact)
}

/// Waits for the end of an artifact's rollout.
fn rollout_in(stage: &Stage, environment: &str, artifact: &str) -> Result<Value, Refusal> {
    stage.wait(&format!("the rollout to {environment}"), || {
        let releases = stage.items("/v1/releases")?;
        let Some(release) = releases.iter().rev().find(|release| {
            text(release, "/artifact") == artifact && text(release, "/environment") == environment
        }) else {
            return Ok(None);
        };
        let rollouts = stage.items("/v1/rollouts")?;
        Ok(rollouts
            .into_iter()
            .rev()
            .find(|rollout| text(rollout, "/release") == text(release, "/id"))
            .filter(|rollout| !["running", "paused"].contains(&text(rollout, "/status").as_str())))
    })
}

/// The steps of a rollout, as recorded.
fn steps(stage: &Stage, from: u64, rollout: &str) -> Result<Vec<Entry>, Refusal> {
    let entries = stage.entries(from)?;
    Ok(entries
        .into_iter()
        .filter(|entry| entry.kind == "rollout.stepped" && text(&entry.body, "/rollout") == rollout)
        .collect())
}

/// One step with its numbers.
fn told(step: &Entry) -> String {
    let evidence = |name: &str| number(&step.body, &format!("/evidence/{name}"));
    if step.body.pointer("/evidence/canary_requests").is_none() {
        return format!(
            "entry {}: {}, canary gets {} ‰",
            step.index,
            text(&step.body, "/code"),
            text(&step.body, "/weight")
        );
    }
    format!(
        "entry {}: {}, canary gets {} ‰\n  stable {} errors of {}, canary {} errors of {}\n  harm {} of {}, not worse {} of {}",
        step.index,
        text(&step.body, "/code"),
        text(&step.body, "/weight"),
        evidence("stable_errors"),
        evidence("stable_requests"),
        evidence("canary_errors"),
        evidence("canary_requests"),
        e_value(evidence("harm_log_e_micronats")),
        e_value(evidence("harm_threshold_micronats")),
        e_value(evidence("promotion_log_e_micronats")),
        e_value(evidence("promotion_threshold_micronats")),
    )
}

/// An e-value out of its logarithm in millionths.
fn e_value(micronats: i64) -> String {
    // Whole micro-nats of a few thousand nats at most fit a double exactly.
    let value = (micronats as f64 / 1e6).exp();
    if value < 100.0 {
        format!("{value:.2}")
    } else if value < 1e6 {
        format!("{value:.0}")
    } else {
        "over a million".to_owned()
    }
}

/// The environment as the API shows it.
pub(super) fn environment(stage: &Stage, name: &str) -> Result<Value, Refusal> {
    stage
        .items("/v1/environments")?
        .into_iter()
        .find(|environment| text(environment, "/record/id") == name)
        .ok_or_else(|| stage.failure("environments", name, "none of that name"))
}

/// Waits until customers get no more errors.
fn settle(stage: &Stage, traffic: &Traffic) -> Result<(), Refusal> {
    stage.wait("the last canary answers", || {
        let before = traffic.served();
        std::thread::sleep(std::time::Duration::from_millis(150));
        let served = traffic.served().since(before);
        Ok((served.bad + served.lost == 0 && served.good > 0).then_some(()))
    })
}

/// A real request to an environment, and what it must answer.
///
/// # Errors
/// It answers otherwise.
pub(super) fn answers(
    stage: &Stage,
    port: u16,
    target: &str,
    expected: &str,
) -> Result<(), Refusal> {
    let got = stage.wait(&format!("GET {target}"), || Ok(once(port, target).ok()))?;
    stage.expect(
        got.0 == 200 && got.1.trim() == expected,
        &format!("GET {target}"),
        expected,
        || format!("{got:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_values_are_shown_as_numbers() {
        assert_eq!(e_value(0), "1.00");
        assert_eq!(e_value(4_605_171), "100");
        assert_eq!(e_value(-1_000_000), "0.37");
        assert_eq!(e_value(30_000_000), "over a million");
    }
}
