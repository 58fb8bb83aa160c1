//! A number as its place in the distribution of the values seen.
//!
//! The empirical distribution function is cut into pieces: a frequent value is
//! a piece of its own (an *atom*), what lies between goes in pieces of about
//! equal mass, smaller towards both ends. A number's encoded value is its
//! cumulative probability, so whatever a generator makes of it, real packet
//! lengths come out exactly, and nothing outside what was seen comes out at all.

use serde::{Deserialize, Serialize};

use super::float::round;
use super::{CodecError, Encoder, FitOptions, Range, Rows, encode_numbers, show};
use crate::column::Column;
use crate::exponential::exp_m1;
use crate::layout::Segment;
use crate::record::Value;

/// Pieces between atoms have about this share of the mass.
const PIECES: usize = 64;
/// A value with this share of the rows is an atom.
const ATOM_SHARE: usize = 400;
/// No piece has less than this share of the mass, which an f32 still resolves.
const LEAST_MASS: f64 = 1.0 / 262_144.0;
/// Of a piece's mass, so much at each end stands for the end's value, so that
/// rounding never leads into the next piece.
const MARGIN: f64 = 1.0 / 64.0;
const MOST_PIECES: usize = 4096;

/// Equal mass on every value from `least` to `most` (or its logarithm).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, f64, f64)", into = "(f64, f64, f64)")]
struct Piece {
    /// The probability of a value up to this piece's end.
    until: f64,
    least: f64,
    most: f64,
}

impl From<(f64, f64, f64)> for Piece {
    fn from((until, least, most): (f64, f64, f64)) -> Piece {
        Piece { until, least, most }
    }
}

impl From<Piece> for (f64, f64, f64) {
    fn from(Piece { until, least, most }: Piece) -> Self {
        (until, least, most)
    }
}

/// A number by its cumulative probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantileCodec {
    range: Range,
    /// Within a piece, mass is even on the axis ln(1 + x).
    log1p: bool,
    integer: bool,
    /// Ascending: `[probability up to its end, least, most]`.
    pieces: Vec<Piece>,
}

impl QuantileCodec {
    /// The pieces of a sorted sample.
    fn cut(sorted: &[f64], integer: bool) -> Vec<Piece> {
        let count = sorted.len();
        let atom = (count / ATOM_SHARE).max(2);
        let fewest = ((count as f64 * LEAST_MASS).ceil() as usize).max(1);
        let mut pieces = Vec::new();
        let push = |pieces: &mut Vec<Piece>, values: &[f64], until: usize| {
            let (Some(&least), Some(&most)) = (values.first(), values.last()) else { return };
            // An integer from a to b is a real number from a - 1/2 to b + 1/2.
            let half = if integer && least < most { 0.5 } else { 0.0 };
            let until = until as f64 / count as f64;
            pieces.push(Piece { until, least: least - half, most: most + half });
        };
        // The piece being made is `begin..end`; `end` goes value by value.
        let (mut begin, mut end) = (0, 0);
        for group in sorted.chunk_by(|a, b| a == b) {
            if group.len() >= atom {
                push(&mut pieces, &sorted[begin..end], end);
                end += group.len();
                push(&mut pieces, group, end);
                begin = end;
                continue;
            }
            end += group.len();
            let wanted = (count / PIECES).min(begin).min((count - begin) / 2).max(fewest);
            if end - begin >= wanted {
                push(&mut pieces, &sorted[begin..end], end);
                begin = end;
            }
        }
        push(&mut pieces, &sorted[begin..end], end);
        pieces
    }

    /// The smallest and largest number that was seen.
    #[must_use]
    pub fn bounds(&self) -> (f64, f64) {
        let ends = self.pieces.first().zip(self.pieces.last());
        let (least, most) = ends.map_or((0.0, 0.0), |(first, last)| (first.least, last.most));
        // The bounds of a piece of several integers are halves.
        if self.integer { (least.ceil(), most.floor()) } else { (least, most) }
    }

    fn axis(&self, value: f64) -> f64 {
        if self.log1p { value.ln_1p() } else { value }
    }

