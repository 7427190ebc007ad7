//! Another binary cache, asked over HTTP as Nix asks it: any server that speaks the protocol will do.
//!
//! Nothing that comes from there is believed: whoever asks knows the NarHash that he wants.

pub mod circuit;
pub mod connect;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Read;
use std::str::FromStr;
use std::time::Duration;

use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CACHE_CONTROL};
use ureq::http::{HeaderValue, StatusCode};

use self::connect::{Address, AuthoritiesError, Connector};
use crate::codec::{Compression, UnknownCompression};
use crate::index::holdings::{self, HoldingsError, Known, MAX_BODY, News};
use crate::nix::cache_info::{self, ReadInfo};
use crate::nix::narinfo::{MAX_TEXT, NarInfo, NarInfoError};
use crate::nix::store_path::{StoreDir, StorePathHash};

/// Where a cache keeps its files elsewhere, as some do in an object store, it redirects there once.
const REDIRECTS: u32 = 3;
/// One that is asked for one path at a time.
const CONNECTIONS: usize = 1;
/// Whoever asks says that nothing shall be fetched for him from yet elsewhere (RFC 9111, 5.2.1.7).
pub const ONLY_WHAT_IS_HERE: &str = "only-if-cached";
/// The most of a `nix-cache-info` that is read, in bytes.
const MAX_INFO: u64 = 64 << 10;

/// A cache elsewhere.
#[derive(Debug)]
pub struct Upstream {
    address: Address,
    agent: Agent,
    /// Marked as sensitive, so that it is never printed.
    authorization: Option<HeaderValue>,
    is_peer: bool,
}

/// Why it gave nothing. Each names the cache.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No answer came.
    #[error("{url}: {why}")]
    Unreachable {
        /// The cache.
        url: String,
        /// What the network said.
        why: String,
    },
    /// Neither that it has it nor that it does not.
    #[error("{url}: HTTP {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The answer.
        status: u16,
    },
    /// Its narinfo is none.
    #[error("{url}: {why}")]
    NarInfo {
        /// The narinfo.
        url: String,
        /// What is wrong.
        why: NarInfoError,
    },
    /// Its narinfo is not of the path that was asked for.
    #[error("{url} is of another path")]
    OtherPath {
        /// The narinfo.
        url: String,
    },
    /// Its `nix-cache-info` is none, or is of another store directory.
    #[error("{url}: {why}")]
    CacheInfo {
        /// The cache.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// What it says of the paths that it has cannot be read.
    #[error("{url}: {why}")]
    Holdings {
        /// The cache.
        url: String,
        /// What is wrong.
        why: HoldingsError,
    },
    /// It has the NAR in a form that is not read here.
    #[error("{url}: {why}")]
    Compression {
        /// The NAR.
        url: String,
        /// Which.
        why: UnknownCompression,
    },
}

