//! `nar/…`: the bytes.
//!
//! Everything that can be checked is checked before the status line. What goes wrong later ends in
//! a reset connection, never in a clean end.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::body::{BlockingBody, Chunks, FileBody, GrowingBody, UnknownLength};
use super::error::Failure;
use super::range::{self, Asked};
use super::state::{CacheOf, CountAs, Params, State, Work};
use super::tree_body::TreeBody;
use crate::codec::{Compressed, Compression};
use crate::ingest::pull::{Fetched, Unfetched};
use crate::metrics::{EncodingLabel, Route};
use crate::nix::nar_url::{NarFileName, NarRequest};
use crate::source::cache::{Cache, OpenNar};
use crate::source::chunks::BoxedChunks;
use crate::source::{Nar, NarBody, Source, SourceError, Stored, TransferError};

/// A NAR's URL holds its hash, so its bytes never change.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const NAR_TYPE: HeaderValue = HeaderValue::from_static("application/x-nix-nar");

/// A NAR, whole or a range of it.
pub async fn get(
    Shared(state): Shared<Arc<State>>,
    CacheOf(cache): CacheOf,
    params: Params,
    request: Parts,
) -> Result<Response, Failure> {
    let asked = NarRequest::parse(params.get("name"), request.uri.query())
        .ok_or(Failure::BadRequest("not the name of a NAR"))?;
    let prepared = match here(&state, &cache, asked, &request).await {
        Err(Failure::NotFound) => match elsewhere(&state, &cache, asked, &request).await? {
            Some(prepared) => prepared,
            None => here(&state, &cache, asked, &request).await?,
        },
        prepared => prepared?,
    };
    let mut response = match prepared {
        Prepared::Ready(response) => response,
        Prepared::Tree(start) => start.respond(&state).await?,
        Prepared::Stream(response, body) => response.map(|()| body.into_body(&state)),
    };
    let compressed = response
        .headers()
        .get(ETAG)
        .is_some_and(|tag| tag.as_bytes().windows(5).any(|window| window == b".nar."));
    let encoding = if compressed { EncodingLabel::Compressed } else { EncodingLabel::Nar };
    response.extensions_mut().insert(CountAs { route: Route::Nar, encoding });
    Ok(response)
}

/// A NAR that a source of the cache has.
async fn here(
    state: &Arc<State>,
    cache: &Arc<Cache>,
    asked: NarRequest,
    request: &Parts,
) -> Result<Prepared, Failure> {
    let head = request.method == Method::HEAD;
    let (asker, shared) = (Arc::clone(cache), Arc::clone(state));
    let headers = request.headers.clone();
    let prepared = state
        .blocking(Work::Small, move || {
            let passed_over = Cell::new(false);
            let found = asker.first(|source| {
                let found = source.nar(asked);
                passed_over.set(passed_over.get() || matches!(found, Err(SourceError::Damaged(_))));
                found
            })?;
            if let Some((source, nar)) = found {
                if passed_over.get() && goes_on(&headers) {
                    return Err(Failure::NotFound);
                }
                keep_open(&asker, asked, &nar);
                note(&asker, asked);
                return prepare(source, nar, &headers, head);
            }
            match pushed_as(&shared, &asker, asked)? {
                Some((name, compression)) => {
                    again(&asker, asked, name, compression, &headers, head)
                }
                None => Err(Failure::NotFound),
            }
        })
        .await?;
    State::scan_in_background(cache);
    prepared
}

/// A NAR that a peer or an upstream has, as it comes; nothing where it is here by now.
async fn elsewhere(
    state: &State,
    cache: &Cache,
    asked: NarRequest,
    request: &Parts,
) -> Result<Option<Prepared>, Failure> {
    // What a narinfo offers from elsewhere has this form, with its path.
    let NarRequest::File { name, path: Some(path) } = asked else { return Err(Failure::NotFound) };
    let puller = state.puller(cache, &request.method, &request.headers);
    let Some(puller) = puller.filter(|_| name == NarFileName::zstd(name.hash)) else {
        return Err(Failure::NotFound);
    };
    let file = match puller.nar(path, name.hash).await {
        Ok(Fetched::Coming(file)) => file,
        Ok(Fetched::Here) => return Ok(None),
        Ok(Fetched::Nowhere) => return Err(Failure::NotFound),
        Err(Unfetched::Busy) => return Err(Failure::Busy("too much is fetched now; ask again")),
        // The client goes elsewhere, and does not wait for a cache that is away.
        Err(error) => {
            tracing::warn!(%path, "404: {error}");
            return Err(Failure::NotFound);
        }
    };
    cache.asked_for(path);
    let nar = Nar { body: NarBody::Growing(file), size: None, tag: name.file_name() };
    let tag = format!("\"{}\"", nar.tag);
    growing(nar, &tag, false).map(Some)
}

