//! Graphs of a few operations, run here.
//!
//! The graphs of an autoregressive model are small, so that ONNX Runtime's way into and out
//! of a graph takes as long as the graph. A graph that is made of dense layers and of what
//! is done to each value alone is read into a [`Program`] instead; any other one is left to
//! ONNX Runtime. What a graph means is the same for both, but for rounding.

mod read;

use std::sync::Arc;

use ns_model_format::manifest::Tensor;

use crate::kernels::{self, BLOCK, Columns, LANES, Matrix, padded, wide};

/// Rows that go through a program together: few enough to stay near the CPU, and whole blocks
/// of either kind.
const TILE: usize = 3 * LANES;
const _: () = assert!(TILE.is_multiple_of(BLOCK));
/// Numbers that all programs of a worker may hold, in buffers and matrices: 256 MiB. A file
/// of a few bytes may ask for much more, so what is beyond is left to ONNX Runtime.
pub(crate) const MOST_NUMBERS: usize = 1 << 26;

/// Columns of a buffer.
#[derive(Clone, Copy, Debug)]
struct View {
    buffer: usize,
    at: usize,
    dim: usize,
}

/// What a product is added to.
#[derive(Clone, Debug)]
enum Onto {
    Nothing,
    Bias(Vec<f32>),
    Value(View),
}

#[derive(Clone, Copy, Debug)]
enum Unary {
    Relu,
    Sigmoid,
    Tanh,
}

#[derive(Clone, Copy, Debug)]
enum Binary {
    Add,
    Mul,
}

/// Something that fills columns of a buffer, of the last buffers the newest.
#[derive(Clone, Debug)]
enum Operation {
    Gemm(View, Arc<Matrix>, Onto),
    /// The same onto a bias, with rows side by side: the buffer is `[inputs][LANES]`, then the
    /// same of padded columns for each block of rows. What is multiplied goes through a ReLU
    /// first, if that is all that there is before it.
    InLanes(View, bool, Columns),
    Unary(Unary, View),
    Binary(Binary, View, View),
    /// Of so many columns each.
    Softmax(View, usize),
    Concat(Vec<View>),
}

#[derive(Clone, Debug)]
struct Step {
    operation: Operation,
    out: usize,
}

/// `[TILE, stride]`.
#[derive(Clone, Debug)]
struct Buffer {
    stride: usize,
    values: Vec<f32>,
}

impl Buffer {
    fn new(dim: usize) -> Buffer {
        Buffer { stride: padded(dim), values: vec![0.0; Buffer::size(dim)] }
    }

    /// How many numbers a buffer of so many columns holds.
    fn size(dim: usize) -> usize {
        TILE * padded(dim)
    }

    #[inline(always)]
    fn row(&self, row: usize, at: usize, dim: usize) -> &[f32] {
        &self.values[row * self.stride + at..][..dim]
    }
}

/// A graph of a few operations.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    inputs: Vec<View>,
    outputs: Vec<View>,
    steps: Vec<Step>,
    buffers: Vec<Buffer>,
}

impl Program {
    /// Reads a graph that has passed [`crate::onnx_check`]; `None` if it is one for ONNX
    /// Runtime, or not what is expected, or needs more numbers than the budget has left, or
    /// if this CPU would be slow at it. The budget, of [`MOST_NUMBERS`] at first, pays for a
    /// graph that is read.
    pub(crate) fn read(
        model: &[u8],
        inputs: &[Tensor],
        outputs: &[Tensor],
        budget: &mut usize,
    ) -> Option<Program> {
        kernels::has_fused().then(|| read::program(model, inputs, outputs, budget)).flatten()
    }

