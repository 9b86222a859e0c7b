//! How the proxy's epochs follow the ledger's, and what it is told for each.
//!
//! The ledger counts an environment's epochs one by one. The proxy is given that number times
//! [`EPOCH_ROOM`]. The places between are for what must act before the ledger can say so: a way
//! back takes a place above every configuration that may still be on its way, and the next
//! recorded epoch is above that again.

use portcullis_flow::rollout::Rollout;
use portcullis_model::{Refusal, RefusalKind};
use portcullis_proxy::{Backend, ProxyControl, Routing};

use crate::environments::Place;

/// Numbers of the proxy for each epoch of the ledger.
pub const EPOCH_ROOM: u64 = 1_024;
/// How long the proxy serves a canary without hearing that it is watched, in milliseconds: long
/// enough for this server to be restarted, and a bound on what a dead one costs.
pub const HEARTBEAT_TTL_MS: u64 = 10_000;
/// All traffic, in per mille.
pub const ALL: u32 = 1_000;

/// The proxy's number for an epoch of the ledger.
pub const fn proxy_epoch(epoch: u64) -> u64 {
    epoch.saturating_mul(EPOCH_ROOM)
}

/// The highest of the proxy's numbers that belongs to an epoch of the ledger.
pub const fn last_of(epoch: u64) -> u64 {
    proxy_epoch(epoch).saturating_add(EPOCH_ROOM - 1)
}

/// What the proxy is told at a rollout's epoch and weight.
///
/// # Errors
/// It says less than all traffic, and there is no release to give the rest to.
pub fn routing(place: &Place, rollout: &Rollout) -> Result<Routing, Refusal> {
    let release = place.release(rollout.release).backend();
    if rollout.weight == ALL {
        return Ok(alone(release, proxy_epoch(rollout.epoch), rollout.seed));
    }
    let stable = rollout
        .stable
        .ok_or_else(|| Refusal::internal("a canary without a stable release"))?;
    Ok(Routing {
        stable: place.release(stable).backend(),
        canary: Some(release),
        weight_per_mille: u16::try_from(rollout.weight).unwrap_or_default(),
        ..alone(
            Backend::Unix(place.root().into()),
            proxy_epoch(rollout.epoch),
            rollout.seed,
        )
    })
}

/// Everything to one backend.
pub fn alone(backend: Backend, epoch: u64, seed: u64) -> Routing {
    Routing {
        epoch,
        seed,
        stable: backend,
        canary: None,
        weight_per_mille: 0,
        heartbeat_ttl_ms: HEARTBEAT_TTL_MS,
        sticky: None,
        mark_responses: true,
    }
}

/// Gives everything to one backend, whatever the proxy serves now, under a number of at least
/// `at_least`. Answers with the number it has then.
///
/// # Errors
/// The proxy does not answer.
pub async fn take_over(
    control: &ProxyControl,
    backend: &Backend,
    at_least: u64,
) -> Result<u64, Refusal> {
    /// Others may move the proxy between reading its number and telling it a higher one.
    const TRIES: u32 = 5;
    let mut last = Refusal::unavailable("proxy-contended", "others keep moving the proxy");
    for _ in 0..TRIES {
        let stats = control.stats().await?;
        if let Some(routing) = &stats.routing
            && routing.stable == *backend
            && routing.epoch >= at_least
            && (routing.canary.is_none() || stats.fallback.is_some())
        {
            return Ok(routing.epoch);
        }
        let current = stats.routing.as_ref().map_or(0, |routing| routing.epoch);
        let epoch = at_least.max(current.max(stats.epoch_floor).saturating_add(1));
        match control.configure(&alone(backend.clone(), epoch, 0)).await {
            Ok(ack) => {
                if !ack.persisted {
                    tracing::warn!(
                        proxy.epoch = epoch,
                        "the proxy serves the way back, and would not find it after a restart: its disk refuses"
                    );
                }
                return Ok(epoch);
            }
            Err(refusal) if refusal.kind == RefusalKind::Conflict => last = refusal,
            Err(refusal) => return Err(refusal),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_back_is_above_its_epoch_and_below_the_next() {
        for epoch in [0, 1, 7, 1 << 40] {
            assert!(last_of(epoch) > proxy_epoch(epoch));
            assert!(last_of(epoch) < proxy_epoch(epoch + 1));
        }
        assert_eq!(last_of(u64::MAX), u64::MAX);
    }
}