/// Notes that the path is in use, so that it is not collected while clients read it.
fn note(cache: &Cache, asked: NarRequest) {
    match asked {
        NarRequest::OfPath { path, .. } | NarRequest::File { path: Some(path), .. } => {
            cache.asked_for(path);
        }
        NarRequest::File { name, path: None } => cache.nar_asked_for(name.hash),
    }
}

/// Whether a client has the beginning of the bytes already, and does not say of which.
///
/// They may be those of a file that cannot be read any more. Another source has the same NAR, but perhaps
/// compressed otherwise, and two halves of two files would be nothing.
fn goes_on(request: &HeaderMap) -> bool {
    let range = header(request, &RANGE).filter(|_| !request.contains_key(IF_RANGE));
    range.is_some_and(|range| !range.trim().starts_with("bytes=0-"))
}

/// Has the requests that follow find the file open.
fn keep_open(cache: &Cache, asked: NarRequest, nar: &Nar) {
    if let NarRequest::File { name, .. } = asked
        && let NarBody::Stored(Stored::File(file)) = &nar.body
        && let Some(size) = nar.size
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", nar.tag))
        && let Ok(file) = file.try_clone()
    {
        cache.keep_open(name, Arc::new(file), size, tag);
    }
}

/// The whole of a file that is open already: the headers, and how many bytes follow.
pub fn whole_file(open: &OpenNar) -> http::Response<()> {
    let mut response = http::Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, NAR_TYPE);
    headers.insert(CACHE_CONTROL, FOREVER);
    headers.insert(ETAG, open.tag.clone());
    headers.insert(CONTENT_LENGTH, HeaderValue::from(open.size));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// What the blocking part of the work came to.
enum Prepared {
    /// No body, or one that is in memory.
    Ready(Response),
    /// A body that is made as it is sent.
    Stream(http::Response<()>, Streamed),
    /// A tree, whose first bytes decide on the status.
    Tree(TreeBody),
}

enum Streamed {
    /// With their length, where it is known.
    Chunks(BoxedChunks, Option<u64>),
    Growing(GrowingBody),
}

impl Streamed {
    fn into_body(self, state: &Arc<State>) -> Body {
        match self {
            Self::Chunks(chunks, size) => {
                let counted = Counted { chunks, state: Arc::clone(state) };
                Body::new(BlockingBody::new(counted, size))
            }
            Self::Growing(body) => Body::new(body),
        }
    }
}

fn prepare(
    source: Arc<Source>,
    nar: Nar,
    request: &HeaderMap,
    head: bool,
) -> Result<Prepared, Failure> {
    let tag = format!("\"{}\"", nar.tag);
    if header(request, &IF_NONE_MATCH).is_some_and(|names| range::none_match_names(names, &tag)) {
        let mut response = http::Response::new(());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        fixed_headers(&mut response, &tag)?;
        return Ok(Prepared::Ready(response.map(|()| Body::empty())));
    }
    let Some(size) = nar.size else { return growing(nar, &tag, head) };
    // A range of another version of the bytes is no use: the whole is sent instead.
    let same = header(request, &IF_RANGE).is_none_or(|wanted| wanted == tag);
    let asked = range::asked(header(request, &RANGE).filter(|_| same), size);
    let mut response = http::Response::new(());
    fixed_headers(&mut response, &tag)?;
    let part = match asked {
        Asked::Unsatisfiable => return Err(Failure::Unsatisfiable(size)),
        Asked::Whole => 0..size,
        Asked::Part(part) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            insert(&mut response, CONTENT_RANGE, &text)?;
            part
        }
    };
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if head {
        return Ok(Prepared::Ready(response.map(|()| Body::empty())));
    }
    body(source, nar.body, size, part, response)
}

