//! Where clients find what this server serves.

use super::url_for_clients;
use crate::config::{Config, DEFAULT_CACHE};
use crate::zfs::SnapshotName;

/// Where the view of a cache at a snapshot is: a URL if the server listens on an address, else the path
/// of one.
pub fn view(config: &Config, cache: &str, snapshot: &SnapshotName) -> String {
    let server = config.listen.iter().find_map(url_for_clients).unwrap_or_default();
    match cache {
        DEFAULT_CACHE => format!("{server}/@{snapshot}/"),
        _ => format!("{server}/c/{cache}/@{snapshot}/"),
    }
}
