//! What nobody but the server's user may read: the directory of its state, and the database in it.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::{BankError, io_error, sync_directory_of, system};

/// What stands between the name of a database that was set aside and when that was.
const ASIDE: &str = ".corrupt-";

/// Makes `directory`, mode 0700, in a directory that is made as any other where it is missing.
pub fn make_private_directory(directory: &Path) -> Result<(), BankError> {
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent).map_err(io_error(parent))?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| give_directory_to_owner(directory)).map_err(io_error(directory)),
    }
}

/// Makes an empty file, mode 0600, durably; one that is there stays as it is.
pub fn make_private_file(path: &Path) -> Result<(), BankError> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.and_then(|file| give_to_owner(&file, path)).map_err(io_error(path))?,
    }
    sync_directory_of(path)
}

/// Puts `bytes` into a file, mode 0600, whole and durable, in the place of what is there. For one writer.
pub fn replace_private_file(path: &Path, bytes: &[u8]) -> Result<(), BankError> {
    put_file(path, bytes, 0o600, system::rename_over)
}

/// The same for what everybody may read, mode 0644: a certificate, a list of those that were revoked.
pub fn replace_public_file(path: &Path, bytes: &[u8]) -> Result<(), BankError> {
    put_file(path, bytes, 0o644, system::rename_over)
}

/// Puts `bytes` into a new file, mode 0600, whole and durable. One that is there already stays, and is an error.
pub fn create_private_file(path: &Path, bytes: &[u8]) -> Result<(), BankError> {
    put_file(path, bytes, 0o600, system::rename_new)
}

/// The same for what everybody may read, mode 0644.
pub fn create_public_file(path: &Path, bytes: &[u8]) -> Result<(), BankError> {
    put_file(path, bytes, 0o644, system::rename_new)
}

fn put_file(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    rename: fn(&Path, &Path) -> io::Result<()>,
) -> Result<(), BankError> {
    let temporary = beside(path);
    // What a crash left.
    system::remove(&temporary).map_err(io_error(&temporary))?;
    write_new(&temporary, bytes, mode).map_err(io_error(&temporary))?;
    if let Err(error) = rename(&temporary, path) {
        system::remove(&temporary).map_err(io_error(&temporary))?;
        return Err(io_error(path)(error));
    }
    sync_directory_of(path)
}

/// A file that is to be in a directory made by [`make_directory_whole`].
pub struct NewFile<'a> {
    /// Its name.
    pub name: &'a str,
    /// All of it.
    pub bytes: &'a [u8],
    /// Whether nobody else may read it.
    pub is_private: bool,
}

/// Makes `directory`, mode 0700, with these files and these empty directories in it: durably, and all of it or
/// nothing. What is there already, other than an empty directory, is an error of the kind `DirectoryNotEmpty`
/// or `NotADirectory`.
pub fn make_directory_whole(
    directory: &Path,
    files: &[NewFile<'_>],
    directories: &[&str],
) -> Result<(), BankError> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent).map_err(io_error(parent))?;
    // Held until the end: two at once would write into one another's.
    let lock = File::open(parent).map_err(io_error(parent))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| io_error(parent)(error.into()))?;
    let temporary = beside(directory);
    clear(&temporary, files, directories).map_err(io_error(&temporary))?;
    make_private_directory(&temporary)?;
    for file in files {
        let path = temporary.join(file.name);
        let mode = if file.is_private { 0o600 } else { 0o644 };
        write_new(&path, file.bytes, mode).map_err(io_error(&path))?;
    }
    for name in directories {
        make_private_directory(&temporary.join(name))?;
    }
    system::sync_directory(&temporary).map_err(io_error(&temporary))?;
    if let Err(error) = system::rename_over(&temporary, directory) {
        clear(&temporary, files, directories).map_err(io_error(&temporary))?;
        return Err(io_error(directory)(error));
    }
    sync_directory_of(directory)
}

/// Gives a directory another name, durably, where there is nothing yet.
pub fn rename_directory(from: &Path, to: &Path) -> Result<(), BankError> {
    system::rename_new(from, to).map_err(io_error(from))?;
    sync_directory_of(to)
}

