//! Independent pieces of work on all cores, their results in the order of the pieces.

use std::sync::atomic::{AtomicUsize, Ordering};

/// More threads than this only wait for one another.
const THREADS_MAX: usize = 8;

/// What `work` makes of every item. Below `least` items it runs on this thread, as starting
/// another costs more than it gains.
pub(crate) fn map<T: Sync, R: Send>(
    items: &[T],
    least: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let threads = std::thread::available_parallelism()
        .map_or(1, std::num::NonZero::get)
        .min(THREADS_MAX)
        .min(items.len());
    if items.len() < least || threads < 2 {
        return items.iter().map(work).collect();
    }
    // Each thread takes the next item, so that one large item holds up one thread only.
    let next = AtomicUsize::new(0);
    let take = || {
        let mut mine = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return mine;
            };
            mine.push((index, work(item)));
        }
    };
    let mut all: Vec<(usize, R)> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut all = take();
        for other in others {
            match other.join() {
                Ok(mut theirs) => all.append(&mut theirs),
                // As if the work had run here: nothing is left out silently.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items_with_one_thread_or_many() {
        let items: Vec<u64> = (0..1_000).collect();
        let squares: Vec<u64> = items.iter().map(|item| item * item).collect();
        for least in [0, 2, usize::MAX] {
            assert_eq!(map(&items, least, |item| item * item), squares);
        }
        assert!(map(&[] as &[u64], 0, |item| *item).is_empty());
    }

    #[test]
    #[should_panic(expected = "the seventh")]
    fn a_panic_of_one_piece_is_a_panic_of_the_whole() {
        let items: Vec<u64> = (0..100).collect();
        map(&items, 0, |item| assert!(*item != 7, "the seventh"));
    }
}
