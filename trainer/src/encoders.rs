//! From the configuration's fields to fitted encoders.

use std::collections::BTreeMap;
use std::sync::Arc;

use ns_model_format::codec::{
    BitCodec, CategoricalCodec, Codec, CodecError, FloatCodec, FloatOptions, Range, Word2VecCodec,
    Word2VecOptions, Word2VecSpace,
};
use ns_model_format::{Column, Field, FieldKind};

use crate::config::{FieldConfig, FieldType, Resolved};
use crate::ingest::Trace;

/// A configured column; readers give all of them.
pub(crate) fn configured<'a>(
    trace: &'a Trace,
    field: &FieldConfig,
) -> Result<(&'a Column, FieldKind), CodecError> {
    let missing = || CodecError::Empty { column: field.column.clone() };
    trace.column(&field.column).ok_or_else(missing)
}

/// The cells of some rows.
pub(crate) fn pick(column: &Column, rows: &[usize]) -> Column {
    use ns_model_format::ColumnData;
    let rows = rows.iter();
    let data = match &column.data {
        ColumnData::Int(cells) => ColumnData::Int(rows.map(|&row| cells[row]).collect()),
        ColumnData::Float(cells) => ColumnData::Float(rows.map(|&row| cells[row]).collect()),
        ColumnData::Text { ids, words } => {
            ColumnData::Text { ids: rows.map(|&row| ids[row]).collect(), words: words.clone() }
        }
        other => other.clone(),
    };
    Column { name: column.name.clone(), data }
}

pub(crate) fn word_spaces(
    trace: &Trace,
    config: &Resolved,
    seed: u64,
) -> Result<BTreeMap<String, Arc<Word2VecSpace>>, CodecError> {
    let mut columns = Vec::new();
    for field in config.metadata.iter().chain(&config.timeseries) {
        if let Some(name) = word2vec_name(field) {
            columns.push((name, configured(trace, field)?.0));
        }
    }
    if columns.is_empty() {
        return Ok(BTreeMap::new());
    }
    Word2VecSpace::fit(&columns, Word2VecOptions { dim: config.vec_size, seed })
}

fn word2vec_name(field: &FieldConfig) -> Option<&str> {
    field.encoding.as_deref()?.strip_prefix("word2vec_")
}

/// Fits a field's encoder. What is fixed in a flow names something; a
/// measurement is a quantity.
pub(crate) fn fit(
    field: &FieldConfig,
    column: &Column,
    kind: FieldKind,
    quantity: bool,
    spaces: &BTreeMap<String, Arc<Word2VecSpace>>,
) -> Result<Field, CodecError> {
    let option = |reason: &str| CodecError::Option {
        column: field.column.clone(),
        reason: reason.to_owned(),
    };
    let codec = match (field.encoding.as_deref(), word2vec_name(field)) {
        (_, Some(name)) => {
            let space = spaces.get(name).ok_or_else(|| option("its vocabulary is missing"))?;
            Codec::Word2vec(Word2VecCodec::new(name, Arc::clone(space)))
        }
        (Some("categorical"), _) => {
            Codec::Categorical(CategoricalCodec::fit(column, field.choices.as_deref())?)
        }
        (Some("bit"), _) if quantity => Codec::Bit(BitCodec::fit(column, field.n_bits)?),
        (Some("bit"), _) => {
            let default = if field.kind == FieldType::IpString { Some(32) } else { None };
            let bits = field.n_bits.or(default).ok_or_else(|| option("`bit` needs `n_bits`"))?;
            Codec::Bit(BitCodec::new(&field.column, bits)?)
        }
        _ => Codec::Float(FloatCodec::fit(
            column,
            FloatOptions {
                range: field.normalization.unwrap_or(Range::ZeroOne),
                log1p: field.log1p_norm.unwrap_or(false),
                min: field.min_x,
                max: field.max_x,
                integer: kind == FieldKind::Integer,
            },
        )?),
    };
    Ok(Field { name: field.column.clone(), kind, codec })
}
