//! `snowbank format move-nix`: moves `/nix` onto a dataset while the system runs from it.
//!
//! Copy, verify, mount over. The other ways were: in the initrd, which would need our own part in every
//! initrd, and shows what is wrong when nobody can log in; and by a reboot, in which the copy is older
//! than what it replaces. This way all that can go wrong goes wrong beside the running system, which
//! does not notice.
//!
//! 1. `/nix` is bound to [`OLD`], by itself: what is read from there is the tree itself, whatever is
//!    mounted in it (NixOS has a read-only view of the store on the store). The dataset `<pool>/nix` is
//!    made, with `mountpoint=legacy` so that nothing ever mounts it unasked, and mounted at [`NEW`].
//! 2. Everything is [copied](copy) while it is in use, and every store path in the copy is
//!    [hashed](verify). This takes long and may be killed: the next run goes on.
//! 3. [Writers](writers) are stopped: the daemon by systemd, everybody else by the lock that Nix itself
//!    takes when it needs the store for itself. Whoever starts `nix` now waits for it.
//! 4. What has changed meanwhile is copied, and hashed.
//! 5. Both trees are compared, every file by its metadata, those outside the store by their bytes.
//! 6. The dataset is marked as one that is about to be used, synced, and bound over `/nix`. What runs goes
//!    on with the files that it has open, and what is started from now on is found in the copy. This is
//!    the only step after which anything is different, and it is one system call.
//! 7. The store is made read-only where it was, the dataset is marked (`state.rs`) as the one in use, and the
//!    daemon is started.
//!
//! Whatever fails before 6 leaves the system as it was, but for the daemon, which is started again.
//! Killed between 3 and 7, it leaves the daemon stopped; running it again, whatever comes of that, or
//! `systemctl start nix-daemon.socket`, starts it.
//!
//! **The next boot** mounts the dataset only if the system's configuration says so; until then the old
//! tree is there again, whole, and the machine boots as it did. What was built after the move is then
//! missing. A dataset that was in use is therefore never copied over: see [`MoveError::WasInUse`].

pub mod copy;
mod state;
pub mod verify;
pub mod writers;

use std::io;
use std::path::{Path, PathBuf};

use super::layout::Layout;
use crate::zfs::disk::{host, make};
use crate::zfs::mounts::{Mount, Mounts};
use crate::zfs::name::DatasetName;
use crate::zfs::properties::Role;
use crate::zfs::{Command, Zfs, ZfsError, dataset};
use copy::{CopyError, Progress, Way};
use state::State;
use verify::{Verifier, VerifyError};
use writers::{Writers, WritersError};

/// What is moved.
pub const NIX: &str = "/nix";
/// Where the old tree stays reachable until the next boot.
pub const OLD: &str = "/run/snowbank/old-nix";
/// Where the new one is while it is being filled.
pub const NEW: &str = "/run/snowbank/new-nix";
/// There while the daemon is stopped by a move: what finds it after a kill starts the daemon.
const STOPPED: &str = "/run/snowbank/nix-daemon-is-stopped";
/// The store in either.
const STORE: &str = "store";

/// Why `/nix` was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The layout has no pool.
    #[error("the layout has no pool to move /nix to")]
    NoPool,
    /// The pool is not there.
    #[error("the pool {0} is not imported: run `snowbank format` first")]
    NotImported(String),
    /// There is nothing to move.
    #[error("there is no Nix store at /nix: {0} is missing")]
    NoStore(PathBuf),
    /// Something is mounted below `/nix`.
    #[error(
        "{what} is mounted at {}, and would not be there any more: unmount it first", at.display()
    )]
    Mounted {
        /// The device, dataset or kind of file system.
        what: String,
        /// Where.
        at: PathBuf,
    },
    /// The dataset was `/nix` before, and may have more in it than what is there now.
    #[error(
        "{0} was in use as /nix already, and is not now: it may hold what was built since, and is not \
         copied over. Let the system's configuration mount it, or, to begin anew, \
         `zfs rename {0} {0}-before`"
    )]
    WasInUse(DatasetName),
    /// A dataset of this name is there, and not ours.
    #[error("{0} is there already, and was not made for this: rename it or move it away")]
    NotOurs(DatasetName),
    /// A program failed.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// It was not copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The copy is not right.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Somebody writes to the store.
    #[error(transparent)]
    Writers(#[from] WritersError),
    /// The trees differ after everything was copied.
    #[error(
        "the copy differs from /nix in {count} places, the first is {first}: somebody writes to /nix \
         beside Nix. Nothing was changed; run it again"
    )]
    Differs {
        /// In how many files.
        count: u64,
        /// One of them.
        first: String,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was looked at.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl MoveError {
    /// Whether something has to be decided or changed by the user first.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::NoPool | Self::Mounted { .. } | Self::WasInUse(_) | Self::NotOurs(_))
    }
}

