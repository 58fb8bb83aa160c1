//! Draws for sixteen rows at once, each in a lane.
//!
//! Logits lie column by column, a token's of every row side by side, so that what is done for
//! a row (the largest, the exponentials, their sums, where a uniform number lies) is done for
//! all without anything across lanes: there is nothing to wait for, and no branch to guess.

use super::sample::{NotWith, SIXTEEN, Sixteen, is_left, larger};
use crate::kernels::{LANES, exp};

/// Some of sixteen rows, as bits.
pub(super) type Rows = u16;
const _: () = assert!(Rows::BITS as usize == LANES);

/// The first so many rows.
pub(super) fn first(rows: usize) -> Rows {
    Rows::MAX >> (LANES - rows)
}

/// The rows of some, one after the other.
#[inline(always)]
pub(super) fn each(mut rows: Rows) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = rows.trailing_zeros() as usize;
        rows &= rows.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}

/// Four rows as masks. Bits that are spread by arithmetic become branches.
const FOUR: [[u32; 4]; 16] = {
    let mut all = [[0; 4]; 16];
    let mut at = 0;
    while at < 64 {
        all[at / 4][at % 4] = if (at / 4) >> (at % 4) & 1 == 1 { u32::MAX } else { 0 };
        at += 1;
    }
    all
};

/// Rows as masks.
#[inline(always)]
fn spread(rows: Rows) -> [u32; LANES] {
    let mut all = [0; LANES];
    for (four, all) in all.as_chunks_mut().0.iter_mut().enumerate() {
        *all = FOUR[usize::from(rows >> (4 * four)) & 15];
    }
    all
}

/// What is drawn from, and how. One for all: it keeps the memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Draws {
    /// Token by token, the rows that cannot have it. Filled up to whole sixteens.
    taken: Vec<Rows>,
    tokens: usize,
    /// Each row's largest logit.
    most: [f32; LANES],
    /// Room for a list of tokens.
    pub(super) some: Vec<u32>,
    /// Token by token, each row's logits of what is left, then their weights' sums.
    left: Vec<[f32; LANES]>,
}

impl Draws {
    /// Begins with so many tokens, all of which every row can have.
    #[inline(always)]
    pub(super) fn begin(&mut self, tokens: usize) {
        self.tokens = tokens;
        self.taken.clear();
        self.taken.resize(tokens.next_multiple_of(SIXTEEN), 0);
    }

    /// Takes all tokens from a row but some.
    #[inline(always)]
    pub(super) fn leave(&mut self, tokens: &[u32], lane: usize) {
        self.taken.iter_mut().for_each(|taken| *taken |= 1 << lane);
        for &token in tokens {
            if let Some(taken) = self.taken.get_mut(token as usize) {
                *taken &= !(1 << lane);
            }
        }
    }

    /// Takes tokens from some rows.
    #[inline(always)]
    pub(super) fn take(&mut self, tokens: impl IntoIterator<Item = usize>, rows: Rows) {
        for token in tokens {
            self.taken[token] |= rows;
        }
    }

    /// Takes from some rows what does not go with a token that was drawn before.
    #[inline(always)]
    pub(super) fn take_with(&mut self, not_with: &NotWith, token: usize, rows: Rows) {
        let sixteens = self.taken.as_chunks_mut::<SIXTEEN>().0;
        for &Sixteen { at, bits } in not_with.of(token) {
            let Some(taken) = sixteens.get_mut(at as usize) else { continue };
            for (at, taken) in taken.iter_mut().enumerate() {
                *taken |= if bits >> at & 1 == 1 { rows } else { 0 };
            }
        }
    }

    /// Looks at the logits of what is left; the rows of which nothing is that a flow had.
    #[inline(always)]
    pub(super) fn look(&mut self, logits: &[[f32; LANES]]) -> Rows {
        let mut most = [f32::NEG_INFINITY; LANES];
        self.left.resize(logits.len(), most);
        for ((left, logits), &taken) in self.left.iter_mut().zip(logits).zip(&self.taken) {
            let mut these = *logits;
            let taken = spread(taken);
            for lane in 0..LANES {
                let logit = these[lane].to_bits() & !taken[lane];
                these[lane] = f32::from_bits(logit | taken[lane] & f32::NEG_INFINITY.to_bits());
                most[lane] = larger(most[lane], these[lane]);
            }
            *left = these;
        }
        self.most = most;
        let mut none = 0;
        for (lane, &most) in most.iter().enumerate() {
            none |= Rows::from(!is_left(most)) << lane;
        }
        none
    }