    /// The cumulative probability of a number, in \[0, 1\]. One that was not
    /// seen stands for the nearest that was.
    fn probability(&self, value: f64) -> f64 {
        let after = self.pieces.partition_point(|piece| piece.most < value);
        let at = after.min(self.pieces.len() - 1);
        let Piece { until, least, most } = self.pieces[at];
        let from = if at == 0 { 0.0 } else { self.pieces[at - 1].until };
        let inside = if value <= least {
            // Between two pieces the nearer end counts.
            match at.checked_sub(1).map(|before| self.pieces[before]) {
                Some(before) if value < least && value - before.most < least - value => {
                    return self.probability(before.most);
                }
                _ => 0.0,
            }
        } else if value >= most {
            1.0
        } else {
            (self.axis(value) - self.axis(least)) / (self.axis(most) - self.axis(least))
        };
        // An atom's middle is the safest from rounding.
        let inside = if least == most { 0.5 } else { MARGIN + (1.0 - 2.0 * MARGIN) * inside };
        from + (until - from) * inside
    }

    /// The number that an encoded value stands for, within the range seen.
    #[must_use]
    pub fn decode_number(&self, encoded: f32) -> f64 {
        let unit = self.range.to_unit(encoded);
        let after = self.pieces.partition_point(|piece| piece.until <= unit);
        let at = after.min(self.pieces.len() - 1);
        let Piece { until, least, most } = self.pieces[at];
        if least == most {
            return least;
        }
        let from = if at == 0 { 0.0 } else { self.pieces[at - 1].until };
        let inside = ((unit - from) / (until - from) - MARGIN) / (1.0 - 2.0 * MARGIN);
        let inside = inside.clamp(0.0, 1.0);
        let (low, high) = (self.axis(least), self.axis(most));
        let value = low + (high - low) * inside;
        let value = (if self.log1p { exp_m1(value) } else { value }).clamp(least, most);
        if !self.integer {
            return value;
        }
        // The bounds of a piece of several integers are halves.
        round(value).clamp(least.ceil(), most.floor())
    }
}

impl Encoder for QuantileCodec {
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError> {
        let name = || column.name.clone();
        let mut values = Vec::with_capacity(column.len());
        for row in (0..column.len()).filter(|&row| !column.is_missing(row)) {
            let Some(value) = column.value(row).as_f64() else {
                return Err(CodecError::NotANumber { column: name(), found: show(column, row) });
            };
            let reason = if !value.is_finite() {
                "is not a finite number"
            } else if options.log1p && value <= -0.5 {
                "is not above -0.5, which `log_quantile` needs"
            } else {
                values.push(value);
                continue;
            };
            return Err(CodecError::value(column, row, reason.to_owned()));
        }
        if values.is_empty() {
            return Err(CodecError::Empty { column: name() });
        }
        values.sort_unstable_by(f64::total_cmp);
        let codec = QuantileCodec {
            range: options.range,
            log1p: options.log1p,
            integer: options.integer,
            pieces: QuantileCodec::cut(&values, options.integer),
        };
        codec.validate().map_err(|reason| CodecError::Option { column: name(), reason })?;
        Ok(codec)
    }

    fn validate(&self) -> Result<(), String> {
        if !(1..=MOST_PIECES).contains(&self.pieces.len()) {
            return Err(format!("{} pieces; expected 1 to {MOST_PIECES}", self.pieces.len()));
        }
        let mut before: Option<Piece> = None;
        for &piece in &self.pieces {
            let Piece { until, least, most } = piece;
            let ascends = before.is_none_or(|b| b.until < until && b.most <= least);
            let above = !self.log1p || least > -1.0;
            let finite = (self.axis(most) - self.axis(least)).is_finite();
            let whole = !self.integer || least.ceil() <= most.floor();
            if !(whole
                && 0.0 < until
                && until <= 1.0
                && least <= most
                && ascends
                && above
                && finite)
            {
                return Err("the pieces of the distribution are out of order".to_owned());
            }
            before = Some(piece);
        }
        match before {
            Some(last) if last.until == 1.0 => Ok(()),
            _ => Err("the distribution does not add up to 1".to_owned()),
        }
    }

    fn segments(&self) -> Vec<Segment> {
        vec![Segment::new(1, self.range.activation())]
    }

    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        encode_numbers(column, rows, |value| self.range.from_unit(self.probability(value)))
    }

    #[inline]
    fn decode(&self, folded: &[f32]) -> Value {
        let value = self.decode_number(folded[0]);
        if self.integer { Value::Int(value as i64) } else { Value::Float(value) }
    }

    fn describe(&self) -> String {
        let log = if self.log1p { "log_" } else { "" };
        let atoms = self.pieces.iter().filter(|piece| piece.least == piece.most).count();
        let (least, most) = self.bounds();
        format!("{log}quantile {least}..{most}, {atoms} exact of {} pieces", self.pieces.len())
    }
}
