//! What a builder signs: a test result or a provenance. Pure; everything in it was seen by the
//! builder itself or stands in the order that it repeats.

use portcullis_checks::testreport::{Outcome, TestReport};
use portcullis_evidence::dsse::{self, PAYLOAD_IN_TOTO};
use portcullis_evidence::intoto::{Predicate, ResourceDescriptor, Statement};
use portcullis_evidence::signer::Signer;
use portcullis_evidence::slsa::{BuildDefinition, BuildMetadata, Builder, Provenance, RunDetails};
use portcullis_evidence::test_result::{TESTS_MAX, TestOutcome, TestResult};
use portcullis_model::statement::Output;
use portcullis_model::{Digest, Refusal, ServiceId, Timestamp, canonical};
use serde_json::{Map, Value, json};

use super::network::NetworkUse;
use super::order::Order;
use crate::worker::jobs::{BUILD_TYPE, CONFIGURATION};

/// Most bytes of all test names in one attestation: half of what an envelope holds.
const NAMES_MAX_BYTES: usize = 1024 * 1024;

/// What the builder saw of one job besides its product.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Who built.
    pub service: &'a ServiceId,
    /// When the job's command was started.
    pub started: Timestamp,
    /// When it had ended.
    pub finished: Timestamp,
    /// Digest of what it printed.
    pub log: Digest,
    /// Where the server keeps that.
    pub log_url: String,
    /// Protections of the sandbox that were missing by leave.
    pub gaps: Vec<String>,
    /// What it reached; `None` where it had no network.
    pub network: Option<Network>,
}

/// What a job reached, as it is attested: in short within the provenance, in full beside it.
#[derive(Clone, Debug)]
pub struct Network {
    seen: NetworkUse,
    /// The whole record in canonical JSON.
    pub document: Vec<u8>,
    digest: Digest,
    url: String,
}

impl Network {
    /// `url`: where the server keeps a blob.
    ///
    /// # Errors
    /// It does not serialise.
    pub fn new(seen: NetworkUse, url: impl FnOnce(&Digest) -> String) -> Result<Self, Refusal> {
        let document = canonical::to_vec(&seen)?;
        let digest = Digest::of(&document);
        Ok(Self {
            seen,
            document,
            digest,
            url: url(&digest),
        })
    }

    fn parameters(&self) -> Value {
        json!({
            "hosts": self.seen.hosts,
            "refused": self.seen.refused,
            "refusals": self.seen.refusals,
            "fetches": self.seen.fetches,
            "record": self.digest,
        })
    }

    fn byproduct(&self) -> ResourceDescriptor {
        ResourceDescriptor {
            uri: Some(self.url.clone()),
            ..ResourceDescriptor::file("network", &self.digest)
        }
    }

    /// What came whole over plain HTTP: the inputs of which more is known than a host and a size.
    fn inputs(&self) -> impl Iterator<Item = ResourceDescriptor> {
        self.seen
            .fetched
            .iter()
            .filter(|fetched| fetched.whole && fetched.method == "GET" && fetched.status == 200)
            .map(|fetched| ResourceDescriptor {
                uri: Some(fetched.url.clone()),
                ..ResourceDescriptor::of_digest(&fetched.digest)
            })
    }
}

/// The repository as attestations name it.
pub fn repository_uri(order: &Order) -> String {
    format!("git+portcullis:{}", order.repository)
}

/// Whether a report fits into an attestation, which names every test.
///
/// # Errors
/// `test-report-too-large`.
pub fn check_fits(report: &TestReport) -> Result<(), Refusal> {
    let bytes: usize = report.tests.keys().map(String::len).sum();
    if report.tests.len() > TESTS_MAX || bytes > NAMES_MAX_BYTES {
        return Err(Refusal::limit(
            "test-report-too-large",
            "the report has more tests than one attestation names",
        )
        .expected(&format!(
            "at most {TESTS_MAX} tests, {NAMES_MAX_BYTES} bytes of names"
        ))
        .received(&format!(
            "{} tests, {bytes} bytes of names",
            report.tests.len()
        ))
        .next(
            "report suites instead of single tests, for instance by a JUnit file of fewer cases",
        ));
    }
    Ok(())
}

