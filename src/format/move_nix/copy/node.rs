//! One file or symlink: compared, copied, linked; and what belongs to it besides its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fstat, futimens, lgetxattr, linkat, llistxattr, lsetxattr, openat, readlinkat,
    renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::errno_of;

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
    Symlink,
    Other,
}

/// Something of the source.
pub(super) struct Node<'a> {
    pub(super) directory: &'a OwnedFd,
    pub(super) name: &'a [u8],
    pub(super) stat: &'a Stat,
}

/// The attributes that are copied; others belong to the file system they are on.
const NAMESPACES: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];
/// The most bytes that all names of attributes, or one value, have: `XATTR_LIST_MAX`, `XATTR_SIZE_MAX`.
const MAX_ATTRIBUTE: usize = 65_536;
/// How much is compared at once.
const COMPARED_AT_ONCE: usize = 256 << 10;

/// The names in a directory.
pub(super) fn names(directory: &OwnedFd) -> Result<BTreeSet<Vec<u8>>, Errno> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.insert(name);
        }
    }
    Ok(names)
}

pub(super) fn stat_of(file: &OwnedFd) -> Result<Stat, Errno> {
    fstat(file)
}

/// Whether the copy is equal: always but for the bytes of a file, which are compared if `thoroughly`.
pub(super) fn is_same(
    node: &Node<'_>,
    target: &OwnedFd,
    there: &Stat,
    thoroughly: bool,
) -> Result<bool, Errno> {
    let kind = Kind::of(node.stat);
    if Kind::of(there) != kind || !same_metadata(node, target, node.name, there)? {
        return Ok(false);
    }
    match kind {
        Kind::Symlink => {
            let source = readlinkat(node.directory, node.name, Vec::new())?;
            Ok(source == readlinkat(target, node.name, Vec::new())?)
        }
        _ if thoroughly => same_bytes(node.directory, target, node.name),
        _ => Ok(true),
    }
}

/// Whether type, mode, owner, size, time and attributes are equal.
pub(super) fn same_metadata(
    node: &Node<'_>,
    target: &OwnedFd,
    name: &[u8],
    there: &Stat,
) -> Result<bool, Errno> {
    let here = node.stat;
    let kind = Kind::of(here);
    let same = here.st_mode == there.st_mode
        && (here.st_uid, here.st_gid) == (there.st_uid, there.st_gid)
        && (here.st_mtime, here.st_mtime_nsec) == (there.st_mtime, there.st_mtime_nsec)
        // A directory's size is its file system's business.
        && (kind == Kind::Directory || here.st_size == there.st_size);
    Ok(same && attributes(node.directory, node.name)? == attributes(target, name)?)
}