    /// Lets a row have all tokens, then takes away again, one after another, what leaves
    /// some. The largest logits are to be looked for again.
    #[cold]
    pub(super) fn mend(
        &mut self,
        logits: &[[f32; LANES]],
        lane: usize,
        always: impl FnOnce(&mut Draws),
        unless_all: impl Iterator<Item = impl FnOnce(&mut Draws)>,
    ) {
        let row = 1 << lane;
        self.taken.iter_mut().for_each(|taken| *taken &= !row);
        always(self);
        for take in unless_all {
            let before = self.taken.clone();
            take(self);
            if self.look(logits) & row != 0 {
                self.taken = before;
            }
        }
    }

    /// Each row's token at its uniform number (0 to 1) of the softmax's cumulative
    /// distribution, of those that were left at the last look; the first that was, where
    /// logits are broken.
    #[inline(always)]
    pub(super) fn draw(&mut self, uniforms: &[f32; LANES]) -> [u32; LANES] {
        let most = self.most;
        // Each token's weight and those before it, where the largest is 1.
        let mut total = [0.0; LANES];
        for left in &mut self.left {
            for lane in 0..LANES {
                total[lane] += exp(left[lane] - most[lane]);
            }
            *left = total;
        }
        // Below the last sum, whatever rounding does: the first token with a sum above that
        // has weight.
        let mut target = [0.0; LANES];
        for lane in 0..LANES {
            let (at, last) = (uniforms[lane] * total[lane], total[lane].next_down());
            target[lane] = if at < last { at } else { last };
        }
        // Written back, or the compiler would count row by row.
        let mut before = [0.0; LANES];
        for sums in &mut self.left {
            for lane in 0..LANES {
                before[lane] += if sums[lane] <= target[lane] { 1.0 } else { 0.0 };
            }
            *sums = before;
        }
        let mut tokens = [0; LANES];
        for lane in 0..LANES {
            let is_sound = total[lane] > 0.0 && total[lane] < f32::INFINITY;
            tokens[lane] = if is_sound { before[lane] as u32 } else { self.first_left(lane) };
        }
        tokens
    }

    #[cold]
    fn first_left(&self, lane: usize) -> u32 {
        let mut taken = self.taken[..self.tokens].iter();
        taken.position(|taken| taken >> lane & 1 == 0).unwrap_or(0) as u32
    }
}

#[cfg(test)]
mod tests {
    use ns_model_format::random::{Purpose, Stream};

    use super::*;

    const ALL: Rows = Rows::MAX;

    /// Logits of so many tokens, another row in every lane.
    fn logits(tokens: usize) -> Vec<[f32; LANES]> {
        let logit = |token: usize, lane: usize| ((token * 7 + lane) % 11) as f32 / 3.0;
        (0..tokens).map(|token| std::array::from_fn(|lane| logit(token, lane))).collect()
    }

    #[test]
    fn draws_follow_the_probabilities_of_what_is_left() {
        for (tokens, modulus) in [(1, 2), (3, 5), (16, 3), (120, 2)] {
            let logits = logits(tokens);
            let is_taken = |token: usize, lane: usize| (token + lane) % modulus == 1;
            let mut draws = Draws::default();
            draws.begin(tokens);
            for lane in 0..LANES {
                draws.take((0..tokens).filter(|&token| is_taken(token, lane)), 1 << lane);
            }
            let mut counts = vec![[0_u32; LANES]; tokens];
            let mut stream = Stream::new(1, Purpose::Steps, tokens as u64);
            let many = 20_000;
            for _ in 0..many {
                draws.look(&logits);
                let drawn = draws.draw(&std::array::from_fn(|_| stream.uniform()));
                (0..LANES).for_each(|lane| counts[drawn[lane] as usize][lane] += 1);
            }
            for lane in 0..LANES {
                let weight = |token: usize| {
                    let taken = tokens > 1 && is_taken(token, lane);
                    if taken { 0.0 } else { f64::from(logits[token][lane]).exp() }
                };
                let total: f64 = (0..tokens).map(weight).sum();
                for (token, counts) in counts.iter().enumerate() {
                    let p = weight(token) / total;
                    let error = (p * (1.0 - p) / f64::from(many)).sqrt();
                    let found = f64::from(counts[lane]) / f64::from(many);
                    assert!((found - p).abs() <= 5.0 * error, "{token} of {tokens}: {found} {p}");
                }
            }
        }
    }

