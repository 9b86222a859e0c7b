//! The Cedar schema, the base rules, decide, explain. The only crate that knows Cedar. Pure.
#![forbid(unsafe_code)]
