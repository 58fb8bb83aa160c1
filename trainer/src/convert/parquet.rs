//! A Parquet file of packets, row group by row group.

use std::fs::File;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::names;
use crate::ingest::packets::{COLUMNS, Cell, PacketRow};

/// Rows that are held before they are written: about 50 MB.
const GROUP: usize = 1 << 17;

/// Writes packets; nothing is readable before [`Self::finish`].
pub(super) struct ParquetWriter {
    writer: SerializedFileWriter<File>,
    times_ns: Vec<i64>,
    /// One list a column, the time left out.
    cells: Vec<Vec<Cell>>,
}

impl ParquetWriter {
    pub(super) fn new(file: File) -> Result<ParquetWriter, ParquetError> {
        let columns: Vec<String> = names()
            .enumerate()
            .map(|(index, name)| match index {
                0 | 1 => format!("REQUIRED BYTE_ARRAY {name} (STRING);"),
                PacketRow::TIME_AT => {
                    format!("REQUIRED INT64 {name} (TIMESTAMP(NANOS,true));")
                }
                _ => format!("REQUIRED INT32 {name};"),
            })
            .collect();
        let schema = parse_message_type(&format!("message packets {{ {} }}", columns.join(" ")))?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        Ok(ParquetWriter {
            writer: SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?,
            times_ns: Vec::new(),
            cells: vec![Vec::new(); COLUMNS.len()],
        })
    }

    pub(super) fn push(&mut self, row: &PacketRow) -> Result<(), ParquetError> {
        self.times_ns.push(row.time_ns);
        for (column, &cell) in self.cells.iter_mut().zip(&row.cells) {
            column.push(cell);
        }
        if self.times_ns.len() == GROUP { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.times_ns.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        let mut cells = self.cells.iter_mut();
        let mut index = 0;
        while let Some(mut column) = group.next_column()? {
            if index == PacketRow::TIME_AT {
                column.typed::<Int64Type>().write_batch(&self.times_ns, None, None)?;
                self.times_ns.clear();
            } else if let Some(cells) = cells.next() {
                if index < 2 {
                    let text = |cell: &Cell| ByteArray::from(cell.to_string().into_bytes());
                    let texts: Vec<ByteArray> = cells.iter().map(text).collect();
                    column.typed::<ByteArrayType>().write_batch(&texts, None, None)?;
                } else {
                    // 32 bits at most.
                    let number = |cell: &Cell| match cell {
                        Cell::Number(number) => *number as i32,
                        Cell::Address(_) => 0,
                    };
                    let numbers: Vec<i32> = cells.iter().map(number).collect();
                    column.typed::<Int32Type>().write_batch(&numbers, None, None)?;
                }
                cells.clear();
            }
            column.close()?;
            index += 1;
        }
        group.close().map(drop)
    }

    pub(super) fn finish(mut self) -> Result<(), ParquetError> {
        self.write_group()?;
        self.writer.close().map(drop)
    }
}
