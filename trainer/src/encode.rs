//! From a trace's records to encoded samples, in blocks on all cores: what is
//! encoded as plain numbers at any time is a block a thread, whatever the trace.

use std::collections::HashMap;

use ns_model_format::codec::{Codec, CodecError, FloatCodec};
use ns_model_format::schema::SpanTags;
use ns_model_format::{Column, Schema};
use rayon::prelude::*;

use crate::dataset::DatasetError;
use crate::ingest::Trace;
use crate::model::ops::threads::threads;
use crate::train::{Samples, TrainError};

/// Records of a block: enough to make up for what an encoder does once a call.
const BLOCK_RECORDS: usize = 1 << 14;

/// Consecutive records of a flow that become one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece {
    /// The flow's number in the trace.
    pub(crate) flow: u32,
    /// The first of the flow's records in it, and the first that is not.
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// What the sample is conditioned on first: where it begins.
    pub(crate) position: f32,
    /// Whether it starts its part of the flow.
    pub(crate) starts: bool,
    /// Whether that part starts the flow.
    pub(crate) starts_flow: bool,
    /// Whether that part goes on after it.
    pub(crate) goes_on: bool,
}

impl Piece {
    fn len(&self) -> usize {
        (self.to - self.from) as usize
    }
}

/// What encoding needs beside the pieces.
pub(crate) struct Encoder<'a> {
    pub(crate) trace: &'a Trace,
    pub(crate) schema: &'a Schema,
    /// The time measurement of every record, in microseconds.
    pub(crate) times_us: &'a Column,
    /// The chunks of every flow that has records in several.
    pub(crate) spanning: &'a HashMap<u32, Box<[u32]>>,
}

/// A yes or no, in training form.
fn two_way(yes: bool) -> [f32; 2] {
    if yes { [0.0, 1.0] } else { [1.0, 0.0] }
}

