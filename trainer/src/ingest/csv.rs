//! CSV files to a [`Trace`].

use std::io::Read;
use std::path::Path;

use ns_model_format::Column;
use ns_model_format::schema::{FieldKind, TimeUnit};

use super::{IngestError, NotUsed, OnError, TimeColumn, Trace, group_flows};
use crate::config::{FieldConfig, FieldType, Resolved};

/// Most digits after the point that a decimal column keeps.
const MOST_DECIMALS: usize = 9;

/// A column while it is read.
struct Reading {
    name: String,
    kind: FieldType,
    numbers: Vec<f64>,
    integers: Vec<i64>,
    texts: Vec<String>,
    dotted: bool,
    decimals: usize,
}

/// Reads the configured columns of a CSV with a header and makes flows of the
/// rows that share the metadata columns.
///
/// # Errors
/// The file cannot be read or split, lacks a column, has a cell that its
/// column cannot hold (unless skipped), or no rows.
pub fn read(path: &Path, config: &Resolved, on_error: OnError) -> Result<Trace, IngestError> {
    let io = |source| IngestError::Io { path: path.to_owned(), source };
    from_reader(std::fs::File::open(path).map_err(io)?, path, config, on_error)
}

/// The same from any reader; `path` stands for it in errors.
///
/// # Errors
/// As [`read`].
pub fn from_reader(
    reader: impl Read,
    path: &Path,
    config: &Resolved,
    on_error: OnError,
) -> Result<Trace, IngestError> {
    let mut reader = ::csv::ReaderBuilder::new().trim(::csv::Trim::All).from_reader(reader);
    let header = reader.headers().map_err(|error| row_error(path, &error))?.clone();
    let find = |name: &str| {
        header.iter().position(|cell| cell == name).ok_or_else(|| {
            let names: Vec<&str> = header.iter().take(40).collect();
            let found = match names.as_slice() {
                [] | [""] => "none: the file is empty".to_owned(),
                names => format!("`{}`", names.join("`, `")),
            };
            IngestError::MissingColumn { path: path.to_owned(), column: name.to_owned(), found }
        })
    };
    let time_at = find(&config.timestamp.column)?;
    let fields: Vec<&FieldConfig> = config.metadata.iter().chain(&config.timeseries).collect();
    let at: Vec<usize> =
        fields.iter().map(|field| find(&field.column)).collect::<Result<_, _>>()?;
    let mut columns: Vec<Reading> = fields.iter().map(|field| Reading::new(field)).collect();
    let mut times: Vec<Decimal> = Vec::new();
    let mut input_rows: Vec<u64> = Vec::new();
    let mut not_used = NotUsed::new();
    let mut record = ::csv::StringRecord::new();
    let mut row = 0_u64;
    loop {
        row += 1;
        let problem = match reader.read_record(&mut record) {
            Ok(false) => break,
            Err(error) if matches!(error.kind(), ::csv::ErrorKind::Io(_)) => {
                return Err(row_error(path, &error));
            }
            Err(error) => Some((row_error(path, &error), "rows with too few or too many cells")),
            Ok(true) => read_row(path, row, &record, time_at, &at, config, &mut columns)
                .map(|time| times.push(time))
                .err()
                .map(|error| (error, "rows with a bad cell")),
        };
        match problem {
            None => input_rows.push(row),
            Some((error, _)) if on_error == OnError::Stop => return Err(error),
            Some((_, reason)) => *not_used.entry(reason.to_owned()).or_default() += 1,
        }
    }
    if times.is_empty() {
        let reasons = super::reasons(&not_used);
        return Err(IngestError::Empty { path: path.to_owned(), reasons });
    }
    let time = time_column(config, &times);
    let times_ns: Vec<i64> = times.iter().map(|decimal| decimal.scaled(time.unit)).collect();
    // Order by time, equal times in the file's order.
    let mut order: Vec<u32> = (0..times.len() as u32).collect();
    order.sort_by_key(|&row| times_ns[row as usize]);
    let times_ns: Vec<i64> = order.iter().map(|&row| times_ns[row as usize]).collect();
    let input_rows = order.iter().map(|&row| input_rows[row as usize]).collect();
    let (columns, kinds): (Vec<Column>, Vec<FieldKind>) =
        columns.into_iter().map(|column| column.finish(&order)).unzip();
    let timeout = config.idle_timeout.map(|seconds| (seconds * 1e9) as i64);
    let metadata = &columns[..config.metadata.len()];
    let keys = (0..times_ns.len()).map(|row| key(metadata, row));
    let flows = group_flows(keys, &times_ns, timeout);
    let modelled = |name: &&str| {
        *name == config.timestamp.column || fields.iter().any(|field| field.column == *name)
    };
    Ok(Trace {
        columns,
        kinds,
        times_ns,
        input_rows,
        time,
        order: header.iter().filter(modelled).map(str::to_owned).collect(),
        flows,
        not_used,
    })
}

