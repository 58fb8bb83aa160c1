//! Flows drawn for all workers, where what a flow becomes depends on those before it.
//!
//! Whoever runs out of flows takes a ticket: the next batch of consecutive flows, of the
//! other workers and parts of the run too, so batches are the same for any number of
//! either. It draws them as if they were alone. Then, ticket by ticket, it draws those
//! again that are like an earlier flow, and puts each in its worker's queue. Workers
//! wait for tickets before theirs, no longer than a batch takes, and for nothing else.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::attributes::{Arrivals, Batcher, FIRST_BATCH, Prepared, next_batch};
use crate::draw::Distinct;
use crate::error::RuntimeError;
use crate::networks::Networks;

/// What the workers of a run share while they draw.
pub(crate) struct Common {
    part: (u64, u64),
    state: Mutex<State>,
    /// Told of every ticket that is done with.
    done: Condvar,
}

struct State {
    /// All flows of the run, of all parts.
    arrivals: Arrivals,
    batch: usize,
    /// Tickets given out, and done with.
    claimed: u64,
    committed: u64,
    /// Flows with smaller numbers are in queues, or were.
    end_flow: u64,
    distinct: Distinct,
    /// For each worker, what has been drawn and not fetched.
    queues: Vec<VecDeque<Prepared>>,
    drawn: Vec<Prepared>,
    /// Why no more tickets will be done with.
    failed: Option<RuntimeError>,
}

enum Next {
    /// Flows with smaller numbers have been fetched.
    Fetched(u64),
    /// A ticket, and the first flow after its batch.
    Claimed(u64, u64),
}

impl Common {
    pub(crate) fn new(
        arrivals: Arrivals,
        part: (u64, u64),
        workers: usize,
        distinct: Distinct,
    ) -> Common {
        let state = State {
            arrivals,
            batch: FIRST_BATCH,
            claimed: 0,
            committed: 0,
            end_flow: 0,
            distinct,
            queues: vec![VecDeque::new(); workers],
            drawn: Vec::new(),
            failed: None,
        };
        Common { part, state: Mutex::new(state), done: Condvar::new() }
    }

    /// Appends at least one flow of a worker to `ready`, unless it has no more. Returns a
    /// flow number: those below it have been fetched.
    pub(crate) fn fetch<N: Networks>(
        &self,
        worker: usize,
        batcher: &mut Batcher,
        networks: &mut N,
        ready: &mut VecDeque<Prepared>,
    ) -> Result<u64, RuntimeError> {
        loop {
            match self.next(worker, batcher, ready)? {
                Next::Fetched(end) => return Ok(end),
                Next::Claimed(ticket, end) => {
                    let mut turn = Turn { common: self, worker, over: false };
                    let drawn = self.draw(ticket, end, batcher, networks);
                    turn.over = true;
                    if let Err(error) = drawn {
                        self.fail(again(worker, &error));
                        return Err(error);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked has told so in `failed`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.done.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches what there is, or else takes a ticket.
    fn next(
        &self,
        worker: usize,
        batcher: &mut Batcher,
        ready: &mut VecDeque<Prepared>,
    ) -> Result<Next, RuntimeError> {
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(again(worker, error));
            }
            let State { arrivals, queues, .. } = &mut *state;
            let is_end = arrivals.peek().is_none();
            if !queues[worker].is_empty() || (is_end && state.claimed == state.committed) {
                let State { queues, .. } = &mut *state;
                ready.append(&mut queues[worker]);
                return Ok(Next::Fetched(state.end_flow));
            }
            if is_end {
                state = self.wait(state);
                continue;
            }
            let State { arrivals, batch, claimed, .. } = &mut *state;
            batcher.claim(arrivals, *batch);
            *batch = next_batch(*batch);
            *claimed += 1;
            return Ok(Next::Claimed(*claimed - 1, arrivals.next_flow()));
        }
    }

    fn draw<N: Networks>(
        &self,
        ticket: u64,
        end_flow: u64,
        batcher: &mut Batcher,
        networks: &mut N,
    ) -> Result<(), RuntimeError> {
        batcher.draw(networks)?;
        let mut state = self.lock();
        while state.committed != ticket {
            if let Some(error) = &state.failed {
                return Err(again(0, error));
            }
            state = self.wait(state);
        }
        let State { distinct, drawn, queues, .. } = &mut *state;
        batcher.make_distinct(networks, distinct)?;
        batcher.finish(networks, drawn)?;
        let (part, parts) = self.part;
        for flow in drawn.drain(..).filter(|flow| flow.key.flow % parts == part) {
            let worker = flow.key.flow / parts % queues.len() as u64;
            queues[worker as usize].push_back(flow);
        }
        state.end_flow = end_flow;
        state.committed += 1;
        drop(state);
        self.done.notify_all();
        Ok(())
    }

    /// Tells all that no more tickets will be done with.
    fn fail(&self, error: RuntimeError) {
        self.lock().failed.get_or_insert(error);
        self.done.notify_all();
    }
}

/// A ticket that is being worked on: those after it must not wait for one who panics.
struct Turn<'a> {
    common: &'a Common,
    worker: usize,
    over: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.over {
            let reason = "stopped by a panic".to_owned();
            self.common.fail(RuntimeError::Worker { worker: self.worker, reason });
        }
    }
}

/// One worker's error for another.
fn again(worker: usize, error: &RuntimeError) -> RuntimeError {
    match error {
        RuntimeError::NothingMatches { what, more_tries_may_help } => {
            let (what, more_tries_may_help) = (what.clone(), *more_tries_may_help);
            RuntimeError::NothingMatches { what, more_tries_may_help }
        }
        RuntimeError::Run { file, reason } => {
            RuntimeError::Run { file: file.clone(), reason: reason.clone() }
        }
        RuntimeError::Worker { worker, reason } => {
            RuntimeError::Worker { worker: *worker, reason: reason.clone() }
        }
        other => RuntimeError::Worker { worker, reason: other.to_string() },
    }
}
