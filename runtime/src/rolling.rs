//! Slots: the flows whose next records are computed together.
//!
//! NetShare runs a whole batch to its longest flow; here a flow that ends
//! leaves and another takes its slot, so nearly every computed record is used.
//! What a flow draws is keyed by its number and step, so neither the slot nor
//! the company changes what it becomes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ns_model_format::Schema;
use ns_model_format::manifest::{Chunk, InitialState, State};
use ns_model_format::random::{Purpose, Stream};
use ns_model_format::schema::{Segmentation, TimeEncoding};

use crate::attributes::Prepared;
use crate::counters::Counters;
use crate::decode::{AttributeDecoder, RecordDecoder, Scales};
use crate::error::RuntimeError;
use crate::networks::Networks;
use crate::render::{Event, Render};
use crate::select::Selection;
use crate::timeline::{Key, Timeline};

/// Where, in a flow's stream of states, the draws for its further segments lie:
/// beyond any state.
const GOES_ON_BLOCK: u32 = 1 << 31;

/// What bounds every flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowLimits {
    /// No flow has more records.
    pub(crate) records: u32,
    /// Records from this time on are not part of the run.
    pub(crate) end_ns: u64,
}

/// A flow that has begun and not ended.
pub(crate) struct Live<F> {
    number: u64,
    /// Time of its last record, or its start.
    clock_ns: u64,
    /// Number of its next record.
    record: u32,
    /// Records of it that were left out.
    left_out: u32,
    step: u32,
    segment: u32,
    /// Records since its segment began.
    in_segment: u32,
    position: f32,
    /// For a flow that goes on after this segment, its discrete attributes.
    goes_on: Option<Box<[f32]>>,
    /// Bounds of the measurements that are on the flow's own scale.
    scales: Scales,
    /// Where the span lies that it started in, for times told from the span's beginning.
    span_start_ns: u64,
    context: F,
}

impl<F> Live<F> {
    /// None of its further records is before this.
    pub(crate) fn key(&self) -> Key {
        Key { time_ns: self.clock_ns, flow: self.number }
    }
}

/// A live flow without a slot.
pub(crate) struct Parked<F> {
    pub(crate) live: Live<F>,
    /// Its gates, then its states.
    rows: Box<[f32]>,
}

// A binary heap's greatest is the earliest flow.
impl<F> Ord for Parked<F> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.live.key().cmp(&self.live.key())
    }
}

impl<F> PartialOrd for Parked<F> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<F> PartialEq for Parked<F> {
    fn eq(&self, other: &Self) -> bool {
        self.live.key() == other.live.key()
    }
}

impl<F> Eq for Parked<F> {}

/// Up to `capacity` live flows and all that a step of them needs.
pub(crate) struct Slots<N, R: Render> {
    pub(crate) networks: N,
    render: R,
    decoder: RecordDecoder,
    encoding: TimeEncoding,
    segmentation: Option<Segmentation>,
    /// Where the attributes say whether a flow goes on.
    goes_on_column: Option<usize>,
    span_ns: u64,
    limits: FlowLimits,
    seed: u64,
    states: Vec<State>,
    /// Blocks of a flow's state stream that one segment uses.
    state_blocks: u32,
    noise_dim: usize,
    gates_dim: usize,
    /// Blocks of a flow's noise stream that one step uses.
    step_blocks: u32,
    capacity: usize,
    /// Rows that the networks' states have; at least `live.len()` while flows
    /// come and go, the same when they step.
    rows: usize,
    live: Vec<Live<R::Flow>>,
    /// `[capacity, G]` and `[capacity, Z]`: allocated once, lent to every step.
    gates: Vec<f32>,
    noise: Vec<f32>,
    finished: Vec<usize>,
    segment_ends: Vec<usize>,
    counters: Arc<Counters>,
    selection: Arc<Selection>,
}

