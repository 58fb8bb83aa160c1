//! A whole LSTM sequence at once, forward and backward.

use super::Ops;
#[cfg(feature = "cuda")]
use super::cuda::{Array, Gpu};
use super::gemm::{View, gemm_into, transpose};
use super::kernel::{InPlace, Kernel, expect_lengths};
use super::real::{Real, wide};
use super::threads::{cut_blocks, numbered, share_out, shares};
use candle_core::{DType, Device, Result, Tensor};

/// Sizes of a sequence.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    steps: usize,
    batch: usize,
    hidden: usize,
}

impl Sizes {
    fn gates(&self) -> usize {
        self.steps * self.batch * 4 * self.hidden
    }

    /// A cell or hidden state.
    fn state(&self) -> usize {
        self.batch * self.hidden
    }

    fn total(&self) -> usize {
        self.gates() + 2 * (self.steps + 1) * self.state()
    }
}

/// What a sequence leaves behind for its backward pass, in one tensor: gates
/// `[steps, batch, 4 hidden]` in the order input, forget, candidate, output,
/// then `steps + 1` cell states and as many hidden states.
pub(crate) struct Tape {
    sizes: Sizes,
    memory: Tensor,
}

impl Tape {
    /// Room for a sequence.
    pub(crate) fn new(
        (steps, batch, hidden): (usize, usize, usize),
        dtype: DType,
        device: &Device,
    ) -> Result<Tape> {
        let sizes = Sizes { steps, batch, hidden };
        Ok(Tape { sizes, memory: Tensor::zeros(sizes.total(), dtype, device)? })
    }

    /// `[steps * batch, 4 hidden]`: gates, and after [`Ops::lstm_backward`] the
    /// gradient of what went into them.
    pub(crate) fn gates(&self) -> Result<Tensor> {
        let Sizes { steps, batch, hidden } = self.sizes;
        self.memory.narrow(0, 0, self.sizes.gates())?.reshape((steps * batch, 4 * hidden))
    }

    fn cell(&self, step: usize) -> Result<Tensor> {
        let at = self.sizes.gates() + step * self.sizes.state();
        let Sizes { batch, hidden, .. } = self.sizes;
        self.memory.narrow(0, at, self.sizes.state())?.reshape((batch, hidden))
    }

    /// Hidden states `[steps * batch, hidden]` from before step `first` on.
    pub(crate) fn hidden(&self, first: usize) -> Result<Tensor> {
        let Sizes { steps, batch, hidden } = self.sizes;
        let state = self.sizes.state();
        let at = self.sizes.gates() + (steps + 1 + first) * state;
        self.memory.narrow(0, at, steps * state)?.reshape((steps * batch, hidden))
    }

    fn hidden_at(&self, step: usize) -> Result<Tensor> {
        let Sizes { steps, batch, hidden } = self.sizes;
        let at = self.sizes.gates() + (steps + 1 + step) * self.sizes.state();
        self.memory.narrow(0, at, self.sizes.state())?.reshape((batch, hidden))
    }

    /// Copies of the hidden and cell state that the sequence ended with.
    pub(crate) fn end(&self) -> Result<(Tensor, Tensor)> {
        let steps = self.sizes.steps;
        Ok((self.hidden_at(steps)?.force_contiguous()?, self.cell(steps)?.force_contiguous()?))
    }

    /// Sets the state `[batch, hidden]` that the sequence begins with.
    pub(crate) fn begin(&self, hidden: &Tensor, cell: &Tensor) -> Result<()> {
        self.cell(0)?.slice_set(cell, 0, 0)?;
        self.hidden_at(0)?.slice_set(hidden, 0, 0)
    }
}

/// The four gates of a row.
fn quarters<T>(row: &mut [T]) -> [&mut [T]; 4] {
    let hidden = row.len() / 4;
    let (input, rest) = row.split_at_mut(hidden);
    let (forget, rest) = rest.split_at_mut(hidden);
    let (candidate, output) = rest.split_at_mut(hidden);
    [input, forget, candidate, output]
}

/// Rows that one thread takes through a whole sequence at least: no row needs another, so
/// threads meet once a sequence and not once a step.
const LEAST_ROWS: usize = 16;

struct Forward(Sizes);

/// A share's rows of a sequence, step by step.
struct Rows<'a, T> {
    gates: Vec<&'a mut [T]>,
    cells: Vec<&'a mut [T]>,
    hiddens: Vec<&'a mut [T]>,
    /// Its first row.
    first: usize,
}

impl Kernel for Forward {
    const NAME: &'static str = "LSTM";

