//! One run of a replication.

use std::ops::ControlFlow;
use std::time::Instant;

use jiff::Timestamp;

use super::plan::{Copy, Needless, Next, Sides};
use super::{Outcome, ReplicateError, Replication, Sending, Sent, on};
use crate::zfs::ZfsError;
use crate::zfs::dataset::{self, Mountpoint};
use crate::zfs::maker::MADE_BY;
use crate::zfs::name::{Bookmark, Snapshot, SnapshotName};
use crate::zfs::property;
use crate::zfs::snapshot::{self, SnapshotInfo};
use crate::zfs::stream::{self, Base, Receive, Send};

/// How often a stream that was interrupted is gone on with, or thrown away, before the run gives up:
/// after the first time there is none any more, unless somebody else sends there.
const TRIES: usize = 3;
/// How many snapshots are destroyed by one command.
const AT_ONCE: usize = 50;

/// What is told while a stream is sent.
pub trait Watcher {
    /// A stream begins.
    fn begin(&mut self, sending: &Sending);
    /// So many bytes of it are sent; breaking off leaves a stream that the next run goes on with.
    fn moved(&mut self, bytes: u64) -> ControlFlow<()>;
    /// It is over, however it ended.
    fn end(&mut self);
}

impl Replication {
    /// Brings the copy up to date. Blocks for as long as it takes.
    pub fn run(
        &self,
        now: Timestamp,
        watcher: &mut dyn Watcher,
    ) -> Result<Outcome, ReplicateError> {
        let mut outcome = Outcome::default();
        let mut sides = self.look()?;
        for _ in 0..TRIES {
            let Next::Resume(token) = sides.next(self.settings.rollback)? else { break };
            let resume = Send::Resume(token);
            match self.here.estimate(&resume) {
                Ok(estimate) => {
                    let (to, estimate) = (estimate.to, Some(estimate.bytes));
                    let sending = Sending { from: None, to, estimate, resumed: true };
                    outcome.sent.push(self.send(&resume, sending, &sides, watcher)?);
                }
                // The snapshot at its end is gone, so nothing goes on with it ever.
                Err(ZfsError::Failed { .. }) => self.there.run(&stream::abort(&self.to.dataset))?,
                Err(error) => return Err(error.into()),
            }
            sides = self.look()?;
        }
        let Next::Send(base) = sides.next(self.settings.rollback)? else {
            return Err(ReplicateError::Contested(self.to.clone()));
        };
        self.destroy_here(&sides.left_over())?;
        let made = self.make_snapshot(&sides, now)?;
        if self.is_unchanged(base.as_ref(), &made)? {
            self.destroy_here(std::slice::from_ref(made.name()))?;
        } else {
            let send = Send::Snapshot {
                from: base.clone(),
                to: made.clone(),
                raw: false,
                properties: false,
            };
            let estimate = self.here.estimate(&send)?.bytes;
            let sending = Sending {
                from: base,
                to: Some(made.clone()),
                estimate: Some(estimate),
                resumed: false,
            };
            match self.send(&send, sending, &sides, watcher) {
                Ok(sent) => outcome.sent.push(sent),
                Err(error) => {
                    self.forget_unless_begun(&made);
                    return Err(error);
                }
            }
        }
        self.tidy(&mut outcome)?;
        Ok(outcome)
    }

    /// What both sides have.
    pub(super) fn look(&self) -> Result<Sides, ReplicateError> {
        if self.to.host.is_none() && self.to.dataset.is_within(&self.dataset) {
            let (dataset, to) = (self.dataset.clone(), self.to.clone());
            return Err(ReplicateError::Itself { dataset, to });
        }
        if self.here.find_dataset(&self.dataset)?.is_none() {
            return Err(ReplicateError::NoSource(self.dataset.clone()));
        }
        let copy = match self.there.find_dataset(&self.to.dataset)? {
            None => {
                if let Some(above) = self.to.dataset.parent()
                    && self.there.find_dataset(&above)?.is_none()
                {
                    return Err(ReplicateError::NoPlace { above, to: self.to.clone() });
                }
                None
            }
            Some(dataset) => {
                let written = self.there.get(&[&dataset.name], &["written"])?;
                let written = written.first().and_then(|property| property.value.parse().ok());
                let snapshots = self.there.snapshots(&dataset.name, &[MADE_BY])?;
                Some(Copy { dataset, snapshots, written: written.unwrap_or(0) })
            }
        };
        Ok(Sides {
            dataset: self.dataset.clone(),
            to: self.to.clone(),
            maker: self.maker(),
            snapshots: self.here.snapshots(&self.dataset, &[MADE_BY])?,
            bookmarks: self.here.bookmarks(&self.dataset)?,
            copy,
        })
    }

