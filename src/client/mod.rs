//! What runs where paths are built: push, hook, spool, agent.

pub mod agent;
pub mod closure;
pub mod credentials;
mod daemon;
pub mod events;
pub mod export;
mod hold;
pub mod hook;
pub mod identity;
pub mod import;
pub mod netrc;
pub mod nix_conf;
pub mod notice;
pub mod origin;
pub mod progress;
pub mod push;
pub mod remote;
pub mod retry;
pub mod roots;
pub mod scrape;
pub mod spool;
#[cfg(test)]
mod testing;
pub mod upload;
pub mod window;
