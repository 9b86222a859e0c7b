//! Wall time at the edge, and the guard that notices when it jumps.

use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_model::limits::{CLOCK_BACKWARD_MAX_MS, CLOCK_FORWARD_MAX_MS};
use portcullis_model::{Refusal, Timestamp};

use crate::limits::CLOCK_ANCHOR_MAX_MS;

/// Where the sequencer reads time from.
pub trait Clock: Send + Sync + 'static {
    /// What the wall clock says.
    fn wall(&self) -> Timestamp;

    /// Milliseconds since some fixed moment, counting time in suspend and never set by anyone.
    fn elapsed_ms(&self) -> u64;
}

/// The machine's clocks: `CLOCK_REALTIME`, and on Linux `CLOCK_BOOTTIME` beside it, since
/// `CLOCK_MONOTONIC` stands still while a laptop sleeps and waking up would look like a jump.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        read_ms(rustix::time::ClockId::Realtime)
    }

    fn elapsed_ms(&self) -> u64 {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let id = rustix::time::ClockId::Monotonic;
        read_ms(id).as_ms()
    }
}

fn read_ms(id: rustix::time::ClockId) -> Timestamp {
    let time = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Timestamp::from_ms(
        seconds
            .saturating_mul(1_000)
            .saturating_add(nanos / 1_000_000),
    )
}

