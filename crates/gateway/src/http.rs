//! Model endpoints and named hosts: requests leave with what the agent must not hold, and with
//! nothing that it added to pose as somebody.
//!
//! - [`model`]: a call to a declared model endpoint, the key added outside, the model asked for
//!   and the model that served noted.
//! - [`egress`]: requests to hosts that a task names.
//! - [`websocket`]: what is said over a WebSocket, message by message.
//! - [`prompt`]: what a model is told beforehand, as digests.
//! - [`tunnel`]: bytes that pass unread, where that is permitted.
//! - [`upload`]: a body on its way out, held or streamed.
//! - [`room`]: the memory that held bodies take, bounded for all runs together.
//! - [`plain`]: requests of our own, for no run: to logs and witnesses.

mod answer;
mod connections;
pub mod destination;
pub mod egress;
mod headers;
pub mod model;
pub mod plain;
pub mod prompt;
pub mod room;
mod scan;
#[cfg(test)]
mod tests;
mod tls;
pub mod tunnel;
pub mod upload;
pub mod websocket;

use portcullis_model::Secret;

pub use answer::{Bounds, Ending, Forwarded, Observation, Stop};
pub use destination::{AddressRule, Destination};
pub use headers::{PLACEHOLDER, foreign_credential};

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