    /// Runs rows through, some at a time: `fill` writes those of the first input, the others
    /// are given, `[rows, dim]` each; `take` is given what comes out.
    pub(crate) fn run(
        &mut self,
        rows: usize,
        others: &[&[f32]],
        mut fill: impl FnMut(RowsMut<'_>),
        mut take: impl FnMut(Outputs<'_>),
    ) {
        for first in (0..rows).step_by(TILE) {
            let count = TILE.min(rows - first);
            for (at, view) in self.inputs.iter().enumerate() {
                let Buffer { stride, values } = &mut self.buffers[view.buffer];
                let (stride, dim) = (*stride, view.dim);
                let Some(given) = at.checked_sub(1).map(|at| others[at]) else {
                    let values = &mut values[..count * stride];
                    fill(RowsMut { first, dim, stride, values });
                    continue;
                };
                let given = given[first * dim..].chunks_exact(dim);
                for (row, given) in values.chunks_exact_mut(stride).zip(given).take(count) {
                    row[..dim].copy_from_slice(given);
                }
            }
            self.run_tile(count);
            take(Outputs { first, rows: count, program: self });
        }
    }

    fn run_tile(&mut self, rows: usize) {
        let Program { steps, buffers, .. } = self;
        wide(
            #[inline(always)]
            || {
                for step in &*steps {
                    step.run(rows, buffers);
                }
            },
        );
    }
}

/// A program whose one output lies in lanes.
#[derive(Clone, Debug)]
pub(crate) struct ProgramInLanes(Program);

impl ProgramInLanes {
    /// Of a program of one output that a product onto a bias makes, or onto nothing, if the
    /// budget has left what that needs; else the program as it was.
    pub(crate) fn new(program: Program, budget: &mut usize) -> Result<ProgramInLanes, Program> {
        let ([View { buffer, at: 0, dim }], Some(Step { operation, out })) =
            (&program.outputs[..], program.steps.last())
        else {
            return Err(program);
        };
        let (&buffer, &dim) = (buffer, dim);
        let Operation::Gemm(a, matrix, onto) = operation else { return Err(program) };
        let bias = match onto {
            Onto::Nothing => vec![0.0; dim],
            Onto::Bias(bias) => bias.clone(),
            Onto::Value(_) => return Err(program),
        };
        let (stride, mut a) = (Columns::padded(dim), *a);
        let numbers = LANES * (a.dim + TILE / LANES * stride);
        let left = budget.checked_sub(numbers.saturating_add(Columns::size(a.dim, dim)));
        let (Some(left), true) = (left, buffer == *out && bias.len() == dim) else {
            return Err(program);
        };
        *budget = left;
        let columns = Columns::new(matrix, &bias);
        let relu = match &program.steps[..] {
            [Step { operation: Operation::Unary(Unary::Relu, from), out }, _]
                if a.buffer == *out =>
            {
                a = View { at: from.at + a.at, buffer: from.buffer, ..a };
                true
            }
            _ => false,
        };
        let mut program = program;
        program.steps.drain(..usize::from(relu));
        program.buffers[buffer] = Buffer { stride, values: vec![0.0; numbers] };
        if let Some(last) = program.steps.last_mut() {
            last.operation = Operation::InLanes(a, relu, columns);
        }
        Ok(ProgramInLanes(program))
    }

    /// As [`Program::run`]; `take` is given sixteen rows at a time.
    pub(crate) fn run(
        &mut self,
        rows: usize,
        fill: impl FnMut(RowsMut<'_>),
        mut take: impl FnMut(Lanes<'_>),
    ) {
        self.0.run(rows, &[], fill, |Outputs { first, rows, program }| {
            let View { buffer, dim, .. } = program.outputs[0];
            let Buffer { stride, values } = &program.buffers[buffer];
            let values = values.as_chunks().0;
            let blocks = values[values.len() - TILE / LANES * stride..].chunks_exact(*stride);
            for (at, block) in (0..rows).step_by(LANES).zip(blocks) {
                take(Lanes::new(first + at, LANES.min(rows - at), &block[..dim]));
            }
        });
    }
}

/// What a program has computed.
pub(crate) struct Outputs<'a> {
    first: usize,
    rows: usize,
    program: &'a Program,
}

impl Outputs<'_> {
    /// The rows of an output.
    pub(crate) fn of(&self, output: usize) -> Rows<'_> {
        let View { buffer, at, dim } = self.program.outputs[output];
        let Buffer { stride, values } = &self.program.buffers[buffer];
        let values = &values[at..(self.rows - 1) * stride + at + dim];
        Rows { first: self.first, dim, stride: *stride, values }
    }
}

/// Some of all rows, which may have room between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    /// The first one's number.
    pub(crate) first: usize,
    dim: usize,
    stride: usize,
    values: &'a [f32],
}

impl<'a> Rows<'a> {
    /// All rows, without room.
    pub(crate) fn new(dim: usize, values: &'a [f32]) -> Rows<'a> {
        Rows { first: 0, dim, stride: dim, values }
    }

    /// So many rows at a time, put side by side.
    pub(crate) fn in_lanes(self, mut take: impl FnMut(Lanes<'_>)) {
        let (mut columns, mut count, mut first) = (vec![[0.0; LANES]; self.dim], 0, self.first);
        for row in self.iter() {
            columns.iter_mut().zip(row).for_each(|(column, value)| column[count] = *value);
            count += 1;
            if count == LANES {
                take(Lanes::new(first, count, &columns));
                (first, count) = (first + LANES, 0);
            }
        }
        if count > 0 {
            take(Lanes::new(first, count, &columns));
        }
    }

    /// Row by row.
    #[inline(always)]
    pub(crate) fn iter(self) -> impl Iterator<Item = &'a [f32]> {
        self.values.chunks(self.stride).map(move |row| &row[..self.dim])
    }
}

/// The same to be written.
#[derive(Debug)]
pub(crate) struct RowsMut<'a> {
    /// The first one's number.
    pub(crate) first: usize,
    dim: usize,
    stride: usize,
    values: &'a mut [f32],
}

