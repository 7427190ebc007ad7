//! What is done in the background to keep what there is.

pub mod collect;
pub mod destroy;
pub mod heal;
pub mod keepers;
pub mod probe;
pub mod release;
pub mod retention;
pub mod snapshots;
pub mod verify;
pub mod watch;
