//! The commands, each in a file of its own.
//!
//! A command that the server performs takes the same steps: read what the person gave, ask the
//! server for what is missing, sign, send, say what came of it.

pub(crate) mod approve;
pub(crate) mod artifact;
pub(crate) mod backup;
pub(crate) mod breaker;
pub(crate) mod builder;
pub(crate) mod change;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod environment;
pub(crate) mod init;
pub(crate) mod inventory;
pub(crate) mod launch;
pub(crate) mod ledger;
pub(crate) mod ledger_count;
pub(crate) mod ledger_files;
pub(crate) mod ledger_kept;
pub(crate) mod ledger_remote;
pub(crate) mod ledger_verify;
pub(crate) mod lists;
pub(crate) mod policy;
pub(crate) mod proxy;
pub(crate) mod queue;
pub(crate) mod release;
pub(crate) mod request;
pub(crate) mod restore;
pub(crate) mod rollout;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod scan;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod target;
pub(crate) mod task;
pub(crate) mod task_new;
pub(crate) mod verify;
pub(crate) mod witness;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use portcullis_model::Refusal;

use crate::context::{Context, Global};
use crate::exit::Exit;
use crate::output;

/// Lets autonomous coding agents ship software, and lets anyone prove afterwards that nothing
/// shipped without the authority to do so.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    after_help = "Exit codes: 0 done · 1 failed · 2 wrong usage · 3 denied, or findings · \
                        4 waits for an approval"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole way on this machine, offline, with a real git repository
    Demo(demo::Demo),
    /// Make a server's directory: keys, genesis, policies, examples; never overwrites
    Init(Box<init::Init>),
    /// Run the server
    Serve(serve::Serve),
    /// Copy the server's directory while the server does not run
    Backup(backup::Backup),
    /// Put a backup in the place of the server's ledger, with a signed entry that names what is lost
    Restore(restore::Restore),
    /// Say how the server is: what is halted, what waits to be recorded, what its disk has left
    Status(status::Status),
    /// Say what this machine offers, and what is missing
    Doctor(doctor::Doctor),
    /// People and their keys
    #[command(subcommand)]
    Human(inventory::HumanCommand),
    /// Agents: who answers for them, what they may touch
    #[command(subcommand)]
    Agent(inventory::AgentCommand),
    /// Named groups of people
    #[command(subcommand)]
    Group(inventory::GroupCommand),
    /// Services: builders and the server itself
    #[command(subcommand)]
    Service(inventory::ServiceCommand),
    /// Machines that launch runs
    #[command(subcommand)]
    Host(inventory::HostCommand),
    /// Where releases run
    #[command(subcommand)]
    Environment(environment::EnvironmentCommand),
    /// Governed repositories
    #[command(subcommand)]
    Repository(inventory::RepositoryCommand),
    /// Model endpoints that runs may be lent
    #[command(subcommand)]
    Endpoint(inventory::EndpointCommand),
    /// Orders to agents, signed by people
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Start a command as an agent, under a signed task
    Run(Box<run::Run>),
    /// Take jobs from the server and do them, each in a sandbox of its own
    Builder(builder::Builder),
    /// Executions under a task
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// Proposed commits
    #[command(subcommand)]
    Change(change::ChangeCommand),
    /// What is about to land on each branch
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// What waits for people
    #[command(subcommand)]
    Request(request::RequestCommand),
    /// Approve a request: a change, a release, a record, a breaker's reset
    Approve(approve::Approve),
    /// Say no to a request
    Reject(request::Reject),
    /// What builds made
    #[command(subcommand)]
    Artifact(artifact::ArtifactCommand),
    /// Artifacts admitted to environments
    #[command(subcommand)]
    Release(release::ReleaseCommand),
    /// How traffic moves to releases
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// Return an environment to an admitted release; needs no approval
    Rollback(release::Rollback),
    /// Halt what agents do, and let it go on
    #[command(subcommand)]
    Breaker(breaker::BreakerCommand),
    /// Cosign checkpoints of other logs; needs no server
    #[command(subcommand)]
    Witness(witness::WitnessCommand),
    /// The log of everything
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// The organisation's policies
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Check a diff against a task's scope and the rules; needs no server
    Check(check::Check),
    /// Run a command in a sandbox; the builder starts it
    #[command(hide = true)]
    Launch(launch::Launch),
    /// Run one release under supervision; the server starts it
    #[command(hide = true)]
    Target(target::Target),
    /// Serve two releases behind one address; the server starts it
    #[command(hide = true)]
    Proxy(proxy::Proxy),
    /// Verify the whole chain of an artifact or a commit; offline, needs no server
    Verify(verify::Verify),
    /// Find the ways an agent reaches production here; needs no server
    ///
    /// Its options stand after `scan`; those of the other commands are not for it.
    Scan,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Reads the command line; what can't be read ends the program with code 2.
