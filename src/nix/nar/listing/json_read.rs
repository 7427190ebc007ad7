//! Reads the JSON of a `.ls` file, which another server may have written.
//!
//! Keys may come in any order, and `executable` and `narOffset` may be missing, as older Nix leaves
//! them out. Whatever else is not as Nix writes it is refused: a listing is derived from a NAR, and
//! is made anew when it cannot be read.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::super::Limits;
use super::json::{from_text, to_text};
use super::{Entries, Listing, ListingError, Node};

impl Listing {
    /// Reads a listing, up to `limits`.
    pub fn from_json(json: &[u8], limits: Limits) -> Result<Self, ListingError> {
        let budget = Budget {
            limits,
            entries: Cell::new(limits.max_listing_entries),
            bytes: Cell::new(limits.max_listing_bytes),
        };
        let mut reader = serde_json::Deserializer::from_slice(json);
        // Each level of directories is two of JSON, so that 64 are beyond serde_json's own limit of
        // 128. Ours is kept by `NodeSeed`, and no other part of the grammar nests.
        reader.disable_recursion_limit();
        let root = RootSeed(&budget).deserialize(&mut reader)?;
        reader.end()?;
        Ok(Self { root })
    }
}

/// What is left of the limits.
struct Budget {
    limits: Limits,
    entries: Cell<u64>,
    bytes: Cell<u64>,
}

impl Budget {
    fn text<E: Error>(&self, text: &str) -> Result<Box<[u8]>, E> {
        let left = self.bytes.get().checked_sub(text.len() as u64);
        self.bytes.set(left.ok_or_else(|| E::custom("too many bytes of names and targets"))?);
        Ok(from_text(text))
    }

    fn node<E: Error>(&self, depth: usize) -> Result<(), E> {
        if depth >= self.limits.max_depth {
            return Err(E::custom("directories nested too deeply"));
        }
        let left = self.entries.get().checked_sub(1);
        self.entries.set(left.ok_or_else(|| E::custom("too many entries"))?);
        Ok(())
    }
}

/// `{"root": node, "version": 1}`
struct RootSeed<'b>(&'b Budget);

impl<'de> DeserializeSeed<'de> for RootSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Node, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RootSeed<'_> {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a NAR listing")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let (mut root, mut version) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "root" if root.is_none() => {
                    root = Some(map.next_value_seed(NodeSeed { budget: self.0, depth: 0 })?);
                }
                "version" if version.is_none() => version = Some(map.next_value::<u64>()?),
                _ => return Err(A::Error::custom("an unknown or repeated key")),
            }
        }
        match (root, version) {
            (Some(root), Some(1)) => Ok(root),
            _ => Err(A::Error::custom("no root, or a version other than 1")),
        }
    }
}

struct NodeSeed<'b> {
    budget: &'b Budget,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Node, D::Error> {
        self.budget.node(self.depth)?;
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a node of a NAR listing")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let (mut kind, mut entries, mut target) = (None, None, None);
        let (mut size, mut executable, mut nar_offset) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "type" if kind.is_none() => kind = Some(map.next_value::<String>()?),
                "entries" if entries.is_none() => {
                    let seed = EntriesSeed { budget: self.budget, depth: self.depth + 1 };
                    entries = Some(map.next_value_seed(seed)?);
                }
                "target" if target.is_none() => {
                    target = Some(self.budget.text::<A::Error>(&map.next_value::<String>()?)?);
                }
                "size" if size.is_none() => size = Some(map.next_value::<u64>()?),
                "executable" if executable.is_none() => {
                    executable = Some(map.next_value::<bool>()?);
                }
                "narOffset" if nar_offset.is_none() => {
                    nar_offset = Some(map.next_value::<u64>()?);
                }
                _ => return Err(A::Error::custom("an unknown or repeated key")),
            }
        }
        match (kind.as_deref(), entries, target, size) {
            (Some("directory"), Some(entries), None, None) => Ok(Node::Directory(entries)),
            (Some("symlink"), None, Some(target), None) => {
                let legal = !target.is_empty()
                    && target.len() <= self.budget.limits.max_target
                    && !target.contains(&0);
                legal.then_some(Node::Symlink { target }).ok_or_else(|| {
                    A::Error::custom("a symlink target that is empty, too long, or has a NUL")
                })
            }
            (Some("regular"), None, None, Some(size)) => Ok(Node::Regular {
                size,
                executable: executable.unwrap_or(false),
                nar_offset: nar_offset.unwrap_or(0),
            }),
            _ => Err(A::Error::custom("keys that do not make a node")),
        }
    }
}

struct EntriesSeed<'b> {
    budget: &'b Budget,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for EntriesSeed<'_> {
    type Value = Entries;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Entries, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntriesSeed<'_> {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the entries of a directory")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let name = self.budget.text::<A::Error>(&key)?;
            let illegal = matches!(&*name, b"" | b"." | b"..")
                || name.iter().any(|byte| matches!(byte, b'/' | b'\0'))
                || name.len() > self.budget.limits.max_name;
            if illegal {
                return Err(A::Error::custom(format!("{:?} is not a legal name", to_text(&name))));
            }
            let seed = NodeSeed { budget: self.budget, depth: self.depth };
            entries.push((name, map.next_value_seed(seed)?));
        }
        entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(A::Error::custom("the same name twice in a directory"));
        }
        Ok(Entries(entries))
    }
}
