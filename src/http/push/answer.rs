//! What a pusher is told.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::fault;
use crate::http::error::{Failure, RETRY_SECONDS};
use crate::http::line::Reason;
use crate::http::state::CountAs;
use crate::ingest::{Class, PushError};
use crate::metrics::Route;
use crate::native::{Refusal, Refusals};

/// The status of a refusal.
pub(super) fn status_of(error: &PushError) -> StatusCode {
    match error.class() {
        Class::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Class::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Class::Conflict => StatusCode::CONFLICT,
        Class::Untrusted => StatusCode::FORBIDDEN,
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        Class::Aborted => StatusCode::BAD_REQUEST,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Class::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Writes to the log what the client is not told, and what somebody should look at.
pub(super) fn log(error: &PushError) {
    match error.class() {
        Class::NoSpace | Class::Failed | Class::Unavailable => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(cause, "a push failed: {error}");
        }
        _ => tracing::info!("a push was refused: {error}"),
    }
}

/// A refusal as one line, for Nix and for people.
pub(super) fn refuse(error: &PushError) -> Response {
    log(error);
    line(status_of(error), &error.to_string())
}

/// A line of text.
pub(super) fn line(status: StatusCode, text: &str) -> Response {
    let text = text.replace(['\n', '\r'], " ");
    let body = format!("{text}\n").into_bytes();
    let mut response = with_headers(status, "text/plain; charset=utf-8", body);
    if !status.is_success() {
        response.extensions_mut().insert(Reason(text));
    }
    response
}

/// A refusal of the native API. The status is that of the first reason.
pub(super) fn refuse_all(errors: &[PushError]) -> Response {
    errors.iter().for_each(log);
    let status = errors.first().map_or(StatusCode::BAD_REQUEST, status_of);
    let reasons = errors.iter().map(|error| Refusal {
        path: error.path(),
        reason: error.to_string(),
        send_again: matches!(error, PushError::NoNar { .. } | PushError::MissingReferences { .. }),
    });
    let mut response = json(status, &Refusals { errors: reasons.collect() });
    if let Some(first) = errors.first() {
        response.extensions_mut().insert(Reason(first.to_string()));
    }
    response
}

/// A refusal of the native API for a reason that is not of the push itself.
pub(super) fn refuse_with(status: StatusCode, reason: String) -> Response {
    json(status, &Refusals { errors: vec![Refusal { reason, ..Refusal::default() }] })
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_headers(status, "application/json", bytes),
        Err(error) => Failure::Internal(format!("an answer is not JSON: {error}")).into_response(),
    }
}

fn with_headers(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Response {
    // All is done and nobody has been told: a test may end the process here, and nothing else.
    let _ = fault::point("push.answer");
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE) {
        headers.insert(RETRY_AFTER, RETRY_SECONDS);
    }
    response
}

/// Has an answer counted as of an endpoint.
pub(super) fn count(route: Route, mut response: Response) -> Response {
    response.extensions_mut().insert(CountAs::route(route));
    response
}
