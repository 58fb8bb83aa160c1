//! The training set, the order in which it is visited, and batches of it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::arrays::{Array, Arrays};
use crate::work::WorkError;

use super::error::TrainError;
use super::packed::Packed;
use ns_model_format::layout::{Activation, Layout, Segment};
use ns_model_format::random::{Purpose, Stream};

/// Records that networks can be built for, far beyond any memory.
const MOST_ROOM: usize = 1 << 32;

/// What a file of samples says of itself.
#[derive(Serialize, Deserialize)]
struct About {
    attribute_layout: Layout,
    measurement_layout: Layout,
    condition_dim: usize,
    additional_dim: usize,
    room: usize,
    attribute_numbers: Vec<usize>,
    record_numbers: Vec<usize>,
    record_count: usize,
}

/// The training set: encoded flows of different lengths, packed in plain memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Layout of a flow's A attributes, training form.
    pub attribute_layout: Layout,
    /// Layout of a record's M values, training form; the last segment is the
    /// generation flag, a softmax of (no, yes), where yes says that another
    /// record follows.
    pub measurement_layout: Layout,
    /// C, values that a flow is conditioned on.
    pub condition_dim: usize,
    /// The last of the A attributes that a second network generates from the
    /// others (the scale of a flow's measurements, see `self_norm`).
    pub additional_dim: usize,
    /// Records that networks are built for, if more than the longest sample's:
    /// networks of one size can start from one another's weights.
    pub room: usize,
    /// One vector a sample.
    attributes: Packed,
    /// `[n, C]`.
    conditions: Vec<f32>,
    /// Sample after sample.
    records: Packed,
    /// Where each sample's records end.
    ends: Vec<usize>,
}

impl Samples {
    /// No samples yet, of these layouts.
    #[must_use]
    pub fn new(
        attribute_layout: Layout,
        measurement_layout: Layout,
        condition_dim: usize,
        additional_dim: usize,
    ) -> Samples {
        Samples {
            attributes: Packed::new(&attribute_layout),
            records: Packed::new(&measurement_layout),
            attribute_layout,
            measurement_layout,
            condition_dim,
            additional_dim,
            ..Samples::default()
        }
    }

