//! An authority of one's own: `snowbank ca`.
//!
//! It is a directory, mode 0700, made whole or not at all:
//!
//! | file | what |
//! |---|---|
//! | `root.pem` | what hosts trust |
//! | `root.key` | signs intermediates alone; belongs offline, and nothing but `renew` misses it |
//! | `intermediate.pem`, `intermediate.key` | what signs the certificates of hosts |
//! | `crl.pem` | the list of those that were revoked |
//! | `issued/SERIAL.pem` | each certificate that was ever issued, without its key |
//! | `revoked/SERIAL` | when it was revoked, in seconds since 1970: from these `crl.pem` is made |
//!
//! A certificate is noted before it is handed out: one that nobody got is of no harm, and one that nobody
//! knows of could not be revoked. What is revoked is noted before the list is written, and the list is made of
//! all notes: after a crash in between, revoking again makes it whole.

pub mod issuer;
mod making;
pub mod names;
pub mod record;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

pub use self::issuer::{IssueError, Issued, Usage};
use self::issuer::{Issuer, signing_key};
pub use self::making::{MAX_NAME, Plan};
use self::names::HostName;
use self::record::{Record, State};
use crate::bank::BankError;
use crate::bank::publish::private::{
    NewFile, create_private_file, create_public_file, make_directory_whole, rename_directory,
    replace_private_file, replace_public_file,
};
use crate::tls::certificate;

/// In seconds.
const DAY: i64 = 24 * 3600;

const ROOT: &str = "root.pem";
const ROOT_KEY: &str = "root.key";
const INTERMEDIATE: &str = "intermediate.pem";
const INTERMEDIATE_KEY: &str = "intermediate.key";
const REVOCATIONS: &str = "crl.pem";
const ISSUED: &str = "issued";
const REVOKED: &str = "revoked";

/// Why an authority does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is none.
    #[error("{}: there is no authority here; `snowbank ca init` makes one", .0.display())]
    NotThere(PathBuf),
    /// There is one, or something else.
    #[error("{}: {what} is here already", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
        /// What.
        what: &'static str,
    },
    /// A certificate of that name lies where this one would.
    #[error("{} is here already; --force puts the new one in its place", .0.display())]
    InTheWay(PathBuf),
    /// A certificate is not made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// No certificate is meant.
    #[error(
        "no certificate that is still good has the name or the serial number {0}; `snowbank ca ls` lists all"
    )]
    Unknown(String),
    /// The key of the root is elsewhere, as it should be.
    #[error("{}: it is not here, and it is what signs intermediates: bring it back for this", .0.display())]
    RootKeyAway(PathBuf),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] BankError),
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl AuthorityError {
    /// Whether something else is to be written on the command line.
    pub const fn is_refusal(&self) -> bool {
        let is_unfit = matches!(
            self,
            Self::Issue(IssueError::NotPermitted { .. } | IssueError::TooLong { .. })
        );
        is_unfit || matches!(self, Self::Exists { .. } | Self::InTheWay(_))
    }
}

/// An authority that nobody else changes meanwhile.
pub struct Authority {
    directory: PathBuf,
    _lock: File,
}

