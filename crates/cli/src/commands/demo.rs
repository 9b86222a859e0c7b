//! `demo`: the whole way on this machine, offline, told as a story.
//!
//! Everything is real: the product, its git repository, the server and the builder as processes,
//! agents in sandboxes, customers over HTTP. [`story`] tells, [`stage`] does, one file a chapter.
//! What the demo says is asserted; if anything goes otherwise it stops and says what was expected.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use portcullis_model::Refusal;
use portcullis_sandbox::Protection;
use tokio::signal::unix::{SignalKind, signal};

use crate::context::Context;
use crate::exit::Exit;
use processes::{Background, Processes};
use stage::Stage;
use story::Story;

mod attempts;
mod audit;
mod begin;
mod breaker;
mod looks;
mod processes;
mod product;
mod release;
mod rogue;
mod ship;
mod stage;
mod story;
mod tamper;
mod traffic;

/// Longest path of the demo's directory in bytes: unix sockets stand 45 below it, and 107 is the
/// most that the kernel takes.
const DIRECTORY_MAX_BYTES: usize = 60;

/// Shows the whole way on this machine, offline, in a temporary directory.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Leave server and files to explore
    #[arg(long)]
    keep: bool,
    /// Without pauses for the reader
    #[arg(long)]
    fast: bool,
}

/// What changes while the story is told.
pub(super) struct Play {
    server: Background,
}

impl Demo {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let story = Story::new(context.out(), self.fast);
        let gaps = tokio::task::spawn_blocking(able).await.map_err(cut_off)??;
        if !gaps.is_empty() {
            story.say(&format!(
                "This machine has all that agents need to be isolated but {}, which `portcullis \
                 doctor` explains. The tasks below allow that very gap, and the ledger says so.",
                gaps.join(", ")
            ))?;
        }
        let directory = make_directory()?;
        let processes = Arc::new(Processes::new(&directory));
        let runtime = tokio::runtime::Handle::current();
        let stage = Stage::new(story, Arc::clone(&processes), &directory, runtime, gaps)?;
        let keep = self.keep;
        let playing = tokio::task::spawn_blocking(move || {
            let played = play(&stage);
            match played {
                Ok(()) if keep => tell_kept(&stage),
                other => other,
            }
        });
        let played = until_interrupted(playing, &processes).await;
        if keep && played.is_ok() {
            return Ok(Exit::Done);
        }
        let ending = Arc::clone(&processes);
        tokio::task::spawn_blocking(move || ending.end_all())
            .await
            .map_err(cut_off)?;
        if keep {
            // What went otherwise is better looked at than removed.
            crate::output::note(&format!("files are left in {}", directory.display()));
        } else {
            remove(&directory);
        }
        played.map(|()| Exit::Done)
    }
}

