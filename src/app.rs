//! The long-lived parts, built once. A stand-in until the server is there: it answers every request
//! with its own path, so that sockets, limits and signals can be tried.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::sync::watch;

use crate::config::Config;
use crate::http::listen::{self, BindError, ConnectionStats, ListenLimits, Listeners, Stage};
use crate::service::{Notifier, Signals};

/// Why the server could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The runtime could not be built, or signals not caught.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    /// A socket could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Serves until it is told to stop.
pub fn run(config: Config) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(config.limits.blocking_threads)
        .build()?;
    let result = runtime.block_on(serve(config));
    // Whatever blocks a thread now is not waited for: everything on disk is safe to leave at any time.
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

async fn serve(config: Config) -> Result<(), AppError> {
    let signals = Signals::catch()?;
    let notifier = Notifier::from_environment(|name| std::env::var_os(name))?;
    let limits = ListenLimits::from(&config.limits);
    let listeners = Listeners::bind(&config.listen, config.socket_mode, limits.stall_timeout)?;
    for address in listeners.addresses() {
        tracing::info!(%address, "listening");
    }
    notifier.ready();
    let (stage, stages) = watch::channel(Stage::Serving);
    let stats = Arc::<ConnectionStats>::default();
    let serving = listen::serve(listeners, &limits, stats, stages, |_| service_fn(answer));
    let reload = async || tracing::info!("there is nothing to reload yet");
    tokio::select! {
        () = serving => {}
        () = signals.obey(&stage, &notifier, reload) => {}
        () = notifier.watch(async || true) => {}
    }
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Bytes::from(request.uri().path().to_owned()).into()))
}
