//! The in-toto test-result predicate v0.1: which tests ran on the subject, and how they ended.
//!
//! Source: in-toto attestation framework, `spec/predicates/test-result.md`.

use portcullis_model::Refusal;
use serde::{Deserialize, Serialize};

use crate::intoto::{Predicate, ResourceDescriptor, check_all};

/// Most tests named in one result, in all lists together.
pub const TESTS_MAX: usize = 20_000;
/// Most configuration resources.
pub const CONFIGURATION_MAX: usize = 64;

/// What one run of a test suite showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TestResult {
    /// The verdict over all.
    pub result: TestOutcome,
    /// What configured the run.
    pub configuration: Vec<ResourceDescriptor>,
    /// Where the run can be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Tests that passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_tests: Vec<String>,
    /// Tests that passed with a warning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warned_tests: Vec<String>,
    /// Tests that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_tests: Vec<String>,
}

/// How a run of tests ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TestOutcome {
    /// Every test passed.
    Passed,
    /// Every test passed, some with warnings.
    Warned,
    /// A test failed, or the run itself did.
    Failed,
}

impl Predicate for TestResult {
    const TYPE: &'static str = "https://in-toto.io/attestation/test-result/v0.1";

    fn check(&self) -> Result<(), Refusal> {
        let malformed = |expected: &str, received: &str| {
            Err(Refusal::malformed("test result")
                .expected(expected)
                .received(received))
        };
        check_all(&self.configuration, CONFIGURATION_MAX)?;
        let names = [&self.passed_tests, &self.warned_tests, &self.failed_tests];
        if names.iter().map(|list| list.len()).sum::<usize>() > TESTS_MAX {
            return malformed(&format!("at most {TESTS_MAX} tests"), "more");
        }
        if self.result != TestOutcome::Failed
            && let Some(failed) = self.failed_tests.first()
        {
            return malformed("FAILED where a test failed", failed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_cannot_hide_in_a_pass() {
        let mut result = TestResult {
            result: TestOutcome::Failed,
            configuration: Vec::new(),
            url: None,
            passed_tests: Vec::new(),
            warned_tests: Vec::new(),
            failed_tests: vec!["t".to_owned()],
        };
        result.check().unwrap();
        for outcome in [TestOutcome::Passed, TestOutcome::Warned] {
            result.result = outcome;
            assert!(result.check().is_err());
        }
        result.failed_tests.clear();
        result.passed_tests = vec![String::new(); TESTS_MAX + 1];
        assert!(result.check().is_err());
    }
}
