//! Flows in order of start, ready to be given a slot.

use std::collections::VecDeque;
use std::sync::Arc;

use ns_model_format::FlowRate;
use ns_model_format::Value;
use ns_model_format::arrival::{ArrivalProcess, Starts};

use crate::common::Common;
use crate::decode::{AttributeDecoder, Scales};
use crate::draw::{Distinct, Drawer, Wanted};
use crate::error::RuntimeError;
use crate::form::Form;
use crate::given::GivenFlows;
use crate::networks::Networks;
use crate::shared::Shared;
use crate::stages::{Stage, timed};
use crate::timeline::Key;

/// Flows prepared at once: few at first, so that the first record leaves soon.
pub(crate) const FIRST_BATCH: usize = 16;
const LARGEST_BATCH: usize = 1024;

/// Flows prepared after so many.
pub(crate) fn next_batch(batch: usize) -> usize {
    (batch * 4).min(LARGEST_BATCH)
}

/// When flows start, and which of them are whose.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    starts: Starts,
    /// Starts come so many times as dense as trained.
    rate: FlowRate,
    /// Of so many workers, this is number `worker`.
    workers: u64,
    worker: u64,
    /// Flows with a smaller number are generated.
    end_flow: u64,
    /// Flows that start before are generated.
    end_ns: u64,
    next: Key,
    /// Flows that may say themselves when they start.
    given: Option<Arc<GivenFlows>>,
}

impl Arrivals {
    /// Flow 0 starts at 0, or where a silence ends that the span begins with. All workers
    /// step the same sequence, which is cheap, and pick.
    pub(crate) fn new(
        process: ArrivalProcess,
        seed: u64,
        rate: FlowRate,
        (worker, workers): (u64, u64),
        (end_flow, end_ns): (u64, u64),
    ) -> Arrivals {
        let mut starts = process.starts(seed, rate);
        let next = Key { time_ns: starts.next().unwrap_or(u64::MAX), flow: 0 };
        let mut arrivals =
            Arrivals { starts, rate, workers, worker, end_flow, end_ns, next, given: None };
        arrivals.skip_others();
        arrivals
    }

    /// The same with the starts of given flows, where these have any.
    pub(crate) fn of_given(mut self, given: Option<&Arc<GivenFlows>>) -> Arrivals {
        let span_ns = self.starts.span_ns();
        if given.is_some_and(|given| given.start_ns(0, span_ns).is_some()) {
            self.given = given.cloned();
            self.next = Key { time_ns: 0, flow: 0 };
            self.skip_others();
        }
        self
    }

    /// Start and number of the next flow.
    pub(crate) fn peek(&self) -> Option<Key> {
        let Key { time_ns, flow } = self.next;
        (flow < self.end_flow && time_ns < self.end_ns).then_some(self.next)
    }

    /// Takes the next flow.
    pub(crate) fn take(&mut self) -> Option<Key> {
        let taken = self.peek()?;
        self.step();
        self.skip_others();
        Some(taken)
    }

    /// The number of the next flow, or of the first that is not generated.
    pub(crate) fn next_flow(&self) -> u64 {
        self.next.flow
    }

    /// Passes over the flows with smaller numbers.
    fn skip_to(&mut self, flow: u64) {
        while self.peek().is_some_and(|next| next.flow < flow) {
            self.take();
        }
    }

    fn skip_others(&mut self) {
        while self.next.flow % self.workers != self.worker && self.peek().is_some() {
            self.step();
        }
    }

    fn step(&mut self) {
        let flow = self.next.flow + 1;
        let span_ns = self.starts.span_ns();
        let given = self.given.as_ref().and_then(|given| given.start_ns(flow, span_ns));
        let time_ns = match given {
            Some(given_ns) => self.rate.start_ns(given_ns),
            // No flow starts after time has come to its end.
            None => self.starts.next().unwrap_or(u64::MAX),
        };
        self.next = Key { time_ns, flow };
    }
}

/// A flow that waits for a slot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// Its start and number.
    pub(crate) key: Key,
    /// Its start's place in its chunk.
    pub(crate) position: f32,
    /// The attribute fields, decoded.
    pub(crate) values: Vec<Value>,
    /// What its steps are given.
    pub(crate) gates: Box<[f32]>,
    /// Whether it goes on after its first segment.
    pub(crate) goes_on: bool,
    /// Later chunks that it goes on in.
    pub(crate) later_chunks: Box<[u32]>,
    /// For a flow that goes on, its attributes made discrete: the gates of what
    /// follows come from them.
    pub(crate) attributes: Option<Box<[f32]>>,
    /// Bounds of the measurements that are on the flow's own scale.
    pub(crate) scales: Scales,
}

