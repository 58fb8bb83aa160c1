//! Min-max scaling of a number, after `log1p` if wanted.
//!
//! NetShare's `ContinuousField`: x' = (g(x) - g(min)) / (g(max) - g(min)) with
//! g(x) = ln(1 + x) or x, and 2x' - 1 for `MINUSONE_ONE`.

use serde::{Deserialize, Serialize};

use super::{CodecError, Encoder, FitOptions, Rows, encode_numbers, show};
use crate::column::Column;
use crate::exponential::exp_m1;
use crate::layout::{Activation, Segment};
use crate::record::Value;

/// The interval that encoded values lie in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Range {
    /// \[0, 1\], sigmoid.
    #[default]
    #[serde(rename = "ZERO_ONE")]
    ZeroOne,
    /// \[-1, 1\], tanh.
    #[serde(rename = "MINUSONE_ONE")]
    MinusOneOne,
}

impl Range {
    /// The activation that reaches it.
    #[must_use]
    pub fn activation(self) -> Activation {
        match self {
            Range::ZeroOne => Activation::Sigmoid,
            Range::MinusOneOne => Activation::Tanh,
        }
    }

    /// A number from \[0, 1\] on this interval.
    #[must_use]
    pub fn from_unit(self, unit: f64) -> f32 {
        match self {
            Range::ZeroOne => unit as f32,
            Range::MinusOneOne => (2.0 * unit - 1.0) as f32,
        }
    }

    /// An encoded value on \[0, 1\]: clamped, NaN as 0.
    #[must_use]
    #[inline]
    pub fn to_unit(self, encoded: f32) -> f64 {
        let unit = match self {
            Range::ZeroOne => f64::from(encoded),
            Range::MinusOneOne => (f64::from(encoded) + 1.0) / 2.0,
        };
        if unit.is_nan() { 0.0 } else { unit.clamp(0.0, 1.0) }
    }
}

/// How a [`FloatCodec`] is fitted.
#[derive(Clone, Copy, Debug, Default)]
pub struct FloatOptions {
    /// The interval of encoded values.
    pub range: Range,
    /// Take ln(1 + x) first; values must then be above -1.
    pub log1p: bool,
    /// The smallest value instead of the smallest seen.
    pub min: Option<f64>,
    /// The largest value instead of the largest seen.
    pub max: Option<f64>,
    /// Decode to whole numbers.
    pub integer: bool,
}

/// A number scaled into an interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Fitted", into = "Fitted")]
pub struct FloatCodec {
    fitted: Fitted,
    /// The smallest value and the span, scaled: what every value needs.
    scaled_min: f64,
    scaled_span: f64,
}

/// What is kept of a [`FloatCodec`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename = "FloatCodec", deny_unknown_fields)]
struct Fitted {
    range: Range,
    log1p: bool,
    integer: bool,
    min: f64,
    max: f64,
}

impl Fitted {
    fn scale(&self, value: f64) -> f64 {
        if self.log1p { value.ln_1p() } else { value }
    }
}

impl From<Fitted> for FloatCodec {
    fn from(fitted: Fitted) -> FloatCodec {
        let scaled_min = fitted.scale(fitted.min);
        let scaled_span = fitted.scale(fitted.max) - scaled_min;
        FloatCodec { fitted, scaled_min, scaled_span }
    }
}

impl From<FloatCodec> for Fitted {
    fn from(codec: FloatCodec) -> Fitted {
        codec.fitted
    }
}

/// `f64::round`, which where every x86-64 is to be served is a call.
#[inline]
pub(super) fn round(value: f64) -> f64 {
    /// From here on all numbers are whole.
    const WHOLE: f64 = (1_u64 << 52) as f64;
    if value.abs() >= WHOLE || value.is_nan() {
        return value;
    }
    let whole = value as i64 as f64;
    // Without a branch: which way it goes is chance.
    whole + f64::from(u8::from((value - whole).abs() >= 0.5)).copysign(value)
}

