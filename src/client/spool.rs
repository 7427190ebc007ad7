//! The queue between builds and uploads: a directory, one file an entry.
//!
//! ```text
//! <spool>/<id>.entry          waits, or is being pushed (then an agent holds a lock on it)
//! <spool>/.<id>.new           being written
//! <spool>/parked/<id>.entry   could not be pushed, and is not tried again by itself
//! <spool>/parked/<id>.reason  why, in one line
//! <spool>/last-error          why the agent's last try failed; gone after one that went well
//! ```
//!
//! An id is `<nanoseconds since 1970, 20 digits>-<process>-<random>`, so that names sort by age. An
//! entry is text, and nobody need have more than a text editor to repair it:
//!
//! ```text
//! snowbank-spool 1
//! time 1764000000
//! drv /nix/store/…-hello.drv
//! out /nix/store/…-hello
//! end
//! ```
//!
//! The first line has the version of the format; `drv` may be missing, `out` may come many times,
//! `end` says that it is whole. How nothing is lost:
//!
//! 1. an entry is written under a name that no agent looks at, and fsynced;
//! 2. it is renamed to its own name, and the directory fsynced; from here on it survives a power cut.
//!    After a crash before this an agent finds the `.new`: whole, it is renamed; torn, it is parked;
//! 3. an agent that takes it holds `flock` on it, which goes with the agent, however that ends;
//! 4. the entry is removed when the server has acknowledged all of it, or moved to `parked/`, the
//!    reason first.
//!
//! What does not read as an entry is parked with that as its reason: it neither stops anybody nor is
//! it dropped.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;

use crate::fault;

/// The first line of an entry.
const HEADER: &str = "snowbank-spool 1";
/// The longest entry: the environment that it comes from is not longer.
const MAX_ENTRY: u64 = 4 << 20;
/// How old a `.new` is before it is taken for one whose writer died.
const ABANDONED: Duration = Duration::from_secs(60);
const PARKED: &str = "parked";
const LAST_ERROR: &str = "last-error";

/// What is to be pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was put in, in seconds since 1970.
    pub time: u64,
    /// The derivation that was built.
    pub drv: Option<String>,
    /// What was built; at least one.
    pub outs: Vec<String>,
}

/// The directory.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
}

/// An entry that is ours until this is dropped.
#[derive(Debug)]
pub struct Claim {
    /// Its id.
    pub id: String,
    /// What it holds, or why that is nothing.
    pub entry: Result<Entry, String>,
    /// Has the lock.
    _file: File,
}

/// An entry as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// What it holds, or why that is nothing.
    pub entry: Result<Entry, String>,
    /// Since when, in seconds since 1970.
    pub time: u64,
    /// Where it stands.
    pub state: EntryState,
}

/// Where an entry stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// Nobody has taken it.
    Waiting,
    /// An agent has.
    Taken,
    /// It is not tried again by itself, for this reason.
    Parked(String),
}

impl Entry {
    /// The text of the entry.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\ntime {}\n", self.time);
        for (word, value) in
            self.drv.iter().map(|drv| ("drv", drv)).chain(self.outs.iter().map(|out| ("out", out)))
        {
            text += &format!("{word} {value}\n");
        }
        text + "end\n"
    }

    /// Reads the text of an entry.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not text".to_owned())?;
        let Some(body) = text.strip_suffix("end\n") else {
            return Err("it is torn: its last line is missing".into());
        };
        let mut lines = body.lines();
        match lines.next() {
            Some(HEADER) => {}
            Some(line) if line.starts_with("snowbank-spool ") => {
                return Err(format!(
                    "it is of a format that this snowbank does not know: {line:?}"
                ));
            }
            _ => return Err("it does not begin as an entry does".into()),
        }
        let mut entry = Self { time: 0, drv: None, outs: Vec::new() };
        for line in lines {
            let bad = || format!("it has a line that makes no sense: {line:?}");
            let (word, value) = line.split_once(' ').ok_or_else(bad)?;
            match word {
                "time" => entry.time = value.parse().map_err(|_| bad())?,
                "drv" => entry.drv = Some(value.to_owned()),
                "out" if !value.is_empty() => entry.outs.push(value.to_owned()),
                _ => return Err(bad()),
            }
        }
        if entry.outs.is_empty() { Err("it names no path".into()) } else { Ok(entry) }
    }
}

