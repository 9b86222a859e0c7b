//! The suites of the ledger, over PostgreSQL: the very files that run over SQLite. `toy` opens its
//! ledgers in PostgreSQL when it is built for this binary.
#![allow(
    clippy::duplicate_mod,
    reason = "each suite names what it shares with the others, since it is a binary of its own, too"
)]

#[path = "altered.rs"]
mod altered;
#[path = "crash.rs"]
mod crash;
#[path = "faults.rs"]
mod faults;
#[path = "ledger.rs"]
mod ledger;