/// Makes an authority in `directory`, which is absolute. With `replace`, one that is there gets another name,
/// which is told: no key is ever lost.
pub fn create(
    directory: &Path,
    plan: &Plan,
    replace: bool,
    now: i64,
) -> Result<Option<PathBuf>, AuthorityError> {
    let is_there = directory.join(ROOT).exists();
    let exists = |what| AuthorityError::Exists { path: directory.into(), what };
    if is_there && !replace {
        return Err(exists("an authority"));
    }
    let made = making::make(plan, now)?;
    let mut file_name = directory.file_name().unwrap_or_default().to_owned();
    file_name.push(format!(".replaced-{now}"));
    let replaced = is_there.then(|| directory.with_file_name(file_name));
    if let Some(replaced) = &replaced {
        rename_directory(directory, replaced)?;
    }
    let files = [
        (ROOT, made.root.as_str(), false),
        (ROOT_KEY, &made.root_key, true),
        (INTERMEDIATE, &made.intermediate, false),
        (INTERMEDIATE_KEY, &made.intermediate_key, true),
        (REVOCATIONS, &made.revocations, false),
    ]
    .map(|(name, text, is_private)| NewFile { name, bytes: text.as_bytes(), is_private });
    let made = make_directory_whole(directory, &files, &[ISSUED, REVOKED]);
    if let (Err(_), Some(replaced)) = (&made, &replaced) {
        // Better the old one than none.
        rename_directory(replaced, directory)?;
    }
    match made {
        Ok(()) => Ok(replaced),
        Err(BankError::Io { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory
            ) =>
        {
            Err(exists("something else than an authority"))
        }
        Err(error) => Err(error.into()),
    }
}

/// What hosts are to trust, in PEM.
pub fn bundle(directory: &Path) -> Result<String, AuthorityError> {
    read(directory, ROOT)
}

/// All certificates of an authority, its own first, then those that it issued, by their end.
pub fn records(directory: &Path) -> Result<Vec<Record>, AuthorityError> {
    let mut own = Vec::new();
    for name in [ROOT, INTERMEDIATE] {
        own.push(record::of(&directory.join(name), &read(directory, name)?, None)?);
    }
    let issued = directory.join(ISSUED);
    let failed = |source| AuthorityError::Read { path: issued.clone(), source };
    let mut records = Vec::new();
    for entry in std::fs::read_dir(&issued).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(serial) = path.file_stem().filter(|_| path.extension() == Some("pem".as_ref()))
        else {
            continue;
        };
        let revoked = revoked_at(&directory.join(REVOKED).join(serial))?;
        // One note that cannot be read does not keep the others from being revoked.
        match read(&issued, path.file_name().unwrap_or_default())
            .and_then(|pem| Ok(record::of(&path, &pem, revoked)?))
        {
            Ok(record) => records.push(record),
            Err(error) => tracing::warn!("left out: {error}"),
        }
    }
    records.sort_by(|one, other| (one.not_after, &one.names).cmp(&(other.not_after, &other.names)));
    own.extend(records);
    Ok(own)
}

fn revoked_at(path: &Path) -> Result<Option<i64>, AuthorityError> {
    match std::fs::read_to_string(path) {
        // A note that cannot be read is one all the same.
        Ok(text) => Ok(Some(text.trim().parse().unwrap_or(0))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::Read { path: path.into(), source }),
    }
}

fn read(directory: &Path, name: impl AsRef<Path>) -> Result<String, AuthorityError> {
    let path = directory.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.join(ROOT).exists() => {
            Err(AuthorityError::NotThere(directory.into()))
        }
        Err(source) => Err(AuthorityError::Read { path, source }),
    }
}

/// Where the files of a certificate go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedFiles {
    /// The certificate and what stands between it and the root.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl IssuedFiles {
    /// In `directory`, by the certificate's first name.
    pub fn of(directory: &Path, name: &HostName) -> Self {
        // Shells make much of a star.
        let stem = name.to_string().replace('*', "wildcard");
        let file = |extension: &str| directory.join(format!("{stem}.{extension}"));
        Self { certificate: file("pem"), key: file("key") }
    }
}

