//! The tables of the disks.

use super::super::facts::{Disk, MemberState, Partition, Signature, Surface, Table, path_of};
use super::super::layout::{self, Content, Name};
use super::super::placement::{Placed, place_on};
use super::super::step::Step;
use super::super::{mark, placement};
use super::{Planner, Refusal, WIPE};
use crate::zfs::disk::make;
use crate::zfs::disk::table::{self, NewPartition};

/// A partition of the layout, as it will be when the tables are as they should be.
pub(super) struct Target<'a> {
    /// The disk that it is on.
    pub(super) disk: &'a layout::Disk,
    /// What the layout says of it.
    pub(super) wanted: &'a layout::Partition,
    /// The disk as it was found.
    pub(super) found: &'a Disk,
    /// The partition as it was found; `None` will be made.
    pub(super) there: Option<&'a Partition>,
    /// Its number in the table.
    pub(super) number: u32,
    /// Its name that stays the same from boot to boot.
    pub(super) path: String,
    /// Its size in bytes.
    pub(super) size: u64,
    /// What is or will be in it before it is filled: what was found there, or remains.
    pub(super) content: Option<&'a Signature>,
}

impl Target<'_> {
    pub(super) fn subject(&self) -> String {
        format!("partition {} of disk {} ({})", self.wanted.name, self.disk.name, self.found.node)
    }

    pub(super) fn is_used(&self) -> bool {
        self.there.is_some_and(|there| !there.users.is_empty())
    }
}

pub(super) fn subject(disk: &layout::Disk, found: &Disk) -> String {
    format!("disk {} ({})", disk.name, found.node)
}

