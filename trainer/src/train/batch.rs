//! The training set, the order in which it is visited, and batches of it.

use super::error::TrainError;
use ns_model_format::layout::{Activation, Layout, Segment};
use ns_model_format::random::{Purpose, Stream};

/// The training set: encoded flows of different lengths, in plain memory.
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
    /// `[n, A]`.
    pub attributes: Vec<f32>,
    /// `[n, C]`.
    pub conditions: Vec<f32>,
    /// `[sum of lengths, M]`.
    pub records: Vec<f32>,
    /// `n + 1` record numbers: sample `i` is `offsets[i]..offsets[i + 1]`.
    pub offsets: Vec<usize>,
}

impl Samples {
    /// How many samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Records of each sample.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.offsets.windows(2).map(|pair| pair[1].saturating_sub(pair[0]))
    }

    /// Records of the longest sample; 0 if there is none.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.lengths().max().unwrap_or(0)
    }

    /// Records of the longest sample, up to a whole number of steps.
    #[must_use]
    pub fn padded_len(&self, sample_len: usize) -> usize {
        self.longest().next_multiple_of(sample_len.max(1))
    }

    /// Whether the parts fit together and can be trained on.
    ///
    /// # Errors
    ///
    /// The first contradiction, too few samples, or a value that is not finite.
    pub fn validate(&self) -> Result<(), TrainError> {
        let count = self.len();
        if count < 2 {
            return Err(TrainError::TooFewSamples { found: count });
        }
        let (attribute_dim, record_dim) =
            (self.attribute_layout.dim(), self.measurement_layout.dim());
        if attribute_dim <= self.additional_dim {
            return Err(TrainError::NoFields { which: "attributes" });
        }
        let flag = Segment::new(2, Activation::Softmax);
        if self.measurement_layout.segments.last() != Some(&flag) {
            return Err(TrainError::NoFields { which: "measurements" });
        }
        for (sample, pair) in self.offsets.windows(2).enumerate() {
            if pair[0] >= pair[1] {
                return Err(TrainError::Offsets { sample, start: pair[0], end: pair[1] });
            }
        }
        let records = self.offsets.last().copied().unwrap_or(0);
        for (what, found, expected) in [
            ("attributes", self.attributes.len(), count.saturating_mul(attribute_dim)),
            ("conditions", self.conditions.len(), count.saturating_mul(self.condition_dim)),
            ("records", self.records.len(), records.saturating_mul(record_dim)),
            ("records before the first sample", self.offsets.first().copied().unwrap_or(0), 0),
        ] {
            if found != expected {
                return Err(TrainError::Sizes { what, found, expected });
            }
        }
        for (part, values) in [
            ("attributes", &self.attributes),
            ("conditions", &self.conditions),
            ("measurements", &self.records),
        ] {
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(TrainError::NotFinite { part, index });
            }
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
            let source = self.records_of(sample);
            records[..source.len()].copy_from_slice(source);
            self.write_fixed(sample, fixed);
        }
        rows
    }

    /// Attributes and condition only: `[picked, A + C]`.
    pub(crate) fn fixed_rows(&self, picked: &[usize]) -> Vec<f32> {
        let width = self.attribute_layout.dim() + self.condition_dim;
        let mut rows = vec![0.0; picked.len() * width];
        for (row, &sample) in rows.chunks_exact_mut(width.max(1)).zip(picked) {
            self.write_fixed(sample, row);
        }
        rows
    }

    /// `[picked, C]`.
    pub(crate) fn condition_rows(&self, picked: &[usize]) -> Vec<f32> {
        picked.iter().flat_map(|&sample| self.condition(sample)).copied().collect()
    }

    fn condition(&self, sample: usize) -> &[f32] {
        &self.conditions[sample * self.condition_dim..(sample + 1) * self.condition_dim]
    }

    fn records_of(&self, sample: usize) -> &[f32] {
        let dim = self.measurement_layout.dim();
        &self.records[self.offsets[sample] * dim..self.offsets[sample + 1] * dim]
    }

    fn write_fixed(&self, sample: usize, out: &mut [f32]) {
        let dim = self.attribute_layout.dim();
        let (attributes, condition) = out.split_at_mut(dim);
        attributes.copy_from_slice(&self.attributes[sample * dim..(sample + 1) * dim]);
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
