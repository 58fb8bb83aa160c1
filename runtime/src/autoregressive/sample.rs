//! From logits to tokens: draws for sixteen rows at once, each in a lane.
//!
//! Logits lie column by column, a token's of every row side by side, so that what is done for
//! a row (the largest, the exponentials, their sums, where a uniform number lies) is done for
//! all without anything across lanes: there is nothing to wait for, and no branch to guess.

use ns_model_format::autoregressive::UNSEEN;

use crate::kernels::{LANES, exp};

/// Some of sixteen rows, as bits.
pub(super) type LaneSet = u16;
const _: () = assert!(LaneSet::BITS as usize == LANES);

/// The first so many rows.
pub(super) fn first(rows: usize) -> LaneSet {
    LaneSet::MAX >> (LANES - rows)
}

/// The rows of some, one after the other.
#[inline(always)]
pub(super) fn lanes(mut rows: LaneSet) -> impl Iterator<Item = usize> {
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
fn masks(rows: LaneSet) -> [u32; LANES] {
    let mut all = [0; LANES];
    for (four, all) in all.as_chunks_mut().0.iter_mut().enumerate() {
        *all = FOUR[usize::from(rows >> (4 * four)) & 15];
    }
    all
}

/// For each token of a variable or head, those of a later one that do not go with it.
#[derive(Clone, Debug)]
pub(super) struct NotWith(Vec<Vec<Sixteen>>);

/// Some of sixteen tokens.
#[derive(Clone, Copy, Debug)]
struct Sixteen {
    /// How many sixteens come before them.
    at: u32,
    bits: u16,
}

const SIXTEEN: usize = u16::BITS as usize;

impl NotWith {
    /// Of lists that ascend.
    pub(super) fn new(lists: &[Vec<u32>]) -> NotWith {
        let some = |list: &Vec<u32>| {
            let of = |token: &u32| token / u16::BITS;
            let bit = |token: &u32| 1 << (token % u16::BITS);
            let runs = list.chunk_by(|one, next| of(one) == of(next));
            let bits = |run: &[u32]| run.iter().fold(0, |bits, token| bits | bit(token));
            runs.map(|run| Sixteen { at: of(&run[0]), bits: bits(run) }).collect()
        };
        NotWith(lists.iter().map(some).collect())
    }

    fn of(&self, token: usize) -> &[Sixteen] {
        self.0.get(token).map_or(&[], Vec::as_slice)
    }
}

/// Whether a logit is of a token that may be drawn.
#[inline(always)]
fn is_left(logit: f32) -> bool {
    logit > UNSEEN
}

/// The larger of two; the first where one is NaN, which shows in the sum.
#[inline(always)]
fn larger(one: f32, other: f32) -> f32 {
    if other > one { other } else { one }
}

/// What rows cannot have.
pub(super) trait Rules {
    /// Takes from rows what they can never have, but not all.
    fn always(&self, rows: LaneSet, draws: &mut Draws);

    /// How many rules there are that count unless they leave a row nothing.
    fn count(&self) -> usize;

    /// Takes from rows what a rule does.
    fn take(&self, rule: usize, rows: LaneSet, draws: &mut Draws);
}

/// What is drawn from, and how. One for all: it keeps the memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Draws {
    /// Token by token, the rows that cannot have it. Filled up to whole sixteens.
    taken: Vec<LaneSet>,
    tokens: usize,
    /// Each row's largest logit, and the sum of its weights.
    most: [f32; LANES],
    total: [f32; LANES],
    /// Token by token, each row's logits of what is left, then their weights' sums.
    left: Vec<[f32; LANES]>,
}

impl Draws {
    /// Begins with the logits of rows, and takes from them what rules do.
    #[inline(always)]
    pub(super) fn limit(&mut self, logits: &[[f32; LANES]], rows: LaneSet, rules: &impl Rules) {
        self.begin(logits.len());
        rules.always(rows, self);
        for rule in 0..rules.count() {
            rules.take(rule, rows, self);
        }
        let none = self.look(logits) & rows;
        if none != 0 {
            lanes(none).for_each(|lane| self.mend(logits, lane, rules));
            self.look(logits);
        }
    }

