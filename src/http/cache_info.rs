//! `nix-cache-info`.

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::state::{CacheOf, CountAs};
use crate::metrics::Route;

/// What the cache says of itself. A client keeps it for a week, whatever headers say.
pub async fn get(CacheOf(cache): CacheOf) -> Response {
    let headers =
        [(CONTENT_TYPE, "text/x-nix-cache-info"), (CACHE_CONTROL, "public, max-age=3600")];
    let mut response = (headers, cache.info.to_text()).into_response();
    response.extensions_mut().insert(CountAs::route(Route::CacheInfo));
    response
}
