//! Draws tokens from logits.

/// Values summed at once.
const LANES: usize = 16;

/// Turns logits into weights and a uniform number into a token. One for all rows: it
/// keeps the memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sampler {
    /// The softmax without its division, zeros up to a multiple of [`LANES`].
    weights: Vec<f32>,
    sums: Vec<f32>,
}

impl Sampler {
    /// The token at `uniform` (0 to 1) of the softmax's cumulative distribution, of
    /// `allowed` ones only; token 0, or the first allowed, where logits are broken.
    pub(crate) fn draw(&mut self, logits: &[f32], allowed: Option<&[u32]>, uniform: f32) -> usize {
        let tokens = allowed.map_or(logits.len(), <[u32]>::len);
        self.weights.clear();
        match allowed {
            None => self.weights.extend_from_slice(logits),
            Some(allowed) => {
                let logit = |&token: &u32| logits.get(token as usize).copied();
                self.weights.extend(allowed.iter().map(|token| logit(token).unwrap_or(f32::NAN)));
            }
        }
        self.weights.resize(tokens.next_multiple_of(LANES), f32::NEG_INFINITY);
        let at = self.place(uniform);
        allowed.map_or(at, |allowed| allowed.get(at).map_or(0, |&token| token as usize))
    }

    fn place(&mut self, uniform: f32) -> usize {
        let mut largest = [f32::NEG_INFINITY; LANES];
        for logits in self.weights.chunks_exact(LANES) {
            for (largest, &logit) in largest.iter_mut().zip(logits) {
                // NaN is never larger; it shows in the sum.
                *largest = if logit > *largest { logit } else { *largest };
            }
        }
        let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
        self.sums.clear();
        let mut total = 0.0_f32;
        for weights in self.weights.chunks_exact_mut(LANES) {
            weights.iter_mut().for_each(|weight| *weight = exp(*weight - largest));
            total += sum(weights);
            self.sums.push(total);
        }
        if !(total > 0.0 && total.is_finite()) {
            return 0;
        }
        let target = uniform * total;
        let found = self.sums.iter().position(|&sum| sum > target);
        let block = found.unwrap_or(self.sums.len() - 1);
        let mut below = if block > 0 { self.sums[block - 1] } else { 0.0 };
        let weights = &self.weights[block * LANES..][..LANES];
        for (lane, weight) in weights.iter().enumerate() {
            below += weight;
            if below > target {
                return block * LANES + lane;
            }
        }
        // Rounding: the last that has any weight.
        let before = &self.weights[..(block + 1) * LANES];
        before.iter().rposition(|&weight| weight > 0.0).unwrap_or(0)
    }
}

/// Always in the same order.
fn sum(weights: &[f32]) -> f32 {
    let mut sums = [0.0; 4];
    for four in weights.chunks_exact(4) {
        sums.iter_mut().zip(four).for_each(|(sum, weight)| *sum += weight);
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// e to the power of `x`, which is at most 0, to about 1e-7; 0 below -87, NaN of NaN.
/// The same on every machine, and without a call or a branch, so that a loop over it is
/// done in lanes.
#[inline]
fn exp(x: f32) -> f32 {
    /// Adding it leaves a whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let within = if x < -87.0 { -87.0 } else { x };
    let shifted = within * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    // ln 2 in two parts, the first of few bits.
    let rest = (within - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    // Of a Taylor series up to half of ln 2.
    let series = 1.0 / 720.0;
    let series = series * rest + 1.0 / 120.0;
    let series = series * rest + 1.0 / 24.0;
    let series = series * rest + 1.0 / 6.0;
    let series = series * rest + 0.5;
    let series = series * rest + 1.0;
    let series = series * rest + 1.0;
    if x < -87.0 { 0.0 } else { series * power }
}

#[cfg(test)]
mod tests {
    use ns_model_format::random::{Purpose, Stream};

    use super::*;

    #[test]
    fn exp_is_the_exponential() {
        for at in 0..87_000 {
            let x = -(at as f32) / 1000.0;
            let expected = f64::from(x).exp();
            let found = f64::from(exp(x));
            assert!((found / expected - 1.0).abs() < 5e-7, "{x}: {found} {expected}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!([exp(-87.5), exp(f32::NEG_INFINITY)], [0.0; 2]);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn draws_follow_the_probabilities() {
        for (size, allowed) in [(3, None), (16, None), (37, None), (40, Some([3_u32, 17, 30, 39]))]
        {
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
