//! Which pins keep a path: those that name it, or something that leads to it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

use crate::nix::store_path::StorePathHash;

/// What keeps a path.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Keepers {
    /// The names of the pins, in order.
    pub pins: BTreeSet<String>,
    /// Whether all pins were followed to the end, so that there are no others.
    pub is_whole: bool,
}

/// Follows the references of all that is pinned, as `references` tells them, and says which of the pins lead to
/// `path`. `pinned` are names of pins with what each names.
pub fn keepers(
    pinned: &[(String, StorePathHash)],
    path: StorePathHash,
    mut references: impl FnMut(StorePathHash) -> Vec<StorePathHash>,
    deadline: Instant,
) -> Keepers {
    let mut referrers: HashMap<StorePathHash, Vec<StorePathHash>> = HashMap::new();
    let mut waiting: Vec<_> = pinned.iter().map(|(_, root)| *root).collect();
    let mut seen: HashSet<_> = waiting.iter().copied().collect();
    let mut is_whole = true;
    while let Some(from) = waiting.pop() {
        if Instant::now() >= deadline {
            is_whole = false;
            break;
        }
        for to in references(from) {
            referrers.entry(to).or_default().push(from);
            if seen.insert(to) {
                waiting.push(to);
            }
        }
    }
    let mut leading = HashSet::from([path]);
    let mut waiting = vec![path];
    while let Some(to) = waiting.pop() {
        for from in referrers.get(&to).into_iter().flatten() {
            if leading.insert(*from) {
                waiting.push(*from);
            }
        }
    }
    let keeps = |(_, root): &&(String, StorePathHash)| leading.contains(root);
    Keepers { pins: pinned.iter().filter(keeps).map(|(name, _)| name.clone()).collect(), is_whole }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hash(number: u8) -> StorePathHash {
        StorePathHash::from_bytes([number; 20])
    }

    fn pins(pins: &[(&str, u8)]) -> Vec<(String, StorePathHash)> {
        pins.iter().map(|(name, root)| ((*name).to_owned(), hash(*root))).collect()
    }

    #[test]
    fn a_path_is_kept_by_the_pins_that_lead_to_it_and_by_no_others() {
        // 1 → 2 → 3, 3 → 2 (a circle), 4 → 5, and each to itself.
        let edges: HashMap<u8, Vec<u8>> =
            [(1, vec![1, 2]), (2, vec![3]), (3, vec![2, 3]), (4, vec![5])].into();
        let references = |from: StorePathHash| {
            let to = edges.get(&from.as_bytes()[0]).cloned().unwrap_or_default();
            to.into_iter().map(hash).collect()
        };
        let pinned = pins(&[("nightly", 1), ("nightly", 4), ("other", 4), ("own", 3)]);
        let later = Instant::now() + Duration::from_secs(60);
        for (path, names) in
            [(3, &["nightly", "own"][..]), (1, &["nightly"]), (5, &["nightly", "other"]), (9, &[])]
        {
            let found = keepers(&pinned, hash(path), references, later);
            assert!(found.is_whole);
            assert_eq!(found.pins.iter().collect::<Vec<_>>(), names, "{path}");
        }
    }

    #[test]
    fn what_takes_too_long_is_told_as_not_whole() {
        let endless = |_| vec![hash(1)];
        let found = keepers(&pins(&[("own", 2)]), hash(2), endless, Instant::now());
        assert_eq!(found, Keepers { pins: ["own".to_owned()].into(), is_whole: false });
    }
}
