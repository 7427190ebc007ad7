//! Any bytes as a NAR and as a listing: the first says how they are cut. What is accepted has one
//! encoding, whatever the cuts, and its listing leads to the contents and survives its own JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;
use snowbank::nix::nar::{Encoder, Event, Limits, Listing, ListingBuilder, NarError, Node, Parser};

/// What one reading found, in a form that does not depend on where the bytes were cut.
struct Reading {
    /// The events written again, until the first error.
    encoded: Vec<u8>,
    listing: ListingBuilder,
    result: Result<u64, NarError>,
}

fuzz_target!(|bytes: &[u8]| {
    let [cuts, input @ ..] = bytes else { return };
    if let Ok(listing) = Listing::from_json(input, Limits::default()) {
        check_json(&listing);
    }
    let whole = read(input, usize::MAX, 0);
    let in_pieces = read(input, 1 + usize::from(*cuts) / 4, *cuts);
    assert_eq!(whole.result, in_pieces.result, "the outcome depends on how the bytes are cut");
    assert_eq!(whole.encoded, in_pieces.encoded, "the events depend on how the bytes are cut");

    let Ok(size) = whole.result else { return };
    assert_eq!(size, input.len() as u64);
    assert_eq!(whole.encoded, input, "a tree has one encoding");
    let listing = whole.listing.finish().expect("a whole NAR of this size has a listing");
    check_node(listing.root(), input, 0);
    check_json(&listing);
});

/// Reads pieces of up to `most` bytes.
fn read(input: &[u8], most: usize, seed: u8) -> Reading {
    let mut parser = Parser::new(Limits::default());
    let mut listing = ListingBuilder::new(Limits::default());
    let mut encoder = Encoder::default();
    let mut encoded = Vec::new();
    let mut sink = |event: Event<'_>| {
        listing.event(&event);
        encoder.event(&event, &mut encoded);
    };
    let mut rest = input;
    let mut seed = seed;
    while !rest.is_empty() {
        seed = seed.wrapping_mul(5).wrapping_add(1);
        let size = if most == usize::MAX { most } else { 1 + usize::from(seed) % most };
        let (piece, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        if parser.push(piece, &mut sink).is_err() {
            break;
        }
    }
    Reading { encoded, listing, result: parser.finish() }
}

fn check_node(node: &Node, nar: &[u8], depth: usize) {
    assert!(depth <= Limits::default().max_depth);
    match node {
        Node::Directory(entries) => {
            let names: Vec<_> = entries.iter().map(|(name, _)| name).collect();
            assert!(names.is_sorted_by(|first, second| first < second), "sorted, each once");
            for (name, child) in entries.iter() {
                assert!(!name.is_empty() && name.len() <= Limits::default().max_name);
                assert!(
                    name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
                );
                assert_eq!(entries.get(name), Some(child));
                check_node(child, nar, depth + 1);
            }
        }
        Node::Regular { size, nar_offset, .. } => {
            let end = nar_offset.checked_add(*size).expect("contents end somewhere");
            assert!(*nar_offset > 0 && end < nar.len() as u64, "contents lie inside");
            let length = &nar[*nar_offset as usize - 8..*nar_offset as usize];
            assert_eq!(length, size.to_le_bytes(), "before contents stands their length");
        }
        Node::Symlink { target } => {
            assert!(!target.is_empty() && target.len() <= Limits::default().max_target);
            assert!(!target.contains(&0));
        }
    }
}

fn check_json(listing: &Listing) {
    let json = listing.to_json();
    let again = Listing::from_json(&json, Limits::default()).expect("what we write we read");
    assert_eq!(&again, listing);
    assert_eq!(again.to_json(), json);
}
