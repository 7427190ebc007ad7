//! One thing to be done: why, and with which commands.

use std::path::PathBuf;

use crate::zfs::command::Command;

/// One thing to be done. Done twice it does no harm; what is left half done when we are killed in
/// it is found by the next look and made whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What kind of thing, for machines: one of a few words with dashes.
    pub kind: &'static str,
    /// On what: a disk, partition, pool, dataset or volume of the layout.
    pub subject: String,
    /// What is done, and why, for people: one line.
    pub what: String,
    /// How it is done, in this order.
    pub actions: Vec<Action>,
    /// Whether it is known only later that it has to be done: what a pool holds is not known before
    /// it is imported.
    pub provisional: bool,
}

/// A part of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Runs a command.
    Run(Command),
    /// Waits until the kernel and udev have made this name.
    WaitFor(PathBuf),
}

impl Step {
    /// A step that runs `commands`.
    pub fn new(
        kind: &'static str,
        subject: impl Into<String>,
        what: impl Into<String>,
        commands: impl IntoIterator<Item = Command>,
    ) -> Self {
        let actions = commands.into_iter().map(Action::Run).collect();
        Self { kind, subject: subject.into(), what: what.into(), actions, provisional: false }
    }

    /// The same step, with a wait at its end.
    #[must_use]
    pub fn wait_for(mut self, paths: impl IntoIterator<Item = String>) -> Self {
        self.actions.extend(paths.into_iter().map(|path| Action::WaitFor(path.into())));
        self
    }

    /// The same step, with more commands at its end.
    #[must_use]
    pub fn then(mut self, commands: impl IntoIterator<Item = Command>) -> Self {
        self.actions.extend(commands.into_iter().map(Action::Run));
        self
    }

    /// Its commands.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.actions.iter().filter_map(|action| match action {
            Action::Run(command) => Some(command),
            Action::WaitFor(_) => None,
        })
    }
}
