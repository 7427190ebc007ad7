//! The native API ([`crate::native`] has its requests and answers).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::answer::{count, json, refuse_all, refuse_with};
use super::body::{NotWhole, whole};
use super::stock::{Refused, upload};
use crate::bank::publish::pending::UploadId;
use crate::http::auth::Pushing;
use crate::http::state::{Params, State, Work};
use crate::ingest::PushError;
use crate::metrics::Route;
use crate::native::{
    CommitRequest, FinishUpload, MAX_JSON, MAX_MISSING, MissingRequest, MissingResponse, NAR_SIZE,
    NewUpload, PART_HASH, PREFIX, UPLOAD_OFFSET, UploadState,
};
use crate::nix::hash::Sha256;

type AppState = axum::extract::State<Arc<State>>;

/// The routes below the cache's own prefix.
pub fn routes() -> Router<Arc<State>> {
    let api = Router::new()
        .route("/missing", post(missing))
        .route("/nar/{hash}", put(put_nar))
        .route("/uploads", post(begin))
        .route("/uploads/{id}", patch(append).get(state_of).delete(cancel))
        .route("/uploads/{id}/finish", post(finish))
        .route("/commit", post(commit))
        .merge(super::pins::routes())
        .fallback(get(|| async { unknown() }));
    Router::new().nest(PREFIX, api)
}

fn unknown() -> Response {
    refuse_with(StatusCode::NOT_FOUND, "the native API has nothing of this name".into())
}

async fn missing(axum::extract::State(state): AppState, pushing: Pushing, body: Body) -> Response {
    let request: MissingRequest = match read(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let asked = request.paths.len().max(request.nars.len());
    if asked > MAX_MISSING {
        let reason = format!("{asked} paths in one question; ask for {MAX_MISSING} at most");
        return refuse_with(StatusCode::PAYLOAD_TOO_LARGE, reason);
    }
    let reads = request.verify || !request.nars.is_empty();
    let class = if reads { Work::Large } else { Work::Change };
    let done = state.blocking(class, move || {
        let ingest = &pushing.ingest;
        Ok(MissingResponse {
            missing: ingest.missing(&request.paths, request.verify)?,
            store_dir: ingest.store_dir().to_string(),
            upstream_keys: ingest.upstream_keys(),
            waiting: ingest.waiting(&request.nars)?,
        })
    });
    respond(done.await.map_err(Refused::Server).and_then(|done| done.map_err(Refused::Push)))
}

async fn put_nar(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
    request: Parts,
    body: Body,
) -> Response {
    let Some(nar_hash) = Sha256::from_nix32(params.get("hash")) else {
        return refuse_with(StatusCode::BAD_REQUEST, "nar/<52 digits of the NarHash>".into());
    };
    let Some(nar_size) = number(&request, NAR_SIZE) else {
        return needs_header(NAR_SIZE, "the size of the uncompressed NAR in bytes");
    };
    let ingest = Arc::clone(&pushing.ingest);
    let take = move |body| ingest.take_whole(nar_hash, nar_size, body);
    respond(upload(&state, &pushing, body, take).await)
}

async fn begin(axum::extract::State(state): AppState, pushing: Pushing, body: Body) -> Response {
    let new: NewUpload = match read(body).await {
        Ok(new) => new,
        Err(response) => return response,
    };
    small(&state, move || pushing.ingest.begin_upload(&new, pushing.pusher.client())).await
}

async fn append(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
    request: Parts,
    body: Body,
) -> Response {
    let Some(id) = UploadId::parse(params.get("id")) else { return unknown() };
    let Some(offset) = number(&request, UPLOAD_OFFSET) else {
        return needs_header(UPLOAD_OFFSET, "where in the upload the part begins, in bytes");
    };
    let hash = header(&request, PART_HASH).and_then(|text| Sha256::parse(text).ok());
    let Some(hash) = hash else {
        return needs_header(PART_HASH, "sha256:<nix32> of the part");
    };
    let (ingest, pusher) = (Arc::clone(&pushing.ingest), pushing.pusher.client().to_owned());
    let take = move |body| ingest.append(&id, &pusher, offset, hash, body);
    respond(upload(&state, &pushing, body, take).await)
}

async fn state_of(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
) -> Response {
    let Some(id) = UploadId::parse(params.get("id")) else { return unknown() };
    small(&state, move || pushing.ingest.upload(&id, pushing.pusher.client())).await
}

async fn cancel(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
) -> Response {
    let Some(id) = UploadId::parse(params.get("id")) else { return unknown() };
    let done = state
        .blocking(Work::Change, move || pushing.ingest.cancel_upload(&id, pushing.pusher.client()));
    match done.await {
        Ok(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Ok(Err(error)) => refuse_all(&[error]),
        Err(failure) => failure.into_response(),
    }
}

async fn finish(
    axum::extract::State(state): AppState,
    pushing: Pushing,
    params: Params,
    body: Body,
) -> Response {
    let Some(id) = UploadId::parse(params.get("id")) else { return unknown() };
    let end: FinishUpload = match read(body).await {
        Ok(end) => end,
        Err(response) => return response,
    };
    let (ingest, pusher) = (Arc::clone(&pushing.ingest), pushing.pusher.client().to_owned());
    // As much work as an upload, and so one of those that run at once.
    let take = move |_nothing| ingest.finish_upload(&id, &pusher, &end);
    respond(upload(&state, &pushing, Body::empty(), take).await)
}

async fn commit(axum::extract::State(state): AppState, pushing: Pushing, body: Body) -> Response {
    let request: CommitRequest = match read(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let done =
        state.blocking(Work::Change, move || pushing.ingest.commit(&request, &pushing.pusher));
    count(
        Route::Native,
        match done.await {
            Ok(Ok(done)) => json(StatusCode::OK, &done),
            Ok(Err(errors)) => refuse_all(&errors),
            Err(failure) => failure.into_response(),
        },
    )
}

/// Does what takes microseconds to milliseconds.
async fn small(
    state: &Arc<State>,
    work: impl FnOnce() -> Result<UploadState, PushError> + Send + 'static,
) -> Response {
    let done = state.blocking(Work::Change, work).await;
    respond(done.map_err(Refused::Server).and_then(|done| done.map_err(Refused::Push)))
}

fn respond<T: serde::Serialize>(done: Result<T, Refused>) -> Response {
    count(
        Route::Native,
        match done {
            Ok(value) => json(StatusCode::OK, &value),
            Err(Refused::Push(error)) => refuse_all(&[error]),
            Err(Refused::Server(failure)) => failure.into_response(),
        },
    )
}

/// Reads a request.
pub(super) async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Response> {
    let bytes = match whole(body, MAX_JSON).await {
        Ok(bytes) => bytes,
        Err(NotWhole::TooLong) => {
            let reason = format!("a request of more than {MAX_JSON} bytes; send several");
            return Err(refuse_with(StatusCode::PAYLOAD_TOO_LARGE, reason));
        }
        Err(NotWhole::BrokeOff(error)) => {
            return Err(refuse_with(StatusCode::BAD_REQUEST, format!("broke off: {error}")));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        refuse_with(StatusCode::BAD_REQUEST, format!("not such a request: {error}"))
    })
}

fn header<'a>(request: &'a Parts, name: &str) -> Option<&'a str> {
    request.headers.get(name)?.to_str().ok()
}

fn number(request: &Parts, name: &str) -> Option<u64> {
    let text = header(request, name)?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn needs_header(name: &str, what: &str) -> Response {
    refuse_with(
        StatusCode::BAD_REQUEST,
        format!("the header {name} is missing or malformed: {what}"),
    )
}
