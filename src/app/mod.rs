//! The long-lived parts, built once, in the order in which they need each other; the only place
//! that knows them all.

mod about;
pub mod agent;
mod banks;
mod certificates;
pub mod collecting;
pub mod datasets;
pub mod doctor;
mod healing;
pub mod held;
mod parts;
mod pulling;
pub mod replicate;
pub mod serving;
mod snapshots;
pub mod top;
pub mod urls;
pub mod verifying;
mod watching;
pub mod why;
pub mod zfs_status;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};

use crate::auth::certificate::Revocations;
use crate::auth::{CachePolicy, Clients, Gate, PushPolicy};
use crate::bank::{Bank, BankError};
use crate::codec::seekable::Pool;
use crate::config::{self, CacheConfig, Config, FirstRead, SigningKey, StoreLocation};
use crate::http::front::Front;
use crate::http::listen::{
    self, BindError, ConnectionStats, ListenAddress, ListenLimits, Listeners, Stage,
};
use crate::http::push::UploadSlots;
use crate::http::state::{State, Work};
use crate::http::views::Views;
use crate::index::places::KnownPlaces;
use crate::index::state::StateDb;
use crate::ingest::nar::NarLimits;
use crate::ingest::{self, Expiry, Ingest, Quota, Recorder};
use crate::metrics::{Metrics, history};
use crate::nix::cache_info::CacheInfo;
use crate::nix::signature::KeyName;
use crate::nix::store_path::StoreDir;
use crate::service::{Notifier, Signals};
use crate::sign::{KeyError, KeyRing, SecretKey};
use crate::source::cache::Cache;
use crate::source::local::bake::{BakeSettings, Bakery};
use crate::source::local::tree::ReadPool;
use crate::source::local::{LocalStore, StoreLayout};
use crate::source::{BankSource, Source};
use crate::tls::issuance::Issuance;
use crate::tls::server::{Tls, TlsError};

/// The directory of keys and the one that is made at the first start.
const KEY_DIRECTORY: &str = "keys";
const KEY_FILE: &str = "signing-key";
/// Every cache is looked at this often even if nobody asks, so that what changed is scanned before
/// it is asked for, and the metrics are true.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What was pushed and never finished is looked for this often.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);
/// Files that could not be read are looked through this often for those whose time has come.
const RETRY_EVERY: Duration = Duration::from_secs(60);
/// How long a request waits for a blocking thread before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(20);
/// Listings and decoding at once, for each core.
const LARGE_WORK_PER_CORE: usize = 2;

