//! Collecting: removing the paths of a cache that nobody needs, so that what stays is whole.
//!
//! 1. *Plan* ([`Collector::plan`]): all narinfos are read ([`graph`]), and it is said what goes ([`mod@select`]). Nothing
//!    is locked meanwhile, but what is pushed from then on, and what that relies on, is noted.
//! 2. *Carry out* ([`Collector::carry_out`]): in the order of the plan, so what refers before what is referred to,
//!    and a few paths at a time. For these, and for no longer, nobody publishes. Each is looked at again: what was
//!    pushed, relied on or asked for since stays, and with it all that it refers to.
//! 3. The NARs and listings that no path names go, which a crash or a refused push left.
//!
//! A reader who has a file open reads it to its end. What a path leaves is a tombstone. A collection that is
//! interrupted is begun anew: what has gone is gone, and the rest is planned again.

pub mod graph;
pub mod held;
pub mod policy;
pub mod select;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::graph::{Graph, Index};
use self::policy::Policy;
use self::select::{Demand, Named, Selection, select, select_named};
use crate::bank::publish::removal::{Leaving, Strays};
use crate::bank::publish::{self, removal};
use crate::bank::{Bank, BankError, BuildId, Object, narinfo_file_name};
use crate::index::state::{StateDb, StateError, Tombstone};
use crate::index::uses::Use;
use crate::ingest::Ingest;
use crate::ingest::collect::{Collecting, Relied};
use crate::nix::nar::Listing;
use crate::nix::nar_url::NarFileName;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::StorePathHash;
use crate::source::cache::Cache;
use crate::source::{Source, SourceError};

/// How many paths are removed while nobody publishes: some ten milliseconds' worth, and two syncs. Tests have few paths,
/// and see many rounds all the same.
const AT_ONCE: usize = if cfg!(test) { 2 } else { 512 };

/// How many paths a message names.
const SHOWN: usize = 5;

/// Why a cache is not collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// It cannot be read, or not be written to.
    #[error(transparent)]
    Bank(#[from] BankError),
    /// A bank that others keep for it cannot be read, and may refer to anything.
    #[error(transparent)]
    Part(#[from] SourceError),
    /// What is pinned is not known.
    #[error(transparent)]
    State(#[from] StateError),
    /// What was pinned is lost.
    #[error(
        "the state database was damaged, and what was pinned is not known: nothing is collected while the damaged one \
         is kept at {}; pin what must stay, then remove that file", .0.display()
    )]
    PinsLost(PathBuf),
    /// Somebody else is at it.
    #[error("the cache {0} is being collected already")]
    UnderWay(String),
    /// A path that was named is not there.
    #[error("{0} is not in the bank of the cache, or cannot be read there")]
    NotHere(StorePathHash),
    /// What stays would not be whole.
    #[error(
        "{count} paths refer to what is to be removed, and would not be whole: {some}; --referrers removes them as \
         well"
    )]
    Referred {
        /// How many.
        count: usize,
        /// The first few, by hash.
        some: String,
    },
    /// What is to be removed is pinned.
    #[error("{0} is pinned: `snowbank pin ls` says by whom, `snowbank pin rm` lets go of it")]
    Pinned(StorePathHash),
    /// More was asked for since the last time that it was kept than is remembered.
    #[error(
        "the cache {0} was asked for more paths in the last minute than are remembered, so that none can be taken \
         for unused; it is tried again later"
    )]
    Busy(String),
}

/// The cache to be collected.
pub struct Collector<'a> {
    /// The cache, as it is served.
    pub cache: &'a Cache,
    /// Its own bank, as a source of the cache.
    pub source: &'a Source,
    /// The same as it lies.
    pub bank: &'a Arc<Bank>,
    /// What takes pushes to it, if anything does.
    pub ingest: Option<&'a Ingest>,
    /// Pins, uses and tombstones.
    pub state: &'a StateDb,
}

/// What is wanted of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Now, in seconds since 1970.
    pub now: i64,
    /// What came or was asked for within this stays.
    pub hold: Duration,
    /// What was neither within this goes.
    pub unused: Option<Duration>,
    /// How many bytes are to be freed at least, if so many can.
    pub free: u64,
}

/// What would go.
pub struct Plan<'a> {
    graph: Graph,
    selection: Selection,
    /// By path: when it was asked for, as the database knows; none of it where that is of no interest.
    uses: Vec<Kept>,
    demand: Demand,
    /// Who says so; nobody but the policy of the cache, if nothing stands here.
    said_by: Option<String>,
    hold: Duration,
    /// How often something had been pinned.
    pins: i64,
    collecting: Option<Collecting<'a>>,
    /// What belongs to no path.
    pub strays: Strays,
}

