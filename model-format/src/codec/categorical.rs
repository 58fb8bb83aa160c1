//! One output a value, softmax; decoded by the largest.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{CodecError, argmax, show};
use crate::column::Column;
use crate::layout::{Activation, Segment};
use crate::record::Value;

/// More outputs than this are a sign that another encoding was meant.
const MOST_CHOICES: usize = 4096;

/// One of the values that a field can take.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Choice {
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Choice::Int(value) => value.fmt(f),
            Choice::Text(text) => text.fmt(f),
        }
    }
}

impl Choice {
    /// The choice that a cell is. A whole number in a column of real numbers
    /// is that whole number.
    pub(super) fn of(column: &Column, row: usize) -> Choice {
        match column.value(row) {
            Value::Int(value) => Choice::Int(value),
            Value::Text(index) => Choice::Text(column.words()[index as usize].clone()),
            Value::Float(value) if value == value.trunc() && value.abs() < 9e15 => {
                Choice::Int(value as i64)
            }
            Value::Float(value) => Choice::Text(value.to_string()),
        }
    }

    pub(super) fn value(&self, index: usize) -> Value {
        match self {
            Choice::Int(value) => Value::Int(*value),
            Choice::Text(_) => Value::Text(index as u32),
        }
    }

    pub(super) fn word(&self) -> &str {
        match self {
            Choice::Int(_) => "",
            Choice::Text(text) => text,
        }
    }
}

/// A value among few.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoricalCodec {
    choices: Vec<Choice>,
}

impl CategoricalCodec {
    /// Fits the values seen, in ascending order; or takes the choices given,
    /// in their order.
    ///
    /// # Errors
    /// No rows, too many values, a value in the column that is not among the
    /// choices given.
    pub fn fit(
        column: &Column,
        choices: Option<&[Choice]>,
    ) -> Result<CategoricalCodec, CodecError> {
        let name = || column.name.clone();
        let choices = match choices {
            Some(choices) => choices.to_vec(),
            None => {
                let mut seen: Vec<Choice> = (0..column.len())
                    .map(|row| Choice::of(column, row))
                    .collect::<std::collections::HashSet<_>>()
                    .into_iter()
                    .collect();
                seen.sort();
                seen
            }
        };
        if choices.is_empty() {
            return Err(CodecError::Empty { column: name() });
        }
        if choices.len() > MOST_CHOICES {
            return Err(CodecError::TooManyChoices {
                column: name(),
                distinct: choices.len(),
                limit: MOST_CHOICES,
            });
        }
        let codec = CategoricalCodec { choices };
        codec.validate().map_err(|reason| CodecError::Option { column: name(), reason })?;
        Ok(codec)
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        if self.choices.is_empty() || self.choices.len() > MOST_CHOICES {
            return Err(format!("{} choices; expected 1 to {MOST_CHOICES}", self.choices.len()));
        }
        let mut sorted: Vec<&Choice> = self.choices.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("choice `{}` is listed twice", pair[0])),
            None => Ok(()),
        }
    }

    pub(super) fn segments(&self) -> Vec<Segment> {
        vec![Segment::new(self.choices.len(), Activation::Softmax)]
    }

    pub(super) fn encode<'a>(
        &self,
        column: &Column,
        rows: impl Iterator<Item = &'a mut [f32]>,
    ) -> Result<(), CodecError> {
        let index: HashMap<&Choice, usize> =
            self.choices.iter().enumerate().map(|(index, choice)| (choice, index)).collect();
        for (row, out) in rows.enumerate().take(column.len()) {
            let Some(&at) = index.get(&Choice::of(column, row)) else {
                return Err(CodecError::Value {
                    column: column.name.clone(),
                    row: row + 1,
                    found: show(column, row),
                    reason: format!("is not among the {} choices", self.choices.len()),
                });
            };
            out.fill(0.0);
            out[at] = 1.0;
        }
        Ok(())
    }

    pub(super) fn decode(&self, folded: &[f32]) -> Value {
        // Two choices fold into the probability of the second.
        let index =
            if self.choices.len() == 2 { usize::from(folded[0] > 0.5) } else { argmax(folded) };
        self.choices[index].value(index)
    }

    pub(super) fn word(&self, index: u32) -> &str {
        self.choices.get(index as usize).map_or("", Choice::word)
    }

    /// The values that the field can take, in output order.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    pub(super) fn describe(&self) -> String {
        format!("categorical {}", self.choices.len())
    }
}