/// What is told while it works.
pub trait Watcher {
    /// A part begins: one line.
    fn part(&mut self, what: &str);
    /// How far the part is.
    fn progress(&mut self, progress: &Progress);
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// `/nix` is the dataset now.
    Now {
        /// Store paths whose bytes are wrong, in the old tree as in the new one.
        damaged: Vec<String>,
    },
    /// It was already.
    Before,
}

/// A move that can be made.
pub struct Move<'a> {
    zfs: &'a Zfs,
    dataset: DatasetName,
    /// How far the dataset is; `None` if it has to be made.
    state: Option<State>,
    /// Whether the store is seen through a mount of its own that nothing can be written through.
    store_is_read_only: bool,
}

/// What has to be done: nothing, or a move.
pub enum Checked<'a> {
    /// `/nix` is on the dataset.
    IsThere(DatasetName),
    /// It is not.
    Move(Move<'a>),
}

/// Looks whether `/nix` can be moved to the pool of the layout.
pub fn check<'a>(zfs: &'a Zfs, layout: &Layout) -> Result<Checked<'a>, MoveError> {
    let pool = layout.pool.as_ref().ok_or(MoveError::NoPool)?;
    if zfs.pool(&pool.name)?.is_none() {
        return Err(MoveError::NotImported(pool.name.to_string()));
    }
    let dataset = pool.name.root().child("nix").map_err(ZfsError::from)?;
    let mounts = mounts()?;
    let nix = Path::new(NIX);
    if mounts.at(nix).and_then(Mount::dataset).is_some_and(|mounted| mounted == dataset) {
        return Ok(Checked::IsThere(dataset));
    }
    for needed in [nix.join(STORE), nix.join("var/nix/db/db.sqlite")] {
        if !needed.exists() {
            return Err(MoveError::NoStore(needed));
        }
    }
    let store_is_read_only = only_the_store_is_mounted(&mounts)?;
    let state = state::read(zfs, &dataset)?;
    match &state {
        None | Some(State::Copying) => {}
        Some(State::Switching { boot }) if *boot == this_boot()? => {}
        Some(State::InUse | State::Switching { .. }) => return Err(MoveError::WasInUse(dataset)),
        Some(State::Unknown) => return Err(MoveError::NotOurs(dataset)),
    }
    Ok(Checked::Move(Move { zfs, dataset, state, store_is_read_only }))
}

/// Finishes what an earlier run that was killed has left, whatever has been found now: the daemon runs
/// again, and what follows the switch follows it before that.
pub fn recover(zfs: &Zfs, checked: &Result<Checked<'_>, MoveError>) -> Result<(), MoveError> {
    if let Ok(Checked::IsThere(dataset)) = checked
        && state::read(zfs, dataset)? != Some(State::InUse)
    {
        let is_bound = mounts()?.at(&Path::new(NIX).join(STORE)).and_then(Mount::dataset);
        for command in after_the_switch(dataset, is_bound.as_ref() == Some(dataset)) {
            zfs.run(&command)?;
        }
        unmount_new(zfs)?;
    }
    Ok(writers::start_what_was_stopped(zfs, Path::new(STOPPED))?)
}

