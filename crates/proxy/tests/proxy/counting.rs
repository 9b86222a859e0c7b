//! What counts as an error, and of which arm.

use std::time::Duration;

use http_body_util::BodyExt;
use portcullis_proxy::{Backend, Fallback};

use crate::support::{Client, Release, Running, eventually, full, request, routing};

#[tokio::test]
async fn failures_of_every_kind_are_counted_once() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    proxy.route(1, &stable, &canary, 1000).await;

    assert_eq!(proxy.get("/").await.0, 200);
    assert_eq!(proxy.get("/fail").await.0, 500);
    assert_eq!(proxy.get("/slow").await.0, 504);
    for path in ["/cut", "/stall"] {
        let response = Client::connect(proxy.address)
            .await
            .send(request("GET", path, &[], full("")))
            .await;
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap_err();
    }
    let stats = proxy.stats().await;
    assert_eq!((stats.canary.requests, stats.canary.errors), (5, 4));
    assert_eq!(stats.canary.timeouts, 2);
    assert_eq!(stats.stable.requests, 0);
    assert_eq!(stats.canary.in_flight, 0);

    // A new epoch begins at zero, and what it is for does not show the old errors.
    proxy.route(2, &stable, &canary, 1000).await;
    assert_eq!(proxy.stats().await.canary.requests, 0);
}

#[tokio::test]
async fn clients_that_leave_are_errors_only_when_they_were_kept_waiting() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::support::config(dir.path());
    config.limits.response_timeout_ms = 30_000;
    let proxy = Running::with(config).await;
    proxy.route(1, &stable, &canary, 1000).await;
    for (waits_ms, requests) in [(100, 0), (1_200, 1)] {
        let leaving = tokio::time::timeout(Duration::from_millis(waits_ms), proxy.get("/slow"));
        assert!(leaving.await.is_err());
        eventually("the request ends", || async {
            proxy.stats().await.canary.in_flight == 0
        })
        .await;
        let stats = proxy.stats().await.canary;
        assert_eq!((stats.requests, stats.errors), (requests, requests));
    }
}

#[tokio::test]
async fn a_dead_canary_costs_clients_nothing_they_can_repeat() {
    let stable = Release::tcp("stable").await;
    let proxy = Running::start().await;
    let nobody = Backend::Unix(proxy.dir().join("nobody.sock"));
    let dead = routing(1, &stable.backend, Some(&nobody), 1000);
    proxy.control.configure(&dead).await.unwrap();
    let mut client = Client::connect(proxy.address).await;
    for _ in 0..10 {
        assert_eq!(
            client.get("/").await,
            (200.try_into().unwrap(), "stable".into())
        );
    }
    let post = client.send(request("POST", "/", &[], full("x"))).await;
    assert_eq!(post.status(), 502, "what may not be repeated is not");
    post.into_body().collect().await.unwrap();
    let put = client
        .send(request("PUT", "/echo", &[], full("12345")))
        .await;
    let body = put.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"body of 5 bytes"), "the body went along");
    let stats = proxy.stats().await;
    assert_eq!((stats.canary.requests, stats.canary.errors), (12, 12));
    assert_eq!(stats.canary.connect_failures, 12);
    assert_eq!((stats.stable.requests, stats.stable.errors), (11, 0));
    assert_eq!(stats.fallback, None);

    for _ in 0..20 {
        assert_eq!(client.get("/").await.0, 200);
    }
    let stats = proxy.stats().await;
    assert_eq!(stats.fallback, Some(Fallback::CanaryUnreachable));
    assert_eq!(stats.effective_weight_per_mille, 0);
    assert_eq!(stats.canary.requests, 20, "no more are tried");
}

#[tokio::test]
async fn a_dead_stable_is_not_hidden() {
    let proxy = Running::start().await;
    assert_eq!(proxy.get("/").await.0, 503, "nothing is configured");
    let nobody = Backend::Tcp("127.0.0.1:1".parse().unwrap());
    let alone = routing(1, &nobody, None, 0);
    proxy.control.configure(&alone).await.unwrap();
    let (status, body) = proxy.get("/").await;
    assert_eq!(status, 502);
    assert!(body.contains("release-unreachable"), "{body}");
    assert_eq!(proxy.stats().await.stable.errors, 1);
}

#[tokio::test]
async fn counters_become_a_look() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    assert_eq!(proxy.stats().await.look(1), None);
    proxy.route(4, &stable, &canary, 1000).await;
    proxy.get("/fail").await;
    let look = proxy.stats().await.look(99).unwrap();
    assert_eq!((look.epoch, look.elapsed_ms), (4, 99));
    assert_eq!((look.canary.requests, look.canary.errors), (1, 1));
}
