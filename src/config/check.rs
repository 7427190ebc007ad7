//! From the file's shape to typed settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;
use tracing::level_filters::LevelFilter;

use super::caches::{self, Places};
use super::checked::{Bake, Config, FirstRead, Limits, Log, LogFormat};
use super::error::{ConfigError, Origin};
use super::raw::{Raw, RawBake, RawLimits, RawLog};
use super::setting::Setting;
use super::{Environment, Overrides, store, tls, zfs};
use crate::auth::Audience;
use crate::http::listen::ListenAddress;
use crate::tls::server::TlsFiles;

const AUDIENCES: [(&str, Audience); 4] = [
    ("nobody", Audience::Nobody),
    ("authenticated", Audience::Known),
    ("loopback", Audience::Loopback),
    ("everybody", Audience::Everybody),
];

/// Makes the configuration out of `raw`, which was written at `origin`, and what overrides it.
/// Relative paths of the file are taken from the directory the file is in.
pub(super) fn check(
    raw: &Raw,
    origin: &Origin,
    base: &Path,
    overrides: &Overrides,
    environment: &Environment<'_>,
) -> Result<Config, ConfigError> {
    let section = Section { origin, prefix: "" };
    let home = environment.home();
    let data_dir = match overrides.data_dir(environment) {
        Some(setting) => setting.path(&overrides.working_dir, home.as_deref())?,
        None => match section.get("data_dir", &raw.data_dir) {
            Some(setting) => setting.path(base, home.as_deref())?,
            None => default_data_dir(environment)?,
        },
    };
    let store = match overrides.store(environment) {
        Some(setting) => store::check(&setting, &overrides.working_dir, environment)?,
        None => match section.get("store", &raw.store) {
            Some(setting) => store::check(&setting, base, environment)?,
            None => Some(store::automatic(origin, environment)?),
        },
    };
    let places = Places { origin, base, home: home.as_deref() };
    let (tls, issuer) = tls::check(&raw.tls, &places, &data_dir)?;
    let listen = overrides.listen(environment).or_else(|| section.get("listen", &raw.listen));
    let listen = match listen {
        Some(setting) => addresses(&setting, tls.as_ref())?,
        None => vec![ListenAddress::Tcp(([127, 0, 0, 1], 5000).into())],
    };
    let mut config = Config {
        file: None,
        listen,
        clients: tls::clients(raw, origin, tls.as_ref())?,
        tls,
        issuer,
        socket_mode: 0o660,
        caches: Vec::new(),
        zfs: zfs::check(&raw.zfs, origin)?,
        bake: bake(&raw.bake, origin)?,
        limits: limits(&raw.limits, origin)?,
        log: log(&raw.log, origin)?,
        landing_page: true,
        status_for: Audience::default(),
        data_dir,
        store,
    };
    section.set("socket_mode", &raw.socket_mode, &mut config.socket_mode, socket_mode)?;
    section.set("landing_page", &raw.landing_page, &mut config.landing_page, Setting::boolean)?;
    section.set("status_for", &raw.status_for, &mut config.status_for, |setting| {
        setting.one_of(&AUDIENCES)
    })?;
    let push = overrides.push(environment);
    config.caches = caches::check(raw, &places, &config, push)?;
    Ok(config)
}

/// A table of the file.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a> {
    pub(crate) origin: &'a Origin,
    /// Empty, or the name with a dot at its end.
    pub(crate) prefix: &'a str,
}

impl Section<'_> {
    pub(crate) fn get(&self, name: &str, value: &Option<Value>) -> Option<Setting> {
        let key = || format!("{}{name}", self.prefix);
        value.as_ref().map(|value| Setting::new(self.origin, key(), value.clone()))
    }

    /// Replaces `target`, which holds the default, if the file says something else.
    pub(crate) fn set<T>(
        &self,
        name: &str,
        value: &Option<Value>,
        target: &mut T,
        read: impl FnOnce(&Setting) -> Result<T, ConfigError>,
    ) -> Result<(), ConfigError> {
        if let Some(setting) = self.get(name, value) {
            *target = read(&setting)?;
        }
        Ok(())
    }
}

