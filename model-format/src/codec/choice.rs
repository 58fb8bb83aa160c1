//! A value among distinct ones, and finding it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::column::{Column, ColumnData};
use crate::record::{Value, Wide};

/// One of the values that a field can take. In JSON a number, a text, two
/// 64-bit halves, or `null`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Choice {
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
    /// A whole number of more than 63 bits.
    Wide(Wide),
    /// No value.
    Missing,
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Choice::Int(value) => value.fmt(f),
            Choice::Text(text) => text.fmt(f),
            Choice::Wide(value) => u128::from(*value).fmt(f),
            Choice::Missing => f.write_str("(missing)"),
        }
    }
}

impl Choice {
    /// The choice that a cell is. A whole number in a column of real numbers
    /// is that whole number.
    pub fn of(column: &Column, row: usize) -> Choice {
        match column.value(row) {
            Value::Int(value) => Choice::Int(value),
            Value::Text(index) => Choice::Text(column.words()[index as usize].clone()),
            Value::Float(value) if value == value.trunc() && value.abs() < 9e15 => {
                Choice::Int(value as i64)
            }
            Value::Float(value) => Choice::Text(value.to_string()),
            Value::Wide(value) => Choice::Wide(value),
            Value::Missing => Choice::Missing,
        }
    }

    #[inline]
    pub(super) fn value(&self, index: usize) -> Value {
        match self {
            Choice::Int(value) => Value::Int(*value),
            Choice::Text(_) => Value::Text(index as u32),
            Choice::Wide(value) => Value::Wide(*value),
            Choice::Missing => Value::Missing,
        }
    }

    /// The number that it is, if it is one of a column of numbers.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Choice::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    pub(super) fn word(&self) -> &str {
        match self {
            Choice::Text(text) => text,
            _ => "",
        }
    }
}

/// The distinct values of a column, in ascending order, with how many rows have each.
#[must_use]
pub fn counted(column: &Column) -> Vec<(Choice, u64)> {
    let mut counts: HashMap<Choice, u64> = HashMap::new();
    if let ColumnData::Text { ids, words } = &column.data {
        // By index first: most columns of text have few words.
        let mut by_word = vec![0_u64; words.len()];
        let mut missing = 0_u64;
        for (row, &id) in ids.iter().enumerate() {
            if column.is_missing(row) {
                missing += 1;
            } else {
                by_word[id as usize] += 1;
            }
        }
        let words = words.iter().zip(by_word).filter(|(_, count)| *count > 0);
        counts.extend(words.map(|(word, count)| (Choice::Text(word.clone()), count)));
        if missing > 0 {
            counts.insert(Choice::Missing, missing);
        }
    } else {
        for row in 0..column.len() {
            *counts.entry(Choice::of(column, row)).or_default() += 1;
        }
    }
    let mut counts: Vec<(Choice, u64)> = counts.into_iter().collect();
    counts.sort_unstable();
    counts
}

/// Finds the place of a column's cells in a list of choices.
pub(super) struct Lookup<'a> {
    column: &'a Column,
    index: HashMap<&'a Choice, usize>,
    /// For text: by index into the column's words.
    by_word: Vec<Option<usize>>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(column: &'a Column, choices: &'a [Choice]) -> Lookup<'a> {
        let index: HashMap<&Choice, usize> =
            choices.iter().enumerate().map(|(index, choice)| (choice, index)).collect();
        let texts: HashMap<&str, usize> = choices
            .iter()
            .enumerate()
            .filter_map(|(index, choice)| match choice {
                Choice::Text(text) => Some((text.as_str(), index)),
                _ => None,
            })
            .collect();
        let by_word = column.words().iter().map(|word| texts.get(word.as_str()).copied()).collect();
        Lookup { column, index, by_word }
    }

    /// Where the cell of a row stands in the list.
    pub(super) fn place(&self, row: usize) -> Option<usize> {
        match self.column.value(row) {
            Value::Text(id) => self.by_word.get(id as usize).copied().flatten(),
            _ => self.index.get(&Choice::of(self.column, row)).copied(),
        }
    }
}
