//! Chapter: an agent that tries what it was not given.

use portcullis_evidence::dsse;
use portcullis_evidence::signer::Signer;
use portcullis_model::statement::Envelope;
use portcullis_model::statement::{Command, Output, SignedCommand};
use portcullis_model::{Digest, JobId, Principal, Refusal, canonical};
use serde_json::{Value, json};

use super::attempts::{ATTEMPTS, Attempt, Ledger, Seen, read, reason};
use super::begin::ROGUE;
use super::looks::{Entry, text};
use super::product;
use super::ship::{Shipped, task_for};
use super::stage::{Stage, shown};
use crate::time::now;

/// One denial fewer than makes a run stand still.
const ATTEMPTS_PER_RUN: usize = 4;

/// The chapter.
///
/// # Errors
/// Something was not refused, or not for the reason it should be.
pub(super) fn play(stage: &Stage, honest: &Shipped, server: u32) -> Result<(), Refusal> {
    let story = &stage.story;
    story.chapter("An agent that tries what it was not given")?;
    story.say(&format!(
        "The rogue has a signed task like any other. It knows this machine's paths and ports, \
         brings its own tool, and tries {} forbidden things. Each is quoted as the agent saw it, \
         and as the ledger tells it.",
        ATTEMPTS.len() + 2
    ))?;
    story.say(
        "A run that is denied five times stands still until a person has looked. The rogue knows, \
         and spreads its attempts over several runs.",
    )?;
    let from = stage.size()?;
    let mut printed = String::new();
    for (part, attempts) in ATTEMPTS.chunks(ATTEMPTS_PER_RUN).enumerate() {
        let name = format!("rogue-{}", part + 1);
        let task = task_for(stage, ROGUE, &name, "Tidy up")?;
        let script = script(stage, honest, server, attempts);
        let file = format!("agents/{name}.sh");
        stage.write(&file, &script)?;
        let quoted = format!("\"$(cat {file})\"");
        story.typed(&shown(&["run", "--task", &task, "--", "sh", "-c", &quoted]))?;
        let done = stage.processes.run(
            &mut stage.portcullis(&["run", "--task", &task, "--", "sh", "-c", &script]),
            true,
        )?;
        printed.push_str(&done.out);
    }
    let attempts = read(&printed);
    stage.expect(
        attempts.len() == ATTEMPTS.len(),
        "the rogue's run",
        &format!("{} attempts", ATTEMPTS.len()),
        || printed.clone(),
    )?;
    let entries = stage.entries(from)?;
    let mut denials = entries
        .iter()
        .filter(|entry| entry.kind == "request.denied");
    for (number, attempt) in ATTEMPTS.iter().enumerate() {
        let seen = attempts.get(attempt.name).cloned().unwrap_or_default();
        let ledger = judge(stage, attempt, &seen, &mut denials)?;
        story.refused(number + 1, attempt.tried, &reason(attempt, &seen), &ledger)?;
    }
    blocked(stage)?;
    untested(stage)?;
    nothing_left(stage, attempts.values())?;
    forged(stage)
}

fn script(stage: &Stage, honest: &Shipped, server: u32, attempts: &[Attempt]) -> String {
    let names: Vec<&str> = attempts.iter().map(|attempt| attempt.name).collect();
    let settings = [
        ("ATTEMPTS", names.join(" ")),
        ("OTHER_CHANGE", honest.change.clone()),
        (
            "PERSON_KEY",
            stage.path("person/id_ed25519").display().to_string(),
        ),
        ("HOME_DIR", stage.home().display().to_string()),
        ("SERVER_PID", server.to_string()),
        ("SERVER_PORT", stage.ports.server.to_string()),
        ("PRODUCTION_PORT", stage.ports.production.to_string()),
    ];
    let settings: String = settings
        .iter()
        .map(|(name, value)| format!("{name}='{value}'\n"))
        .collect();
    format!(
        "{settings}\n{}",
        product::ROGUE.replace(product::KNOCK_HERE, product::KNOCK.trim_end())
    )
}

