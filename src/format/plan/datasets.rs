//! The datasets: those that are missing are made, all are mounted, none that is there is changed.

use std::path::{Path, PathBuf};

use super::super::facts::{self, Directory};
use super::super::layout::{Dataset, Layout};
use super::super::step::Step;
use super::Planner;
use super::pool::PoolIs;
use crate::zfs::disk::make;
use crate::zfs::properties::Role;
use crate::zfs::{dataset, property};

/// What says that a dataset is not with its owner yet.
pub(in crate::format) const NEW: &str = "snowbank:new";

impl Planner<'_> {
    /// Plans the datasets.
    pub(super) fn datasets(&mut self, pool: PoolIs) {
        if pool == PoolIs::Absent {
            return;
        }
        let (layout, facts) = (self.layout, self.facts);
        for wanted in &layout.datasets {
            let there = facts.pool.as_ref().and_then(|pool| pool.datasets.get(&wanted.name));
            match there {
                Some(there) => self.existing_dataset(wanted, there),
                None => self.new_dataset(wanted, pool == PoolIs::Unseen),
            }
        }
    }

    fn new_dataset(&mut self, wanted: &Dataset, provisional: bool) {
        let subject = format!("dataset {}", wanted.name);
        let point = mountpoint(self.layout, wanted);
        let mounts = point.as_deref().filter(|_| wanted.role != Some(Role::Parent));
        if let Some(point) = mounts
            && !self.is_free_to_mount(point, &subject)
        {
            return;
        }
        let given = mounts.filter(|_| wanted.owner.is_some());
        let mut commands = vec![dataset::create(&wanted.name, &options(wanted, given.is_some()))];
        if let Some(point) = mounts {
            commands.push(dataset::mount(&wanted.name));
            if given.is_some() {
                let Some(owner) = self.numbers(wanted.owner.as_ref(), &subject) else { return };
                commands.extend([make::give(point, owner), property::inherit(&wanted.name, NEW)]);
            }
        }
        let mut step = Step::new("make-dataset", subject, "it is missing: make it", commands);
        step.provisional = provisional;
        self.plan.steps.push(step);
    }

    fn existing_dataset(&mut self, wanted: &Dataset, there: &facts::Dataset) {
        let subject = format!("dataset {}", wanted.name);
        let Some(point) = mountpoint(self.layout, wanted) else { return };
        if wanted.role == Some(Role::Parent) && !there.can_mount {
            return;
        }
        if Path::new(&there.mountpoint) != point {
            let why = format!(
                "its mountpoint is {}, the layout says {}; what is there is not changed: correct the \
                 layout, or `zfs set mountpoint={} {}`",
                there.mountpoint,
                point.display(),
                point.display(),
                wanted.name
            );
            self.refuse(subject, why);
            return;
        }
        let mut commands = Vec::new();
        if !there.mounted && there.can_mount {
            if !self.is_free_to_mount(&point, &subject) {
                return;
            }
            commands.push(dataset::mount(&wanted.name));
        }
        if !commands.is_empty() {
            let step = Step::new("mount-dataset", subject.clone(), "mount it", commands);
            self.plan.steps.push(step);
        }
        if there.is_new {
            let Some(owner) = self.numbers(wanted.owner.as_ref(), &subject) else { return };
            let commands = [make::give(&point, owner), property::inherit(&wanted.name, NEW)];
            let step = Step::new("give-dataset", subject, "give it to its owner", commands);
            self.plan.steps.push(step);
        }
    }

    /// ZFS mounts over whatever is in a directory, and hides it: a running `/nix/store` was lost so.
    pub(super) fn is_free_to_mount(&mut self, point: &Path, subject: &str) -> bool {
        let why = match self.facts.directories.get(point) {
            Some(Directory::Missing | Directory::Empty) => return true,
            Some(Directory::Mounted(what)) => {
                format!("{what} is mounted at {} already", point.display())
            }
            Some(Directory::Occupied) | None => format!(
                "{} is not an empty directory, and mounting there would hide what it holds: move that \
                 away first",
                point.display()
            ),
        };
        self.refuse(subject, why);
        false
    }
}

/// The options of a new dataset: what the layout says comes before what its role says.
fn options(wanted: &Dataset, is_new: bool) -> Vec<(&str, &str)> {
    let own: Vec<(&str, &str)> = wanted
        .properties
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain(wanted.mountpoint.as_deref().and_then(Path::to_str).map(|path| ("mountpoint", path)))
        .chain(is_new.then_some((NEW, "yes")))
        .collect();
    let of_role = wanted.role.map(Role::options).unwrap_or_default();
    let not_said = of_role.into_iter().filter(|(name, _)| own.iter().all(|(said, _)| said != name));
    let mut options: Vec<_> = not_said.collect();
    options.extend(own);
    options
}

/// Where a dataset of the layout is mounted: where it says, or below what is above it.
pub(in crate::format) fn mountpoint(layout: &Layout, dataset: &Dataset) -> Option<PathBuf> {
    if let Some(own) = &dataset.mountpoint {
        return Some(own.clone());
    }
    let parent = dataset.name.parent()?;
    let parent = layout.datasets.iter().find(|other| other.name == parent)?;
    Some(mountpoint(layout, parent)?.join(dataset.name.last()))
}
