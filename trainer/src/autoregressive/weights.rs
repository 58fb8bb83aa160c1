//! A trained model's weights, and keeping them in files.

use ns_model_format::autoregressive::{BUDGET_BUCKETS, COUNT_BUCKETS, Variable};

use super::chain::Chain;
use super::conditional::ConditionalWeights;
use super::evidence::Context;
use super::fit::Options;
use super::records::RecordWeights;
use crate::arrays::{Array, Arrays};

/// A trained model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Weights {
    /// Of every variable but the first.
    pub(crate) conditionals: Vec<ConditionalWeights>,
    pub(crate) records: RecordWeights,
}

impl ConditionalWeights {
    fn all(&self) -> [&Vec<f32>; 5] {
        [&self.bias, &self.hidden, &self.hidden_bias, &self.out, &self.out_bias]
    }
}

/// Adds the networks of variables to a file.
pub(crate) fn put_conditionals(all: &[ConditionalWeights], arrays: &mut Arrays) {
    for (at, weights) in all.iter().enumerate() {
        arrays.put_all(&format!("conditional.{at}.tables"), &weights.tables);
        for (name, values) in
            ["bias", "hidden", "hidden_bias", "out", "out_bias"].iter().zip(weights.all())
        {
            arrays.put(format!("conditional.{at}.{name}"), Array::F32(values.clone()));
        }
        for (index, context) in weights.evidence.iter().enumerate() {
            let name = |part: &str| format!("conditional.{at}.evidence.{index}.{part}");
            let of = context.of.iter().map(|&variable| variable as u32).collect();
            arrays.put(name("of"), Array::U32(of));
            arrays.put(name("keys"), Array::U32(context.keys.clone()));
            arrays.put(name("ends"), Array::U32(context.ends.clone()));
            arrays.put(name("tokens"), Array::U32(context.tokens.clone()));
            arrays.put(name("values"), Array::F32(context.values.clone()));
        }
    }
}

/// Takes them out again.
pub(crate) fn take_conditionals(arrays: &mut Arrays) -> Vec<ConditionalWeights> {
    let next = |at: usize| {
        let mut take = |name: &str| arrays.take_f32(&format!("conditional.{at}.{name}"));
        let (bias, hidden, hidden_bias) = (take("bias")?, take("hidden")?, take("hidden_bias")?);
        let (out, out_bias) = (take("out")?, take("out_bias")?);
        let tables = arrays.take_all(&format!("conditional.{at}.tables"));
        let context = |index: usize| {
            let name = |part: &str| format!("conditional.{at}.evidence.{index}.{part}");
            let of = arrays.take_u32(&name("of"))?;
            Some(Context {
                of: of.into_iter().map(|variable| variable as usize).collect(),
                keys: arrays.take_u32(&name("keys"))?,
                ends: arrays.take_u32(&name("ends"))?,
                tokens: arrays.take_u32(&name("tokens"))?,
                values: arrays.take_f32(&name("values"))?,
            })
        };
        let evidence = (0..).map_while(context).collect();
        Some(ConditionalWeights { tables, bias, hidden, hidden_bias, out, out_bias, evidence })
    };
    (0..).map_while(next).collect()
}

impl Weights {
    /// Whether they are of a model of this chain, value for value.
    pub(crate) fn fit(&self, chain: &Chain, options: &Options) -> bool {
        let (units, w) = (options.units, options.widths);
        let (gates, heads) = (4 * w.hidden, chain.heads.len() * w.head);
        let are = |lists: &[Vec<f32>], lengths: &mut dyn Iterator<Item = usize>| {
            lists.iter().map(Vec::len).eq(lengths)
        };
        let variables = &chain.variables;
        let conditional = |(of, variable): (&ConditionalWeights, &Variable)| {
            let parents = variable.parents.iter().map(|&at| (variables[at].size + 1) * units);
            are(&of.tables, &mut parents.into_iter())
                && of.bias.len() == units
                && of.hidden.len() == units * units
                && of.hidden_bias.len() == units
                && of.out.len() == units * variable.size
                && of.out_bias.len() == variable.size
                && of.evidence.iter().all(|context| context.fits(variable))
        };
        let r = &self.records;
        let sizes = || chain.heads.iter().map(|head| head.size);
        let counters = [COUNT_BUCKETS, COUNT_BUCKETS, BUDGET_BUCKETS];
        let mut input = sizes().map(|size| size + 1).chain(counters).map(|rows| rows * gates);
        let earlier = (0..chain.heads.len()).flat_map(|at| sizes().take(at));
        self.conditionals.len() + 1 == variables.len()
            && self.conditionals.iter().zip(&variables[1..]).all(conditional)
            && are(&r.context, &mut variables.iter().map(|v| (v.size + 1) * w.context))
            && are(&r.mix, &mut [w.context, 1, w.context, 1].map(|n| n * w.context).into_iter())
            && are(&r.context_gates, &mut [w.context * gates, gates].into_iter())
            && are(&r.context_heads, &mut [w.context * heads, heads].into_iter())
            && are(&r.input, &mut input)
            && r.hidden.len() == w.hidden * gates
            && r.heads.len() == w.hidden * heads
            && are(
                &r.head_counters,
                &mut [COUNT_BUCKETS, BUDGET_BUCKETS].map(|n| n * heads).into_iter(),
            )
            && are(&r.earlier, &mut earlier.map(|size| size * w.head))
            && are(&r.out, &mut sizes().flat_map(|size| [w.head * size, size]))
    }

    /// Adds them to a file.
    pub(crate) fn put(&self, arrays: &mut Arrays) {
        put_conditionals(&self.conditionals, arrays);
        let records = &self.records;
        for (name, values) in [
            ("context", &records.context),
            ("mix", &records.mix),
            ("context_gates", &records.context_gates),
            ("context_heads", &records.context_heads),
            ("input", &records.input),
            ("head_counters", &records.head_counters),
            ("earlier", &records.earlier),
            ("out", &records.out),
        ] {
            arrays.put_all(&format!("records.{name}"), values);
        }
        arrays.put("records.hidden", Array::F32(records.hidden.clone()));
        arrays.put("records.heads", Array::F32(records.heads.clone()));
    }

    /// Takes them out again.
    pub(crate) fn take(arrays: &mut Arrays) -> Option<Weights> {
        let conditionals = take_conditionals(arrays);
        let hidden = arrays.take_f32("records.hidden")?;
        let heads = arrays.take_f32("records.heads")?;
        let mut take = |name: &str| arrays.take_all(&format!("records.{name}"));
        let records = RecordWeights {
            context: take("context"),
            mix: take("mix"),
            context_gates: take("context_gates"),
            context_heads: take("context_heads"),
            input: take("input"),
            hidden,
            heads,
            head_counters: take("head_counters"),
            earlier: take("earlier"),
            out: take("out"),
        };
        Some(Weights { conditionals, records })
    }
}
