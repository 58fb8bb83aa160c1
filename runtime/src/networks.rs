//! What generation needs of a model: the seam between scheduling and inference.
//!
//! Slots, parking and order in time are tested behind it without a library.

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
