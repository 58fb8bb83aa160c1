//! What a variable's token says to a network: a row of its own, and one that it shares with
//! tokens like it, without which rare ones would be noise.

use candle_core::{Result, Tensor};

use super::conditional::zero;
use crate::model::ops::Ops;
use crate::model::ops::tokens::Ids;
use crate::model::parameter::{Initializer, Parameter};

/// A table of a variable.
pub(super) struct Table {
    /// `[size + 1, width]`.
    own: Parameter,
    shared: Option<Shared>,
}

struct Shared {
    /// Which row each token shares.
    rows: Vec<u32>,
    /// `[rows, width]`.
    table: Parameter,
}

/// Rows of a table to look up.
pub(super) struct Rows {
    own: Ids,
    shared: Option<Ids>,
}

impl Table {
    /// Normal numbers of these deviations, of its own rows and those that tokens share: of
    /// each of `size + 1` tokens the row in `rows`, or none if that is empty.
    pub(super) fn new(
        init: &mut Initializer,
        (size, rows): (usize, &[u32]),
        width: usize,
        [own, shared]: [f64; 2],
    ) -> Result<Table> {
        let own = init.normal(&[size + 1, width], own)?;
        let shared = match rows.iter().max() {
            Some(&last) => Some(Shared {
                rows: rows.to_vec(),
                table: init.normal(&[last as usize + 1, width], shared)?,
            }),
            None => None,
        };
        Ok(Table { own, shared })
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        std::iter::once(&self.own).chain(self.shared.as_ref().map(|shared| &shared.table))
    }

    /// The rows of tokens, each times its weight; times 1 if there are none.
    pub(super) fn rows(&self, tokens: Vec<u32>, weights: Vec<f32>) -> Rows {
        let shared = self.shared.as_ref().map(|shared| {
            let rows = tokens.iter().map(|&token| shared.rows[token as usize]).collect();
            Ids::weighted(rows, weights.clone())
        });
        Rows { own: Ids::weighted(tokens, weights), shared }
    }

    /// Adds rows to `out`, `[rows, width]`.
    pub(super) fn add_to(&self, ops: Ops, out: &Tensor, rows: &Rows) -> Result<()> {
        ops.look_up(out, &self.own.value, &rows.own)?;
        match (&self.shared, &rows.shared) {
            (Some(shared), Some(rows)) => ops.look_up(out, &shared.table.value, rows),
            _ => Ok(()),
        }
    }

    /// Writes the gradients, given that of what the rows were added to.
    pub(super) fn backward(&self, ops: Ops, gradient: &Tensor, rows: &Rows) -> Result<()> {
        let scatter = |table: &Parameter, rows: &Ids| {
            zero(&table.gradient)?;
            ops.look_up_backward(&table.gradient, gradient, rows)
        };
        scatter(&self.own, &rows.own)?;
        match (&self.shared, &rows.shared) {
            (Some(shared), Some(rows)) => scatter(&shared.table, rows),
            _ => Ok(()),
        }
    }

