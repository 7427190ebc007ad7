//! A tree of the local store on its way out: what becomes of it when it was right, and when not.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use super::body::BlockingBody;
use super::error::Failure;
use super::state::State;
use crate::bank::is_read_error;
use crate::metrics::SourceLabel;
use crate::source::cache::Unavailable;
use crate::source::local::TreeNar;
use crate::source::local::tree::{Expected, NarStream, TreeError};
use crate::source::{Source, TransferError};

/// An answer whose tree has not been touched yet.
pub struct TreeBody {
    source: Arc<Source>,
    nar: TreeNar,
    part: Range<u64>,
    response: http::Response<()>,
}

impl TreeBody {
    /// Will send `part` of the NAR, with `response` before it.
    pub const fn new(
        source: Arc<Source>,
        nar: TreeNar,
        part: Range<u64>,
        response: http::Response<()>,
    ) -> Self {
        Self { source, nar, part, response }
    }

    /// Reads the first chunk, and answers accordingly: a path that has been collected meanwhile is
    /// not there. One with wrong bytes gets its status line and then a reset, whenever it is found
    /// out; by then it is in quarantine, so that a client that asks again hears 404 and goes
    /// elsewhere.
    pub async fn respond(self, state: &Arc<State>) -> Result<Response, Failure> {
        let Self { source, nar, part, response } = self;
        let TreeNar { tree, info } = nar;
        let expected = Expected { nar_hash: info.nar_hash, nar_size: info.nar_size };
        let whole = part == (0..info.nar_size);
        let range = (!whole).then(|| part.clone());
        let mut stream =
            NarStream::start(&state.readers, tree.clone(), range, whole.then_some(expected));
        let first = stream.next().await;
        let mut body = Sending {
            stream,
            first: None,
            remaining: part.end - part.start,
            outcome: Outcome {
                state: Arc::clone(state),
                source,
                nar: TreeNar { tree, info },
                whole,
            },
        };
        match first {
            Some(Ok(chunk)) => {
                body.first = Some(chunk);
                Ok(response.map(|()| Body::new(body)))
            }
            Some(Err(error)) => {
                body.outcome.was_wrong(&error);
                if body.outcome.was_unreadable(&error).await {
                    return Err(Failure::NotFound);
                }
                if !is_mismatch(&error) {
                    return Err(refuse(&error));
                }
                let broken = BlockingBody::new(std::iter::once(Err(cut(&error))), None);
                Ok(response.map(|()| Body::new(broken)))
            }
            None => Err(Failure::Internal("a NAR without bytes".into())),
        }
    }
}

struct Sending {
    stream: NarStream,
    first: Option<Bytes>,
    remaining: u64,
    outcome: Outcome,
}

/// What is done once it is known whether the tree was right.
struct Outcome {
    state: Arc<State>,
    source: Arc<Source>,
    nar: TreeNar,
    whole: bool,
}

impl Outcome {
    fn was_right(&self) {
        if self.whole
            && let Source::Store(store) = &*self.source
            && let Some(bakery) = store.bakery()
        {
            bakery.bake_later(self.nar.tree.clone(), self.nar.info.clone());
        }
    }

    /// Whether the disk refused, and the path is answered as not there for that.
    async fn was_unreadable(&self, error: &TreeError) -> bool {
        let Some(judged) = self.judge_unreadable(error) else { return false };
        judged.await.unwrap_or(false)
    }

    /// Has it decided, on a thread that may ask the pool, what it means that the disk refused.
    fn judge_unreadable(&self, error: &TreeError) -> Option<JoinHandle<bool>> {
        let TreeError::Io { errno, .. } = error else { return None };
        let Source::Store(store) = &*self.source else { return None };
        if !is_read_error(&(*errno).into()) {
            return None;
        }
        let (store, path, why) = (Arc::clone(store), self.nar.info.path.clone(), error.to_string());
        Some(tokio::task::spawn_blocking(move || store.unreadable(&path, &why)))
    }

    fn was_wrong(&self, error: &TreeError) {
        let path = &self.nar.info.path;
        tracing::error!(
            %path,
            "the store does not hold what its database says: {error}. \
             `nix-store --verify-path {path}` tells more"
        );
        if is_mismatch(error) {
            self.state.metrics.damaged.inc();
            self.state.metrics.hash_mismatches.inc();
            if let Source::Store(store) = &*self.source {
                store.quarantine(path.hash());
            }
        }
    }
}

fn refuse(error: &TreeError) -> Failure {
    if matches!(error, TreeError::NotFound { .. }) {
        return Failure::NotFound;
    }
    Failure::Unavailable(Unavailable {
        cache: format!("{:?}", SourceLabel::Store).to_lowercase(),
        why: error.to_string(),
    })
}

fn cut(error: &TreeError) -> TransferError {
    TransferError::Read { path: "a store path".into(), why: error.to_string() }
}

/// Whether the tree is known to be something else than what was registered.
fn is_mismatch(error: &TreeError) -> bool {
    !matches!(error, TreeError::NotFound { .. } | TreeError::Io { .. } | TreeError::ReaderFailed)
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = TreeError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TreeError>>> {
        let chunk = match self.first.take() {
            Some(chunk) => Some(Ok(chunk)),
            None if self.remaining == 0 => None,
            None => std::task::ready!(self.stream.poll_next(context)),
        };
        Poll::Ready(match chunk {
            Some(Ok(chunk)) => {
                self.remaining = self.remaining.saturating_sub(chunk.len() as u64);
                if self.remaining == 0 {
                    // The last chunk is given out only once the whole was right.
                    self.outcome.was_right();
                }
                Some(Ok(Frame::data(chunk)))
            }
            Some(Err(error)) => {
                self.outcome.was_wrong(&error);
                // The connection is cut in any case, and nobody waits for what is decided.
                let _deciding = self.outcome.judge_unreadable(&error);
                Some(Err(error))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
