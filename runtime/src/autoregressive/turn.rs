//! A variable's turn: which of its tokens a flow can have, and which it draws.

use ns_model_format::autoregressive::{Absent, Autoregressive, Says, Variable};
use ns_model_format::codec::TokensCodec;

use super::sample::{self, Draws, LaneSet, NotWith, Rules};
use super::wish::Wish;
use crate::kernels::LANES;

/// The logarithm of the least that a given token weighs.
const LEAST_LOG: f64 = -1e4;

/// What a variable's tokens depend on beside its network.
pub(super) struct Limits {
    size: usize,
    /// Of a duration, the smallest of each token, and the largest of these.
    at_least_us: Vec<f64>,
    latest_us: f64,
    /// An earlier variable, and for each of its tokens what this one may be; empty if all.
    among: Option<(usize, Vec<Vec<u32>>)>,
    /// An earlier variable, and what this one is not with each of its tokens: first of all
    /// with what the flow's records are.
    absent: Vec<(usize, NotWith)>,
}

impl Limits {
    pub(super) fn new(model: &Autoregressive, at: usize) -> Limits {
        let variable = &model.attributes[at];
        let at_least_us: Vec<f64> = is_duration(variable).map_or_else(Vec::new, |tokens| {
            (0..variable.size as u32).map(|token| tokens.number_at(token, 0.0)).collect()
        });
        let mut absent: Vec<&Absent> = variable.absent.iter().collect();
        let is_support = |at: usize| matches!(model.attributes[at].says, Says::Support { .. });
        absent.sort_by_key(|of| !is_support(of.before));
        let not_with = |of: &Absent| NotWith::new(&of.lists(model.attributes[of.before].size));
        Limits {
            size: variable.size,
            latest_us: at_least_us.iter().copied().fold(0.0, f64::max),
            at_least_us,
            among: among(model, at),
            absent: absent.into_iter().map(|of| (of.before, not_with(of))).collect(),
        }
    }
}

pub(super) fn is_duration(variable: &Variable) -> Option<&TokensCodec> {
    match &variable.says {
        Says::Duration { tokens } => Some(tokens),
        _ => None,
    }
}

/// What a count of records may be for each set of what they are, or the other way around:
/// the one that is drawn later is among what the earlier leaves room for.
fn among(model: &Autoregressive, at: usize) -> Option<(usize, Vec<Vec<u32>>)> {
    let is_count = |variable: &Variable| matches!(variable.says, Says::Count { .. });
    let variable = &model.attributes[at];
    let own = records_of(variable);
    let mut earlier = model.attributes[..at].iter().enumerate();
    let (before, of) = earlier.find(|(_, other)| {
        !own.is_empty() && !records_of(other).is_empty() && is_count(other) != is_count(variable)
    })?;
    let list = |given: u32| {
        let fits = |&(_, own): &(u32, &u32)| {
            if is_count(variable) { *own >= given } else { *own <= given }
        };
        (0..).zip(&own).filter(fits).map(|(token, _)| token).collect()
    };
    Some((before, records_of(of).into_iter().map(list).collect()))
}

/// How many records a flow has at most, or must have at least, by a variable's token.
fn records_of(variable: &Variable) -> Vec<u32> {
    let tokens = 0..variable.size as u32;
    match &variable.says {
        Says::Count { tokens: codec } => tokens.map(|token| codec.ends(token)[1] as u32).collect(),
        // The last leaves it open.
        Says::Support { sets, .. } => sets.iter().map(|set| set.len() as u32).chain([0]).collect(),
        _ => Vec::new(),
    }
}

/// A variable that flows draw, and what they are given for it.
pub(super) struct Turn<'a> {
    pub(super) at: usize,
    pub(super) limits: &'a Limits,
    /// How long a row of tokens, or of noise, is.
    pub(super) width: usize,
    /// `[rows, 2 N]`, and whose noise each row has.
    pub(super) noise: &'a [f32],
    pub(super) sources: &'a [u32],
    /// `[rows / each, condition_dim]`.
    pub(super) conditions: &'a [f32],
    pub(super) condition_dim: usize,
    pub(super) each: usize,
    pub(super) span_us: f64,
    /// Of pairs, where that weighs: them, and where in the condition the tokens of either field
    /// may be given.
    pub(super) pairs: Option<(&'a [[u32; 2]], [usize; 2])>,
    pub(super) wish: Option<&'a Wish>,
}

