//! The `snowbank` command.

fn main() {}
