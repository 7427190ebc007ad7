//! `PUT` as `nix copy --to http://…`, `nix store copy-log` and `nix store sign` send it.

use std::io::Read as _;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::answer::{count, line, refuse};
use super::body::{NotWhole, split, whole};
use crate::bank::{BuildId, MAX_SMALL_OBJECT};
use crate::codec::{Compression, Decoder, Limits};
use crate::http::auth::Pushing;
use crate::http::error::Failure;
use crate::http::state::{Params, State, Work};
use crate::ingest::{Ingest, Outcome, PushError};
use crate::metrics::Route;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo;
use crate::nix::realisation::{BuildTraceKey, DrvOutput};
use crate::nix::store_path::{StorePath, StorePathHash};

type AppState = axum::extract::State<Arc<State>>;

/// The largest listing that is read, in bytes as it is sent: that of a million files.
const MAX_LISTING: usize = 128 << 20;
/// The largest build log that is taken, in bytes: one that is larger could not be compared again.
const MAX_LOG: usize = 64 << 20;
const _: () = assert!(MAX_LOG as u64 <= MAX_SMALL_OBJECT);
/// The largest realisation or debug information, in bytes.
const MAX_JSON: usize = 1 << 20;

/// `PUT nar/<hash>.nar[.<compression>]`
pub(in crate::http) async fn put_nar(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
    body: Body,
) -> Response {
    let Some(name) = NarFileName::parse(params.get("name")) else {
        return bad_name("nar/<52 digits>.nar[.xz|.zst|.bz2|.gz|.lz4]");
    };
    let ingest = Arc::clone(&pushing.ingest);
    let taken = upload(&state, &pushing, body, move |body| ingest.take_nar(name, body)).await;
    count(Route::Nar, answer(taken.map(|()| StatusCode::CREATED)))
}

/// `PUT <hash>.narinfo` and `PUT <hash>.ls`
pub(in crate::http) async fn put_by_ending(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
    request: Parts,
    body: Body,
) -> Response {
    let name = params.get("name");
    let hash = |ending: &str| name.strip_suffix(ending).and_then(StorePathHash::parse);
    if let Some(hash) = hash(".narinfo") {
        let text = match small(&request.headers, body, narinfo::MAX_TEXT).await {
            Ok(text) => text,
            Err(response) => return response,
        };
        let put = put_narinfo(&state, pushing, hash, text).await;
        return count(Route::NarInfo, answer(put));
    }
    if hash(".ls").is_some() {
        return small_object(
            &state,
            pushing,
            &request.headers,
            body,
            MAX_LISTING,
            |ingest, text| ingest.put_listing(text),
        )
        .await;
    }
    bad_name("<32 digits>.narinfo or <32 digits>.ls")
}

async fn put_narinfo(
    state: &Arc<State>,
    pushing: Pushing,
    hash: StorePathHash,
    text: Vec<u8>,
) -> Result<StatusCode, Refused> {
    let done = state.blocking(Work::Change, move || {
        let outcome = pushing.ingest.put_narinfo(hash, &text, &pushing.pusher)?;
        Ok(match outcome {
            Outcome::Published => StatusCode::CREATED,
            Outcome::Present => StatusCode::OK,
        })
    });
    done.await?.map_err(Refused::Push)
}

/// `PUT log/<derivation>`
pub(in crate::http) async fn put_log(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
    request: Parts,
    body: Body,
) -> Response {
    let derivation = StorePath::parse(params.get("drv")).ok();
    let Some(derivation) = derivation.filter(|path| path.name().ends_with(".drv")) else {
        return bad_name("log/<derivation>");
    };
    small_object(&state, pushing, &request.headers, body, MAX_LOG, move |ingest, bytes| {
        ingest.put_log(&derivation, bytes)
    })
    .await
}

/// `PUT realisations/<id>.doi`
pub(in crate::http) async fn put_realisation(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
    request: Parts,
    body: Body,
) -> Response {
    let Some(key) = params.get("id").strip_suffix(".doi").and_then(DrvOutput::parse) else {
        return bad_name("realisations/sha256:<64 digits>!<output>.doi");
    };
    small_object(&state, pushing, &request.headers, body, MAX_JSON, move |ingest, text| {
        ingest.put_realisation(&key, text)
    })
    .await
}

