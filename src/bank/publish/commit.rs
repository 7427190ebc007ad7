//! Making paths visible whose NARs are here.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use super::{
    PENDING, Published, Staged, entries, io_error, make_directory, make_push_directories, remove,
    sweep, sync_directory, system,
};
use crate::bank::{Bank, BankError, BuildId, DEBUG_INFO, Object};
use crate::nix::hash::Sha256;
use crate::nix::nar_url::NarFileName;
use crate::nix::store_path::StorePathHash;

/// A path that is to become visible, checked in every respect by the caller.
#[derive(Clone, Debug)]
pub struct NewPath {
    /// Which path.
    pub hash: StorePathHash,
    /// Its narinfo, as it is to be read.
    pub narinfo: String,
    /// The NAR that waits and the name that it gets. What has that name already stays, unless it is
    /// to be replaced.
    pub nar: (NarFileName, NarFileName),
    /// The debug information that it holds, and the JSON that says where.
    pub debug_info: Vec<(BuildId, String)>,
    /// Whether what is there under these names is damaged, and to be replaced.
    pub replace: bool,
}

/// What a start had to do.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Commits that were finished.
    pub commits: u64,
    /// Files that were removed.
    pub removed: u64,
}

/// What a journal says of a path: [`NewPath`] in words that outlive a release.
#[derive(Serialize, Deserialize)]
struct Entry {
    hash: StorePathHash,
    narinfo: String,
    nar: (String, String),
    debug_info: Vec<(String, String)>,
    replace: bool,
}

/// A journal, of format 1.
#[derive(Serialize, Deserialize)]
struct Journal {
    format: u32,
    paths: Vec<Entry>,
}

const JOURNAL_FORMAT: u32 = 1;

/// What a failure left, to be made good for before anything else is published.
#[derive(Debug, Default)]
pub(in crate::bank) struct Unsettled {
    /// Commits that are decided and not done.
    journals: Vec<PathBuf>,
    /// Whether names were given that are not durable.
    sync: bool,
}

impl Bank {
    /// Makes the directories that only a bank that is pushed to needs.
    pub fn prepare_for_pushes(&self) -> Result<(), BankError> {
        make_push_directories(self.root())?;
        // These, and what a process that was killed had given a name and not synced: from here on
        // what is found present may be acknowledged.
        self.sync_all()
    }

    /// Finishes or removes what an earlier process left. Only for a start, before anything is served.
    pub fn recover(&self) -> Result<Recovered, BankError> {
        let mut recovered = Recovered { commits: 0, removed: sweep(self.root())? };
        for journal in self.journals()? {
            self.finish_journal(&journal)?;
            recovered.commits += 1;
        }
        recovered.removed += self.remove_orphans()?;
        Ok(recovered)
    }

    /// Makes good for what a failure left. Says whether paths became visible by it.
    pub fn settle(&self) -> Result<bool, BankError> {
        let mut left = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut published = false;
        while let Some(journal) = left.journals.last() {
            if journal.exists() {
                self.finish_journal(journal)?;
                published = true;
            }
            left.journals.pop();
        }
        if left.sync {
            self.sync_all()?;
            left.sync = false;
        }
        Ok(published)
    }

