//! Tests of reader and writer together.

use proptest::prelude::*;

use super::testing::{Found, Tree, parse, parse_whole, rebuild, tree};
use super::{Limits, NarError, Parser};

/// Encodes words.
fn words(tokens: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for token in tokens {
        out.extend_from_slice(&(token.len() as u64).to_le_bytes());
        out.extend_from_slice(token);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out
}

const MAGIC: &[u8] = b"nix-archive-1";
const DIRECTORY: [&[u8]; 4] = [MAGIC, b"(", b"type", b"directory"];

fn error(nar: &[u8]) -> NarError {
    let whole = parse_whole(nar).unwrap_err();
    let bytewise = parse(nar.chunks(1), Limits::default()).unwrap_err();
    assert_eq!(whole, bytewise, "the error does not depend on the pieces");
    whole
}

/// A directory with empty files of these names, in this order.
fn directory_of(names: &[&[u8]]) -> Vec<u8> {
    let mut tokens = DIRECTORY.to_vec();
    for name in names {
        tokens.extend([&b"entry"[..], b"(", b"name", name, b"node"]);
        tokens.extend([&b"("[..], b"type", b"regular", b"contents", b"", b")", b")"]);
    }
    tokens.push(b")");
    words(&tokens)
}

fn symlink_to(target: &[u8]) -> Vec<u8> {
    words(&[MAGIC, b"(", b"type", b"symlink", b"target", target, b")"])
}

#[test]
fn bytes_that_begin_otherwise_are_not_a_nar() {
    assert_eq!(error(&words(&[b"nix-archive-2", b"("])), NarError::Magic);
    assert_eq!(error(b"\x28\xb5\x2f\xfd, this is zstd"), NarError::Magic);
}

#[test]
fn a_wrong_word_is_named_with_what_was_expected() {
    let wrong: [(&[&[u8]], &str); 9] = [
        (&[MAGIC, b"["], "\"(\""),
        (&[MAGIC, b"(", b"kind"], "\"type\""),
        (&[MAGIC, b"(", b"type", b"fifo"], "\"directory\", \"regular\" or \"symlink\""),
        (&[MAGIC, b"(", b"type", b"directory", b"name"], "\"entry\" or \")\""),
        (&[MAGIC, b"(", b"type", b"regular", b")"], "\"executable\" or \"contents\""),
        (&[MAGIC, b"(", b"type", b"regular", b"executable", b"1"], "an empty word"),
        (&[MAGIC, b"(", b"type", b"regular", b"contents", b"", b"("], "\")\""),
        (&[MAGIC, b"(", b"type", b"symlink", b"contents"], "\"target\""),
        (&[MAGIC, b"(", b"type", &[b'x'; 33]], "\"directory\", \"regular\" or \"symlink\""),
    ];
    for (tokens, word) in wrong {
        let nar = words(tokens);
        let last = words(&tokens[tokens.len() - 1..]).len();
        let NarError::Token { offset, expected, .. } = error(&nar) else { panic!("{tokens:?}") };
        assert_eq!((expected, offset), (word, (nar.len() - last) as u64));
    }
}

#[test]
fn names_must_be_sorted_by_their_bytes_and_unique() {
    assert!(matches!(error(&directory_of(&[b"b", b"a"])), NarError::Unsorted { .. }));
    assert!(matches!(error(&directory_of(&[b"a", b"B"])), NarError::Unsorted { .. }));
    assert!(matches!(error(&directory_of(&[b"ab", b"a"])), NarError::Unsorted { .. }));
    assert!(matches!(error(&directory_of(&[b"a", b"a"])), NarError::Duplicate { .. }));
    assert!(parse_whole(&directory_of(&[b"a", b"a.b", b"a0", b"\xff"])).is_ok());
}

#[test]
fn names_that_differ_by_case_only_are_two_names() {
    assert!(parse_whole(&directory_of(&[b"README", b"readme"])).is_ok());
}

#[test]
fn names_that_would_leave_the_directory_are_illegal() {
    for name in [&b""[..], b".", b"..", b"/", b"a/b", b"../a", b"a\0", b"\0"] {
        let got = error(&directory_of(&[name]));
        assert!(matches!(got, NarError::IllegalName { .. }), "{got:?}");
    }
    assert!(parse_whole(&directory_of(&[b"...", b".a", b"\\"])).is_ok());
}

#[test]
fn a_name_has_at_most_255_bytes() {
    assert!(parse_whole(&directory_of(&[&[b'x'; 255]])).is_ok());
    let got = error(&directory_of(&[&[b'x'; 256]]));
    assert!(matches!(got, NarError::NameTooLong { length: 256, limit: 255, .. }), "{got:?}");
}

#[test]
fn a_target_has_1_to_4095_bytes_and_no_nul() {
    assert!(parse_whole(&symlink_to(&[b'x'; 4095])).is_ok());
    assert!(matches!(error(&symlink_to(b"")), NarError::EmptyTarget { .. }));
    assert!(matches!(error(&symlink_to(b"a\0b")), NarError::TargetWithNul { .. }));
    let got = error(&symlink_to(&[b'x'; 4096]));
    assert!(matches!(got, NarError::TargetTooLong { length: 4096, limit: 4095, .. }), "{got:?}");
}

#[test]
fn padding_must_be_zero_everywhere() {
    let tree = Tree::directory([("f", Tree::file("abc")), ("l", Tree::symlink("abcd"))]);
    let nar = tree.nar();
    let mut paddings = 0;
    for index in 0..nar.len() {
        let mut changed = nar.clone();
        changed[index] ^= 0x80;
        if let Err(NarError::Padding { .. }) = parse_whole(&changed) {
            paddings += 1;
            assert!(matches!(error(&changed), NarError::Padding { .. }));
        }
    }
    // 3 of the magic, 7 for each parenthesis and name, 5 of the contents and so on.
    assert!(paddings > 50, "{paddings}");
}

#[test]
fn directories_may_be_as_deep_as_in_nix_and_no_deeper() {
    assert!(parse_whole(&Tree::nested(64).nar()).is_ok());
    let got = error(&Tree::nested(65).nar());
    assert!(matches!(got, NarError::TooDeep { limit: 64, .. }), "{got:?}");
}

#[test]
fn a_million_levels_are_refused_with_constant_memory() {
    let level = words(&[b"entry", b"(", b"name", b"d", b"node", b"(", b"type", b"directory"]);
    let mut parser = Parser::new(Limits::default());
    parser.push(&words(&DIRECTORY), &mut |_| {}).unwrap();
    let refused = (0..1_000_000).find_map(|_| parser.push(&level, &mut |_| {}).err());
    assert!(matches!(refused, Some(NarError::TooDeep { .. })));
    assert_eq!(parser.finish().unwrap_err(), refused.unwrap(), "an error is final");
}

#[test]
fn entries_and_size_are_limited() {
    let nar = directory_of(&[b"a", b"b", b"c"]);
    let size = nar.len() as u64;
    let limits = |max_entries, max_size| Limits { max_entries, max_size, ..Limits::default() };
    assert!(parse([&nar[..]], limits(4, size)).is_ok());
    let got = parse([&nar[..]], limits(3, size)).unwrap_err();
    assert!(matches!(got, NarError::TooManyEntries { limit: 3, .. }), "{got:?}");
    let got = parse([&nar[..]], limits(4, size - 1)).unwrap_err();
    assert!(matches!(got, NarError::TooLarge { .. }), "{got:?}");
}

#[test]
fn a_declared_length_beyond_the_limit_is_refused_at_once() {
    for length in [1 << 63, u64::MAX, u64::MAX - 7, (32 << 30) + 1] {
        let mut nar = words(&[MAGIC, b"(", b"type", b"regular", b"contents"]);
        nar.extend_from_slice(&u64::to_le_bytes(length));
        assert!(matches!(error(&nar), NarError::TooLarge { .. }), "{length}");
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut nar = Tree::file("x").nar();
    let end = nar.len() as u64;
    nar.push(0);
    assert_eq!(error(&nar), NarError::TrailingBytes { offset: end });
}

#[test]
fn offsets_of_contents_are_where_the_contents_are() {
    let nar = Tree::directory([("a", Tree::file("hello")), ("b", Tree::file(""))]).nar();
    let mut files = 0;
    for found in parse_whole(&nar).unwrap() {
        if let Found::File { size: 5, contents_offset, .. } = found {
            assert!(nar[usize::try_from(contents_offset).unwrap()..].starts_with(b"hello"));
            files += 1;
        }
    }
    assert_eq!(files, 1);
}

proptest! {
    #[test]
    fn what_is_written_reads_as_the_same_tree(tree in tree()) {
        prop_assert_eq!(rebuild(&parse_whole(&tree.nar()).unwrap()), tree);
    }

    #[test]
    fn events_do_not_depend_on_the_pieces(
        tree in tree(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
    ) {
        let nar = tree.nar();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(nar.len())).collect();
        cuts.extend([0, nar.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &nar[cut[0]..cut[1]]);
        let whole = parse_whole(&nar).unwrap();
        prop_assert_eq!(&parse(pieces, Limits::default()).unwrap(), &whole);
        prop_assert_eq!(&parse(nar.chunks(1), Limits::default()).unwrap(), &whole);
    }

    #[test]
    fn every_truncation_is_an_error(tree in tree(), cut in any::<proptest::sample::Index>()) {
        let nar = tree.nar();
        let length = cut.index(nar.len());
        let got = parse_whole(&nar[..length]).unwrap_err();
        prop_assert_eq!(got, NarError::Truncated { offset: length as u64 });
    }

    #[test]
    fn every_flipped_bit_is_an_error_or_another_nar(
        tree in tree(),
        byte in any::<proptest::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let mut nar = tree.nar();
        let index = byte.index(nar.len());
        nar[index] ^= 1_u8 << bit;
        if let Ok(found) = parse_whole(&nar) {
            let other = rebuild(&found);
            prop_assert_ne!(&other, &tree);
            prop_assert_eq!(other.nar(), nar);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut nar = words(&DIRECTORY);
        nar.extend_from_slice(&bytes);
        prop_assert!(parse_whole(&nar).is_err());
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_of_one_nar() {
    let tree = Tree::directory([
        ("bin", Tree::File { executable: true, contents: b"#!/bin/sh\n".to_vec() }),
        ("empty", Tree::directory([])),
        ("link", Tree::symlink("bin")),
    ]);
    let nar = tree.nar();
    for length in 0..nar.len() {
        assert_eq!(error(&nar[..length]), NarError::Truncated { offset: length as u64 });
    }
    for bit in 0..nar.len() * 8 {
        let mut changed = nar.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(found) = parse_whole(&changed) {
            assert_eq!(rebuild(&found).nar(), changed);
        }
    }
}