impl<'a> Planner<'a> {
    /// Plans the tables of all disks. What is refused, and what holds the pool in another form than
    /// the layout's, has no targets.
    pub(super) fn disks(&mut self) -> Vec<Target<'a>> {
        let (layout, facts) = (self.layout, self.facts);
        let mut targets = Vec::new();
        for disk in &layout.disks {
            match facts.disks.get(&disk.name) {
                Some(found) => targets.extend(self.disk(disk, found)),
                None if disk.optional => {
                    let note = format!(
                        "disk {}: not there after {:?}, and optional: what is on it is left out",
                        disk.name, disk.wait
                    );
                    self.plan.notes.push(note);
                }
                None => self.refusals.push(Refusal {
                    subject: format!("disk {}", disk.name),
                    why: format!("not there after {:?}", disk.wait),
                    is_absence: true,
                }),
            }
        }
        targets
    }

    fn disk(&mut self, disk: &'a layout::Disk, found: &'a Disk) -> Vec<Target<'a>> {
        match self.fitness(disk, found) {
            Fitness::Empty => self.new_table(disk, found, false),
            Fitness::Ours(table) => self.complete(disk, found, table),
            Fitness::HoldsPool(node) => {
                let note = format!(
                    "{}: the pool lies on {node} and not as the layout says; it is used as it is",
                    subject(disk, found)
                );
                self.plan.notes.push(note);
                Vec::new()
            }
            Fitness::Other(what) => {
                if self.permit_wipe(disk, found, &what) {
                    self.wipe(disk, found);
                    return self.new_table(disk, found, true);
                }
                Vec::new()
            }
        }
    }

    /// What may be done with a disk without being told to destroy something.
    fn fitness(&self, disk: &layout::Disk, found: &'a Disk) -> Fitness<'a> {
        match &found.surface {
            Surface::Blank => Fitness::Empty,
            Surface::Unknown if found.marked => Fitness::Empty,
            Surface::Unknown => Fitness::Other(
                "it has no signature that is known, and yet its first and last MiB are not zero: \
                 somebody has written to it"
                    .into(),
            ),
            Surface::Signed(signatures) => {
                let only_half_a_table = |one: &Signature| ["PMBR", "gpt"].contains(&&*one.kind);
                if found.marked && signatures.iter().all(only_half_a_table) {
                    return Fitness::Empty;
                }
                match self.pool_on(disk, found) {
                    Some(node) => Fitness::HoldsPool(node),
                    None => Fitness::Other(format!("it holds {}", in_words(signatures))),
                }
            }
            Surface::Gpt(table) => {
                let strangers = strangers(disk, table);
                match (strangers.is_empty(), found.marked) {
                    // Nothing is put into a partition before the mark is taken away; and a table
                    // that is half on the disk may be read by some and not by others.
                    (true, true) => return Fitness::Empty,
                    (true, false) if !table.partitions.is_empty() => return Fitness::Ours(table),
                    _ => {}
                }
                match self.pool_on(disk, found) {
                    Some(node) => Fitness::HoldsPool(node),
                    None if strangers.is_empty() => {
                        Fitness::Other("it has an empty partition table".into())
                    }
                    None => Fitness::Other(format!(
                        "it has partitions that the layout does not name: {}",
                        strangers.join(", ")
                    )),
                }
            }
        }
    }

    /// Where on a disk that is for nothing but the pool the pool lies: itself, or any partition.
    fn pool_on(&self, disk: &layout::Disk, found: &Disk) -> Option<String> {
        let pool = self.layout.pool.as_ref()?;
        if disk.partitions.iter().any(|partition| partition.content != Content::Zfs) {
            return None;
        }
        let nodes = nodes(found);
        let member = self.facts.members.iter().find(|member| {
            nodes.contains(&member.node.as_str())
                && member.pool == pool.name.as_str()
                && matches!(member.state, MemberState::Active | MemberState::Exported)
        })?;
        Some(member.node.clone())
    }

    /// A table on a disk that has none.
    fn new_table(
        &mut self,
        disk: &'a layout::Disk,
        found: &'a Disk,
        wiped: bool,
    ) -> Vec<Target<'a>> {
        let subject = subject(disk, found);
        if let Some(kept) = disk.partitions.iter().find(|partition| partition.keep) {
            let why = format!(
                "the partition {} must be there already (keep = true), and the disk has no table",
                kept.name
            );
            self.refuse(subject, why);
            return Vec::new();
        }
        if !self.can_be_written(found, &subject, true) {
            return Vec::new();
        }
        let placed = match placement::place(&disk.partitions, None, found.size) {
            Ok(placed) => placed,
            Err(error) => {
                self.refuse(subject, error.to_string());
                return Vec::new();
            }
        };
        let Some((new, targets)) = self.new_partitions(disk, found, &placed, 1) else {
            return Vec::new();
        };
        let names: Vec<_> = disk.partitions.iter().map(|one| one.name.as_str()).collect();
        let state = if wiped {
            "it was wiped"
        } else if found.marked {
            "a table was begun on it"
        } else {
            "it is blank"
        };
        let what = format!("{state}: make a partition table with {}", names.join(", "));
        let marked = found.marked && !wiped;
        let mark = || make::mark(&found.path, mark::POSITION, &mark::text(&disk.name));
        let begin = (!marked).then(mark).into_iter().flat_map(|mark| [mark, make::settle()]);
        let step = Step::new("make-table", subject, what, begin)
            .then([table::create(&found.path, &new), table::announce(&found.path), make::settle()])
            .wait_for(new.iter().map(|one| path_of(&one.uuid)))
            .then([make::unmark(&found.path, mark::POSITION), make::settle()]);
        self.plan.steps.push(step);
        targets
    }

    /// What is missing in a table that is ours.
    fn complete(
        &mut self,
        disk: &'a layout::Disk,
        found: &'a Disk,
        table: &'a Table,
    ) -> Vec<Target<'a>> {
        let subject = subject(disk, found);
        let mut targets = Vec::new();
        for wanted in &disk.partitions {
            let there = table
                .labelled(wanted.label.as_str())
                .or_else(|| table.labelled(&wanted.label.begun()));
            match there {
                Some(there) => targets.push(Target {
                    disk,
                    wanted,
                    found,
                    there: Some(there),
                    number: there.number,
                    path: there.path(),
                    size: there.size,
                    content: there.content.as_ref(),
                }),
                None if wanted.keep => {
                    let why = format!(
                        "the partition {} must be there already (keep = true), and none has the GPT \
                         name {}",
                        wanted.name, wanted.label
                    );
                    self.refuse(subject.clone(), why);
                }
                None => {}
            }
        }
        let unseen: Vec<_> = table.partitions.iter().filter(|one| !one.visible).collect();
        if !unseen.is_empty() {
            let what = "the kernel does not know all of its partitions: tell it";
            let commands = [table::announce(&found.path), make::settle()];
            let step = Step::new("announce", subject.clone(), what, commands);
            self.plan.steps.push(step.wait_for(unseen.iter().map(|one| one.path())));
        }
        targets.extend(self.add_partitions(disk, found, table, &subject));
        targets
    }

    fn add_partitions(
        &mut self,
        disk: &'a layout::Disk,
        found: &'a Disk,
        table: &Table,
        subject: &str,
    ) -> Vec<Target<'a>> {
        let wanted: Vec<_> = disk.partitions.iter().filter(|one| !one.keep).cloned().collect();
        let placed = match place_on(found, &wanted) {
            Ok(placed) => placed,
            Err(error) => {
                self.refuse(subject, error.to_string());
                return Vec::new();
            }
        };
        if placed.is_empty() || !self.can_be_written(found, subject, false) {
            return Vec::new();
        }
        let first = table.partitions.iter().map(|one| one.number).max().unwrap_or(0) + 1;
        let Some((new, targets)) = self.new_partitions(disk, found, &placed, first) else {
            return Vec::new();
        };
        let names: Vec<_> = placed.iter().map(|one| one.name.as_str()).collect();
        let what = format!("add what is missing in its free space: {}", names.join(", "));
        let grow = table.disk_has_grown.then(|| table::move_copy_to_end(&found.path));
        let step = Step::new("add-partitions", subject, what, grow)
            .then([table::append(&found.path, &new), table::announce(&found.path), make::settle()])
            .wait_for(new.iter().map(|one| path_of(&one.uuid)));
        self.plan.steps.push(step);
        targets
    }

    /// The partitions that are made at `placed`, unless something is there already: then what was
    /// there before this table was made would come back as their content.
    fn new_partitions(
        &mut self,
        disk: &'a layout::Disk,
        found: &'a Disk,
        placed: &[Placed],
        first: u32,
    ) -> Option<(Vec<NewPartition>, Vec<Target<'a>>)> {
        let (mut new, mut targets) = (Vec::new(), Vec::new());
        for (number, placed) in (first..).zip(placed) {
            let wanted = disk.partitions.iter().find(|one| one.name == placed.name)?;
            let content = found.remains.get(&placed.name);
            if let Some(remains) = content
                && !self.may_wipe(&disk.name)
            {
                let why = format!(
                    "where the partition {} would be there is {}; nothing was changed. Look at it; \
                     `--wipe {}` destroys it",
                    placed.name,
                    remains.in_words(),
                    disk.name
                );
                self.refuse(subject(disk, found), why);
                return None;
            }
            let uuid = self.facts.new_uuids.get(&placed.name)?.clone();
            let (kind, label) = match wanted.content {
                Content::Esp => (table::ESP, wanted.label.begun()),
                Content::Ext4 => (table::LINUX, wanted.label.begun()),
                // A pool is there or is not: its partition has no state in between.
                Content::Zfs => (table::ZFS, wanted.label.as_str().to_owned()),
            };
            let path = path_of(&uuid);
            let (start, size) = (placed.start, placed.size);
            targets.push(Target { disk, wanted, found, there: None, number, path, size, content });
            new.push(NewPartition { number, start, size, kind, uuid, label });
        }
        Some((new, targets))
    }

    fn can_be_written(&mut self, found: &Disk, subject: &str, alone: bool) -> bool {
        if found.read_only {
            self.refuse(subject, "it cannot be written to");
            return false;
        }
        if alone && !found.users.is_empty() {
            self.refuse(subject, format!("it is in use: {}", found.users.join(", ")));
            return false;
        }
        true
    }

    /// Whether `disk`, which has `what` on it, may be wiped; refuses if not.
    fn permit_wipe(&mut self, disk: &layout::Disk, found: &Disk, what: &str) -> bool {
        let subject = subject(disk, found);
        if !self.may_wipe(&disk.name) {
            let why = format!(
                "{what}; nothing was changed. Look at it; `--wipe {}` destroys everything on it",
                disk.name
            );
            self.refuse(subject, why);
            return false;
        }
        if let Some(member) = self.precious(&nodes(found)) {
            let why = format!(
                "{what}. --wipe does not destroy {member}, which the layout itself names: do that by \
                 hand (`zpool labelclear`), or use it"
            );
            self.refuse(subject, why);
            return false;
        }
        self.can_be_written(found, &subject, true)
    }

    /// A part of the layout's own pool on one of these devices.
    pub(super) fn precious(&self, nodes: &[&str]) -> Option<String> {
        let pool = self.layout.pool.as_ref()?;
        let member = self.facts.members.iter().find(|member| {
            nodes.contains(&member.node.as_str())
                && member.pool == pool.name.as_str()
                && matches!(member.state, MemberState::Active | MemberState::Exported)
        })?;
        Some(format!("the pool {} on {}", member.pool, member.node))
    }

    fn wipe(&mut self, disk: &layout::Disk, found: &Disk) {
        let partitions = found.table().map_or(&[][..], |table| &table.partitions);
        let filled = partitions.iter().filter(|one| one.visible && one.content.is_some());
        let mut commands: Vec<_> =
            filled.flat_map(|one| make::erase(&one.node, one.size)).collect();
        commands.extend(make::erase(&found.path, found.size));
        commands.push(make::settle());
        let what = format!("--wipe {}: destroy everything on it", disk.name);
        self.plan.steps.push(Step::new(WIPE, subject(disk, found), what, commands));
    }
}

