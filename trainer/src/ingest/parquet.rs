//! Parquet files as rows of text.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;

use super::IngestError;

/// A file's first bytes, and its last.
pub(super) const MAGIC: &[u8] = b"PAR1";

/// Rows of a file, row group after row group.
pub(super) struct ParquetRows {
    header: Vec<String>,
    rows: RowIter<'static>,
}

impl ParquetRows {
    /// Opens a file and reads its schema.
    pub(super) fn open(path: &Path) -> Result<ParquetRows, IngestError> {
        let io = |source| IngestError::Io { path: path.to_owned(), source };
        let damaged = |reason: String| IngestError::NotATable { path: path.to_owned(), reason };
        let file = File::open(path).map_err(io)?;
        let reader = SerializedFileReader::new(file).map_err(|error| damaged(error.to_string()))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let fields = schema.root_schema().get_fields();
        if let Some(nested) = fields.iter().find(|field| !field.is_primitive()) {
            let reason =
                format!("column `{}` is nested; only plain columns are read", nested.name());
            return Err(damaged(reason));
        }
        let header = fields.iter().map(|field| field.name().to_owned()).collect();
        Ok(ParquetRows { header, rows: reader.into_iter() })
    }

    /// The names of the columns.
    pub(super) fn header(&self) -> Vec<String> {
        self.header.clone()
    }

    /// Takes the next row's cells into `record`, or says why it cannot be read.
    pub(super) fn next(&mut self, record: &mut ::csv::StringRecord) -> Option<Result<(), String>> {
        let row = match self.rows.next()? {
            Ok(row) => row,
            Err(error) => return Some(Err(error.to_string())),
        };
        record.clear();
        for (_, field) in row.get_column_iter() {
            record.push_field(&text(field));
        }
        Some(Ok(()))
    }
}

/// A cell as a CSV would have it: times as numbers of their unit, nothing as "".
fn text(field: &Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned(),
        Field::Date(days) => (i64::from(*days) * 86_400).to_string(),
        Field::TimestampMillis(time) | Field::TimestampMicros(time) => time.to_string(),
        other => other.to_string(),
    }
}
