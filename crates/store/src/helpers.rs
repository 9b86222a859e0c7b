//! What goes on beside a sequencer that leads: keeping the lead, and taking in what other processes
//! hand over.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;

use portcullis_model::{Fold, Refusal, RefusalKind};

use crate::disk::io_refusal;
use crate::handle::LedgerHandle;
use crate::limits::LEAD_BEAT_MS;
use crate::postgres::Led;

/// What goes on beside a sequencer or follower: threads that end when told.
#[derive(Default)]
pub(crate) struct Helpers {
    pub(crate) stop: Option<Sender<()>>,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    /// Keeps the lead, and takes in what others hand over.
    pub(crate) fn start<F: Fold>(
        handle: &LedgerHandle<F>,
        lead: Arc<Led>,
    ) -> Result<Self, Refusal> {
        let queue = handle.clone();
        lead.standing()
            .when_lost(move |refusal| queue.0.queue.close_because(refusal));
        let (stop, stopped) = std::sync::mpsc::channel();
        let taker = handle.clone();
        let handover = std::thread::Builder::new()
            .name("ledger-handover".to_owned())
            .spawn(move || take_over_acts(&taker, &lead, &stopped))
            .map_err(|error| io_refusal("start to take what is handed over", &error))?;
        Ok(Self {
            stop: Some(stop),
            threads: vec![handover],
        })
    }

    pub(crate) fn finish(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread beside the sequencer ended by a panic");
            }
        }
    }
}

/// Records what other processes recorded in their reserves, until told to stop.
fn take_over_acts<F: Fold>(handle: &LedgerHandle<F>, lead: &Led, stop: &Receiver<()>) {
    let pause = std::time::Duration::from_millis(LEAD_BEAT_MS);
    while matches!(stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
        let acts = match lead.postgres().handed_over() {
            Ok(acts) => acts,
            Err(refusal) => {
                tracing::debug!(%refusal, "what was handed over can't be read");
                continue;
            }
        };
        for act in acts {
            let command = F::decode(0, &act.bytes)
                .ok()
                .and_then(|event| F::again(&event))
                .filter(F::reduces_authority);
            let taken = match command {
                Some(command) => handle.submit_blocking(command).map(drop),
                None => Err(Refusal::internal("it is not an act that can be taken over")),
            };
            match taken {
                Err(refusal) if refusal.kind == RefusalKind::Unavailable => break,
                Err(refusal) => {
                    tracing::warn!(%refusal, "an act that was handed over does not hold")
                }
                Ok(()) => tracing::info!("an act that was handed over is recorded"),
            }
            if let Err(refusal) = lead.postgres().forget_handover(act.digest) {
                tracing::warn!(%refusal, "an act that was handed over is recorded again later");
            }
        }
    }
}
