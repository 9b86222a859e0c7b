//! SLSA Verification Summary v1: "I verified this artifact under this policy, with this result".
//!
//! Source: slsa.dev/spec/v1.2/verification_summary, predicate type
//! `https://slsa.dev/verification_summary/v1`.

use std::collections::BTreeMap;

use portcullis_model::{Refusal, Timestamp};
use serde::{Deserialize, Serialize};

use crate::intoto::{Predicate, ResourceDescriptor, check_all};

/// Most input attestations that one summary names.
pub const INPUTS_MAX: usize = 8_192;
/// Most levels: one per track, and properties of one's own.
pub const LEVELS_MAX: usize = 32;

/// The predicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VerificationSummary {
    /// Who verified; relying parties take it from certain keys only.
    pub verifier: Verifier,
    /// When.
    pub time_verified: Timestamp,
    /// What the artifact may be used as.
    pub resource_uri: String,
    /// Under which policy; with `uri`.
    pub policy: ResourceDescriptor,
    /// All attestations that were used, each with a digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input_attestations: Vec<ResourceDescriptor>,
    /// The verdict.
    pub verification_result: VerificationResult,
    /// The highest level of each track, such as `SLSA_BUILD_LEVEL_2`, or `FAILED`.
    pub verified_levels: Vec<String>,
    /// Level to number of transitive dependencies at it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dependency_levels: BTreeMap<String, u64>,
    /// Version of SLSA that was applied, such as `1.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slsa_version: Option<String>,
}

/// Who verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verifier {
    /// A URI.
    pub id: String,
    /// Component to version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, String>,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VerificationResult {
    /// The policy holds.
    Passed,
    /// It doesn't.
    Failed,
}

impl Predicate for VerificationSummary {
    const TYPE: &'static str = "https://slsa.dev/verification_summary/v1";

    fn check(&self) -> Result<(), Refusal> {
        let malformed = |expected: &str, received: &str| {
            Err(Refusal::malformed("verification summary")
                .expected(expected)
                .received(received))
        };
        if !self.verifier.id.contains(':') {
            return malformed("a verifier.id URI", &self.verifier.id);
        }
        self.policy.check()?;
        if self.policy.uri.is_none() {
            return malformed("a policy with `uri`", "one without");
        }
        check_all(&self.input_attestations, INPUTS_MAX)?;
        if self
            .input_attestations
            .iter()
            .any(|input| input.digest.is_empty())
        {
            return malformed("a digest for every input attestation", "one without");
        }
        if self.verified_levels.len() > LEVELS_MAX || self.dependency_levels.len() > LEVELS_MAX {
            return malformed(&format!("at most {LEVELS_MAX} levels"), "more");
        }
        let failed_level = self.verified_levels.iter().any(|level| level == "FAILED");
        if failed_level && self.verification_result == VerificationResult::Passed {
            return malformed("no level FAILED in a summary that PASSED", "FAILED");
        }
        one_level_per_track(&self.verified_levels)
    }
}

/// A producer names only the highest level of each SLSA track.
fn one_level_per_track(levels: &[String]) -> Result<(), Refusal> {
    let mut tracks: Vec<&str> = levels
        .iter()
        .filter(|level| level.starts_with("SLSA_"))
        .filter_map(|level| level.rsplit_once("_LEVEL_"))
        .map(|(track, _)| track)
        .collect();
    tracks.sort_unstable();
    match tracks
        .array_windows::<2>()
        .find(|[one, other]| one == other)
    {
        None => Ok(()),
        Some([track, _]) => Err(Refusal::malformed("verification summary")
            .expected("only the highest level of each track")
            .received(track)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intoto::Statement;
    use portcullis_model::Digest;

    fn sample() -> VerificationSummary {
        VerificationSummary {
            verifier: Verifier {
                id: "urn:example:verifier".to_owned(),
                version: BTreeMap::new(),
            },
            time_verified: Timestamp::from_ms(1),
            resource_uri: "pkg:generic/app@1".to_owned(),
            policy: ResourceDescriptor {
                uri: Some("urn:example:policy".to_owned()),
                ..ResourceDescriptor::of_digest(&Digest::of(b"policy"))
            },
            input_attestations: vec![ResourceDescriptor::of_digest(&Digest::of(b"provenance"))],
            verification_result: VerificationResult::Passed,
            verified_levels: vec!["SLSA_BUILD_LEVEL_2".to_owned()],
            dependency_levels: BTreeMap::new(),
            slsa_version: Some("1.2".to_owned()),
        }
    }

    #[test]
    fn fields_have_the_names_of_the_specification() {
        let subject = vec![ResourceDescriptor::file("app", &Digest::of(b"out"))];
        let json = Statement::new(subject, sample())
            .unwrap()
            .to_json()
            .unwrap();
        let text = String::from_utf8(json.clone()).unwrap();
        for field in [
            r#""verifier":{"id":"urn:example:verifier"}"#,
            r#""timeVerified":"1970-01-01T00:00:00.001Z""#,
            r#""resourceUri":"pkg:generic/app@1""#,
            r#""inputAttestations":[{"digest""#,
            r#""verificationResult":"PASSED""#,
            r#""verifiedLevels":["SLSA_BUILD_LEVEL_2"]"#,
            r#""slsaVersion":"1.2""#,
        ] {
            assert!(text.contains(field), "{field} in {text}");
        }
        let read = Statement::<VerificationSummary>::parse(&json).unwrap();
        assert_eq!(read.predicate(), &sample());
    }

    #[test]
    fn summaries_that_break_the_rules_are_refused() {
        let broken: [fn(&mut VerificationSummary); 6] = [
            |summary| summary.verifier.id.clear(),
            |summary| summary.policy.uri = None,
            |summary| summary.input_attestations[0].digest.clear(),
            |summary| summary.verified_levels.push("FAILED".to_owned()),
            |summary| {
                summary
                    .verified_levels
                    .push("SLSA_BUILD_LEVEL_1".to_owned())
            },
            |summary| summary.verified_levels = vec![String::new(); LEVELS_MAX + 1],
        ];
        sample().check().unwrap();
        for (at, break_it) in broken.iter().enumerate() {
            let mut summary = sample();
            break_it(&mut summary);
            assert!(summary.check().is_err(), "case {at}");
        }
    }
}