/// Waits for the end of the story; on Ctrl-C or SIGTERM it ends early, in order.
async fn until_interrupted(
    playing: tokio::task::JoinHandle<Result<(), Refusal>>,
    processes: &Processes,
) -> Result<(), Refusal> {
    let mut playing = playing;
    let refused =
        |error: std::io::Error| Refusal::internal(format!("signals can't be waited for: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    tokio::select! {
        played = &mut playing => return played.map_err(cut_off)?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    processes.interrupt();
    playing.await.map_err(cut_off)?
}

fn cut_off(error: tokio::task::JoinError) -> Refusal {
    Refusal::internal(format!("the demo was cut off: {error}"))
}

/// The story, chapter by chapter.
fn play(stage: &Stage) -> Result<(), Refusal> {
    let mut play = begin::play(stage)?;
    let first = ship::first(stage)?;
    let traffic = release::first(stage, &first)?;
    let second = release::good(stage, &traffic)?;
    release::bad(stage, &traffic)?;
    rogue::play(stage, &first, play.server.id)?;
    breaker::play(stage, &traffic, &mut play)?;
    breaker::rollback(stage, &traffic)?;
    audit::play(stage, &second, &mut play)?;
    let served = traffic.served();
    drop(traffic);
    let story = &stage.story;
    story.chapter("That was the whole way")?;
    story.say(&format!(
        "From a signed order to a rollback, with {} ledger entries and {} customers' requests, in \
         {:.1} seconds. Everything that was said above was checked; had anything gone otherwise, \
         this would have stopped there.",
        stage.size()?,
        served.all(),
        story.elapsed().as_secs_f64()
    ))
}

/// How to go on with what is left, and how to stop it.
fn tell_kept(stage: &Stage) -> Result<(), Refusal> {
    let story = &stage.story;
    let directory = stage.directory.display();
    story.chapter("Yours to explore")?;
    story.typed(&format!("cd {directory}"))?;
    story.typed(&format!(
        "export PORTCULLIS_SERVER={} PORTCULLIS_KEY=$PWD/person/id_ed25519",
        stage.url()
    ))?;
    story.typed("portcullis ledger tail")?;
    story
        .typed("portcullis change list; portcullis rollout list; portcullis request list --all")?;
    story.typed(&format!(
        "git --git-dir=shop.git log; curl http://127.0.0.1:{}/price?item=tea",
        stage.ports.production
    ))?;
    story.say("And when you have seen enough (server, builder, proxies and releases all name this directory):")?;
    story.typed(&format!("pkill -f {directory}; rm -rf {directory}"))
}

/// Whether this machine has what the demo needs; the names of what its tasks allow to be missing.
fn able() -> Result<Vec<&'static str>, Refusal> {
    for (program, why) in [
        ("git", "the repository"),
        ("cc", "building the product"),
        ("sh", "the agents"),
    ] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        if !found.is_ok_and(|found| found.status.success()) {
            return Err(Refusal::unavailable(
                "demo-needs",
                format!("there is no `{program}` here"),
            )
            .expected(&format!("git, cc and sh in PATH; {program} is for {why}"))
            .next("install git and a C compiler, such as with `apt install git gcc libc6-dev`"));
        }
    }
    let (gaps, missing): (Vec<_>, Vec<_>) = portcullis_sandbox::probe()?
        .into_iter()
        .filter(|probed| !probed.available)
        .filter(|probed| asked_for(probed.protection))
        // Nothing more gets out without it, and what is shown here is seen all the same.
        .partition(|probed| probed.protection == Protection::EveryPort);
    let missing: Vec<String> = missing
        .into_iter()
        .map(|probed| {
            let mend = probed
                .how_to_mend
                .map(|mend| format!(" ({mend})"))
                .unwrap_or_default();
            format!("{}: {}{mend}", probed.protection, probed.why)
        })
        .collect();
    if missing.is_empty() {
        return Ok(gaps.iter().map(|gap| gap.protection.name()).collect());
    }
    let mut refusal =
        Refusal::unavailable("sandbox-unavailable", "this machine can't isolate agents")
            .expected("the protections that `portcullis doctor` lists")
            .next("mend what is missing, or try the demo in a virtual machine");
    refusal.received = Some(missing.join("\n    "));
    Err(refusal)
}

/// A limit on processor time is asked for by nobody here.
fn asked_for(protection: Protection) -> bool {
    protection != Protection::CpuLimit
        && (protection != Protection::OwnUser || rustix::process::geteuid().is_root())
}

/// A directory with a random name, for this user alone, on a path short enough for sockets.
fn make_directory() -> Result<PathBuf, Refusal> {
    use std::os::unix::fs::DirBuilderExt as _;
    let name = format!(
        "portcullis-demo-{}",
        crate::random::nonce()?.get(..8).unwrap_or_default()
    );
    let usual = std::env::temp_dir();
    let fits = usual.is_absolute() && usual.join(&name).as_os_str().len() <= DIRECTORY_MAX_BYTES;
    let directory = if fits { usual } else { PathBuf::from("/tmp") }.join(name);
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(stage::unwritable)?;
    directory.canonicalize().map_err(stage::unwritable)
}

fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        crate::output::note(&format!(
            "{} can't be removed: {error}",
            directory.display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_ours_alone_and_short() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = make_directory().unwrap();
        let mode = std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700);
        assert!(directory.as_os_str().len() <= DIRECTORY_MAX_BYTES);
        remove(&directory);
        assert!(!directory.exists());
    }
}
