//! A bank: a cache on disk, in the layout that `nix copy --to file://` writes.
//!
//! ```text
//! nix-cache-info            also the mark that the dataset is mounted
//! <hash>.narinfo            one a path
//! nar/<hash>.nar[.zst|…]    named by NarHash (ours) or FileHash (written by Nix itself)
//! <hash>.ls                 listing
//! log/<drv>                 build log
//! realisations/<id>.doi     before Nix 2.35       build-trace-v2/<drv>/<output>.doi   since
//! debuginfo/<build id>[.debug]
//! ```
//!
//! Every name that is opened is composed here from parsed values, so that no request can name a
//! file outside. A last component that is a symbolic link, or not a regular file, is not followed
//! but reported as damaged. Reading never holds a directory open: a dataset must stay unmountable.

mod opening;
pub mod publish;
mod snapshot;
pub mod stamp;

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::fault;
pub use crate::nix::build_id::BuildId;
use crate::nix::cache_info::{self, CacheInfo};
use crate::nix::nar_url::NarFileName;
use crate::nix::realisation::{BuildTraceKey, DrvOutput};
use crate::nix::store_path::{StoreDir, StorePath, StorePathHash};

pub use opening::{Mounting, is_mount_point};
pub use stamp::Stamp;

/// Where debug information lies in a bank, as Nix names it.
pub(in crate::bank) const DEBUG_INFO: &str = "debuginfo";

/// The largest of the small objects (narinfo, listing, realisation) that is read into memory.
pub const MAX_SMALL_OBJECT: u64 = 64 * 1024 * 1024;

/// A bank at its directory.
#[derive(Debug)]
pub struct Bank {
    root: PathBuf,
    info: CacheInfo,
    mounting: Mounting,
    takes_pushes: bool,
    /// Whether all that comes before the first use was done; see `opening`.
    is_ready: AtomicBool,
    opening: Mutex<opening::Checked>,
    unsettled: Mutex<publish::commit::Unsettled>,
}

/// How much room there is where a bank lies, in bytes, as its file system or its quota has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// What can still be written.
    pub available: u64,
    /// What could be written if nothing were there.
    pub total: u64,
}

/// Why a bank could not answer.
#[derive(Debug, thiserror::Error)]
pub enum BankError {
    /// The directory or its `nix-cache-info` is not there: not mounted, or removed.
    #[error("the bank at {0} is away (no nix-cache-info): is its dataset mounted?")]
    Away(PathBuf),
    /// Something else is at the directory than what must be mounted there.
    #[error("the bank at {root} is away: {why}")]
    NotMounted {
        /// The bank.
        root: PathBuf,
        /// What is there, and what should be.
        why: String,
    },
    /// The snapshot is there, and nothing of it can be seen.
    #[error(
        "the snapshot at {0} is not mounted where this process can see it: does its mount namespace \
         receive the mounts of the host?"
    )]
    SnapshotNotMounted(PathBuf),
    /// The bank holds another store directory's paths.
    #[error("the bank at {root} is for the store directory {theirs:?}, not {ours:?}")]
    OtherStoreDir {
        /// The bank.
        root: PathBuf,
        /// What its nix-cache-info says.
        theirs: String,
        /// What this server is for.
        ours: String,
    },
    /// There is something at the name, but not a regular file of a size that can be.
    #[error("{path} is {what}; set it aside or push the path again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Whether the system refused to write for want of room: a full file system, a quota, or a limit on
/// the size of files.
pub fn is_out_of_space(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Whether the system could not read what is on the disk, and would not a moment later: `EIO` is what ZFS
/// says of a block whose checksum is wrong in every copy; the others are what ext4, XFS and, inside,
/// ZFS call the same.
pub fn is_read_error(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let found = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(found, Some(Errno::IO | Errno::BADMSG | Errno::UCLEAN | Errno::BADE))
}

/// The objects of a bank besides narinfo and NAR.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    /// `<hash>.ls`
    Listing(StorePathHash),
    /// `log/<drv>`
    Log(StorePath),
    /// `realisations/<id>.doi`
    Realisation(DrvOutput),
    /// `build-trace-v2/<drv>/<output>.doi`
    BuildTrace(BuildTraceKey),
    /// `debuginfo/<build id>.debug`
    DebugInfo(BuildId),
}

impl Bank {
    /// The store directory that an existing bank at `root` says it is for.
    pub fn store_dir_at(root: &Path) -> Option<StoreDir> {
        let text = std::fs::read_to_string(root.join(cache_info::NAME)).ok()?;
        StoreDir::parse(cache_info::store_dir_of(&text)?).ok()
    }