    /// Adds a sample: A attributes, C values of the condition, M values a record.
    ///
    /// # Errors
    ///
    /// Another number of values than the layouts say, no record, or a value
    /// that is not a finite number.
    pub fn push(
        &mut self,
        attributes: &[f32],
        condition: &[f32],
        records: &[f32],
    ) -> Result<(), TrainError> {
        let sample = self.len();
        let dim = self.records.dim();
        let whole = records.len().checked_next_multiple_of(dim).unwrap_or(0).max(dim);
        for (what, found, expected) in [
            ("a sample's attributes", attributes.len(), self.attributes.dim()),
            ("a sample's conditions", condition.len(), self.condition_dim),
            ("a sample's records", records.len(), whole),
        ] {
            if found != expected {
                return Err(TrainError::Sizes { what, found, expected });
            }
        }
        for (part, values) in
            [("attributes", attributes), ("conditions", condition), ("measurements", records)]
        {
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(TrainError::NotFinite { part, sample, index });
            }
        }
        self.attributes.push_all(attributes);
        self.conditions.extend_from_slice(condition);
        self.records.push_all(records);
        self.ends.push(self.records.len());
        Ok(())
    }

    /// Adds another's samples, of the same layouts.
    pub fn append(&mut self, other: Samples) {
        let before = self.records.len();
        self.attributes.append(other.attributes);
        self.conditions.extend_from_slice(&other.conditions);
        self.records.append(other.records);
        self.ends.extend(other.ends.into_iter().map(|end| before + end));
    }

    /// Gives memory back that only further samples would need.
    pub fn shrink(&mut self) {
        self.attributes.shrink();
        self.records.shrink();
        self.conditions.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// Writes them to a file, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), WorkError> {
        let (attribute_numbers, _, attributes) = self.attributes.parts();
        let (record_numbers, record_count, records) = self.records.parts();
        let about = About {
            attribute_layout: self.attribute_layout.clone(),
            measurement_layout: self.measurement_layout.clone(),
            condition_dim: self.condition_dim,
            additional_dim: self.additional_dim,
            room: self.room,
            attribute_numbers,
            record_numbers,
            record_count,
        };
        let mut arrays = Arrays::default();
        arrays.put("attributes", Array::U8(attributes.to_vec()));
        arrays.put("records", Array::U8(records.to_vec()));
        arrays.put("conditions", Array::F32(self.conditions.clone()));
        arrays.put("ends", Array::U64(self.ends.iter().map(|&end| end as u64).collect()));
        arrays.write(path, &about)
    }

    /// Reads them back.
    ///
    /// # Errors
    /// The file cannot be read, or is not as it was written.
    pub fn read(path: &Path) -> Result<Samples, WorkError> {
        let (mut arrays, about) = Arrays::read::<About>(path)?;
        let damaged = |reason: String| WorkError::Damaged { path: path.to_owned(), reason };
        let missing = || damaged("an array is missing".to_owned());
        let ends = arrays.take_u64("ends").ok_or_else(missing)?;
        let ends: Vec<usize> =
            ends.into_iter().map(|end| usize::try_from(end).unwrap_or(usize::MAX)).collect();
        let bytes = arrays.take_u8("attributes").ok_or_else(missing)?;
        let attributes = Packed::from_parts(
            &about.attribute_layout,
            &about.attribute_numbers,
            ends.len(),
            bytes,
        );
        let bytes = arrays.take_u8("records").ok_or_else(missing)?;
        let records = Packed::from_parts(
            &about.measurement_layout,
            &about.record_numbers,
            about.record_count,
            bytes,
        );
        let samples = Samples {
            attributes: attributes.map_err(damaged)?,
            records: records.map_err(damaged)?,
            attribute_layout: about.attribute_layout,
            measurement_layout: about.measurement_layout,
            condition_dim: about.condition_dim,
            additional_dim: about.additional_dim,
            room: about.room,
            conditions: arrays.take_f32("conditions").ok_or_else(missing)?,
            ends,
        };
        // What is built for so many records is allocated for them.
        if samples.room > MOST_ROOM {
            return Err(damaged(format!("room for {} records", samples.room)));
        }
        let ascending = samples.ends.is_sorted();
        let last = samples.ends.last().copied().unwrap_or(0);
        let conditions = samples.len().checked_mul(samples.condition_dim);
        if !ascending || last != samples.records() || conditions != Some(samples.conditions.len()) {
            return Err(damaged("its arrays do not fit one another".to_owned()));
        }
        Ok(samples)
    }

    /// Memory that the samples take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let others = self.conditions.capacity() * size_of::<f32>();
        let others = others + self.ends.capacity() * size_of::<usize>();
        self.attributes.bytes() + self.records.bytes() + others
    }

    /// How many samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Records of all samples.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// Batches after which every sample has been visited about once.
    #[must_use]
    pub fn iterations_per_epoch(&self, batch_size: usize) -> usize {
        (self.len() / batch_size.max(1)).max(1)
    }

    /// Records of each sample.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(|sample| self.range(sample).len())
    }

    /// Records of the longest sample; 0 if there is none.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.lengths().max().unwrap_or(0)
    }

    /// Records of the longest sample or [`Self::room`], up to a whole number of steps.
    #[must_use]
    pub fn padded_len(&self, sample_len: usize) -> usize {
        self.longest().max(self.room).next_multiple_of(sample_len.max(1))
    }

    /// Whether the samples can be trained on.
    ///
    /// # Errors
    ///
    /// Too few samples, or nothing to generate.
    pub fn validate(&self) -> Result<(), TrainError> {
        if self.len() < 2 {
            return Err(TrainError::TooFewSamples { found: self.len() });
        }
        if self.attribute_layout.dim() <= self.additional_dim {
            return Err(TrainError::NoFields { which: "attributes" });
        }
        let flag = Segment::new(2, Activation::Softmax);
        if self.measurement_layout.segments.last() != Some(&flag) {
            return Err(TrainError::NoFields { which: "measurements" });
        }
        Ok(())
    }

    /// The layouts of the attributes that the first network generates, and of
    /// the additional ones.
    ///
    /// # Errors
    ///
    /// The additional ones do not begin where a segment does.
    pub(crate) fn attribute_layouts(&self) -> Result<(Layout, Layout), TrainError> {
        let expected = self.attribute_layout.dim().saturating_sub(self.additional_dim);
        let mut segments = self.attribute_layout.segments.clone();
        let mut found = 0;
        let own = segments.iter().take_while(|segment| {
            let within = found < expected;
            found += if within { segment.dim } else { 0 };
            within
        });
        let own = own.count();
        if found != expected {
            return Err(TrainError::Sizes {
                what: "attributes of the first network",
                found,
                expected,
            });
        }
        let additional = segments.split_off(own);
        Ok((Layout { segments }, Layout { segments: additional }))
    }

    /// Values of one row of [`Self::rows`]: `padded * M + A + C`.
    pub(crate) fn row_dim(&self, padded: usize) -> usize {
        padded * self.measurement_layout.dim() + self.attribute_layout.dim() + self.condition_dim
    }

    /// Samples side by side as a critic sees them: records padded with zeros
    /// to `padded`, attributes, condition.
    pub(crate) fn rows(&self, picked: &[usize], padded: usize) -> Vec<f32> {
        let mut rows = vec![0.0; picked.len() * self.row_dim(padded)];
        let sequence = padded * self.measurement_layout.dim();
        for (row, &sample) in rows.chunks_exact_mut(self.row_dim(padded).max(1)).zip(picked) {
            let (records, fixed) = row.split_at_mut(sequence);
            self.read_records(sample, records);
            self.write_fixed(sample, fixed);
        }
        rows
    }

    /// `[picked, C]`.
    pub(crate) fn condition_rows(&self, picked: &[usize]) -> Vec<f32> {
        picked.iter().flat_map(|&sample| self.condition(sample)).copied().collect()
    }

    /// A sample's C values of the condition.
    #[must_use]
    pub fn condition(&self, sample: usize) -> &[f32] {
        &self.conditions[sample * self.condition_dim..(sample + 1) * self.condition_dim]
    }

    /// A sample's A attributes.
    #[must_use]
    pub fn attributes_of(&self, sample: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.attributes.dim()];
        self.attributes.read(sample, &mut values);
        values
    }

    /// A sample's records, M values each.
    #[must_use]
    pub fn records_of(&self, sample: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.range(sample).len() * self.records.dim()];
        self.read_records(sample, &mut values);
        values
    }

    fn range(&self, sample: usize) -> std::ops::Range<usize> {
        let start = sample.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[sample]
    }

    /// Writes a sample's records over zeros.
    fn read_records(&self, sample: usize, zeros: &mut [f32]) {
        let range = self.range(sample);
        self.records.read_all(range.start, &mut zeros[..range.len() * self.records.dim()]);
    }

    /// Writes a sample's attributes and condition over zeros.
    fn write_fixed(&self, sample: usize, zeros: &mut [f32]) {
        let (attributes, condition) = zeros.split_at_mut(self.attributes.dim());
        self.attributes.read(sample, attributes);
        condition.copy_from_slice(self.condition(sample));
    }
}

