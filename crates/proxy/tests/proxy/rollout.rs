//! The proxy's counters and the canary's verdict together, and changes under load.

use std::time::Instant;

use portcullis_canary::{Config, RollbackReason, State, Verdict, look};

use crate::support::{Client, Release, Running, routing};

fn config(weights: &[u16]) -> Config {
    let mut config = Config {
        promotion_margin_ppm: 200_000,
        min_canary_requests: 10,
        max_canary_errors: 1_000,
        ..Config::default()
    };
    config.steps.truncate(weights.len());
    for (step, weight) in config.steps.iter_mut().zip(weights) {
        step.weight_per_mille = *weight;
        step.min_ms = 0;
    }
    config
}

/// Looks after every 40 requests until there is something to do.
async fn watch(
    proxy: &Running,
    client: &mut Client,
    config: &Config,
    mut state: State,
    began: Instant,
    path: impl Fn(u64) -> &'static str,
) -> (State, Verdict) {
    for _ in 0..50 {
        for number in 0..40 {
            client.get(path(number)).await;
        }
        proxy.control.heartbeat(state.epoch()).await.unwrap();
        let seen = proxy.stats().await.look(ms(began)).unwrap();
        let outcome = look(config, &state, &seen);
        state = outcome.state;
        if outcome.verdict != Verdict::Continue {
            return (state, outcome.verdict);
        }
    }
    panic!("no verdict after 2000 requests");
}

fn ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap()
}

#[tokio::test]
async fn a_canary_that_fails_is_taken_back_on_evidence() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    let config = config(&[100, 500]);
    let state = State::begin(&config, 1).unwrap();
    // The canary's connections are cut off: its process is gone.
    proxy.route(1, &stable, &canary, 100).await;
    let mut client = Client::connect(proxy.address).await;
    client.get("/").await;
    drop(canary);
    let (state, verdict) =
        watch(&proxy, &mut client, &config, state, Instant::now(), |_| "/").await;
    assert!(
        matches!(
            verdict,
            Verdict::Rollback {
                reason: RollbackReason::Harm { .. }
            }
        ),
        "{verdict:?}"
    );
    assert!(
        state.canary_total().requests <= 20,
        "{:?}",
        state.canary_total()
    );
}

#[tokio::test]
async fn a_canary_as_good_as_stable_goes_up_and_completes() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    let config = config(&[100, 500]);
    let state = State::begin(&config, 1).unwrap();
    proxy.route(1, &stable, &canary, 100).await;
    let mut client = Client::connect(proxy.address).await;
    let began = Instant::now();
    // Both arms fail one request in twenty.
    let path = |number| if number % 20 == 7 { "/fail" } else { "/" };
    let (state, verdict) = watch(&proxy, &mut client, &config, state, began, path).await;
    let weight_per_mille = 500;
    assert_eq!(verdict, Verdict::StepUp { weight_per_mille });
    proxy.route(2, &stable, &canary, weight_per_mille).await;
    let state = state.advance(&config, 2, ms(began)).unwrap();
    let (_, verdict) = watch(&proxy, &mut client, &config, state, began, path).await;
    assert!(matches!(verdict, Verdict::Complete), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_under_load_lose_no_request() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    proxy.route(1, &stable, &canary, 300).await;
    let address = proxy.address;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                for _ in 0..200 {
                    assert_eq!(client.get("/").await.0, 200);
                }
            })
        })
        .collect();
    for epoch in 2..30 {
        proxy.route(epoch, &stable, &canary, 300).await;
        if epoch % 5 == 0 {
            proxy.control.to_stable(None).await.unwrap();
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(stable.served() + canary.served(), 1_600);
    assert!(canary.served() > 0);
    let last = routing(99, &stable.backend, None, 0);
    proxy.control.configure(&last).await.unwrap();
    let stats = proxy.stats().await;
    assert_eq!((stats.stable.requests, stats.stable.in_flight), (0, 0));
}