    /// Begins with so many tokens, all of which every row can have.
    #[inline(always)]
    fn begin(&mut self, tokens: usize) {
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
    pub(super) fn take(&mut self, tokens: impl IntoIterator<Item = usize>, rows: LaneSet) {
        for token in tokens {
            self.taken[token] |= rows;
        }
    }

    /// Takes from some rows what does not go with the token that each has drawn before.
    #[inline(always)]
    pub(super) fn take_without(
        &mut self,
        not_with: &NotWith,
        mut rows: LaneSet,
        token_of: impl Fn(usize) -> usize,
    ) {
        while let Some(lane) = lanes(rows).next() {
            let token = token_of(lane);
            let mut same = 0;
            for lane in lanes(rows) {
                same |= LaneSet::from(token_of(lane) == token) << lane;
            }
            self.take_with(not_with, token, same);
            rows &= !same;
        }
    }

    #[inline(always)]
    fn take_with(&mut self, not_with: &NotWith, token: usize, rows: LaneSet) {
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
    pub(super) fn look(&mut self, logits: &[[f32; LANES]]) -> LaneSet {
        let mut most = [f32::NEG_INFINITY; LANES];
        self.left.resize(logits.len(), most);
        for ((left, logits), &taken) in self.left.iter_mut().zip(logits).zip(&self.taken) {
            let mut these = *logits;
            let taken = masks(taken);
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
            none |= LaneSet::from(!is_left(most)) << lane;
        }
        none
    }

    /// Lets a row have all that it can ever have, then takes away again, one after another,
    /// what leaves some. The logits are to be looked at again.
    #[cold]
    fn mend(&mut self, logits: &[[f32; LANES]], lane: usize, rules: &impl Rules) {
        let row = 1 << lane;
        self.free(row);
        rules.always(row, self);
        for rule in 0..rules.count() {
            let before = self.taken.clone();
            rules.take(rule, row, self);
            let mut left = logits.iter().zip(&self.taken).filter(|(_, taken)| *taken & row == 0);
            if !left.any(|(logits, _)| is_left(logits[lane])) {
                self.taken = before;
            }
        }
    }

    /// Whether a row cannot have a token.
    pub(super) fn is_taken(&self, token: usize, lane: usize) -> bool {
        self.taken[token] >> lane & 1 == 1
    }

    /// Lets rows have all tokens.
    pub(super) fn free(&mut self, rows: LaneSet) {
        self.taken.iter_mut().for_each(|taken| *taken &= !rows);
    }

    /// Sums the weights of what was left at the last look.
    #[inline(always)]
    pub(super) fn sum(&mut self) {
        let most = self.most;
        // Each token's weight and those before it, where the largest is 1.
        let mut total = [0.0; LANES];
        for left in &mut self.left {
            for lane in 0..LANES {
                total[lane] += exp(left[lane] - most[lane]);
            }
            *left = total;
        }
        self.total = total;
    }

    /// The logarithm of a row's sum of all exponentials; no number where logits are broken, or
    /// there are none.
    pub(super) fn log_total(&self, lane: usize) -> f64 {
        f64::from(self.most[lane]) + f64::from(self.total[lane]).ln()
    }

    /// Each row's token at its uniform number (0 to 1) of the softmax's cumulative
    /// distribution; the first that is left, where logits are broken.
    #[inline(always)]
    pub(super) fn place(&mut self, uniforms: &[f32; LANES]) -> [u32; LANES] {
        let total = self.total;
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

    const ALL: LaneSet = LaneSet::MAX;

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
                draws.sum();
                let drawn = draws.place(&std::array::from_fn(|_| stream.uniform()));
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
            draws.sum();
            draws.place(&uniforms)
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
                draws.sum();
                let drawn = draws.place(&[at as f32 / 500.0; LANES]);
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

    /// Tokens that a row cannot have: always, and by each of some rules.
    struct Lists<'a>(&'a [&'a [usize]]);

    impl Rules for Lists<'_> {
        fn always(&self, rows: LaneSet, draws: &mut Draws) {
            draws.take(self.0[0].iter().copied(), rows);
        }

        fn count(&self) -> usize {
            self.0.len() - 1
        }

        fn take(&self, rule: usize, rows: LaneSet, draws: &mut Draws) {
            // Of odd rows alone.
            draws.take(self.0[1 + rule].iter().copied(), rows & 0xaaaa);
        }
    }

    #[test]
    fn a_row_does_without_rules_that_leave_nothing() {
        let mut draws = Draws::default();
        // Token 3 is of no flow.
        let logits: Vec<_> = [1.0, 2.0, 3.0, -99.0].map(|logit| [logit; LANES]).into();
        let mut left = |lists: &[&[usize]]| {
            draws.limit(&logits, ALL, &Lists(lists));
            let mut of_lane = (0..LANES).map(|lane| -> Vec<usize> {
                let is_left = |token: &usize| draws.left[*token][lane] > f32::NEG_INFINITY;
                (0..4).filter(is_left).collect()
            });
            let [even, odd] = [0, 1].map(|_| of_lane.next().unwrap());
            assert!(of_lane.enumerate().all(|(at, of)| of == [&even, &odd][at % 2][..]));
            [even, odd]
        };
        let all = vec![0, 1, 2, 3];
        assert_eq!(left(&[&[], &[0, 1], &[2], &[1]]), [all.clone(), vec![2, 3]]);
        assert_eq!(left(&[&[], &[0, 1, 2], &[0]]), [all, vec![1, 2, 3]]);
        assert_eq!(left(&[&[2], &[0, 1, 3], &[0]]), [vec![0, 1, 3], vec![1, 3]]);
        // What holds always does, whatever is left.
        assert_eq!(left(&[&[0, 1, 2], &[3]]), [vec![3], vec![3]]);
    }

    #[test]
    fn totals_are_of_what_is_left() {
        let (mut draws, logits) = (Draws::default(), logits(20));
        draws.begin(20);
        draws.take(5..20, 0b10);
        draws.look(&logits);
        draws.sum();
        for (lane, tokens) in [(0, 20), (1, 5)] {
            let sum: f64 = logits[..tokens].iter().map(|of| f64::from(of[lane]).exp()).sum();
            assert!((draws.log_total(lane) - sum.ln()).abs() < 1e-6);
        }
        draws.free(0b10);
        draws.take(0..20, 0b10);
        draws.look(&logits);
        draws.sum();
        assert!(!draws.log_total(1).is_finite());
    }

    #[test]
    fn broken_logits_give_the_first_token_that_is_left() {
        let mut draws = Draws::default();
        let mut draw = |logits: [f32; 3], taken: &[usize]| {
            let logits = logits.map(|logit| [logit; LANES]);
            draws.begin(3);
            draws.take(taken.iter().copied(), ALL);
            draws.look(&logits);
            draws.sum();
            let drawn = draws.place(&[0.9; LANES]);
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
