//! What goes wrong when `zfs` and `zpool` are asked.

use std::io;
use std::time::Duration;

use super::name::NameError;

/// How many abandoned children stop further ones; see [`ZfsError::Stuck`].
pub const MAX_ABANDONED: usize = 4;

/// Why a command did not do what it should. Each message is complete: it names the command line as
/// one would type it.
#[derive(Debug, thiserror::Error)]
pub enum ZfsError {
    /// The program is not on this machine.
    #[error("`{program}` is not installed here: {remedy}")]
    Missing {
        /// What was looked for.
        program: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The program is there, the kernel's part is not.
    #[error(
        "the kernel has no ZFS: its module is not loaded (run `modprobe zfs`; \
         Debian: apt install zfs-dkms; NixOS: boot.supportedFilesystems = [ \"zfs\" ])"
    )]
    NoModule,
    /// It ran and said no.
    #[error("`{command}` failed with {}: {}", code_text(*.code), one_line(.stderr))]
    Failed {
        /// The command line.
        command: String,
        /// Its exit code; none where a signal ended it.
        code: Option<i32>,
        /// What it wrote to standard error, shortened.
        stderr: String,
    },
    /// It did not end in time and was killed.
    #[error(
        "`{command}` did not answer within {} s and was killed: look at `zpool status` and at the \
         kernel's log for a device that hangs", .after.as_secs_f32()
    )]
    TimedOut {
        /// The command line.
        command: String,
        /// Its deadline.
        after: Duration,
    },
    /// Too many commands before it hang in the kernel, where not even SIGKILL ends them.
    #[error(
        "`{command}` was not started: {hanging} commands before it hang in the kernel and cannot be \
         killed; a pool has lost its devices. Bring them back (`zpool clear`) or reboot"
    )]
    Stuck {
        /// The command line that was not started.
        command: String,
        /// How many hang.
        hanging: usize,
    },
    /// It printed something that we do not understand.
    #[error("`{command}` printed what Snowbank cannot read: {what}")]
    Unreadable {
        /// The command line.
        command: String,
        /// What is wrong with it.
        what: String,
    },
    /// A stream between two commands broke; what each of them said.
    #[error(transparent)]
    Stream(#[from] Box<BrokenStream>),
    /// A stream was stopped by who had started it.
    #[error("`{send}` was stopped after {bytes} bytes")]
    Cancelled {
        /// The sending command line.
        send: String,
        /// How many bytes the receiver had taken.
        bytes: u64,
    },
    /// A name that would have gone into a command line.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The system refused to start it, or to give a pipe.
    #[error("`{command}` could not be run: {source}")]
    Io {
        /// The command line, or the file.
        command: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A stream that did not arrive whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream broke after {bytes} bytes: `{send}` {send_end}; `{receive}` {receive_end}")]
pub struct BrokenStream {
    /// The sending command line.
    pub send: String,
    /// How it ended.
    pub send_end: Ending,
    /// The receiving command line.
    pub receive: String,
    /// How it ended.
    pub receive_end: Ending,
    /// How many bytes the receiver took.
    pub bytes: u64,
}

/// How one side of a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its exit code; none where a signal ended it, which is ours when the other side broke.
    pub code: Option<i32>,
    /// Nothing moved for this long, and so it was killed.
    pub stalled: Option<Duration>,
    /// What it wrote to standard error, shortened.
    pub stderr: String,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.stalled {
            Some(after) => write!(formatter, "moved nothing for {} s", after.as_secs_f32())?,
            None if self.code == Some(0) => formatter.write_str("ended well")?,
            None => write!(formatter, "failed with {}", code_text(self.code))?,
        }
        if self.stderr.is_empty() {
            return Ok(());
        }
        write!(formatter, ": {}", one_line(&self.stderr))
    }
}

fn code_text(code: Option<i32>) -> String {
    code.map_or_else(|| "a signal".into(), |code| format!("exit code {code}"))
}

/// Lines as one, so that a log has one entry.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it said nothing".into() } else { lines.join(" | ") }
}

#[cfg(test)]
mod tests {
    use super::super::command::Program;
    use super::*;

    #[test]
    fn a_failure_names_command_code_and_reason_in_one_line() {
        let error = ZfsError::Failed {
            command: "zfs create tank/a".into(),
            code: Some(1),
            stderr: "cannot create 'tank/a':\n  dataset already exists\n".into(),
        };
        assert_eq!(
            error.to_string(),
            "`zfs create tank/a` failed with exit code 1: \
             cannot create 'tank/a': | dataset already exists"
        );
        let error = ZfsError::Failed { command: "x".into(), code: None, stderr: String::new() };
        assert_eq!(error.to_string(), "`x` failed with a signal: it said nothing");
    }

    #[test]
    fn a_machine_without_zfs_is_told_what_to_install_in_one_line() {
        let program = Program::Zfs;
        let error = ZfsError::Missing { program: program.name(), remedy: program.remedy() };
        let error = error.to_string();
        assert!(error.contains("apt install") && error.contains("NixOS"), "{error}");
        assert!(!error.contains('\n'));
        assert!(!ZfsError::NoModule.to_string().contains('\n'));
    }
}
