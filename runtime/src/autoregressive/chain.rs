//! What is drawn once a flow: its variables, one given those before it.

use std::sync::Arc;

use ns_model_format::autoregressive::Autoregressive;
use ns_model_format::autoregressive::{Applies, RecordSays, Says, Variable};
use ns_model_format::codec::TokensCodec;

use super::alike::Alike;
use super::drafts::{Drafts, Rule, Weighed};
use super::joint;
use super::sample::Draws;
use super::tables::Tables;
use super::turn::{DrawnFlows, Limits, Turn, is_duration};
use super::wish::Wish;
use super::{Dense, InLanes, Widths};
use crate::error::RuntimeError;
use crate::kernels::{self, LANES, wide};
use crate::program::{Lanes, RowsMut};
use crate::stages::{Stage, timed};

/// A variable and its graph.
struct Link<L> {
    size: usize,
    applies: Option<Applies>,
    parents: Vec<usize>,
    graph: Option<L>,
    /// Where in the condition its token may be given.
    forced: Option<usize>,
    /// What may tell its token, and that token by the other's.
    told: Option<(usize, Vec<u32>)>,
    /// Of pairs: them, and where in the condition the tokens of either field may be given.
    pairs: Option<(Vec<[u32; 2]>, [usize; 2])>,
    limits: Limits,
}

pub(super) struct Chain<L, G> {
    links: Vec<Link<L>>,
    context: G,
    tables: Arc<Tables>,
    widths: Widths,
    /// A position, and a token for each field variable.
    condition_dim: usize,
    edges: Vec<f32>,
    span_us: f64,
    count: (usize, TokensCodec),
    duration: Option<(usize, TokensCodec)>,
    /// For each joint head, the variable that it is given, and that of its support.
    joints: Vec<[Option<usize>; joint::GIVEN]>,
    constants: Vec<usize>,
    draws: Draws,
    /// Logits of rows that are given the same, with what flows of the same kind had; then those
    /// of flows.
    evident: Vec<[f32; LANES]>,
    logits: Vec<[f32; LANES]>,
    /// What its contexts tell, group by group.
    lists: Vec<[u32; 2]>,
    /// The rows that draw.
    alike: Alike,
    /// Their tokens.
    drawn: Vec<f32>,
    /// The token that each row is given, -1 where none is.
    fixed: Vec<f32>,
    /// Whose noise each row has.
    sources: Vec<u32>,
}

/// Where in a condition the tokens of each attribute field begin: field by field, octets
/// after their field. Then where they end.
pub(crate) fn forced_places(model: &Autoregressive) -> Vec<(usize, usize, usize)> {
    let mut places: Vec<(usize, usize, usize)> = model
        .attributes
        .iter()
        .enumerate()
        .filter_map(|(at, variable)| match variable.says {
            Says::Field { field, place } => Some((field, place, at)),
            _ => None,
        })
        .collect();
    places.sort_unstable();
    places
}

/// The token of a pair whose fields' tokens are given; none if either is not.
fn given_pair(pairs: &[[u32; 2]], tokens: [f32; 2]) -> Option<f32> {
    let given = tokens.iter().all(|&token| token >= 0.0);
    let pair = tokens.map(|token| token as u32);
    given.then(|| pairs.binary_search(&pair).unwrap_or(pairs.len()) as f32)
}

