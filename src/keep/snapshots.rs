//! Scheduled snapshots: made when they are due, and let go of by the rules of the cache.
//!
//! A snapshot is all of a dataset at one moment, as a power cut would leave it. Every state that a
//! power cut can leave of a bank is one in which each path that can be seen is whole (see
//! `bank::publish`), so a snapshot needs nobody to stop: what is in `pending/` and `uploads/` is simply
//! not shown by its view, and a commit that it cut in two shows the paths that had their names.
//!
//! When one is due is judged by the newest one there is, so that neither a restart nor two servers make
//! more than were asked for. Only what the schedule made is ever destroyed, and never what is held.

use std::time::Duration;

use jiff::Timestamp;

use super::retention::Retention;
use crate::zfs::maker::{MADE_BY, Maker};
use crate::zfs::snapshot::{self, SnapshotInfo};
use crate::zfs::{DatasetName, Snapshot, SnapshotName, Zfs, ZfsError};

/// The shortest time between two rounds: one that fails is not tried again at once.
const SOONEST: Duration = Duration::from_secs(5);
/// The longest: a clock may be set meanwhile.
const LATEST: Duration = Duration::from_secs(600);
/// How soon a round that failed is followed by the next.
const AFTER_A_FAILURE: Duration = Duration::from_secs(60);
/// How many snapshots are destroyed by one command.
const AT_ONCE: usize = 50;

/// Why a snapshot is not destroyed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// There is none.
    #[error("there is no snapshot {0}; `snowbank zfs snapshots ls` lists them")]
    NotThere(Snapshot),
    /// It is that of a release.
    #[error("{snapshot} is the release {release}: `snowbank release rm {release}` removes it")]
    OfRelease {
        /// The snapshot.
        snapshot: Snapshot,
        /// What the release is called.
        release: String,
    },
    /// Somebody holds it.
    #[error("{snapshot} is held by {}: `zfs release TAG {snapshot}` lets go of it", .tags.join(", "))]
    Held {
        /// The snapshot.
        snapshot: Snapshot,
        /// The tags of the holds.
        tags: Vec<String>,
    },
}

/// Makes a snapshot and notes at it who made it.
pub fn take(zfs: &Zfs, snapshot: &Snapshot, maker: &Maker) -> Result<(), ZfsError> {
    let maker = maker.to_string();
    zfs.run(&snapshot::create(std::slice::from_ref(snapshot), &[(MADE_BY, &maker)]))
}

/// The snapshots of a dataset, oldest first, each with who of us made it.
pub fn list(
    zfs: &Zfs,
    dataset: &DatasetName,
) -> Result<Vec<(SnapshotInfo, Option<Maker>)>, ZfsError> {
    let snapshots = zfs.snapshots(dataset, &[MADE_BY])?.into_iter();
    Ok(snapshots.map(|snapshot| (snapshot.clone(), Maker::of(&snapshot, 0))).collect())
}

/// Destroys a snapshot that nothing needs.
pub fn remove(zfs: &Zfs, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let (there, maker) = list(zfs, snapshot.dataset())?
        .into_iter()
        .find(|(there, _)| there.snapshot == *snapshot)
        .ok_or_else(|| SnapshotError::NotThere(snapshot.clone()))?;
    if let (Some(Maker::Release), Some(release)) = (maker, Maker::release_of(snapshot.name())) {
        let release = release.to_owned();
        return Err(SnapshotError::OfRelease { snapshot: snapshot.clone(), release });
    }
    if there.holds > 0 {
        let holds = zfs.holds(std::slice::from_ref(snapshot))?;
        let tags = holds.into_iter().map(|hold| hold.tag).collect();
        return Err(SnapshotError::Held { snapshot: snapshot.clone(), tags });
    }
    let name = std::slice::from_ref(snapshot.name());
    Ok(zfs.run(&snapshot::destroy(snapshot.dataset(), name))?)
}

