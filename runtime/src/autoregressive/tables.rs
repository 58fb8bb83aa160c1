//! The tables that tokens are looked up in, checked against what the model needs.

use ns_model_format::autoregressive::Autoregressive;
use ns_model_format::autoregressive::{BUDGET_BUCKETS, COUNT_BUCKETS};
use safetensors::{Dtype, SafeTensors};

use super::evidence::Context;
use crate::error::RuntimeError;

/// Rows of equal width, one a token.
#[derive(Clone, Debug)]
pub(super) struct Table {
    width: usize,
    rows: usize,
    values: Vec<f32>,
}

impl Table {
    /// A token's row; the last for any larger one.
    #[inline(always)]
    pub(super) fn row(&self, token: usize) -> &[f32] {
        let at = token.min(self.rows - 1) * self.width;
        &self.values[at..at + self.width]
    }
}

/// All tables of a model.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// For each variable, those of its parents: `[size + 1, D]`.
    pub(super) attributes: Vec<Vec<Table>>,
    /// What is added to the logits of each.
    pub(super) evidence: Vec<Vec<Context>>,
    /// Each variable's: `[size + 1, C]`.
    pub(super) context: Vec<Table>,
    /// Each head's, of the record before: `[size + 1, 4 H]`.
    pub(super) record: Vec<Table>,
    /// `[32, 4 H]`.
    pub(super) record_remaining: Table,
    /// `[32, 4 H]`.
    pub(super) record_index: Table,
    /// `[64, 4 H]`.
    pub(super) record_budget: Table,
    /// `[32, heads x E]`.
    pub(super) head_remaining: Table,
    /// `[64, heads x E]`.
    pub(super) head_budget: Table,
    /// For each head, those of the heads before it: `[size, E]`.
    pub(super) heads: Vec<Vec<Table>>,
}

impl Tables {
    /// Reads the file of tables.
    ///
    /// # Errors
    /// Not a safetensors file; a table that is missing, not float32, or of another shape.
    pub(crate) fn read(model: &Autoregressive, bytes: &[u8]) -> Result<Tables, RuntimeError> {
        let file = &model.tables;
        let refuse = |reason: String| RuntimeError::Graph { file: file.clone(), reason };
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|error| refuse(format!("is no safetensors file: {error}")))?;
        let table = |name: String, rows: usize, width: usize| {
            let found =
                tensors.tensor(&name).map_err(|_| refuse(format!("has no table `{name}`")))?;
            if found.dtype() != Dtype::F32 {
                return Err(refuse(format!("`{name}` is {:?}; expected F32", found.dtype())));
            }
            if rows == 0 || *found.shape() != [rows, width] {
                let shape = found.shape();
                return Err(refuse(format!("`{name}` is {shape:?}; expected [{rows}, {width}]")));
            }
            let bytes = found.data().as_chunks().0;
            let values: Vec<f32> = bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            match values.len() == rows * width {
                true => Ok(Table { width, rows, values }),
                false => Err(refuse(format!("`{name}` is cut short"))),
            }
        };
        // One number an entry.
        let list = |name: &str, dtype: Dtype| {
            let found =
                tensors.tensor(name).map_err(|_| refuse(format!("has no table `{name}`")))?;
            if found.dtype() != dtype || found.shape().len() != 1 {
                let (is, shape) = (found.dtype(), found.shape());
                return Err(refuse(format!(
                    "`{name}` is {is:?} {shape:?}; expected a list of {dtype:?}"
                )));
            }
            Ok(found.data().as_chunks().0.to_vec())
        };
        let evidence = |at: usize, index: usize, of: &[usize]| {
            let name = |part: &str| format!("evidence.{at}.{index}.{part}");
            let whole = |part: &str| -> Result<Vec<u32>, RuntimeError> {
                let words = list(&name(part), Dtype::U32)?;
                Ok(words.into_iter().map(u32::from_le_bytes).collect())
            };
            let values = list(&name("values"), Dtype::F32)?;
            let values = values.into_iter().map(f32::from_le_bytes).collect();
            let words = [whole("keys")?, whole("ends")?, whole("tokens")?];
            let of = of.iter().map(|&before| (before, model.attributes[before].size)).collect();
            Context::new(of, model.attributes[at].size, words, values)
                .map_err(|reason| refuse(format!("`evidence.{at}.{index}` has {reason}")))
        };
        let Autoregressive { units, context, hidden, head, attributes, heads, .. } = model;
        let (gates, all_heads) = (4 * hidden, heads.len() * head);
        let sizes = |at: usize| attributes[at].size + 1;
        Ok(Tables {
            attributes: attributes
                .iter()
                .enumerate()
                .map(|(at, variable)| {
                    let parents = variable.parents.iter();
                    parents
                        .map(|&p| table(format!("attributes.{at}.{p}"), sizes(p), *units))
                        .collect()
                })
                .collect::<Result<_, _>>()?,
            evidence: attributes
                .iter()
                .enumerate()
                .map(|(at, variable)| {
                    let contexts = variable.contexts.iter().enumerate();
                    contexts.map(|(index, of)| evidence(at, index, of)).collect()
                })
                .collect::<Result<_, _>>()?,
            context: (0..attributes.len())
                .map(|at| table(format!("context.{at}"), sizes(at), *context))
                .collect::<Result<_, _>>()?,
            record: heads
                .iter()
                .enumerate()
                .map(|(at, head)| table(format!("record.{at}"), head.size + 1, gates))
                .collect::<Result<_, _>>()?,
            record_remaining: table("record.remaining".to_owned(), COUNT_BUCKETS, gates)?,
            record_index: table("record.index".to_owned(), COUNT_BUCKETS, gates)?,
            record_budget: table("record.budget".to_owned(), BUDGET_BUCKETS, gates)?,
            head_remaining: table("head.remaining".to_owned(), COUNT_BUCKETS, all_heads)?,
            head_budget: table("head.budget".to_owned(), BUDGET_BUCKETS, all_heads)?,
            heads: (0..heads.len())
                .map(|at| {
                    let before = heads[..at].iter().enumerate();
                    before.map(|(j, h)| table(format!("head.{at}.{j}"), h.size, *head)).collect()
                })
                .collect::<Result<_, _>>()?,
        })
    }
}