/// A [`Use`] in half the memory.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// In seconds since 1970; it is 2106 at most.
    last: u32,
    count: u32,
}

impl From<Use> for Kept {
    fn from(used: Use) -> Self {
        let last = u32::try_from(used.last.max(0)).unwrap_or(u32::MAX);
        Self { last, count: used.count }
    }
}

impl From<Kept> for Use {
    fn from(kept: Kept) -> Self {
        Self { last: kept.last.into(), count: kept.count }
    }
}

/// What came of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Paths that went.
    pub paths: u64,
    /// What they took on disk, in bytes, with the files that belonged to none.
    pub bytes: u64,
    /// Paths that were to go and stayed, because somebody wanted them meanwhile.
    pub wanted_again: u64,
    /// Paths that could not be removed.
    pub failed: u64,
    /// Files that belonged to no path.
    pub strays: u64,
}

impl Plan<'_> {
    /// The paths that would go, each after what refers to it.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = StorePathHash> + '_ {
        self.selection.paths.iter().map(|index| self.graph.hash(*index))
    }

    /// What they take on disk, in bytes.
    pub const fn bytes(&self) -> u64 {
        self.selection.bytes
    }

    /// For each of them a file of it, by its name in the bank, and the bytes on disk that go with the path.
    pub fn files(&self) -> impl Iterator<Item = (PathBuf, u64)> + '_ {
        let mut nars = self.graph.nars();
        self.selection.paths.iter().map(move |index| {
            let bytes = self.graph.bytes_with(*index, nars.leave(*index));
            (narinfo_file_name(self.graph.hash(*index)).into(), bytes)
        })
    }

    /// How many paths there are in all.
    pub fn total(&self) -> usize {
        self.graph.len()
    }

    /// The paths that cannot be read, and are left alone.
    pub fn damaged(&self) -> &[StorePathHash] {
        self.graph.damaged()
    }
}

