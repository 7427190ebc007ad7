//! What we have: derived from the truth on disk, and lost without loss.

pub mod presence;
