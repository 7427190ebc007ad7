//! Standard error where each request is a line: lines wait in memory for a thread that writes many at once, so that no
//! request waits for whoever reads the log.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line waits for others, so that a write is for many.
const PAUSE: Duration = Duration::from_millis(10);
/// How much may wait, in bytes. What comes when it is full is not written, and counted: some ten thousand lines in the
/// time of one write are of a log that nobody reads.
const MOST: usize = 4 << 20;

/// Lines that wait. The last of them are written when this is dropped.
pub(in crate::cli) struct Waiting(Arc<Lines<io::Stderr>>);

impl Waiting {
    /// `None` where the system has no thread left; lines are then written one by one.
    pub(super) fn start() -> Option<Self> {
        let lines = Arc::new(Lines::to(io::stderr()));
        let writing = Arc::clone(&lines);
        thread::Builder::new().name("log".into()).spawn(move || writing.write_for_ever()).ok()?;
        Some(Self(lines))
    }

    /// For `tracing_subscriber`.
    pub(super) fn writer(&self) -> ToLines<io::Stderr> {
        ToLines(Arc::clone(&self.0))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Where standard error is gone there is nobody to tell.
        let _gone = self.0.write_out(b"");
    }
}

struct Lines<W> {
    held: Mutex<Held>,
    some: Condvar,
    /// Locked before `held` by whoever locks both, and never while a request waits.
    out: Mutex<Out<W>>,
}

struct Out<W> {
    to: W,
    /// What was written last, emptied, with its room: it changes places with what waits.
    spare: Vec<u8>,
}

#[derive(Default)]
struct Held {
    text: Vec<u8>,
    /// Lines for which there was no room.
    lost: u64,
}

impl<W: Write> Lines<W> {
    fn to(out: W) -> Self {
        Self {
            held: Mutex::default(),
            some: Condvar::new(),
            out: Mutex::new(Out { to: out, spare: Vec::new() }),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it written soon.
    fn add(&self, line: &[u8]) {
        let mut held = self.held();
        if held.text.len() + line.len() > MOST {
            held.lost += 1;
            return;
        }
        let is_first = held.text.is_empty();
        held.text.extend_from_slice(line);
        drop(held);
        if is_first {
            self.some.notify_one();
        }
    }

    /// Writes what waits, and then `line`; gives back how many lines were lost.
    fn write_out(&self, line: &[u8]) -> io::Result<u64> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Out { to, spare } = &mut *out;
        spare.clear();
        let lost = {
            let mut held = self.held();
            mem::swap(&mut held.text, spare);
            mem::take(&mut held.lost)
        };
        to.write_all(spare)?;
        to.write_all(line)?;
        Ok(lost)
    }

    fn write_for_ever(&self) {
        loop {
            drop(
                self.some
                    .wait_while(self.held(), |held| held.text.is_empty())
                    .unwrap_or_else(PoisonError::into_inner),
            );
            thread::sleep(PAUSE);
            // Lines that could not be written are as lost as those that had no room, but cannot be told of.
            let lost = self.write_out(b"").unwrap_or(0);
            if lost > 0 {
                tracing::warn!(
                    lost,
                    "lines of requests were not written: what reads the log is too slow"
                );
            }
        }
    }
}

/// What somebody should look at is written at once, after all that was said before; the rest waits.
pub(super) struct ToLines<W>(Arc<Lines<W>>);

impl<'a, W: Write + 'a> MakeWriter<'a> for ToLines<W> {
    type Writer = ToLine<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        ToLine { lines: &self.0, at_once: true }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        ToLine { lines: &self.0, at_once: *metadata.level() <= Level::WARN }
    }
}

/// Takes a whole line in one write, as `tracing_subscriber` gives it.
pub(super) struct ToLine<'a, W> {
    lines: &'a Lines<W>,
    at_once: bool,
}

impl<W: Write> Write for ToLine<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.at_once {
            let lost = self.lines.write_out(line)?;
            self.lines.held().lost += lost;
        } else {
            self.lines.add(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(lines: &Lines<Vec<u8>>, line: &str, at_once: bool) {
        ToLine { lines, at_once }.write_all(line.as_bytes()).unwrap();
    }

    fn written(lines: &Lines<Vec<u8>>) -> String {
        String::from_utf8(lines.out.lock().unwrap().to.clone()).unwrap()
    }

    #[test]
    fn what_somebody_should_look_at_is_written_at_once_and_in_its_place() {
        let lines = Lines::to(Vec::new());
        write(&lines, "one\n", false);
        assert_eq!(written(&lines), "");
        write(&lines, "two\n", true);
        write(&lines, "three\n", false);
        assert_eq!(written(&lines), "one\ntwo\n");
        assert_eq!(lines.write_out(b"").unwrap(), 0);
        assert_eq!(written(&lines), "one\ntwo\nthree\n");
    }

    #[test]
    fn what_has_no_room_is_counted_and_told_whoever_writes_next() {
        let lines = Lines::to(Vec::new());
        let line = "x".repeat(MOST / 4);
        for _ in 0..6 {
            write(&lines, &line, false);
        }
        assert_eq!(lines.held().text.len(), MOST);
        write(&lines, "!\n", true);
        assert_eq!(written(&lines).len(), MOST + 2);
        assert_eq!(lines.held().lost, 2, "for the thread to tell");
        assert_eq!(lines.write_out(b"").unwrap(), 2);
        assert_eq!(lines.held().lost, 0);
    }

    #[test]
    fn the_thread_writes_what_waits_without_another_to_come() {
        let lines = Arc::new(Lines::to(Vec::new()));
        let writing = Arc::clone(&lines);
        // It ends with the process of the tests.
        thread::spawn(move || writing.write_for_ever());
        for number in 0..3 {
            write(&lines, &format!("{number}\n"), false);
            while !written(&lines).ends_with(&format!("{number}\n")) {
                thread::yield_now();
            }
        }
        assert_eq!(written(&lines), "0\n1\n2\n");
    }
}
