//! What pushes: stock Nix by `PUT`, and our own client by the native API.

mod answer;
mod body;
mod native;
mod pins;
mod slots;
mod stock;

pub use native::routes as native_routes;
pub use slots::UploadSlots;
pub(super) use stock::{
    put_build_trace, put_by_ending, put_debug_info, put_log, put_nar, put_realisation,
};
