//! The pool: found, imported, or made.

use super::super::facts::{Member, MemberState};
use super::super::layout::{Content, Pool};
use super::super::step::Step;
use super::Planner;
use super::content::clear;
use super::disk::{Target, nodes};
use crate::zfs::disk::pool::{self, NewPool};
use crate::zfs::properties::Role;

/// Where the datasets of the pool can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolIs {
    /// There is to be none, or it was refused.
    Absent,
    /// Imported: its datasets are in the facts.
    Imported,
    /// To be made: it has no datasets.
    New,
    /// To be imported: what it has will be known then.
    Unseen,
}

impl Planner<'_> {
    /// Plans the pool.
    pub(super) fn pool(&mut self, targets: &[Target<'_>]) -> PoolIs {
        let Some(wanted) = &self.layout.pool else { return PoolIs::Absent };
        let subject = format!("pool {}", wanted.name);
        if let Some(imported) = &self.facts.pool {
            if !self.is_on_our_disks(&imported.devices) {
                let why = format!(
                    "a pool of this name is imported already, from {}: none of that is on a disk of the \
                     layout",
                    imported.devices.join(", ")
                );
                self.refuse(subject, why);
                return PoolIs::Absent;
            }
            if wanted.guid.is_some_and(|guid| guid != imported.guid) {
                let why = format!("it has the guid {}, not that of the layout", imported.guid);
                self.refuse(subject, why);
                return PoolIs::Absent;
            }
            self.note_unused(targets);
            return PoolIs::Imported;
        }
        if !self.refusals.is_empty() {
            // A disk that is not as it should be may be one that the pool is on.
            return PoolIs::Absent;
        }
        match self.existing(wanted, &subject) {
            Err(()) => PoolIs::Absent,
            Ok(Some(member)) => self.import(wanted, &member, &subject, targets),
            Ok(None) => self.create(wanted, &subject, targets),
        }
    }

    fn is_on_our_disks(&self, devices: &[String]) -> bool {
        let mut disks = self.facts.disks.values();
        disks.any(|disk| nodes(disk).iter().any(|node| devices.iter().any(|one| one == node)))
    }

    /// A part of a pool of this name that is not imported. There must be no doubt which pool is meant.
    fn existing(&mut self, wanted: &Pool, subject: &str) -> Result<Option<Member>, ()> {
        let ours: Vec<_> = self.facts.disks.values().flat_map(nodes).collect();
        let named = self.facts.members.iter().filter(|member| {
            member.pool == wanted.name.as_str()
                && matches!(member.state, MemberState::Active | MemberState::Exported)
                && wanted.guid.is_none_or(|guid| guid == member.guid)
        });
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            named.partition(|member| ours.contains(&member.node.as_str()));
        let Some(first) = here.first() else {
            let why = match (elsewhere.first(), wanted.guid) {
                (Some(other), _) => format!(
                    "a pool of this name is on {}, which is no disk of the layout: two pools of one \
                     name cannot be used on one machine",
                    other.node
                ),
                (None, Some(guid)) => {
                    format!("there is no pool with the guid {guid} on the disks of the layout")
                }
                (None, None) => return Ok(None),
            };
            self.refuse(subject, why);
            return Err(());
        };
        if let Some(other) = here.iter().find(|member| member.guid != first.guid) {
            let why = format!(
                "there are two pools of this name on the disks of the layout, {} on {} and {} on {}: say \
                 which is meant by pool.guid",
                first.guid, first.node, other.guid, other.node
            );
            self.refuse(subject, why);
            return Err(());
        }
        Ok(Some((*first).clone()))
    }

    fn import(
        &mut self,
        wanted: &Pool,
        member: &Member,
        subject: &str,
        targets: &[Target<'_>],
    ) -> PoolIs {
        let foreign = member.state == MemberState::Active
            && member.host_id != 0
            && member.host_id != self.facts.host_id;
        let permitted = self.permission.import_foreign.as_ref() == Some(&wanted.name);
        if foreign && !permitted {
            let ours = match self.facts.host_id {
                0 => "none (`zgenhostid` gives it one)".into(),
                id => format!("{id:08x}"),
            };
            let why = format!(
                "another machine used it last and did not export it: {:?} with the host id {:08x}, \
                 ours is {ours}. Is it switched off? Then `--import-foreign {}` takes the pool over",
                member.host_name, member.host_id, wanted.name
            );
            self.refuse(subject, why);
            return PoolIs::Absent;
        }
        let what = format!("it is there, on {}: import it", member.node);
        let command = pool::import(member.guid, foreign);
        self.plan.steps.push(Step::new("import-pool", subject, what, [command]));
        self.note_unused(targets);
        PoolIs::Unseen
    }

    fn create(&mut self, wanted: &Pool, subject: &str, targets: &[Target<'_>]) -> PoolIs {
        let refused = self.refusals.len();
        let (mut devices, mut commands) = (Vec::new(), Vec::new());
        for name in &wanted.partitions {
            // What has no target was refused, or holds the pool.
            let Some(target) = super::disk::find(targets, name) else { return PoolIs::Absent };
            if !self.is_free(target) {
                let holds =
                    target.content.map_or_else(|| "something".into(), |content| content.in_words());
                if self.may_clear(target, &holds) {
                    commands.extend(clear(target));
                }
            }
            devices.push(target.path.clone());
        }
        if self.refusals.len() > refused {
            return PoolIs::Absent;
        }
        let mut properties = Role::Parent.options();
        properties.push(("mountpoint", "none"));
        let on: Vec<_> = wanted.partitions.iter().map(|name| name.as_str()).collect();
        let what = format!("make it on {}", on.join(" and "));
        commands.push(pool::create(&NewPool {
            name: &wanted.name,
            devices,
            mirror: wanted.mirror,
            ashift: wanted.ashift,
            autotrim: wanted.autotrim,
            properties,
        }));
        self.plan.steps.push(Step::new("make-pool", subject, what, commands));
        PoolIs::New
    }

    /// Whether a partition holds nothing: not even a pool that was begun counts.
    fn is_free(&self, target: &Target<'_>) -> bool {
        if target.content.is_none() {
            return true;
        }
        let node = target.there.map(|there| there.node.as_str());
        let mut members = self.facts.members.iter();
        members.any(|member| {
            Some(member.node.as_str()) == node && member.state == MemberState::NeverMade
        })
    }

    /// A pool is never changed, so a partition that it does not use is left for a person to add.
    fn note_unused(&mut self, targets: &[Target<'_>]) {
        let blank = |target: &&Target<'_>| {
            target.wanted.content == Content::Zfs && target.content.is_none()
        };
        for target in targets.iter().filter(blank) {
            let note = format!(
                "{}: the pool is there without it; `zpool attach` or `zpool add` take it in",
                target.subject()
            );
            self.plan.notes.push(note);
        }
    }
}
