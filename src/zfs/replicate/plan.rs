//! What is to be sent and what may go, from what both sides have. Looks at nothing itself.

use jiff::{SignedDuration, Timestamp};

use super::{Location, ReplicateError};
use crate::zfs::dataset::{Dataset, ResumeToken};
use crate::zfs::maker::Maker;
use crate::zfs::name::{Bookmark, DatasetName, NameError, Snapshot, SnapshotName};
use crate::zfs::snapshot::{BookmarkInfo, SnapshotInfo};
use crate::zfs::stream::Base;

/// What both sides have; each list is oldest first, and has who made a snapshot as its first property.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    pub(super) dataset: DatasetName,
    pub(super) to: Location,
    pub(super) maker: Maker,
    pub(super) snapshots: Vec<SnapshotInfo>,
    pub(super) bookmarks: Vec<BookmarkInfo>,
    /// Nothing where there is no copy yet.
    pub(super) copy: Option<Copy>,
}

/// The copy.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) dataset: Dataset,
    pub(super) snapshots: Vec<SnapshotInfo>,
    /// Bytes that were written to it since its newest snapshot.
    pub(super) written: u64,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Going on with a stream that was interrupted.
    Resume(ResumeToken),
    /// Sending what changed since a base that both have; without one, everything.
    Send(Option<Base>),
}

/// What may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needless {
    pub(super) here: Vec<SnapshotName>,
    pub(super) there: Vec<SnapshotName>,
    pub(super) bookmarks: Vec<Bookmark>,
}

impl Sides {
    /// What comes next. With `rollback`, what others did to the copy is no hindrance.
    pub(super) fn next(&self, rollback: bool) -> Result<Next, ReplicateError> {
        let Some(copy) = &self.copy else { return Ok(Next::Send(None)) };
        if let Some(token) = &copy.dataset.receive_resume_token {
            return Ok(Next::Resume(token.clone()));
        }
        let Some((common, base)) = self.newest_common(copy) else {
            return Err(ReplicateError::NoCopy {
                dataset: self.dataset.clone(),
                to: self.to.clone(),
            });
        };
        let newer: Vec<_> = copy
            .snapshots
            .iter()
            .filter(|snapshot| snapshot.createtxg > common.createtxg)
            .map(|snapshot| format!("@{}", snapshot.snapshot.name()))
            .collect();
        let what = match (newer.is_empty(), copy.written) {
            (true, 0) => None,
            (true, bytes) => Some(format!("{bytes} bytes were written to it")),
            (false, _) => Some(format!("it has {}, which came from elsewhere", newer.join(", "))),
        };
        match what {
            Some(what) if !rollback => Err(ReplicateError::Diverged { to: self.to.clone(), what }),
            _ => Ok(Next::Send(Some(base))),
        }
    }