impl Spool {
    /// The spool at `directory`; nothing is touched.
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directories, if they are not there.
    pub fn prepare(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(self.directory.join(PARKED))
    }

    /// A name for a new entry.
    pub fn new_id() -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let random = super::retry::random();
        format!("{:020}-{}-{random:08x}", now.as_nanos(), std::process::id())
    }

    /// Puts an entry in, durably.
    pub fn append(&self, id: &str, entry: &Entry) -> io::Result<()> {
        let new = self.directory.join(format!(".{id}.new"));
        let open = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o644).open(&new)
        };
        let mut file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.prepare()?;
                open()?
            }
            other => other?,
        };
        let written = (|| {
            fault::point("spool.write")?;
            file.write_all(entry.to_text().as_bytes())?;
            fault::point("spool.fsync")?;
            file.sync_all()?;
            fault::point("spool.rename")?;
            std::fs::rename(&new, self.waiting(id))?;
            fault::point("spool.directory")?;
            sync(&self.directory)
        })();
        if written.is_err() {
            // Half an entry on a full disk helps nobody. If it was renamed already it stays.
            let _ = std::fs::remove_file(&new);
        }
        written
    }

    /// Takes the oldest entries that nobody has, but for those that `skip` names.
    pub fn take(&self, most: usize, skip: impl Fn(&str) -> bool) -> io::Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for id in ids(&self.directory)? {
            if claims.len() == most {
                break;
            }
            if skip(&id) {
                continue;
            }
            claims.extend(self.claim(&id)?);
        }
        Ok(claims)
    }

    /// Takes one entry, unless somebody else has it or it is gone.
    pub fn claim(&self, id: &str) -> io::Result<Option<Claim>> {
        let path = self.waiting(id);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        // Whoever had it before may have removed it, between our opening and our lock.
        if file.metadata()?.nlink() == 0 || !is_same(&file, &path) {
            return Ok(None);
        }
        let entry = read(&mut file);
        Ok(Some(Claim { id: id.to_owned(), entry, _file: file }))
    }

    /// Removes an entry that was acknowledged.
    pub fn acknowledge(&self, claim: Claim) -> io::Result<()> {
        std::fs::remove_file(self.waiting(&claim.id))?;
        sync(&self.directory)
    }

    /// Lays an entry aside, with the reason.
    pub fn park(&self, claim: Claim, reason: &str) -> io::Result<()> {
        let parked = self.parked();
        self.prepare()?;
        let line: String = reason.replace('\n', " ").chars().take(2000).collect();
        self.replace(&parked.join(format!("{}.reason", claim.id)), &format!("{line}\n"))?;
        std::fs::rename(self.waiting(&claim.id), parked.join(format!("{}.entry", claim.id)))?;
        sync(&parked)?;
        sync(&self.directory)
    }

    /// Has a parked entry tried again; says whether there was one.
    pub fn retry(&self, id: &str) -> io::Result<bool> {
        let parked = self.parked();
        match std::fs::rename(parked.join(format!("{id}.entry")), self.waiting(id)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            other => other?,
        }
        sync(&self.directory)?;
        remove(&parked.join(format!("{id}.reason")))?;
        sync(&parked)?;
        Ok(true)
    }

    /// Everything, the waiting before the parked, each the oldest first.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for id in ids(&self.directory)? {
            let Ok(mut file) = File::open(self.waiting(&id)) else { continue };
            // Asking for a lock beside others says whether somebody has it alone.
            let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err();
            let state = if taken { EntryState::Taken } else { EntryState::Waiting };
            listed.push(Listed::new(id, read(&mut file), state));
        }
        for id in ids(&self.parked())? {
            let Ok(mut file) = File::open(self.parked().join(format!("{id}.entry"))) else {
                continue;
            };
            let reason = std::fs::read_to_string(self.parked().join(format!("{id}.reason")));
            let reason =
                reason.map_or_else(|_| "no reason is known".into(), |text| text.trim().into());
            listed.push(Listed::new(id, read(&mut file), EntryState::Parked(reason)));
        }
        Ok(listed)
    }

    /// The ids of all entries, the parked ones too.
    pub fn known(&self) -> io::Result<HashSet<String>> {
        Ok(ids(&self.directory)?.into_iter().chain(ids(&self.parked())?).collect())
    }

    /// How many wait, how many are parked, and since when the oldest waits.
    pub fn depth(&self) -> io::Result<(usize, usize, Option<u64>)> {
        let waiting = ids(&self.directory)?;
        let oldest = waiting.first().map(|id| time_of(id));
        Ok((waiting.len(), ids(&self.parked())?.len(), oldest))
    }

    /// Looks after entries whose writer died. Whole, they are queued; torn, they are parked.
    pub fn adopt(&self, now: SystemTime) -> io::Result<usize> {
        let mut adopted = 0;
        for name in names(&self.directory)? {
            let id = name.strip_prefix('.').and_then(|name| name.strip_suffix(".new"));
            let Some(id) = id else { continue };
            let path = self.directory.join(&name);
            let Ok(mut file) = File::open(&path) else { continue };
            let written = file.metadata()?.modified()?;
            if now.duration_since(written).unwrap_or_default() < ABANDONED {
                continue;
            }
            let torn = read(&mut file).is_err();
            file.sync_all()?;
            std::fs::rename(&path, self.waiting(id))?;
            sync(&self.directory)?;
            if torn && let Some(claim) = self.claim(id)? {
                self.park(
                    claim,
                    "it is torn: its writer died, and the build's output may be missing",
                )?;
            }
            adopted += 1;
        }
        Ok(adopted)
    }

    /// Keeps or forgets why the last try failed, for `snowbank queue`.
    pub fn set_last_error(&self, error: Option<&str>) -> io::Result<()> {
        let path = self.directory.join(LAST_ERROR);
        match error {
            Some(error) => self.replace(&path, &format!("{}\n", error.replace('\n', " "))),
            None => remove(&path),
        }
    }

    /// Why the last try failed, if it did.
    pub fn last_error(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.directory.join(LAST_ERROR)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Writes a small file whole or not at all.
    fn replace(&self, path: &Path, text: &str) -> io::Result<()> {
        let new = self.parked().join(format!(".{}.text", Self::new_id()));
        let written = (|| {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o644).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, path)
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        written
    }

    fn waiting(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.entry"))
    }

    fn parked(&self) -> PathBuf {
        self.directory.join(PARKED)
    }
}

impl Listed {
    fn new(id: String, entry: Result<Entry, String>, state: EntryState) -> Self {
        let time = entry.as_ref().map_or_else(|_| time_of(&id), |entry| entry.time);
        Self { id, entry, time, state }
    }
}

/// When an entry was put in, by its id.
fn time_of(id: &str) -> u64 {
    let nanoseconds: u128 = id.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0)
}

fn read(file: &mut File) -> Result<Entry, String> {
    let mut text = Vec::new();
    match file.take(MAX_ENTRY).read_to_end(&mut text) {
        Ok(_) => Entry::parse(&text),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// The ids of the entries in a directory, the oldest first; none where there is no directory.
fn ids(directory: &Path) -> io::Result<Vec<String>> {
    let entries = names(directory)?.into_iter();
    let ids = entries.filter_map(|name| name.strip_suffix(".entry").map(str::to_owned));
    let mut ids: Vec<_> = ids.filter(|id| !id.starts_with('.')).collect();
    ids.sort_unstable();
    Ok(ids)
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        names.extend(std::str::from_utf8(name.as_bytes()).map(str::to_owned));
    }
    Ok(names)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
