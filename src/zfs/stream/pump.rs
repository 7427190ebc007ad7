//! Moves the bytes of a stream from one child to another, in one thread, by polling.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::fcntl_setpipe_size;

use super::super::command::Command;
use super::super::error::{BrokenStream, Ending, ZfsError};
use super::super::handle::Zfs;
use super::super::process::{Child, Children, Failure, MAX_COMPLAINT, Sink, poll_for};
use super::super::text::shorten_lines;

/// What is on its way at most, beside the two pipes: enough that neither side waits for the other's
/// system calls.
const BUFFER: usize = 1 << 20;
/// What a pipe holds, in bytes: the most that anybody may have (pipe(7)). With the 64 KiB that it has by
/// itself three processes wake each other sixteen times as often.
const PIPE: usize = 1 << 20;
/// How often progress is told, and the caller may stop it.
const TICK: Duration = Duration::from_millis(200);
/// How many lines of a complaint are kept: a receiver's has the token in its fourth.
const COMPLAINT_LINES: usize = 20;

/// One side: where it runs and what.
type Side<'a> = (&'a Zfs, &'a Command);

/// Runs both commands and moves the bytes. Neither child outlives it, but one that ignores SIGKILL.
pub(super) fn transfer(
    send: Side<'_>,
    receive: Side<'_>,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<u64, ZfsError> {
    let mut stream = Stream::start(send, receive)?;
    let mut told = Instant::now();
    let ended = loop {
        match stream.step() {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(error) => break Err(error),
        }
        if let Some(side) = stream.stalled() {
            return Err(stream.broken(send, receive, Some(side)));
        }
        if told.elapsed() >= TICK {
            told = Instant::now();
            if progress(stream.moved).is_break() {
                let bytes = stream.moved;
                return Err(ZfsError::Cancelled { send: send.0.describe(send.1), bytes });
            }
        }
    };
    ended.map_err(|source| ZfsError::Io { command: send.0.describe(send.1), source })?;
    let _ = progress(stream.moved);
    stream.finish(send, receive)
}

/// Which side of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Send,
    Receive,
}

/// A child of the stream.
struct Party<'a> {
    /// None when it was reaped.
    child: Option<Child<'a>>,
    /// Its exit code, once it has ended.
    code: Option<Option<i32>>,
    complaint: Sink,
    /// How long nothing may move for its sake.
    patience: Duration,
}

/// Both children and what is between them.
struct Stream<'a> {
    send: Party<'a>,
    receive: Party<'a>,
    /// None when the sender has closed it.
    source: Option<PipeReader>,
    /// None when all was written, or the receiver takes no more.
    target: Option<PipeWriter>,
    buffer: Box<[u8]>,
    /// What of the buffer waits to be written.
    start: usize,
    end: usize,
    /// What the receiver has taken.
    moved: u64,
    last_move: Instant,
}