/// What follows the switch. Nix, when it runs without the daemon, has a mount namespace of its own, in
/// which the store can be written, and waits there for its lock: what is mounted is mounted there too,
/// as it is. So the store is made read-only only when it is there.
fn after_the_switch(dataset: &DatasetName, store_is_bound: bool) -> Vec<Command> {
    let store = Path::new(NIX).join(STORE);
    let read_only = store_is_bound.then(|| host::make_read_only(&store));
    read_only.into_iter().chain([State::InUse.set(dataset)]).collect()
}

/// Unmounts what is mounted at [`NEW`] and in it: it does no harm there, but it keeps the pool busy.
fn unmount_new(zfs: &Zfs) -> Result<(), MoveError> {
    let new = Path::new(NEW);
    let mounted = mounts()?;
    for point in [&*new.join(STORE), new] {
        if mounted.at(point).is_some() {
            zfs.run(&host::unmount(point))?;
        }
    }
    Ok(())
}

fn this_boot() -> Result<String, MoveError> {
    state::this_boot().map_err(|source| MoveError::Io { path: state::BOOT.into(), source })
}

fn mounts() -> Result<Mounts, MoveError> {
    Mounts::read().map_err(|source| MoveError::Io { path: "/proc/self/mountinfo".into(), source })
}

/// Whether the store is mounted on itself so that nothing can be written, as NixOS does it. Anything
/// else that is mounted below `/nix` would be missing afterwards.
fn only_the_store_is_mounted(mounts: &Mounts) -> Result<bool, MoveError> {
    let (nix, store) = (Path::new(NIX), Path::new(NIX).join(STORE));
    let beneath = mounts.covering(nix);
    let inside = |mount: &&Mount| mount.point.starts_with(nix) && mount.point != nix;
    for mount in mounts.iter().filter(inside) {
        let below = beneath.and_then(|below| {
            let rest = nix.strip_prefix(&below.point).ok()?;
            Some((below, below.root.join(rest).join(STORE)))
        });
        let is_itself = below.is_some_and(|(below, root)| {
            mount.point == store && mount.source == below.source && mount.root == root
        });
        if !is_itself {
            let what = format!("{} ({})", mount.source, mount.file_system);
            return Err(MoveError::Mounted { what, at: mount.point.clone() });
        }
    }
    Ok(mounts.at(&store).is_some_and(|mount| mount.readonly))
}