/// What is done with one cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// The cache, for the log.
    pub cache: String,
    /// Its dataset.
    pub dataset: DatasetName,
    /// How often.
    pub every: Duration,
    /// Which stay.
    pub retention: Retention,
}

/// The schedule of all caches.
#[derive(Clone, Debug)]
pub struct Schedule {
    zfs: Zfs,
    caches: Vec<Scheduled>,
}

/// What became of one round.
#[derive(Debug)]
pub struct Round {
    /// Snapshots that were made.
    pub made: Vec<Snapshot>,
    /// Snapshots that no rule kept.
    pub destroyed: Vec<Snapshot>,
    /// What failed, by cache. The others had their turn all the same.
    pub failures: Vec<(String, ZfsError)>,
    /// How long until the next round.
    pub next: Duration,
}

impl Schedule {
    /// The schedule of caches that have one.
    pub fn new(zfs: Zfs, caches: Vec<Scheduled>) -> Self {
        Self { zfs, caches }
    }

    /// Whether there is nothing to do, ever.
    pub fn is_empty(&self) -> bool {
        self.caches.is_empty()
    }

    /// Makes the snapshots that are due at `now` and destroys those that no rule keeps. Blocks, for no
    /// longer than the deadlines of a few commands a cache.
    pub fn round(&self, now: Timestamp) -> Round {
        let mut round =
            Round { made: Vec::new(), destroyed: Vec::new(), failures: Vec::new(), next: LATEST };
        for scheduled in &self.caches {
            let next = self.turn(scheduled, now, &mut round).unwrap_or_else(|error| {
                round.failures.push((scheduled.cache.clone(), error));
                AFTER_A_FAILURE
            });
            round.next = round.next.min(next);
        }
        round.next = round.next.clamp(SOONEST, LATEST);
        round
    }

    fn turn(
        &self,
        scheduled: &Scheduled,
        now: Timestamp,
        round: &mut Round,
    ) -> Result<Duration, ZfsError> {
        let mut snapshots = self.ours(&scheduled.dataset)?;
        let wait = until_due(&snapshots, scheduled.every, now);
        if wait.is_zero() {
            let name = Maker::Schedule.name_at(now)?;
            let snapshot = scheduled.dataset.snapshot(&name)?;
            take(&self.zfs, &snapshot, &Maker::Schedule)?;
            round.made.push(snapshot);
            snapshots = self.ours(&scheduled.dataset)?;
        }
        for gone in expired(&snapshots, scheduled.retention).chunks(AT_ONCE) {
            self.zfs.run(&snapshot::destroy(&scheduled.dataset, gone))?;
            for name in gone {
                round.destroyed.push(scheduled.dataset.snapshot(name)?);
            }
        }
        Ok(if wait.is_zero() { scheduled.every } else { wait })
    }

    /// What the schedule made, oldest first.
    fn ours(&self, dataset: &DatasetName) -> Result<Vec<SnapshotInfo>, ZfsError> {
        let mut snapshots = self.zfs.snapshots(dataset, &[MADE_BY])?;
        snapshots.retain(|snapshot| Maker::of(snapshot, 0) == Some(Maker::Schedule));
        Ok(snapshots)
    }
}

/// How long until the next snapshot is due; nothing if it is. One from a clock that was a little ahead
/// is taken for one of now; one of a time far off says nothing.
fn until_due(snapshots: &[SnapshotInfo], every: Duration, now: Timestamp) -> Duration {
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    let far_off = now.saturating_add(every.as_secs());
    let made = snapshots.iter().map(|snapshot| snapshot.creation).filter(|made| *made <= far_off);
    match made.max() {
        Some(newest) => every.saturating_sub(Duration::from_secs(now.saturating_sub(newest))),
        None => Duration::ZERO,
    }
}

