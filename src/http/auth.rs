//! Who may push.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::error::Failure;
use super::state::{CacheOf, State};
use crate::ingest::{Ingest, Pusher};

/// Somebody who may push to the cache that a request names.
pub struct Pushing {
    /// What takes it.
    pub ingest: Arc<Ingest>,
    /// Who it is.
    pub pusher: Pusher,
}

impl FromRequestParts<Arc<State>> for Pushing {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Failure> {
        let CacheOf(cache) = CacheOf::from_request_parts(parts, state).await?;
        let ingest = state.ingests.get(&cache.name).ok_or(Failure::NotFound)?;
        let pusher = Pusher { name: "open".into(), token: None, address: "?".into() };
        Ok(Self { ingest: Arc::clone(ingest), pusher })
    }
}