impl<'a> Turn<'a> {
    pub(super) fn condition(&self, row: usize) -> &'a [f32] {
        &self.conditions[row / self.each * self.condition_dim..][..self.condition_dim]
    }

    /// For the token, and for the place within it.
    pub(super) fn uniforms(&self, row: usize) -> &'a [f32] {
        &self.noise[self.sources[row] as usize * self.width + 2 * self.at..][..2]
    }

    /// The pairs and a row's given tokens, if one of either field is.
    pub(super) fn half_given(&self, row: usize) -> Option<(&'a [[u32; 2]], [f32; 2])> {
        let (pairs, places) = self.pairs?;
        let given = places.map(|at| self.condition(row)[at]);
        given.iter().any(|&token| token >= 0.0).then_some((pairs, given))
    }
}

/// Flows that draw at once, at most [`LANES`].
pub(super) struct DrawnFlows<'a> {
    pub(super) turn: &'a Turn<'a>,
    /// All flows' tokens, `[rows, 2 N]`, and the token that each row is given, -1 where none is.
    pub(super) tokens: &'a [f32],
    pub(super) fixed: &'a [f32],
    /// Which of them these are.
    pub(super) rows: &'a [usize],
}

impl DrawnFlows<'_> {
    /// What one has drawn of the variables before.
    #[inline(always)]
    fn before(&self, lane: usize) -> &[f32] {
        &self.tokens[self.rows[lane] * self.turn.width..][..self.turn.at]
    }

    /// Draws their tokens, of their logits.
    #[inline(always)]
    pub(super) fn draw(
        &self,
        logits: &mut [[f32; LANES]],
        draws: &mut Draws,
        logs: &mut [f64],
        drawn: &mut Vec<f32>,
    ) {
        let DrawnFlows { turn, rows, .. } = *self;
        draws.limit(logits, sample::first(rows.len()), self);
        draws.sum();
        let is_given = |&row: &usize| self.fixed[row] >= 0.0 || turn.half_given(row).is_some();
        if turn.wish.is_some() || rows.iter().any(is_given) {
            return self.draw_as_wished(logits, draws, logs, drawn);
        }
        let mut uniforms = [0.0; LANES];
        for (uniform, &row) in uniforms.iter_mut().zip(rows) {
            *uniform = turn.uniforms(row)[0];
        }
        drawn.extend(draws.place(&uniforms)[..rows.len()].iter().map(|&token| token as f32));
    }

    /// The same where rows are given tokens or some are wished, adding to the logarithms of the
    /// rows' weights how likely these are.
    #[inline(always)]
    fn draw_as_wished(
        &self,
        logits: &mut [[f32; LANES]],
        draws: &mut Draws,
        logs: &mut [f64],
        drawn: &mut Vec<f32>,
    ) {
        let DrawnFlows { turn, rows, .. } = *self;
        let wish = turn.wish;
        let mut all = [0.0; LANES];
        for (lane, &row) in rows.iter().enumerate() {
            all[lane] = draws.log_total(lane);
            let fixed = self.fixed[row];
            if fixed >= 0.0 {
                let logit = f64::from(logits[fixed as usize][lane]);
                let is_taken = draws.is_taken(fixed as usize, lane);
                let log = if is_taken { LEAST_LOG } else { logit - all[lane] };
                // Given all the same.
                logs[row] += log.max(LEAST_LOG);
            }
            self.take_unwished(lane, draws);
        }
        if rows.iter().all(|&row| self.fixed[row] >= 0.0) {
            drawn.extend(rows.iter().map(|&row| self.fixed[row]));
            return;
        }
        for (logits, bias) in logits.iter_mut().zip(wish.map_or(&[][..], Wish::bias)) {
            logits.iter_mut().for_each(|logit| *logit += bias);
        }
        draws.look(logits);
        draws.sum();
        let mut uniforms = [0.0; LANES];
        let mut of_wished = [0.0; LANES];
        let mut is_any_out = false;
        for (lane, &row) in rows.iter().enumerate() {
            uniforms[lane] = turn.uniforms(row)[0];
            of_wished[lane] = draws.log_total(lane) - all[lane];
            let is_half_given = wish.is_none() && turn.half_given(row).is_some();
            if is_half_given && !of_wished[lane].is_finite() {
                // Given all the same, as what is given in full is.
                draws.free(1 << lane);
                self.always(1 << lane, draws);
                self.take_unwished(lane, draws);
                (of_wished[lane], is_any_out) = (LEAST_LOG, true);
            }
        }
        if is_any_out {
            draws.look(logits);
            draws.sum();
        }
        let tokens = draws.place(&uniforms);
        for (lane, &row) in rows.iter().enumerate() {
            if self.fixed[row] >= 0.0 {
                drawn.push(self.fixed[row]);
                continue;
            }
            let token = tokens[lane];
            if wish.is_some() || turn.half_given(row).is_some() {
                let log_tilt = wish.map_or(0.0, |wish| wish.log_tilt(token as usize));
                let log = of_wished[lane] - log_tilt;
                logs[row] += if log.is_finite() { log } else { f64::NEG_INFINITY };
            }
            drawn.push(token as f32);
        }
    }

    /// Takes from a row what is not wished, or not of what it is given.
    fn take_unwished(&self, lane: usize, draws: &mut Draws) {
        let DrawnFlows { turn, rows, .. } = *self;
        let (half, before) = (turn.half_given(rows[lane]), self.before(lane));
        if turn.wish.is_none() && half.is_none() {
            return;
        }
        let is_unwished = |&token: &usize| {
            let is_of_pair = |(pairs, given): (&[[u32; 2]], _)| is_of_pair(pairs.get(token), given);
            let allows = |wish: &Wish| wish.allows(token as u32, before);
            !(turn.wish.is_none_or(allows) && half.is_none_or(is_of_pair))
        };
        draws.take((0..turn.limits.size).filter(is_unwished), 1 << lane);
    }
}

