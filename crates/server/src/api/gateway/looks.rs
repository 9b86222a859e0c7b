//! Looks at what leaves, those that take long apart from what has to answer at once.
//!
//! A second goes by over some 40 MiB of text, and a body may be 64 MiB once it is unpacked. On the
//! threads that serve requests, one run could so keep halts waiting, and other runs' launchers, which
//! freeze them when the server is silent. Long looks have threads of their own, few at a time.

use std::sync::Arc;
use std::thread::available_parallelism;

use portcullis_checks::outgoing::{self, Found, Kept};
use portcullis_model::Refusal;
use tokio::sync::Semaphore;

/// Up to so many bytes are looked at where they are: about a millisecond.
const AT_ONCE_MAX_BYTES: usize = 32 * 1024;

/// Turns for long looks.
pub(crate) struct Looks(Arc<Semaphore>);

impl Default for Looks {
    /// One core is left to everything else, where there are several.
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores.saturating_sub(1).max(1))))
    }
}

/// What must not leave in what is said.
pub(super) fn look<'a>(said: impl IntoIterator<Item = &'a [u8]>, kept: &Kept) -> Found {
    let mut found = Found::default();
    for said in said.into_iter().filter(|said| !said.is_empty()) {
        found.secrets.extend(outgoing::secrets(said));
        found.kept_files.extend(kept.found_in(said));
    }
    found
}

/// Whether looking at so many bytes takes long.
pub(super) const fn is_long(bytes: usize) -> bool {
    bytes > AT_ONCE_MAX_BYTES
}

impl Looks {
    /// Has a long look on a thread of its own, once it is its turn. What `prepare` copies for it is
    /// copied then: those that wait hold nothing beyond what they held.
    ///
    /// # Errors
    /// `internal`: the look was cut off.
    pub(super) async fn apart<T, L>(&self, prepare: impl FnOnce() -> L) -> Result<T, Refusal>
    where
        T: Send + 'static,
        L: FnOnce() -> T + Send + 'static,
    {
        let cut_off = || Refusal::internal("a look at what leaves was cut off");
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let (turn, look) = (turn.map_err(|_| cut_off())?, prepare());
        // The turn goes along: a client that goes away does not end the look, nor make room for more.
        let looked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            look()
        });
        looked.await.map_err(|_| cut_off())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_long_look_keeps_nothing_else_waiting() {
        let looks = Looks::default();
        let (go_on, told) = sync_channel::<()>(1);
        let look = looks.apart(|| move || told.recv().is_ok());
        // On this one thread the look would wait for ever for what comes after it.
        let other = async move { go_on.send(()).unwrap() };
        let (looked, ()) = tokio::join!(look, other);
        assert!(looked.unwrap());
    }

    #[tokio::test]
    async fn a_look_whose_client_went_away_keeps_its_turn_until_it_is_over() {
        let looks = Looks(Arc::new(Semaphore::new(1)));
        let (go_on, told) = sync_channel::<()>(1);
        let (begin, begun) = tokio::sync::oneshot::channel();
        {
            let look = looks.apart(|| {
                move || {
                    begin.send(()).unwrap();
                    told.recv().unwrap();
                }
            });
            tokio::select! {
                _ = look => unreachable!("it waits to be told"),
                begun = begun => begun.unwrap(),
            }
        }
        assert_eq!(looks.0.available_permits(), 0);
        go_on.send(()).unwrap();
        assert_eq!(looks.apart(|| || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_look_that_breaks_is_a_refusal_and_gives_its_turn_back() {
        let looks = Looks(Arc::new(Semaphore::new(1)));
        let broken = looks.apart(|| || assert!(!is_long(usize::MAX))).await;
        assert_eq!(
            broken.unwrap_err().kind,
            portcullis_model::RefusalKind::Internal
        );
        assert_eq!(looks.apart(|| || 7).await.unwrap(), 7);
    }
}
