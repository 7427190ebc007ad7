//! The long-lived parts, built once.

use crate::config::Config;

/// Why the server could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The runtime could not be built.
    #[error("cannot start threads: {0}")]
    Runtime(#[source] std::io::Error),
}

/// Serves until it is told to stop.
pub fn run(config: Config) -> Result<(), AppError> {
    tracing::info!(data_dir = %config.data_dir.display(), "nothing is served yet");
    Ok(())
}
