//! What a cache holds: its paths, what they take and what they refer to, in some 60 bytes a path.

use std::collections::HashMap;
use std::fs::Metadata;
use std::time::UNIX_EPOCH;

use crate::bank::{Bank, BankError, blocks_of, bytes_on_disk};
use crate::nix::hash::Sha256;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::{StoreDir, StorePathHash};

/// A number of a path in a [`Graph`].
pub type Index = u32;

/// The paths of a cache as they were when it was read.
#[derive(Debug, Default)]
pub struct Graph {
    /// In order, so that a path is found by halving.
    hashes: Vec<StorePathHash>,
    nodes: Vec<Node>,
    references: Vec<Index>,
    /// Of NARs that more than one path has: how many have it.
    shared: HashMap<u64, u32>,
    /// The beginnings of all NarHashes, in order.
    nars: Vec<u64>,
    /// The paths whose narinfo cannot be read.
    damaged: Vec<StorePathHash>,
}

/// `stat(2)` counts by these, whatever the file system's own blocks are: a NAR of two TiB has a number yet.
pub(super) const BLOCK: u64 = 512;

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// The beginning of the NarHash: two paths of one beginning count as having one NAR, which keeps it.
    nar: u64,
    /// What the NAR and the rest take on disk, in blocks of [`BLOCK`] bytes.
    blocks_of_nar: u32,
    blocks_beside: u32,
    /// When the path came, in seconds since 1970.
    came: u32,
    first_reference: u32,
    references: u32,
    /// Whether it is in the cache's own bank, from which it can be removed, and readable.
    is_own: bool,
}

impl Graph {
    /// Reads a cache: its own bank, and those that others keep for it. One entry that cannot be read is noted, and
    /// hinders no other; a bank that cannot be read is an error, because what it holds might refer to anything.
    pub fn read(own: &Bank, others: &[&Bank], store_dir: &StoreDir) -> Result<Self, BankError> {
        let mut own_paths = Vec::new();
        own.scan(|hash| own_paths.push(hash))?;
        own_paths.sort_unstable();
        let mut graph = Self::default();
        if others.is_empty() {
            graph.nodes = vec![Node { is_own: true, ..Node::default() }; own_paths.len()];
            graph.hashes = own_paths;
        } else {
            let mut paths = own_paths.clone();
            for other in others {
                other.scan(|hash| paths.push(hash))?;
            }
            paths.sort_unstable();
            paths.dedup();
            // What both have is read from the own bank.
            let is_own = |hash: &StorePathHash| own_paths.binary_search(hash).is_ok();
            let node = |hash| Node { is_own: is_own(hash), ..Node::default() };
            graph.nodes = paths.iter().map(node).collect();
            graph.hashes = paths;
        }
        for index in 0..graph.nodes.len() {
            graph.read_node(index, own, others, store_dir);
        }
        graph.count_shared();
        Ok(graph)
    }

    fn read_node(&mut self, index: usize, own: &Bank, others: &[&Bank], store_dir: &StoreDir) {
        let hash = self.hashes[index];
        let mut node = self.nodes[index];
        node.first_reference = number(self.references.len());
        let banks: &[&Bank] = if node.is_own { &[own] } else { others };
        let read = banks.iter().find_map(|bank| match bank.look_at_narinfo(hash) {
            Ok(None) => None,
            Ok(Some((text, file))) => {
                let narinfo = NarInfo::parse(&text, store_dir).ok();
                Some(narinfo.map(|narinfo| (*bank, narinfo, file)))
            }
            Err(_) => Some(None),
        });
        match read {
            Some(Some((bank, narinfo, file))) => {
                let own_reference = |path: &StorePathHash| *path != hash;
                let found = narinfo.info.references.iter().map(|path| path.hash());
                let found = found.filter(own_reference).filter_map(|path| self.find(path));
                let found: Vec<Index> = found.collect();
                node.references = number(found.len());
                self.references.extend(found);
                node.nar = beginning(narinfo.info.nar_hash);
                let nar = narinfo.nar_file().map(|name| bank.root().join(name.url()));
                node.blocks_of_nar = nar.map_or(0, |nar| blocks(bytes_on_disk(&nar)));
                node.came = came(&file);
                let listing = bank.root().join(format!("{hash}.ls"));
                node.blocks_beside = blocks(blocks_of(&file) + bytes_on_disk(&listing));
            }
            // It went meanwhile: nothing can be done with it, and it refers to nothing.
            None => node.is_own = false,
            Some(None) => {
                node.is_own = false;
                self.damaged.push(hash);
            }
        }
        self.nodes[index] = node;
    }

