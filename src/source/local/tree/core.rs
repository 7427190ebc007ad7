//! The state of a stream, and the jobs that move it on.
//!
//! It is a short queue of segments, and three kinds of job: *plan* the next segment, *fill* one,
//! *hash* the next in order. Any thread of the pool may do any job, but only one plans and only one
//! hashes at a time. Whatever ends a job or takes a chunk sees which jobs have become possible and
//! hands out leave for them; nobody ever waits for another.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::TreeError;
use super::fill::fill;
use super::plan::{Planned, Planner, Segment};
use super::pool::Shared;
use super::stream::Expected;
use crate::nix::hash::Hasher;

/// What consumer and threads share.
pub(super) struct Core {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

struct State {
    expected: Option<Expected>,
    /// Absent while a thread plans, and after the end of the plan.
    planner: Option<Box<Planner>>,
    plan_ended: bool,
    /// Planned, and not yet taken to be filled.
    planned: VecDeque<Segment>,
    /// What is being filled or is filled and has not been given out, in order.
    window: VecDeque<Slot>,
    /// How many slots have been given out before the first in `window`.
    given_out: u64,
    /// How many slots at the front of `window` are hashed, or need not be.
    ready: usize,
    /// Absent while a thread hashes, and if there is nothing to compare with.
    hasher: Option<Hasher>,
    /// The hash is right, or is not asked for.
    verified: bool,
    failed: Option<TreeError>,
    /// Nothing more will come: the end was given out, or an error, or the consumer is gone.
    over: bool,
    /// Leave for jobs that no thread has taken up yet.
    queued: usize,
    waker: Option<Waker>,
}

enum Slot {
    Filling,
    Filled(Bytes),
}

enum Job {
    Plan(Box<Planner>),
    Fill(Segment, u64),
    Hash(Hasher, Bytes),
}

/// How many segments may be planned ahead of the reading: the metadata of a cold disk comes one by
/// one, so the walk should not stop while contents are read.
const PLAN_AHEAD: usize = 16;
/// How many segments may be in memory, being filled or waiting for the consumer: 2.1 MiB.
const WINDOW: usize = 8;
/// How many jobs a thread does for a stream before it looks after others.
const JOBS_IN_A_ROW: usize = 8;

impl Core {
    /// A stream at its beginning, with leave for its first job.
    pub(super) fn start(
        shared: &Arc<Shared>,
        planner: Planner,
        expected: Option<Expected>,
    ) -> Arc<Self> {
        let core = Arc::new(Core {
            shared: shared.clone(),
            state: Mutex::new(State {
                expected,
                planner: Some(Box::new(planner)),
                plan_ended: false,
                planned: VecDeque::new(),
                window: VecDeque::with_capacity(WINDOW),
                given_out: 0,
                ready: 0,
                hasher: expected.map(|_| Hasher::default()),
                verified: expected.is_none(),
                failed: None,
                over: false,
                queued: 0,
                waker: None,
            }),
        });
        core.hand_out(core.lock());
        core
    }

