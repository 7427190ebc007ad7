//! Snapshots of banks, where there is no ZFS: directories in the place where ZFS shows them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the snapshot `name` of a bank is to be seen.
pub(crate) fn directory(bank: &Path, name: &str) -> PathBuf {
    bank.join(".zfs/snapshot").join(name)
}

/// What a bank holds now, as a snapshot of it. Files are linked: a test that changes one has to replace it.
pub(crate) fn take(bank: &Path, name: &str) {
    let snapshot = directory(bank, name);
    // All at once, as a snapshot comes.
    let unfinished = bank.join(".zfs/unfinished");
    link(bank, &unfinished);
    fs::create_dir_all(snapshot.parent().unwrap()).unwrap();
    fs::rename(unfinished, snapshot).unwrap();
}

/// What `zfs destroy` of it leaves.
pub(crate) fn destroy(bank: &Path, name: &str) {
    let gone = bank.join(".zfs/gone");
    fs::rename(directory(bank, name), &gone).unwrap();
    fs::remove_dir_all(gone).unwrap();
}

fn link(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if name == ".zfs" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            link(&entry.path(), &target);
        } else {
            fs::hard_link(entry.path(), &target).unwrap();
        }
    }
}
