//! What the server lends a run, as it answers a start.

use std::collections::BTreeSet;

use portcullis_model::{
    AgentId, EndpointId, GitOid, Refusal, RepositoryId, RunId, Secret, Timestamp,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A started run.
#[derive(Debug, Deserialize)]
pub(super) struct Lent {
    /// Which.
    pub(super) run: RunId,
    /// Its token, worthless without the run's key.
    #[serde(deserialize_with = "secret")]
    pub(super) token: Secret<String>,
    /// When it ends.
    pub(super) deadline: Timestamp,
    /// Whose work it is.
    pub(super) agent: AgentId,
    /// Whom its commits are by.
    pub(super) git: GitIdentity,
    /// What it works on.
    pub(super) repositories: Vec<Repository>,
    /// Model endpoints.
    #[serde(default)]
    pub(super) endpoints: BTreeSet<EndpointId>,
    /// Hosts that it may reach, as `name:port`.
    #[serde(default)]
    pub(super) hosts: BTreeSet<String>,
    /// Hosts to which bytes may pass unread, as `name:port`.
    #[serde(default)]
    pub(super) tunnels: BTreeSet<String>,
    /// What people said when they rejected earlier revisions.
    #[serde(default)]
    pub(super) feedback: Vec<String>,
}

/// Name and mail address of commits.
#[derive(Debug, Deserialize)]
pub(super) struct GitIdentity {
    pub(super) name: String,
    pub(super) mail: String,
}

/// A repository of the task.
#[derive(Debug, Deserialize)]
pub(super) struct Repository {
    pub(super) id: RepositoryId,
    /// The branch that the change is for.
    pub(super) branch: String,
    /// Where it starts.
    pub(super) base: GitOid,
    /// Path of the clone at the channel.
    pub(super) clone: String,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

impl Lent {
    /// Reads the answer to a start.
    ///
    /// # Errors
    /// It is not such an answer. It is not repeated: it holds the token.
    pub(super) fn read(answer: Value) -> Result<Self, Refusal> {
        serde_json::from_value(answer).map_err(|error| {
            let kind = if error.is_data() {
                "another form"
            } else {
                "no JSON"
            };
            Refusal::unavailable("server-answer", "the server's answer can't be read")
                .expected("what a started run is lent")
                .received(kind)
                .next("are server and command line of the same version? `portcullis --version`")
        })
    }
}
