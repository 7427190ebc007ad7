//! What is done in the background to keep what there is.

pub mod probe;
pub mod retention;
pub mod snapshots;
pub mod watch;