/// Runs the attribute networks, batch by batch.
pub(crate) struct Batcher {
    shared: Arc<Shared>,
    decoder: AttributeDecoder,
    drawer: Drawer,
    chunk: usize,
    keys: Vec<Key>,
    condition: Vec<f32>,
    rows: Vec<f32>,
    gates: Vec<f32>,
}

impl Batcher {
    /// `forms` has at least one.
    pub(crate) fn new(shared: Arc<Shared>, forms: &[Form], drawer: Drawer) -> Batcher {
        Batcher {
            decoder: forms[0].attribute_decoder(&shared.schema),
            shared,
            drawer,
            chunk: 0,
            keys: Vec::new(),
            condition: Vec::new(),
            rows: Vec::new(),
            gates: Vec::new(),
        }
    }

    /// Takes up to `batch` flows that start in one chunk, that of the next flow.
    pub(crate) fn claim(&mut self, arrivals: &mut Arrivals, batch: usize) {
        let shared = &self.shared;
        self.keys.clear();
        self.condition.clear();
        let Some(next) = arrivals.peek() else { return };
        let chunk = shared.chunk_of(next.time_ns);
        self.chunk = chunk;
        while self.keys.len() < batch
            && arrivals.peek().is_some_and(|key| shared.chunk_of(key.time_ns) == chunk)
            && let Some(key) = arrivals.take()
        {
            self.keys.push(key);
            let position = shared.position(chunk, key.time_ns);
            shared.schema.write_condition(position, true, true, &mut self.condition);
            self.drawer.write_forced(key.flow, &mut self.condition);
        }
    }

    /// Draws the attributes of the flows taken; those that cannot be drawn are left out.
    pub(crate) fn draw<N: Networks>(&mut self, networks: &mut N) -> Result<(), RuntimeError> {
        let Batcher { keys, condition, rows, .. } = self;
        let wanted = Wanted { keys, condition, rows };
        self.drawer.draw(networks, &mut self.decoder, self.chunk, wanted)
    }

    /// Draws those again that are like an earlier flow.
    pub(crate) fn make_distinct<N: Networks>(
        &mut self,
        networks: &mut N,
        distinct: &mut Distinct,
    ) -> Result<(), RuntimeError> {
        let Batcher { keys, condition, rows, .. } = self;
        let wanted = Wanted { keys, condition, rows };
        self.drawer.make_distinct(networks, &mut self.decoder, wanted, distinct)
    }

    /// Appends the flows drawn to `ready`.
    pub(crate) fn finish<N: Networks>(
        &mut self,
        networks: &mut N,
        ready: &mut impl Extend<Prepared>,
    ) -> Result<(), RuntimeError> {
        let chunk = self.chunk;
        let count = self.keys.len();
        if count == 0 {
            return Ok(());
        }
        let width = self.rows.len() / count;
        let shared = &self.shared;
        let mut later_chunks = Vec::with_capacity(count);
        for row in self.rows.chunks_exact_mut(width) {
            later_chunks.push(shared.tags.later_chunks(chunk, |at| shared.receives(at), row));
        }
        let Batcher { rows, condition, gates, .. } = self;
        timed(Stage::Gates, || networks.gates(count, rows, condition, gates))?;
        let gates = self.gates.chunks_exact(self.gates.len() / count);
        let conditions = self.condition.chunks_exact(self.condition.len() / count);
        let rows = self.rows.chunks_exact(width).zip(gates).zip(conditions);
        let starts = self.keys.iter().zip(later_chunks);
        ready.extend(starts.zip(rows).map(|((&key, later_chunks), ((row, gates), condition))| {
            let goes_on = shared.tags.goes_on(row);
            let mut values = self.decoder.decode(row);
            self.drawer.keep_given(key.flow, &mut values);
            Prepared {
                key,
                position: condition[0],
                values,
                gates: gates.into(),
                goes_on,
                attributes: (goes_on || !later_chunks.is_empty()).then(|| row.into()),
                later_chunks,
                scales: self.decoder.scales(row),
            }
        }));
        Ok(())
    }
}

/// Who draws a worker's flows.
pub(crate) enum Draws {
    Own,
    /// All together; this is worker number so.
    Common(Arc<Common>, usize),
}

