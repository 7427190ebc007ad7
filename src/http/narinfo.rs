//! `<hash>.narinfo`, as text and as JSON.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::error::Failure;
use super::range::none_match_names;
use super::state::{CountAs, State, Work};
use crate::ingest::pull::Offer;
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
    let hash = parse_hash(hash)?;
    let answer = match find(state, cache, hash).await? {
        Some(answer) => {
            state.metrics.narinfo_hit(answer.source.label());
            cache.answered(&answer);
            answer
        }
        None => match elsewhere(state, cache, hash, request).await {
            Some(offer) => {
                state.metrics.narinfo_hit(offer.kind);
                Arc::clone(&offer.answer)
            }
            None => {
                state.metrics.narinfo_missed();
                return Err(Failure::NotFound);
            }
        },
    };
    let as_json = request.uri.query().is_some_and(|query| query.split('&').any(is_json));
    let mut response = if as_json {
        let json = answer.narinfo.to_json(&cache.info.store_dir).to_string();
        let tag = tag_of(json.as_bytes());
        respond(json.into(), &tag, HeaderValue::from_static("application/json"), request)
    } else {
        for_method(text_response(&answer, &request.headers), &request.method)
    };
    response.extensions_mut().insert(CountAs::route(Route::NarInfo));
    Ok(response)
}

/// What a peer or an upstream has of a path that is not here.
async fn elsewhere(
    state: &State,
    cache: &Cache,
    hash: StorePathHash,
    request: &Parts,
) -> Option<Arc<Offer>> {
    state.puller(cache, &request.method, &request.headers)?.find(hash).await
}

/// The hash of a store path, as a URL has it.
pub fn parse_hash(text: &str) -> Result<StorePathHash, Failure> {
    StorePathHash::parse(text)
        .ok_or(Failure::BadRequest("a store path's hash is 32 digits of Nix base 32"))
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

/// The response to a request for the text. The caller leaves the body out for HEAD.
pub fn text_response(answer: &Answer, request: &HeaderMap) -> http::Response<Bytes> {
    const TYPE: HeaderValue = HeaderValue::from_static("text/x-nix-narinfo");
    whole_or_unchanged(answer.text.clone(), &answer.tag, TYPE, request)
}

/// A small body that is whole in memory, for GET and HEAD, or 304.
pub fn respond(
    body: Vec<u8>,
    tag: &HeaderValue,
    content_type: HeaderValue,
    request: &Parts,
) -> Response {
    let response = whole_or_unchanged(body.into(), tag, content_type, &request.headers);
    for_method(response, &request.method)
}

/// 200 with the body, or 304 for a client that has it already.
fn whole_or_unchanged(
    body: Bytes,
    tag: &HeaderValue,
    content_type: HeaderValue,
    request: &HeaderMap,
) -> http::Response<Bytes> {
    let unchanged = request
        .get(IF_NONE_MATCH)
        .and_then(|header| header.to_str().ok())
        .is_some_and(|header| none_match_names(header, tag.to_str().unwrap_or("")));
    let length = body.len();
    let mut response = http::Response::new(if unchanged { Bytes::new() } else { body });
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, FRESH);
    headers.insert(ETAG, tag.clone());
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn for_method(response: http::Response<Bytes>, method: &Method) -> Response {
    let is_head = *method == Method::HEAD;
    response.map(|body| if is_head { Body::empty() } else { Body::from(body) })
}