    fn count_shared(&mut self) {
        let mut nars: Vec<u64> = self.nodes.iter().map(|node| node.nar).collect();
        nars.sort_unstable();
        for same in nars.chunk_by(|one, other| one == other).filter(|same| same.len() > 1) {
            self.shared.insert(same[0], number(same.len()));
        }
        nars.dedup();
        self.nars = nars;
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What all of it takes on disk, in bytes, each NAR counted once.
    pub fn bytes(&self) -> u64 {
        let mut nars = self.nars();
        let own = self.indices().filter(|index| self.is_own(*index));
        own.map(|index| self.bytes_with(index, nars.leave(index))).sum()
    }

    /// The paths whose narinfo cannot be read; they are left alone.
    pub fn damaged(&self) -> &[StorePathHash] {
        &self.damaged
    }

    /// All paths, by number.
    pub fn indices(&self) -> std::ops::Range<Index> {
        0..number(self.nodes.len())
    }

    /// The number of a path.
    pub fn find(&self, hash: StorePathHash) -> Option<Index> {
        self.hashes.binary_search(&hash).ok().map(number)
    }

    /// The path of a number.
    pub fn hash(&self, index: Index) -> StorePathHash {
        self.hashes[index as usize]
    }

    /// What a path refers to here, itself not counted.
    pub fn references(&self, index: Index) -> &[Index] {
        let node = &self.nodes[index as usize];
        let first = node.first_reference as usize;
        &self.references[first..first + node.references as usize]
    }

    /// Whether it can be removed at all: it lies in the own bank, and can be read.
    pub fn is_own(&self, index: Index) -> bool {
        self.nodes[index as usize].is_own
    }

    /// When it came, in seconds since 1970.
    pub fn came(&self, index: Index) -> i64 {
        self.nodes[index as usize].came.into()
    }

    /// What it takes on disk, in bytes, with or without its NAR, which others may have.
    pub fn bytes_with(&self, index: Index, with_nar: bool) -> u64 {
        let node = &self.nodes[index as usize];
        let of_nar = if with_nar { node.blocks_of_nar } else { 0 };
        (u64::from(node.blocks_beside) + u64::from(of_nar)) * BLOCK
    }

    /// Whether a path has the NAR of this hash, or might have.
    pub fn has_nar(&self, nar_hash: Sha256) -> bool {
        self.nars.binary_search(&beginning(nar_hash)).is_ok()
    }

    /// Lets go of what [`Self::has_nar`] knows by.
    pub fn forget_nars(&mut self) {
        self.nars = Vec::new();
    }

    /// Whether this may be the NAR that a path had when it was read.
    pub fn is_nar_of(&self, index: Index, nar_hash: Sha256) -> bool {
        self.nodes[index as usize].nar == beginning(nar_hash)
    }

    /// A count of who has which NAR, to be counted down.
    pub fn nars(&self) -> Nars<'_> {
        Nars { graph: self, shared: self.shared.clone() }
    }
}

/// Who has which NAR, as paths go one by one.
pub struct Nars<'a> {
    graph: &'a Graph,
    shared: HashMap<u64, u32>,
}

impl Nars<'_> {
    /// A path goes. Says whether it was the last one that had its NAR.
    pub fn leave(&mut self, index: Index) -> bool {
        self.shared.get_mut(&self.graph.nodes[index as usize].nar).is_none_or(|count| {
            *count -= 1;
            *count == 0
        })
    }
}

fn blocks(bytes: u64) -> u32 {
    u32::try_from(bytes / BLOCK).unwrap_or(u32::MAX)
}

/// The first 8 bytes of a NarHash.
fn beginning(nar_hash: Sha256) -> u64 {
    let (first, _) = nar_hash.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}

fn came(narinfo: &Metadata) -> u32 {
    let modified = narinfo.modified().ok();
    let since_1970 = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since_1970.map_or(0, |since| u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
}

/// A cache holds no more than four billion of anything.
fn number(count: usize) -> Index {
    Index::try_from(count).unwrap_or(Index::MAX)
}

#[cfg(test)]
impl Graph {
    /// A graph of paths that are told: the NAR of each, what it takes in blocks, when it came, and what it refers to. The path
    /// of number `n` has the hash of `n` in its first four bytes.
    pub fn made(paths: &[(u64, u32, u32, Vec<Index>)]) -> Self {
        let mut graph = Self::default();
        for (index, (nar, blocks_of_nar, came, references)) in paths.iter().enumerate() {
            graph.hashes.push(Self::made_hash(number(index)));
            graph.nodes.push(Node {
                nar: *nar,
                blocks_of_nar: *blocks_of_nar,
                blocks_beside: 1,
                came: *came,
                first_reference: number(graph.references.len()),
                references: number(references.len()),
                is_own: true,
            });
            graph.references.extend(references);
        }
        graph.count_shared();
        graph
    }

    /// The path of that number.
    pub fn made_hash(index: Index) -> StorePathHash {
        StorePathHash::of_prefix(index)
    }
}
