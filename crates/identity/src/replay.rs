//! Remembers which proofs were used, for as long as they could be used again.
//!
//! The memory is bounded three ways: by time (a proof is forgotten once it is too old to be
//! accepted anyway), in all, and per holder (so that one run cannot fill it for the others). When
//! a bound is reached it refuses: forgetting a live proof would let it be used twice.
//!
//! It lives in memory alone. A restart forgets it, so proofs from before the start are refused.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use portcullis_model::{Digest, Refusal, Timestamp};

use crate::key::Thumbprint;

/// How many parts the memory has, each with a lock of its own. A holder belongs to one part.
const SHARDS: usize = 16;

/// The bounds of a [`ReplayCache`], in proofs; each takes about 60 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLimits {
    /// In all.
    pub total: usize,
    /// Of one holder's key.
    pub per_holder: usize,
}

impl Default for ReplayLimits {
    /// A million in all and a quarter of them for one holder: 10,000 proofs a second from one
    /// run for a whole window of 25 s, at about 60 MB when full.
    fn default() -> Self {
        Self {
            total: 1 << 20,
            per_holder: 1 << 18,
        }
    }
}

/// The proofs seen within the window.
#[derive(Debug)]
pub struct ReplayCache {
    shards: [Mutex<Shard>; SHARDS],
    held: AtomicUsize,
    limits: ReplayLimits,
}

#[derive(Debug)]
struct Shard {
    holders: HashMap<Thumbprint, Holder>,
    /// Proofs that die in or before this second have been forgotten, so they are refused even if
    /// the clock goes back. In seconds since 1970.
    forgotten_to: u64,
}

#[derive(Debug, Default)]
struct Holder {
    seen: HashSet<[u8; 16]>,
    /// The same proofs by the last second in which they are alive.
    by_death: BTreeMap<u64, Vec<[u8; 16]>>,
}

impl ReplayCache {
    /// An empty memory for proofs that live `window_s` seconds from the second they are made in.
    /// Proofs from before the second of `started` are refused: an earlier process may have taken
    /// them. What remains open is that second itself.
    pub fn new(limits: ReplayLimits, window_s: u64, started: Timestamp) -> Self {
        let forgotten_to = (started.as_ms() / 1_000 + window_s).saturating_sub(1);
        Self {
            shards: std::array::from_fn(|_| {
                Mutex::new(Shard {
                    holders: HashMap::new(),
                    forgotten_to,
                })
            }),
            held: AtomicUsize::new(0),
            limits,
        }
    }

    /// Takes note of the proof `id` of `holder`, alive up to and including the second
    /// `last_second` (since 1970).
    ///
    /// # Errors
    /// It was used before (`dpop-replayed`), it was forgotten already (`dpop-stale`), or a bound
    /// is reached (`dpop-replay-full`, `dpop-replay-holder-full`).
    pub(crate) fn insert(
        &self,
        holder: &Thumbprint,
        id: &str,
        last_second: u64,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let now_second = now.as_ms() / 1_000;
        if self.attempt(holder, id, last_second, now_second)? {
            return Ok(());
        }
        // The room may be taken by proofs that died in parts nobody has called on since.
        for shard in &self.shards {
            shard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .forget(now_second, &self.held);
        }
        if self.attempt(holder, id, last_second, now_second)? {
            return Ok(());
        }
        Err(full("dpop-replay-full", "the server has too many requests"))
    }

    /// Takes note of a proof under one lock; `false` if there is no room in all.
    fn attempt(
        &self,
        holder: &Thumbprint,
        id: &str,
        last_second: u64,
        now_second: u64,
    ) -> Result<bool, Refusal> {
        let key = short_digest(id);
        let mut shard = self.shard(holder);
        shard.forget(now_second, &self.held);
        if last_second <= shard.forgotten_to {
            return Err(Refusal::denied(
                "dpop-stale",
                "this proof is older than what is remembered of earlier proofs",
            )
            .next("make a new proof and repeat the request"));
        }
        if let Some(known) = shard.holders.get(holder) {
            if known.seen.contains(&key) {
                return Err(
                    Refusal::denied("dpop-replayed", "this proof has been used before")
                        .next("make a new proof for each request"),
                );
            }
            if known.seen.len() >= self.limits.per_holder {
                return Err(full(
                    "dpop-replay-holder-full",
                    "this run makes too many requests",
                ));
            }
        }
        if !self.reserve() {
            return Ok(false);
        }
        let known = shard.holders.entry(*holder).or_default();
        known.seen.insert(key);
        known.by_death.entry(last_second).or_default().push(key);
        Ok(true)
    }

