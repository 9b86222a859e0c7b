//! Chapters: the breaker, a server that dies, and the way back.

use std::time::{Duration, Instant};

use portcullis_model::Refusal;
use serde_json::Value;

use super::Play;
use super::begin::HONEST;
use super::looks::text;
use super::product;
use super::release::{answers, environment};
use super::ship::{approve, task_for};
use super::stage::{Stage, shown};
use super::traffic::Traffic;

/// What an agent at work may still have said after the trip: ten a second, and half a second.
const STILL_SAID_MAX: usize = 5;

/// The breaker is tripped; a server dies while it is; it is reset.
///
/// # Errors
/// Something went otherwise.
pub(super) fn play(stage: &Stage, traffic: &Traffic, play: &mut Play) -> Result<(), Refusal> {
    let story = &stage.story;
    story.chapter("One gesture stops what agents do")?;
    story.say("An agent is at work; it says so ten times a second. Then somebody is worried.")?;
    let task = task_for(stage, HONEST, "busy", "Work until told otherwise")?;
    let busy = stage.start(
        "busy",
        &["run", "--task", &task, "--", "sh", "-c", product::BUSY],
    )?;
    stage.wait("the agent to work", || {
        if let Some(code) = busy.ended()? {
            return Err(stage.failure(
                "the busy agent",
                "that it works",
                &format!("exit {code}: {}", busy.printed()),
            ));
        }
        Ok((said(&busy.printed()) > 3).then_some(()))
    })?;
    stage.typed(&["breaker", "trip", "--why", "an agent behaves strangely"])?;
    let at_trip = said(&busy.printed());
    std::thread::sleep(Duration::from_millis(500));
    let settled = said(&busy.printed());
    std::thread::sleep(Duration::from_millis(700));
    let still = said(&busy.printed());
    stage.expect(
        settled <= at_trip + STILL_SAID_MAX && still == settled,
        "the frozen agent",
        "silence",
        || format!("{at_trip} words at the trip, {settled} and {still} later"),
    )?;
    story.good(&format!(
        "the agent stands still: {} more was heard of it; its processes are frozen, not asked",
        match settled - at_trip {
            0 => "nothing".to_owned(),
            more => format!("{more} times \"at work\""),
        }
    ))?;
    let other = task_for(stage, HONEST, "other", "Another thing")?;
    let arguments = ["run", "--task", &other, "--", "true"];
    story.typed(&shown(&arguments))?;
    let denied = stage.run_for(&arguments, 3)?;
    let named = denied.both().contains("breaker");
    stage.expect(
        named,
        "a run while the breaker is tripped",
        "a refusal that names the breaker",
        || denied.both(),
    )?;
    story.printed(&denied.both())?;
    story.good("no run starts, nothing of agents is pushed, landed, built or released; people go on: Ada just signed that task")?;
    dies(stage, traffic, play)?;
    let still = said(&busy.printed());
    stage.expect(
        still == settled,
        "the agent after the restart",
        "still frozen",
        || format!("{settled}, then {still} words"),
    )?;
    story.good("the breaker is still tripped, and the agent still frozen")?;
    reset(stage)?;
    stage.wait("the agent to go on", || {
        Ok((said(&busy.printed()) > settled).then_some(()))
    })?;
    story.good("the agent goes on where it stood")?;
    busy.end();
    Ok(())
}

fn said(printed: &str) -> usize {
    printed
        .lines()
        .filter(|line| line.contains("at work"))
        .count()
}

