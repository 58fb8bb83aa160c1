//! `ns-train convert`: captures as a table, CSV or Parquet, for pandas and its like.

mod cli;
mod parquet;

pub use cli::ConvertArgs;
pub(crate) use cli::run;

use std::fmt::Write as _;
use std::io::{BufWriter, Write};

use ns_model_format::schema::packet_field;

use self::parquet::ParquetWriter;
use crate::ingest::packets::{COLUMNS, PacketRow};

/// Writes packets, one a row.
enum Writer {
    Csv { out: BufWriter<Box<dyn Write>>, line: String },
    Parquet(ParquetWriter),
}

impl Writer {
    /// A CSV, its header written.
    fn csv(out: Box<dyn Write>) -> std::io::Result<Writer> {
        let mut out = BufWriter::with_capacity(1 << 18, out);
        let names: Vec<&str> = names().collect();
        writeln!(out, "{}", names.join(","))?;
        Ok(Writer::Csv { out, line: String::new() })
    }

    fn push(&mut self, row: &PacketRow) -> anyhow::Result<()> {
        match self {
            Writer::Csv { out, line } => {
                line.clear();
                for (index, cell) in row.cells.iter().enumerate() {
                    if index == PacketRow::TIME_AT {
                        push_time(row.time_ns, line);
                        line.push(',');
                    }
                    let _ = write!(line, "{cell}");
                    line.push(if index + 1 == row.cells.len() { '\n' } else { ',' });
                }
                out.write_all(line.as_bytes())?;
            }
            Writer::Parquet(writer) => writer.push(row)?,
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Writer::Csv { mut out, .. } => Ok(out.flush()?),
            Writer::Parquet(writer) => Ok(writer.finish()?),
        }
    }
}

/// Microseconds, as in NetShare's CSV of a capture; what a capture in
/// nanoseconds has beyond stands after the point.
fn push_time(time_ns: i64, line: &mut String) {
    let (us, rest) = (time_ns.div_euclid(1_000), time_ns.rem_euclid(1_000));
    // Writing to a String cannot fail.
    let _ = write!(line, "{us}");
    if rest != 0 {
        let _ = write!(line, ".{rest:03}");
    }
}

/// The columns, the time among them.
fn names() -> impl Iterator<Item = &'static str> {
    let (before, after) = COLUMNS.split_at(PacketRow::TIME_AT);
    before.iter().chain([&packet_field::TIME]).chain(after).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_nanoseconds() {
        let text = |time_ns| {
            let mut line = String::new();
            push_time(time_ns, &mut line);
            line
        };
        assert_eq!(text(1_521_911_720_865_716_000), "1521911720865716");
        assert_eq!(text(1_521_911_720_865_716_042), "1521911720865716.042");
    }
}
