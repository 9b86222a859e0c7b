//! One id type per entity.
//!
//! Things that people name (agents, humans, environments, …) have *name ids*: short slugs. Things
//! that happen (runs, changes, requests, …) have *index ids*: the ledger index of the entry that
//! created them, so an id is unique, ordered, needs no randomness, and leads straight to its proof.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, serde_as_text};
use crate::limits::NAME_MAX_BYTES;
use crate::refusal::Refusal;

/// Position of an entry in the ledger; the genesis is 0.
pub type LedgerIndex = u64;

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Refusal;

            fn from_str(text: &str) -> Result<Self, Refusal> {
                check_name($what, text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        serde_as_text!($name);
    };
}

macro_rules! index_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub LedgerIndex);

        impl FromStr for $name {
            type Err = Refusal;

            fn from_str(text: &str) -> Result<Self, Refusal> {
                parse_index($prefix, text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "-{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        serde_as_text!($name);
    };
}

name_id!(
    /// A person. Names and mail addresses are not in it.
    HumanId, "human");
name_id!(
    /// An inventoried agent.
    AgentId, "agent");
name_id!(
    /// An inventoried service: a builder, a test runner, a CI system.
    ServiceId, "service");
name_id!(
    /// An enrolled machine that launches runs.
    HostId, "host");
name_id!(
    /// Named principals.
    GroupId, "group");
name_id!(
    /// A place where releases run.
    EnvironmentId, "environment");
name_id!(
    /// A governed repository.
    RepositoryId, "repository");
name_id!(
    /// A declared model endpoint or other named outside service.
    EndpointId, "endpoint");

index_id!(
    /// One execution of an agent under one task.
    RunId, "run");
index_id!(
    /// Commits proposed to one target ref.
    ChangeId, "change");
index_id!(
    /// A question to humans; every approval answers exactly one.
    RequestId, "request");
index_id!(
    /// A command run under a service's identity.
    JobId, "job");
index_id!(
    /// What a build job made.
    ArtifactId, "artifact");
index_id!(
    /// An artifact admitted to an environment.
    ReleaseId, "release");
index_id!(
    /// The steps that move traffic to a release.
    RolloutId, "rollout");

/// A task, by the digest of its signed payload: `task-` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub Digest);

impl TaskId {
    /// `task-` and the first 12 hex digits, for people; never compare by it.
    pub fn short(&self) -> String {
        format!("task-{}", self.0.short())
    }
}

impl FromStr for TaskId {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        text.strip_prefix("task-")
            .and_then(|hex| format!("sha256:{hex}").parse().ok())
            .map(Self)
            .ok_or_else(|| {
                Refusal::malformed("task id")
                    .expected("`task-` and 64 lowercase hex digits")
                    .received(text)
            })
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task-{}", self.0.hex())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(TaskId);

fn check_name(what: &str, text: &str) -> Result<String, Refusal> {
    let starts = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let body = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte));
    if starts && body && text.len() <= NAME_MAX_BYTES && !text.contains("..") {
        Ok(text.to_owned())
    } else {
        Err(Refusal::malformed(&format!("{what} name"))
            .expected(&format!(
                "1 to {NAME_MAX_BYTES} of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or digit"
            ))
            .received(text))
    }
}

fn parse_index(prefix: &str, text: &str) -> Result<LedgerIndex, Refusal> {
    text.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'))
        .filter(|digits| *digits == "0" || !digits.starts_with(['0', '+']))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| {
            Refusal::malformed(&format!("{prefix} id"))
                .expected(&format!(
                    "`{prefix}-` and a ledger index, such as {prefix}-42"
                ))
                .received(text)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_ids_have_one_spelling() {
        assert_eq!("run-42".parse::<RunId>().unwrap(), RunId(42));
        assert_eq!(RunId(42).to_string(), "run-42");
        for text in [
            "run-042",
            "run-+1",
            "run-",
            "run42",
            "change-42",
            "run--1",
            "run-4 ",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_cannot_leave_their_path_segment() {
        assert!("fix-bot.2".parse::<AgentId>().is_ok());
        for text in [
            "",
            "A",
            "a/b",
            "..",
            "a..b",
            "-a",
            "a b",
            "é",
            &"a".repeat(65),
        ] {
            assert!(text.parse::<AgentId>().is_err(), "{text}");
        }
    }
}
