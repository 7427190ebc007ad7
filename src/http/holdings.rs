//! What is here, as peers ask for it ([`crate::index::holdings`]).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method};

use super::error::Failure;
use super::state::{CacheOf, CountAs, State, Work};
use crate::index::holdings::Known;
use crate::metrics::Route;

/// All of it, or what came since.
pub async fn get(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    request: Parts,
) -> Result<Response, Failure> {
    // A snapshot holds what it holds, and nobody's peer is one.
    if cache.snapshot.is_some() {
        return Err(Failure::NotFound);
    }
    let known = request.uri.query().and_then(Known::parse);
    let news = state.blocking(Work::Large, move || cache.holdings(known)).await?;
    let news = news.ok_or(Failure::Busy("it is being found out what is here; ask again"))?;
    let body = news.to_bytes();
    let length = body.len();
    let is_head = request.method == Method::HEAD;
    let mut response = Response::new(if is_head { Body::empty() } else { Body::from(body) });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response.extensions_mut().insert(CountAs::route(Route::Native));
    Ok(response)
}