/// Why the server could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The runtime could not be built.
    #[error("cannot start threads: {0}")]
    Runtime(#[source] io::Error),
    /// A directory could not be made.
    #[error("cannot make {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A bank could not be opened.
    #[error(transparent)]
    Bank(#[from] BankError),
    /// A key could not be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no certificate to show.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// We cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The metrics contradict each other: a defect of ours.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The thread that drains the spool is gone: a defect of ours.
    #[error("the agent failed; its log says where")]
    AgentEnded,
    /// The thread that replicates is gone: a defect of ours.
    #[error("the replication failed where it should not; what it said before says where")]
    ReplicationEnded,
}

/// Serves until it is told to stop.
pub fn run(config: Config) -> Result<(), AppError> {
    // Keys are in memory: no core dump may hold them, and nobody of the same user may look.
    if let Err(error) =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!("core dumps could not be turned off: {error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(config.limits.blocking_threads)
        .enable_all()
        .build()
        .map_err(AppError::Runtime)?;
    let served = runtime.block_on(serve(config));
    // Whatever still reads for a client that is cut must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(config: Config) -> Result<(), AppError> {
    let signals = Signals::catch().map_err(AppError::Runtime)?;
    let notifier =
        Notifier::from_environment(|name| std::env::var_os(name)).map_err(AppError::Runtime)?;
    let data_dir = config.data_dir.clone();
    let serving = tokio::task::spawn_blocking(move || serving::serve(&data_dir)).await;
    // Where the directory cannot be written to, nobody else can do what needs the lock; the rest is told below.
    let _serving = serving.ok().and_then(Result::ok);
    let stats = Arc::new(ConnectionStats::default());
    let tls = config.tls.clone().map(Tls::new).transpose()?.map(Arc::new);
    let issuance = config
        .issuer
        .clone()
        .map(|settings| Arc::new(Issuance::new(settings, &config.data_dir.join("tls"))));
    let revocations = tls.as_ref().map(|tls| tls.revocations()).unwrap_or_default();
    let state = Arc::new(build(&config, Arc::clone(&stats), revocations)?);
    let limits = ListenLimits::from(&config.limits);
    let listeners =
        Listeners::bind(&config.listen, config.socket_mode, limits.stall_timeout, tls.as_ref())?;
    let addresses = listeners.addresses();
    announce(&addresses, &state);
    notifier.ready();
    let (stage, stages) = watch::channel(Stage::Serving);
    let front = Front::new(Arc::clone(&state));
    let service_for = move |client| front.for_client(client);
    let serving = listen::serve(listeners, &limits, stats, stages, service_for);
    let reload = async || {
        let (state, config) = (Arc::clone(&state), config.clone());
        let reloaded = tokio::task::spawn_blocking(move || reload_keys(&state, &config));
        if reloaded.await.is_err() {
            tracing::error!("reading the keys again failed");
        }
    };
    let to_verify = Arc::new(verifying::Waiting::default());
    // A cache that cannot be read is no reason to be killed: only threads that do no work are.
    let is_alive = async || state.blocking(Work::Small, || ()).await.is_ok();
    tokio::select! {
        () = serving => {}
        () = signals.obey(&stage, &notifier, reload) => {}
        () = notifier.watch(is_alive) => {}
        () = keep_looking(&state) => {}
        () = keep_history(&state) => {}
        () = keep_expiring(&state, config.limits.pending_age) => {}
        () = snapshots::keep_snapshotting(&config) => {}
        () = keep_retrying(&state) => {}
        () = healing::keep_healing(&config, &state) => {}
        () = pulling::keep_pulling(&state) => {}
        () = certificates::keep_current(tls.clone(), &addresses, &state) => {}
        () = collecting::keep_collecting(&config, &state, &to_verify) => {}
        () = verifying::keep_verifying(&config, &state, Arc::clone(&to_verify)) => {}
        () = certificates::keep_renewed(issuance, tls, &state) => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Looks at every cache now and then.
async fn keep_looking(state: &Arc<State>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let state = Arc::clone(state);
        state.views.close_idle(&state);
        let looked = tokio::task::spawn_blocking(move || {
            for cache in state.caches.values() {
                cache.close_files();
                if cache.look().is_ok() {
                    cache.scan();
                    cache.learn();
                }
            }
        });
        if looked.await.is_err() {
            tracing::error!("a look at the caches failed");
        }
    }
}

/// Notes, every minute, what came and went.
async fn keep_history(state: &Arc<State>) {
    let mut ticks = tokio::time::interval(history::EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        state.metrics.history.note(Timestamp::now().as_second(), state.metrics.traffic());
    }
}

/// Lets go, now and then, of what was pushed and never finished.
async fn keep_expiring(state: &Arc<State>, age: Duration) {
    let mut ticks = tokio::time::interval(EXPIRE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let expiry = Arc::new(Mutex::new(Expiry::new(age)));
    loop {
        ticks.tick().await;
        let (state, expiry) = (Arc::clone(state), Arc::clone(&expiry));
        let expired = tokio::task::spawn_blocking(move || {
            let mut expiry = expiry.lock().unwrap_or_else(PoisonError::into_inner);
            for (cache, ingest) in &state.ingests {
                match ingest.expire(&mut expiry) {
                    Ok(0) => {}
                    Ok(removed) => tracing::info!(cache, removed, "let go of unfinished uploads"),
                    Err(error) => tracing::warn!(cache, "unfinished uploads stay: {error}"),
                }
            }
        });
        if expired.await.is_err() {
            tracing::error!("letting go of unfinished uploads failed");
        }
    }
}

/// Tries now and then whether what could not be read can be read again.
async fn keep_retrying(state: &Arc<State>) {
    let mut ticks = tokio::time::interval(RETRY_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let state = Arc::clone(state);
        let retried = tokio::task::spawn_blocking(move || {
            let sources = state.caches.values().flat_map(|cache| cache.sources());
            let held = sources.filter_map(|source| source.quarantine());
            held.for_each(|held| held.retry(Instant::now()));
        });
        if retried.await.is_err() {
            tracing::error!("trying unreadable files again failed");
        }
    }
}

/// Builds everything, from the bottom up, and takes the first look at every cache.
fn build(
    config: &Config,
    stats: Arc<ConnectionStats>,
    revocations: Arc<Revocations>,
) -> Result<State, AppError> {
    make_directory(&config.data_dir)?;
    datasets::prepare(config);
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).get();
    let metrics = Arc::new(Metrics::new()?);
    let readers = ReadPool::start(ReadPool::default_threads()).map_err(AppError::Runtime)?;
    let location = config.store.as_ref().filter(|location| is_there(location));
    let store_dir = location.map_or_else(StoreDir::default, |found| found.store_dir.clone());
    let store = match location {
        Some(location) => Some(open_store(config, location, &readers, &metrics)?),
        None => None,
    };
    let mut caches = BTreeMap::new();
    let mut ingests = BTreeMap::new();
    let mut banks = watching::Banks::new();
    let state_db = open_state(config);
    let places = Arc::new(KnownPlaces::new(state_db.clone()));
    let recorder = state_db.clone().map(Recorder::start).transpose().map_err(AppError::Runtime)?;
    let recorder = recorder.map(Arc::new);
    let pool = Pool::new(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
        .map_err(AppError::Runtime)?;
    for cache in &config.caches {
        let store_dir = store_dir_of(cache, store.is_some(), &store_dir);
        let mut sources = Vec::new();
        let mut own_bank = None;
        if !cache.sources.contains(&config::Source::Bank) {
            sources.extend(parts::open(cache, &store_dir, &places)?);
        }
        for source in &cache.sources {
            match (source, &store) {
                (config::Source::Bank, _) => {
                    let bank = banks::open(config, cache, &store_dir, state_db.as_deref())?;
                    let source = BankSource::new(Arc::clone(&bank), store_dir.clone());
                    let source = Arc::new(Source::Bank(source));
                    sources.push(Arc::clone(&source));
                    own_bank = Some((bank, source));
                    sources.extend(parts::open(cache, &store_dir, &places)?);
                }
                (config::Source::Store, Some(store)) => {
                    sources.push(Arc::new(Source::Store(Arc::clone(store))));
                }
                (config::Source::Store, None) => {}
            }
        }
        let info = cache_info(cache, &store_dir);
        let keys = load_keys(cache, &config.data_dir)?;
        let memory = config.limits.narinfo_cache_bytes;
        let built =
            Cache::new(cache.name.clone(), info, sources, keys, memory, Arc::clone(&metrics));
        let built = Arc::new(built);
        if let Some((bank, source)) = own_bank {
            if cache.is_written_to() {
                let (source, bank) = (Arc::clone(&source), Arc::clone(&bank));
                let place = ingest::Place { cache: Arc::clone(&built), source, bank };
                let ingest = open_ingest(config, cache, place, pool.clone(), recorder.clone());
                ingests.insert(cache.name.clone(), Arc::new(ingest));
            }
            banks.insert(cache.name.clone(), (bank, source));
        }
        caches.insert(cache.name.clone(), built);
    }
    connect_bakery(store.as_ref(), &caches);
    let watch = Arc::new(watching::start(config, &banks, &ingests, &metrics)?);
    watching::connect_reports(config, &banks, &watch);
    watching::connect_twins(&ingests, &banks, &watch, &metrics);
    for cache in caches.values() {
        if let Err(error) = cache.look() {
            tracing::error!("{error}; it is answered with 503 until it can be read");
        }
        cache.scan();
    }
    let Some(default) = caches.get(config::DEFAULT_CACHE).cloned() else {
        unreachable!("a checked configuration always has the default cache")
    };
    let clients = Clients { grants: config.clients.clone(), revocations };
    let pullers = pulling::pullers(config, &ingests, &metrics);
    Ok(State {
        caches,
        views: Views::default(),
        ingests,
        pullers,
        uploads: UploadSlots::new(config.limits.uploads, config.limits.uploads_per_client),
        default,
        gate: Gate::new(policies(config), clients, state_db.clone()),
        state_db,
        watch,
        metrics,
        readers,
        connections: stats,
        landing_page: config.landing_page,
        status_for: config.status_for,
        about: about::about(config),
        body_timeout: config.limits.body_timeout,
        log_requests: config.log.requests,
        small_work: Arc::new(Semaphore::new(config.limits.blocking_threads)),
        large_work: Arc::new(Semaphore::new(cores * LARGE_WORK_PER_CORE)),
        patience: PATIENCE,
    })
}

/// The state database. Without it the server starts all the same: what everybody may read is served.
fn open_state(config: &Config) -> Option<Arc<StateDb>> {
    match StateDb::open_or_begin_anew(&config.data_dir) {
        Ok(state) => Some(Arc::new(state)),
        Err(error) => {
            tracing::error!(
                "{error}; public caches are served, pushes and private caches are answered with 503"
            );
            None
        }
    }
}

fn policies(config: &Config) -> BTreeMap<String, CachePolicy> {
    let policy = |cache: &CacheConfig| {
        if cache.push == PushPolicy::Open && cache.push_open_to_network {
            tracing::warn!(cache = cache.name, "anybody who can connect may push to this cache");
        }
        (cache.name.clone(), CachePolicy { push: cache.push, pull: cache.pull })
    };
    config.caches.iter().map(policy).collect()
}

/// Whether a store is to be served: one that was found by itself may be missing. A store directory
/// without a database is a store that cannot be read, not none.
fn is_there(location: &StoreLocation) -> bool {
    let there =
        location.database_dir().join("db.sqlite").exists() || location.real_store_dir.exists();
    if !there && location.optional {
        tracing::info!("no Nix store on this host: only banks are served");
    }
    there || !location.optional
}

fn open_store(
    config: &Config,
    location: &StoreLocation,
    readers: &Arc<ReadPool>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<LocalStore>, AppError> {
    let layout = StoreLayout {
        store_dir: location.store_dir.clone(),
        real_dir: location.real_store_dir.clone(),
        state_dir: location.state_dir.clone(),
        log_dir: location.log_dir.clone(),
    };
    let bakery = if config.bake.enabled {
        let directory = config.data_dir.join("baked");
        let settings = BakeSettings {
            directory: directory.clone(),
            level: config.bake.level,
            max_bytes: config.bake.max_size,
        };
        let bakery = Bakery::start(settings, Arc::clone(readers), Arc::clone(metrics));
        Some(bakery.map_err(|source| AppError::Directory { path: directory, source })?)
    } else {
        None
    };
    let zstd_first = config.bake.first_read == FirstRead::Zstd;
    let deadline = config.limits.sqlite_deadline;
    let limits = config.limits.nar();
    Ok(Arc::new(LocalStore::new(layout, limits, deadline, bakery, zstd_first)))
}

/// What takes the pushes to a cache.
fn open_ingest(
    config: &Config,
    cache: &CacheConfig,
    place: ingest::Place,
    pool: Pool,
    recorder: Option<Arc<Recorder>>,
) -> Ingest {
    let policy = ingest::Policy {
        accept: cache.accept,
        trusted_keys: cache.trusted_keys.clone(),
        upstream_keys: cache.upstream_keys.clone(),
    };
    let limits = NarLimits {
        nar: config.limits.nar(),
        max_ratio: u32::try_from(config.limits.max_ratio).unwrap_or(u32::MAX),
        decoder_memory: config.limits.decoder_memory,
        ..NarLimits::default()
    };
    // A dataset has its quota from ZFS.
    let own_quota = cache.max_size.filter(|_| config.zfs.dataset.is_none());
    let quota = Quota::new(own_quota);
    Ingest::new(place, policy, limits, quota, pool, recorder)
}

/// The store directory of a cache: the host's where it serves the host's store, else the one that
/// its bank is of already.
fn store_dir_of(cache: &CacheConfig, has_store: bool, host: &StoreDir) -> StoreDir {
    if has_store && cache.sources.contains(&config::Source::Store) {
        return host.clone();
    }
    Bank::store_dir_at(&cache.directory).unwrap_or_else(|| host.clone())
}

fn cache_info(cache: &CacheConfig, store_dir: &StoreDir) -> CacheInfo {
    CacheInfo {
        store_dir: store_dir.clone(),
        want_mass_query: cache.want_mass_query,
        priority: cache.priority,
    }
}

/// Has the caches forget what they remember of a path when its baked file comes or goes.
fn connect_bakery(store: Option<&Arc<LocalStore>>, caches: &BTreeMap<String, Arc<Cache>>) {
    let Some(bakery) = store.and_then(|store| store.bakery()) else { return };
    for cache in caches.values() {
        // Weakly: the bakery belongs to a source of the cache.
        let cache = Arc::downgrade(cache);
        bakery.on_change(Box::new(move |path| {
            if let Some(cache) = cache.upgrade() {
                cache.forget(path);
            }
        }));
    }
}

fn load_keys(cache: &CacheConfig, data_dir: &Path) -> Result<KeyRing, AppError> {
    let load = |key: &SigningKey| match key {
        SigningKey::File(path) => Ok(SecretKey::load(path)?),
        SigningKey::Generated => {
            let directory = data_dir.join(KEY_DIRECTORY);
            make_directory(&directory)?;
            Ok(SecretKey::load_or_create(&directory.join(KEY_FILE), generated_name()?)?)
        }
    };
    let keys = cache.signing_keys.iter().map(load).collect::<Result<_, AppError>>()?;
    Ok(KeyRing::new(keys))
}

/// The name of the key that is made by itself: the host's, as far as a key's name can hold it.
fn generated_name() -> Result<KeyName, KeyError> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let legal = |character: &char| character.is_ascii_alphanumeric() || ".-_".contains(*character);
    let host: String = host.chars().filter(legal).take(64).collect();
    Ok(KeyName::parse(&format!("{}-snowbank-1", if host.is_empty() { "host" } else { &host }))?)
}

fn reload_keys(state: &State, config: &Config) {
    for cache in &config.caches {
        let Some(running) = state.caches.get(&cache.name) else { continue };
        match load_keys(cache, &config.data_dir) {
            Ok(keys) => {
                tracing::info!(cache = cache.name, keys = keys.len(), "keys read again");
                running.set_keys(keys);
            }
            Err(error) => {
                tracing::error!(cache = cache.name, "the keys in use stay: {error}");
            }
        }
    }
}

fn make_directory(path: &Path) -> Result<(), AppError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    if path.ends_with(KEY_DIRECTORY) {
        builder.mode(0o700);
    }
    builder.create(path).map_err(|source| AppError::Directory { path: path.into(), source })
}

/// How clients reach an address; where it is every address, by the host's name.
fn url_for_clients(address: &ListenAddress) -> Option<String> {
    let (scheme, at) = match address {
        ListenAddress::Tcp(at) => ("http", at),
        ListenAddress::Tls(at) => ("https", at),
        ListenAddress::Unix(_) | ListenAddress::Systemd => return None,
    };
    if at.ip().is_unspecified() {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        return Some(format!("{scheme}://{host}:{}", at.port()));
    }
    Some(format!("{scheme}://{at}"))
}

/// Says where it listens and what a client needs, on standard output.
fn announce(addresses: &[ListenAddress], state: &State) {
    let mut text = String::new();
    for address in addresses {
        match address {
            ListenAddress::Tcp(at) => text += &format!("listening on http://{at}\n"),
            other => text += &format!("listening on {other}\n"),
        }
    }
    if let Some(url) = addresses.iter().find_map(url_for_clients) {
        text += &format!("\nPut this into nix.conf to use it:\n\nsubstituters = {url}\n");
        let keys = state.default.keys().public();
        let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
        text += &format!("trusted-public-keys = {}\n", keys.join(" "));
    }
    // Nobody may be reading, which is no reason not to serve.
    let mut output = io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}