impl<L: InLanes, G: Dense> Chain<L, G> {
    pub(super) fn new(
        model: &Autoregressive,
        span_ns: u64,
        tables: Arc<Tables>,
        graphs: Vec<Option<L>>,
        context: G,
    ) -> Chain<L, G> {
        let places = forced_places(model);
        let forced =
            |at: usize| places.iter().position(|&(_, _, place)| place == at).map(|place| 1 + place);
        let variables = || model.attributes.iter().enumerate();
        let link = |((at, variable), graph): ((usize, &Variable), Option<L>)| Link {
            size: variable.size,
            applies: variable.applies,
            parents: variable.parents.clone(),
            graph,
            forced: forced(at),
            told: variable.told.and_then(|told| match &model.attributes[told.variable].says {
                Says::Pair { pairs, .. } => {
                    Some((told.variable, pairs.iter().map(|pair| pair[told.place]).collect()))
                }
                _ => None,
            }),
            pairs: match &variable.says {
                Says::Pair { fields, pairs } => {
                    let first = |of: &usize| places.iter().position(|&(f, ..)| f == *of);
                    let [a, b] = fields.each_ref().map(first);
                    a.zip(b).map(|(a, b)| (pairs.clone(), [1 + a, 1 + b]))
                }
                _ => None,
            },
            limits: Limits::new(model, at),
        };
        let count = variables().find_map(|(at, variable)| match &variable.says {
            Says::Count { tokens } => Some((at, tokens.clone())),
            _ => None,
        });
        Chain {
            links: variables().zip(graphs).map(link).collect(),
            context,
            tables,
            widths: Widths::of(model),
            condition_dim: 1 + places.len(),
            edges: match model.attributes.first().map(|variable| &variable.says) {
                Some(Says::Start { edges }) => edges.clone(),
                _ => Vec::new(),
            },
            span_us: span_ns as f64 / 1e3,
            // A bundle was checked for having one.
            count: count.unwrap_or_else(|| (0, TokensCodec::of_counts(1))),
            duration: variables()
                .find_map(|(at, variable)| Some((at, is_duration(variable)?.clone()))),
            joints: model
                .heads
                .iter()
                .enumerate()
                .filter_map(|(at, head)| match &head.says {
                    RecordSays::Joint { given, .. } => {
                        Some([*given, model.support(at), model.again(at)])
                    }
                    _ => None,
                })
                .collect(),
            constants: model.constants().map(|(_, _, variable)| variable).collect(),
            draws: Draws::default(),
            evident: Vec::new(),
            logits: Vec::new(),
            lists: Vec::new(),
            alike: Alike::default(),
            drawn: Vec::new(),
            fixed: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// Draws flows to tokens and places, `[flows, 2 N]`, and the logarithm of the weight of
    /// each, below all numbers for one that none of its drafts became.
    pub(super) fn draw(
        &mut self,
        drafts: &Drafts<'_>,
        out: &mut Vec<f32>,
        logs: &mut Vec<f64>,
    ) -> Result<(), RuntimeError> {
        let count = self.links.len();
        let (width, wide_row) = (2 * count, self.condition_dim);
        let Drafts { each, noise, condition, wishes, rule } = *drafts;
        out.clear();
        out.resize(noise.len(), 0.0);
        let rows = noise.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate();
        for (index, (noise, row)) in rows {
            let position = condition[index / each * wide_row];
            let bin = self.edges.partition_point(|&edge| edge <= position).saturating_sub(1);
            row[0] = bin.min(self.links[0].size - 1) as f32;
            for (place, uniforms) in row[count..].iter_mut().zip(noise.chunks_exact(2)) {
                *place = uniforms[1];
            }
        }
        logs.clear();
        logs.resize(out.len() / width, 0.0);
        let mut sources = std::mem::take(&mut self.sources);
        sources.clear();
        sources.extend(0..logs.len() as u32);
        let mut drawn = Weighed { width, each, rows: out, logs, sources: &mut sources };
        for at in 1..count {
            let is_weighed = self.draw_variable(at, drafts, &mut drawn)?;
            match rule {
                Rule::Accept if is_weighed => drawn.accept(noise),
                Rule::Choose if at == wishes.last() => drawn.choose(at, noise),
                Rule::Choose if is_weighed && !wishes.is_tilted() => drawn.resample(at, noise),
                _ => {}
            }
        }
        self.sources = sources;
        Ok(())
    }

    /// Draws one variable of all rows; whether it says how likely what they are given is, or
    /// what is wished of them.
    fn draw_variable(
        &mut self,
        at: usize,
        drafts: &Drafts<'_>,
        Weighed { width, each, rows: out, logs, sources }: &mut Weighed<'_>,
    ) -> Result<bool, RuntimeError> {
        let Chain { links, tables, alike, drawn, draws, evident, logits, lists, fixed, .. } = self;
        let (count, width) = (links.len(), *width);
        let Drafts { noise, condition, wishes, rule, .. } = *drafts;
        let Link { size, applies, parents, graph, forced, told, pairs, limits } = &mut links[at];
        // What a row is given counts where rows are weighed, and so does what is wished.
        let weighs = rule != Rule::All && at <= wishes.last();
        let wish = wishes.of(at).filter(|wish| weighs && wish.is_any());
        let turn = Turn {
            at,
            limits,
            width,
            noise,
            sources,
            conditions: condition,
            condition_dim: self.condition_dim,
            each: *each,
            span_us: self.span_us,
            pairs: pairs.as_ref().filter(|_| weighs).map(|(pairs, places)| (&pairs[..], *places)),
            wish,
        };
        alike.clear();
        fixed.clear();
        for (index, row) in out.chunks_exact_mut(width).enumerate() {
            fixed.push(-1.0);
            if logs[index] == f64::NEG_INFINITY {
                continue;
            }
            let condition = turn.condition(index);
            let applies = applies.is_none_or(|applies| {
                (row[applies.variable] as u32 == applies.token) == applies.equal
            });
            let given = match (*forced, &*pairs) {
                (Some(place), _) => Some(condition[place]),
                (_, Some((pairs, places))) => given_pair(pairs, places.map(|at| condition[at])),
                _ => None,
            };
            let given = given.filter(|&token| token >= 0.0);
            let given = given.map(|token| token.min((*size - 1) as f32));
            let told = told
                .as_ref()
                .and_then(|(by, tokens)| tokens.get(row[*by] as usize).map(|&token| token as f32));
            let parents = parents.iter().map(|&parent| row[parent]);
            match (given, told) {
                _ if !applies => row[at] = *size as f32,
                (Some(token), None) if weighs => {
                    fixed[index] = token;
                    alike.add(index, parents);
                    row[at] = token;
                }
                (Some(token), _) => row[at] = token,
                (None, Some(token)) => {
                    row[at] = token;
                    if let Some(wish) = wish {
                        let token = token as u32;
                        logs[index] += f64::from(wish.share_of(token)).ln();
                        row[count + at] = wish.within(token, turn.uniforms(index)[1]);
                    }
                }
                (None, None) => alike.add(index, parents),
            }
        }
        let is_weighed = wish.is_some_and(Wish::is_condition)
            || fixed.iter().any(|&token| token >= 0.0)
            || (0..fixed.len()).any(|row| turn.half_given(row).is_some());
        let Some(graph) = graph.as_mut().filter(|_| !alike.is_empty()) else {
            return Ok(is_weighed);
        };
        let (firsts, members) = alike.groups();
        let fill = |mut sums: RowsMut<'_>| {
            let firsts = &firsts[sums.first..];
            wide(
                #[inline(always)]
                || {
                    let mut terms = Vec::new();
                    for (sum, &first) in sums.iter_mut().zip(firsts) {
                        let row = &out[first * width..][..count];
                        terms.clear();
                        for (&parent, table) in parents.iter().zip(&tables.attributes[at]) {
                            terms.push(table.row(row[parent] as usize));
                        }
                        kernels::sum(&terms, sum);
                    }
                },
            );
        };
        let contexts = &tables.evidence[at][..];
        // All at once: the waits for memory overlap.
        lists.clear();
        for &first in firsts {
            let row = &out[first * width..][..count];
            lists.extend(contexts.iter().map(|context| context.find(row)));
        }
        drawn.clear();
        let mut sample = |Lanes { first, rows: groups, columns }: Lanes<'_>| {
            wide(
                #[inline(always)]
                || {
                    evident.clear();
                    evident.extend_from_slice(columns);
                    for lane in 0..groups {
                        let lists = lists[(first + lane) * contexts.len()..].iter();
                        for (context, &list) in contexts.iter().zip(lists) {
                            context.add(list, evident, lane);
                        }
                    }
                    let last = first + groups;
                    let end = members.partition_point(|(group, _)| (*group as usize) < last);
                    let of_these = &members[drawn.len()..end];
                    let are_alike = of_these.len() > groups;
                    for of_these in of_these.chunks(LANES) {
                        let mut rows = [0; LANES];
                        rows.iter_mut().zip(of_these).for_each(|(to, of)| *to = of.1 as usize);
                        let logits = if are_alike {
                            logits.resize(evident.len(), [0.0; LANES]);
                            for (lane, &(group, _)) in of_these.iter().enumerate() {
                                let from = group as usize - first;
                                for (to, evident) in logits.iter_mut().zip(&*evident) {
                                    to[lane] = evident[from];
                                }
                            }
                            &mut *logits
                        } else {
                            &mut *evident
                        };
                        let rows = &rows[..of_these.len()];
                        let flows = DrawnFlows { turn: &turn, tokens: out, fixed, rows };
                        flows.draw(logits, draws, logs, drawn);
                    }
                },
            );
        };
        graph.run(firsts.len(), fill, |lanes| {
            timed(Stage::AttributeTokens, || sample(lanes));
        })?;
        for (&(_, row), &token) in members.iter().zip(&*drawn) {
            let row = row as usize;
            out[row * width + at] = token;
            if let Some(wish) = wish {
                out[row * width + count + at] = wish.within(token as u32, turn.uniforms(row)[1]);
            }
        }
        Ok(is_weighed)
    }

