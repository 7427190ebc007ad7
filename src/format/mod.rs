//! First-boot formatting: disks, partitions, the pool, its datasets and ext4 volumes, from one file.
//!
//! [`layout`] is what should be, [`facts`] what is; [`plan`] compares them and says what has to be
//! done, or why it will not be.

pub mod facts;
pub mod layout;
pub mod mark;
pub mod placement;
pub mod plan;
pub mod step;
