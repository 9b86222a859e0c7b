//! The clock, at the edge.

use portcullis_model::Timestamp;

/// Now, by this machine's clock.
pub(crate) fn now() -> Timestamp {
    portcullis_server::app::now()
}
