//! Tables (CSV, Zeek's logs, Parquet) to a [`Trace`].

use std::path::{Path, PathBuf};

use ns_model_format::Value;
use ns_model_format::datetime::DatetimeStyle;
use ns_model_format::schema::TimeUnit;

use super::cells::{Cells, MOST_DECIMALS, Refused};
use super::rows::Rows;
use super::sample::{FlowSampler, Verdict};
use super::unusable::Unusable;
use super::{
    IngestError, NotUsed, OnError, Reading, TimeColumn, Trace, TraceColumn, files, group_flows,
};
use crate::config::{FieldConfig, Resolved};

/// Reads the configured columns of tables and makes flows of the rows that
/// share the metadata columns. Memory is bounded by
/// [`Reading::max_records`].
///
/// # Errors
/// A file cannot be read or split, lacks a column, has a cell that its
/// column cannot hold (unless skipped), or none has rows.
pub fn read(files: &[PathBuf], config: &Resolved, reading: Reading) -> Result<Trace, IngestError> {
    read_all(files.iter().map(|path| (path.as_path(), Rows::open(path))), config, reading)
}

/// The same of one CSV in memory; `path` stands for it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(
    bytes: &[u8],
    path: &Path,
    config: &Resolved,
    reading: Reading,
) -> Result<Trace, IngestError> {
    read_all(std::iter::once((path, Rows::of_csv(bytes, path))), config, reading)
}

fn read_all<'p>(
    files: impl Iterator<Item = (&'p Path, Result<Rows, IngestError>)>,
    config: &Resolved,
    reading: Reading,
) -> Result<Trace, IngestError> {
    let fields: Vec<&FieldConfig> = config.metadata.iter().chain(&config.timeseries).collect();
    let mut table = Table::new(&fields, config, reading);
    let mut not_used = NotUsed::new();
    let (mut order, mut digests, mut first) = (Vec::new(), Vec::new(), None);
    for (path, rows) in files {
        let rows = rows?;
        let modelled = |name: &&String| {
            **name == config.timestamp.column || fields.iter().any(|field| field.column == **name)
        };
        if first.is_none() {
            first = Some(path.to_owned());
            order = rows.header().iter().filter(modelled).cloned().collect();
        }
        digests.push(read_file(path, rows, &fields, reading.on_error, &mut table, &mut not_used)?);
    }
    if table.times_ns.is_empty() {
        let others = digests.len().saturating_sub(1);
        return Err(IngestError::Empty { path: first.unwrap_or_default(), others, not_used });
    }
    Ok(Trace { input_sha256: files::joined_digest(&digests), ..table.finish(order, not_used) })
}

/// Takes a file's rows and returns its digest.
fn read_file(
    path: &Path,
    mut rows: Rows,
    fields: &[&FieldConfig],
    on_error: OnError,
    table: &mut Table<'_>,
    not_used: &mut NotUsed,
) -> Result<String, IngestError> {
    let header = rows.header().to_vec();
    let find = |name: &str| find(path, &header, name);
    let time_at = find(&table.config.timestamp.column)?;
    let at: Vec<usize> =
        fields.iter().map(|field| find(&field.column)).collect::<Result<_, _>>()?;
    while let Some((row, record)) = rows.next(path) {
        let (error, reason) = match record {
            Err(error @ (IngestError::Io { .. } | IngestError::Damaged { .. })) => {
                return Err(error);
            }
            Err(error) => (error, WRONG_COUNT),
            Ok(record) => {
                let cell = |at: usize| record.get(at).unwrap_or_default();
                match table.push(row, cell(time_at), at.iter().map(|&at| cell(at))) {
                    Ok(()) => continue,
                    Err((column, Refused::Dropped)) => {
                        *not_used.entry(format!("rows without `{column}`")).or_default() += 1;
                        continue;
                    }
                    Err((column, Refused::Bad(reason))) => {
                        let path = path.to_owned();
                        let error = IngestError::Cell { path, row, column, reason };
                        (error, BAD_CELL)
                    }
                }
            }
        };
        if on_error == OnError::Stop {
            return Err(error);
        }
        *not_used.entry(reason.to_owned()).or_default() += 1;
    }
    let (digest, is_cut) = rows.finish(path)?;
    if is_cut {
        *not_used.entry(Unusable::CutByEndOfFile.to_string()).or_default() += 1;
    }
    Ok(digest)
}

/// A row of some tables, as it was read.
pub(crate) struct TextRow<'a> {
    /// Nanoseconds since the epoch.
    pub(crate) time_ns: i64,
    /// Its cells.
    pub(crate) cells: &'a ::csv::StringRecord,
    /// Drawn from its metadata and a seed.
    pub(crate) flow: u64,
}

