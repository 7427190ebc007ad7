//! What goes, and in which order: a path only when nothing that stays refers to it.
//!
//! What is *held* stays: what is pinned, what came or was asked for a moment ago, what others keep and what
//! cannot be read. All that these refer to stays with them, because a path is looked at only when all that
//! refers to it has gone. Of those, what nobody has asked for in the time that the cache keeps what is unused goes
//! first; then, if more room is wanted, whatever is worth the least: bytes times age, over how often it was asked for.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use super::graph::{Graph, Index};
use crate::index::uses::Use;
use crate::nix::store_path::StorePathHash;

/// What is wanted. Times are in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Now.
    pub now: i64,
    /// What came or was asked for since then stays.
    pub held_since: i64,
    /// What was neither since then goes; nothing goes for its age alone if there is no such time.
    pub unused_since: Option<i64>,
    /// How many bytes are to be freed in all.
    pub free: u64,
}

/// What goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Each after all that refers to it.
    pub paths: Vec<Index>,
    /// What they take on disk, in bytes, a NAR that a path has which stays not counted.
    pub bytes: u64,
}

struct Candidate {
    index: Index,
    /// The larger, the sooner it goes.
    weight: f64,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        // The number decides between equals, so that the same cache gives the same answer.
        self.weight.total_cmp(&other.weight).then_with(|| other.index.cmp(&self.index))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

/// What is removed by hand, because somebody says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Which paths.
    pub paths: Vec<StorePathHash>,
    /// With all that only these need.
    pub with_closure: bool,
    /// With all that refers to these.
    pub with_referrers: bool,
}

/// Says what goes with the paths that are named; where something that stays would lack one, what that is.
pub fn select_named(
    graph: &Graph,
    roots: &[Index],
    pinned: &[StorePathHash],
    named: &Named,
) -> Result<Selection, Vec<Index>> {
    let mut going: HashSet<Index> = roots.iter().copied().collect();
    let refers = |index: Index, going: &HashSet<Index>| {
        graph.references(index).iter().any(|reference| going.contains(reference))
    };
    loop {
        let stays = graph.indices().filter(|index| !going.contains(index));
        let referrers: Vec<Index> = stays.filter(|index| refers(*index, &going)).collect();
        if referrers.is_empty() {
            break;
        }
        if !named.with_referrers || referrers.iter().any(|index| !graph.is_own(*index)) {
            return Err(referrers);
        }
        going.extend(referrers);
    }
    let mut referrers = vec![0_u32; graph.len()];
    for index in graph.indices() {
        for reference in graph.references(index) {
            referrers[*reference as usize] += 1;
        }
    }
    let pinned: HashSet<Index> = pinned.iter().filter_map(|hash| graph.find(*hash)).collect();
    let (mut selection, mut nars) = (Selection::default(), graph.nars());
    let is_free = |index: &Index| referrers[*index as usize] == 0;
    let mut free: Vec<Index> = going.iter().copied().filter(is_free).collect();
    // The same answer each time.
    free.sort_unstable();
    while let Some(index) = free.pop() {
        selection.paths.push(index);
        selection.bytes += graph.bytes_beside(index);
        if nars.leave(index) {
            selection.bytes += graph.bytes_of_nar(index);
        }
        for reference in graph.references(index) {
            let left = &mut referrers[*reference as usize];
            *left -= 1;
            let may_go = graph.is_own(*reference) && !pinned.contains(reference);
            if *left == 0 && (going.contains(reference) || (named.with_closure && may_go)) {
                free.push(*reference);
            }
        }
    }
    Ok(selection)
}

/// Says what goes. `pinned` are roots; `uses` says of a path when it was asked for, if it ever was.
pub fn select(
    graph: &Graph,
    pinned: &[StorePathHash],
    uses: &dyn Fn(StorePathHash) -> Option<Use>,
    demand: &Demand,
) -> Selection {
    let mut referrers = vec![0_u32; graph.len()];
    for index in graph.indices() {
        for reference in graph.references(index) {
            referrers[*reference as usize] += 1;
        }
    }
    let mut is_held: Vec<bool> = graph.indices().map(|index| !graph.is_own(index)).collect();
    for root in pinned.iter().filter_map(|hash| graph.find(*hash)) {
        is_held[root as usize] = true;
    }
    let (mut selection, mut nars) = (Selection::default(), graph.nars());
    let (mut unlooked, mut rest): (Vec<Index>, _) = (Vec::new(), BinaryHeap::new());
    unlooked.extend(graph.indices().filter(|index| referrers[*index as usize] == 0));
    let is_enough = |selection: &Selection| selection.bytes >= demand.free;
    loop {
        let (index, is_old) = match unlooked.pop() {
            Some(index) => {
                if is_held[index as usize] {
                    continue;
                }
                let used = uses(graph.hash(index)).unwrap_or_default();
                let last = graph.came(index).max(used.last);
                // What is stamped with a time to come is as good as of now.
                if last >= demand.held_since {
                    continue;
                }
                if demand.unused_since.is_none_or(|since| last >= since) {
                    let weight = weight(graph, index, last, used, demand.now);
                    rest.push(Candidate { index, weight });
                    continue;
                }
                (index, true)
            }
            None => match rest.pop() {
                Some(candidate) => (candidate.index, false),
                None => break,
            },
        };
        if !is_old && is_enough(&selection) {
            break;
        }
        selection.paths.push(index);
        selection.bytes += graph.bytes_beside(index);
        if nars.leave(index) {
            selection.bytes += graph.bytes_of_nar(index);
        }
        for reference in graph.references(index) {
            let left = &mut referrers[*reference as usize];
            *left -= 1;
            if *left == 0 {
                unlooked.push(*reference);
            }
        }
    }
    selection
}

#[expect(clippy::cast_precision_loss, reason = "it is compared, and near is enough")]
fn weight(graph: &Graph, index: Index, last: i64, used: Use, now: i64) -> f64 {
    let bytes = graph.bytes_of_nar(index) + graph.bytes_beside(index);
    let age = now.saturating_sub(last).max(1);
    bytes as f64 * age as f64 / (1.0 + f64::from(used.count))
}