    /// Reads whether the bank is for this store directory; one that says nothing is for any.
    pub fn check_store_dir(&self, ours: &StoreDir) -> Result<(), BankError> {
        match cache_info::store_dir_of(&self.read_mark()?) {
            Some(theirs) if theirs != ours.as_str() => Err(BankError::OtherStoreDir {
                root: self.root.clone(),
                theirs: theirs.into(),
                ours: ours.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// A bank that others keep, at `root`, whether it is there now or not: it is only read.
    pub fn of_others(root: PathBuf, info: CacheInfo) -> Self {
        let bank = Self::at(root, info, Mounting::Any, false);
        bank.is_ready.store(true, Ordering::Release);
        bank
    }

    /// Reads what it says of itself, by which it is known to be there.
    pub fn read_mark(&self) -> Result<String, BankError> {
        let marker = self.root.join(cache_info::NAME);
        let text = File::open(&marker).and_then(|mut file| {
            fault::reading(&file, 0..1)?;
            let mut text = String::new();
            file.read_to_string(&mut text).map(|_| text)
        });
        text.map_err(|source| BankError::Io { path: marker, source })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the bank is there, and a value that changes whenever a name in it does.
    pub fn stamp(&self) -> Result<Stamp, BankError> {
        self.make_ready()?;
        let stamp = Stamp::of(&self.root)?;
        self.check_mounted(stamp.device())?;
        Ok(stamp)
    }

    /// How much room there is.
    pub fn room(&self) -> Result<Room, BankError> {
        let found = rustix::fs::statvfs(&self.root)
            .map_err(|errno| BankError::Io { path: self.root.clone(), source: errno.into() })?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Room { available: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }

    /// Calls `each` with every path that has a narinfo, by reading names alone.
    pub fn scan(&self, mut each: impl FnMut(StorePathHash)) -> Result<(), BankError> {
        let io_error = |source| BankError::Io { path: self.root.clone(), source };
        for entry in std::fs::read_dir(&self.root).map_err(io_error)? {
            let name = entry.map_err(io_error)?.file_name();
            if let Some(hash) = narinfo_name(&name) {
                each(hash);
            }
        }
        Ok(())
    }

    /// How many bytes the NARs take, those that wait and unfinished ones included.
    pub fn bytes_used(&self) -> Result<u64, BankError> {
        let mut bytes = 0;
        // In the order in which a NAR moves, so that one that does meanwhile is not missed.
        for directory in [publish::UPLOADS, publish::PENDING, "nar"] {
            let directory = self.root.join(directory);
            let io_error = |source| BankError::Io { path: directory.clone(), source };
            let entries = match std::fs::read_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(io_error)?,
            };
            for entry in entries {
                let entry = entry.map_err(io_error)?;
                if publish::pending::is_beside_a_nar(&entry.path()) {
                    continue;
                }
                // What has gone since then takes nothing.
                bytes += entry.metadata().map_or(0, |found| found.len());
            }
        }
        Ok(bytes)
    }

    /// The text of a path's narinfo; `None` where there is none.
    pub fn read_narinfo(&self, hash: StorePathHash) -> Result<Option<Vec<u8>>, BankError> {
        self.read_small(&self.root.join(narinfo_file_name(hash)))
    }

    /// The same, and what its file is.
    pub fn look_at_narinfo(
        &self,
        hash: StorePathHash,
    ) -> Result<Option<(Vec<u8>, Metadata)>, BankError> {
        read_and_look(&self.root.join(narinfo_file_name(hash)))
    }

    /// A NAR's file, with its size in bytes; `None` where there is none.
    pub fn open_nar(&self, name: NarFileName) -> Result<Option<(File, u64)>, BankError> {
        self.open_regular(&self.root.join("nar").join(name.file_name()))
    }

    /// Whether there is debug information in it.
    pub fn has_debug_info(&self) -> bool {
        let found = std::fs::read_dir(self.root.join(DEBUG_INFO));
        // Where it cannot be read, there may be some.
        found.map_or_else(
            |error| error.kind() != io::ErrorKind::NotFound,
            |mut entries| entries.next().is_some(),
        )
    }

    /// Another object's file, with its name in the bank; `None` where there is none.
    pub fn open_object(&self, object: &Object) -> Result<Option<(String, File)>, BankError> {
        for relative in object.names() {
            if let Some((file, _)) = self.open_regular(&self.root.join(&relative))? {
                return Ok(Some((relative, file)));
            }
        }
        Ok(None)
    }

    /// Another object, whole; `None` where there is none.
    pub fn read_object(&self, object: &Object) -> Result<Option<Vec<u8>>, BankError> {
        for relative in object.names() {
            if let Some(bytes) = self.read_small(&self.root.join(relative))? {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    pub(in crate::bank) fn read_small(&self, path: &Path) -> Result<Option<Vec<u8>>, BankError> {
        Ok(read_and_look(path)?.map(|(bytes, _)| bytes))
    }

    pub(in crate::bank) fn open_regular(
        &self,
        path: &Path,
    ) -> Result<Option<(File, u64)>, BankError> {
        open_regular(path)
    }
}

/// What a file takes on disk, in bytes, as its file system counts it; nothing where it is not there.
pub fn bytes_on_disk(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).as_ref().map_or(0, blocks_of)
}

/// The same of a file that was looked at already.
pub fn blocks_of(file: &Metadata) -> u64 {
    // By stat(2), of 512 bytes whatever the file system's own blocks are.
    file.blocks() * 512
}

/// Opens a regular file for reading without following a link at its name; `None` where there is
/// none.
pub fn open_regular(path: &Path) -> Result<Option<(File, u64)>, BankError> {
    Ok(open_and_look(path)?.map(|(file, found)| (file, found.len())))
}

/// The same, with all that its inode says.
fn open_and_look(path: &Path) -> Result<Option<(File, Metadata)>, BankError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => {
            return Err(BankError::Damaged { path: path.into(), what: "a symbolic link" });
        }
        Err(errno) => return Err(BankError::Io { path: path.into(), source: errno.into() }),
    };
    let metadata = file.metadata().map_err(|source| BankError::Io { path: path.into(), source })?;
    if !metadata.is_file() {
        return Err(BankError::Damaged { path: path.into(), what: "not a regular file" });
    }
    Ok(Some((file, metadata)))
}

/// Reads a small file whole; `None` where there is none.
fn read_and_look(path: &Path) -> Result<Option<(Vec<u8>, Metadata)>, BankError> {
    let Some((file, metadata)) = open_and_look(path)? else { return Ok(None) };
    let size = metadata.len();
    if size > MAX_SMALL_OBJECT {
        return Err(BankError::Damaged { path: path.into(), what: "larger than it can be" });
    }
    let io = |source| BankError::Io { path: path.into(), source };
    fault::reading(&file, 0..size).map_err(io)?;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(MAX_SMALL_OBJECT).read_to_end(&mut bytes).map_err(io)?;
    Ok(Some((bytes, metadata)))
}

/// The name of a path's narinfo in a bank.
pub fn narinfo_file_name(hash: StorePathHash) -> String {
    format!("{hash}.narinfo")
}

/// The path that a narinfo of this file name is of.
fn narinfo_name(name: &OsStr) -> Option<StorePathHash> {
    let name = name.as_bytes().strip_suffix(b".narinfo")?;
    StorePathHash::parse(std::str::from_utf8(name).ok()?)
}

impl Object {
    /// The names, relative to the bank, that the object may have, best first.
    pub(in crate::bank) fn names(&self) -> Vec<String> {
        match self {
            Self::Listing(hash) => vec![format!("{hash}.ls")],
            Self::Log(derivation) => vec![format!("log/{derivation}")],
            Self::Realisation(id) => vec![format!("realisations/{id}.doi")],
            Self::BuildTrace(key) => {
                let BuildTraceKey { derivation, output } = key;
                vec![format!("build-trace-v2/{derivation}/{}.doi", output.as_str())]
            }
            // Nix before 2.36 writes the name without its ending.
            Self::DebugInfo(id) => {
                vec![format!("{DEBUG_INFO}/{id}.debug"), format!("{DEBUG_INFO}/{id}")]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> CacheInfo {
        CacheInfo { store_dir: StoreDir::default(), want_mass_query: true, priority: 30 }
    }

    fn hash() -> StorePathHash {
        StorePathHash::parse("7rjj86a50146dq4pd5h2fyvnnwxk9m0a").unwrap()
    }

    #[test]
    fn a_new_bank_is_a_binary_cache_and_opens_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("default");
        Bank::open(root.clone(), &info()).unwrap();
        let bank = Bank::open(root.clone(), &info()).unwrap();
        assert!(
            std::fs::read_to_string(root.join("nix-cache-info")).unwrap().contains("/nix/store")
        );
        assert!(bank.stamp().is_ok());
        assert_eq!(bank.read_narinfo(hash()).unwrap(), None);
    }

    #[test]
    fn a_bank_of_another_store_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("nix-cache-info"), "StoreDir: /gnu/store\n").unwrap();
        let error = Bank::open(directory.path().into(), &info()).unwrap_err();
        assert!(matches!(error, BankError::OtherStoreDir { .. }), "{error}");
    }

    #[test]
    fn a_bank_whose_mark_is_gone_is_away() {
        let directory = tempfile::tempdir().unwrap();
        let bank = Bank::open(directory.path().join("x"), &info()).unwrap();
        std::fs::remove_file(bank.root().join("nix-cache-info")).unwrap();
        assert!(matches!(bank.stamp(), Err(BankError::Away(_))));
    }

    #[test]
    fn a_link_or_a_directory_in_the_place_of_a_file_is_damaged_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let bank = Bank::open(directory.path().join("x"), &info()).unwrap();
        let name = bank.root().join(format!("{}.narinfo", hash()));
        std::os::unix::fs::symlink("/etc/passwd", &name).unwrap();
        assert!(matches!(bank.read_narinfo(hash()), Err(BankError::Damaged { .. })));
        std::fs::remove_file(&name).unwrap();
        std::fs::create_dir(&name).unwrap();
        assert!(matches!(bank.read_narinfo(hash()), Err(BankError::Damaged { .. })));
    }

    #[test]
    fn a_scan_finds_narinfos_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let bank = Bank::open(directory.path().join("x"), &info()).unwrap();
        for name in [&*format!("{}.narinfo", hash()), "x.narinfo", "y", &format!("{}.ls", hash())] {
            std::fs::write(bank.root().join(name), "").unwrap();
        }
        let mut found = Vec::new();
        bank.scan(|hash| found.push(hash)).unwrap();
        assert_eq!(found, [hash()]);
    }
}