/// `kill -9` of the server, and the same state after.
fn dies(stage: &Stage, traffic: &Traffic, play: &mut Play) -> Result<(), Refusal> {
    let story = &stage.story;
    story.chapter("The server dies, and comes back the same")?;
    stage.typed(&["ledger", "verify", "--save", "checkpoint"])?;
    let (before, served) = (folded(stage)?, traffic.served());
    story.typed(&format!("kill -9 {}", play.server.id))?;
    let down = Instant::now();
    play.server.kill();
    std::thread::sleep(Duration::from_millis(400));
    let (server, ready) = stage.serve()?;
    play.server = server;
    let after = folded(stage)?;
    for ((name, was), (_, is)) in before.iter().zip(&after) {
        stage.expect(
            was == is,
            &format!("{name} after the restart"),
            &was.to_string(),
            || is.to_string(),
        )?;
    }
    stage.typed(&["ledger", "verify", "--checkpoint", "checkpoint"])?;
    story.good(&format!(
        "ready again in {} ms; state is a fold of the ledger, so it is the same: {}",
        ready.as_millis(),
        before
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    ))?;
    let meanwhile = traffic.served().since(served);
    stage.expect(
        meanwhile.bad + meanwhile.lost == 0 && meanwhile.good > 0,
        "traffic while the server was dead",
        "no error",
        || format!("{meanwhile:?}"),
    )?;
    story.good(&format!(
        "{} customers' requests in these {:.1} s, none failed: proxy and releases are processes that outlive the server",
        meanwhile.all(),
        down.elapsed().as_secs_f64()
    ))
}

/// What the API shows of the state.
fn folded(stage: &Stage) -> Result<Vec<(&'static str, Value)>, Refusal> {
    let lists = [
        ("breakers", "/v1/status"),
        ("inventory", "/v1/inventory/agents"),
        ("tasks", "/v1/tasks"),
        ("changes", "/v1/changes"),
        ("requests", "/v1/requests"),
        ("artifacts", "/v1/artifacts"),
        ("releases", "/v1/releases"),
        ("rollouts", "/v1/rollouts"),
        ("environments", "/v1/environments"),
    ];
    lists
        .into_iter()
        .map(|(name, path)| {
            let answer = stage.get(path)?;
            let part = if name == "breakers" {
                "/breakers"
            } else {
                "/items"
            };
            Ok((name, answer.pointer(part).cloned().unwrap_or_default()))
        })
        .collect()
}

fn reset(stage: &Stage) -> Result<(), Refusal> {
    let story = &stage.story;
    let arguments = ["breaker", "reset", "--why", "it was a false alarm"];
    story.typed(&shown(&arguments))?;
    let asked = stage.run_for(&arguments, 4)?;
    story.printed(&asked.both())?;
    let open = stage.items("/v1/requests?open=true")?;
    let request = open
        .iter()
        .rev()
        .find(|request| text(request, "/subject/kind") == "breaker-reset")
        .map(|request| text(request, "/id"))
        .ok_or_else(|| stage.failure("the reset", "a request to people", &asked.both()))?;
    story.say(
        "Giving agents their authority back takes a signature, where taking it away took one word.",
    )?;
    approve(stage, &request, true)?;
    stage.wait("the reset", || {
        let status = stage.get("/v1/status")?;
        let none = status
            .get("breakers")
            .and_then(Value::as_array)
            .is_some_and(Vec::is_empty);
        Ok(none.then_some(()))
    })
}

/// A person returns production to the release before, without asking anyone.
///
/// # Errors
/// Something went otherwise.
pub(super) fn rollback(stage: &Stage, traffic: &Traffic) -> Result<(), Refusal> {
    let story = &stage.story;
    story.chapter("Back, on a person's word")?;
    story.say(
        "Members complain. Going back to a release that was admitted needs no approval, no agent, \
         no forge and no build.",
    )?;
    let target = text(&environment(stage, "production")?, "/rollback_to");
    let before = traffic.served();
    let since = Instant::now();
    stage.typed(&["rollback", "production", "--why", "members complain"])?;
    answers(
        stage,
        stage.ports.production,
        "/price?item=tea&member=1",
        "tea 300",
    )?;
    let took = since.elapsed();
    let serving = text(&environment(stage, "production")?, "/stable");
    stage.expect(serving == target, "what serves production", &target, || {
        serving.clone()
    })?;
    let meanwhile = traffic.served().since(before);
    stage.expect(
        meanwhile.bad + meanwhile.lost == 0,
        "traffic during the rollback",
        "no error",
        || format!("{meanwhile:?}"),
    )?;
    story.good(&format!(
        "{serving} serves again after {} ms, no request failed: tea for members is 300 as before",
        took.as_millis()
    ))
}
