//! What this machine does as a client: whether a path waits to be pushed, what its Nix remembers of caches, and what
//! a cache says that is asked as a Nix here would ask it.

use std::path::PathBuf;

use crate::app::doctor::Finding;
use crate::app::doctor::remote::trusted::judge_signatures;
use crate::client::nix_conf::view::{View, Who};
use crate::client::remote::{Remote, RemoteError};
use crate::client::spool::{Listed, Spool};
use crate::native::MissingRequest;
use crate::nix::narinfo::NarInfo;
use crate::nix::path_info::PathInfo;
use crate::nix::signature::{KeyName, fingerprint};
use crate::nix::store_path::{StorePath, StorePathHash};
use crate::sign::PublicKey;
use crate::source::local::StoreLayout;
use crate::source::local::database::Database;
use crate::source::local::remembered::{Remembered, databases, remembered};
use crate::source::search::Wanted;

/// How long the Nix database may be locked by others.
const DATABASE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);
/// How long Nix remembers that a path was not there, in seconds, where nothing is configured (`globals.hh`).
const NEGATIVE_TTL: i64 = 3600;
/// The same of one that was.
const POSITIVE_TTL: i64 = 30 * 86_400;
/// Outputs of a derivation that are looked for.
const MOST_OUTPUTS: u32 = 1000;

/// This machine.
pub struct Client {
    layout: StoreLayout,
    database: Database,
    spool: Spool,
    views: Vec<View>,
    cache: Option<Remote>,
}

/// What is known here of a path.
pub struct OnClient {
    /// Entries of the queue that are about it; or why the queue cannot be read.
    pub queued: Result<Vec<Listed>, String>,
    /// Why the agent's last try failed.
    pub last_error: Option<String>,
    /// What the store here has, if it has it.
    pub built: Option<PathInfo>,
    /// What the Nix of each view remembers.
    pub memories: Vec<Memory>,
    /// What a cache says that is asked.
    pub cache: Option<AtCache>,
}

/// What a Nix remembers of a path in a cache.
pub struct Memory {
    /// Whose Nix.
    pub who: Who,
    /// What, or why that cannot be said.
    pub what: Result<Remembered, String>,
    /// Until when, in seconds since 1970.
    pub until: i64,
}

/// What a cache says of a path.
pub struct AtCache {
    /// Its address.
    pub url: String,
    /// Its narinfo, if it has one; or why it did not say.
    pub answer: Result<Option<NarInfo>, String>,
    /// For each Nix here, whether it would take it.
    pub trust: Vec<(Who, Finding)>,
    /// The upstream of the cache that signed what is here, for which reason a push leaves it out.
    pub left_to: Option<KeyName>,
}

impl Client {
    /// This machine with the store at `layout`, the queue at `spool`, and a cache that is to be asked.
    pub fn new(
        layout: StoreLayout,
        spool: PathBuf,
        views: Vec<View>,
        cache: Option<Remote>,
    ) -> Self {
        let directory = layout.state_dir.join("db");
        let database = Database::new(&directory, layout.store_dir.clone(), DATABASE_DEADLINE);
        Self { layout, database, spool: Spool::new(spool), views, cache }
    }

    /// Where its store is.
    pub const fn layout(&self) -> &StoreLayout {
        &self.layout
    }

    /// What the store here has of a derivation.
    pub(super) fn built_by(&self, derivation: &StorePath) -> Vec<StorePathHash> {
        // No store, nothing built.
        self.database.search(&Wanted::Deriver(derivation.clone()), MOST_OUTPUTS).unwrap_or_default()
    }

    /// Looks; `now` is in seconds since 1970. Blocks, on the network if a cache is to be asked.
    pub fn look(&self, hash: StorePathHash, now: i64) -> OnClient {
        let built = self.database.find(hash).ok().flatten();
        OnClient {
            queued: self.queued(hash),
            last_error: self.spool.last_error(),
            memories: self.memories(hash, now),
            cache: self.cache.as_ref().map(|cache| self.ask(cache, hash, built.as_ref())),
            built,
        }
    }

    fn queued(&self, hash: StorePathHash) -> Result<Vec<Listed>, String> {
        let mut listed = self
            .spool
            .list()
            .map_err(|error| format!("the queue {}: {error}", self.spool.directory().display()))?;
        let is_it = |path: &String| StorePathHash::in_text(path) == Some(hash);
        listed.retain(|one| {
            one.entry.as_ref().is_ok_and(|entry| entry.outs.iter().chain(&entry.drv).any(is_it))
        });
        Ok(listed)
    }

    fn memories(&self, hash: StorePathHash, now: i64) -> Vec<Memory> {
        let mut memories = Vec::new();
        for view in &self.views {
            let ttl = |name: &str, default: i64| {
                view.conf.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
            };
            let negative = ttl("narinfo-cache-negative-ttl", NEGATIVE_TTL);
            let positive = ttl("narinfo-cache-positive-ttl", POSITIVE_TTL);
            for file in view.cache.iter().flat_map(|directory| databases(directory)) {
                let who = view.who;
                match remembered(&file, hash) {
                    Ok(all) => memories.extend(all.into_iter().filter_map(|one| {
                        let kept = if one.nar.is_some() { positive } else { negative };
                        let until = one.at.saturating_add(kept);
                        (until > now).then_some(Memory { who, what: Ok(one), until })
                    })),
                    Err(error) => {
                        let what = Err(error.to_string());
                        memories.push(Memory { who, what, until: now });
                    }
                }
            }
        }
        memories
    }

    fn ask(&self, cache: &Remote, hash: StorePathHash, built: Option<&PathInfo>) -> AtCache {
        let store_dir = &self.layout.store_dir;
        let answer = cache.narinfo(hash, store_dir);
        let judge = |narinfo: &NarInfo| {
            let judged = self
                .views
                .iter()
                .map(|view| (view.who, judge_signatures(view, store_dir, &narinfo.info, &[])));
            judged.collect()
        };
        let trust = answer.as_ref().ok().and_then(Option::as_ref).map(judge).unwrap_or_default();
        let left_to = built.and_then(|info| self.left_to(cache, info).ok().flatten());
        let answer = answer.map_err(|error| error.to_string());
        AtCache { url: cache.url().to_owned(), answer, trust, left_to }
    }

    /// By which upstream a push to the cache would leave this out. Only those who may push are told.
    fn left_to(&self, cache: &Remote, info: &PathInfo) -> Result<Option<KeyName>, RemoteError> {
        let request =
            MissingRequest { paths: vec![info.path.hash()], verify: false, nars: Vec::new() };
        let keys = cache.missing(&request)?.upstream_keys;
        let text = fingerprint(&self.layout.store_dir, info);
        let signed = |key: &PublicKey| {
            info.signatures.iter().any(|signature| key.verifies(&text, signature))
        };
        let keys = keys.iter().filter_map(|key| PublicKey::parse(key));
        Ok(keys.into_iter().find(signed).map(|key| key.name().clone()))
    }
}
