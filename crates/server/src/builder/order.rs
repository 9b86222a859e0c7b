//! What the server says about a job that this builder took.

use std::time::Duration;

use portcullis_checks::testreport::Format;
use portcullis_flow::job::JOB_LIFE_MS;
use portcullis_model::event::JobKind;
use portcullis_model::time::parse_duration_ms;
use portcullis_model::{Digest, GitOid, JobId, Refusal, RepositoryId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::worker::jobs::{JobsConfiguration, check_hosts};

/// Time that is kept of a job's life for fetching, reading and uploading (5 minutes).
const MARGIN_MS: u64 = 300_000;

/// A job to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Which.
    pub job: JobId,
    /// Test or build.
    pub kind: JobKind,
    /// In which repository.
    pub repository: RepositoryId,
    /// The branch on which the commit stands, if it landed.
    pub branch: Option<String>,
    /// On which commit.
    pub commit: GitOid,
    /// The commit that the configuration comes from.
    pub configured_by: GitOid,
    /// The configuration.
    pub configuration: Configuration,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Path of the tree's tar file at the server.
    pub source: String,
    /// Every change since the releases that serve, as provenance names them.
    pub changes: Vec<Value>,
}

/// The jobs file, read by the server, with the digest of its bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// What it says.
    pub jobs: JobsConfiguration,
}

/// The part of the configuration that this job is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The longest it may run.
    pub limit: Duration,
    /// What it makes.
    pub product: Product,
    /// Hosts that it may reach, as `name:port`.
    pub hosts: Vec<String>,
}

/// What is read when the command has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Product {
    /// A test report.
    Report {
        /// In which form.
        format: Format,
        /// The file that holds it; what was printed if none is named.
        file: Option<String>,
    },
    /// Files.
    Files(Vec<String>),
}

impl Order {
    /// What is to be done.
    ///
    /// # Errors
    /// The configuration has no such job, no command, no time, or names hosts that can't be told.
    pub fn work(&self) -> Result<Work, Refusal> {
        let jobs = &self.configuration.jobs;
        let missing = || {
            Refusal::denied("job-not-configured", "the configuration has no such job").expected(
                &format!("a section for {:?} in .portcullis/jobs.toml", self.kind),
            )
        };
        let (command, time_limit, hosts, product) = match self.kind {
            JobKind::Test => {
                let test = jobs.test.as_ref().ok_or_else(missing)?;
                let product = Product::Report {
                    format: test.format,
                    file: test.report.clone(),
                };
                (&test.command, &test.time_limit, &test.hosts, product)
            }
            JobKind::Build => {
                let build = jobs.build.as_ref().ok_or_else(missing)?;
                (
                    &build.command,
                    &build.time_limit,
                    &build.hosts,
                    Product::Files(build.outputs.clone()),
                )
            }
        };
        if command.is_empty() {
            return Err(Refusal::malformed("jobs configuration").expected("a command"));
        }
        check_hosts(hosts)?;
        if matches!(&product, Product::Files(outputs) if outputs.is_empty()) {
            return Err(Refusal::malformed("jobs configuration")
                .expected("at least one path in `outputs` of [build]"));
        }
        let limit_ms = parse_duration_ms(time_limit)?.min(JOB_LIFE_MS.saturating_sub(MARGIN_MS));
        Ok(Work {
            command: command.clone(),
            limit: Duration::from_millis(limit_ms),
            product,
            hosts: hosts.clone(),
        })
    }
}
