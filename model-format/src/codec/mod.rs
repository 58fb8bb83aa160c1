//! Encoders: how a field's values become network outputs and back.
//!
//! Each encoder is one file with `fit`, `encode` and `decode` together, and one
//! line in the list below; docs/adding-an-encoding.md walks through one. The
//! struct that is serialized into `manifest.json` is the struct that decodes.
//! Encoding writes the training form of [`crate::Layout`], decoding reads the
//! folded form, both after the activation.

mod bit;
mod categorical;
mod choice;
mod custom;
mod float;
mod nearest;
mod octets;
mod optional;
mod quantile;
mod tokens;
mod topk;
mod word2vec;

pub use bit::BitCodec;
pub use categorical::CategoricalCodec;
pub use choice::{Choice, counted};
pub use custom::{CustomCodec, CustomEncoder, CustomEncoding, is_registered, register};
pub use float::{FloatCodec, FloatOptions, Range};
pub use octets::OctetsCodec;
pub use optional::OptionalCodec;
pub use quantile::QuantileCodec;
pub use tokens::{TokenOptions, TokensCodec};
pub use topk::TopkCodec;
pub use word2vec::{Word2VecCodec, Word2VecOptions, Word2VecSpace};

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::column::Column;
use crate::layout::{Activation, Layout, Segment};
use crate::record::Value;

