//! What this server is, for the page at `/`: its version, those of the libraries that read what others send, and
//! what its limits are.

use indicatif::{HumanBytes, HumanCount};

use crate::config::Config;
use crate::index::state::sqlite_version;

/// Names and values, as people read them.
pub(super) fn about(config: &Config) -> Vec<(&'static str, String)> {
    let limits = &config.limits;
    let count = |count: usize| HumanCount(count as u64).to_string();
    let bytes = |bytes: u64| HumanBytes(bytes).to_string();
    vec![
        ("Snowbank", env!("CARGO_PKG_VERSION").to_owned()),
        ("zstd", zstd::zstd_safe::version_string().to_owned()),
        ("SQLite", sqlite_version().to_owned()),
        ("Connections at once", count(limits.connections)),
        ("… from one address", count(limits.connections_per_ip)),
        ("A request's head may take", format!("{:?}", limits.head_timeout)),
        ("A body may pause for", format!("{:?}", limits.body_timeout)),
        ("Uploads at once", count(limits.uploads)),
        ("… of one client", count(limits.uploads_per_client)),
        ("The largest NAR", bytes(limits.max_nar_size)),
        ("Memory for narinfos of a cache", bytes(limits.narinfo_cache_bytes)),
        ("What was pushed and not published goes after", format!("{:?}", limits.pending_age)),
    ]
}
