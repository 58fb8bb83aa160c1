//! What an encoding makes of the values that it is given.

use ns_model_format::{Column, Field, Layout};
use serde::Serialize;

use crate::ingest::TraceColumn;

/// Rows that are encoded and decoded; of more, every n-th is.
const MOST_ROWS: usize = 100_000;
/// Rows at a time.
const BLOCK: usize = 4_096;

/// decode(encode(x)) against x, as both are written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loss {
    /// The column.
    pub column: String,
    /// Whether it is fixed in a flow.
    pub attribute: bool,
    /// Its encoder in words.
    pub encoding: String,
    /// Values of the encoded form.
    pub values: usize,
    /// Rows that were looked at.
    pub rows: usize,
    /// The share that is written as it was.
    pub exact: f64,
    /// The mean distance between numbers; `None` for text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_error: Option<f64>,
    /// The largest distance between numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_error: Option<f64>,
    /// The mean distance as a share of the mean size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_error: Option<f64>,
}

impl Loss {
    /// Encodes and decodes a column.
    pub(super) fn of(field: &Field, column: &TraceColumn, attribute: bool) -> Loss {
        let layout = Layout { segments: field.codec.segments() };
        let (dim, mut folded) = (layout.dim(), vec![0.0; layout.folded_dim()]);
        let step = column.column.len().div_ceil(MOST_ROWS).max(1);
        let rows: Vec<usize> = (0..column.column.len()).step_by(step).collect();
        let mut exact = 0_usize;
        let (mut sum, mut size, mut largest, mut numbers) = (0.0, 0.0, 0.0_f64, 0_usize);
        let (mut before, mut after) = (String::new(), String::new());
        for rows in rows.chunks(BLOCK) {
            let block = column.column.pick(rows);
            let mut encoded = vec![0.0; dim * rows.len()];
            if field.codec.encode(&block, &mut encoded, dim, 0).is_err() {
                // Building the dataset has said why; here such rows count as lost.
                continue;
            }
            for (row, encoded) in encoded.chunks_exact(dim).enumerate() {
                layout.fold(encoded, &mut folded);
                let decoded = field.codec.decode(&folded);
                before.clear();
                after.clear();
                write_original(field, &block, row, &mut before);
                field.write_text(decoded, &mut after);
                exact += usize::from(before == after);
                if let (Some(a), Some(b)) = (block.value(row).as_f64(), decoded.as_f64()) {
                    sum += (a - b).abs();
                    size += a.abs();
                    largest = largest.max((a - b).abs());
                    numbers += 1;
                }
            }
        }
        let mean = (numbers > 0).then(|| sum / numbers as f64);
        Loss {
            column: field.name.clone(),
            attribute,
            encoding: field.codec.describe(),
            values: dim,
            rows: rows.len(),
            exact: exact as f64 / rows.len().max(1) as f64,
            mean_error: mean,
            largest_error: mean.map(|_| largest),
            relative_error: mean.map(|_| if size > 0.0 { sum / size } else { sum }),
        }
    }
}

/// The cell of a row as it would be written.
fn write_original(field: &Field, column: &Column, row: usize, out: &mut String) {
    match column.value(row) {
        // A decoded text is one of the encoder's words, this one is the column's.
        ns_model_format::Value::Text(index) => out.push_str(&column.words()[index as usize]),
        value => field.write_text(value, out),
    }
}
