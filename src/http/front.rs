//! Before the router: narinfo that memory can answer, NARs whose files are open, and the counting of
//! everything.
//!
//! Most requests of a Nix client are for narinfo, and most of those are misses. Those that memory
//! answers take a path of their own, without routing, without a task and without a boxed body.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tower_service::Service as _;

use super::auth::{Admitted, Origin, Place, admit, credential, keep_private};
use super::body::FileBody;
use super::error::Failure;
use super::line::{Ended, Line, REQUEST_ID, Reason};
use super::listen::{Client, PatientBody, ReadOn};
use super::nar::whole_file;
use super::narinfo::text_response;
use super::router::router;
use super::state::{CountAs, State};
use crate::auth::{Caller, Leave};
use crate::metrics::{EncodingLabel, Route};
use crate::nix::nar_url::NarFileName;
use crate::nix::store_path::StorePathHash;
use crate::source::cache::{Cache, Remembered};

const NOT_FOUND: &[u8] = b"not found\n";

/// Answers every request of the listener.
#[derive(Clone)]
pub struct Front {
    state: Arc<State>,
    router: Router,
    origin: Origin,
}

impl Front {
    /// Answers with what `state` has.
    pub fn new(state: Arc<State>) -> Self {
        Self { router: router(Arc::clone(&state)), state, origin: Origin::default() }
    }

    /// The same, for the requests of one connection.
    pub fn for_client(&self, client: Client) -> Self {
        let Client { peer, certificate, is_secure } = client;
        let origin = Origin { source: peer.address(), certificate, is_secure };
        Self { origin, ..self.clone() }
    }

