//! How often a run may say something over its WebSockets.
//!
//! Each message is read once more behind the 8 KiB before it, however small it is itself. So that a
//! run does not keep the server busy with empty words, all its sockets share one pace; who is faster
//! is read more slowly, and nothing is refused.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Messages and control frames a second, of all sockets of a run.
const A_SECOND: u32 = 1000;
/// How many seconds' worth of them may come at once.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The pace of one run.
#[derive(Debug, Default)]
pub(in crate::http) struct Pace {
    /// When what was said so far is over, at this pace.
    until: Mutex<Option<Instant>>,
}

impl Pace {
    /// How long the next message has to wait, which is counted as said.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let after = until.unwrap_or(now).max(now) + Duration::from_secs(1) / A_SECOND;
        *until = Some(after);
        after.duration_since(now).saturating_sub(AT_ONCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_messages_passes_at_once_and_then_each_in_its_time() {
        let (pace, now) = (Pace::default(), Instant::now());
        for _ in 0..A_SECOND {
            assert_eq!(pace.wait(now), Duration::ZERO);
        }
        for more in 1..10 {
            assert_eq!(pace.wait(now), Duration::from_millis(more));
        }
        let later = now + Duration::from_millis(500);
        assert_eq!(pace.wait(later), Duration::ZERO);
        // Silence is not saved up beyond that.
        let much_later = now + Duration::from_secs(1000);
        let waits = (0..=A_SECOND).map(|_| pace.wait(much_later));
        assert_eq!(waits.filter(|wait| !wait.is_zero()).count(), 1);
    }
}
