//! What `[cache.<name>]` says of the caches that are asked for what it does not have.

use std::time::Duration;

use toml::Value;

use super::caches::{Places, address, each_once, public_keys};
use super::check::Section;
use super::checked::{CacheConfig, Source, UpstreamConfig};
use super::error::ConfigError;
use super::raw::RawCache;
use super::setting::Setting;

/// The most caches that one cache asks, peers and upstreams each.
const MAX_UPSTREAMS: usize = 16;
const EXPECTED: &str = "an address in quotes is expected, or a table { url = \"https://…\", keys = [\"name:base64\"], \
                        token_file = \"…\" }";
const NO_BANK: &str =
    "what is fetched is kept in the cache's own bank, and sources has none: add \"bank\"";

pub(super) fn check(
    section: &Section<'_>,
    raw: &RawCache,
    places: &Places<'_>,
    cache: &mut CacheConfig,
) -> Result<(), ConfigError> {
    let read = |setting: &Setting| {
        each_once(setting, MAX_UPSTREAMS, "cache", |item| upstream(item, places))
    };
    section.set("peers", &raw.peers, &mut cache.peers, read)?;
    section.set("upstreams", &raw.upstreams, &mut cache.upstreams, read)?;
    for (name, value) in [("peers", &raw.peers), ("upstreams", &raw.upstreams)] {
        if let Some(setting) = section.get(name, value)
            && !cache.sources.contains(&Source::Bank)
        {
            return Err(setting.refuse(NO_BANK));
        }
    }
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(60));
    let deadline = &mut cache.pulling.deadline;
    section.set("upstream_deadline", &raw.upstream_deadline, deadline, |setting| {
        setting.duration(least..=most)
    })?;
    let misses_kept = &mut cache.pulling.misses_kept;
    section.set("upstream_misses_kept", &raw.upstream_misses_kept, misses_kept, |setting| {
        setting.duration(Duration::ZERO..=Duration::from_secs(3600))
    })
}

fn upstream(setting: &Setting, places: &Places<'_>) -> Result<UpstreamConfig, ConfigError> {
    let Value::Table(table) = setting.value() else {
        let address = if setting.value().is_str() {
            address(setting)?
        } else {
            return Err(setting.refuse(EXPECTED));
        };
        return Ok(UpstreamConfig { address, keys: Vec::new(), token_file: None });
    };
    if let Some(unknown) =
        table.keys().find(|key| !["url", "keys", "token_file"].contains(&key.as_str()))
    {
        return Err(setting.inner(unknown, &table[unknown]).refuse(EXPECTED));
    }
    let inner = |name: &str| table.get(name).map(|value| setting.inner(name, value));
    let Some(url) = inner("url") else { return Err(setting.refuse(EXPECTED)) };
    Ok(UpstreamConfig {
        address: address(&url)?,
        keys: inner("keys").map(|keys| public_keys(&keys)).transpose()?.unwrap_or_default(),
        token_file: inner("token_file")
            .map(|file| file.path(places.base, places.home))
            .transpose()?,
    })
}
