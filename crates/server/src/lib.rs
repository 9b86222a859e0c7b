//! The server: configuration, API, and the worker that performs effects.
//!
//! Every handler takes the same steps: parse → identify → decide → record → act → record the
//! outcome. [`intake`] does the first four for everything that people, hosts and services sign;
//! the gateway's handlers do them for what runs ask; [`worker`] acts.
#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod builder;
pub mod bundle;
pub mod config;
pub mod environments;
pub mod facts;
mod fault;
mod held;
pub mod home;
pub mod init;
pub mod intake;
pub mod kept;
pub mod log;
pub mod mirrors;
pub mod serve;
pub mod witness;
pub mod witnesses;
pub mod worker;
