//! How far a dataset is on its way to being `/nix`, kept in a property of it.

use std::fmt;
use std::io;

use crate::zfs::name::DatasetName;
use crate::zfs::{Command, Zfs, ZfsError, property};

/// The property.
pub(super) const PROPERTY: &str = "snowbank:nix";
/// What tells one boot of the machine from all others.
pub(super) const BOOT: &str = "/proc/sys/kernel/random/boot_id";
const SWITCHING: &str = "switching ";

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is being filled, and never was `/nix`.
    Copying,
    /// It is whole, and is about to be mounted over `/nix`. In the same boot its mount shows whether it
    /// was; in a later one nobody can say any more.
    Switching {
        /// In which boot.
        boot: String,
    },
    /// It is or was `/nix`, and may have what is nowhere else.
    InUse,
    /// Nothing of this is said of it.
    Unknown,
}

impl State {
    fn parse(value: &str) -> Self {
        match value {
            "copying" => Self::Copying,
            "in-use" => Self::InUse,
            _ => match value.strip_prefix(SWITCHING) {
                Some(boot) => Self::Switching { boot: boot.to_owned() },
                None => Self::Unknown,
            },
        }
    }

    /// The command that writes it down.
    pub(super) fn set(&self, dataset: &DatasetName) -> Command {
        property::set(dataset, &[(PROPERTY, &self.to_string())])
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copying => f.write_str("copying"),
            Self::Switching { boot } => write!(f, "{SWITCHING}{boot}"),
            Self::InUse => f.write_str("in-use"),
            Self::Unknown => f.write_str("-"),
        }
    }
}

/// How far a dataset is; `None` if there is none of this name.
pub(super) fn read(zfs: &Zfs, dataset: &DatasetName) -> Result<Option<State>, ZfsError> {
    if zfs.find_dataset(dataset)?.is_none() {
        return Ok(None);
    }
    let found = zfs.get(&[dataset], &[PROPERTY])?;
    Ok(Some(found.first().map_or(State::Unknown, |one| State::parse(&one.value))))
}

/// The id of this boot.
pub(super) fn this_boot() -> io::Result<String> {
    Ok(std::fs::read_to_string(BOOT)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_what_is_read() {
        let boot = this_boot().unwrap();
        assert_eq!(boot.len(), 36, "{boot}");
        for state in [State::Copying, State::Switching { boot }, State::InUse, State::Unknown] {
            assert_eq!(State::parse(&state.to_string()), state);
        }
        for other in ["", "in use", "switching", "copying "] {
            assert_eq!(State::parse(other), State::Unknown, "{other:?}");
        }
    }
}
