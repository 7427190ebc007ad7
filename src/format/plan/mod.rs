//! From what should be and what is to what has to be done, or to why it will not be done.
//!
//! Pure: it runs nothing and reads nothing. A disk is changed only in these cases, and each of them
//! is in the facts, not in a guess:
//!
//! - it is blank: no signature that `blkid` or `wipefs` know, and the first and the last MiB zero;
//! - it carries our [mark](super::mark) and nothing else that means something;
//! - its table has only partitions that the layout names, and some are missing in it;
//! - a partition that the layout names is blank, or is called unfinished by its name;
//! - somebody said `--wipe` with its name, and nobody uses it, and it does not hold the pool that the
//!   layout itself names.
//!
//! A pool that is there is imported and never made anew, and nothing that is in it is changed.

mod content;
mod datasets;
mod disk;
mod pool;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::BTreeSet;
use std::fmt;

pub(super) use datasets::{NEW, mountpoint};

use super::facts::Facts;
use super::layout::{Layout, Name};
use super::step::Step;
use crate::zfs::name::PoolName;

/// The kind of the step that destroys.
const WIPE: &str = "wipe";

/// What was allowed on the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// The disks, by their names in the layout, whose content may be destroyed.
    pub wipe: BTreeSet<Name>,
    /// The pool that may be taken from the machine that used it last.
    pub import_foreign: Option<PoolName>,
}

/// What has to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// What somebody should know, one line each.
    pub notes: Vec<String>,
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it is about: `disk cache (/dev/vdb)`.
    pub subject: String,
    /// What is wrong, and what to do about it: one line.
    pub why: String,
    /// Whether it is only that a disk is not there, which may be another tomorrow.
    pub is_absence: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.subject, self.why)
    }
}

/// What the parts of the plan are put together in.
struct Planner<'a> {
    layout: &'a Layout,
    facts: &'a Facts,
    permission: &'a Permission,
    plan: Plan,
    refusals: Vec<Refusal>,
}

impl Planner<'_> {
    fn refuse(&mut self, subject: impl Into<String>, why: impl Into<String>) {
        self.refusals.push(Refusal { subject: subject.into(), why: why.into(), is_absence: false });
    }

    fn may_wipe(&self, disk: &Name) -> bool {
        self.permission.wipe.contains(disk)
    }
}

/// Compares `layout` with `facts`. All that is wrong is told at once, and then nothing is done at
/// all: half of what was asked for helps nobody.
pub fn plan(layout: &Layout, facts: &Facts, permission: &Permission) -> Result<Plan, Vec<Refusal>> {
    let mut planner =
        Planner { layout, facts, permission, plan: Plan::default(), refusals: Vec::new() };
    let targets = planner.disks();
    planner.contents(&targets);
    let pool_is_there = planner.pool(&targets);
    planner.datasets(pool_is_there);
    planner.volumes(&targets);
    if !planner.refusals.is_empty() {
        return Err(planner.refusals);
    }
    let Plan { mut steps, notes } = planner.plan;
    if steps.iter().any(|step| step.kind == WIPE) {
        // What comes to light on a disk that was wiped is looked at before anything is made on it.
        steps.sort_by_key(|step| step.kind != WIPE);
        let made = steps.iter_mut().filter(|step| step.kind != WIPE);
        made.for_each(|step| step.provisional = true);
    }
    Ok(Plan { steps, notes })
}