impl<'a> Collector<'a> {
    /// Says what would go at `now`, in seconds since 1970. Blocks, for as long as it takes to read every narinfo.
    pub fn plan(&self, policy: &Policy, now: i64) -> Result<Plan<'a>, CollectError> {
        let name = &self.cache.name;
        if let Some(damaged) = self.state.set_aside()? {
            return Err(CollectError::PinsLost(damaged));
        }
        let (collecting, mut graph) = self.begin()?;
        // Counted first: what is pinned while it is read is looked at again.
        let pins = self.state.pin_changes()?;
        let pinned = self.state.pinned_paths(name)?;
        let mut uses = vec![Kept::default(); graph.len()];
        self.state.each_use(name, |hash, used| {
            if let Some(index) = graph.find(hash) {
                uses[index as usize] = used.into();
            }
        })?;
        if self.cache.uses().has_missed() {
            return Err(CollectError::Busy(name.clone()));
        }
        let wanted = policy.wanted(now, graph.bytes(), self.bank.room()?);
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let before = |duration: Duration| wanted.now.saturating_sub(seconds(duration));
        let demand = Demand {
            now: wanted.now,
            held_since: before(wanted.hold),
            unused_since: wanted.unused.map(before),
            free: wanted.free,
        };
        let selection =
            select(&graph, &pinned, &|index| self.used(&uses, index, graph.hash(index)), &demand);
        let has_path = |hash| graph.find(hash).is_some();
        let has_nar = |nar: NarFileName| graph.has_nar(nar.hash);
        let strays = self.bank.strays(has_nar, has_path, SystemTime::now())?;
        graph.forget_nars();
        Ok(Plan {
            said_by: None,
            graph,
            selection,
            uses,
            demand,
            hold: wanted.hold,
            pins,
            collecting,
            strays,
        })
    }

    /// Says what would go with paths that are named by `said_by`, at `now`, in seconds since 1970. Blocks.
    pub fn plan_removal(
        &self,
        named: &Named,
        said_by: &str,
        now: i64,
    ) -> Result<Plan<'a>, CollectError> {
        let (collecting, graph) = self.begin()?;
        let pins = self.state.pin_changes()?;
        let pinned = self.state.pinned_paths(&self.cache.name)?;
        let is_own = |index: &Index| graph.is_own(*index);
        let find = |hash: &StorePathHash| {
            graph.find(*hash).filter(is_own).ok_or(CollectError::NotHere(*hash))
        };
        let roots = named.paths.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let selection = select_named(&graph, &roots, &pinned, named).map_err(|referrers| {
            let some = referrers.iter().take(SHOWN).map(|index| graph.hash(*index).to_string());
            let some = some.collect::<Vec<_>>().join(", ");
            CollectError::Referred { count: referrers.len(), some }
        })?;
        let is_going: HashSet<StorePathHash> =
            selection.paths.iter().map(|index| graph.hash(*index)).collect();
        if let Some(pinned) = pinned.iter().find(|hash| is_going.contains(hash)) {
            return Err(CollectError::Pinned(*pinned));
        }
        // Whoever asked for it a moment ago does not keep it.
        let demand = Demand { now, held_since: i64::MAX, unused_since: None, free: 0 };
        Ok(Plan {
            graph,
            selection,
            uses: Vec::new(),
            demand,
            said_by: Some(said_by.to_owned()),
            hold: Duration::MAX,
            pins,
            collecting,
            strays: Strays::default(),
        })
    }

    /// Notes what is relied on from now on, and reads what there is.
    fn begin(&self) -> Result<(Option<Collecting<'a>>, Graph), CollectError> {
        let collecting = match self.ingest {
            Some(ingest) => {
                let begun = ingest.begin_collecting();
                Some(begun.ok_or_else(|| CollectError::UnderWay(self.cache.name.clone()))?)
            }
            None => None,
        };
        self.bank.stamp()?;
        // What was decided and not done refers to paths as well.
        self.bank.settle()?;
        let others = self.others()?;
        let graph = Graph::read(self.bank, &others, &self.cache.info.store_dir)?;
        Ok((collecting, graph))
    }

    /// The banks that others keep for this cache; one that has not come yet refers to nothing.
    fn others(&self) -> Result<Vec<&'a Bank>, CollectError> {
        let mut others = Vec::new();
        for source in self.cache.sources() {
            if let Source::Bank(part) = &**source
                && !Arc::ptr_eq(part.bank(), self.bank)
                && source.look().map(|()| source.is_there())?
            {
                others.push(&**part.bank());
            }
        }
        Ok(others)
    }

    fn used(&self, kept: &[Kept], index: Index, hash: StorePathHash) -> Use {
        let before: Use = kept.get(index as usize).copied().unwrap_or_default().into();
        before.and(self.cache.uses().of(hash).unwrap_or_default())
    }

    /// Does what was planned, as long as `goes_on` says so, which is asked now and then with what was done so far. One
    /// path that cannot be removed does not keep the others. Blocks.
    pub fn carry_out(
        &self,
        plan: &Plan<'_>,
        goes_on: &dyn Fn(&Collected) -> bool,
    ) -> Result<Collected, CollectError> {
        let mut collected = Collected::default();
        let (mut stays, mut nars) = (HashSet::new(), plan.graph.nars());
        let mut pins = plan.pins;
        for paths in plan.selection.paths.chunks(AT_ONCE) {
            if !goes_on(&collected) {
                return Ok(collected);
            }
            let mut leaving = Vec::with_capacity(paths.len());
            self.alone(plan, |relied| -> Result<(), CollectError> {
                let has_debug_info = self.bank.has_debug_info();
                let now = self.state.pin_changes()?;
                if now != pins {
                    let pinned = self.state.pinned_paths(&self.cache.name)?;
                    stays.extend(pinned.into_iter().filter_map(|hash| plan.graph.find(hash)));
                    pins = now;
                }
                for index in paths {
                    match self.leave(plan, *index, relied, &stays) {
                        Ok(Some((path, nar))) => {
                            let is_last = nars.leave(*index) && !relied.nars.contains(&nar.hash);
                            collected.bytes += plan.graph.bytes_with(*index, is_last);
                            let hash = path.info.path.hash();
                            let debug_info = if is_last && has_debug_info {
                                self.debug_info(hash)
                            } else {
                                Vec::new()
                            };
                            let nar = is_last.then_some(nar);
                            leaving.push((path, Leaving { hash, nar, debug_info }));
                        }
                        // It went by another way.
                        Ok(None) if !self.is_there(plan, *index) => {}
                        kept => {
                            stays.extend(plan.graph.references(*index));
                            match kept {
                                Ok(_) => collected.wanted_again += 1,
                                Err(error) => {
                                    tracing::warn!(
                                        cache = self.cache.name,
                                        "not collected: {error}"
                                    );
                                    collected.failed += 1;
                                }
                            }
                        }
                    }
                }
                let files: Vec<Leaving> = leaving.iter().map(|(_, files)| files.clone()).collect();
                if let Err(error) = self.bank.remove_paths(&files) {
                    tracing::warn!(cache = self.cache.name, "not all of it is removed: {error}");
                    collected.failed += 1;
                }
                self.cache.changed(self.source);
                Ok(())
            })?;
            collected.paths += leaving.len() as u64;
            let tombstone = |(narinfo, _): &(NarInfo, Leaving)| Tombstone {
                cache: self.cache.name.clone(),
                path: narinfo.info.path.clone(),
                at: plan.demand.now,
                why: self.why(plan, narinfo.info.path.hash()),
            };
            self.state.bury(&leaving.iter().map(tombstone).collect::<Vec<_>>())?;
        }
        self.remove_strays(plan, &mut collected);
        Ok(collected)
    }

    /// The narinfo of a path that goes, and its NAR; nothing where it stays, or is not there.
    fn leave(
        &self,
        plan: &Plan<'_>,
        index: Index,
        relied: &Relied,
        stays: &HashSet<Index>,
    ) -> Result<Option<(NarInfo, NarFileName)>, BankError> {
        let hash = plan.graph.hash(index);
        let used_since = self.cache.uses().of(hash).is_some_and(|used| {
            let kept = plan.uses.get(index as usize).copied().unwrap_or_default();
            used.last >= plan.demand.held_since && Use::from(kept).last < used.last
        });
        if stays.contains(&index) || relied.paths.contains(&hash) || used_since {
            return Ok(None);
        }
        let Some(text) = self.bank.read_narinfo(hash)? else { return Ok(None) };
        let narinfo = NarInfo::parse(&text, &self.cache.info.store_dir).ok();
        let named = narinfo.and_then(|narinfo| {
            let name = narinfo.nar_file()?;
            Some((narinfo, name))
        });
        // Another one than was planned with has come by a way that is not ours.
        Ok(named.filter(|(narinfo, _)| plan.graph.is_nar_of(index, narinfo.info.nar_hash)))
    }

    /// The build IDs that its listing names; none where that cannot be read, because nobody would miss them.
    fn debug_info(&self, hash: StorePathHash) -> Vec<BuildId> {
        let listing = self.bank.read_object(&Object::Listing(hash)).ok().flatten();
        listing.map(|text| Listing::debug_files_in(&text)).unwrap_or_default()
    }

    fn is_there(&self, plan: &Plan<'_>, index: Index) -> bool {
        !matches!(self.bank.read_narinfo(plan.graph.hash(index)), Ok(None))
    }

    fn why(&self, plan: &Plan<'_>, hash: StorePathHash) -> String {
        if let Some(said_by) = &plan.said_by {
            return format!("removed by {said_by}");
        }
        let last = plan
            .graph
            .find(hash)
            .map_or(0, |index| self.used(&plan.uses, index, hash).last.max(plan.graph.came(index)));
        match plan.demand.unused_since {
            Some(since) if last < since => {
                "it was unused for longer than the cache keeps what is unused".into()
            }
            _ => "to make room".into(),
        }
    }

    fn remove_strays(&self, plan: &Plan<'_>, collected: &mut Collected) {
        let now = SystemTime::now();
        for files in plan.strays.files.chunks(AT_ONCE) {
            self.alone(plan, |relied| {
                for file in files {
                    let name = file.file_name().and_then(|name| NarFileName::parse(name.to_str()?));
                    let is_named = name.is_some_and(|name| relied.nars.contains(&name.hash));
                    // What others write into the directory has its NAR before its narinfo.
                    if is_named || !removal::is_older(file, plan.hold, now) {
                        continue;
                    }
                    let bytes = crate::bank::bytes_on_disk(file);
                    match publish::remove(file) {
                        Ok(()) => {
                            collected.strays += 1;
                            collected.bytes += bytes;
                        }
                        Err(error) => {
                            tracing::warn!(cache = self.cache.name, "not collected: {error}");
                            collected.failed += 1;
                        }
                    }
                }
            });
        }
    }

    fn alone<T>(&self, plan: &Plan<'_>, work: impl FnOnce(&Relied) -> T) -> T {
        match &plan.collecting {
            Some(collecting) => collecting.alone(work),
            None => work(&Relied::default()),
        }
    }
}
