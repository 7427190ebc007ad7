//! What runs where paths are built: push, hook, spool, agent.

pub mod closure;
pub mod credentials;
mod daemon;
pub mod remote;
pub mod retry;
pub mod roots;
#[cfg(test)]
mod testing;
