//! A disk that does not give back what was written to it, file by file.

use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    nix::{Scratch, tempdir},
    server::Setup,
};

/// Which files cannot be read. They are told by their inodes, as damaged blocks are: a file that is put in the place of
/// one of them is well.
pub(crate) struct BadDisk {
    own: Scratch,
    /// Each of these files is open, so that no other file gets the number of its inode.
    bad: RefCell<Vec<File>>,
}

impl BadDisk {
    /// A disk that is well.
    pub(crate) fn new() -> Self {
        Self { own: tempdir(), bad: RefCell::default() }
    }

    /// Has a server read from it.
    pub(crate) fn under(&self, setup: Setup) -> Setup {
        setup.environment("SNOWBANK_FAULT_READS", self.list())
    }

    /// From now on the file cannot be read from this byte on.
    pub(crate) fn damage(&self, file: &Path, byte: u64) {
        let bad = File::open(file).unwrap();
        let line = format!("{} {byte}\n", bad.metadata().unwrap().ino());
        self.bad.borrow_mut().push(bad);
        let mut list = OpenOptions::new().create(true).append(true).open(self.list()).unwrap();
        list.write_all(line.as_bytes()).unwrap();
    }

    /// From now on everything can be read again.
    pub(crate) fn repair(&self) {
        fs::remove_file(self.list()).unwrap();
    }

    fn list(&self) -> PathBuf {
        self.own.path().join("bad-inodes")
    }
}
