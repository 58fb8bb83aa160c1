//! Records as lines of a CSV (RFC 4180), in the columns of the schema.

use std::sync::Arc;

use ns_model_format::{Schema, Value};

use crate::render::Render;

/// Where a column's values come from.
#[derive(Clone, Copy, Debug)]
enum Column {
    Time,
    Attribute(usize),
    Measurement(usize),
}

/// Renders records as lines of a CSV, without the line's end.
#[derive(Clone, Debug)]
pub struct RowRender {
    schema: Arc<Schema>,
    columns: Arc<[Column]>,
    origin_ns: i64,
    /// The cell being written.
    cell: String,
    /// The line being written.
    line: String,
}

impl RowRender {
    /// Rows of the schema's columns; the run begins at `origin_ns`, in
    /// nanoseconds since the epoch.
    #[must_use]
    pub fn new(schema: &Schema, origin_ns: i64) -> RowRender {
        let find = |name: &String| {
            let position = |fields: &[ns_model_format::Field]| {
                fields.iter().position(|field| field.name == *name)
            };
            if let Some(index) = position(&schema.attributes) {
                Column::Attribute(index)
            } else if let Some(index) = position(&schema.measurements) {
                Column::Measurement(index)
            } else {
                // A bundle was checked for columns that are no field.
                Column::Time
            }
        };
        RowRender {
            columns: schema.columns.iter().map(find).collect(),
            schema: Arc::new(schema.clone()),
            origin_ns,
            cell: String::new(),
            line: String::new(),
        }
    }

    /// The names of the columns, as the first line of the CSV.
    #[must_use]
    pub fn header(&self) -> String {
        let mut line = String::new();
        for (index, name) in self.schema.columns.iter().enumerate() {
            if index > 0 {
                line.push(',');
            }
            push_quoted(name, &mut line);
        }
        line
    }
}

/// Appends a cell, in quotes if it holds what would end it.
pub(crate) fn push_quoted(cell: &str, line: &mut String) {
    if !cell.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        line.push_str(cell);
        return;
    }
    line.push('"');
    for part in cell.split_inclusive('"') {
        line.push_str(part);
        if part.ends_with('"') {
            line.push('"');
        }
    }
    line.push('"');
}

impl Render for RowRender {
    type Flow = Box<[Value]>;
    type Item = Box<str>;

    fn begin_flow(&mut self, _flow: u64, attributes: &[Value]) -> Box<[Value]> {
        attributes.into()
    }

    fn record(&mut self, flow: &mut Box<[Value]>, time_ns: u64, values: &[Value]) -> Box<str> {
        self.line.clear();
        for (index, &column) in self.columns.iter().enumerate() {
            self.cell.clear();
            let (fields, values, at) = match column {
                Column::Attribute(at) => (&self.schema.attributes, &flow[..], at),
                Column::Measurement(at) => (&self.schema.measurements, values, at),
                Column::Time => {
                    let time_ns = i64::try_from(time_ns).unwrap_or(i64::MAX);
                    let time_ns = self.origin_ns.saturating_add(time_ns);
                    self.schema.timestamp.write_text(time_ns, &mut self.cell);
                    (&self.schema.attributes, &[][..], 0)
                }
            };
            if let (Some(field), Some(&value)) = (fields.get(at), values.get(at)) {
                field.write_text(value, &mut self.cell);
            }
            if index > 0 {
                self.line.push(',');
            }
            push_quoted(&self.cell, &mut self.line);
        }
        self.line.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use ns_model_format::codec::{BitCodec, CategoricalCodec, Codec, FloatCodec, FloatOptions};
    use ns_model_format::schema::{TimeEncoding, TimeUnit, Timestamp, TraceKind};
    use ns_model_format::{Column, Field, FieldKind};

    use super::*;

    #[test]
    fn rows_are_read_back_by_a_csv_reader() {
        let names = ["plain", "with, comma", "with \"quotes\"", "\"", "two\nlines"];
        let words = Column::texts("name", names);
        let time = Column::floats("ts", vec![0.0, 1.0]);
        let field =
            |name: &str, kind, codec| Field { name: name.to_owned(), kind, codec, missing: None };
        let schema = Schema {
            kind: TraceKind::Custom,
            columns: ["ts", "host, name", "name"].map(str::to_owned).into(),
            timestamp: Timestamp {
                column: "ts".to_owned(),
                unit: TimeUnit::Milliseconds,
                decimals: 1,
                encoding: TimeEncoding::Interarrival,
                codec: Codec::Float(FloatCodec::fit(&time, FloatOptions::default()).unwrap()),
                datetime: None,
            },
            conversations: false,
            attributes: vec![field(
                "host, name",
                FieldKind::Ipv4,
                Codec::Bit(BitCodec::new("host", 32).unwrap()),
            )],
            measurements: vec![field(
                "name",
                FieldKind::Text,
                Codec::Categorical(CategoricalCodec::fit(&words, None).unwrap()),
            )],
            self_norm: false,
            distinct: None,
            longest: None,
            segmentation: None,
            spanning: None,
            word2vec: Default::default(),
        };
        let mut render = RowRender::new(&schema, 1_000_000_000);
        let mut flow = render.begin_flow(0, &[Value::Int(0x0a00_0001)]);
        let mut text = render.header();
        for index in 0..5 {
            text.push_str("\r\n");
            text.push_str(&render.record(&mut flow, 1_500_000, &[Value::Text(index)]));
        }
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(reader.headers().unwrap(), vec!["ts", "host, name", "name"]);
        for (index, row) in reader.records().enumerate() {
            let word = schema.measurements[0].codec.word(index as u32);
            assert_eq!(row.unwrap(), vec!["1001.5", "10.0.0.1", word]);
        }
    }
}
