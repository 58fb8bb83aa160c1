//! Cutting a trace into chunks along time, and its flows into parts and pieces.

use std::collections::HashMap;

use ns_model_format::chunks::{Chunks, HandedOver};
use ns_model_format::schema::Segmentation;

use crate::config::{Chunking, CutBy};
use crate::encode::Piece;
use crate::ingest::Trace;

/// Fewer samples than this cannot be trained on.
const FEWEST_SAMPLES: usize = 2;

/// A flow's records in one chunk: `from..to` of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) flow: u32,
    pub(crate) chunk: u32,
    pub(crate) from: u32,
    pub(crate) to: u32,
}

impl Part {
    fn len(&self) -> usize {
        (self.to - self.from) as usize
    }

    /// Samples that it makes when samples have at most so many records.
    fn segments(&self, max_records: Option<u32>) -> usize {
        max_records.map_or(1, |most| self.len().div_ceil(most.max(1) as usize))
    }
}

/// A trace cut into chunks.
pub(crate) struct Cut {
    pub(crate) chunks: Chunks,
    /// In order of flows, then chunks.
    pub(crate) parts: Vec<Part>,
    /// Chunks as configured, counted from 1, that were joined to their neighbours.
    pub(crate) joined: Vec<usize>,
}

/// Cuts a trace whose records lie at `times_ns` in a span of `span_ns`.
pub(crate) fn cut(
    trace: &Trace,
    span_ns: u64,
    chunking: &Chunking,
    max_flow_len: Option<u32>,
) -> Cut {
    let wanted = Chunks::new(&wanted_starts(trace, span_ns, chunking), span_ns);
    let wanted_parts = parts(trace, &wanted);
    let (mut starts, mut samples) = (vec![0_usize; wanted.count()], vec![0; wanted.count()]);
    for part in &wanted_parts {
        starts[part.chunk as usize] += usize::from(part.from == 0);
        samples[part.chunk as usize] += part.segments(max_flow_len);
    }
    // What is joined to a chunk takes nothing from it, so once over all is enough.
    let enough = |chunk: &usize| starts[*chunk] > 0 && samples[*chunk] >= FEWEST_SAMPLES;
    let kept: Vec<usize> = (0..wanted.count()).filter(enough).collect();
    if kept.len() == wanted.count() {
        return Cut { chunks: wanted, parts: wanted_parts, joined: Vec::new() };
    }
    let mut starts_ns: Vec<u64> = kept.iter().map(|&chunk| wanted.starts_ns()[chunk]).collect();
    // What is before the first goes to it; without any the whole span is one.
    if let Some(first) = starts_ns.first_mut() {
        *first = 0;
    }
    let chunks = Chunks::new(&starts_ns, span_ns);
    let joined = (0..wanted.count()).filter(|chunk| !kept.contains(chunk)).map(|at| at + 1);
    Cut { parts: parts(trace, &chunks), chunks, joined: joined.collect() }
}

/// Nanoseconds from the trace's first record to this one.
pub(crate) fn since_origin(trace: &Trace, row: u32) -> u64 {
    trace.times_ns[row as usize].abs_diff(trace.times_ns[0])
}

fn wanted_starts(trace: &Trace, span_ns: u64, chunking: &Chunking) -> Vec<u64> {
    let count = chunking.n_chunks.max(1);
    let records = trace.times_ns.len() as u64;
    (0..count)
        .map(|chunk| match chunking.df2chunks {
            CutBy::FixedTime => {
                (u128::from(span_ns) * u128::from(chunk) / u128::from(count)) as u64
            }
            CutBy::FixedSize => {
                since_origin(trace, (records * u64::from(chunk) / u64::from(count)) as u32)
            }
        })
        .collect()
}

