//! What a job reached: seen by the launcher's proxy, which is outside the sandbox and the job's
//! only way out.

use portcullis_model::Digest;
use serde::{Deserialize, Serialize};

/// Most different refused destinations that are named; the rest is counted.
pub const REFUSED_MAX: usize = 64;
/// Most fetched documents that are named with their digest; the rest is counted. With
/// [`URL_MAX_BYTES`] they take at most half of what a statement holds.
pub const FETCHED_MAX: usize = 512;
/// Longest URL that is named, in bytes, its method included.
pub const URL_MAX_BYTES: usize = 1_024;

/// What went through the proxy. Only a job that declares hosts has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkUse {
    /// Every declared host, reached or not, in order.
    pub hosts: Vec<HostUse>,
    /// What was refused, in order: at most [`REFUSED_MAX`] destinations and reasons.
    pub refused: Vec<RefusedUse>,
    /// How many attempts were refused, named or not.
    pub refusals: u64,
    /// What came over plain HTTP, in the order in which it ended: at most [`FETCHED_MAX`]. What
    /// went through tunnels is known by host and size alone.
    pub fetched: Vec<Fetched>,
    /// How many answers came over plain HTTP, named or not.
    pub fetches: u64,
}

/// How a declared host was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostUse {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Connections that came about.
    pub connections: u64,
    /// Connections that did not, because it can't be reached or a bound stood in the way.
    pub failures: u64,
    /// Bytes sent to it, TLS and headers included.
    pub bytes_out: u64,
    /// Bytes received from it, TLS and headers included.
    pub bytes_in: u64,
}

/// Attempts that were refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedUse {
    /// `host:port`, or `malformed` where the request names none.
    pub destination: String,
    /// The refusal's code.
    pub code: String,
    /// How often.
    pub count: u64,
}

/// The answer to one plain HTTP request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetched {
    /// The request's method.
    pub method: String,
    /// Where from, without a query: that may hold what must not be told.
    pub url: String,
    /// The answer's status.
    pub status: u16,
    /// SHA-256 of the answer's body as far as it came.
    pub digest: Digest,
    /// Bytes of that body.
    pub size: u64,
    /// Whether that is all of it.
    pub whole: bool,
}

impl NetworkUse {
    /// For the job's log, a line for each host and each refusal.
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        for used in &self.hosts {
            lines.push_str(&format!(
                "network: {}:{}: {} connections, {} failed, {} bytes out, {} bytes in\n",
                used.host,
                used.port,
                used.connections,
                used.failures,
                used.bytes_out,
                used.bytes_in
            ));
        }
        for refused in &self.refused {
            lines.push_str(&format!(
                "network: {} times refused: {} ({})\n",
                refused.count, refused.destination, refused.code
            ));
        }
        let named: u64 = self.refused.iter().map(|refused| refused.count).sum();
        if self.refusals > named {
            lines.push_str(&format!(
                "network: {} more refused\n",
                self.refusals - named
            ));
        }
        lines
    }
}
