//! Analyses of a revision, file classes, secret rules. Pure over a diff value.
#![forbid(unsafe_code)]
