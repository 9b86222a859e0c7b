//! How the requests of a run's channel are proved: with its key, then by the session that the
//! answer opened.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use portcullis_identity::RunCredential;
use portcullis_identity::client;
use portcullis_identity::session::{self, Said};
use portcullis_model::Refusal;
use portcullis_sandbox::channel::{First, Header, Opening, Prover, Session};

use crate::time::now;

const SESSION: HeaderName = HeaderName::from_static(session::HEADER);

/// Proves with the run's key.
pub(super) struct RunProver(pub(super) Arc<RunCredential>);

impl Prover for RunProver {
    fn first(&self, method: &str, url: &str) -> Result<First, Refusal> {
        let (headers, opening) = self.0.opening(method, url, now())?;
        let headers = headers
            .into_iter()
            .map(|(name, value)| Ok((HeaderName::from_static(name), sensitive(value.expose())?)))
            .collect::<Result<_, Refusal>>()?;
        Ok(First {
            headers,
            offered: Some(Box::new(Offered {
                opening,
                credential: Arc::clone(&self.0),
            })),
        })
    }
}

fn sensitive(value: &str) -> Result<HeaderValue, Refusal> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| Refusal::internal("a proof is no header"))?;
    value.set_sensitive(true);
    Ok(value)
}

struct Offered {
    opening: client::Opening,
    credential: Arc<RunCredential>,
}

impl Opening for Offered {
    fn answered(self: Box<Self>, headers: &mut HeaderMap) -> Option<Box<dyn Session>> {
        let Self {
            opening,
            credential,
        } = *self;
        let share = headers.remove(SESSION)?;
        let session = share.to_str().ok().map(|share| opening.accept(share));
        let Some(Ok(session)) = session else {
            tracing::warn!("the gateway opened a session that does not hold; going on without");
            return None;
        };
        Some(Box::new(Opened {
            session,
            credential,
        }))
    }
}

struct Opened {
    session: client::RunSession,
    credential: Arc<RunCredential>,
}

impl Session for Opened {
    fn next(&mut self, method: &str, path: &str, target: &str) -> Option<Vec<Header>> {
        let said = Said {
            method,
            path,
            destination: target,
        };
        let proof = self.credential.next(&mut self.session, said)?;
        Some(vec![(SESSION, sensitive(&proof).ok()?)])
    }
}
