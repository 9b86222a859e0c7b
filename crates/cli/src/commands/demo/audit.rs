//! Chapter: an auditor who has only files.

use std::fs;

use portcullis_model::{Refusal, canonical};
use serde_json::Value;

use super::Play;
use super::looks::text;
use super::processes::Done;
use super::ship::Shipped;
use super::stage::{Stage, shown, unwritable};
use super::tamper::{self, Tampering};

const ARTIFACT: &str = "auditor/shop";
const EVIDENCE: &str = "auditor/evidence.json";
const GENESIS: &str = "auditor/genesis.json";

/// The chapter.
///
/// # Errors
/// Something sound did not verify, or something altered did.
pub(super) fn play(stage: &Stage, shipped: &Shipped, play: &mut Play) -> Result<(), Refusal> {
    let story = &stage.story;
    story.chapter("Years later: an auditor with three files")?;
    story.say(
        "The genesis, which she pinned long ago; the artifact; and the evidence about it. No server \
         is asked, and none is trusted.",
    )?;
    fs::create_dir_all(stage.path("auditor")).map_err(unwritable)?;
    fs::copy(stage.home().join("genesis.json"), stage.path(GENESIS)).map_err(unwritable)?;
    stage.run(&["artifact", "fetch", &shipped.artifact, "--to", ARTIFACT])?;
    stage.run(&[
        "artifact",
        "bundle",
        &shipped.artifact,
        "--environment",
        "production",
        "--to",
        EVIDENCE,
    ])?;
    let whole = sound(stage, ARTIFACT, EVIDENCE)?;
    story.printed(&whole)?;
    let commit = "auditor/commit.json";
    stage.download(
        &format!("/v1/commits/shop/{}/bundle", shipped.commit),
        commit,
    )?;
    let whole = sound(stage, &shipped.commit, commit)?;
    let end = whole.find("self-approved:").and_then(|at| whole.get(at..));
    story.printed(end.unwrap_or(&whole))?;
    ledger(stage, play)?;
    story.say("Now one byte is changed, each time in a fresh copy, and she verifies again:")?;
    other_artifact(stage)?;
    for tampering in tamper::ALL {
        altered(stage, tampering)?;
    }
    Ok(())
}

/// The whole ledger, from a copy of its files while no server runs.
fn ledger(stage: &Stage, play: &mut Play) -> Result<(), Refusal> {
    stage.story.say(
        "And the whole ledger, from a copy of its files, counted again from the first entry: every \
         entry in its place, each allowed by the state that those before it make, and the \
         checkpoint that she kept from before contained in it.",
    )?;
    play.server.end();
    stage.typed(&["backup", "auditor/ledger"])?;
    let (server, _) = stage.serve()?;
    play.server = server;
    let arguments = [
        "ledger",
        "verify",
        "--home",
        "auditor/ledger",
        "--genesis",
        GENESIS,
        "--checkpoint",
        "checkpoint",
    ];
    stage.typed(&arguments).map(|_| ())
}

/// A command without any server or key in reach.
fn verify(stage: &Stage, options: &[&str], subject: &str, bundle: &str) -> Result<Done, Refusal> {
    let mut arguments = options.to_vec();
    arguments.extend(["verify", subject, "--bundle", bundle, "--genesis", GENESIS]);
    let mut command = stage.portcullis(&arguments);
    command
        .env_remove("PORTCULLIS_KEY")
        .env("PORTCULLIS_SERVER", "http://127.0.0.1:1");
    stage.processes.run(&mut command, false)
}

/// Verifies what is sound; gives what was printed.
fn sound(stage: &Stage, subject: &str, bundle: &str) -> Result<String, Refusal> {
    stage.story.typed(&shown(&[
        "verify",
        subject,
        "--bundle",
        bundle,
        "--genesis",
        GENESIS,
    ]))?;
    let done = verify(stage, &[], subject, bundle)?;
    stage.expect(
        done.code == 0,
        &format!("verifying {subject}"),
        "exit 0",
        || done.both(),
    )?;
    stage.expect(
        done.both().contains("self-approved"),
        &format!("verifying {subject}"),
        "`self-approved` in its words",
        || done.both(),
    )?;
    Ok(done.both())
}

/// The artifact's own bytes: then the evidence is about something else.
fn other_artifact(stage: &Stage) -> Result<(), Refusal> {
    let mut bytes = fs::read(stage.path(ARTIFACT)).map_err(unwritable)?;
    if let Some(byte) = bytes.get_mut(100) {
        *byte ^= 1;
    }
    fs::write(stage.path("auditor/altered"), bytes).map_err(unwritable)?;
    let done = verify(stage, &[], "auditor/altered", EVIDENCE)?;
    let told = done.both().contains("about something else");
    stage.expect(
        done.code != 0 && told,
        "verifying an altered artifact",
        "that the evidence is about something else",
        || done.both(),
    )?;
    stage.story.altered(
        "the artifact",
        "artifact",
        done.both().lines().next().unwrap_or_default(),
    )
}

fn altered(stage: &Stage, tampering: &Tampering) -> Result<(), Refusal> {
    let what = format!("verifying with one byte of {} changed", tampering.what);
    let bytes = fs::read(stage.path(EVIDENCE)).map_err(unwritable)?;
    let mut bundle: Value = serde_json::from_slice(&bytes)
        .map_err(|error| stage.failure(&what, "evidence in JSON", &error.to_string()))?;
    (tampering.alter)(&mut bundle)
        .ok_or_else(|| stage.failure(&what, "something to alter", "none"))?;
    let changed = canonical::to_vec(&bundle)?;
    let differing = changed
        .iter()
        .zip(&bytes)
        .filter(|(one, other)| one != other)
        .count();
    stage.expect(
        changed.len() == bytes.len() && differing == 1,
        &what,
        "one byte",
        || format!("{differing} bytes"),
    )?;
    fs::write(stage.path("auditor/altered.json"), changed).map_err(unwritable)?;
    let done = verify(
        stage,
        &["--output", "json"],
        ARTIFACT,
        "auditor/altered.json",
    )?;
    let report: Value = serde_json::from_str(&done.out).unwrap_or_default();
    let broken: Vec<(String, String)> = report
        .get("links")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|link| link.get("holds").and_then(Value::as_bool) == Some(false))
        .map(|link| (text(link, "/name"), text(link, "/says")))
        .collect();
    let named = broken
        .iter()
        .find(|(name, _)| tampering.links.contains(&name.as_str()));
    match named {
        Some((name, says)) if done.code != 0 => stage.story.altered(tampering.what, name, says),
        _ => Err(stage.failure(
            &what,
            &format!("a broken link: {}", tampering.links.join(" or ")),
            &format!("exit {}, broken: {broken:?} {}", done.code, done.err),
        )),
    }
}