impl Authority {
    /// The authority in `directory`; waits for whoever else changes it.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        if !directory.join(ROOT).exists() {
            return Err(AuthorityError::NotThere(directory.into()));
        }
        let failed = |source| AuthorityError::Read { path: directory.into(), source };
        let lock = File::open(directory).map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Self { directory: directory.into(), _lock: lock })
    }

    /// Where the list of revoked certificates lies.
    pub fn revocations(&self) -> PathBuf {
        self.directory.join(REVOCATIONS)
    }

    /// The end of a certificate that is to be valid until `wanted`, and no longer than its authority.
    pub fn end_by(&self, wanted: i64) -> Result<i64, AuthorityError> {
        Ok(self.issuer()?.not_after().min(wanted))
    }

    /// Issues a certificate into files; those that are there are replaced or refused.
    pub fn issue(
        &self,
        names: &[HostName],
        usage: Usage,
        files: &IssuedFiles,
        replace: bool,
        now: i64,
        not_after: i64,
    ) -> Result<Issued, AuthorityError> {
        let taken = [&files.certificate, &files.key].into_iter().find(|file| file.exists());
        if let Some(taken) = taken.filter(|_| !replace) {
            return Err(AuthorityError::InTheWay(taken.clone()));
        }
        let issued = self.issuer()?.issue(names, usage, now, not_after)?;
        let note = self.directory.join(ISSUED).join(format!("{}.pem", issued.serial));
        create_public_file(&note, issued.certificate.as_bytes())?;
        let (put_key, put_certificate): (Put, Put) = match replace {
            true => (replace_private_file, replace_public_file),
            false => (create_private_file, create_public_file),
        };
        put_key(&files.key, issued.key.as_bytes())?;
        put_certificate(&files.certificate, issued.chain.as_bytes())?;
        Ok(issued)
    }

    /// Revokes every good certificate of that name or serial number, and writes the list anew.
    pub fn revoke(&self, wanted: &str, now: i64) -> Result<Vec<Record>, AuthorityError> {
        let wanted_serial = wanted.replace(':', "").to_ascii_lowercase();
        let is_meant = |record: &Record| {
            record.is_of_a_host()
                && (record.serial == wanted_serial
                    || record.names.iter().any(|name| name.eq_ignore_ascii_case(wanted)))
        };
        let mut meant = records(&self.directory)?;
        meant.retain(is_meant);
        let is_known = !meant.is_empty();
        meant.retain(|record| record.state(now) == State::Good);
        for record in &meant {
            let note = self.directory.join(REVOKED).join(&record.serial);
            replace_public_file(&note, format!("{now}\n").as_bytes())?;
        }
        // Even if all were revoked before: a crash may have come in between.
        self.write_revocations(&self.issuer()?, now)?;
        if !is_known {
            return Err(AuthorityError::Unknown(wanted.into()));
        }
        Ok(meant)
    }

    /// Has the root sign the intermediate again, with its key: what it has signed and revoked stays so.
    pub fn renew(&self, now: i64, not_after: Option<i64>) -> Result<i64, AuthorityError> {
        let root_key = self.directory.join(ROOT_KEY);
        if !root_key.exists() {
            return Err(AuthorityError::RootKeyAway(root_key));
        }
        let root = Issuer::load(&self.directory.join(ROOT), &root_key)?;
        let old = self.issuer()?;
        // As long as before, and not beyond the root, unless it is said otherwise.
        let not_after = not_after.unwrap_or_else(|| (now + old.lifetime()).min(root.not_after()));
        let key_path = self.directory.join(INTERMEDIATE_KEY);
        let pem = certificate::read(&key_path).map_err(IssueError::from)?;
        let key = signing_key(&key_path, &pem)?;
        let params = making::intermediate(old.common_name(), root.constraints());
        let (renewed, _) = root.sign(params, &key, now, not_after)?;
        replace_public_file(&self.directory.join(INTERMEDIATE), renewed.as_bytes())?;
        self.write_revocations(&self.issuer()?, now)?;
        Ok(not_after)
    }

    fn issuer(&self) -> Result<Issuer, AuthorityError> {
        let file = |name: &str| self.directory.join(name);
        Ok(Issuer::load(&file(INTERMEDIATE), &file(INTERMEDIATE_KEY))?)
    }

    /// Lists all that there is a note of, also where nothing else is known of it. Those that ended more than a day ago,
    /// which no clock takes for good any more, are refused for that, and need not be listed.
    fn write_revocations(&self, issuer: &Issuer, now: i64) -> Result<(), AuthorityError> {
        let ended: HashSet<String> = records(&self.directory)?
            .into_iter()
            .filter(|record| record.not_after + DAY < now)
            .map(|record| record.serial)
            .collect();
        let notes = self.directory.join(REVOKED);
        let failed = |source| AuthorityError::Read { path: notes.clone(), source };
        let mut revoked = Vec::new();
        for entry in std::fs::read_dir(&notes).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let serial = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let number = data_encoding::HEXLOWER.decode(serial.as_bytes());
            if let (Ok(number), Some(at)) = (number, revoked_at(&path)?)
                && !ended.contains(serial)
            {
                revoked.push((number, at));
            }
        }
        revoked.sort_unstable();
        let list = issuer.revocations(&revoked, now)?;
        replace_public_file(&self.revocations(), list.as_bytes())?;
        Ok(())
    }
}

type Put = fn(&Path, &[u8]) -> Result<(), BankError>;