impl FloatCodec {
    /// Fits the smallest and largest value of a column, where not given.
    ///
    /// # Errors
    /// No rows, text, values that are not finite or not above -1 under
    /// `log1p`, `min` above `max`.
    pub fn fit(column: &Column, options: FloatOptions) -> Result<FloatCodec, CodecError> {
        let name = || column.name.clone();
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for row in (0..column.len()).filter(|&row| !column.is_missing(row)) {
            let Some(value) = column.value(row).as_f64() else {
                return Err(CodecError::NotANumber { column: name(), found: show(column, row) });
            };
            let reason = if !value.is_finite() {
                "is not a finite number"
            } else if options.log1p && value <= -1.0 {
                "is not above -1, which `log1p_norm` needs"
            } else {
                min = min.min(value);
                max = max.max(value);
                continue;
            };
            return Err(CodecError::value(column, row, reason.to_owned()));
        }
        if min > max {
            return Err(CodecError::Empty { column: name() });
        }
        let codec = FloatCodec::from(Fitted {
            range: options.range,
            log1p: options.log1p,
            integer: options.integer,
            min: options.min.unwrap_or(min),
            max: options.max.unwrap_or(max),
        });
        codec.validate().map_err(|reason| CodecError::Option { column: name(), reason })?;
        Ok(codec)
    }

    /// One number scaled, clamped into the fitted range first. A constant
    /// column encodes as 0.
    #[must_use]
    pub fn encode_number(&self, value: f64) -> f32 {
        let FloatCodec { fitted, scaled_min, scaled_span } = self;
        if *scaled_span <= 0.0 {
            return 0.0;
        }
        let scaled = fitted.scale(value.clamp(fitted.min, fitted.max));
        fitted.range.from_unit((scaled - scaled_min) / scaled_span)
    }

    /// The number that an encoded value stands for, within the fitted range.
    #[must_use]
    #[inline]
    pub fn decode_number(&self, encoded: f32) -> f64 {
        let Fitted { range, log1p, integer, min, max } = self.fitted;
        let scaled = self.scaled_min + range.to_unit(encoded) * self.scaled_span;
        let value = if log1p { exp_m1(scaled) } else { scaled };
        let value = value.clamp(min, max);
        if integer { round(value) } else { value }
    }

    /// An encoded value on a flow's own scale, by the encoded smallest and
    /// largest value of the flow (NetShare's `normalize_per_sample`).
    #[must_use]
    pub fn to_own_scale(&self, encoded: f32, smallest: f32, largest: f32) -> f32 {
        let unit = (encoded - smallest) / (largest - smallest);
        match self.fitted.range {
            Range::ZeroOne => unit,
            Range::MinusOneOne => 2.0 * unit - 1.0,
        }
    }

    /// The encoded value that one on a flow's own scale stands for.
    #[must_use]
    pub fn from_own_scale(&self, own: f32, smallest: f32, largest: f32) -> f32 {
        let unit = match self.fitted.range {
            Range::ZeroOne => own,
            Range::MinusOneOne => (own + 1.0) / 2.0,
        };
        unit * (largest - smallest) + smallest
    }

    /// The fitted smallest and largest value.
    #[must_use]
    pub fn bounds(&self) -> (f64, f64) {
        (self.fitted.min, self.fitted.max)
    }
}

impl Encoder for FloatCodec {
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError> {
        let &FitOptions { range, log1p, min, max, integer, .. } = options;
        FloatCodec::fit(column, FloatOptions { range, log1p, min, max, integer })
    }

    fn validate(&self) -> Result<(), String> {
        let Fitted { log1p, min, max, .. } = self.fitted;
        if !min.is_finite() || !max.is_finite() || min > max {
            return Err(format!("smallest value {min} is not below largest {max}"));
        }
        if log1p && min <= -1.0 {
            return Err(format!("smallest value {min} is not above -1 (`log1p_norm`)"));
        }
        if !self.scaled_span.is_finite() {
            return Err(format!("range {min} to {max} is too wide"));
        }
        Ok(())
    }

    fn segments(&self) -> Vec<Segment> {
        vec![Segment::new(1, self.fitted.range.activation())]
    }

    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        encode_numbers(column, rows, |value| self.encode_number(value))
    }

    #[inline]
    fn decode(&self, folded: &[f32]) -> Value {
        let value = self.decode_number(folded[0]);
        if self.fitted.integer { Value::Int(value as i64) } else { Value::Float(value) }
    }

    fn describe(&self) -> String {
        let Fitted { log1p, min, max, .. } = self.fitted;
        let log = if log1p { " log1p" } else { "" };
        format!("float{log} {min}..{max}")
    }
}
