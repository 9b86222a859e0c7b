//! The inventory: records that a quorum activates, and taking them out of service.

use std::path::PathBuf;

use clap::Subcommand;
use portcullis_model::document::from_toml;
use portcullis_model::manifest::Activation;
use portcullis_model::statement::{Command, Profile};
use portcullis_model::{AgentId, Digest, HostId, HumanId, Refusal, ServiceId};

use crate::commands::lists;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Column, column};
use crate::reason::{Reason, Why};
use crate::task_file::read_text;

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A person.
    Human,
    /// A group.
    Group,
    /// An agent.
    Agent,
    /// A service.
    Service,
    /// A host.
    Host,
    /// An environment.
    Environment,
    /// A repository.
    Repository,
    /// A model endpoint.
    Endpoint,
}

/// What every kind of record can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Records {
    /// Propose a record; in force once enough administrators approved
    Add(Add),
    /// List the records
    List,
    /// Show one record
    Show {
        /// Its name
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// Proposes a record.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// The record, as TOML
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    /// Why
    #[arg(long, value_name = "TEXT")]
    why: Option<Reason>,
}

/// People.
#[derive(Debug, Subcommand)]
pub(crate) enum HumanCommand {
    /// Propose, list, show.
    #[command(flatten)]
    Records(Records),
    /// End a person's rights and keys, at once
    Retire {
        /// Whose
        id: HumanId,
        #[command(flatten)]
        why: Why,
    },
    /// Say who a person is; kept beside the ledger, where it can be erased
    Name {
        /// Whose
        id: HumanId,
        /// The name to show
        #[arg(long, value_name = "TEXT")]
        name: String,
        /// The mail address
        #[arg(long, value_name = "ADDRESS")]
        mail: Option<String>,
    },
    /// Erase a person's name and mail address, and end their rights and keys, at once
    Forget {
        /// Whose
        id: HumanId,
        #[command(flatten)]
        why: Why,
    },
}

/// Agents.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Propose, list, show.
    #[command(flatten)]
    Records(Records),
    /// Take an agent out of service, at once, running ones included
    Suspend {
        /// Which
        id: AgentId,
        #[command(flatten)]
        why: Why,
    },
    /// End an agent's record for good
    Retire {
        /// Which
        id: AgentId,
        #[command(flatten)]
        why: Why,
    },
}

/// Services.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Propose, list, show.
    #[command(flatten)]
    Records(Records),
    /// End a service's rights, at once
    Retire {
        /// Which
        id: ServiceId,
        #[command(flatten)]
        why: Why,
    },
}

/// Hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Propose, list, show.
    #[command(flatten)]
    Records(Records),
    /// End a host's rights and the runs on it, at once
    Retire {
        /// Which
        id: HostId,
        #[command(flatten)]
        why: Why,
    },
}

/// Groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Propose, list, show.
    #[command(flatten)]
    Records(Records),
}

/// Repositories.
#[derive(Debug, Subcommand)]
pub(crate) enum RepositoryCommand {
    /// Propose, list, show.
    #[command(flatten)]
    Records(Records),
}

/// Model endpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// Propose, list, show.
    #[command(flatten)]
    Records(Records),
}

impl HumanCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::Records(records) => records.run(context, Kind::Human).await,
            Self::Retire { id, why } => {
                let said = format!("human {id} is retired");
                end(context, &why, &said, |why| Command::RetireHuman {
                    human: id,
                    why,
                })
                .await
            }
            Self::Name { id, name, mail } => {
                let profile = Profile {
                    name,
                    mail,
                    salt: crate::random::nonce()?,
                };
                let text = serde_json::to_string(&profile).map_err(|error| {
                    Refusal::internal(format!("a profile does not serialise: {error}"))
                })?;
                let command = Command::NameHuman {
                    human: id.clone(),
                    profile: Digest::of(text.as_bytes()),
                };
                let client = context.client()?;
                let answer = context.command(&client, command, vec![text]).await?;
                lists::done(context, &answer, &format!("human {id} has a name here"))
            }
            Self::Forget { id, why } => {
                let said = format!("human {id} is forgotten: name and mail address are erased");
                end(context, &why, &said, |why| Command::ForgetHuman {
                    human: id,
                    why,
                })
                .await
            }
        }
    }
}

