//! Rollout statistics: anytime-valid tests, verdicts. Pure.
#![forbid(unsafe_code)]
