//! What datasets there are to be, and how it comes about: looked at, planned, carried out.
//!
//! A plan is made out of nothing but what is wanted ([`Layout`]) and what there is ([`Found`]), so it
//! can be printed instead of carried out, and be made again after it was interrupted anywhere: what is
//! done already is then found, and not planned any more. Where everything is as wanted, the plan is
//! empty.
//!
//! A directory that holds files is never mounted over, which would hide them. They are moved into the
//! dataset only when that was asked for ([`Files::Adopt`]):
//!
//! ```text
//! 1  make the dataset, marked as being adopted into, with its mount point beside the directory
//! 2  mount it there; only a mount by hand does, none at boot
//! 3  copy the files, as often as it takes; compare names, kinds and sizes
//! 4  rename the directory aside: from now on nobody writes into it by its name
//! 5  copy and compare once more, for what was written between 3 and 4
//! 6  move the mount to where the directory was
//! 7  take the mark away
//! ```
//!
//! Until 4 the directory is what it was; after it, it lies beside as it was, and is never removed here.

mod copy;
mod look;
mod plan;
pub mod rights;
mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::command::{Command, quote};
use super::dataset::Dataset;
use super::error::ZfsError;
use super::name::DatasetName;
use super::properties::{Drift, Role};
use super::property::Property;

pub use copy::Copied;
pub use run::Watcher;

/// The user property of a dataset that files are being moved into: the directory that they come from.
pub const ADOPTING: &str = "snowbank:adopting";

/// The datasets that there are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What holds the others and has no files.
    pub parent: DatasetName,
    /// Those below it.
    pub members: Vec<Member>,
    /// The directory that their mount points are in, and much else: it stays a directory.
    pub directory: PathBuf,
    /// Whose everything is to be, and who is to manage the datasets without being root; nobody: root's.
    pub account: Option<Account>,
}

/// A dataset that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub dataset: DatasetName,
    /// What it is for, and so which properties it has.
    pub role: Role,
    /// Where it is mounted; absolute.
    pub mountpoint: PathBuf,
    /// The limit on what it takes, with its snapshots, in bytes; none leaves the one that it has.
    pub quota: Option<u64>,
}

/// What becomes of files that lie where a dataset is to be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Nothing: it is an error that they are there.
    Refuse,
    /// They are moved into the dataset.
    Adopt,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The dataset above the parent, if it is there or none is needed.
    above: bool,
    datasets: BTreeMap<DatasetName, FoundDataset>,
    places: BTreeMap<PathBuf, Place>,
    /// Which of [`rights::SERVICE`] the account has on the parent and all below it.
    rights: BTreeSet<&'static str>,
}

/// A dataset that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FoundDataset {
    dataset: Dataset,
    properties: Vec<Property>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Missing,
    /// Something else than a directory.
    NoDirectory,
    Directory {
        /// Whether something is in it.
        empty: bool,
        /// Who owns it.
        owner: (u32, u32),
        /// What is mounted there: a dataset, or something else by its source.
        mounted: Option<Mounted>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Mounted {
    Dataset(DatasetName),
    Other(String),
}

/// What is to be done, step by step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order. Empty where all is as wanted.
    pub steps: Vec<Step>,
    /// What is not as the property table wants it, and cannot be put right while it is in use.
    pub remarks: Vec<Remark>,
}

/// One thing to do. Shown, it is what one would type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A command of ZFS.
    Run(Command),
    /// Makes a directory and those above it.
    MakeDirectory(PathBuf),
    /// Removes an empty directory.
    RemoveDirectory(PathBuf),
    /// Gives a directory to somebody.
    Give(PathBuf, Account),
    /// Has `to` hold what `from` holds, and nothing else, and compares them.
    Copy {
        /// A directory.
        from: PathBuf,
        /// Where a dataset is mounted.
        to: PathBuf,
        /// Whose the copies are; nobody: whose the originals are.
        account: Option<Account>,
    },
    /// Renames a directory.
    Rename(PathBuf, PathBuf),
}

/// Something that init leaves as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The dataset.
    pub dataset: DatasetName,
    /// What is not as wanted.
    pub drift: Drift,
}

