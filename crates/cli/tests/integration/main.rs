//! Drives the real program: real git, real ssh-keygen and ssh-agent, real HTTP, real processes,
//! everything temporary. Each test has a house of its own, so they run side by side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that meets what it does not expect ends there, and says what it saw"
)]

mod house;
#[path = "../../../store/tests/postgres_server/mod.rs"]
mod postgres_server;

mod agents;
mod approvals;
mod bad_input;
mod battery;
mod bodies;
mod breaker;
mod budget;
mod clocks;
mod command_line;
mod crash;
mod demo;
mod egress;
mod egress_tls;
mod environment;
mod git;
mod hostile;
mod init;
mod inventory;
mod landing;
mod launch;
mod log;
mod models;
mod own_repository;
mod policy;
mod quorum;
mod quota;
mod restore;
mod rollout;
mod runs;
mod secrets;
mod session;
mod source_level;
mod takeover;
mod tasks;
mod upgrade;
mod websockets;
mod windows;
