//! Flows whose attributes the user gives, from a CSV.

use std::io::Read;
use std::path::{Path, PathBuf};

use ns_model_format::codec::{Choice, Codec, CodecError};
use ns_model_format::{Column, ColumnData, Field, FieldKind, Layout, Schema, Value};

use crate::condition::{find_field, plain_cell};

/// Rows encoded at once.
const BLOCK: usize = 4096;
/// Encoded values in all, 4 bytes each.
const MOST_VALUES: usize = 1 << 28;

/// Why given attributes cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GivenError {
    /// The file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A header that is not the attributes.
    #[error("`{}`: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what there is.
        reason: String,
    },
    /// A row that cannot be split into cells, or is one too many.
    #[error("`{}`: row {row}: {reason}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Counted from 1, the header not counted.
        row: usize,
        /// What is wrong.
        reason: String,
    },
    /// A cell that the model has no form for.
    #[error("`{}`: row {row}, column `{column}`: {reason}", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// Counted from 1, the header not counted.
        row: usize,
        /// The column.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// No rows.
    #[error("`{}` has no rows", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Attributes of flows, one flow a row, checked and encoded for one bundle.
#[derive(Clone, Debug)]
pub struct GivenFlows {
    fields: Vec<Field>,
    /// Which fields are given: all, unless they are tokens.
    is_given: Vec<bool>,
    /// Whether all fields are tokens.
    tokens: bool,
    /// `[rows, dim]`, the folded forms of all fields, or their tokens: -1 of fields that are
    /// not given.
    folded: Vec<f32>,
    dim: usize,
    /// `[rows, fields]`.
    values: Vec<Value>,
    rows: usize,
    starts: Option<Starts>,
}

/// Given starts, ascending.
#[derive(Clone, Debug)]
struct Starts {
    origin_ns: i64,
    /// From the first, 0.
    offsets_ns: Vec<u64>,
}

/// A file while it is read.
struct Reading<'a> {
    path: &'a Path,
    schema: &'a Schema,
    /// For each attribute, its column in the file.
    at: Vec<Option<usize>>,
    time_at: Option<usize>,
    layouts: Vec<Layout>,
    flows: GivenFlows,
    times_ns: Vec<i64>,
    cells: Vec<Vec<String>>,
}

impl GivenFlows {
    /// Reads a CSV whose header names all attributes of the schema, or where all of them are
    /// tokens any of them; and maybe the time column: then the flows start at these times,
    /// else when the model says. Rows are put in order of time.
    ///
    /// # Errors
    /// The file cannot be read; a column that is missing or too many; a cell
    /// that is not of its field's kind, or that the field's encoder has no form
    /// for; no rows.
    pub fn read(path: &Path, schema: &Schema) -> Result<GivenFlows, GivenError> {
        let file = std::fs::File::open(path)
            .map_err(|source| GivenError::Io { path: path.to_owned(), source })?;
        GivenFlows::from_reader(file, path, schema)
    }

    /// The same from any reader; `path` stands for it in errors.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_reader(
        reader: impl Read,
        path: &Path,
        schema: &Schema,
    ) -> Result<GivenFlows, GivenError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(reader);
        let header = reader.headers().map_err(|error| csv_error(path, 0, error))?.clone();
        let mut reading = Reading::new(path, schema, &header)?;
        let mut record = csv::StringRecord::new();
        let mut row = 0;
        loop {
            row += 1;
            match reader.read_record(&mut record) {
                Ok(true) => reading.push(row, &record)?,
                Ok(false) => break,
                Err(error) => return Err(csv_error(path, row, error)),
            }
        }
        reading.finish()
    }

    /// How many flows are given.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none, which [`Self::read`] refuses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The first start, in nanoseconds since the epoch, if starts are given:
    /// where the run begins.
    #[must_use]
    pub fn origin_ns(&self) -> Option<i64> {
        self.starts.as_ref().map(|starts| starts.origin_ns)
    }

    /// When flow `flow` starts, from the beginning of the run, if starts are
    /// given. After the last row it goes round: the next begins as long after
    /// it as rows are apart on average, or after `span_ns` if they are all at once.
    pub(crate) fn start_ns(&self, flow: u64, span_ns: u64) -> Option<u64> {
        let Starts { offsets_ns, .. } = self.starts.as_ref()?;
        let rows = offsets_ns.len() as u64;
        let last = *offsets_ns.last()?;
        let gap = if last == 0 { span_ns } else { last.div_ceil(rows - 1) };
        let around = (flow / rows).saturating_mul(last.saturating_add(gap));
        Some(around.saturating_add(offsets_ns[(flow % rows) as usize]))
    }

    /// Whether the attributes were read for these fields.
    pub(crate) fn is_of(&self, schema: &Schema) -> bool {
        self.fields == schema.attributes
    }

    /// Which attributes are given.
    pub(crate) fn is_given(&self) -> &[bool] {
        &self.is_given
    }

    /// Whether all are.
    pub(crate) fn are_all_given(&self) -> bool {
        !self.is_given.contains(&false)
    }

    /// Whether [`Self::folded`] has tokens.
    pub(crate) fn is_tokens(&self) -> bool {
        self.tokens
    }

    /// The encoded attributes of flow `flow`, field by field; where all fields are
    /// tokens, these.
    pub(crate) fn folded(&self, flow: u64) -> &[f32] {
        let row = (flow % self.rows as u64) as usize;
        &self.folded[row * self.dim..][..self.dim]
    }

    /// The attributes of flow `flow`; anything in place of what is not given.
    pub(crate) fn values(&self, flow: u64) -> &[Value] {
        let row = (flow % self.rows as u64) as usize;
        &self.values[row * self.fields.len()..][..self.fields.len()]
    }
}

