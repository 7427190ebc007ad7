//! The `snowbank` command.

use std::process::ExitCode;

use clap::Parser;
use snowbank::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snowbank: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
