//! The smaller objects: listings, build logs, realisations, debug information.

use std::io::Read;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method};

use super::body::{BlockingBody, UnknownLength};
use super::error::Failure;
use super::narinfo::{parse_hash, respond};
use super::state::{CacheOf, CountAs, Params, State, Work};
use crate::bank::{BuildId, Object};
use crate::metrics::Route;
use crate::nix::realisation::{BuildTraceKey, DrvOutput};
use crate::nix::store_path::StorePath;
use crate::source::browse;
use crate::source::cache::{Cache, tag_of};
use crate::source::chunks::CHUNK;
use crate::source::{Blob, TransferError};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// `<hash>.ls`: what is in a path, with `narOffset`.
pub async fn listing(
    state: &State,
    cache: &Arc<Cache>,
    hash: &str,
    request: &Parts,
) -> Result<Response, Failure> {
    let hash = parse_hash(hash)?;
    let asked = Arc::clone(cache);
    let found = state.blocking(Work::Large, move || browse::listing_json(&asked, hash)).await??;
    let json = found.ok_or(Failure::NotFound)?;
    Ok(whole(json, Route::Listing, request))
}

/// `log/<drv>`: a build log, decoded.
pub async fn log(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    params: Params,
    request: Parts,
) -> Result<Response, Failure> {
    let derivation = StorePath::parse(params.get("drv"))
        .map_err(|_| Failure::BadRequest("a log is named by a derivation's base name"))?;
    let object = Object::Log(derivation);
    let found =
        state.blocking(Work::Small, move || cache.first(|source| source.object(&object))).await??;
    let (_, blob) = found.ok_or(Failure::NotFound)?;
    let mut response = stream(blob, request.method == Method::HEAD);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.extensions_mut().insert(CountAs::route(Route::Log));
    Ok(response)
}

/// `realisations/<id>.doi`, of Nix before 2.35.
pub async fn realisation(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    params: Params,
    request: Parts,
) -> Result<Response, Failure> {
    let key = params.get("id").strip_suffix(".doi").and_then(DrvOutput::parse);
    let key = key.ok_or(Failure::BadRequest("a realisation is named sha256:<hex>!<output>.doi"))?;
    let json = signed(&state, &cache, move |cache| browse::realisation(cache, &key)).await?;
    Ok(whole(json, Route::Realisation, &request))
}

/// `build-trace-v2/<drv>/<output>.doi`, since Nix 2.35.
pub async fn build_trace(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    params: Params,
    request: Parts,
) -> Result<Response, Failure> {
    let output = params.get("output").strip_suffix(".doi");
    let key = output.and_then(|output| BuildTraceKey::parse(params.get("drv"), output));
    let key = key.ok_or(Failure::BadRequest("a build trace is named <drv>/<output>.doi"))?;
    let json = signed(&state, &cache, move |cache| browse::build_trace(cache, &key)).await?;
    Ok(whole(json, Route::Realisation, &request))
}

/// `debuginfo/<build id>[.debug]`: where the debug information of a build is.
pub async fn debug_info(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    params: Params,
    request: Parts,
) -> Result<Response, Failure> {
    let id = params.get("id");
    let id = BuildId::parse(id.strip_suffix(".debug").unwrap_or(id))
        .ok_or(Failure::BadRequest("a build ID is hexadecimal"))?;
    let found = state
        .blocking(Work::Large, move || {
            let found = cache.first(|source| source.debug_info(&id))?;
            found.map(|(_, blob)| read_whole(blob)).transpose()
        })
        .await??;
    Ok(whole(found.ok_or(Failure::NotFound)?, Route::DebugInfo, &request))
}

async fn signed<E: Into<Failure> + Send + 'static>(
    state: &State,
    cache: &Arc<Cache>,
    ask: impl FnOnce(&Cache) -> Result<Option<Vec<u8>>, E> + Send + 'static,
) -> Result<Vec<u8>, Failure> {
    let cache = Arc::clone(cache);
    let found = state.blocking(Work::Small, move || ask(&cache)).await?;
    found.map_err(Into::into)?.ok_or(Failure::NotFound)
}

fn whole(json: Vec<u8>, route: Route, request: &Parts) -> Response {
    let tag = tag_of(&json);
    let mut response = respond(json, &tag, JSON, request);
    response.extensions_mut().insert(CountAs::route(route));
    response
}

fn read_whole(blob: Blob) -> Result<Vec<u8>, Failure> {
    browse::read_whole(blob).map_err(|error| Failure::Internal(error.to_string()))
}

fn stream(blob: Blob, head: bool) -> Response {
    match blob {
        Blob::Bytes(bytes) => Response::new(Body::from(bytes)),
        Blob::Stream(_) if head => Response::new(Body::new(UnknownLength)),
        Blob::Stream(reader) => Response::new(Body::new(BlockingBody::new(Decoded(reader), None))),
    }
}

/// The decoded bytes of a stream whose length nobody knows.
struct Decoded(Box<dyn Read + Send>);

impl Iterator for Decoded {
    type Item = Result<Bytes, TransferError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut buffer = Vec::with_capacity(CHUNK);
        match (&mut self.0).take(CHUNK as u64).read_to_end(&mut buffer) {
            Ok(0) => None,
            Ok(_) => Some(Ok(Bytes::from(buffer))),
            Err(error) => {
                Some(Err(TransferError::Read { path: "a log".into(), why: error.to_string() }))
            }
        }
    }
}