impl Upstream {
    /// The cache at `address`, asked for one path at a time; nothing is sent.
    pub fn new(
        address: Address,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, AuthoritiesError> {
        Self::with_connections(address, CONNECTIONS, lookup)
    }

    /// The same, where up to `connections` are kept open between requests.
    pub fn with_connections(
        address: Address,
        connections: usize,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, AuthoritiesError> {
        let agent = Connector::new(&address, connections, REDIRECTS, lookup)?.agent(None);
        Ok(Self { address, agent, authorization: None, is_peer: false })
    }

    /// Shows a credential, which is the value of `Authorization`, with every request.
    #[must_use]
    pub fn showing(mut self, authorization: Option<HeaderValue>) -> Self {
        self.authorization = authorization.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }

    /// Asks it for what it has itself: another node like this one must not ask us in turn.
    #[must_use]
    pub fn as_peer(self) -> Self {
        Self { is_peer: true, ..self }
    }

    /// The cache's address.
    pub fn url(&self) -> &str {
        self.address.url()
    }

    /// What it says of a path; `None` where it has none. Blocks.
    pub fn narinfo(
        &self,
        hash: StorePathHash,
        store_dir: &StoreDir,
    ) -> Result<Option<NarInfo>, UpstreamError> {
        self.narinfo_within(hash, store_dir, None)
    }

    /// The same, with a limit to the time that all of it may take.
    pub fn narinfo_within(
        &self,
        hash: StorePathHash,
        store_dir: &StoreDir,
        within: Option<Duration>,
    ) -> Result<Option<NarInfo>, UpstreamError> {
        let url = format!("{}/{hash}.narinfo", self.url());
        let Some(text) = self.text(&url, MAX_TEXT as u64, within)? else { return Ok(None) };
        match NarInfo::parse(&text, store_dir) {
            Ok(narinfo) if narinfo.info.path.hash() == hash => Ok(Some(narinfo)),
            Ok(_) => Err(UpstreamError::OtherPath { url }),
            Err(why) => Err(UpstreamError::NarInfo { url, why }),
        }
    }

    /// The bytes of the NAR that a narinfo of it names, and how they are compressed; `None` where it has
    /// none. Blocks, and so does reading.
    pub fn nar(
        &self,
        narinfo: &NarInfo,
    ) -> Result<Option<(Compression, impl Read + use<>)>, UpstreamError> {
        self.nar_within(narinfo, None)
    }

    /// The same, with a limit to the time until the last byte.
    pub fn nar_within(
        &self,
        narinfo: &NarInfo,
        within: Option<Duration>,
    ) -> Result<Option<(Compression, impl Read + use<>)>, UpstreamError> {
        let url = format!("{}/{}", self.url(), narinfo.url);
        let compression = Compression::from_str(&narinfo.compression);
        let compression =
            compression.map_err(|why| UpstreamError::Compression { url: url.clone(), why })?;
        Ok(self.get(&url, within)?.map(|body| (compression, body)))
    }

    /// Whether it is there, and a cache of this store directory. Blocks.
    pub fn check(&self, store_dir: &StoreDir, within: Duration) -> Result<(), UpstreamError> {
        match self.info(Some(within))?.store_dir {
            Some(theirs) if theirs != store_dir.to_string() => Err(UpstreamError::CacheInfo {
                url: self.url().into(),
                why: format!("it is a cache of {theirs}, and this one is of {store_dir}"),
            }),
            _ => Ok(()),
        }
    }

    /// What it says of itself. Blocks.
    pub fn info(&self, within: Option<Duration>) -> Result<ReadInfo, UpstreamError> {
        let url = format!("{}/{}", self.url(), cache_info::NAME);
        let wrong = |why: String| UpstreamError::CacheInfo { url: url.clone(), why };
        let text = self.text(&url, MAX_INFO, within)?;
        let text = text.ok_or_else(|| wrong("there is none".into()))?;
        ReadInfo::parse(&String::from_utf8_lossy(&text)).map_err(|error| wrong(error.to_string()))
    }

    /// What a peer has, or what came to it since `known`; `None` where it does not say. Blocks.
    pub fn holdings(
        &self,
        known: Option<&Known>,
        within: Duration,
    ) -> Result<Option<News>, UpstreamError> {
        let mut url = format!("{}{}", self.url(), holdings::PLACE);
        if let Some(known) = known {
            url += &format!("?{}", known.query());
        }
        let Some(body) = self.text(&url, MAX_BODY, Some(within))? else { return Ok(None) };
        News::read(&body).map(Some).map_err(|why| UpstreamError::Holdings { url, why })
    }

    /// All of a body, one byte more than `most` at most.
    fn text(
        &self,
        url: &str,
        most: u64,
        within: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, UpstreamError> {
        let Some(body) = self.get(url, within)? else { return Ok(None) };
        let mut text = Vec::new();
        let read = body.take(most + 1).read_to_end(&mut text);
        read.map_err(|error| unreachable(url, &error))?;
        Ok(Some(text))
    }

    fn get(
        &self,
        url: &str,
        within: Option<Duration>,
    ) -> Result<Option<impl Read + use<>>, UpstreamError> {
        let mut request = self.agent.get(url).config().timeout_global(within).build();
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if self.is_peer {
            request = request.header(CACHE_CONTROL, ONLY_WHAT_IS_HERE);
        }
        let answer = request.call().map_err(|error| unreachable(url, &error))?;
        match answer.status() {
            // What it has is bounded by whoever reads it.
            StatusCode::OK => Ok(Some(answer.into_body().into_reader())),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status => Err(UpstreamError::Status { url: url.into(), status: status.as_u16() }),
        }
    }
}

fn unreachable(url: &str, why: &dyn std::fmt::Display) -> UpstreamError {
    UpstreamError::Unreachable { url: url.into(), why: why.to_string() }
}
