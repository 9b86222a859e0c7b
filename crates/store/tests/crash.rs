//! The ledger killed with SIGKILL: at each step of a write, and at random moments.
//!
//! The test starts itself as a child that appends in a loop and reports each acknowledged entry on
//! a pipe; the child dies, the parent opens the same directory and holds it against the report.
//! `PORTCULLIS_CRASH_ROUNDS` sets how many random kills there are, `PORTCULLIS_CRASH_SEED` with
//! which seed they begin. A killed process loses nothing that the kernel has, so this shows that
//! the steps are in the right order, not that the disk syncs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may panic, and says with which seed"
)]

mod toy;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use portcullis_evidence::merkle::{verify_consistency, verify_inclusion};
use portcullis_model::Fold;
use portcullis_store::{
    CheckpointSigner, Faults, Ledger, LedgerOptions, RecordedIn, SignedCheckpoint, Step,
};
use toy::{Event, Toy, check, grant, options_in, trip};

/// Kills at random moments in the ordinary test run.
const ROUNDS: u64 = 12;
/// Threads of the child that append at once.
const WRITERS: u64 = 4;
/// Environment of the child: where, the first nonce, and at which occurrence of which step it
/// dies.
const DIR: &str = "PORTCULLIS_CRASH_DIR";
const NONCE: &str = "PORTCULLIS_CRASH_NONCE";
const STEP: &str = "PORTCULLIS_CRASH_STEP";
const COUNT: &str = "PORTCULLIS_CRASH_COUNT";

/// One line of the child: an entry that was acknowledged.
#[derive(Debug)]
struct Acknowledged {
    index: u64,
    what: String,
    /// The checkpoint it came with.
    note: Option<String>,
    recorded: String,
}

#[test]
fn a_kill_at_any_step_loses_and_halves_nothing() {
    let mut total = 0;
    for step in Step::ALL {
        let dir = tempfile::tempdir().unwrap();
        for count in [1, 3] {
            let before = Ledger::<Toy>::open(dir.path(), options_in(dir.path(), Faults::default()))
                .map(|(ledger, _)| ledger.handle().size())
                .unwrap();
            let mut child = start(dir.path(), before, Some((step, count)));
            let acknowledged = collect(&mut child, None);
            assert!(!child.wait().unwrap().success(), "{step} was never reached");
            examine(dir.path(), &acknowledged, &format!("{step}, time {count}"));
            total += acknowledged.len();
        }
    }
    assert!(total > 20, "the children acknowledged {total} entries");
}

#[test]
fn a_kill_at_a_random_moment_loses_and_halves_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let rounds: u64 = number("PORTCULLIS_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let seed: u64 = number("PORTCULLIS_CRASH_SEED").unwrap_or(1);
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for round in seed..seed + rounds {
        let mut child = start(dir.path(), round * 1_000_000, None);
        let patience = Duration::from_micros(mix(round) % 150_000);
        all.extend(collect(&mut child, Some(patience)));
        child.wait().unwrap();
        examine(dir.path(), &all, &format!("seed {round}"));
    }
    assert!(!all.is_empty(), "no child lived long enough to append");
}

#[test]
fn a_kill_while_a_ledger_is_made_leaves_one_that_opens() {
    for round in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = start(dir.path(), 0, None);
        std::thread::sleep(Duration::from_micros(mix(round) % 40_000));
        child.kill().unwrap();
        let acknowledged = collect(&mut child, Some(Duration::ZERO));
        child.wait().unwrap();
        let (ledger, _) =
            Ledger::<Toy>::open(dir.path(), options_in(dir.path(), Faults::default())).unwrap();
        drop(ledger);
        examine(dir.path(), &acknowledged, &format!("start {round}"));
    }
}

/// With snapshots every few entries.
fn often(dir: &Path, faults: Faults) -> LedgerOptions {
    LedgerOptions {
        snapshot_every: 8,
        ..options_in(dir, faults)
    }
}

/// SplitMix64: the same seed gives the same moments.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The child's name in this binary, where this file may be a module.
fn child_test() -> String {
    let module = module_path!().split_once("::");
    module.map_or_else(String::new, |(_, module)| format!("{module}::")) + "child_that_appends"
}

