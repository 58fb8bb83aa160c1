//! A table's rows of text, from a CSV (with any usual separator), a Zeek log or
//! a Parquet file, plain or gzip.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::parquet::{self, ParquetRows};
use super::source::Source;
use super::{IngestError, files};

/// No header or comment before it is longer.
const MOST_HEADER_BYTES: usize = 1 << 20;

/// How a file of rows is written, told from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Dialect {
    /// Between cells.
    separator: u8,
    /// The names of the columns.
    header: Vec<String>,
    /// Whether lines that begin with `#` are comments, as in Zeek's logs.
    comments: bool,
}

impl Dialect {
    /// Reads the header: of a Zeek log the `#fields` line, else the first
    /// line, whose separator is the one of `,` tab `;` `|` that it has most of.
    fn read(input: &mut dyn BufRead) -> std::io::Result<Dialect> {
        let mut line = Vec::new();
        let (mut read, mut zeek) = (0, false);
        loop {
            line.clear();
            let left = MOST_HEADER_BYTES.saturating_sub(read) as u64;
            let count = input.take(left).read_until(b'\n', &mut line)?;
            read += count;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
            zeek |= text.starts_with("#separator") || text.starts_with("#fields");
            if count == 0 || !zeek || !text.starts_with('#') {
                let most = |separator: &u8| line.iter().filter(|byte| *byte == separator).count();
                let separator = *b",\t;|".iter().rev().max_by_key(|s| most(s)).unwrap_or(&b',');
                let mut reader = ::csv::ReaderBuilder::new()
                    .delimiter(separator)
                    .trim(::csv::Trim::All)
                    .has_headers(false)
                    .from_reader(text.as_bytes());
                let header = reader.records().next().and_then(Result::ok).unwrap_or_default();
                let header = header.iter().map(str::to_owned).collect();
                return Ok(Dialect { separator, header, comments: false });
            }
            if let Some(names) = text.strip_prefix("#fields") {
                let header = names.split('\t').skip(1).map(str::to_owned).collect();
                return Ok(Dialect { separator: b'\t', header, comments: true });
            }
        }
    }

    fn reader<R: Read>(&self, rest: R) -> ::csv::Reader<R> {
        ::csv::ReaderBuilder::new()
            .has_headers(false)
            // Rows of another length are told from the header's, below.
            .flexible(true)
            .delimiter(self.separator)
            // Zeek escapes, and does not quote.
            .quoting(!self.comments)
            .comment(self.comments.then_some(b'#'))
            .trim(::csv::Trim::All)
            .from_reader(rest)
    }
}

/// A row over more lines than this is one whose quote was not closed.
const MOST_LINES: u64 = 100;
/// Nor is a row longer than this held.
const MOST_ROW_BYTES: u64 = 16 << 20;

/// Ends a read when no row ends.
struct Guard {
    inner: BufReader<Source>,
    /// Bytes that may be read before the next row is complete.
    left: Arc<AtomicU64>,
}