///
/// `scan` is the scanner's own command line: it knows more forms of output than the global option
/// has, so the two are never parsed together.
pub(crate) fn parse() -> Result<Parsed, Refusal> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == "scan") {
        return Ok(Parsed::Scan(scan::parse(arguments)));
    }
    let matches = whole().get_matches_from(arguments);
    if matches.subcommand_name() == Some("scan") {
        return Err(scan::misplaced());
    }
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => Ok(Parsed::Cli(Box::new(cli))),
        Err(error) => error.exit(),
    }
}

/// A command line.
pub(crate) enum Parsed {
    /// The scanner's.
    Scan(portcullis_scan::command::ScanArgs),
    /// Any other.
    Cli(Box<Cli>),
}

/// The whole command line, for help and completions.
pub(crate) fn whole() -> clap::Command {
    Cli::command().mut_subcommand("scan", scan::augment)
}

/// Runs a command to its end.
///
/// # Errors
/// What the command refuses, or was refused.
pub(crate) fn run(cli: Cli) -> Result<Exit, Refusal> {
    let context = Context { global: cli.global };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Refusal::internal(format!("no async runtime: {error}")))?;
    runtime.block_on(dispatch(&context, cli.command))
}

async fn dispatch(context: &Context, command: Command) -> Result<Exit, Refusal> {
    match command {
        Command::Demo(command) => command.run(context).await,
        Command::Init(command) => command.run(context),
        Command::Serve(command) => command.run(context).await,
        Command::Backup(command) => command.run(context).await,
        Command::Restore(command) => command.run(context).await,
        Command::Status(command) => command.run(context).await,
        Command::Doctor(command) => command.run(context).await,
        Command::Human(command) => command.run(context).await,
        Command::Agent(command) => command.run(context).await,
        Command::Group(command) => command.run(context).await,
        Command::Service(command) => command.run(context).await,
        Command::Host(command) => command.run(context).await,
        Command::Environment(command) => command.run(context).await,
        Command::Repository(command) => command.run(context).await,
        Command::Endpoint(command) => command.run(context).await,
        Command::Task(command) => command.run(context).await,
        Command::Run(command) => command.run(context).await,
        Command::Builder(command) => command.run(context).await,
        Command::Launch(command) => command.run(),
        Command::Runs(command) => command.run(context).await,
        Command::Change(command) => command.run(context).await,
        Command::Queue(command) => command.run(context).await,
        Command::Request(command) => command.run(context).await,
        Command::Approve(command) => command.run(context).await,
        Command::Reject(command) => command.run(context).await,
        Command::Artifact(command) => command.run(context).await,
        Command::Release(command) => command.run(context).await,
        Command::Rollout(command) => command.run(context).await,
        Command::Rollback(command) => command.run(context).await,
        Command::Breaker(command) => command.run(context).await,
        Command::Witness(command) => command.run(context).await,
        Command::Ledger(command) => command.run(context).await,
        Command::Policy(command) => command.run(context).await,
        Command::Check(command) => command.run(context),
        Command::Verify(command) => command.run(context),
        Command::Target(command) => command.run().await,
        Command::Proxy(command) => command.run().await,
        // `parse` took it before.
        Command::Scan => Err(scan::misplaced()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut whole(), "portcullis", &mut script);
            output::bytes(&script)?;
            Ok(Exit::Done)
        }
    }
}