fn row_error(path: &Path, error: &::csv::Error) -> IngestError {
    IngestError::Row { path: path.to_owned(), reason: error.to_string() }
}

/// A row's metadata as bits that are equal where the values are.
fn key(metadata: &[Column], row: usize) -> Vec<u64> {
    metadata
        .iter()
        .map(|column| match column.value(row) {
            ns_model_format::Value::Int(value) => value as u64,
            ns_model_format::Value::Float(value) => value.to_bits(),
            ns_model_format::Value::Text(index) => u64::from(index),
            _ => 0,
        })
        .collect()
}

/// Reads a row into the columns, all cells or none; returns its time.
fn read_row(
    path: &Path,
    row: u64,
    record: &::csv::StringRecord,
    time_at: usize,
    at: &[usize],
    config: &Resolved,
    columns: &mut [Reading],
) -> Result<Decimal, IngestError> {
    let fail = |column: &str, reason: String| IngestError::Cell {
        path: path.to_owned(),
        row,
        column: column.to_owned(),
        reason,
    };
    let cell = |at: usize| record.get(at).unwrap_or_default();
    let time = Decimal::parse(cell(time_at))
        .ok_or_else(|| fail(&config.timestamp.column, format!("`{}` is no time", cell(time_at))))?;
    for (done, &at) in at.iter().enumerate() {
        if let Err(reason) = columns[done].push(cell(at)) {
            let name = columns[done].name.clone();
            columns[..done].iter_mut().for_each(Reading::pop);
            return Err(fail(&name, reason));
        }
    }
    Ok(time)
}

impl Reading {
    fn new(field: &FieldConfig) -> Reading {
        Reading {
            name: field.column.clone(),
            kind: field.kind,
            numbers: Vec::new(),
            integers: Vec::new(),
            texts: Vec::new(),
            dotted: false,
            decimals: 0,
        }
    }

    fn push(&mut self, cell: &str) -> Result<(), String> {
        match self.kind {
            FieldType::String => self.texts.push(cell.to_owned()),
            FieldType::Float => {
                let number: f64 = cell
                    .parse()
                    .ok()
                    .filter(|number: &f64| number.is_finite())
                    .ok_or_else(|| expected("a number", cell))?;
                self.decimals = self.decimals.max(decimals(cell, number));
                self.numbers.push(number);
            }
            FieldType::Integer | FieldType::IpString => {
                let address = || cell.parse::<std::net::Ipv4Addr>().ok();
                let integer = if let Ok(integer) = cell.parse::<i64>() {
                    integer
                } else if let Some(address) = address() {
                    self.dotted = true;
                    i64::from(u32::from(address))
                } else {
                    // Programs that know only floats write 80.0.
                    cell.parse::<f64>()
                        .ok()
                        .filter(|number| *number == number.trunc() && number.abs() < 9e15)
                        .ok_or_else(|| expected("a whole number or an IPv4 address", cell))?
                        as i64
                };
                self.integers.push(integer);
            }
        }
        Ok(())
    }

    fn pop(&mut self) {
        match self.kind {
            FieldType::String => drop(self.texts.pop()),
            FieldType::Float => drop(self.numbers.pop()),
            FieldType::Integer | FieldType::IpString => drop(self.integers.pop()),
        }
    }

    /// The column in the given order of rows, and how it is written.
    fn finish(self, order: &[u32]) -> (Column, FieldKind) {
        let rows = order.iter().map(|&row| row as usize);
        match self.kind {
            FieldType::String => {
                let column = Column::texts(&self.name, rows.map(|row| &self.texts[row]));
                (column, FieldKind::Text)
            }
            FieldType::Float => {
                let kind = match self.decimals {
                    0 => FieldKind::Integer,
                    decimals => FieldKind::Float { decimals: decimals as u8 },
                };
                (Column::floats(&self.name, rows.map(|row| self.numbers[row]).collect()), kind)
            }
            FieldType::Integer | FieldType::IpString => {
                let column = Column::ints(&self.name, rows.map(|row| self.integers[row]).collect());
                (column, if self.dotted { FieldKind::Ipv4 } else { FieldKind::Integer })
            }
        }
    }
}