fn start(dir: &Path, nonce: u64, die: Option<(Step, u64)>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            &child_test(),
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .env(NONCE, nonce.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some((step, count)) = die {
        command
            .env(STEP, step.to_string())
            .env(COUNT, count.to_string());
    }
    command.spawn().unwrap()
}

/// What the child acknowledged until it died; killed after `patience` from its first line on.
fn collect(child: &mut Child, patience: Option<Duration>) -> Vec<Acknowledged> {
    let output = child.stdout.take().unwrap();
    let (sender, lines): (_, Receiver<String>) = channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(at) = line.find("ack ") {
                let _parent_gone = sender.send(line[at + 4..].to_owned());
            }
        }
    });
    let mut acknowledged = Vec::new();
    let limit = Duration::from_secs(20);
    let begun = Instant::now();
    let mut kill_at = patience.map_or(begun + limit, |patience| begun + limit + patience);
    loop {
        let left = kill_at.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => {
                if let Some(patience) = patience
                    && acknowledged.is_empty()
                {
                    kill_at = Instant::now() + patience;
                }
                acknowledged.extend(parse(&line));
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                child.kill().unwrap();
                break;
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    acknowledged.extend(lines.iter().filter_map(|line| parse(&line)));
    reader.join().unwrap();
    acknowledged
}

/// `None` for a line that was cut off by the kill.
fn parse(line: &str) -> Option<Acknowledged> {
    let mut fields = line.strip_suffix(" end")?.split('|');
    let index = fields.next()?.parse().ok()?;
    let what = fields.next()?.to_owned();
    let recorded = fields.next()?.to_owned();
    let note = fields.next()?.replace('~', "\n");
    Some(Acknowledged {
        index,
        what,
        recorded,
        note: (!note.is_empty()).then_some(note),
    })
}

fn describe(event: &Event) -> String {
    match event {
        Event::Granted { nonce, .. } => format!("grant {nonce}"),
        Event::Tripped { why, .. } => format!("trip {why}"),
    }
}

/// Opens what the child left and holds it against what it had acknowledged.
fn examine(dir: &Path, acknowledged: &[Acknowledged], case: &str) {
    let report = check(dir);
    assert!(report.is_sound(), "{case}: {report:?}");
    let (ledger, opened) = Ledger::<Toy>::open(dir, options_in(dir, Faults::default())).unwrap();
    assert!(opened.warnings.is_empty(), "{case}: {opened:?}");
    let handle = ledger.handle();
    let last = handle.checkpoint();
    let size = handle.size();
    assert_eq!(last.size, size, "{case}: everything that stands is signed");

    // Every acknowledged entry is there, as it was acknowledged. What was pending may be lost.
    let mut refolded = Toy::empty();
    let mut stands = BTreeMap::new();
    for index in 0..size {
        let event = handle.event(index).unwrap();
        refolded.apply(&event).unwrap();
        stands.insert(index, describe(&event));
    }
    for ack in acknowledged.iter().filter(|ack| ack.recorded != "Pending") {
        assert_eq!(stands.get(&ack.index), Some(&ack.what), "{case}: {ack:?}");
    }
    assert_eq!(refolded, *handle.state(), "{case}");

    // Every checkpoint that was signed is of this tree.
    let key = toy::key();
    for ack in acknowledged.iter().rev().take(50) {
        let Some(note) = &ack.note else { continue };
        let signed = SignedCheckpoint::verify(note, key.verifier()).unwrap();
        assert!(
            signed.size <= size,
            "{case}: signed {} of {size}",
            signed.size
        );
        let proof = handle.consistency_proof(signed.size, size).unwrap();
        verify_consistency(signed.size, signed.root, size, last.root, &proof).unwrap();
        let leaf = handle.entry(ack.index).unwrap().leaf;
        let proof = handle.inclusion_proof(ack.index, signed.size).unwrap();
        verify_inclusion(leaf, ack.index, signed.size, &proof, signed.root).unwrap();
    }
}

#[test]
#[ignore = "the child of the tests above"]
fn child_that_appends() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let first: u64 = std::env::var(NONCE).unwrap().parse().unwrap();
    let dir = Path::new(&dir);
    let (ledger, _) = Ledger::<Toy>::open(dir, often(dir, deadly())).unwrap();
    let handle = ledger.handle();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let handle = handle.clone();
            scope.spawn(move || {
                for number in 0.. {
                    let nonce = first + number * WRITERS + writer;
                    let command = if writer == 0
                        && std::env::var(STEP).is_ok_and(|step| step.starts_with("reserve"))
                    {
                        trip(&nonce.to_string())
                    } else {
                        grant(nonce)
                    };
                    let Ok(receipt) = handle.submit_blocking(command) else {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    let note = receipt
                        .checkpoint
                        .map_or(String::new(), |signed| signed.note.replace('\n', "~"));
                    let what = describe(&receipt.events[0]);
                    let line = format!(
                        "ack {}|{what}|{:?}|{note} end\n",
                        receipt.first, receipt.recorded
                    );
                    // One write, so that a line is whole or cut and never mixed.
                    if io::stdout().lock().write_all(line.as_bytes()).is_err() {
                        return;
                    }
                    // Now and then the sequencer has nothing to do.
                    if number % 4 == 3 {
                        std::thread::sleep(Duration::from_millis(80));
                    }
                    assert!(receipt.recorded != RecordedIn::Pending || writer == 0);
                }
            });
        }
    });
}

/// Dies at the step that the environment names, when it comes for the time that it says; to reach
/// the steps of the reserve, the database fails every other time.
fn deadly() -> Faults {
    let Ok(step) = std::env::var(STEP) else {
        return Faults::default();
    };
    let count: u64 = std::env::var(COUNT).unwrap().parse().unwrap();
    let reserve = step.starts_with("reserve");
    let seen = AtomicU64::new(0);
    let planned = AtomicU64::new(0);
    Faults::new(move |at| {
        if at.to_string() == step && seen.fetch_add(1, Ordering::SeqCst) + 1 == count {
            die();
        }
        if reserve
            && at == Step::Planned
            && planned.fetch_add(1, Ordering::SeqCst).is_multiple_of(2)
        {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    })
}

fn die() {
    let pid = rustix::process::getpid();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    std::thread::sleep(Duration::from_secs(60));
    panic!("this process survived SIGKILL");
}
