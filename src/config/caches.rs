//! The caches: `[cache.<name>]`, from the file's shape to typed settings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::check::Section;
use super::checked::{CacheConfig, Config, DEFAULT_CACHE, RESERVED_NAMES, SigningKey, Source};
use super::error::{ConfigError, Origin};
use super::raw::{Raw, RawCache};
use super::setting::Setting;
use super::{keep, upstreams, zfs};
use crate::auth::{PullPolicy, PushPolicy};
use crate::ingest::Accept;
use crate::ingest::pull::PullSettings;
use crate::keep::collect::policy::Policy;
use crate::keep::retention::Retention;
use crate::sign::PublicKey;
use crate::source::upstream::connect::Address;

/// What nearly every client substitutes from already.
const CACHE_NIXOS_ORG: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
/// Why client certificates cannot be asked for.
const NO_MTLS: &str = "nobody could show a certificate: set tls.client_ca, and [tls.client.NAME] for what its \
                       names may do";

/// The most parts of a cache: each is asked for every path that those before it do not have.
const MAX_PARTS: usize = 64;

/// The most caches that one path is looked for in.
const MAX_HEAL_FROM: usize = 16;

/// What the paths of the caches are taken from.
pub(super) struct Places<'a> {
    pub(super) origin: &'a Origin,
    pub(super) base: &'a Path,
    pub(super) home: Option<&'a Path>,
}

/// The caches of the file, the default one first. `push` is what overrides the default one's.
pub(super) fn check(
    raw: &Raw,
    places: &Places<'_>,
    config: &Config,
    push: Option<Setting>,
) -> Result<Vec<CacheConfig>, ConfigError> {
    let unset = RawCache::default();
    let default = raw.cache.get(DEFAULT_CACHE).unwrap_or(&unset);
    let mut caches = vec![cache(DEFAULT_CACHE, default, places, config, push)?];
    for (name, settings) in raw.cache.iter().filter(|(name, _)| *name != DEFAULT_CACHE) {
        caches.push(cache(name, settings, places, config, None)?);
    }
    let mut directories = BTreeSet::new();
    for cache in &caches {
        if !directories.insert(&cache.directory) {
            let directory = Value::String(cache.directory.display().to_string());
            let setting =
                Setting::new(places.origin, format!("cache.{}.directory", cache.name), directory);
            return Err(setting.refuse("another cache has this directory; each needs its own"));
        }
    }
    for cache in &caches {
        if let Some(part) = cache.parts.iter().find(|part| directories.contains(part)) {
            let setting = Setting::new(
                places.origin,
                format!("cache.{}.parts", cache.name),
                Value::String(part.display().to_string()),
            );
            return Err(setting.refuse(
                "this is the directory of a cache; a part is one that another node writes",
            ));
        }
    }
    Ok(caches)
}

fn cache(
    name: &str,
    raw: &RawCache,
    places: &Places<'_>,
    config: &Config,
    push: Option<Setting>,
) -> Result<CacheConfig, ConfigError> {
    check_name(name, places.origin)?;
    let prefix = format!("cache.{name}.");
    let section = Section { origin: places.origin, prefix: &prefix };
    let with_store = name == DEFAULT_CACHE && config.store.is_some();
    let mut cache = CacheConfig {
        name: name.to_owned(),
        directory: config.data_dir.join(name),
        parts: Vec::new(),
        peers: Vec::new(),
        upstreams: Vec::new(),
        pulling: PullSettings::default(),
        heal_from: Vec::new(),
        priority: 30,
        want_mass_query: true,
        sources: if with_store { vec![Source::Bank, Source::Store] } else { vec![Source::Bank] },
        signing_keys: vec![SigningKey::Generated],
        push: PushPolicy::None,
        push_open_to_network: false,
        pull: PullPolicy::Public,
        accept: Accept::Pusher,
        trusted_keys: Vec::new(),
        upstream_keys: PublicKey::parse(CACHE_NIXOS_ORG).into_iter().collect(),
        max_size: None,
        collect: Policy::default(),
        verify_every: Some(Duration::from_secs(30 * 24 * 3600)),
        snapshot_every: None,
        snapshot_keep: Retention::default(),
    };
    section.set("priority", &raw.priority, &mut cache.priority, |setting| {
        setting.integer(0..=10_000_u32)
    })?;
    let mass_query = &mut cache.want_mass_query;
    section.set("want_mass_query", &raw.want_mass_query, mass_query, Setting::boolean)?;
    section.set("sources", &raw.sources, &mut cache.sources, |setting| {
        sources(setting, config.store.is_some())
    })?;
    section.set("signing_keys", &raw.signing_keys, &mut cache.signing_keys, |setting| {
        setting.list()?.map(|key| signing_key(&key, places)).collect()
    })?;
    section.set("directory", &raw.directory, &mut cache.directory, |setting| {
        setting.path(&config.data_dir, places.home)
    })?;
    section.set("parts", &raw.parts, &mut cache.parts, |setting| {
        parts(setting, &config.data_dir, places.home)
    })?;
    upstreams::check(&section, raw, places, &mut cache)?;
    section.set("heal_from", &raw.heal_from, &mut cache.heal_from, heal_from)?;
    access(&section, raw, config, push, &mut cache)?;
    section.set("accept", &raw.accept, &mut cache.accept, |setting| {
        setting.one_of(&[("pusher", Accept::Pusher), ("trusted", Accept::Trusted)])
    })?;
    section.set("trusted_keys", &raw.trusted_keys, &mut cache.trusted_keys, public_keys)?;
    section.set("upstream_keys", &raw.upstream_keys, &mut cache.upstream_keys, public_keys)?;
    section.set("max_size", &raw.max_size, &mut cache.max_size, quota)?;
    cache.collect = keep::check(&section, raw)?;
    keep::verification(&section, raw, &mut cache.verify_every)?;
    zfs::snapshots(&section, raw, &mut cache)?;
    Ok(cache)
}

