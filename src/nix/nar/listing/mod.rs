//! What is in a NAR, as a tree: the `.ls` files of a binary cache.

mod build;
mod debug;
mod json;
mod json_read;

pub use build::ListingBuilder;

/// All that a NAR holds but the contents of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    root: Node,
}

/// A file, symlink or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory with its entries.
    Directory(Entries),
    /// A regular file.
    Regular {
        /// The length of its contents in bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
        /// Where its contents begin in the uncompressed NAR, in bytes; 0 if that is not known, as
        /// in a listing that another server wrote.
        nar_offset: u64,
    },
    /// A symlink.
    Symlink {
        /// What it points to. Bytes, which need not be UTF-8.
        target: Box<[u8]>,
    },
}

/// The entries of a directory, sorted by the bytes of their names, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries(Vec<(Box<[u8]>, Node)>);

/// Why there is no listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// More nodes than [`Limits::max_listing_entries`](super::Limits::max_listing_entries).
    #[error("more than {0} files and directories, too many for a listing")]
    TooManyEntries(u64),
    /// More bytes than [`Limits::max_listing_bytes`](super::Limits::max_listing_bytes).
    #[error("names and targets of more than {0} bytes, too many for a listing")]
    TooManyBytes(u64),
    /// The events, or the NAR that they come from, were not complete.
    #[error("the NAR ended before its listing was complete")]
    Incomplete,
    /// A text that is not a listing, or one beyond the limits.
    #[error("not a NAR listing")]
    Json(#[from] serde_json::Error),
}

impl Listing {
    /// The node at the top.
    pub const fn root(&self) -> &Node {
        &self.root
    }

    /// Finds the node at `path`, given by its components; none is the root. Symlinks are not
    /// followed, and `.` and `..` are names like any other, which no directory has.
    pub fn lookup<'a>(&self, path: impl IntoIterator<Item = &'a [u8]>) -> Option<&Node> {
        path.into_iter().try_fold(&self.root, |node, name| match node {
            Node::Directory(entries) => entries.get(name),
            Node::Regular { .. } | Node::Symlink { .. } => None,
        })
    }
}

impl Entries {
    /// The node called `name`.
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        let index = self.0.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
        self.0.get(index).map(|(_, node)| node)
    }

    /// Names and nodes in the order of the NAR.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Node)> {
        self.0.iter().map(|(name, node)| (&**name, node))
    }
}

#[cfg(test)]
mod tests;
