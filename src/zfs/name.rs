//! Names of pools, datasets, snapshots: checked before they come near a command line.
//!
//! What is allowed is a little less than OpenZFS allows (`zfs_namecheck.c`): letters, digits and
//! `_ . : -`, but no space, no `%`, and no `-` in front, so that a name can be neither an option nor
//! anything that a shell, here or on another machine, would interpret.

use std::fmt;
use std::str::FromStr;

use super::text::shorten;

/// The longest full name in bytes, with what follows the `@`: `ZFS_MAX_DATASET_NAME_LEN` is 256 with
/// the zero at the end.
pub const MAX_NAME: usize = 255;
/// How deep datasets nest: the default of the module's parameter `zfs_max_dataset_nesting`.
const MAX_DEPTH: usize = 50;
/// `zpool create` refuses names that begin so: they are kinds of vdevs.
const RESERVED_BEGINNINGS: [&str; 4] = ["mirror", "raidz", "draid", "spare"];

/// The name of a pool, such as `tank`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolName(Box<str>);

/// The name of a file system or volume, such as `tank/snowbank/main`; a pool's name is one too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetName(Box<str>);

/// What follows the `@` of a snapshot, or the `#` of a bookmark.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName(Box<str>);

/// A snapshot: `tank/snowbank/main@daily-2026-11-25`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Snapshot {
    dataset: DatasetName,
    name: SnapshotName,
}

/// A bookmark: `tank/snowbank/main#sent-2026-11-25`. It remembers when a snapshot was, without its
/// blocks, and is enough to send what changed since.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bookmark {
    dataset: DatasetName,
    name: SnapshotName,
}

/// The tag of a hold: as long as one is on a snapshot, the snapshot cannot be destroyed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldTag(Box<str>);

/// The name or number of a user of the system, to whom rights are delegated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Box<str>);

/// Why a text is not a name.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is not the name of a {kind}: {why} (allowed are letters, digits and _ . : - in \
     1 to 255 bytes, no part may begin with -)"
)]
pub struct NameError {
    /// What was given, shortened.
    pub text: String,
    /// What it should have been.
    pub kind: &'static str,
    /// The rule that it breaks.
    pub why: &'static str,
}

impl NameError {
    fn new(kind: &'static str, text: &str, why: &'static str) -> Self {
        Self { text: shorten(text), kind, why }
    }
}

/// Whether a text is a name that somebody else gave: OpenZFS allows it, and Snowbank would not. What
/// has one is not Snowbank's and is passed over, so that it does not spoil a whole list.
pub(super) fn is_foreign(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:- /@#%".contains(&byte);
    !text.is_empty()
        && text.bytes().all(allowed)
        && DatasetName::parse(text).is_err()
        && Snapshot::parse(text).is_err()
        && Bookmark::parse(text).is_err()
}

/// The rule that one component of a name breaks, if it breaks one.
fn fault_of_component(text: &str) -> Option<&'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    match text {
        "" => Some("a part of it is empty"),
        "." | ".." => Some("a part of it is . or .."),
        _ if text.starts_with('-') => Some("a part of it begins with -"),
        _ if !text.bytes().all(allowed) => Some("it has a character that is not allowed"),
        _ if text.len() > MAX_NAME => Some("it is too long"),
        _ => None,
    }
}

fn fault_of_pool(text: &str) -> Option<&'static str> {
    if let Some(why) = fault_of_component(text) {
        return Some(why);
    }
    let reserved = RESERVED_BEGINNINGS.iter().any(|beginning| text.starts_with(beginning));
    if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
        Some("a pool's name begins with a letter")
    } else if reserved || text == "log" {
        Some("a pool's name is not log and does not begin with mirror, raidz, draid or spare")
    } else {
        None
    }
}

fn fault_of_dataset(text: &str) -> Option<&'static str> {
    if text.len() > MAX_NAME {
        return Some("it is too long");
    }
    let (pool, below) = text.split_once('/').unwrap_or((text, ""));
    if let Some(why) = fault_of_pool(pool) {
        return Some(why);
    }
    if pool.len() == text.len() {
        return None;
    }
    if below.split('/').count() >= MAX_DEPTH {
        return Some("it is nested too deeply");
    }
    below.split('/').find_map(fault_of_component)
}

fn fault_of_user(text: &str) -> Option<&'static str> {
    let reserved = ["everyone", "create"].contains(&text);
    if reserved { Some("`zfs allow` means something else by it") } else { fault_of_component(text) }
}

