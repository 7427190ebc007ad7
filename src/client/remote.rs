//! The server, as a client sees it: every request of [`crate::native`], and what its answer means.
//!
//! Blocking, over connections that are kept. Nothing here tries again: an error says whether that is
//! of use ([`RemoteError::is_transient`]), and the callers have their own patience. A connection must
//! come about in 10 s, and then move at least some bytes every 60 s; how long a request takes in all
//! does not matter. Redirects are not followed: a token goes to the server that was named, or nowhere.

use std::ffi::OsString;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode};
use ureq::{Agent, AsSendBody, Body, SendBody};

use super::credentials::Token;
use super::identity::{Identity, IdentityError};
use crate::bank::stamp::FileStamp;
use crate::native::{
    self, CommitRequest, CommitResponse, FinishUpload, MissingRequest, MissingResponse, NewUpload,
    Refusal, Refusals, UploadState,
};
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::{MAX_TEXT, NarInfo};
use crate::nix::store_path::{StoreDir, StorePathHash};
use crate::source::upstream::connect::{
    Address, AddressError, AuthoritiesError, Connector, STALL_TIMEOUT,
};

/// How long the server may think where it has to hash or write before it answers.
const WORK_TIMEOUT: Duration = Duration::from_secs(900);
/// The longest answer that is read.
const MAX_ANSWER: u64 = 64 << 20;
/// The longest reason of an error that is shown.
const MAX_REASON: usize = 500;

/// A cache on a server.
#[derive(Debug)]
pub struct Remote {
    connector: Connector,
    identity: Option<Identity>,
    /// With the files of the identity that it shows.
    current: Mutex<(Agent, Option<[Option<FileStamp>; 2]>)>,
    /// `http://host:port`, with `/c/<name>` where it is not the default cache.
    base: String,
    token: Option<Token>,
}

/// What came of a request that did not go well.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// No answer came.
    #[error("{url}: {why}")]
    Unreachable {
        /// The cache.
        url: String,
        /// What the network said.
        why: String,
    },
    /// The server is there, and cannot do it now.
    #[error("{url}: HTTP {status}{}", reason(.refusals))]
    Busy {
        /// The cache.
        url: String,
        /// The status.
        status: u16,
        /// How long the server asks to wait.
        after: Option<Duration>,
        /// What it said.
        refusals: Refusals,
    },
    /// It wants another token or client certificate, or one at all.
    #[error(
        "{url}: HTTP {status}: {}{}", advice(*.has_shown), reason(.refusals)
    )]
    Unauthorised {
        /// The cache.
        url: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was shown, or a certificate would have been.
        has_shown: bool,
        /// What it said.
        refusals: Refusals,
    },
    /// It will not do it, however often it is asked.
    #[error("{url}: HTTP {status}{}", reason(.refusals))]
    Refused {
        /// The cache.
        url: String,
        /// The status.
        status: u16,
        /// Why.
        refusals: Refusals,
    },
    /// Nothing of use can be had from there.
    #[error("{url}: {why}")]
    Unusable {
        /// The cache.
        url: String,
        /// What is wrong.
        why: String,
    },
}

/// Why there is no [`Remote`].
#[derive(Debug, thiserror::Error)]
pub enum RemoteUrlError {
    /// Not a URL that we can speak to.
    #[error(transparent)]
    Url(#[from] AddressError),
    /// Not the name of a cache.
    #[error("{0:?} is no name of a cache: a-z, 0-9 and - are expected")]
    Cache(String),
    /// The certificate authorities cannot be read.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// The client certificate cannot be shown.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl RemoteError {
    /// Whether the same may go well later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. })
    }

    /// How long the server asks to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }

    /// The status, where there was an answer.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Busy { status, .. }
            | Self::Unauthorised { status, .. }
            | Self::Refused { status, .. } => Some(*status),
            Self::Unreachable { .. } | Self::Unusable { .. } => None,
        }
    }
}