fn same_bytes(source: &OwnedFd, target: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    let open = |directory: &OwnedFd| openat(directory, name, READ, Mode::empty()).map(File::from);
    let (mut source, mut target) = (open(source)?, open(target)?);
    let mut buffers = [vec![0; COMPARED_AT_ONCE], vec![0; COMPARED_AT_ONCE]];
    loop {
        let [one, other] = &mut buffers;
        let read = fill(&mut source, one).map_err(|error| errno_of(&error))?;
        let copied = fill(&mut target, other).map_err(|error| errno_of(&error))?;
        if read != copied || one.get(..read) != other.get(..copied) {
            return Ok(false);
        }
        if read < COMPARED_AT_ONCE {
            return Ok(true);
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Copies a file or symlink, with everything that belongs to it, under the name `partial` in `top`,
/// and then gives it its place in `target`. Gives the inode of the copy and its size, or `None` if the
/// source is gone; the error says what could not be done.
pub(super) fn copy(
    node: &Node<'_>,
    top: &OwnedFd,
    partial: &str,
    target: &OwnedFd,
) -> Result<Option<(u64, u64)>, (&'static str, Errno)> {
    let copied = match Kind::of(node.stat) {
        Kind::Symlink => copy_symlink(node, top, partial),
        _ => copy_file(node, top, partial),
    };
    let bytes = match copied {
        Ok(bytes) => bytes,
        Err((_, Errno::NOENT | Errno::LOOP)) => {
            // It may have been made before the source went away.
            let _ = unlinkat(top, partial, AtFlags::empty());
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let made = statat(top, partial, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| ("look at the copy of", errno))?;
    renameat(top, partial, target, node.name)
        .map_err(|errno| ("give its name to the copy of", errno))?;
    Ok(Some((made.st_ino, bytes)))
}

fn copy_file(node: &Node<'_>, top: &OwnedFd, partial: &str) -> Result<u64, (&'static str, Errno)> {
    let mut source = File::from(
        openat(node.directory, node.name, READ, Mode::empty()).map_err(|errno| ("open", errno))?,
    );
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(top, partial, flags, Mode::RUSR | Mode::WUSR);
    let mut copy = File::from(opened.map_err(|errno| ("make the copy of", errno))?);
    let bytes = io::copy(&mut source, &mut copy).map_err(|error| ("copy", errno_of(&error)))?;
    let copy = OwnedFd::from(copy);
    let (uid, gid) = owner(node.stat);
    fchown(&copy, uid, gid).map_err(|errno| ("give its owner to", errno))?;
    // After its owner, who takes some of it away.
    fchmod(&copy, mode(node.stat)).map_err(|errno| ("give its mode to", errno))?;
    give_attributes(node, top, partial.as_bytes())
        .map_err(|errno| ("give its attributes to", errno))?;
    futimens(&copy, &times(node.stat)).map_err(|errno| ("give its time to", errno))?;
    Ok(bytes)
}

fn copy_symlink(
    node: &Node<'_>,
    top: &OwnedFd,
    partial: &str,
) -> Result<u64, (&'static str, Errno)> {
    let link = readlinkat(node.directory, node.name, Vec::new())
        .map_err(|errno| ("read the symlink", errno))?;
    symlinkat(&link, top, partial).map_err(|errno| ("make the symlink", errno))?;
    let (uid, gid) = owner(node.stat);
    chownat(top, partial, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| ("give its owner to", errno))?;
    give_attributes(node, top, partial.as_bytes())
        .map_err(|errno| ("give its attributes to", errno))?;
    utimensat(top, partial, &times(node.stat), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| ("give its time to", errno))?;
    Ok(0)
}

/// Makes `name` in `target` another name of `first`, which is a path below `top`.
pub(super) fn link(
    top: &OwnedFd,
    first: &[u8],
    partial: &str,
    target: &OwnedFd,
    name: &[u8],
    there: Option<Stat>,
) -> Result<(), Errno> {
    linkat(top, first, top, partial, AtFlags::empty())?;
    if there.as_ref().map(Kind::of) == Some(Kind::Directory) {
        // Only an empty one; whoever calls has seen a file here in the source.
        unlinkat(target, name, AtFlags::REMOVEDIR)?;
    }
    renameat(top, partial, target, name)
}

/// Gives a directory what belongs to it.
pub(super) fn give_directory(node: &Node<'_>, copy: &OwnedFd) -> Result<(), Errno> {
    let (uid, gid) = owner(node.stat);
    fchown(copy, uid, gid)?;
    fchmod(copy, mode(node.stat))?;
    give_attributes(node, copy, b".")?;
    futimens(copy, &times(node.stat))
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode)
}

/// The time of the last change, for both times: nobody keeps that of the last access.
fn times(stat: &Stat) -> Timestamps {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

/// The name of a file for those calls that take no directory.
fn path_of(directory: &OwnedFd, name: &[u8]) -> Result<CString, Errno> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    CString::new(path).map_err(|_| Errno::INVAL)
}

fn attributes(directory: &OwnedFd, name: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let path = path_of(directory, name)?;
    let mut list = [0_u8; 1024];
    let names = match llistxattr(&path, &mut list[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Ok(length) => list.get(..length).unwrap_or_default().to_vec(),
        Err(Errno::RANGE) => {
            let mut list = vec![0; MAX_ATTRIBUTE];
            let length = llistxattr(&path, &mut list[..])?;
            list.truncate(length);
            list
        }
        Err(errno) => return Err(errno),
    };
    let mut found = BTreeMap::new();
    for attribute in names.split(|byte| *byte == 0).filter(|name| is_copied(name)) {
        let called = CString::new(attribute).map_err(|_| Errno::INVAL)?;
        let mut value = vec![0; MAX_ATTRIBUTE];
        match lgetxattr(&path, &called, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Taken away meanwhile.
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno),
        }
        found.insert(attribute.to_vec(), value);
    }
    Ok(found)
}

fn is_copied(name: &[u8]) -> bool {
    NAMESPACES.iter().any(|namespace| name.starts_with(namespace))
}

fn give_attributes(node: &Node<'_>, copy: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let path = path_of(copy, name)?;
    let wanted = attributes(node.directory, node.name)?;
    for superfluous in attributes(copy, name)?.keys().filter(|name| !wanted.contains_key(*name)) {
        let called = CString::new(superfluous.as_slice()).map_err(|_| Errno::INVAL)?;
        rustix::fs::lremovexattr(&path, &called)?;
    }
    for (attribute, value) in wanted {
        let called = CString::new(attribute).map_err(|_| Errno::INVAL)?;
        lsetxattr(&path, &called, &value, XattrFlags::empty())?;
    }
    Ok(())
}