/// Who may push and who may read.
fn access(
    section: &Section<'_>,
    raw: &RawCache,
    config: &Config,
    push: Option<Setting>,
    cache: &mut CacheConfig,
) -> Result<(), ConfigError> {
    let to_network = &mut cache.push_open_to_network;
    let said_again = &raw.push_open_to_network;
    section.set("push_open_to_network", said_again, to_network, Setting::boolean)?;
    if let Some(setting) = push.or_else(|| section.get("push", &raw.push)) {
        cache.push = setting.one_of(&[
            ("none", PushPolicy::None),
            ("token", PushPolicy::Token),
            ("mtls", PushPolicy::Certificate),
            ("open", PushPolicy::Open),
        ])?;
        if cache.push == PushPolicy::Certificate && config.clients.is_empty() {
            return Err(setting.refuse(NO_MTLS));
        }
        let network = config.listen.iter().find(|address| !address.is_of_this_host());
        if let (PushPolicy::Open, false, Some(address)) =
            (cache.push, cache.push_open_to_network, network)
        {
            return Err(setting.refuse(format!(
                "{address} is open to the network, so anybody could push: use \"token\", listen \
                 on loopback or unix sockets only, or say it again with push_open_to_network = true"
            )));
        }
    }
    section.set("pull", &raw.pull, &mut cache.pull, |setting| {
        let pull = setting.one_of(&[
            ("public", PullPolicy::Public),
            ("token", PullPolicy::Token),
            ("mtls", PullPolicy::Certificate),
        ])?;
        match pull {
            PullPolicy::Certificate if config.clients.is_empty() => Err(setting.refuse(NO_MTLS)),
            _ => Ok(pull),
        }
    })
}

pub(super) fn public_keys(setting: &Setting) -> Result<Vec<PublicKey>, ConfigError> {
    let key = |item: Setting| {
        PublicKey::parse(item.text()?).ok_or_else(|| {
            item.refuse(
                "a public key is expected, name:base64, as in trusted-public-keys of nix.conf",
            )
        })
    };
    setting.list()?.map(key).collect()
}

/// A quota of no bytes is refused: some would mean no quota by it, some that nothing may be pushed.
fn quota(setting: &Setting) -> Result<Option<u64>, ConfigError> {
    match setting.value().as_str() {
        Some("none") => Ok(None),
        _ => setting.size(1 << 20..=i64::MAX.unsigned_abs()).map(Some),
    }
}

/// A name is a part of a URL, a directory and a dataset: what all three take without quoting.
pub(super) fn check_name(name: &str, origin: &Origin) -> Result<(), ConfigError> {
    let refuse = |expected: &str| {
        let setting = Setting::new(origin, "cache", Value::String(name.to_owned()));
        Err(setting.refuse(expected))
    };
    if RESERVED_NAMES.contains(&name) {
        return refuse("this name is taken by the server's own directories; choose another");
    }
    let letters = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !letters || name.is_empty() || name.len() > 63 || name.starts_with('-') {
        return refuse("the name of a cache is 1 to 63 of a-z 0-9 -, not beginning with -");
    }
    Ok(())
}

fn sources(setting: &Setting, has_store: bool) -> Result<Vec<Source>, ConfigError> {
    let mut sources = Vec::new();
    for item in setting.list()? {
        let source = item.one_of(&[("bank", Source::Bank), ("store", Source::Store)])?;
        if source == Source::Store && !has_store {
            return Err(item.refuse("there is no local store while store = \"none\""));
        }
        if sources.contains(&source) {
            return Err(item.refuse("the same source stands here twice"));
        }
        sources.push(source);
    }
    if sources.is_empty() {
        return Err(setting.refuse("at least one of \"bank\", \"store\" is expected"));
    }
    Ok(sources)
}

fn parts(setting: &Setting, base: &Path, home: Option<&Path>) -> Result<Vec<PathBuf>, ConfigError> {
    each_once(setting, MAX_PARTS, "part", |item| item.path(base, home))
}

fn heal_from(setting: &Setting) -> Result<Vec<Address>, ConfigError> {
    each_once(setting, MAX_HEAL_FROM, "cache", address)
}

pub(super) fn address(setting: &Setting) -> Result<Address, ConfigError> {
    Address::parse(setting.text()?).map_err(|_| {
        setting
            .refuse("the address of a cache is expected, http://HOST[:PORT] or https://HOST[:PORT]")
    })
}

/// A list of at most so many `what`s, none of them twice.
pub(super) fn each_once<T: PartialEq>(
    setting: &Setting,
    most: usize,
    what: &str,
    read: impl Fn(&Setting) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let mut all = Vec::new();
    for item in setting.list()? {
        let one = read(&item)?;
        if all.contains(&one) {
            return Err(item.refuse(format!("the same {what} stands here twice")));
        }
        all.push(one);
    }
    if all.len() > most {
        return Err(setting.refuse(format!("at most {most} {what}s are expected")));
    }
    Ok(all)
}

fn signing_key(setting: &Setting, places: &Places<'_>) -> Result<SigningKey, ConfigError> {
    match setting.text()? {
        "generated" => Ok(SigningKey::Generated),
        _ => setting.path(places.base, places.home).map(SigningKey::File),
    }
}
