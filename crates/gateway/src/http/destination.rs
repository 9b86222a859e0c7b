//! Where a request may go: a host and port, resolved here, and never to an address that only our
//! own network has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use portcullis_model::Refusal;
use portcullis_model::host::normalise_host;
use tokio::net::TcpStream;

/// Longest time to resolve and connect.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// A host and a port, as a task names them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    host: String,
    port: u16,
}

impl Destination {
    /// The host: a DNS name in lower case without the final dot, or an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A host and a port given apart.
    ///
    /// # Errors
    /// `malformed-destination`.
    pub fn new(host: &str, port: u16) -> Result<Self, Refusal> {
        match normalise_host(host) {
            Ok(host) if port != 0 => Ok(Self { host, port }),
            Ok(_) | Err(_) => Err(Refusal::malformed("destination")
                .expected(
                    "a DNS name or an address in its plain notation, and a port from 1 to 65535",
                )
                .received(&format!("{host}:{port}"))),
        }
    }

    /// Resolves it, holds every address against `rule`, and connects to one of them. The address
    /// is resolved once, so a name that changes its answer gains nothing.
    ///
    /// # Errors
    /// `address-not-public`, `destination-unknown`, `destination-unreachable`.
    pub async fn connect(&self, rule: &AddressRule) -> Result<TcpStream, Refusal> {
        tokio::time::timeout(CONNECT_TIME, self.dial(rule))
            .await
            .map_err(|_| self.unreachable("no answer within 10 s"))?
    }

    async fn dial(&self, rule: &AddressRule) -> Result<TcpStream, Refusal> {
        self.dial_by(rule, async |host, port| {
            let found = tokio::net::lookup_host((host, port)).await?;
            Ok(found.take(ADDRESSES_MAX).collect())
        })
        .await
    }

    /// The name is looked up once: the addresses that are held against the rule are those that are
    /// dialled, whatever the name leads to a moment later.
    async fn dial_by(
        &self,
        rule: &AddressRule,
        resolve: impl AsyncFnOnce(&str, u16) -> std::io::Result<Vec<SocketAddr>>,
    ) -> Result<TcpStream, Refusal> {
        let pinned = rule.pinned.get(&self.host);
        let addresses: Vec<SocketAddr> = match pinned {
            Some(addresses) => addresses
                .iter()
                .map(|address| SocketAddr::new(*address, self.port))
                .collect(),
            None => resolve(&self.host, self.port).await.map_err(|error| {
                Refusal::unavailable("destination-unknown", format!("{self} has no address"))
                    .received(&error.to_string())
            })?,
        };
        for address in addresses.iter().filter(|_| pinned.is_none()) {
            rule.check(address.ip()).map_err(|refusal| {
                refusal.next(format!(
                    "name a host with public addresses instead of {self}"
                ))
            })?;
        }
        let mut last = "it has no address".to_owned();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Small messages shall not wait for larger ones; if not, they do.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(self.unreachable(&last))
    }

    fn unreachable(&self, why: &str) -> Refusal {
        Refusal::unavailable(
            "destination-unreachable",
            format!("{self} can't be reached"),
        )
        .received(why)
    }
}

impl FromStr for Destination {
    type Err = Refusal;

    /// `host:port`, as in the target of a CONNECT request.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::malformed("destination")
                .expected("host:port")
                .received(text)
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(malformed());
        }
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !digits {
            return Err(malformed());
        }
        Self::new(host, port.parse().map_err(|_| malformed())?)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Which addresses may be reached: public ones, and those that are named.
#[derive(Clone, Debug, Default)]
pub struct AddressRule {
    named: BTreeSet<IpAddr>,
    pinned: BTreeMap<String, Vec<IpAddr>>,
}

impl AddressRule {
    /// Public addresses only.
    pub fn public() -> Self {
        Self::default()
    }

    /// Public addresses and these, whatever they are.
    pub fn also(named: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            named: named.into_iter().collect(),
            pinned: BTreeMap::new(),
        }
    }

    /// And these hosts, each at the addresses that an operator gave for it, whatever they are. No
    /// resolver is asked for them, and their addresses stay closed under any other name.
    #[must_use]
    pub fn with_pinned(mut self, pinned: impl IntoIterator<Item = (String, Vec<IpAddr>)>) -> Self {
        self.pinned.extend(pinned);
        self
    }

    /// # Errors
    /// `address-not-public`, with the kind of network that it is in.
    pub fn check(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.named.contains(&address) {
            return Ok(());
        }
        match private_kind(address) {
            None => Ok(()),
            Some(kind) => Err(Refusal::denied(
                "address-not-public",
                format!("the address is {kind}"),
            )
            .expected("a public address")
            .received(&address.to_string())),
        }
    }
}

/// What kind of address that isn't public this is (IANA special-purpose registries).
fn private_kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => private_v4(address),
        IpAddr::V6(address) => private_v6(address),
    }
}

