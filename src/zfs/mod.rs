//! ZFS, through the programs `zfs` and `zpool`: datasets, snapshots, streams, pools.
//!
//! The only module that starts processes. It links no libzfs, whose interface is not stable, and it
//! knows nothing of Nix. What it promises:
//!
//! - Names are checked types ([`name`]), arguments go to the program as they are, and no shell reads
//!   them; only `ssh` has one at its far end, for which they are quoted.
//! - Every command has a deadline and its output a limit. One that ignores even SIGKILL, because its
//!   pool has lost its devices, is abandoned and counted; see [`error::MAX_ABANDONED`].
//! - What is printed is parsed strictly: something unexpected is [`ZfsError::Unreadable`], never a
//!   guess and never a panic. No decision hangs on the wording of a message.
//! - OpenZFS 2.1 to 2.4: `-Hp` columns where all versions print the same, JSON for `zpool status`
//!   from 2.3 on.
//!
//! Everything here blocks. Async code calls it on a blocking thread.

pub mod account;
pub mod arc;
pub mod command;
pub mod dataset;
pub mod delegation;
pub mod disk;
pub mod error;
pub mod handle;
pub mod layout;
pub mod maker;
pub mod mounts;
pub mod name;
pub mod pool;
mod process;
pub mod properties;
pub mod property;
pub mod replicate;
pub mod snapshot;
pub mod ssh;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod text;
pub mod version;

pub use self::command::{Command, Program};
pub use self::error::ZfsError;
pub use self::handle::Zfs;
pub use self::name::{
    Bookmark, DatasetName, HoldTag, NameError, PoolName, Snapshot, SnapshotName, UserName,
};
pub use self::ssh::SshTarget;
pub use self::text::Ratio;