/// The snapshots that no rule keeps and nobody holds. Those that are held count for their hour or day.
fn expired(snapshots: &[SnapshotInfo], retention: Retention) -> Vec<SnapshotName> {
    let judged: Vec<_> = snapshots
        .iter()
        .map(|snapshot| (i64::try_from(snapshot.creation).unwrap_or(i64::MAX), snapshot))
        .collect();
    let gone = retention.expired(&judged).into_iter().filter(|snapshot| snapshot.holds == 0);
    gone.map(|snapshot| snapshot.snapshot.name().clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zfs::testing::Fake;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn info(name: &str, creation: &str, holds: u64) -> SnapshotInfo {
        SnapshotInfo {
            snapshot: format!("tank/a@{name}").parse().unwrap(),
            guid: 1,
            createtxg: 1,
            creation: u64::try_from(at(creation).as_second()).unwrap(),
            used: 0,
            referenced: 0,
            written: 0,
            holds,
            properties: vec![Some("schedule".into())],
        }
    }

    /// A `zfs` that keeps snapshots as lines of a file and notes what it was told.
    fn fake(lines: &str) -> Fake {
        let fake = Fake::new(
            "directory=${0%/*}; echo \"$*\" >> \"$directory/log\"\n\
             case $1 in\n\
             holds) printf 'tank/a@held\\tmine\\tnow\\n' ;;\n\
             list) cat \"$directory/snapshots\" 2> /dev/null; exit 0 ;;\n\
             snapshot) for last; do :; done; case $last in tank/bad@*) echo no >&2; exit 1 ;; esac\n\
             printf '%s\\t1\\t1\\t1764110700\\t0\\t0\\t0\\t0\\tschedule\\n' \"$last\" \
             >> \"$directory/snapshots\" ;;\n\
             esac",
        );
        std::fs::write(fake.path("snapshots"), lines).unwrap();
        fake
    }

    fn scheduled(dataset: &str, retention: Retention) -> Scheduled {
        let (every, dataset) = (Duration::from_secs(3600), dataset.parse().unwrap());
        Scheduled { cache: "default".into(), dataset, every, retention }
    }

    #[test]
    fn the_first_is_due_at_once_and_the_next_a_whole_time_after_the_newest() {
        let now = at("2026-03-01T10:00:00Z");
        let hour = Duration::from_secs(3600);
        assert_eq!(until_due(&[], hour, now), Duration::ZERO);
        let snapshots =
            [info("auto-1", "2026-03-01T08:00:00Z", 0), info("auto-2", "2026-03-01T09:20:00Z", 0)];
        assert_eq!(until_due(&snapshots, hour, now), Duration::from_secs(20 * 60));
        assert_eq!(until_due(&snapshots[..1], hour, now), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_was_ahead_neither_stops_the_schedule_nor_makes_it_run_wild() {
        let hour = Duration::from_secs(3600);
        let ahead = info("auto-1", "2036-01-01T00:00:00Z", 0);
        let now = at("2026-03-01T10:00:00Z");
        assert_eq!(until_due(std::slice::from_ref(&ahead), hour, now), Duration::ZERO);
        let snapshots = [ahead, info("auto-2", "2026-03-01T10:00:00Z", 0)];
        assert_eq!(until_due(&snapshots, hour, now), hour);
        // A few seconds are no other time.
        assert_eq!(until_due(&snapshots[1..], hour, at("2026-03-01T09:59:55Z")), hour);
    }

    #[test]
    fn what_is_held_stays_and_stands_for_its_day() {
        let daily = Retention { daily: 2, ..Retention::default() };
        let snapshots = [
            info("auto-1", "2026-03-01T10:00:00Z", 0),
            info("auto-2", "2026-03-02T10:00:00Z", 1),
            info("auto-3", "2026-03-03T10:00:00Z", 0),
            info("auto-4", "2026-03-04T10:00:00Z", 0),
        ];
        let gone: Vec<_> = expired(&snapshots, daily).iter().map(ToString::to_string).collect();
        assert_eq!(gone, ["auto-1"]);
    }

    #[test]
    fn a_round_makes_what_is_due_and_destroys_only_what_the_schedule_made() {
        let line = |name: &str, creation: u64, by: &str| {
            format!("tank/a@{name}\t1\t1\t{creation}\t0\t0\t0\t0\t{by}\n")
        };
        let fake = fake(
            &[
                line("auto-old", 1_764_000_000, "schedule"),
                line("auto-foreign", 1_764_000_001, "-"),
                line("manual-1", 1_764_000_002, "manual"),
                line("auto-older", 1_763_000_000, "schedule"),
            ]
            .concat(),
        );
        let one = Retention { last: 1, ..Retention::default() };
        let schedule = Schedule::new(fake.zfs.clone(), vec![scheduled("tank/a", one)]);
        let round = schedule.round(at("2025-11-25T22:45:00Z"));
        assert!(round.failures.is_empty(), "{:?}", round.failures);
        assert_eq!(round.made, ["tank/a@auto-20251125T224500Z".parse().unwrap()]);
        let log = std::fs::read_to_string(fake.path("log")).unwrap();
        let changes: Vec<_> = log.lines().filter(|line| !line.starts_with("list")).collect();
        assert_eq!(
            changes,
            [
                "snapshot -o snowbank:made-by=schedule tank/a@auto-20251125T224500Z",
                "destroy tank/a@auto-old,auto-older"
            ]
        );
        assert_eq!(round.destroyed.len(), 2);
        assert_eq!(round.next, LATEST);
    }

    #[test]
    fn by_hand_only_what_nothing_needs_is_destroyed() {
        let line = |name: &str, holds: u64, by: &str| {
            format!("tank/a@{name}\t1\t1\t1764000000\t0\t0\t0\t{holds}\t{by}\n")
        };
        let lines = [
            line("release-1.0", 1, "release"),
            line("held", 1, "manual"),
            line("release-mine", 0, "manual"),
        ];
        let fake = fake(&lines.concat());
        let removed = |name: &str| {
            let snapshot: Snapshot = format!("tank/a@{name}").parse().unwrap();
            remove(&fake.zfs, &snapshot).map_err(|error| error.to_string())
        };
        assert!(removed("release-1.0").unwrap_err().contains("snowbank release rm 1.0"));
        assert!(removed("none").unwrap_err().contains("there is no snapshot tank/a@none"));
        assert!(removed("held").unwrap_err().contains("is held by mine"));
        removed("release-mine").unwrap();
        assert!(
            std::fs::read_to_string(fake.path("log"))
                .unwrap()
                .contains("destroy tank/a@release-mine")
        );
    }

    #[test]
    fn after_a_restart_nothing_more_is_made_than_is_due() {
        let fake = fake("tank/a@auto-1\t1\t1\t1764110700\t0\t0\t0\t0\tschedule\n");
        let caches = vec![scheduled("tank/a", Retention::default())];
        for _ in 0..3 {
            let schedule = Schedule::new(fake.zfs.clone(), caches.clone());
            // A quarter of an hour after it was made.
            let round = schedule.round(at("2025-11-25T23:00:00Z"));
            assert!(round.made.is_empty() && round.failures.is_empty(), "{round:?}");
        }
    }

    #[test]
    fn a_cache_that_fails_does_not_keep_the_others_from_their_turn() {
        let fake = fake("");
        let keep = Retention::default();
        let caches = vec![scheduled("tank/bad", keep), scheduled("tank/a", keep)];
        let round = Schedule::new(fake.zfs.clone(), caches).round(at("2025-11-25T22:45:00Z"));
        assert_eq!((round.made.len(), round.failures.len()), (1, 1));
        assert_eq!(round.next, AFTER_A_FAILURE);
        assert!(round.failures[0].1.to_string().contains("tank/bad@auto"), "{round:?}");
    }
}
