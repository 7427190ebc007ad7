use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use super::*;

struct Silent;

impl Watcher for Silent {
    fn part(&mut self, _: &str) {}
    fn progress(&mut self, _: &Progress) {}
}

struct Trees {
    _directory: tempfile::TempDir,
    from: std::path::PathBuf,
    to: std::path::PathBuf,
}

const PATH: &str = "store/7rjj86a50146dq4pd5h2fyvnnwxk9m0a-hello";

impl Trees {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir(&to).unwrap();
        let path = from.join(PATH);
        fs::create_dir_all(path.join("bin")).unwrap();
        fs::create_dir_all(from.join("store/.links")).unwrap();
        fs::create_dir_all(from.join("var/nix/db")).unwrap();
        fs::write(path.join("bin/hello"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(path.join("bin/hello"), Permissions::from_mode(0o555)).unwrap();
        fs::write(path.join("empty"), "").unwrap();
        fs::hard_link(path.join("bin/hello"), from.join("store/.links/1")).unwrap();
        fs::hard_link(path.join("bin/hello"), path.join("again")).unwrap();
        symlink("bin/hello", path.join("link")).unwrap();
        symlink("/nowhere", path.join("dangling")).unwrap();
        fs::write(from.join("var/nix/db/db.sqlite"), vec![7; 700_000]).unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"\xff odd\n");
        fs::write(path.join(odd), "odd").unwrap();
        for inside in [path.join("bin/hello"), path.join("bin"), path.clone(), from.clone()] {
            let time = SystemTime::UNIX_EPOCH + Duration::new(1, 5);
            File::open(inside).unwrap().set_modified(time).unwrap();
        }
        Self { _directory: directory, from, to }
    }

    fn pass(&self, way: Way) -> Passed {
        pass(&self.from, &self.to, way, &mut Silent).unwrap()
    }

    /// Copies until nothing is left to do, which takes one pass.
    fn copied(&self) -> Passed {
        let passed = self.pass(Way::Copy);
        let compared = self.pass(Way::Compare);
        assert_eq!(compared, Passed::default(), "{compared:?}");
        assert!(!self.to.join(PARTIAL).exists());
        passed
    }
}

#[test]
fn a_copy_has_everything_that_the_tree_has() {
    let trees = Trees::new();
    let passed = trees.copied();
    assert!(passed.changed > 10);
    assert_eq!(passed.store_paths().len(), 1);
    let path = trees.to.join(PATH);
    let hello = fs::metadata(path.join("bin/hello")).unwrap();
    assert_eq!((hello.mode() & 0o7777, hello.nlink()), (0o555, 3));
    assert_eq!((hello.mtime(), hello.mtime_nsec()), (1, 5));
    assert_eq!(hello.ino(), fs::metadata(trees.to.join("store/.links/1")).unwrap().ino());
    assert_eq!(fs::metadata(path.join("bin")).unwrap().mtime_nsec(), 5);
    assert_eq!(fs::read_link(path.join("link")).unwrap(), Path::new("bin/hello"));
    assert_eq!(fs::read(trees.to.join("var/nix/db/db.sqlite")).unwrap().len(), 700_000);
    assert_eq!(trees.copied(), Passed::default(), "a second pass has nothing to do");
}

