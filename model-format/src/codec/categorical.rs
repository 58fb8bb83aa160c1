//! One output a value, softmax; decoded by the largest.

use serde::{Deserialize, Serialize};

use super::choice::{Choice, Lookup, counted};
use super::{CodecError, Encoder, FitOptions, Rows, class_of};
use crate::column::Column;
use crate::layout::{Activation, Segment};
use crate::record::Value;

/// More outputs than this are a sign that another encoding was meant.
const MOST_CHOICES: usize = 4096;

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
            None => counted(column).into_iter().map(|(choice, _)| choice).collect(),
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

    /// The values that the field can take, in output order.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }
}

impl Encoder for CategoricalCodec {
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError> {
        CategoricalCodec::fit(column, options.choices)
    }

    fn validate(&self) -> Result<(), String> {
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

    fn segments(&self) -> Vec<Segment> {
        vec![Segment::new(self.choices.len(), Activation::Softmax)]
    }

    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        let lookup = Lookup::new(column, &self.choices);
        for (row, out) in rows.enumerate().take(column.len()) {
            let Some(at) = lookup.place(row) else {
                let reason = format!("is not among the {} choices", self.choices.len());
                return Err(CodecError::value(column, row, reason));
            };
            out.fill(0.0);
            out[at] = 1.0;
        }
        Ok(())
    }

    #[inline]
    fn decode(&self, folded: &[f32]) -> Value {
        let index = class_of(folded, self.choices.len());
        self.choices[index].value(index)
    }

    fn word(&self, index: u32) -> &str {
        self.choices.get(index as usize).map_or("", Choice::word)
    }

    fn describe(&self) -> String {
        format!("categorical {}", self.choices.len())
    }
}
