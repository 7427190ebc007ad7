//! Into a path without unpacking it: its listing, one file of it, and its realisations signed.

use std::io::Read;

use serde_json::Value;

use super::cache::{Cache, Unavailable, merge};
use super::chunks::{BoxedChunks, FileChunks};
use super::local::tree::{self, Opened, StoreTree, TreeError};
use super::{Blob, NarBody, Source, SourceError, StoredFile};
use crate::bank::{MAX_SMALL_OBJECT, Object};
use crate::nix::nar::{Entries, Event, Limits, Listing, ListingBuilder, Node, Parser};
use crate::nix::nar_url::NarRequest;
use crate::nix::realisation::{BuildTraceKey, DrvOutput, Realisation};
use crate::nix::signature::Signature;
use crate::nix::store_path::{StorePath, StorePathHash};

/// One thing in a path.
pub enum Item {
    /// A regular file: its bytes.
    File {
        /// The contents, in chunks made by blocking.
        chunks: BoxedChunks,
        /// Their length in bytes.
        size: u64,
    },
    /// A directory: what is in it, by name.
    Directory(Vec<Entry>),
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
}

/// A name in a directory.
pub struct Entry {
    /// The name; bytes, as in a NAR.
    pub name: Vec<u8>,
    /// What it is, where that is known without opening it.
    pub kind: Kind,
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Where its contents begin in the NAR, where that is known.
        nar_offset: Option<u64>,
    },
    /// A symbolic link.
    Symlink,
    /// Not looked at.
    Unknown,
}

/// The `.ls` of a path, as JSON: as it was uploaded, else made from the tree or the NAR.
pub fn listing_json(cache: &Cache, hash: StorePathHash) -> Result<Option<Vec<u8>>, Unavailable> {
    let stored = cache.first(|source| source.object(&Object::Listing(hash)))?;
    if let Some((_, blob)) = stored
        && let Ok(json) = read_whole(blob)
        && Listing::from_json(&json, Limits::default()).is_ok()
    {
        return Ok(Some(json));
    }
    Ok(listing(cache, hash)?.map(|listing| listing.to_json()))
}

/// What is at `components` in a path.
pub fn open(
    cache: &Cache,
    hash: StorePathHash,
    components: &[Vec<u8>],
) -> Result<Option<Item>, Unavailable> {
    let found = cache.first(|source| match source {
        Source::Store(store) => match store.tree(hash)? {
            Some((tree, _)) => open_in_tree(&tree, components),
            None => Ok(None),
        },
        Source::Bank(_) => open_in_nar(source, hash, components),
    })?;
    Ok(found.map(|(_, item)| item))
}

/// A realisation in its older form, signed.
pub fn realisation(cache: &Cache, key: &DrvOutput) -> Result<Option<Vec<u8>>, Unavailable> {
    let object = Object::Realisation(key.clone());
    realise(cache, &object, |stored| {
        let mut found = Realisation::from_flat_json(stored)?;
        found.signatures = signed(cache, &found.signatures, &found.fingerprint(key));
        Some(found.to_flat_json(key))
    })
}

/// A realisation in its newer form, signed.
pub fn build_trace(cache: &Cache, key: &BuildTraceKey) -> Result<Option<Vec<u8>>, Unavailable> {
    let object = Object::BuildTrace(key.clone());
    realise(cache, &object, |stored| {
        let mut found = Realisation::from_build_trace_json(stored)?;
        let text = found.build_trace_fingerprint(key);
        found.signatures = signed(cache, &found.signatures, &text);
        Some(found.to_build_trace_json())
    })
}

/// All of a small object.
pub fn read_whole(blob: Blob) -> std::io::Result<Vec<u8>> {
    match blob {
        Blob::Bytes(bytes) => Ok(bytes),
        Blob::Stream(reader) => {
            let mut bytes = Vec::new();
            reader.take(MAX_SMALL_OBJECT).read_to_end(&mut bytes)?;
            Ok(bytes)
        }
    }
}

