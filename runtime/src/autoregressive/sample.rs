//! Draws tokens from logits.

use ns_model_format::autoregressive::UNSEEN;

use crate::kernels::exp;

/// Weights lie in so many columns, one token a column in turn, and are counted column by
/// column: as each is summed on its own, all are at once. So are the sums of the first two
/// columns, the first four and so on.
const COLUMNS: usize = 16;

/// Turns logits into weights and a uniform number into a token. One for all rows: it
/// keeps the memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampler {
    /// The softmax without its division.
    weights: Vec<[f32; COLUMNS]>,
    /// Zeros that the last row begins with, where rows before have its tokens.
    had: usize,
    /// Sums of the columns, and of all up to each.
    columns: [f32; COLUMNS],
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
        let whole = logits.len().saturating_sub(1) / COLUMNS;
        let rows = &logits.as_chunks::<COLUMNS>().0[..whole];
        let had = (whole + 1) * COLUMNS - logits.len();
        let last = last_row(logits, had);
        let mut largest = last;
        for logits in rows {
            for at in 0..COLUMNS {
                largest[at] = larger(largest[at], logits[at]);
            }
        }
        // Halves against each other: one after another would take several times as long.
        halve::<8>(&mut largest);
        halve::<4>(&mut largest);
        halve::<2>(&mut largest);
        halve::<1>(&mut largest);
        let most = largest[0];
        self.most = most;
        let mut columns = [0.0; COLUMNS];
        self.weights.resize(rows.len() + 1, last);
        for (weights, logits) in self.weights.iter_mut().zip(rows.iter().chain([&last])) {
            for at in 0..COLUMNS {
                weights[at] = exp(logits[at] - most);
                columns[at] += weights[at];
            }
        }
        let mut sums = columns;
        add_below::<1>(&mut sums);
        add_below::<2>(&mut sums);
        add_below::<4>(&mut sums);
        add_below::<8>(&mut sums);
        (self.had, self.columns, self.sums) = (had, columns, sums);
    }

    /// Where a uniform number lies among the weights, counted in them.
    #[inline(always)]
    pub(crate) fn place(&self, uniform: f32) -> usize {
        let total = self.sums[COLUMNS - 1];
        if !(total > 0.0 && total.is_finite()) {
            return 0;
        }
        let target = uniform * total;
        let has_weight = |at: &usize| self.columns[*at] > 0.0;
        let mut column = self.sums.iter().filter(|&&sum| sum <= target).count();
        // Rounding: a column without weight, or past the last.
        if column >= COLUMNS || !has_weight(&column) {
            let before = (0..column.min(COLUMNS)).rev().find(has_weight);
            column = before.or_else(|| (column..COLUMNS).find(has_weight)).unwrap_or(0);
        }
        let mut below = if column > 0 { self.sums[column - 1] } else { 0.0 };
        let mut at = 0;
        for (row, weights) in self.weights.iter().enumerate() {
            below += weights[column];
            if weights[column] > 0.0 {
                at = row;
                if below > target {
                    break;
                }
            }
        }
        let had = if at + 1 == self.weights.len() { self.had } else { 0 };
        at * COLUMNS + column - had
    }
}

/// A row that ends with the last logit, without the `had` that it begins with.
#[inline(always)]
fn last_row(logits: &[f32], had: usize) -> [f32; COLUMNS] {
    let mut row = [f32::NEG_INFINITY; COLUMNS];
    match logits.last_chunk::<COLUMNS>() {
        Some(last) => row = *last,
        None => row[had..].copy_from_slice(logits),
    }
    for (at, logit) in row.iter_mut().enumerate() {
        *logit = if at < had { f32::NEG_INFINITY } else { *logit };
    }
    row
}

/// The larger of each of the first `HALF` columns and the one so many after it.
#[inline(always)]
fn halve<const HALF: usize>(largest: &mut [f32; COLUMNS]) {
    for at in 0..HALF {
        largest[at] = larger(largest[at], largest[at + HALF]);
    }
}

/// Adds to each column the one that is so many before it.
#[inline(always)]
fn add_below<const BEFORE: usize>(sums: &mut [f32; COLUMNS]) {
    let below = *sums;
    for at in BEFORE..COLUMNS {
        sums[at] += below[at - BEFORE];
    }
}

/// The larger of two; the first where one is NaN, which shows in the sum.
#[inline(always)]
pub(super) fn larger(one: f32, other: f32) -> f32 {
    if other > one { other } else { one }
}

/// Whether a logit is of a token that may be drawn.
#[inline(always)]
pub(super) fn is_left(logit: f32) -> bool {
    logit > UNSEEN
}

/// For each token of a variable or head, those of a later one that do not go with it.
#[derive(Clone, Debug)]
pub(crate) struct NotWith(Vec<Vec<Sixteen>>);

/// Some of sixteen tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sixteen {
    /// How many sixteens come before them.
    pub(super) at: u32,
    pub(super) bits: u16,
}

pub(super) const SIXTEEN: usize = u16::BITS as usize;

impl NotWith {
    /// Of lists that ascend.
    pub(crate) fn new(lists: &[Vec<u32>]) -> NotWith {
        let some = |list: &Vec<u32>| {
            let of = |token: &u32| token / u16::BITS;
            let bit = |token: &u32| 1 << (token % u16::BITS);
            let runs = list.chunk_by(|one, next| of(one) == of(next));
            let bits = |run: &[u32]| run.iter().fold(0, |bits, token| bits | bit(token));
            runs.map(|run| Sixteen { at: of(&run[0]), bits: bits(run) }).collect()
        };
        NotWith(lists.iter().map(some).collect())
    }