    /// Whether no commit is decided and not done.
    pub(super) fn is_undecided(&self) -> bool {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).journals.is_empty()
    }

    /// Remembers that something failed half way.
    fn noting<T>(&self, result: Result<T, BankError>) -> Result<T, BankError> {
        if result.is_err() {
            self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).sync = true;
        }
        result
    }

    /// Makes one path visible, whose NAR is durable.
    pub fn publish_path(&self, path: &NewPath) -> Result<(), BankError> {
        let publish = || {
            let paths = std::slice::from_ref(path);
            self.place_nars(paths)?;
            sync_directory(&self.root().join("nar"))?;
            self.apply(paths, false)
        };
        self.noting(publish())
    }

    /// Makes paths visible, all or none, in the order given. Their NARs need not be durable.
    pub fn commit(&self, paths: &[NewPath]) -> Result<(), BankError> {
        if paths.iter().any(|path| path.replace) {
            // A narinfo names it already: not for a moment may it have that name without its bytes.
            self.sync_all()?;
        }
        self.place_nars(paths)?;
        self.sync_all()?;
        let staged = Staged::create(self.root())?;
        let name = staged.temporary.file_stem().unwrap_or_default().to_string_lossy();
        let journal = self.root().join(PENDING).join(format!("{name}.journal"));
        staged.write(&write_journal(paths))?;
        let publish = || {
            staged.publish_over(&journal)?;
            self.apply(paths, true)?;
            self.finish(&journal)
        };
        publish().inspect_err(|_| {
            let mut left = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
            left.journals.push(journal.clone());
            left.sync = true;
        })
    }

    /// Puts another narinfo in the place of a path's, with the same facts and more signatures.
    pub fn replace_narinfo(&self, hash: StorePathHash, narinfo: &str) -> Result<(), BankError> {
        let staged = Staged::create(self.root())?;
        staged.write(narinfo.as_bytes())?;
        self.noting(staged.publish_over(&self.narinfo_file(hash)))
    }

    /// Publishes another object; with `replace`, in the place of the one that is there.
    pub fn publish_object(
        &self,
        object: &Object,
        bytes: &[u8],
        replace: bool,
    ) -> Result<Published, BankError> {
        let name = self.object_file(object);
        if let Some(directory) = name.parent()
            && !directory.exists()
        {
            make_directory(directory)?;
            self.noting(sync_directory(directory.parent().unwrap_or(self.root())))?;
        }
        let staged = Staged::create(self.root())?;
        staged.write(bytes)?;
        self.noting(if replace {
            staged.publish_over(&name).map(|()| Published::New)
        } else {
            staged.publish(&name)
        })
    }

    /// Finishes a commit that was decided.
    fn finish_journal(&self, journal: &Path) -> Result<(), BankError> {
        let damaged = |path: &Path, what| BankError::Damaged { path: path.into(), what };
        let text = self.read_small(journal)?.unwrap_or_default();
        // Published whole or not at all, so one that does not read is not ours to remove.
        let paths = read_journal(&text).ok_or_else(|| damaged(journal, "not a journal"))?;
        for path in &paths {
            if self.open_nar(path.nar.1)?.is_none() {
                return Err(damaged(journal, "a journal that names a NAR which is not there"));
            }
        }
        self.apply(&paths, true)?;
        self.finish(journal)
    }

    fn place_nars(&self, paths: &[NewPath]) -> Result<(), BankError> {
        paths.iter().try_for_each(|path| self.place_nar(path.nar.0, path.nar.1, path.replace))
    }

    /// Does what makes `paths` visible, whose NARs are in their place; may be done again after any
    /// part of it was done.
    ///
    /// With a journal behind it nothing is durable yet when it is over, and everything has to be
    /// taken for lost: each file is written anew.
    fn apply(&self, paths: &[NewPath], has_journal: bool) -> Result<(), BankError> {
        for path in paths {
            self.place_listing(path.nar.0, path.hash, path.replace)?;
            for (id, text) in &path.debug_info {
                let staged = Staged::create(self.root())?;
                staged.write(text.as_bytes())?;
                let name = self.object_file(&Object::DebugInfo(id.clone()));
                // Any file of a build ID is as good as the first, which may have lost its content.
                if has_journal {
                    staged.rename_over(&name)?;
                    continue;
                }
                staged.sync()?;
                let (Published::New | Published::AlreadyThere) = staged.rename(&name)?;
            }
        }
        for path in paths {
            let staged = Staged::create(self.root())?;
            staged.write(path.narinfo.as_bytes())?;
            if !has_journal {
                staged.sync()?;
            }
            staged.rename_over(&self.narinfo_file(path.hash))?;
        }
        if !has_journal {
            if paths.iter().any(|path| !path.debug_info.is_empty()) {
                sync_directory(&self.root().join(DEBUG_INFO))?;
            }
            sync_directory(self.root())?;
        }
        // The NAR as well: after a failure somebody may have sent it again.
        paths.iter().try_for_each(|path| self.remove_pending(path.nar.0))
    }

    /// Makes durable what was applied, and lets go of the journal.
    fn finish(&self, journal: &Path) -> Result<(), BankError> {
        self.sync_all()?;
        remove(journal)?;
        sync_directory(&self.root().join(PENDING))
    }

    fn place_nar(
        &self,
        from: NarFileName,
        to: NarFileName,
        replace: bool,
    ) -> Result<(), BankError> {
        let (from, to) = (self.pending_nar(from), self.root().join("nar").join(to.file_name()));
        let renamed =
            if replace { system::rename_over(&from, &to) } else { system::rename_new(&from, &to) };
        match renamed {
            Ok(()) => Ok(()),
            // Another path has brought the same NAR, which is as good.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => remove(&from),
            // It was placed for another path of this commit.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && to.exists() => Ok(()),
            Err(error) => Err(io_error(&to)(error)),
        }
    }

    fn place_listing(
        &self,
        from: NarFileName,
        hash: StorePathHash,
        replace: bool,
    ) -> Result<(), BankError> {
        let (from, to) = (self.pending_part(from, "ls"), self.object_file(&Object::Listing(hash)));
        if replace {
            remove(&to)?;
        }
        // A link: another path of the same commit may have the same NAR, and so the same listing.
        match system::link(&from, &to) {
            // There is none; or it was placed before a crash.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::AlreadyExists
                ) =>
            {
                Ok(())
            }
            other => other.map_err(io_error(&to)),
        }
    }

    fn sync_all(&self) -> Result<(), BankError> {
        system::sync_file_system(self.root()).map_err(io_error(self.root()))
    }

    pub(super) fn journals(&self) -> Result<Vec<PathBuf>, BankError> {
        let mut found = entries(&self.root().join(PENDING))?;
        found.retain(|path| path.extension().is_some_and(|ending| ending == "journal"));
        found.sort_unstable();
        Ok(found)
    }

    fn narinfo_file(&self, hash: StorePathHash) -> PathBuf {
        self.root().join(format!("{hash}.narinfo"))
    }

    /// The file that an object is written to: the first of its names.
    fn object_file(&self, object: &Object) -> PathBuf {
        self.root().join(object.names().swap_remove(0))
    }
}