fn expected(what: &str, cell: &str) -> String {
    let shown: String = cell.chars().take(40).collect();
    match cell {
        "" => format!("expected {what}, found an empty cell"),
        _ => format!("expected {what}, found `{shown}`"),
    }
}

/// Digits after the point that carry something; noise of floating point
/// (`305.63599999999997`) is none.
fn decimals(cell: &str, number: f64) -> usize {
    if number == number.trunc() {
        return 0;
    }
    let written = match cell.split_once('.') {
        Some((_, fraction)) if fraction.bytes().all(|byte| byte.is_ascii_digit()) => {
            fraction.trim_end_matches('0').len()
        }
        _ => MOST_DECIMALS,
    };
    (1..=written.min(MOST_DECIMALS))
        .find(|&digits| {
            let scale = 10_f64.powi(digits as i32);
            ((number * scale).round() / scale - number).abs() <= number.abs() * 1e-14
        })
        .unwrap_or(written.min(MOST_DECIMALS))
}

/// A time exactly as written: 19 digits do not fit a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decimal {
    whole: i64,
    /// The fraction in units of 10^-9, of the whole's sign.
    fraction: i64,
    decimals: u8,
}

impl Decimal {
    fn parse(cell: &str) -> Option<Decimal> {
        let (whole, fraction) = cell.split_once('.').unwrap_or((cell, ""));
        let exact = || {
            let whole: i64 = whole.parse().ok()?;
            let digits = fraction.trim_end_matches('0');
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let kept = &digits[..digits.len().min(MOST_DECIMALS)];
            let value: i64 = format!("{kept:0<9}").parse().ok()?;
            let sign = if cell.starts_with('-') { -1 } else { 1 };
            Some(Decimal { whole, fraction: sign * value, decimals: kept.len() as u8 })
        };
        let float = || {
            let number: f64 = cell.parse().ok()?;
            let whole = number.trunc();
            (whole.abs() < 9e18).then_some(Decimal {
                whole: whole as i64,
                fraction: ((number - whole) * 1e9) as i64,
                decimals: if number == whole { 0 } else { 6 },
            })
        };
        exact().or_else(float)
    }

    /// Nanoseconds; what does not fit is the nearest that does.
    fn scaled(self, unit: TimeUnit) -> i64 {
        let unit = i128::from(unit.nanoseconds());
        let ns = i128::from(self.whole) * unit + i128::from(self.fraction) * unit / 1_000_000_000;
        // A quarter of the range leaves room for differences.
        ns.clamp(i128::from(i64::MIN / 4), i128::from(i64::MAX / 4)) as i64
    }
}

/// The unit that makes the first time a date between 1973 and 2286, as all
/// traces are; small numbers are seconds since the trace began.
fn time_column(config: &Resolved, times: &[Decimal]) -> TimeColumn {
    let unit = config.timestamp.unit.unwrap_or_else(|| match times[0].whole.unsigned_abs() {
        100_000_000_000_000_000.. => TimeUnit::Nanoseconds,
        100_000_000_000_000.. => TimeUnit::Microseconds,
        100_000_000_000.. => TimeUnit::Milliseconds,
        _ => TimeUnit::Seconds,
    });
    let decimals = times.iter().map(|time| time.decimals).max().unwrap_or(0);
    TimeColumn { name: config.timestamp.column.clone(), unit, decimals }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_exactly() {
        let ns = |cell, unit| Decimal::parse(cell).unwrap().scaled(unit);
        assert_eq!(ns("1458298072364000.0", TimeUnit::Microseconds), 1_458_298_072_364_000_000);
        assert_eq!(ns("1521911720.865716", TimeUnit::Seconds), 1_521_911_720_865_716_000);
        assert_eq!(ns("1713470872451585123", TimeUnit::Nanoseconds), 1_713_470_872_451_585_123);
        assert_eq!(ns("-1.5", TimeUnit::Seconds), -1_500_000_000);
        assert_eq!(ns("1.5e9", TimeUnit::Seconds), 1_500_000_000_000_000_000);
        assert_eq!(Decimal::parse("1.250000").unwrap().decimals, 2);
        for bad in ["", "-", "now", "1.2.3", "12:30", "NaN"] {
            assert_eq!(Decimal::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn floating_point_noise_has_no_decimals() {
        assert_eq!(decimals("305.63599999999997", 305.635_999_999_999_97), 3);
        assert_eq!(decimals("62", 62.0), 0);
        assert_eq!(decimals("62.0", 62.0), 0);
        assert_eq!(decimals("0.000870", 0.000_870), 5);
        assert_eq!(decimals("1e-3", 1e-3), 3);
    }
}
