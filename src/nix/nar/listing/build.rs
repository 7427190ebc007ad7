//! From the events of a NAR to its listing.

use super::super::{Event, Limits};
use super::{Entries, Listing, ListingError, Node};

/// Builds a [`Listing`] from [`Event`]s.
///
/// It trusts that the events are those of a good NAR; the parser and the tree walker see to that,
/// and to the depth. When the listing would be too large it lets go of what it has and ignores the
/// rest, so that a NAR of any size can be fed to it.
#[derive(Debug)]
pub struct ListingBuilder {
    limits: Limits,
    /// Open directories, each with the name it has in the one above it.
    open: Vec<(Box<[u8]>, Entries)>,
    /// The name of the node that comes next; empty for the root.
    name: Box<[u8]>,
    root: Option<Node>,
    entries: u64,
    bytes: u64,
    failed: Option<ListingError>,
}

impl ListingBuilder {
    /// A builder that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: Vec::new(),
            name: Box::default(),
            root: None,
            entries: 0,
            bytes: 0,
            failed: None,
        }
    }

    /// Takes the next event.
    pub fn event(&mut self, event: &Event<'_>) {
        if self.failed.is_some() {
            return;
        }
        match *event {
            Event::Directory => {
                let name = std::mem::take(&mut self.name);
                self.open.push((name, Entries::default()));
                self.count(1, 0);
            }
            Event::Entry(name) => {
                self.name = name.into();
                self.count(0, name.len());
            }
            Event::DirectoryEnd => {
                if let Some((name, entries)) = self.open.pop() {
                    self.place(name, Node::Directory(entries));
                }
            }
            Event::File { executable, size, contents_offset } => {
                let name = std::mem::take(&mut self.name);
                self.place(name, Node::Regular { size, executable, nar_offset: contents_offset });
                self.count(1, 0);
            }
            Event::Symlink { target } => {
                let name = std::mem::take(&mut self.name);
                self.place(name, Node::Symlink { target: target.into() });
                self.count(1, target.len());
            }
            Event::Contents(_) | Event::FileEnd => {}
        }
    }

    /// The listing, or why there is none. Says nothing about the NAR: ask its parser.
    pub fn finish(self) -> Result<Listing, ListingError> {
        match (self.failed, self.root) {
            (Some(error), _) => Err(error),
            (None, Some(root)) => Ok(Listing { root }),
            (None, None) => Err(ListingError::Incomplete),
        }
    }

    fn place(&mut self, name: Box<[u8]>, node: Node) {
        match self.open.last_mut() {
            Some((_, entries)) => entries.0.push((name, node)),
            None => self.root = Some(node),
        }
    }

    fn count(&mut self, entries: u64, bytes: usize) {
        self.entries += entries;
        self.bytes += bytes as u64;
        if self.entries > self.limits.max_listing_entries {
            self.failed = Some(ListingError::TooManyEntries(self.limits.max_listing_entries));
        } else if self.bytes > self.limits.max_listing_bytes {
            self.failed = Some(ListingError::TooManyBytes(self.limits.max_listing_bytes));
        }
        if self.failed.is_some() {
            self.open = Vec::new();
            self.root = None;
        }
    }
}
