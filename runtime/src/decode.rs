//! From a graph's output columns to values.

use ns_model_format::autoregressive::{Autoregressive, Says};
use ns_model_format::codec::{Codec, FloatCodec, TokensCodec};
use ns_model_format::{Activation, Field, FoldedLayout, Layout, Schema, Value};

use crate::autoregressive::{BEFORE_SAID, SAID};

/// Reads a flow's attributes out of a row.
#[derive(Clone, Debug)]
pub(crate) struct AttributeDecoder {
    columns: Vec<usize>,
    codecs: Vec<(usize, Codec)>,
    /// What to make discrete: first column, how many; one column is yes or no.
    discrete: Vec<(usize, usize)>,
    /// Columns of half the sum and half the difference of a measurement's bounds.
    scales: Vec<(usize, usize)>,
    /// What a difference in each of the fields' columns weighs, see [`Self::distance`].
    weights: Vec<f32>,
    /// Columns of the field that is drawn again first, and of fields that are `categorical`.
    told: Vec<usize>,
    kinds: Vec<usize>,
    vector: Vec<f32>,
    /// How to read a row of tokens; then there is nothing of the above.
    tokens: Option<FlowTokens>,
}

/// Reads a flow's attributes out of a row of tokens, and then as many places within bins.
#[derive(Clone, Debug)]
struct FlowTokens {
    variables: usize,
    /// Each field's variables in order of place: the value's token, then octets.
    fields: Vec<(TokensCodec, Vec<usize>)>,
    tokens: Vec<u32>,
}

impl FlowTokens {
    fn decode(&mut self, row: &[f32]) -> Vec<Value> {
        let FlowTokens { variables, fields, tokens } = self;
        let value = |(codec, places): &(TokensCodec, Vec<usize>)| {
            tokens.clear();
            tokens.extend(places.iter().map(|&at| row[at] as u32));
            codec.value(tokens, f64::from(row[*variables + places[0]]))
        };
        fields.iter().map(value).collect()
    }
}

/// The smallest and largest encoded value of each measurement that is on a
/// flow's own scale, in the order of [`Schema::own_scales`].
pub(crate) type Scales = Box<[(f32, f32)]>;

impl AttributeDecoder {
    pub(crate) fn new(schema: &Schema, columns: &FoldedLayout) -> AttributeDecoder {
        let Layout { segments } = schema.attribute_layout();
        let additional = schema.additional_layout().segments.len();
        let (_, additional) = columns.segments.split_at(columns.segments.len() - additional);
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
        let all = columns.columns(0);
        let columns_of = |is_of: &dyn Fn(&Field) -> bool| {
            let mut from = 0;
            let mut found = Vec::new();
            for field in &schema.attributes {
                let to = from + field.folded_dim();
                found.extend_from_slice(if is_of(field) { &all[from..to] } else { &[] });
                from = to;
            }
            found
        };
        AttributeDecoder {
            told: columns_of(&|field| schema.distinct.as_ref() == Some(&field.name)),
            kinds: columns_of(&|field| {
                matches!(field.codec, Codec::Categorical(_))
                    && schema.distinct.as_ref() != Some(&field.name)
            }),
            columns: columns.columns(0),
            codecs: schema.attributes.iter().map(|f| (f.folded_dim(), f.codec.clone())).collect(),
            discrete,
            scales: additional.chunks_exact(2).map(|p| (p[0].offset, p[1].offset)).collect(),
            weights: schema.attributes.iter().flat_map(weights).collect(),
            vector: vec![0.0; columns.vector_dim()],
            tokens: None,
        }
    }

    /// Of rows that say what a flow's variables are.
    pub(crate) fn of_tokens(schema: &Schema, model: &Autoregressive) -> AttributeDecoder {
        let variables = || model.attributes.iter().enumerate();
        let places = |field: usize| {
            let is_of = |says: &Says| matches!(says, Says::Field { field: f, .. } if *f == field);
            variables().filter(move |(_, v)| is_of(&v.says)).map(|(at, _)| at).collect()
        };
        // A bundle was checked for fields that all are tokens, and have variables.
        let fields = schema.attributes.iter().enumerate().filter_map(|(at, f)| match &f.codec {
            Codec::Tokens(codec) => Some((codec.clone(), places(at))),
            _ => None,
        });
        AttributeDecoder {
            columns: Vec::new(),
            codecs: Vec::new(),
            discrete: Vec::new(),
            scales: Vec::new(),
            weights: Vec::new(),
            told: Vec::new(),
            kinds: Vec::new(),
            vector: Vec::new(),
            tokens: Some(FlowTokens {
                variables: model.attributes.len(),
                fields: fields.collect(),
                tokens: Vec::new(),
            }),
        }
    }

    /// Columns of a row.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Whether a row says more of a flow than its attribute fields.
    pub(crate) fn has_more_than_fields(&self) -> bool {
        self.weights.len() < self.columns.len()
    }

    /// Writes folded attribute fields, in order, to their columns.
    pub(crate) fn place(&self, folded: &[f32], row: &mut [f32]) {
        for (&value, &column) in folded.iter().zip(&self.columns) {
            row[column] = value;
        }
    }