impl<'a> Reading<'a> {
    fn new(
        path: &'a Path,
        schema: &'a Schema,
        header: &csv::StringRecord,
    ) -> Result<Reading<'a>, GivenError> {
        let fail = |reason| GivenError::Header { path: path.to_owned(), reason };
        let names: Vec<String> = schema.attributes.iter().map(|field| field.name.clone()).collect();
        let time = std::slice::from_ref(&schema.timestamp.column);
        let list = |names: &[String]| format!("`{}`", names.join("`, `"));
        let mut at: Vec<Option<usize>> = vec![None; names.len()];
        let mut time_at = None;
        for (column, name) in header.iter().enumerate() {
            let place = match (find_field(&names, name), find_field(time, name)) {
                (Some(field), _) => &mut at[field],
                (None, Some(_)) => &mut time_at,
                (None, None) => {
                    let attributes = list(&names);
                    return Err(fail(format!(
                        "column `{name}` is no attribute; the attributes are {attributes}, and \
                         the time column `{}` may be there",
                        time[0]
                    )));
                }
            };
            if place.replace(column).is_some() {
                return Err(fail(format!("column `{name}` stands twice")));
            }
        }
        let segments = |field: &Field| Layout { segments: field.codec.segments() };
        let tokens = schema.attributes.iter().map(|field| match &field.codec {
            Codec::Tokens(codec) => Some(codec.sizes().len()),
            _ => None,
        });
        let tokens: Option<usize> = tokens.sum();
        let missing = names.iter().zip(&at).filter(|(_, at)| at.is_none());
        let missing: Vec<String> = missing.map(|(name, _)| name.clone()).collect();
        if tokens.is_none() && !missing.is_empty() {
            return Err(fail(format!("all attributes are needed; missing: {}", list(&missing))));
        }
        if header.is_empty() {
            return Err(fail(format!("no columns; the attributes are {}", list(&names))));
        }
        let folded = || schema.attributes.iter().map(Field::folded_dim).sum();
        Ok(Reading {
            path,
            schema,
            cells: vec![Vec::new(); names.len()],
            flows: GivenFlows {
                fields: schema.attributes.clone(),
                is_given: at.iter().map(Option::is_some).collect(),
                tokens: tokens.is_some(),
                folded: Vec::new(),
                dim: tokens.unwrap_or_else(folded),
                values: Vec::new(),
                rows: 0,
                starts: None,
            },
            at,
            time_at,
            layouts: schema.attributes.iter().map(segments).collect(),
            times_ns: Vec::new(),
        })
    }

    fn push(&mut self, row: usize, record: &csv::StringRecord) -> Result<(), GivenError> {
        if row.saturating_mul(self.flows.dim.max(1)) > MOST_VALUES {
            let most = MOST_VALUES / self.flows.dim.max(1);
            let reason = format!("at most {most} rows can be given to this bundle");
            return Err(GivenError::Row { path: self.path.to_owned(), row, reason });
        }
        if let Some(at) = self.time_at {
            let cell = record.get(at).unwrap_or_default();
            let timestamp = &self.schema.timestamp;
            let time = timestamp.parse_text(cell).ok_or_else(|| {
                let unit = timestamp.unit.nanoseconds();
                let reason = format!("`{cell}` is no time in units of {unit} ns");
                self.cell_error(row, &timestamp.column, reason)
            })?;
            self.times_ns.push(time);
        }
        for (field, at) in self.at.iter().enumerate() {
            let Some(at) = *at else { continue };
            let cell = record.get(at).unwrap_or_default();
            let cell = plain_cell(self.schema, &self.schema.attributes[field], cell);
            self.cells[field].push(cell.to_owned());
        }
        self.flows.rows = row;
        if self.rows_to_encode() >= BLOCK {
            self.encode()?;
        }
        Ok(())
    }

    /// Rows read since the last time that some were encoded.
    fn rows_to_encode(&self) -> usize {
        self.flows.rows - self.flows.values.len() / self.flows.fields.len().max(1)
    }

    /// Encodes them.
    fn encode(&mut self) -> Result<(), GivenError> {
        let fields = self.schema.attributes.len();
        let rows = self.rows_to_encode();
        let first = self.flows.values.len() / fields.max(1);
        let (folded_from, dim) = (self.flows.folded.len(), self.flows.dim);
        self.flows.folded.resize(folded_from + rows * dim, -1.0);
        self.flows.values.resize((first + rows) * fields, Value::Int(0));
        let mut offset = 0;
        for (index, field) in self.schema.attributes.iter().enumerate() {
            if !self.flows.is_given[index] {
                // Only of tokens.
                offset += field.codec.segments().len();
                continue;
            }
            let cells = std::mem::take(&mut self.cells[index]);
            let column = column_of(field, &cells)
                .map_err(|(at, reason)| self.cell_error(first + at + 1, &field.name, reason))?;
            let encoded = self.encode_field(index, &column, first)?;
            let narrow = encoded.len() / rows.max(1);
            for (row, encoded) in encoded.chunks_exact(narrow.max(1)).enumerate() {
                let at = folded_from + row * dim + offset;
                self.flows.folded[at..at + narrow].copy_from_slice(encoded);
                let value =
                    kept(field, column.value(row), &cells[row], self.decode(field, encoded))
                        .map_err(|reason| self.cell_error(first + row + 1, &field.name, reason))?;
                self.flows.values[(first + row) * fields + index] = value;
            }
            offset += narrow;
        }
        Ok(())
    }

    /// The folded forms of a column that begins at row `first`, or its tokens.
    fn encode_field(
        &self,
        index: usize,
        column: &Column,
        first: usize,
    ) -> Result<Vec<f32>, GivenError> {
        let field = &self.schema.attributes[index];
        let fail = |error| match error {
            CodecError::Value { row, found, reason, .. } => {
                self.cell_error(first + row, &field.name, format!("`{found}` {reason}"))
            }
            other => self.cell_error(first + 1, &field.name, other.to_string()),
        };
        if let (true, Codec::Tokens(codec)) = (self.flows.tokens, &field.codec) {
            let mut tokens = Vec::new();
            codec.tokens(column, &mut tokens).map_err(fail)?;
            return Ok(tokens.into_iter().map(|token| token as f32).collect());
        }
        let layout = &self.layouts[index];
        let (wide, narrow) = (layout.dim(), layout.folded_dim());
        let mut encoded = vec![0.0; column.len() * wide];
        field.codec.encode(column, &mut encoded, wide, 0).map_err(fail)?;
        let mut folded = vec![0.0; column.len() * narrow];
        let rows = encoded.chunks_exact(wide).zip(folded.chunks_exact_mut(narrow));
        rows.for_each(|(encoded, folded)| layout.fold(encoded, folded));
        Ok(folded)
    }

    fn decode(&self, field: &Field, encoded: &[f32]) -> Value {
        match &field.codec {
            Codec::Tokens(codec) if self.flows.tokens => {
                let tokens: Vec<u32> = encoded.iter().map(|&token| token as u32).collect();
                codec.value(&tokens, 0.5)
            }
            codec => codec.decode(encoded),
        }
    }

    fn finish(mut self) -> Result<GivenFlows, GivenError> {
        self.encode()?;
        let Reading { mut flows, times_ns, time_at, .. } = self;
        if flows.rows == 0 {
            return Err(GivenError::Empty { path: self.path.to_owned() });
        }
        if time_at.is_none() {
            return Ok(flows);
        }
        // Stable: flows that start together stay in the file's order.
        let mut order: Vec<usize> = (0..flows.rows).collect();
        order.sort_by_key(|&row| times_ns[row]);
        if !order.is_sorted() {
            let rows = |width: usize| order.iter().map(move |&row| row * width..(row + 1) * width);
            flows.folded =
                rows(flows.dim).flat_map(|row| flows.folded[row].iter().copied()).collect();
            flows.values = rows(flows.fields.len())
                .flat_map(|row| flows.values[row].iter().copied())
                .collect();
        }
        let origin_ns = times_ns[order[0]];
        let offsets_ns = order.iter().map(|&row| times_ns[row].abs_diff(origin_ns)).collect();
        flows.starts = Some(Starts { origin_ns, offsets_ns });
        Ok(flows)
    }

    fn cell_error(&self, row: usize, column: &str, reason: String) -> GivenError {
        GivenError::Cell { path: self.path.to_owned(), row, column: column.to_owned(), reason }
    }
}

