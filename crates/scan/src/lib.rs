//! Reads existing pipelines and finds the ways an agent reaches production.
#![forbid(unsafe_code)]
