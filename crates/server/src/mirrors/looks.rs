//! Looks at branches upstream for runs that fetch: one at a time, and not more often than useful.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Least time from the beginning of one look at a branch to that of the next, whatever became of
/// it: an agent must not cause more requests to upstream than that with the server's credential.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// By branch, the last look.
#[derive(Default)]
pub(crate) struct Looks(Mutex<BTreeMap<String, Look>>);

struct Look {
    begun: Instant,
    ended: watch::Receiver<()>,
}

impl Look {
    fn holds(&self, now: Instant) -> bool {
        // Its sender is gone when it ended.
        let under_way = self.ended.has_changed().is_ok();
        under_way || now.saturating_duration_since(self.begun) < LOOK_EVERY
    }
}

impl Looks {
    /// Takes part in the look at a branch that is under way or has just been, or begins `look`. What
    /// it returns waits for the look's end; who does not wait for it cuts nothing off.
    pub(crate) fn take_part<F>(
        &self,
        branch: &str,
        now: Instant,
        look: F,
    ) -> impl Future<Output = ()> + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, last| last.holds(now));
        let mut ended = match known.get(branch) {
            Some(last) => last.ended.clone(),
            None => {
                let (under_way, ended) = watch::channel(());
                tokio::spawn(async move {
                    look.await;
                    drop(under_way);
                });
                let last = Look {
                    begun: now,
                    ended: ended.clone(),
                };
                known.insert(branch.to_owned(), last);
                ended
            }
        };
        async move { while ended.changed().await.is_ok() {} }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn one_look_serves_all_and_the_next_begins_a_second_later() {
        let (looks, begun) = (Looks::default(), Arc::new(AtomicUsize::new(0)));
        let hung = Arc::new(Notify::new());
        let look = || {
            let (begun, hung) = (Arc::clone(&begun), Arc::clone(&hung));
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                hung.notified().await;
            }
        };
        let now = Instant::now();
        // Upstream hangs, those who wait go away: no look joins the first, however late.
        for n in 0..100 {
            let now = now + Duration::from_secs(n);
            drop(looks.take_part("main", now, look()));
        }
        let waiting = looks.take_part("main", now, look());
        tokio::task::yield_now().await;
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        // Another branch has a look of its own.
        let other = looks.take_part("other", now, look());
        tokio::task::yield_now().await;
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        hung.notify_waiters();
        tokio::join!(waiting, other);
        // Ended, and for a second after its beginning it is what is known.
        looks.take_part("main", now + LOOK_EVERY / 2, look()).await;
        assert_eq!(begun.load(Ordering::SeqCst), 2);
        let waiting = looks.take_part("main", now + LOOK_EVERY, look());
        tokio::task::yield_now().await;
        assert_eq!(begun.load(Ordering::SeqCst), 3);
        hung.notify_waiters();
        waiting.await;
    }

    #[tokio::test]
    async fn a_look_that_panics_has_ended() {
        let looks = Looks::default();
        let now = Instant::now();
        looks
            .take_part("main", now, async { panic!("cut off") })
            .await;
        let again = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&again);
        let look = async move {
            count.fetch_add(1, Ordering::SeqCst);
        };
        looks.take_part("main", now + LOOK_EVERY, look).await;
        assert_eq!(again.load(Ordering::SeqCst), 1);
    }
}
