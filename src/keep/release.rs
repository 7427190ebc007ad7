//! Releases: a state of a cache that stays, by name, until somebody removes it.
//!
//! A release is three things, made in this order and undone in the other one, each step such that what a
//! kill leaves is seen by `list` and taken away by `remove`:
//!
//! ```text
//! 1  the snapshot release-NAME, whose view serves the cache as it was
//! 2  a hold on it, so that nothing destroys the snapshot
//! 3  a pin of the paths, so that the live cache keeps them as well
//! ```

use super::snapshots::{list as list_snapshots, take};
use crate::index::state::{NewRevision, PinRecord, StateDb, StateError};
use crate::nix::store_path::StorePathHash;
use crate::zfs::maker::Maker;
use crate::zfs::snapshot::{self, SnapshotInfo};
use crate::zfs::{DatasetName, HoldTag, NameError, Snapshot, Zfs, ZfsError};

/// The tag of our hold.
pub const HOLD: &str = "snowbank-release";

/// A cache whose releases are meant.
pub struct Releases<'a> {
    /// ZFS.
    pub zfs: &'a Zfs,
    /// Where pins are.
    pub state: &'a StateDb,
    /// The name of the cache.
    pub cache: &'a str,
    /// Its dataset.
    pub dataset: &'a DatasetName,
}

/// A release, as far as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What it is called.
    pub name: String,
    /// Its snapshot; nothing where only the pin is left.
    pub snapshot: Option<SnapshotInfo>,
    /// Whether the snapshot is held.
    pub held: bool,
    /// Its pin; nothing where that is gone, with the state database for example.
    pub pin: Option<PinRecord>,
}

/// Why a release is not made, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// The name is too long, or has characters that a snapshot cannot have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The state database cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is one.
    #[error("the cache {cache} has a release {name} already; `snowbank release ls` lists them")]
    There {
        /// Whose.
        cache: String,
        /// What it is called.
        name: String,
    },
    /// There is none.
    #[error("the cache {cache} has no release {name}; `snowbank release ls` lists them")]
    NotThere {
        /// Whose it would be.
        cache: String,
        /// What it would be called.
        name: String,
    },
    /// A step failed, and what was done before it could not be undone.
    #[error(
        "{error}; and what had been done could not be undone ({undoing}): `snowbank release rm {name}`"
    )]
    HalfDone {
        /// What it is called.
        name: String,
        /// Why it was not made.
        error: Box<ReleaseError>,
        /// Why it was not undone.
        undoing: Box<ReleaseError>,
    },
}