impl<'a> Stream<'a> {
    fn start(send: Side<'a>, receive: Side<'a>) -> Result<Self, ZfsError> {
        let pipe = |side: Side<'_>| {
            let ends = io::pipe().map_err(|error| side.0.failure(side.1, Failure::Io(error)))?;
            // Where all the pipes of a user together are too large already it stays small, and works.
            let _ = fcntl_setpipe_size(&ends.0, PIPE);
            Ok::<_, ZfsError>(ends)
        };
        let (source, source_of_child) = pipe(send)?;
        let (target_of_child, target) = pipe(receive)?;
        // A pipe's two ends are two open files, so the receiver still reads as it is used to.
        fcntl_setfl(&target, OFlags::NONBLOCK)
            .map_err(|error| receive.0.failure(receive.1, Failure::Io(error.into())))?;
        // The receiver first: it costs nothing when the sender cannot be started.
        let receive =
            Party::start(receive, |receive| receive.stdin_file(target_of_child).stdout_null())?;
        let send = Party::start(send, |send| send.stdin_null().stdout_file(source_of_child))?;
        Ok(Self {
            send,
            receive,
            source: Some(source),
            target: Some(target),
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            moved: 0,
            last_move: Instant::now(),
        })
    }

    /// Waits until something can be done, and does it: whether all is over.
    fn step(&mut self) -> io::Result<bool> {
        let ended = self.send.code.is_some() && self.receive.code.is_some();
        let ready = self.poll(if ended { Duration::ZERO } else { TICK })?;
        if ended && ready.is_empty() {
            return Ok(true);
        }
        for event in ready {
            match event {
                Event::Source => self.read()?,
                Event::Target => self.write()?,
                Event::Complaint(which) => self.party(which).complaint.read()?,
                Event::End(which) => {
                    self.party(which).reap()?;
                    self.last_move = Instant::now();
                    if which == Which::Receive {
                        self.receiver_ended();
                    }
                }
            }
        }
        if self.source.is_none() && self.start == self.end {
            // The receiver sees the end of the stream.
            self.target = None;
        }
        Ok(false)
    }

    fn poll(&self, patience: Duration) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut files = Vec::new();
        if let Some(source) = self.source.as_ref().filter(|_| self.end < BUFFER) {
            events.push(Event::Source);
            files.push(PollFd::new(source, PollFlags::IN));
        }
        if let Some(target) = self.target.as_ref().filter(|_| self.start < self.end) {
            events.push(Event::Target);
            files.push(PollFd::new(target, PollFlags::OUT));
        }
        for (which, party) in [(Which::Send, &self.send), (Which::Receive, &self.receive)] {
            if let Some(pipe) = &party.complaint.pipe {
                events.push(Event::Complaint(which));
                files.push(PollFd::new(pipe, PollFlags::IN));
            }
            if let Some(child) = &party.child {
                events.push(Event::End(which));
                files.push(PollFd::from_borrowed_fd(child.pidfd().as_fd(), PollFlags::IN));
            }
        }
        poll_for(&mut files, patience)?;
        let ready = files.iter().map(|file| !file.revents().is_empty());
        Ok(events
            .into_iter()
            .zip(ready)
            .filter_map(|(event, ready)| ready.then_some(event))
            .collect())
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(source) = &mut self.source else { return Ok(()) };
        match source.read(&mut self.buffer[self.end..]) {
            Ok(0) => self.source = None,
            Ok(_) if self.target.is_none() => self.give_up(),
            Ok(read) => {
                self.end += read;
                self.last_move = Instant::now();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(target) = &mut self.target else { return Ok(()) };
        match target.write(&self.buffer[self.start..self.end]) {
            Ok(written) => {
                self.start += written;
                self.moved += written as u64;
                self.last_move = Instant::now();
                if self.start == self.end {
                    (self.start, self.end) = (0, 0);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                io::ErrorKind::BrokenPipe => self.give_up(),
                _ => return Err(error),
            },
        }
        Ok(())
    }

    /// `zfs receive` knows the end of a stream from its last record and does not wait for the
    /// sender to close it: that is no error as long as nothing more comes.
    fn receiver_ended(&mut self) {
        let well = self.receive.code == Some(Some(0)) && self.start == self.end;
        if well { self.target = None } else { self.give_up() }
    }

    /// The receiver takes no more: what it said and its exit code are still to come, the sender has
    /// nobody left to send to.
    fn give_up(&mut self) {
        (self.source, self.target) = (None, None);
        (self.start, self.end) = (0, 0);
        if let Some(child) = &self.send.child {
            child.kill();
        }
    }

    const fn party(&mut self, which: Which) -> &mut Party<'a> {
        match which {
            Which::Send => &mut self.send,
            Which::Receive => &mut self.receive,
        }
    }

    /// The side that everything waits for, if it is for too long.
    fn stalled(&self) -> Option<Which> {
        let empty = self.start == self.end;
        let sender_is_due = (self.source.is_some() && empty) || self.receive.code.is_some();
        let (which, patience) = if sender_is_due {
            (Which::Send, self.send.patience)
        } else {
            (Which::Receive, self.receive.patience)
        };
        (self.last_move.elapsed() >= patience).then_some(which)
    }

    fn finish(self, send: Side<'_>, receive: Side<'_>) -> Result<u64, ZfsError> {
        if self.send.code == Some(Some(0)) && self.receive.code == Some(Some(0)) {
            return Ok(self.moved);
        }
        Err(self.broken(send, receive, None))
    }

    fn broken(self, send: Side<'_>, receive: Side<'_>, stalled: Option<Which>) -> ZfsError {
        let bytes = self.moved;
        let ending = |which: Which, party: Party<'_>| Ending {
            code: party.code.flatten(),
            stalled: (stalled == Some(which)).then_some(party.patience),
            stderr: shorten_lines(
                &String::from_utf8_lossy(&party.complaint.bytes),
                COMPLAINT_LINES,
            ),
        };
        ZfsError::Stream(Box::new(BrokenStream {
            send: send.0.describe(send.1),
            send_end: ending(Which::Send, self.send),
            receive: receive.0.describe(receive.1),
            receive_end: ending(Which::Receive, self.receive),
            bytes,
        }))
    }
}

/// What can be done without waiting.
#[derive(Clone, Copy)]
enum Event {
    Source,
    Target,
    Complaint(Which),
    End(Which),
}

impl<'a> Party<'a> {
    fn start(
        side: Side<'a>,
        connect: impl FnOnce(duct::Expression) -> duct::Expression,
    ) -> Result<Self, ZfsError> {
        let (zfs, command) = side;
        let (program, arguments) = zfs.invocation(command)?;
        let start = || {
            let (complaint, complaint_of_child) = io::pipe()?;
            let expression = connect(Children::expression(&program, &arguments, None));
            let child = zfs.children().start(expression.stderr_file(complaint_of_child))?;
            Ok((child, complaint))
        };
        let (child, complaint) = start().map_err(|failure| zfs.failure(command, failure))?;
        Ok(Self {
            child: Some(child),
            code: None,
            complaint: Sink::new(complaint, MAX_COMPLAINT),
            patience: zfs.limit(command),
        })
    }

    fn reap(&mut self) -> io::Result<()> {
        if let Some(child) = self.child.take() {
            self.code = Some(child.reap()?);
        }
        Ok(())
    }
}