    /// Answers a request that was let in, or is about no cache.
    fn answer(
        &self,
        mut request: Request<Incoming>,
        began: Instant,
        admitted: Option<(Place<'_>, &Leave)>,
    ) -> FrontFuture {
        if let Some((place, leave)) = &admitted {
            if let Some(response) = self.memory_answer(&request, place) {
                self.state.metrics.http.answered(Route::NarInfo, began.elapsed());
                let response = match self.state.log_requests {
                    true => self.told(response, &request, leave, began),
                    false => response,
                };
                return FrontFuture::Ready(Some(response));
            }
            if let Some(response) = self.open_file(&request, place, leave, began) {
                return FrontFuture::Ready(Some(response));
            }
            request.extensions_mut().insert(Admitted::new(place, leave, &self.origin));
        }
        let patience = self.state.body_timeout;
        let patient = |body| ReadOn::new(PatientBody::new(body, patience));
        let leave = admitted.map_or(&Leave::Open, |(_, leave)| leave);
        let begun = self.begun(&request, leave, began);
        let routed = self.router.clone().call(request.map(patient));
        FrontFuture::Routed(Box::pin(async move {
            let Ok(response) = routed.await;
            Ok(count(response, begun))
        }))
    }

    /// Answers a request that needs leave, or a view, once it is known whether it gets them.
    async fn answer_if_admitted(
        self,
        mut request: Request<Incoming>,
        began: Instant,
    ) -> Result<Response<FrontBody>, Infallible> {
        let Some(place) = Place::of(&self.state, request.method(), request.uri().path()) else {
            return self.answer(request, began, None).await;
        };
        let is_public = self.state.gate.is_open(&place.cache.name, place.right);
        match self.leave(&place, &mut request).await {
            Ok((leave, cache)) => {
                let place = Place { cache: &cache, view: None, ..place };
                let mut response = self.answer(request, began, Some((place, &leave))).await?;
                if !is_public {
                    keep_private(response.headers_mut());
                }
                Ok(response)
            }
            Err(failure) => {
                let begun = self.begun(&request, &Leave::Open, began);
                drop(ReadOn::new(PatientBody::new(request.into_body(), self.state.body_timeout)));
                Ok(count(failure.into_response(), begun))
            }
        }
    }

    /// What a request was let in by, and the cache or the view that it is answered from, of
    /// which it names nothing any more.
    async fn leave<B>(
        &self,
        place: &Place<'_>,
        request: &mut Request<B>,
    ) -> Result<(Leave, Arc<Cache>), Failure> {
        let shown = credential(request.headers());
        let certificate = self.origin.certificate.as_ref();
        let caller = Caller { credential: &shown, certificate, source: self.origin.source };
        let leave = admit(&self.state, place, caller).await?;
        let Some(view) = &place.view else { return Ok((leave, Arc::clone(place.cache))) };
        let cache = self.state.views.get(&self.state, place.cache, &view.snapshot).await?;
        view.take_out_of(request)?;
        Ok((leave, cache))
    }

    /// A request that begins to be answered.
    fn begun<B>(&self, request: &Request<B>, leave: &Leave, at: Instant) -> Begun {
        self.state.metrics.http.in_flight.inc();
        let line = Line::of(request, leave, self.origin.source, self.state.log_requests);
        Begun { state: Arc::clone(&self.state), at, line }
    }

    /// An answer from memory of which there is to be a line in the log.
    fn told<B>(
        &self,
        mut response: Response<FrontBody>,
        request: &Request<B>,
        leave: &Leave,
        began: Instant,
    ) -> Response<FrontBody> {
        let (line, duration) =
            (Line::of(request, leave, self.origin.source, true), began.elapsed());
        if let Some(id) = line.id_to_tell(response.status()) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        line.write(&Ended {
            status: response.status(),
            size_bytes: response.body().size_hint().lower(),
            first_byte: Some(duration),
            duration,
            is_whole: true,
            reason: None,
        });
        response
    }

    /// The answer that memory gives, if it is a narinfo and memory knows.
    fn memory_answer<B>(
        &self,
        request: &Request<B>,
        place: &Place<'_>,
    ) -> Option<Response<FrontBody>> {
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return None,
        };
        let name = request.uri().path()[place.rest..].strip_prefix('/')?;
        let hash = StorePathHash::parse(name.strip_suffix(".narinfo")?)?;
        if request.uri().query().is_some() {
            return None;
        }
        let metrics = &self.state.metrics;
        let (response, status) = match place.cache.remembered(hash) {
            Remembered::Unknown => return None,
            Remembered::Miss => {
                let puller = self.state.puller(place.cache, request.method(), request.headers());
                match puller.map(|puller| puller.remembered(hash)) {
                    Some(None) => return None,
                    Some(Some(Some(offer))) => {
                        metrics.narinfo_hit(offer.kind);
                        let response = text_response(&offer.answer, request.headers());
                        let status = response.status();
                        (response, status)
                    }
                    None | Some(Some(None)) => {
                        metrics.narinfo_missed();
                        (not_found(), StatusCode::NOT_FOUND)
                    }
                }
            }
            Remembered::Hit(answer) => {
                metrics.narinfo_hit(answer.source.label());
                place.cache.answered(&answer);
                let response = text_response(&answer, request.headers());
                let status = response.status();
                (response, status)
            }
        };
        metrics.narinfo_remembered();
        metrics.http.request(Route::NarInfo, request.method(), status.as_u16());
        let whole = |bytes: Bytes| if head { Bytes::new() } else { bytes };
        let response = response.map(whole);
        metrics.http.sent(EncodingLabel::Other, response.body().len());
        Some(response.map(|bytes| FrontBody::Whole(Some(bytes))))
    }

    /// The whole of a stored NAR whose file is open already, if that is what is asked for.
    fn open_file<B>(
        &self,
        request: &Request<B>,
        place: &Place<'_>,
        leave: &Leave,
        began: Instant,
    ) -> Option<Response<FrontBody>> {
        let conditional = [RANGE, IF_NONE_MATCH, IF_RANGE];
        let plain = *request.method() == Method::GET
            && request.uri().query().is_none()
            && !conditional.iter().any(|name| request.headers().contains_key(name));
        if !plain {
            return None;
        }
        let name = NarFileName::parse(request.uri().path()[place.rest..].strip_prefix("/nar/")?)?;
        let open = place.cache.open_nar(name)?;
        place.cache.nar_asked_for(name.hash);
        let encoding = if name.is_bare() { EncodingLabel::Nar } else { EncodingLabel::Compressed };
        let response = whole_file(&open);
        let body = FileBody::new(Arc::clone(&open.file), 0..open.size);
        let body = axum::body::Body::new(body);
        let mut response = response.map(|()| body);
        response.extensions_mut().insert(CountAs { route: Route::Nar, encoding });
        Some(count(response, self.begun(request, leave, began)))
    }
}

