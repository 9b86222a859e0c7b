//! Proof of possession for the requests that follow on one connection.
//!
//! A proof for each request ([`crate::dpop`]) costs a signature on one side and, with the token's,
//! two verifications on the other. So the proof of a connection's first request may carry a share
//! of a key agreement (X25519), which the run's key thereby signs; the answer carries the server's
//! share. Each later request on that connection is proved by a MAC under the agreed key, over its
//! number, method, path with query, and destination:
//!
//! ```text
//! first    authorization: DPoP <token>   dpop: <proof with "session": launcher's share>
//! answer   portcullis-session: <server's share>
//! later    portcullis-session: <number>.<MAC>
//! ```
//!
//! The server's half lives with the connection and dies with it, so there is nothing to remember
//! of sessions elsewhere, and nothing to replay: numbers count up by one. The token that opened it
//! is held against the clock at each request, as if it had been sent again. Whoever listens on the
//! connection learns neither half's secret; whoever changes what passes can keep a session from
//! coming about, and can't get one of their own, since the launcher's share is signed.

use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_model::{Refusal, Timestamp};

use crate::dpop::Caller;
use crate::key::{Thumbprint, read_32};
use crate::token::{Claims, TokenVerifier};

/// The header of later requests, and of the answer that opens a session.
pub const HEADER: &str = "portcullis-session";
/// Length of a share in bytes (RFC 7748 §5).
pub const SHARE_BYTES: usize = 32;
/// Longest value of the header in bytes: a number, a dot, a MAC.
pub const VALUE_MAX_BYTES: usize = 20 + 1 + 43;

const CONTEXT: &[u8] = b"portcullis session 1";

/// What a MAC speaks for.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// The HTTP method, in capitals.
    pub method: &'a str,
    /// Path and query as they are sent.
    pub path: &'a str,
    /// Where the request goes beyond the gateway (`portcullis-target`), empty if nowhere.
    pub destination: &'a str,
}

/// A public share of a key agreement: 43 characters of base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share([u8; SHARE_BYTES]);

impl std::str::FromStr for Share {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        read_32("session share", text).map(Self)
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl serde::Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One half of an agreement, not used yet.
struct Half {
    private: EphemeralPrivateKey,
    share: Share,
}

impl Half {
    fn generate() -> Result<Self, Refusal> {
        let failed = || Refusal::internal("a key for a session could not be made");
        let private =
            EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(|_| failed())?;
        let public = private.compute_public_key().map_err(|_| failed())?;
        let share = public.as_ref().try_into().map_err(|_| failed())?;
        Ok(Self {
            private,
            share: Share(share),
        })
    }

    /// The key that both halves come to. `opened`: both shares, the launcher's first.
    fn agree(self, theirs: Share, opened: [Share; 2], jkt: &Thumbprint) -> Result<Mac, Refusal> {
        let [launcher, server] = opened;
        let peer = UnparsedPublicKey::new(&X25519, theirs.0);
        let refused = Refusal::denied(
            "session-share",
            "this share of a session's key is not a usable one",
        );
        agree_ephemeral(self.private, peer, refused, |secret| {
            let info: [&[u8]; 4] = [CONTEXT, &launcher.0, &server.0, jkt.as_bytes()];
            let salt = Salt::new(HKDF_SHA256, &[]);
            let key = salt
                .extract(secret)
                .expand(&info, HMAC_SHA256)
                .map(hmac::Key::from)
                .map_err(|_| Refusal::internal("a session's key could not be derived"))?;
            Ok(Mac(key))
        })
    }
}

/// The agreed key. It can't print.
struct Mac(hmac::Key);

impl Mac {
    fn over(&self, number: u64, said: Said<'_>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&number.to_be_bytes());
        // Each part after its length, so that no two requests read alike.
        for part in [said.method, said.path, said.destination] {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            context.update(&length.to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign()
    }

    fn holds(&self, number: u64, said: Said<'_>, mac: &[u8]) -> bool {
        let expected = self.over(number, said);
        aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_ref(), mac).is_ok()
    }
}

/// The launcher's half before the answer came.
pub struct Offer {
    half: Half,
    holder: Thumbprint,
}

impl Offer {
    /// A new offer by the run whose key has this thumbprint.
    ///
    /// # Errors
    /// The crypto library failed.
    pub(crate) fn new(holder: Thumbprint) -> Result<Self, Refusal> {
        Ok(Self {
            half: Half::generate()?,
            holder,
        })
    }