fn private_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, d] = address.octets();
    Some(match (a, b, c) {
        // In a public range, and yet the host's own in every machine of Azure.
        (168, 63, 129) if d == 16 => "a link-local or metadata address",
        (0, ..) => "of this network",
        (127, ..) => "a loopback address",
        (169, 254, _) => "a link-local or metadata address",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "a private address",
        (100, 64..=127, _) => "a shared address behind a carrier's translation",
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) | (198, 18 | 19, _) => {
            "reserved"
        }
        (224..=239, ..) => "a multicast address",
        (240..=255, ..) => "reserved",
        _ => return None,
    })
}

fn private_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0) if g == 0 && h <= 1 => Some("a loopback address"),
        // IPv4 in another dress is judged as what it is.
        (0, 0, 0, 0, 0, 0 | 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => embedded(g, h),
        (0x2002, ..) => embedded(b, c).or(Some("a tunnel address")),
        (0x64, 0xff9b, ..) | (0x100, 0, ..) | (0x2001, 0..=0x1ff | 0xdb8, ..) | (0x3fff, ..) => {
            Some("reserved")
        }
        (0xfc00..=0xfdff, ..) => Some("a private address"),
        (0xfe80..=0xfebf, ..) => Some("a link-local or metadata address"),
        (0xfec0..=0xfeff, ..) => Some("a site-local address"),
        (0xff00..=0xffff, ..) => Some("a multicast address"),
        (0x2000..=0x3fff, ..) => None,
        _ => Some("reserved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_of_ours_is_public_in_any_dress() {
        let rule = AddressRule::public();
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2002:808:808::",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "2001::1",
            "2001:db8::1",
            "fec0::1",
            "100::1",
        ] {
            let refusal = rule.check(text.parse().unwrap()).unwrap_err();
            assert_eq!(refusal.code, "address-not-public", "{text}");
        }
        for text in [
            "8.8.8.8",
            "172.32.0.1",
            "168.63.129.17",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
        ] {
            assert!(rule.check(text.parse().unwrap()).is_ok(), "{text}");
        }
        let also = AddressRule::also(["127.0.0.1".parse().unwrap()]);
        assert!(also.check("127.0.0.1".parse().unwrap()).is_ok());
        assert!(also.check("127.0.0.2".parse().unwrap()).is_err());
    }

    #[test]
    fn destinations_have_one_spelling() {
        let a: Destination = "API.Example.com.:443".parse().unwrap();
        assert_eq!(a.to_string(), "api.example.com:443");
        assert_eq!(
            "[::1]:80".parse::<Destination>().unwrap().to_string(),
            "[::1]:80"
        );
        for text in [
            "",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:99999",
            "host:+80",
            "a b:80",
            "::1:80",
            "a..b:80",
            "-a:80",
            "a/b:80",
            "user@host:80",
            "127.1:80",
            "0x7f000001:80",
            "2130706433:80",
            "0177.0.0.1:80",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_for_an_inner_address_does_not_help() {
        let local: Destination = "localhost:80".parse().unwrap();
        let refusal = local.connect(&AddressRule::public()).await.unwrap_err();
        assert_eq!(refusal.code, "address-not-public");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // An operator's word counts for that name alone.
        let rule = AddressRule::public().with_pinned([(
            "mirror.example".to_owned(),
            vec!["127.0.0.1".parse().unwrap()],
        )]);
        let pinned = Destination::new("mirror.example", port).unwrap();
        assert!(pinned.connect(&rule).await.is_ok());
        let other = Destination::new("127.0.0.1", port).unwrap();
        assert_eq!(
            other.connect(&rule).await.unwrap_err().code,
            "address-not-public"
        );
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_after_the_check_is_not_followed() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let near = Ipv4Addr::new(127, 0, 0, 2);
        let rule = AddressRule::also([IpAddr::V4(near)]);
        let (open, closed) = (
            tokio::net::TcpListener::bind((near, 0)).await.unwrap(),
            tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .unwrap(),
        );
        let (open_at, closed_at) = (open.local_addr().unwrap(), closed.local_addr().unwrap());
        let name: Destination = "rebinds.example:80".parse().unwrap();
        let asked = AtomicUsize::new(0);
        // The first answer may be reached; every later one is inside.
        let turn = async |_: &str, _: u16| {
            Ok(match asked.fetch_add(1, Ordering::Relaxed) {
                0 => vec![open_at],
                _ => vec![closed_at],
            })
        };
        let stream = name.dial_by(&rule, turn).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open_at);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        // Asked anew for the next connection, it is held against the rule anew.
        assert_eq!(
            name.dial_by(&rule, turn).await.unwrap_err().code,
            "address-not-public"
        );
        // Both at a time: none is dialled, in either order.
        for both in [[open_at, closed_at], [closed_at, open_at]] {
            let refused = name.dial_by(&rule, async |_, _| Ok(both.to_vec())).await;
            assert_eq!(refused.unwrap_err().code, "address-not-public");
        }
        drop(stream);
        let inside = closed.into_std().unwrap();
        assert!(inside.accept().is_err(), "nobody came by the inner address");
    }
}
