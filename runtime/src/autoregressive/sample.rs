//! Draws tokens from logits.

use ns_model_format::autoregressive::UNSEEN;

use crate::kernels::exp;

/// Weights lie in so many columns, one token a column in turn, and are counted column by
/// column: as each is summed on its own, all are at once.
const COLUMNS: usize = 16;

/// Turns logits into weights and a uniform number into a token. One for all rows: it
/// keeps the memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampler {
    /// The softmax without its division, zeros up to a multiple of [`COLUMNS`].
    weights: Vec<[f32; COLUMNS]>,
    /// Sums of the columns up to each.
    sums: [f32; COLUMNS],
    /// The largest logit, whose weight is 1.
    most: f32,
    /// Logits of what is allowed.
    chosen: Vec<f32>,
}

impl Sampler {
    /// The token at `uniform` (0 to 1) of the softmax's cumulative distribution, of
    /// `allowed` ones only; token 0, or the first allowed, where logits are broken.
    #[inline(always)]
    pub(crate) fn draw(&mut self, logits: &[f32], allowed: Option<&[u32]>, uniform: f32) -> usize {
        self.weigh(logits, allowed);
        let at = self.place(uniform);
        allowed.map_or(at, |allowed| allowed.get(at).map_or(0, |&token| token as usize))
    }

    /// Makes weights of logits, of all or of the `allowed`.
    #[inline(always)]
    pub(crate) fn weigh(&mut self, logits: &[f32], allowed: Option<&[u32]>) {
        match allowed {
            None => self.weigh_all(logits),
            Some(allowed) => {
                self.chosen.clear();
                for &token in allowed {
                    self.chosen.push(logits.get(token as usize).copied().unwrap_or(f32::NAN));
                }
                let chosen = std::mem::take(&mut self.chosen);
                self.weigh_all(&chosen);
                self.chosen = chosen;
            }
        }
    }

    /// Makes weights of the logits of `tokens`, to each of which its bias is added, if any.
    #[inline(always)]
    pub(crate) fn weigh_biased(&mut self, logits: &[f32], tokens: &[u32], bias: &[f32]) {
        let mut chosen = std::mem::take(&mut self.chosen);
        chosen.clear();
        for token in tokens.iter().map(|&token| token as usize) {
            let bias = bias.get(token).copied().unwrap_or(0.0);
            chosen.push(logits.get(token).copied().unwrap_or(f32::NAN) + bias);
        }
        self.weigh_all(&chosen);
        self.chosen = chosen;
    }

    /// The logarithm of the sum of all exponentials; no number where logits are broken, or
    /// there are none.
    pub(crate) fn log_total(&self) -> f64 {
        f64::from(self.most) + f64::from(self.sums[COLUMNS - 1]).ln()
    }

    #[inline(always)]
    fn weigh_all(&mut self, logits: &[f32]) {
        let (rows, rest) = logits.as_chunks::<COLUMNS>();
        let mut last = [f32::NEG_INFINITY; COLUMNS];
        last[..rest.len()].copy_from_slice(rest);
        let mut largest = last;
        for logits in rows {
            for (largest, &logit) in largest.iter_mut().zip(logits) {
                // NaN is never larger; it shows in the sum.
                *largest = if logit > *largest { logit } else { *largest };
            }
        }
        let mut most = f32::NEG_INFINITY;
        for largest in largest {
            most = if largest > most { largest } else { most };
        }
        self.most = most;
        let mut sums = [0.0; COLUMNS];
        self.weights.resize(rows.len() + 1, last);
        for (weights, logits) in self.weights.iter_mut().zip(rows.iter().chain([&last])) {
            for ((weight, sum), logit) in weights.iter_mut().zip(&mut sums).zip(logits) {
                *weight = exp(logit - most);
                *sum += *weight;
            }
        }
        for column in 1..COLUMNS {
            sums[column] += sums[column - 1];
        }
        self.sums = sums;
    }

    /// Where a uniform number lies among the weights, counted in them.
    #[inline(always)]
    pub(crate) fn place(&self, uniform: f32) -> usize {
        let total = self.sums[COLUMNS - 1];
        if !(total > 0.0 && total.is_finite()) {
            return 0;
        }
        let target = uniform * total;
        let column = self.sums.iter().filter(|&&sum| sum <= target).count();
        // Rounding: the last column that has any weight.
        let last = || self.sums.iter().filter(|&&sum| sum < total).count();
        let column = if column < COLUMNS { column } else { last() };
        let mut below = if column > 0 { self.sums[column - 1] } else { 0.0 };
        let mut at = 0;
        for (row, weights) in self.weights.iter().enumerate() {
            below += weights[column];
            if weights[column] > 0.0 {
                at = row * COLUMNS + column;
                if below > target {
                    break;
                }
            }
        }
        at
    }
}

/// Whether a logit is of a token that may be drawn.
pub(super) fn is_left(logit: f32) -> bool {
    logit > UNSEEN
}

