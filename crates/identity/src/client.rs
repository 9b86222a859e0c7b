//! The launcher's half: it makes a run's key, proves it, and signs each request of the run. The
//! key never leaves the launcher's process, and nothing of it enters the sandbox.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use portcullis_model::{Refusal, Secret, Timestamp};

use crate::dpop::{self, Call};
use crate::key::{P256Key, P256PublicKey, Thumbprint};
use crate::session::{Offer, Proving, Said};

/// The private key of one run.
#[derive(Debug)]
pub struct RunKey(P256Key);

impl RunKey {
    /// A new key, for one run.
    ///
    /// # Errors
    /// The crypto library failed.
    pub fn generate() -> Result<Self, Refusal> {
        P256Key::generate().map(Self)
    }

    /// The public half, which the start request carries.
    pub const fn public(&self) -> &P256PublicKey {
        self.0.public()
    }

    /// The public half's thumbprint, which the host signs.
    pub const fn thumbprint(&self) -> &Thumbprint {
        self.0.public().thumbprint()
    }

    /// The private key in PKCS#8 DER: for the launcher's own TLS connection with the run's SVID.
    pub const fn pkcs8(&self) -> &Secret<Vec<u8>> {
        self.0.pkcs8()
    }

    /// The `dpop` header of a request that asks for an identity, before there is a token: it
    /// shows that the asker holds this key.
    ///
    /// # Errors
    /// The URL is not an absolute one.
    pub fn possession(
        &self,
        method: &str,
        url: &str,
        now: Timestamp,
    ) -> Result<(&'static str, Secret<String>), Refusal> {
        let proof = dpop::create(&self.0, Call { method, url }, None, None, now)?;
        Ok(("dpop", Secret::new(proof)))
    }

    /// The key and the token that was issued to it.
    pub const fn with_token(self, token: Secret<String>) -> RunCredential {
        RunCredential {
            key: self,
            token: RwLock::new(token),
            renewals: AtomicU64::new(0),
        }
    }
}

/// `authorization` and `dpop`, by name and value.
pub type ProofHeaders = [(&'static str, Secret<String>); 2];

/// What a run calls with: its key, and a token that only this key can use.
#[derive(Debug)]
pub struct RunCredential {
    key: RunKey,
    token: RwLock<Secret<String>>,
    /// How often the token was renewed: a session lasts as long as the token that opened it.
    renewals: AtomicU64,
}

impl RunCredential {
    /// The two headers of one request. They are good once, for this method and URL, for some
    /// seconds.
    ///
    /// # Errors
    /// The URL is not an absolute `http` or `https` one.
    pub fn headers(
        &self,
        method: &str,
        url: &str,
        now: Timestamp,
    ) -> Result<ProofHeaders, Refusal> {
        self.proved(method, url, None, now)
    }

    /// As [`Self::headers`], for the first request of a connection: with the offer of a session, by
    /// which the requests after it are proved.
    ///
    /// # Errors
    /// As [`Self::headers`].
    pub fn opening(
        &self,
        method: &str,
        url: &str,
        now: Timestamp,
    ) -> Result<(ProofHeaders, Opening), Refusal> {
        let renewals = self.renewals.load(Ordering::Acquire);
        let offer = Offer::new(*self.key.thumbprint())?;
        let headers = self.proved(method, url, Some(&offer), now)?;
        Ok((headers, Opening { offer, renewals }))
    }

    fn proved(
        &self,
        method: &str,
        url: &str,
        offer: Option<&Offer>,
        now: Timestamp,
    ) -> Result<ProofHeaders, Refusal> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        let token = token.expose();
        let call = Call { method, url };
        let share = offer.map(Offer::share);
        let proof = dpop::create(&self.key.0, call, Some(token), share, now)?;
        Ok([
            ("authorization", Secret::new(format!("DPoP {token}"))),
            ("dpop", Secret::new(proof)),
        ])
    }

    /// The header of a connection's next request, by the session that was opened on it. `None`
    /// where the token was renewed since: the next request is a first one again.
    pub fn next(&self, session: &mut RunSession, said: Said<'_>) -> Option<String> {
        (session.renewals == self.renewals.load(Ordering::Acquire))
            .then(|| session.proving.prove(said))
    }

    /// The run's key.
    pub const fn key(&self) -> &RunKey {
        &self.key
    }

    /// Takes a newer token for the same key.
    pub fn renew(&self, token: Secret<String>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        self.renewals.fetch_add(1, Ordering::Release);
    }
}

/// A session that was offered and not answered yet.
pub struct Opening {
    offer: Offer,
    renewals: u64,
}

impl Opening {
    /// The session, by what the answer's [`HEADER`](crate::session::HEADER) says.
    ///
    /// # Errors
    /// As [`Offer::accept`].
    pub fn accept(self, answered: &str) -> Result<RunSession, Refusal> {
        Ok(RunSession {
            proving: self.offer.accept(answered)?,
            renewals: self.renewals,
        })
    }
}

/// A session of one connection, at the launcher.
pub struct RunSession {
    proving: Proving,
    renewals: u64,
}
