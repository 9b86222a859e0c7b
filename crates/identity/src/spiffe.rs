//! SPIFFE ids, parsed strictly (SPIFFE-ID standard §2): `spiffe://<trust domain>/<path>`.

use std::fmt;
use std::str::FromStr;

use portcullis_model::{AgentId, HostId, Refusal, RunId, ServiceId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest SPIFFE id in bytes (SPIFFE-ID §2.3).
pub const SPIFFE_ID_MAX_BYTES: usize = 2048;
/// Longest trust domain name in bytes (SPIFFE-ID §2.3).
pub const TRUST_DOMAIN_MAX_BYTES: usize = 255;

/// The name of one realm of trust: lowercase letters, digits, `.`, `-`, `_`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the trust domain itself, which its CA carries: no path.
    pub fn id(&self) -> SpiffeId {
        SpiffeId {
            trust_domain: self.clone(),
            path: String::new(),
        }
    }
}

impl FromStr for TrustDomain {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let allowed = text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte)
        });
        if allowed && !text.is_empty() && text.len() <= TRUST_DOMAIN_MAX_BYTES {
            Ok(Self(text.to_owned()))
        } else {
            Err(Refusal::malformed("trust domain")
                .expected("1 to 255 of a-z, 0-9, `.`, `-` and `_`, such as ship.example.org")
                .received(text))
        }
    }
}

/// A SPIFFE id in its one spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Empty, or `/` and segments.
    path: String,
}

impl SpiffeId {
    /// The identity of one run: `/agent/<agent>/run/<run>`.
    pub fn run(trust_domain: &TrustDomain, agent: &AgentId, run: RunId) -> Self {
        Self {
            trust_domain: trust_domain.clone(),
            path: format!("/agent/{agent}/run/{run}"),
        }
    }

    /// The identity of a service: `/service/<service>`.
    pub fn service(trust_domain: &TrustDomain, service: &ServiceId) -> Self {
        Self {
            trust_domain: trust_domain.clone(),
            path: format!("/service/{service}"),
        }
    }

    /// The identity of an enrolled host: `/host/<host>`.
    pub fn host(trust_domain: &TrustDomain, host: &HostId) -> Self {
        Self {
            trust_domain: trust_domain.clone(),
            path: format!("/host/{host}"),
        }
    }

    /// The realm of trust.
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading `/`; empty for the trust domain itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The agent and run, if this is the identity of a run in the exact form of [`Self::run`].
    pub fn as_run(&self) -> Option<(AgentId, RunId)> {
        let mut segments = self.path.split('/');
        let head = (segments.next()?, segments.next()?);
        let agent = segments.next()?.parse().ok()?;
        let middle = segments.next()?;
        let run = segments.next()?.parse().ok()?;
        (head == ("", "agent") && middle == "run" && segments.next().is_none())
            .then_some((agent, run))
    }
}

impl FromStr for SpiffeId {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let malformed = |why: &str| {
            Refusal::malformed("SPIFFE id")
                .expected(&format!("spiffe://<trust domain>/<path>: {why}"))
                .received(text)
        };
        if text.len() > SPIFFE_ID_MAX_BYTES {
            return Err(malformed("at most 2048 bytes"));
        }
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| malformed("the scheme in lowercase"))?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let trust_domain = domain.parse().map_err(|_| {
            malformed("a trust domain of a-z, 0-9, `.`, `-`, `_`, without user or port")
        })?;
        if !path.is_empty() && !path.split('/').skip(1).all(is_segment) {
            return Err(malformed(
                "path segments of a-z, A-Z, 0-9, `.`, `-`, `_`, none empty, `.` or `..`",
            ));
        }
        Ok(Self {
            trust_domain,
            path: path.to_owned(),
        })
    }
}

fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}{}", self.trust_domain, self.path)
    }
}

macro_rules! as_text {
    ($name:ty) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(TrustDomain);
as_text!(SpiffeId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_spelling() {
        let domain: TrustDomain = "ship.example.org".parse().unwrap();
        let agent: AgentId = "fix-bot".parse().unwrap();
        let id = SpiffeId::run(&domain, &agent, RunId(42));
        assert_eq!(
            id.to_string(),
            "spiffe://ship.example.org/agent/fix-bot/run/run-42"
        );
        assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        assert_eq!(id.as_run(), Some((agent, RunId(42))));
        for path in [
            "/agent/fix-bot/run/42",
            "/agent/fix-bot/run/run-042",
            "/agent/fix-bot/run/run-42/x",
            "/agent/Fix/run/run-42",
            "/service/fix-bot/run/run-42",
            "/agent/fix-bot",
            "",
        ] {
            let id: SpiffeId = format!("spiffe://ship.example.org{path}").parse().unwrap();
            assert_eq!(id.as_run(), None, "{path}");
        }
    }

    #[test]
    fn anything_a_lax_parser_would_take_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe:///a",
            "SPIFFE://a/b",
            "https://a/b",
            "spiffe://A/b",
            "spiffe://a:80/b",
            "spiffe://user@a/b",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/b/",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe://a/b%2fc",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/é",
            " spiffe://a/b",
            "spiffe://a/b\n",
            &format!("spiffe://{}/b", "a".repeat(256)),
            &format!("spiffe://a/{}", "b".repeat(2048)),
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
        assert!(
            format!("spiffe://a/{}", "b".repeat(2036))
                .parse::<SpiffeId>()
                .is_ok()
        );
    }

    proptest::proptest! {
        #[test]
        fn what_parses_prints_the_same(text in "(spiffe://)?[a-zA-Z0-9./%:@_-]{0,40}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                proptest::prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
