//! A command as a value: shown by `--dry-run` exactly as it would be run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ssh::SshTarget;

/// How long a question may take. OpenZFS answers in less than 0.1 s, and in 1 s under emulation; a
/// pool that commits a transaction group for longer than 10 s is in trouble.
pub const QUERY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a change may take: creating, mounting and destroying wait for transaction groups, each
/// of which may take 5 s on a busy pool, and for each other.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(60);

/// The most that a command may be given to read: what every pipe holds, also that of a user who has
/// many, so that it can be written before the command is started.
pub const MAX_INPUT: usize = 4096;

/// Where programs lie when the service's `PATH` has only those for everybody, or hardly anything, as that of
/// a unit may.
const MORE_DIRECTORIES: [&str; 5] =
    ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/run/current-system/sw/bin"];
/// What another machine looks for its programs in: `sshd` gives users a `PATH` without `sbin`.
const REMOTE_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin";

/// A program that Snowbank runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// `zfs`: datasets and snapshots.
    Zfs,
    /// `zpool`: pools.
    Zpool,
    /// Another one, by its name, for what is done to disks.
    Other(&'static str),
}

impl Program {
    /// Its name, as one types it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zfs => "zfs",
            Self::Zpool => "zpool",
            Self::Other(name) => name,
        }
    }

    /// What to do where it is missing.
    pub(super) const fn remedy(self) -> &'static str {
        match self {
            Self::Zfs | Self::Zpool => {
                "OpenZFS is needed for this (Debian: apt install zfsutils-linux zfs-dkms; \
                 NixOS: boot.supportedFilesystems = [ \"zfs\" ])"
            }
            Self::Other(_) => "install it, or add its directory to PATH",
        }
    }
}

/// A program, its arguments, and how long it may take. No shell ever reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    program: Program,
    arguments: Vec<String>,
    input: Option<String>,
    deadline: Duration,
}

impl Command {
    /// A command that may take [`QUERY_DEADLINE`].
    pub fn new<I>(program: Program, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program, arguments, input: None, deadline: QUERY_DEADLINE }
    }

    /// `zfs` with arguments.
    pub fn zfs<I>(arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self::new(Program::Zfs, arguments)
    }

    /// `zpool` with arguments.
    pub fn zpool<I>(arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self::new(Program::Zpool, arguments)
    }

    /// The same command with one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// The same command with more arguments.
    #[must_use]
    pub fn args<I>(mut self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// The same command with `-o name=value` for each property, as creating things takes them.
    #[must_use]
    pub fn options(self, properties: &[(&str, &str)]) -> Self {
        let options = properties.iter();
        self.args(options.flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]))
    }

    /// The same command with lines to read from its standard input, each with its end: at most
    /// [`MAX_INPUT`] bytes. Only for programs of this machine.
    #[must_use]
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// The same command with another deadline.
    #[must_use]
    pub const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same command with the time that a change may take.
    #[must_use]
    pub const fn change(self) -> Self {
        self.within(CHANGE_DEADLINE)
    }

    /// Which program it runs.
    pub const fn program(&self) -> Program {
        self.program
    }

    /// What it is given.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// What it reads from its standard input.
    pub fn stdin(&self) -> Option<&str> {
        self.input.as_deref()
    }

    /// The command as one would type it into a shell, with what it reads.
    pub fn script(&self) -> String {
        match &self.input {
            Some(input) => format!("{self} <<'END'\n{input}END"),
            None => self.to_string(),
        }
    }

    /// How long it may take.
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The arguments of `ssh` that run it on `target`. A shell there puts them together and reads
    /// them again, so they go quoted where they have to.
    pub(super) fn over_ssh(&self, target: &SshTarget) -> Vec<String> {
        let mut arguments = target.options();
        let words = ["env", REMOTE_PATH, "LC_ALL=C", "TZ=UTC", self.program.name()];
        arguments.extend(words.map(String::from));
        arguments.extend(self.arguments.iter().map(|argument| quote(argument)));
        arguments
    }
}

/// The command as one would type it into a shell, in one line: without what it reads.
impl fmt::Display for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.program.name())?;
        self.arguments.iter().try_for_each(|argument| write!(formatter, " {}", quote(argument)))
    }
}

/// `word` as a shell reads it back: in single quotes unless it has only harmless characters.
pub(super) fn quote(word: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+,=-".contains(&byte);
    if !word.is_empty() && word.bytes().all(harmless) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Looks a program up as a shell does, and in [`MORE_DIRECTORIES`].
pub(super) fn look_up(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
    let more = MORE_DIRECTORIES.iter().map(PathBuf::from);
    directories.chain(more).map(|directory| directory.join(name)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let command = Command::zfs(["create", "-u"])
            .options(&[("recordsize", "1M"), ("snowbank:note", "it's mine")])
            .arg("tank/a");
        assert_eq!(
            command.to_string(),
            r"zfs create -u -o recordsize=1M -o 'snowbank:note=it'\''s mine' tank/a"
        );
        assert_eq!(Command::zpool([""]).to_string(), "zpool ''");
        assert_eq!(Command::new(Program::Other("sgdisk"), ["-p"]).to_string(), "sgdisk -p");
    }

    #[test]
    fn another_machine_gets_words_that_its_shell_reads_as_they_are() {
        let target = SshTarget::parse("backup@host.example").unwrap();
        let command = Command::zfs(["receive", "-o", "mountpoint=/a b;$(x)", "pool/a@b"]);
        let words = command.over_ssh(&target);
        assert_eq!(words[..4], ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]);
        let sent = words.iter().position(|word| word == "env").unwrap();
        assert_eq!(words[sent - 1], "backup@host.example");
        let script = words[sent..].join(" ");
        let script = script.replace(" zfs ", " printf '<%s>' ");
        let words = Path::new("/bin/sh");
        let arguments = ["-c".into(), script];
        let expression = super::super::process::Children::expression(words, &arguments, None);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let output = super::super::process::Children::default().run(&expression, deadline).unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, "<receive><-o><mountpoint=/a b;$(x)><pool/a@b>");
    }

    #[test]
    fn what_a_command_reads_is_shown_in_a_script_and_not_in_a_line() {
        let command = Command::new(Program::Other("sfdisk"), ["/dev/a"]).input("label: gpt\n");
        assert_eq!(command.to_string(), "sfdisk /dev/a");
        assert_eq!(command.script(), "sfdisk /dev/a <<'END'\nlabel: gpt\nEND");
    }

    #[test]
    fn programs_are_found_where_a_shell_finds_them() {
        assert!(look_up("sh").is_some_and(|file| file.is_absolute()));
        assert_eq!(look_up("no-such-program-anywhere"), None);
    }
}
