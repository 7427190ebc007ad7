//! What is wrong with a configuration, in one line.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(&'static str),
    /// A flag of the command line.
    Flag(&'static str),
}

/// A configuration that cannot be used. Each message is one line that names the place, the key, the
/// value and what is allowed; the command then exits with 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named cannot be read.
    #[error("{}: cannot read the configuration: {source}", file.display())]
    Unreadable {
        /// The file as it was named.
        file: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// Not TOML.
    #[error("{}:{line}: not valid TOML: {message}", file.display())]
    Syntax {
        /// The file as it was named.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser says, without its drawing of the line.
        message: String,
    },
    /// A key that nothing reads, most often a slip of the pen.
    #[error("{origin}: {key} is not a setting; {hint}")]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The whole key, with dots.
        key: String,
        /// The closest known key, or where to find them all.
        hint: String,
    },
    /// A value that is not allowed.
    #[error("{origin}: {key} = {value}: {expected}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The whole key, with dots.
        key: String,
        /// The value as TOML, shortened.
        value: String,
        /// What is allowed.
        expected: String,
    },
    /// No data directory was given, and there is no home to put one into.
    #[error(
        "data_dir: no directory is set and HOME is empty: set data_dir, SNOWBANK_DATA_DIR or --data-dir"
    )]
    NoHome,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Environment(name) | Self::Flag(name) => formatter.write_str(name),
        }
    }
}
