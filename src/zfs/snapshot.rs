//! Snapshots, holds, bookmarks, clones and going back.

use super::command::Command;
use super::error::ZfsError;
use super::handle::Zfs;
use super::name::{Bookmark, DatasetName, HoldTag, Snapshot, SnapshotName};
use super::text::{columns, number, optional, ours};

const COLUMNS: &str = "name,guid,createtxg,creation,used,referenced,written,userrefs";
const BOOKMARK_COLUMNS: &str = "name,guid,createtxg,creation";

/// A snapshot and its numbers. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its full name.
    pub snapshot: Snapshot,
    /// Its identity: a received copy has the same, which is how two machines find what both have.
    pub guid: u64,
    /// The transaction group that made it: the order of the snapshots of one pool.
    pub createtxg: u64,
    /// When it was made, in seconds since 1970. Of a received one, when the original was.
    pub creation: u64,
    /// What would come back if it alone were destroyed.
    pub used: u64,
    /// What can be read through it.
    pub referenced: u64,
    /// What was written since the snapshot before it.
    pub written: u64,
    /// How many holds keep it.
    pub holds: u64,
    /// The values of the user properties that were asked for, in that order; none where not set.
    pub properties: Vec<Option<String>>,
}

/// A bookmark and its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookmarkInfo {
    /// Its full name.
    pub bookmark: Bookmark,
    /// That of the snapshot that it was made of.
    pub guid: u64,
    /// That of the snapshot that it was made of.
    pub createtxg: u64,
    /// When the snapshot was made, in seconds since 1970.
    pub creation: u64,
}

/// A hold on a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What is held.
    pub snapshot: Snapshot,
    /// The name of the hold; another program's may be one that Snowbank would not give.
    pub tag: String,
}

impl SnapshotInfo {
    /// Reads a line of `zfs list -Hp -t snapshot` with the columns that [`Zfs::snapshots`] asks for,
    /// and so many user properties; the error says what is wrong with it.
    pub fn parse(line: &str, properties: usize) -> Result<Self, String> {
        let [name, guid, createtxg, creation, used, referenced, written, rest] = columns(line)?;
        let mut rest = rest.splitn(properties + 1, '\t');
        let holds = rest.next().unwrap_or_default();
        let values: Vec<_> = rest.map(|value| optional(value).map(String::from)).collect();
        if values.len() != properties {
            return Err(format!("{name} has {} of {properties} properties", values.len()));
        }
        let in_column =
            |column: &str, text| number(text).map_err(|what| format!("{column} of {name}: {what}"));
        Ok(Self {
            snapshot: Snapshot::parse(name).map_err(|error| error.to_string())?,
            guid: in_column("guid", guid)?,
            createtxg: in_column("createtxg", createtxg)?,
            creation: in_column("creation", creation)?,
            used: in_column("used", used)?,
            referenced: in_column("referenced", referenced)?,
            written: in_column("written", written)?,
            holds: in_column("userrefs", holds)?,
            properties: values,
        })
    }
}

impl BookmarkInfo {
    fn parse(line: &str) -> Result<Self, String> {
        let [name, guid, createtxg, creation] = columns(line)?;
        Ok(Self {
            bookmark: Bookmark::parse(name).map_err(|error| error.to_string())?,
            guid: number(guid)?,
            createtxg: number(createtxg)?,
            creation: number(creation)?,
        })
    }
}

impl Zfs {
    /// The snapshots of one dataset, oldest first, each with the values of `properties`, which users
    /// define (`snowbank:kind`). One whose name Snowbank would not give, of somebody else, is left
    /// out.
    pub fn snapshots(
        &self,
        dataset: &DatasetName,
        properties: &[&str],
    ) -> Result<Vec<SnapshotInfo>, ZfsError> {
        let columns = [&[COLUMNS], properties].concat().join(",");
        let command = Command::zfs(["list", "-Hp", "-t", "snapshot", "-s", "createtxg", "-d", "1"]);
        let command = command.args(["-o", &columns, dataset.as_str()]);
        self.parse(&command, |text| {
            ours(text).map(|line| SnapshotInfo::parse(line, properties.len())).collect()
        })
    }

    /// The bookmarks of one dataset, oldest first.
    pub fn bookmarks(&self, dataset: &DatasetName) -> Result<Vec<BookmarkInfo>, ZfsError> {
        let command = Command::zfs(["list", "-Hp", "-t", "bookmark", "-s", "createtxg", "-d", "1"]);
        let command = command.args(["-o", BOOKMARK_COLUMNS, dataset.as_str()]);
        self.parse(&command, |text| ours(text).map(BookmarkInfo::parse).collect())
    }

