//! The exponential function less 1, without the C library's, which is a call of some ten
//! nanoseconds and whose last bit is not the same everywhere.

/// e to the power of `x` less 1, to about 3e-16 of it.
#[inline]
pub(crate) fn exp_m1(x: f64) -> f64 {
    /// Adding it leaves a whole number in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    /// ln 2 in two parts, the first of so few bits that some thousand times it is exact.
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    // What is no number, or hardly one.
    if x.is_nan() || x.abs() > 700.0 {
        return x.exp_m1();
    }
    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = (x - whole * LN_2[0]) - whole * LN_2[1];
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
    // Taylor's series from the square on, up to half of ln 2: the terms by twos and fours, which
    // do not wait for one another.
    let term = |first: u64, second: u64| 1.0 / first as f64 + rest * (1.0 / second as f64);
    let square = rest * rest;
    let fourth = square * square;
    let low = term(2, 6) + square * term(24, 120);
    let middle = term(720, 5_040) + square * term(40_320, 362_880);
    let high = term(3_628_800, 39_916_800) + square * term(479_001_600, 6_227_020_800);
    let series = rest + square * (low + fourth * (middle + fourth * high));
    power * series + (power - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_close_to_the_exact_one() {
        for at in -400_000..=700_000 {
            let x = f64::from(at) / 1_000.0;
            let (found, expected) = (exp_m1(x), x.exp_m1());
            assert!((found - expected).abs() <= 4e-16 * expected.abs(), "{x}: {found} {expected}");
        }
        for exponent in 1..300 {
            let x = 10_f64.powi(-exponent);
            assert!((exp_m1(x) / x.exp_m1() - 1.0).abs() <= 4e-16, "{x}");
            assert!((exp_m1(-x) / (-x).exp_m1() - 1.0).abs() <= 4e-16, "{x}");
        }
        assert_eq!([exp_m1(0.0), exp_m1(f64::NEG_INFINITY)], [0.0, -1.0]);
        assert_eq!([exp_m1(710.0), exp_m1(f64::INFINITY)], [f64::INFINITY; 2]);
        assert!(exp_m1(f64::NAN).is_nan());
    }
}
