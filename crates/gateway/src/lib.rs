//! git, model endpoints and egress; forwards only with a recorded permit.
#![forbid(unsafe_code)]
