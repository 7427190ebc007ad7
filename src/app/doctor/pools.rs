//! ZFS: versions, datasets, pools, and what the service user may do.

use std::os::unix::fs::MetadataExt as _;

use super::Finding;
use crate::app::zfs_status::{self, ZfsStatus};
use crate::config::Config;
use crate::index::state::STATE_DIRECTORY;
use crate::keep::watch::{Severity, judge};
use crate::zfs::account::Account;
use crate::zfs::layout::rights;
use crate::zfs::name::UserName;
use crate::zfs::{Zfs, ZfsError};

/// A pool that was not scrubbed for so many days may hold what cannot be read any more.
const SCRUB_DAYS: i64 = 35;
const DAY: i64 = 86_400;

pub(super) fn examine(config: &Config, now: i64) -> Vec<Finding> {
    let zfs = match Zfs::find() {
        Ok(zfs) => zfs,
        Err(error) if config.zfs.dataset.is_some() => {
            return vec![Finding::problem("ZFS, which the configuration needs", error.to_string())];
        }
        Err(error) => return vec![Finding::ok(format!("no ZFS, and none is needed ({error})"))],
    };
    let mut findings = vec![versions(&zfs)];
    match zfs_status::look(&zfs, config) {
        Ok(status) => {
            findings.extend(of_status(&status, now));
            let parent = config.zfs.dataset.as_ref();
            if parent.is_some_and(|parent| status.report.gives_nothing(&parent.pool())) {
                return findings;
            }
        }
        Err(error) => findings.push(Finding::problem("ZFS", error.to_string())),
    }
    match delegation(&zfs, config) {
        Ok(found) => findings.extend(found),
        Err(error) => findings.push(Finding::problem("delegated rights", error.to_string())),
    }
    findings
}

fn versions(zfs: &Zfs) -> Finding {
    match zfs.versions() {
        Ok(versions) if versions.userland == versions.kernel => {
            Finding::ok(format!("OpenZFS {}", versions.kernel))
        }
        Ok(versions) => Finding::warning(
            format!("OpenZFS {} with the kernel module of {}", versions.userland, versions.kernel),
            "reboot after an upgrade",
        ),
        Err(error) => Finding::problem("OpenZFS", error.to_string()),
    }
}

fn of_status(status: &ZfsStatus, now: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let report = &status.report;
    if let Some(failure) = &report.failure {
        findings.push(Finding::problem("ZFS", failure.clone()));
    }
    for (cache, dataset) in &report.caches {
        let troubles = judge(cache, None, None, report);
        for trouble in &troubles {
            let what = trouble.to_string();
            let remedy = "see `snowbank zfs status`";
            findings.push(match trouble.severity {
                Severity::Degraded => Finding::warning(what, remedy),
                Severity::Unavailable => Finding::problem(what, remedy),
            });
        }
        if report.gives_nothing(&dataset.pool()) {
            continue;
        }
        if !report.datasets.contains_key(dataset) {
            findings.push(Finding::problem(
                format!("cache {cache}: there is no dataset {dataset}"),
                "`snowbank zfs init` as root makes it",
            ));
        } else if troubles.is_empty() {
            findings.push(Finding::ok(format!("cache {cache} lies on {dataset}")));
        }
    }
    for drifted in &status.drifts {
        findings.push(Finding::warning(
            format!("{}: {}={}", drifted.dataset, drifted.property, drifted.found),
            format!(
                "it should be {} ({}){}",
                drifted.wanted,
                drifted.reason,
                if drifted.fixable { "; `snowbank zfs status --fix`" } else { "" }
            ),
        ));
    }
    for (name, pool) in report.pools.iter().filter(|(name, _)| !report.gives_nothing(name)) {
        let what = format!("pool {name} is {}", pool.pool.health.as_str());
        findings.push(match pool.scrub_age(now).map(|age| age / DAY) {
            None => Finding::warning(
                format!("{what} and was never scrubbed"),
                format!("`zpool scrub {name}`, and have it done each month"),
            ),
            Some(days) if days > SCRUB_DAYS => Finding::warning(
                format!("{what} and was scrubbed {days} days ago"),
                format!("`zpool scrub {name}`, and have it done each month"),
            ),
            Some(days) => Finding::ok(format!("{what}, scrubbed {days} days ago")),
        });
    }
    findings
}

/// Whether whoever owns the state may do what the service does.
fn delegation(zfs: &Zfs, config: &Config) -> Result<Option<Finding>, ZfsError> {
    let Some(parent) = &config.zfs.dataset else { return Ok(None) };
    let state = config.data_dir.join(STATE_DIRECTORY);
    let uid = match std::fs::metadata(&state) {
        Ok(found) if found.uid() != 0 => found.uid(),
        _ => return Ok(None),
    };
    let user = UserName::parse(&uid.to_string())?;
    let name = Account::find(zfs, &user)?.map_or(user, |account| account.name);
    if zfs.find_dataset(parent)?.is_none() {
        return Ok(None);
    }
    let missing = zfs.missing_permissions(&name, &rights::names(), parent)?;
    Ok(Some(if missing.is_empty() {
        Finding::ok(format!("{name} may manage what is below {parent}"))
    } else {
        Finding::warning(
            format!("{name} may not {} below {parent}", missing.join(", ")),
            format!("`snowbank zfs init --user {name}` as root delegates it"),
        )
    }))
}
