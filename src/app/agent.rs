//! The frame of `snowbank agent`: signals, the service manager, metrics and health around the thread
//! that drains the spool.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::sync::{oneshot, watch};

use super::AppError;
use crate::client::agent::{Agent, AgentSettings, Pulse};
use crate::client::closure::LocalPaths;
use crate::client::notice::Notice;
use crate::client::remote::Remote;
use crate::client::retry::Stop;
use crate::client::spool::Spool;
use crate::http::listen::{self, ConnectionStats, ListenAddress, ListenLimits, Listeners, Stage};
use crate::metrics::agent::AgentMetrics;
use crate::service::{Notifier, Signals};

/// Without a sign of life for this long the agent is stuck: no single request may be that silent.
const STUCK: Duration = Duration::from_secs(1200);
/// How long an upload in flight has to come to a point where it can be gone on with.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How often the service manager is told how it goes.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// Whoever may reach the unix socket of the metrics.
const SOCKET_MODE: u32 = 0o666;

/// What an agent is made of.
pub struct AgentParts {
    /// What is drained.
    pub spool: Spool,
    /// Where to.
    pub remote: Remote,
    /// Where from.
    pub paths: LocalPaths,
    /// How.
    pub settings: AgentSettings,
    /// Where metrics and health are answered.
    pub listen: Vec<ListenAddress>,
}

/// What the thread that drains shares with the frame.
struct Shared {
    parts: AgentParts,
    stop: Stop,
    notice: Notice,
    metrics: AgentMetrics,
    pulse: Pulse,
}

impl Shared {
    fn drain(&self) {
        let agent = Agent {
            spool: &self.parts.spool,
            remote: &self.parts.remote,
            paths: &self.parts.paths,
            settings: &self.parts.settings,
            stop: &self.stop,
            metrics: &self.metrics,
            pulse: &self.pulse,
        };
        agent.run(&self.notice);
    }

    fn is_alive(&self) -> bool {
        self.pulse.age() < STUCK
    }
}

/// Drains the spool until it is told to stop.
pub fn run(parts: AgentParts) -> Result<(), AppError> {
    let directory = parts.spool.directory().to_owned();
    let failed = |source| AppError::Directory { path: directory.clone(), source };
    parts.spool.prepare().map_err(failed)?;
    let shared = Arc::new(Shared {
        notice: Notice::watch(&directory).map_err(failed)?,
        parts,
        stop: Stop::default(),
        metrics: AgentMetrics::new()?,
        pulse: Pulse::default(),
    });
    // One thread: all it does is to wait, and to answer a scrape now and then.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AppError::Runtime)?;
    runtime.block_on(serve(&shared))
}

async fn serve(shared: &Arc<Shared>) -> Result<(), AppError> {
    let signals = Signals::catch().map_err(AppError::Runtime)?;
    let notifier =
        Notifier::from_environment(|name| std::env::var_os(name)).map_err(AppError::Runtime)?;
    let limits = ListenLimits::default();
    let listeners = Listeners::bind(&shared.parts.listen, SOCKET_MODE, limits.stall_timeout, None)?;
    announce(&listeners.addresses(), shared);
    let drained = start(shared)?;
    notifier.ready();
    let (stage, stages) = watch::channel(Stage::Serving);
    let answering = async {
        let shared = Arc::clone(shared);
        let service = move |_client| {
            let shared = Arc::clone(&shared);
            service_fn(move |request| {
                let response = answer(&shared, &request);
                async move { Ok::<_, Infallible>(response) }
            })
        };
        let stats = Arc::new(ConnectionStats::default());
        listen::serve(listeners, &limits, stats, stages.clone(), service).await;
        // The last connection may be gone before the last upload is.
        std::future::pending::<Infallible>().await
    };
    let stopping = async {
        let mut stages = stages.clone();
        // The sender lives as long as we do.
        let _ = stages.wait_for(|stage| *stage != Stage::Serving).await;
        shared.stop.stop();
        shared.notice.wake();
        tokio::time::sleep(STOP_DEADLINE).await;
        tracing::warn!("an upload did not come to its end in time; it can be gone on with");
    };
    let is_alive = async || shared.is_alive();
    tokio::select! {
        ended = drained => if ended.is_err() { return Err(AppError::AgentEnded) },
        () = stopping => {}
        () = signals.obey(&stage, &notifier, async || ()) => {}
        () = notifier.watch(is_alive) => {}
        never = answering => match never {},
        never = tell(shared, &notifier) => match never {},
    }
    tracing::info!("stopped");
    Ok(())
}

/// Starts the thread that drains; what is received is sent at its end, and nothing if it panicked.
fn start(shared: &Arc<Shared>) -> Result<oneshot::Receiver<()>, AppError> {
    let (ended, drained) = oneshot::channel();
    let shared = Arc::clone(shared);
    let drain = move || {
        shared.drain();
        // Nobody is there to hear it only if the process ends anyhow.
        let _ = ended.send(());
    };
    std::thread::Builder::new().name("drain".into()).spawn(drain).map_err(AppError::Runtime)?;
    Ok(drained)
}

/// Tells the service manager how it goes, for ever.
async fn tell(shared: &Shared, notifier: &Notifier) -> Infallible {
    let mut ticks = tokio::time::interval(STATUS_EVERY);
    let mut last = String::new();
    loop {
        ticks.tick().await;
        let (waiting, parked) = (shared.metrics.queue_depth.get(), shared.metrics.parked.get());
        let line = format!("{waiting} waiting, {parked} parked");
        if line != last {
            notifier.status(&line);
            last = line;
        }
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let (status, text) = match request.uri().path() {
        _ if !is_read => (StatusCode::METHOD_NOT_ALLOWED, b"GET and HEAD only\n".to_vec()),
        "/metrics" => match shared.metrics.render() {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => {
                tracing::error!("the metrics cannot be rendered: {error}");
                (StatusCode::INTERNAL_SERVER_ERROR, b"no metrics\n".to_vec())
            }
        },
        "/health" if shared.is_alive() => (StatusCode::OK, b"ok\n".to_vec()),
        "/health" => (StatusCode::SERVICE_UNAVAILABLE, b"stuck\n".to_vec()),
        _ => (StatusCode::NOT_FOUND, b"/metrics and /health are here\n".to_vec()),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, text);
    response
}

/// Says where it answers and what it does, on standard output.
fn announce(addresses: &[ListenAddress], shared: &Shared) {
    let mut text = String::new();
    for address in addresses {
        text += &match address {
            ListenAddress::Tcp(at) => format!("listening on http://{at}\n"),
            other => format!("listening on {other}\n"),
        };
    }
    let (from, to) = (shared.parts.spool.directory().display(), shared.parts.remote.url());
    text += &format!("draining {from} to {to}\n");
    // Nobody may be reading, which is no reason not to drain.
    let mut output = io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}
