//! Standard normals from uniform draws (Box and Muller, 1958), many at a time.
//!
//! Every number is the same on every CPU, one at a time or many: no function is the C
//! library's, and what is computed in lanes is what is computed alone.

use crate::wide::wide;

/// Pairs that are made at once.
pub(crate) const PAIRS: usize = 16;

/// Uniform in the open interval (0, 1), 24 bits.
#[inline(always)]
pub(crate) fn uniform(draw: u32) -> f32 {
    // Rounding makes 1 of the largest.
    (((draw >> 8) as f32 + 0.5) * (1.0 / 16_777_216.0)).min(1.0_f32.next_down())
}

/// Two normals of two draws.
pub(crate) fn pair_alone(first: u32, second: u32) -> (f32, f32) {
    wide(
        #[inline(always)]
        || pair(first, second),
    )
}

/// The same, within [`wide`].
#[inline(always)]
fn pair(first: u32, second: u32) -> (f32, f32) {
    let radius = (-2.0 * ln(uniform(first))).sqrt();
    let (sin, cos) = sin_cos_of_turn(uniform(second));
    (radius * cos, radius * sin)
}

/// The same of many: of draws 0 and 1, 2 and 3, and so on.
pub(crate) fn pairs(draws: &[[u32; 2]; PAIRS], out: &mut [[f32; 2]; PAIRS]) {
    wide(
        #[inline(always)]
        || {
            let (mut first, mut second) = ([0.0; PAIRS], [0.0; PAIRS]);
            for at in 0..PAIRS {
                (first[at], second[at]) = pair(draws[at][0], draws[at][1]);
            }
            for at in 0..PAIRS {
                out[at] = [first[at], second[at]];
            }
        },
    );
}

/// The natural logarithm of a normal number above 0, to about 1e-7 of it.
#[inline(always)]
fn ln(x: f32) -> f32 {
    const MANTISSA: u32 = (1 << 23) - 1;
    let bits = x.to_bits();
    let mantissa = f32::from_bits(bits & MANTISSA | 1.0_f32.to_bits());
    let exponent = (bits >> 23) as i32 - 127;
    // Between half and twice the root of a half.
    let is_large = mantissa > std::f32::consts::SQRT_2;
    let mantissa = if is_large { 0.5 * mantissa } else { mantissa };
    let exponent = (exponent + i32::from(is_large)) as f32;
    // 2 artanh of this (at most 0.172), by its series.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = square.mul_add(1.0 / 9.0, 1.0 / 7.0);
    let series = square.mul_add(series, 1.0 / 5.0);
    let series = square.mul_add(series, 1.0 / 3.0);
    let double = 2.0 * s;
    let of_mantissa = (double * square).mul_add(series, double);
    exponent.mul_add(std::f32::consts::LN_2, of_mantissa)
}

/// Sine and cosine of so much of a whole turn, 0 to 1, to about 1e-7.
#[inline(always)]
fn sin_cos_of_turn(turn: f32) -> (f32, f32) {
    // The nearest quarter, and how far from it: at most an eighth of a turn. All of it exact.
    let quarter = (4.0 * turn + 0.5) as i32;
    let angle = (4.0 * turn - quarter as f32) * std::f32::consts::FRAC_PI_2;
    let square = angle * angle;
    // Taylor's series.
    let sin = square.mul_add(1.0 / 362_880.0, -1.0 / 5_040.0);
    let sin = square.mul_add(sin, 1.0 / 120.0);
    let sin = square.mul_add(sin, -1.0 / 6.0);
    let sin = (angle * square).mul_add(sin, angle);
    let cos = square.mul_add(-1.0 / 3_628_800.0, 1.0 / 40_320.0);
    let cos = square.mul_add(cos, -1.0 / 720.0);
    let cos = square.mul_add(cos, 1.0 / 24.0);
    let cos = square.mul_add(cos, -0.5);
    let cos = square.mul_add(cos, 1.0);
    let (is_odd, negates_sin, negates_cos) =
        (quarter & 1 == 1, quarter & 2 != 0, (quarter + 1) & 2 != 0);
    let (one, other) = if is_odd { (cos, sin) } else { (sin, cos) };
    (if negates_sin { -one } else { one }, if negates_cos { -other } else { other })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_close_to_exact_ones() {
        for draw in (0..1 << 24).step_by(61).chain([(1 << 24) - 1, (1 << 24) - 2]) {
            let x = uniform(draw << 8);
            assert!(0.0 < x && x < 1.0);
            let exact = f64::from(x).ln();
            assert!((f64::from(ln(x)) / exact - 1.0).abs() < 2e-7, "ln {x}: {} {exact}", ln(x));
            let (sin, cos) = sin_cos_of_turn(x);
            let (exact_sin, exact_cos) = (std::f64::consts::TAU * f64::from(x)).sin_cos();
            assert!((f64::from(sin) - exact_sin).abs() < 1.5e-7, "sin {x}: {sin} {exact_sin}");
            assert!((f64::from(cos) - exact_cos).abs() < 1.5e-7, "cos {x}: {cos} {exact_cos}");
        }
    }

    #[test]
    fn many_are_what_each_is_alone() {
        let mut draw = 12_345_u32;
        for _ in 0..200 {
            let draws = [[(); 2]; PAIRS].map(|pair| {
                pair.map(|()| {
                    draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    draw
                })
            });
            let mut out = [[0.0; 2]; PAIRS];
            pairs(&draws, &mut out);
            for ([one, other], [first, second]) in draws.into_iter().zip(out) {
                let alone = pair_alone(one, other);
                assert_eq!(
                    (alone.0.to_bits(), alone.1.to_bits()),
                    (first.to_bits(), second.to_bits())
                );
            }
        }
    }
}