/// Root has `/var/lib/snowbank`, everybody else a directory below their home.
fn default_data_dir(environment: &Environment<'_>) -> Result<PathBuf, ConfigError> {
    if environment.is_root {
        return Ok("/var/lib/snowbank".into());
    }
    // A relative XDG_DATA_HOME is to be ignored, says the specification.
    let data_home = environment.path("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data_home = data_home.or_else(|| environment.home().map(|home| home.join(".local/share")));
    data_home.map(|directory| directory.join("snowbank")).ok_or(ConfigError::NoHome)
}

fn addresses(
    setting: &Setting,
    files: Option<&TlsFiles>,
) -> Result<Vec<ListenAddress>, ConfigError> {
    let mut addresses = Vec::new();
    for item in setting.list()? {
        let address: ListenAddress =
            item.text()?.trim().parse().map_err(|error| item.refuse(format!("{error}")))?;
        if addresses.contains(&address) {
            return Err(item.refuse("the same address stands here twice"));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err(setting.refuse("at least one address is expected"));
    }
    tls::has_what_it_takes(&addresses, files).map_err(|why| setting.refuse(why))?;
    Ok(addresses)
}

fn socket_mode(setting: &Setting) -> Result<u32, ConfigError> {
    let text = setting.value().as_str().unwrap_or_default();
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(mode),
        _ => Err(setting.refuse("a file mode in octal is expected, such as \"0660\"")),
    }
}

fn bake(raw: &RawBake, origin: &Origin) -> Result<Bake, ConfigError> {
    let section = Section { origin, prefix: "bake." };
    let first_reads = [("plain", FirstRead::Plain), ("zstd", FirstRead::Zstd)];
    let mut bake = Bake::default();
    section.set("enabled", &raw.enabled, &mut bake.enabled, Setting::boolean)?;
    section.set("level", &raw.level, &mut bake.level, |setting| setting.integer(1..=19))?;
    section.set("max_size", &raw.max_size, &mut bake.max_size, |setting| {
        setting.size(0..=i64::MAX.unsigned_abs())
    })?;
    section.set("first_read", &raw.first_read, &mut bake.first_read, |setting| {
        setting.one_of(&first_reads)
    })?;
    Ok(bake)
}

fn limits(raw: &RawLimits, origin: &Origin) -> Result<Limits, ConfigError> {
    let section = Section { origin, prefix: "limits." };
    let count = |setting: &Setting| setting.integer(1..=1_000_000_usize);
    let threads = |setting: &Setting| setting.integer(1..=4096_usize);
    let second = Duration::from_secs(1);
    let timeout = |setting: &Setting| setting.duration(second / 10..=3600 * second);
    let deadline = |setting: &Setting| setting.duration(second / 1000..=60 * second);
    let memory = |setting: &Setting| setting.size(0..=1 << 40);
    let nar = |setting: &Setting| setting.size(1 << 20..=16 << 40);
    let mut limits = Limits::default();
    let to = &mut limits;
    section.set("connections", &raw.connections, &mut to.connections, count)?;
    section.set(
        "connections_per_ip",
        &raw.connections_per_ip,
        &mut to.connections_per_ip,
        count,
    )?;
    section.set("head_timeout", &raw.head_timeout, &mut to.head_timeout, timeout)?;
    section.set("idle_timeout", &raw.idle_timeout, &mut to.idle_timeout, timeout)?;
    section.set("body_timeout", &raw.body_timeout, &mut to.body_timeout, timeout)?;
    section.set("stall_timeout", &raw.stall_timeout, &mut to.stall_timeout, timeout)?;
    section.set("drain_timeout", &raw.drain_timeout, &mut to.drain_timeout, timeout)?;
    section.set("blocking_threads", &raw.blocking_threads, &mut to.blocking_threads, threads)?;
    let bytes = &mut to.narinfo_cache_bytes;
    section.set("narinfo_cache_bytes", &raw.narinfo_cache_bytes, bytes, memory)?;
    section.set("sqlite_deadline", &raw.sqlite_deadline, &mut to.sqlite_deadline, deadline)?;
    section.set("max_nar_size", &raw.max_nar_size, &mut to.max_nar_size, nar)?;
    push_limits(&section, raw, to)?;
    Ok(limits)
}

fn push_limits(section: &Section<'_>, raw: &RawLimits, to: &mut Limits) -> Result<(), ConfigError> {
    let entries = |setting: &Setting| setting.integer(1..=1_000_000_000_u64);
    let uploads = |setting: &Setting| setting.integer(1..=4096_usize);
    let minute = Duration::from_secs(60);
    section.set("max_nar_depth", &raw.max_nar_depth, &mut to.max_nar_depth, |setting| {
        // A client could not unpack anything deeper.
        setting.integer(1..=64_usize)
    })?;
    section.set("max_nar_entries", &raw.max_nar_entries, &mut to.max_nar_entries, entries)?;
    section.set(
        "max_listing_entries",
        &raw.max_listing_entries,
        &mut to.max_listing_entries,
        |setting| setting.integer(0..=1_000_000_000_u64),
    )?;
    section.set("max_ratio", &raw.max_ratio, &mut to.max_ratio, |setting| {
        setting.integer(1..=1_000_000_u64)
    })?;
    section.set("decoder_memory", &raw.decoder_memory, &mut to.decoder_memory, |setting| {
        setting.size(1 << 20..=4 << 30)
    })?;
    section.set("uploads", &raw.uploads, &mut to.uploads, uploads)?;
    let per_client = &mut to.uploads_per_client;
    section.set("uploads_per_client", &raw.uploads_per_client, per_client, uploads)?;
    section.set("pending_age", &raw.pending_age, &mut to.pending_age, |setting| {
        setting.duration(minute..=365 * 24 * 60 * minute)
    })
}

fn log(raw: &RawLog, origin: &Origin) -> Result<Log, ConfigError> {
    let section = Section { origin, prefix: "log." };
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    let mut log = Log::default();
    section.set("format", &raw.format, &mut log.format, |setting| setting.one_of(&formats))?;
    section.set("level", &raw.level, &mut log.level, |setting| setting.one_of(&levels))?;
    section.set("requests", &raw.requests, &mut log.requests, Setting::boolean)?;
    Ok(log)
}