impl Releases<'_> {
    /// Makes a release that pins `paths`, at `now` in seconds since 1970; all of it, or nothing.
    pub fn create(
        &self,
        name: &str,
        paths: &[StorePathHash],
        now: i64,
    ) -> Result<Snapshot, ReleaseError> {
        let snapshot = self.snapshot_of(name)?;
        if self.find(name)?.is_some() {
            return Err(ReleaseError::There { cache: self.cache.into(), name: name.into() });
        }
        take(self.zfs, &snapshot, &Maker::Release)?;
        let rest = || -> Result<(), ReleaseError> {
            self.zfs.run(&snapshot::hold(&tag()?, std::slice::from_ref(&snapshot)))?;
            let revision = NewRevision {
                cache: self.cache,
                name: snapshot.name().as_str(),
                paths,
                pinner: "snowbank release",
            };
            self.state.add_pin(revision, name, now)?;
            Ok(())
        };
        match rest() {
            Ok(()) => Ok(snapshot),
            Err(error) => Err(match self.remove(name) {
                Ok(()) => error,
                Err(undoing) => ReleaseError::HalfDone {
                    name: name.into(),
                    error: Box::new(error),
                    undoing: Box::new(undoing),
                },
            }),
        }
    }

    /// Removes what there is of a release.
    pub fn remove(&self, name: &str) -> Result<(), ReleaseError> {
        let release = self.find(name)?.ok_or_else(|| ReleaseError::NotThere {
            cache: self.cache.into(),
            name: name.into(),
        })?;
        let snapshot = self.snapshot_of(name)?;
        if release.held {
            self.zfs.run(&snapshot::release(&tag()?, std::slice::from_ref(&snapshot)))?;
        }
        if release.snapshot.is_some() {
            let name = std::slice::from_ref(snapshot.name());
            self.zfs.run(&snapshot::destroy(self.dataset, name))?;
        }
        self.state.remove_pin(self.cache, snapshot.name().as_str())?;
        Ok(())
    }

    /// The releases of the cache, oldest first; those of which only the pin is left come last.
    pub fn list(&self) -> Result<Vec<Release>, ReleaseError> {
        let mut pins = self.state.pins(self.cache)?;
        pins.retain(|pin| pin.release.is_some());
        let snapshots = list_snapshots(self.zfs, self.dataset)?;
        let ours = snapshots.into_iter().filter(|(_, maker)| *maker == Some(Maker::Release));
        let ours: Vec<SnapshotInfo> = ours.map(|(snapshot, _)| snapshot).collect();
        let names: Vec<Snapshot> = ours.iter().map(|there| there.snapshot.clone()).collect();
        let holds = self.zfs.holds(&names)?;
        let mut releases = Vec::new();
        for snapshot in ours {
            let Some(name) = Maker::release_of(snapshot.snapshot.name()) else { continue };
            let name = name.to_owned();
            let is_its = |pin: &PinRecord| pin.release.as_deref() == Some(&name);
            let pin = pins.iter().position(is_its).map(|index| pins.remove(index));
            let held =
                holds.iter().any(|hold| hold.snapshot == snapshot.snapshot && hold.tag == HOLD);
            releases.push(Release { name, snapshot: Some(snapshot), held, pin });
        }
        releases.extend(pins.into_iter().map(|pin| Release {
            name: pin.release.clone().unwrap_or_default(),
            snapshot: None,
            held: false,
            pin: Some(pin),
        }));
        Ok(releases)
    }

    fn find(&self, name: &str) -> Result<Option<Release>, ReleaseError> {
        Ok(self.list()?.into_iter().find(|release| release.name == name))
    }

    fn snapshot_of(&self, name: &str) -> Result<Snapshot, ReleaseError> {
        Ok(self.dataset.snapshot(&Maker::name_of_release(name)?)?)
    }
}