/// Where a cache is, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination(Address);

impl Destination {
    /// Reads the URL of a server, or of a cache on it, and the name of a cache on it.
    pub fn parse(url: &str, cache: Option<&str>) -> Result<Self, RemoteUrlError> {
        let address = Address::parse(url)?;
        let Some(name) = cache.filter(|name| *name != "default") else { return Ok(Self(address)) };
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(legal) {
            return Err(RemoteUrlError::Cache(name.chars().take(100).collect()));
        }
        Ok(Self(Address::parse(&format!("{}/c/{name}", address.url()))?))
    }

    /// The host without a port, as a netrc names it.
    pub fn host(&self) -> &str {
        self.0.host()
    }
}

impl Remote {
    /// The cache at `destination`; nothing is sent. `connections` are kept when they are idle.
    pub fn new(
        Destination(address): &Destination,
        token: Option<Token>,
        identity: Option<Identity>,
        connections: usize,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, RemoteUrlError> {
        let connector = Connector::new(address, connections, 0, lookup)?;
        let stamps = identity.as_ref().map(Identity::stamps);
        let certificate = identity.as_ref().map(Identity::read).transpose()?;
        let current = Mutex::new((connector.agent(certificate), stamps));
        Ok(Self { connector, identity, current, base: address.url().to_owned(), token })
    }

    /// What makes connections now. Where the client certificate was renewed, new ones show the new one; where
    /// that cannot be read, which may be because it is just being written, the last one serves.
    fn agent(&self) -> Agent {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.identity.as_ref().map(Identity::stamps);
        if let Some(identity) = self.identity.as_ref().filter(|_| stamps != current.1)
            && let Ok(certificate) = identity.read()
        {
            *current = (self.connector.agent(Some(certificate)), stamps);
        }
        current.0.clone()
    }

    /// The cache's address.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// What the cache says of a path, as a Nix asks it; nothing where it has none.
    pub fn narinfo(
        &self,
        hash: StorePathHash,
        store_dir: &StoreDir,
    ) -> Result<Option<NarInfo>, RemoteError> {
        let request = Request::builder().uri(format!("{}/{hash}.narinfo", self.base));
        let response = self.send(request, (), STALL_TIMEOUT)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let mut body = self.accepted(response)?;
        let text = body.with_config().limit(MAX_TEXT as u64).read_to_vec();
        let text = text.map_err(|error| self.network(&error))?;
        let narinfo = NarInfo::parse(&text, store_dir);
        narinfo.map(Some).map_err(|error| self.unusable(format!("its narinfo is none: {error}")))
    }

    /// Which paths are missing?
    pub fn missing(&self, request: &MissingRequest) -> Result<MissingResponse, RemoteError> {
        let patience = if request.verify { WORK_TIMEOUT } else { STALL_TIMEOUT };
        self.post("/missing", request, patience)
    }

    /// Sends a whole NAR, as zstd.
    pub fn put_nar(
        &self,
        nar_hash: Sha256,
        nar_size: u64,
        body: &[u8],
    ) -> Result<UploadState, RemoteError> {
        let path = format!("/nar/{}", nar_hash.to_nix32());
        let headers = [(native::NAR_SIZE, nar_size.to_string())];
        self.call(Method::PUT, &path, &headers, Some(body), WORK_TIMEOUT)
    }

    /// Begins an upload in parts, or finds one to go on with.
    pub fn begin(&self, request: &NewUpload) -> Result<UploadState, RemoteError> {
        self.post("/uploads", request, STALL_TIMEOUT)
    }

    /// How far is an upload?
    pub fn upload(&self, upload: &str) -> Result<UploadState, RemoteError> {
        let path = format!("/uploads/{upload}");
        self.call(Method::GET, &path, &[], None, STALL_TIMEOUT)
    }

    /// Sends the part that begins at `offset`.
    pub fn patch(
        &self,
        upload: &str,
        offset: u64,
        part: &[u8],
    ) -> Result<UploadState, RemoteError> {
        let path = format!("/uploads/{upload}");
        let hash = Sha256::of(part).to_string();
        let headers = [(native::UPLOAD_OFFSET, offset.to_string()), (native::PART_HASH, hash)];
        self.call(Method::PATCH, &path, &headers, Some(part), WORK_TIMEOUT)
    }

    /// Says that the last part was sent.
    pub fn finish(&self, upload: &str, request: &FinishUpload) -> Result<UploadState, RemoteError> {
        self.post(&format!("/uploads/{upload}/finish"), request, WORK_TIMEOUT)
    }

    /// Has the server forget an upload.
    pub fn abandon(&self, upload: &str) -> Result<(), RemoteError> {
        let path = format!("/uploads/{upload}");
        match self.call::<serde::de::IgnoredAny>(Method::DELETE, &path, &[], None, STALL_TIMEOUT) {
            // Whatever the answer says, it is one of success.
            Ok(_) | Err(RemoteError::Unusable { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a NAR in any compression, as stock Nix does: under the hash of what is sent.
    pub fn put_nar_of_nix(
        &self,
        name: NarFileName,
        size: Option<u64>,
        body: &mut dyn Read,
    ) -> Result<(), RemoteError> {
        let mut request = Request::builder().method(Method::PUT);
        request = request.uri(format!("{}/{}", self.base, name.url()));
        if let Some(size) = size {
            request = request.header("content-length", size);
        }
        self.put(request, SendBody::from_reader(body))
    }

    /// Sends a narinfo as stock Nix does, whose NAR has come.
    pub fn put_narinfo_of_nix(&self, hash: StorePathHash, text: &str) -> Result<(), RemoteError> {
        let request = Request::builder().method(Method::PUT);
        let request = request.uri(format!("{}/{hash}.narinfo", self.base));
        let request = request.header("content-length", text.len());
        self.put(request, SendBody::from_reader(&mut text.as_bytes()))
    }

    /// The error of whoever cannot go on himself: it is of no use to try again.
    pub(super) fn given_up(&self) -> RemoteError {
        self.unusable("there is nothing to send".into())
    }

    fn put(&self, request: Builder, body: SendBody<'_>) -> Result<(), RemoteError> {
        self.accepted(self.send(request, body, WORK_TIMEOUT)?).map(drop)
    }

    /// Makes paths visible.
    pub fn commit(&self, request: &CommitRequest) -> Result<CommitResponse, RemoteError> {
        self.post("/commit", request, WORK_TIMEOUT)
    }

    fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        patience: Duration,
    ) -> Result<T, RemoteError> {
        let body = serde_json::to_vec(request).map_err(|error| self.unusable(error.to_string()))?;
        let headers = [("content-type", "application/json".to_owned())];
        self.call(Method::POST, path, &headers, Some(&body), patience)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Option<&[u8]>,
        patience: Duration,
    ) -> Result<T, RemoteError> {
        let url = format!("{}{}{path}", self.base, native::PREFIX);
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.understand(match body {
            Some(body) => self.send(request, body, patience)?,
            None => self.send(request, (), patience)?,
        })
    }

    fn send(
        &self,
        mut request: Builder,
        body: impl AsSendBody,
        patience: Duration,
    ) -> Result<Response<Body>, RemoteError> {
        if let Some(token) = &self.token {
            request = request.header("authorization", token.bearer().as_str());
        }
        let agent = self.agent();
        let sent = request.body(body).map_err(ureq::Error::from).and_then(|request| {
            let request = agent.configure_request(request);
            agent.run(request.timeout_per_read(Some(patience)).build())
        });
        sent.map_err(|error| self.network(&error))
    }

    fn understand<T: DeserializeOwned>(&self, response: Response<Body>) -> Result<T, RemoteError> {
        let mut body = self.accepted(response)?;
        let text = body.with_config().limit(MAX_ANSWER).read_to_vec();
        let text = text.map_err(|error| self.network(&error))?;
        serde_json::from_slice(&text).map_err(|error| {
            self.unusable(format!("the answer is not Snowbank's ({error}); is the address right?"))
        })
    }

    /// The body of an answer that is one of success.
    fn accepted(&self, response: Response<Body>) -> Result<Body, RemoteError> {
        let (parts, mut body) = response.into_parts();
        if parts.status.is_success() {
            return Ok(body);
        }
        // An error whose body does not come is still that error.
        let text = body.with_config().limit(MAX_ANSWER).read_to_vec().unwrap_or_default();
        Err(self.classify(parts.status, &parts.headers, &text))
    }

    /// What a status that is not a success means.
    fn classify(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> RemoteError {
        let (url, code) = (self.base.clone(), status.as_u16());
        let refusals = refusals(status, body);
        match code {
            401 | 403 => {
                let has_shown = self.token.is_some() || self.identity.is_some();
                RemoteError::Unauthorised { url, status: code, has_shown, refusals }
            }
            501 | 505 => RemoteError::Refused { url, status: code, refusals },
            408 | 429 | 500..=599 => {
                let after = headers.get("retry-after").and_then(|value| value.to_str().ok());
                let after = after.and_then(|text| retry_after(text, SystemTime::now()));
                RemoteError::Busy { url, status: code, after, refusals }
            }
            300..=399 => self.unusable(format!(
                "HTTP {code}: it redirects to {}; use that address",
                headers.get("location").and_then(|to| to.to_str().ok()).unwrap_or("another one")
            )),
            _ => RemoteError::Refused { url, status: code, refusals },
        }
    }

    fn network(&self, error: &ureq::Error) -> RemoteError {
        let why = match error {
            ureq::Error::Timeout(_) => format!("{error}: nothing came or went in time"),
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        // What rustls refuses, such as a certificate, it will refuse again.
        let is_ours = match error {
            ureq::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
            ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::ConnectProxyFailed(_)
            | ureq::Error::Protocol(_)
            | ureq::Error::BodyStalled => false,
            _ => true,
        };
        if is_ours {
            return self.unusable(why);
        }
        RemoteError::Unreachable { url: self.base.clone(), why }
    }

    fn unusable(&self, why: String) -> RemoteError {
        RemoteError::Unusable { url: self.base.clone(), why }
    }
}

/// The reasons in an answer, or the first line of whatever a proxy said.
fn refusals(status: StatusCode, body: &[u8]) -> Refusals {
    match serde_json::from_slice::<Refusals>(body) {
        Ok(refusals) if !refusals.errors.is_empty() => refusals,
        _ => {
            let text = String::from_utf8_lossy(body);
            let line = text.lines().map(str::trim).find(|line| !line.is_empty());
            let said = line.or(status.canonical_reason()).unwrap_or("no reason was given");
            let reason = match status.as_u16() {
                404 | 405 => format!("{said} (no such cache there, or the server is no Snowbank?)"),
                _ => said.to_owned(),
            };
            let reason = reason.chars().take(MAX_REASON).collect();
            Refusals { errors: vec![Refusal { reason, ..Refusal::default() }] }
        }
    }
}

/// The first reason, and how many more there are.
fn reason(refusals: &Refusals) -> String {
    let Some(first) = refusals.errors.first() else { return String::new() };
    let path = first.path.map(|path| format!("{path}: ")).unwrap_or_default();
    let more = match refusals.errors.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    format!(": {path}{}{more}", first.reason)
}

const fn advice(has_shown: bool) -> &'static str {
    if has_shown {
        "what was shown may not push here; ask for a token with the scope push of this cache"
    } else {
        "a token or a client certificate is needed; give it with --token-file, SNOWBANK_TOKEN_FILE, a netrc or \
         --tls-certificate"
    }
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    let date = u64::try_from(date.timestamp().as_second()).ok()?;
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(date).saturating_sub(now))
}

#[cfg(test)]
mod tests;
