//! Which store paths the bytes of a NAR speak of.
//!
//! Nix finds the references of a build by looking for the hash parts of its inputs in the NAR. Here
//! the bytes arrive before anybody says which paths they may refer to, so what is kept is every run of
//! 32 digits of Nix base 32. Each such run is a hash: 32 digits are exactly 160 bits.

use std::collections::HashSet;

use data_encoding::BASE64;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::base32;
use super::store_path::StorePathHash;

/// Looks through bytes that come in pieces of any size.
///
/// Memory: at most 5 MiB, for [`MAX_CANDIDATES`] hashes in a set and then in a list.
#[derive(Debug, Default)]
pub struct ReferenceScanner {
    /// The last digits as a number, most significant first: 160 bits, in a wide and a narrow part.
    high: u128,
    low: u32,
    /// How many digits came in a row, as far as that matters.
    digits: usize,
    found: HashSet<[u8; 20]>,
    /// What was found last; in a run of one digit it is found over and over.
    last: Option<(u128, u32)>,
    /// How often something was found that was not found just before.
    windows: u64,
    too_many: bool,
}

/// What may be the hash parts of references: all that occur, and a few that are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceCandidates {
    /// Sorted, each once; nothing if there were too many.
    hashes: Option<Box<[StorePathHash]>>,
}

/// The most different candidates that are kept. Binaries have few beside their references; sources that
/// quote hashes by the ten thousand have more.
pub const MAX_CANDIDATES: usize = 100_000;

/// The most candidates that are looked up in the set: a bound on what bytes made to be slow can cost.
const MAX_WINDOWS: u64 = 1 << 24;

/// Digits in a hash.
const DIGITS: usize = 32;

impl ReferenceScanner {
    /// Looks at the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.too_many {
            if self.digits == 0 {
                rest = skip(rest);
            }
            rest = self.run(rest);
        }
    }

    /// What was found.
    pub fn finish(self) -> ReferenceCandidates {
        if self.too_many {
            return ReferenceCandidates { hashes: None };
        }
        let mut hashes: Vec<_> = self.found.into_iter().map(StorePathHash::from_bytes).collect();
        hashes.sort_unstable();
        ReferenceCandidates { hashes: Some(hashes.into()) }
    }

    /// Takes digits up to the first byte that is none, and that byte.
    fn run<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        for (index, &byte) in bytes.iter().enumerate() {
            let Some(digit) = base32::digit(byte) else {
                self.digits = 0;
                return &bytes[index + 1..];
            };
            self.high = (self.high << 5) | u128::from(self.low >> 27);
            self.low = (self.low << 5) | u32::from(digit);
            self.digits = (self.digits + 1).min(DIGITS);
            if self.digits == DIGITS {
                self.keep();
                if self.too_many {
                    break;
                }
            }
        }
        &[]
    }

    fn keep(&mut self) {
        if self.last == Some((self.high, self.low)) {
            return;
        }
        self.last = Some((self.high, self.low));
        // The last digit holds the lowest bits of the first byte.
        let mut hash = [0; 20];
        let (low, high) = hash.split_at_mut(4);
        low.copy_from_slice(&self.low.to_le_bytes());
        high.copy_from_slice(&self.high.to_le_bytes());
        self.windows += 1;
        self.found.insert(hash);
        if self.found.len() > MAX_CANDIDATES || self.windows > MAX_WINDOWS {
            self.too_many = true;
            self.found = HashSet::new();
        }
    }
}

/// Leaves out, from the front, what cannot be part of 32 digits in a row: as Nix does, by looking from
/// behind, so that most bytes are never looked at. Fewer than 32 bytes are left as they are, since the
/// next piece may complete them.
fn skip(mut bytes: &[u8]) -> &[u8] {
    while let Some(window) = bytes.get(..DIGITS) {
        match window.iter().rposition(|&byte| base32::digit(byte).is_none()) {
            Some(index) => bytes = &bytes[index + 1..],
            None => break,
        }
    }
    bytes
}

impl ReferenceCandidates {
    /// Whether the hash of a store path occurs, if that is known.
    pub fn contains(&self, hash: &StorePathHash) -> Option<bool> {
        self.hashes.as_ref().map(|hashes| hashes.binary_search(hash).is_ok())
    }

    /// How many there are, if that is known.
    pub fn count(&self) -> Option<usize> {
        self.hashes.as_ref().map(|hashes| hashes.len())
    }
}

