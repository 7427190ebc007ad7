//! `snowbank zfs status`

use clap::Args;
use indicatif::BinaryBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::app::zfs_status::{Drifted, ZfsStatus, fixes, look};
use crate::cli::CommandError;
use crate::cli::output::{print, table};
use crate::cli::place::PlaceArguments;
use crate::zfs::Zfs;

/// Shows each cache with its dataset and pool, and what is not as the property table wants it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank zfs status
  snowbank zfs status --json
  snowbank zfs status --fix           # sets what drifted; takes root for most properties

PINNED is what would come back if all snapshots of the cache went. It ends with 1 where there is no ZFS, or no
cache lies on it.")]
pub(super) struct StatusArguments {
    /// Set what drifted, and show each command
    #[arg(long)]
    fix: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

pub(super) fn run(arguments: &StatusArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let zfs = Zfs::find()?;
    let mut status = look(&zfs, &config)?;
    if arguments.fix {
        for command in fixes(&status.drifts) {
            eprintln!("{command}");
            zfs.run(&command)?;
        }
        status = look(&zfs, &config)?;
    }
    if status.report.caches.is_empty() {
        let names: Vec<_> = config.caches.iter().map(|cache| cache.name.as_str()).collect();
        return Err(CommandError::NoDataset(names.join(", ")));
    }
    let now = Timestamp::now().as_second();
    print(&match arguments.json {
        true => describe(&status, now).to_string() + "\n",
        false => rows(&status, now) + &drift_lines(&status.drifts),
    });
    Ok(())
}

fn rows(status: &ZfsStatus, now: i64) -> String {
    let report = &status.report;
    let head = [
        "CACHE",
        "DATASET",
        "USED",
        "LOGICAL",
        "RATIO",
        "QUOTA",
        "AVAILABLE",
        "SNAPSHOTS",
        "PINNED",
        "POOL",
        "SCRUB",
        "DRIFT",
    ];
    let rows = report.caches.iter().map(|(cache, name)| {
        let bytes = |bytes| BinaryBytes(bytes).to_string();
        let missing = || "-".to_owned();
        let dataset = report.datasets.get(name);
        let of = |value: &dyn Fn(&crate::zfs::dataset::Dataset) -> String| {
            dataset.map_or_else(missing, value)
        };
        let pool = report.pools.get(&name.pool());
        let drifts = status.drifts.iter().filter(|drifted| drifted.dataset == *name).count();
        let snapshots = status.snapshots.get(name);
        [
            cache.clone(),
            if dataset.is_some() { name.to_string() } else { format!("{name} (missing)") },
            of(&|dataset| bytes(dataset.used)),
            of(&|dataset| bytes(dataset.logical_used)),
            of(&|dataset| dataset.compress_ratio.to_string()),
            of(&|dataset| dataset.quota.map_or_else(|| "none".into(), bytes)),
            of(&|dataset| bytes(dataset.available)),
            snapshots.map_or_else(missing, ToString::to_string),
            of(&|dataset| bytes(dataset.used_by_snapshots)),
            pool.map_or_else(missing, |pool| pool.pool.health.as_str().to_owned()),
            pool.map_or_else(missing, |pool| age(pool.scrub_age(now))),
            match drifts {
                0 if snapshots.is_some() => "none".into(),
                0 => missing(),
                count => count.to_string(),
            },
        ]
    });
    table(&std::iter::once(head.map(String::from)).chain(rows).collect::<Vec<_>>())
}

/// How long ago the last scrub ended.
fn age(seconds: Option<i64>) -> String {
    match seconds {
        None => "never".into(),
        Some(seconds @ ..172_800) => format!("{}h", seconds / 3600),
        Some(seconds) => format!("{}d", seconds / 86_400),
    }
}

fn drift_lines(drifts: &[Drifted]) -> String {
    let line = |drifted: &Drifted| {
        let Drifted { dataset, property, found, wanted, reason, .. } = drifted;
        let how = if drifted.fixable {
            "--fix sets it"
        } else {
            "it takes a new dataset, or a new mount"
        };
        format!("{dataset}: {property}={found} and not {wanted} ({reason}); {how}\n")
    };
    let lines: String = drifts.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

fn describe(status: &ZfsStatus, now: i64) -> Value {
    let report = &status.report;
    let caches = report.caches.iter().map(|(cache, name)| {
        let dataset = report.datasets.get(name);
        let pool = report.pools.get(&name.pool());
        json!({
            "cache": cache,
            "dataset": name.as_str(),
            "there": dataset.is_some(),
            "mounted": dataset.map(|dataset| dataset.mounted),
            "used_bytes": dataset.map(|dataset| dataset.used),
            "logical_used_bytes": dataset.map(|dataset| dataset.logical_used),
            "compress_ratio": dataset.map(|dataset| dataset.compress_ratio.as_f64()),
            "quota_bytes": dataset.and_then(|dataset| dataset.quota),
            "available_bytes": dataset.map(|dataset| dataset.available),
            "snapshots": status.snapshots.get(name),
            "used_by_snapshots_bytes": dataset.map(|dataset| dataset.used_by_snapshots),
            "pool": pool.map(|pool| json!({
                "name": pool.pool.name.as_str(),
                "health": pool.pool.health.as_str(),
                "data_errors": pool.status.as_ref().and_then(|status| status.error_count),
                "scrub_age_seconds": pool.scrub_age(now),
            })),
        })
    });
    let drifts = status.drifts.iter().map(|drifted| {
        json!({
            "dataset": drifted.dataset.as_str(),
            "property": drifted.property,
            "found": drifted.found,
            "wanted": drifted.wanted,
            "reason": drifted.reason,
            "fixable": drifted.fixable,
        })
    });
    json!({
        "caches": caches.collect::<Vec<_>>(),
        "drifts": drifts.collect::<Vec<_>>(),
        "failure": report.failure,
    })
}