/// A clock that moves only when told to, for tests.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    elapsed_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `wall`.
    pub const fn new(wall: Timestamp) -> Self {
        Self {
            wall_ms: AtomicU64::new(wall.as_ms()),
            elapsed_ms: AtomicU64::new(0),
        }
    }

    /// Lets `ms` milliseconds pass.
    pub fn advance(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.elapsed_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock, while no time passes.
    pub fn set_wall(&self, wall: Timestamp) {
        self.wall_ms.store(wall.as_ms(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_ms(self.wall_ms.load(Ordering::SeqCst))
    }

    fn elapsed_ms(&self) -> u64 {
        self.elapsed_ms.load(Ordering::SeqCst)
    }
}

/// What the guard makes of one look at the clock.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The time that new events get: never before the newest event.
    pub(crate) now: Timestamp,
    /// Why nothing may be granted at this time, if so.
    pub(crate) jump: Option<Refusal>,
}

/// Compares the wall clock with the newest entry and with the clock that nobody sets.
///
/// Within the limits the anchor follows once an hour, so drift and small corrections are taken
/// over; beyond them grants stop until the clock is right again, or until a person who looked at
/// it restarts the server.
///
/// Entries made while the clock was ahead stand in the future for every later start. A person who
/// set the clock right can say up to when (`accepted`); then time stands still at the newest entry
/// until the clock has come there, and nothing else is let go.
#[derive(Debug)]
pub(crate) struct ClockGuard {
    anchor_wall: Timestamp,
    anchor_elapsed_ms: u64,
    /// Entries up to this time may be in the future.
    accepted: Timestamp,
}

impl ClockGuard {
    pub(crate) fn new(clock: &dyn Clock, accepted: Option<Timestamp>) -> Self {
        Self {
            accepted: accepted.unwrap_or(Timestamp::from_ms(0)),
            anchor_wall: clock.wall(),
            anchor_elapsed_ms: clock.elapsed_ms(),
        }
    }

    /// Judges the clock at this moment; `newest` is the time of the newest event.
    pub(crate) fn read(&mut self, clock: &dyn Clock, newest: Timestamp) -> Reading {
        let wall = clock.wall();
        let elapsed_ms = clock.elapsed_ms();
        let reading = self.judge(wall, elapsed_ms, newest);
        let passed_ms = elapsed_ms.saturating_sub(self.anchor_elapsed_ms);
        if reading.jump.is_none() && passed_ms >= CLOCK_ANCHOR_MAX_MS {
            self.anchor_wall = wall;
            self.anchor_elapsed_ms = elapsed_ms;
        }
        reading
    }

    fn judge(&self, wall: Timestamp, elapsed_ms: u64, newest: Timestamp) -> Reading {
        let passed_ms = elapsed_ms.saturating_sub(self.anchor_elapsed_ms);
        let due = self.anchor_wall.plus_ms(passed_ms);
        let set_back_ms = due.ms_since(wall);
        let in_future_ms = if newest <= self.accepted {
            0
        } else {
            newest.ms_since(wall)
        };
        let behind_ms = in_future_ms.max(set_back_ms);
        let ahead_ms = wall.ms_since(due);
        let jump = if behind_ms > CLOCK_BACKWARD_MAX_MS {
            Some((
                format!("the clock is {behind_ms} ms behind what it was"),
                CLOCK_BACKWARD_MAX_MS,
            ))
        } else if ahead_ms > CLOCK_FORWARD_MAX_MS {
            Some((
                format!("the clock jumped {ahead_ms} ms ahead"),
                CLOCK_FORWARD_MAX_MS,
            ))
        } else {
            None
        };
        match jump {
            None => Reading {
                now: wall.max(newest),
                jump: None,
            },
            // A restart would find the same.
            Some((message, limit_ms)) if set_back_ms <= limit_ms && in_future_ms > limit_ms => {
                Reading {
                    now: due.max(newest),
                    jump: Some(
                        Refusal::unavailable("clock-jump", message)
                            .expected(&format!("a clock at {newest} or later, as the newest entry is"))
                            .received(&wall.to_string())
                            .next(format!(
                                "set the clock right (NTP); if it is right now, and was ahead before, set `clock_was_ahead_until = \"{newest}\"` in portcullis.toml and restart the server"
                            )),
                    ),
                }
            }
            // What reduces authority is recorded all the same, at the time it should be: the
            // jumped time in an entry would make every right time after it look like a jump back.
            Some((message, limit_ms)) => Reading {
                now: due.max(newest),
                jump: Some(
                    Refusal::unavailable("clock-jump", message)
                        .expected(&format!("about {}, within {limit_ms} ms", due.max(newest)))
                        .received(&wall.to_string())
                        .next("set the clock right (NTP); if it is right now, restart the server"),
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_ms(1_795_000_000_000);

    #[test]
    fn a_jump_in_either_direction_stops_grants_and_bends_no_event_time() {
        let clock = ManualClock::new(START);
        let mut guard = ClockGuard::new(&clock, None);
        clock.advance(1_000);
        assert!(guard.read(&clock, START).jump.is_none());

        clock.set_wall(START.plus_ms(1_000 + CLOCK_FORWARD_MAX_MS + 1));
        let ahead = guard.read(&clock, START);
        assert_eq!(ahead.jump.unwrap().code, "clock-jump");
        assert_eq!(ahead.now, START.plus_ms(1_000));

        clock.set_wall(Timestamp::from_ms(START.as_ms() - 3_600_000));
        let behind = guard.read(&clock, START.plus_ms(700));
        assert_eq!(behind.jump.unwrap().code, "clock-jump");
        assert_eq!(behind.now, START.plus_ms(1_000));

        clock.set_wall(START.plus_ms(1_500));
        assert!(guard.read(&clock, START).jump.is_none());
    }

    #[test]
    fn an_entry_from_the_future_stops_grants_after_a_restart() {
        let clock = ManualClock::new(START);
        let newest = START.plus_ms(CLOCK_BACKWARD_MAX_MS + 1);
        let reading = ClockGuard::new(&clock, None).read(&clock, newest);
        assert!(reading.jump.is_some());
        assert_eq!(reading.now, newest);
        let near = START.plus_ms(CLOCK_BACKWARD_MAX_MS);
        let reading = ClockGuard::new(&clock, None).read(&clock, near);
        assert!(reading.jump.is_none());
        assert_eq!(reading.now, near, "time stands still rather than go back");
    }

    #[test]
    fn entries_from_a_clock_that_was_ahead_are_taken_when_a_person_says_up_to_when() {
        let clock = ManualClock::new(START);
        let newest = START.plus_ms(3_600_000);
        let refused = ClockGuard::new(&clock, None).read(&clock, newest);
        let advice = refused.jump.unwrap().to_string();
        assert!(
            advice.contains(&format!("clock_was_ahead_until = \"{newest}\"")),
            "{advice}"
        );
        // The time named is the time accepted, as it is written.
        let mut guard = ClockGuard::new(&clock, Some(newest.to_string().parse().unwrap()));
        let reading = guard.read(&clock, newest);
        assert!(reading.jump.is_none());
        assert_eq!(
            reading.now, newest,
            "time stands still until the clock is there"
        );
        // An entry beyond it is not, and neither is a clock that is set back now.
        assert!(guard.read(&clock, newest.plus_ms(1)).jump.is_some());
        clock.advance(10_000);
        assert!(guard.read(&clock, newest).jump.is_none());
        clock.set_wall(START);
        assert!(guard.read(&clock, newest).jump.is_some());
    }

    #[test]
    fn drift_is_followed_but_no_faster_than_the_limit_per_hour() {
        let clock = ManualClock::new(START);
        let mut guard = ClockGuard::new(&clock, None);
        let mut newest = START;
        for hour in 1..=48_u64 {
            clock.advance(CLOCK_ANCHOR_MAX_MS);
            clock.set_wall(clock.wall().plus_ms(2_000));
            let reading = guard.read(&clock, newest);
            assert!(reading.jump.is_none(), "hour {hour}");
            newest = reading.now;
        }
        clock.set_wall(clock.wall().plus_ms(CLOCK_FORWARD_MAX_MS));
        assert!(guard.read(&clock, newest).jump.is_none());
        clock.set_wall(clock.wall().plus_ms(1));
        assert!(guard.read(&clock, newest).jump.is_some());
    }

    #[test]
    fn the_machines_clock_moves() {
        let clock = SystemClock;
        assert!(clock.wall() > Timestamp::from_ms(1_700_000_000_000));
        let before = clock.elapsed_ms();
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(clock.elapsed_ms() > before);
    }
}
