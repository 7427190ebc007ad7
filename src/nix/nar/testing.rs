//! Random trees, for the tests of whatever reads or writes NARs.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Encoder, Event, Limits, NarError, Parser};

/// A file system object in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    File { executable: bool, contents: Vec<u8> },
    Symlink(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Tree>),
}

/// What a [`Parser`] found, with contents joined however they were cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Directory,
    Entry(Vec<u8>),
    DirectoryEnd,
    File { executable: bool, size: u64, contents_offset: u64 },
    Contents(Vec<u8>),
    FileEnd,
    Symlink(Vec<u8>),
}

impl Tree {
    /// A directory of `entries`.
    pub(crate) fn directory<const N: usize>(entries: [(&str, Self); N]) -> Self {
        Self::Directory(entries.map(|(name, tree)| (name.as_bytes().to_vec(), tree)).into())
    }

    /// A file that is not executable.
    pub(crate) fn file(contents: &str) -> Self {
        Self::File { executable: false, contents: contents.as_bytes().to_vec() }
    }

    /// A symlink.
    pub(crate) fn symlink(target: &str) -> Self {
        Self::Symlink(target.as_bytes().to_vec())
    }

    /// `depth` directories, each but the last with the next one in it.
    pub(crate) fn nested(depth: usize) -> Self {
        (1..depth).fold(Self::directory([]), |inner, _| Self::directory([("d", inner)]))
    }

    /// The NAR of it.
    pub(crate) fn nar(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut Encoder::default(), &mut out);
        out
    }

    fn write(&self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        match self {
            Self::File { executable, contents } => {
                let size = contents.len() as u64;
                let event = Event::File { executable: *executable, size, contents_offset: 0 };
                encoder.event(&event, out);
                encoder.event(&Event::Contents(contents), out);
                encoder.event(&Event::FileEnd, out);
            }
            Self::Symlink(target) => encoder.event(&Event::Symlink { target }, out),
            Self::Directory(entries) => {
                encoder.event(&Event::Directory, out);
                for (name, tree) in entries {
                    encoder.event(&Event::Entry(name), out);
                    tree.write(encoder, out);
                }
                encoder.event(&Event::DirectoryEnd, out);
            }
        }
    }

    /// Whether all names and targets are UTF-8.
    pub(crate) fn is_text(&self) -> bool {
        match self {
            Self::File { .. } => true,
            Self::Symlink(target) => std::str::from_utf8(target).is_ok(),
            Self::Directory(entries) => entries
                .iter()
                .all(|(name, tree)| std::str::from_utf8(name).is_ok() && tree.is_text()),
        }
    }
}

/// Parses pieces of a NAR.
pub(crate) fn parse<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: Limits,
) -> Result<Vec<Found>, NarError> {
    let mut parser = Parser::new(limits);
    let mut found = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut |event| keep(event, &mut found))?;
    }
    parser.finish()?;
    Ok(found)
}

/// Parses a whole NAR with the default limits.
pub(crate) fn parse_whole(nar: &[u8]) -> Result<Vec<Found>, NarError> {
    parse([nar], Limits::default())
}

/// Builds the tree from what a parser found in its NAR.
pub(crate) fn rebuild(found: &[Found]) -> Tree {
    let mut found = found.iter().peekable();
    let tree = rebuild_node(&mut found);
    assert_eq!(found.next(), None);
    tree
}

fn rebuild_node<'a>(found: &mut std::iter::Peekable<impl Iterator<Item = &'a Found>>) -> Tree {
    match found.next().unwrap() {
        Found::Symlink(target) => Tree::Symlink(target.clone()),
        Found::File { executable, size, .. } => {
            let contents = match found.next_if(|next| matches!(next, Found::Contents(_))) {
                Some(Found::Contents(contents)) => contents.clone(),
                _ => Vec::new(),
            };
            assert_eq!(contents.len() as u64, *size);
            assert_eq!(found.next(), Some(&Found::FileEnd));
            Tree::File { executable: *executable, contents }
        }
        Found::Directory => {
            let mut entries = BTreeMap::new();
            while let Some(Found::Entry(name)) =
                found.next_if(|next| matches!(next, Found::Entry(_)))
            {
                assert!(entries.insert(name.clone(), rebuild_node(found)).is_none());
            }
            assert_eq!(found.next(), Some(&Found::DirectoryEnd));
            Tree::Directory(entries)
        }
        other => panic!("{other:?} begins no node"),
    }
}

fn keep(event: Event<'_>, found: &mut Vec<Found>) {
    let next = match event {
        Event::Directory => Found::Directory,
        Event::Entry(name) => Found::Entry(name.to_vec()),
        Event::DirectoryEnd => Found::DirectoryEnd,
        Event::File { executable, size, contents_offset } => {
            Found::File { executable, size, contents_offset }
        }
        Event::Contents(bytes) => {
            assert!(!bytes.is_empty());
            if let Some(Found::Contents(contents)) = found.last_mut() {
                contents.extend_from_slice(bytes);
                return;
            }
            Found::Contents(bytes.to_vec())
        }
        Event::FileEnd => Found::FileEnd,
        Event::Symlink { target } => Found::Symlink(target.to_vec()),
    };
    found.push(next);
}

/// Any legal name: mostly short and alike, so that order matters; some of arbitrary bytes.
pub(crate) fn name() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 1..40);
    let long = proptest::collection::vec(any::<u8>(), 255);
    prop_oneof![
        6 => "[a-cA-C~.-]{1,4}".prop_map(String::into_bytes),
        2 => "\\PC{1,20}".prop_map(String::into_bytes),
        2 => bytes,
        1 => long,
    ]
    .prop_map(|mut name| {
        name.iter_mut().filter(|byte| matches!(byte, b'/' | 0)).for_each(|byte| *byte = b'_');
        name.truncate(255);
        if matches!(&name[..], b"." | b"..") { b"dots".to_vec() } else { name }
    })
}

/// Any tree: files of all paddings, executables, symlinks, empty and deep directories.
pub(crate) fn tree() -> impl Strategy<Value = Tree> {
    let contents = proptest::collection::vec(any::<u8>(), 0..64);
    let target = proptest::collection::vec(1..=u8::MAX, 1..100);
    let leaf = prop_oneof![
        4 => (any::<bool>(), contents)
            .prop_map(|(executable, contents)| Tree::File { executable, contents }),
        1 => target.prop_map(Tree::Symlink),
        1 => Just(Tree::directory([])),
        1 => (1..8_usize).prop_map(Tree::nested),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        proptest::collection::btree_map(name(), inner, 0..8).prop_map(Tree::Directory)
    })
}