/// The hashes one after the other in base 64, or nothing if they are not known.
impl Serialize for ReferenceCandidates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.hashes.as_ref().map(|hashes| {
            let bytes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
            BASE64.encode(&bytes)
        });
        text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ReferenceCandidates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(Self { hashes: None });
        };
        let bytes = BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let (hashes, rest) = bytes.as_chunks();
        let hashes: Box<[_]> = hashes.iter().copied().map(StorePathHash::from_bytes).collect();
        let sorted = hashes.is_sorted_by(|first, second| first < second);
        if !rest.is_empty() || !sorted || hashes.len() > MAX_CANDIDATES {
            return Err(D::Error::custom("not a sorted list of hashes"));
        }
        Ok(Self { hashes: Some(hashes) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const HASH: &[u8] = b"7rjj86a50146dq4pd5h2fyvnnwxk9m0a";

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> ReferenceCandidates {
        let mut scanner = ReferenceScanner::default();
        pieces.into_iter().for_each(|piece| scanner.push(piece));
        scanner.finish()
    }

    fn naive(bytes: &[u8]) -> ReferenceCandidates {
        let hashes: BTreeSet<_> = bytes
            .windows(DIGITS)
            .filter_map(base32::decode)
            .map(StorePathHash::from_bytes)
            .collect();
        ReferenceCandidates { hashes: Some(hashes.into_iter().collect()) }
    }

    /// Bytes with many long runs of digits, and some that are no digits.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let digits = "[0-9a-df-np-sv-z]{1,80}".prop_map(String::into_bytes);
        let other = proptest::collection::vec(any::<u8>(), 1..40);
        let same = (0..40usize).prop_map(|count| vec![b'0'; count]);
        let piece = prop_oneof![3 => digits, 2 => other, 1 => same, 1 => Just(HASH.to_vec())];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn every_window_of_digits_is_found_however_the_bytes_are_cut(
            bytes in bytes(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            prop_assert_eq!(scan(pieces), naive(&bytes));
            prop_assert_eq!(scan(bytes.chunks(1)), naive(&bytes));
        }

        #[test]
        fn what_is_kept_on_disk_reads_back(bytes in bytes()) {
            let candidates = scan([&*bytes]);
            let text = serde_json::to_string(&candidates).unwrap();
            prop_assert_eq!(serde_json::from_str::<ReferenceCandidates>(&text).unwrap(), candidates);
        }
    }

    #[test]
    fn a_reference_is_found_and_another_path_is_not() {
        let bytes = [b"\x7fELF\0/nix/store/", HASH, b"-glibc-2.40/lib\0"].concat();
        let candidates = scan([&*bytes]);
        let hash = |text| StorePathHash::parse(text).unwrap();
        let text = std::str::from_utf8(HASH).unwrap();
        assert_eq!(candidates.contains(&hash(text)), Some(true));
        assert_eq!(candidates.contains(&hash(&text.replace("7r", "7s"))), Some(false));
        assert_eq!(candidates.count(), Some(1));
    }

    #[test]
    fn beyond_the_limit_nothing_is_known() {
        let mut scanner = ReferenceScanner::default();
        let mut line = |number: usize| scanner.push(format!("{number:032} ").as_bytes());
        (0..MAX_CANDIDATES).for_each(&mut line);
        line(0);
        let hash = StorePathHash::parse(&"0".repeat(32)).unwrap();
        assert!(!scanner.too_many);
        scanner.push(&[b'1'; 32]);
        let candidates = scanner.finish();
        assert_eq!((candidates.contains(&hash), candidates.count()), (None, None));
        assert_eq!(serde_json::to_string(&candidates).unwrap(), "null");
        assert_eq!(serde_json::from_str::<ReferenceCandidates>("null").unwrap(), candidates);
    }

    #[test]
    fn bytes_made_to_be_slow_are_given_up() {
        let mut scanner = ReferenceScanner::default();
        let line = b"01".repeat(1 << 20);
        (0..8).for_each(|_| scanner.push(&line));
        assert!(!scanner.too_many);
        scanner.push(&line);
        assert_eq!(scanner.finish().count(), None);
    }

    #[test]
    fn what_is_not_such_a_list_is_refused() {
        let two = [[2; 20], [1; 20]].concat();
        for text in [
            "7".into(),
            "\"x\"".into(),
            format!("{:?}", BASE64.encode(&two)),
            format!("{:?}", BASE64.encode(&[1; 21])),
            format!("{:?}", BASE64.encode(&[1; 40])),
        ] {
            assert!(serde_json::from_str::<ReferenceCandidates>(&text).is_err(), "{text}");
        }
    }
}
