//! Who is let in: each request to a cache, before anything is looked up.
//!
//! `Place` says from a request's head alone which cache it is about, whether it is about a view of it, and
//! what right it needs: reading needs [`Right::Pull`], every other method [`Right::Push`], and so does the
//! whole native API, but for pins, which need [`Right::Pin`], and for what peers ask. What was found out travels with the request as `Admitted`, and is the only way for a
//! handler to get at a cache: one that was not asked for here cannot be reached by another spelling of
//! its name. A view is read by those who may read its cache, and written to by nobody.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use super::error::Failure;
use super::state::{State, Work};
use super::views::Asked;
use crate::auth::certificate::ClientCertificate;
use crate::auth::{Caller, Credential, Denial, Leave, Right};
use crate::index::holdings;
use crate::ingest::{Ingest, Pusher};
use crate::native;
use crate::source::cache::Cache;

/// The paths of the server itself: they belong to no cache, and are everybody's.
const OF_THE_SERVER: [&str; 2] = ["/health", "/metrics"];

/// What a request is about.
pub(super) struct Place<'a> {
    /// The cache; where a view is asked for, the one that it is of until that is open.
    pub(super) cache: &'a Arc<Cache>,
    /// The snapshot that it is asked for as of.
    pub(super) view: Option<Asked>,
    /// Where in the request's path the part after the cache's own begins, with its slash.
    pub(super) rest: usize,
    /// What is needed to be answered.
    pub(super) right: Right,
}

impl<'a> Place<'a> {
    /// `None` where the path is about no cache: the server's own, or a cache that does not exist, or
    /// what cannot be a view of one.
    pub(super) fn of(state: &'a State, method: &Method, path: &str) -> Option<Self> {
        if OF_THE_SERVER.contains(&path) {
            return None;
        }
        let (cache, rest) = match path.strip_prefix("/c/") {
            Some(below) => {
                let name = below.split('/').next().unwrap_or(below);
                (state.caches.get(name)?, path.len() - below.len() + name.len())
            }
            None => (&state.default, 0),
        };
        let view = Asked::of(path, rest).ok()?;
        let below = &path[view.as_ref().map_or(rest, |view| view.part.end)..];
        // Nothing but what a cache has stands below a view.
        if view.is_some() && (below.starts_with("/c/") || OF_THE_SERVER.contains(&below)) {
            return None;
        }
        let reads = [Method::GET, Method::HEAD].contains(method);
        let native = below.starts_with(native::PREFIX);
        let pins = below
            .strip_prefix(native::PINS)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let right = match () {
            () if pins => Right::Pin,
            () if reads && (!native || below == holdings::PLACE) => Right::Pull,
            () => Right::Push,
        };
        Some(Self { cache, view, rest, right })
    }
}

/// Where the requests of a connection come from.
#[derive(Clone, Default)]
pub(super) struct Origin {
    /// The address; `None`: a unix socket.
    pub(super) source: Option<IpAddr>,
    /// What the connection began with, if it was shown one.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// Whether they come over TLS.
    pub(super) is_secure: bool,
}

/// A request that was let in, to this cache.
#[derive(Clone)]
pub(super) struct Admitted {
    pub(super) cache: Arc<Cache>,
    pub(super) origin: Origin,
    pusher: Option<Pusher>,
}

impl Admitted {
    /// `leave` is what it was decided by.
    pub(super) fn new(place: &Place<'_>, leave: &Leave, origin: &Origin) -> Self {
        let pusher = (place.right != Right::Pull).then(|| caller(leave, origin.source));
        Self { cache: Arc::clone(place.cache), origin: origin.clone(), pusher }
    }
}

/// Who it is that was let in by this.
pub(super) fn caller(leave: &Leave, source: Option<IpAddr>) -> Pusher {
    match leave {
        Leave::Open => Pusher::anybody(source),
        Leave::Token(token) => Pusher::with_token(token, source),
        Leave::Certificate(certificate) => Pusher::with_certificate(certificate.label(), source),
    }
}

/// Whether the caller may, and by what it was decided.
pub(super) async fn admit(
    state: &Arc<State>,
    place: &Place<'_>,
    caller: Caller<'_>,
) -> Result<Leave, Failure> {
    let (cache, right) = (place.cache.name.as_str(), place.right);
    let denied = |denial: Denial| {
        state.metrics.http.denied(right.label(), denial.label());
        Failure::Denied(denial)
    };
    if place.view.is_some() && right != Right::Pull {
        return Err(denied(Denial::ReadOnly));
    }
    if state.gate.is_open(cache, right) {
        return Ok(Leave::Open);
    }
    let current = know_tokens(state, caller.credential).await?;
    let checked = current.and_then(|()| state.gate.check(cache, right, caller));
    checked.map_err(denied)
}

/// Has the tokens known as they are now, if one is shown.
pub(super) async fn know_tokens(
    state: &Arc<State>,
    shown: &Credential,
) -> Result<Result<(), Denial>, Failure> {
    match shown {
        Credential::Token(_) if !state.gate.is_current() => {
            let shared = Arc::clone(state);
            let refreshed = state.blocking(Work::Small, move || shared.gate.refresh()).await?;
            Ok(refreshed.map_err(|error| {
                tracing::error!("503: tokens cannot be checked: {error}");
                Denial::Unavailable
            }))
        }
        _ => Ok(Ok(())),
    }
}

/// What a request shows of who it is from.
pub(super) fn credential(headers: &HeaderMap) -> Credential {
    Credential::of(headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes))
}

/// What only some may read is for no cache between here and them.
pub(super) fn keep_private(headers: &mut HeaderMap) {
    let rest =
        headers.get(CACHE_CONTROL).and_then(|value| value.as_bytes().strip_prefix(b"public"));
    let Some(rest) = rest else { return };
    if let Ok(value) = HeaderValue::from_bytes(&[b"private", rest].concat()) {
        headers.insert(CACHE_CONTROL, value);
    }
}

/// Somebody who may pin in the cache that the request names.
pub struct Pinning {
    /// The cache.
    pub cache: Arc<Cache>,
    /// Who it is.
    pub pinner: Pusher,
}

impl FromRequestParts<Arc<State>> for Pinning {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, Failure> {
        let admitted = parts.extensions.get::<Admitted>().ok_or(Failure::NotFound)?;
        let pinner = admitted.pusher.clone().ok_or_else(|| {
            Failure::Internal("a handler that pins was reached by a request that reads".into())
        })?;
        Ok(Self { cache: Arc::clone(&admitted.cache), pinner })
    }
}

/// Somebody who may push to the cache that the request names: an argument of every handler that
/// writes, and of those of the native API.
pub struct Pushing {
    /// What takes it.
    pub ingest: Arc<Ingest>,
    /// Who it is.
    pub pusher: Pusher,
}

impl FromRequestParts<Arc<State>> for Pushing {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Failure> {
        let admitted = parts.extensions.get::<Admitted>().ok_or(Failure::NotFound)?;
        if admitted.cache.snapshot.is_some() {
            return Err(Denial::ReadOnly.into());
        }
        let pusher = admitted.pusher.clone().ok_or_else(|| {
            Failure::Internal("a handler that writes was reached by a request that reads".into())
        })?;
        let ingest = state.ingests.get(&admitted.cache.name).ok_or(Denial::NoPushes)?;
        Ok(Self { ingest: Arc::clone(ingest), pusher })
    }
}
