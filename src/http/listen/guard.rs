//! The connection as hyper sees it: with deadlines, and, of HTTP/1, with heads looked at before they are
//! parsed.
//!
//! hyper has one timer, `header_read_timeout`, and it counts from the end of the last answer: it
//! cannot give an idle connection 75 s and a head that has begun 10 s, and it allocates a timer for
//! each request. So it is off, and the deadlines are here:
//!
//! | while | at most | then |
//! |---|---|---|
//! | no request yet, or a head has begun | `head` | closed |
//! | idle between two requests | `idle` | closed |
//! | an answer is to be sent and the socket takes no byte | `stall` | reset |
//! | HTTP/2: all answers wait for the peer to take more | `stall` | reset |
//! | a request is worked on | no limit here | |
//!
//! Timers are lazy: moving a deadline writes one `Instant`, and the runtime's timer is touched only
//! when an earlier one fires. A connection under load costs one clock reading a request.
//!
//! The time of a pipelined head counts from its first byte, even while the answer before it is still
//! being sent; that cuts nobody who has sent the rest, because the deadline is looked at only where a
//! read finds nothing.
//!
//! Slow is not still: the kernel is told to take little ahead of the peer (`socket.rs`), so a download
//! that moves at 4 KiB/s makes progress here at least every 30 s. A peer that closes its window for
//! longer than the stall timeout cannot be told from one that is gone; the kernel's TCP_USER_TIMEOUT
//! says the same.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::ConnectionStats;
use super::head::HeadScanner;
use super::socket::Transport;
use super::track::Progress;

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) stall: Duration,
}

/// A connection that gives up on peers that do not move.
pub(super) struct Guard<T: Transport> {
    transport: T,
    deadlines: Deadlines,
    stats: Arc<ConnectionStats>,
    progress: Arc<Progress>,
    /// Of HTTP/1 alone: in HTTP/2 there is nothing that a head could be taken for.
    scanner: Option<HeadScanner>,
    /// What is left to say to hyper in place of a head that must not be parsed.
    poison: Option<&'static [u8]>,
    /// When the first byte of an unfinished head came.
    head_since: Option<Instant>,
    /// When a byte was last written; before that, when the connection was accepted.
    active: Instant,
    /// Whether anything was ever written.
    answered: bool,
    /// Since when the socket has taken no byte, while there is one to write.
    blocked_since: Option<Instant>,
    /// How much the socket had taken when that was last looked at.
    written: u64,
    /// How much was read and thrown away after the last answer, and until when it goes on.
    lingering: Option<(Instant, usize)>,
    read_timer: Timer,
    write_timer: Timer,
}

/// Bytes that hyper answers with 400 wherever in a head they stand: a zero byte is allowed nowhere,
/// and the empty line makes it look.
const POISON: &[u8] = b"\0\r\n\r\n";

/// How long, and how much, to read on after the last answer. Closing with unread bytes resets the
/// connection, and the reset can overtake the answer that says why.
pub(super) const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 << 20;