/// Visits every sample once a pass, each pass in a new order; batches run on
/// from one pass into the next, so any count of samples fits any batch.
#[derive(Clone, Debug)]
pub(crate) struct Visits {
    seed: u64,
    pass: u64,
    order: Vec<usize>,
    next: usize,
}

impl Visits {
    /// Before the first pass.
    pub(crate) fn new(seed: u64, samples: usize) -> Visits {
        let mut visits = Visits { seed, pass: 0, order: (0..samples).collect(), next: 0 };
        visits.shuffle();
        visits
    }

    /// The pass, and how many of its samples were visited.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.pass, self.next as u64)
    }

    /// Goes on from a place of the same samples.
    pub(crate) fn go_to(&mut self, (pass, next): (u64, u64)) {
        self.pass = pass;
        self.shuffle();
        self.next = usize::try_from(next).unwrap_or(usize::MAX).min(self.order.len());
    }

    fn shuffle(&mut self) {
        // From sorted, so that a pass's order depends on its number alone.
        self.order.sort_unstable();
        Stream::new(self.seed, Purpose::Shuffle, self.pass).shuffle(&mut self.order);
        self.next = 0;
    }

    /// The next `count` samples.
    pub(crate) fn take(&mut self, count: usize) -> Vec<usize> {
        let mut picked = Vec::with_capacity(count);
        while picked.len() < count && !self.order.is_empty() {
            if self.next == self.order.len() {
                self.pass += 1;
                self.shuffle();
            }
            picked.push(self.order[self.next]);
            self.next += 1;
        }
        picked
    }
}