/// `PUT build-trace-v2/<derivation>/<output>.doi`
pub(in crate::http) async fn put_build_trace(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
    request: Parts,
    body: Body,
) -> Response {
    let output = params.get("output").strip_suffix(".doi");
    let key = output.and_then(|output| BuildTraceKey::parse(params.get("drv"), output));
    let Some(key) = key else { return bad_name("build-trace-v2/<derivation>/<output>.doi") };
    small_object(&state, pushing, &request.headers, body, MAX_JSON, move |ingest, text| {
        ingest.put_build_trace(&key, text)
    })
    .await
}

/// `PUT debuginfo/<build id>[.debug]`
pub(in crate::http) async fn put_debug_info(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
    request: Parts,
    body: Body,
) -> Response {
    let name = params.get("id");
    let Some(id) = BuildId::parse(name.strip_suffix(".debug").unwrap_or(name)) else {
        return bad_name("debuginfo/<build id>.debug");
    };
    small_object(&state, pushing, &request.headers, body, MAX_JSON, move |ingest, text| {
        ingest.put_debug_info(&id, text)
    })
    .await
}

/// Why a push was not done.
pub(super) enum Refused {
    /// By what was pushed.
    Push(PushError),
    /// By the state of the server.
    Server(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Server(failure)
    }
}

/// Hands a body to `take` on a thread that may block, once there is leave for one more upload.
///
/// Both ends of the body go on when the client has gone and hyper drops this future: what came whole
/// is taken.
pub(super) async fn upload<T: Send + 'static>(
    state: &Arc<State>,
    pushing: &Pushing,
    body: Body,
    take: impl FnOnce(super::body::BodyReader) -> Result<T, PushError> + Send + 'static,
) -> Result<T, Refused> {
    let Some(slot) = state.uploads.take(pushing.pusher.client()).await else {
        return Err(Failure::Busy("the server is going down").into());
    };
    let (arriving, reader) = split(body);
    let work = tokio::task::spawn_blocking(move || {
        let taken = take(reader);
        drop(slot);
        taken
    });
    let handing_on = tokio::spawn(arriving.hand_on());
    let taken = work.await;
    // It ends by itself, at the latest when nobody reads any more, and has nothing to say.
    let _ended = handing_on.await;
    match taken {
        Ok(taken) => taken.map_err(Refused::Push),
        Err(error) => Err(Failure::Internal(format!("an upload failed: {error}")).into()),
    }
}

/// A small body, whole and decoded.
async fn small(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, Response> {
    let bytes = match whole(body, limit).await {
        Ok(bytes) => bytes.to_vec(),
        Err(NotWhole::TooLong) => {
            let text = format!("more than {limit} bytes; that is more than is taken here");
            return Err(line(StatusCode::PAYLOAD_TOO_LARGE, &text));
        }
        Err(NotWhole::BrokeOff(error)) => {
            return Err(line(StatusCode::BAD_REQUEST, &format!("broke off: {error}")));
        }
    };
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Ok(bytes) };
    let name = encoding.to_str().unwrap_or_default();
    if name == "identity" {
        return Ok(bytes);
    }
    let unsupported = |text: String| line(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text);
    let compression: Compression = name.parse().map_err(|_| {
        unsupported(format!("Content-Encoding {name:?}; zstd, gzip, xz and bzip2 are read"))
    })?;
    let limits = Limits::output(limit as u64);
    let mut decoded = Vec::new();
    let read = Decoder::new(compression, bytes.as_slice(), limits)
        .map_err(|error| unsupported(error.to_string()))?
        .read_to_end(&mut decoded);
    match read {
        Ok(_) => Ok(decoded),
        Err(error) => Err(line(StatusCode::UNPROCESSABLE_ENTITY, &format!("the body: {error}"))),
    }
}

/// Takes one of the smaller objects.
async fn small_object(
    state: &Arc<State>,
    pushing: Pushing,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    put: impl FnOnce(&Ingest, &[u8]) -> Result<(), PushError> + Send + 'static,
) -> Response {
    let bytes = match small(headers, body, limit).await {
        Ok(bytes) => bytes,
        Err(response) => return response,
    };
    let done = state.blocking(Work::Change, move || put(&pushing.ingest, &bytes)).await;
    answer(match done {
        Ok(put) => put.map(|()| StatusCode::CREATED).map_err(Refused::Push),
        Err(failure) => Err(failure.into()),
    })
}

fn answer(done: Result<StatusCode, Refused>) -> Response {
    match done {
        Ok(status) => line(status, "ok"),
        Err(Refused::Push(error)) => refuse(&error),
        Err(Refused::Server(failure)) => failure.into_response(),
    }
}

fn bad_name(expected: &str) -> Response {
    line(StatusCode::BAD_REQUEST, &format!("no cache has a file of this name; {expected} is one"))
}