    /// What the steps of flows with these attributes are given.
    pub(super) fn gates(
        &mut self,
        rows: usize,
        attributes: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        let count = self.links.len();
        let Chain { links, context, tables, widths, joints, constants, .. } = self;
        let fill = |mut sums: RowsMut<'_>| {
            let attributes = attributes[2 * count * sums.first..].chunks_exact(2 * count);
            wide(
                #[inline(always)]
                || {
                    let mut terms = Vec::new();
                    for (sum, row) in sums.iter_mut().zip(attributes) {
                        terms.clear();
                        for (table, &token) in tables.context.iter().zip(&row[..count]) {
                            terms.push(table.row(token as usize));
                        }
                        kernels::sum(&terms, sum);
                    }
                },
            );
        };
        out.clear();
        out.reserve(rows * widths.gates());
        let mut given_rows =
            attributes.chunks_exact(2 * count).zip(condition.chunks_exact(self.condition_dim));
        context.run(rows, fill, |contexts| {
            for (context, (row, condition)) in contexts.iter().zip(&mut given_rows) {
                let place = |at: usize| f64::from(row[count + at]);
                let applies = |at: usize| (row[at] as usize) < links[at].size;
                let number = |(at, tokens): &(usize, TokensCodec)| {
                    applies(*at).then(|| tokens.number_at(row[*at] as u32, place(*at)))
                };
                let left_us = (1.0 - f64::from(condition[0])) * self.span_us;
                let duration_us = self.duration.as_ref().and_then(number).unwrap_or(0.0);
                out.extend_from_slice(context);
                // Counted in float32.
                let most = f64::from(1 << f32::MANTISSA_DIGITS);
                out.push(number(&self.count).unwrap_or(1.0).floor().clamp(1.0, most) as f32);
                out.push(duration_us.min(left_us).max(0.0) as f32);
                out.push(left_us as f32);
                let joints = joints.iter().flatten();
                out.extend(joints.map(|variable| variable.map_or(0.0, |at| row[at])));
                out.extend(constants.iter().flat_map(|&at| [row[at], row[count + at]]));
            }
        })
    }
}

#[cfg(test)]
impl<L, G> Chain<L, G> {
    pub(super) fn context(&mut self) -> &mut G {
        &mut self.context
    }
}
