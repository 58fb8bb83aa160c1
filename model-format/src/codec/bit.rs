//! A whole number as its bits, most significant first, a two-way softmax each.

use serde::{Deserialize, Serialize};

use super::{CodecError, show};
use crate::column::Column;
use crate::layout::{Activation, Segment};
use crate::record::Value;

/// The widest number that [`Value::Int`] holds without a sign.
const MOST_BITS: u8 = 63;

/// A whole number of at most `n_bits` bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitCodec {
    n_bits: u8,
}

impl BitCodec {
    /// An encoder of `n_bits` bits (1 to 63); `column` only names it in errors.
    ///
    /// # Errors
    /// A width out of range.
    pub fn new(column: &str, n_bits: u8) -> Result<BitCodec, CodecError> {
        let codec = BitCodec { n_bits };
        codec
            .validate()
            .map_err(|reason| CodecError::Option { column: column.to_owned(), reason })?;
        Ok(codec)
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        match self.n_bits {
            1..=MOST_BITS => Ok(()),
            other => Err(format!("`n_bits` is {other}; expected 1 to {MOST_BITS}")),
        }
    }

    pub(super) fn segments(&self) -> Vec<Segment> {
        vec![Segment::new(2, Activation::Softmax); usize::from(self.n_bits)]
    }

    pub(super) fn encode<'a>(
        &self,
        column: &Column,
        rows: impl Iterator<Item = &'a mut [f32]>,
    ) -> Result<(), CodecError> {
        for (row, out) in rows.enumerate().take(column.len()) {
            let fail = |reason: String| CodecError::Value {
                column: column.name.clone(),
                row: row + 1,
                found: show(column, row),
                reason,
            };
            let value = match column.value(row) {
                Value::Int(value) => value,
                Value::Float(value) if value == value.trunc() && value.abs() < 9e15 => value as i64,
                _ => return Err(fail("is not a whole number".to_owned())),
            };
            if value < 0 || value >> self.n_bits != 0 {
                return Err(fail(format!("exceeds {} bits", self.n_bits)));
            }
            for (bit, pair) in (0..self.n_bits).rev().zip(out.chunks_exact_mut(2)) {
                let set = (value >> bit) & 1;
                pair[0] = (1 - set) as f32;
                pair[1] = set as f32;
            }
        }
        Ok(())
    }

    pub(super) fn decode(&self, folded: &[f32]) -> Value {
        Value::Int(folded.iter().fold(0, |value, &bit| value << 1 | i64::from(bit > 0.5)))
    }

    pub(super) fn describe(&self) -> String {
        format!("bit {}", self.n_bits)
    }
}
