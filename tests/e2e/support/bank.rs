//! Banks, made as anybody would make one: by `nix copy --to file://`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    http::field,
    nix::{Scratch, Store, StorePath, tempdir},
};

/// Copy paths with all they refer to into a binary cache at `bank`.
pub(crate) fn build(store: &Store, bank: &Path, compression: &str, paths: &[&str]) {
    let _ = fs::remove_dir_all(bank);
    let url = format!("file://{}?compression={compression}", bank.display());
    let mut words = vec!["copy", "--to", &url];
    words.extend(paths);
    store.run("nix", &words);
}

/// A data directory whose default cache holds what `from` holds. The files are linked, so this costs nothing;
/// a test that changes one has to replace it ([`replace`]).
pub(crate) fn data_directory(from: &Path) -> DataDirectory {
    let own = tempdir();
    let data = own.path().join("data");
    each_file(from, &data.join("default"), |file, link| fs::hard_link(file, link).unwrap());
    DataDirectory { data, _own: own }
}

/// A data directory of the test's own.
pub(crate) struct DataDirectory {
    pub(crate) data: PathBuf,
    _own: Scratch,
}

impl DataDirectory {
    /// The directory of the default cache.
    pub(crate) fn bank(&self) -> PathBuf {
        self.data.join("default")
    }

    pub(crate) fn narinfo(&self, path: &StorePath) -> PathBuf {
        self.bank().join(format!("{}.narinfo", path.hash()))
    }

    /// The compressed NAR that a path's narinfo points to.
    pub(crate) fn nar(&self, path: &StorePath) -> PathBuf {
        let text = fs::read_to_string(self.narinfo(path)).unwrap();
        self.bank().join(field(&text, "URL").unwrap())
    }
}

/// Put other bytes in a file's place. It may be linked from elsewhere, so it is never written into.
pub(crate) fn replace(file: &Path, bytes: &[u8]) {
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

/// Make the directories of `from` below `to`, and have each of its files put there.
pub(crate) fn each_file(from: &Path, to: &Path, put: fn(&Path, &Path)) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            each_file(&entry.path(), &target, put);
        } else {
            put(&entry.path(), &target);
        }
    }
}
