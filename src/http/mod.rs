//! HTTP: the listener, the routes, what goes wrong, and the bodies. One file an endpoint.

pub mod auth;
pub mod body;
pub mod cache_info;
pub mod error;
pub mod front;
pub mod holdings;
mod line;
pub mod listen;
pub mod nar;
pub mod narinfo;
pub mod objects;
pub mod pages;
pub mod push;
pub mod range;
pub mod router;
pub mod serve;
pub mod state;
pub mod status;
pub mod tree_body;
pub mod views;
