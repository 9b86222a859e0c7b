//! Known findings: what was there when the gate was put up.

use portcullis_model::Refusal;
use serde::{Deserialize, Serialize};

use crate::report::{Decision, Report};

/// A baseline file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    version: u32,
    known: Vec<Known>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    fingerprint: String,
    /// For people; not compared.
    what: String,
}

impl Baseline {
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let baseline: Self = serde_json::from_str(text).map_err(|error| {
            Refusal::malformed("baseline")
                .expected("a file written by --write-baseline")
                .received(&error.to_string())
                .next("write it again with --write-baseline FILE")
        })?;
        if baseline.version != 1 {
            return Err(Refusal::malformed("baseline")
                .expected("version 1")
                .received(&baseline.version.to_string()));
        }
        Ok(baseline)
    }

    /// Everything that could fail a gate now.
    pub(crate) fn of(report: &Report) -> Self {
        let mut known = Vec::new();
        for repository in &report.repositories {
            for verdict in &repository.verdicts {
                if matches!(verdict.verdict, Decision::Reachable | Decision::Depends) {
                    known.push(Known {
                        fingerprint: verdict.fingerprint.clone(),
                        what: format!(
                            "{} {} ({}): {}",
                            verdict.verdict.word(),
                            verdict.kind.word(),
                            verdict.assumption.word(),
                            verdict.sink
                        ),
                    });
                }
            }
            for finding in &repository.findings {
                known.push(Known {
                    fingerprint: finding.fingerprint.clone(),
                    what: format!("{} {}", finding.rule, finding.file),
                });
            }
        }
        known.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
        known.dedup_by(|a, b| a.fingerprint == b.fingerprint);
        Self { version: 1, known }
    }

    pub(crate) fn render(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Marks what the baseline knows.
    pub(crate) fn mark(&self, report: &mut Report) {
        let knows = |fingerprint: &str| {
            self.known
                .iter()
                .any(|known| known.fingerprint == fingerprint)
        };
        for repository in &mut report.repositories {
            for verdict in &mut repository.verdicts {
                verdict.known = knows(&verdict.fingerprint);
            }
            for finding in &mut repository.findings {
                finding.known = knows(&finding.fingerprint);
            }
        }
    }
}
