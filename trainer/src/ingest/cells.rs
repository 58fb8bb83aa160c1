//! The cells of one column while a table is read: text in, typed values out.

use std::net::{Ipv4Addr, Ipv6Addr};

use ns_model_format::cell::{BOOLEANS, boolean, mac, real};
use ns_model_format::column::Words;
use ns_model_format::datetime::DatetimeStyle;
use ns_model_format::{Column, ColumnData, FieldKind};

use super::TraceColumn;
use crate::config::{FieldConfig, FieldType, Missing};

/// Most digits after the point that a decimal column keeps.
pub(super) const MOST_DECIMALS: usize = 9;
/// The largest whole number that a float holds exactly, about.
const MOST_EXACT: f64 = 9e15;

/// Why a cell is not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is not what the column holds.
    Bad(String),
    /// It is missing, and the configuration says to drop such rows.
    Dropped,
}

/// A column while it is read.
#[derive(Debug)]
pub(super) struct Cells {
    name: String,
    kind: FieldType,
    /// Whether a text that stands for "no value" is one here.
    knows_missing: bool,
    drops: bool,
    constant: Option<String>,
    /// How the first missing value was written.
    spelled: Option<String>,
    missing: Vec<bool>,
    integers: Vec<i64>,
    numbers: Vec<f64>,
    /// Used once an address does not fit into `integers`, which is then empty.
    wides: Vec<u128>,
    ids: Vec<u32>,
    words: Words,
    dotted: bool,
    decimals: usize,
    /// The words for no and yes.
    boolean: [Option<String>; 2],
    datetime: Option<DatetimeStyle>,
}

