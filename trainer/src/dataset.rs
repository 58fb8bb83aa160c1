//! From a [`Trace`] to encoded samples, the fitted schema, and the timeline.

use ns_model_format::arrival::ArrivalProcess;
use ns_model_format::codec::{Codec, CodecError, FloatCodec};
use ns_model_format::manifest::Timeline;
use ns_model_format::schema::{Segmentation, TimeEncoding, Timestamp};
use ns_model_format::{Column, Schema};

use crate::config::{Resolved, TimeEncodingName};
use crate::encoders::{EncoderError, configured, fit, fit_time, word_spaces};
use crate::ingest::{Trace, TraceColumn};
use crate::train::Samples;

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
    let mut attribute_columns = Vec::new();
    for field in &config.metadata {
        let column = configured(trace, field)?.pick(&firsts);
        attributes.push(fit(field, &column, false, &spaces)?);
        attribute_columns.push(column.column);
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
        word2vec: spaces,
    };
    let starts: Vec<u64> =
        firsts.iter().map(|&row| trace.times_ns[row].abs_diff(origin_ns)).collect();
    let arrivals = ArrivalProcess::fit(&starts, span_ns);
    let samples = encode(trace, &schema, &attribute_columns, &times_us, &starts, &arrivals)
        .map_err(|error| in_input_rows(error, trace, config, &firsts))?;
    // The sample stands for the whole input.
    let of_whole = |count: usize| (count as f64 / trace.share).round() as u64;
    let timeline = Timeline {
        origin_ns,
        flows: of_whole(trace.flows.len()),
        records: of_whole(trace.times_ns.len()),
        arrivals: arrivals.of_whole(trace.share),
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

fn encode(
    trace: &Trace,
    schema: &Schema,
    attribute_columns: &[Column],
    times_us: &Column,
    starts: &[u64],
    arrivals: &ArrivalProcess,
) -> Result<Samples, CodecError> {
    let attribute_layout = schema.attribute_layout();
    let measurement_layout = schema.measurement_layout();
    let (attribute_dim, record_dim) = (attribute_layout.dim(), measurement_layout.dim());
    let condition_dim = schema.condition_dim();
    // Per flow, then once a segment.
    let mut flow_attributes = vec![0.0; trace.flows.len() * attribute_dim];
    let mut offset = 0;
    for (field, column) in schema.attributes.iter().zip(attribute_columns) {
        field.codec.encode(column, &mut flow_attributes, attribute_dim, offset)?;
        offset += field.codec.dim();
    }
    // Per record in order of time, then in order of flows.
    let mut by_time = vec![0.0; trace.times_ns.len() * record_dim];
    let time = &schema.timestamp.codec;
    time.encode(times_us, &mut by_time, record_dim, 0)?;
    offset = time.dim();
    for field in &schema.measurements {
        if let Some(TraceColumn { column, .. }) = trace.column(&field.name) {
            field.codec.encode(column, &mut by_time, record_dim, offset)?;
        }
        offset += field.codec.dim();
    }
    let additional_dim = schema.additional_layout().dim();
    let own_scales = own_scales(schema);
    let cut = schema.segmentation.as_ref().map_or(usize::MAX, |cut| cut.max_records as usize);
    let mut samples = Samples {
        attribute_layout,
        measurement_layout,
        condition_dim,
        additional_dim,
        attributes: Vec::new(),
        conditions: Vec::new(),
        records: Vec::with_capacity(by_time.len()),
        offsets: vec![0],
    };
    let mut records = 0;
    for (flow, rows) in trace.flows.iter().enumerate() {
        let attributes = &flow_attributes[flow * attribute_dim..(flow + 1) * attribute_dim];
        let segments = rows.len().div_ceil(cut);
        for (segment, rows) in rows.chunks(cut).enumerate() {
            samples.attributes.extend_from_slice(attributes);
            samples.conditions.push(arrivals.position(starts[flow]));
            if schema.segmentation.is_some() {
                let goes_on = segment + 1 < segments;
                let at = samples.attributes.len() - additional_dim;
                samples.attributes[at - 2..at].copy_from_slice(if goes_on {
                    &[0.0, 1.0]
                } else {
                    &[1.0, 0.0]
                });
                samples.conditions.push(if segment == 0 { 1.0 } else { 0.0 });
            }
            let first_value = samples.records.len();
            for (index, &row) in rows.iter().enumerate() {
                let row = row as usize;
                samples
                    .records
                    .extend_from_slice(&by_time[row * record_dim..(row + 1) * record_dim]);
                let more = index + 1 < rows.len();
                let at = samples.records.len();
                samples.records[at - 2..].copy_from_slice(if more {
                    &[0.0, 1.0]
                } else {
                    &[1.0, 0.0]
                });
            }
            let at = samples.attributes.len() - additional_dim;
            to_own_scales(
                &mut samples.records[first_value..],
                record_dim,
                &own_scales,
                &mut samples.attributes[at..],
            );
            records += rows.len();
            samples.offsets.push(records);
        }
    }
    Ok(samples)
}

/// The measurements on a flow's own scale, with where each lies in an encoded record.
fn own_scales(schema: &Schema) -> Vec<(usize, FloatCodec)> {
    if !schema.self_norm {
        return Vec::new();
    }
    let mut offset = 0;
    let mut scales = Vec::new();
    let time = &schema.timestamp.codec;
    for codec in std::iter::once(time).chain(schema.measurements.iter().map(|f| &f.codec)) {
        if let Codec::Float(float) = codec {
            scales.push((offset, float.clone()));
        }
        offset += codec.dim();
    }
    scales
}

/// Puts a sample's float measurements on their own scale, and the scale into
/// its additional attributes.
fn to_own_scales(
    records: &mut [f32],
    record_dim: usize,
    scales: &[(usize, FloatCodec)],
    additional: &mut [f32],
) {
    /// Keeps a scale from having no width (NetShare's value).
    const MARGIN: f32 = 1e-4;
    for ((at, codec), told) in scales.iter().zip(additional.chunks_exact_mut(2)) {
        let column = || records.iter().skip(*at).step_by(record_dim).copied();
        let smallest = column().fold(f32::INFINITY, f32::min) - MARGIN;
        let largest = column().fold(f32::NEG_INFINITY, f32::max) + MARGIN;
        told.copy_from_slice(&[(largest + smallest) / 2.0, (largest - smallest) / 2.0]);
        for value in records.iter_mut().skip(*at).step_by(record_dim) {
            *value = codec.to_own_scale(*value, smallest, largest);
        }
    }
}

/// A codec counts rows of the column it was given; users know the input's.
fn in_input_rows(
    error: CodecError,
    trace: &Trace,
    config: &Resolved,
    firsts: &[usize],
) -> CodecError {
    match error {
        CodecError::Value { column, row, found, reason } => {
            let of_flow = config.metadata.iter().any(|field| field.column == column);
            let row = if of_flow { firsts[row - 1] } else { row - 1 };
            let row = trace.input_rows[row] as usize;
            CodecError::Value { column, row, found, reason }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
