//! What can be said of a tree without reading it, and single files in it. All of it blocks.

use std::fs::File;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat2, readlinkat_raw};
use rustix::io::Errno;

use super::directory::Names;
use super::error::quote;
use super::fill::WITHIN;
use super::walk::{OWNER_MAY_EXECUTE, Walker};
use super::{StoreTree, TreeError};
use crate::nix::nar::{Encoder, Event, Listing, ListingBuilder, ListingError};

/// What [`open_file`] found.
#[derive(Debug)]
pub enum Opened {
    /// A regular file, open for reading.
    File {
        /// The file, at its beginning.
        file: File,
        /// Its size in bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symlink, with its target.
    Symlink(Vec<u8>),
    /// A directory, with the sorted names in it.
    Directory(Vec<Vec<u8>>),
}

/// The listing of the NAR of `tree`, with offsets, from metadata only.
///
/// The outer error is of the tree, the inner one says that the listing would be too large.
pub fn listing(tree: StoreTree) -> Result<Result<Listing, ListingError>, TreeError> {
    let mut builder = ListingBuilder::new(tree.limits);
    measure(tree, |event| builder.event(&event))?;
    Ok(builder.finish())
}

/// The size of the NAR of `tree` in bytes, from metadata only.
pub fn nar_size(tree: StoreTree) -> Result<u64, TreeError> {
    measure(tree, |_| {})
}

/// Walks a tree, fills in the offsets, and gives the size.
fn measure(tree: StoreTree, mut sink: impl FnMut(Event<'_>)) -> Result<u64, TreeError> {
    let max_size = tree.limits.max_size;
    let (mut walker, mut encoder) = (Walker::new(tree), Encoder::default());
    let (mut offset, mut framing) = (0_u64, Vec::new());
    loop {
        let more = walker.step(&mut |event, _| {
            framing.clear();
            encoder.event(&event, &mut framing);
            offset = offset.saturating_add(framing.len() as u64);
            if let Event::File { executable, size, .. } = event {
                sink(Event::File { executable, size, contents_offset: offset });
                offset = offset.saturating_add(size);
            } else {
                sink(event);
            }
        })?;
        if offset > max_size {
            return Err(walker.beyond("too many bytes"));
        }
        if !more {
            return Ok(offset);
        }
    }
}

/// Opens what lies at `path` in `tree`, given by its components; none is the store path itself.
///
/// No component may be a symlink, except that the last may be one and is then given as such.
pub fn open_file<'a>(
    tree: &StoreTree,
    path: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Opened, TreeError> {
    let mut full = tree.name.as_bytes().to_vec();
    for component in path {
        let illegal = matches!(component, b"" | b"." | b"..")
            || component.iter().any(|byte| matches!(byte, b'/' | b'\0'));
        full.push(b'/');
        full.extend_from_slice(component);
        if illegal {
            return Err(TreeError::NotFound { path: quote(&full) });
        }
    }
    let store = &*tree.store.0;
    let open = |flags| openat2(store, full.as_slice(), flags, Mode::empty(), WITHIN);
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = open(look).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => {
            TreeError::NotFound { path: quote(&full) }
        }
        Errno::LOOP => TreeError::ThroughSymlink { path: quote(&full) },
        errno => TreeError::at(&full, "open", errno),
    })?;
    let at = |action| {
        let full = &full;
        move |errno| TreeError::at(full, action, errno)
    };
    let stat = fstat(&handle).map_err(at("stat"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let mut target = vec![0; tree.limits.max_target + 1];
            let length =
                readlinkat_raw(&handle, c"", &mut target[..]).map_err(at("read the symlink"))?;
            target.truncate(length);
            Ok(Opened::Symlink(target))
        }
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = open(flags).map_err(at("open"))?;
            let names = Names::read(&directory, tree.limits.max_listing_entries, &mut Vec::new())
                .map_err(at("list"))?
                .ok_or_else(|| TreeError::BeyondLimits {
                    path: quote(&full),
                    what: "too many files",
                })?;
            Ok(Opened::Directory(names.iter().map(<[u8]>::to_vec).collect()))
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = open(flags).map_err(at("open"))?;
            let stat = fstat(&file).map_err(at("stat"))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(TreeError::Replaced { path: quote(&full) });
            }
            let executable = stat.st_mode & OWNER_MAY_EXECUTE != 0;
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            Ok(Opened::File { file: file.into(), size, executable })
        }
        _ => Err(TreeError::SpecialFile { path: quote(&full) }),
    }
}
