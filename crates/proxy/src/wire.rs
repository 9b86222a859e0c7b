//! What goes over the control socket, and into the state file.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use portcullis_canary::{Counts, Look};
use portcullis_model::Refusal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest path of a unix socket in bytes: the kernel's `sun_path` less its end.
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// Longest name of a sticky cookie or header in bytes.
const STICKY_NAME_MAX_BYTES: usize = 64;
/// Shortest and longest time in ms that a canary may be served without a heartbeat: below, a
/// pause of the scheduler would end a rollout; above, a dead control plane would not.
const HEARTBEAT_TTL_MS: std::ops::RangeInclusive<u64> = 100..=600_000;

/// Which of the two releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Release {
    /// The release that was there before.
    Stable,
    /// The release on trial.
    Canary,
}

impl Release {
    /// `stable` or `canary`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        }
    }
}

/// Where a release listens: `unix:/absolute/path` or `tcp:address:port`. No names are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A unix stream socket.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

impl FromStr for Backend {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let backend = match text.split_once(':') {
            Some(("unix", path))
                if Path::new(path).is_absolute() && path.len() <= SOCKET_PATH_MAX_BYTES =>
            {
                Some(Self::Unix(path.into()))
            }
            Some(("tcp", address)) => address.parse().ok().map(Self::Tcp),
            _ => None,
        };
        backend.ok_or_else(|| {
            Refusal::malformed("backend")
                .expected("`unix:` and an absolute path of at most 107 bytes, or `tcp:` and an IP address with port")
                .received(text)
        })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl Serialize for Backend {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What ties a client to an arm. A request without the key is assigned by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StickyKey {
    /// The value of this cookie.
    Cookie(String),
    /// The value of this header.
    Header(String),
}

/// The body of `PUT /v1/config`: all that decides where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// Number of this configuration; only higher ones replace it. Counters belong to an epoch.
    pub epoch: u64,
    /// Seed of the assignment, recorded by whoever chose it.
    pub seed: u64,
    /// The stable release.
    pub stable: Backend,
    /// The release on trial, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Backend>,
    /// Share of the canary, 0 to 1000 per mille; 0 without one.
    pub weight_per_mille: u16,
    /// Time in ms without a heartbeat after which the canary gets nothing, 100 to 600 000.
    pub heartbeat_ttl_ms: u64,
    /// What ties a client to an arm; nothing assigns each request by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyKey>,
    /// Whether responses say `x-portcullis-release: stable` or `canary`.
    #[serde(default)]
    pub mark_responses: bool,
}

impl Routing {
    /// Checks every bound.
    ///
    /// # Errors
    /// A field is out of bounds; the refusal names it.
    pub fn check(&self) -> Result<(), Refusal> {
        let bad = |field: &str, expected: &str, received: &str| {
            let mut refusal = Refusal::malformed("proxy config")
                .expected(expected)
                .received(received);
            refusal.message = format!("`{field}` of this proxy config is out of bounds");
            Err(refusal)
        };
        let highest = if self.canary.is_some() { 1000 } else { 0 };
        if self.weight_per_mille > highest {
            return bad(
                "weight_per_mille",
                "0 to 1000 with a canary, 0 without",
                &self.weight_per_mille.to_string(),
            );
        }
        if !HEARTBEAT_TTL_MS.contains(&self.heartbeat_ttl_ms) {
            return bad(
                "heartbeat_ttl_ms",
                "100 to 600000 ms",
                &self.heartbeat_ttl_ms.to_string(),
            );
        }
        if let Some(StickyKey::Cookie(name) | StickyKey::Header(name)) = &self.sticky {
            let token = name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte));
            if name.is_empty() || name.len() > STICKY_NAME_MAX_BYTES || !token {
                return bad("sticky", "1 to 64 token characters of RFC 9110", name);
            }
        }
        Ok(())
    }
}

/// Why everything goes to stable although the configuration has a canary. It stays so until a
/// configuration with a higher epoch comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// `POST /v1/stable`.
    Commanded,
    /// No heartbeat within its time, or none that survived a restart.
    HeartbeatLapsed,
    /// The canary took no connection, many times in a row.
    CanaryUnreachable,
}

/// The answer to `PUT /v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigAck {
    /// The epoch now served.
    pub epoch: u64,
    /// Whether it would survive a restart; not so when the disk refused.
    pub persisted: bool,
}

