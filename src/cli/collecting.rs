//! What `snowbank gc` and `snowbank rm` have done: by a server that runs, or here.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::BinaryBytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::output::table;
use super::{CommandError, time, zfs};
use crate::app::collecting::{self as app, KeptBySnapshot, Offline, Said, What, ask};
use crate::app::held::held;
use crate::app::serving::{self, Alone};
use crate::config::{CacheConfig, Config};
use crate::index::state::StateDb;

/// How long to wait for a running server to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The cache of this name, or all that have a directory.
pub(super) fn caches<'a>(
    config: &'a Config,
    name: Option<&str>,
) -> Result<Vec<&'a CacheConfig>, CommandError> {
    match name {
        Some(name) => Ok(vec![zfs::cache(config, name)?]),
        None => Ok(config.caches.iter().filter(|cache| cache.directory.exists()).collect()),
    }
}

/// What would be done. Nothing is changed, and a server may run.
pub(super) fn plan(
    config: &Config,
    cache: &CacheConfig,
    db: &StateDb,
    what: &What,
) -> Result<Said, CommandError> {
    let offline = Offline::to_look_at(cache)?;
    let now = Timestamp::now().as_second();
    let (plan, said) = app::plan(&offline.collector(db), what, &cache.collect, now)?;
    let strays = u64::try_from(plan.strays.files.len()).unwrap_or(u64::MAX);
    let (snapshots, bytes_in_snapshots) = held(config, cache, offline.bank(), &plan)
        .unwrap_or_else(|error| {
            tracing::warn!(cache = cache.name, "what snapshots keep of it is not known: {error}");
            (Vec::new(), 0)
        });
    let snapshots = snapshots.into_iter().map(|snapshot| KeptBySnapshot {
        name: snapshot.name,
        created: snapshot.creation,
        bytes: snapshot.bytes,
        holds: snapshot.holds,
        clones: snapshot.clones,
    });
    let (bytes, snapshots) = (plan.bytes() + plan.strays.bytes, snapshots.collect());
    Ok(Said { bytes, strays, bytes_in_snapshots, snapshots, ..said })
}

/// What returns only when snapshots are gone as well; empty where nothing is kept by any.
pub(super) fn show_snapshots(cache: &str, said: &Said) -> String {
    if said.snapshots.is_empty() {
        return String::new();
    }
    let mut rows = vec![["SNAPSHOT", "MADE", "KEEPS", ""].map(String::from)];
    rows.extend(said.snapshots.iter().map(|snapshot| {
        let made = i64::try_from(snapshot.created).unwrap_or(i64::MAX);
        let held = (snapshot.holds > 0).then(|| format!("{} holds", snapshot.holds));
        let cloned = snapshot.clones.as_ref().map(|clones| format!("cloned: {clones}"));
        [
            snapshot.name.clone(),
            time::show(made),
            BinaryBytes(snapshot.bytes).to_string(),
            held.into_iter().chain(cloned).collect::<Vec<_>>().join(", "),
        ]
    }));
    let (returning, kept) = (said.bytes - said.bytes_in_snapshots, said.bytes_in_snapshots);
    format!(
        "\nOf {cache} {} return at once, and {} when these are gone:\n\n{}",
        BinaryBytes(returning),
        BinaryBytes(kept),
        table(&rows)
    )
}

/// Has a server that runs on the data directory do it, or does it here where none does.
pub(super) fn carry_out(
    config: &Config,
    cache: &CacheConfig,
    db: &StateDb,
    what: &What,
) -> Result<Said, CommandError> {
    match serving::alone(&config.data_dir)? {
        Some(alone) => here(config, cache, db, what, &alone),
        None => by_the_server(cache, db, what, &mut |_: &Said| ()),
    }
}

fn here(
    config: &Config,
    cache: &CacheConfig,
    db: &StateDb,
    what: &What,
    alone: &Alone,
) -> Result<Said, CommandError> {
    let offline = Offline::to_collect(config, cache, db)?;
    let now = Timestamp::now().as_second();
    let is_cut = Cell::new(false);
    let goes_on = |_: &Said| {
        is_cut.set(!alone.goes_on());
        !is_cut.get()
    };
    let mut said = app::carry_out(&offline.collector(db), what, &cache.collect, now, &goes_on)?;
    if is_cut.get() {
        said.error = Some("a server has started: ask again, and it goes on".into());
    }
    Ok(said)
}

/// Has a server that runs on the data directory do it, and waits for its end; `hears` how far it is.
pub(super) fn by_the_server<S: DeserializeOwned>(
    cache: &CacheConfig,
    db: &StateDb,
    what: &impl Serialize,
    hears: &mut dyn FnMut(&S),
) -> Result<S, CommandError> {
    let number = ask(db, &cache.name, what, Timestamp::now().as_second())?;
    let asked = Instant::now();
    loop {
        let Some(state) = db.job(number)? else {
            return Err(CommandError::Queue(
                "the server was started anew meanwhile; ask again".into(),
            ));
        };
        let said = state.said.and_then(|said| serde_json::from_str(&said).ok());
        if state.has_ended {
            return said.ok_or_else(|| {
                CommandError::Queue(
                    "what the server said of it cannot be read: is it another version?".into(),
                )
            });
        }
        if let Some(said) = &said {
            hears(said);
        }
        if !state.is_taken && asked.elapsed() > PATIENCE && db.withdraw(number)? {
            return Err(CommandError::Queue(
                "a server runs on this data directory, and does not begin: its log may say why"
                    .into(),
            ));
        }
        thread::sleep(ASK_EVERY);
    }
}
