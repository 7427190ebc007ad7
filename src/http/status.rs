//! `health` and `metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value, json};

use super::error::Failure;
use super::state::{CountAs, State, Work};
use crate::keep::watch::{Severity, Trouble};
use crate::metrics::Route;

/// How long a look at all caches may take. A disk that does not answer is known as such a little
/// later, and then nobody goes near it.
const LOOK_DEADLINE: Duration = Duration::from_secs(4);

/// Whether every cache can be read, looked at now, and what is wrong with what they lie on: 200, or 503
/// where something is not served or cannot be pushed. What is merely degraded is 200 and says so.
pub async fn health(Shared(state): Shared<Arc<State>>) -> Result<Response, Failure> {
    let looked = tokio::time::timeout(LOOK_DEADLINE, look(&state)).await;
    let (readable, caches) = match looked {
        Ok(looked) => looked?,
        Err(_) => (false, Value::String("the disks do not answer".into())),
    };
    let troubles = state.watch.troubles();
    let worst = troubles.iter().map(|trouble| trouble.severity).max();
    let status = match (readable, worst) {
        (false, _) | (_, Some(Severity::Unavailable)) => "unavailable",
        (true, Some(Severity::Degraded)) => "degraded",
        (true, None) => "ok",
    };
    let troubles = troubles.iter().map(describe).collect::<Vec<_>>();
    let pools = state.watch.report();
    let pools = pools
        .pools
        .iter()
        .map(|(name, found)| (name.to_string(), Value::String(found.pool.health.as_str().into())));
    let pools = Value::Object(pools.collect());
    let body = json!({"status": status, "caches": caches, "troubles": troubles, "pools": pools})
        .to_string();
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    let mut response = if status == "unavailable" {
        let retry = [(RETRY_AFTER, "5")];
        (StatusCode::SERVICE_UNAVAILABLE, headers, retry, body).into_response()
    } else {
        (headers, body).into_response()
    };
    response.extensions_mut().insert(CountAs::route(Route::Health));
    Ok(response)
}

fn describe(trouble: &Trouble) -> Value {
    let severity = match trouble.severity {
        Severity::Degraded => "degraded",
        Severity::Unavailable => "unavailable",
    };
    let Trouble { cache, dataset, what, .. } = trouble;
    json!({"severity": severity, "cache": cache, "dataset": dataset, "what": what})
}

/// Looks at every cache.
async fn look(state: &Arc<State>) -> Result<(bool, Value), Failure> {
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
    let (stats, metrics) = (&state.connections, &state.metrics);
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    metrics.http.open_connections.set(i64::try_from(value(&stats.open)).unwrap_or(i64::MAX));
    for (event, counter) in [
        ("accepted", &stats.accepted),
        ("refused", &stats.refused),
        ("accept_error", &stats.accept_errors),
        ("head_timeout", &stats.head_timeouts),
        ("idle_timeout", &stats.idle_timeouts),
        ("stall_timeout", &stats.stall_timeouts),
        ("malformed", &stats.malformed),
        ("cut_short", &stats.cut_short),
        ("http2", &stats.http2),
    ] {
        metrics.http.connections(event, value(counter));
    }
    for (result, version, counter) in [
        ("ok", "1.2", &stats.handshakes_tls12),
        ("ok", "1.3", &stats.handshakes_tls13),
        ("error", "", &stats.handshake_errors),
        ("timeout", "", &stats.handshake_timeouts),
        ("plain_http", "", &stats.plain_on_tls),
    ] {
        metrics.tls.handshakes(result, version, value(counter));
    }
}
