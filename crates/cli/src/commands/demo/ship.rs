//! Chapters: from a signed task to an artifact.

use portcullis_model::Refusal;
use serde_json::Value;

use super::begin::HONEST;
use super::looks::text;
use super::product;
use super::stage::{PERSON, Stage, shown};

/// An order to an agent, and what it does.
pub(super) struct Order {
    /// The title that Ada signs.
    pub(super) title: &'static str,
    /// Name of files that belong to it.
    pub(super) name: &'static str,
    /// The agent's script.
    pub(super) script: &'static str,
}

/// The first order.
pub(super) const COFFEE: Order = Order {
    title: "Sell coffee for 3.50",
    name: "coffee",
    script: product::COFFEE,
};
/// The second.
pub(super) const MEMBERS: Order = Order {
    title: "Give members a tenth off",
    name: "members",
    script: product::MEMBERS,
};
/// The third, done badly.
pub(super) const CURRENCY: Order = Order {
    title: "Show prices in other currencies",
    name: "currency",
    script: product::CURRENCY,
};

/// What came of an order.
pub(super) struct Shipped {
    /// The change, such as `change-20`.
    pub(super) change: String,
    /// The commit that landed.
    pub(super) commit: String,
    /// What was built from it.
    pub(super) artifact: String,
}

/// The whole first stage, told in full.
///
/// # Errors
/// Something went otherwise.
pub(super) fn first(stage: &Stage) -> Result<Shipped, Refusal> {
    let story = &stage.story;
    story.chapter("An order, signed")?;
    story.say(
        "An agent works under a task: which repository, from which commit, which paths, how long. \
         Ada's key signs it; one byte changed and it is worth nothing.",
    )?;
    sign(stage, &COFFEE, true)?;

    story.chapter("An agent at work, in a sandbox")?;
    story.say(
        "The command after `--` runs in namespaces of its own: a clone of the base commit, no \
         files of this machine, no network but one channel to the gateway. The channel is its \
         identity; there is nothing in there to steal. The agent edits, tests and pushes with \
         stock git.",
    )?;
    let printed = run(stage, &COFFEE, true)?;
    let mail = printed
        .lines()
        .any(|line| line.contains("@agents.shop.example"));
    stage.expect(
        mail,
        "the agent's commit",
        "a commit in the run's own name",
        || printed.clone(),
    )?;
    let change = pushed(stage, &COFFEE)?;

    story.chapter("Checks and tests that the author did not choose")?;
    let request = asked(stage, &change)?;
    let shown = stage.get(&format!("/v1/changes/{change}"))?;
    stage.expect(
        text(&shown, "/tests/verdict") == "passed",
        "the tests",
        "passed",
        || shown.to_string(),
    )?;
    story.good(&format!(
        "checks: {}; tests: {} passed, {} failed, none of the base's missing",
        text(&shown, "/checks/verdict"),
        text(&shown, "/tests/counts/passed"),
        text(&shown, "/tests/counts/failed"),
    ))?;
    story.say(
        "The builder ran the tests that the protected branch configures, on the base and on the \
         revision, and signed what it saw. What the agent says about its tests counts for nothing. \
         Then policy was asked whether this may land. Its answer: not without a person.",
    )?;

    story.chapter("A person reads and signs")?;
    stage.typed(&["request", "show", &request])?;
    story.say(
        "The signature covers exactly this: the resulting tree, the task, the results, the policy, \
         and the digest of the very text above.",
    )?;
    approve(stage, &request, true)?;
    let commit = landed(stage, &change)?;
    story.good(&format!(
        "main in shop.git stands at {}, the commit that was approved, tree and all",
        short(&commit)
    ))?;

    story.chapter("Built from what landed, by the builder")?;
    let artifact = built(stage, &commit)?;
    let made = stage.get(&format!("/v1/artifacts/{artifact}"))?;
    story.good(&format!(
        "{artifact}: {} bytes, {}, with provenance that names the change, its task, its tests and \
         its approval",
        text(&made, "/size"),
        text(&made, "/digest")
    ))?;
    Ok(Shipped {
        change,
        commit,
        artifact,
    })
}

/// The same way once more, in a few lines.
///
/// # Errors
/// Something went otherwise.
pub(super) fn again(stage: &Stage, order: &Order) -> Result<Shipped, Refusal> {
    sign(stage, order, true)?;
    run(stage, order, true)?;
    let change = pushed(stage, order)?;
    let request = asked(stage, &change)?;
    let shown = stage.get(&format!("/v1/changes/{change}"))?;
    stage.expect(
        text(&shown, "/tests/verdict") == "passed",
        "the tests",
        "passed",
        || shown.to_string(),
    )?;
    stage.story.good(&format!(
        "{change}: its tests pass, all {} of them",
        text(&shown, "/tests/counts/passed")
    ))?;
    approve(stage, &request, true)?;
    let commit = landed(stage, &change)?;
    let artifact = built(stage, &commit)?;
    stage.story.good(&format!(
        "landed as {} and built: {artifact}",
        short(&commit)
    ))?;
    Ok(Shipped {
        change,
        commit,
        artifact,
    })
}