/// Writes the list of encoders out: the enum, its names, and a call to each.
macro_rules! codecs {
    ($($(#[$doc:meta])* $name:literal => $variant:ident($codec:ty),)*) => {
        /// A fitted encoder.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "encoding", rename_all = "snake_case", deny_unknown_fields)]
        #[non_exhaustive]
        pub enum Codec {
            $($(#[$doc])* $variant($codec),)*
        }

        /// The names of all encoders, as they stand in a manifest.
        pub const ENCODINGS: &[&str] = &[$($name),*];

        impl Codec {
            fn fit_known(
                encoding: &str,
                column: &Column,
                options: &FitOptions<'_>,
            ) -> Result<Codec, CodecError> {
                match encoding {
                    $($name => <$codec as Encoder>::fit(column, options).map(Codec::$variant),)*
                    other => Err(CodecError::Option {
                        column: column.name.clone(),
                        reason: format!("encoding `{other}` is not known"),
                    }),
                }
            }

            /// See [`Encoder::segments`].
            #[must_use]
            pub fn segments(&self) -> Vec<Segment> {
                match self { $(Codec::$variant(codec) => codec.segments(),)* }
            }

            /// See [`Encoder::encode`].
            ///
            /// # Errors
            /// A value that the encoder has no form for, with its row.
            pub fn encode_rows(
                &self,
                column: &Column,
                rows: &mut Rows<'_>,
            ) -> Result<(), CodecError> {
                match self { $(Codec::$variant(codec) => codec.encode(column, rows),)* }
            }

            /// See [`Encoder::decode`].
            #[inline]
            #[must_use]
            pub fn decode(&self, folded: &[f32]) -> Value {
                match self { $(Codec::$variant(codec) => codec.decode(folded),)* }
            }

            /// See [`Encoder::decode_into`].
            #[inline]
            pub fn decode_into(&self, folded: &[f32], to: &mut Value) {
                match self { $(Codec::$variant(codec) => codec.decode_into(folded, to),)* }
            }

            /// See [`Encoder::word`].
            #[must_use]
            pub fn word(&self, index: u32) -> &str {
                match self { $(Codec::$variant(codec) => codec.word(index),)* }
            }

            /// See [`Encoder::validate`].
            ///
            /// # Errors
            /// A sentence that says what is wrong.
            pub fn validate(&self) -> Result<(), String> {
                match self { $(Codec::$variant(codec) => codec.validate(),)* }
            }

            /// See [`Encoder::link`].
            ///
            /// # Errors
            /// A sentence that says what is not there.
            pub fn link(&mut self, spaces: &WordSpaces) -> Result<(), String> {
                match self { $(Codec::$variant(codec) => codec.link(spaces),)* }
            }

            /// See [`Encoder::describe`].
            #[must_use]
            pub fn describe(&self) -> String {
                match self { $(Codec::$variant(codec) => codec.describe(),)* }
            }
        }
    };
}

codecs! {
    /// Min-max scaling.
    "float" => Float(FloatCodec),
    /// One output a value.
    "categorical" => Categorical(CategoricalCodec),
    /// One yes/no output a bit.
    "bit" => Bit(BitCodec),
    /// A learned vector a value.
    "word2vec" => Word2vec(Word2VecCodec),
    /// The place in the distribution of the values seen.
    "quantile" => Quantile(QuantileCodec),
    /// One output for each of the most frequent values, another encoding for the rest.
    "topk" => Topk(TopkCodec),
    /// One output for each value of each octet.
    "octets" => Octets(OctetsCodec),
    /// Another encoding, and whether there is a value at all.
    "optional" => Optional(OptionalCodec),
    /// A token, of values or bins.
    "tokens" => Tokens(TokensCodec),
    /// An encoding that the program registered.
    "custom" => Custom(CustomCodec),
}

/// What every encoder does.
pub trait Encoder: Sized {
    /// Fits the encoder on a column. Missing cells are left out, unless it has
    /// a way to encode them.
    ///
    /// # Errors
    /// No values, values or options that the encoder cannot take.
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError>;

    /// The segments of one encoded value, in training form.
    fn segments(&self) -> Vec<Segment>;

    /// Encodes row `i` of a column into the `i`-th of `rows`, which is as long
    /// as [`Self::segments`] says. Softmax segments are written one-hot.
    ///
    /// # Errors
    /// A value that the encoder has no form for, with its row.
    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError>;

    /// The value that a folded, activated output stands for. Never fails: every
    /// output decodes to a value in the encoder's range, NaN included.
    fn decode(&self, folded: &[f32]) -> Value;

    /// As [`Self::decode`], to where the value is kept: one that is written by parts and copied
    /// whole at once would wait until its parts have reached the cache.
    #[inline]
    fn decode_into(&self, folded: &[f32], to: &mut Value) {
        *to = self.decode(folded);
    }

    /// The text of a decoded [`Value::Text`], `""` for an index it never gave.
    fn word(&self, _index: u32) -> &str {
        ""
    }

    /// Checks what a manifest from outside could have wrong, before it is used.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    fn validate(&self) -> Result<(), String>;

    /// After reading a manifest: takes what stands elsewhere in it.
    ///
    /// # Errors
    /// A sentence that says what is not there.
    fn link(&mut self, _spaces: &WordSpaces) -> Result<(), String> {
        Ok(())
    }

    /// A few words for people: `float 40..1500`, `bit 32`.
    fn describe(&self) -> String;
}

/// The rows that a column is encoded into.
pub type Rows<'a> = dyn Iterator<Item = &'a mut [f32]> + 'a;

/// The vocabularies of a schema, by NAME.
pub type WordSpaces = BTreeMap<String, Arc<Word2VecSpace>>;

/// What a configuration says about how a field is encoded. An encoder takes
/// what it knows and leaves the rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct FitOptions<'a> {
    /// The interval of encoded numbers.
    pub range: Range,
    /// Work with ln(1 + x).
    pub log1p: bool,
    /// The smallest value instead of the smallest seen.
    pub min: Option<f64>,
    /// The largest value instead of the largest seen.
    pub max: Option<f64>,
    /// Decode to whole numbers.
    pub integer: bool,
    /// Width in bits.
    pub n_bits: Option<u8>,
    /// The field is a quantity, not a name: nothing outside what was seen makes sense.
    pub quantity: bool,
    /// The values that the field can take, instead of those seen.
    pub choices: Option<&'a [Choice]>,
    /// How many values are frequent (`topk`).
    pub k: Option<usize>,
    /// How the others are encoded (`topk`).
    pub fallback: Option<&'a str>,
    /// The vocabularies of `word2vec_NAME`.
    pub spaces: Option<&'a WordSpaces>,
    /// NAME of `word2vec_NAME`, or the name of a registered encoding.
    pub name: &'a str,
    /// What a registered encoding is given.
    pub custom: Option<&'a serde_json::Value>,
}

impl Codec {
    /// Fits an encoder by the name that a configuration gives it: one of
    /// [`ENCODINGS`], `word2vec_NAME`, `log_quantile` (`quantile` with
    /// `log1p`), or one that was [`register`]ed.
    ///
    /// # Errors
    /// An unknown name, or what the encoder's `fit` fails with.
    pub fn fit(
        encoding: &str,
        column: &Column,
        options: FitOptions<'_>,
    ) -> Result<Codec, CodecError> {
        if let Some(name) = encoding.strip_prefix("word2vec_") {
            return Codec::fit_known("word2vec", column, &FitOptions { name, ..options });
        }
        if encoding == "log_quantile" {
            return Codec::fit_known("quantile", column, &FitOptions { log1p: true, ..options });
        }
        if is_registered(encoding) {
            let options = FitOptions { name: encoding, ..options };
            return Codec::fit_known("custom", column, &options);
        }
        Codec::fit_known(encoding, column, &options)
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
        let dim = self.dim();
        let mut rows = out.chunks_exact_mut(stride).map(|row| &mut row[offset..offset + dim]);
        self.encode_rows(column, &mut rows)
    }

    /// Values of the training form.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.segments().iter().map(|segment| segment.dim).sum()
    }

    /// Values of the folded form.
    #[must_use]
    pub fn folded_dim(&self) -> usize {
        Layout { segments: self.segments() }.folded_dim()
    }

    /// The number that an output of one value stands for; `None` for an
    /// encoder of anything else than numbers.
    #[inline]
    #[must_use]
    pub fn decode_number(&self, encoded: f32) -> Option<f64> {
        match self {
            Codec::Float(codec) => Some(codec.decode_number(encoded)),
            Codec::Quantile(codec) => Some(codec.decode_number(encoded)),
            _ => None,
        }
    }

    /// The only values that it decodes to (or none at all), if they are listed;
    /// see [`Self::bounds`] where they are not.
    #[must_use]
    pub fn choices(&self) -> Option<&[Choice]> {
        match self {
            Codec::Categorical(codec) => Some(codec.choices()),
            Codec::Word2vec(codec) => Some(codec.words()),
            Codec::Topk(codec) => codec.choices(),
            Codec::Tokens(codec) => codec.choices(),
            Codec::Optional(codec) => codec.inner().choices(),
            _ => None,
        }
    }

    /// The smallest and largest number that it decodes to, if it is one of numbers.
    #[must_use]
    pub fn bounds(&self) -> Option<(f64, f64)> {
        match self {
            Codec::Float(codec) => Some(codec.bounds()),
            Codec::Quantile(codec) => Some(codec.bounds()),
            Codec::Tokens(codec) => codec.bounds(),
            Codec::Bit(codec) if codec.is_int() => {
                let (least, most) = codec.bounds();
                Some((least as f64, most as f64))
            }
            Codec::Optional(codec) => codec.inner().bounds(),
            _ => None,
        }
    }

    /// Whether missing cells can be encoded.
    #[must_use]
    pub fn takes_missing(&self) -> bool {
        match self {
            Codec::Optional(_) => true,
            Codec::Categorical(codec) => codec.choices().contains(&Choice::Missing),
            Codec::Word2vec(codec) => codec.words().contains(&Choice::Missing),
            Codec::Topk(codec) => codec.takes_missing(),
            Codec::Tokens(codec) => codec.takes_missing(),
            _ => false,
        }
    }
}

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
         use `topk`, `bit` or `word2vec_NAME`"
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

impl CodecError {
    /// An error about the cell of a row, counted from 0.
    #[must_use]
    pub fn value(column: &Column, row: usize, reason: String) -> CodecError {
        let (found, reason) = match column.value(row) {
            Value::Missing => (String::new(), "is missing".to_owned()),
            _ => (show(column, row), reason),
        };
        CodecError::Value { column: column.name.clone(), row: row + 1, found, reason }
    }
}

/// The cell of a row as people read it.
fn show(column: &Column, row: usize) -> String {
    match column.value(row) {
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(index) => column.words()[index as usize].clone(),
        Value::Wide(value) => u128::from(value).to_string(),
        Value::Missing => String::new(),
    }
}

/// Which of `classes` a folded softmax says: the largest, the first of equals,
/// NaN the smallest. Two classes fold into the probability of the second.
#[inline]
fn class_of(folded: &[f32], classes: usize) -> usize {
    if classes == 2 {
        return usize::from(folded[0] > 0.5);
    }
    // Without a branch: what is drawn cannot be foreseen.
    let (mut best, mut most) = (0, f32::NAN);
    for (index, &value) in folded[..classes].iter().enumerate() {
        let is_more = value > most || most.is_nan();
        best = if is_more { index } else { best };
        most = if is_more { value } else { most };
    }
    best
}

/// Values of a softmax over `classes`, folded.
fn folded_classes(classes: usize) -> usize {
    if classes == 2 { 1 } else { classes }
}

/// What stands where an encoder has nothing to encode: the first class of every
/// softmax, zeros elsewhere.
fn write_blank(segments: &[Segment], out: &mut [f32]) {
    out.fill(0.0);
    let mut from = 0;
    for segment in segments {
        if segment.activation == Activation::Softmax {
            out[from] = 1.0;
        }
        from += segment.dim;
    }
}

/// Encodes a column of finite numbers, one output each.
fn encode_numbers(
    column: &Column,
    rows: &mut Rows<'_>,
    encode: impl Fn(f64) -> f32,
) -> Result<(), CodecError> {
    for (row, out) in rows.enumerate().take(column.len()) {
        let Some(value) = column.value(row).as_f64().filter(|value| value.is_finite()) else {
            let reason = "is not a finite number".to_owned();
            return Err(CodecError::value(column, row, reason));
        };
        out[0] = encode(value);
    }
    Ok(())
}

/// Encodes only some rows of a column: `inner` gets those of `chosen` (each a
/// row number and its output), and errors name the column's own rows.
fn encode_some(
    inner: &Codec,
    column: &Column,
    chosen: Vec<(usize, &mut [f32])>,
) -> Result<(), CodecError> {
    let (numbers, outputs): (Vec<usize>, Vec<&mut [f32]>) = chosen.into_iter().unzip();
    let result = inner.encode_rows(&column.pick(&numbers), &mut outputs.into_iter());
    result.map_err(|error| match error {
        CodecError::Value { column, row, found, reason } => {
            CodecError::Value { column, row: numbers[row - 1] + 1, found, reason }
        }
        other => other,
    })
}

#[cfg(test)]
mod tests;