/// The statement about a test job: every test that passed and every one that failed. Without a
/// report, or where the command failed, the result is a failure.
///
/// # Errors
/// More tests than [`check_fits`] allows.
pub fn test_result(
    order: &Order,
    seen: &Seen<'_>,
    report: Option<&TestReport>,
    succeeded: bool,
) -> Result<Statement<TestResult>, Refusal> {
    let named = |wanted: Outcome| -> Vec<String> {
        let tests = report.into_iter().flat_map(|report| &report.tests);
        tests
            .filter(|(_, outcome)| **outcome == wanted)
            .map(|(name, _)| name.clone())
            .collect()
    };
    let failed_tests = named(Outcome::Failed);
    let passed = succeeded && report.is_some() && failed_tests.is_empty();
    let predicate = TestResult {
        result: if passed {
            TestOutcome::Passed
        } else {
            TestOutcome::Failed
        },
        configuration: vec![ResourceDescriptor {
            uri: Some(format!("{}@{}", repository_uri(order), order.configured_by)),
            ..ResourceDescriptor::file(CONFIGURATION, &order.configuration.digest)
        }],
        url: Some(seen.log_url.clone()),
        passed_tests: named(Outcome::Passed),
        warned_tests: Vec::new(),
        failed_tests,
    };
    let subject = ResourceDescriptor::git_commit(&repository_uri(order), &order.commit);
    Statement::new(vec![subject], predicate)
}

/// The provenance of what a build made. A build that failed made nothing but its log, so that is
/// what its provenance is about.
///
/// # Errors
/// Two outputs of one name, or more than a statement holds.
pub fn provenance(
    order: &Order,
    command: &[String],
    seen: &Seen<'_>,
    outputs: &[Output],
) -> Result<Statement<Provenance>, Refusal> {
    let parameters = |fields: Value| match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let log = ResourceDescriptor {
        uri: Some(seen.log_url.clone()),
        ..ResourceDescriptor::file("log", &seen.log)
    };
    let commit = ResourceDescriptor::git_commit(&repository_uri(order), &order.commit);
    let predicate = Provenance {
        build_definition: BuildDefinition {
            build_type: BUILD_TYPE.to_owned(),
            external_parameters: parameters(json!({
                "repository": order.repository,
                "branch": order.branch,
                "commit": order.commit,
                "command": command,
                "configuration": order.configuration.digest,
            })),
            internal_parameters: parameters(json!({
                "job": order.job,
                "configuration": order.configuration.digest,
                "changes": order.changes,
                "sandbox_gaps": seen.gaps,
                "network": seen.network.as_ref().map_or_else(|| json!("none"), Network::parameters),
            })),
            resolved_dependencies: std::iter::once(commit)
                .chain(seen.network.iter().flat_map(Network::inputs))
                .collect(),
        },
        run_details: RunDetails {
            builder: Builder {
                id: format!("spiffe://{}/service/{}", order.trust_domain, seen.service),
                builder_dependencies: Vec::new(),
                version: [(
                    "portcullis".to_owned(),
                    env!("CARGO_PKG_VERSION").to_owned(),
                )]
                .into(),
            },
            metadata: Some(BuildMetadata {
                invocation_id: Some(order.job.to_string()),
                started_on: Some(seen.started),
                finished_on: Some(seen.finished),
            }),
            byproducts: std::iter::once(log.clone())
                .chain(seen.network.as_ref().map(Network::byproduct))
                .collect(),
        },
    };
    let subject = if outputs.is_empty() {
        vec![log]
    } else {
        outputs
            .iter()
            .map(|output| ResourceDescriptor::file(&output.name, &output.digest))
            .collect()
    };
    Statement::new(subject, predicate)
}

/// The signed envelope's bytes, whose digest names it.
///
/// # Errors
/// The statement is too large for an envelope.
pub fn sign<P: Predicate>(statement: &Statement<P>, signer: &Signer) -> Result<Vec<u8>, Refusal> {
    dsse::sign(PAYLOAD_IN_TOTO, statement.to_json()?, signer)?.to_json()
}