/// Blocks of four 32-bit draws that so many normals take.
pub(crate) fn blocks(normals: usize) -> u32 {
    u32::try_from(normals.next_multiple_of(2).div_ceil(4)).unwrap_or(u32::MAX)
}

impl<N: Networks, R: Render> Slots<N, R> {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        networks: N,
        render: R,
        schema: &Schema,
        chunk: &Chunk,
        span_ns: u64,
        limits: FlowLimits,
        seed: u64,
        capacity: usize,
        counters: Arc<Counters>,
    ) -> Slots<N, R> {
        let states = chunk.step.states.clone();
        let (noise_dim, gates_dim) = (chunk.step.noise.dim, chunk.step.gates.dim);
        Slots {
            networks,
            render,
            decoder: RecordDecoder::new(schema, &chunk.step.layout),
            encoding: schema.timestamp.encoding,
            segmentation: schema.segmentation.clone(),
            goes_on_column: AttributeDecoder::new(schema, &chunk.attributes.layout)
                .goes_on_column(),
            span_ns,
            limits,
            seed,
            state_blocks: states.iter().map(|state| blocks(state.dim)).sum::<u32>().max(1),
            states,
            noise_dim,
            gates_dim,
            step_blocks: blocks(noise_dim).max(64),
            capacity,
            rows: 0,
            live: Vec::with_capacity(capacity),
            gates: vec![0.0; capacity * gates_dim],
            noise: vec![0.0; capacity * noise_dim],
            finished: Vec::new(),
            segment_ends: Vec::new(),
            counters,
            selection: Arc::default(),
        }
    }

    /// The same, leaving out records that are not wanted.
    pub(crate) fn selecting(self, selection: Arc<Selection>) -> Slots<N, R> {
        Slots { selection, ..self }
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn records_a_step(&self) -> usize {
        self.decoder.repeat()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.live.len() == self.capacity
    }

    /// Keys of the flows in slots, slot by slot.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.live.iter().map(Live::key)
    }

    pub(crate) fn key(&self, slot: usize) -> Key {
        self.live[slot].key()
    }

    /// Gives a new flow a slot. There must be a free one.
    pub(crate) fn admit(&mut self, flow: Prepared) -> Result<(), RuntimeError> {
        let Key { time_ns: start_ns, flow: number } = flow.key;
        let live = Live {
            number,
            clock_ns: start_ns,
            record: 0,
            left_out: 0,
            step: 0,
            segment: 0,
            in_segment: 0,
            position: flow.position,
            goes_on: flow.goes_on,
            scales: flow.scales,
            span_start_ns: start_ns - start_ns % self.span_ns,
            context: self.render.begin_flow(number, &flow.values),
        };
        self.counters.flows_begun.fetch_add(1, Relaxed);
        let slot = self.push(live, &flow.gates)?;
        self.begin_states(slot)
    }

    /// Gives a parked flow a slot again. There must be a free one.
    pub(crate) fn resume(&mut self, parked: Parked<R::Flow>) -> Result<(), RuntimeError> {
        let (gates, mut rest) = parked.rows.split_at(self.gates_dim);
        let slot = self.push(parked.live, gates)?;
        for (index, state) in self.states.iter().enumerate() {
            let (row, after) = rest.split_at(state.dim);
            let all = self.networks.state(index)?;
            all[slot * state.dim..][..state.dim].copy_from_slice(row);
            rest = after;
        }
        Ok(())
    }

    /// Takes a flow out of its slot; the last flow takes that slot.
    pub(crate) fn park(&mut self, slot: usize) -> Result<Parked<R::Flow>, RuntimeError> {
        let mut rows = Vec::with_capacity(
            self.gates_dim + self.states.iter().map(|state| state.dim).sum::<usize>(),
        );
        rows.extend_from_slice(&self.gates[slot * self.gates_dim..][..self.gates_dim]);
        for (index, state) in self.states.iter().enumerate() {
            rows.extend_from_slice(&self.networks.state(index)?[slot * state.dim..][..state.dim]);
        }
        let live = self.remove(slot)?;
        self.counters.parked.fetch_add(1, Relaxed);
        Ok(Parked { live, rows: rows.into() })
    }

    fn push(&mut self, live: Live<R::Flow>, gates: &[f32]) -> Result<usize, RuntimeError> {
        let slot = self.live.len();
        if slot >= self.rows {
            // All at once: rows that stay unused are cut off before the step.
            self.networks.resize(self.capacity)?;
            self.rows = self.capacity;
        }
        self.live.push(live);
        self.gates[slot * self.gates_dim..][..self.gates_dim].copy_from_slice(gates);
        Ok(slot)
    }

    fn remove(&mut self, slot: usize) -> Result<Live<R::Flow>, RuntimeError> {
        let last = self.live.len() - 1;
        if slot != last {
            let dim = self.gates_dim;
            self.gates.copy_within(last * dim..(last + 1) * dim, slot * dim);
            for (index, state) in self.states.iter().enumerate() {
                let all = self.networks.state(index)?;
                all.copy_within(last * state.dim..(last + 1) * state.dim, slot * state.dim);
            }
        }
        Ok(self.live.swap_remove(slot))
    }

    /// The states that a segment begins with.
    fn begin_states(&mut self, slot: usize) -> Result<(), RuntimeError> {
        let Live { number, segment, .. } = self.live[slot];
        let mut block = segment.wrapping_mul(self.state_blocks);
        for (index, state) in self.states.iter().enumerate() {
            let row = &mut self.networks.state(index)?[slot * state.dim..][..state.dim];
            match state.initial {
                InitialState::Normal => {
                    Stream::at(self.seed, Purpose::State, number, block).fill_normal(row);
                }
                InitialState::Zero => row.fill(0.0),
            }
            block = block.wrapping_add(blocks(state.dim));
        }
        Ok(())
    }

    /// Computes the next records of every flow in a slot. Flows that end leave.
    pub(crate) fn step(&mut self, timeline: &mut Timeline<R::Item>) -> Result<(), RuntimeError> {
        let count = self.live.len();
        if count == 0 {
            return Ok(());
        }
        if self.rows != count {
            self.networks.resize(count)?;
            self.rows = count;
        }
        let noise = &mut self.noise[..count * self.noise_dim];
        for (live, row) in self.live.iter().zip(noise.chunks_exact_mut(self.noise_dim)) {
            let block = live.step.wrapping_mul(self.step_blocks);
            Stream::at(self.seed, Purpose::Steps, live.number, block).fill_normal(row);
        }
        self.networks.step(&self.gates[..count * self.gates_dim], noise)?;
        let records = self.emit(timeline)?;
        self.begin_segments()?;
        // From the back, so that the flow that fills a hole is never one to go.
        while let Some(slot) = self.finished.pop() {
            let live = self.remove(slot)?;
            if live.left_out > 0 && live.left_out == live.record {
                self.selection.flow_without_records(live.number)?;
            }
            self.counters.flows_finished.fetch_add(1, Relaxed);
        }
        self.counters.steps.fetch_add(1, Relaxed);
        self.counters.records.fetch_add(records, Relaxed);
        let computed = (count * self.decoder.repeat()) as u64;
        self.counters.records_computed.fetch_add(computed, Relaxed);
        self.counters.peak_queue.fetch_max(timeline.peak() as u64, Relaxed);
        Ok(())
    }

    /// Decodes the step's records into the timeline, in slot order; notes in
    /// `finished` and `segment_ends`, ascending, which slots came to an end.
    fn emit(&mut self, timeline: &mut Timeline<R::Item>) -> Result<u64, RuntimeError> {
        let Slots { networks, render, decoder, segmentation, limits, live, .. } = self;
        let all = networks.records()?;
        let width = all.len() / live.len();
        let (mut emitted, mut left_out) = (0, 0);
        let filters = self.selection.is_on_measurements();
        let segment_len = segmentation.as_ref().map_or(u32::MAX, |cut| cut.max_records);
        for (slot, (flow, row)) in live.iter_mut().zip(all.chunks_exact(width)).enumerate() {
            flow.step = flow.step.wrapping_add(1);
            for index in 0..decoder.repeat() {
                let (time_us, more) = decoder.decode(row, index, &flow.scales);
                // A cast saturates, and takes NaN to 0. Half up: `round` is a call.
                let time_ns = (time_us.max(0.0) * 1_000.0 + 0.5) as u64;
                flow.clock_ns = match self.encoding {
                    TimeEncoding::Interarrival if flow.record == 0 => flow.clock_ns,
                    TimeEncoding::Interarrival => flow.clock_ns.saturating_add(time_ns),
                    TimeEncoding::Raw => {
                        flow.clock_ns.max(flow.span_start_ns.saturating_add(time_ns))
                    }
                };
                if flow.clock_ns >= limits.end_ns {
                    self.finished.push(slot);
                    break;
                }
                let values = decoder.values();
                if !filters || self.selection.wants_record(flow.number, flow.record, values) {
                    let item = render.record(&mut flow.context, flow.clock_ns, values);
                    timeline.push(Event {
                        time_ns: flow.clock_ns,
                        flow: flow.number,
                        record: flow.record - flow.left_out,
                        item,
                    });
                    emitted += 1;
                } else {
                    flow.left_out += 1;
                    left_out += 1;
                }
                flow.record += 1;
                flow.in_segment += 1;
                if flow.record >= limits.records {
                    self.counters.flows_capped.fetch_add(1, Relaxed);
                    self.finished.push(slot);
                    break;
                }
                if !more || flow.in_segment >= segment_len {
                    // Without segments nothing bounds a flow but its own flag.
                    let ends = if flow.goes_on.is_some() {
                        &mut self.segment_ends
                    } else {
                        &mut self.finished
                    };
                    ends.push(slot);
                    break;
                }
            }
        }
        self.counters.records_left_out.fetch_add(left_out, Relaxed);
        Ok(emitted)
    }

    /// Begins the next segment of every flow whose segment has ended and that goes on.
    fn begin_segments(&mut self) -> Result<(), RuntimeError> {
        let (Some(cut), false) = (&self.segmentation, self.segment_ends.is_empty()) else {
            return Ok(());
        };
        let (mut attributes, mut condition, mut gates) = (Vec::new(), Vec::new(), Vec::new());
        for &slot in &self.segment_ends {
            let flow = &mut self.live[slot];
            flow.segment += 1;
            flow.in_segment = 0;
            // Not the flow's start: the second value says so.
            condition.extend([flow.position, 0.0]);
            let entry = (flow.segment as usize - 1).min(cut.goes_on.len() - 1);
            let block = GOES_ON_BLOCK.wrapping_add(flow.segment);
            let draw = Stream::at(self.seed, Purpose::State, flow.number, block).uniform();
            let ends = draw >= cut.goes_on[entry];
            if let (Some(row), Some(column)) = (&mut flow.goes_on, self.goes_on_column) {
                // The segment is told whether it is the flow's last.
                row[column] = if ends { 0.0 } else { 1.0 };
                attributes.extend_from_slice(row);
            }
            if ends {
                flow.goes_on = None;
            }
        }
        let ends = std::mem::take(&mut self.segment_ends);
        self.networks.gates(ends.len(), &attributes, &condition, &mut gates)?;
        for (&slot, row) in ends.iter().zip(gates.chunks_exact(self.gates_dim)) {
            self.gates[slot * self.gates_dim..][..self.gates_dim].copy_from_slice(row);
            self.begin_states(slot)?;
        }
        self.segment_ends = ends;
        self.segment_ends.clear();
        Ok(())
    }
}