/// The cells as a column, or which cannot be one and why.
fn column_of(field: &Field, cells: &[String]) -> Result<Column, (usize, String)> {
    let values: Vec<Option<Value>> = cells
        .iter()
        .enumerate()
        .map(|(row, cell)| field.parse_cell(cell).map_err(|reason| (row, reason)))
        .collect::<Result<_, _>>()?;
    let there = values.iter().flatten().find(|value| **value != Value::Missing);
    let mut column = if field.kind == FieldKind::Text {
        Column::texts(&field.name, cells)
    } else {
        let numbers = || values.iter().copied().map(|value| value.unwrap_or(Value::Missing));
        let data = match there {
            Some(Value::Float(_)) => {
                ColumnData::Float(numbers().map(|v| v.as_f64().unwrap_or(0.0)).collect())
            }
            Some(Value::Wide(_)) => {
                let wide = |value| if let Value::Wide(wide) = value { wide.into() } else { 0 };
                ColumnData::Wide(numbers().map(wide).collect())
            }
            _ => ColumnData::Int(numbers().map(|v| v.as_i64().unwrap_or(0)).collect()),
        };
        Column::new(&field.name, data)
    };
    column.missing = values.iter().map(|value| *value == Some(Value::Missing)).collect();
    Ok(column)
}