fn signed(cache: &Cache, theirs: &[Signature], text: &str) -> Vec<Signature> {
    merge(theirs, &cache.sign(text))
}

fn realise(
    cache: &Cache,
    object: &Object,
    sign: impl Fn(&Value) -> Option<Value>,
) -> Result<Option<Vec<u8>>, Unavailable> {
    let found = cache.first(|source| {
        let Some(blob) = source.object(object)? else { return Ok(None) };
        let bytes = read_whole(blob).map_err(|error| SourceError::Damaged(error.to_string()))?;
        let signed = serde_json::from_slice(&bytes).ok().and_then(|value| sign(&value));
        signed.map(Some).ok_or_else(|| SourceError::Damaged("a realisation that is none".into()))
    })?;
    Ok(found.map(|(_, value)| value.to_string().into_bytes()))
}

fn listing(cache: &Cache, hash: StorePathHash) -> Result<Option<Listing>, Unavailable> {
    let found = cache.first(|source| match source {
        Source::Store(store) => {
            let Some((tree, _)) = store.tree(hash)? else { return Ok(None) };
            let listing = tree::listing(tree).map_err(refuse)?;
            listing.map(Some).map_err(|error| SourceError::Damaged(error.to_string()))
        }
        Source::Bank(_) => listing_of_nar(source, hash),
    })?;
    Ok(found.map(|(_, listing)| listing))
}

fn refuse(error: TreeError) -> SourceError {
    match error {
        TreeError::Io { .. } | TreeError::ReaderFailed => {
            SourceError::Unavailable(error.to_string())
        }
        _ => SourceError::Damaged(error.to_string()),
    }
}

