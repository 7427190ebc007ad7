//! Children: started, read from, and ended, whatever they do.
//!
//! A command on a pool that has lost its devices sits in the kernel, where SIGKILL does not reach it
//! (measured on OpenZFS 2.3.9 and 2.4.1: `zfs snapshot` and `zpool sync` do). So nothing here waits
//! for a child without a deadline. One that is not gone [`GRACE`] after it was killed is abandoned:
//! kept in a list until it can be reaped, and when [`MAX_ABANDONED`] are in it no more are started.
//!
//! No threads and no signal handler: pipes and the child's pidfd are polled together.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use duct::{Expression, Handle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::MAX_ABANDONED;

/// How long a child may take to die of SIGKILL. The kernel ends one that only waits or computes at
/// once; 2 s are for a machine that is short of everything.
const GRACE: Duration = Duration::from_secs(2);
/// The most that one command may print: `zfs list` of a hundred thousand snapshots, several times over.
const MAX_OUTPUT: usize = 64 << 20;
/// How much of what a child complains about is kept.
pub(super) const MAX_COMPLAINT: usize = 4096;
/// One read: the size of a pipe.
const READ_SIZE: usize = 64 << 10;

/// The children that SIGKILL did not end, and the way to start more.
#[derive(Debug)]
pub(super) struct Children {
    abandoned: Mutex<Vec<Handle>>,
    /// Replaced in tests: nothing there can ignore SIGKILL.
    kill: fn(&Handle) -> io::Result<()>,
    grace: Duration,
}

/// What a child left.
#[derive(Debug)]
pub(super) struct Output {
    /// None where a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Why there is no [`Output`].
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    TimedOut,
    /// So many hang already.
    Stuck(usize),
    /// It printed more than [`MAX_OUTPUT`].
    TooLong,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A running child. Dropped before it ended, it is killed, and reaped or abandoned.
pub(super) struct Child<'a> {
    children: &'a Children,
    /// Taken when it is reaped or abandoned.
    handle: Option<Handle>,
    /// Readable when the child has ended.
    pidfd: OwnedFd,
}

impl Default for Children {
    fn default() -> Self {
        Self { abandoned: Mutex::default(), kill: Handle::kill, grace: GRACE }
    }
}

impl Children {
    /// A command whose messages and times do not depend on who runs it, and who reads `input` where there
    /// is any.
    pub(super) fn expression(
        program: &Path,
        arguments: &[String],
        input: Option<PipeReader>,
    ) -> Expression {
        let command = duct::cmd(program, arguments).env("LC_ALL", "C").env("TZ", "UTC").unchecked();
        match input {
            // What is nearest to the command counts: no later redirection takes this one's place.
            Some(input) => command.stdin_file(input),
            None => command,
        }
    }

    /// Runs a command to its end; blocks until `deadline` and [`GRACE`] at most.
    pub(super) fn run(&self, command: &Expression, deadline: Instant) -> Result<Output, Failure> {
        let (stdout, stdout_of_child) = io::pipe()?;
        let (stderr, stderr_of_child) = io::pipe()?;
        let command =
            command.stdin_null().stdout_file(stdout_of_child).stderr_file(stderr_of_child);
        let child = self.start(command)?;
        let mut stdout = Sink::new(stdout, MAX_OUTPUT);
        let mut stderr = Sink::new(stderr, MAX_COMPLAINT);
        let mut ended = false;
        while !(ended && stdout.is_closed() && stderr.is_closed()) {
            // What a child has written is in the pipe when it has ended. Who else still has the pipe
            // open, a child of its own, is not waited for.
            let now = Instant::now();
            let patience =
                if ended { Duration::ZERO } else { deadline.saturating_duration_since(now) };
            let pidfd = (!ended).then_some(child.pidfd());
            let ready = wait_for(&stdout, &stderr, pidfd, patience)?;
            if ready.none() {
                if ended {
                    break;
                }
                return Err(Failure::TimedOut);
            }
            if ready.stdout {
                stdout.read()?;
            }
            if ready.stderr {
                stderr.read()?;
            }
            if stdout.is_over() {
                return Err(Failure::TooLong);
            }
            ended |= ready.ended;
        }
        Ok(Output { code: child.reap()?, stdout: stdout.bytes, stderr: stderr.bytes })
    }

