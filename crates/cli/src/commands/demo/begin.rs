//! Chapter: a product, a person, a server.

use portcullis_model::Refusal;

use super::looks::text;
use super::stage::{PERSON, Stage, shown};
use super::{Play, product};

/// The honest agent.
pub(super) const HONEST: &str = "honest";
/// The other one.
pub(super) const ROGUE: &str = "rogue";

/// Everything up to a server that is ready.
///
/// # Errors
/// Something went otherwise.
pub(super) fn play(stage: &Stage) -> Result<Play, Refusal> {
    let story = &stage.story;
    story.chapter("A product, a person, a server")?;
    story.say(
        "Ada runs a small shop. Its price service is two files of C with tests, in a git \
         repository. Here it is, with one commit:",
    )?;
    product::make(stage)?;
    story.printed(&stage.git(&[
        "--git-dir=shop.git",
        "log",
        "--oneline",
        "--stat=72",
        "main",
    ])?)?;
    let fingerprint = stage.make_key()?;
    story.say(&format!(
        "She has an SSH key ({fingerprint}). There will be no password and no token in this story: \
         whatever a person orders or approves is signed with such a key."
    ))?;
    story.say(
        "The genesis is entry 0 of the ledger. It names her key, and everything that ever has \
         authority here goes back to it. She works alone and says so; every check of her own \
         approvals will repeat it.",
    )?;
    init(stage)?;
    let (server, ready) = stage.serve()?;
    story.typed("portcullis serve &")?;
    story.good(&format!(
        "the server answered after {} ms, on embedded SQLite alone",
        ready.as_millis()
    ))?;
    stage.start_role("builder")?;
    story.typed("portcullis builder &")?;
    story.say(
        "The builder is a process and a key of its own. It runs tests and builds; agents never do \
         it for themselves.",
    )?;
    inventory(stage)?;
    Ok(Play { server })
}

fn init(stage: &Stage) -> Result<(), Refusal> {
    let staging = format!("staging:staging@shop={}", stage.ports.staging);
    let production = format!("production@shop={}", stage.ports.production);
    let listen = format!("127.0.0.1:{}", stage.ports.server);
    let arguments = [
        "init",
        "--human",
        PERSON,
        "--solo",
        "--origin",
        "shop.example/ledger",
        "--trust-domain",
        "shop.example",
        "--repository",
        "shop=shop.git",
        "--repository",
        "payroll=payroll.git",
        "--agent",
        HONEST,
        "--ceiling",
        "production",
        "--environment",
        &staging,
        "--environment",
        &production,
        "--listen",
        &listen,
    ];
    stage.story.typed(&shown(&arguments))?;
    let done = stage.run(&arguments)?;
    // What to do next is the next chapters.
    let told = done.both();
    let told = told.split("\nnext").next().unwrap_or_default();
    let told: Vec<&str> = told
        .lines()
        .filter(|line| !line.starts_with("made"))
        .collect();
    stage.story.printed(&told.join("\n"))
}

/// A second agent, and environments whose rollouts take seconds instead of minutes. Each is a
/// signed record that comes into force by an approval.
fn inventory(stage: &Stage) -> Result<(), Refusal> {
    let story = &stage.story;
    story.say(
        "A second agent joins, and Ada shortens the steps of her rollouts from minutes to about a \
         second, so that you can watch. Both are records of the inventory, each a signed entry; in \
         a team it would take other administrators' signatures too.",
    )?;
    stage.write("rogue.toml", &agent(ROGUE))?;
    story.typed("portcullis agent add rogue.toml --why 'for the demo'")?;
    activate(stage, "agent", "rogue.toml")?;
    for (name, sensitivity, port) in [
        ("staging", "staging", stage.ports.staging),
        ("production", "production", stage.ports.production),
    ] {
        let file = format!("{name}.toml");
        stage.write(&file, &environment(name, sensitivity, port))?;
        activate(stage, "environment", &file)?;
    }
    let agents = stage.items("/v1/inventory/agents")?;
    let known: Vec<String> = agents
        .iter()
        .map(|agent| text(agent, "/record/id"))
        .collect();
    stage.expect(
        known == [HONEST, ROGUE],
        "the agents in the inventory",
        "honest and rogue",
        || known.join(", "),
    )?;
    story.good("agents: honest and rogue; both answer to ada, both may touch the shop's code only as a task says")
}

fn activate(stage: &Stage, kind: &str, file: &str) -> Result<(), Refusal> {
    let asked = stage.run(&[
        "--output",
        "json",
        kind,
        "add",
        file,
        "--why",
        "for the demo",
    ])?;
    let answer: serde_json::Value = serde_json::from_str(&asked.out)
        .map_err(|error| stage.failure("a proposal", "an answer in JSON", &error.to_string()))?;
    let request = text(&answer, "/request");
    stage.wait(&format!("{request} in force"), || {
        let shown = stage.get(&format!("/v1/requests/{request}"))?;
        Ok((text(&shown, "/status") == "used").then_some(()))
    })
}

fn agent(name: &str) -> String {
    format!(
        "id = \"{name}\"\nowner = \"{PERSON}\"\npurpose = \"tries what it was not given\"\n\
         model = \"none\"\nruntime = \"a shell script\"\nrepositories = [\"shop\"]\n\
         phases = [\"write\"]\nenvironment_ceiling = \"staging\"\n\
         review_by = \"2099-01-01T00:00:00Z\"\nexpires = \"2099-01-01T00:00:00Z\"\n"
    )
}

fn environment(name: &str, sensitivity: &str, port: u16) -> String {
    format!(
        "id = \"{name}\"\nrepository = \"shop\"\nsensitivity = \"{sensitivity}\"\nport = {port}\n\n\
         [canary]\nsteps = [200, 500]        # per mille of the traffic\n\
         alpha_ppm = 10000         # at most 1 % false rollbacks, however often one looks\n\
         margin_per_mille = 100    # what still counts as \"not worse\"\n\
         max_errors = 60           # served by the canary at most, whatever the statistics say\n\
         min_requests = 30\nmin_step_ms = 500\nmax_step_ms = 60000\n"
    )
}
