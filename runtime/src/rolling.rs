//! Slots: the flows whose next records are computed together.
//!
//! NetShare runs a whole batch to its longest flow; here a flow that ends
//! leaves and another takes its slot, so nearly every computed record is used.
//! What a flow draws is keyed by its number and step, so neither the slot nor
//! the company changes what it becomes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ns_model_format::manifest::InitialState;
use ns_model_format::random::{Purpose, Stream};
use ns_model_format::schema::TimeEncoding;

use crate::attributes::Prepared;
use crate::decode::RecordDecoder;
use crate::error::RuntimeError;
use crate::form::{Form, Noise, StateForm, blocks};
use crate::live::{Handed, Live, Parked};
use crate::networks::Networks;
use crate::render::{Event, FlowEnd, Render};
use crate::shared::Shared;
use crate::stages::{Stage, timed};
use crate::timeline::{Key, Timeline};

/// Where, in a flow's stream of states, the draws for its further segments lie:
/// beyond any state.
const GOES_ON_BLOCK: u32 = 1 << 31;

/// Up to `capacity` live flows of a chunk and all that a step of them needs.
pub(crate) struct Slots<N, R: Render> {
    pub(crate) networks: N,
    render: R,
    shared: Arc<Shared>,
    decoder: RecordDecoder,
    states: Vec<StateForm>,
    /// Blocks of a flow's state stream that one segment uses.
    state_blocks: u32,
    step_noise: Noise,
    encoding: TimeEncoding,
    gates_dim: usize,
    /// Blocks of a flow's noise stream that one step uses.
    step_blocks: u32,
    capacity: usize,
    /// Rows that the networks' states have; at least `live.len()` while flows
    /// come and go, the same when they step.
    rows: usize,
    live: Vec<Live<R::Flow>>,
    /// `[capacity, G]` and `[capacity, Z]`: allocated with the first flow, lent
    /// to every step.
    gates: Vec<f32>,
    noise: Vec<f32>,
    /// Slots whose flows leave after the step, and whether another chunk gets them.
    leaving: Vec<(usize, bool)>,
    segment_ends: Vec<usize>,
}

