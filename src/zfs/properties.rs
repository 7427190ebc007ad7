//! The property table: what each dataset of Snowbank has, and why.
//!
//! `zfs init`, `format`, `doctor` and the NixOS modules all take it from here.

use super::property::{Property, Source};
use super::text::size;

/// What a dataset is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `<pool>/snowbank`: holds the others, no files.
    Parent,
    /// `<pool>/snowbank/<cache>`: NARs and narinfos.
    Cache,
    /// `<pool>/snowbank/state`: databases.
    State,
    /// `<pool>/nix`: the local store.
    Nix,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The property.
    pub name: &'static str,
    /// Its value, as one types it.
    pub value: &'static str,
    /// Why it has this value, in a sentence for people.
    pub reason: &'static str,
    /// Whether `zfs set` can change it later; else only making the dataset anew does.
    pub changeable: bool,
}

const fn row(name: &'static str, value: &'static str, reason: &'static str) -> Wanted {
    Wanted { name, value, reason, changeable: true }
}

const fn fixed(name: &'static str, value: &'static str, reason: &'static str) -> Wanted {
    Wanted { name, value, reason, changeable: false }
}

/// What everything below the parent inherits.
const COMMON: &[Wanted] = &[
    row("atime", "off", "a read is no write: who reads what is counted elsewhere"),
    row("xattr", "sa", "extended attributes lie in the inode, not in hidden directories"),
    row("acltype", "posixacl", "systemd and NixOS give rights by POSIX ACLs"),
    row("dnodesize", "auto", "there is room in the inode for those attributes"),
    row(
        "compression",
        "zstd",
        "shrinks narinfos, listings and databases, and gives up early on NARs that are compressed",
    ),
];

const PARENT: &[Wanted] =
    &[row("canmount", "off", "it only passes its properties on, and holds no files")];

const CACHE: &[Wanted] =
    &[row("recordsize", "1M", "NARs are written once and read from end to end: few, large blocks")];

const STATE: &[Wanted] = &[
    row(
        "recordsize",
        "16K",
        "SQLite changes pages of 4 KiB: a larger block is written many times over",
    ),
    row("logbias", "latency", "each commit waits for its fsync"),
];

const NIX: &[Wanted] = &[
    row("recordsize", "128K", "programs and libraries are read in pieces, at random"),
    fixed("casesensitivity", "sensitive", "two names in a store path may differ by case only"),
    fixed("normalization", "none", "names in a store path are bytes, and NARs hash them as such"),
    fixed("utf8only", "off", "names in a store path are bytes, and need not be UTF-8"),
];

impl Role {
    /// What `zfs create` is given: the dataset's own properties. A cache and the state inherit the
    /// rest from the parent; the local store has no such parent.
    pub fn own(self) -> Vec<Wanted> {
        match self {
            Self::Parent => [COMMON, PARENT].concat(),
            Self::Cache => CACHE.to_vec(),
            Self::State => STATE.to_vec(),
            Self::Nix => [COMMON, NIX].concat(),
        }
    }

    /// What the dataset must have, set or inherited.
    pub fn wanted(self) -> Vec<Wanted> {
        match self {
            Self::Parent | Self::Nix => self.own(),
            Self::Cache => [COMMON, CACHE].concat(),
            Self::State => [COMMON, STATE].concat(),
        }
    }

    /// The names of [`Role::wanted`], to ask [`super::Zfs::get`] for.
    pub fn names(self) -> Vec<&'static str> {
        self.wanted().iter().map(|wanted| wanted.name).collect()
    }

    /// The name and value of [`Role::own`], for [`super::dataset::create`].
    pub fn options(self) -> Vec<(&'static str, &'static str)> {
        self.own().iter().map(|wanted| (wanted.name, wanted.value)).collect()
    }
}

/// A property that is not as the table wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The row that it breaks.
    pub wanted: Wanted,
    /// The value that it has; none where ZFS told none.
    pub found: Option<String>,
    /// Whether `zfs set` puts it right. What is written already stays as it is.
    pub fixable: bool,
}