    /// Makes a row what another is, but for the field that is drawn again first; not if they
    /// are of different kinds: then one's value may be none that the other can have.
    pub(crate) fn keep_but_told(&self, kept: &[f32], row: &mut [f32]) -> bool {
        if self.kinds.iter().any(|&column| kept[column] != row[column]) {
            return false;
        }
        let told: Vec<f32> = self.told.iter().map(|&column| row[column]).collect();
        row.copy_from_slice(kept);
        self.told.iter().zip(told).for_each(|(&column, value)| row[column] = value);
        true
    }

    /// How much a row's attribute fields differ from folded ones: every field
    /// counts the same, however many columns it has.
    pub(crate) fn distance(&self, folded: &[f32], row: &[f32]) -> f32 {
        let columns = self.columns.iter().zip(&self.weights);
        folded
            .iter()
            .zip(columns)
            .map(|(value, (&at, weight))| weight * (value - row[at]).powi(2))
            .sum()
    }

    /// A flow's own scales.
    pub(crate) fn scales(&self, row: &[f32]) -> Scales {
        let bounds =
            |&(middle, half): &(usize, usize)| (row[middle] - row[half], row[middle] + row[half]);
        self.scales.iter().map(bounds).collect()
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

    /// A row's values.
    pub(crate) fn decode(&mut self, row: &[f32]) -> Vec<Value> {
        if let Some(tokens) = &mut self.tokens {
            return tokens.decode(row);
        }
        gather(row, &self.columns, &mut self.vector);
        let mut from = 0;
        self.codecs
            .iter()
            .map(|(dim, codec)| {
                let value = codec.decode(&self.vector[from..from + dim]);
                from += dim;
                value
            })
            .collect()
    }
}

/// The columns of a row of attributes that say how a flow goes on; the row
/// must have been made discrete.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tags {
    goes_on: Option<usize>,
    chunks: Vec<usize>,
}

impl Tags {
    pub(crate) fn new(schema: &Schema, columns: Option<&FoldedLayout>) -> Tags {
        let Some(columns) = columns else { return Tags::default() };
        let offset = |segment: usize| columns.segments[segment].offset;
        let (goes_on, chunks) = schema.tag_segments();
        Tags { goes_on: goes_on.map(offset), chunks: chunks.map(offset).collect() }
    }

    /// Whether the part goes on after this segment.
    pub(crate) fn goes_on(&self, row: &[f32]) -> bool {
        self.goes_on.is_some_and(|column| row[column] > 0.5)
    }

    /// Says whether the part goes on after this segment.
    pub(crate) fn set_goes_on(&self, goes_on: bool, row: &mut [f32]) {
        if let Some(column) = self.goes_on {
            row[column] = f32::from(goes_on);
        }
    }

    /// The later chunks that a flow which starts in chunk `start` goes on in.
    /// The row is made to say just that: as in training, no flow is where it
    /// has not started, or where no flow goes on.
    pub(crate) fn later_chunks(
        &self,
        start: usize,
        receives: impl Fn(usize) -> bool,
        row: &mut [f32],
    ) -> Box<[u32]> {
        let mut later = Vec::new();
        for (chunk, &column) in self.chunks.iter().enumerate() {
            let there = chunk > start && row[column] > 0.5 && receives(chunk);
            later.extend(there.then_some(chunk as u32));
            row[column] = f32::from(there || chunk == start);
        }
        later.into()
    }

    /// Says no for every chunk.
    pub(crate) fn clear_chunks(&self, row: &mut [f32]) {
        self.chunks.iter().for_each(|&column| row[column] = 0.0);
    }
}

/// Shares of a field's columns in a distance, 1 in all where every one differs
/// as far as it can. Of two different one-hot vectors two columns differ.
fn weights(field: &Field) -> Vec<f32> {
    let segments = field.codec.segments();
    let share = 1.0 / segments.len().max(1) as f32;
    let weights = segments.iter().flat_map(|segment| {
        let (columns, differ) = match (segment.activation, segment.dim) {
            (Activation::Softmax, 2) => (1, 1),
            (Activation::Softmax, dim) => (dim, 2),
            (_, dim) => (dim, dim),
        };
        std::iter::repeat_n(share / differ as f32, columns)
    });
    weights.collect()
}

/// Reads records out of a step's row.
#[derive(Clone, Debug)]
pub(crate) enum RecordDecoder {
    Folded(FoldedRecords),
    Tokens(TokenRecords),
}

impl RecordDecoder {
    pub(crate) fn new(schema: &Schema, columns: &FoldedLayout) -> RecordDecoder {
        RecordDecoder::Folded(FoldedRecords::new(schema, columns))
    }

    /// Of rows that are one record: gap, whether another follows, then each
    /// measurement's token and place within its bin.
    pub(crate) fn of_tokens(schema: &Schema) -> RecordDecoder {
        RecordDecoder::Tokens(TokenRecords::new(schema))
    }

    /// Records of a step.
    pub(crate) fn repeat(&self) -> usize {
        match self {
            RecordDecoder::Folded(folded) => folded.columns.len(),
            RecordDecoder::Tokens(_) => 1,
        }
    }

