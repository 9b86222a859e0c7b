//! The run's token: a JWT-SVID (SPIFFE JWT-SVID §§2–3) that is worth nothing without the key it
//! names (`cnf.jkt`, RFC 9449 §6), with room for those who act for the run (`act`, RFC 8693 §4.1).
//!
//! A token says who is calling. What the caller may do stands in the ledger, under the run, and is
//! decided at each request; so there is no scope in here that could grow stale.

use portcullis_model::{Refusal, RunId, Secret, Timestamp};
use serde::{Deserialize, Serialize};

use crate::jws::{self, UnverifiedJws};
use crate::key::{P256Key, P256PublicKey, Thumbprint, random_text};
use crate::spiffe::{SpiffeId, TrustDomain};

/// Largest token in bytes: a chain of eight actors with long names, and a header line still fits.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// Longest life of a token in milliseconds (1 h): a run that lasts longer asks again, and then
/// its standing is looked at again.
pub const TOKEN_MAX_LIFE_MS: u64 = 3_600 * 1_000;
/// How far ahead of our clock an issuing clock may be, in milliseconds.
pub const TOKEN_MAX_AHEAD_MS: u64 = 10_000;
/// Most actors in a chain: twice what a call through tools and child runs has needed.
pub const ACT_MAX_DEPTH: usize = 8;
/// Longest audience in bytes: a base URL.
pub const AUDIENCE_MAX_BYTES: usize = 512;
/// Most keys that a verifier accepts at once: the present one, and those still rotating out.
pub const VERIFIER_MAX_KEYS: usize = 8;

const WHAT: &str = "token";
const TYPE: &str = "JWT";

/// What a verified token says. Only [`TokenVerifier::verify`] and the issuer make one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The trust domain that issued it, as its SPIFFE id.
    pub iss: SpiffeId,
    /// The run on whose behalf the call is made.
    pub sub: SpiffeId,
    /// The one audience.
    pub aud: [String; 1],
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// From when on it is void, in seconds since 1970.
    pub exp: u64,
    /// Its identifier; unique.
    pub jti: String,
    /// The key that its holder must prove.
    pub cnf: Confirmation,
    /// The run again, as its ledger index.
    pub run: RunId,
    /// Who acts for the run now, and for whom in turn; absent when the run itself does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
}

/// Proof-of-possession key (RFC 7800, RFC 9449 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// Thumbprint of the holder's key.
    pub jkt: Thumbprint,
}

/// One who acts, and the one before (RFC 8693 §4.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Who.
    pub sub: SpiffeId,
    /// Who acted before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

impl Claims {
    /// Who holds the token: the newest actor, or else the run itself.
    pub fn holder(&self) -> &SpiffeId {
        self.act.as_ref().map_or(&self.sub, |actor| &actor.sub)
    }

    /// Everyone who acts, newest first.
    pub fn actors(&self) -> impl Iterator<Item = &SpiffeId> {
        std::iter::successors(self.act.as_ref(), |actor| actor.act.as_deref())
            .map(|actor| &actor.sub)
    }

    /// When it expires.
    pub const fn expires(&self) -> Timestamp {
        Timestamp::from_ms(self.exp.saturating_mul(1_000))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// A token as it travels, and what it says.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// Compact form. It never goes into a log.
    pub text: Secret<String>,
    /// What it says.
    pub claims: Claims,
}

/// Signs tokens for one trust domain.
#[derive(Debug)]
pub struct TokenIssuer {
    trust_domain: TrustDomain,
    key: P256Key,
}

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// The run.
    pub subject: &'a SpiffeId,
    /// Where it is good.
    pub audience: &'a str,
    /// The key that its holder has proved.
    pub holder: Thumbprint,
    /// How long it is good, in milliseconds; rounded down to whole seconds.
    pub life_ms: u64,
}

impl TokenIssuer {
    /// An issuer that signs with `key`.
    pub const fn new(trust_domain: TrustDomain, key: P256Key) -> Self {
        Self { trust_domain, key }
    }

    /// The key that verifies its tokens.
    pub const fn public(&self) -> &P256PublicKey {
        self.key.public()
    }

