//! Many paths in little memory: 20 bytes each, and half a byte to find it.

use crate::nix::store_path::StorePathHash;

/// How many paths begin alike, about: so many are searched by halving.
const ALIKE: usize = 8;

/// A set of paths that does not change.
#[derive(Debug, Default)]
pub struct PathSet {
    /// In order, each once.
    paths: Vec<StorePathHash>,
    /// Where the paths of each beginning start, and at last how many there are. The beginnings are evenly spread,
    /// because they are of hashes; where they are not, it takes longer to find a path and no more.
    starts: Vec<u32>,
}

impl PathSet {
    /// Whether the path is one of them.
    pub fn contains(&self, hash: StorePathHash) -> bool {
        let beginning = self.beginning(hash);
        let start = |index: usize| self.starts.get(index).map_or(0, |start| *start as usize);
        self.paths[start(beginning)..start(beginning + 1)].binary_search(&hash).is_ok()
    }

    /// All of them, in order.
    pub fn as_slice(&self) -> &[StorePathHash] {
        &self.paths
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    fn beginning(&self, hash: StorePathHash) -> usize {
        let bits = self.starts.len().saturating_sub(1).checked_ilog2().unwrap_or(0);
        hash.prefix().checked_shr(32 - bits).unwrap_or(0) as usize
    }
}

impl From<Vec<StorePathHash>> for PathSet {
    fn from(mut paths: Vec<StorePathHash>) -> Self {
        paths.sort_unstable();
        paths.dedup();
        paths.shrink_to_fit();
        let beginnings = 1 << (paths.len() / ALIKE).checked_ilog2().unwrap_or(0).min(32);
        let mut set = Self { paths, starts: vec![0; beginnings + 1] };
        for index in 0..set.paths.len() {
            let beginning = set.beginning(set.paths[index]);
            set.starts[beginning + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut set.starts {
            sum += *start;
            *start = sum;
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn hash(number: u32) -> StorePathHash {
        StorePathHash::of_prefix(number)
    }

    proptest! {
        #[test]
        fn it_holds_what_it_was_made_of_and_nothing_else(
            held in prop::collection::vec(prop_oneof![any::<u32>(), 0_u32..400, u32::MAX - 400..], 0..300),
            others in prop::collection::vec(prop_oneof![any::<u32>(), 0_u32..400, u32::MAX - 400..], 0..300),
        ) {
            let set = PathSet::from(held.iter().map(|number| hash(*number)).collect::<Vec<_>>());
            let model: HashSet<u32> = held.iter().copied().collect();
            prop_assert_eq!(set.len(), model.len());
            prop_assert!(set.as_slice().is_sorted());
            for number in held.iter().chain(&others) {
                prop_assert_eq!(set.contains(hash(*number)), model.contains(number));
            }
        }
    }

    #[test]
    fn an_empty_one_holds_nothing() {
        for set in [PathSet::default(), PathSet::from(Vec::new())] {
            assert!(set.is_empty() && !set.contains(hash(0)) && !set.contains(hash(u32::MAX)));
        }
    }
}
