//! The gateway's mechanisms: what stands between an agent and git, model endpoints and the
//! network.
//!
//! Nothing here decides. The server's handlers parse, identify, decide and record; then they act
//! through this crate, whose effects take `Recorded<P>` by value, `P` being the caller's permit.
//! So nothing is forwarded, accepted or landed without an entry in the ledger.
//!
//! - [`git`]: smart HTTP for stock clients over views that hold one run's objects, pushes in
//!   quarantine, landing.
//! - [`http`]: model endpoints with the key added on the way out, and named hosts.
#![forbid(unsafe_code)]

pub mod git;
pub mod http;