    /// One table: each token's row, with the one that it shares added.
    pub(super) fn whole(&self) -> Result<Vec<f32>> {
        let mut own = self.own.to_vec()?;
        if let Some(Shared { rows, table }) = &self.shared {
            let (shared, width) = (table.to_vec()?, table.value.dim(1)?);
            for (row, &from) in own.chunks_exact_mut(width).zip(rows) {
                let from = &shared[from as usize * width..];
                row.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
        Ok(own)
    }
}

/// The last layer of a variable's network: a column for each token, and one that it shares with
/// tokens like it.
pub(super) struct Output {
    /// `[width, size]`.
    own: Parameter,
    shared: Option<SharedColumns>,
}

struct SharedColumns {
    /// `[width, columns]`.
    table: Parameter,
    /// `[columns, size]`: 1 where a token has a column.
    of_tokens: Tensor,
}

impl Output {
    /// Of each token the column in `columns`, or none if that is empty.
    pub(super) fn new(
        init: &mut Initializer,
        (size, columns): (usize, &[u32]),
        width: usize,
    ) -> Result<Output> {
        let own = init.normal(&[width, size], 0.02)?;
        let columns = &columns[..size.min(columns.len())];
        let shared = match columns.iter().max() {
            Some(&last) => {
                let count = last as usize + 1;
                let mut ones = vec![0.0_f32; count * size];
                for (token, &column) in columns.iter().enumerate() {
                    ones[column as usize * size + token] = 1.0;
                }
                let table = init.normal(&[width, count], 0.02)?;
                let of_tokens = Tensor::from_vec(ones, (count, size), table.value.device())?;
                Some(SharedColumns { table, of_tokens })
            }
            None => None,
        };
        Ok(Output { own, shared })
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        std::iter::once(&self.own).chain(self.shared.as_ref().map(|shared| &shared.table))
    }

    /// `[width, size]`: each token's column, with the one that it shares added.
    pub(super) fn whole(&self, ops: Ops) -> Result<Tensor> {
        match &self.shared {
            Some(shared) => ops.matmul(&shared.table.value, &shared.of_tokens)? + &self.own.value,
            None => Ok(self.own.value.clone()),
        }
    }

    /// Writes the gradients, given the layer's input and the gradient of the logits.
    pub(super) fn backward(&self, ops: Ops, input: &Tensor, gradient: &Tensor) -> Result<()> {
        ops.matmul_into(&self.own.gradient, &input.t()?, gradient)?;
        match &self.shared {
            Some(SharedColumns { table, of_tokens }) => {
                ops.matmul_into(&table.gradient, &self.own.gradient, &of_tokens.t()?)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Tokens 0 and 2 share row 1, token 1 and no token at all row 0.
    const SHARED: [u32; 4] = [1, 0, 1, 0];

    #[test]
    fn tokens_that_share_a_row_learn_from_one_another() {
        let ops = Ops::on(&Device::Cpu);
        let mut init = Initializer::new(3, DType::F32, &Device::Cpu, false);
        let table = Table::new(&mut init, (3, &SHARED), 2, [0.3, 0.3]).unwrap();
        let rows = table.rows(vec![0, 3, 2, 2], vec![1.0, 1.0, 0.5, 1.0]);
        let out = Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap();
        table.add_to(ops, &out, &rows).unwrap();
        let whole = table.whole().unwrap();
        let expected: Vec<f32> = [(0, 1.0), (3, 1.0), (2, 0.5), (2, 1.0)]
            .iter()
            .flat_map(|&(token, weight)| [whole[2 * token] * weight, whole[2 * token + 1] * weight])
            .collect();
        assert_eq!(numbers(&out), expected);
        let gradient =
            Tensor::new(&[[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], &Device::Cpu);
        table.backward(ops, &gradient.unwrap(), &rows).unwrap();
        let gradients: Vec<Vec<f32>> =
            table.parameters().map(|parameter| numbers(&parameter.gradient)).collect();
        let own = vec![1.0, 2.0, 0.0, 0.0, 9.5, 11.0, 3.0, 4.0];
        assert_eq!(gradients, [own, vec![3.0, 4.0, 10.5, 13.0]]);
    }

    #[test]
    fn tokens_that_share_a_column_learn_from_one_another() {
        let ops = Ops::on(&Device::Cpu);
        let mut init = Initializer::new(3, DType::F32, &Device::Cpu, false);
        let layer = Output::new(&mut init, (3, &SHARED), 2).unwrap();
        let values: Vec<Vec<f32>> = layer.parameters().map(|p| p.to_vec().unwrap()).collect();
        let (own, shared) = (&values[0], &values[1]);
        let whole = numbers(&layer.whole(ops).unwrap());
        for (at, value) in whole.iter().enumerate() {
            let of_column = shared[at / 3 * 2 + SHARED[at % 3] as usize];
            assert!((value - own[at] - of_column).abs() < 1e-6);
        }
        let input = Tensor::new(&[[1.0_f32, 2.0]], &Device::Cpu).unwrap();
        let gradient = Tensor::new(&[[1.0_f32, 10.0, 100.0]], &Device::Cpu).unwrap();
        layer.backward(ops, &input, &gradient).unwrap();
        let gradients: Vec<Vec<f32>> =
            layer.parameters().map(|parameter| numbers(&parameter.gradient)).collect();
        let own = vec![1.0, 10.0, 100.0, 2.0, 20.0, 200.0];
        assert_eq!(gradients, [own, vec![10.0, 101.0, 20.0, 202.0]]);
    }
}