    fn run<T: Real>(&self, out: &mut [T], projected: &[T], weight: &[T]) -> Result<()> {
        let sizes @ Sizes { steps, batch, hidden } = self.0;
        expect_lengths(
            Self::NAME,
            &[out.len(), projected.len(), weight.len()],
            &[sizes.total(), sizes.gates(), 4 * hidden * hidden],
        )?;
        let shares = shares(batch, LEAST_ROWS);
        let step_gates = batch * 4 * hidden;
        let (gates, states) = out.split_at_mut(sizes.gates());
        let (cells, hiddens) = states.split_at_mut((steps + 1) * sizes.state());
        let gates = cut_blocks(gates, step_gates, &shares, 4 * hidden);
        let cells = cut_blocks(cells, sizes.state(), &shares, hidden);
        let hiddens = cut_blocks(hiddens, sizes.state(), &shares, hidden);
        let rows = numbered(gates.into_iter().zip(cells).zip(hiddens), &shares);
        let rows =
            rows.map(|(first, ((gates, cells), hiddens))| Rows { gates, cells, hiddens, first });
        share_out(rows.collect(), &|mut rows: Rows<'_, T>| {
            for step in 0..steps {
                let (before, after) = rows.hiddens.split_at_mut(step + 1);
                let (before, after) = (&*before[step], &mut *after[0]);
                let (cell_before, cell_after) = rows.cells.split_at_mut(step + 1);
                let (cell_before, cell_after) = (&*cell_before[step], &mut *cell_after[0]);
                let gates = &mut *rows.gates[step];
                let at = step * step_gates + rows.first * 4 * hidden;
                gates.copy_from_slice(&projected[at..at + gates.len()]);
                let count = before.len() / hidden;
                gemm_into(
                    (gates, View::dense(count, 4 * hidden)),
                    (before, View::dense(count, hidden)),
                    (weight, View::dense(hidden, 4 * hidden)),
                    true,
                );
                cell_forward((gates, cell_before), (cell_after, after), hidden);
            }
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, projected: Array, weight: Array) -> Result<()> {
        let sizes @ Sizes { steps, batch, hidden } = self.0;
        expect_lengths(
            Self::NAME,
            &[out.len, projected.len, weight.len],
            &[sizes.total(), sizes.gates(), 4 * hidden * hidden],
        )?;
        let places = Places { sizes, all: out };
        for step in 0..steps {
            let gates = places.gates(step)?;
            gpu.gemm(
                (gates, View::dense(batch, 4 * hidden)),
                (places.hidden(step)?, View::dense(batch, hidden)),
                (weight, View::dense(hidden, 4 * hidden)),
            )?;
            let arguments = [
                gates,
                projected.part(step * gates.len, gates.len)?,
                places.cell(step)?,
                places.cell(step + 1)?,
                places.hidden(step + 1)?,
            ];
            let arguments = arguments.map(Array::argument);
            let arguments = [&arguments[..], &[batch as u64, hidden as u64]].concat();
            gpu.each("lstm_cell", sizes.state(), &arguments)?;
        }
        Ok(())
    }
}

/// A step of some rows: activates gates, and from them and the cells before makes cells and hidden
/// states.
fn cell_forward<T: Real>(
    (gates, cell_before): (&mut [T], &[T]),
    (cell_after, after): (&mut [T], &mut [T]),
    hidden: usize,
) {
    wide(
        #[inline(always)]
        || {
            for (((gates, h), c), c_before) in gates
                .chunks_exact_mut(4 * hidden)
                .zip(after.chunks_exact_mut(hidden))
                .zip(cell_after.chunks_exact_mut(hidden))
                .zip(cell_before.chunks_exact(hidden))
            {
                // Passes over few slices each: one over all of them does not vectorise.
                let [input, forget, candidate, output] = quarters(gates);
                input.iter_mut().for_each(|x| *x = x.logistic());
                forget.iter_mut().for_each(|x| *x = x.logistic());
                candidate.iter_mut().for_each(|x| *x = x.hyperbolic_tangent());
                output.iter_mut().for_each(|x| *x = x.logistic());
                for ((c, c_before), f) in c.iter_mut().zip(c_before).zip(&*forget) {
                    *c = *f * *c_before;
                }
                for ((c, i), g) in c.iter_mut().zip(&*input).zip(&*candidate) {
                    *c += *i * *g;
                }
                for ((h, c), o) in h.iter_mut().zip(&*c).zip(&*output) {
                    *h = *o * c.hyperbolic_tangent();
                }
            }
        },
    );
}

/// A step back of some rows: gates become the gradient of what went into them.
fn cell_backward<T: Real>(
    (gates, d_hidden, d_cell): (&mut [T], &[T], &mut [T]),
    (before, after): (&[T], &[T]),
    upstream: &[T],
    hidden: usize,
) {
    let one = T::of(1.0);
    wide(
        #[inline(always)]
        || {
            for (((gates, (d_h, d_c)), (c_before, c)), d_above) in gates
                .chunks_exact_mut(4 * hidden)
                .zip(d_hidden.chunks_exact(hidden).zip(d_cell.chunks_exact_mut(hidden)))
                .zip(before.chunks_exact(hidden).zip(after.chunks_exact(hidden)))
                .zip(upstream.chunks_exact(hidden))
            {
                let [input, forget, candidate, output] = quarters(gates);
                for ((((i, f), (g, o)), (d_h, d_c)), ((c_before, c), d_above)) in input
                    .iter_mut()
                    .zip(forget)
                    .zip(candidate.iter_mut().zip(output))
                    .zip(d_h.iter().zip(d_c))
                    .zip(c_before.iter().zip(c).zip(d_above))
                {
                    let squashed = c.hyperbolic_tangent();
                    let d_h = *d_h + *d_above;
                    let d_cell = *d_c + d_h * *o * (one - squashed * squashed);
                    *d_c = d_cell * *f;
                    *o = d_h * squashed * *o * (one - *o);
                    *f = d_cell * *c_before * *f * (one - *f);
                    let d_input = d_cell * *g * *i * (one - *i);
                    *g = d_cell * *i * (one - *g * *g);
                    *i = d_input;
                }
            }
        },
    );
}

/// A [`Tape`]'s memory on a GPU.
#[cfg(feature = "cuda")]
struct Places {
    sizes: Sizes,
    all: Array,
}

#[cfg(feature = "cuda")]
impl Places {
    fn gates(&self, step: usize) -> Result<Array> {
        let size = 4 * self.sizes.state();
        self.all.part(step * size, size)
    }