    /// Issues a token to a run.
    ///
    /// # Errors
    /// The subject is not a run of this trust domain, the life is not within
    /// [`TOKEN_MAX_LIFE_MS`], or the audience is empty or too long.
    pub fn issue(
        &self,
        request: &TokenRequest<'_>,
        now: Timestamp,
    ) -> Result<IssuedToken, Refusal> {
        let claims = self.claims(request, None, now)?;
        self.sign(claims)
    }

    /// Exchanges a verified token for one in the hands of `actor` (RFC 8693): the same run, one
    /// link more in the chain, and never a longer life. `request.holder` is the actor's key.
    ///
    /// # Errors
    /// As [`Self::issue`]; also when `request.subject` is not the given token's, that token has
    /// expired, the actor is of another trust domain, or the chain would be longer than
    /// [`ACT_MAX_DEPTH`].
    pub fn exchange(
        &self,
        given: &Claims,
        actor: &SpiffeId,
        request: &TokenRequest<'_>,
        now: Timestamp,
    ) -> Result<IssuedToken, Refusal> {
        if given.sub != *request.subject {
            return Err(Refusal::denied(
                "token-exchange-subject",
                "an exchange cannot change on whose behalf the call is made",
            )
            .expected(&given.sub.to_string())
            .received(&request.subject.to_string()));
        }
        check_domain(&self.trust_domain, actor)?;
        check_expiry(given, now)?;
        let act = Actor {
            sub: actor.clone(),
            act: given.act.clone().map(Box::new),
        };
        let mut claims = self.claims(request, Some(act), now)?;
        claims.exp = claims.exp.min(given.exp);
        check_depth(&claims)?;
        self.sign(claims)
    }

    fn claims(
        &self,
        request: &TokenRequest<'_>,
        act: Option<Actor>,
        now: Timestamp,
    ) -> Result<Claims, Refusal> {
        check_domain(&self.trust_domain, request.subject)?;
        let Some((_, run)) = request.subject.as_run() else {
            return Err(
                Refusal::denied("token-subject", "only runs are given tokens")
                    .expected("spiffe://<trust domain>/agent/<agent>/run/<run>")
                    .received(&request.subject.to_string()),
            );
        };
        if !(1_000..=TOKEN_MAX_LIFE_MS).contains(&request.life_ms) {
            return Err(
                Refusal::limit("token-life", "a token lives one second to one hour")
                    .received(&format!("{} ms", request.life_ms)),
            );
        }
        if request.audience.is_empty() || request.audience.len() > AUDIENCE_MAX_BYTES {
            return Err(Refusal::malformed("token audience").expected("1 to 512 bytes"));
        }
        let iat = now.as_ms() / 1_000;
        Ok(Claims {
            iss: self.trust_domain.id(),
            sub: request.subject.clone(),
            aud: [request.audience.to_owned()],
            iat,
            exp: iat.saturating_add(request.life_ms / 1_000),
            jti: random_text()?,
            cnf: Confirmation {
                jkt: request.holder,
            },
            run,
            act,
        })
    }

    fn sign(&self, claims: Claims) -> Result<IssuedToken, Refusal> {
        let header = Header {
            alg: jws::ALGORITHM.to_owned(),
            kid: self.public().thumbprint().to_string(),
            typ: TYPE.to_owned(),
        };
        let text = jws::sign(&self.key, &header, &claims)?;
        if text.len() > TOKEN_MAX_BYTES {
            return Err(Refusal::limit(
                "token-too-large",
                "the token would be too large",
            ));
        }
        Ok(IssuedToken {
            text: Secret::new(text),
            claims,
        })
    }
}

/// Verifies tokens at one audience.
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    trust_domain: TrustDomain,
    audience: String,
    keys: Vec<P256PublicKey>,
}

impl TokenVerifier {
    /// A verifier that accepts tokens signed by any of `keys`.
    ///
    /// # Errors
    /// No key, or more than [`VERIFIER_MAX_KEYS`].
    pub fn new(
        trust_domain: TrustDomain,
        audience: &str,
        keys: Vec<P256PublicKey>,
    ) -> Result<Self, Refusal> {
        if keys.is_empty() || keys.len() > VERIFIER_MAX_KEYS {
            return Err(Refusal::limit("token-keys", "a verifier takes 1 to 8 keys"));
        }
        Ok(Self {
            trust_domain,
            audience: audience.to_owned(),
            keys,
        })
    }