#[test]
fn whatever_changes_is_seen_and_copied() {
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 12] = [
        ("a new file", |top| fs::write(top.join(PATH).join("new"), "x").unwrap()),
        ("a file that is gone", |top| fs::remove_file(top.join(PATH).join("empty")).unwrap()),
        ("a tree that is gone", |top| fs::remove_dir_all(top.join(PATH)).unwrap()),
        ("other bytes", |top| fs::write(top.join(PATH).join("empty"), "x").unwrap()),
        ("another mode", |top| {
            fs::set_permissions(top.join(PATH).join("empty"), Permissions::from_mode(0o400))
                .unwrap();
        }),
        ("the mode of a directory", |top| {
            fs::set_permissions(top.join(PATH).join("bin"), Permissions::from_mode(0o700)).unwrap();
        }),
        ("another target", |top| {
            fs::remove_file(top.join(PATH).join("link")).unwrap();
            symlink("elsewhere", top.join(PATH).join("link")).unwrap();
        }),
        ("a file for a directory", |top| {
            fs::remove_dir_all(top.join(PATH).join("bin")).unwrap();
            fs::write(top.join(PATH).join("bin"), "x").unwrap();
        }),
        ("a directory for a file", |top| {
            fs::remove_file(top.join(PATH).join("empty")).unwrap();
            fs::create_dir(top.join(PATH).join("empty")).unwrap();
        }),
        ("a link that became a file of its own", |top| {
            fs::remove_file(top.join(PATH).join("again")).unwrap();
            fs::write(top.join(PATH).join("again"), "#!/bin/no\n").unwrap();
        }),
        ("a file that became a link", |top| {
            fs::remove_file(top.join(PATH).join("empty")).unwrap();
            fs::hard_link(top.join("store/.links/1"), top.join(PATH).join("empty")).unwrap();
        }),
        ("bytes outside the store, of the same size and time", |top| {
            let file = top.join("var/nix/db/db.sqlite");
            let time = fs::metadata(&file).unwrap().modified().unwrap();
            fs::write(&file, vec![8; 700_000]).unwrap();
            File::options().append(true).open(&file).unwrap().set_modified(time).unwrap();
        }),
    ];
    for (what, change) in changes {
        let trees = Trees::new();
        trees.copied();
        change(&trees.from);
        let compared = trees.pass(Way::Compare);
        assert!(compared.changed > 0 && compared.first.is_some(), "{what} is not seen");
        let passed = trees.copied();
        assert!(passed.changed > 0, "{what} is not copied");
    }
}

/// Nobody who can write to a part of the tree leads the copier out of it.
#[test]
fn symlinks_are_never_followed_on_either_side() {
    let trees = Trees::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    symlink(outside.path(), trees.from.join("store/out")).unwrap();
    // In the copy, where the tree has a directory.
    fs::create_dir(trees.to.join("store")).unwrap();
    symlink(outside.path(), trees.to.join("var")).unwrap();
    symlink(outside.path().join("secret"), trees.to.join(PARTIAL)).unwrap();
    trees.copied();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
    assert!(trees.to.join("store/out").is_symlink() && !trees.to.join("var").is_symlink());
}

#[test]
fn sockets_and_pipes_are_left_to_those_who_use_them() {
    let trees = Trees::new();
    let _socket =
        std::os::unix::net::UnixListener::bind(trees.from.join("var/nix/socket")).unwrap();
    trees.copied();
    assert!(!trees.to.join("var/nix/socket").exists());
}

#[test]
fn attributes_are_copied_and_taken_away_again() {
    let trees = Trees::new();
    let file = trees.from.join(PATH).join("empty");
    let set = |path: &Path, value: &[u8]| {
        rustix::fs::lsetxattr(path, "user.note", value, rustix::fs::XattrFlags::empty())
    };
    if set(&file, b"one") == Err(Errno::OPNOTSUPP) {
        // The file system of this machine's temporary directory has none; in the virtual machine the
        // same is tested on ZFS.
        return;
    }
    set(&trees.from.join(PATH), b"directory").unwrap();
    trees.copied();
    let get = |path: &Path| {
        let mut value = [0; 16];
        let length = rustix::fs::lgetxattr(path, "user.note", &mut value[..]);
        length.map(|length| value[..length].to_vec())
    };
    assert_eq!(get(&trees.to.join(PATH).join("empty")).unwrap(), b"one");
    assert_eq!(get(&trees.to.join(PATH)).unwrap(), b"directory");
    rustix::fs::lremovexattr(&file, "user.note").unwrap();
    assert!(trees.pass(Way::Compare).changed > 0);
    trees.copied();
    assert_eq!(get(&trees.to.join(PATH).join("empty")), Err(Errno::NODATA));
}

#[test]
fn what_an_interrupted_copy_has_left_is_taken_away() {
    let trees = Trees::new();
    fs::write(trees.to.join(PARTIAL), "half").unwrap();
    trees.copied();
}

#[test]
fn trees_without_end_are_refused() {
    let trees = Trees::new();
    let deep: std::path::PathBuf = (0..300).map(|_| "d").collect();
    fs::create_dir_all(trees.from.join(deep)).unwrap();
    let error = pass(&trees.from, &trees.to, Way::Copy, &mut Silent).unwrap_err();
    assert!(matches!(error, CopyError::TooDeep(_)), "{error}");
}
