//! What policy must hold, tried from outside and from within.

mod asking;
mod attacks;
mod loading;
mod matrix;
mod random;
mod recall;
mod sample;
mod schema;
mod telling;

use crate::{Answer, Decision, PolicyFile, PolicySet, Request, decide};

fn embedded() -> PolicySet {
    PolicySet::embedded().unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// The base and one organisation file.
fn with(organisation: &str) -> PolicySet {
    PolicySet::load(&[PolicyFile::new("org.cedar", organisation)], &[])
        .unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// A permit for everything that Portcullis knows, to show what the base holds against it.
const PERMIT_ALL: &str = r#"
@id("all") @reason("All.") @needs("Nothing.") @next("Nothing.")
permit (principal, action in [
  Action::"task.sign", Action::"run.start", Action::"run.stop", Action::"run.continue", Action::"git.fetch",
  Action::"git.push", Action::"model.call", Action::"net.connect", Action::"lease.issue",
  Action::"change.land", Action::"commit.accept", Action::"request.approve",
  Action::"request.reject", Action::"job.run", Action::"release.admit", Action::"release.revoke",
  Action::"rollout.command", Action::"inventory.change", Action::"policy.activate",
  Action::"mode.change", Action::"breaker.trip", Action::"breaker.reset"
], resource);
"#;

fn answer(set: &PolicySet, request: &Request) -> (Answer, String) {
    let summary = decide(set, request, 7).summary();
    let rule = summary
        .rules
        .first()
        .map(|rule| rule.id.clone())
        .unwrap_or_default();
    (summary.answer, rule)
}

fn is_permit(set: &PolicySet, request: &Request) -> bool {
    matches!(decide(set, request, 7), Decision::Permit(_))
}

#[test]
fn the_default_policy_passes_its_own_tests() {
    let file = PolicyFile::new("default.tests.toml", crate::DEFAULT_TESTS);
    let report = crate::testing::run_tests(&embedded(), &[file])
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    let failed: Vec<_> = report.failed().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(report.outcomes.len() >= 20);
}