/// Compares the properties of one dataset with the table. Sizes are compared as numbers, and words
/// that mean the same are equal.
pub fn drift(role: Role, properties: &[Property]) -> Vec<Drift> {
    let check = |wanted: Wanted| {
        let found = properties.iter().find(|property| property.name == wanted.name);
        if found.is_some_and(|property| is_same(wanted.name, wanted.value, &property.value)) {
            return None;
        }
        // A mount option hides the value that is set, and setting it does not unhide it.
        let temporary = found.is_some_and(|property| property.source == Source::Temporary);
        Some(Drift {
            wanted,
            found: found.map(|property| property.value.clone()),
            fixable: wanted.changeable && !temporary,
        })
    };
    role.wanted().into_iter().filter_map(check).collect()
}

/// Whether two values of a property mean the same.
pub fn is_same(name: &str, wanted: &str, found: &str) -> bool {
    if wanted == found {
        return true;
    }
    match (name, size(wanted), size(found)) {
        (_, Some(wanted), Some(found)) => wanted == found,
        _ => plain(name, wanted) == plain(name, found),
    }
}

/// One word of those that mean the same.
fn plain<'a>(name: &str, value: &'a str) -> &'a str {
    match (name, value) {
        // 2.3 prints `on` for what was set as `sa`.
        ("xattr", "on") => "sa",
        ("acltype", "posixacl") => "posix",
        ("quota" | "refquota" | "reservation" | "refreservation", "none" | "-") => "0",
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(name: &str, value: &str) -> Property {
        Property {
            of: "tank".into(),
            name: name.into(),
            value: value.into(),
            source: Source::Local,
        }
    }

    /// What `zfs get -Hp` says of a dataset as the table wants it, in the words of 2.3.
    fn right(role: Role) -> Vec<Property> {
        let printed = |wanted: Wanted| match (wanted.name, wanted.value) {
            ("xattr", _) => property("xattr", "on"),
            ("acltype", _) => property("acltype", "posix"),
            ("recordsize", value) => property("recordsize", &size(value).unwrap().to_string()),
            (name, value) => property(name, value),
        };
        role.wanted().into_iter().map(printed).collect()
    }

    #[test]
    fn a_dataset_as_the_table_wants_it_does_not_drift() {
        for role in [Role::Parent, Role::Cache, Role::State, Role::Nix] {
            assert_eq!(drift(role, &right(role)), [], "{role:?}");
        }
    }

    #[test]
    fn each_row_drifts_when_its_value_is_another_one() {
        for role in [Role::Parent, Role::Cache, Role::State, Role::Nix] {
            for (index, wanted) in role.wanted().into_iter().enumerate() {
                let mut properties = right(role);
                properties[index].value = "512".into();
                let drift = drift(role, &properties);
                assert_eq!(drift.len(), 1, "{role:?} {wanted:?}");
                assert_eq!(drift[0].wanted, wanted);
                assert_eq!(drift[0].found.as_deref(), Some("512"));
                assert_eq!(drift[0].fixable, wanted.changeable);
            }
        }
    }

    #[test]
    fn what_is_missing_or_a_mount_option_cannot_be_put_right_by_guessing() {
        assert_eq!(drift(Role::Cache, &[]).len(), Role::Cache.wanted().len());
        let mut properties = right(Role::Parent);
        properties[0].value = "on".into();
        properties[0].source = Source::Temporary;
        let drift = drift(Role::Parent, &properties);
        assert_eq!((drift.len(), drift[0].fixable), (1, false));
    }

    #[test]
    fn the_table_has_a_reason_for_each_row_and_no_row_twice() {
        for role in [Role::Parent, Role::Cache, Role::State, Role::Nix] {
            let mut names = role.names();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), role.wanted().len(), "{role:?}");
            assert!(role.wanted().iter().all(|wanted| wanted.reason.len() > 10));
            assert!(role.own().iter().all(|own| role.wanted().contains(own)));
        }
        assert_eq!(Role::Cache.options(), [("recordsize", "1M")]);
    }

    #[test]
    fn sizes_and_words_are_compared_by_what_they_mean() {
        assert!(is_same("recordsize", "1M", "1048576"));
        assert!(!is_same("recordsize", "1M", "131072"));
        assert!(is_same("quota", "none", "0"));
        assert!(is_same("xattr", "sa", "on") && !is_same("xattr", "sa", "dir"));
        assert!(!is_same("compression", "zstd", "zstd-9"));
    }
}