/// Hands the rows of tables over, file after file, that have the configured
/// columns and a time; returns their header, and what was not used, by reason.
///
/// # Errors
/// As [`read`], and files whose headers differ.
pub(crate) fn each_row(
    files: &[PathBuf],
    config: &Resolved,
    reading: Reading,
    sampler: &FlowSampler,
    mut row: impl FnMut(&TextRow<'_>),
) -> Result<(Vec<String>, NotUsed), IngestError> {
    let mut clock = Clock::new(config.timestamp.unit);
    let (mut header, mut not_used) = (Vec::new(), NotUsed::new());
    for path in files {
        let mut rows = Rows::open(path)?;
        if header.is_empty() {
            header = rows.header().to_vec();
        } else if header != rows.header() {
            let reason = "its columns are not those of the first file".to_owned();
            return Err(IngestError::NotATable { path: path.clone(), reason });
        }
        let time_at = find(path, &header, &config.timestamp.column)?;
        let names = config.metadata.iter().map(|field| find(path, &header, &field.column));
        let names: Vec<usize> = names.collect::<Result<_, _>>()?;
        while let Some((number, record)) = rows.next(path) {
            let cells = match record {
                Err(error @ (IngestError::Io { .. } | IngestError::Damaged { .. })) => {
                    return Err(error);
                }
                Err(error) if reading.on_error == OnError::Stop => return Err(error),
                Err(_) => {
                    *not_used.entry(WRONG_COUNT.to_owned()).or_default() += 1;
                    continue;
                }
                Ok(cells) => cells,
            };
            let time = cells.get(time_at).unwrap_or_default();
            let Some(time_ns) = clock.read(time) else {
                if reading.on_error == OnError::Stop {
                    let column = config.timestamp.column.clone();
                    let reason = no_time(time);
                    return Err(IngestError::Cell {
                        path: path.clone(),
                        row: number,
                        column,
                        reason,
                    });
                }
                *not_used.entry(BAD_CELL.to_owned()).or_default() += 1;
                continue;
            };
            let flow = flow_of(sampler, names.iter().map(|&at| cells.get(at).unwrap_or_default()));
            row(&TextRow { time_ns, cells, flow });
        }
    }
    Ok((header, not_used))
}

const WRONG_COUNT: &str = "rows with too few or too many cells";
const BAD_CELL: &str = "rows with a bad cell";

fn no_time(cell: &str) -> String {
    format!("`{}` is no time", cell.chars().take(40).collect::<String>())
}

/// A flow's number, drawn from the cells that name it.
fn flow_of<'c>(sampler: &FlowSampler, cells: impl Iterator<Item = &'c str>) -> u64 {
    let mut name = sampler.flow();
    cells.for_each(|cell| name.add_bytes(cell.as_bytes()));
    name.finish()
}

/// Where a column stands.
fn find(path: &Path, header: &[String], name: &str) -> Result<usize, IngestError> {
    header.iter().position(|cell| cell == name).ok_or_else(|| {
        let names: Vec<&str> = header.iter().take(40).map(String::as_str).collect();
        let found = match names.as_slice() {
            [] | [""] => "none: the file is empty".to_owned(),
            names => format!("`{}`", names.join("`, `")),
        };
        IngestError::MissingColumn { path: path.to_owned(), column: name.to_owned(), found }
    })
}

/// Rows that were taken.
struct Table<'a> {
    config: &'a Resolved,
    sampler: FlowSampler,
    columns: Vec<Cells>,
    times_ns: Vec<i64>,
    /// Each row's flow, as the sampler names it.
    flows: Vec<u64>,
    input_rows: Vec<u64>,
    clock: Clock,
}

/// Reads times.
pub(crate) struct Clock {
    /// Told from the first time.
    unit: Option<TimeUnit>,
    decimals: u8,
    datetime: Option<DatetimeStyle>,
}

impl Clock {
    /// A clock whose unit may be known.
    pub(crate) fn new(unit: Option<TimeUnit>) -> Clock {
        Clock { unit, decimals: 0, datetime: None }
    }

    /// Nanoseconds since the epoch.
    pub(crate) fn read(&mut self, cell: &str) -> Option<i64> {
        if let Some(decimal) = Decimal::parse(cell) {
            let unit = *self.unit.get_or_insert_with(|| likely_unit(decimal.whole));
            self.decimals = self.decimals.max(decimal.decimals);
            return Some(decimal.scaled(unit));
        }
        let (time_ns, style) = DatetimeStyle::parse(cell)?;
        self.datetime = Some(match self.datetime.take() {
            Some(first) => first.finer(&style),
            None => style,
        });
        Some(time_ns)
    }
}