impl Move<'_> {
    /// What would be run, and what is done in between, for a dry run.
    pub fn script(&self) -> Vec<Result<Command, &'static str>> {
        let mut script: Vec<_> = self.preparation().into_iter().map(Ok).collect();
        script.push(Err("copy /nix while it is in use, and hash every store path of the copy"));
        script.push(Ok(host::stop(&writers::UNITS)));
        script.push(Err("lock the store against everybody else, copy what has changed, compare"));
        script.extend(self.switch().into_iter().map(Ok));
        let after = after_the_switch(&self.dataset, self.store_is_read_only);
        script.extend(after.into_iter().map(Ok));
        script.push(Ok(host::start(&writers::UNITS[..1])));
        script
    }

    /// Moves it.
    pub fn run(&self, watcher: &mut dyn Watcher) -> Result<Moved, MoveError> {
        let done = self.run_inside(watcher);
        let new = unmount_new(self.zfs);
        if done.is_err() {
            let old = self.zfs.run(&host::unmount(Path::new(OLD)));
            tracing::debug!(?new, ?old, "undid the mounts");
        }
        done
    }

    fn run_inside(&self, watcher: &mut dyn Watcher) -> Result<Moved, MoveError> {
        watcher.part(&format!("making {} and mounting it beside /nix", self.dataset));
        // Where the last run was killed right before the switch, the store there has a mount of its own.
        unmount_new(self.zfs)?;
        for command in self.preparation() {
            self.zfs.run(&command)?;
        }
        let (old, new) = (Path::new(OLD), Path::new(NEW));
        let database = old.join("var/nix/db");
        watcher.part("copying /nix, while it is in use");
        copy::pass(old, new, Way::Copy, watcher)?;
        watcher.part("hashing the store paths of the copy");
        let mut verifier = Verifier::new(&new.join(STORE), &old.join(STORE))?;
        verifier.begin(&verifier.list(&database)?, watcher);

        watcher.part("stopping the Nix daemon, and waiting for everybody else");
        let writers = Writers::stop(self.zfs, Path::new(NIX), Path::new(STOPPED))?;
        let listed = verifier.list(&database)?;
        watcher.part("copying what has changed");
        let passed = copy::pass(old, new, Way::Copy, watcher)?;
        verifier.finish(&listed, &passed.store_paths(), watcher)?;
        watcher.part("comparing the copy with /nix");
        let compared = copy::pass(old, new, Way::Compare, watcher)?;
        if let Some(first) = compared.first {
            return Err(MoveError::Differs { count: compared.changed, first });
        }
        watcher.part("mounting it over /nix");
        self.zfs.run(&State::Switching { boot: this_boot()? }.set(&self.dataset))?;
        copy::sync(new)?;
        let after = after_the_switch(&self.dataset, self.store_is_read_only);
        for command in self.switch().into_iter().chain(after) {
            self.zfs.run(&command)?;
        }
        writers.start()?;
        Ok(Moved::Now { damaged: verifier.damaged() })
    }

    /// What comes before the copy. Mounts that an earlier run has left are used.
    fn preparation(&self) -> Vec<Command> {
        let (old, new) = (Path::new(OLD), Path::new(NEW));
        let mounted = mounts().ok();
        let is_mounted = |path| mounted.as_ref().is_some_and(|mounts| mounts.at(path).is_some());
        let mut commands = Vec::new();
        match &self.state {
            None => {
                let mut options = Role::Nix.options();
                let state = State::Copying.to_string();
                options.extend([("mountpoint", "legacy"), (state::PROPERTY, &state)]);
                commands.push(dataset::create(&self.dataset, &options));
            }
            Some(State::Copying) => {}
            // A move that does not come so far must not be taken for one that did.
            Some(_) => commands.push(State::Copying.set(&self.dataset)),
        }
        for (path, mount) in
            [(old, host::bind(Path::new(NIX), old)), (new, host::mount_dataset(&self.dataset, new))]
        {
            if !is_mounted(path) {
                commands.extend([make::directory(path), mount, host::make_private(path)]);
            }
        }
        commands
    }

    /// The switch: the last of these commands is it.
    fn switch(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.store_is_read_only {
            let store = Path::new(NEW).join(STORE);
            commands.push(host::bind(&store, &store));
        }
        commands.push(host::bind_with_all_in_it(Path::new(NEW), Path::new(NIX)));
        commands
    }

    /// The dataset.
    pub const fn dataset(&self) -> &DatasetName {
        &self.dataset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BENEATH: &str = "22 1 254:0 / / rw - ext4 /dev/vda rw\n";

    fn judged(more: &str) -> Result<bool, String> {
        let mounts = Mounts::parse(format!("{BENEATH}{more}").as_bytes());
        only_the_store_is_mounted(&mounts).map_err(|error| error.to_string())
    }

    #[test]
    fn the_store_may_be_mounted_on_itself_and_nothing_else_below_nix() {
        assert_eq!(judged(""), Ok(false));
        assert_eq!(judged("30 22 254:0 /nix/store /nix/store ro - ext4 /dev/vda rw\n"), Ok(true));
        assert_eq!(judged("30 22 254:0 /nix/store /nix/store rw - ext4 /dev/vda rw\n"), Ok(false));
        assert_eq!(judged("30 22 254:0 /nixos /nixos rw - ext4 /dev/vda rw\n"), Ok(false));
        let of_its_own = "30 22 254:1 / /nix rw - ext4 /dev/vdb rw\n\
                          31 30 254:1 /store /nix/store ro - ext4 /dev/vdb rw\n";
        assert_eq!(judged(of_its_own), Ok(true));
        for (other, named) in [
            ("30 22 0:9 / /nix/store rw - overlay overlay rw\n", "overlay (overlay)"),
            ("30 22 0:9 / /nix/var/log rw - tmpfs tmpfs rw\n", "/nix/var/log"),
            ("30 22 254:0 /other /nix/store ro - ext4 /dev/vda rw\n", "/nix/store"),
        ] {
            let error = judged(other).unwrap_err();
            assert!(error.contains(named) && error.contains("unmount it first"), "{error}");
        }
    }
}