/// The body of `POST /v1/stable`; it may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StableRequest {
    /// Refuse configurations up to this epoch from now on, so that none still on its way undoes
    /// the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse_up_to_epoch: Option<u64>,
}

/// The answer to `POST /v1/stable`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StableAck {
    /// The epoch served, all of it by stable; none when there was no configuration yet.
    pub epoch: Option<u64>,
    /// Configurations need an epoch above this.
    pub epoch_floor: u64,
    /// Whether it would survive a restart. Without, a restart still falls back when the
    /// heartbeat is stale.
    pub persisted: bool,
}

/// The body of `POST /v1/heartbeat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatRequest {
    /// The epoch that is being watched.
    pub epoch: u64,
}

/// The answer to `GET /v1/stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Start of this process in ms since 1970: another number means that counters began anew.
    pub started_unix_ms: u64,
    /// The configuration served; none before the first.
    pub routing: Option<Routing>,
    /// Configurations need an epoch above this.
    pub epoch_floor: u64,
    /// The canary's share as it is now, after fallbacks.
    pub effective_weight_per_mille: u16,
    /// Why that is 0 although the configuration says otherwise.
    pub fallback: Option<Fallback>,
    /// Milliseconds since the last heartbeat for this epoch.
    pub heartbeat_age_ms: Option<u64>,
    /// Whether the last change would survive a restart.
    pub persisted: bool,
    /// Client connections now open.
    pub connections: u64,
    /// Upgraded connections (WebSocket) now open.
    pub upgrades: u64,
    /// The stable arm in this epoch.
    pub stable: ArmStats,
    /// The canary in this epoch.
    pub canary: ArmStats,
}

impl Stats {
    /// These counters as a look for the canary's verdict; none without a configuration.
    pub fn look(&self, elapsed_ms: u64) -> Option<Look> {
        Some(Look {
            epoch: self.routing.as_ref()?.epoch,
            elapsed_ms,
            stable: Counts::new(self.stable.requests, self.stable.errors),
            canary: Counts::new(self.canary.requests, self.canary.errors),
        })
    }
}

/// One arm since its epoch began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmStats {
    /// Requests that ended.
    pub requests: u64,
    /// Those that ended in an error: status 5xx, no connection, a timeout, a body cut off, or a
    /// client that gave up waiting.
    pub errors: u64,
    /// Errors for want of a connection.
    pub connect_failures: u64,
    /// Errors by timeout.
    pub timeouts: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Time to the response's head: how many took at most [`LATENCY_BOUNDS_US`] of the same
    /// index; the last counts those beyond.
    pub latency: Vec<u64>,
}

/// Upper bounds of the latency buckets in microseconds: 128 µs doubled up to 16.8 s.
pub const LATENCY_BOUNDS_US: [u64; 18] = {
    let mut bounds = [128; 18];
    let mut index = 1;
    while index < bounds.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            bounds[index] = bounds[index - 1] * 2;
        }
        index += 1;
    }
    bounds
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_have_one_spelling() {
        for text in ["unix:/run/app.sock", "tcp:127.0.0.1:80", "tcp:[::1]:8080"] {
            assert_eq!(text.parse::<Backend>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "unix:relative",
            "tcp:localhost:80",
            "tcp:1.2.3.4",
            "http://x",
            &format!("unix:/{}", "a".repeat(107)),
        ] {
            assert!(text.parse::<Backend>().is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_fields_and_impossible_weights_are_refused() {
        let text = r#"{"epoch":1,"seed":2,"stable":"unix:/a","weight_per_mille":0,"heartbeat_ttl_ms":1000}"#;
        let routing: Routing = serde_json::from_str(text).unwrap();
        routing.check().unwrap();
        let extra = text.replace("seed", "sed");
        assert!(serde_json::from_str::<Routing>(&extra).is_err());
        for change in [
            |r: &mut Routing| r.weight_per_mille = 1,
            |r: &mut Routing| r.heartbeat_ttl_ms = 0,
            |r: &mut Routing| r.sticky = Some(StickyKey::Cookie("a b".into())),
        ] {
            let mut bad = routing.clone();
            change(&mut bad);
            assert!(bad.check().is_err());
        }
    }
}
