//! From a [`Trace`] to the fitted schema, the samples, and the timeline.

use std::collections::HashMap;

use ns_model_format::arrival::ArrivalProcess;
use ns_model_format::chunks::HandedOver;
use ns_model_format::codec::{CodecError, WordSpaces};
use ns_model_format::manifest::Timeline;
use ns_model_format::schema::{Spanning, TimeEncoding, Timestamp};
use ns_model_format::{Column, Schema, Value};

use crate::autoregressive::chain::Chain;
use crate::autoregressive::tokens::{Flows, encode, named};
use crate::chunks::{self, Cut};
use crate::config::{Chunking, Resolved, TimeEncodingName};
use crate::encode::Encoder;
use crate::encoders::{EncoderError, configured, fit, fit_time, fit_tokens, word_spaces};
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
    /// Encoded flows, or segments of flows, of every chunk of the span; none for an
    /// autoregressive model.
    pub chunks: Vec<Samples>,
    /// For an autoregressive model, its variables and the flows as their tokens.
    pub(crate) tokens: Option<(Chain, Flows)>,
    /// How flows of earlier chunks go on in each.
    pub handed_over: Vec<Option<HandedOver>>,
    /// The fields with their fitted encoders.
    pub schema: Schema,
    /// When flows start.
    pub timeline: Timeline,
    /// What was done otherwise than asked for, for people.
    pub notes: Vec<String>,
}

impl Dataset {
    /// Samples of all chunks.
    #[must_use]
    pub fn samples(&self) -> usize {
        let flows = self.tokens.as_ref().map_or(0, |(_, flows)| flows.len());
        self.chunks.iter().map(Samples::len).sum::<usize>() + flows
    }
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
    let config = &match config.of_trace(trace) {
        // One model for the span, and flows as long as they are.
        config if config.autoregressive.is_some() => Resolved {
            chunks: Chunking { n_chunks: 1, ..config.chunks },
            max_flow_len: None,
            self_norm: false,
            ..config
        },
        config => config,
    };
    let by_tokens = config.autoregressive.is_some();
    let spaces = match by_tokens {
        true => WordSpaces::new(),
        false => word_spaces(trace, config, seed)?,
    };
    let firsts: Vec<usize> = trace.flows.iter().map(|flow| flow[0] as usize).collect();
    let mut attributes = Vec::new();
    let mut named = match by_tokens {
        true => named(trace, &config.metadata)?,
        false => Vec::new(),
    }
    .into_iter();
    for field in &config.metadata {
        let column = configured(trace, field)?.pick(&firsts);
        attributes.push(match by_tokens {
            true => fit_tokens(field, &column, Some(named.next().unwrap_or_default()))?,
            false => fit(field, &column, false, &spaces)?,
        });
    }
    let mut measurements = Vec::new();
    for field in &config.timeseries {
        let column = configured(trace, field)?;
        measurements.push(match by_tokens {
            true => fit_tokens(field, column, None)?,
            false => fit(field, column, true, &spaces)?,
        });
    }
    let origin_ns = trace.times_ns[0];
    let last_ns = trace.times_ns[trace.times_ns.len() - 1];
    let span_ns = match last_ns.abs_diff(origin_ns) {
        0 => SHORTEST_SPAN_NS,
        span => span,
    };
    let cut = chunks::cut(trace, span_ns, &config.chunks, config.max_flow_len);
    let parts = cut.parts.iter();
    let rows =
        parts.map(|part| &trace.flows[part.flow as usize][part.from as usize..part.to as usize]);
    let times_us = measured_times(trace, config, rows);
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
    let segmentation = cut.segmentation(config.max_flow_len);
    let longest = cut.parts.iter().map(|part| part.to - part.from).max().unwrap_or(1);
    let schema = Schema {
        kind: config.kind,
        columns: trace.order.clone(),
        timestamp,
        conversations: config.flow == crate::config::FlowKind::Conversation,
        attributes,
        measurements,
        self_norm: config.self_norm,
        distinct: match by_tokens || cut.chunks.count() > 1 {
            // Workers with networks a chunk each draw their own flows.
            true => None,
            false => tells_flows_apart(trace, config, &firsts)?,
        },
        longest: segmentation.is_none().then_some(longest).filter(|_| !by_tokens),
        segmentation,
        spanning: cut
            .spans()
            .then(|| Spanning { chunks: cut.chunks.count() as u32, tags: config.chunks.tags }),
        word2vec: spaces,
    };
    let starts: Vec<u64> =
        trace.flows.iter().map(|rows| chunks::since_origin(trace, rows[0])).collect();
    let arrivals = ArrivalProcess::fit_chunks(&starts, &cut.chunks);
    let tokens = match by_tokens {
        true => Some(encode(trace, (&schema, &config.metadata), span_ns)?),
        false => None,
    };
    let segmentation = schema.segmentation.as_ref();
    let spanning = cut.spanning_flows();
    let encoder = Encoder { trace, schema: &schema, times_us: &times_us, spanning: &spanning };
    let pieces = match by_tokens {
        true => Vec::new(),
        false => cut.pieces(trace, segmentation),
    };
    let mut chunks = (0..)
        .zip(&pieces)
        .map(|(chunk, pieces)| encoder.encode(chunk, pieces))
        .collect::<Result<Vec<_>, _>>()?;
    let room = chunks.iter().map(Samples::longest).max().unwrap_or(0);
    chunks.iter_mut().for_each(|samples| samples.room = room);
    let chunk_starts_ns = match cut.chunks.count() {
        1 => Vec::new(),
        _ => cut.chunks.starts_ns().to_vec(),
    };
    // The sample stands for the whole input.
    let of_whole = |count: usize| (count as f64 / trace.share).round() as u64;
    let timeline = Timeline {
        origin_ns,
        flows: of_whole(trace.flows.len()),
        records: of_whole(trace.times_ns.len()),
        arrivals: arrivals.of_whole(trace.share),
        chunk_starts_ns,
    };
    let handed_over = cut.handed_over(trace, segmentation);
    Ok(Dataset { chunks, tokens, handed_over, notes: notes(&cut, config), schema, timeline })
}

