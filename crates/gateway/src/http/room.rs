//! Memory for bodies that are held while they are looked at, bounded for all runs together.
//!
//! Each body has a bound of its own; a thousand of them at a time would still be more than a server
//! has. So what is held beyond a body's first bytes takes room, which comes back when the body is
//! gone. Each run has a share, so that one whose bodies come slowly leaves room to the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use portcullis_model::{Refusal, RunId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::websocket::Pace;

/// Most bytes that are held for all runs together (512 MiB).
pub const ROOM_MAX_BYTES: usize = 512 * 1024 * 1024;
/// Most of them for one run (128 MiB): a body of 8 MiB and what it becomes once it is unpacked.
pub const ROOM_OF_RUN_MAX_BYTES: usize = 128 * 1024 * 1024;
/// What each body may hold without taking room: about what a connection's buffers hold.
const FREE_BYTES: usize = 64 * 1024;
/// Room is given in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;
/// Longest that a body waits for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// All the room there is.
#[derive(Debug)]
pub struct Rooms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: Arc<Semaphore>,
    /// Pieces of each run.
    share: usize,
    /// Of those that hold any.
    runs: Mutex<BTreeMap<RunId, Weak<Semaphore>>>,
    /// The paces of those that have WebSockets.
    paces: Mutex<BTreeMap<RunId, Weak<Pace>>>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self::of_bytes(ROOM_MAX_BYTES, ROOM_OF_RUN_MAX_BYTES)
    }
}

impl Rooms {
    fn of_bytes(total: usize, share: usize) -> Self {
        Self(Arc::new(Inner {
            total: Arc::new(Semaphore::new(total / PIECE_BYTES)),
            share: share / PIECE_BYTES,
            runs: Mutex::default(),
            paces: Mutex::default(),
        }))
    }

    /// A run's share of it.
    pub fn of(&self, run: RunId) -> Room {
        Room {
            all: Arc::clone(&self.0),
            run,
        }
    }
}

/// A run's share.
#[derive(Clone, Debug)]
pub struct Room {
    all: Arc<Inner>,
    run: RunId,
}

impl Room {
    fn own(&self) -> Arc<Semaphore> {
        let mut runs = self.all.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = runs.get(&self.run).and_then(Weak::upgrade) {
            return own;
        }
        // Those that hold nothing any more make place for the ones that do.
        runs.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.all.share));
        runs.insert(self.run, Arc::downgrade(&own));
        own
    }

    /// The pace that all WebSockets of the run share.
    pub(super) fn pace(&self) -> Arc<Pace> {
        let mut paces = self
            .all
            .paces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = paces.get(&self.run).and_then(Weak::upgrade) {
            return pace;
        }
        paces.retain(|_, pace| pace.strong_count() > 0);
        let pace = Arc::new(Pace::default());
        paces.insert(self.run, Arc::downgrade(&pace));
        pace
    }

    fn total(&self) -> Arc<Semaphore> {
        Arc::clone(&self.all.total)
    }
}

/// Room that is taken; it comes back when this is dropped.
#[derive(Debug, Default)]
struct Place {
    taken: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    pieces: usize,
}

impl Place {
    /// How many pieces are missing for a body of so many bytes.
    fn missing(&self, bytes: usize) -> u32 {
        let needed = bytes.saturating_sub(FREE_BYTES).div_ceil(PIECE_BYTES);
        u32::try_from(needed.saturating_sub(self.pieces)).unwrap_or(u32::MAX)
    }

    fn add(&mut self, own: OwnedSemaphorePermit, total: OwnedSemaphorePermit) {
        self.pieces = self.pieces.saturating_add(own.num_permits());
        match &mut self.taken {
            Some((first, second)) => {
                first.merge(own);
                second.merge(total);
            }
            None => self.taken = Some((own, total)),
        }
    }

    async fn grow(&mut self, room: &Room, bytes: usize) -> Result<(), Refusal> {
        let missing = self.missing(bytes);
        if missing == 0 {
            return Ok(());
        }
        let waiting = async {
            let own = room.own().acquire_many_owned(missing).await;
            let total = room.total().acquire_many_owned(missing).await;
            own.ok().zip(total.ok())
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Some((own, total))) => {
                self.add(own, total);
                Ok(())
            }
            Ok(None) | Err(_) => Err(full()),
        }
    }

    fn grow_now(&mut self, room: &Room, bytes: usize) -> Result<(), Refusal> {
        let missing = self.missing(bytes);
        if missing == 0 {
            return Ok(());
        }
        let own = room.own().try_acquire_many_owned(missing);
        let total = room.total().try_acquire_many_owned(missing);
        let (Ok(own), Ok(total)) = (own, total) else {
            return Err(full());
        };
        self.add(own, total);
        Ok(())
    }
}

fn full() -> Refusal {
    Refusal::unavailable(
        "no-room-for-body",
        "too many large requests are being read at once",
    )
    .expected(&format!(
        "{ROOM_MAX_BYTES} bytes of them in all, {ROOM_OF_RUN_MAX_BYTES} of one run"
    ))
    .next("repeat it in some seconds, with fewer at a time")
}

/// A body that is being read.
#[derive(Debug)]
pub(super) struct Held<'room> {
    bytes: Vec<u8>,
    place: Place,
    room: &'room Room,
}