fn tag() -> Result<HoldTag, NameError> {
    HoldTag::parse(HOLD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zfs::testing::Fake;

    /// A `zfs` that keeps snapshots and holds as files, and refuses what `refuse` names.
    fn fake() -> Fake {
        Fake::new(
            "d=${0%/*}; echo \"$*\" >> \"$d/log\"\n\
             if [ \"$1\" = \"$(cat \"$d/refuse\" 2>/dev/null)\" ]; then echo no >&2; exit 1; fi\n\
             for last; do :; done\n\
             case $1 in\n\
             list) cat \"$d/snapshots\" 2>/dev/null; exit 0 ;;\n\
             holds) cat \"$d/holds\" 2>/dev/null; exit 0 ;;\n\
             snapshot) printf '%s\\t1\\t1\\t1764110700\\t0\\t0\\t0\\t0\\trelease\\n' \"$last\" > \"$d/snapshots\" ;;\n\
             hold) printf '%s\\tsnowbank-release\\tnow\\n' \"$last\" > \"$d/holds\" ;;\n\
             release) rm \"$d/holds\" ;;\n\
             destroy) rm \"$d/snapshots\" ;;\n\
             esac",
        )
    }

    struct Bed {
        fake: Fake,
        state: StateDb,
        dataset: DatasetName,
        _data: tempfile::TempDir,
    }

    impl Bed {
        fn new() -> Self {
            let data = tempfile::tempdir().unwrap();
            let state = StateDb::open(data.path()).unwrap();
            Self { fake: fake(), state, dataset: "tank/a".parse().unwrap(), _data: data }
        }

        fn releases(&self) -> Releases<'_> {
            Releases {
                zfs: &self.fake.zfs,
                state: &self.state,
                cache: "default",
                dataset: &self.dataset,
            }
        }

        fn refuse(&self, command: &str) {
            std::fs::write(self.fake.path("refuse"), command).unwrap();
        }

        fn changes(&self) -> Vec<String> {
            let log = std::fs::read_to_string(self.fake.path("log")).unwrap_or_default();
            let changes =
                log.lines().filter(|line| !line.starts_with("list") && !line.starts_with("holds"));
            changes.map(String::from).collect()
        }
    }

    fn hash() -> StorePathHash {
        StorePathHash::parse("7rjj86a50146dq4pd5h2fyvnnwxk9m0a").unwrap()
    }

    #[test]
    fn a_release_is_a_snapshot_a_hold_and_a_pin_and_is_removed_as_a_whole() {
        let bed = Bed::new();
        let releases = bed.releases();
        let snapshot = releases.create("1.0", &[hash()], 7).unwrap();
        assert_eq!(snapshot.to_string(), "tank/a@release-1.0");
        let listed = releases.list().unwrap();
        assert_eq!(listed.len(), 1);
        assert!(listed[0].held && listed[0].pin.as_ref().unwrap().paths == 1);
        assert_eq!(bed.state.pinned_paths("default").unwrap(), [hash()]);
        let again = releases.create("1.0", &[], 8).unwrap_err();
        assert!(matches!(again, ReleaseError::There { .. }), "{again}");

        releases.remove("1.0").unwrap();
        assert_eq!(releases.list().unwrap(), []);
        assert_eq!(
            bed.changes(),
            [
                "snapshot -o snowbank:made-by=release tank/a@release-1.0",
                "hold snowbank-release tank/a@release-1.0",
                "release snowbank-release tank/a@release-1.0",
                "destroy tank/a@release-1.0",
            ]
        );
        let gone = releases.remove("1.0").unwrap_err();
        assert!(matches!(gone, ReleaseError::NotThere { .. }), "{gone}");
    }

    #[test]
    fn each_step_is_undone_when_a_later_one_fails() {
        let bed = Bed::new();
        bed.refuse("hold");
        assert!(bed.releases().create("1.0", &[hash()], 7).is_err());
        assert_eq!(bed.releases().list().unwrap(), []);
        assert_eq!(bed.changes().last().unwrap(), "destroy tank/a@release-1.0");
    }

    #[test]
    fn what_a_kill_left_is_seen_and_removed() {
        let bed = Bed::new();
        bed.releases().create("1.0", &[hash()], 7).unwrap();
        bed.refuse("destroy");
        assert!(bed.releases().remove("1.0").is_err());
        let left = bed.releases().list().unwrap();
        assert!(!left[0].held && left[0].snapshot.is_some() && left[0].pin.is_some(), "{left:?}");
        bed.refuse("");
        bed.releases().remove("1.0").unwrap();
        assert_eq!(bed.releases().list().unwrap(), []);
        // The snapshot went another way, and the pin is left.
        bed.releases().create("2.0", &[hash()], 7).unwrap();
        for file in ["snapshots", "holds"] {
            std::fs::remove_file(bed.fake.path(file)).unwrap();
        }
        assert!(bed.releases().list().unwrap()[0].snapshot.is_none());
        bed.releases().remove("2.0").unwrap();
        assert_eq!(bed.state.pins("default").unwrap(), []);
    }

    #[test]
    fn a_name_that_a_snapshot_cannot_have_is_refused_before_anything_is_done() {
        let bed = Bed::new();
        for name in ["a b", "$(x)", "a/b", "@", "%", &"x".repeat(300)] {
            let error = bed.releases().create(name, &[], 0).unwrap_err();
            assert!(matches!(error, ReleaseError::Name(_)), "{name}: {error}");
        }
        assert_eq!(bed.changes(), [""; 0]);
    }
}
