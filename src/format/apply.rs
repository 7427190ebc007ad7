//! Does what is planned, and looks again until nothing is left to do.
//!
//! There is no record of what was done but the disks themselves: whoever is killed here, at any
//! point, is continued by the next run as if it were a first one, which finds a part done already.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::inspect::{self, Found, InspectError};
use super::layout::{Disk, Layout};
use super::plan::{Permission, Plan, Refusal, plan};
use super::step::{Action, Step};
use crate::fault;
use crate::zfs::{Zfs, ZfsError};

/// How long the kernel and udev have to make a name that must come.
const NAME_DEADLINE: Duration = Duration::from_secs(30);
/// How often it is looked for one.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Wiping, importing and completing are three looks; more would be going in circles.
const MAX_LOOKS: usize = 6;

/// Why the disks are not as the layout says.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Something is in the way; nothing was done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
    /// It is not known what is there.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// A command failed, or its program is missing. What was done before it stays done, and the next
    /// run goes on from there.
    #[error("{subject}: {what}: {source}")]
    Step {
        /// On what.
        subject: String,
        /// What was being done.
        what: String,
        /// Which command failed, and how.
        source: ZfsError,
    },
    /// A name did not come.
    #[error(
        "{subject}: {what}: {} did not appear within {} s; is udev running?", path.display(), .after.as_secs()
    )]
    NoName {
        /// On what.
        subject: String,
        /// What was being done.
        what: String,
        /// The name.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// Everything was done, and yet there is more to do.
    #[error("after {MAX_LOOKS} rounds there is still to do: {0}. Run it again with --dry-run")]
    Circles(String),
}

impl FormatError {
    /// Whether the user has to change what they wrote, or to say that something may be destroyed.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(refusals) => refusals.iter().any(|refusal| !refusal.is_absence),
            Self::Inspect(InspectError::Unclear { .. }) => true,
            Self::Inspect(_) | Self::Step { .. } | Self::NoName { .. } | Self::Circles(_) => false,
        }
    }
}

/// What is told while it works.
pub trait Listener {
    /// A disk is not there yet and waited for.
    fn late(&mut self, disk: &Disk);
    /// A step begins.
    fn begin(&mut self, step: &Step);
    /// A step is done.
    fn done(&mut self, step: &Step);
}

/// Waits for the disks, and says what has to be done.
pub fn look(
    zfs: &Zfs,
    layout: &Layout,
    permission: &Permission,
    listener: &mut dyn Listener,
) -> Result<(Found, Plan), FormatError> {
    let found = inspect::wait_for_disks(zfs, layout, &mut |disk| listener.late(disk))?;
    let plan = look_at(zfs, layout, permission, &found)?;
    Ok((found, plan))
}

fn look_at(
    zfs: &Zfs,
    layout: &Layout,
    permission: &Permission,
    found: &Found,
) -> Result<Plan, FormatError> {
    let facts = inspect::inspect(zfs, layout, found)?;
    tracing::debug!(?facts, "looked at the disks");
    plan(layout, &facts, permission).map_err(FormatError::Refused)
}

/// Makes the disks as the layout says. The notes of the last look are given back.
pub fn apply(
    zfs: &Zfs,
    layout: &Layout,
    permission: &Permission,
    listener: &mut dyn Listener,
) -> Result<Vec<String>, FormatError> {
    let (found, mut plan) = look(zfs, layout, permission, listener)?;
    for _ in 0..MAX_LOOKS {
        if plan.steps.is_empty() {
            return Ok(plan.notes);
        }
        programs_are_there(zfs, &plan)?;
        for step in plan.steps.iter().take_while(|step| !step.provisional) {
            listener.begin(step);
            run(zfs, step)?;
            listener.done(step);
        }
        plan = look_at(zfs, layout, permission, &found)?;
    }
    let left: Vec<_> = plan.steps.iter().map(|step| step.what.as_str()).collect();
    Err(FormatError::Circles(left.join(", ")))
}

/// Nothing is begun that cannot be brought to its end for want of a program.
fn programs_are_there(zfs: &Zfs, plan: &Plan) -> Result<(), FormatError> {
    for step in &plan.steps {
        for command in step.commands() {
            zfs.check(command).map_err(|source| FormatError::Step {
                subject: step.subject.clone(),
                what: step.what.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

fn run(zfs: &Zfs, step: &Step) -> Result<(), FormatError> {
    let (subject, what) = (&step.subject, &step.what);
    for action in &step.actions {
        let ran = match action {
            Action::Run(command) => come_by().and_then(|()| zfs.run(command)),
            Action::WaitFor(path) => match wait_for(path) {
                Ok(()) => Ok(()),
                Err(after) => {
                    return Err(FormatError::NoName {
                        subject: subject.clone(),
                        what: what.clone(),
                        path: path.clone(),
                        after,
                    });
                }
            },
        };
        ran.map_err(|source| FormatError::Step {
            subject: subject.clone(),
            what: what.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Where a test build is killed: before each command.
fn come_by() -> Result<(), ZfsError> {
    fault::point("format.command")
        .map_err(|source| ZfsError::Io { command: "format.command".into(), source })
}

fn wait_for(path: &Path) -> Result<(), Duration> {
    let start = Instant::now();
    while std::fs::metadata(path).is_err() {
        if start.elapsed() >= NAME_DEADLINE {
            return Err(NAME_DEADLINE);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