    /// The newest snapshot of the copy that is here too, if only as a bookmark, and what it is here.
    fn newest_common<'a>(&self, copy: &'a Copy) -> Option<(&'a SnapshotInfo, Base)> {
        copy.snapshots.iter().rev().find_map(|there| {
            let snapshots = self.snapshots.iter().find(|here| here.guid == there.guid);
            let bookmarks = self.bookmarks.iter().find(|here| here.guid == there.guid);
            let base = match (snapshots, bookmarks) {
                (Some(here), _) => Base::Snapshot(here.snapshot.clone()),
                (None, Some(here)) => Base::Bookmark(here.bookmark.clone()),
                (None, None) => return None,
            };
            Some((there, base))
        })
    }

    /// The newest snapshot that both have, by its name on the copy.
    pub(super) fn at(&self) -> Option<SnapshotName> {
        let (there, _) = self.newest_common(self.copy.as_ref()?)?;
        Some(there.snapshot.name().clone())
    }

    /// The newest snapshot that both have and that still is one here.
    pub(super) fn newest_on_both(&self) -> Option<&SnapshotInfo> {
        let copy = self.copy.as_ref()?;
        let is_there =
            |here: &&SnapshotInfo| copy.snapshots.iter().any(|there| there.guid == here.guid);
        self.snapshots.iter().rev().find(is_there)
    }

    /// The name of a snapshot that is made now: the next one that is free, where two runs share a second.
    pub(super) fn free_name(&self, now: Timestamp) -> Result<SnapshotName, NameError> {
        let is_taken = |name: &SnapshotName| {
            self.snapshots.iter().any(|snapshot| snapshot.snapshot.name() == name)
        };
        let mut at = now;
        loop {
            let name = self.maker.name_at(at)?;
            let Ok(next) = at.checked_add(SignedDuration::from_secs(1)) else { return Ok(name) };
            if !is_taken(&name) {
                return Ok(name);
            }
            at = next;
        }
    }

    /// What both sides will have once a snapshot that is still to be made has arrived.
    pub(super) fn once_sent(&self, made: &Snapshot) -> Self {
        let new = |dataset: &DatasetName| SnapshotInfo {
            snapshot: dataset.snapshot(made.name()).unwrap_or_else(|_| made.clone()),
            guid: 0,
            createtxg: u64::MAX,
            creation: 0,
            used: 0,
            referenced: 0,
            written: 0,
            holds: 0,
            properties: vec![Some(self.maker.to_string())],
        };
        let mut sides = self.clone();
        sides.snapshots.push(new(&self.dataset));
        if let Some(copy) = &mut sides.copy {
            copy.snapshots.push(new(&self.to.dataset));
        }
        sides
    }

    fn is_ours(&self, snapshot: &SnapshotInfo) -> bool {
        Maker::of(snapshot, 0).as_ref() == Some(&self.maker)
    }

    /// Snapshots here that we made and the copy never got: what a run left that failed before anything
    /// had arrived. Only where no stream waits to be gone on with: it needs them.
    pub(super) fn left_over(&self) -> Vec<SnapshotName> {
        let there = self.copy.as_ref();
        if there.is_some_and(|copy| copy.dataset.receive_resume_token.is_some()) {
            return Vec::new();
        }
        let arrived = |here: &SnapshotInfo| {
            there.is_some_and(|copy| copy.snapshots.iter().any(|there| there.guid == here.guid))
        };
        // Older than what both have is what was pruned there already: `needless` has that.
        let newest = self.newest_on_both().map_or(0, |common| common.createtxg);
        let left = self.snapshots.iter().filter(|here| {
            self.is_ours(here) && !arrived(here) && here.createtxg > newest && here.holds == 0
        });
        left.map(|here| here.snapshot.name().clone()).collect()
    }

    /// Snapshots of the copy that we made, by their originals here, and that do not say so yet.
    pub(super) fn unmarked(&self) -> Vec<SnapshotName> {
        let Some(copy) = &self.copy else { return Vec::new() };
        let made = |there: &&SnapshotInfo| {
            let original = self.snapshots.iter().find(|here| here.guid == there.guid);
            !self.is_ours(there) && original.is_some_and(|here| self.is_ours(here))
        };
        copy.snapshots.iter().filter(made).map(|there| there.snapshot.name().clone()).collect()
    }

    /// What may go when the last `keep` of our snapshots stay on each side, and with them whatever is
    /// the base of the next run. What is held stays as well.
    pub(super) fn needless(&self, keep: usize) -> Needless {
        let Some(copy) = &self.copy else { return Needless::default() };
        if copy.dataset.receive_resume_token.is_some() {
            return Needless::default();
        }
        let Some((common, base)) = self.newest_common(copy) else { return Needless::default() };
        let keep = keep.max(1);
        let old = |snapshots: &[SnapshotInfo]| -> Vec<SnapshotName> {
            let ours = snapshots.iter().rev().filter(|snapshot| self.is_ours(snapshot)).skip(keep);
            let goes = ours.filter(|snapshot| snapshot.guid != common.guid && snapshot.holds == 0);
            goes.map(|snapshot| snapshot.snapshot.name().clone()).collect()
        };
        let goes = self.bookmarks.iter().map(|bookmark| (&bookmark.bookmark, bookmark.guid));
        let goes = goes.filter(|(bookmark, guid)| {
            let is_base = *guid == common.guid || base == Base::Bookmark((*bookmark).clone());
            self.maker.has_named(bookmark.name()) && !is_base
        });
        Needless {
            here: old(&self.snapshots),
            there: old(&copy.snapshots),
            bookmarks: goes.map(|(bookmark, _)| bookmark.clone()).collect(),
        }
    }
}
