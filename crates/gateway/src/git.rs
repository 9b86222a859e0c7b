//! Git: views that runs clone and fetch from, pushes taken apart in quarantine, landing.
//!
//! ```text
//!  upstream ──sync──▶ mirror.git ◀──alternates── view of a run (refs it may see, its own packs)
//!      ▲                  ▲                            │ fetch            ▲ packs linked
//!      │                  └──alternates── changes.git ◀┼── migrate ── quarantine ◀── push
//!      └────────────── land (push with lease) ─┘
//! ```
//!
//! The plumbing is the `git` binary, run with an environment that holds nothing of the machine's;
//! what is decided on (commands, commits, trees, paths) is parsed here, and what lands is
//! recomputed here.

pub mod body;
mod cat_file;
pub mod checkout;
pub mod command;
pub mod commit;
pub mod fetch;
pub mod land;
mod look;
pub mod manifest;
pub mod names;
pub mod objects;
pub mod pack;
pub mod path;
pub mod pkt;
pub mod prepare;
pub mod push;
pub mod quarantine;
pub mod receive;
pub mod report;
pub mod repository;
mod room;
pub mod rules;
mod tidy;
pub mod tree;
pub mod upstream;

#[cfg(test)]
mod tests;

pub use command::Git;
pub use fetch::FetchView;
pub use objects::ObjectView;
pub use quarantine::{PackLimits, Quarantine};
pub use repository::Repository;
pub use room::Remembered;
pub use upstream::{Access, Upstream};
