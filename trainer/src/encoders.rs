//! From the configuration's fields to fitted encoders.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ns_model_format::codec::{
    Choice, Codec, CodecError, FitOptions, OptionalCodec, Range, TokensCodec, Word2VecOptions,
    Word2VecSpace, WordSpaces,
};
use ns_model_format::{Column, Field, FieldKind, Value};

use crate::autoregressive::tokens::{self, Named};
use crate::config::{FieldConfig, FieldType, Missing, Resolved, TimestampConfig};
use crate::ingest::{Trace, TraceColumn};

/// Why encoders cannot be fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// A column that its encoder cannot take.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Word vectors that cannot be used.
    #[error("`pretrain_model_path`: `{}`: {reason}", path.display())]
    Pretrained {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A configured column; readers give all of them.
pub(crate) fn configured<'a>(
    trace: &'a Trace,
    field: &FieldConfig,
) -> Result<&'a TraceColumn, CodecError> {
    let missing = || CodecError::Empty { column: field.column.clone() };
    trace.column(&field.column).ok_or_else(missing)
}

/// Fits the vocabularies of all `word2vec_NAME` columns, or takes their vectors
/// from the file that the configuration names.
pub(crate) fn word_spaces(
    trace: &Trace,
    config: &Resolved,
    seed: u64,
) -> Result<WordSpaces, EncoderError> {
    let mut columns = Vec::new();
    for field in config.metadata.iter().chain(&config.timeseries) {
        if let Some(name) = field.word2vec_name() {
            columns.push((name, &configured(trace, field)?.column));
        }
    }
    if columns.is_empty() {
        return Ok(BTreeMap::new());
    }
    let Some(path) = &config.pretrained else {
        return Ok(Word2VecSpace::fit(&columns, Word2VecOptions { dim: config.vec_size, seed })?);
    };
    std::fs::read_to_string(path)
        .map_err(|error| error.to_string())
        .and_then(|text| Word2VecSpace::pretrained(&columns, &text))
        .map_err(|reason| EncoderError::Pretrained { path: path.clone(), reason })
}

/// Fits a field's encoder on its column. What is fixed in a flow names
/// something; a measurement is a quantity.
pub(crate) fn fit(
    field: &FieldConfig,
    column: &TraceColumn,
    quantity: bool,
    spaces: &WordSpaces,
) -> Result<Field, CodecError> {
    let TraceColumn { column, kind, missing } = column;
    let integer = matches!(kind, FieldKind::Integer | FieldKind::Datetime(_));
    let choices = field
        .choices
        .as_ref()
        .map(|choices| choices.iter().map(|choice| as_kind(choice, kind)).collect::<Vec<Choice>>());
    let options = FitOptions {
        range: field.normalization.unwrap_or(Range::ZeroOne),
        log1p: field.log1p_norm.unwrap_or(false),
        min: field.min_x,
        max: field.max_x,
        integer,
        n_bits: match kind {
            // As many as there are, whatever was thought before one of IPv6 was met.
            FieldKind::Ip => Some(128),
            _ => field.n_bits,
        }
        .or(match kind {
            FieldKind::Ipv4 if field.kind == FieldType::IpString => Some(32),
            FieldKind::Mac => Some(48),
            FieldKind::Boolean { .. } => Some(1),
            _ => None,
        }),
        quantity: quantity && *kind == FieldKind::Integer,
        choices: choices.as_deref(),
        k: field.k,
        fallback: field.fallback.as_deref(),
        spaces: Some(spaces),
        name: "",
        custom: field.options.as_ref(),
    };
    // Without one the configuration would not have resolved.
    let encoding = field.encoding().unwrap_or("float");
    let has_category = match encoding {
        "categorical" => field.choices.is_none(),
        "topk" => true,
        name => name.starts_with("word2vec_"),
    };
    let as_category = match field.missing {
        Some(Missing::Indicator) => false,
        Some(Missing::Category) => true,
        _ => has_category,
    };
    let codec = if column.has_missing() && !as_category {
        let there: Vec<usize> = (0..column.len()).filter(|&row| !column.is_missing(row)).collect();
        let inner = Codec::fit(encoding, &column.pick(&there), options)?;
        Codec::Optional(OptionalCodec::new(inner))
    } else {
        Codec::fit(encoding, column, options)?
    };
    Ok(Field {
        name: field.column.clone(),
        kind: kind.clone(),
        missing: codec.takes_missing().then(|| missing.clone().unwrap_or_default()),
        codec,
    })
}

/// Fits the tokens of a field of an autoregressive model, whatever its encoding for
/// others. Of what is fixed in a flow `named` says what other fields make of its values.
pub(crate) fn fit_tokens(
    field: &FieldConfig,
    column: &TraceColumn,
    named: Option<Named>,
) -> Result<Field, CodecError> {
    let TraceColumn { column, kind, missing } = column;
    let mut options = tokens::options(field, column, kind, named.is_some());
    if let Some(named) = named {
        named.tell(&mut options);
    }
    let codec = Codec::Tokens(TokensCodec::fit_with(column, &options)?);
    Ok(Field {
        name: field.column.clone(),
        kind: kind.clone(),
        missing: codec.takes_missing().then(|| missing.clone().unwrap_or_default()),
        codec,
    })
}

/// A choice as the column has it, where the configuration writes it like the
/// input does: an address, a boolean's word.
fn as_kind(choice: &Choice, kind: &FieldKind) -> Choice {
    let Choice::Text(text) = choice else { return choice.clone() };
    match kind.parse_cell(text) {
        Ok(Some(Value::Int(number))) => Choice::Int(number),
        Ok(Some(Value::Wide(number))) => Choice::Wide(number),
        _ => choice.clone(),
    }
}

/// Fits the encoder of the time measurement, in microseconds.
pub(crate) fn fit_time(config: &TimestampConfig, times_us: &Column) -> Result<Codec, CodecError> {
    let options = FitOptions {
        range: config.normalization.unwrap_or(Range::ZeroOne),
        log1p: config.log1p_norm.unwrap_or(false),
        ..FitOptions::default()
    };
    Codec::fit(config.gap_encoding.as_deref().unwrap_or("float"), times_us, options)
}