impl Cells {
    pub(super) fn new(field: &FieldConfig) -> Cells {
        let constant = match &field.missing {
            Some(Missing::Constant(serde_json::Value::String(text))) => Some(text.clone()),
            Some(Missing::Constant(value)) => Some(value.to_string()),
            _ => None,
        };
        // In text a `-` is a word like any other, unless something else is asked for.
        let is_word = field.kind == FieldType::String
            && matches!(field.missing, None | Some(Missing::Category));
        Cells {
            name: field.column.clone(),
            kind: field.kind,
            knows_missing: !is_word,
            drops: field.missing == Some(Missing::Drop),
            constant,
            spelled: None,
            missing: Vec::new(),
            integers: Vec::new(),
            numbers: Vec::new(),
            wides: Vec::new(),
            ids: Vec::new(),
            words: Words::default(),
            dotted: false,
            decimals: 0,
            boolean: [None, None],
            datetime: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.integers.len() + self.numbers.len() + self.wides.len() + self.ids.len()
    }

    /// Takes the next cell.
    pub(super) fn push(&mut self, cell: &str, missing_values: &[String]) -> Result<(), Refused> {
        if self.knows_missing && missing_values.iter().any(|text| text == cell) {
            if self.drops {
                return Err(Refused::Dropped);
            }
            if let Some(constant) = self.constant.clone() {
                return self.push_value(&constant).map_err(Refused::Bad);
            }
            self.spelled.get_or_insert_with(|| cell.to_owned());
            self.missing.resize(self.len(), false);
            self.missing.push(true);
            match self.kind {
                FieldType::String => self.ids.push(self.words.id("")),
                FieldType::Float => self.numbers.push(0.0),
                _ if !self.wides.is_empty() => self.wides.push(0),
                _ => self.integers.push(0),
            }
            return Ok(());
        }
        self.push_value(cell).map_err(Refused::Bad)
    }

    fn push_value(&mut self, cell: &str) -> Result<(), String> {
        match self.kind {
            FieldType::String => self.ids.push(self.words.id(cell)),
            FieldType::Float => {
                let number = real(cell).ok_or_else(|| expected("a number", cell))?;
                self.decimals = self.decimals.max(decimals(cell, number));
                self.numbers.push(number);
            }
            FieldType::Integer | FieldType::IpString => return self.push_whole(cell),
            FieldType::Mac => {
                let address = mac(cell)
                    .ok_or_else(|| expected("six bytes such as `02:00:00:00:00:01`", cell))?;
                self.integers.push(address);
            }
            FieldType::Boolean => {
                let yes = boolean(cell)
                    .ok_or_else(|| expected("a boolean such as `true` or `F`", cell))?;
                self.boolean[usize::from(yes)].get_or_insert_with(|| cell.to_owned());
                self.integers.push(yes.into());
            }
            FieldType::Datetime => {
                let (time_ns, style) = DatetimeStyle::parse(cell).ok_or_else(|| {
                    expected("a date and time such as `2026-01-31T12:00:00Z`", cell)
                })?;
                self.integers.push(time_ns.div_euclid(1_000));
                self.datetime = Some(match self.datetime.take() {
                    Some(first) => first.finer(&style),
                    None => style,
                });
            }
        }
        Ok(())
    }

    fn push_whole(&mut self, cell: &str) -> Result<(), String> {
        let whole = if let Ok(integer) = cell.parse::<i64>() {
            integer
        } else if let Ok(address) = cell.parse::<Ipv4Addr>() {
            self.dotted = true;
            i64::from(u32::from(address))
        } else if let Ok(address) = cell.parse::<Ipv6Addr>() {
            // From here on all are addresses of 128 bits.
            let mapped =
                |value: i64| u32::try_from(value).map(|v| Ipv4Addr::from(v).to_ipv6_mapped());
            let all: Result<Vec<u128>, _> =
                self.integers.iter().map(|&value| mapped(value).map(u128::from)).collect();
            let mut all =
                all.map_err(|_| expected("a whole number, as in the rows before", cell))?;
            self.integers = Vec::new();
            self.wides.append(&mut all);
            self.wides.push(address.into());
            return Ok(());
        } else {
            // Programs that know only floats write 80.0.
            cell.parse::<f64>()
                .ok()
                .filter(|number| *number == number.trunc() && number.abs() < MOST_EXACT)
                .ok_or_else(|| expected("a whole number or an IP address", cell))?
                as i64
        };
        if self.wides.is_empty() {
            self.integers.push(whole);
        } else {
            let address = u32::try_from(whole).map_err(|_| expected("an IP address", cell))?;
            self.wides.push(Ipv4Addr::from(address).to_ipv6_mapped().into());
        }
        Ok(())
    }

    /// Takes the last cell back.
    pub(super) fn pop(&mut self) {
        self.missing.truncate(self.len() - 1);
        match self.kind {
            FieldType::String => drop(self.ids.pop()),
            FieldType::Float => drop(self.numbers.pop()),
            _ if !self.wides.is_empty() => drop(self.wides.pop()),
            _ => drop(self.integers.pop()),
        }
    }

    /// Keeps the rows that are marked.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        fn of<T>(cells: &mut Vec<T>, keep: &[bool]) {
            let mut keep = keep.iter();
            cells.retain(|_| keep.next().copied().unwrap_or(false));
        }
        of(&mut self.missing, keep);
        of(&mut self.integers, keep);
        of(&mut self.numbers, keep);
        of(&mut self.wides, keep);
        of(&mut self.ids, keep);
    }

    /// The column in the given order of rows.
    pub(super) fn finish(self, order: &[u32]) -> TraceColumn {
        fn of<T: Copy>(cells: &[T], order: &[u32]) -> Vec<T> {
            order.iter().map(|&row| cells[row as usize]).collect()
        }
        let rows = self.len();
        let (data, kind) = match self.kind {
            FieldType::String => {
                let words = self.words.into_list();
                (ColumnData::Text { ids: of(&self.ids, order), words }, FieldKind::Text)
            }
            FieldType::Float => {
                let exact = self.numbers.iter().all(|number| number.abs() < MOST_EXACT);
                let kind = match self.decimals {
                    0 if exact => FieldKind::Integer,
                    decimals => FieldKind::Float { decimals: decimals as u8 },
                };
                (ColumnData::Float(of(&self.numbers, order)), kind)
            }
            _ if !self.wides.is_empty() => {
                (ColumnData::Wide(of(&self.wides, order)), FieldKind::Ip)
            }
            kind => {
                let kind = match (kind, self.datetime) {
                    (FieldType::Mac, _) => FieldKind::Mac,
                    (FieldType::Boolean, _) => boolean_kind(self.boolean),
                    (FieldType::Datetime, Some(style)) => FieldKind::Datetime(style),
                    _ if self.dotted => FieldKind::Ipv4,
                    _ => FieldKind::Integer,
                };
                (ColumnData::Int(of(&self.integers, order)), kind)
            }
        };
        let missing = if self.missing.is_empty() {
            Vec::new()
        } else {
            let mut missing = self.missing;
            missing.resize(rows, false);
            of(&missing, order)
        };
        TraceColumn {
            column: Column { name: self.name, data, missing },
            kind,
            missing: self.spelled,
        }
    }
}

/// The words as the input writes them; one that never occurred is the other's partner.
fn boolean_kind([no, yes]: [Option<String>; 2]) -> FieldKind {
    let known = no.clone().or(yes.clone()).unwrap_or_default();
    let pair = BOOLEANS
        .iter()
        .find(|pair| pair.iter().any(|word| word.eq_ignore_ascii_case(&known)))
        .unwrap_or(&BOOLEANS[0]);
    let as_known = |word: &str| {
        if known.chars().all(char::is_uppercase) {
            word.to_uppercase()
        } else {
            word.to_lowercase()
        }
    };
    FieldKind::Boolean {
        no: no.unwrap_or_else(|| as_known(pair[0])),
        yes: yes.unwrap_or_else(|| as_known(pair[1])),
    }
}

pub(super) fn expected(what: &str, cell: &str) -> String {
    let shown: String = cell.chars().take(40).collect();
    match cell {
        "" => format!("expected {what}, found an empty cell"),
        _ => format!("expected {what}, found `{shown}`"),
    }
}

/// Digits after the point that carry something; noise of floating point
/// (`305.63599999999997`) is none.
pub(super) fn decimals(cell: &str, number: f64) -> usize {
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