/// Checks that an attempt was refused as it should be; gives the ledger's word for it.
fn judge<'a>(
    stage: &Stage,
    attempt: &Attempt,
    seen: &Seen,
    denials: &mut impl Iterator<Item = &'a Entry>,
) -> Result<String, Refusal> {
    let what = format!("the rogue's attempt to {}", attempt.tried);
    let all = seen.lines.join("\n");
    for word in attempt.saw {
        stage.expect(
            all.contains(word),
            &what,
            &format!("an answer with: {word}"),
            || all.clone(),
        )?;
    }
    match attempt.ledger {
        Ledger::Denied(action, codes) => {
            let found = denials
                .by_ref()
                .find(|entry| {
                    text(&entry.body, "/action") == action
                        && codes.iter().any(|code| names(&entry.body, code))
                })
                .ok_or_else(|| {
                    stage.failure(
                        &what,
                        &format!("{action} denied in the ledger as {}", codes.join(" or ")),
                        &all,
                    )
                })?;
            Ok(said(found))
        }
        Ledger::Unreached => {
            stage.expect(seen.status != Some(0), &what, "a failure", || all.clone())?;
            Ok("nothing: inside the sandbox there is nothing of the kind".to_owned())
        }
        Ledger::Ignored => Ok(
            "nothing: the channel is the identity; what it claims to be is not looked at"
                .to_owned(),
        ),
    }
}

/// Whether a denial has this code, or rests on the rule of this name among others.
fn names(denial: &Value, code: &str) -> bool {
    let rules = denial.pointer("/decision/rules").and_then(Value::as_array);
    let rule = |rule: &Value| {
        rule.as_str()
            .is_some_and(|rule| rule.split(' ').next_back() == Some(code))
    };
    text(denial, "/code") == code || rules.is_some_and(|rules| rules.iter().any(rule))
}

/// An entry in its own words, without the policy's digest and who is behind it.
fn said(entry: &Entry) -> String {
    let short = entry
        .sentence
        .split(", under policy")
        .next()
        .unwrap_or_default();
    let short = short.split("; behind it").next().unwrap_or_default();
    format!("entry {}: {short}", entry.index)
}

/// A secret in the code: pushed, and blocked for ever.
fn blocked(stage: &Stage) -> Result<(), Refusal> {
    let change = small_run(stage, "secret", "Keep a backup", product::SECRET)?;
    let shown = stage.wait("the checks", || {
        let shown = stage.get(&format!("/v1/changes/{change}"))?;
        let answered = !text(&shown, "/checks/verdict").is_empty()
            && !text(&shown, "/tests/verdict").is_empty();
        Ok(answered.then_some(shown))
    })?;
    stage.expect(
        text(&shown, "/checks/verdict") == "block",
        "a secret in the code",
        "blocked",
        || shown.to_string(),
    )?;
    let told = never_lands(stage, &change, "base-blocked")?;
    stage.story.refused(
        ATTEMPTS.len() + 1,
        "leave a key in the code",
        &told,
        &checks_word(stage, &change, "checks.completed")?,
    )
}

/// A broken price with its test deleted: pushed, and never lands.
fn untested(stage: &Stage) -> Result<(), Refusal> {
    let change = small_run(stage, "untest", "Simplify", product::UNTEST)?;
    let shown = stage.wait("the tests", || {
        let shown = stage.get(&format!("/v1/changes/{change}"))?;
        Ok((!text(&shown, "/tests/verdict").is_empty()).then_some(shown))
    })?;
    stage.expect(
        text(&shown, "/tests/verdict") == "missing",
        "a deleted test",
        "missing",
        || shown.to_string(),
    )?;
    let told = never_lands(stage, &change, "base-tests")?;
    stage.story.refused(
        ATTEMPTS.len() + 2,
        "break a price and delete the tests that would tell",
        &told,
        &checks_word(stage, &change, "tests.completed")?,
    )
}

/// Runs one of the rogue's small scripts; gives the change it pushed.
fn small_run(stage: &Stage, name: &str, title: &str, script: &str) -> Result<String, Refusal> {
    let task = task_for(stage, ROGUE, name, title)?;
    let done = stage.run(&["run", "--task", &task, "--", "sh", "-c", script])?;
    let changes = stage.items("/v1/changes?open=true")?;
    changes
        .last()
        .map(|change| text(change, "/id"))
        .ok_or_else(|| stage.failure("the push", "an open change", &done.both()))
}