    fn make_snapshot(&self, sides: &Sides, now: Timestamp) -> Result<Snapshot, ReplicateError> {
        let made = self.dataset.snapshot(&sides.free_name(now)?)?;
        let maker = self.maker().to_string();
        self.here.run(&snapshot::create(std::slice::from_ref(&made), &[(MADE_BY, &maker)]))?;
        Ok(made)
    }

    /// Whether nothing was written between what the copy has and a snapshot.
    fn is_unchanged(&self, base: Option<&Base>, made: &Snapshot) -> Result<bool, ReplicateError> {
        let since = match base {
            None => return Ok(false),
            Some(Base::Snapshot(snapshot)) => format!("written@{}", snapshot.name()),
            Some(Base::Bookmark(bookmark)) => format!("written#{}", bookmark.name()),
        };
        match self.here.get(&[made], &[&since]) {
            Ok(written) => Ok(written.first().is_some_and(|property| property.value == "0")),
            // A version that cannot tell: sending nothing takes a few bytes.
            Err(ZfsError::Failed { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn send(
        &self,
        send: &Send,
        sending: Sending,
        sides: &Sides,
        watcher: &mut dyn Watcher,
    ) -> Result<Sent, ReplicateError> {
        let begun = Instant::now();
        watcher.begin(&sending);
        let moved = |bytes| watcher.moved(bytes);
        let bytes = self.here.transfer(send, &self.there, &self.receive(sides), moved);
        watcher.end();
        Ok(Sent { sending, bytes: bytes?, took: begun.elapsed() })
    }

    /// The stream has no properties in it; those that a copy has are set when it is made, and again
    /// when the stream that makes it is gone on with.
    pub(super) fn receive(&self, sides: &Sides) -> Receive {
        let mut receive = Receive::into(self.to.dataset.clone());
        receive.rollback = self.settings.rollback;
        if sides.copy.as_ref().is_none_or(|copy| copy.snapshots.is_empty()) {
            receive.set.push(("readonly".into(), "on".into()));
            if let Some(mountpoint) = &self.settings.mountpoint {
                let mountpoint = mountpoint.to_string_lossy().into_owned();
                receive.set.push(("mountpoint".into(), mountpoint));
            }
        }
        receive
    }

    /// After a stream that broke: its snapshot stays only if the copy can go on with it. Where that
    /// cannot be found out, the next run does.
    fn forget_unless_begun(&self, made: &Snapshot) {
        if matches!(self.there.resume_token(&self.to.dataset), Ok(None)) {
            // Left over, it takes room until the next run, and no more.
            let _ = self.destroy_here(std::slice::from_ref(made.name()));
        }
    }

    /// Steps 4 and 5, and how the copy is.
    fn tidy(&self, outcome: &mut Outcome) -> Result<(), ReplicateError> {
        let sides = self.look()?;
        for name in sides.unmarked() {
            let copy = self.to.dataset.snapshot(&name)?;
            let mark = snapshot::set(&copy, &[(MADE_BY, &self.maker().to_string())]);
            if let Err(error) = self.there.run(&mark) {
                outcome.remarks.push(format!(
                    "snapshots of {} will pile up, as who made them cannot be noted: {error}",
                    self.to
                ));
                break;
            }
        }
        if let Some(common) = sides.newest_on_both() {
            self.bookmark(common, &sides)?;
        }
        let sides = self.look()?;
        let Needless { here, there, bookmarks } = sides.needless(self.settings.keep);
        self.destroy_here(&here)?;
        for names in there.chunks(AT_ONCE) {
            self.there.run(&snapshot::destroy(&self.to.dataset, names))?;
        }
        for bookmark in &bookmarks {
            self.here.run(&snapshot::destroy_bookmark(bookmark))?;
        }
        outcome.destroyed = here.len() + there.len();
        outcome.at = sides.at();
        self.look_after_copy(&sides, outcome);
        Ok(())
    }

    fn bookmark(&self, common: &SnapshotInfo, sides: &Sides) -> Result<(), ReplicateError> {
        let there = sides.bookmarks.iter().any(|bookmark| bookmark.guid == common.guid);
        if !there && self.maker().has_named(common.snapshot.name()) {
            let name = common.snapshot.name().clone();
            let bookmark = Bookmark::new(self.dataset.clone(), name)?;
            self.here.run(&snapshot::bookmark(&common.snapshot, &bookmark))?;
        }
        Ok(())
    }

    fn destroy_here(&self, names: &[SnapshotName]) -> Result<(), ReplicateError> {
        for names in names.chunks(AT_ONCE) {
            self.here.run(&snapshot::destroy(&self.dataset, names))?;
        }
        Ok(())
    }

    /// A copy is read-only and mounted, as far as we may have it so; what is not is remarked.
    fn look_after_copy(&self, sides: &Sides, outcome: &mut Outcome) {
        let Some(copy) = sides.copy.as_ref().map(|copy| &copy.dataset) else { return };
        let name = &self.to.dataset;
        let mut remark = |what: &str, how: &str| {
            outcome.remarks.push(format!("{} {what}: `{how}` {}", self.to, on(&self.to)));
        };
        // Without the right to set it, ZFS receives all the same, with a complaint and exit code 0.
        let readonly = property::set(name, &[("readonly", "on")]);
        if !copy.readonly && self.there.run(&readonly).is_err() {
            remark("can be written to, and would be no copy any more", &readonly.to_string());
        }
        if copy.mounted {
            return;
        }
        let wanted = self.settings.mountpoint.as_deref();
        match (&copy.mountpoint, wanted) {
            (Mountpoint::Path(path), None) => {
                if self.there.run(&dataset::mount(name)).is_err() {
                    let what = format!("is not mounted at {}, which takes root", path.display());
                    remark(&what, &dataset::mount(name).to_string());
                }
            }
            (Mountpoint::Path(path), Some(wanted)) if path == wanted => {
                if self.there.run(&dataset::mount(name)).is_err() {
                    let what = format!("is not mounted at {}, which takes root", path.display());
                    remark(&what, &dataset::mount(name).to_string());
                }
            }
            (_, wanted) => {
                let wanted = wanted.map_or("/PATH".into(), |path| path.to_string_lossy());
                let set = property::set(name, &[("mountpoint", &*wanted)]);
                remark("has no mount point, which takes root", &set.to_string());
            }
        }
    }
}

impl Replication {
    /// What a run would do now, command by command, as one would type it.
    pub fn dry_run(&self, now: Timestamp) -> Result<Vec<String>, ReplicateError> {
        let sides = self.look()?;
        let receive = self.there.describe(&self.receive(&sides).command());
        let piped = |send: &Send| format!("{} | {receive}", self.here.describe(&send.command()));
        let destroy =
            |names: &[SnapshotName]| self.here.describe(&snapshot::destroy(&self.dataset, names));
        let mut lines = Vec::new();
        let base = match sides.next(self.settings.rollback)? {
            // What comes after it is known when it has arrived.
            Next::Resume(token) => return Ok(vec![piped(&Send::Resume(token))]),
            Next::Send(base) => base,
        };
        let left_over = sides.left_over();
        if !left_over.is_empty() {
            lines.push(destroy(&left_over));
        }
        let made = self.dataset.snapshot(&sides.free_name(now)?)?;
        let maker = self.maker().to_string();
        let create = snapshot::create(std::slice::from_ref(&made), &[(MADE_BY, &maker)]);
        lines.push(self.here.describe(&create));
        lines.push(piped(&Send::Snapshot {
            from: base,
            to: made.clone(),
            raw: false,
            properties: false,
        }));
        let copy = self.to.dataset.snapshot(made.name())?;
        let mark = snapshot::set(&copy, &[(MADE_BY, &maker)]);
        lines.push(self.there.describe(&mark));
        let bookmark = Bookmark::new(self.dataset.clone(), made.name().clone())?;
        lines.push(self.here.describe(&snapshot::bookmark(&made, &bookmark)));
        let needless = sides.once_sent(&made).needless(self.settings.keep);
        if !needless.here.is_empty() {
            lines.push(destroy(&needless.here));
        }
        if !needless.there.is_empty() {
            let command = snapshot::destroy(&self.to.dataset, &needless.there);
            lines.push(self.there.describe(&command));
        }
        let bookmarks = needless.bookmarks.iter().map(snapshot::destroy_bookmark);
        lines.extend(bookmarks.map(|command| self.here.describe(&command)));
        Ok(lines)
    }
}
