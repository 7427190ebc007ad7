//! The one place where what went wrong becomes a status.
//!
//! A client sees the status and one line; what the line leaves out (files, the system's words)
//! goes to the log. `404` is said only when the object is known not to be here: Nix remembers it
//! for an hour. Doubt is `503` with `Retry-After`. A mere miss is never 401, 403 or 429.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderValue, StatusCode};

use super::line::Reason;
use crate::auth::Denial;
use crate::source::cache::Unavailable;
use crate::source::view::ViewError;

/// Seconds after which a client may ask again.
pub(super) const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");
/// Seconds after which an address that showed too many wrong tokens may ask again.
const RETRY_GUESS_SECONDS: HeaderValue = HeaderValue::from_static("60");
/// What tells a client to look into its netrc.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"snowbank\"");

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is not here, for certain.
    #[error("not found")]
    NotFound,
    /// The name cannot be one of ours.
    #[error("{0}")]
    BadRequest(&'static str),
    /// The range cannot be given.
    #[error("the range cannot be satisfied; one range within {0} bytes can")]
    Unsatisfiable(u64),
    /// A source cannot be read now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Too much to do; the reason is for the client.
    #[error("{0}")]
    Busy(&'static str),
    /// Whoever asks may not; the same whether it is here or not.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// A defect of ours.
    #[error("{0}")]
    Internal(String),
}

impl From<ViewError> for Failure {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::NotThere => Self::NotFound,
            ViewError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, line) = match &self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not found".into()),
            Self::BadRequest(what) => (StatusCode::BAD_REQUEST, (*what).into()),
            Self::Unsatisfiable(_) => (StatusCode::RANGE_NOT_SATISFIABLE, self.to_string()),
            Self::Unavailable(unavailable) => {
                tracing::error!("503: {unavailable}");
                let line = format!("cache {} cannot be read now; ask again", unavailable.cache);
                (StatusCode::SERVICE_UNAVAILABLE, line)
            }
            Self::Busy(what) => (StatusCode::SERVICE_UNAVAILABLE, (*what).into()),
            Self::Denied(denial) => (status_of(*denial), denial.to_string()),
            Self::Internal(why) => {
                tracing::error!("500: {why}");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal error; the server's log has it".into(),
                )
            }
        };
        let mut response = Response::new(Body::from(line + "\n"));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match status {
            StatusCode::SERVICE_UNAVAILABLE => headers.insert(RETRY_AFTER, RETRY_SECONDS),
            StatusCode::TOO_MANY_REQUESTS => headers.insert(RETRY_AFTER, RETRY_GUESS_SECONDS),
            StatusCode::UNAUTHORIZED => headers.insert(WWW_AUTHENTICATE, CHALLENGE),
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"))
            }
            _ => None,
        };
        if let Self::Unsatisfiable(size) = self
            && let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            headers.insert(CONTENT_RANGE, value);
        }
        if !matches!(self, Self::NotFound) {
            response.extensions_mut().insert(Reason(self.to_string()));
        }
        response
    }
}

const fn status_of(denial: Denial) -> StatusCode {
    match denial {
        Denial::NoPushes | Denial::ReadOnly => StatusCode::METHOD_NOT_ALLOWED,
        Denial::Several => StatusCode::BAD_REQUEST,
        Denial::NoCredential | Denial::Wrong | Denial::Expired | Denial::Revoked => {
            StatusCode::UNAUTHORIZED
        }
        Denial::NoCertificate
        | Denial::CertificateExpired
        | Denial::CertificateRevoked
        | Denial::CertificateMayNot
        | Denial::OtherCache
        | Denial::MayNotPush
        | Denial::MayNotPull
        | Denial::MayNotPin => StatusCode::FORBIDDEN,
        Denial::TooMany => StatusCode::TOO_MANY_REQUESTS,
        Denial::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}