    /// What `text` says, if it holds at `now`. This does not yet say that the caller is its
    /// holder: that takes a proof ([`crate::dpop`]).
    ///
    /// # Errors
    /// Too large or not a token of this exact form (`malformed-token`); another algorithm
    /// (`token-algorithm`); unknown key (`token-key`); bad signature (`token-signature`); another
    /// issuer or trust domain (`token-trust-domain`); another audience (`token-audience`);
    /// expired (`token-expired`); from the future or too long-lived (`token-time`).
    pub fn verify(&self, text: &str, now: Timestamp) -> Result<Claims, Refusal> {
        let token = UnverifiedJws::<Header, Claims>::read(WHAT, text, TOKEN_MAX_BYTES)?;
        jws::check_algorithm(WHAT, &token.header.alg)?;
        if token.header.typ != TYPE {
            return Err(Refusal::malformed(WHAT)
                .expected("typ JWT")
                .received(&token.header.typ));
        }
        let key = self
            .keys
            .iter()
            .find(|key| key.thumbprint().to_string() == token.header.kid)
            .ok_or_else(|| {
                Refusal::denied(
                    "token-key",
                    "this token was signed by a key that is not ours",
                )
                .received(&token.header.kid)
            })?;
        let (_, claims) = token.verify(WHAT, key)?;
        self.check(&claims, now)?;
        Ok(claims)
    }

    /// Checks again, at `now`, what a verified token says: for callers that keep verified claims
    /// between requests of one run.
    ///
    /// # Errors
    /// As [`Self::verify`], without the signature's.
    pub fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
        if claims.iss != self.trust_domain.id() {
            return Err(other_domain(&self.trust_domain, &claims.iss));
        }
        check_domain(&self.trust_domain, &claims.sub)?;
        for actor in claims.actors() {
            check_domain(&self.trust_domain, actor)?;
        }
        check_depth(claims)?;
        if claims.sub.as_run().map(|(_, run)| run) != Some(claims.run) {
            return Err(Refusal::denied(
                "token-subject",
                "the token's subject and its run differ",
            ));
        }
        let [audience] = &claims.aud;
        if *audience != self.audience {
            return Err(
                Refusal::denied("token-audience", "this token is for somebody else")
                    .expected(&self.audience)
                    .received(audience),
            );
        }
        check_expiry(claims, now)?;
        let ahead = claims.iat.saturating_mul(1_000) > now.plus_ms(TOKEN_MAX_AHEAD_MS).as_ms();
        let too_long = claims.exp.saturating_sub(claims.iat) > TOKEN_MAX_LIFE_MS / 1_000;
        if ahead || too_long || claims.exp <= claims.iat {
            return Err(
                Refusal::denied("token-time", "this token's times cannot be right")
                    .received(&format!("iat {}, exp {}", claims.iat, claims.exp))
                    .next("compare the clocks of the server and of the issuer"),
            );
        }
        Ok(())
    }
}

fn check_expiry(claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
    if claims.expires() > now {
        return Ok(());
    }
    Err(Refusal::denied("token-expired", "this token has expired")
        .received(&claims.expires().to_string())
        .next("ask for a new one with the run's key"))
}

fn check_depth(claims: &Claims) -> Result<(), Refusal> {
    if claims.actors().count() <= ACT_MAX_DEPTH {
        return Ok(());
    }
    Err(Refusal::limit(
        "token-chain",
        format!("at most {ACT_MAX_DEPTH} may act one for another"),
    ))
}

fn check_domain(expected: &TrustDomain, id: &SpiffeId) -> Result<(), Refusal> {
    if id.trust_domain() == expected {
        Ok(())
    } else {
        Err(other_domain(expected, id))
    }
}

fn other_domain(expected: &TrustDomain, id: &SpiffeId) -> Refusal {
    Refusal::denied(
        "token-trust-domain",
        "this identity is of another trust domain",
    )
    .expected(expected.as_str())
    .received(&id.to_string())
}

#[cfg(test)]
mod tests;