fn write_journal(paths: &[NewPath]) -> Vec<u8> {
    let name = |name: NarFileName| name.file_name();
    let entry = |path: &NewPath| Entry {
        hash: path.hash,
        narinfo: path.narinfo.clone(),
        nar: (name(path.nar.0), name(path.nar.1)),
        debug_info: path
            .debug_info
            .iter()
            .map(|(id, text)| (id.as_str().to_owned(), text.clone()))
            .collect(),
        replace: path.replace,
    };
    let journal = Journal { format: JOURNAL_FORMAT, paths: paths.iter().map(entry).collect() };
    // Strings and numbers only: there is nothing in it that JSON cannot hold.
    let text = serde_json::to_vec(&journal).unwrap_or_default();
    [Sha256::of(&text).to_nix32().as_bytes(), b"\n", &text].concat()
}

fn read_journal(text: &[u8]) -> Option<Vec<NewPath>> {
    // Its hash comes first: what is published from it was checked before it was written.
    let (hash, text) = text.split_at_checked(text.iter().position(|byte| *byte == b'\n')?)?;
    let text = text.get(1..)?;
    if Sha256::of(text).to_nix32().as_bytes() != hash {
        return None;
    }
    let journal: Journal = serde_json::from_slice(text).ok()?;
    if journal.format != JOURNAL_FORMAT {
        return None;
    }
    let nar =
        |(from, to): (String, String)| Some((NarFileName::parse(&from)?, NarFileName::parse(&to)?));
    let path = |entry: Entry| {
        let debug_info = entry.debug_info.into_iter();
        Some(NewPath {
            hash: entry.hash,
            narinfo: entry.narinfo,
            nar: nar(entry.nar)?,
            debug_info: debug_info
                .map(|(id, text)| Some((BuildId::parse(&id)?, text)))
                .collect::<Option<_>>()?,
            replace: entry.replace,
        })
    };
    journal.paths.into_iter().map(path).collect()
}
