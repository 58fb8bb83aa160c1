//! Encodings that a program brings itself.
//!
//! [`register`] one before training or opening a bundle; a configuration then
//! names it like any other (`"encoding": "mine"`). A program without it
//! refuses the bundle by the encoding's name.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::{CodecError, ENCODINGS, Encoder, FitOptions, Rows, WordSpaces};
use crate::column::Column;
use crate::layout::Segment;
use crate::record::Value;

/// A fitted encoder of a program's own; each function as in [`Encoder`].
pub trait CustomEncoder: Debug + Send + Sync {
    /// All that [`CustomEncoding::read`] needs to make this again.
    fn state(&self) -> serde_json::Value;

    /// The segments of one encoded value, in training form.
    fn segments(&self) -> Vec<Segment>;

    /// Encodes row `i` of a column into the `i`-th of `rows`.
    ///
    /// # Errors
    /// A value that the encoder has no form for ([`CodecError::value`]).
    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError>;

    /// The value that a folded output stands for. Must not fail.
    fn decode(&self, folded: &[f32]) -> Value;

    /// The text of a decoded [`Value::Text`].
    fn word(&self, _index: u32) -> &str {
        ""
    }

    /// A few words for people.
    fn describe(&self) -> String;
}

/// How encoders of one name come to be.
pub trait CustomEncoding: Send + Sync {
    /// Fits an encoder; `options.custom` is the field's `options` in the configuration.
    ///
    /// # Errors
    /// Values or options that it cannot take.
    fn fit(
        &self,
        column: &Column,
        options: &FitOptions<'_>,
    ) -> Result<Arc<dyn CustomEncoder>, CodecError>;

    /// Makes an encoder from what [`CustomEncoder::state`] gave; the state may
    /// come from anywhere.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the state.
    fn read(&self, state: &serde_json::Value) -> Result<Arc<dyn CustomEncoder>, String>;
}

static REGISTERED: RwLock<BTreeMap<String, Arc<dyn CustomEncoding>>> = RwLock::new(BTreeMap::new());

/// Makes an encoding known by a name, for the whole program.
///
/// # Errors
/// A name that is taken.
pub fn register(name: &str, encoding: Arc<dyn CustomEncoding>) -> Result<(), String> {
    let ours = ENCODINGS.contains(&name) || name == "log_quantile" || name.starts_with("word2vec_");
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    if ours || registered.contains_key(name) {
        return Err(format!("an encoding `{name}` exists already"));
    }
    registered.insert(name.to_owned(), encoding);
    Ok(())
}

/// Whether [`register`] was called with this name.
#[must_use]
pub fn is_registered(name: &str) -> bool {
    registered(name).is_some()
}

fn registered(name: &str) -> Option<Arc<dyn CustomEncoding>> {
    REGISTERED.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}

/// A fitted encoder of a registered encoding, as it stands in a manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomCodec {
    name: String,
    state: serde_json::Value,
    /// `None` after reading, until linked.
    #[serde(skip)]
    encoder: Option<Arc<dyn CustomEncoder>>,
}

impl PartialEq for CustomCodec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.state == other.state
    }
}

impl CustomCodec {
    fn unknown(name: &str) -> String {
        format!("encoding `{name}` is none of this program's; it must be registered first")
    }
}

impl Encoder for CustomCodec {
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError> {
        let name = options.name.to_owned();
        let encoding = registered(&name).ok_or_else(|| CodecError::Option {
            column: column.name.clone(),
            reason: CustomCodec::unknown(&name),
        })?;
        let encoder = encoding.fit(column, options)?;
        Ok(CustomCodec { name, state: encoder.state(), encoder: Some(encoder) })
    }

    fn link(&mut self, _spaces: &WordSpaces) -> Result<(), String> {
        let encoding = registered(&self.name).ok_or_else(|| CustomCodec::unknown(&self.name))?;
        self.encoder = Some(encoding.read(&self.state)?);
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        self.encoder.as_ref().map(|_| ()).ok_or_else(|| CustomCodec::unknown(&self.name))
    }

    fn segments(&self) -> Vec<Segment> {
        self.encoder.as_ref().map(|encoder| encoder.segments()).unwrap_or_default()
    }

    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        self.encoder.as_ref().map_or(Ok(()), |encoder| encoder.encode(column, rows))
    }

    fn decode(&self, folded: &[f32]) -> Value {
        self.encoder.as_ref().map_or(Value::Missing, |encoder| encoder.decode(folded))
    }

    fn word(&self, index: u32) -> &str {
        self.encoder.as_ref().map_or("", |encoder| encoder.word(index))
    }

    fn describe(&self) -> String {
        let described = self.encoder.as_ref().map_or(String::new(), |encoder| encoder.describe());
        format!("{} {described}", self.name)
    }
}
