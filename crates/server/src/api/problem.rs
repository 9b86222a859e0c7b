//! Refusals over HTTP: RFC 9457 problem details.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use portcullis_model::{Refusal, RefusalKind};
use serde_json::{Value, json};

/// A refusal on its way out.
pub struct Problem(pub Refusal);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

/// The status of a refusal.
pub const fn status(refusal: &Refusal) -> StatusCode {
    match refusal.kind {
        RefusalKind::Malformed => StatusCode::BAD_REQUEST,
        RefusalKind::Denied | RefusalKind::NeedsApproval => StatusCode::FORBIDDEN,
        RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Limit => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The problem document of a refusal.
pub fn document(refusal: &Refusal) -> Value {
    let mut document = json!(refusal);
    if let Some(fields) = document.as_object_mut() {
        fields.insert(
            "type".to_owned(),
            json!(format!("urn:portcullis:problem:{}", refusal.code)),
        );
        fields.insert("title".to_owned(), json!(refusal.message));
        fields.insert("status".to_owned(), json!(status(refusal).as_u16()));
    }
    document
}

impl Problem {
    /// The refusal as git's client shows it: it prints plain text, and nothing else.
    pub fn told_to_git(&self) -> Response {
        let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        let text = format!("portcullis: {}\n  code: {}\n", self.0, self.0.code);
        (status(&self.0), headers, text).into_response()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = status(&self.0);
        if status.is_server_error() {
            tracing::warn!(
                error.code = self.0.code,
                "a request failed: {}",
                self.0.message
            );
        }
        let body = document(&self.0).to_string();
        (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response()
    }
}
