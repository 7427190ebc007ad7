//! What the log says of a request: a line of each where that is asked for, and of those that failed or were slow
//! in any case. It names who asked by the name of their token or certificate, and no secret: of a request's
//! address only the path is said.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use axum::extract::OriginalUri;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};

use super::auth::caller;
use crate::auth::Leave;

/// What a proxy in front may say already, and what an answer that the log tells of is found by.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken from a client, in bytes.
const MAX_ID: usize = 64;
/// A request to read that gets no byte for so long was slow: what a client waits for at most before it says so.
const SLOW: Duration = Duration::from_secs(5);

/// Why a request is not answered with what it asked for; goes with the response.
#[derive(Clone, Debug)]
pub(super) struct Reason(pub(super) String);

/// A request, as the log names it.
pub(super) struct Line {
    /// What it is found by: as a proxy calls it, or as we do, once that is needed, which for most requests is never.
    id: OnceLock<HeaderValue>,
    /// Among the requests of this process.
    number: u64,
    method: Method,
    uri: Uri,
    leave: Leave,
    source: Option<IpAddr>,
    is_asked_for: bool,
}

/// How it ended.
pub(super) struct Ended<'a> {
    pub(super) status: StatusCode,
    pub(super) size_bytes: u64,
    /// From its head to the first byte of the answer, where there was one.
    pub(super) first_byte: Option<Duration>,
    pub(super) duration: Duration,
    pub(super) is_whole: bool,
    pub(super) reason: Option<&'a str>,
}

impl Line {
    /// `leave` is what it was let in by; `is_asked_for` where every request is a line.
    pub(super) fn of<B>(
        request: &Request<B>,
        leave: &Leave,
        source: Option<IpAddr>,
        is_asked_for: bool,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let original = request.extensions().get::<OriginalUri>().map(|original| &original.0);
        Self {
            id: id_of_proxy(request.headers()).map_or_else(OnceLock::new, OnceLock::from),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            method: request.method().clone(),
            uri: original.unwrap_or_else(|| request.uri()).clone(),
            leave: leave.clone(),
            source,
            is_asked_for,
        }
    }

    /// The method.
    pub(super) const fn method(&self) -> &Method {
        &self.method
    }

    /// What it is found by.
    fn id(&self) -> &HeaderValue {
        // No number that counts up: it would tell each client how many requests others make.
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        self.id.get_or_init(|| {
            let id = format!("{:016x}", KEYS.hash_one(self.number));
            HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
        })
    }

    /// The id, where whoever asked may want to find the request in the log.
    pub(super) fn id_to_tell(&self, status: StatusCode) -> Option<HeaderValue> {
        (self.is_asked_for || status.is_server_error()).then(|| self.id().clone())
    }

    /// Writes it, if there is something to say.
    pub(super) fn write(&self, ended: &Ended<'_>) {
        let reads = [Method::GET, Method::HEAD].contains(&self.method);
        // Whether it is healthy is asked every few seconds, and its troubles are in the log already.
        let failed = ended.status.is_server_error() && self.uri.path() != "/health";
        let slow = reads && ended.first_byte.is_some_and(|took| took >= SLOW);
        if !(failed || slow || self.is_asked_for) {
            return;
        }
        let caller = caller(&self.leave, self.source);
        let (client, address) = (caller.name.as_str(), caller.address.as_str());
        let id = self.id().to_str().unwrap_or_default();
        let (method, path) = (self.method.as_str(), self.uri.path());
        let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (status, size_bytes, whole) = (ended.status.as_u16(), ended.size_bytes, ended.is_whole);
        let first_byte_us = ended.first_byte.map(microseconds);
        let (duration_us, reason) = (microseconds(ended.duration), ended.reason);
        macro_rules! say {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    id,
                    client,
                    address,
                    method,
                    path,
                    status,
                    size_bytes,
                    first_byte_us,
                    duration_us,
                    whole,
                    reason,
                    $message
                )
            };
        }
        match (failed, slow) {
            (true, _) => say!(warn, "request failed"),
            (false, true) => say!(warn, "request was slow"),
            (false, false) => say!(info, "request"),
        }
    }
}

/// What a proxy calls the request, if that can be an id.
fn id_of_proxy(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_id = |value: &&HeaderValue| {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=MAX_ID).contains(&value.len()) && value.as_bytes().iter().all(is_letter)
    };
    headers.get(REQUEST_ID).filter(is_id).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(theirs: &'static str) -> String {
        let request = Request::builder().header(REQUEST_ID, theirs).body(()).unwrap();
        let line = Line::of(&request, &Leave::Open, None, true);
        assert_eq!(line.id(), line.id());
        line.id().to_str().unwrap().to_owned()
    }

    #[test]
    fn the_id_of_a_proxy_is_kept_where_it_is_one_and_each_other_request_has_its_own() {
        assert_eq!(id("0af7651916cd43dd-8448.a_b"), "0af7651916cd43dd-8448.a_b");
        let long = "a".repeat(MAX_ID + 1);
        let made = [id(""), id("a b"), id("a\"b"), id(long.leak())];
        for (index, one) in made.iter().enumerate() {
            assert_eq!(one.len(), 16, "{one}");
            assert!(!made[..index].contains(one), "{one}");
        }
    }
}