    fn cell(&self, step: usize) -> Result<Array> {
        let size = self.sizes.state();
        self.all.part(self.sizes.gates() + step * size, size)
    }

    fn hidden(&self, step: usize) -> Result<Array> {
        self.cell(self.sizes.steps + 1 + step)
    }
}

struct Backward(Sizes);

impl Kernel for Backward {
    const NAME: &'static str = "gradient of the LSTM";

    fn run<T: Real>(&self, out: &mut [T], upstream: &[T], weight: &[T]) -> Result<()> {
        let sizes @ Sizes { steps, batch, hidden } = self.0;
        expect_lengths(
            Self::NAME,
            &[out.len(), upstream.len(), weight.len()],
            &[sizes.total(), steps * sizes.state(), 4 * hidden * hidden],
        )?;
        let shares = shares(batch, LEAST_ROWS);
        let (gates, states) = out.split_at_mut(sizes.gates());
        let cells = &states[..(steps + 1) * sizes.state()];
        let mut back = vec![T::of(0.0); weight.len()];
        transpose(&mut back, hidden, weight, 4 * hidden);
        let rows = cut_blocks(gates, batch * 4 * hidden, &shares, 4 * hidden);
        let rows = numbered(rows.into_iter().zip(&shares), &shares);
        share_out(rows.collect(), &|(first, (mut gates, &count)): (_, (Vec<&mut [T]>, &usize))| {
            let mut d_hidden = vec![T::of(0.0); count * hidden];
            let mut d_cell = d_hidden.clone();
            for step in (0..steps).rev() {
                let gates = &mut *gates[step];
                let of_step = |step: usize| {
                    let at = step * sizes.state() + first * hidden;
                    at..at + count * hidden
                };
                let (before, after) = (&cells[of_step(step)], &cells[of_step(step + 1)]);
                let above = &upstream[of_step(step)];
                cell_backward((gates, &d_hidden, &mut d_cell), (before, after), above, hidden);
                if step > 0 {
                    gemm_into(
                        (&mut d_hidden, View::dense(count, hidden)),
                        (gates, View::dense(count, 4 * hidden)),
                        (&back, View::dense(4 * hidden, hidden)),
                        false,
                    );
                }
            }
        });
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, gpu: &Gpu, out: Array, upstream: Array, weight: Array) -> Result<()> {
        let sizes @ Sizes { steps, batch, hidden } = self.0;
        expect_lengths(
            Self::NAME,
            &[out.len, upstream.len, weight.len],
            &[sizes.total(), steps * sizes.state(), 4 * hidden * hidden],
        )?;
        let places = Places { sizes, all: out };
        let (_kept, scratch) = gpu.zeros(2 * sizes.state())?;
        let d_hidden = scratch.part(0, sizes.state())?;
        let d_cell = scratch.part(sizes.state(), sizes.state())?;
        let back =
            View { rows: 4 * hidden, columns: hidden, row_stride: 1, column_stride: 4 * hidden };
        for step in (0..steps).rev() {
            let gates = places.gates(step)?;
            let arguments = [
                gates,
                d_hidden,
                d_cell,
                upstream.part(step * sizes.state(), sizes.state())?,
                places.cell(step)?,
                places.cell(step + 1)?,
            ];
            let arguments = arguments.map(Array::argument);
            let arguments = [&arguments[..], &[batch as u64, hidden as u64]].concat();
            gpu.each("lstm_cell_backward", sizes.state(), &arguments)?;
            if step > 0 {
                gpu.gemm(
                    (d_hidden, View::dense(batch, hidden)),
                    (gates, View::dense(batch, 4 * hidden)),
                    (weight, back),
                )?;
            }
        }
        Ok(())
    }
}

impl Ops {
    /// Runs the sequence: `projected` `[steps * batch, 4 hidden]` is what goes
    /// into the gates beside the hidden state, `weight` `[hidden, 4 hidden]`
    /// what the hidden state is multiplied by.
    pub(crate) fn lstm(self, tape: &Tape, projected: &Tensor, weight: &Tensor) -> Result<()> {
        if self.fused() {
            return tape.memory.inplace_op3(projected, weight, &InPlace(Forward(tape.sizes)));
        }
        let Sizes { steps, batch, hidden } = tape.sizes;
        let gates = tape.gates()?;
        for step in 0..steps {
            let raw = (projected.narrow(0, step * batch, batch)?
                + self.matmul(&tape.hidden_at(step)?, weight)?)?;
            let raw = |gate: usize| raw.narrow(1, gate * hidden, hidden)?.contiguous();
            let i = candle_nn::ops::sigmoid(&raw(0)?)?;
            let f = candle_nn::ops::sigmoid(&raw(1)?)?;
            let g = raw(2)?.tanh()?;
            let o = candle_nn::ops::sigmoid(&raw(3)?)?;
            let c = ((&f * tape.cell(step)?)? + (&i * &g)?)?;
            tape.hidden_at(step + 1)?.slice_set(&(&o * c.tanh()?)?, 0, 0)?;
            tape.cell(step + 1)?.slice_set(&c, 0, 0)?;
            gates.slice_set(&Tensor::cat(&[i, f, g, o], 1)?, 0, step * batch)?;
        }
        Ok(())
    }