    /// Record `index` of a row: what its time says, in microseconds, and
    /// whether another follows. [`Self::values`] then has the rest.
    #[inline]
    pub(crate) fn decode(
        &mut self,
        row: &[f32],
        index: usize,
        scales: &[(f32, f32)],
    ) -> (f64, bool) {
        match self {
            RecordDecoder::Folded(folded) => folded.decode(row, index, scales),
            RecordDecoder::Tokens(tokens) => tokens.decode(row),
        }
    }

    /// The measurements of the last record decoded.
    pub(crate) fn values(&self) -> &[Value] {
        match self {
            RecordDecoder::Folded(folded) => &folded.values,
            RecordDecoder::Tokens(tokens) => &tokens.values,
        }
    }
}

/// Reads records out of rows of tokens.
#[derive(Clone, Debug)]
pub(crate) struct TokenRecords {
    fields: Vec<TokenField>,
    values: Vec<Value>,
}

#[derive(Clone, Debug)]
struct TokenField {
    codec: TokensCodec,
    /// What tokens say of which each is one value.
    own: Vec<Value>,
    tick: f64,
    /// Smallest and largest value.
    range: (f64, f64),
}

impl TokenRecords {
    fn new(schema: &Schema) -> TokenRecords {
        // A bundle was checked for fields that all are tokens.
        let of_tokens = |field: &Field| match &field.codec {
            Codec::Tokens(codec) => Some(TokenField {
                own: (0..codec.sizes()[0] as u32)
                    .take_while(|&token| codec.is_exact(token))
                    .map(|token| codec.value(&[token], 0.0))
                    .collect(),
                codec: codec.clone(),
                tick: field.tick(),
                range: codec.range(),
            }),
            _ => None,
        };
        TokenRecords {
            fields: schema.measurements.iter().filter_map(of_tokens).collect(),
            values: vec![Value::Int(0); schema.measurements.len()],
        }
    }

    #[inline]
    fn decode(&mut self, row: &[f32]) -> (f64, bool) {
        let measurements = row[BEFORE_SAID..].chunks_exact(SAID);
        for (value, (field, said)) in
            self.values.iter_mut().zip(self.fields.iter().zip(measurements))
        {
            let TokenField { codec, own, tick, range: (smallest, largest) } = field;
            let (token, within, ticks) = (said[0] as u32, f64::from(said[1]), f64::from(said[2]));
            *value = match own.get(token as usize) {
                Some(own) => *own,
                None => codec.value(&[token], within),
            };
            match value {
                Value::Int(number) if ticks != 0.0 => {
                    *number = (*number as f64 + ticks).clamp(*smallest, *largest) as i64;
                }
                Value::Float(number) if ticks != 0.0 => {
                    *number = (*number + ticks * tick).clamp(*smallest, *largest);
                }
                _ => {}
            }
        }
        (f64::from(row[0]), row[1] > 0.5)
    }
}

/// Reads records out of a step's row of folded vectors.
#[derive(Clone, Debug)]
pub(crate) struct FoldedRecords {
    /// One table of columns a record of the step.
    columns: Vec<Vec<usize>>,
    time: Codec,
    codecs: Vec<(usize, Codec)>,
    /// Measurements on a flow's own scale: where, and how to read them.
    own_scales: Vec<(usize, FloatCodec)>,
    vector: Vec<f32>,
    values: Vec<Value>,
}

impl FoldedRecords {
    fn new(schema: &Schema, columns: &FoldedLayout) -> FoldedRecords {
        FoldedRecords {
            columns: (0..columns.repeat).map(|record| columns.columns(record)).collect(),
            time: schema.timestamp.codec.clone(),
            codecs: schema.measurements.iter().map(|f| (f.folded_dim(), f.codec.clone())).collect(),
            own_scales: schema.own_scales().map(|(at, codec)| (at, codec.clone())).collect(),
            vector: vec![0.0; columns.vector_dim()],
            values: vec![Value::Int(0); schema.measurements.len()],
        }
    }

    /// See [`RecordDecoder::decode`].
    #[inline]
    fn decode(&mut self, row: &[f32], index: usize, scales: &[(f32, f32)]) -> (f64, bool) {
        gather(row, &self.columns[index], &mut self.vector);
        for ((at, codec), &(smallest, largest)) in self.own_scales.iter().zip(scales) {
            self.vector[*at] = codec.from_own_scale(self.vector[*at], smallest, largest);
        }
        let mut from = 1;
        for (value, (dim, codec)) in self.values.iter_mut().zip(&self.codecs) {
            codec.decode_into(&self.vector[from..from + dim], value);
            from += dim;
        }
        // The comparison is false for NaN: a broken model's flows end.
        (self.time.decode_number(self.vector[0]).unwrap_or(0.0), self.vector[from] > 0.5)
    }
}

#[inline]
fn gather(row: &[f32], columns: &[usize], out: &mut [f32]) {
    for (value, &column) in out.iter_mut().zip(columns) {
        *value = row[column];
    }
}
