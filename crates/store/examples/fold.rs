//! Starting on a ledger whose state is the real one: tasks, runs, what they did, changes that landed.
//!
//! `cargo run --release -p portcullis-store --example fold -- [--dir DIR] [--sizes 10000,1000000]`
//!
//! Each run is a signed task, a start, 400 calls, and an end; beside every 16th a
//! person's change is checked, tested, approved and lands. The entries are those that the fold's own tests make: true in
//! all that the fold looks at, with empty signatures, which it does not. A start is a new process
//! whose files the kernel has cached; "without" is the rate at which everything that the ledger
//! explains is built anew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    dead_code,
    reason = "a measurement prints, and may panic; it shares what tests use"
)]

#[path = "rates/machine.rs"]
mod machine;
#[path = "../../flow/src/tests/world.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_evidence::signer::Signer;
use portcullis_flow::{Command, State, change, release, run, state, work};
use portcullis_model::event::{CallObserved, LeaseKind, RunEnd, RunEnded};
use portcullis_model::{Actor, Body, LedgerIndex, RunId, Secret};
use portcullis_store::{Ledger, LedgerHandle, LedgerOptions, LogKey, ManualClock};
use world::{World, control, human, in_run};

/// Calls of each run.
const CALLS: u64 = 400;
/// Most of them in one command.
const AT_ONCE: u64 = 200;
/// Runs of which one lands a change.
const LANDS: u64 = 16;
const CHILD: &str = "PORTCULLIS_FOLD_CHILD";

fn options(clock: Arc<ManualClock>) -> LedgerOptions {
    LedgerOptions {
        clock,
        ..LedgerOptions::new(LogKey::new(
            world::ORIGIN.parse().unwrap(),
            Signer::from_seed(&Secret::new([9; 32])).unwrap(),
        ))
    }
}

fn main() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return start_cold(Path::new(&dir));
    }
    let mut dir = std::env::temp_dir();
    let mut sizes = vec![10_000, 100_000, 1_000_000];
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap();
        match name.as_str() {
            "--dir" => dir = PathBuf::from(value),
            "--sizes" => sizes = value.split(',').map(|size| size.parse().unwrap()).collect(),
            _ => panic!("unknown option {name}"),
        }
    }
    let _limits = machine::describe(&dir);
    println!(
        "\n| entries | runs | changes landed | snapshot | start from a snapshot | without | folded | a look |\n|---|---|---|---|---|---|---|---|"
    );
    let place = tempfile::tempdir_in(&dir).unwrap();
    let clock = Arc::new(ManualClock::new(world::genesis().created));
    for size in sizes {
        fill(place.path(), &clock, size);
        row(place.path());
    }
}

/// What the builder of entries sees, and what it makes of it.
struct Filler {
    handle: LedgerHandle<State>,
    clock: Arc<ManualClock>,
    world: World,
    runs: u64,
}

impl Filler {
    fn submit(&mut self, actor: Actor, bodies: Vec<Body>) -> LedgerIndex {
        let first = self
            .handle
            .submit_blocking(Command::of(actor, bodies))
            .unwrap()
            .first;
        self.world.state = (*self.handle.state()).clone();
        first
    }

    fn run(&mut self) {
        self.runs += 1;
        self.clock.advance(1_000);
        self.world.later(1_000);
        let task = self.world.task();
        let accepted = self.world.accepted(&task);
        self.submit(human(task.signer.as_str()), vec![accepted.into()]);
        let started = self.world.start(&task, "laptop", &[]);
        let run = RunId(self.submit(world::host("laptop"), vec![started.into()]));
        let call = CallObserved {
            run,
            lease: LeaseKind::Host("example.org:443".to_owned()),
            model_asked: None,
            model_served: None,
            status: 200,
            bytes: (1_024, 65_536),
            request: None,
            answer: None,
        };
        for _ in 0..CALLS / AT_ONCE {
            let calls = (0..AT_ONCE).map(|_| call.clone().into()).collect();
            self.submit(in_run(run), calls);
        }
        if self.runs.is_multiple_of(LANDS) {
            self.land();
        }
        let ended = RunEnded {
            run,
            end: RunEnd::Rights,
            envelope: None,
        };
        self.submit(control(), vec![ended.into()]);
    }