/// Wants a change to stay out, by this rule; gives the reason as the author reads it.
fn never_lands(stage: &Stage, change: &str, rule: &str) -> Result<Vec<String>, Refusal> {
    let explained = stage.wait("the decision", || {
        let shown = stage.get(&format!("/v1/changes/{change}"))?;
        stage.expect(
            text(&shown, "/status") == "open" && text(&shown, "/request").is_empty(),
            change,
            "no request and no landing",
            || shown.to_string(),
        )?;
        Ok(Some(text(&shown, "/explain")).filter(|explained| explained.contains(rule)))
    })?;
    Ok(explained
        .lines()
        .take(3)
        .map(|line| line.trim().to_owned())
        .collect())
}

fn checks_word(stage: &Stage, change: &str, kind: &str) -> Result<String, Refusal> {
    let entries = stage.entries(0)?;
    entries
        .iter()
        .rev()
        .find(|entry| entry.kind == kind && text(&entry.body, "/change") == change)
        .map(said)
        .ok_or_else(|| stage.failure(change, kind, "no such entry"))
}

/// A denied push leaves no object behind, neither upstream nor in the server's mirror.
fn nothing_left<'a>(
    stage: &Stage,
    attempts: impl Iterator<Item = &'a Seen>,
) -> Result<(), Refusal> {
    let mut repositories = vec![stage.path("shop.git")];
    let mirrors =
        std::fs::read_dir(stage.home().join("repositories")).map_err(super::stage::unwritable)?;
    for mirror in mirrors.flatten() {
        let path = mirror.path();
        // A mirror is a bare repository, or a folder with one in it.
        let inner = std::fs::read_dir(&path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        repositories.extend(
            inner
                .chain([path])
                .filter(|path| path.join("objects").is_dir()),
        );
    }
    let commits: Vec<String> = attempts.flat_map(|seen| seen.commits.clone()).collect();
    for commit in &commits {
        for repository in &repositories {
            let directory = format!("--git-dir={}", repository.display());
            let mut look = stage.command("git");
            look.args([&directory, "cat-file", "-e", commit]);
            let found = stage.processes.run(&mut look, false)?;
            stage.expect(
                found.code != 0,
                "a denied push",
                "no object left behind",
                || format!("{commit} in {}", repository.display()),
            )?;
        }
    }
    stage.expect(
        commits.len() >= 7 && repositories.len() >= 2,
        "the look for left objects",
        "something to look for",
        || {
            format!(
                "{} commits in {} repositories",
                commits.len(),
                repositories.len()
            )
        },
    )?;
    stage.story.good(&format!(
        "all {} denied commits were looked for in {} repositories: none left an object behind",
        commits.len(),
        repositories.len()
    ))
}

/// And if it got out? A command signed by a key of one's own is worth nothing either.
fn forged(stage: &Stage) -> Result<(), Refusal> {
    let story = &stage.story;
    story.say(
        "And if it had got out? From this machine, past the sandbox, a build result is handed in \
         with a signature by a key of its own, in the builder's name:",
    )?;
    let (key, _) = Signer::generate()?;
    let issued = now();
    let nothing = Digest::of(b"forged");
    let command = SignedCommand {
        version: SignedCommand::VERSION,
        origin: text(&stage.get("/v1/status")?, "/origin"),
        principal: Principal::Service("builder".parse()?),
        issued,
        expires: issued.plus_ms(60_000),
        nonce: crate::random::nonce()?,
        command: Command::FinishJob {
            job: JobId(1),
            succeeded: true,
            attestation: nothing,
            report: nothing,
            outputs: vec![Output {
                name: "shop".to_owned(),
                digest: nothing,
                size: 6,
            }],
        },
    };
    let envelope = dsse::sign(dsse::PAYLOAD_COMMAND, canonical::to_vec(&command)?, &key)?;
    let envelope = Envelope::from(envelope);
    let order = json!({ "envelope": envelope, "attachments": [] });
    match stage.post("/v1/commands", &order) {
        Err(refusal)
            if ["unknown-signer", "signature-invalid", "malformed-envelope"]
                .contains(&refusal.code.as_str()) =>
        {
            story.printed(&refusal.to_string())?;
            story.good(&format!("refused: {}", refusal.code))
        }
        other => Err(stage.failure(
            "a forged build result",
            "unknown-signer",
            &format!("{other:?}"),
        )),
    }
}