impl<'a> Table<'a> {
    fn new(fields: &[&FieldConfig], config: &'a Resolved, reading: Reading) -> Table<'a> {
        Table {
            config,
            sampler: FlowSampler::of(reading),
            flows: Vec::new(),
            columns: fields.iter().map(|field| Cells::new(field)).collect(),
            times_ns: Vec::new(),
            input_rows: Vec::new(),
            clock: Clock::new(config.timestamp.unit),
        }
    }

    /// Takes a row, all cells or none, if its flow is in the sample; the name
    /// of the column that refused it.
    fn push<'c>(
        &mut self,
        row: u64,
        time: &str,
        cells: impl Iterator<Item = &'c str> + Clone,
    ) -> Result<(), (String, Refused)> {
        let flow = flow_of(&self.sampler, cells.clone().take(self.config.metadata.len()));
        // Before its cells are read: texts of what is left out are not to be held.
        if !self.sampler.keeps(flow) {
            self.sampler.offer(flow);
            return Ok(());
        }
        let time_ns = self
            .clock
            .read(time)
            .ok_or_else(|| (self.config.timestamp.column.clone(), Refused::Bad(no_time(time))))?;
        for (done, cell) in cells.enumerate() {
            if let Err(refused) = self.columns[done].push(cell, &self.config.missing_values) {
                self.columns[..done].iter_mut().for_each(Cells::pop);
                return Err((self.columns[done].name().to_owned(), refused));
            }
        }
        let verdict = self.sampler.offer(flow);
        if verdict == Verdict::Leave {
            self.columns.iter_mut().for_each(Cells::pop);
            return Ok(());
        }
        self.times_ns.push(time_ns);
        self.input_rows.push(row);
        self.flows.push(flow);
        if verdict == Verdict::KeepAndThin {
            let keep: Vec<bool> = self.flows.iter().map(|&flow| self.sampler.keeps(flow)).collect();
            let mut kept = keep.iter();
            self.times_ns.retain(|_| kept.next() == Some(&true));
            kept = keep.iter();
            self.input_rows.retain(|_| kept.next() == Some(&true));
            kept = keep.iter();
            self.flows.retain(|_| kept.next() == Some(&true));
            self.columns.iter_mut().for_each(|column| column.retain(&keep));
        }
        Ok(())
    }

    fn finish(self, order: Vec<String>, mut not_used: NotUsed) -> Trace {
        let config = self.config;
        self.sampler.count_not_used(&mut not_used);
        // By time, equal times in the file's order.
        let mut by_time: Vec<u32> = (0..self.times_ns.len() as u32).collect();
        by_time.sort_by_key(|&row| self.times_ns[row as usize]);
        let times_ns: Vec<i64> = by_time.iter().map(|&row| self.times_ns[row as usize]).collect();
        let input_rows = by_time.iter().map(|&row| self.input_rows[row as usize]).collect();
        let columns: Vec<TraceColumn> =
            self.columns.into_iter().map(|column| column.finish(&by_time)).collect();
        let timeout = config.idle_timeout.map(|seconds| (seconds * 1e9) as i64);
        let metadata = &columns[..config.metadata.len()];
        let keys = (0..times_ns.len()).map(|row| key(metadata, row));
        let flows = group_flows(keys, &times_ns, timeout);
        Trace {
            columns,
            times_ns,
            input_rows,
            time: TimeColumn {
                name: config.timestamp.column.clone(),
                unit: self.clock.unit.unwrap_or(TimeUnit::Microseconds),
                decimals: self.clock.decimals,
                datetime: self.clock.datetime,
            },
            order,
            flows,
            not_used,
            share: self.sampler.share(),
            remarks: Vec::new(),
            input_sha256: String::new(),
        }
    }
}

/// A row's metadata as bits that are equal where the values are.
fn key(metadata: &[TraceColumn], row: usize) -> Vec<u128> {
    metadata
        .iter()
        .map(|TraceColumn { column, .. }| match column.value(row) {
            Value::Int(value) => value as u128,
            Value::Float(value) => value.to_bits().into(),
            Value::Text(index) => index.into(),
            Value::Wide(value) => value.into(),
            // No address of 128 bits, and nothing else, is that large.
            _ => u128::MAX,
        })
        .collect()
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

/// The unit that makes a time a date between 1973 and 2286, as in all traces;
/// small numbers are seconds since the trace began.
pub(crate) fn likely_unit(whole: i64) -> TimeUnit {
    match whole.unsigned_abs() {
        100_000_000_000_000_000.. => TimeUnit::Nanoseconds,
        100_000_000_000_000.. => TimeUnit::Microseconds,
        100_000_000_000.. => TimeUnit::Milliseconds,
        _ => TimeUnit::Seconds,
    }
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
        use super::super::cells::decimals;
        assert_eq!(decimals("305.63599999999997", 305.635_999_999_999_97), 3);
        assert_eq!(decimals("62", 62.0), 0);
        assert_eq!(decimals("62.0", 62.0), 0);
        assert_eq!(decimals("0.000870", 0.000_870), 5);
        assert_eq!(decimals("1e-3", 1e-3), 3);
    }
}
