//! What is wrong with a cache and what it lies on, in words for `health`, for the log and for `doctor`.

use std::fmt;

use super::report::{PoolReport, Report};
use crate::keep::probe::Pulse;
use crate::zfs::dataset::Dataset;
use crate::zfs::pool::Health;

/// A dataset with less than one part in this many of its size left is nearly full.
const NEARLY_FULL: u64 = 20;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// All is served, and somebody should look.
    Degraded,
    /// Something is not served, or cannot be pushed.
    Unavailable,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How bad it is.
    pub severity: Severity,
    /// The cache, by its name.
    pub cache: String,
    /// The dataset that it lies on, where it lies on one.
    pub dataset: Option<String>,
    /// What is wrong, and what to do about it; no path of the disk.
    pub what: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cache {}", self.cache)?;
        if let Some(dataset) = &self.dataset {
            write!(formatter, " (dataset {dataset})")?;
        }
        write!(formatter, ": {}", self.what)
    }
}

/// What is wrong with a cache, by the pulse of its disks, the state of its pool as the kernel has it
/// now, and the last look at ZFS.
pub fn judge(
    cache: &str,
    pulse: Option<&Pulse>,
    kernel: Option<Health>,
    report: &Report,
) -> Vec<Trouble> {
    let dataset = report.caches.get(cache).map(ToString::to_string);
    let mut found = Vec::new();
    let mut add = |severity, what: String| {
        found.push(Trouble { severity, cache: cache.into(), dataset: dataset.clone(), what });
    };
    let of_cache = report.of_cache(cache);
    if let Some((severity, what)) = pulse.and_then(of_pulse) {
        add(severity, what);
    }
    let pool = report.caches.get(cache).map(|dataset| dataset.pool());
    // Of a suspended pool only the pool itself is listed.
    let listed = pool.as_ref().and_then(|pool| Some(report.pools.get(pool)?.pool.health));
    if let (Some(pool), Some(health)) = (pool, kernel.or(listed))
        && let Some(severity) = of_health(health)
    {
        add(
            severity,
            format!("pool {pool} is {}; `zpool status {pool}` says why", health.as_str()),
        );
    }
    if let Some((dataset, pool)) = of_cache {
        if pulse == Some(&Pulse::Full) || is_nearly_full(dataset) {
            add(Severity::Degraded, room(dataset));
        }
        if let Some(what) = pool.and_then(data_errors) {
            add(Severity::Degraded, what);
        }
    }
    found
}

fn of_pulse(pulse: &Pulse) -> Option<(Severity, String)> {
    Some(match pulse {
        Pulse::Well => return None,
        Pulse::Full => {
            (Severity::Degraded, "there is no room in it: pushes are answered with 507".into())
        }
        Pulse::ReadOnly => (
            Severity::Unavailable,
            "its file system is read-only, so that nothing can be pushed".into(),
        ),
        Pulse::Away => (Severity::Unavailable, "it is not there: is its dataset mounted?".into()),
        Pulse::Failing(why) => (Severity::Unavailable, format!("writing fails: {why}")),
        Pulse::Stuck(waited) => (
            Severity::Unavailable,
            format!("its disks have not answered for {} s", waited.as_secs()),
        ),
    })
}

/// How bad it is that a pool is in a state; `None` where it is not.
fn of_health(health: Health) -> Option<Severity> {
    match health {
        Health::Online => None,
        Health::Degraded => Some(Severity::Degraded),
        _ => Some(Severity::Unavailable),
    }
}

fn is_nearly_full(dataset: &Dataset) -> bool {
    dataset.available < dataset.used.saturating_add(dataset.available) / NEARLY_FULL
}

fn room(dataset: &Dataset) -> String {
    let limit = match dataset.quota {
        Some(quota) => format!("its quota is {quota}"),
        None => "it has no quota of its own".into(),
    };
    format!(
        "{} bytes are used and {} left, {limit}, and only snapshots hold {}",
        dataset.used, dataset.available, dataset.used_by_snapshots
    )
}

fn data_errors(found: &PoolReport) -> Option<String> {
    let count = found.status.as_ref()?.error_count.filter(|count| *count > 0)?;
    let pool = &found.pool.name;
    Some(format!("pool {pool} has {count} data errors; `zpool status -v {pool}` names the files"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::zfs::DatasetName;

    fn on_tank() -> Report {
        let dataset = DatasetName::parse("tank/snowbank/team").unwrap();
        Report { caches: [("team".to_owned(), dataset)].into(), ..Report::default() }
    }

    fn said(pulse: Pulse, kernel: Option<Health>) -> Vec<(Severity, String)> {
        let found = judge("team", Some(&pulse), kernel, &on_tank());
        found.into_iter().map(|trouble| (trouble.severity, trouble.to_string())).collect()
    }

    #[test]
    fn all_is_well_where_nothing_is_wrong_and_where_nothing_is_known() {
        assert_eq!(said(Pulse::Well, Some(Health::Online)), []);
        assert_eq!(judge("team", None, None, &Report::default()), []);
    }

    #[test]
    fn a_degraded_pool_is_told_and_a_suspended_one_is_unavailable() {
        let degraded = said(Pulse::Well, Some(Health::Degraded));
        assert_eq!(degraded[0].0, Severity::Degraded);
        assert!(
            degraded[0]
                .1
                .starts_with("cache team (dataset tank/snowbank/team): pool tank is DEGRADED")
        );
        let suspended = said(Pulse::Stuck(Duration::from_secs(9)), Some(Health::Suspended));
        assert_eq!(suspended.len(), 2, "{suspended:?}");
        assert!(suspended.iter().all(|(severity, _)| *severity == Severity::Unavailable));
    }

    #[test]
    fn a_full_file_system_still_serves_and_a_read_only_one_takes_no_pushes() {
        assert_eq!(said(Pulse::Full, None)[0].0, Severity::Degraded);
        assert_eq!(said(Pulse::ReadOnly, None)[0].0, Severity::Unavailable);
    }
}