fn sign(stage: &Stage, order: &Order, tell: bool) -> Result<(), Refusal> {
    let file = format!("tasks/{}.json", order.name);
    let arguments = [
        "task",
        "new",
        order.title,
        "--agent",
        HONEST,
        "--repository",
        "shop",
        "--paths",
        "src/**",
        "tests/**",
        "--file",
        &file,
        "--sign",
    ];
    let arguments = stage.allowing_gaps(&arguments);
    if tell {
        stage.typed(&arguments)
    } else {
        stage.run(&arguments)
    }
    .map(|_| ())
}

/// Runs an agent's script under a task file; gives what it printed.
fn run(stage: &Stage, order: &Order, tell: bool) -> Result<String, Refusal> {
    let file = format!("tasks/{}.json", order.name);
    let script = format!("agents/{}.sh", order.name);
    stage.write(&script, order.script)?;
    if tell {
        let quoted = format!("\"$(cat {script})\"");
        stage
            .story
            .typed(&shown(&["run", "--task", &file, "--", "sh", "-c", &quoted]))?;
    }
    let done = stage.run(&["run", "--task", &file, "--", "sh", "-c", order.script])?;
    if tell {
        stage.story.printed(&done.both())?;
    }
    Ok(done.both())
}

/// The change that the newest run pushed.
pub(super) fn pushed(stage: &Stage, order: &Order) -> Result<String, Refusal> {
    let changes = stage.items("/v1/changes")?;
    let newest = changes
        .last()
        .map(|change| text(change, "/id"))
        .unwrap_or_default();
    let open = changes
        .last()
        .is_some_and(|change| text(change, "/status") == "open");
    stage.expect(
        open,
        &format!("the push for '{}'", order.title),
        "an open change",
        || format!("{newest} of {} changes", changes.len()),
    )?;
    Ok(newest)
}

/// The request that policy opens for a change, once checks and tests have answered.
fn asked(stage: &Stage, change: &str) -> Result<String, Refusal> {
    stage.wait("checks and tests", || {
        let shown = stage.get(&format!("/v1/changes/{change}"))?;
        Ok(Some(text(&shown, "/request")).filter(|request| !request.is_empty()))
    })
}

/// Approves a request.
pub(super) fn approve(stage: &Stage, request: &str, tell: bool) -> Result<(), Refusal> {
    let arguments = ["approve", request, "--yes"];
    if tell {
        stage.story.typed(&shown(&arguments))?;
    }
    let done = stage.run(&arguments)?;
    if tell {
        let last = done
            .out
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        stage.story.printed(last)?;
    }
    Ok(())
}

/// Waits until a change landed, and looks into the repository itself.
fn landed(stage: &Stage, change: &str) -> Result<String, Refusal> {
    let shown: Value = stage.wait(&format!("{change} to land"), || {
        let shown = stage.get(&format!("/v1/changes/{change}"))?;
        Ok((text(&shown, "/status") == "landed").then_some(shown))
    })?;
    let tip = stage.git(&["--git-dir=shop.git", "rev-parse", "refs/heads/main"])?;
    let tree = stage.git(&["--git-dir=shop.git", "rev-parse", "refs/heads/main^{tree}"])?;
    stage.expect(
        tip == text(&shown, "/head") && tree == text(&shown, "/tree"),
        "what landed",
        "the approved head and tree",
        || format!("{tip} with tree {tree}, approved was {shown}"),
    )?;
    Ok(tip)
}

/// Waits for the artifact that is built from a commit.
fn built(stage: &Stage, commit: &str) -> Result<String, Refusal> {
    stage.wait("the build", || {
        let artifacts = stage.items("/v1/artifacts")?;
        Ok(artifacts
            .iter()
            .find(|made| text(made, "/commit") == commit)
            .map(|made| text(made, "/id")))
    })
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// Makes and signs a task for an agent of the story.
///
/// # Errors
/// It is refused.
pub(super) fn task_for(
    stage: &Stage,
    agent: &str,
    name: &str,
    title: &str,
) -> Result<String, Refusal> {
    let file = format!("tasks/{name}.json");
    stage.run(&stage.allowing_gaps(&[
        "task",
        "new",
        title,
        "--agent",
        agent,
        "--repository",
        "shop",
        "--paths",
        "src/**",
        "tests/**",
        "--file",
        &file,
        "--sign",
        "--as",
        PERSON,
    ]))?;
    Ok(file)
}
