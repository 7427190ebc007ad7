//! Disks, through the programs of util-linux, e2fsprogs and dosfstools: what is on them, and making
//! partition tables and file systems.
//!
//! Questions are methods of [`Zfs`](super::Zfs), which runs all programs; changes are [`Command`]s made by the
//! functions of [`make`], [`pool`] and [`table`], so that what a dry run prints and what is run are one thing.

pub mod host;
pub mod label;
pub mod list;
pub mod make;
pub mod pool;
pub mod probe;
pub mod table;

use super::command::{Command, Program};

/// A program for disks.
fn command<I>(program: &'static str, arguments: I) -> Command
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    Command::new(Program::Other(program), arguments)
}