    /// Starts a child; its pipes are the caller's. `command` is taken whole, because a copy of it
    /// would keep the child's ends of the pipes open here.
    pub(super) fn start(&self, command: Expression) -> Result<Child<'_>, Failure> {
        let hanging = self.reap_abandoned();
        if hanging >= MAX_ABANDONED {
            return Err(Failure::Stuck(hanging));
        }
        let handle = command.start()?;
        drop(command);
        let pid = handle.pids().first().and_then(|pid| i32::try_from(*pid).ok());
        let pidfd = pid.and_then(Pid::from_raw).map_or_else(
            || Err(io::ErrorKind::NotFound.into()),
            |pid| Ok(pidfd_open(pid, PidfdFlags::empty())?),
        );
        match pidfd {
            Ok(pidfd) => Ok(Child { children: self, handle: Some(handle), pidfd }),
            Err(error) => {
                // Without it there is no waiting with a deadline.
                let _ = handle.kill();
                self.abandoned().push(handle);
                Err(Failure::Io(error))
            }
        }
    }

    /// Reaps those of the abandoned that have ended at last; how many have not.
    pub(super) fn reap_abandoned(&self) -> usize {
        let mut abandoned = self.abandoned();
        abandoned.retain(|handle| matches!(handle.try_wait(), Ok(None)));
        abandoned.len()
    }

    fn abandoned(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Child<'_> {
    /// Readable when the child has ended.
    pub(super) const fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Ends it, unless it has ended by itself a moment ago: then there is nothing to kill.
    pub(super) fn kill(&self) {
        let _ = self.handle.as_ref().map(self.children.kill);
    }

    /// The exit code of a child that has ended.
    pub(super) fn reap(mut self) -> io::Result<Option<i32>> {
        // Its pidfd was readable, so this does not block.
        self.handle.take().map_or(Ok(None), |handle| Ok(handle.wait()?.status.code()))
    }

    #[cfg(test)]
    pub(super) fn pid(&self) -> u32 {
        self.handle.as_ref().map_or(0, |handle| handle.pids()[0])
    }
}

impl Drop for Child<'_> {
    fn drop(&mut self) {
        self.kill();
        let Some(handle) = self.handle.take() else { return };
        let end = Instant::now() + self.children.grace;
        let gone = wait_readable(&self.pidfd, end).unwrap_or(false);
        if !(gone && matches!(handle.try_wait(), Ok(Some(_)))) {
            self.children.abandoned().push(handle);
        }
    }
}