/// Whether a pair has the tokens of its fields that are given; so has none of the pairs.
fn is_of_pair(pair: Option<&[u32; 2]>, given: [f32; 2]) -> bool {
    pair.is_none_or(|pair| {
        pair.iter().zip(given).all(|(&token, given)| given < 0.0 || token == given as u32)
    })
}

impl Rules for DrawnFlows<'_> {
    #[inline(always)]
    fn always(&self, rows: LaneSet, draws: &mut Draws) {
        let Limits { at_least_us, latest_us, among, .. } = self.turn.limits;
        if among.is_none() && at_least_us.is_empty() {
            return;
        }
        for lane in sample::lanes(rows) {
            let list = among
                .as_ref()
                .and_then(|(before, lists)| lists.get(self.before(lane)[*before] as usize));
            let position = f64::from(self.turn.condition(self.rows[lane])[0]);
            let left_us = (1.0 - position).max(0.0) * self.turn.span_us;
            match list.map(Vec::as_slice) {
                Some([]) => {}
                Some(list) => draws.leave(list, lane),
                None if *latest_us > left_us && at_least_us.iter().any(|us| *us <= left_us) => {
                    let is_late = |token: &usize| at_least_us[*token] > left_us;
                    draws.take((0..at_least_us.len()).filter(is_late), 1 << lane);
                }
                None => {}
            }
        }
    }

    fn count(&self) -> usize {
        self.turn.limits.absent.len()
    }

    #[inline(always)]
    fn take(&self, rule: usize, rows: LaneSet, draws: &mut Draws) {
        let (before, not_with) = &self.turn.limits.absent[rule];
        draws.take_without(not_with, rows, |lane| self.before(lane)[*before] as usize);
    }
}
