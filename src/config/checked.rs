//! The configuration as the server uses it: typed, complete, and consistent in itself.
//!
//! Nothing here has looked at the disk. Whether a directory exists or a key can be read is found out
//! by the part that needs it, when it needs it.

use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::auth::certificate::ClientGrant;
use crate::auth::{Audience, PullPolicy, PushPolicy};
use crate::http::listen::{ListenAddress, ListenLimits};
use crate::ingest::Accept;
use crate::ingest::pull::PullSettings;
use crate::keep::collect::policy::Policy;
use crate::keep::retention::Retention;
use crate::nix::nar;
use crate::nix::store_path::StoreDir;
use crate::sign::PublicKey;
use crate::source::upstream::connect::Address;
use crate::tls::issuance::IssuerSettings;
use crate::tls::server::TlsFiles;
use crate::zfs::DatasetName;

/// The name of the cache that answers at `/`.
pub const DEFAULT_CACHE: &str = "default";

/// The names of what lies beside the caches in the data directory; no cache may have one.
pub const RESERVED_NAMES: [&str; 4] = ["state", "baked", "keys", "tls"];

/// Everything that can be set, with defaults for what was not.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file that was read, to name it in the log.
    pub file: Option<PathBuf>,
    /// Where banks, keys and derived state lie; absolute.
    pub data_dir: PathBuf,
    /// Where to listen; at least one.
    pub listen: Vec<ListenAddress>,
    /// What is shown to those who come over TLS, and what they may show.
    pub tls: Option<TlsFiles>,
    /// Who issues the certificate that is shown, if it is not given.
    pub issuer: Option<IssuerSettings>,
    /// What the names in client certificates may do.
    pub clients: Vec<ClientGrant>,
    /// The mode of unix sockets that we make ourselves.
    pub socket_mode: u32,
    /// The host's own store, unless it was turned off.
    pub store: Option<StoreLocation>,
    /// The caches, the default one first and the others by name.
    pub caches: Vec<CacheConfig>,
    /// What is done with ZFS.
    pub zfs: Zfs,
    /// How NARs of the local store are compressed and kept.
    pub bake: Bake,
    /// What one client, or all of them, may use up.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: Log,
    /// Whether `/` shows a page for people.
    pub landing_page: bool,
    /// Who sees more on it than how to use the cache.
    pub status_for: Audience,
}

/// Where a Nix store and its database lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLocation {
    /// The directory as clients know it: what a path is called in a narinfo.
    pub store_dir: StoreDir,
    /// The directory where its files are; another than `store_dir` in a chroot store.
    pub real_store_dir: PathBuf,
    /// Nix's state, with the database in `db/`.
    pub state_dir: PathBuf,
    /// Nix's build logs, with `drvs/` in it.
    pub log_dir: PathBuf,
    /// Whether it may be missing: `auto` takes what is there, a named store must exist.
    pub optional: bool,
}

impl StoreLocation {
    /// The directory of `db.sqlite`.
    pub fn database_dir(&self) -> PathBuf {
        self.state_dir.join("db")
    }
}

/// A cache elsewhere that paths are fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where it is.
    pub address: Address,
    /// Whose signatures are believed of what comes from there, besides those that the cache knows.
    pub keys: Vec<PublicKey>,
    /// The file of the token that is shown there; absolute.
    pub token_file: Option<PathBuf>,
}

/// One named cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// `[a-z0-9][a-z0-9-]{0,62}`; the path is `/c/<name>/`, and `/` for [`DEFAULT_CACHE`].
    pub name: String,
    /// Its bank; absolute.
    pub directory: PathBuf,
    /// Banks that other nodes keep and that are received here, in the order they are asked, after its
    /// own; absolute.
    pub parts: Vec<PathBuf>,
    /// Other nodes that are asked for what is not here, in their order, before the upstreams.
    pub peers: Vec<UpstreamConfig>,
    /// Caches elsewhere that are asked for what is not here, in their order.
    pub upstreams: Vec<UpstreamConfig>,
    /// How these are asked.
    pub pulling: PullSettings,
    /// Caches elsewhere that a damaged path is fetched from, in the order they are asked, after the
    /// cache's own sources.
    pub heal_from: Vec<Address>,
    /// What clients are told: lower is asked first.
    pub priority: u32,
    /// Whether clients may ask for many paths at once.
    pub want_mass_query: bool,
    /// Where its paths come from, in the order they are asked.
    pub sources: Vec<Source>,
    /// The keys that sign what it answers; none leaves the signatures a path came with.
    pub signing_keys: Vec<SigningKey>,
    /// Who may push.
    pub push: PushPolicy,
    /// Whether [`PushPolicy::Open`] was meant for more than this host.
    pub push_open_to_network: bool,
    /// Who may read.
    pub pull: PullPolicy,
    /// Which paths are taken from those who may push.
    pub accept: Accept,
    /// Whose signatures [`Accept::Trusted`] takes.
    pub trusted_keys: Vec<PublicKey>,
    /// Whose paths clients have elsewhere, so that pushing them is needless.
    pub upstream_keys: Vec<PublicKey>,
    /// How many bytes on disk its bank may take; `None` leaves it to the file system. Where the cache
    /// is a dataset of ours, the quota of that.
    pub max_size: Option<u64>,
    /// What it keeps.
    pub collect: Policy,
    /// How often it is held against its bytes; `None`: never by itself.
    pub verify_every: Option<Duration>,
    /// How often a snapshot is made; `None`: never.
    pub snapshot_every: Option<Duration>,
    /// Which of these snapshots stay.
    pub snapshot_keep: Retention,
}

