//! Another binary cache, asked over HTTP as Nix asks it: any server that speaks the protocol will do.
//!
//! Nothing that comes from there is believed: whoever asks knows the NarHash that he wants.

pub mod connect;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Read;
use std::str::FromStr;

use ureq::Agent;
use ureq::http::StatusCode;

use self::connect::{Address, AuthoritiesError, Connector};
use crate::codec::{Compression, UnknownCompression};
use crate::nix::narinfo::{MAX_TEXT, NarInfo, NarInfoError};
use crate::nix::store_path::{StoreDir, StorePathHash};

/// Where a cache keeps its files elsewhere, as some do in an object store, it redirects there once.
const REDIRECTS: u32 = 3;
/// It is asked for one path at a time.
const CONNECTIONS: usize = 1;

/// A cache elsewhere.
#[derive(Debug)]
pub struct Upstream {
    address: Address,
    agent: Agent,
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
    /// The cache at `address`; nothing is sent.
    pub fn new(
        address: Address,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, AuthoritiesError> {
        let agent = Connector::new(&address, CONNECTIONS, REDIRECTS, lookup)?.agent(None);
        Ok(Self { address, agent })
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
        let url = format!("{}/{hash}.narinfo", self.url());
        let Some(body) = self.get(&url)? else { return Ok(None) };
        let mut text = Vec::new();
        let most = MAX_TEXT as u64 + 1;
        let read = body.take(most).read_to_end(&mut text);
        read.map_err(|error| unreachable(&url, &error))?;
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
        let url = format!("{}/{}", self.url(), narinfo.url);
        let compression = Compression::from_str(&narinfo.compression);
        let compression =
            compression.map_err(|why| UpstreamError::Compression { url: url.clone(), why })?;
        Ok(self.get(&url)?.map(|body| (compression, body)))
    }

    fn get(&self, url: &str) -> Result<Option<impl Read + use<>>, UpstreamError> {
        let answer = self.agent.get(url).call().map_err(|error| unreachable(url, &error))?;
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
