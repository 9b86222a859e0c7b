//! What the tests of proofs and sessions share: an issuer, what verifies its tokens, a run.

use portcullis_model::{Refusal, RunId, Secret, Timestamp};

use crate::client::{RunCredential, RunKey};
use crate::dpop::{Call, Caller, PROOF_MAX_AGE_S, UnverifiedHeaders, authenticate};
use crate::key::P256Key;
use crate::replay::{ReplayCache, ReplayLimits};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::token::{TokenIssuer, TokenRequest, TokenVerifier};

pub(crate) const NOW: Timestamp = Timestamp::from_ms(1_795_250_000_000);
pub(crate) const TOKEN_LIFE_MS: u64 = 600_000;
const AUDIENCE: &str = "https://gate.example";

pub(crate) struct House {
    pub(crate) verifier: TokenVerifier,
    pub(crate) replay: ReplayCache,
    issuer: TokenIssuer,
    run: SpiffeId,
}

/// A memory of proofs that begins long ago.
pub(crate) fn replay() -> ReplayCache {
    ReplayCache::new(
        ReplayLimits::default(),
        PROOF_MAX_AGE_S,
        Timestamp::from_ms(0),
    )
}

impl House {
    pub(crate) fn new() -> Self {
        let domain: TrustDomain = "ship.example".parse().unwrap();
        let issuer = TokenIssuer::new(domain.clone(), P256Key::generate().unwrap());
        let keys = vec![issuer.public().clone()];
        Self {
            verifier: TokenVerifier::new(domain.clone(), AUDIENCE, keys).unwrap(),
            run: SpiffeId::run(&domain, &"fix-bot".parse().unwrap(), RunId(42)),
            replay: replay(),
            issuer,
        }
    }

    /// A token for the holder of a key.
    pub(crate) fn token(&self, key: &RunKey) -> Secret<String> {
        let request = TokenRequest {
            subject: &self.run,
            audience: AUDIENCE,
            holder: *key.thumbprint(),
            life_ms: TOKEN_LIFE_MS,
        };
        self.issuer.issue(&request, NOW).unwrap().text
    }

    pub(crate) fn credential(&self) -> RunCredential {
        let key = RunKey::generate().unwrap();
        let token = self.token(&key);
        key.with_token(token)
    }

    pub(crate) fn authenticate(
        &self,
        headers: [&str; 2],
        call: Call<'_>,
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        let [authorization, dpop] = headers;
        let headers = UnverifiedHeaders {
            authorization,
            dpop,
        };
        authenticate(&self.verifier, &self.replay, headers, call, now)
    }
}