fn body(
    source: Arc<Source>,
    body: NarBody,
    size: u64,
    part: Range<u64>,
    response: http::Response<()>,
) -> Result<Prepared, Failure> {
    let length = part.end - part.start;
    match body {
        NarBody::Stored(Stored::File(file)) => {
            let body = FileBody::new(Arc::new(file), part);
            Ok(Prepared::Ready(response.map(|()| Body::new(body))))
        }
        NarBody::Tree(tree) => Ok(Prepared::Tree(TreeBody::new(source, tree, part, response))),
        NarBody::Growing(file) => {
            Ok(Prepared::Stream(response, Streamed::Growing(GrowingBody::new(file))))
        }
        NarBody::Stored(stored) => {
            let chunks = stored
                .into_chunks(part, size)
                .map_err(|error| Failure::Internal(error.to_string()))?;
            Ok(Prepared::Stream(response, Streamed::Chunks(chunks, Some(length))))
        }
    }
}

/// The NAR that a client remembers under the name that it was pushed under, and in which compression.
///
/// Nix keeps the narinfo that it pushed for 30 days, and the NAR in it was named after a file that was
/// compressed there. Here it lies under another name, in our own form.
fn pushed_as(
    state: &State,
    cache: &Cache,
    asked: NarRequest,
) -> Result<Option<(NarFileName, Compression)>, Failure> {
    let (NarRequest::File { name, .. }, Some(database)) = (asked, &state.state_db) else {
        return Ok(None);
    };
    let known = database
        .nar_of_name(&cache.name, name)
        .map_err(|error| Failure::Internal(error.to_string()))?;
    Ok(known
        .and_then(|(hash, compression)| Some((NarFileName::zstd(hash), compression.parse().ok()?))))
}

/// A NAR in a compression that it is not stored in. What is stored as zstd is sent as it lies.
fn again(
    cache: &Cache,
    asked: NarRequest,
    name: NarFileName,
    compression: Compression,
    request: &HeaderMap,
    head: bool,
) -> Result<Prepared, Failure> {
    let stored = match compression {
        Compression::Zstd => name,
        _ => NarFileName::bare(name.hash),
    };
    let request_for = NarRequest::File { name: stored, path: None };
    let found = cache.first(|source| source.nar(request_for))?;
    let Some((source, nar)) = found else { return Err(Failure::NotFound) };
    if compression == Compression::Zstd {
        keep_open(cache, asked, &nar);
        return prepare(source, nar, request, head);
    }
    let mut response = http::Response::new(());
    let tag = format!("\"{}-as-{compression}\"", nar.tag);
    fixed_headers(&mut response, &tag)?;
    let (NarBody::Stored(stored), Some(size), false) = (nar.body, nar.size, head) else {
        return Ok(Prepared::Ready(response.map(|()| Body::new(UnknownLength))));
    };
    let internal = |error: &dyn std::fmt::Display| Failure::Internal(error.to_string());
    let chunks = stored.into_chunks(0..size, size).map_err(|error| internal(&error))?;
    let chunks = Compressed::new(chunks, compression).map_err(|error| internal(&error))?;
    Ok(Prepared::Stream(response, Streamed::Chunks(Box::new(chunks), None)))
}

/// A NAR of which nobody knows yet how long it will be: no length, no ranges.
fn growing(nar: Nar, tag: &str, head: bool) -> Result<Prepared, Failure> {
    let mut response = http::Response::new(());
    fixed_headers(&mut response, tag)?;
    match nar.body {
        NarBody::Growing(file) if !head => {
            Ok(Prepared::Stream(response, Streamed::Growing(GrowingBody::new(file))))
        }
        _ => Ok(Prepared::Ready(response.map(|()| Body::new(UnknownLength)))),
    }
}

fn fixed_headers<T>(response: &mut http::Response<T>, tag: &str) -> Result<(), Failure> {
    response.headers_mut().insert(CONTENT_TYPE, NAR_TYPE);
    response.headers_mut().insert(CACHE_CONTROL, FOREVER);
    insert(response, ETAG, tag)
}

fn insert<T>(
    response: &mut http::Response<T>,
    name: HeaderName,
    value: &str,
) -> Result<(), Failure> {
    let value =
        HeaderValue::from_str(value).map_err(|error| Failure::Internal(error.to_string()))?;
    response.headers_mut().insert(name, value);
    Ok(())
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Counts and logs what goes wrong once an answer has begun.
struct Counted<I> {
    chunks: I,
    state: Arc<State>,
}

impl<I: Chunks> Iterator for Counted<I> {
    type Item = Result<Bytes, TransferError>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.chunks.next();
        if let Some(Err(error)) = &chunk {
            tracing::error!("an answer was cut: {error}");
            if matches!(error, TransferError::Mismatch { .. }) {
                self.state.metrics.hash_mismatches.inc();
            }
        }
        chunk
    }
}
