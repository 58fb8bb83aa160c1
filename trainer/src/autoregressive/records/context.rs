//! What a flow's variables say to its records: rows of tables added up, `x = relu(sum) M + m`
//! rectified, and `x N + n + sum`.

use candle_core::{DType, Device, Result, Tensor};
use ns_model_format::autoregressive::{RecordSays, Says, Variable};
use ns_model_format::random::Stream;

use crate::autoregressive::chain::{Chain, is_certain};
use crate::autoregressive::conditional::kept;
use crate::autoregressive::table::{Rows, Table};
use crate::autoregressive::tokens::Flows;
use crate::model::ops::Ops;
use crate::model::parameter::{Initializer, Parameter};

/// Inverted dropout of whole variables.
const VARIABLE_DROPOUT: f32 = 0.25;

/// The tables of all variables, and how their sum is mixed.
pub(super) struct Context {
    pub(super) tables: Vec<Table>,
    /// `[C, C]`, `[C]`, `[C, C]`, `[C]`.
    pub(super) mix: [Parameter; 4],
    /// Variables that are never left out: what is possible depends on them.
    certain: Vec<bool>,
    /// Variables that are always left out.
    ignored: Vec<bool>,
    width: usize,
    ops: Ops,
    device: Device,
}

/// What a forward pass leaves for the backward one.
pub(super) struct Pass {
    /// Of each table.
    pub(super) looked_up: Vec<Rows>,
    /// Before and after mixing; its hidden values.
    plain: Tensor,
    rectified: Tensor,
    mixed: Tensor,
    /// `[flows, C]`.
    pub(super) rows: Tensor,
}

fn is_pair(variable: &Variable) -> bool {
    matches!(variable.says, Says::Pair { .. })
}

impl Context {
    pub(super) fn new(
        chain: &Chain,
        width: usize,
        init: &mut Initializer,
        device: &Device,
    ) -> Result<Context> {
        let Chain { variables, heads, .. } = chain;
        let mut tables = Vec::new();
        for (at, variable) in variables.iter().enumerate() {
            // A pair says nothing that its fields do not.
            let own = if is_pair(variable) { 0.0 } else { 0.2 };
            tables.push(Table::new(init, (variable.size, chain.shared(at)), width, [own, 0.2])?);
        }
        let bound = 1.0 / (width as f64).sqrt();
        let mut uniform = |shape: &[usize]| init.uniform(shape, bound);
        let mix = [
            uniform(&[width, width])?,
            uniform(&[width])?,
            uniform(&[width, width])?,
            uniform(&[width])?,
        ];
        let given = heads.iter().filter_map(|head| match head.says {
            RecordSays::Joint { given, .. } => given,
            _ => None,
        });
        let all = variables.iter().enumerate();
        let told = all.filter(|(_, variable)| is_certain(variable)).map(|(at, _)| at);
        let certain: Vec<usize> = given.chain(told).collect();
        Ok(Context {
            tables,
            mix,
            certain: (0..variables.len()).map(|at| certain.contains(&at)).collect(),
            ignored: variables.iter().map(is_pair).collect(),
            width,
            ops: Ops::on(device),
            device: device.clone(),
        })
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = &Parameter> {
        self.tables.iter().flat_map(Table::parameters).chain(&self.mix)
    }

    /// Of the chosen flows; in training, variables are left out.
    pub(super) fn forward(
        &self,
        flows: &Flows,
        chosen: &[usize],
        mut dropout: Option<&mut Stream>,
    ) -> Result<Pass> {
        let (ops, variables) = (self.ops, self.tables.len());
        let plain = Tensor::zeros((chosen.len(), self.width), DType::F32, &self.device)?;
        let mut looked_up = Vec::with_capacity(variables);
        for (at, table) in self.tables.iter().enumerate() {
            let token = |&flow: &usize| flows.attributes[flow * variables + at];
            let tokens: Vec<u32> = chosen.iter().map(token).collect();
            let weights: Vec<f32> = match &mut dropout {
                Some(_) if self.ignored[at] => vec![0.0; chosen.len()],
                Some(stream) if !self.certain[at] => kept(stream, chosen.len(), VARIABLE_DROPOUT),
                _ => Vec::new(),
            };
            let rows = table.rows(tokens, weights);
            table.add_to(ops, &plain, &rows)?;
            looked_up.push(rows);
        }
        let [first, first_bias, second, second_bias] = &self.mix;
        let rectified = plain.relu()?;
        let mixed = ops.matmul(&rectified, &first.value)?;
        ops.bias_relu(&mixed, &first_bias.value)?;
        let rows = ops.matmul(&mixed, &second.value)?;
        ops.add_repeated(&rows, &second_bias.value)?;
        ops.add_repeated(&rows, &plain)?;
        Ok(Pass { looked_up, plain, rectified, mixed, rows })
    }

    /// Writes the gradients of what mixes; `gradient` is that of [`Pass::rows`]. Returns that of
    /// what the tables' rows were added to, of which their own are made.
    pub(super) fn backward(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor> {
        let ops = self.ops;
        let [first, first_bias, second, second_bias] = &self.mix;
        ops.matmul_into(&second.gradient, &pass.mixed.t()?, gradient)?;
        ops.sum_rows_into(&second_bias.gradient, gradient)?;
        let below = ops.matmul(gradient, &second.value.t()?)?;
        ops.mask(&below, &pass.mixed)?;
        ops.matmul_into(&first.gradient, &pass.rectified.t()?, &below)?;
        ops.sum_rows_into(&first_bias.gradient, &below)?;
        let below = ops.matmul(&below, &first.value.t()?)?;
        ops.mask(&below, &pass.plain)?;
        ops.add_repeated(&below, gradient)?;
        Ok(below)
    }
}