impl<'room> Held<'room> {
    pub(super) fn new(room: &'room Room) -> Self {
        Self {
            bytes: Vec::new(),
            place: Place::default(),
            room,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes more of it in, once there is room.
    pub(super) async fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let after = grown(self.bytes.len(), self.bytes.capacity(), piece.len());
        self.place.grow(self.room, after).await?;
        self.put(piece, after);
        Ok(())
    }

    /// The same for who can't wait.
    pub(super) fn push_now(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let after = grown(self.bytes.len(), self.bytes.capacity(), piece.len());
        self.place.grow_now(self.room, after)?;
        self.put(piece, after);
        Ok(())
    }

    fn put(&mut self, piece: &[u8], after: usize) {
        // To the byte, so that what was counted is what is taken.
        self.bytes
            .reserve_exact(after.saturating_sub(self.bytes.len()));
        self.bytes.extend_from_slice(piece);
    }

    /// All of it; its room comes back with the last handle on these bytes.
    pub(super) fn finish(self) -> Bytes {
        if self.place.taken.is_none() {
            return self.bytes.into();
        }
        Bytes::from_owner(Roomed {
            bytes: self.bytes,
            _place: self.place,
        })
    }
}

/// How much memory a buffer takes once `more` was added: half as much again where it must grow.
fn grown(length: usize, capacity: usize, more: usize) -> usize {
    let needed = length.saturating_add(more);
    if needed <= capacity {
        capacity
    } else {
        needed.max(capacity.saturating_add(capacity / 2))
    }
}

struct Roomed {
    bytes: Vec<u8>,
    _place: Place,
}

impl AsRef<[u8]> for Roomed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: usize = 1024 * 1024;
    const TOTAL: usize = 16 * MEBIBYTE;
    const SHARE: usize = 4 * MEBIBYTE;

    fn rooms() -> Rooms {
        Rooms::of_bytes(TOTAL, SHARE)
    }

    fn taken(rooms: &Rooms) -> usize {
        TOTAL - rooms.0.total.available_permits() * PIECE_BYTES
    }

    #[tokio::test]
    async fn small_bodies_take_none_and_the_room_of_large_ones_comes_back_with_them() {
        let rooms = rooms();
        let room = rooms.of(RunId(1));
        let mut small = Held::new(&room);
        small.push(&[7; FREE_BYTES / 2]).await.unwrap();
        let small = small.finish();
        assert_eq!(taken(&rooms), 0);
        let mut large = Held::new(&room);
        for _ in 0..20 {
            large.push(&[7; MEBIBYTE / 10]).await.unwrap();
        }
        let large = large.finish();
        assert_eq!(large.len(), 20 * (MEBIBYTE / 10));
        let held = taken(&rooms);
        // What the buffer takes, not what is in it.
        assert!(
            (2 * MEBIBYTE - 2 * FREE_BYTES..=3 * MEBIBYTE).contains(&held),
            "{held}"
        );
        let part = large.slice(..10);
        drop(large);
        assert_eq!(taken(&rooms), held);
        drop((part, small));
        assert_eq!(taken(&rooms), 0);
    }

    #[tokio::test]
    async fn a_run_fills_its_share_and_all_of_them_what_there_is() {
        let rooms = rooms();
        let mut held = Vec::new();
        for run in 0..8 {
            let room = rooms.of(RunId(run));
            let own = std::iter::repeat_with(|| {
                let mut body = Held::new(&room);
                body.push_now(&vec![7; MEBIBYTE]).map(|()| body.finish())
            });
            let own: Vec<Bytes> = own.map_while(Result::ok).take(100).collect();
            let expected = if run < 4 { SHARE / MEBIBYTE } else { 0 };
            // The first bytes of each are free, which is one body more at most.
            assert!(
                (expected..=expected + 1).contains(&own.len()),
                "{run}: {}",
                own.len()
            );
            held.extend(own);
        }
        let room = rooms.of(RunId(9));
        let refusal = Held::new(&room)
            .push_now(&vec![7; 2 * MEBIBYTE])
            .unwrap_err();
        assert_eq!(refusal.code, "no-room-for-body");
        assert_eq!(refusal.kind, portcullis_model::RefusalKind::Unavailable);
        drop(held);
        assert_eq!(taken(&rooms), 0);
    }

    #[test]
    fn the_sockets_of_a_run_share_one_pace() {
        let rooms = rooms();
        let (first, other) = (rooms.of(RunId(1)).pace(), rooms.of(RunId(2)).pace());
        assert!(Arc::ptr_eq(&first, &rooms.of(RunId(1)).pace()));
        assert!(!Arc::ptr_eq(&first, &other));
    }

    #[tokio::test]
    async fn who_waits_gets_what_another_gives_back() {
        let rooms = rooms();
        let room = rooms.of(RunId(1));
        let mut first = Held::new(&room);
        first.push(&vec![7; SHARE]).await.unwrap();
        let first = first.finish();
        let waiting = rooms.of(RunId(1));
        let second = tokio::spawn(async move {
            let mut second = Held::new(&waiting);
            second.push(&vec![7; MEBIBYTE]).await.map(|()| second.len())
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert_eq!(second.await.unwrap().unwrap(), MEBIBYTE);
        assert_eq!(taken(&rooms), 0);
    }
}