/// Every flow's records by chunk.
fn parts(trace: &Trace, chunks: &Chunks) -> Vec<Part> {
    let mut parts = Vec::with_capacity(trace.flows.len());
    for (flow, rows) in trace.flows.iter().enumerate() {
        let mut from = 0;
        while from < rows.len() {
            let chunk = chunks.of(since_origin(trace, rows[from]));
            // The last chunk has all that is left.
            let end = match chunk + 1 < chunks.count() {
                true => chunks.range(chunk).end,
                false => u64::MAX,
            };
            let to = from + rows[from..].partition_point(|&row| since_origin(trace, row) < end);
            let (flow, chunk) = (flow as u32, chunk as u32);
            parts.push(Part { flow, chunk, from: from as u32, to: to as u32 });
            from = to;
        }
    }
    parts
}

impl Cut {
    /// Whether any flow has records in several chunks.
    pub(crate) fn spans(&self) -> bool {
        self.parts.iter().any(|part| part.from > 0)
    }

    /// For every flow with records in several chunks, which these are.
    pub(crate) fn spanning_flows(&self) -> HashMap<u32, Box<[u32]>> {
        let flows = self.parts.chunk_by(|a, b| a.flow == b.flow).filter(|parts| parts.len() > 1);
        flows.map(|parts| (parts[0].flow, parts.iter().map(|part| part.chunk).collect())).collect()
    }

    /// How parts are cut into segments, if any is long enough to be.
    pub(crate) fn segmentation(&self, max_flow_len: Option<u32>) -> Option<Segmentation> {
        let max_records = max_flow_len?;
        let segments = |part: &Part| part.segments(max_flow_len);
        let most = self.parts.iter().map(segments).max().unwrap_or(1);
        if most < 2 {
            return None;
        }
        // How many parts have at least so many segments.
        let mut with = vec![0_usize; most + 2];
        self.parts.iter().for_each(|part| with[segments(part)] += 1);
        for count in (0..=most).rev() {
            with[count] += with[count + 1];
        }
        // Of parts with segment k + 1, the share with segment k + 2; far out, where
        // few are, the shares are pooled so that no chance of ending is 0.
        let mut goes_on: Vec<f32> = Vec::new();
        for count in 2..=most {
            let (have, more) = (with[count], with[count + 1]);
            if have < 10 {
                let segments: usize = with[count..=most].iter().sum();
                goes_on.push((segments - have) as f32 / segments as f32);
                break;
            }
            goes_on.push(more as f32 / have as f32);
        }
        Some(Segmentation { max_records, goes_on })
    }

    /// What becomes one sample each, chunk by chunk.
    pub(crate) fn pieces(&self, trace: &Trace, cut: Option<&Segmentation>) -> Vec<Vec<Piece>> {
        let most = cut.map_or(u32::MAX, |cut| cut.max_records);
        let mut pieces = vec![Vec::new(); self.chunks.count()];
        for part in &self.parts {
            let mut from = part.from;
            while from < part.to {
                let to = from.saturating_add(most).min(part.to);
                pieces[part.chunk as usize].push(Piece {
                    flow: part.flow,
                    from,
                    to,
                    position: self.position(trace, part),
                    starts: from == part.from,
                    starts_flow: part.from == 0,
                    goes_on: to < part.to,
                });
                from = to;
            }
        }
        pieces
    }

    /// How flows of earlier chunks go on in each.
    pub(crate) fn handed_over(
        &self,
        trace: &Trace,
        cut: Option<&Segmentation>,
    ) -> Vec<Option<HandedOver>> {
        let mut begins = vec![Vec::new(); self.chunks.count()];
        let mut long = vec![0_usize; self.chunks.count()];
        for part in self.parts.iter().filter(|part| part.from > 0) {
            let chunk = part.chunk as usize;
            begins[chunk].push(self.position(trace, part));
            long[chunk] += usize::from(part.segments(cut.map(|cut| cut.max_records)) > 1);
        }
        let share = |(begins, long): (Vec<f32>, usize)| {
            let share = long as f32 / begins.len().max(1) as f32;
            HandedOver::fit(begins, share)
        };
        begins.into_iter().zip(long).map(share).collect()
    }

    /// Where in its chunk a part begins.
    fn position(&self, trace: &Trace, part: &Part) -> f32 {
        let first = trace.flows[part.flow as usize][part.from as usize];
        self.chunks.position(part.chunk as usize, since_origin(trace, first))
    }
}