    /// Replaces the tape's gates by the gradient of what went into them;
    /// `upstream` `[steps * batch, hidden]` is that of the hidden states.
    pub(crate) fn lstm_backward(
        self,
        tape: &Tape,
        upstream: &Tensor,
        weight: &Tensor,
    ) -> Result<()> {
        if self.fused() {
            return tape.memory.inplace_op3(upstream, weight, &InPlace(Backward(tape.sizes)));
        }
        let Sizes { steps, batch, hidden } = tape.sizes;
        let all = tape.gates()?;
        let mut d_hidden = tape.cell(0)?.zeros_like()?;
        let mut d_cell = d_hidden.clone();
        let from_square = |y: &Tensor| y.sqr()?.affine(-1.0, 1.0);
        let from_sigmoid = |y: &Tensor| y * y.affine(-1.0, 1.0)?;
        for step in (0..steps).rev() {
            let gates = all.narrow(0, step * batch, batch)?;
            let gate = |index: usize| gates.narrow(1, index * hidden, hidden)?.contiguous();
            let (i, f, g, o) = (gate(0)?, gate(1)?, gate(2)?, gate(3)?);
            let squashed = tape.cell(step + 1)?.tanh()?;
            let d_h = (d_hidden + upstream.narrow(0, step * batch, batch)?)?;
            let d_c = (d_cell + ((&d_h * &o)? * from_square(&squashed)?)?)?;
            let d_gates = Tensor::cat(
                &[
                    ((&d_c * &g)? * from_sigmoid(&i)?)?,
                    ((&d_c * tape.cell(step)?)? * from_sigmoid(&f)?)?,
                    ((&d_c * &i)? * from_square(&g)?)?,
                    ((&d_h * &squashed)? * from_sigmoid(&o)?)?,
                ],
                1,
            )?;
            d_cell = (d_c * f)?;
            d_hidden = self.matmul(&d_gates, &weight.t()?)?;
            all.slice_set(&d_gates, 0, step * batch)?;
        }
        Ok(())
    }
}