impl CacheConfig {
    /// Whether it asks others for what it does not have.
    pub fn pulls(&self) -> bool {
        !self.peers.is_empty() || !self.upstreams.is_empty()
    }

    /// Whether paths come to its own bank: by pushes, or from others.
    pub fn is_written_to(&self) -> bool {
        self.push != PushPolicy::None || self.pulls()
    }

    /// The dataset that the bank of this cache is, where there is one for it.
    pub fn dataset(&self, zfs: &Zfs) -> Option<DatasetName> {
        // A name that a cache can have is one that a dataset can have.
        zfs.dataset.as_ref().and_then(|parent| parent.child(&self.name).ok())
    }
}

/// What is done with ZFS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zfs {
    /// The dataset below which each cache is a dataset of its own; `None`: caches are directories.
    pub dataset: Option<DatasetName>,
    /// How often datasets, pools and the ARC are looked at.
    pub interval: Duration,
    /// How often something is written and synced in each cache that takes pushes, to find out whether
    /// its disks still answer; `None`: never.
    pub probe_every: Option<Duration>,
    /// How long that may take before the cache is closed.
    pub probe_timeout: Duration,
}

impl Default for Zfs {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            dataset: None,
            interval: seconds(15),
            probe_every: Some(seconds(2)),
            probe_timeout: seconds(15),
        }
    }
}

/// Where a cache's paths come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its own directory.
    Bank,
    /// The host's own store.
    Store,
}

/// A key to sign with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// The one that the server made itself, in `<data_dir>/keys`.
    Generated,
    /// A secret key file as `nix key generate-secret` writes it; absolute.
    File(PathBuf),
}

/// How NARs of the local store are compressed and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bake {
    /// Whether anything is baked at all; otherwise the local store is served uncompressed.
    pub enabled: bool,
    /// The zstd level.
    pub level: i32,
    /// How many bytes the baked NARs of the local store may take together.
    pub max_size: u64,
    /// What the first reader of a path gets, before it is baked.
    pub first_read: FirstRead,
}

/// What the first reader of an unbaked path gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRead {
    /// The plain NAR, with its length: fast on a LAN.
    Plain,
    /// zstd while it is being compressed, without a length: small on a WAN.
    Zstd,
}

/// What one client, or all of them, may use up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Connections at once from one address; more are closed.
    pub connections_per_ip: usize,
    /// From the first byte of a request's head to its last.
    pub head_timeout: Duration,
    /// How long a connection may lie idle between two requests.
    pub idle_timeout: Duration,
    /// How long an upload may pause.
    pub body_timeout: Duration,
    /// How long a download may stand still.
    pub stall_timeout: Duration,
    /// How long requests in flight have to finish on shutdown.
    pub drain_timeout: Duration,
    /// Threads for reading files and compressing.
    pub blocking_threads: usize,
    /// Memory for rendered narinfos, in bytes.
    pub narinfo_cache_bytes: u64,
    /// How long to wait for a locked Nix database.
    pub sqlite_deadline: Duration,
    /// The largest NAR that is taken or served, in bytes, uncompressed.
    pub max_nar_size: u64,
    /// How deep the files of a NAR that is taken may lie; at most 64.
    pub max_nar_depth: usize,
    /// The most files, symlinks and directories of a NAR that is taken.
    pub max_nar_entries: u64,
    /// The most files of a NAR that has a listing; one with more is taken without.
    pub max_listing_entries: u64,
    /// How many times larger than as it is sent a NAR may be.
    pub max_ratio: u64,
    /// Memory that decoding one upload may take, in bytes.
    pub decoder_memory: u64,
    /// Uploads at once in all; more wait.
    pub uploads: usize,
    /// Uploads at once of one client; more wait.
    pub uploads_per_client: usize,
    /// How long what was uploaded waits for its narinfo, or for its next part.
    pub pending_age: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// The least important level that is written.
    pub level: LevelFilter,
    /// Whether every request is a line.
    pub requests: bool,
}

/// Lines for people or for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Bake {
    fn default() -> Self {
        Self { enabled: true, level: 3, max_size: 20 << 30, first_read: FirstRead::Plain }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let listen = ListenLimits::default();
        let nar = nar::Limits::default();
        Self {
            connections: listen.connections,
            connections_per_ip: listen.connections_per_ip,
            head_timeout: listen.head_timeout,
            idle_timeout: listen.idle_timeout,
            body_timeout: Duration::from_secs(30),
            stall_timeout: listen.stall_timeout,
            drain_timeout: listen.drain_timeout,
            blocking_threads: 128,
            narinfo_cache_bytes: 64 << 20,
            sqlite_deadline: Duration::from_secs(1),
            max_nar_size: nar.max_size,
            max_nar_depth: nar.max_depth,
            max_nar_entries: nar.max_entries,
            max_listing_entries: nar.max_listing_entries,
            max_ratio: 1000,
            decoder_memory: 32 << 20,
            uploads: 32,
            uploads_per_client: 8,
            pending_age: Duration::from_secs(24 * 3600),
        }
    }
}

impl Limits {
    /// The part that concerns NARs.
    pub fn nar(&self) -> nar::Limits {
        nar::Limits {
            max_size: self.max_nar_size,
            max_depth: self.max_nar_depth,
            max_entries: self.max_nar_entries,
            max_listing_entries: self.max_listing_entries,
            ..nar::Limits::default()
        }
    }
}

/// The part that concerns connections.
impl From<&Limits> for ListenLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            connections: limits.connections,
            connections_per_ip: limits.connections_per_ip,
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            stall_timeout: limits.stall_timeout,
            drain_timeout: limits.drain_timeout,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LevelFilter::INFO, requests: false }
    }
}