    pub(super) fn of(&self, token: usize) -> &[Sixteen] {
        self.0.get(token).map_or(&[], Vec::as_slice)
    }
}

/// Logits without those of tokens that do not go with what was drawn before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masked {
    logits: Vec<f32>,
    /// Bits of those that are taken away, sixteen by sixteen.
    taken: Vec<u16>,
}

impl Masked {
    /// The logits, those of tokens that do not go with the given ones minus infinity; what does
    /// not go with a token does not count if without it nothing would be left.
    #[inline(always)]
    pub(crate) fn without<'a>(
        &'a mut self,
        logits: &'a [f32],
        before: impl Iterator<Item = (&'a NotWith, usize)> + Clone,
    ) -> &'a [f32] {
        self.taken.clear();
        self.taken.resize(logits.len().div_ceil(SIXTEEN), 0);
        for (not_with, token) in before.clone() {
            self.add(not_with.of(token));
        }
        if self.taken.iter().all(|taken| *taken == 0) {
            return logits;
        }
        if !self.take(logits) {
            self.take_some(logits, before);
        }
        &self.logits
    }

    /// The same where not all that does not go together counts.
    #[cold]
    fn take_some<'a>(
        &mut self,
        logits: &[f32],
        before: impl Iterator<Item = (&'a NotWith, usize)>,
    ) {
        self.taken.fill(0);
        for (not_with, token) in before {
            let kept = self.taken.clone();
            self.add(not_with.of(token));
            if !self.take(logits) {
                self.taken = kept;
            }
        }
        self.take(logits);
    }

    /// Has some more taken away.
    #[inline(always)]
    fn add(&mut self, list: &[Sixteen]) {
        for &Sixteen { at, bits } in list {
            if let Some(taken) = self.taken.get_mut(at as usize) {
                *taken |= bits;
            }
        }
    }

    /// Makes logits of which some are taken away; whether any are left.
    #[inline(always)]
    fn take(&mut self, logits: &[f32]) -> bool {
        self.logits.clear();
        self.logits.resize(logits.len(), f32::NEG_INFINITY);
        let mut is_any = false;
        let rows = self.logits.chunks_mut(SIXTEEN).zip(logits.chunks(SIXTEEN));
        for ((out, logits), &taken) in rows.zip(&self.taken) {
            for (at, (out, &logit)) in out.iter_mut().zip(logits).enumerate() {
                *out = if taken >> at & 1 == 1 { f32::NEG_INFINITY } else { logit };
                is_any |= is_left(*out);
            }
        }
        is_any
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
    fn no_token_without_weight_is_drawn() {
        let (mut sampler, mut stream) = (Sampler::default(), Stream::new(3, Purpose::Steps, 0));
        for size in 1..100 {
            let logit = |_| match stream.uniform() {
                of if of < 0.8 => f32::NEG_INFINITY,
                of => 40.0 * of - 36.0,
            };
            let mut logits: Vec<f32> = (0..size).map(logit).collect();
            logits[size / 2] = 0.0;
            sampler.weigh(&logits, None);
            for at in 0..=1_000 {
                let token = sampler.place(at as f32 / 1_000.0);
                assert!(is_left(logits[token]), "{token} of {size} at {at}");
            }
        }
    }

    #[test]
    fn what_does_not_go_together_is_left_out_unless_nothing_is_left() {
        let mut masked = Masked::default();
        let logits = [1.0, 2.0, 3.0];
        let minus = f32::NEG_INFINITY;
        // After token 0 of each of some variables, and after token 1.
        let not_with = |lists: &[&[u32]]| -> Vec<NotWith> {
            lists.iter().map(|list| NotWith::new(&[list.to_vec(), Vec::new()])).collect()
        };
        let mut first = |all: &[&[u32]], logits: &[f32], token| {
            let all = not_with(all);
            masked.without(logits, all.iter().map(|not_with| (not_with, token))).to_vec()
        };
        let lists: &[&[u32]] = &[&[1], &[], &[1, 9]];
        assert_eq!(first(lists, &logits, 0), [1.0, minus, 3.0]);
        assert_eq!([1, 2].map(|token| first(lists, &logits, token)), [logits; 2]);
        // The first of two that leave nothing counts.
        assert_eq!(first(&[&[0, 1], &[2], &[]], &logits, 0), [minus, minus, 3.0]);
        assert_eq!(first(&[&[0, 1, 2]], &logits, 0), logits);
        // What no flow had is not left.
        let logits = [1.0, 2.0, -99.0];
        assert_eq!(first(&[&[1], &[0]], &logits, 0), [1.0, minus, -99.0]);
        let none = [-99.0; 2];
        assert_eq!(first(&[&[1]], &none, 0), none);
        // Of many.
        let many: Vec<f32> = (0..50).map(|token| token as f32).collect();
        let taken = [0, 15, 16, 31, 47, 48, 49];
        let expected = |at: u32| if taken.contains(&at) { minus } else { at as f32 };
        let list: &[u32] = &[0, 15, 16, 31, 47, 48, 49];
        let not_with = NotWith::new(&[list.to_vec()]);
        let found = masked.without(&many, std::iter::once((&not_with, 0)));
        assert_eq!(found, (0..50).map(expected).collect::<Vec<f32>>());
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