/// Removes what a crash left of a directory: what would be in it, and nothing else.
fn clear(directory: &Path, files: &[NewFile<'_>], directories: &[&str]) -> io::Result<()> {
    for file in files {
        system::remove(&directory.join(file.name))?;
    }
    for place in directories.iter().map(|name| directory.join(name)).chain([directory.into()]) {
        match std::fs::remove_dir(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    give_to_owner(&file, path)?;
    system::write(&file, bytes)?;
    system::sync(&file, path)
}

/// `.NAME.new` for `NAME`, in the same directory.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Root makes files on behalf of whoever the directory belongs to: what `sudo snowbank token create`
/// makes first, the server has to be able to open.
///
/// The open file is given, and not what has its name: whoever may write to the directory could put a link there.
fn give_to_owner(file: &File, path: &Path) -> io::Result<()> {
    let Some((user, group)) = owner_of_parent(path)? else { return Ok(()) };
    std::os::unix::fs::fchown(file, Some(user), Some(group))
}

/// The same of a directory; a link in its place is not followed.
fn give_directory_to_owner(directory: &Path) -> io::Result<()> {
    let Some((user, group)) = owner_of_parent(directory)? else { return Ok(()) };
    std::os::unix::fs::lchown(directory, Some(user), Some(group))
}

/// Nothing for whoever is not root, to whom it belongs already.
fn owner_of_parent(path: &Path) -> io::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let owner = std::fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
    Ok(Some((owner.uid(), owner.gid())))
}

/// The first of the files that [`set_database_aside`] gave a name, and that still lie there.
pub fn database_set_aside(database: &Path) -> Result<Option<PathBuf>, BankError> {
    let directory = database.parent().unwrap_or(Path::new("/"));
    let mut beginning = database.file_name().unwrap_or_default().to_owned();
    beginning.push(ASIDE);
    let entries = std::fs::read_dir(directory).map_err(io_error(directory))?;
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    let mut names = names.map_err(io_error(directory))?;
    names.retain(|name| name.as_bytes().starts_with(beginning.as_bytes()));
    Ok(names.into_iter().min().map(|name| directory.join(name)))
}

/// Gives the files of a damaged database other names, and says what the main one is called now.
///
/// The main file goes first: without it, what is left in the others is not taken for part of a new
/// database by whoever calls this again after a crash, which [`crate::index::state`] does.
pub fn set_database_aside(database: &Path, stamp: &str) -> Result<PathBuf, BankError> {
    let named = |ending: &str| PathBuf::from(format!("{}{ending}", database.display()));
    let aside = named(&format!("{ASIDE}{stamp}"));
    for ending in ["", "-wal", "-shm"] {
        let (from, to) = (named(ending), named(&format!("{ASIDE}{stamp}{ending}")));
        match system::rename_new(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(io_error(&from))?,
        }
    }
    sync_directory_of(database)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_private_is_so_from_the_beginning_and_is_never_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("data/state");
        let file = directory.join("file");
        for _ in 0..2 {
            make_private_directory(&directory).unwrap();
            make_private_file(&file).unwrap();
            assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
            std::fs::write(&file, "kept").unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn a_private_file_is_replaced_whole_whatever_a_crash_left() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("issued.pem");
        std::fs::write(root.path().join(".issued.pem.new"), "half").unwrap();
        for text in ["first", "second"] {
            replace_private_file(&file, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
            assert_eq!(mode(&file), 0o600);
        }
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
        replace_public_file(&file, b"third").unwrap();
        assert_eq!(mode(&file), 0o644);
    }

    #[test]
    fn a_file_that_is_there_is_not_created() {
        let root = tempfile::tempdir().unwrap();
        for (name, create, bits) in [
            ("a.key", create_private_file as fn(&Path, &[u8]) -> Result<(), BankError>, 0o600),
            ("a.pem", create_public_file, 0o644),
        ] {
            let file = root.path().join(name);
            create(&file, b"first").unwrap();
            create(&file, b"second").unwrap_err();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "first");
            assert_eq!(mode(&file), bits);
        }
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_is_made_whole_or_not_at_all_and_never_over_another() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("in/ca");
        let files = [
            NewFile { name: "a.key", bytes: b"key", is_private: true },
            NewFile { name: "a.pem", bytes: b"pem", is_private: false },
        ];
        let left = root.path().join("in/.ca.new");
        std::fs::create_dir_all(left.join("issued")).unwrap();
        std::fs::write(left.join("a.key"), "half").unwrap();
        make_directory_whole(&directory, &files, &["issued"]).unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("a.key")), 0o600);
        assert_eq!(mode(&directory.join("a.pem")), 0o644);
        assert_eq!(std::fs::read_to_string(directory.join("a.key")).unwrap(), "key");
        assert!(directory.join("issued").is_dir());
        let other = [NewFile { name: "a.key", bytes: b"other", is_private: true }];
        let refused = make_directory_whole(&directory, &other, &[]).unwrap_err();
        assert!(
            matches!(&refused, BankError::Io { source, .. } if source.kind() == io::ErrorKind::DirectoryNotEmpty),
            "{refused:?}"
        );
        assert_eq!(std::fs::read_to_string(directory.join("a.key")).unwrap(), "key");
        assert_eq!(std::fs::read_dir(root.path().join("in")).unwrap().count(), 1);
    }

    #[test]
    fn what_nobody_knows_of_is_never_cleared_away() {
        let root = tempfile::tempdir().unwrap();
        let left = root.path().join(".ca.new");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("diary"), "mine").unwrap();
        make_directory_whole(&root.path().join("ca"), &[], &[]).unwrap_err();
        assert_eq!(std::fs::read_to_string(left.join("diary")).unwrap(), "mine");
    }

    #[test]
    fn a_database_is_set_aside_with_what_belongs_to_it() {
        let root = tempfile::tempdir().unwrap();
        let database = root.path().join("a.sqlite");
        std::fs::write(&database, "main").unwrap();
        std::fs::write(root.path().join("a.sqlite-wal"), "log").unwrap();
        std::fs::write(root.path().join("ab.sqlite.corrupt-0"), "of another").unwrap();
        assert_eq!(database_set_aside(&database).unwrap(), None);
        let aside = set_database_aside(&database, "1").unwrap();
        assert_eq!(aside, root.path().join("a.sqlite.corrupt-1"));
        assert_eq!(database_set_aside(&database).unwrap().as_ref(), Some(&aside));
        assert_eq!(std::fs::read_to_string(aside).unwrap(), "main");
        assert!(root.path().join("a.sqlite.corrupt-1-wal").exists());
        assert!(!root.path().join("a.sqlite-wal").exists());
    }

    #[test]
    fn whether_a_database_was_set_aside_is_no_guess_where_its_directory_cannot_be_read() {
        let root = tempfile::tempdir().unwrap();
        database_set_aside(&root.path().join("missing/a.sqlite")).unwrap_err();
    }
}
