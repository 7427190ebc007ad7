//! Has the snapshots made that the configuration asks for.

use std::time::Duration;

use jiff::Timestamp;

use super::datasets::scheduled;
use crate::config::Config;
use crate::keep::snapshots::{Round, Schedule, Scheduled};
use crate::zfs::{Zfs, ZfsError};

/// How soon ZFS is looked for again where it is not there.
const WITHOUT_ZFS: Duration = Duration::from_secs(600);

/// Makes and lets go of snapshots, for ever.
pub(super) async fn keep_snapshotting(config: &Config) {
    let caches = scheduled(config);
    if caches.is_empty() {
        return std::future::pending().await;
    }
    loop {
        let caches = caches.clone();
        let round = tokio::task::spawn_blocking(move || round(caches)).await;
        let pause = match round {
            Ok(Ok(round)) => tell(&round),
            Ok(Err(error)) => {
                tracing::error!("no snapshots are made: {error}");
                WITHOUT_ZFS
            }
            Err(error) => {
                tracing::error!("a round of snapshots failed: {error}");
                WITHOUT_ZFS
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn round(caches: Vec<Scheduled>) -> Result<Round, ZfsError> {
    Ok(Schedule::new(Zfs::find()?, caches).round(Timestamp::now()))
}

/// Says what became of a round, and how long until the next.
fn tell(round: &Round) -> Duration {
    for snapshot in &round.made {
        tracing::info!("snapshot {snapshot} was made");
    }
    for snapshot in &round.destroyed {
        tracing::info!("snapshot {snapshot} was let go of");
    }
    for (cache, error) in &round.failures {
        tracing::error!(cache, "its snapshots are not as they should be: {error}");
    }
    round.next
}
