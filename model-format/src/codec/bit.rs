//! A whole number as its bits, most significant first, a two-way softmax each.

use serde::{Deserialize, Serialize};

use super::{CodecError, Encoder, FitOptions, Rows};
use crate::column::{Column, ColumnData};
use crate::layout::{Activation, Segment};
use crate::record::Value;

/// An IPv6 address.
const MOST_BITS: u8 = 128;
/// The widest number that [`Value::Int`] holds without a sign; wider ones are [`Value::Wide`].
const MOST_INT_BITS: u8 = 63;

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
    /// An encoder of `n_bits` bits (1 to 128); `column` only names it in errors.
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
        if let ColumnData::Wide(_) = column.data {
            return BitCodec::new(&column.name, n_bits.unwrap_or(MOST_BITS));
        }
        let mut bounds: Option<(i64, i64)> = None;
        for row in (0..column.len()).filter(|&row| !column.is_missing(row)) {
            let value = whole_number(column, row)? as i64;
            bounds = Some(match bounds {
                Some((least, most)) => (least.min(value), most.max(value)),
                None => (value, value),
            });
        }
        let Some((least, most)) = bounds else {
            return Err(CodecError::Empty { column: column.name.clone() });
        };
        let needed = (64 - most.max(1).leading_zeros()) as u8;
        BitCodec { n_bits: n_bits.unwrap_or(needed), bounds: Some((least, most)) }
            .checked(&column.name)
    }

    /// Whether it decodes to [`Value::Int`].
    #[must_use]
    pub fn is_int(&self) -> bool {
        self.n_bits <= MOST_INT_BITS
    }

    /// The smallest and largest number that it decodes to, where [`Self::is_int`].
    #[must_use]
    pub fn bounds(&self) -> (i64, i64) {
        let widest = i64::MAX >> (MOST_INT_BITS - self.n_bits.clamp(1, MOST_INT_BITS));
        self.bounds.map_or((0, widest), |(least, most)| (least, most.min(widest).max(least)))
    }

    fn checked(self, column: &str) -> Result<BitCodec, CodecError> {
        let checked = self.validate();
        checked.map_err(|reason| CodecError::Option { column: column.to_owned(), reason })?;
        Ok(self)
    }
}

impl Encoder for BitCodec {
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError> {
        match options.n_bits {
            Some(n_bits) if !options.quantity => BitCodec::new(&column.name, n_bits),
            n_bits => BitCodec::fit(column, n_bits),
        }
    }

    fn validate(&self) -> Result<(), String> {
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

    fn segments(&self) -> Vec<Segment> {
        vec![Segment::new(2, Activation::Softmax); usize::from(self.n_bits)]
    }

    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        for (row, out) in rows.enumerate().take(column.len()) {
            let value = whole_number(column, row)?;
            if self.n_bits < 128 && value >> self.n_bits != 0 {
                let reason = format!("exceeds {} bits", self.n_bits);
                return Err(CodecError::value(column, row, reason));
            }
            for (bit, pair) in (0..self.n_bits).rev().zip(out.chunks_exact_mut(2)) {
                let set = (value >> bit) & 1;
                pair[0] = (1 - set) as f32;
                pair[1] = set as f32;
            }
        }
        Ok(())
    }

    #[inline]
    fn decode(&self, folded: &[f32]) -> Value {
        if self.n_bits > MOST_INT_BITS {
            let wide = folded.iter().fold(0, |value, &bit| value << 1 | u128::from(bit > 0.5));
            return Value::Wide(wide.into());
        }
        let value = folded.iter().fold(0, |value, &bit| value << 1 | i64::from(bit > 0.5));
        Value::Int(self.bounds.map_or(value, |(least, most)| value.clamp(least, most)))
    }

    fn describe(&self) -> String {
        match self.bounds {
            Some((least, most)) => format!("bit {} {least}..{most}", self.n_bits),
            None => format!("bit {}", self.n_bits),
        }
    }
}

/// The cell as a whole number that is not negative.
pub(super) fn whole_number(column: &Column, row: usize) -> Result<u128, CodecError> {
    let reason = match column.value(row) {
        Value::Int(value) if value >= 0 => return Ok(value as u128),
        Value::Wide(value) => return Ok(value.into()),
        Value::Float(value) if value == value.trunc() && (0.0..9e15).contains(&value) => {
            return Ok(value as u128);
        }
        Value::Int(_) => "is negative; use `quantile` or a float",
        _ => "is not a whole number",
    };
    Err(CodecError::value(column, row, reason.to_owned()))
}