fn not_found() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(NOT_FOUND));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response<FrontBody>;
    type Error = Infallible;
    type Future = FrontFuture;

    fn call(&self, request: Request<Incoming>) -> FrontFuture {
        let began = Instant::now();
        let place = Place::of(&self.state, request.method(), request.uri().path());
        match place {
            Some(place)
                if place.view.is_some()
                    || !self.state.gate.is_open(&place.cache.name, place.right) =>
            {
                FrontFuture::Routed(Box::pin(self.clone().answer_if_admitted(request, began)))
            }
            place => self.answer(request, began, place.map(|place| (place, &Leave::Open))),
        }
    }
}

/// The future of a response.
pub enum FrontFuture {
    /// Memory had it.
    Ready(Option<Response<FrontBody>>),
    /// The router makes it.
    Routed(Pin<Box<dyn Future<Output = Result<Response<FrontBody>, Infallible>> + Send>>),
}

impl Future for FrontFuture {
    type Output = Result<Response<FrontBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                // Polled after it was ready, which hyper does not do.
                None => Poll::Pending,
            },
            Self::Routed(routed) => routed.as_mut().poll(context),
        }
    }
}

fn count(mut response: Response<axum::body::Body>, begun: Begun) -> Response<FrontBody> {
    let count =
        response.extensions().get::<CountAs>().copied().unwrap_or(CountAs::route(Route::Other));
    let status = response.status();
    begun.state.metrics.http.request(count.route, begun.line.method(), status.as_u16());
    if let Some(id) = begun.line.id_to_tell(status) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let reason = response.extensions_mut().remove::<Reason>();
    response.map(|body| {
        FrontBody::Counted(Box::new(Counted {
            body,
            begun,
            status,
            count,
            sent: 0,
            first_byte: None,
            reason: reason.map(|reason| reason.0),
            ended: false,
            failed: false,
        }))
    })
}

/// A request that is being answered, until the last byte of that.
struct Begun {
    state: Arc<State>,
    at: Instant,
    line: Line,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.state.metrics.http.in_flight.dec();
    }
}

/// The body of a response.
pub enum FrontBody {
    /// In memory; given out once.
    Whole(Option<Bytes>),
    /// Made by the router, and counted.
    Counted(Box<Counted>),
}

/// A body whose bytes, times and end are counted.
pub struct Counted {
    body: axum::body::Body,
    begun: Begun,
    status: StatusCode,
    count: CountAs,
    sent: u64,
    /// How long it took, once there is one.
    first_byte: Option<Duration>,
    /// Why the answer is not what was asked for, or was cut.
    reason: Option<String>,
    ended: bool,
    failed: bool,
}

impl Counted {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if self.first_byte.is_none() {
            let took = self.begun.at.elapsed();
            self.first_byte = Some(took);
            self.begun.state.metrics.http.first_byte(self.count.route, took);
        }
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.begun.state.metrics.http.sent(self.count.encoding, bytes);
                self.sent += bytes as u64;
                self.ended = self.body.is_end_stream();
            }
            Some(Err(error)) => {
                self.failed = true;
                self.reason = Some(error.to_string());
            }
            None => self.ended = true,
        }
        Poll::Ready(frame)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let whole = !self.failed && (self.ended || self.body.is_end_stream());
        let Begun { state, at, line } = &self.begun;
        line.write(&Ended {
            status: self.status,
            size_bytes: self.sent,
            first_byte: self.first_byte,
            duration: at.elapsed(),
            is_whole: whole,
            reason: self.reason.as_deref().or((!whole).then_some("the client left, or was cut")),
        });
        if whole {
            state.metrics.http.answered(self.count.route, at.elapsed());
        } else {
            state.metrics.http.aborted_transfers.inc();
        }
    }
}

impl Body for FrontBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Counted(counted) => counted.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Counted(counted) => counted.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Counted(counted) => counted.body.size_hint(),
        }
    }
}
