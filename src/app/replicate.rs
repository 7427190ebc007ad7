//! The frame of `snowbank zfs replicate`: one run, or one run after another, until a signal ends it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::AppError;
use crate::client::retry::{Backoff, Stop, random};
use crate::zfs::replicate::{Lock, Outcome, ReplicateError, Replication, Sending, Watcher};

/// How long a stream has, and a command that is being run, to come to a point where the next run goes
/// on.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Who shows how it goes.
pub trait Reporter: Send {
    /// A stream begins.
    fn begin(&mut self, sending: &Sending);
    /// So many bytes of it are sent.
    fn moved(&mut self, bytes: u64);
    /// It is over, however it ended.
    fn end(&mut self);
    /// A run is over.
    fn ran(&mut self, outcome: &Outcome);
    /// A run failed, and another one comes after `wait`.
    fn failed(&mut self, error: &ReplicateError, wait: Duration);
}

/// What is run, and how often.
pub struct Parts {
    /// The replication.
    pub replication: Replication,
    /// Where its lock is.
    pub lock_directory: PathBuf,
    /// From the beginning of one run to that of the next; `None`: once.
    pub every: Option<Duration>,
    /// Who shows it.
    pub reporter: Box<dyn Reporter>,
}

/// Runs until it is done, or a signal comes: then a stream stops where the next run goes on with it. With
/// an interval that is a good end, without one an error.
pub fn run(parts: Parts) -> Result<Result<(), ReplicateError>, AppError> {
    // One thread: all it does is to wait.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AppError::Runtime)?;
    runtime.block_on(obey(parts))
}

async fn obey(mut parts: Parts) -> Result<Result<(), ReplicateError>, AppError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Runtime)?;
    let stop = Arc::new(Stop::default());
    let (end, mut ended) = oneshot::channel();
    let theirs = Arc::clone(&stop);
    let work = move || {
        // Nobody is there to hear it only if the process ends anyhow.
        let _ = end.send(parts.work(&theirs));
    };
    std::thread::Builder::new().name("replicate".into()).spawn(work).map_err(AppError::Runtime)?;
    tokio::select! {
        done = &mut ended => return done.map_err(|_| AppError::ReplicationEnded),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.stop();
    tokio::select! {
        done = &mut ended => done.map_err(|_| AppError::ReplicationEnded),
        // A second one ends it at once; so does time: the children end with their pipes.
        _ = terminate.recv() => Ok(Ok(())),
        _ = interrupt.recv() => Ok(Ok(())),
        () = tokio::time::sleep(STOP_DEADLINE) => Ok(Ok(())),
    }
}

impl Parts {
    fn work(&mut self, stop: &Stop) -> Result<(), ReplicateError> {
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let ran = self.run_once(stop);
            let Some(every) = self.every else { return ran };
            let wait = match ran {
                Ok(()) => {
                    backoff.reset();
                    every.saturating_sub(begun.elapsed())
                }
                Err(_) if stop.is_stopped() => return Ok(()),
                Err(error) => {
                    // What somebody has to look at is not looked at sooner if it is tried more often.
                    let soon = backoff.next(random(), None).min(every);
                    let wait = if error.is_passing() { soon } else { every };
                    self.reporter.failed(&error, wait);
                    wait
                }
            };
            if stop.wait(wait) {
                return Ok(());
            }
        }
    }

    fn run_once(&mut self, stop: &Stop) -> Result<(), ReplicateError> {
        let _lock = Lock::take(&self.lock_directory, self.replication.to())?;
        let mut watching = Watching { reporter: &mut *self.reporter, stop };
        let outcome = self.replication.run(Timestamp::now(), &mut watching)?;
        self.reporter.ran(&outcome);
        Ok(())
    }
}

/// Passes on how a stream goes, and stops it when it is time to.
struct Watching<'a> {
    reporter: &'a mut dyn Reporter,
    stop: &'a Stop,
}

impl Watcher for Watching<'_> {
    fn begin(&mut self, sending: &Sending) {
        self.reporter.begin(sending);
    }

    fn moved(&mut self, bytes: u64) -> ControlFlow<()> {
        self.reporter.moved(bytes);
        if self.stop.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn end(&mut self) {
        self.reporter.end();
    }
}
