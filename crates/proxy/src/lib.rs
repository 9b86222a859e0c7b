//! The data plane: seeded, weighted assignment that outlives the control plane.
//!
//! [`serve`] runs an HTTP/1.1 reverse proxy in front of two releases, *stable* and *canary*. It is
//! steered over a unix socket (see [`ProxyControl`]); when nobody steers it, it goes on serving,
//! and it gives the canary nothing once the control plane's heartbeat lapses. The ways are told in
//! `docs/proxy.md`.
//!
//! Where to begin: [`serve`] for the loop, `forward` for what happens to one request, `plane` for
//! what the control plane can change.
#![forbid(unsafe_code)]

mod assign;
mod body;
mod client;
mod control;
mod counts;
mod forward;
mod headers;
mod plane;
mod pool;
mod serve;
mod slots;
mod wire;

pub use assign::{assigned_to_canary, bucket};
pub use client::ProxyControl;
pub use serve::{Limits, Proxy, ProxyConfig, serve};
pub use wire::{
    ArmStats, Backend, ConfigAck, Fallback, HeartbeatRequest, LATENCY_BOUNDS_US, Release, Routing,
    StableAck, StableRequest, Stats, StickyKey,
};
