//! What generation needs of a model: the seam between scheduling and inference.
//!
//! Slots, parking and order in time are tested behind it without a library.

pub use crate::autoregressive::Drafts;
use crate::error::RuntimeError;

/// The three networks of a chunk. Rows are flows; a row's result depends on
/// that row alone, bit for bit, whatever else is in the batch.
pub trait Networks: Send + 'static {
    /// `noise [rows, Z]`, `condition [rows, C]` to `out [rows, A]`.
    fn attributes(
        &mut self,
        rows: usize,
        noise: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError>;

    /// Draws flows by way of drafts, where attributes can be drawn given some of them: to
    /// `out [flows, A]`, and for each flow the logarithm of its weight, below all numbers for
    /// one that none of its drafts became.
    fn drafts(
        &mut self,
        _drafts: &Drafts<'_>,
        _out: &mut Vec<f32>,
        _logs: &mut Vec<f64>,
    ) -> Result<(), RuntimeError> {
        Err(RuntimeError::Unsupported { what: "drawing given attributes".to_owned() })
    }

    /// Discrete attributes `[rows, A]`, `condition [rows, C]` to `out [rows, G]`.
    fn gates(
        &mut self,
        rows: usize,
        attributes: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError>;

    /// Makes room for `rows` flows' states; the first `min(rows, before)` keep theirs.
    fn resize(&mut self, rows: usize) -> Result<(), RuntimeError>;

    /// State tensor `index`, `[rows, dim]`.
    fn state(&mut self, index: usize) -> Result<&mut [f32], RuntimeError>;

    /// `gates [rows, G]`, `noise [rows, Z]` and the states to records and new
    /// states; `rows` is that of the last [`Self::resize`].
    fn step(&mut self, gates: &[f32], noise: &[f32]) -> Result<(), RuntimeError>;

    /// The last step's records, `[rows, columns]`.
    fn records(&self) -> Result<&[f32], RuntimeError>;
}

impl Networks for Box<dyn Networks> {
    fn attributes(
        &mut self,
        rows: usize,
        noise: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        (**self).attributes(rows, noise, condition, out)
    }

    fn drafts(
        &mut self,
        drafts: &Drafts<'_>,
        out: &mut Vec<f32>,
        logs: &mut Vec<f64>,
    ) -> Result<(), RuntimeError> {
        (**self).drafts(drafts, out, logs)
    }

    fn gates(
        &mut self,
        rows: usize,
        attributes: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        (**self).gates(rows, attributes, condition, out)
    }

    fn resize(&mut self, rows: usize) -> Result<(), RuntimeError> {
        (**self).resize(rows)
    }

    fn state(&mut self, index: usize) -> Result<&mut [f32], RuntimeError> {
        (**self).state(index)
    }

    fn step(&mut self, gates: &[f32], noise: &[f32]) -> Result<(), RuntimeError> {
        (**self).step(gates, noise)
    }

    fn records(&self) -> Result<&[f32], RuntimeError> {
        (**self).records()
    }
}