/// Of a trace in which no two flows have the same metadata, the field of the most values.
fn tells_flows_apart(
    trace: &Trace,
    config: &Resolved,
    firsts: &[usize],
) -> Result<Option<String>, CodecError> {
    let (mut kinds, mut count_of_kinds) = (vec![0; firsts.len()], 0);
    let mut most = (0, None);
    for field in &config.metadata {
        let column = configured(trace, field)?.pick(firsts).column;
        count_of_kinds = tell_apart(&mut kinds, &column);
        let mut values = vec![0; firsts.len()];
        let count = tell_apart(&mut values, &column);
        most = most.max((count, Some(&field.column)));
    }
    Ok(most.1.filter(|_| count_of_kinds == firsts.len()).cloned())
}

/// Numbers kinds of flows anew: those that were of one kind stay so if their cells are
/// equal. Returns how many kinds there are.
fn tell_apart(kinds: &mut [u32], column: &Column) -> usize {
    let mut numbers = HashMap::new();
    for (row, kind) in kinds.iter_mut().enumerate() {
        let cell = match column.value(row) {
            Value::Int(number) => (0, number as u128),
            Value::Float(number) => (1, u128::from(number.to_bits())),
            Value::Text(id) => (2, u128::from(id)),
            Value::Wide(number) => (3, number.into()),
            _ => (4, 0),
        };
        let next = numbers.len() as u32;
        *kind = *numbers.entry((*kind, cell)).or_insert(next);
    }
    numbers.len()
}

/// What was done otherwise than configured.
fn notes(cut: &Cut, config: &Resolved) -> Vec<String> {
    if cut.joined.is_empty() {
        return Vec::new();
    }
    let numbers: Vec<String> = cut.joined.iter().map(usize::to_string).collect();
    vec![format!(
        "chunks with fewer than 2 samples, or in which no flow starts, are joined to their \
         neighbours ({} of {}): {} chunks are left",
        numbers.join(", "),
        config.chunks.n_chunks,
        cut.chunks.count(),
    )]
}

/// The time measurement of every record, in microseconds. The first record of a
/// part has no gap before it: where parts begin is not the flow's network's to say.
pub(crate) fn measured_times<'a>(
    trace: &Trace,
    config: &Resolved,
    parts: impl Iterator<Item = &'a [u32]>,
) -> Column {
    let mut times = vec![0.0; trace.times_ns.len()];
    let raw = config.timestamp.encoding == Some(TimeEncodingName::Raw);
    for rows in parts {
        let mut previous = trace.times_ns[rows[0] as usize];
        for &row in rows {
            let now = trace.times_ns[row as usize];
            let since = if raw { trace.times_ns[0] } else { previous };
            times[row as usize] = (now - since) as f64 / 1_000.0;
            previous = now;
        }
    }
    Column::floats(&config.timestamp.column, times)
}

#[cfg(test)]
mod tests;
