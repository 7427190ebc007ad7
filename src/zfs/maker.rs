//! Who made a snapshot: noted at it, so that each of us takes away only its own.
//!
//! Snapshots inherit user properties from their dataset, so the note alone is not believed: the name
//! has to fit as well.

use std::fmt;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::name::{NameError, SnapshotName};
use super::snapshot::SnapshotInfo;

/// The user property of a snapshot that says who made it.
pub const MADE_BY: &str = "snowbank:made-by";

/// Who made a snapshot, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Somebody, by hand.
    Manual,
    /// The schedule of a cache.
    Schedule,
    /// A release.
    Release,
    /// A replication to this place.
    Replication(String),
}

impl Maker {
    /// With what the names of its snapshots begin. A name given by hand may be any.
    const fn prefix(&self) -> &'static str {
        match self {
            Self::Manual => "manual-",
            Self::Schedule => "auto-",
            Self::Release => "release-",
            Self::Replication(_) => "replica-",
        }
    }

    /// With what they end: replications to two places may make one in the same second.
    fn ending(&self) -> String {
        match self {
            Self::Replication(target) => {
                let hash = Sha256::digest(target);
                hash.iter().take(4).fold("-".into(), |text, byte| format!("{text}{byte:02x}"))
            }
            _ => String::new(),
        }
    }

    /// The name of a snapshot that is made now, such as `auto-20261125T224500Z`.
    pub fn name_at(&self, now: Timestamp) -> Result<SnapshotName, NameError> {
        let time = now.strftime("%Y%m%dT%H%M%SZ");
        SnapshotName::parse(&format!("{}{time}{}", self.prefix(), self.ending()))
    }

    /// Whether a snapshot or bookmark has a name such as we give.
    pub fn has_named(&self, name: &SnapshotName) -> bool {
        name.as_str().starts_with(self.prefix()) && name.as_str().ends_with(&self.ending())
    }

    /// The name of the snapshot of a release.
    pub fn name_of_release(release: &str) -> Result<SnapshotName, NameError> {
        SnapshotName::parse(&format!("{}{release}", Self::Release.prefix()))
    }

    /// The release that has this snapshot, by its name.
    pub fn release_of(name: &SnapshotName) -> Option<&str> {
        name.as_str().strip_prefix(Self::Release.prefix())
    }

    /// Reads the property of a snapshot that was listed with [`MADE_BY`] as its `index`th property;
    /// `None` where somebody else made it.
    pub fn of(snapshot: &SnapshotInfo, index: usize) -> Option<Self> {
        let value = snapshot.properties.get(index)?.as_deref()?;
        let maker = match (value, value.strip_prefix("replicate:")) {
            ("manual", _) => Self::Manual,
            ("schedule", _) => Self::Schedule,
            ("release", _) => Self::Release,
            (_, Some(target)) => Self::Replication(target.into()),
            _ => return None,
        };
        let fits = maker == Self::Manual || maker.has_named(snapshot.snapshot.name());
        fits.then_some(maker)
    }
}

/// The value of the property.
impl fmt::Display for Maker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual => formatter.write_str("manual"),
            Self::Schedule => formatter.write_str("schedule"),
            Self::Release => formatter.write_str("release"),
            Self::Replication(target) => write!(formatter, "replicate:{target}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, made_by: Option<&str>) -> SnapshotInfo {
        SnapshotInfo {
            snapshot: format!("tank/a@{name}").parse().unwrap(),
            guid: 1,
            createtxg: 1,
            creation: 0,
            used: 0,
            referenced: 0,
            written: 0,
            holds: 0,
            properties: vec![made_by.map(String::from)],
        }
    }

    #[test]
    fn each_maker_is_read_as_it_is_written_and_has_names_of_its_own() {
        let now: Timestamp = "2026-11-25T22:45:00.7Z".parse().unwrap();
        let replication = Maker::Replication("root@b:tank/from-a".into());
        for (maker, name) in [
            (Maker::Manual, "manual-20261125T224500Z"),
            (Maker::Schedule, "auto-20261125T224500Z"),
            (Maker::Release, "release-20261125T224500Z"),
            (replication, "replica-20261125T224500Z-1d9b6527"),
        ] {
            assert_eq!(maker.name_at(now).unwrap().as_str(), name);
            assert_eq!(Maker::of(&info(name, Some(&maker.to_string())), 0), Some(maker));
        }
        let release = Maker::name_of_release("26.05").unwrap();
        assert_eq!(Maker::release_of(&release), Some("26.05"));
        assert!(Maker::name_of_release("a b").is_err());
    }

    #[test]
    fn what_others_made_or_only_inherited_the_note_is_nobodys() {
        for (name, made_by) in [
            ("auto-1", None),
            ("auto-1", Some("zrepl")),
            ("auto-1", Some("release")),
            ("zfs-auto-snap_daily", Some("schedule")),
            ("x", Some("replicate:tank/b")),
            ("replica-20261125T224500Z-00000000", Some("replicate:tank/b")),
        ] {
            assert_eq!(Maker::of(&info(name, made_by), 0), None, "{name}");
        }
        assert_eq!(Maker::of(&info("before-the-move", Some("manual")), 0), Some(Maker::Manual));
        assert_eq!(Maker::of(&info("auto-1", Some("schedule")), 1), None);
    }
}