/// The value of a given cell, if its encoded form stands for it.
fn kept(field: &Field, given: Value, cell: &str, decoded: Value) -> Result<Value, String> {
    let outside = |least: f64, most: f64| {
        let mut text = format!("`{cell}` is not from ");
        field.write_text(Value::Float(least), &mut text);
        text.push_str(" to ");
        field.write_text(Value::Float(most), &mut text);
        text
    };
    match (&field.codec, field.codec.bounds()) {
        // To the digits that single precision has, and for any other number too.
        (Codec::Float(_) | Codec::Quantile(_), Some((least, most))) => match given.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(given),
            _ => Err(outside(least, most)),
        },
        // A token may be a bin of many: the given value is one of them.
        (Codec::Tokens(_), bounds) => match (given, bounds, field.codec.choices()) {
            (Value::Text(_), _, Some(choices)) => {
                let is_given = |choice: &Choice| matches!(choice, Choice::Text(t) if t == cell);
                let at = choices.iter().position(is_given);
                Ok(at.map_or(decoded, |at| Value::Text(at as u32)))
            }
            (Value::Text(_), ..) => Ok(decoded),
            (given, Some((least, most)), _) if given != Value::Missing => match given.as_f64() {
                Some(number) if (least..=most).contains(&number) => Ok(given),
                _ => Err(outside(least, most)),
            },
            (given, ..) => Ok(given),
        },
        (_, bounds) => {
            let mut written = (String::new(), String::new());
            field.write_text(decoded, &mut written.0);
            match given {
                Value::Text(_) => written.1.push_str(cell),
                given => field.write_text(given, &mut written.1),
            }
            match bounds {
                _ if written.0 == written.1 => Ok(decoded),
                Some((least, most)) => Err(outside(least, most)),
                None => Err(format!("`{cell}` would come out as `{}`", written.0)),
            }
        }
    }
}

fn csv_error(path: &Path, row: usize, error: csv::Error) -> GivenError {
    let path = path.to_owned();
    match error.into_kind() {
        csv::ErrorKind::Io(source) => GivenError::Io { path, source },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => GivenError::Row {
            path,
            row,
            reason: format!("{len} cells, the header has {expected_len}"),
        },
        csv::ErrorKind::Utf8 { .. } => {
            GivenError::Row { path, row, reason: "is not UTF-8".to_owned() }
        }
        _ => GivenError::Row { path, row, reason: "cannot be read as CSV".to_owned() },
    }
}

#[cfg(test)]
mod tests;