/// `parse`, `as_str`, `Display` and `FromStr` of a name that is one checked text.
macro_rules! name {
    ($type:ident, $kind:literal, $fault:path) => {
        impl $type {
            /// Checks a text; the error says what is allowed.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                match $fault(text) {
                    Some(why) => Err(NameError::new($kind, text, why)),
                    None => Ok(Self(text.into())),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}

name!(PoolName, "pool", fault_of_pool);
name!(DatasetName, "dataset", fault_of_dataset);
name!(SnapshotName, "snapshot", fault_of_component);
name!(HoldTag, "hold", fault_of_component);
name!(UserName, "user", fault_of_user);

impl PoolName {
    /// The dataset at the pool's top, which has the pool's name.
    pub fn root(&self) -> DatasetName {
        DatasetName(self.0.clone())
    }
}

impl DatasetName {
    /// The pool that the dataset lies in.
    pub fn pool(&self) -> PoolName {
        PoolName(self.0.split('/').next().unwrap_or_default().into())
    }

    /// The dataset above; none above the pool's own.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }

    /// The dataset `component` below this one.
    pub fn child(&self, component: &str) -> Result<Self, NameError> {
        match fault_of_component(component) {
            Some(why) => Err(NameError::new("dataset", component, why)),
            None => Self::parse(&format!("{self}/{component}")),
        }
    }

    /// The last component, such as `main` of `tank/snowbank/main`.
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Whether this is `other`, or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The snapshot `name` of this dataset; the error is that both together are too long.
    pub fn snapshot(&self, name: &SnapshotName) -> Result<Snapshot, NameError> {
        Snapshot::new(self.clone(), name.clone())
    }
}

/// A name of two parts with a character between them.
macro_rules! pair {
    ($type:ident, $kind:literal, $between:literal) => {
        impl $type {
            /// Puts the parts together; the error is that both together are too long.
            pub fn new(dataset: DatasetName, name: SnapshotName) -> Result<Self, NameError> {
                let pair = Self { dataset, name };
                if pair.dataset.0.len() + 1 + pair.name.0.len() > MAX_NAME {
                    return Err(NameError::new($kind, &pair.to_string(), "it is too long"));
                }
                Ok(pair)
            }

            /// Reads the full name.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let Some((dataset, name)) = text.split_once($between) else {
                    let why = concat!("there is no ", $between, " in it");
                    return Err(NameError::new($kind, text, why));
                };
                Self::new(DatasetName::parse(dataset)?, SnapshotName::parse(name)?)
            }

            /// What it is of.
            pub const fn dataset(&self) -> &DatasetName {
                &self.dataset
            }

            /// Its own part of the name.
            pub const fn name(&self) -> &SnapshotName {
                &self.name
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}{}{}", self.dataset, $between, self.name)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}

pair!(Snapshot, "snapshot", '@');
pair!(Bookmark, "bookmark", '#');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a shell gives a meaning, and what separates.
    const DANGEROUS: &str = " \t\n\r\"'`$&|;<>(){}[]*?!~\\^%,=+@#/";

    #[test]
    fn a_dataset_knows_its_pool_parent_and_children() {
        let dataset = DatasetName::parse("tank/snowbank/main").unwrap();
        assert_eq!(dataset.pool().as_str(), "tank");
        assert_eq!(dataset.parent().unwrap().as_str(), "tank/snowbank");
        assert_eq!(dataset.last(), "main");
        assert_eq!(dataset.child("x").unwrap().to_string(), "tank/snowbank/main/x");
        let root = dataset.pool().root();
        assert_eq!((root.parent(), root.last()), (None, "tank"));
        assert!(dataset.is_within(&root) && root.is_within(&root));
        assert!(!DatasetName::parse("tanks/a").unwrap().is_within(&root));
    }

    #[test]
    fn what_an_attacker_would_name_a_dataset_is_refused() {
        let long = "x".repeat(300);
        let deep = format!("tank{}", "/a".repeat(50));
        let names = [
            "-r",
            "a b",
            "$(x)",
            "@",
            "%",
            &long,
            "",
            ".",
            "..",
            "tank/",
            "/tank",
            "tank//a",
            "tank/-r",
            "tank/..",
            "tank/./a",
            "tank/a@b",
            "tank/a#b",
            "tank\0",
            "tank/a\n",
            "tank/ä",
            "`id`",
            "a;b",
            "a|b",
            "a&b",
            "tank/$HOME",
            "tank/*",
            "tank/~",
            "tank/a=b",
            &deep,
        ];
        for name in names {
            let error = DatasetName::parse(name).unwrap_err();
            assert!(error.to_string().contains("letters, digits"), "{error}");
            assert!(error.to_string().len() < 400, "{error}");
            assert!(PoolName::parse(name).is_err(), "{name:?}");
            assert!(Snapshot::parse(&format!("{name}@a")).is_err(), "{name:?}");
        }
        let tank = DatasetName::parse("tank").unwrap();
        for name in ["-r", "a b", "$(x)", "@", "%", &long, "", ".", "..", "a/b", "a,b", "%recv"] {
            assert!(SnapshotName::parse(name).is_err(), "{name:?}");
            assert!(HoldTag::parse(name).is_err(), "{name:?}");
            assert!(UserName::parse(name).is_err(), "{name:?}");
            assert!(tank.child(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_pool_is_not_named_like_a_kind_of_vdev() {
        for name in ["mirror", "mirror-0", "raidz2", "draid", "spare1", "log", "1tank", "_a", ":a"]
        {
            assert!(PoolName::parse(name).is_err(), "{name:?}");
        }
        for name in ["tank", "logs", "c0", "T-1_a.b:c"] {
            assert!(PoolName::parse(name).is_ok(), "{name:?}");
        }
        // Below the pool these words mean nothing.
        assert!(DatasetName::parse("tank/mirror/log/1").is_ok());
    }

    #[test]
    fn dataset_and_snapshot_share_the_length_that_zfs_allows() {
        let dataset = DatasetName::parse(&format!("tank/{}", "x".repeat(245))).unwrap();
        let name = |length| SnapshotName::parse(&"s".repeat(length)).unwrap();
        assert_eq!(dataset.snapshot(&name(4)).unwrap().to_string().len(), MAX_NAME);
        assert!(dataset.snapshot(&name(5)).is_err());
        assert!(DatasetName::parse(&format!("tank/{}", "x".repeat(250))).is_ok());
        assert!(DatasetName::parse(&format!("tank/{}", "x".repeat(251))).is_err());
    }

    #[test]
    fn snapshots_and_bookmarks_give_back_their_parts() {
        let snapshot: Snapshot = "tank/a@daily-1".parse().unwrap();
        assert_eq!((snapshot.dataset().as_str(), snapshot.name().as_str()), ("tank/a", "daily-1"));
        let bookmark: Bookmark = "tank/a#b".parse().unwrap();
        assert_eq!(bookmark.to_string(), "tank/a#b");
        for text in ["tank", "tank@a@b", "tank@a/b", "tank#a@b", "@a", "tank@"] {
            assert!(Snapshot::parse(text).is_err(), "{text:?}");
            assert!(Bookmark::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_zfs_allows_and_we_do_not_is_somebody_elses() {
        for name in
            ["my pool", "tank/a b", "tank/-a", "tank/a@my snap", "tank/a@-x", "tank#-", "1x"]
        {
            assert!(is_foreign(name), "{name:?}");
        }
        for name in ["tank", "tank/a", "tank/a@x", "tank/a#x", "", "tank/ä", "tank\n", "a;b"] {
            assert!(!is_foreign(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_a_name_is_harmless_and_written_as_it_was_read(
            text in prop_oneof![".{0,300}", "[a-zA-Z0-9_.:/@#-]{0,40}", "[a-z]{1,9}(/[a-z.-]{1,5}){0,4}"],
        ) {
            if let Ok(name) = DatasetName::parse(&text) {
                prop_assert_eq!(name.to_string(), text.clone());
                prop_assert!(!text.starts_with('-') && text.len() <= MAX_NAME);
                prop_assert!(!text.contains("//") && !text.ends_with('/'));
                prop_assert!(text.chars().all(|c| c == '/' || !DANGEROUS.contains(c)));
                prop_assert!(text.is_ascii());
            }
            if let Ok(snapshot) = Snapshot::parse(&text) {
                prop_assert_eq!(snapshot.to_string(), text.clone());
            }
            if let Ok(name) = SnapshotName::parse(&text) {
                prop_assert!(text.chars().all(|c| !DANGEROUS.contains(c)) && !text.starts_with('-'));
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