impl<T: Transport> Guard<T> {
    /// `scanner` looks at heads, where there are some.
    pub(super) fn new(
        transport: T,
        scanner: Option<HeadScanner>,
        deadlines: Deadlines,
        stats: Arc<ConnectionStats>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            written: transport.socket().written(),
            transport,
            deadlines,
            stats,
            progress,
            scanner,
            poison: None,
            head_since: None,
            active: Instant::now(),
            answered: false,
            blocked_since: None,
            lingering: None,
            read_timer: Timer::default(),
            write_timer: Timer::default(),
        }
    }

    /// Looks at what was read into `buffer` after `before`.
    fn look(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let Some(scanner) = &mut self.scanner else { return };
        let scanned = scanner.scan(&buffer.filled()[before..]);
        let in_head = scanner.in_head();
        if let Err((at, fault)) = scanned {
            tracing::debug!(%fault, "refused a request head");
            self.stats.malformed.fetch_add(1, Relaxed);
            buffer.set_filled(before + at);
            self.poison = Some(POISON);
            self.put_poison(buffer);
        }
        self.head_since = match in_head {
            true => self.head_since.or_else(|| Some(Instant::now())),
            false => None,
        };
    }

    /// Passes on as much of the poison as fits. Once it is passed on whole, the read looks like an
    /// end of file: nothing after a bad head is ever parsed.
    fn put_poison(&mut self, buffer: &mut ReadBuf<'_>) {
        if let Some(poison) = &mut self.poison {
            let (now, later) = poison.split_at(poison.len().min(buffer.remaining()));
            buffer.put_slice(now);
            *poison = later;
        }
    }

    /// What a read that found nothing comes to: wait, or give up.
    fn wait_for_bytes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.progress.is_busy() || self.blocked_since.is_some() {
            // Over HTTP/1 what the peer does not take the socket does not take. HTTP/2 has windows of
            // its own above that.
            if self.scanner.is_none() && self.has_stalled() {
                return Poll::Ready(Err(self.give_up()));
            }
            // No deadline now. But hyper does not read again when the answer is done, so a timer
            // must be running already that makes it look once the connection may have become idle.
            let soon =
                if self.scanner.is_none() { self.deadlines.stall } else { self.deadlines.idle };
            self.read_timer.wake_within(context, soon);
            return Poll::Pending;
        }
        let idle = if self.answered { self.deadlines.idle } else { self.deadlines.head };
        let (deadline, counter) = match self.head_since {
            Some(since) => (since + self.deadlines.head, &self.stats.head_timeouts),
            None if self.answered => (self.active + idle, &self.stats.idle_timeouts),
            None => (self.active + idle, &self.stats.head_timeouts),
        };
        ready!(self.read_timer.poll(context, deadline));
        counter.fetch_add(1, Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether every answer has waited for its reader for too long.
    fn has_stalled(&self) -> bool {
        let since = self.progress.waiting_since();
        since.is_some_and(|since| since.elapsed() >= self.deadlines.stall)
    }

    fn give_up(&self) -> io::Error {
        self.stats.stall_timeouts.fetch_add(1, Relaxed);
        self.progress.reset();
        io::ErrorKind::TimedOut.into()
    }

    /// Notes what a write came to, and gives up on a peer that takes nothing.
    fn wrote<R>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        // TLS has a buffer between: what it takes has not gone, and a part of it may have gone though not all.
        let taken = self.transport.socket().written();
        if std::mem::replace(&mut self.written, taken) != taken {
            self.blocked_since = None;
        }
        if let Poll::Ready(result) = written {
            self.answered = true;
            self.active = Instant::now();
            return Poll::Ready(result);
        }
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        ready!(self.write_timer.poll(context, since + self.deadlines.stall));
        Poll::Ready(Err(self.give_up()))
    }

    /// Whether everything that came belongs to whole requests.
    fn is_between(&self) -> bool {
        self.scanner.as_ref().is_none_or(HeadScanner::is_between)
    }

    /// Reads on after the last answer, while something of a request is still on its way.
    fn linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (until, mut taken) = self.lingering.unwrap_or_else(|| (Instant::now() + LINGER, 0));
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.transport).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && taken < LINGER_BYTES => {
                    taken += buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if self.is_between() && taken == 0 => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        self.lingering = Some((until, taken));
        self.read_timer.poll(context, until)
    }
}

impl<T: Transport> AsyncRead for Guard<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.poison.is_some() {
            this.put_poison(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.transport).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                this.look(buffer, before);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.wait_for_bytes(context),
        }
    }
}

impl<T: Transport> AsyncWrite for Guard<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.transport).poll_write(context, bytes);
        this.wrote(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.transport).poll_write_vectored(context, slices);
        this.wrote(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.transport).poll_flush(context) {
            // What TLS has taken and the socket has not waits here, and not in a write.
            Poll::Pending => this.wrote(context, Poll::Pending),
            flushed => {
                this.blocked_since = None;
                flushed
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.transport).poll_shutdown(context))?;
        }
        ready!(this.linger(context));
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> Drop for Guard<T> {
    fn drop(&mut self) {
        if self.progress.is_reset() {
            self.transport.socket().reset_on_close();
        }
    }
}

/// A timer that is made when it is first needed and moved only when it must be.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready once `deadline` has passed; until then the task is woken no later than that.
    fn poll(&mut self, context: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }

    /// Has the task woken once, within `time` from now; an alarm that is set already will do.
    fn wake_within(&mut self, context: &mut Context<'_>, time: Duration) {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        while sleep.as_mut().poll(context).is_ready() {
            sleep.as_mut().reset(Instant::now() + time);
        }
    }
}
