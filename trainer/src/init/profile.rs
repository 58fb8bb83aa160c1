//! What a table's columns hold, told from its rows.

use std::collections::HashMap;
use std::path::Path;

use ns_model_format::cell::{boolean, integer, ip, mac, real};
use ns_model_format::datetime::DatetimeStyle;

use crate::config::{FieldType, MISSING_VALUES};
use crate::ingest::Rows;
use crate::ingest::table::likely_unit;
use crate::ingest::{IngestError, OnError};

/// Distinct values of a column that are counted; of more, only that there are more.
const MOST_DISTINCT: usize = 50_000;
/// Rows that are kept, to see which columns go together.
const ROWS_KEPT: usize = 20_000;

/// A table's columns.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) columns: Vec<ColumnProfile>,
    /// Rows that were looked at.
    pub(crate) rows: u64,
    /// Whether these are all.
    pub(crate) whole: bool,
    /// The cells of the first rows.
    pub(crate) first_rows: Vec<Vec<Box<str>>>,
}

/// What one column holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct ColumnProfile {
    pub(crate) name: String,
    /// Cells that are not missing.
    pub(crate) values: u64,
    pub(crate) missing: u64,
    /// How a missing value is written.
    pub(crate) missing_text: Option<String>,
    pub(crate) counts: HashMap<Box<str>, u64>,
    /// There are more distinct values than were counted.
    pub(crate) uncounted: bool,
    /// Among the numbers.
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// Numbers not below the one before.
    ascending: u64,
    before: f64,
    /// Values that are of each type.
    of_type: Types,
}

#[derive(Clone, Debug, Default)]
struct Types {
    integer: u64,
    number: u64,
    ip: u64,
    mac: u64,
    boolean: u64,
    datetime: u64,
}

impl Profile {
    /// Reads up to `most_rows` rows.
    pub(crate) fn read(
        path: &Path,
        most_rows: u64,
        on_error: OnError,
    ) -> Result<Profile, IngestError> {
        let mut rows = Rows::open(path)?;
        let named = |name: &String| ColumnProfile { name: name.clone(), ..Default::default() };
        let mut columns: Vec<ColumnProfile> = rows.header().iter().map(named).collect();
        let mut profile =
            Profile { columns: Vec::new(), rows: 0, whole: true, first_rows: Vec::new() };
        while let Some((_, record)) = rows.next(path) {
            match record {
                Err(error @ (IngestError::Io { .. } | IngestError::Damaged { .. })) => {
                    return Err(error);
                }
                Err(error) if on_error == OnError::Stop => return Err(error),
                Err(_) => continue,
                Ok(record) => {
                    columns.iter_mut().zip(record).for_each(|(column, cell)| column.see(cell));
                    if profile.first_rows.len() < ROWS_KEPT {
                        profile.first_rows.push(record.iter().map(Box::from).collect());
                    }
                }
            }
            profile.rows += 1;
            if profile.rows >= most_rows {
                profile.whole = false;
                break;
            }
        }
        if profile.rows == 0 {
            return Err(IngestError::Empty {
                path: path.to_owned(),
                others: 0,
                not_used: Default::default(),
            });
        }
        profile.columns = columns;
        Ok(profile)
    }

    /// Whether column `a` says what column `b` is, in the rows that were kept.
    pub(crate) fn determines(&self, a: usize, b: usize) -> bool {
        let mut seen: HashMap<&str, &str> = HashMap::new();
        self.first_rows.iter().all(|row| *seen.entry(&row[a]).or_insert(&row[b]) == &*row[b])
    }
}

impl ColumnProfile {
    fn see(&mut self, cell: &str) {
        if MISSING_VALUES.contains(&cell) {
            self.missing += 1;
            self.missing_text.get_or_insert_with(|| cell.to_owned());
            return;
        }
        self.values += 1;
        if let Some(count) = self.counts.get_mut(cell) {
            *count += 1;
        } else if self.counts.len() < MOST_DISTINCT {
            self.counts.insert(cell.into(), 1);
        } else {
            self.uncounted = true;
        }
        let types = &mut self.of_type;
        let number = real(cell);
        if let Some(number) = number {
            types.number += 1;
            types.integer += u64::from(integer(cell).is_some());
            if types.number == 1 {
                (self.least, self.most) = (number, number);
            } else {
                self.ascending += u64::from(number >= self.before);
            }
            self.least = self.least.min(number);
            self.most = self.most.max(number);
            self.before = number;
        }
        types.ip += u64::from(ip(cell).is_some());
        types.mac += u64::from(mac(cell).is_some());
        types.boolean += u64::from(boolean(cell).is_some() && number.is_none());
        types.datetime += u64::from(DatetimeStyle::parse(cell).is_some());
    }

    /// The type that all values are of.
    pub(crate) fn kind(&self) -> FieldType {
        let types = &self.of_type;
        let all = |count: u64| count == self.values && count > 0;
        if all(types.boolean) {
            FieldType::Boolean
        } else if all(types.ip) {
            FieldType::IpString
        } else if all(types.mac) {
            FieldType::Mac
        } else if all(types.datetime) {
            FieldType::Datetime
        } else if all(types.integer) {
            FieldType::Integer
        } else if all(types.number) {
            FieldType::Float
        } else {
            FieldType::String
        }
    }

    /// How many distinct values; at least so many, if they were not all counted.
    pub(crate) fn distinct(&self) -> u64 {
        self.counts.len() as u64 + u64::from(self.uncounted)
    }

    /// `4,211` or `more than 50,000`.
    pub(crate) fn distinct_text(&self) -> String {
        if self.uncounted {
            format!("more than {MOST_DISTINCT}")
        } else {
            self.counts.len().to_string()
        }
    }

    /// The share of rows that the `k` most frequent values have.
    pub(crate) fn top_share(&self, k: usize) -> f64 {
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts.iter().take(k).sum::<u64>() as f64 / self.values.max(1) as f64
    }

    /// Whether it can be the times of records: dates, or numbers that are dates
    /// in some unit, or that ascend.
    pub(crate) fn may_be_time(&self) -> bool {
        let ascends = self.ascending + 1 >= self.values * 9 / 10;
        let is_epoch = self.least > 1e8 && {
            let seconds = self.least * likely_unit(self.least as i64).nanoseconds() as f64 / 1e9;
            // From 1990 to 2100.
            (6.3e8..4.1e9).contains(&seconds)
        };
        match self.kind() {
            FieldType::Datetime => true,
            FieldType::Integer | FieldType::Float => self.missing == 0 && (is_epoch || ascends),
            _ => false,
        }
    }

    /// Whether its numbers are those of dates.
    pub(crate) fn is_epoch(&self) -> bool {
        self.least > 1e8 && self.may_be_time()
    }
}