impl<N: Networks, R: Render> Slots<N, R> {
    pub(crate) fn new(
        networks: N,
        render: R,
        shared: Arc<Shared>,
        form: &Form,
        capacity: usize,
    ) -> Slots<N, R> {
        let states = form.states.clone();
        Slots {
            networks,
            render,
            decoder: form.record_decoder(&shared.schema),
            shared,
            state_blocks: states.iter().map(|state| blocks(state.dim)).sum::<u32>().max(1),
            states,
            step_noise: form.step_noise,
            encoding: form.time,
            gates_dim: form.gates_dim,
            step_blocks: form.step_noise.blocks().max(64),
            capacity,
            rows: 0,
            live: Vec::new(),
            gates: Vec::new(),
            noise: Vec::new(),
            leaving: Vec::new(),
            segment_ends: Vec::new(),
        }
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
            segment_of_part: 0,
            in_segment: 0,
            part: 0,
            at_begin: true,
            position: flow.position,
            goes_on: flow.goes_on,
            later_chunks: flow.later_chunks,
            attributes: flow.attributes,
            scales: flow.scales,
            span_start_ns: self.shared.span_start_ns(start_ns),
            context: self.render.begin_flow(number, &flow.values),
        };
        self.shared.counters.flows_begun.fetch_add(1, Relaxed);
        let slot = self.push(live, &flow.gates)?;
        self.begin_states(slot)
    }

    /// Gives a flow that was handed over a slot. There must be a free one.
    pub(crate) fn begin_part(
        &mut self,
        live: Live<R::Flow>,
        gates: &[f32],
    ) -> Result<(), RuntimeError> {
        let slot = self.push(live, gates)?;
        self.begin_states(slot)
    }

    /// Computes what the steps of flows that were handed over are given.
    pub(crate) fn part_gates(&mut self, flows: &mut [Handed<R::Flow>]) -> Result<(), RuntimeError> {
        let (mut attributes, mut condition, mut gates) = (Vec::new(), Vec::new(), Vec::new());
        for Handed { live, .. } in &mut *flows {
            // Kept until the part begins.
            attributes.extend_from_slice(live.attributes.as_deref().unwrap_or_default());
            self.shared.schema.write_condition(live.position, true, false, &mut condition);
        }
        self.networks.gates(flows.len(), &attributes, &condition, &mut gates)?;
        for (flow, gates) in flows.iter_mut().zip(gates.chunks_exact(self.gates_dim)) {
            flow.gates = Some(gates.into());
            flow.live.settle();
        }
        Ok(())
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
        self.shared.counters.parked.fetch_add(1, Relaxed);
        Ok(Parked { live, rows: rows.into() })
    }

    fn push(&mut self, live: Live<R::Flow>, gates: &[f32]) -> Result<usize, RuntimeError> {
        let slot = self.live.len();
        if slot >= self.rows {
            // All at once: rows that stay unused are cut off before the step.
            self.networks.resize(self.capacity)?;
            self.rows = self.capacity;
            self.gates.resize(self.capacity * self.gates_dim, 0.0);
            self.noise.resize(self.capacity * self.step_noise.dim, 0.0);
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
                    Stream::at(self.shared.seed, Purpose::State, number, block).fill_normal(row);
                }
                InitialState::Zero => row.fill(0.0),
            }
            block = block.wrapping_add(blocks(state.dim));
        }
        Ok(())
    }

    /// Computes the next records of every flow in a slot. Flows that end leave;
    /// those that go on in another chunk are added to `handed`.
    pub(crate) fn step(
        &mut self,
        timeline: &mut Timeline<R::Item>,
        handed: &mut Vec<Handed<R::Flow>>,
    ) -> Result<(), RuntimeError> {
        let count = self.live.len();
        if count == 0 {
            return Ok(());
        }
        if self.rows != count {
            self.networks.resize(count)?;
            self.rows = count;
        }
        let noise = &mut self.noise[..count * self.step_noise.dim];
        timed(Stage::Noise, || {
            for (live, row) in self.live.iter().zip(noise.chunks_exact_mut(self.step_noise.dim)) {
                let block = live.step.wrapping_mul(self.step_blocks);
                let stream = Stream::at(self.shared.seed, Purpose::Steps, live.number, block);
                self.step_noise.fill(stream, row);
            }
        });
        let (networks, gates) = (&mut self.networks, &self.gates[..count * self.gates_dim]);
        timed(Stage::Step, || networks.step(gates, noise))?;
        let records = timed(Stage::Emit, || self.emit(timeline))?;
        self.begin_segments()?;
        // From the back, so that the flow that fills a hole is never one to go.
        while let Some((slot, goes_over)) = self.leaving.pop() {
            let live = self.remove(slot)?;
            if !goes_over && live.left_out > 0 && live.left_out == live.record {
                self.shared.selection.flow_without_records(live.number)?;
            }
            let limits = self.shared.limits;
            let own = live.clock_ns < limits.end_ns && live.record < limits.records;
            let ended = if goes_over { self.hand_over(live, handed) } else { Some(live) };
            if let Some(live) = ended {
                self.shared.counters.flows_finished.fetch_add(1, Relaxed);
                let complete = own && !goes_over;
                let end = FlowEnd { flow: live.number, time_ns: live.clock_ns, complete };
                self.render.end_flow(live.context, end);
            }
        }
        let counters = &self.shared.counters;
        counters.steps.fetch_add(1, Relaxed);
        counters.records.fetch_add(records, Relaxed);
        let computed = (count * self.decoder.repeat()) as u64;
        counters.records_computed.fetch_add(computed, Relaxed);
        counters.peak_queue.fetch_max(timeline.peak() as u64, Relaxed);
        Ok(())
    }

    /// Decodes the step's records into the timeline, in slot order; notes in
    /// `leaving` and `segment_ends`, ascending, which slots came to an end.
    fn emit(&mut self, timeline: &mut Timeline<R::Item>) -> Result<u64, RuntimeError> {
        let Slots { networks, render, decoder, live, leaving, shared, .. } = self;
        let all = networks.records()?;
        let width = all.len() / live.len();
        let (mut emitted, mut left_out) = (0, 0);
        let Shared { schema, limits, counters, selection, .. } = &**shared;
        let filters = selection.is_on_measurements();
        let encoding = self.encoding;
        let longest = schema.longest.unwrap_or(u32::MAX);
        let segment_len = schema.segmentation.as_ref().map_or(longest, |cut| cut.max_records);
        for (slot, (flow, row)) in live.iter_mut().zip(all.chunks_exact(width)).enumerate() {
            flow.step = flow.step.wrapping_add(1);
            for index in 0..decoder.repeat() {
                let (time_us, more) = decoder.decode(row, index, &flow.scales);
                // A cast saturates, and takes NaN to 0. Half up: `round` is a call.
                let time_ns = (time_us.max(0.0) * 1_000.0 + 0.5) as u64;
                flow.clock_ns = match encoding {
                    TimeEncoding::Interarrival if flow.at_begin => flow.clock_ns,
                    TimeEncoding::Interarrival => flow.clock_ns.saturating_add(time_ns),
                    TimeEncoding::Raw => {
                        flow.clock_ns.max(flow.span_start_ns.saturating_add(time_ns))
                    }
                };
                flow.at_begin = false;
                if flow.clock_ns >= limits.end_ns {
                    leaving.push((slot, false));
                    break;
                }
                let values = decoder.values();
                if !filters || selection.wants_record(flow.number, flow.record, values) {
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
                    counters.flows_capped.fetch_add(1, Relaxed);
                    leaving.push((slot, false));
                    break;
                }
                if !more || flow.in_segment >= segment_len {
                    if flow.goes_on {
                        self.segment_ends.push(slot);
                    } else {
                        leaving.push((slot, flow.next_chunk().is_some()));
                    }
                    break;
                }
            }
        }
        counters.records_left_out.fetch_add(left_out, Relaxed);
        Ok(emitted)
    }

    /// Begins the next segment of every flow whose segment has ended and whose
    /// part goes on.
    fn begin_segments(&mut self) -> Result<(), RuntimeError> {
        let shared = &*self.shared;
        let (Some(cut), false) = (&shared.schema.segmentation, self.segment_ends.is_empty()) else {
            return Ok(());
        };
        let (mut attributes, mut condition, mut gates) = (Vec::new(), Vec::new(), Vec::new());
        for &slot in &self.segment_ends {
            let flow = &mut self.live[slot];
            flow.segment = flow.segment.wrapping_add(1);
            flow.segment_of_part += 1;
            flow.in_segment = 0;
            shared.schema.write_condition(flow.position, false, flow.part == 0, &mut condition);
            let entry = (flow.segment_of_part as usize - 1).min(cut.goes_on.len() - 1);
            let block = GOES_ON_BLOCK.wrapping_add(flow.segment);
            let draw = Stream::at(shared.seed, Purpose::State, flow.number, block).uniform();
            flow.goes_on = draw < cut.goes_on[entry];
            if let Some(row) = &mut flow.attributes {
                // The segment is told whether it is the part's last.
                shared.tags.set_goes_on(flow.goes_on, row);
                attributes.extend_from_slice(row);
            }
            flow.settle();
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

    /// Makes a flow ready for the chunk of its next part; gives it back if that would
    /// begin after the end of the run.
    fn hand_over(
        &self,
        mut live: Live<R::Flow>,
        handed: &mut Vec<Handed<R::Flow>>,
    ) -> Option<Live<R::Flow>> {
        let shared = &*self.shared;
        let Some(to) = live.next_chunk() else { return Some(live) };
        live.part += 1;
        let id = (live.number, live.part);
        let start = shared.part_start(id, to, live.span_start_ns, live.clock_ns);
        if start.begin_ns >= shared.limits.end_ns {
            return Some(live);
        }
        live.clock_ns = start.begin_ns;
        live.position = start.position;
        live.at_begin = true;
        live.segment = live.segment.wrapping_add(1);
        live.segment_of_part = 0;
        live.in_segment = 0;
        live.goes_on = start.goes_on && shared.schema.segmentation.is_some();
        if let Some(row) = &mut live.attributes {
            shared.tags.set_goes_on(live.goes_on, row);
            if shared.only_first_part_tells() {
                shared.tags.clear_chunks(row);
            }
        }
        shared.counters.handed_over.fetch_add(1, Relaxed);
        handed.push(Handed { to, live, gates: None });
        None
    }
}
