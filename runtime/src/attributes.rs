//! Flows in order of start, ready to be given a slot.

use std::collections::VecDeque;
use std::sync::Arc;

use ns_model_format::arrival::ArrivalProcess;
use ns_model_format::manifest::Chunk;
use ns_model_format::random::{Purpose, Stream};
use ns_model_format::{Schema, Value};

use crate::decode::{AttributeDecoder, Scales};
use crate::draw::{Drawer, Wanted};
use crate::error::RuntimeError;
use crate::given::GivenFlows;
use crate::networks::Networks;
use crate::timeline::Key;

/// Flows prepared at once: few at first, so that the first record leaves soon.
const FIRST_BATCH: usize = 16;
const LARGEST_BATCH: usize = 256;

/// When flows start, and which of them are whose.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    process: ArrivalProcess,
    seed: u64,
    /// Starts come so many times as dense as trained.
    rate: f64,
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
    /// Flow 0 starts at 0; each next start follows by a gap keyed by the flow
    /// before. All workers step the same sequence, which is cheap, and pick.
    pub(crate) fn new(
        process: ArrivalProcess,
        seed: u64,
        rate: f64,
        (worker, workers): (u64, u64),
        (end_flow, end_ns): (u64, u64),
    ) -> Arrivals {
        let next = Key { time_ns: 0, flow: 0 };
        let mut arrivals =
            Arrivals { process, seed, rate, workers, worker, end_flow, end_ns, next, given: None };
        arrivals.skip_others();
        arrivals
    }

    /// The same with the starts of given flows, where these have any.
    pub(crate) fn of_given(mut self, given: Option<&Arc<GivenFlows>>) -> Arrivals {
        self.given = given.cloned();
        self.next = Key { time_ns: 0, flow: 0 };
        self.skip_others();
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

    fn skip_others(&mut self) {
        while self.next.flow % self.workers != self.worker && self.peek().is_some() {
            self.step();
        }
    }

    fn step(&mut self) {
        let Key { time_ns, flow } = self.next;
        let span_ns = self.process.span_ns();
        if let Some(given) = self.given.as_ref().and_then(|given| given.start_ns(flow + 1, span_ns))
        {
            let time_ns = (given as f64 / self.rate).round() as u64;
            self.next = Key { time_ns, flow: flow + 1 };
            return;
        }
        let uniform = Stream::new(self.seed, Purpose::Arrivals, flow).uniform_f64();
        let gap_ns = (self.process.gap_ns(time_ns, uniform) as f64 / self.rate).round() as u64;
        self.next = Key { time_ns: time_ns.saturating_add(gap_ns), flow: flow + 1 };
    }
}

/// A flow that waits for a slot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// Its start and number.
    pub(crate) key: Key,
    /// Its start's place in the span.
    pub(crate) position: f32,
    /// The attribute fields, decoded.
    pub(crate) values: Vec<Value>,
    /// What its steps are given.
    pub(crate) gates: Box<[f32]>,
    /// For a flow that goes on after its first segment, its attributes made
    /// discrete: the next segment's gates come from them.
    pub(crate) goes_on: Option<Box<[f32]>>,
    /// Bounds of the measurements that are on the flow's own scale.
    pub(crate) scales: Scales,
}

/// Runs the attribute networks ahead of the slots, in batches.
pub(crate) struct Preparer {
    arrivals: Arrivals,
    decoder: AttributeDecoder,
    drawer: Drawer,
    condition_dim: usize,
    batch: usize,
    ready: VecDeque<Prepared>,
    keys: Vec<Key>,
    condition: Vec<f32>,
    rows: Vec<f32>,
    gates: Vec<f32>,
}

impl Preparer {
    pub(crate) fn new(
        arrivals: Arrivals,
        schema: &Schema,
        chunk: &Chunk,
        drawer: Drawer,
    ) -> Preparer {
        Preparer {
            arrivals,
            decoder: AttributeDecoder::new(schema, &chunk.attributes.layout),
            drawer,
            condition_dim: schema.condition_dim(),
            batch: FIRST_BATCH,
            ready: VecDeque::new(),
            keys: Vec::new(),
            condition: Vec::new(),
            rows: Vec::new(),
            gates: Vec::new(),
        }
    }

    /// Start and number of the next flow; no other flow is before it.
    pub(crate) fn peek(&self) -> Option<Key> {
        self.ready.front().map(|flow| flow.key).or_else(|| self.arrivals.peek())
    }

    /// Takes the next flow.
    pub(crate) fn take<N: Networks>(
        &mut self,
        networks: &mut N,
    ) -> Result<Option<Prepared>, RuntimeError> {
        // None of a batch may be drawn where there are conditions.
        while self.ready.is_empty() && self.arrivals.peek().is_some() {
            self.prepare(networks)?;
        }
        Ok(self.ready.pop_front())
    }

    fn prepare<N: Networks>(&mut self, networks: &mut N) -> Result<(), RuntimeError> {
        self.keys.clear();
        self.condition.clear();
        while self.keys.len() < self.batch
            && let Some(key) = self.arrivals.take()
        {
            self.keys.push(key);
            self.condition.push(self.arrivals.process.position(key.time_ns));
            // Where flows are cut, the second value says "starts its flow".
            self.condition.extend((1..self.condition_dim).map(|_| 1.0));
        }
        self.batch = (self.batch * 4).min(LARGEST_BATCH);
        let Preparer { keys, condition, rows, .. } = self;
        self.drawer.draw(networks, &mut self.decoder, Wanted { keys, condition, rows })?;
        let count = self.keys.len();
        if count == 0 {
            return Ok(());
        }
        let width = self.rows.len() / count;
        networks.gates(count, &self.rows, &self.condition, &mut self.gates)?;
        let gates = self.gates.chunks_exact(self.gates.len() / count);
        let conditions = self.condition.chunks_exact(self.condition_dim);
        let rows = self.rows.chunks_exact(width).zip(gates).zip(conditions);
        for (&key, ((row, gates), condition)) in self.keys.iter().zip(rows) {
            let (decoded, goes_on) = self.decoder.decode(row);
            let values = self.drawer.given_values(key.flow).unwrap_or(decoded);
            self.ready.push_back(Prepared {
                key,
                position: condition[0],
                values,
                gates: gates.into(),
                goes_on: goes_on.then(|| row.into()),
                scales: self.decoder.scales(row),
            });
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
        let mut arrivals = Arrivals::new(process, 5, 1.0, worker, ends);
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
        assert!((300..500).contains(&all.len()), "{}", all.len());
        assert!(all.iter().all(|key| key.time_ns < 80_000_000));
        assert_eq!(arrivals((0, 1), (7, 80_000_000)), all[..7]);
        assert!(arrivals((0, 1), (0, 80_000_000)).is_empty());
    }

    #[test]
    fn a_higher_rate_makes_starts_denser() {
        let process = ArrivalProcess::fit(&[0, 1_000, 2_000, 3_000], 4_000);
        let mut arrivals = Arrivals::new(process, 0, 4.0, (0, 1), (u64::MAX, u64::MAX));
        let starts: Vec<u64> = (0..4).map(|_| arrivals.take().unwrap().time_ns).collect();
        assert_eq!(starts, [0, 250, 500, 750]);
    }
}
