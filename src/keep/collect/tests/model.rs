//! Ten thousand steps at random against a model in a few lines: after each, what is there is what the model says, and
//! it is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::policy::Policy;
use super::bed::{Bed, path};
use crate::index::uses::BATCHES;
use crate::ingest::{Outcome, PushError};
use crate::nix::store_path::StorePathHash;

const STEPS: usize = 10_000;
const PATHS: usize = 24;
/// In seconds: what is younger stays, and what is unused for longer goes.
const HELD: i64 = 50;
const UNUSED: i64 = 200;
/// When it begins, in seconds since 1970.
const BEGIN: i64 = 1_000_000;

/// Numbers that are the same at every run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % limit
    }
}

#[derive(Default)]
struct Model {
    now: i64,
    /// What is there, and when it was last wanted.
    present: BTreeMap<usize, i64>,
    pins: BTreeMap<usize, usize>,
    /// What was asked for since that was last kept: a crash forgets it.
    asked_for: BTreeMap<usize, i64>,
}

/// What path `number` refers to: always the same, and only to smaller ones.
fn references(number: usize) -> Vec<usize> {
    let mut numbers = Numbers(number as u64 + 1);
    let wanted: BTreeSet<usize> = match number {
        0 => BTreeSet::new(),
        _ => (0..numbers.below(4)).map(|_| numbers.below(number)).collect(),
    };
    wanted.into_iter().collect()
}

/// Every third path has the bytes of the one before, but for what it refers to.
fn contents(number: usize) -> u8 {
    u8::try_from(if number % 3 == 2 { number - 1 } else { number }).unwrap()
}

impl Model {
    fn last_wanted(&self, number: usize) -> i64 {
        self.present[&number].max(self.asked_for.get(&number).copied().unwrap_or(0))
    }

    /// What a collection would take now: over and over, what is old, not pinned, and needed by nothing that stays.
    fn planned(&self) -> BTreeSet<usize> {
        let mut stays: BTreeSet<usize> = self.present.keys().copied().collect();
        loop {
            let needed: BTreeSet<usize> = stays.iter().flat_map(|one| references(*one)).collect();
            let goes = stays.iter().copied().find(|one| {
                let is_old = self.last_wanted(*one) < self.now - UNUSED;
                is_old && !needed.contains(one) && !self.pins.values().any(|pinned| pinned == one)
            });
            match goes {
                Some(one) => stays.remove(&one),
                None => break,
            };
        }
        self.present.keys().copied().filter(|one| !stays.contains(one)).collect()
    }
}

/// All that `roots` refer to, and they themselves.
fn closure(roots: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut all = BTreeSet::new();
    let mut next: Vec<usize> = roots.iter().copied().collect();
    while let Some(one) = next.pop() {
        if all.insert(one) {
            next.extend(references(one));
        }
    }
    all
}

/// What happens, by and by and while it is collected.
struct World<'a> {
    bed: &'a Bed,
    model: &'a mut Model,
    numbers: &'a mut Numbers,
}