    /// Gives the next chunk to the consumer, of which there is only one.
    pub(super) fn poll(
        self: &Arc<Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TreeError>>> {
        let mut state = self.lock();
        if state.over {
            return Poll::Ready(None);
        }
        if let Some(error) = state.failed.clone() {
            self.end(state);
            return Poll::Ready(Some(Err(error)));
        }
        if state.may_give_out()
            && let Some(Slot::Filled(bytes)) = state.window.pop_front()
        {
            state.given_out += 1;
            state.ready -= 1;
            self.hand_out(state);
            return Poll::Ready(Some(Ok(bytes)));
        }
        if state.is_complete() && state.verified {
            self.end(state);
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// The consumer is gone.
    pub(super) fn abandon(&self) {
        self.end(self.lock());
    }

    /// Does some jobs, as a thread of the pool that was given leave.
    pub(super) fn work(self: Arc<Self>) {
        let done = catch_unwind(AssertUnwindSafe(|| self.work_on()));
        if done.is_err() {
            self.fail(TreeError::ReaderFailed);
        }
    }

    fn work_on(self: &Arc<Self>) {
        let mut state = self.lock();
        state.queued -= 1;
        for _ in 0..JOBS_IN_A_ROW {
            let Some(job) = state.take_job() else { return };
            // The others may be done by other threads meanwhile.
            self.hand_out(state);
            if let Err(error) = self.run(job) {
                return self.fail(error);
            }
            state = self.lock();
            self.wake(&mut state);
        }
        self.hand_out(state);
    }

    fn run(&self, job: Job) -> Result<(), TreeError> {
        match job {
            Job::Plan(mut planner) => {
                let planned = planner.next()?;
                let mut state = self.lock();
                match planned {
                    Planned::Segment(segment) => state.planned.push_back(segment),
                    Planned::Nothing => {}
                    Planned::End(segment) => {
                        state.planned.extend(segment);
                        state.plan_ended = true;
                    }
                }
                if !state.plan_ended && !state.over {
                    state.planner = Some(planner);
                }
            }
            Job::Fill(segment, number) => {
                let mut buffer = self.shared.buffers.take();
                fill(&segment, &mut buffer)?;
                let bytes = Bytes::from_owner(buffer);
                let mut state = self.lock();
                let index = usize::try_from(number - state.given_out).unwrap_or(usize::MAX);
                if let Some(slot) = state.window.get_mut(index) {
                    *slot = Slot::Filled(bytes);
                }
                state.advance_unhashed();
            }
            Job::Hash(mut hasher, bytes) => {
                hasher.update(&bytes);
                let mut state = self.lock();
                state.ready += 1;
                state.hasher = Some(hasher);
            }
        }
        self.lock().verify()
    }

    /// Hands out leave for every job that is possible and has none. The lock is let go.
    fn hand_out(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let new = state.possible_jobs().saturating_sub(state.queued);
        state.queued += new;
        drop(state);
        for _ in 0..new {
            self.shared.submit(self.clone());
        }
    }

    fn wake(&self, state: &mut State) {
        let due = state.failed.is_some() || state.may_give_out() || state.is_complete();
        if due && let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn fail(&self, error: TreeError) {
        let mut state = self.lock();
        state.failed.get_or_insert(error);
        self.wake(&mut state);
    }

    /// Lets go of everything.
    fn end(&self, mut state: MutexGuard<'_, State>) {
        state.over = true;
        let rubbish = (
            state.planner.take(),
            std::mem::take(&mut state.planned),
            std::mem::take(&mut state.window),
            state.waker.take(),
        );
        state.ready = 0;
        // Closing files may take time, and buffers have a lock of their own.
        drop(state);
        drop(rubbish);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_job(&mut self) -> Option<Job> {
        if self.over || self.failed.is_some() {
            return None;
        }
        // Only one thread can plan, and all others live on it.
        if self.planned.len() < 2
            && let Some(planner) = self.planner.take()
        {
            return Some(Job::Plan(planner));
        }
        if let Some(Slot::Filled(bytes)) = self.window.get(self.ready)
            && let Some(hasher) = self.hasher.take()
        {
            return Some(Job::Hash(hasher, bytes.clone()));
        }
        if self.window.len() < WINDOW
            && let Some(segment) = self.planned.pop_front()
        {
            self.window.push_back(Slot::Filling);
            let number = self.given_out + self.window.len() as u64 - 1;
            return Some(Job::Fill(segment, number));
        }
        if self.planned.len() < PLAN_AHEAD
            && let Some(planner) = self.planner.take()
        {
            return Some(Job::Plan(planner));
        }
        None
    }

    /// How many threads could begin a job now.
    fn possible_jobs(&self) -> usize {
        if self.over || self.failed.is_some() {
            return 0;
        }
        let plan = self.planner.is_some() && self.planned.len() < PLAN_AHEAD;
        let hash =
            self.hasher.is_some() && matches!(self.window.get(self.ready), Some(Slot::Filled(_)));
        let fill = self.planned.len().min(WINDOW.saturating_sub(self.window.len()));
        usize::from(plan) + usize::from(hash) + fill
    }

    /// Without a hash to compare with, what is filled is ready.
    fn advance_unhashed(&mut self) {
        if self.expected.is_none() {
            while let Some(Slot::Filled(_)) = self.window.get(self.ready) {
                self.ready += 1;
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.plan_ended && self.planned.is_empty() && self.window.len() == self.ready
    }

    /// Compares hash and size once everything is hashed.
    fn verify(&mut self) -> Result<(), TreeError> {
        if self.verified || !self.is_complete() {
            return Ok(());
        }
        let (Some(expected), Some(hasher)) = (self.expected, self.hasher.take()) else {
            return Ok(());
        };
        let (got, size) = hasher.finish();
        if size != expected.nar_size {
            return Err(TreeError::SizeMismatch { expected: expected.nar_size, got: size });
        }
        if got != expected.nar_hash {
            return Err(TreeError::HashMismatch { expected: expected.nar_hash, got });
        }
        self.verified = true;
        Ok(())
    }

    /// The last chunk waits until everything is verified; any other needs another behind it.
    fn may_give_out(&self) -> bool {
        self.ready > 1 || (self.ready == 1 && self.is_complete() && self.verified)
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Core")
    }
}
