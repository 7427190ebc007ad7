//! Where a store path may come from.

pub mod local;
