//! Pins by the native API ([`crate::native`]).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use jiff::Timestamp;

use super::answer::{count, json, refuse_with};
use super::native::read;
use crate::http::auth::Pinning;
use crate::http::state::{Params, State, Work};
use crate::index::state::{
    Keep, MAX_PIN_NAME, NewRevision, PinRecord, PinRevision, Pinned, StateDb, StateError,
    is_pin_name,
};
use crate::metrics::Route;
use crate::native::{
    MAX_COMMIT, PinHistory, PinList, PinRequest, PinResponse, PinSummary, PinnedThen,
};
use crate::source::SourceError;

type AppState = axum::extract::State<Arc<State>>;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/pins", post(pin).get(list))
        .route("/pins/{*name}", get(history).delete(remove))
}

/// A status and what is said to it.
type Refusal = (StatusCode, String);

async fn pin(axum::extract::State(state): AppState, pinning: Pinning, body: Body) -> Response {
    let request: PinRequest = match read(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    with_state(&state, move |db| {
        let keep = keep(&request)?;
        all_are_here(&pinning, &request)?;
        let (cache, name) = (pinning.cache.name.as_str(), request.name.as_str());
        let pinner = pinning.pinner.name.as_str();
        let revision = NewRevision { cache, name, paths: &request.paths, pinner };
        match db.pin(revision, keep, Timestamp::now().as_second()).map_err(unavailable)? {
            Pinned::Revision(revision) => {
                // One that was collected between the look at it and the pin is kept from now on, and not here.
                all_are_here(&pinning, &request)?;
                Ok(json(StatusCode::OK, &PinResponse { name: request.name, revision }))
            }
            Pinned::OfRelease => Err(of_release(name)),
        }
    })
    .await
}

fn keep(request: &PinRequest) -> Result<Option<Keep>, Refusal> {
    let bad = |why: String| Err((StatusCode::BAD_REQUEST, why));
    if !is_pin_name(&request.name) {
        return bad(format!(
            "a name of 1 to {MAX_PIN_NAME} letters, digits and - _ . + : @ / is expected"
        ));
    }
    if request.paths.is_empty() || request.paths.len() > MAX_COMMIT {
        return bad(format!("1 to {MAX_COMMIT} paths are expected"));
    }
    match (request.keep_revisions, request.keep_days, request.forever) {
        (None, None, false) => Ok(None),
        (None, None, true) => Ok(Some(Keep::Forever)),
        (Some(count @ 1..), None, false) => Ok(Some(Keep::Revisions(count))),
        (None, Some(days @ 1..=36_525), false) => Ok(Some(Keep::Days(days))),
        _ => {
            bad("one of keep_revisions (1 or more), keep_days (1 to 36525) and forever is expected"
                .into())
        }
    }
}

fn all_are_here(pinning: &Pinning, request: &PinRequest) -> Result<(), Refusal> {
    let Some(bank) = pinning.cache.own_bank() else {
        return Err((
            StatusCode::CONFLICT,
            "this cache has no bank of its own to keep anything in".into(),
        ));
    };
    for hash in &request.paths {
        match bank.find(*hash) {
            Ok(Some(_)) => {}
            Ok(None) | Err(SourceError::Damaged(_)) => {
                let why = format!("{hash} is not here, or not any more: push it first");
                return Err((StatusCode::NOT_FOUND, why));
            }
            Err(error @ SourceError::Unavailable(_)) => {
                tracing::error!("not pinned: {error}");
                let why = "the cache cannot be read now; the server's log says why";
                return Err((StatusCode::SERVICE_UNAVAILABLE, why.into()));
            }
        }
    }
    Ok(())
}

async fn list(axum::extract::State(state): AppState, pinning: Pinning) -> Response {
    with_state(&state, move |db| {
        let pins = db.pins(&pinning.cache.name).map_err(unavailable)?;
        let pins = pins.into_iter().map(summary).collect();
        Ok(json(StatusCode::OK, &PinList { pins }))
    })
    .await
}

fn summary(pin: PinRecord) -> PinSummary {
    let (keep_revisions, keep_days) = pin.keep.revisions_and_days();
    let PinRecord { name, release, created, revisions, paths, .. } = pin;
    PinSummary { name, release, created, keep_revisions, keep_days, revisions, paths }
}

async fn history(
    axum::extract::State(state): AppState,
    pinning: Pinning,
    params: Params,
) -> Response {
    let name = params.get("name").to_owned();
    with_state(&state, move |db| {
        let revisions = db.pin_revisions(&pinning.cache.name, &name).map_err(unavailable)?;
        if revisions.is_empty() {
            return Err(not_there(&name));
        }
        let then = |revision: PinRevision| {
            let PinRevision { number, created, pinner: by, paths } = revision;
            PinnedThen { number, created, by, paths }
        };
        let revisions = revisions.into_iter().map(then).collect();
        Ok(json(StatusCode::OK, &PinHistory { revisions }))
    })
    .await
}

async fn remove(
    axum::extract::State(state): AppState,
    pinning: Pinning,
    params: Params,
) -> Response {
    let name = params.get("name").to_owned();
    with_state(&state, move |db| {
        let cache = pinning.cache.name.as_str();
        if db.release_of_pin(cache, &name).map_err(unavailable)?.is_some() {
            return Err(of_release(&name));
        }
        match db.remove_pin(cache, &name).map_err(unavailable)? {
            true => Ok(StatusCode::NO_CONTENT.into_response()),
            false => Err(not_there(&name)),
        }
    })
    .await
}

async fn with_state(
    state: &Arc<State>,
    work: impl FnOnce(&StateDb) -> Result<Response, Refusal> + Send + 'static,
) -> Response {
    let db = state.state_db.clone();
    let done = state.blocking(Work::Change, move || match db {
        Some(db) => work(&db),
        None => Err((
            StatusCode::SERVICE_UNAVAILABLE,
            "pins cannot be read now; the server's log says why".into(),
        )),
    });
    let response = match done.await {
        Ok(Ok(response)) => response,
        Ok(Err((status, why))) => refuse_with(status, why),
        Err(failure) => failure.into_response(),
    };
    count(Route::Native, response)
}

fn unavailable(error: StateError) -> Refusal {
    tracing::error!("pins: {error}");
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "pins cannot be read or written now; the server's log says why".into(),
    )
}

fn not_there(name: &str) -> Refusal {
    (StatusCode::NOT_FOUND, format!("there is no pin {name:?}"))
}

fn of_release(name: &str) -> Refusal {
    (
        StatusCode::CONFLICT,
        format!("{name:?} is the pin of a release, which `snowbank release` makes and removes"),
    )
}