    /// How many proofs are remembered now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn reserve(&self) -> bool {
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                (held < self.limits.total).then_some(held + 1)
            })
            .is_ok()
    }

    fn shard(&self, holder: &Thumbprint) -> std::sync::MutexGuard<'_, Shard> {
        let [first, ..] = holder.as_bytes();
        let [zeroth, ..] = &self.shards;
        self.shards
            .get(usize::from(*first) % SHARDS)
            .unwrap_or(zeroth)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// Forgets what died before `now_second`; at most once a second it does any work.
    fn forget(&mut self, now_second: u64, held: &AtomicUsize) {
        let dead_to = now_second.saturating_sub(1);
        if dead_to <= self.forgotten_to {
            return;
        }
        self.forgotten_to = dead_to;
        self.holders.retain(|_, holder| {
            while let Some(first) = holder.by_death.first_entry() {
                if *first.key() > dead_to {
                    break;
                }
                for key in first.remove() {
                    if holder.seen.remove(&key) {
                        held.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            }
            !holder.seen.is_empty()
        });
    }
}

/// 128 bits of SHA-256: enough, since a collision can only be made by the holder against itself.
fn short_digest(id: &str) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] =
        *Digest::of(id.as_bytes()).as_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

fn full(code: &str, message: &str) -> Refusal {
    Refusal::limit(code, message).next("wait a second and repeat the request")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::P256Key;

    const WINDOW_S: u64 = 25;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_ms((1_000_000 + second) * 1_000)
    }

    fn holder() -> Thumbprint {
        *P256Key::generate().unwrap().public().thumbprint()
    }

    fn cache(total: usize, per_holder: usize) -> ReplayCache {
        ReplayCache::new(ReplayLimits { total, per_holder }, WINDOW_S, at(0))
    }

    fn insert(cache: &ReplayCache, holder: &Thumbprint, id: &str, made: u64, now: u64) -> String {
        match cache.insert(holder, id, 1_000_000 + made + WINDOW_S, at(now)) {
            Ok(()) => "ok".to_owned(),
            Err(refusal) => refusal.code,
        }
    }

    #[test]
    fn once_and_never_again() {
        let (cache, a, b) = (cache(100, 100), holder(), holder());
        assert_eq!(insert(&cache, &a, "x", 1, 1), "ok");
        assert_eq!(insert(&cache, &a, "x", 1, 1), "dpop-replayed");
        assert_eq!(insert(&cache, &a, "x", 2, 2), "dpop-replayed");
        assert_eq!(insert(&cache, &b, "x", 1, 1), "ok");
        // At its last second it is remembered; after that it is refused for its age, also when
        // the clock goes back.
        assert_eq!(insert(&cache, &a, "x", 1, 1 + WINDOW_S), "dpop-replayed");
        assert_eq!(insert(&cache, &a, "x", 1, 2 + WINDOW_S), "dpop-stale");
        assert_eq!(insert(&cache, &a, "x", 1, 1), "dpop-stale");
    }

    #[test]
    fn proofs_from_before_the_start_are_refused() {
        let cache = ReplayCache::new(ReplayLimits::default(), WINDOW_S, at(10));
        assert_eq!(insert(&cache, &holder(), "x", 9, 10), "dpop-stale");
        assert_eq!(insert(&cache, &holder(), "x", 10, 10), "ok");
    }

    #[test]
    fn full_of_live_proofs_it_refuses_and_forgets_none() {
        let (cache, a, b) = (cache(4, 3), holder(), holder());
        for id in ["1", "2", "3"] {
            assert_eq!(insert(&cache, &a, id, 1, 1), "ok");
        }
        assert_eq!(insert(&cache, &a, "4", 1, 1), "dpop-replay-holder-full");
        assert_eq!(insert(&cache, &b, "1", 1, 1), "ok");
        assert_eq!(insert(&cache, &b, "2", 1, 1), "dpop-replay-full");
        for id in ["1", "2", "3"] {
            assert_eq!(insert(&cache, &a, id, 1, 1), "dpop-replayed");
        }
        assert_eq!(cache.held(), 4);
    }

    #[test]
    fn room_held_by_dead_proofs_of_silent_holders_is_found() {
        let (cache, silent) = (cache(64, 64), holder());
        for number in 0..64 {
            assert_eq!(insert(&cache, &silent, &number.to_string(), 1, 1), "ok");
        }
        let part = |holder: &Thumbprint| usize::from(holder.as_bytes()[0]) % SHARDS;
        let elsewhere = std::iter::repeat_with(holder)
            .find(|other| part(other) != part(&silent))
            .unwrap();
        assert_eq!(insert(&cache, &elsewhere, "x", 1, 1), "dpop-replay-full");
        let later = 2 + WINDOW_S;
        assert_eq!(insert(&cache, &elsewhere, "x", later, later), "ok");
        assert_eq!(cache.held(), 1);
    }

    #[test]
    fn of_many_threads_with_one_proof_one_wins() {
        let (cache, holder) = (cache(1_000, 1_000), holder());
        for round in 0..20 {
            let wins: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| insert(&cache, &holder, &round.to_string(), 1, 1)))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| usize::from(thread.join().unwrap() == "ok"))
                    .sum()
            });
            assert_eq!(wins, 1);
        }
        assert_eq!(cache.held(), 20);
    }
}
