//! What all workers of a run share: the fields, the chunks of the span, limits.

use std::sync::Arc;

use ns_model_format::chunks::{Chunks, HandedOver};
use ns_model_format::random::{Purpose, Stream};
use ns_model_format::schema::SpanTags;
use ns_model_format::{Manifest, Schema};

use crate::counters::Counters;
use crate::decode::Tags;
use crate::select::Selection;

/// What bounds every flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowLimits {
    /// No flow has more records.
    pub(crate) records: u32,
    /// Records from this time on are not part of the run.
    pub(crate) end_ns: u64,
}

/// What does not change while a run lasts.
pub(crate) struct Shared {
    pub(crate) schema: Schema,
    pub(crate) tags: Tags,
    pub(crate) chunks: Chunks,
    handed_over: Vec<Option<HandedOver>>,
    pub(crate) limits: FlowLimits,
    pub(crate) seed: u64,
    pub(crate) selection: Arc<Selection>,
    pub(crate) counters: Arc<Counters>,
}

/// Where the next part of a flow begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PartStart {
    /// Nanoseconds from the beginning of the run.
    pub(crate) begin_ns: u64,
    /// The same as a share of the chunk.
    pub(crate) position: f32,
    /// Whether the part has a second segment.
    pub(crate) goes_on: bool,
}

impl Shared {
    pub(crate) fn new(
        manifest: &Manifest,
        limits: FlowLimits,
        seed: u64,
        selection: Arc<Selection>,
        counters: Arc<Counters>,
    ) -> Shared {
        let chunks = &manifest.model.chunks;
        Shared {
            schema: manifest.schema.clone(),
            tags: Tags::new(&manifest.schema, chunks.first().map(|c| &c.attributes.layout)),
            chunks: manifest.timeline.chunks(),
            handed_over: chunks.iter().map(|chunk| chunk.handed_over.clone()).collect(),
            limits,
            seed,
            selection,
            counters,
        }
    }

    /// The chunk whose networks a flow that starts at a time of the run has:
    /// past the trained span everything goes round.
    pub(crate) fn chunk_of(&self, time_ns: u64) -> usize {
        self.chunks.of(time_ns % self.chunks.span_ns())
    }

    /// Where in its chunk a start lies.
    pub(crate) fn position(&self, chunk: usize, time_ns: u64) -> f32 {
        self.chunks.position(chunk, time_ns % self.chunks.span_ns())
    }

    /// Where the span lies that a time of the run is in.
    pub(crate) fn span_start_ns(&self, time_ns: u64) -> u64 {
        time_ns - time_ns % self.chunks.span_ns()
    }

    /// Whether flows of earlier chunks go on in this one.
    pub(crate) fn receives(&self, chunk: usize) -> bool {
        self.handed_over.get(chunk).is_some_and(Option::is_some)
    }

    /// Whether parts after the first say no for every chunk.
    pub(crate) fn only_first_part_tells(&self) -> bool {
        self.schema.spanning.is_some_and(|spanning| spanning.tags == SpanTags::FirstPart)
    }

    /// Where part `part` of a flow begins, which goes on in chunk `chunk` of
    /// the span at `span_start_ns` and has come to `clock_ns`.
    pub(crate) fn part_start(
        &self,
        (flow, part): (u64, u32),
        chunk: usize,
        span_start_ns: u64,
        clock_ns: u64,
    ) -> PartStart {
        let mut draws = Stream::at(self.seed, Purpose::Parts, flow, part);
        let (begin, more) = (draws.uniform(), draws.uniform());
        let handed_over = self.handed_over.get(chunk).and_then(Option::as_ref);
        let share = handed_over.map_or(0.0, |handed_over| handed_over.begin(begin));
        let range = self.chunks.range(chunk);
        let last = range.end.saturating_sub(1).max(range.start);
        let offset = (f64::from(share) * (range.end - range.start) as f64) as u64;
        let drawn = (range.start + offset).min(last);
        let begin_ns = span_start_ns.saturating_add(drawn).max(clock_ns);
        // A flow that is late begins at the chunk's end at the latest, as far as
        // its networks know.
        let within = (begin_ns - span_start_ns).min(last);
        PartStart {
            begin_ns,
            position: self.chunks.position(chunk, within),
            goes_on: handed_over.is_some_and(|handed_over| more < handed_over.goes_on),
        }
    }
}
