//! Fills a planned segment with the contents of its files.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::{Errno, pread};

use super::TreeError;
use super::error::quote;
use super::plan::{LargeFile, Piece, Segment};
use crate::fault;
use crate::source::buffer::Buffer;

/// O_NONBLOCK so that a pipe that took a file's place does not hang us; it means nothing to files.
const OPEN_FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// No component may be a symlink, and none may leave the tree.
pub(super) const WITHIN: ResolveFlags =
    ResolveFlags::NO_SYMLINKS.union(ResolveFlags::BENEATH).union(ResolveFlags::NO_MAGICLINKS);

/// Reads everything in `segment` into `buffer`, which must have room for it.
pub(super) fn fill(segment: &Segment, buffer: &mut Buffer) -> Result<(), TreeError> {
    let (mut framing, mut paths) = (&segment.framing[..], &segment.paths[..]);
    for piece in &segment.pieces {
        match piece {
            Piece::Framing(length) => {
                let (bytes, rest) = framing.split_at(*length);
                buffer.rest()[..*length].copy_from_slice(bytes);
                buffer.advance(*length);
                framing = rest;
            }
            Piece::File { path_length, size, range } => {
                let (path, rest) = paths.split_at(*path_length);
                paths = rest;
                let file = open(&segment.anchor, path, *size)?;
                read(&file, path, *size, range, buffer)?;
            }
            Piece::Part { file, range } => {
                let opened = open_large(&segment.anchor, file)?;
                read(&opened, &file.path, file.size, range, buffer)?;
                // The file stayed open since its first part, and may have changed since then.
                check(&opened, &file.path, file.size)?;
            }
        }
    }
    Ok(())
}

fn open(anchor: &OwnedFd, path: &[u8], size: u64) -> Result<OwnedFd, TreeError> {
    let file = openat2(anchor, path, OPEN_FILE, Mode::empty(), WITHIN)
        .map_err(|errno| TreeError::at(path, "open", errno))?;
    check(&file, path, size)?;
    Ok(file)
}

/// A plan is worth nothing unless the file is what it was when the plan was made.
fn check(file: &OwnedFd, path: &[u8], expected: u64) -> Result<(), TreeError> {
    let stat = fstat(file).map_err(|errno| TreeError::at(path, "stat", errno))?;
    let got = u64::try_from(stat.st_size).unwrap_or(0);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(TreeError::Replaced { path: quote(path) });
    }
    match got.cmp(&expected) {
        std::cmp::Ordering::Less => Err(TreeError::Shrunk { path: quote(path), expected, got }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(TreeError::Grown { path: quote(path), expected, got }),
    }
}

fn open_large(anchor: &OwnedFd, file: &LargeFile) -> Result<Arc<OwnedFd>, TreeError> {
    let mut opened = file.opened.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(opened) = &*opened {
        return Ok(opened.clone());
    }
    let new = Arc::new(open(anchor, &file.path, file.size)?);
    *opened = Some(new.clone());
    Ok(new)
}

/// Reads exactly `range` of the file.
fn read(
    file: &OwnedFd,
    path: &[u8],
    size: u64,
    range: &Range<u64>,
    buffer: &mut Buffer,
) -> Result<(), TreeError> {
    let mut position = range.start;
    fault::reading(file, range.clone()).map_err(|error| {
        TreeError::at(path, "read", Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })?;
    while position < range.end {
        let rest = buffer.rest();
        let most = usize::try_from(range.end - position).unwrap_or(usize::MAX).min(rest.len());
        match pread(file, &mut rest[..most], position) {
            Ok(0) => {
                let path = quote(path);
                return Err(TreeError::Shrunk { path, expected: size, got: position });
            }
            Ok(length) => {
                buffer.advance(length);
                position += length as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(TreeError::at(path, "read", errno)),
        }
    }
    Ok(())
}