impl Read for Guard {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            let reason = "a row is longer than 16 MiB: is a quote not closed?";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, reason));
        }
        let most = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut out[..most])?;
        self.left.store(left - read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Rows of a file, one after another.
pub(crate) struct Rows {
    header: Vec<String>,
    input: Input,
    record: ::csv::StringRecord,
    row: u64,
}

enum Input {
    Csv(::csv::Reader<Guard>, Arc<AtomicU64>),
    Parquet(ParquetRows),
}

impl Rows {
    /// Opens a file and reads its header; what it is is told from its beginning.
    pub(crate) fn open(path: &Path) -> Result<Rows, IngestError> {
        if files::head(path, parquet::MAGIC.len())? == parquet::MAGIC {
            if files::is_compressed(path)? {
                let reason = "it is a Parquet file inside gzip; decompress it first".to_owned();
                return Err(IngestError::NotATable { path: path.to_owned(), reason });
            }
            let rows = ParquetRows::open(path)?;
            return Ok(Rows::new(rows.header(), Input::Parquet(rows)));
        }
        Rows::of_source(Source::open(path), path)
    }

    /// A CSV in memory.
    pub(crate) fn of_csv(bytes: &[u8], path: &Path) -> Result<Rows, IngestError> {
        Rows::of_source(Source::new(Cursor::new(bytes.to_vec())), path)
    }

    fn of_source(source: std::io::Result<Source>, path: &Path) -> Result<Rows, IngestError> {
        let io = |source| IngestError::Io { path: path.to_owned(), source };
        let mut input = BufReader::with_capacity(1 << 18, source.map_err(io)?);
        let dialect = Dialect::read(&mut input).map_err(io)?;
        let left = Arc::new(AtomicU64::new(MOST_ROW_BYTES));
        let reader = dialect.reader(Guard { inner: input, left: Arc::clone(&left) });
        Ok(Rows::new(dialect.header, Input::Csv(reader, left)))
    }

    fn new(header: Vec<String>, input: Input) -> Rows {
        Rows { header, input, record: ::csv::StringRecord::new(), row: 0 }
    }

    /// The names of the columns.
    pub(crate) fn header(&self) -> &[String] {
        &self.header
    }

    /// The next row's number, counted from 1, and its cells or what is wrong with it.
    pub(crate) fn next(
        &mut self,
        path: &Path,
    ) -> Option<(u64, Result<&::csv::StringRecord, IngestError>)> {
        self.row += 1;
        let row = self.row;
        let problem = |reason: String| IngestError::Row { path: path.to_owned(), row, reason };
        let (reader, left) = match &mut self.input {
            Input::Csv(reader, left) => (reader, left),
            Input::Parquet(rows) => {
                return match rows.next(&mut self.record)? {
                    Ok(()) => Some((row, Ok(&self.record))),
                    // What follows damage cannot be found.
                    Err(reason) => {
                        let path = path.to_owned();
                        Some((row, Err(IngestError::Damaged { path, row, reason })))
                    }
                };
            }
        };
        left.store(MOST_ROW_BYTES, Ordering::Relaxed);
        let line = reader.position().line();
        match reader.read_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => {
                let lines = reader.position().line() - line;
                if lines > MOST_LINES {
                    let reason = format!("it goes over {lines} lines: is a quote not closed?");
                    return Some((row, Err(problem(reason))));
                }
                let (expected, found) = (self.header.len(), self.record.len());
                if expected == found {
                    return Some((row, Ok(&self.record)));
                }
                let reason = format!("{found} cells; the header has {expected}");
                Some((row, Err(problem(reason))))
            }
            Err(error) => {
                let reason = match error.kind() {
                    ::csv::ErrorKind::Io(error) => {
                        let source = std::io::Error::new(error.kind(), error.to_string());
                        let path = path.to_owned();
                        return Some((row, Err(IngestError::Io { path, source })));
                    }
                    ::csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
                    _ => error.to_string(),
                };
                Some((row, Err(problem(reason))))
            }
        }
    }

    /// The file's SHA-256, and whether it ended too soon. Reads what is left of it.
    pub(crate) fn finish(self, path: &Path) -> Result<(String, bool), IngestError> {
        let io = |source| IngestError::Io { path: path.to_owned(), source };
        let (source, is_cut) = match self.input {
            Input::Csv(reader, _) => {
                let source = reader.into_inner().inner.into_inner();
                let is_cut = source.is_cut();
                (source, is_cut)
            }
            Input::Parquet(_) => {
                let mut source = Source::open(path).map_err(io)?;
                std::io::copy(&mut source, &mut std::io::sink()).map_err(io)?;
                (source, false)
            }
        };
        Ok((source.finish().map_err(io)?, is_cut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_tells_the_separator() {
        let dialect = |text: &str| Dialect::read(&mut text.as_bytes()).unwrap();
        let names = |text: &str| dialect(text).header.join("/");
        assert_eq!(names("a,b,c\n1,2,3\n"), "a/b/c");
        assert_eq!(names("\u{feff}a;b, c;d\r\n"), "a/b, c/d");
        assert_eq!(names("a\tb\n"), "a/b");
        assert_eq!(names("\"x, y\",b\n"), "x, y/b");
        assert_eq!(names("only\n1\n"), "only");
        assert_eq!(names(""), "");
        assert_eq!(names("#id,b\n1,2\n"), "#id/b");
        let zeek = "#separator \\x09\n#path\tconn\n#fields\tts\tuid\n#types\ttime\tstring\n1\tx\n#close\t2\n";
        assert_eq!(names(zeek), "ts/uid");
        let mut rest = zeek.as_bytes();
        let dialect = Dialect::read(&mut rest).unwrap();
        let rows: Vec<_> = dialect.reader(rest).into_records().map(Result::unwrap).collect();
        assert_eq!(rows, [vec!["1", "x"]]);
    }
}
