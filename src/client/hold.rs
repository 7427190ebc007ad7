//! Roots that outlive the process that made them: symlinks in a directory below `gcroots`.
//!
//! `<roots>/<id of the entry>.<number>` points at an output. The collector follows what lies below
//! `gcroots`, so that nothing else need know of them.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A root that is younger may be of a hook that is about to write its entry.
const YOUNG: Duration = Duration::from_secs(60);

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

/// The roots that were there for a while before `now`: the ids of their entries, with the outputs.
pub(super) fn settled(roots: &Path, now: SystemTime) -> io::Result<BTreeMap<String, Vec<String>>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let links = match std::fs::read_dir(roots) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    for link in links {
        let link = link?;
        let name = link.file_name();
        let Some((id, _)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
        // One that goes meanwhile is none.
        let Ok(made) = link.metadata().and_then(|metadata| metadata.modified()) else { continue };
        let Ok(target) = std::fs::read_link(link.path()) else { continue };
        if now.duration_since(made).unwrap_or_default() >= YOUNG
            && let Some(out) = target.to_str()
        {
            found.entry(id.to_owned()).or_default().push(out.to_owned());
        }
    }
    Ok(found)
}

fn root(roots: &Path, id: &str, number: usize) -> PathBuf {
    roots.join(format!("{id}.{number}"))
}
