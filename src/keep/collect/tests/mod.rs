//! That what stays is whole, and that what was asked to go does.

mod bed;
mod model;

use std::collections::HashSet;

use proptest::prelude::*;

use super::graph::BLOCK;
use super::select::{Demand, Selection, select};
use super::*;

const NOW: u32 = 1000;

/// A demand by age: what came before 500 goes, what came since 900 stays.
const BY_AGE: Demand = Demand { now: 1000, held_since: 900, unused_since: Some(500), free: 0 };

fn run(graph: &Graph, pinned: &[u32], demand: &Demand) -> Selection {
    let pinned: Vec<_> = pinned.iter().map(|index| Graph::made_hash(*index)).collect();
    select(graph, &pinned, &|_| Use::default(), demand)
}

/// A path of its own NAR, of 100 blocks.
fn path(index: u64, came: u32, references: &[u32]) -> (u64, u32, u32, Vec<u32>) {
    (index, 100, came, references.to_vec())
}

#[test]
fn what_is_old_goes_with_what_only_it_needs_and_nothing_that_another_needs() {
    // 0 is an old program, 1 a new one; 2 both need, 3 only the old one; 4 needs nothing and nobody needs it.
    let graph = Graph::made(&[
        path(0, 10, &[2, 3]),
        path(1, 950, &[2]),
        path(2, 10, &[]),
        path(3, 10, &[]),
        path(4, 600, &[]),
    ]);
    let selection = run(&graph, &[], &BY_AGE);
    assert_eq!(selection, Selection { paths: vec![0, 3], bytes: 202 * BLOCK });
    assert_eq!(run(&graph, &[0], &BY_AGE).paths, [0; 0], "a pin keeps all of its closure");
    let asked_for = |index| if index == 0 { Use { last: 940, count: 1 } } else { Use::default() };
    assert_eq!(select(&graph, &[], &asked_for, &BY_AGE).paths, [0; 0], "it is in use");
    let later = |index| if index == 0 { Use { last: 99_999, count: 1 } } else { Use::default() };
    assert_eq!(select(&graph, &[], &later, &BY_AGE).paths, [0; 0], "a clock was wrong");
}

#[test]
fn room_is_made_by_what_is_worth_the_least_and_no_more_than_is_wanted() {
    // The same age: the largest goes first; asked for often, it goes last.
    let graph = Graph::made(&[
        (0, 100, 600, vec![]),
        (1, 300, 600, vec![]),
        (2, 200, 600, vec![]),
        (3, 1000, 950, vec![]),
    ]);
    let free = |free| Demand { unused_since: None, free, ..BY_AGE };
    assert_eq!(run(&graph, &[], &free(1)).paths, [1]);
    assert_eq!(run(&graph, &[], &free(302 * BLOCK)).paths, [1, 2]);
    assert_eq!(run(&graph, &[], &free(0)).paths, [0; 0]);
    // What came a moment ago stays, however much is wanted.
    assert_eq!(run(&graph, &[], &free(u64::MAX)).paths, [1, 2, 0]);
    let often = |index| if index == 1 { Use { last: 600, count: 9 } } else { Use::default() };
    assert_eq!(select(&graph, &[], &often, &free(1)).paths, [2]);
}

#[test]
fn a_nar_that_two_paths_have_is_freed_with_the_last_of_them() {
    let graph = Graph::made(&[(7, 100, 10, vec![]), (7, 100, 10, vec![]), (8, 100, 950, vec![])]);
    let selection = run(&graph, &[], &BY_AGE);
    assert_eq!((selection.paths.len(), selection.bytes), (2, 102 * BLOCK));
    assert_eq!(run(&graph, &[0], &BY_AGE).bytes, BLOCK, "the pinned one keeps it");
}

prop_compose! {
    /// Paths that refer to those before them.
    fn graphs()(paths in prop::collection::vec((0..20_u64, 1..1000_u32, 0..NOW, prop::collection::vec(any::<prop::sample::Index>(), 0..4)), 1..40))
        -> Vec<(u64, u32, u32, Vec<u32>)>
    {
        paths.into_iter().enumerate().map(|(index, (nar, bytes, came, references))| {
            let references: HashSet<u32> = match index {
                0 => HashSet::new(),
                _ => references.iter().map(|one| u32::try_from(one.index(index)).unwrap()).collect(),
            };
            (nar, bytes, came, references.into_iter().collect())
        }).collect()
    }
}

proptest! {
    #[test]
    fn what_stays_is_whole_whatever_is_wanted(
        paths in graphs(),
        pinned in prop::collection::vec(0..40_u32, 0..4),
        unused_since in prop::option::of(0..900_i64),
        free in 0..20_000 * BLOCK,
    ) {
        let graph = Graph::made(&paths);
        let pinned: Vec<u32> = pinned.into_iter().filter(|one| (*one as usize) < paths.len()).collect();
        let demand = Demand { unused_since, free, ..BY_AGE };
        let selection = run(&graph, &pinned, &demand);
        let mut gone = HashSet::new();
        for index in &selection.paths {
            // All that refers to it has gone before.
            for (other, path) in (0_u32..).zip(&paths) {
                prop_assert!(!path.3.contains(index) || gone.contains(&other));
            }
            prop_assert!(gone.insert(*index), "twice");
            prop_assert!(!pinned.contains(index));
            prop_assert!(i64::from(paths[*index as usize].2) < demand.held_since);
        }
        // Each that stays is held, needed, or not wanted: old ones stay for a reason, and room is made if it can.
        let is_wanted = |index: u32| {
            let came = i64::from(paths[index as usize].2);
            unused_since.is_some_and(|since| came < since) || selection.bytes < free
        };
        for (index, path) in (0_u32..).zip(&paths) {
            let is_needed = (0_u32..).zip(&paths).any(|(other, path)| path.3.contains(&index) && !gone.contains(&other));
            let is_held = pinned.contains(&index) || i64::from(path.2) >= demand.held_since;
            prop_assert!(gone.contains(&index) || is_needed || is_held || !is_wanted(index), "{index} stays for nothing");
        }
        let beside = u64::try_from(selection.paths.len()).unwrap() * BLOCK;
        let nars = |keep: bool| -> HashSet<u64> {
            (0_u32..).zip(&paths).filter(|(index, _)| gone.contains(index) != keep).map(|(_, path)| path.0).collect()
        };
        prop_assert!(selection.bytes >= beside);
        if nars(false).is_subset(&nars(true)) {
            prop_assert_eq!(selection.bytes, beside, "no NAR is freed that another has");
        }
    }
}

#[test]
fn nothing_is_collected_while_it_is_not_known_what_was_pinned() {
    let bed = bed::Bed::new();
    bed.push(1, 1, &[], 0).unwrap();
    let policy = Policy { keep_unused: Some(Duration::ZERO), ..Policy::default() };
    let now = 1_000_000_000;
    let damaged = bed.damaged_state();
    std::fs::write(&damaged, "what was pinned").unwrap();
    let error = bed.collector().plan(&policy, now).err().unwrap();
    assert!(matches!(&error, CollectError::PinsLost(file) if *file == damaged), "{error}");
    // What is asked for by name is not kept by a pin that nobody knows.
    let named = |path| Named { paths: vec![path], with_closure: false, with_referrers: false };
    let plan = bed.collector().plan_removal(&named(bed::path(1).hash()), "somebody", now);
    assert_eq!(plan.unwrap().paths().len(), 1);
    std::fs::remove_file(&damaged).unwrap();
    assert_eq!(bed.collector().plan(&policy, now).unwrap().paths().len(), 1);
}
