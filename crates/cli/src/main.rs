//! The `portcullis` binary.
#![forbid(unsafe_code)]

fn main() {}
