//! From a [`Trace`] to the fitted schema, the samples, and the timeline.

use ns_model_format::arrival::ArrivalProcess;
use ns_model_format::chunks::Chunks;
use ns_model_format::codec::CodecError;
use ns_model_format::manifest::Timeline;
use ns_model_format::schema::{Segmentation, TimeEncoding, Timestamp};
use ns_model_format::{Column, Schema};

use crate::config::{Resolved, TimeEncodingName};
use crate::encode::{Encoder, Piece};
use crate::encoders::{EncoderError, configured, fit, fit_time, word_spaces};
use crate::ingest::Trace;
use crate::train::{Samples, TrainError};

/// Fewer flows teach nothing, and batch statistics need two.
const FEWEST_FLOWS: usize = 2;
/// A trace of one instant is spread over this.
const SHORTEST_SPAN_NS: u64 = 1_000_000_000;

/// Why a trace cannot be trained on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// Too few flows.
    #[error("{flows} flow in {records} records; training needs at least {FEWEST_FLOWS}")]
    TooFewFlows {
        /// Flows found.
        flows: usize,
        /// Records found.
        records: usize,
    },
    /// Columns that encoders cannot be fitted to.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// A value that an encoder has no form for.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// An encoded value that cannot be trained on.
    #[error(transparent)]
    Samples(#[from] TrainError),
}

/// What training and the bundle need of a trace.
#[derive(Debug)]
pub struct Dataset {
    /// Encoded flows, or segments of flows.
    pub samples: Samples,
    /// The fields with their fitted encoders.
    pub schema: Schema,
    /// When flows start.
    pub timeline: Timeline,
}

/// Fits the encoders and encodes the trace.
///
/// # Errors
/// Too few flows, or values that an encoder cannot take, with their row.
pub fn build(trace: &Trace, config: &Resolved, seed: u64) -> Result<Dataset, DatasetError> {
    if trace.flows.len() < FEWEST_FLOWS {
        let (flows, records) = (trace.flows.len(), trace.times_ns.len());
        return Err(DatasetError::TooFewFlows { flows, records });
    }
    let spaces = word_spaces(trace, config, seed)?;
    let firsts: Vec<usize> = trace.flows.iter().map(|flow| flow[0] as usize).collect();
    let mut attributes = Vec::new();
    for field in &config.metadata {
        let column = configured(trace, field)?.pick(&firsts);
        attributes.push(fit(field, &column, false, &spaces)?);
    }
    let mut measurements = Vec::new();
    for field in &config.timeseries {
        measurements.push(fit(field, configured(trace, field)?, true, &spaces)?);
    }
    let origin_ns = trace.times_ns[0];
    let last_ns = trace.times_ns[trace.times_ns.len() - 1];
    let span_ns = match last_ns.abs_diff(origin_ns) {
        0 => SHORTEST_SPAN_NS,
        span => span,
    };
    let times_us = measured_times(trace, config, origin_ns);
    let timestamp = Timestamp {
        column: trace.time.name.clone(),
        unit: trace.time.unit,
        decimals: trace.time.decimals,
        encoding: match config.timestamp.encoding {
            Some(TimeEncodingName::Raw) => TimeEncoding::Raw,
            Some(TimeEncodingName::Interarrival) | None => TimeEncoding::Interarrival,
        },
        codec: fit_time(&config.timestamp, &times_us)?,
        datetime: trace.time.datetime.clone(),
    };
    let schema = Schema {
        kind: config.kind,
        columns: trace.order.clone(),
        timestamp,
        conversations: config.flow == crate::config::FlowKind::Conversation,
        attributes,
        measurements,
        self_norm: config.self_norm,
        segmentation: segmentation(trace, config.max_flow_len),
        spanning: None,
        word2vec: spaces,
    };
    let starts: Vec<u64> =
        firsts.iter().map(|&row| trace.times_ns[row].abs_diff(origin_ns)).collect();
    let arrivals = ArrivalProcess::fit(&starts, span_ns);
    let pieces = pieces(trace, &schema, &starts, &Chunks::new(&[], span_ns));
    let encoder = Encoder { trace, schema: &schema, times_us: &times_us };
    let samples = encoder.encode(&pieces)?;
    // The sample stands for the whole input.
    let of_whole = |count: usize| (count as f64 / trace.share).round() as u64;
    let timeline = Timeline {
        origin_ns,
        flows: of_whole(trace.flows.len()),
        records: of_whole(trace.times_ns.len()),
        arrivals: arrivals.of_whole(trace.share),
        chunk_starts_ns: Vec::new(),
    };
    Ok(Dataset { samples, schema, timeline })
}

/// The time measurement of every record, in microseconds.
fn measured_times(trace: &Trace, config: &Resolved, origin_ns: i64) -> Column {
    let mut times = vec![0.0; trace.times_ns.len()];
    let raw = config.timestamp.encoding == Some(TimeEncodingName::Raw);
    for flow in &trace.flows {
        let mut previous = trace.times_ns[flow[0] as usize];
        for &row in flow {
            let now = trace.times_ns[row as usize];
            let since = if raw { origin_ns } else { previous };
            times[row as usize] = (now - since) as f64 / 1_000.0;
            previous = now;
        }
    }
    Column::floats(&config.timestamp.column, times)
}

/// How flows are cut, if any flow is long enough to be.
fn segmentation(trace: &Trace, max_flow_len: Option<u32>) -> Option<Segmentation> {
    let max_records = max_flow_len?;
    let segments = |flow: &Vec<u32>| flow.len().div_ceil(max_records as usize);
    let most = trace.flows.iter().map(segments).max().unwrap_or(1);
    if most < 2 {
        return None;
    }
    let with = |count: usize| trace.flows.iter().filter(|flow| segments(flow) >= count).count();
    // Of flows with segment k + 1, the share with segment k + 2; far out, where
    // few flows are, the shares are pooled so that no chance of ending is 0.
    let mut goes_on: Vec<f32> = Vec::new();
    for count in 2..=most {
        let (have, more) = (with(count), with(count + 1));
        if have < 10 {
            let records: usize = (count..=most).map(with).sum();
            let ends = have;
            goes_on.push((records - ends) as f32 / records as f32);
            break;
        }
        goes_on.push(more as f32 / have as f32);
    }
    Some(Segmentation { max_records, goes_on })
}

/// Every flow's records in samples of at most `max_records`.
fn pieces(trace: &Trace, schema: &Schema, starts: &[u64], chunks: &Chunks) -> Vec<Piece> {
    let cut = schema.segmentation.as_ref().map_or(usize::MAX, |cut| cut.max_records as usize);
    let mut pieces = Vec::with_capacity(trace.flows.len());
    for (flow, rows) in trace.flows.iter().enumerate() {
        let mut from = 0;
        while from < rows.len() {
            let to = from.saturating_add(cut).min(rows.len());
            pieces.push(Piece {
                flow: flow as u32,
                from: from as u32,
                to: to as u32,
                position: chunks.position(0, starts[flow]),
                starts: from == 0,
                goes_on: to < rows.len(),
            });
            from = to;
        }
    }
    pieces
}

#[cfg(test)]
mod tests;