impl Encoder<'_> {
    /// One sample a piece of chunk `chunk`, in the order of the pieces.
    pub(crate) fn encode(&self, chunk: usize, pieces: &[Piece]) -> Result<Samples, DatasetError> {
        let mut samples = self.no_samples();
        let blocks = blocks(pieces);
        for blocks in blocks.chunks(threads().max(1)) {
            let encoded: Vec<Result<Samples, DatasetError>> =
                blocks.par_iter().map(|block| self.encode_block(chunk, block)).collect();
            for block in encoded {
                let before = samples.len();
                samples.append(block.map_err(|error| numbered_from(before, error))?);
            }
        }
        samples.shrink();
        Ok(samples)
    }

    fn no_samples(&self) -> Samples {
        Samples::new(
            self.schema.attribute_layout(),
            self.schema.measurement_layout(),
            self.schema.condition_dim(),
            self.schema.additional_layout().dim(),
        )
    }

    fn encode_block(&self, chunk: usize, pieces: &[Piece]) -> Result<Samples, DatasetError> {
        let Encoder { trace, schema, .. } = *self;
        let mut samples = self.no_samples();
        let attribute_dim = samples.attribute_layout.dim();
        let record_dim = samples.measurement_layout.dim();
        let flow = |piece: &Piece| &trace.flows[piece.flow as usize];
        let firsts: Vec<usize> = pieces.iter().map(|piece| flow(piece)[0] as usize).collect();
        let mut attributes = vec![0.0; pieces.len() * attribute_dim];
        let mut offset = 0;
        for field in &schema.attributes {
            let column = trace.column(&field.name).map(|column| &column.column);
            self.encode_cells(&field.codec, column, &firsts, &mut attributes, offset)?;
            offset += field.codec.dim();
        }
        let tags = offset;
        let rows: Vec<usize> = pieces
            .iter()
            .flat_map(|piece| &flow(piece)[piece.from as usize..piece.to as usize])
            .map(|&row| row as usize)
            .collect();
        let mut records = vec![0.0; rows.len() * record_dim];
        let time = &schema.timestamp.codec;
        self.encode_cells(time, Some(self.times_us), &rows, &mut records, 0)?;
        offset = time.dim();
        for field in &schema.measurements {
            let column = trace.column(&field.name).map(|column| &column.column);
            self.encode_cells(&field.codec, column, &rows, &mut records, offset)?;
            offset += field.codec.dim();
        }
        let own_scales = own_scales(schema);
        let mut condition = Vec::new();
        let mut rest = &mut records[..];
        for (piece, attributes) in pieces.iter().zip(attributes.chunks_exact_mut(attribute_dim)) {
            let (records, after) = std::mem::take(&mut rest).split_at_mut(piece.len() * record_dim);
            rest = after;
            condition.clear();
            let Piece { position, starts, starts_flow, goes_on, .. } = *piece;
            schema.write_condition(position, starts, starts_flow, &mut condition);
            let mut at = tags;
            if schema.segmentation.is_some() {
                attributes[at..at + 2].copy_from_slice(&two_way(goes_on));
                at += 2;
            }
            if let Some(spanning) = &schema.spanning {
                let tells = starts_flow || spanning.tags == SpanTags::EveryPart;
                let here = [chunk as u32];
                let chunks = match (tells, self.spanning.get(&piece.flow)) {
                    (false, _) => &[][..],
                    (true, Some(chunks)) => chunks,
                    (true, None) => &here,
                };
                for index in 0..spanning.chunks {
                    attributes[at..at + 2].copy_from_slice(&two_way(chunks.contains(&index)));
                    at += 2;
                }
            }
            for (index, record) in records.chunks_exact_mut(record_dim).enumerate() {
                record[offset..].copy_from_slice(&two_way(index + 1 < piece.len()));
            }
            to_own_scales(records, record_dim, &own_scales, &mut attributes[at..]);
            samples.push(attributes, &condition, records)?;
        }
        Ok(samples)
    }

    /// Encodes some rows of a column, one a vector of `out`, from `offset` on.
    /// An error's row is the input's.
    fn encode_cells(
        &self,
        codec: &Codec,
        column: Option<&Column>,
        rows: &[usize],
        out: &mut [f32],
        offset: usize,
    ) -> Result<(), CodecError> {
        // Readers give every column that a field was fitted on.
        let Some(column) = column else { return Ok(()) };
        let stride = out.len() / rows.len().max(1);
        codec.encode(&column.pick(rows), out, stride, offset).map_err(|error| match error {
            CodecError::Value { column, row, found, reason } => {
                let row = rows.get(row.saturating_sub(1)).copied().unwrap_or(0);
                let row = self.trace.input_rows.get(row).map_or(0, |&row| row as usize);
                CodecError::Value { column, row, found, reason }
            }
            other => other,
        })
    }
}

/// Runs of pieces of [`BLOCK_RECORDS`] records or a little more.
fn blocks(pieces: &[Piece]) -> Vec<&[Piece]> {
    let (mut blocks, mut rest, mut count, mut records) = (Vec::new(), pieces, 0, 0);
    for piece in pieces {
        count += 1;
        records += piece.len();
        if records >= BLOCK_RECORDS {
            let (block, after) = rest.split_at(count);
            blocks.push(block);
            (rest, count, records) = (after, 0, 0);
        }
    }
    if !rest.is_empty() {
        blocks.push(rest);
    }
    blocks
}

/// A sample's number counts from the first of all blocks.
fn numbered_from(before: usize, error: DatasetError) -> DatasetError {
    match error {
        DatasetError::Samples(TrainError::NotFinite { part, sample, index }) => {
            TrainError::NotFinite { part, sample: before + sample, index }.into()
        }
        other => other,
    }
}

/// The measurements on a flow's own scale, with where each lies in an encoded record.
fn own_scales(schema: &Schema) -> Vec<(usize, FloatCodec)> {
    if !schema.self_norm {
        return Vec::new();
    }
    let mut offset = 0;
    let mut scales = Vec::new();
    for codec in
        std::iter::once(&schema.timestamp.codec).chain(schema.measurements.iter().map(|f| &f.codec))
    {
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
