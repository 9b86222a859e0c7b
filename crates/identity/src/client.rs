//! The launcher's half: it makes a run's key, proves it, and signs each request of the run. The
//! key never leaves the launcher's process, and nothing of it enters the sandbox.

use std::sync::{PoisonError, RwLock};

use portcullis_model::{Refusal, Secret, Timestamp};

use crate::dpop::{self, Call};
use crate::key::{P256Key, P256PublicKey, Thumbprint};

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
        let proof = dpop::create(&self.0, Call { method, url }, None, now)?;
        Ok(("dpop", Secret::new(proof)))
    }

    /// The key and the token that was issued to it.
    pub const fn with_token(self, token: Secret<String>) -> RunCredential {
        RunCredential {
            key: self,
            token: RwLock::new(token),
        }
    }
}

/// What a run calls with: its key, and a token that only this key can use.
#[derive(Debug)]
pub struct RunCredential {
    key: RunKey,
    token: RwLock<Secret<String>>,
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
    ) -> Result<[(&'static str, Secret<String>); 2], Refusal> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        let token = token.expose();
        let proof = dpop::create(&self.key.0, Call { method, url }, Some(token), now)?;
        Ok([
            ("authorization", Secret::new(format!("DPoP {token}"))),
            ("dpop", Secret::new(proof)),
        ])
    }

    /// The run's key.
    pub const fn key(&self) -> &RunKey {
        &self.key
    }

    /// Takes a newer token for the same key.
    pub fn renew(&self, token: Secret<String>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }
}
