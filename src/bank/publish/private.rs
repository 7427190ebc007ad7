//! What nobody but the server's user may read: the directory of its state, and the database in it.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{BankError, io_error, sync_directory_of, system};

/// Makes `directory`, mode 0700, in a directory that is made as any other where it is missing.
pub fn make_private_directory(directory: &Path) -> Result<(), BankError> {
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent).map_err(io_error(parent))?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| give_to_owner(directory)).map_err(io_error(directory)),
    }
}

/// Makes an empty file, mode 0600, durably; one that is there stays as it is.
pub fn make_private_file(path: &Path) -> Result<(), BankError> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.and_then(|_| give_to_owner(path)).map_err(io_error(path))?,
    }
    sync_directory_of(path)
}

/// Puts `bytes` into a file, mode 0600, whole and durable, in the place of what is there. For one writer.
pub fn replace_private_file(path: &Path, bytes: &[u8]) -> Result<(), BankError> {
    let temporary = path.with_extension("new");
    // What a crash left.
    system::remove(&temporary).map_err(io_error(&temporary))?;
    let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary);
    let file = file.map_err(io_error(&temporary))?;
    give_to_owner(&temporary).map_err(io_error(&temporary))?;
    system::write(&file, bytes).map_err(io_error(&temporary))?;
    system::sync(&file, &temporary).map_err(io_error(&temporary))?;
    system::rename_over(&temporary, path).map_err(io_error(path))?;
    sync_directory_of(path)
}

/// Root makes files on behalf of whoever the directory belongs to: what `sudo snowbank token create`
/// makes first, the server has to be able to open.
fn give_to_owner(path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// Gives the files of a damaged database other names, and says what the main one is called now.
///
/// The main file goes first: without it, what is left in the others is not taken for part of a new
/// database by whoever calls this again after a crash, which [`crate::index::state`] does.
pub fn set_database_aside(database: &Path, stamp: &str) -> Result<PathBuf, BankError> {
    let named = |ending: &str| PathBuf::from(format!("{}{ending}", database.display()));
    let aside = named(&format!(".corrupt-{stamp}"));
    for ending in ["", "-wal", "-shm"] {
        let (from, to) = (named(ending), named(&format!(".corrupt-{stamp}{ending}")));
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
        std::fs::write(root.path().join("issued.new"), "half").unwrap();
        for text in ["first", "second"] {
            replace_private_file(&file, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
            assert_eq!(mode(&file), 0o600);
        }
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_database_is_set_aside_with_what_belongs_to_it() {
        let root = tempfile::tempdir().unwrap();
        let database = root.path().join("a.sqlite");
        std::fs::write(&database, "main").unwrap();
        std::fs::write(root.path().join("a.sqlite-wal"), "log").unwrap();
        let aside = set_database_aside(&database, "1").unwrap();
        assert_eq!(aside, root.path().join("a.sqlite.corrupt-1"));
        assert_eq!(std::fs::read_to_string(aside).unwrap(), "main");
        assert!(root.path().join("a.sqlite.corrupt-1-wal").exists());
        assert!(!root.path().join("a.sqlite-wal").exists());
    }
}
