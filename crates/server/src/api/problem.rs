//! Refusals over HTTP: RFC 9457 problem details.

use axum::body::to_bytes;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
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
        let text = format!("portcullis: {}\n  code: {}\n", self.0, self.0.code);
        self.answer("text/plain; charset=utf-8", text)
    }

    fn answer(&self, kind: &'static str, text: String) -> Response {
        let kind = [(header::CONTENT_TYPE, kind)];
        let mut answer = (status(&self.0), kind, text).into_response();
        if let Ok(code) = HeaderValue::from_str(&self.0.code) {
            answer.headers_mut().insert(REFUSAL, code);
        }
        answer
    }
}

/// The header that says a refusal's code, whatever the body's form.
const REFUSAL: HeaderName = HeaderName::from_static("portcullis-refusal");

/// Longest text of the router's own refusals, in bytes; it repeats a path or a query.
const REJECTION_MAX_BYTES: usize = 64 * 1024;

/// Gives the router's own refusals (a path or query that can't be read, a method that is not there)
/// the form of all others.
pub async fn of_router(response: Response) -> Response {
    let content = response.headers().get(header::CONTENT_TYPE);
    let ours = content.is_some_and(|kind| kind == "application/problem+json");
    if ours || !response.status().is_client_error() {
        return response;
    }
    let status = response.status();
    let allow = response.headers().get(header::ALLOW).cloned();
    let said = to_bytes(response.into_body(), REJECTION_MAX_BYTES).await;
    let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
    let mut document = document(&rejection(status, &said, allow.as_ref()));
    if let Some(fields) = document.as_object_mut() {
        fields.insert("status".to_owned(), json!(status.as_u16()));
    }
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    let mut response = (status, kind, document.to_string()).into_response();
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn rejection(status: StatusCode, said: &str, allow: Option<&HeaderValue>) -> Refusal {
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let refusal = Refusal::new(
            RefusalKind::Malformed,
            "method-not-allowed",
            "this method is not for this path",
        );
        return match allow.and_then(|allow| allow.to_str().ok()) {
            Some(allow) => refusal.expected(allow),
            None => refusal,
        };
    }
    let refusal = Refusal::malformed("request").received(said.trim());
    let mut quoted = said.split('`').skip(1).step_by(2);
    match (said.contains("unknown field"), quoted.next()) {
        (true, Some(wrong)) => match portcullis_model::document::nearest(wrong, quoted) {
            Some(known) => refusal.next(format!("did you mean `{known}`?")),
            None => refusal,
        },
        _ => refusal.next("see docs/api.md for what there is"),
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
        let text = document(&self.0).to_string();
        self.answer("application/problem+json", text)
    }
}
