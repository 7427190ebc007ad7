//! Tests of listings.

use proptest::prelude::*;

use super::super::testing::{Tree, tree};
use super::super::{Limits, Parser};
use super::json::{from_text, to_text};
use super::{Listing, ListingBuilder, ListingError, Node};

fn list_with(tree: &Tree, limits: Limits) -> Result<Listing, ListingError> {
    let mut builder = ListingBuilder::new(limits);
    let mut parser = Parser::new(Limits::default());
    parser.push(&tree.nar(), &mut |event| builder.event(&event)).unwrap();
    parser.finish().unwrap();
    builder.finish()
}

fn list(tree: &Tree) -> Listing {
    list_with(tree, Limits::default()).unwrap()
}

fn json(tree: &Tree) -> String {
    String::from_utf8(list(tree).to_json()).unwrap()
}

fn read(json: &str) -> Result<Listing, ListingError> {
    Listing::from_json(json.as_bytes(), Limits::default())
}

#[test]
fn the_json_is_what_nix_writes() {
    let tree = Tree::directory([
        ("bin", Tree::directory([("sh", Tree::symlink("bash"))])),
        ("run", Tree::File { executable: true, contents: b"exit".to_vec() }),
    ]);
    assert_eq!(
        json(&tree),
        "{\"root\":{\"entries\":{\"bin\":{\"entries\":{\"sh\":{\"target\":\"bash\",\
         \"type\":\"symlink\"}},\"type\":\"directory\"},\"run\":{\"executable\":true,\
         \"narOffset\":624,\"size\":4,\"type\":\"regular\"}},\"type\":\"directory\"},\
         \"version\":1}"
    );
}

#[test]
fn an_offset_that_is_not_known_is_left_out() {
    let text = "{\"root\":{\"executable\":false,\"size\":4,\"type\":\"regular\"},\"version\":1}";
    let listing = read(text).unwrap();
    assert_eq!(listing.root(), &Node::Regular { size: 4, executable: false, nar_offset: 0 });
    assert_eq!(listing.to_json(), text.as_bytes());
}

#[test]
fn text_is_escaped_as_json_requires_and_no_more() {
    let tree = Tree::directory([("\u{1}\u{8}\t\n\u{c}\r\"\\\u{7f}ä€\u{1f}", Tree::symlink("x"))]);
    let expected = "\"\\u0001\\b\\t\\n\\f\\r\\\"\\\\\u{7f}ä€\\u001f\"";
    assert!(json(&tree).contains(expected), "{}", json(&tree));
    assert_eq!(read(&json(&tree)).unwrap(), list(&tree));
}

#[test]
fn bytes_that_are_not_utf_8_are_shown_and_come_back() {
    for (bytes, text) in [
        (&b"caf\xe9"[..], "caf\u{fffd}E9"),
        (b"\xff\xfe", "\u{fffd}FF\u{fffd}FE"),
        ("\u{fffd}".as_bytes(), "\u{fffd}"),
        ("\u{fffd}41".as_bytes(), "\u{fffd}41"),
        ("\u{fffd}E9".as_bytes(), "\u{fffd}EF\u{fffd}BF\u{fffd}BDE9"),
    ] {
        assert_eq!(to_text(bytes), text);
        assert_eq!(&*from_text(text), bytes);
    }
}

#[test]
fn a_path_is_looked_up_by_its_bytes() {
    let tree = Tree::directory([
        ("a", Tree::directory([("b", Tree::file("x"))])),
        ("l", Tree::symlink("a")),
    ]);
    let listing = list(&tree);
    let lookup = |path: &str| {
        listing.lookup(path.split('/').filter(|name| !name.is_empty()).map(str::as_bytes)).cloned()
    };
    assert_eq!(lookup(""), Some(listing.root().clone()));
    assert!(matches!(lookup("a/b"), Some(Node::Regular { size: 1, .. })));
    for path in ["l/b", "a/b/c", "a/..", "c", "a/B"] {
        assert_eq!(lookup(path), None, "{path}");
    }
}

#[test]
fn a_listing_that_would_be_too_large_is_refused_without_keeping_it() {
    let tree = Tree::directory([("a", Tree::file("")), ("b", Tree::symlink("target"))]);
    let limits = |max_listing_entries, max_listing_bytes| Limits {
        max_listing_entries,
        max_listing_bytes,
        ..Limits::default()
    };
    assert!(list_with(&tree, limits(3, 8)).is_ok());
    let got = list_with(&tree, limits(2, 8)).unwrap_err();
    assert!(matches!(got, ListingError::TooManyEntries(2)), "{got}");
    let got = list_with(&tree, limits(3, 7)).unwrap_err();
    assert!(matches!(got, ListingError::TooManyBytes(7)), "{got}");
    let text = list(&tree).to_json();
    assert!(Listing::from_json(&text, limits(3, 8)).is_ok());
    assert!(Listing::from_json(&text, limits(2, 8)).is_err());
    assert!(Listing::from_json(&text, limits(3, 7)).is_err());
}

#[test]
fn the_deepest_listing_reads_back_and_a_deeper_one_is_refused() {
    let listing = list(&Tree::nested(64));
    assert_eq!(Listing::from_json(&listing.to_json(), Limits::default()).unwrap(), listing);
    for depth in [65, 100_000] {
        let text = "{\"root\":".to_owned() + &"{\"entries\":{\"d\":".repeat(depth);
        assert!(read(&text).unwrap_err().to_string().contains("not a NAR listing"));
    }
}

#[test]
fn whatever_nix_would_not_write_is_refused() {
    let file = "{\"size\":1,\"type\":\"regular\"}";
    let directory = |entries: &str| {
        format!("{{\"root\":{{\"type\":\"directory\",\"entries\":{{{entries}}}}},\"version\":1}}")
    };
    assert!(read(&directory(&format!("\"b\":{file},\"a\":{file}"))).is_ok(), "any order will do");
    for entries in [
        format!("\"a\":{file},\"a\":{file}"),
        format!("\"\":{file}"),
        format!("\"..\":{file}"),
        format!("\"a/b\":{file}"),
        format!("\"a\\u0000\":{file}"),
        format!("\"{}\":{file}", "x".repeat(256)),
        "\"a\":{\"type\":\"symlink\",\"target\":\"\"}".to_owned(),
        "\"a\":{\"type\":\"symlink\",\"target\":\"x\",\"size\":1}".to_owned(),
        "\"a\":{\"type\":\"regular\"}".to_owned(),
        "\"a\":{\"type\":\"regular\",\"size\":-1}".to_owned(),
        "\"a\":{\"type\":\"fifo\",\"size\":1}".to_owned(),
        "\"a\":{\"size\":1,\"type\":\"regular\",\"x\":[[[]]]}".to_owned(),
    ] {
        assert!(read(&directory(&entries)).is_err(), "{entries}");
    }
    for text in ["", "null", "{}", "[]", "{\"version\":1}"] {
        assert!(read(text).is_err(), "{text}");
    }
    assert!(read(&format!("{{\"root\":{file},\"version\":2}}")).is_err());
    assert!(read(&format!("{{\"root\":{file},\"version\":1}} x")).is_err());
}

proptest! {
    #[test]
    fn every_listing_reads_back_as_itself(tree in tree()) {
        let listing = list(&tree);
        let json = listing.to_json();
        serde_json::from_slice::<serde::de::IgnoredAny>(&json).unwrap();
        prop_assert_eq!(Listing::from_json(&json, Limits::default()).unwrap(), listing);
    }

    #[test]
    fn every_name_comes_back_from_its_text(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(&*from_text(&to_text(&bytes)), &bytes[..]);
    }
}
