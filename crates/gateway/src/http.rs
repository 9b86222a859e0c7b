//! Model endpoints and named hosts: requests leave with what the agent must not hold, and with
//! nothing that it added to pose as somebody.

use portcullis_model::Secret;

/// A password, token or key that only the server holds. It can't print.
#[derive(Clone, Debug)]
pub struct Credential(pub(crate) Secret<String>);

impl Credential {
    /// Takes a secret in.
    pub const fn new(secret: String) -> Self {
        Self(Secret::new(secret))
    }
}

impl From<Secret<String>> for Credential {
    fn from(secret: Secret<String>) -> Self {
        Self(secret)
    }
}