/// Reads the NAR of a bank to its end, keeping what a listing has.
fn listing_of_nar(source: &Source, hash: StorePathHash) -> Result<Option<Listing>, SourceError> {
    let damaged = |why: String| SourceError::Damaged(format!("the NAR of {hash}: {why}"));
    let Some((stored, size)) = nar_of(source, hash)? else { return Ok(None) };
    let chunks = stored.into_chunks(0..size, size).map_err(|error| damaged(error.to_string()))?;
    let mut parser = Parser::new(Limits::default());
    let mut builder = ListingBuilder::new(Limits::default());
    for chunk in chunks {
        let chunk = chunk.map_err(|error| damaged(error.to_string()))?;
        parser
            .push(&chunk, &mut |event: Event<'_>| builder.event(&event))
            .map_err(|error| damaged(error.to_string()))?;
    }
    parser.finish().map_err(|error| damaged(error.to_string()))?;
    builder.finish().map(Some).map_err(|error| damaged(error.to_string()))
}

fn nar_of(
    source: &Source,
    hash: StorePathHash,
) -> Result<Option<(super::Stored, u64)>, SourceError> {
    let found = source.nar(NarRequest::OfPath { path: hash, nar_hash: None })?;
    match found.map(|nar| (nar.body, nar.size)) {
        Some((NarBody::Stored(stored), Some(size))) => Ok(Some((stored, size))),
        _ => Ok(None),
    }
}

fn open_in_nar(
    source: &Source,
    hash: StorePathHash,
    components: &[Vec<u8>],
) -> Result<Option<Item>, SourceError> {
    let stored = source.object(&Object::Listing(hash))?.and_then(|blob| read_whole(blob).ok());
    let stored = stored.and_then(|json| Listing::from_json(&json, Limits::default()).ok());
    let listing = match stored.filter(|listing| has_offset(listing, components)) {
        Some(listing) => listing,
        None => match listing_of_nar(source, hash)? {
            Some(listing) => listing,
            None => return Ok(None),
        },
    };
    match listing.lookup(components.iter().map(Vec::as_slice)) {
        None => Ok(None),
        Some(Node::Symlink { target }) => Ok(Some(Item::Symlink(target.to_vec()))),
        Some(Node::Directory(entries)) => Ok(Some(Item::Directory(names(entries)))),
        Some(Node::Regular { size, nar_offset, .. }) => {
            let Some((stored, nar_size)) = nar_of(source, hash)? else { return Ok(None) };
            let offset = *nar_offset;
            let part = offset..offset.saturating_add(*size).min(nar_size);
            let chunks = stored
                .into_chunks(part, nar_size)
                .map_err(|error| SourceError::Damaged(error.to_string()))?;
            Ok(Some(Item::File { chunks, size: *size }))
        }
    }
}

/// Whether a listing that somebody uploaded tells where the contents are; not all do.
fn has_offset(listing: &Listing, components: &[Vec<u8>]) -> bool {
    let node = listing.lookup(components.iter().map(Vec::as_slice));
    !matches!(node, Some(Node::Regular { nar_offset: 0, .. }))
}

fn names(entries: &Entries) -> Vec<Entry> {
    let kind = |node: &Node| match node {
        Node::Directory(_) => Kind::Directory,
        Node::Regular { size, nar_offset, .. } => {
            // Nothing in a NAR begins at 0: that is what a listing says that does not tell.
            let nar_offset = Some(*nar_offset).filter(|offset| *offset > 0);
            Kind::File { size: *size, nar_offset }
        }
        Node::Symlink { .. } => Kind::Symlink,
    };
    entries.iter().map(|(name, node)| Entry { name: name.into(), kind: kind(node) }).collect()
}

fn open_in_tree(tree: &StoreTree, components: &[Vec<u8>]) -> Result<Option<Item>, SourceError> {
    match tree::open_file(tree, components.iter().map(Vec::as_slice)) {
        Ok(Opened::File { file, size, .. }) => Ok(Some(Item::File {
            chunks: Box::new(FileChunks::new(StoredFile::new(file), 0..size)),
            size,
        })),
        Ok(Opened::Symlink(target)) => Ok(Some(Item::Symlink(target))),
        Ok(Opened::Directory(names)) => {
            let listing = tree::listing(tree.clone()).map_err(refuse)?.ok();
            let node = listing
                .as_ref()
                .and_then(|listing| listing.lookup(components.iter().map(Vec::as_slice)));
            Ok(Some(Item::Directory(match node {
                Some(Node::Directory(entries)) => self::names(entries),
                // Too large for a listing.
                _ => {
                    let entry = |name| Entry { name, kind: Kind::Unknown };
                    names.into_iter().map(entry).collect()
                }
            })))
        }
        Err(TreeError::NotFound { .. } | TreeError::ThroughSymlink { .. }) => Ok(None),
        Err(error) => Err(refuse(error)),
    }
}

/// Where a link in a path leads: a store path and the names below it. `None` where it leads out of
/// the store.
///
/// `at` is where the link is, below `path`; its last name is the link's own.
pub fn follow(
    cache: &Cache,
    path: StorePathHash,
    at: &[Vec<u8>],
    target: &[u8],
) -> Option<(StorePathHash, Vec<Vec<u8>>)> {
    // A stack of names below the store directory. The first is this path's, whose name is not
    // asked for: an empty one stands for it.
    let mut stack: Vec<&[u8]> = Vec::new();
    let relative = match target.strip_prefix(b"/") {
        Some(_) => {
            let below = target.strip_prefix(cache.info.store_dir.as_str().as_bytes())?;
            below.strip_prefix(b"/")?
        }
        None => {
            let parent = &at[..at.len().saturating_sub(1)];
            stack.push(b"");
            // The link may be the path itself: then it is relative to the store directory.
            if at.is_empty() {
                stack.clear();
            }
            stack.extend(parent.iter().map(Vec::as_slice));
            target
        }
    };
    for name in relative.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                stack.pop()?;
            }
            name => stack.push(name),
        }
    }
    let (first, rest) = stack.split_first()?;
    let hash = match *first {
        b"" => path,
        name => StorePath::parse(std::str::from_utf8(name).ok()?).ok()?.hash(),
    };
    Some((hash, rest.iter().map(|name| name.to_vec()).collect()))
}