    /// What the proof carries.
    pub(crate) const fn share(&self) -> Share {
        self.half.share
    }

    /// The session, now that the server's share came in the answer's header.
    ///
    /// # Errors
    /// It is not a share (`malformed-session-share`, `session-share`).
    pub fn accept(self, answered: &str) -> Result<Proving, Refusal> {
        let theirs: Share = answered.parse()?;
        let opened = [self.half.share, theirs];
        let mac = self.half.agree(theirs, opened, &self.holder)?;
        Ok(Proving { mac, number: 0 })
    }
}

/// The launcher's half: proves one request after the other.
pub struct Proving {
    mac: Mac,
    number: u64,
}

impl Proving {
    /// The header's value for the connection's next request.
    pub fn prove(&mut self, said: Said<'_>) -> String {
        self.number = self.number.saturating_add(1);
        let mac = self.mac.over(self.number, said);
        format!("{}.{}", self.number, URL_SAFE_NO_PAD.encode(mac))
    }
}

/// The server's half, kept with the connection on which it was opened.
pub struct Session {
    mac: Mac,
    number: u64,
    claims: Claims,
}

impl Session {
    /// Opens a session for a caller whose proof offers one; with it, the share for the answer.
    /// `None` where none is offered.
    ///
    /// # Errors
    /// The share is not a usable one (`session-share`), or the crypto library failed.
    pub fn open(caller: &Caller) -> Result<Option<(Self, Share)>, Refusal> {
        let Some(theirs) = caller.proof.session else {
            return Ok(None);
        };
        let half = Half::generate()?;
        let share = half.share;
        let mac = half.agree(theirs, [theirs, share], caller.proof.key.thumbprint())?;
        let session = Self {
            mac,
            number: 0,
            claims: caller.claims.clone(),
        };
        Ok(Some((session, share)))
    }

    /// Who makes this request: `value` is its header. One that was not proved by whoever opened the
    /// session uses up no number.
    ///
    /// # Errors
    /// Not a number and a MAC (`malformed-session-proof`), not the next number
    /// (`session-number`), a MAC that does not hold (`session-proof`), or the token has expired
    /// (as [`TokenVerifier::check`]).
    pub fn verify(
        &mut self,
        verifier: &TokenVerifier,
        value: &str,
        said: Said<'_>,
        now: Timestamp,
    ) -> Result<&Claims, Refusal> {
        let (number, mac) = read(value)?;
        let expected = self.number.saturating_add(1);
        if number != expected {
            return Err(Refusal::denied(
                "session-number",
                "this request is not the next one of its session",
            )
            .expected(&expected.to_string())
            .received(&number.to_string())
            .next("open a connection of its own, and repeat"));
        }
        if !self.mac.holds(number, said, &mac) {
            return Err(Refusal::denied(
                "session-proof",
                "this request was not proved by whoever opened its session",
            ));
        }
        self.number = number;
        verifier.check(&self.claims, now)?;
        Ok(&self.claims)
    }
}

fn read(value: &str) -> Result<(u64, [u8; 32]), Refusal> {
    let malformed = || {
        Refusal::malformed("session proof")
            .expected("a number, a dot, and 43 characters of base64url")
    };
    if value.len() > VALUE_MAX_BYTES {
        return Err(malformed());
    }
    let (number, mac) = value.split_once('.').ok_or_else(malformed)?;
    let plain = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(malformed)?;
    let mut bytes = [0; 32];
    match URL_SAFE_NO_PAD.decode_slice(mac, &mut bytes) {
        Ok(32) => Ok((number, bytes)),
        Ok(_) | Err(_) => Err(malformed()),
    }
}

#[cfg(test)]
mod tests;
