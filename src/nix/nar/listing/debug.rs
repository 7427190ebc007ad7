//! The debug information in a listing.

use super::super::super::build_id::{BuildId, DEBUG, DIRECTORY};
use super::super::Limits;
use super::{Listing, Node};

impl Listing {
    /// The same of a listing as JSON; none where it cannot be read.
    pub fn debug_files_in(json: &[u8]) -> Vec<BuildId> {
        // Nearly all paths have none, and reading a listing takes longer than this look.
        if memchr::memmem::find(json, b".build-id").is_none() {
            return Vec::new();
        }
        let listing = Self::from_json(json, Limits::default());
        listing.map(|listing| listing.debug_files().collect()).unwrap_or_default()
    }

    /// The build IDs of which there is debug information here; [`BuildId::member`] says where.
    ///
    /// That is each regular file `lib/debug/.build-id/<xx>/<rest>.debug`, as `index-debug-info` of
    /// Nix has it, but of build IDs of all lengths instead of 40 digits only.
    pub fn debug_files(&self) -> impl Iterator<Item = BuildId> {
        let directory = self.lookup(DIRECTORY.map(str::as_bytes));
        children(directory).flat_map(|(first, node)| {
            let first = std::str::from_utf8(first).ok().filter(|first| first.len() == 2);
            children(first.map(|_| node)).filter_map(move |(rest, node)| {
                let rest = std::str::from_utf8(rest).ok()?.strip_suffix(DEBUG)?;
                let id = BuildId::parse(&format!("{}{rest}", first?))?;
                matches!(node, Node::Regular { .. }).then_some(id)
            })
        })
    }
}

fn children(node: Option<&Node>) -> impl Iterator<Item = (&[u8], &Node)> {
    let entries = match node {
        Some(Node::Directory(entries)) => Some(entries),
        _ => None,
    };
    entries.into_iter().flat_map(|entries| entries.iter())
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Tree;
    use super::super::super::{Limits, ListingBuilder, Parser};
    use super::*;

    fn list(tree: &Tree) -> Listing {
        let mut builder = ListingBuilder::new(Limits::default());
        let mut parser = Parser::new(Limits::default());
        parser.push(&tree.nar(), &mut |event| builder.event(&event)).unwrap();
        builder.finish().unwrap()
    }

    fn inside(tree: Tree) -> Listing {
        let debug = Tree::directory([(".build-id", tree)]);
        list(&Tree::directory([("lib", Tree::directory([("debug", debug)]))]))
    }

    #[test]
    fn each_debug_file_is_found_and_nothing_else() {
        let long = "1".repeat(38) + ".debug";
        let listing = inside(Tree::directory([
            ("00", Tree::directory([])),
            ("abc", Tree::directory([("d.debug", Tree::file(""))])),
            (
                "ab",
                Tree::directory([
                    (&long, Tree::file("elf")),
                    ("00.debug", Tree::file("elf")),
                    ("11", Tree::file("elf")),
                    ("22.debug", Tree::symlink("11")),
                    ("33.debug", Tree::directory([])),
                    ("GG.debug", Tree::file("")),
                ]),
            ),
            ("cd", Tree::file("")),
            ("x", Tree::directory([("yz.debug", Tree::file(""))])),
        ]));
        let ids: Vec<_> = listing.debug_files().collect();
        assert_eq!(
            ids.iter().map(BuildId::as_str).collect::<Vec<_>>(),
            ["ab00".to_owned(), format!("ab{}", "1".repeat(38)),]
        );
        for id in ids {
            let member = id.member();
            let node = listing.lookup(member.split('/').map(str::as_bytes));
            assert!(matches!(node, Some(Node::Regular { size: 3, .. })), "{member}");
        }
    }

    #[test]
    fn a_listing_without_such_a_directory_has_none() {
        let trees =
            [Tree::file(""), Tree::directory([]), Tree::directory([("lib", Tree::symlink("x"))])];
        for tree in trees {
            assert_eq!(list(&tree).debug_files().count(), 0);
        }
        assert_eq!(inside(Tree::symlink("elsewhere")).debug_files().count(), 0);
    }
}