/// Why there is no plan, or it could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// ZFS refused.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// The dataset above the parent is not there.
    #[error(
        "there is no dataset {above}, which {parent} is to be made in: name one that there is, or make \
         it (`zfs create {above}`)"
    )]
    NoPool {
        /// What is missing.
        above: DatasetName,
        /// What was to be made.
        parent: DatasetName,
    },
    /// A volume has the name of a file system.
    #[error("{0} is a volume, and a file system is needed: choose another parent")]
    Volume(DatasetName),
    /// The parent has files, which would be hidden.
    #[error(
        "{dataset} is mounted at {directory} and holds files, which would be hidden if it became a mere \
         parent: choose another name, such as {dataset}/snowbank"
    )]
    ParentInUse {
        /// The parent.
        dataset: DatasetName,
        /// Where it is mounted.
        directory: PathBuf,
    },
    /// There are files where a dataset is to be mounted.
    #[error(
        "{} holds files, and mounting {dataset} over them would hide them: stop the server and say \
         --adopt to have them moved into the dataset, or move them away", directory.display()
    )]
    HasFiles {
        /// The directory.
        directory: PathBuf,
        /// What was to be mounted there.
        dataset: DatasetName,
    },
    /// There are files where a dataset is to be mounted that has a life of its own already.
    #[error(
        "{} holds files, and {dataset}, which is not mounted, may hold others: nothing is merged; move \
         the files away and run this again", directory.display()
    )]
    BothHaveFiles {
        /// The directory.
        directory: PathBuf,
        /// What was to be mounted there.
        dataset: DatasetName,
    },
    /// Files were being moved into a dataset when that was interrupted.
    #[error(
        "moving the files of {} into {dataset} was interrupted: say --adopt to go on with it",
        directory.display()
    )]
    Interrupted {
        /// Where they come from.
        directory: PathBuf,
        /// Where they go.
        dataset: DatasetName,
    },
    /// Files appeared where the directory had been that was renamed.
    #[error(
        "files were written to {} after it had been renamed to {}: is the server running? Stop it, put \
         what is needed from the first into the second, remove the first, and say --adopt again",
        directory.display(), aside.display()
    )]
    WrittenMeanwhile {
        /// Where files appeared.
        directory: PathBuf,
        /// Where those are that were there first.
        aside: PathBuf,
    },
    /// Something else is mounted there.
    #[error(
        "{what} is mounted at {}, where {dataset} is to be: unmount it, or set another directory in the \
         configuration", directory.display()
    )]
    Taken {
        /// The directory.
        directory: PathBuf,
        /// What is mounted.
        what: String,
        /// What was to be mounted.
        dataset: DatasetName,
    },
    /// There is a file in the place of a directory.
    #[error("{} is in the way: it is not a directory", .0.display())]
    NoDirectory(PathBuf),
    /// The dataset is in use at another place.
    #[error(
        "{dataset} is mounted at {} and is to be at {}: stop what uses it and move it with \
         `zfs set mountpoint={} {dataset}`, or set its directory in the configuration",
        at.display(), wanted.display(), quote(&wanted.to_string_lossy())
    )]
    Elsewhere {
        /// The dataset.
        dataset: DatasetName,
        /// Where it is mounted.
        at: PathBuf,
        /// Where it should be.
        wanted: PathBuf,
    },
    /// A path that cannot be the value of a property.
    #[error("{} cannot be a mount point: it has to be absolute and UTF-8", .0.display())]
    NoMountpoint(PathBuf),
    /// What was copied is not what there was.
    #[error(
        "{} differs in the copy at {}: is something writing to it? Stop the server and run this again",
        file.display(), to.display()
    )]
    Differs {
        /// The file that differs.
        file: PathBuf,
        /// The copy.
        to: PathBuf,
    },
    /// Something that is neither file nor directory nor symbolic link.
    #[error("{} is a {kind}, which a cache does not have: move it away", path.display())]
    OddFile {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LayoutError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |path: &Path| quote(&path.to_string_lossy());
        match self {
            Self::Run(command) => command.fmt(formatter),
            Self::MakeDirectory(path) => write!(formatter, "mkdir -p {}", word(path)),
            Self::RemoveDirectory(path) => write!(formatter, "rmdir {}", word(path)),
            Self::Give(path, account) => {
                write!(formatter, "chown {}:{} {}", account.uid, account.gid, word(path))
            }
            Self::Copy { from, to, account } => {
                write!(formatter, "cp -a {}/. {}", word(from), word(to))?;
                match account {
                    Some(Account { uid, gid, .. }) => {
                        write!(formatter, " && chown -R {uid}:{gid} {}", word(to))
                    }
                    None => Ok(()),
                }
            }
            Self::Rename(from, to) => write!(formatter, "mv -T {} {}", word(from), word(to)),
        }
    }
}

/// Where a dataset is mounted while files are moved into it.
fn beside(directory: &Path) -> PathBuf {
    with_ending(directory, ".adopting")
}

/// What the directory is called once its files are in the dataset. No cache can have such a name.
fn aside(directory: &Path) -> PathBuf {
    with_ending(directory, ".before-zfs")
}

fn with_ending(directory: &Path, ending: &str) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
