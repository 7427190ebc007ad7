//! `<hash>.narinfo`, as text and as JSON.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::error::Failure;
use super::range::none_match_names;
use super::state::{CountAs, State, Work};
use crate::metrics::Route;
use crate::nix::store_path::StorePathHash;
use crate::source::cache::{Answer, Cache, Remembered, tag_of};

/// How long others may keep a narinfo: a path may be baked, or its keys rotated. Nix itself keeps
/// it for 30 days, whatever this says.
const FRESH: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// A narinfo, by asking the sources.
pub async fn get(
    state: &State,
    cache: &Arc<Cache>,
    hash: &str,
    request: &Parts,
) -> Result<Response, Failure> {
    let hash = StorePathHash::parse(hash)
        .ok_or(Failure::BadRequest("a store path's hash is 32 digits of Nix base 32"))?;
    let answer = find(state, cache, hash).await?;
    let count = |found: bool| match &answer {
        Some(answer) if found => state.metrics.narinfo_hit(answer.source.label()),
        _ => state.metrics.narinfo_misses.inc(),
    };
    count(answer.is_some());
    let Some(answer) = &answer else { return Err(Failure::NotFound) };
    let as_json = request.uri.query().is_some_and(|query| query.split('&').any(is_json));
    let mut response = if as_json {
        let json = answer.narinfo.to_json(&cache.info.store_dir).to_string();
        let tag = tag_of(json.as_bytes());
        respond(json.into(), &tag, HeaderValue::from_static("application/json"), request)
    } else {
        let (mut parts, body) = text_response(answer, &request.headers).into_parts();
        let body = if request.method == Method::HEAD { Body::empty() } else { Body::from(body) };
        parts.extensions.insert(CountAs::route(Route::NarInfo));
        Response::from_parts(parts, body)
    };
    response.extensions_mut().insert(CountAs::route(Route::NarInfo));
    Ok(response)
}

fn is_json(pair: &str) -> bool {
    matches!(pair, "json" | "json=" | "json=1" | "json=true")
}

/// Asks memory, else the sources.
pub async fn find(
    state: &State,
    cache: &Arc<Cache>,
    hash: StorePathHash,
) -> Result<Option<Arc<Answer>>, Failure> {
    match cache.remembered(hash) {
        Remembered::Hit(answer) => return Ok(Some(answer)),
        Remembered::Miss => return Ok(None),
        Remembered::Unknown => {}
    }
    let asked = Arc::clone(cache);
    let found = state.blocking(Work::Small, move || asked.find(hash)).await??;
    State::scan_in_background(cache);
    Ok(found)
}

/// The response to a request for the text: 200 with the text, or 304. The caller leaves the body
/// out for HEAD.
pub fn text_response(answer: &Answer, request: &HeaderMap) -> http::Response<bytes::Bytes> {
    let unchanged = request
        .get(IF_NONE_MATCH)
        .and_then(|header| header.to_str().ok())
        .is_some_and(|header| none_match_names(header, answer.tag.to_str().unwrap_or("")));
    let body = if unchanged { bytes::Bytes::new() } else { answer.text.clone() };
    let mut response = http::Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, FRESH);
    headers.insert(ETAG, answer.tag.clone());
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/x-nix-narinfo"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(answer.text.len()));
    }
    response
}

/// A small body that is whole in memory, for GET and HEAD, or 304.
pub fn respond(
    body: Vec<u8>,
    tag: &HeaderValue,
    content_type: HeaderValue,
    request: &Parts,
) -> Response {
    let unchanged = request
        .headers
        .get(IF_NONE_MATCH)
        .and_then(|header| header.to_str().ok())
        .is_some_and(|header| none_match_names(header, tag.to_str().unwrap_or("")));
    let insert = |response: &mut Response, pairs: [(HeaderName, HeaderValue); 2]| {
        for (name, value) in pairs {
            response.headers_mut().insert(name, value);
        }
    };
    let shared = [(CACHE_CONTROL, FRESH), (ETAG, tag.clone())];
    if unchanged {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        insert(&mut response, shared);
        return response;
    }
    let length = body.len();
    let body = if request.method == Method::HEAD { Body::empty() } else { Body::from(body) };
    let mut response = Response::new(body);
    insert(&mut response, shared);
    insert(
        &mut response,
        [(CONTENT_TYPE, content_type), (CONTENT_LENGTH, HeaderValue::from(length))],
    );
    response
}
