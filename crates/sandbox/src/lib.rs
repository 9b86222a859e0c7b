//! The launcher: an agent's process, its isolation and its one way out.
//!
//! Read in this order: [`Spec`] says what is to run and within what; [`spawn`] starts it and
//! returns a [`Running`]; [`channel`] is the only way out of it. The isolation itself is built by
//! a *helper*: this very program, started again with a hidden first argument, so that nothing is
//! forked from a program with threads. Two processes result:
//!
//! ```text
//! caller ── Running ──▶ supervisor (`helper::supervise`, outside, one thread)
//!                          │  relays terminal and output, keeps the deadline, owns the cgroups
//!                          ▼
//!                       init (`helper::init`, pid 1 inside, all namespaces)
//!                          │  builds the root, reaps orphans, can't be signalled or traced inside
//!                          ▼
//!                       the command (no capabilities, Landlock, seccomp, its own session)
//! ```
//!
//! Whoever dies takes everything below along: the supervisor watches the caller's pidfd, init has
//! the supervisor's death as a `SIGKILL`, and the kernel ends a pid namespace with its init.
//!
//! Every program that calls [`spawn`] or [`probe`] must call [`helper_main`] first in `main`,
//! before any thread or async runtime starts.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod channel;
pub mod checkpoint;
mod helper;
mod launch;
mod outcome;
mod plan;
mod probe;
mod protection;
mod running;
mod spec;
mod sys;
mod wire;

pub use helper::helper_main;
pub use launch::spawn;
pub use outcome::{Captured, Ending, Outcome};
pub use probe::{ProbeResult, probe, probe_with};
pub use protection::Protection;
pub use running::{Inlets, PtyMaster, Running};
pub use spec::{
    AGENT_GID, AGENT_UID, Bind, CAPTURED_ALWAYS, CAPTURED_MAX_PORTS, Expose, HOME, Limits, RunAs,
    Spec, Terminal, Toolchain, WORKSPACE, default_binds, rust_toolchain,
};
