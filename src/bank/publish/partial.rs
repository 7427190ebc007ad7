//! A file that somebody asked for, whole under its name or not there: it grows as `NAME.part`, and is gone on with.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::{io_error, sync_directory_of, system};
use crate::bank::BankError;

/// A file that grows.
pub struct Partial {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
}

impl Partial {
    /// Opens what there is of it, or begins it.
    pub fn open(target: &Path) -> Result<Self, BankError> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let temporary = target.with_file_name(name);
        let opened =
            File::options().read(true).write(true).create(true).truncate(false).open(&temporary);
        let file = opened.map_err(io_error(&temporary))?;
        Ok(Self { file, temporary, target: target.to_owned() })
    }

    /// The file, to be read and written.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, in the place of whatever has that. It is durable then.
    pub fn finish(self) -> Result<(), BankError> {
        system::sync(&self.file, &self.temporary).map_err(io_error(&self.temporary))?;
        system::rename_over(&self.temporary, &self.target).map_err(io_error(&self.target))?;
        // A name without a directory is in the one that we are in.
        match self.target.parent() {
            Some(parent) if parent.as_os_str().is_empty() => {
                let here = File::open(".").and_then(|directory| directory.sync_all());
                here.or_else(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => Ok(()),
                    _ => Err(io_error(Path::new("."))(error)),
                })
            }
            _ => sync_directory_of(&self.target),
        }
    }
}
