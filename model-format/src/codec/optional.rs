//! A value that may be missing: one yes/no output says whether it is, another
//! encoder has the value.

use serde::{Deserialize, Serialize};

use super::{Codec, CodecError, Encoder, FitOptions, Rows, WordSpaces, encode_some, write_blank};
use crate::column::Column;
use crate::layout::{Activation, Segment};
use crate::record::Value;

/// An encoder of the values that are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionalCodec {
    inner: Box<Codec>,
}

impl OptionalCodec {
    /// Lets cells be missing that `inner` encodes.
    #[must_use]
    pub fn new(inner: Codec) -> OptionalCodec {
        OptionalCodec { inner: Box::new(inner) }
    }
}

impl OptionalCodec {
    /// The encoder of the values that are there.
    #[must_use]
    pub fn inner(&self) -> &Codec {
        &self.inner
    }
}

impl Encoder for OptionalCodec {
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError> {
        let encoding = options.fallback.unwrap_or("float");
        Codec::fit(encoding, column, FitOptions { fallback: None, ..*options })
            .map(OptionalCodec::new)
    }

    fn validate(&self) -> Result<(), String> {
        match *self.inner {
            Codec::Optional(_) => Err("an optional value is optional already".to_owned()),
            _ => self.inner.validate(),
        }
    }

    fn link(&mut self, spaces: &WordSpaces) -> Result<(), String> {
        self.inner.link(spaces)
    }

    fn segments(&self) -> Vec<Segment> {
        let mut segments = vec![Segment::new(2, Activation::Softmax)];
        segments.extend(self.inner.segments());
        segments
    }

    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        let segments = self.inner.segments();
        let mut there = Vec::new();
        for (row, out) in rows.enumerate().take(column.len()) {
            let (flag, rest) = out.split_at_mut(2);
            let missing = column.is_missing(row);
            flag.copy_from_slice(if missing { &[0.0, 1.0] } else { &[1.0, 0.0] });
            if missing {
                write_blank(&segments, rest);
            } else {
                there.push((row, rest));
            }
        }
        encode_some(&self.inner, column, there)
    }

    fn decode(&self, folded: &[f32]) -> Value {
        if folded[0] > 0.5 { Value::Missing } else { self.inner.decode(&folded[1..]) }
    }

    fn word(&self, index: u32) -> &str {
        self.inner.word(index)
    }

    fn describe(&self) -> String {
        format!("optional, {}", self.inner.describe())
    }
}
