//! The `snowbank` command.

use std::process::ExitCode;

use snowbank::cli;

fn main() -> ExitCode {
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snowbank: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
