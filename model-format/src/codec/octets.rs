//! A whole number octet by octet, one output for each value an octet was seen with.
//!
//! Between one output a value, which keeps only what was seen, and bits, which
//! know no structure: networks are frequent octets.

use serde::{Deserialize, Serialize};

use super::bit::whole_number;
use super::{CodecError, Encoder, FitOptions, Rows, class_of, folded_classes};
use crate::column::{Column, ColumnData};
use crate::layout::{Activation, Segment};
use crate::record::Value;

/// An IPv6 address.
const MOST_OCTETS: usize = 16;

/// A whole number of up to 16 octets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OctetsCodec {
    /// For each octet, the most significant first, the values seen, ascending.
    octets: Vec<Vec<u8>>,
}

impl OctetsCodec {
    fn octet(&self, value: u128, index: usize) -> u8 {
        (value >> (8 * (self.octets.len() - 1 - index))) as u8
    }
}

impl Encoder for OctetsCodec {
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError> {
        let wide = matches!(column.data, ColumnData::Wide(_));
        let bits = options.n_bits.map_or(if wide { 128 } else { 32 }, usize::from);
        if !(1..=8 * MOST_OCTETS).contains(&bits) {
            let (column, most) = (column.name.clone(), 8 * MOST_OCTETS);
            let reason = format!("`n_bits` is {bits}; expected 1 to {most}");
            return Err(CodecError::Option { column, reason });
        }
        let mut codec = OctetsCodec { octets: vec![Vec::new(); bits.div_ceil(8)] };
        let mut seen = vec![[false; 256]; codec.octets.len()];
        for row in (0..column.len()).filter(|&row| !column.is_missing(row)) {
            let value = whole_number(column, row)?;
            if codec.octets.len() < MOST_OCTETS && value >> (8 * codec.octets.len()) != 0 {
                let reason = format!("exceeds {} octets", codec.octets.len());
                return Err(CodecError::value(column, row, reason));
            }
            for (index, seen) in seen.iter_mut().enumerate() {
                seen[usize::from(codec.octet(value, index))] = true;
            }
        }
        for (values, seen) in codec.octets.iter_mut().zip(seen) {
            values.extend((0..=255_u8).filter(|&value| seen[usize::from(value)]));
        }
        if codec.octets.first().is_some_and(Vec::is_empty) {
            return Err(CodecError::Empty { column: column.name.clone() });
        }
        let column = column.name.clone();
        codec.validate().map_err(|reason| CodecError::Option { column, reason })?;
        Ok(codec)
    }

    fn validate(&self) -> Result<(), String> {
        let count = self.octets.len();
        if !(1..=MOST_OCTETS).contains(&count) {
            return Err(format!("{count} octets; expected 1 to {MOST_OCTETS}"));
        }
        let ascending = |values: &Vec<u8>| values.windows(2).all(|pair| pair[0] < pair[1]);
        if self.octets.iter().any(|values| values.is_empty() || !ascending(values)) {
            return Err("the values of an octet are not in ascending order".to_owned());
        }
        Ok(())
    }

    fn segments(&self) -> Vec<Segment> {
        let segment = |values: &Vec<u8>| Segment::new(values.len(), Activation::Softmax);
        self.octets.iter().map(segment).collect()
    }

    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        for (row, out) in rows.enumerate().take(column.len()) {
            let value = whole_number(column, row)?;
            out.fill(0.0);
            let mut from = 0;
            for (index, values) in self.octets.iter().enumerate() {
                let octet = self.octet(value, index);
                let Ok(at) = values.binary_search(&octet) else {
                    let reason = format!("has an octet {octet} that none was fitted with");
                    return Err(CodecError::value(column, row, reason));
                };
                out[from + at] = 1.0;
                from += values.len();
            }
        }
        Ok(())
    }

    fn decode(&self, folded: &[f32]) -> Value {
        let (mut value, mut from) = (0_u128, 0);
        for values in &self.octets {
            let octet = values[class_of(&folded[from..], values.len())];
            value = value << 8 | u128::from(octet);
            from += folded_classes(values.len());
        }
        if self.octets.len() >= 8 { Value::Wide(value.into()) } else { Value::Int(value as i64) }
    }

    fn describe(&self) -> String {
        let counts: Vec<String> = self.octets.iter().map(|v| v.len().to_string()).collect();
        format!("octets {}", counts.join("+"))
    }
}
