//! Which endpoint answers which path.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::request::Parts;

use super::error::Failure;
use super::pages::{landing, path, search};
use super::state::{Params, State};
use super::{cache_info, holdings, nar, narinfo, objects, push, serve, status};
use crate::index::holdings::PLACE;

/// The routes: those of the default cache at `/`, those of every cache at `/c/<cache>/`, and those
/// of the server.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .merge(cache_routes())
        .nest("/c/{cache}", cache_routes())
        .route("/", get(landing::page))
        .route("/c/{cache}", get(landing::root))
        .route("/c/{cache}/", get(landing::page))
        .route("/health", get(status::health))
        .route("/metrics", get(status::metrics))
        .fallback(|| async { Failure::NotFound })
        .with_state(state)
}

fn cache_routes() -> Router<Arc<State>> {
    Router::new()
        .route("/nix-cache-info", get(cache_info::get))
        .route("/nar/{name}", get(nar::get).put(push::put_nar))
        .route("/log/{drv}", get(objects::log).put(push::put_log))
        .route("/realisations/{id}", get(objects::realisation).put(push::put_realisation))
        .route(
            "/build-trace-v2/{drv}/{output}",
            get(objects::build_trace).put(push::put_build_trace),
        )
        .route("/debuginfo/{id}", get(objects::debug_info).put(push::put_debug_info))
        .route("/serve/{hash}", get(serve::root))
        .route("/serve/{hash}/", get(serve::get))
        .route("/serve/{hash}/{*path}", get(serve::get))
        .route("/path/{hash}", get(path::page))
        .route("/search", get(search::page))
        .route("/{name}", get(by_ending).put(push::put_by_ending))
        .route(PLACE, get(holdings::get))
        .merge(push::native_routes())
}

/// `<hash>.narinfo` and `<hash>.ls` differ by their endings, which the router does not look at.
async fn by_ending(
    axum::extract::State(state): axum::extract::State<Arc<State>>,
    params: Params,
    cache: super::state::CacheOf,
    request: Parts,
) -> Response {
    let name = params.get("name");
    if let Some(hash) = name.strip_suffix(".narinfo") {
        narinfo::get(&state, &cache.0, hash, &request).await.into_response()
    } else if let Some(hash) = name.strip_suffix(".ls") {
        objects::listing(&state, &cache.0, hash, &request).await.into_response()
    } else {
        Failure::NotFound.into_response()
    }
}