impl<'a> RowsMut<'a> {
    /// All rows, without room.
    pub(crate) fn new(dim: usize, values: &'a mut [f32]) -> RowsMut<'a> {
        RowsMut { first: 0, dim, stride: dim, values }
    }

    /// Columns of a row.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Row by row.
    #[inline(always)]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        let dim = self.dim;
        self.values.chunks_mut(self.stride).map(move |row| &mut row[..dim])
    }
}

/// Some rows side by side: what comes out of a graph, column by column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes<'a> {
    /// The first one's number.
    pub(crate) first: usize,
    /// How many there are.
    pub(crate) rows: usize,
    /// Each column's value of every row; lanes without a row have any.
    pub(crate) columns: &'a [[f32; LANES]],
}

impl<'a> Lanes<'a> {
    fn new(first: usize, rows: usize, columns: &'a [[f32; LANES]]) -> Lanes<'a> {
        Lanes { first, rows, columns }
    }
}

impl Step {
    #[inline(always)]
    fn run(&self, rows: usize, buffers: &mut [Buffer]) {
        // Every operation's buffer comes after those it reads.
        let (before, after) = buffers.split_at_mut(self.out);
        let Buffer { stride, values } = &mut after[0];
        let of = |view: &View, row: usize| before[view.buffer].row(row, view.at, view.dim);
        let out = values.chunks_exact_mut(*stride).take(rows).enumerate();
        match &self.operation {
            Operation::Gemm(a, matrix, onto) => {
                for (row, out) in out {
                    match onto {
                        Onto::Nothing => out.fill(0.0),
                        Onto::Bias(bias) => out[..bias.len()].copy_from_slice(bias),
                        Onto::Value(c) => out[..c.dim].copy_from_slice(of(c, row)),
                    }
                }
                let Buffer { stride, values: a_values } = &before[a.buffer];
                matrix.multiply(rows, (&a_values[a.at..], *stride), values);
            }
            Operation::InLanes(a, relu, columns) => {
                let (spread, blocks) = values.as_chunks_mut().0.split_at_mut(a.dim);
                for (first, out) in (0..rows).step_by(LANES).zip(blocks.chunks_exact_mut(*stride)) {
                    for lane in 0..LANES.min(rows - first) {
                        let row = of(a, first + lane);
                        for (spread, &value) in spread.iter_mut().zip(row) {
                            spread[lane] = if *relu && value < 0.0 { 0.0 } else { value };
                        }
                    }
                    columns.multiply(spread, out);
                }
            }
            Operation::Unary(unary, a) => {
                for (row, out) in out {
                    let a = of(a, row);
                    match unary {
                        // NaN stays, as in lanes.
                        Unary::Relu => each(a, out, |x| if x < 0.0 { 0.0 } else { x }),
                        Unary::Sigmoid => each(a, out, kernels::sigmoid),
                        Unary::Tanh => each(a, out, kernels::tanh),
                    }
                }
            }
            Operation::Binary(binary, a, b) => {
                for (row, out) in out {
                    let (a, b) = (of(a, row), of(b, row));
                    match binary {
                        Binary::Add => pairs(a, b, out, |a, b| a + b),
                        Binary::Mul => pairs(a, b, out, |a, b| a * b),
                    }
                }
            }
            Operation::Softmax(a, classes) => {
                for (row, out) in out {
                    kernels::softmax(of(a, row), *classes, &mut out[..a.dim]);
                }
            }
            Operation::Concat(parts) => {
                for (row, mut out) in out {
                    for part in parts {
                        let (here, rest) = out.split_at_mut(part.dim);
                        here.copy_from_slice(of(part, row));
                        out = rest;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn each(a: &[f32], out: &mut [f32], function: impl Fn(f32) -> f32) {
    for (out, &a) in out.iter_mut().zip(a) {
        *out = function(a);
    }
}

#[inline(always)]
fn pairs(a: &[f32], b: &[f32], out: &mut [f32], function: impl Fn(f32, f32) -> f32) {
    for (out, (&a, &b)) in out.iter_mut().zip(a.iter().zip(b)) {
        *out = function(a, b);
    }
}

#[cfg(test)]
mod tests;
