//! From a graph's output columns to values.

use ns_model_format::codec::{Codec, FloatCodec};
use ns_model_format::{Activation, FoldedLayout, Layout, Schema, Value};

/// Reads a flow's attributes out of a row.
#[derive(Clone, Debug)]
pub(crate) struct AttributeDecoder {
    columns: Vec<usize>,
    codecs: Vec<(usize, Codec)>,
    /// What to make discrete: first column, how many; one column is yes or no.
    discrete: Vec<(usize, usize)>,
    segmented: bool,
    vector: Vec<f32>,
}

impl AttributeDecoder {
    pub(crate) fn new(schema: &Schema, columns: &FoldedLayout) -> AttributeDecoder {
        let Layout { segments } = schema.attribute_layout();
        let discrete = segments
            .iter()
            .zip(&columns.segments)
            .filter(|(segment, _)| segment.activation == Activation::Softmax)
            .map(|(segment, folded)| {
                // A softmax over one class is that class; over two it was folded.
                let dim = if segment.dim == 2 { 1 } else { segment.dim };
                (folded.offset, if segment.dim == 1 { 0 } else { dim })
            })
            .collect();
        AttributeDecoder {
            columns: columns.columns(0),
            codecs: schema.attributes.iter().map(|f| (f.folded_dim(), f.codec.clone())).collect(),
            discrete,
            segmented: schema.segmentation.is_some(),
            vector: vec![0.0; columns.vector_dim()],
        }
    }

    /// Rounds a row to what its flow gets: see [`ns_model_format::manifest::GatesGraph`].
    pub(crate) fn make_discrete(&self, row: &mut [f32]) {
        for &(from, dim) in &self.discrete {
            match dim {
                0 => row[from] = 1.0,
                1 => row[from] = f32::from(row[from] > 0.5),
                _ => {
                    let classes = &mut row[from..from + dim];
                    let mut best = 0;
                    for (index, &value) in classes.iter().enumerate() {
                        // NaN counts as the smallest.
                        if value > classes[best] || (classes[best].is_nan() && !value.is_nan()) {
                            best = index;
                        }
                    }
                    classes.fill(0.0);
                    classes[best] = 1.0;
                }
            }
        }
    }

    /// A row's values, and whether the flow goes on after its first segment.
    pub(crate) fn decode(&mut self, row: &[f32]) -> (Vec<Value>, bool) {
        gather(row, &self.columns, &mut self.vector);
        let mut from = 0;
        let values = self
            .codecs
            .iter()
            .map(|(dim, codec)| {
                let value = codec.decode(&self.vector[from..from + dim]);
                from += dim;
                value
            })
            .collect();
        let goes_on = self.segmented && self.vector.last().is_some_and(|&flag| flag > 0.5);
        (values, goes_on)
    }
}

/// Reads records out of a step's row.
#[derive(Clone, Debug)]
pub(crate) struct RecordDecoder {
    /// One table of columns a record of the step.
    columns: Vec<Vec<usize>>,
    time: FloatCodec,
    codecs: Vec<(usize, Codec)>,
    vector: Vec<f32>,
    values: Vec<Value>,
}

impl RecordDecoder {
    pub(crate) fn new(schema: &Schema, columns: &FoldedLayout) -> RecordDecoder {
        RecordDecoder {
            columns: (0..columns.repeat).map(|record| columns.columns(record)).collect(),
            time: schema.timestamp.codec.clone(),
            codecs: schema.measurements.iter().map(|f| (f.folded_dim(), f.codec.clone())).collect(),
            vector: vec![0.0; columns.vector_dim()],
            values: vec![Value::Int(0); schema.measurements.len()],
        }
    }

    /// Records of a step.
    pub(crate) fn repeat(&self) -> usize {
        self.columns.len()
    }

    /// Record `index` of a row: what its time says, in microseconds, and
    /// whether another follows. [`Self::values`] then has the rest.
    #[inline]
    pub(crate) fn decode(&mut self, row: &[f32], index: usize) -> (f64, bool) {
        gather(row, &self.columns[index], &mut self.vector);
        let mut from = 1;
        for (value, (dim, codec)) in self.values.iter_mut().zip(&self.codecs) {
            // By parts: copied whole right after it was written by parts, a
            // value would wait for the store to reach the cache.
            *value = match codec.decode(&self.vector[from..from + dim]) {
                Value::Int(number) => Value::Int(number),
                Value::Float(number) => Value::Float(number),
                other => other,
            };
            from += dim;
        }
        // The comparison is false for NaN: a broken model's flows end.
        (self.time.decode_number(self.vector[0]), self.vector[from] > 0.5)
    }

    /// The measurements of the last record decoded.
    pub(crate) fn values(&self) -> &[Value] {
        &self.values
    }
}

#[inline]
fn gather(row: &[f32], columns: &[usize], out: &mut [f32]) {
    for (value, &column) in out.iter_mut().zip(columns) {
        *value = row[column];
    }
}
