//! The `snowbank` command.

use std::process::ExitCode;

use snowbank::cli;
use tikv_jemallocator::Jemalloc;

/// What hundreds of threads take and give back stays in the arena of each with glibc's: a third more memory under
/// the load of `bench/soak`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

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