impl AgentCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::Records(records) => records.run(context, Kind::Agent).await,
            Self::Suspend { id, why } => {
                let said = format!("agent {id} is suspended; its runs end");
                end(context, &why, &said, |why| Command::SuspendAgent {
                    agent: id,
                    why,
                })
                .await
            }
            Self::Retire { id, why } => {
                let said = format!("agent {id} is retired; its runs end");
                end(context, &why, &said, |why| Command::RetireAgent {
                    agent: id,
                    why,
                })
                .await
            }
        }
    }
}

impl ServiceCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::Records(records) => records.run(context, Kind::Service).await,
            Self::Retire { id, why } => {
                let said = format!("service {id} is retired");
                end(context, &why, &said, |why| Command::RetireService {
                    service: id,
                    why,
                })
                .await
            }
        }
    }
}

impl HostCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        match self {
            Self::Records(records) => records.run(context, Kind::Host).await,
            Self::Retire { id, why } => {
                let said = format!("host {id} is retired; the runs on it end");
                end(context, &why, &said, |why| Command::RetireHost {
                    host: id,
                    why,
                })
                .await
            }
        }
    }
}

impl GroupCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let Self::Records(records) = self;
        records.run(context, Kind::Group).await
    }
}

impl RepositoryCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let Self::Records(records) = self;
        records.run(context, Kind::Repository).await
    }
}

impl EndpointCommand {
    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Refusal> {
        let Self::Records(records) = self;
        records.run(context, Kind::Endpoint).await
    }
}

impl Records {
    /// Runs it for records of `kind`.
    pub(crate) async fn run(self, context: &Context, kind: Kind) -> Result<Exit, Refusal> {
        let path = format!("/v1/inventory/{}", kind.plural());
        match self {
            Self::Add(add) => add.run(context, kind).await,
            Self::List => {
                let nothing = format!("no {}", kind.plural());
                lists::list(context, &path, &kind.columns(), &nothing).await
            }
            Self::Show { id } => {
                let item = lists::find(&context.client()?, &path, kind.name(), &id).await?;
                context.out().print(&item, || crate::output::lines(&item))?;
                Ok(Exit::Done)
            }
        }
    }
}

impl Add {
    /// Proposes the record.
    ///
    /// # Errors
    /// The file is no record of this kind, or the server refuses.
    pub(crate) async fn run(self, context: &Context, kind: Kind) -> Result<Exit, Refusal> {
        let text = read_text(&self.file, &format!("{} record", kind.name()))?;
        let activation = kind.parse(&text)?;
        activation.validate()?;
        let subject = activation.subject();
        let why = match self.why {
            Some(why) => why,
            None => format!("add {subject}").parse()?,
        };
        propose(context, activation, &why, Vec::new(), &subject).await
    }
}

/// Signs and sends a proposal, and says whether it is in force.
///
/// # Errors
/// As [`Context::command`].
pub(crate) async fn propose(
    context: &Context,
    activation: Activation,
    why: &Reason,
    mut attachments: Vec<String>,
    subject: &str,
) -> Result<Exit, Refusal> {
    attachments.insert(0, why.text().to_owned());
    let command = Command::Propose {
        activation,
        why: why.digest(),
    };
    let answer = context
        .command(&context.client()?, command, attachments)
        .await?;
    lists::asked(
        context,
        &answer,
        &format!("{subject} is in force"),
        &format!("{subject} waits for administrators"),
    )
}

