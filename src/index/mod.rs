//! What we have, derived from the truth on disk and lost without loss; and what is known beside it:
//! tokens, and who pushed what.

pub mod holdings;
pub mod path_set;
pub mod places;
pub mod presence;
pub mod state;
pub mod uses;