enum Fitness<'a> {
    /// Nothing is on it.
    Empty,
    /// A table with nothing but partitions of the layout.
    Ours(&'a Table),
    /// The pool of the layout, on this device.
    HoldsPool(String),
    /// Something else.
    Other(String),
}

/// The partitions that the layout does not name, in words.
fn strangers(disk: &layout::Disk, table: &Table) -> Vec<String> {
    let is_named = |partition: &&Partition| {
        let named = |wanted: &layout::Partition| {
            partition.label == wanted.label.as_str() || partition.label == wanted.label.begun()
        };
        disk.partitions.iter().any(named)
    };
    let strangers = table.partitions.iter().filter(|partition| !is_named(partition));
    let in_words = |partition: &Partition| {
        let label = match partition.label.as_str() {
            "" => String::new(),
            label => format!(" {label:?}"),
        };
        let content = match &partition.content {
            Some(content) => format!(" with {}", content.in_words()),
            None => String::new(),
        };
        format!("{}{label}{content}", partition.node)
    };
    strangers.map(in_words).collect()
}

fn in_words(signatures: &[Signature]) -> String {
    let words: Vec<_> = signatures.iter().map(Signature::in_words).collect();
    words.join(" and ")
}

/// The kernel's names of a disk and of its partitions.
pub(super) fn nodes(found: &Disk) -> Vec<&str> {
    let partitions = found.table().map_or(&[][..], |table| &table.partitions);
    let mut nodes = vec![found.node.as_str()];
    nodes.extend(partitions.iter().map(|partition| partition.node.as_str()));
    nodes
}

/// The target of that name.
pub(super) fn find<'t, 'a>(targets: &'t [Target<'a>], name: &Name) -> Option<&'t Target<'a>> {
    targets.iter().find(|target| target.wanted.name == *name)
}