    /// A change lands, by the way that the fold's tests take: in the builder's own state, and then
    /// what it recorded there in the ledger.
    fn land(&mut self) {
        self.world.log.clear();
        let head = 0x1000 + self.runs;
        self.world.landed(head);
        for event in std::mem::take(&mut self.world.log) {
            self.handle
                .submit_blocking(Command::one(event.actor, event.body))
                .unwrap();
        }
        self.world.state = (*self.handle.state()).clone();
    }
}

fn fill(dir: &Path, clock: &Arc<ManualClock>, size: u64) {
    let (ledger, _) = Ledger::<State>::open(dir, options(Arc::clone(clock))).unwrap();
    let handle = ledger.handle();
    if handle.size() == 0 {
        let genesis = Command::one(control(), world::genesis());
        handle.submit_blocking(genesis).unwrap();
    }
    let mut world = World::team();
    world.state = (*handle.state()).clone();
    world.now = portcullis_store::Clock::wall(&**clock);
    let runs = world.state.runs.len() as u64;
    // What was signed before has a number below.
    for _ in 0..runs * 8 {
        let _used = world.nonce();
    }
    let mut filler = Filler {
        handle,
        clock: Arc::clone(clock),
        world,
        runs,
    };
    while filler.handle.size() < size {
        filler.run();
    }
    drop(filler);
    ledger.close().unwrap();
}

fn row(dir: &Path) {
    let (ledger, _) =
        Ledger::<State>::open(dir, options(Arc::new(ManualClock::new(newest(dir))))).unwrap();
    let state = ledger.handle().state();
    let (size, runs, landed) = (state.size(), state.runs.len(), state.changes.len());
    let look = look_us(&state);
    drop(state);
    ledger.close().unwrap();
    let folder = dir.join("snapshots");
    let snapshot = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .max()
        .unwrap_or(0);
    let (with, _) = cold(dir);
    let aside = dir.join("aside");
    std::fs::rename(&folder, &aside).unwrap();
    let (without, took) = cold(dir);
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    println!(
        "| {size} | {runs} | {landed} | {} KiB | {with} | {without} | {:.0} entries/s | {look:.1} µs |",
        snapshot / 1_024,
        size as f64 / took.as_secs_f64()
    );
}

/// How long it takes to find out what is to be done, in microseconds; the median.
fn look_us(state: &State) -> f64 {
    let now = world::genesis().created.plus_ms(365 * world::DAY_MS);
    let mut times: Vec<f64> = (0..101)
        .map(|_| {
            let begin = Instant::now();
            std::hint::black_box(work::plan(state, now));
            begin.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The time at which the ledger stands.
fn newest(_dir: &Path) -> portcullis_model::Timestamp {
    // Later than any entry: a start takes that as it is.
    world::genesis().created.plus_ms(365 * world::DAY_MS)
}

fn cold(dir: &Path) -> (String, Duration) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .env(CHILD, dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (micros, told) = text.trim().split_once(' ').unwrap();
    (
        told.to_owned(),
        Duration::from_micros(micros.parse().unwrap()),
    )
}

fn start_cold(dir: &Path) {
    let clock = Arc::new(ManualClock::new(newest(dir)));
    let start = Instant::now();
    let options = LedgerOptions {
        snapshot_every: u64::MAX,
        ..options(clock)
    };
    let (ledger, report) = Ledger::<State>::open(dir, options).unwrap();
    let took = start.elapsed();
    assert!(report.warnings.is_empty(), "{report:?}");
    println!(
        "{} {took:.3?}, {} MiB",
        took.as_micros(),
        machine::resident_mib()
    );
    drop(ledger);
}