/// Logits without those of tokens that do not go with what was drawn before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masked {
    logits: Vec<f32>,
    /// What a list took away.
    taken: Vec<u32>,
}

impl Masked {
    /// The logits, those of some tokens minus infinity; a list after which nothing would be
    /// left does not count.
    #[inline(always)]
    pub(crate) fn without<'a>(
        &'a mut self,
        logits: &'a [f32],
        lists: impl Iterator<Item = &'a Vec<u32>>,
    ) -> &'a [f32] {
        self.logits.clear();
        let mut left = 0;
        for list in lists.filter(|list| !list.is_empty()) {
            if self.logits.is_empty() {
                self.logits.extend_from_slice(logits);
                left = logits.iter().filter(|logit| is_left(**logit)).count();
            }
            self.taken.clear();
            for &token in list {
                if let Some(logit) = self.logits.get_mut(token as usize).filter(|l| is_left(**l)) {
                    *logit = f32::NEG_INFINITY;
                    self.taken.push(token);
                }
            }
            if self.taken.len() < left {
                left -= self.taken.len();
            } else {
                let back = self.taken.iter().map(|&token| token as usize);
                back.for_each(|token| self.logits[token] = logits[token]);
            }
        }
        if self.logits.is_empty() { logits } else { &self.logits }
    }
}

#[cfg(test)]
mod tests {
    use ns_model_format::random::{Purpose, Stream};

    use super::*;

    #[test]
    fn draws_follow_the_probabilities() {
        let few = [3_u32, 17, 30, 39];
        for (size, allowed) in [(3, None), (16, None), (37, None), (120, None), (40, Some(few))] {
            let logits: Vec<f32> = (0..size).map(|t| ((t * 7) % 11) as f32 / 3.0).collect();
            let allowed = allowed.as_ref().map(|allowed| &allowed[..]);
            let is_allowed = |t: usize| allowed.is_none_or(|a| a.contains(&(t as u32)));
            let weight = |t: usize| if is_allowed(t) { f64::from(logits[t]).exp() } else { 0.0 };
            let total: f64 = (0..size).map(weight).sum();
            let (mut sampler, mut counts) = (Sampler::default(), vec![0_u32; size]);
            let mut uniforms = Stream::new(1, Purpose::Steps, size as u64);
            let draws = 100_000;
            for _ in 0..draws {
                counts[sampler.draw(&logits, allowed, uniforms.uniform())] += 1;
            }
            for (token, &count) in counts.iter().enumerate() {
                let p = weight(token) / total;
                let error = (p * (1.0 - p) / f64::from(draws)).sqrt();
                let found = f64::from(count) / f64::from(draws);
                assert!((found - p).abs() <= 5.0 * error, "{token} of {size}: {found} {p}");
            }
        }
    }

    #[test]
    fn both_ends_are_tokens_with_weight() {
        let mut sampler = Sampler::default();
        let minus = f32::NEG_INFINITY;
        let logits = [minus, 1.0, 2.0, minus];
        assert_eq!([0.0, 1.0].map(|u| sampler.draw(&logits, None, u)), [1, 2]);
        let long: Vec<f32> = (0..100).map(|t| if t == 50 { 3.0 } else { minus }).collect();
        assert_eq!([0.0, 0.5, 1.0].map(|u| sampler.draw(&long, None, u)), [50; 3]);
    }

    #[test]
    fn what_does_not_go_together_is_left_out_unless_nothing_is_left() {
        let mut masked = Masked::default();
        let logits = [1.0, 2.0, 3.0];
        let minus = f32::NEG_INFINITY;
        let lists = [vec![1], vec![], vec![1, 9]];
        assert_eq!(masked.without(&logits, lists.iter()), [1.0, minus, 3.0]);
        assert_eq!(masked.without(&logits, [vec![]].iter()), logits);
        // The first of two that leave nothing counts.
        let all = [vec![0, 1], vec![2], vec![]];
        assert_eq!(masked.without(&logits, all.iter()), [minus, minus, 3.0]);
        // What no flow had is not left.
        let logits = [1.0, 2.0, -99.0];
        assert_eq!(masked.without(&logits, [vec![1], vec![0]].iter()), [1.0, minus, -99.0]);
    }

    #[test]
    fn broken_logits_give_the_first_token() {
        let mut sampler = Sampler::default();
        for logits in [[f32::NAN, 1.0], [1.0, f32::NAN], [f32::NEG_INFINITY; 2], [f32::INFINITY; 2]]
        {
            assert_eq!(sampler.draw(&logits, None, 0.9), 0);
        }
        assert_eq!(sampler.draw(&[f32::NAN; 5], Some(&[3, 4]), 0.9), 3);
        assert_eq!(sampler.draw(&[], None, 0.5), 0);
        assert_eq!(sampler.draw(&[1.0], Some(&[]), 0.5), 0);
    }
}
