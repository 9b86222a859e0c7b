//! Steering: epochs, stable, heartbeats.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use portcullis_model::RefusalKind;
use portcullis_proxy::{Fallback, Proxy};

use crate::support::{Release, Running, routing};

#[tokio::test]
async fn stale_epochs_are_refused_and_repeats_answered() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    let five = routing(5, &stable.backend, Some(&canary.backend), 1000);
    assert!(proxy.control.configure(&five).await.unwrap().persisted);
    proxy.get("/").await;
    // A repeat changes nothing, counters included.
    assert_eq!(proxy.control.configure(&five).await.unwrap().epoch, 5);
    assert_eq!(proxy.stats().await.canary.requests, 1);
    for (epoch, weight) in [(5, 500), (4, 1000), (0, 0)] {
        let stale = routing(epoch, &stable.backend, Some(&canary.backend), weight);
        let refusal = proxy.control.configure(&stale).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Conflict);
        assert_eq!(refusal.code, "proxy-epoch-stale");
    }
    let mut bad = routing(6, &stable.backend, None, 0);
    bad.heartbeat_ttl_ms = 1;
    let refusal = proxy.control.configure(&bad).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Malformed);
    assert!(refusal.message.contains("heartbeat_ttl_ms"), "{refusal}");
    assert_eq!(proxy.stats().await.routing, Some(five));
}

#[tokio::test]
async fn stable_wins_over_configurations_on_their_way() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    assert_eq!(proxy.control.to_stable(None).await.unwrap().epoch, None);
    proxy.route(1, &stable, &canary, 1000).await;
    assert_eq!(proxy.get("/").await.1, "canary");
    let ack = proxy.control.to_stable(Some(3)).await.unwrap();
    assert_eq!(
        (ack.epoch, ack.epoch_floor, ack.persisted),
        (Some(1), 3, true)
    );
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.1, "stable");
    }
    assert_eq!(proxy.stats().await.fallback, Some(Fallback::Commanded));
    for epoch in [1, 2, 3] {
        let late = routing(epoch, &stable.backend, Some(&canary.backend), 999);
        assert!(proxy.control.configure(&late).await.is_err(), "{epoch}");
    }
    let refusal = proxy.control.heartbeat(1).await.unwrap_err();
    assert_eq!(refusal.code, "proxy-fallen-back");
    proxy.route(4, &stable, &canary, 1000).await;
    assert_eq!(proxy.get("/").await.1, "canary");
}

#[tokio::test]
async fn stable_needs_no_readable_body() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    proxy.route(1, &stable, &canary, 1000).await;
    let answer = raw_control(
        &proxy,
        "POST /v1/stable HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3\r\n\r\n{{{",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(proxy.get("/").await.1, "stable");
}

#[tokio::test]
async fn without_a_heartbeat_the_canary_gets_nothing() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    let mut watched = routing(1, &stable.backend, Some(&canary.backend), 1000);
    watched.heartbeat_ttl_ms = 1_000;
    proxy.control.configure(&watched).await.unwrap();
    for _ in 0..7 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        proxy.control.heartbeat(1).await.unwrap();
        assert_eq!(proxy.get("/").await.1, "canary");
    }
    assert_eq!(
        proxy.control.heartbeat(2).await.unwrap_err().code,
        "proxy-epoch-differs"
    );
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(proxy.get("/").await.1, "stable");
    let stats = proxy.stats().await;
    assert_eq!(stats.fallback, Some(Fallback::HeartbeatLapsed));
    assert_eq!(stats.effective_weight_per_mille, 0);
    // It does not come back by itself.
    assert!(proxy.control.heartbeat(1).await.is_err());
    assert_eq!(proxy.get("/").await.1, "stable");
}

#[tokio::test]
async fn a_lapse_is_seen_even_when_nobody_asks_for_pages() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    let mut watched = routing(1, &stable.backend, Some(&canary.backend), 1000);
    watched.heartbeat_ttl_ms = 100;
    proxy.control.configure(&watched).await.unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(
        proxy.control.heartbeat(1).await.is_err(),
        "too late is too late"
    );
    assert_eq!(proxy.get("/").await.1, "stable");
}

#[tokio::test]
async fn the_control_socket_is_for_its_owner_alone() {
    let proxy = Running::start().await;
    let mode = std::fs::metadata(&proxy.config.control_socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let state = std::fs::metadata(&proxy.config.state_file).unwrap();
    assert_eq!(state.permissions().mode() & 0o777, 0o600);
    let refusal = Proxy::bind(&proxy.config).await.err().unwrap();
    assert_eq!(refusal.code, "proxy-already-running");
}

#[tokio::test]
async fn what_the_control_socket_cannot_read_it_refuses() {
    let proxy = Running::start().await;
    let long = "x".repeat(20_000);
    for (request, status) in [
        ("GET /v1/config HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(), "404"),
        ("PUT /v1/config HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}".to_owned(), "400"),
        (format!("PUT /v1/config HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 20000\r\n\r\n{long}"), "413"),
        ("POST /v1/heartbeat HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 11\r\n\r\n{\"epoch\":9}".to_owned(), "409"),
    ] {
        let answer = raw_control(&proxy, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}

async fn raw_control(proxy: &Running, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(&proxy.config.control_socket)
        .await
        .unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}