    /// The holds on snapshots, by their full names.
    pub fn holds(&self, snapshots: &[Snapshot]) -> Result<Vec<Hold>, ZfsError> {
        if snapshots.is_empty() {
            return Ok(Vec::new());
        }
        // 2.1 knows no `-p` here, and without it the time is one for people.
        let command = Command::zfs(["holds", "-H"]).args(snapshots.iter().map(Snapshot::to_string));
        self.parse(&command, |text| {
            let hold = |line| {
                let [name, tag, _time] = columns(line)?;
                let snapshot = Snapshot::parse(name).map_err(|error| error.to_string())?;
                Ok(Hold { snapshot, tag: tag.into() })
            };
            text.lines().map(hold).collect()
        })
    }
}

/// Makes snapshots of one moment, all or none, of as many datasets of a pool, each once.
pub fn create(snapshots: &[Snapshot], properties: &[(&str, &str)]) -> Command {
    let names = snapshots.iter().map(Snapshot::to_string);
    Command::zfs(["snapshot"]).options(properties).args(names).change()
}

/// Sets properties of a snapshot, which only users define.
pub fn set(snapshot: &Snapshot, properties: &[(&str, &str)]) -> Command {
    let assignments = properties.iter().map(|(name, value)| format!("{name}={value}"));
    Command::zfs(["set"]).args(assignments).arg(snapshot.to_string()).change()
}

/// Destroys snapshots of one dataset, all or none: ZFS refuses where one is held or cloned.
pub fn destroy(dataset: &DatasetName, snapshots: &[SnapshotName]) -> Command {
    let names: Vec<&str> = snapshots.iter().map(SnapshotName::as_str).collect();
    Command::zfs(["destroy".into(), format!("{dataset}@{}", names.join(","))]).change()
}

/// Gives a snapshot another name.
pub fn rename(snapshot: &Snapshot, to: &SnapshotName) -> Command {
    Command::zfs(["rename".into(), snapshot.to_string(), format!("@{to}")]).change()
}

/// Holds snapshots: they cannot be destroyed until each hold is released.
pub fn hold(tag: &HoldTag, snapshots: &[Snapshot]) -> Command {
    let names = snapshots.iter().map(Snapshot::to_string);
    Command::zfs(["hold", tag.as_str()]).args(names).change()
}

/// Releases a hold.
pub fn release(tag: &HoldTag, snapshots: &[Snapshot]) -> Command {
    let names = snapshots.iter().map(Snapshot::to_string);
    Command::zfs(["release", tag.as_str()]).args(names).change()
}

/// Remembers when a snapshot was, so that it can be destroyed and still be sent from.
pub fn bookmark(snapshot: &Snapshot, bookmark: &Bookmark) -> Command {
    Command::zfs(["bookmark".into(), snapshot.to_string(), bookmark.to_string()]).change()
}

/// Forgets a bookmark.
pub fn destroy_bookmark(bookmark: &Bookmark) -> Command {
    Command::zfs(["destroy".into(), bookmark.to_string()]).change()
}

/// Takes a dataset back to a snapshot. What is newer goes with `destroy_newer`, and without it makes
/// ZFS refuse. Files that are open get EIO from then on, so whoever serves the dataset is stopped
/// before.
pub fn rollback(snapshot: &Snapshot, destroy_newer: bool) -> Command {
    let newer: &[&str] = if destroy_newer { &["-r"] } else { &[] };
    Command::zfs(["rollback"]).args(newer.iter().copied()).arg(snapshot.to_string()).change()
}

/// Makes a dataset that begins as the snapshot is. It is mounted if its properties say so, which
/// takes root: `canmount=noauto` says not.
pub fn clone(snapshot: &Snapshot, to: &DatasetName, properties: &[(&str, &str)]) -> Command {
    let names = [snapshot.to_string(), to.to_string()];
    Command::zfs(["clone"]).options(properties).args(names).change()
}