    #[test]
    fn rows_do_not_depend_on_each_other() {
        let (mut draws, all) = (Draws::default(), logits(40));
        let uniforms: [f32; LANES] = std::array::from_fn(|lane| lane as f32 / 15.0);
        let mut draw = |logits: &[[f32; LANES]], uniforms| {
            draws.begin(logits.len());
            draws.look(logits);
            draws.draw(&uniforms)
        };
        let together = draw(&all, uniforms);
        for lane in 0..LANES {
            let alone: Vec<_> = all.iter().map(|logits| [logits[lane]; LANES]).collect();
            assert_eq!(draw(&alone, [uniforms[lane]; LANES]), [together[lane]; LANES]);
        }
    }

    #[test]
    fn both_ends_are_tokens_with_weight() {
        let (mut draws, mut stream) = (Draws::default(), Stream::new(3, Purpose::Steps, 0));
        for tokens in 1..100 {
            let mut logit = || match stream.uniform() {
                of if of < 0.8 => f32::NEG_INFINITY,
                of => 40.0 * of - 36.0,
            };
            let mut logits: Vec<[f32; LANES]> =
                (0..tokens).map(|_| std::array::from_fn(|_| logit())).collect();
            logits[tokens / 2] = [0.0; LANES];
            for at in 0..=500 {
                draws.begin(tokens);
                draws.look(&logits);
                let drawn = draws.draw(&[at as f32 / 500.0; LANES]);
                for (lane, token) in drawn.into_iter().enumerate() {
                    assert!(is_left(logits[token as usize][lane]), "{token} of {tokens} at {at}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_go_together_is_taken_of_the_rows_that_have_it() {
        let mut draws = Draws::default();
        let logits = vec![[0.0; LANES]; 50];
        let list: &[u32] = &[0, 15, 16, 31, 47, 48, 49, 70];
        let not_with = NotWith::new(&[list.to_vec(), Vec::new()]);
        draws.begin(50);
        draws.take_with(&not_with, 0, 0b101);
        draws.take_with(&not_with, 1, ALL);
        draws.take_with(&not_with, 2, ALL);
        draws.leave(&[3, 16, 99], 4);
        assert_eq!(draws.look(&logits), 0);
        for (token, left) in draws.left.iter().enumerate() {
            for (lane, &left) in left.iter().enumerate() {
                let expected = match lane {
                    0 | 2 => !list.contains(&(token as u32)),
                    4 => [3, 16].contains(&token),
                    _ => true,
                };
                assert_eq!(left == 0.0, expected, "{token} {lane}");
            }
        }
    }

    #[test]
    fn a_row_does_without_rules_that_leave_nothing() {
        let mut draws = Draws::default();
        // Token 3 is of no flow.
        let logits: Vec<_> = [1.0, 2.0, 3.0, -99.0].map(|logit| [logit; LANES]).into();
        let mut left = |always: &[usize], rules: &[&[usize]], lane: usize| -> Vec<usize> {
            draws.begin(4);
            draws.take(0..4, 1 << 2);
            let take = |tokens: &[usize]| {
                let tokens = tokens.to_vec();
                move |draws: &mut Draws| draws.take(tokens, 1 << lane)
            };
            let rules = rules.iter().map(|tokens| take(tokens));
            draws.mend(&logits, lane, take(always), rules);
            let none = draws.look(&logits);
            assert!(lane == 2 || none & 0b100 != 0, "another row's stay");
            (0..4).filter(|&token| draws.left[token][lane] > f32::NEG_INFINITY).collect()
        };
        for lane in [0, 2, 15] {
            assert_eq!(left(&[], &[&[0, 1], &[2], &[1]], lane), [2, 3]);
            assert_eq!(left(&[2], &[&[0, 1, 3], &[0]], lane), [1, 3]);
            // What holds always does, whatever is left.
            assert_eq!(left(&[0, 1, 2], &[&[3]], lane), [3]);
        }
    }

    #[test]
    fn broken_logits_give_the_first_token_that_is_left() {
        let mut draws = Draws::default();
        let mut draw = |logits: [f32; 3], taken: &[usize]| {
            let logits = logits.map(|logit| [logit; LANES]);
            draws.begin(3);
            draws.take(taken.iter().copied(), ALL);
            draws.look(&logits);
            let drawn = draws.draw(&[0.9; LANES]);
            assert_eq!(drawn, [drawn[0]; LANES]);
            drawn[0]
        };
        let [nan, all, none] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        for logits in [[nan, 1.0, 0.0], [0.0, nan, 1.0], [none; 3], [all; 3], [nan; 3]] {
            assert_eq!(draw(logits, &[]), 0);
            assert_eq!(draw(logits, &[0, 1]), 2);
        }
        assert_eq!(draw([-99.0, -99.0, none], &[]), 1);
        assert_eq!(draw([0.0; 3], &[0, 1, 2]), 0);
    }
}
