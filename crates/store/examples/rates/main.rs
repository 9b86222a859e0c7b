//! What the ledger does on this machine, beside what the disk does by itself.
//!
//! `cargo run --release -p portcullis-store --example rates -- [appends|paced|growth] [options]`
//!
//! - `appends`: writers that each wait for their answer; durable entries a second, and how long it
//!   takes from the append to a signed inclusion proof in the caller's hands;
//! - `paced`: the same latency while entries arrive at a fixed rate, whatever the answers do;
//! - `growth`: proofs, verification, cold start and memory at growing sizes.
//!
//! Options: `--dir DIR` (where the ledger is made; a disk that is really synced), `--seconds N`,
//! `--writers 1,16,256,4096`, `--rate N` (entries a second, for `paced`), `--sizes 10000,100000`,
//! `--store own` (also PostgreSQL, in the same scenarios: a server is started below DIR for it) or
//! `--store URL` (also the PostgreSQL there, in databases of their own). Without a mode, all three,
//! within six minutes; `--large yes` adds ten million entries to `growth`, and takes longer.
//!
//! What it prints are the tables of `docs/ledger.md`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a measurement prints, and may panic"
)]

mod append;
mod growth;
mod machine;
mod place;
#[path = "../../tests/toy/mod.rs"]
mod toy;

use std::path::PathBuf;
use std::time::Duration;

/// What was asked for.
struct Options {
    dir: PathBuf,
    time: Duration,
    writers: Vec<usize>,
    rate: u64,
    sizes: Vec<u64>,
    store: Option<String>,
    large: bool,
}

fn main() {
    if growth::started_cold() {
        return;
    }
    let mut arguments = std::env::args().skip(1).peekable();
    let mode = arguments.next_if(|argument| !argument.starts_with("--"));
    let mut options = Options {
        dir: std::env::temp_dir(),
        time: Duration::from_secs(5),
        writers: vec![1, 16, 256, 4_096],
        rate: 12_500,
        sizes: vec![10_000, 100_000, 1_000_000],
        store: None,
        large: false,
    };
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .unwrap_or_else(|| panic!("{name} takes a value"));
        match name.as_str() {
            "--dir" => options.dir = PathBuf::from(value),
            "--seconds" => options.time = Duration::from_secs(value.parse().unwrap()),
            "--writers" => options.writers = list(&value),
            "--rate" => options.rate = value.parse().unwrap(),
            "--sizes" => options.sizes = list(&value),
            "--store" => options.store = Some(value),
            "--large" => options.large = value == "yes",
            _ => panic!("unknown option {name}"),
        }
    }
    if options.large {
        options.sizes.push(10_000_000);
    }
    let limits = machine::describe(&options.dir);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let all = mode.is_none();
    let wanted = |name: &str| all || mode.as_deref() == Some(name);
    let postgres = options
        .store
        .as_deref()
        .map(|store| place::Postgres::at(&runtime, store, &options.dir));
    let places: Vec<place::Place<'_>> = std::iter::once(place::Place::Sqlite)
        .chain(postgres.as_ref().map(place::Place::Postgres))
        .collect();
    if wanted("appends") || wanted("paced") {
        append::head();
        for place in &places {
            if wanted("appends") {
                for writers in &options.writers {
                    append::closed(&runtime, &options, place, *writers);
                }
            }
            if wanted("paced") {
                append::paced(&runtime, &options, place);
            }
        }
        limits.rows();
    }
    if wanted("growth") {
        growth::measure(&options);
    }
}

fn list<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> Vec<T> {
    text.split(',')
        .map(|number| number.parse().unwrap())
        .collect()
}
