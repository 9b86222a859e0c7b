//! The state file: preallocated, two checksummed slots written in turn, and a heartbeat.
//!
//! Layout, 12 288 bytes: slot 0, slot 1 (4 096 bytes each), then the heartbeat. A slot is magic,
//! sequence number (8 bytes), length (4 bytes), SHA-256 of all that and the payload, payload. The
//! slot with the higher sequence number and a right checksum counts. The file never grows after
//! its creation, so writing works on a full disk; a crash within a write leaves the other slot.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use portcullis_model::Digest;
use serde::{Deserialize, Serialize};

use crate::wire::{Fallback, Routing};

const SLOT_BYTES: usize = 4_096;
const HEARTBEAT_OFFSET: u64 = 2 * SLOT_BYTES as u64;
const FILE_BYTES: u64 = 3 * SLOT_BYTES as u64;
const SLOT_MAGIC: &[u8; 8] = b"pcproxy1";
const HEARTBEAT_MAGIC: &[u8; 8] = b"pcbeat01";
const CHECKED_BYTES: usize = 20;
const HEADER_BYTES: usize = CHECKED_BYTES + 32;

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) routing: Option<Routing>,
    pub(crate) fallback: Option<Fallback>,
    pub(crate) epoch_floor: u64,
}

/// The last heartbeat that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) epoch: u64,
    pub(crate) unix_ms: u64,
}

/// The open state file, or only its path while the disk refuses it.
#[derive(Debug)]
pub(crate) struct Slots {
    path: PathBuf,
    file: Option<File>,
    sequence: u64,
}

impl Slots {
    /// Opens or creates the file. Never fails: without a file, state lives in memory and each
    /// [`Slots::save`] tries again.
    pub(crate) fn open(path: &Path) -> (Self, Option<Record>, Option<Beat>) {
        let mut slots = Self {
            path: path.to_owned(),
            file: None,
            sequence: 0,
        };
        match create(path) {
            Ok(file) => slots.file = Some(file),
            Err(error) => {
                tracing::warn!(
                    file = %path.display(), %error,
                    "the proxy's state file can't be made; state lives in memory"
                );
                return (slots, None, None);
            }
        }
        let found = [0, 1]
            .into_iter()
            .filter_map(|slot| slots.read(slot))
            .max_by_key(|(sequence, _)| *sequence);
        let record = found.map(|(sequence, record)| {
            slots.sequence = sequence;
            record
        });
        let beat = slots.read_beat();
        (slots, record, beat)
    }

    /// Writes `record` durably into the slot that is not the newest.
    pub(crate) fn save(&mut self, record: &Record) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(create(&self.path)?);
        }
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let payload = serde_json::to_vec(record)?;
        let sequence = self.sequence.saturating_add(1);
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend_from_slice(SLOT_MAGIC);
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        let sum = Digest::of_parts(&[&bytes, &payload]);
        bytes.extend_from_slice(sum.as_bytes());
        bytes.extend_from_slice(&payload);
        if bytes.len() > SLOT_BYTES {
            return Err(io::Error::other("the configuration is larger than a slot"));
        }
        file.write_all_at(&bytes, slot_offset(sequence))?;
        file.sync_data()?;
        self.sequence = sequence;
        Ok(())
    }

    /// Notes a heartbeat. Not synced: it only has to survive the process, and after a crash of
    /// the machine a stale one is right.
    pub(crate) fn beat(&self, beat: Beat) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = Vec::with_capacity(56);
        bytes.extend_from_slice(HEARTBEAT_MAGIC);
        bytes.extend_from_slice(&beat.epoch.to_be_bytes());
        bytes.extend_from_slice(&beat.unix_ms.to_be_bytes());
        let sum = Digest::of(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        file.write_all_at(&bytes, HEARTBEAT_OFFSET)
    }

    fn read(&self, slot: u64) -> Option<(u64, Record)> {
        let mut bytes = [0; SLOT_BYTES];
        self.file
            .as_ref()?
            .read_exact_at(&mut bytes, slot_offset(slot))
            .ok()?;
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let (checked, sum) = header.split_at_checked(CHECKED_BYTES)?;
        let length = u32::from_be_bytes(checked.get(16..20)?.try_into().ok()?);
        let payload = rest.get(..usize::try_from(length).ok()?)?;
        let right = checked.starts_with(SLOT_MAGIC)
            && Digest::of_parts(&[checked, payload]).as_bytes() == sum;
        let sequence = u64::from_be_bytes(checked.get(8..16)?.try_into().ok()?);
        let record = serde_json::from_slice(payload).ok()?;
        right.then_some((sequence, record))
    }

    fn read_beat(&self) -> Option<Beat> {
        let mut bytes = [0; 56];
        self.file
            .as_ref()?
            .read_exact_at(&mut bytes, HEARTBEAT_OFFSET)
            .ok()?;
        let (checked, sum) = bytes.split_at_checked(24)?;
        let right = checked.starts_with(HEARTBEAT_MAGIC) && Digest::of(checked).as_bytes() == sum;
        let beat = Beat {
            epoch: u64::from_be_bytes(checked.get(8..16)?.try_into().ok()?),
            unix_ms: u64::from_be_bytes(checked.get(16..24)?.try_into().ok()?),
        };
        right.then_some(beat)
    }
}

fn slot_offset(sequence: u64) -> u64 {
    (sequence % 2) * SLOT_BYTES as u64
}

/// Opens the file and writes every byte it lacks, so that the disk has given all of its space.
fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let length = file.metadata()?.len();
    if length < FILE_BYTES {
        let missing = usize::try_from(FILE_BYTES - length).map_err(io::Error::other)?;
        file.write_all_at(&vec![0; missing], length)?;
        file.sync_all()?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u64) -> Record {
        Record {
            routing: None,
            fallback: None,
            epoch_floor: epoch,
        }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (mut slots, none, _) = Slots::open(&path);
        assert_eq!(none, None);
        for epoch in 1..=5 {
            slots.save(&record(epoch)).unwrap();
            assert_eq!(Slots::open(&path).1, Some(record(epoch)));
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), FILE_BYTES);
        // A write torn anywhere leaves the one before.
        let whole = std::fs::read(&path).unwrap();
        let newest = usize::try_from(slot_offset(5)).unwrap();
        for at in (0..HEADER_BYTES + 40).step_by(3) {
            let mut torn = whole.clone();
            torn[newest + at] ^= 1;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(Slots::open(&path).1, Some(record(4)), "{at}");
        }
        std::fs::write(&path, vec![0xff; whole.len()]).unwrap();
        assert_eq!(Slots::open(&path).1, None);
    }

    #[test]
    fn a_beat_is_kept_or_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (slots, _, none) = Slots::open(&path);
        assert_eq!(none, None);
        let beat = Beat {
            epoch: 3,
            unix_ms: 77,
        };
        slots.beat(beat).unwrap();
        assert_eq!(Slots::open(&path).2, Some(beat));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[usize::try_from(HEARTBEAT_OFFSET).unwrap() + 20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Slots::open(&path).2, None);
    }

    #[test]
    fn a_place_that_cannot_hold_it_is_not_fatal_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("later/state");
        let (mut slots, _, _) = Slots::open(&path);
        assert!(slots.save(&record(1)).is_err());
        std::fs::create_dir(dir.path().join("later")).unwrap();
        slots.save(&record(2)).unwrap();
        assert_eq!(Slots::open(&path).1, Some(record(2)));
    }
}
