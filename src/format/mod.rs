//! First-boot formatting: disks, partitions, the pool, its datasets and ext4 volumes, from one file.
//!
//! [`layout`] is what should be, [`facts`] what is, as [`inspect`] finds it; [`plan`](mod@plan)
//! compares them and says what has to be done, or why it will not be; [`apply`](mod@apply) does it and
//! looks again.
//!
//! What is promised:
//!
//! - A disk with anything on it that the layout does not name is never touched, unless it was said so
//!   by its name; and what cannot be read, or is not there, is never taken for blank.
//! - A pool that is there is imported, never made anew. `zpool create` is never given `-f`.
//! - Nothing is recorded in files: what was done is told by the partition table, the pool and its
//!   properties. A second run finds nothing to do; one that was killed is completed by the next.
//! - Nothing is mounted over a directory that has something in it.

pub mod apply;
pub mod facts;
pub mod inspect;
pub mod layout;
pub mod lock;
pub mod mark;
pub mod move_nix;
pub mod placement;
pub mod plan;
pub mod step;
