//! Roots that outlive the process that made them: symlinks in a directory below `gcroots`.
//!
//! `<roots>/<id of the entry>.<number>` points at an output. The collector follows what lies below
//! `gcroots`, so that nothing else need know of them.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Makes the roots of an entry.
pub(super) fn hold(roots: &Path, id: &str, outs: &[String]) -> io::Result<()> {
    for (number, out) in outs.iter().enumerate() {
        let link = root(roots, id, number);
        match std::os::unix::fs::symlink(out, &link) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o755).create(roots)?;
                std::os::unix::fs::symlink(out, &link)?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Removes the roots of an entry; one that cannot be removed keeps its path, which is no harm but
/// space, and is given back.
pub(super) fn release(roots: &Path, id: &str, outs: usize) -> Option<io::Error> {
    let removed = (0..outs).map(|number| std::fs::remove_file(root(roots, id, number)));
    removed.filter_map(Result::err).find(|error| error.kind() != ErrorKind::NotFound)
}

fn root(roots: &Path, id: &str, number: usize) -> PathBuf {
    roots.join(format!("{id}.{number}"))
}
