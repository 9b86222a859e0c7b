//! The proxy over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test's helpers fail the test by panicking"
)]

mod assignment;
mod control;
mod counting;
mod http;
mod restart;
mod rollout;
mod support;