#[cfg(test)]
mod tests {
    use portcullis_evidence::dsse::UnverifiedEnvelope;

    use super::*;

    fn order(kind: &str) -> Order {
        serde_json::from_value(json!({
            "job": "job-7",
            "kind": kind,
            "repository": "shop",
            "branch": "main",
            "commit": "c".repeat(40),
            "configured_by": "c".repeat(40),
            "configuration": {
                "digest": Digest::of(b"jobs.toml"),
                "jobs": {
                    "test": { "command": ["make", "test"], "format": "tap", "time_limit": "10m" },
                    "build": { "command": ["make"], "outputs": ["out/app"], "time_limit": "10m" },
                },
            },
            "trust_domain": "example.org",
            "source": "/v1/jobs/job-7/source",
            "changes": [{ "change": "change-3", "agent": "coder" }],
        }))
        .unwrap()
    }

    fn seen(service: &ServiceId) -> Seen<'_> {
        Seen {
            service,
            started: Timestamp::from_ms(1_000),
            finished: Timestamp::from_ms(2_500),
            log: Digest::of(b"log"),
            log_url: "http://127.0.0.1:7117/v1/blobs/x".to_owned(),
            gaps: vec!["landlock".to_owned()],
            network: None,
        }
    }

    fn report(tests: &[(&str, Outcome)]) -> TestReport {
        TestReport {
            tests: tests
                .iter()
                .map(|(name, how)| ((*name).to_owned(), *how))
                .collect(),
        }
    }

    #[test]
    fn provenance_names_everything_that_verification_asks_for() {
        let service = "builder".parse().unwrap();
        let order = order("build");
        let command = order.work().unwrap().command;
        let output = super::super::outputs::describe("out/app", b"binary").unwrap();
        let statement = provenance(
            &order,
            &command,
            &seen(&service),
            std::slice::from_ref(&output),
        )
        .unwrap();
        let (signer, _) = Signer::generate().unwrap();
        let envelope = UnverifiedEnvelope::parse(&sign(&statement, &signer).unwrap()).unwrap();
        let verified = dsse::verify(&envelope, PAYLOAD_IN_TOTO, &[signer.public_key()]).unwrap();
        let json: Value = serde_json::from_slice(verified.payload()).unwrap();
        assert_eq!(
            json["subject"],
            json!([{ "name": "app", "digest": { "sha256": output.digest.hex() } }])
        );
        let definition = &json["predicate"]["buildDefinition"];
        assert_eq!(definition["buildType"], BUILD_TYPE);
        assert_eq!(
            definition["externalParameters"],
            json!({
                "repository": "shop", "branch": "main", "commit": "c".repeat(40),
                "command": ["make"], "configuration": Digest::of(b"jobs.toml"),
            })
        );
        let internal = &definition["internalParameters"];
        assert_eq!(internal["job"], "job-7");
        assert_eq!(
            internal["changes"],
            json!([{ "change": "change-3", "agent": "coder" }])
        );
        assert_eq!(internal["sandbox_gaps"], json!(["landlock"]));
        assert_eq!(
            definition["resolvedDependencies"],
            json!([{ "uri": "git+portcullis:shop", "digest": { "gitCommit": "c".repeat(40) } }])
        );
        let run = &json["predicate"]["runDetails"];
        assert_eq!(run["builder"]["id"], "spiffe://example.org/service/builder");
        assert_eq!(run["metadata"]["invocationId"], "job-7");
        assert_eq!(run["metadata"]["startedOn"], "1970-01-01T00:00:01.000Z");
        assert_eq!(run["metadata"]["finishedOn"], "1970-01-01T00:00:02.500Z");
        assert_eq!(
            run["byproducts"][0]["digest"]["sha256"],
            Digest::of(b"log").hex()
        );
    }

    #[test]
    fn a_failed_build_attests_to_its_log_alone() {
        let service = "builder".parse().unwrap();
        let statement = provenance(&order("build"), &[], &seen(&service), &[]).unwrap();
        assert_eq!(statement.subject().len(), 1);
        assert_eq!(statement.subject()[0].sha256(), Some(Digest::of(b"log")));
        let output = super::super::outputs::describe("a/app", b"1").unwrap();
        let twice = [output.clone(), output];
        assert!(provenance(&order("build"), &[], &seen(&service), &twice).is_err());
    }

    #[test]
    fn a_test_result_passes_only_when_command_and_report_agree() {
        let service = "builder".parse().unwrap();
        let order = order("test");
        let good = report(&[("a", Outcome::Passed), ("b", Outcome::Skipped)]);
        let bad = report(&[("a", Outcome::Passed), ("b", Outcome::Failed)]);
        let result = |report: Option<&TestReport>, succeeded| {
            test_result(&order, &seen(&service), report, succeeded)
                .unwrap()
                .predicate()
                .clone()
        };
        let passed = result(Some(&good), true);
        assert_eq!(passed.result, TestOutcome::Passed);
        assert_eq!(
            (passed.passed_tests, passed.failed_tests),
            (vec!["a".to_owned()], vec![])
        );
        for (report, succeeded) in [(Some(&good), false), (Some(&bad), true), (None, true)] {
            assert_eq!(result(report, succeeded).result, TestOutcome::Failed);
        }
        let statement = test_result(&order, &seen(&service), Some(&good), true).unwrap();
        let json: Value = serde_json::from_slice(&statement.to_json().unwrap()).unwrap();
        assert_eq!(
            json["subject"],
            json!([{ "uri": "git+portcullis:shop", "digest": { "gitCommit": "c".repeat(40) } }])
        );
        let configuration = &json["predicate"]["configuration"][0];
        assert_eq!(configuration["name"], ".portcullis/jobs.toml");
        assert_eq!(
            configuration["digest"]["sha256"],
            Digest::of(b"jobs.toml").hex()
        );
    }

    #[test]
    fn a_report_that_no_attestation_can_name_is_refused_not_cut() {
        let mut many = TestReport::default();
        for number in 0..=TESTS_MAX {
            many.tests.insert(format!("t{number}"), Outcome::Passed);
        }
        assert_eq!(check_fits(&many).unwrap_err().code, "test-report-too-large");
        let wide = report(&[(&"x".repeat(NAMES_MAX_BYTES + 1), Outcome::Passed)]);
        assert!(check_fits(&wide).is_err());
        assert!(check_fits(&report(&[("a", Outcome::Passed)])).is_ok());
    }

    #[test]
    fn jobs_that_name_hosts_badly_or_make_nothing_are_refused() {
        let with = |change: &dyn Fn(&mut Order)| {
            let mut order = order("build");
            change(&mut order);
            order.work().map(drop).map_err(|refusal| refusal.code)
        };
        assert_eq!(with(&|_| {}), Ok(()));
        let hosts = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            with(&move |order: &mut Order| {
                if let Some(build) = &mut order.configuration.jobs.build {
                    build.hosts.clone_from(&names);
                }
            })
        };
        assert_eq!(hosts(&["crates.io:443", "10.0.0.1:80"]), Ok(()));
        for bad in [
            "*.io:443",
            "crates.io",
            "https://crates.io:443",
            "a:0",
            "me@a:80",
            "A.io:443",
        ] {
            assert_eq!(hosts(&[bad]), Err("malformed-host".to_owned()), "{bad}");
        }
        assert_eq!(hosts(&["a:80", "a:80"]), Err("malformed-host".to_owned()));
        assert_eq!(hosts(&["a:80"; 65]), Err("too-many-hosts".to_owned()));
        let nothing = |order: &mut Order| {
            if let Some(build) = &mut order.configuration.jobs.build {
                build.outputs.clear();
            }
        };
        assert!(with(&nothing).is_err());
        assert_eq!(
            with(&|order| order.configuration.jobs.build = None),
            Err("job-not-configured".to_owned())
        );
        let forever = |order: &mut Order| {
            if let Some(build) = &mut order.configuration.jobs.build {
                build.time_limit = "30d".to_owned();
            }
        };
        let mut long = order("build");
        forever(&mut long);
        // It ends before the server takes the job for lost.
        assert!(long.work().unwrap().limit.as_secs() < 3_600);
    }
}
