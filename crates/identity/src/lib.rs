//! Who is calling, and how they prove it.
//!
//! Three things, in the order in which a run meets them (the host's signature over the start is a
//! signed command like any other):
//!
//! 1. The launcher makes the run's key and proves that it holds it: [`client`].
//! 2. The server issues the run's identity for that key: an X.509-SVID ([`svid`]) and a token that
//!    is worth nothing without the key ([`token`]).
//! 3. Each request of the run carries a fresh proof, checked once and remembered: [`dpop`]. Those
//!    that follow on the same connection may be proved under a key that the first one agreed on:
//!    [`session`].
//!
//! The keys that the server itself needs live in files: [`custody`]. It is the only module here
//! that touches the disk; no module reads a clock.
#![forbid(unsafe_code)]

pub mod client;
pub mod custody;
pub mod dpop;
#[cfg(test)]
mod house;
mod jws;
pub mod key;
pub mod replay;
pub mod session;
pub mod spiffe;
pub mod svid;
pub mod token;

pub use client::{RunCredential, RunKey};
pub use key::{Ed25519Key, P256Key, P256PublicKey, Thumbprint};
pub use replay::{ReplayCache, ReplayLimits};
pub use spiffe::{SpiffeId, TrustDomain};
