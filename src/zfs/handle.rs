//! The handle through which everything is asked and done.

use std::collections::BTreeMap;
use std::io::{self, PipeReader, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::command::{Command, MAX_INPUT, Program, look_up, quote};
use super::error::ZfsError;
use super::process::{Children, Failure, Output};
use super::ssh::SshTarget;
use super::text::shorten_lines;
use super::version::Versions;

/// How many lines of a complaint an error carries: some list what stands in the way.
const COMPLAINT_LINES: usize = 20;

/// `zfs` and `zpool`, here or on another machine. Clones share what they found out.
#[derive(Clone, Debug)]
pub struct Zfs {
    /// Where programs are that were not looked up in `PATH`.
    programs: Arc<BTreeMap<&'static str, PathBuf>>,
    host: Option<SshTarget>,
    /// Asked once.
    versions: Arc<OnceLock<Versions>>,
    children: Arc<Children>,
    /// No command may take longer, whatever its own deadline is.
    at_most: Option<Duration>,
}

impl Zfs {
    /// Finds the programs of this machine and asks for their version. On a machine without ZFS the
    /// error is one line that says what is missing.
    pub fn find() -> Result<Self, ZfsError> {
        let zfs = Self::with(BTreeMap::new());
        for program in [Program::Zfs, Program::Zpool] {
            zfs.path(program.name())?;
        }
        zfs.versions()?;
        Ok(zfs)
    }

    /// For a machine that may have no ZFS: nothing is looked for before it is needed.
    pub fn not_asked() -> Self {
        Self::with(BTreeMap::new())
    }

    /// Takes these programs instead of those in `PATH`.
    pub fn with_programs(zfs: impl Into<PathBuf>, zpool: impl Into<PathBuf>) -> Self {
        Self::with(BTreeMap::from([("zfs", zfs.into()), ("zpool", zpool.into())]))
    }

    /// The same programs on another machine, through `ssh`.
    #[must_use]
    pub fn on(&self, host: SshTarget) -> Self {
        Self { host: Some(host), versions: Arc::default(), ..self.clone() }
    }

    /// The same with another `ssh`.
    #[must_use]
    pub fn with_ssh(&self, ssh: impl Into<PathBuf>) -> Self {
        let mut programs = BTreeMap::clone(&self.programs);
        programs.insert("ssh", ssh.into());
        Self { programs: Arc::new(programs), ..self.clone() }
    }

    /// The same with another program of any name.
    #[must_use]
    pub fn with_program(&self, name: &'static str, program: impl Into<PathBuf>) -> Self {
        let mut programs = BTreeMap::clone(&self.programs);
        programs.insert(name, program.into());
        Self { programs: Arc::new(programs), ..self.clone() }
    }

    /// The same, but no command takes longer than `at_most`.
    #[must_use]
    pub fn within(&self, at_most: Duration) -> Self {
        Self { at_most: Some(at_most), ..self.clone() }
    }

    fn with(programs: BTreeMap<&'static str, PathBuf>) -> Self {
        Self {
            programs: Arc::new(programs),
            host: None,
            versions: Arc::default(),
            children: Arc::default(),
            at_most: None,
        }
    }

    /// The machine that the commands run on, if it is another one.
    pub const fn host(&self) -> Option<&SshTarget> {
        self.host.as_ref()
    }

    /// Which OpenZFS answers; asked once and remembered.
    pub fn versions(&self) -> Result<&Versions, ZfsError> {
        if let Some(versions) = self.versions.get() {
            return Ok(versions);
        }
        let found = Versions::ask(self)?;
        Ok(self.versions.get_or_init(|| found))
    }

    /// How many commands hang in the kernel, where nothing can end them.
    pub fn hanging(&self) -> usize {
        self.children.reap_abandoned()
    }

    /// What one would type to run `command` on the machine of this handle: for `--dry-run`.
    pub fn describe(&self, command: &Command) -> String {
        match &self.host {
            None => command.to_string(),
            Some(host) => {
                let words = command.over_ssh(host);
                words.iter().fold("ssh".into(), |line, word| format!("{line} {}", quote(word)))
            }
        }
    }

    /// Whether the program of a command is there; the error says what to install.
    pub fn check(&self, command: &Command) -> Result<(), ZfsError> {
        self.invocation(command).map(drop)
    }

    /// Runs a command whose output says nothing.
    pub fn run(&self, command: &Command) -> Result<(), ZfsError> {
        self.output(command).map(drop)
    }

    /// Runs a command and gives what it printed, which has to be UTF-8.
    pub fn read(&self, command: &Command) -> Result<String, ZfsError> {
        String::from_utf8(self.output(command)?)
            .map_err(|_| self.unreadable(command, "it is not UTF-8"))
    }

    /// The same, where names of files may be in what it printed, which can be any bytes.
    pub(super) fn read_lossy(&self, command: &Command) -> Result<String, ZfsError> {
        Ok(String::from_utf8_lossy(&self.output(command)?).into_owned())
    }

    /// Runs a command and parses what it printed.
    pub(super) fn parse<T>(
        &self,
        command: &Command,
        parser: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ZfsError> {
        parser(&self.read(command)?).map_err(|what| self.unreadable(command, &what))
    }

    pub(super) fn unreadable(&self, command: &Command, what: &str) -> ZfsError {
        ZfsError::Unreadable { command: self.describe(command), what: what.into() }
    }

    fn output(&self, command: &Command) -> Result<Vec<u8>, ZfsError> {
        let (program, arguments) = self.invocation(command)?;
        let input = command.stdin().map(filled_pipe).transpose();
        let input = input.map_err(|error| self.failure(command, Failure::Io(error)))?;
        let expression = Children::expression(&program, &arguments, input);
        let limit = self.limit(command);
        let start = Instant::now();
        let result = self.children().run(&expression, start + limit);
        tracing::debug!(
            command = %command,
            duration_ms = start.elapsed().as_millis(),
            "ran a command"
        );
        let output = result.map_err(|failure| self.failure(command, failure))?;
        self.succeeded(command, output)
    }

    /// How long `command` may take.
    pub(super) fn limit(&self, command: &Command) -> Duration {
        self.at_most.map_or(command.deadline(), |at_most| at_most.min(command.deadline()))
    }

    /// The program that is started here for `command`, and its arguments.
    pub(super) fn invocation(&self, command: &Command) -> Result<(PathBuf, Vec<String>), ZfsError> {
        match &self.host {
            None => Ok((self.path(command.program().name())?, command.arguments().to_vec())),
            Some(host) => Ok((self.path("ssh")?, command.over_ssh(host))),
        }
    }

    fn path(&self, program: &'static str) -> Result<PathBuf, ZfsError> {
        let known = self.programs.get(program).cloned();
        known.or_else(|| look_up(program)).ok_or_else(|| missing(program))
    }

    pub(super) fn children(&self) -> &Children {
        &self.children
    }

    /// Why `command` has no output, in our words.
    pub(super) fn failure(&self, command: &Command, failure: Failure) -> ZfsError {
        let line = self.describe(command);
        match failure {
            Failure::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                missing(if self.host.is_some() { "ssh" } else { command.program().name() })
            }
            Failure::Io(source) => ZfsError::Io { command: line, source },
            Failure::TimedOut => ZfsError::TimedOut { command: line, after: self.limit(command) },
            Failure::Stuck(hanging) => ZfsError::Stuck { command: line, hanging },
            Failure::TooLong => self.unreadable(command, "it is longer than any answer can be"),
        }
    }

    fn succeeded(&self, command: &Command, output: Output) -> Result<Vec<u8>, ZfsError> {
        if output.code == Some(0) {
            return Ok(output.stdout);
        }
        let stderr = shorten_lines(&String::from_utf8_lossy(&output.stderr), COMPLAINT_LINES);
        // The one message that is recognised by its words: without the module nothing can be asked
        // again, and it is the same in all versions.
        if stderr.starts_with("The ZFS modules") && self.host.is_none() {
            return Err(ZfsError::NoModule);
        }
        Err(ZfsError::Failed { command: self.describe(command), code: output.code, stderr })
    }
}

/// A pipe with all of `text` in it, and nobody who could write more.
fn filled_pipe(text: &str) -> io::Result<PipeReader> {
    if text.len() > MAX_INPUT {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(text.as_bytes())?;
    Ok(reader)
}

fn missing(program: &'static str) -> ZfsError {
    let kind = match program {
        "zfs" => Program::Zfs,
        "zpool" => Program::Zpool,
        other => Program::Other(other),
    };
    ZfsError::Missing { program, remedy: kind.remedy() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fake;
    use super::*;

    #[test]
    fn a_refusal_carries_command_code_and_reason() {
        let fake = Fake::new("echo \"cannot open 'tank': dataset does not exist\" >&2; exit 1");
        let error = fake.zfs.run(&Command::zfs(["list", "tank"])).unwrap_err();
        match &error {
            ZfsError::Failed { command, code, stderr } => {
                assert_eq!((command.as_str(), *code), ("zfs list tank", Some(1)));
                assert_eq!(stderr, "cannot open 'tank': dataset does not exist");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_program_that_hangs_is_a_time_out_and_leaves_nothing_behind() {
        let fake = Fake::new("exec sleep 1000");
        let zfs = fake.zfs.within(Duration::from_millis(300));
        let error = zfs.read(&Command::zpool(["list"])).unwrap_err();
        assert!(matches!(error, ZfsError::TimedOut { .. }), "{error}");
        assert!(error.to_string().starts_with("`zpool list` did not answer within 0.3 s"));
        assert_eq!(zfs.hanging(), 0);
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_remedy() {
        let zfs = Zfs::with_programs("/nonexistent/zfs", "/nonexistent/zpool");
        let error = zfs.versions().unwrap_err();
        assert!(matches!(error, ZfsError::Missing { program: "zfs", .. }), "{error:?}");
        assert!(error.to_string().contains("Debian"), "{error}");
        let other = zfs.run(&Command::new(Program::Other("no-such-program"), [""; 0]));
        assert!(other.unwrap_err().to_string().contains("`no-such-program` is not installed"));
    }

    #[test]
    fn a_kernel_without_the_module_is_told_in_one_line() {
        let message = "The ZFS modules cannot be auto-loaded.\\nTry running 'modprobe zfs'.";
        let fake = Fake::new(&format!("printf \"{message}\\n\" >&2; exit 1"));
        let error = fake.zfs.versions().unwrap_err();
        assert!(matches!(error, ZfsError::NoModule), "{error:?}");
    }

    #[test]
    fn a_command_reads_what_it_is_given_and_then_the_end() {
        let fake = Fake::new("cat; echo end");
        let command = Command::zfs(["x"]).input("two\nlines\n");
        assert_eq!(fake.zfs.read(&command).unwrap(), "two\nlines\nend\n");
        assert_eq!(fake.zfs.read(&Command::zfs(["x"])).unwrap(), "end\n");
        // One that does not read it is not waited for, and too much is refused before it starts.
        let large = Command::zfs(["x"]).input("x".repeat(MAX_INPUT));
        assert!(Fake::new("exit 0").zfs.run(&large).is_ok());
        assert_eq!(fake.zfs.read(&large).unwrap().len(), MAX_INPUT + 4);
        let too_large = Command::zfs(["x"]).input("x".repeat(MAX_INPUT + 1));
        assert!(matches!(fake.zfs.run(&too_large), Err(ZfsError::Io { .. })));
    }

    #[test]
    fn what_is_not_text_is_an_error_and_no_panic() {
        let fake = Fake::new(r"printf '\377\376\n'");
        let error = fake.zfs.read(&Command::zfs(["list"])).unwrap_err();
        assert!(matches!(error, ZfsError::Unreadable { .. }), "{error:?}");
    }

    #[test]
    fn a_command_for_another_machine_is_shown_and_run_through_ssh() {
        let fake = Fake::new("printf '%s.' \"$@\"");
        let host = SshTarget::parse("root@host").unwrap();
        let zfs = fake.zfs.on(host).with_ssh(fake.ssh());
        let command = Command::zfs(["set", "snowbank:note=a b", "tank"]);
        let shown = zfs.describe(&command);
        assert!(shown.starts_with("ssh -o BatchMode=yes -o ConnectTimeout=10 -- root@host env "));
        assert!(shown.ends_with(r#"zfs set ''\''snowbank:note=a b'\''' tank"#), "{shown}");
        assert_eq!(zfs.read(&command).unwrap(), "set.snowbank:note=a b.tank.");
    }
}
