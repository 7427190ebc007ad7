//! What goes, and in which order: a path only when nothing that stays refers to it.
//!
//! What is *held* stays: what is pinned, what came or was asked for a moment ago, what others keep and what
//! cannot be read. All that these refer to stays with them, because a path is looked at only when all that
//! refers to it has gone. Of those, what nobody has asked for in the time that the cache keeps what is unused goes
//! first; then, if more room is wanted, whatever is worth the least: bytes times age, over how often it was asked for.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use super::graph::{Graph, Index, Nars};
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

/// A selection that grows: a path is free to be taken when all that refers to it was.
struct Taking<'a> {
    graph: &'a Graph,
    /// By path: how many refer to it and were not taken.
    referrers: Vec<u32>,
    nars: Nars<'a>,
    selection: Selection,
}

impl<'a> Taking<'a> {
    fn new(graph: &'a Graph) -> Self {
        let mut referrers = vec![0; graph.len()];
        for index in graph.indices() {
            for reference in graph.references(index) {
                referrers[*reference as usize] += 1;
            }
        }
        Self { graph, referrers, nars: graph.nars(), selection: Selection::default() }
    }

    fn is_free(&self, index: Index) -> bool {
        self.referrers[index as usize] == 0
    }

    /// Takes a path. `freed` hears of each that is free by that.
    fn take(&mut self, index: Index, mut freed: impl FnMut(Index)) {
        self.selection.paths.push(index);
        let is_last = self.nars.leave(index);
        self.selection.bytes += self.graph.bytes_with(index, is_last);
        for reference in self.graph.references(index) {
            self.referrers[*reference as usize] -= 1;
            if self.is_free(*reference) {
                freed(*reference);
            }
        }
    }
}

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
    let mut taking = Taking::new(graph);
    let pinned: HashSet<Index> = pinned.iter().filter_map(|hash| graph.find(*hash)).collect();
    let is_free = |index: &Index| taking.is_free(*index);
    let mut free: Vec<Index> = going.iter().copied().filter(is_free).collect();
    // The same answer each time.
    free.sort_unstable();
    while let Some(index) = free.pop() {
        taking.take(index, |reference| {
            let may_go = graph.is_own(reference) && !pinned.contains(&reference);
            if going.contains(&reference) || (named.with_closure && may_go) {
                free.push(reference);
            }
        });
    }
    Ok(taking.selection)
}

/// Says what goes. `pinned` are roots; `uses` says of a path when it was asked for.
pub fn select(
    graph: &Graph,
    pinned: &[StorePathHash],
    uses: &dyn Fn(Index) -> Use,
    demand: &Demand,
) -> Selection {
    let mut taking = Taking::new(graph);
    let mut is_held: Vec<bool> = graph.indices().map(|index| !graph.is_own(index)).collect();
    for root in pinned.iter().filter_map(|hash| graph.find(*hash)) {
        is_held[root as usize] = true;
    }
    let mut unlooked: Vec<Index> = graph.indices().filter(|index| taking.is_free(*index)).collect();
    let mut rest = BinaryHeap::new();
    loop {
        let (index, is_old) = match unlooked.pop() {
            Some(index) => {
                if is_held[index as usize] {
                    continue;
                }
                let used = uses(index);
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
        if !is_old && taking.selection.bytes >= demand.free {
            break;
        }
        taking.take(index, |reference| unlooked.push(reference));
    }
    taking.selection
}

#[expect(clippy::cast_precision_loss, reason = "it is compared, and near is enough")]
fn weight(graph: &Graph, index: Index, last: i64, used: Use, now: i64) -> f64 {
    let bytes = graph.bytes_with(index, true);
    let age = now.saturating_sub(last).max(1);
    bytes as f64 * age as f64 / (1.0 + f64::from(used.count))
}
