//! What generation has done so far, readable while it runs.

use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by all workers; each adds its part once a step.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flows_begun: AtomicU64,
    pub(crate) flows_finished: AtomicU64,
    pub(crate) flows_capped: AtomicU64,
    pub(crate) handed_over: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) records_computed: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) parked: AtomicU64,
    pub(crate) peak_queue: AtomicU64,
    pub(crate) draws: AtomicU64,
    pub(crate) flows_drawn: AtomicU64,
    pub(crate) flows_given_up: AtomicU64,
    pub(crate) records_left_out: AtomicU64,
    pub(crate) mixed_versions: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> GenerationStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GenerationStats {
            flows_begun: get(&self.flows_begun),
            flows_finished: get(&self.flows_finished),
            flows_capped: get(&self.flows_capped),
            handed_over: get(&self.handed_over),
            records: get(&self.records),
            records_computed: get(&self.records_computed),
            steps: get(&self.steps),
            parked: get(&self.parked),
            peak_queue: get(&self.peak_queue),
            draws: get(&self.draws),
            flows_drawn: get(&self.flows_drawn),
            flows_given_up: get(&self.flows_given_up),
            records_left_out: get(&self.records_left_out),
            mixed_versions: get(&self.mixed_versions),
        }
    }
}

/// What generation has done so far, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerationStats {
    /// Flows that took a slot.
    pub flows_begun: u64,
    /// Flows that ended: by their flag, by a cap, or at the end of the run.
    pub flows_finished: u64,
    /// Flows that were ended by the limit on records.
    pub flows_capped: u64,
    /// Times that a flow went on in another chunk of the span.
    pub handed_over: u64,
    /// Records generated, those that still wait for their turn included.
    pub records: u64,
    /// Records that the network computed; the rest came after a flow's end.
    pub records_computed: u64,
    /// Runs of the step network.
    pub steps: u64,
    /// Times that a live flow gave its slot to an earlier one.
    pub parked: u64,
    /// The most records that waited for their turn in one worker.
    pub peak_queue: u64,
    /// Attributes drawn to meet conditions on them, up to the draw that did.
    pub draws: u64,
    /// Flows whose attributes met the conditions; some of them may still wait for a slot.
    pub flows_drawn: u64,
    /// Flows that are left out because no draw met the conditions.
    pub flows_given_up: u64,
    /// Records left out because their measurements do not meet the conditions.
    pub records_left_out: u64,
    /// Draws of attributes of both IP versions, which no flow has.
    pub mixed_versions: u64,
}

impl GenerationStats {
    /// The share of the drawn attributes that met the conditions, 1 before any.
    #[must_use]
    pub fn acceptance(&self) -> f64 {
        match self.draws {
            0 => 1.0,
            draws => self.flows_drawn as f64 / draws as f64,
        }
    }

    /// The share of the computed records that were used, 1 before any.
    #[must_use]
    pub fn slot_use(&self) -> f64 {
        match self.records_computed {
            0 => 1.0,
            computed => self.records as f64 / computed as f64,
        }
    }
}