impl World<'_> {
    /// One thing at random. Says which paths somebody goes by from then on.
    fn step(&mut self) -> BTreeSet<usize> {
        match self.numbers.below(10) {
            0..6 => self.push(),
            6..8 => self.ask(),
            _ => self.pin_or_not(),
        }
    }

    fn push(&mut self) -> BTreeSet<usize> {
        let number = self.numbers.below(PATHS);
        let (needs, now) = (references(number), self.model.now);
        let pushed = self.bed.push(number, contents(number), &needs, now);
        if self.model.present.contains_key(&number) {
            assert!(matches!(pushed, Ok(Outcome::Present)), "{number}: {pushed:?}");
            return BTreeSet::from([number]);
        }
        if needs.iter().any(|one| !self.model.present.contains_key(one)) {
            let is_told = matches!(pushed, Err(PushError::MissingReferences { .. }));
            assert!(is_told, "{number}: {pushed:?}");
            return BTreeSet::new();
        }
        assert!(matches!(pushed, Ok(Outcome::Published)), "{number}: {pushed:?}");
        self.model.present.insert(number, now);
        needs.into_iter().chain([number]).collect()
    }

    fn ask(&mut self) -> BTreeSet<usize> {
        let (number, now) = (self.numbers.below(PATHS), self.model.now);
        if !self.model.present.contains_key(&number) {
            return BTreeSet::new();
        }
        self.bed.server.cache.uses().note(path(number).hash(), now);
        self.model.asked_for.insert(number, now);
        BTreeSet::from([number])
    }

    fn pin_or_not(&mut self) -> BTreeSet<usize> {
        let (name, number) = (self.numbers.below(3), self.numbers.below(PATHS));
        self.bed.state.remove_pin("default", &name.to_string()).unwrap();
        self.model.pins.remove(&name);
        if !self.model.present.contains_key(&number) || self.numbers.below(3) == 0 {
            return BTreeSet::new();
        }
        self.bed.pin(&name.to_string(), number, self.model.now);
        self.model.pins.insert(name, number);
        BTreeSet::new()
    }

    /// What was asked for is kept, as it is each minute.
    fn keep_uses(&mut self) {
        let uses = self.bed.server.cache.uses();
        for number in 0..BATCHES {
            let batch = uses.batch(number);
            self.bed.state.keep_uses("default", &batch).unwrap();
            uses.forget(number, &batch);
        }
        for (number, at) in std::mem::take(&mut self.model.asked_for) {
            if let Some(last) = self.model.present.get_mut(&number) {
                *last = at.max(*last);
            }
        }
    }

    /// Says how many went, and how many did not because somebody wanted them meanwhile.
    fn collect(&mut self, policy: &Policy) -> (usize, usize) {
        let (planned, collector) = (self.model.planned(), self.bed.collector());
        let plan = collector.plan(policy, self.model.now).unwrap();
        let number = |hash: StorePathHash| usize::from(hash.as_bytes()[0]);
        assert_eq!(plan.paths().map(number).collect::<BTreeSet<_>>(), planned);
        let mut wanted = BTreeSet::new();
        for _ in 0..self.numbers.below(4) {
            wanted.extend(self.step());
        }
        wanted.extend(self.model.pins.values());
        let stays = closure(&wanted);
        let goes: Vec<usize> = planned.iter().copied().filter(|one| !stays.contains(one)).collect();
        let outcome = collector.carry_out(&plan, &|_| true).unwrap();
        assert_eq!((outcome.paths, outcome.failed), (goes.len() as u64, 0), "{outcome:?}");
        for one in &goes {
            self.model.present.remove(one);
            self.model.asked_for.remove(one);
        }
        (goes.len(), planned.len() - goes.len())
    }
}

fn check(bed: &Bed, model: &Model, step: usize) {
    let expected: Vec<usize> = model.present.keys().copied().collect();
    assert_eq!(bed.visible(), expected, "step {step}");
    for number in expected {
        assert!(bed.is_whole(number), "step {step}: {number} is not whole");
        let is_here = |one: &usize| model.present.contains_key(one);
        assert!(references(number).iter().all(is_here), "step {step}: {number} lacks something");
    }
}

#[test]
fn whatever_happens_what_is_there_is_whole_and_what_the_model_says() {
    let seconds = |count: i64| Some(Duration::from_secs(count.unsigned_abs()));
    let policy = Policy {
        keep_unused: seconds(UNUSED),
        keep_at_least: seconds(HELD).unwrap(),
        ..Policy::default()
    };
    let (mut bed, mut numbers) = (Bed::new(), Numbers(0x5eed));
    let mut model = Model { now: BEGIN, ..Model::default() };
    let (mut gone, mut saved, mut restarts) = (0, 0, 0);
    for step in 0..STEPS {
        model.now += i64::try_from(numbers.below(20)).unwrap();
        let what = numbers.below(100);
        let mut world = World { bed: &bed, model: &mut model, numbers: &mut numbers };
        match what {
            0..8 => {
                let (went, stayed) = world.collect(&policy);
                (gone, saved) = (gone + went, saved + stayed);
            }
            8..12 => world.keep_uses(),
            12 => {
                // What was asked for since it was last kept is forgotten.
                bed.restart();
                model.asked_for.clear();
                restarts += 1;
            }
            _ => drop(world.step()),
        }
        check(&bed, &model, step);
    }
    // It has seen something.
    assert!(gone > 500 && saved > 50 && restarts > 50, "{gone} {saved} {restarts}");
    // In the end nothing is left that belongs to nobody.
    model.pins.clear();
    for name in ["0", "1", "2"] {
        bed.state.remove_pin("default", name).unwrap();
    }
    model.now += UNUSED + 1;
    World { bed: &bed, model: &mut model, numbers: &mut Numbers(7) }.keep_uses();
    model.now += UNUSED + 1;
    bed.collect(&policy, model.now, || ());
    assert_eq!((bed.visible(), bed.nars()), (Vec::new(), 0));
}
