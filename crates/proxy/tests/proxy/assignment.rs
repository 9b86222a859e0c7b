//! Who gets which release.

use portcullis_proxy::{StickyKey, assigned_to_canary};

use crate::support::{Client, Release, Running, get, routing};

#[tokio::test]
async fn requests_follow_the_weight_and_are_counted() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    proxy.route(1, &stable, &canary, 100).await;
    let mut client = Client::connect(proxy.address).await;
    for _ in 0..1_000 {
        let (status, body) = client.get("/").await;
        assert_eq!(status, 200);
        assert!(body == "stable" || body == "canary", "{body}");
    }
    // The same numbers, hashed with the same seed: exactly as anyone can recompute.
    let expected = (0..1_000u64)
        .filter(|number| assigned_to_canary(7, &number.to_be_bytes(), 100))
        .count() as u64;
    assert!((60..140).contains(&expected), "{expected}");
    assert_eq!(
        (canary.served(), stable.served()),
        (expected, 1_000 - expected)
    );
    let stats = proxy.stats().await;
    assert_eq!(stats.canary.requests, expected);
    assert_eq!(stats.stable.requests, 1_000 - expected);
    assert_eq!((stats.canary.errors, stats.stable.errors), (0, 0));
    assert_eq!(stats.canary.latency.iter().sum::<u64>(), expected);
    assert_eq!(stats.effective_weight_per_mille, 100);
}

#[tokio::test]
async fn a_client_with_a_key_stays_and_moves_only_towards_the_canary() {
    let (stable, canary) = (Release::tcp("stable").await, Release::tcp("canary").await);
    let proxy = Running::start().await;
    let mut in_canary = [false; 60];
    for (epoch, weight, sticky) in [
        (1, 100, StickyKey::Cookie("sid".into())),
        (2, 400, StickyKey::Cookie("sid".into())),
        (3, 400, StickyKey::Header("x-user".into())),
    ] {
        let mut routing = routing(epoch, &stable.backend, Some(&canary.backend), weight);
        routing.sticky = Some(sticky);
        proxy.control.configure(&routing).await.unwrap();
        for (user, was) in in_canary.iter_mut().enumerate() {
            let (cookie, user) = (format!("a=b; sid=user{user}"), format!("user{user}"));
            let headers = [("cookie", cookie.as_str()), ("x-user", user.as_str())];
            let first = get(proxy.address, "/", &headers).await.1;
            let again = get(proxy.address, "/", &headers).await.1;
            assert_eq!(first, again, "{user}");
            assert_eq!(
                first == "canary",
                assigned_to_canary(7, user.as_bytes(), weight)
            );
            assert!(!*was || first == "canary", "{user} went back");
            *was = first == "canary";
        }
    }
    assert!(in_canary.iter().any(|canary| *canary) && in_canary.iter().any(|canary| !canary));
}