async fn end(
    context: &Context,
    why: &Why,
    said: &str,
    command: impl FnOnce(Digest) -> Command,
) -> Result<Exit, Refusal> {
    let answer = context
        .command_because(&context.client()?, &why.why, command)
        .await?;
    lists::done(context, &answer, said)
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Group => "group",
            Self::Agent => "agent",
            Self::Service => "service",
            Self::Host => "host",
            Self::Environment => "environment",
            Self::Repository => "repository",
            Self::Endpoint => "endpoint",
        }
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Human => "humans",
            Self::Group => "groups",
            Self::Agent => "agents",
            Self::Service => "services",
            Self::Host => "hosts",
            Self::Environment => "environments",
            Self::Repository => "repositories",
            Self::Endpoint => "endpoints",
        }
    }

    fn parse(self, text: &str) -> Result<Activation, Refusal> {
        let what = format!("{} record", self.name());
        Ok(match self {
            Self::Human => Activation::Human(from_toml(&what, text)?),
            Self::Group => Activation::Group(from_toml(&what, text)?),
            Self::Agent => Activation::Agent(from_toml(&what, text)?),
            Self::Service => Activation::Service(from_toml(&what, text)?),
            Self::Host => Activation::Host(from_toml(&what, text)?),
            Self::Environment => Activation::Environment(from_toml(&what, text)?),
            Self::Repository => Activation::Repository(from_toml(&what, text)?),
            Self::Endpoint => Activation::Endpoint(from_toml(&what, text)?),
        })
    }

    fn columns(self) -> Vec<Column> {
        match self {
            Self::Human => vec![
                column("ID", &["/record/id"]),
                column("STANDING", &["/standing"]),
                column("ADMINISTRATOR", &["/record/administrator"]),
                column("FIRST KEY", &["/record/keys/0"]),
            ],
            Self::Group => vec![
                column("ID", &["/record/id"]),
                column("STANDING", &["/standing"]),
                column("MEMBERS", &["/record/members"]),
            ],
            Self::Agent => vec![
                column("ID", &["/record/id"]),
                column("STANDING", &["/standing"]),
                column("OWNER", &["/record/owner"]),
                column("REPOSITORIES", &["/record/repositories"]),
                column("CEILING", &["/record/environment_ceiling"]),
                column("EXPIRES", &["/record/expires"]),
                column("PURPOSE", &["/record/purpose"]),
            ],
            Self::Service => vec![
                column("ID", &["/record/id"]),
                column("STANDING", &["/standing"]),
                column("OWNER", &["/record/owner"]),
                column("ROLES", &["/record/roles"]),
                column("EXPIRES", &["/record/expires"]),
                column("PURPOSE", &["/record/purpose"]),
            ],
            Self::Host => vec![
                column("ID", &["/record/id"]),
                column("STANDING", &["/standing"]),
                column("OWNER", &["/record/owner"]),
                column("CLASS", &["/record/class"]),
                column("EXPIRES", &["/record/expires"]),
            ],
            Self::Environment => vec![
                column("ID", &["/record/id"]),
                column("STANDING", &["/standing"]),
                column("SENSITIVITY", &["/record/sensitivity"]),
                column("REPOSITORY", &["/record/repository"]),
                column("PORT", &["/record/port"]),
            ],
            Self::Repository => vec![
                column("ID", &["/record/id"]),
                column("STANDING", &["/standing"]),
                column("MODE", &["/record/mode"]),
                column("BRANCH", &["/record/default_branch"]),
                column("UPSTREAM", &["/record/upstream"]),
            ],
            Self::Endpoint => vec![
                column("ID", &["/record/id"]),
                column("STANDING", &["/standing"]),
                column("URL", &["/record/base_url"]),
                column("MODELS", &["/record/models"]),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_lacks_an_owner_or_has_a_misspelt_field_is_refused() {
        let refusal = Kind::Agent.parse("id = 'fixer'\n").unwrap_err();
        assert!(refusal.to_string().contains("owner"), "{refusal}");
        let refusal = Kind::Group.parse("id = 'a'\nmembrs = []\n").unwrap_err();
        assert!(
            refusal.to_string().contains("did you mean `members`?"),
            "{refusal}"
        );
    }
}