/// Turns a clone and its origin around: what was the origin depends on the clone from then on.
pub fn promote(clone: &DatasetName) -> Command {
    Command::zfs(["promote", clone.as_str()]).change()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::Fake;
    use super::*;

    fn dataset() -> DatasetName {
        DatasetName::parse("tank/store").unwrap()
    }

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).unwrap()
    }

    #[test]
    fn snapshots_are_read_with_their_user_properties() {
        let fake = Fake::that_prints(
            "tank/store@s1\t7650925001590171103\t27\t1795249033\t0\t34725888\t34725888\t1\t-\tb\n\
             tank/store@not ours\t1\t28\t1\t0\t0\t0\t0\t-\t-\n\
             tank/store@s2\t18446744073709551615\t34\t1795249036\t0\t36610048\t3108864\t0\ta\tb\tc\n",
        );
        let snapshots = fake.zfs.snapshots(&dataset(), &["snowbank:x", "snowbank:y"]).unwrap();
        assert_eq!(snapshots.len(), 2);
        assert_eq!((snapshots[0].guid, snapshots[0].holds), (7_650_925_001_590_171_103, 1));
        assert_eq!((snapshots[0].createtxg, snapshots[0].creation), (27, 1_795_249_033));
        assert_eq!(snapshots[0].properties, [None, Some("b".into())]);
        assert_eq!(snapshots[1].properties, [Some("a".into()), Some("b\tc".into())]);
        assert_eq!((snapshots[1].written, snapshots[1].guid), (3_108_864, u64::MAX));
    }

    #[test]
    fn a_line_that_is_no_snapshot_is_an_error() {
        for line in [
            "",
            "tank/store@s1",
            "tank/store\t1\t2\t3\t4\t5\t6\t7",
            "tank/store@s\t1\t2\t3\t4\t5\t6\tx",
        ] {
            let fake = Fake::that_prints(&format!("{line}\n"));
            let error = fake.zfs.snapshots(&dataset(), &[]).unwrap_err();
            assert!(matches!(error, ZfsError::Unreadable { .. }), "{line:?}: {error:?}");
        }
        let short = Fake::that_prints("tank/store@s1\t1\t2\t3\t4\t5\t6\t0\n");
        let error = short.zfs.snapshots(&dataset(), &["snowbank:x"]).unwrap_err();
        assert!(error.to_string().contains("0 of 1 properties"), "{error}");
    }

    #[test]
    fn bookmarks_and_holds_are_read() {
        let fake = Fake::that_prints("tank/store#b1\t7650925001590171103\t27\t1795249033\n");
        let bookmarks = fake.zfs.bookmarks(&dataset()).unwrap();
        assert_eq!(bookmarks[0].bookmark.to_string(), "tank/store#b1");
        assert_eq!(bookmarks[0].guid, 7_650_925_001_590_171_103);
        for time in ["1795249034", "Sat Nov 21 08:23 2026"] {
            let fake = Fake::that_prints(&format!("tank/store@s1\tkeep\t{time}\n"));
            let holds = fake.zfs.holds(&[snapshot("tank/store@s1")]).unwrap();
            assert_eq!(holds, [Hold { snapshot: snapshot("tank/store@s1"), tag: "keep".into() }]);
        }
        assert_eq!(Fake::new("exit 1").zfs.holds(&[]).unwrap(), []);
    }

    #[test]
    fn changes_are_commands() {
        let (a, b) = (snapshot("tank/a@x"), snapshot("tank/b@x"));
        let tag = HoldTag::parse("snowbank").unwrap();
        let mark = Bookmark::parse("tank/a#x").unwrap();
        let both = [a.clone(), b];
        let names = [a.name().clone(), SnapshotName::parse("y").unwrap()];
        for (command, shown) in [
            (
                create(&both, &[("snowbank:kind", "daily")]),
                "zfs snapshot -o snowbank:kind=daily tank/a@x tank/b@x",
            ),
            (set(&a, &[("snowbank:kind", "daily")]), "zfs set snowbank:kind=daily tank/a@x"),
            (destroy(a.dataset(), &names), "zfs destroy tank/a@x,y"),
            (rename(&a, &names[1]), "zfs rename tank/a@x @y"),
            (hold(&tag, &both), "zfs hold snowbank tank/a@x tank/b@x"),
            (release(&tag, &both), "zfs release snowbank tank/a@x tank/b@x"),
            (bookmark(&a, &mark), "zfs bookmark tank/a@x 'tank/a#x'"),
            (destroy_bookmark(&mark), "zfs destroy 'tank/a#x'"),
            (rollback(&a, false), "zfs rollback tank/a@x"),
            (rollback(&a, true), "zfs rollback -r tank/a@x"),
            (
                clone(&a, &dataset(), &[("canmount", "noauto")]),
                "zfs clone -o canmount=noauto tank/a@x tank/store",
            ),
            (promote(&dataset()), "zfs promote tank/store"),
        ] {
            assert_eq!(command.to_string(), shown);
        }
    }

    proptest! {
        #[test]
        fn no_output_makes_a_panic(
            line in prop_oneof![".{0,80}", "([a-z0-9@#/-]{0,6}\t){3,9}.{0,9}"],
            properties in 0usize..3,
        ) {
            let _ = SnapshotInfo::parse(&line, properties);
            let _ = BookmarkInfo::parse(&line);
        }
    }
}
