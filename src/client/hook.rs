//! Nix's `post-build-hook`: notes what was built, and is done.
//!
//! Nix waits for it with everything that depends on the build, and takes a failure as a reason to build
//! nothing more. So it talks to nobody, reads no configuration, starts no thread, and whatever is
//! wrong is for the caller to say and to pass over.
//!
//! The outputs are kept from the collector by symlinks in a directory of roots, named after the entry,
//! from before it is there until the agent has seen it acknowledged. Where the entry cannot be written
//! (the disk is full), the roots stay: an agent takes them for what is to be pushed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::hold;
use super::spool::{Entry, Spool};

/// What Nix tells its hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// `DRV_PATH`.
    pub drv: Option<String>,
    /// `OUT_PATHS`.
    pub outs: Vec<String>,
}

/// Why nothing was queued.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// We were not called by Nix.
    #[error("OUT_PATHS is not set; Nix sets it for its post-build-hook")]
    NoOutputs,
    /// Not what Nix would say.
    #[error("{0} does not hold store paths")]
    NotPaths(&'static str),
    /// The entry could not be written.
    #[error("cannot queue in {}: {source}; not queued: {outs}", directory.display())]
    Spool {
        /// The spool.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What is not queued.
        outs: String,
    },
}

impl Built {
    /// Reads the variables of the hook.
    pub fn from_environment(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, HookError> {
        let outs = lookup("OUT_PATHS").ok_or(HookError::NoOutputs)?;
        let outs = words("OUT_PATHS", &outs)?;
        if outs.is_empty() {
            return Err(HookError::NoOutputs);
        }
        let drv = lookup("DRV_PATH").map(|drv| words("DRV_PATH", &drv)).transpose()?;
        Ok(Self { drv: drv.and_then(|words| words.into_iter().next()), outs })
    }
}

fn words(name: &'static str, value: &OsStr) -> Result<Vec<String>, HookError> {
    let text = value.to_str().ok_or(HookError::NotPaths(name))?;
    let words: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
    if words.iter().all(|word| word.starts_with('/')) {
        Ok(words)
    } else {
        Err(HookError::NotPaths(name))
    }
}

/// Queues what was built. What could not be kept from the collector is given back as a warning.
pub fn run(built: Built, spool: &Spool, roots: &Path) -> Result<Option<String>, HookError> {
    let id = Spool::new_id();
    let held = hold::hold(roots, &id, &built.outs);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let outs = built.outs.join(" ");
    let entry = Entry { time, drv: built.drv, outs: built.outs };
    if let Err(source) = spool.append(&id, &entry) {
        return Err(HookError::Spool { directory: spool.directory().into(), source, outs });
    }
    Ok(held.err().map(|error| {
        let roots = roots.display();
        format!("queued, but not kept from a garbage collection: no root in {roots}: {error}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(outs: Option<&str>, drv: Option<&str>) -> Result<Built, HookError> {
        Built::from_environment(&|name: &str| match name {
            "OUT_PATHS" => outs.map(OsString::from),
            "DRV_PATH" => drv.map(OsString::from),
            _ => None,
        })
    }

    #[test]
    fn what_nix_says_is_read_and_what_it_would_not_say_is_refused() {
        let read = built(Some("/nix/store/a /nix/store/b"), Some("/nix/store/c.drv")).unwrap();
        assert_eq!(read.outs, ["/nix/store/a", "/nix/store/b"]);
        assert_eq!(read.drv.as_deref(), Some("/nix/store/c.drv"));
        assert!(matches!(built(None, None), Err(HookError::NoOutputs)));
        assert!(matches!(built(Some("  "), None), Err(HookError::NoOutputs)));
        assert!(matches!(built(Some("a"), None), Err(HookError::NotPaths("OUT_PATHS"))));
        let spaced = built(Some("/a\n/b"), None).unwrap();
        assert_eq!(spaced.outs, ["/a", "/b"], "no word can hold the end of a line");
    }

    #[test]
    fn an_output_is_queued_and_kept_until_it_is_released() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, roots) = (Spool::new(directory.path().join("s")), directory.path().join("r"));
        let built = built(Some("/nix/store/a /nix/store/b"), Some("/nix/store/c.drv")).unwrap();
        assert_eq!(run(built, &spool, &roots).unwrap(), None);
        let claim = spool.take(9, |_| false).unwrap().pop().unwrap();
        let entry = claim.entry.clone().unwrap();
        assert_eq!((entry.outs.len(), entry.drv.as_deref()), (2, Some("/nix/store/c.drv")));
        let mut targets: Vec<_> = std::fs::read_dir(&roots)
            .unwrap()
            .map(|link| std::fs::read_link(link.unwrap().path()).unwrap())
            .collect();
        targets.sort();
        assert_eq!(targets, [Path::new("/nix/store/a"), Path::new("/nix/store/b")]);
        hold::release(&roots, &claim.id, entry.outs.len());
        assert_eq!(std::fs::read_dir(&roots).unwrap().count(), 0);
    }

    #[test]
    fn roots_that_cannot_be_made_are_a_warning_and_a_spool_that_cannot_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (good, file) = (directory.path().join("s"), directory.path().join("file"));
        std::fs::write(&file, "x").unwrap();
        let one = || built(Some("/nix/store/a"), None).unwrap();
        let warning = run(one(), &Spool::new(good.clone()), &file.join("r")).unwrap().unwrap();
        assert!(warning.contains("queued, but"), "{warning}");
        let roots = directory.path().join("roots");
        let error = run(one(), &Spool::new(file.join("s")), &roots).unwrap_err().to_string();
        assert!(error.contains("not queued: /nix/store/a"), "{error}");
        assert_eq!(std::fs::read_dir(&roots).unwrap().count(), 1, "an agent will find it");
    }
}
