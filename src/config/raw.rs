//! The shape of the file, with no meaning yet.
//!
//! Leaves are plain TOML values on purpose: a wrong type is then reported by the same code as a wrong
//! value (`setting.rs`), in one line that names the key, the value and what is allowed, where serde
//! would speak of Rust types. What serde does here is to hold the list of known keys (`keys.rs`
//! reads it back) and to refuse any other.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Value;

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub(super) data_dir: Option<Value>,
    pub(super) listen: Option<Value>,
    pub(super) socket_mode: Option<Value>,
    /// `"auto"`, `"none"`, a directory, or the table `RawStore`.
    pub(super) store: Option<Value>,
    pub(super) landing_page: Option<Value>,
    pub(super) status_for: Option<Value>,
    pub(super) cache: BTreeMap<String, RawCache>,
    pub(super) tls: RawTls,
    pub(super) client: BTreeMap<String, RawClient>,
    pub(super) zfs: RawZfs,
    pub(super) bake: RawBake,
    pub(super) limits: RawLimits,
    pub(super) log: RawLog,
}

/// `store = { … }` or `[store]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawStore {
    pub(super) root: Option<Value>,
    pub(super) store_dir: Option<Value>,
    pub(super) state_dir: Option<Value>,
    pub(super) log_dir: Option<Value>,
}

/// `[cache.<name>]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCache {
    pub(super) priority: Option<Value>,
    pub(super) want_mass_query: Option<Value>,
    pub(super) sources: Option<Value>,
    pub(super) signing_keys: Option<Value>,
    pub(super) directory: Option<Value>,
    pub(super) parts: Option<Value>,
    pub(super) peers: Option<Value>,
    pub(super) upstreams: Option<Value>,
    pub(super) upstream_deadline: Option<Value>,
    pub(super) upstream_misses_kept: Option<Value>,
    pub(super) heal_from: Option<Value>,
    pub(super) push: Option<Value>,
    pub(super) push_open_to_network: Option<Value>,
    pub(super) pull: Option<Value>,
    pub(super) accept: Option<Value>,
    pub(super) trusted_keys: Option<Value>,
    pub(super) upstream_keys: Option<Value>,
    pub(super) max_size: Option<Value>,
    pub(super) collect_every: Option<Value>,
    pub(super) keep_unused: Option<Value>,
    pub(super) keep_at_least: Option<Value>,
    pub(super) collect_above: Option<Value>,
    pub(super) collect_to: Option<Value>,
    pub(super) keep_free: Option<Value>,
    pub(super) verify_every: Option<Value>,
    pub(super) snapshot_every: Option<Value>,
    pub(super) snapshot_keep: Option<Value>,
}

/// `[tls]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTls {
    pub(super) certificate_from: Option<Value>,
    pub(super) certificate: Option<Value>,
    pub(super) key: Option<Value>,
    pub(super) names: Option<Value>,
    pub(super) ca_certificate: Option<Value>,
    pub(super) ca_key: Option<Value>,
    pub(super) acme_directory: Option<Value>,
    pub(super) acme_contact: Option<Value>,
    pub(super) acme_ca: Option<Value>,
    pub(super) client_ca: Option<Value>,
    pub(super) client_crl: Option<Value>,
}

/// `[client.<name>]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawClient {
    pub(super) names: Option<Value>,
    pub(super) scopes: Option<Value>,
    pub(super) caches: Option<Value>,
}

/// `[zfs]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawZfs {
    pub(super) dataset: Option<Value>,
    pub(super) interval: Option<Value>,
    pub(super) probe_every: Option<Value>,
    pub(super) probe_timeout: Option<Value>,
}

/// `[bake]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawBake {
    pub(super) enabled: Option<Value>,
    pub(super) level: Option<Value>,
    pub(super) max_size: Option<Value>,
    pub(super) first_read: Option<Value>,
}

/// `[limits]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub(super) connections: Option<Value>,
    pub(super) connections_per_ip: Option<Value>,
    pub(super) head_timeout: Option<Value>,
    pub(super) idle_timeout: Option<Value>,
    pub(super) body_timeout: Option<Value>,
    pub(super) stall_timeout: Option<Value>,
    pub(super) drain_timeout: Option<Value>,
    pub(super) blocking_threads: Option<Value>,
    pub(super) narinfo_cache_bytes: Option<Value>,
    pub(super) sqlite_deadline: Option<Value>,
    pub(super) max_nar_size: Option<Value>,
    pub(super) max_nar_depth: Option<Value>,
    pub(super) max_nar_entries: Option<Value>,
    pub(super) max_listing_entries: Option<Value>,
    pub(super) max_ratio: Option<Value>,
    pub(super) decoder_memory: Option<Value>,
    pub(super) uploads: Option<Value>,
    pub(super) uploads_per_client: Option<Value>,
    pub(super) pending_age: Option<Value>,
}

/// `[log]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) format: Option<Value>,
    pub(super) level: Option<Value>,
    pub(super) requests: Option<Value>,
}
