//! The files of certificates: whether one is still that which was read, and how one that is private is written.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// What tells a file from what was there before: which it is, how long, and when it was last changed.
/// Certificates are exchanged by renaming, by links (Kubernetes, NixOS) and by writing over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Option<[i128; 4]>);

impl Stamp {
    /// Of the file that is there now; links are followed.
    pub fn of(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok().map(|found| {
            let changed =
                i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec());
            [found.dev().into(), found.ino().into(), found.len().into(), changed]
        }))
    }
}

/// Puts a file there that only its owner can read, whole and durable, in the place of what is there.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let temporary = path.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}
