//! Encoders: how a field's values become network outputs and back.
//!
//! Each encoder is one file with `fit`, `encode` and `decode` together. The
//! struct that is serialized into `manifest.json` is the struct that decodes.
//! Encoding writes the training form of [`crate::Layout`], decoding reads the
//! folded form, both after the activation.

mod bit;
mod categorical;
mod float;
mod word2vec;

pub use bit::BitCodec;
pub use categorical::{CategoricalCodec, Choice};
pub use float::{FloatCodec, FloatOptions, Range};
pub use word2vec::{Word2VecCodec, Word2VecOptions, Word2VecSpace};

use serde::{Deserialize, Serialize};

use crate::column::Column;
use crate::layout::Segment;
use crate::record::Value;

/// Why values cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A column without rows cannot be fitted.
    #[error("column `{column}` has no values to fit an encoder on")]
    Empty {
        /// The column.
        column: String,
    },
    /// The encoder needs numbers.
    #[error("column `{column}`: expected numbers, found text `{found}`")]
    NotANumber {
        /// The column.
        column: String,
        /// The first text found.
        found: String,
    },
    /// A value that no encoded form stands for.
    #[error("column `{column}`, row {row}: value `{found}` {reason}")]
    Value {
        /// The column.
        column: String,
        /// The row, counted from 1.
        row: usize,
        /// The value.
        found: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Too many distinct values for one-hot outputs.
    #[error(
        "column `{column}` has {distinct} distinct values; `categorical` takes at most {limit}: \
         use `bit` or `word2vec_*`"
    )]
    TooManyChoices {
        /// The column.
        column: String,
        /// Distinct values found.
        distinct: usize,
        /// The most that are taken.
        limit: usize,
    },
    /// A bad option.
    #[error("column `{column}`: {reason}")]
    Option {
        /// The column.
        column: String,
        /// What is wrong.
        reason: String,
    },
}

/// A fitted encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "encoding", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Codec {
    /// Min-max scaling.
    Float(FloatCodec),
    /// One output a value.
    Categorical(CategoricalCodec),
    /// One yes/no output a bit.
    Bit(BitCodec),
    /// A learned vector a value.
    Word2vec(Word2VecCodec),
}

impl Codec {
    /// The segments of one encoded value, in training form.
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        match self {
            Codec::Float(codec) => codec.segments(),
            Codec::Categorical(codec) => codec.segments(),
            Codec::Bit(codec) => codec.segments(),
            Codec::Word2vec(codec) => codec.segments(),
        }
    }

    /// Encodes a whole column: row `i` goes to
    /// `out[i * stride + offset ..]`, as many values as [`Self::segments`] says.
    ///
    /// # Errors
    /// A value that the encoder has no form for, with its row.
    pub fn encode(
        &self,
        column: &Column,
        out: &mut [f32],
        stride: usize,
        offset: usize,
    ) -> Result<(), CodecError> {
        let dim: usize = self.segments().iter().map(|segment| segment.dim).sum();
        let rows = out.chunks_exact_mut(stride).map(|row| &mut row[offset..offset + dim]);
        match self {
            Codec::Float(codec) => codec.encode(column, rows),
            Codec::Categorical(codec) => codec.encode(column, rows),
            Codec::Bit(codec) => codec.encode(column, rows),
            Codec::Word2vec(codec) => codec.encode(column, rows),
        }
    }

    /// The value that a folded, activated output stands for. Never fails: every
    /// output decodes to a value in the encoder's range, NaN included.
    #[must_use]
    pub fn decode(&self, folded: &[f32]) -> Value {
        match self {
            Codec::Float(codec) => codec.decode(folded),
            Codec::Categorical(codec) => codec.decode(folded),
            Codec::Bit(codec) => codec.decode(folded),
            Codec::Word2vec(codec) => codec.decode(folded),
        }
    }

    /// The text of a decoded [`Value::Text`], `""` for an index it never gave.
    #[must_use]
    pub fn word(&self, index: u32) -> &str {
        match self {
            Codec::Categorical(codec) => codec.word(index),
            Codec::Word2vec(codec) => codec.word(index),
            Codec::Float(_) | Codec::Bit(_) => "",
        }
    }

    /// The only values that it decodes to, if they are listed; see
    /// [`Self::bounds`] where they are not.
    #[must_use]
    pub fn choices(&self) -> Option<&[Choice]> {
        match self {
            Codec::Categorical(codec) => Some(codec.choices()),
            Codec::Word2vec(codec) => Some(codec.words()),
            Codec::Float(_) | Codec::Bit(_) => None,
        }
    }

    /// The smallest and largest number that it decodes to, if it is one of numbers.
    #[must_use]
    pub fn bounds(&self) -> Option<(f64, f64)> {
        match self {
            Codec::Float(codec) => Some(codec.bounds()),
            Codec::Bit(codec) => {
                let (least, most) = codec.bounds();
                Some((least as f64, most as f64))
            }
            Codec::Categorical(_) | Codec::Word2vec(_) => None,
        }
    }

    /// Checks what a manifest from outside could have wrong, before it is used.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn validate(&self) -> Result<(), String> {
        match self {
            Codec::Float(codec) => codec.validate(),
            Codec::Categorical(codec) => codec.validate(),
            Codec::Bit(codec) => codec.validate(),
            Codec::Word2vec(codec) => codec.validate(),
        }
    }

    /// A few words for people: `float 40..1500`, `bit 32`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Codec::Float(codec) => codec.describe(),
            Codec::Categorical(codec) => codec.describe(),
            Codec::Bit(codec) => codec.describe(),
            Codec::Word2vec(codec) => codec.describe(),
        }
    }
}

/// The cell of a row as people read it.
fn show(column: &Column, row: usize) -> String {
    match column.value(row) {
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(index) => column.words()[index as usize].clone(),
    }
}

/// The index of the largest value; NaN counts as the smallest.
fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, &value) in values.iter().enumerate() {
        if value > values[best] || values[best].is_nan() {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests;