/// Waits until `file` is readable: whether it became so before `end`.
fn wait_readable(file: &OwnedFd, end: Instant) -> io::Result<bool> {
    loop {
        let mut files = [PollFd::new(file, PollFlags::IN)];
        let ready = poll_for(&mut files, end.saturating_duration_since(Instant::now()))?;
        if ready > 0 {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
    }
}

/// `poll` that a signal does not end early: it says 0 after one, and the caller's clock decides.
pub(super) fn poll_for(files: &mut [PollFd<'_>], patience: Duration) -> io::Result<usize> {
    let patience = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
    match poll(files, Some(&patience)) {
        Err(rustix::io::Errno::INTR) => Ok(0),
        result => Ok(result?),
    }
}

/// Which of a child's ends has something to say.
struct Ready {
    stdout: bool,
    stderr: bool,
    ended: bool,
}

impl Ready {
    const fn none(&self) -> bool {
        !(self.stdout || self.stderr || self.ended)
    }
}

/// Waits until one of them is ready, or `patience` is over.
fn wait_for(
    stdout: &Sink,
    stderr: &Sink,
    pidfd: Option<&OwnedFd>,
    patience: Duration,
) -> io::Result<Ready> {
    let end = Instant::now() + patience;
    loop {
        let sources = [
            stdout.pipe.as_ref().map(AsFd::as_fd),
            stderr.pipe.as_ref().map(AsFd::as_fd),
            pidfd.map(AsFd::as_fd),
        ];
        let mut files: Vec<PollFd<'_>> = Vec::with_capacity(sources.len());
        files.extend(
            sources.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        let count = poll_for(&mut files, end.saturating_duration_since(Instant::now()))?;
        if count == 0 && Instant::now() < end {
            continue;
        }
        let mut results = files.iter().map(|file| !file.revents().is_empty());
        let mut ready = |source: bool| source && results.next().unwrap_or(false);
        return Ok(Ready {
            stdout: ready(stdout.pipe.is_some()),
            stderr: ready(stderr.pipe.is_some()),
            ended: ready(pidfd.is_some()),
        });
    }
}

/// Where a pipe's bytes go, up to a limit; more is read and dropped.
pub(super) struct Sink {
    /// None when the other end is closed.
    pub(super) pipe: Option<PipeReader>,
    pub(super) bytes: Vec<u8>,
    limit: usize,
    over: bool,
}

impl Sink {
    pub(super) const fn new(pipe: PipeReader, limit: usize) -> Self {
        Self { pipe: Some(pipe), bytes: Vec::new(), limit, over: false }
    }

    const fn is_closed(&self) -> bool {
        self.pipe.is_none()
    }

    const fn is_over(&self) -> bool {
        self.over
    }

    /// Reads once; the pipe is known to be readable, so this does not block.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let mut buffer = [0; READ_SIZE];
        match pipe.read(&mut buffer) {
            Ok(0) => self.pipe = None,
            Ok(read) => {
                let kept = read.min(self.limit - self.bytes.len());
                self.bytes.extend_from_slice(&buffer[..kept]);
                self.over |= kept < read;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Expression {
        Children::expression(Path::new("/bin/sh"), &["-c".into(), script.into()], None)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// The state letter of a process, none when it is gone: `Z` would be a zombie.
    fn state(pid: u32) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    #[test]
    fn what_a_child_prints_and_how_it_ends_is_told() {
        let children = Children::default();
        let script = "echo out; echo err >&2; echo $LC_ALL $TZ; cat; exit 3";
        let output = children.run(&shell(script), soon()).unwrap();
        assert_eq!(output.code, Some(3));
        assert_eq!(output.stdout, b"out\nC UTC\n");
        assert_eq!(output.stderr, b"err\n");
        let killed = children.run(&shell("kill -9 $$"), soon()).unwrap();
        assert_eq!(killed.code, None);
    }

    #[test]
    fn a_child_that_hangs_is_killed_at_its_deadline_and_reaped() {
        let children = Children::default();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 1000", file.display());
        let start = Instant::now();
        // Long enough that the pid is written on a busy machine.
        let deadline = start + Duration::from_secs(3);
        let failure = children.run(&shell(&script), deadline).unwrap_err();
        assert!(matches!(failure, Failure::TimedOut), "{failure:?}");
        assert!(start.elapsed() < Duration::from_secs(15));
        let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        assert_eq!(state(pid), None, "neither running nor a zombie");
        assert_eq!(children.reap_abandoned(), 0);
    }

    #[test]
    fn a_child_of_the_child_that_keeps_the_pipe_is_not_waited_for() {
        let children = Children::default();
        let start = Instant::now();
        let output = children.run(&shell("sleep 20 & echo done"), soon()).unwrap();
        assert_eq!(output.stdout, b"done\n");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_child_that_prints_without_end_is_stopped_and_one_that_complains_is_cut_short() {
        let children = Children::default();
        let failure = children.run(&shell("exec cat /dev/zero"), soon()).unwrap_err();
        assert!(matches!(failure, Failure::TooLong), "{failure:?}");
        let script = "head -c 1000000 /dev/zero >&2; echo end";
        let output = children.run(&shell(script), soon()).unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.len()), (&b"end\n"[..], MAX_COMPLAINT));
    }

    #[test]
    fn children_that_cannot_be_killed_are_abandoned_and_stop_others_until_they_end() {
        let children =
            Children { kill: |_| Ok(()), grace: Duration::from_millis(1), ..Children::default() };
        let mut pids = Vec::new();
        for _ in 0..MAX_ABANDONED {
            let child = children.start(shell("exec sleep 1000")).unwrap();
            pids.push(child.pid());
        }
        let failure = children.run(&shell("echo"), soon()).unwrap_err();
        assert!(matches!(failure, Failure::Stuck(MAX_ABANDONED)), "{failure:?}");

        let pid = Pid::from_raw(i32::try_from(pids[0]).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let deadline = soon();
        while children.reap_abandoned() == MAX_ABANDONED && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(state(pids[0]), None);
        assert_eq!(children.run(&shell("echo"), soon()).unwrap().stdout, b"\n");

        for handle in children.abandoned().iter() {
            handle.kill().unwrap();
            handle.wait().unwrap();
        }
        assert_eq!(children.reap_abandoned(), 0);
    }

    #[test]
    fn a_program_that_is_not_there_is_not_found() {
        let program = Path::new("/nonexistent/zfs");
        let failure = Children::default().run(&Children::expression(program, &[], None), soon());
        match failure.unwrap_err() {
            Failure::Io(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
            other => panic!("{other:?}"),
        }
    }
}