/// Runs the attribute networks ahead of the slots.
pub(crate) struct Preparer {
    arrivals: Arrivals,
    shared: Arc<Shared>,
    draws: Draws,
    batcher: Batcher,
    batch: usize,
    ready: VecDeque<Prepared>,
    /// The chunk of those that are ready.
    chunk: usize,
}

impl Preparer {
    pub(crate) fn new(
        arrivals: Arrivals,
        shared: Arc<Shared>,
        draws: Draws,
        batcher: Batcher,
    ) -> Preparer {
        let (batch, ready) = (FIRST_BATCH, VecDeque::new());
        Preparer { arrivals, shared, draws, batcher, batch, ready, chunk: 0 }
    }

    /// Start and number of the next flow, and the chunk it starts in; no other
    /// flow is before it.
    pub(crate) fn peek(&self) -> Option<(Key, usize)> {
        let ready = self.ready.front().map(|flow| (flow.key, self.chunk));
        ready.or_else(|| self.arrivals.peek().map(|key| (key, self.shared.chunk_of(key.time_ns))))
    }

    /// Takes the next flow; `networks` are those of its chunk.
    pub(crate) fn take<N: Networks>(
        &mut self,
        networks: &mut N,
    ) -> Result<Option<Prepared>, RuntimeError> {
        // None of a batch may be drawn where there are conditions; the next
        // flow may then start in another chunk, which has other networks.
        let Some((_, chunk)) = self.peek() else { return Ok(None) };
        while self.ready.is_empty() && self.peek().is_some_and(|(_, next)| next == chunk) {
            self.chunk = chunk;
            timed(Stage::Flows, || self.prepare(networks))?;
        }
        Ok(self.ready.pop_front())
    }

    /// The next batch.
    fn prepare<N: Networks>(&mut self, networks: &mut N) -> Result<(), RuntimeError> {
        let Preparer { arrivals, draws, batcher, batch, ready, .. } = self;
        match draws {
            Draws::Own => {
                batcher.claim(arrivals, *batch);
                *batch = next_batch(*batch);
                batcher.draw(networks)?;
                batcher.finish(networks, ready)?;
            }
            Draws::Common(common, worker) => {
                let end = common.fetch(*worker, batcher, networks, ready)?;
                arrivals.skip_to(end);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(worker: (u64, u64), ends: (u64, u64)) -> Vec<Key> {
        let starts: Vec<u64> = (0..200).map(|i| i * i * 1_000).collect();
        let process = ArrivalProcess::fit(&starts, 40_000_000);
        let mut arrivals = Arrivals::new(process, 5, 1.0.into(), worker, ends);
        std::iter::from_fn(|| arrivals.take()).collect()
    }

    #[test]
    fn flows_start_in_order_from_zero() {
        let all = arrivals((0, 1), (1_000, u64::MAX));
        assert_eq!(all[0], Key { time_ns: 0, flow: 0 });
        assert_eq!(all.len(), 1_000);
        assert!(all.is_sorted());
        assert!(all.iter().enumerate().all(|(index, key)| key.flow == index as u64));
    }

    #[test]
    fn workers_share_the_flows_out() {
        let all = arrivals((0, 1), (500, u64::MAX));
        let mut shared: Vec<Key> =
            (0..3).flat_map(|worker| arrivals((worker, 3), (500, u64::MAX))).collect();
        shared.sort();
        assert_eq!(shared, all);
    }

    #[test]
    fn both_ends_end_the_flows() {
        let all = arrivals((0, 1), (u64::MAX, 80_000_000));
        assert_eq!(all.len(), 400);
        assert!(all.iter().all(|key| key.time_ns < 80_000_000));
        assert_eq!(arrivals((0, 1), (7, 80_000_000)), all[..7]);
        assert!(arrivals((0, 1), (0, 80_000_000)).is_empty());
    }

    #[test]
    fn a_higher_rate_makes_starts_denser() {
        let process = ArrivalProcess::fit(&[0, 1_000, 2_000, 3_000], 4_000);
        let mut arrivals = Arrivals::new(process, 0, 4.0.into(), (0, 1), (u64::MAX, u64::MAX));
        let starts: Vec<u64> = (0..64).map(|_| arrivals.take().unwrap().time_ns).collect();
        // Sixteen in every 4,000, instead of four.
        let rounds: Vec<u64> = starts.iter().map(|start| start / 4_000).collect();
        assert!(rounds.chunks(16).zip(0..).all(|(round, at)| round == [at; 16]), "{starts:?}");
    }
}
