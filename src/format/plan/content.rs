//! The file systems of the partitions. A pool is planned elsewhere.

use super::super::layout::{Content, Owner};
use super::super::step::Step;
use super::Planner;
use super::disk::Target;
use crate::zfs::command::Command;
use crate::zfs::disk::{make, table};

/// Root.
const ROOT: (u32, u32) = (0, 0);

/// How far a partition is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The file system is whole.
    Done,
    /// There is nothing in it that belongs to anybody.
    Free,
    /// Something else is in it.
    Other,
}

impl Planner<'_> {
    /// Plans the file systems.
    pub(super) fn contents(&mut self, targets: &[Target<'_>]) {
        for target in targets.iter().filter(|target| target.wanted.content != Content::Zfs) {
            self.file_system(target);
        }
    }

    fn file_system(&mut self, target: &Target<'_>) {
        let label = target.there.map(|there| there.label.as_str());
        let begun = target.wanted.label.begun();
        let progress = match (label, target.content) {
            // Its name says that nobody was given it yet.
            (None, _) => Progress::Free,
            (Some(label), _) if label == begun => Progress::Free,
            (_, Some(content)) if content.kind == kind(target) => Progress::Done,
            (_, None) => Progress::Free,
            _ => Progress::Other,
        };
        if progress == Progress::Done {
            return;
        }
        let subject = target.subject();
        let holds = target.content.map_or_else(|| "nothing".into(), |content| content.in_words());
        if target.wanted.keep {
            let why = format!(
                "it must have a file system of type {} already (keep = true), and has {holds}",
                kind(target)
            );
            self.refuse(subject, why);
            return;
        }
        if progress == Progress::Other && !self.may_clear(target, &holds) {
            return;
        }
        if target.is_used() {
            let users = target.there.map_or_else(String::new, |there| there.users.join(", "));
            self.refuse(subject, format!("it is in use: {users}"));
            return;
        }
        let Some(owner) = self.owner_of(target) else { return };
        let is_new = label.is_none_or(|label| label == begun);
        let commands = commands(target, owner, is_new);
        let what = match label {
            _ if progress == Progress::Other => format!("--wipe: make {} anew", kind(target)),
            Some(label) if label == begun => format!("it was begun: make {}", kind(target)),
            _ => format!("make {}", kind(target)),
        };
        let path = format!("/dev/disk/by-partlabel/{}", target.wanted.label.as_link());
        self.plan
            .steps
            .push(Step::new("make-file-system", subject, what, commands).wait_for([path]));
    }

    /// Whether what is in a partition that the layout names may be destroyed; refuses if not.
    pub(super) fn may_clear(&mut self, target: &Target<'_>, holds: &str) -> bool {
        let subject = target.subject();
        if !self.may_wipe(&target.disk.name) {
            let why = format!(
                "it holds {holds}, where {} is expected; nothing was changed. Look at it; `--wipe {}` \
                 destroys it",
                kind(target),
                target.disk.name
            );
            self.refuse(subject, why);
            return false;
        }
        let node = target.there.map_or("", |there| there.node.as_str());
        if let Some(member) = self.precious(&[node]) {
            let why = format!("--wipe does not destroy {member}, which the layout itself names");
            self.refuse(subject, why);
            return false;
        }
        if target.is_used() {
            let users = target.there.map_or_else(String::new, |there| there.users.join(", "));
            self.refuse(subject, format!("it is in use: {users}"));
            return false;
        }
        true
    }

    fn owner_of(&mut self, target: &Target<'_>) -> Option<(u32, u32)> {
        let mut volumes = self.layout.volumes.iter();
        let volume = volumes.find(|volume| volume.partition == target.wanted.name);
        let owner = volume.and_then(|volume| volume.owner.as_ref());
        self.numbers(owner, &target.subject())
    }

    /// The numbers of an owner; refuses one that this machine does not know.
    pub(super) fn numbers(&mut self, owner: Option<&Owner>, subject: &str) -> Option<(u32, u32)> {
        let Some(owner) = owner else { return Some(ROOT) };
        let known = self.facts.owners.get(&owner.to_string()).copied();
        if known.is_none() {
            let why = format!(
                "its owner {owner} is no user or group of this machine: make it first, or write numbers"
            );
            self.refuse(subject, why);
        }
        known
    }
}

/// What makes the file system. Until the end of them the partition has the name of one that is
/// unfinished.
fn commands(target: &Target<'_>, owner: (u32, u32), is_new: bool) -> Vec<Command> {
    let (disk, number) = (&target.found.path, target.number);
    let label = &target.wanted.label;
    let mut commands = Vec::new();
    if !is_new {
        commands.extend([table::set_label(disk, number, &label.begun()), make::settle()]);
    }
    if target.content.is_some() {
        commands.extend(clear(target));
    }
    let name = &target.wanted.file_system_label;
    commands.push(match target.wanted.content {
        Content::Esp => make::fat32(&target.path, name),
        Content::Ext4 | Content::Zfs => make::ext4(&target.path, name, owner),
    });
    commands.extend([table::set_label(disk, number, label.as_str()), make::settle()]);
    commands
}

/// Takes away what is in a partition, whatever it is.
pub(super) fn clear(target: &Target<'_>) -> [Command; 3] {
    make::erase(&target.path, target.size)
}

/// What `blkid` calls what is expected.
pub(super) const fn kind(target: &Target<'_>) -> &'static str {
    match target.wanted.content {
        Content::Esp => "vfat",
        Content::Ext4 => "ext4",
        Content::Zfs => "zfs_member",
    }
}
