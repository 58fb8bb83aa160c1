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
    /// Decoded numbers are brought into these bounds, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bounds: Option<(i64, i64)>,
}

impl BitCodec {
    /// An encoder of `n_bits` bits (1 to 63); `column` only names it in errors.
    ///
    /// # Errors
    /// A width out of range.
    pub fn new(column: &str, n_bits: u8) -> Result<BitCodec, CodecError> {
        BitCodec { n_bits, bounds: None }.checked(column)
    }

    /// An encoder of a quantity: as wide as its largest value needs unless
    /// `n_bits` is given, and never decoded below the smallest or above the
    /// largest value seen. (An address or a port is a name, not a quantity:
    /// for those, [`Self::new`].)
    ///
    /// # Errors
    /// No rows, a value that is no whole number, a width out of range.
    pub fn fit(column: &Column, n_bits: Option<u8>) -> Result<BitCodec, CodecError> {
        let mut bounds: Option<(i64, i64)> = None;
        for row in 0..column.len() {
            let value = whole_number(column, row)?;
            bounds = Some(match bounds {
                Some((least, most)) => (least.min(value), most.max(value)),
                None => (value, value),
            });
        }
        let Some((least, most)) = bounds else {
            return Err(CodecError::Empty { column: column.name.clone() });
        };
        let needed = (64 - most.max(1).leading_zeros()) as u8;
        BitCodec { n_bits: n_bits.unwrap_or(needed), bounds: Some((least.max(0), most.max(0))) }
            .checked(&column.name)
    }

    fn checked(self, column: &str) -> Result<BitCodec, CodecError> {
        let checked = self.validate();
        checked.map_err(|reason| CodecError::Option { column: column.to_owned(), reason })?;
        Ok(self)
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        if !(1..=MOST_BITS).contains(&self.n_bits) {
            return Err(format!("`n_bits` is {}; expected 1 to {MOST_BITS}", self.n_bits));
        }
        match self.bounds {
            Some((least, most)) if least < 0 || least > most => {
                Err(format!("bounds {least} to {most} are out of order"))
            }
            _ => Ok(()),
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
            let value = whole_number(column, row)?;
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
        let value = folded.iter().fold(0, |value, &bit| value << 1 | i64::from(bit > 0.5));
        Value::Int(self.bounds.map_or(value, |(least, most)| value.clamp(least, most)))
    }

    /// The smallest and largest number that it decodes to.
    #[must_use]
    pub fn bounds(&self) -> (i64, i64) {
        let widest = i64::MAX >> (MOST_BITS - self.n_bits.clamp(1, MOST_BITS));
        self.bounds.map_or((0, widest), |(least, most)| (least, most.min(widest).max(least)))
    }

    pub(super) fn describe(&self) -> String {
        match self.bounds {
            Some((least, most)) => format!("bit {} {least}..{most}", self.n_bits),
            None => format!("bit {}", self.n_bits),
        }
    }
}

fn whole_number(column: &Column, row: usize) -> Result<i64, CodecError> {
    match column.value(row) {
        Value::Int(value) => Ok(value),
        Value::Float(value) if value == value.trunc() && value.abs() < 9e15 => Ok(value as i64),
        _ => Err(CodecError::Value {
            column: column.name.clone(),
            row: row + 1,
            found: show(column, row),
            reason: "is not a whole number".to_owned(),
        }),
    }
}
