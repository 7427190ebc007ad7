//! `health` and `metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value, json};

use super::error::Failure;
use super::state::{CountAs, State, Work};
use crate::metrics::Route;

/// Whether every cache can be read, looked at now: 200, or 503 that says which cannot.
pub async fn health(Shared(state): Shared<Arc<State>>) -> Result<Response, Failure> {
    let (healthy, caches) = look(&state).await?;
    let body = json!({"status": if healthy { "ok" } else { "unavailable" }, "caches": caches});
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    let mut response = if healthy {
        (headers, body.to_string()).into_response()
    } else {
        let retry = [(RETRY_AFTER, "5")];
        (StatusCode::SERVICE_UNAVAILABLE, headers, retry, body.to_string()).into_response()
    };
    response.extensions_mut().insert(CountAs::route(Route::Health));
    Ok(response)
}

/// Looks at every cache; also what the watchdog asks.
pub async fn look(state: &Arc<State>) -> Result<(bool, Value), Failure> {
    let shared = Arc::clone(state);
    state
        .blocking(Work::Small, move || {
            let mut healthy = true;
            let caches = shared.caches.iter().map(|(name, cache)| {
                let sources = cache.sources().iter().map(|source| {
                    let looked = source.look();
                    healthy &= looked.is_ok();
                    let label = source.name();
                    // What exactly is wrong names files, and so is for the log alone.
                    let status = match looked {
                        Ok(()) if source.is_there() => "ok",
                        Ok(()) => "not there yet",
                        Err(error) => {
                            cache.doubt();
                            tracing::error!(cache = name, source = label, "unhealthy: {error}");
                            "cannot be read"
                        }
                    };
                    let paths = source.presence().len();
                    (label.to_owned(), json!({"status": status, "paths": paths}))
                });
                (name.clone(), Value::Object(sources.collect()))
            });
            let caches = Value::Object(caches.collect());
            (healthy, caches)
        })
        .await
}

/// What Prometheus scrapes. Touches memory only.
pub async fn metrics(Shared(state): Shared<Arc<State>>) -> Result<Response, Failure> {
    count_connections(&state);
    let text = state.metrics.render().map_err(|error| Failure::Internal(error.to_string()))?;
    let headers =
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    let mut response = (headers, text).into_response();
    response.extensions_mut().insert(CountAs::route(Route::Metrics));
    Ok(response)
}

fn count_connections(state: &State) {
    let stats = &state.connections;
    let value =
        |counter: &AtomicU64| i64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
    state.metrics.open_connections.set(value(&stats.open));
    for (event, counter) in [
        ("accepted", &stats.accepted),
        ("refused", &stats.refused),
        ("accept_error", &stats.accept_errors),
        ("head_timeout", &stats.head_timeouts),
        ("idle_timeout", &stats.idle_timeouts),
        ("stall_timeout", &stats.stall_timeouts),
        ("malformed", &stats.malformed),
        ("cut_short", &stats.cut_short),
    ] {
        state.metrics.connections.with_label_values(&[event]).set(value(counter));
    }
}
