//! The two number types the networks run in: `f32` trains, `f64` tests.

use std::ops::Neg;

use candle_core::{CpuStorage, Result, WithDType};
pub(crate) use ns_model_format::wide::wide;

/// A floating-point number that kernels compute with.
pub(crate) trait Real: WithDType + Neg<Output = Self> {
    /// From a constant.
    fn of(value: f64) -> Self;
    /// Exponential; `f32` to about 2 units in the last place, in a form that vectorises.
    fn exponential(self) -> Self;
    /// Square root.
    fn root(self) -> Self;
    /// The numbers of a storage that may be written.
    fn values_mut(storage: &mut CpuStorage) -> Result<&mut [Self]>;

    /// Logistic function.
    #[inline(always)]
    fn logistic(self) -> Self {
        Self::of(1.0) / (Self::of(1.0) + (-self).exponential())
    }

    /// Hyperbolic tangent, to about one unit in the last place of 1.
    #[inline(always)]
    fn hyperbolic_tangent(self) -> Self {
        Self::of(1.0) - Self::of(2.0) / (Self::of(1.0) + (self + self).exponential())
    }

    /// The greater of two; a NaN on either side may be dropped.
    #[inline(always)]
    fn greater(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

impl Real for f32 {
    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }

    /// `2^k * e^r` with `|r| <= ln(2) / 2` and the Taylor polynomial of degree 7
    /// for `e^r`. The standard library's `exp` is a call a value, which no
    /// compiler vectorises.
    #[inline(always)]
    fn exponential(self) -> f32 {
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts: the first has few enough bits that k * LN2_HIGH is exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        // Written as comparisons so that a NaN stays one.
        let x = if self > 88.0 { 88.0 } else { self };
        let x = if x < -87.0 { -87.0 } else { x };
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let k = shifted - ROUND;
        let r = x - k * LN2_HIGH - k * LN2_LOW;
        let p = 1.0 / 5040.0;
        let p = p * r + 1.0 / 720.0;
        let p = p * r + 1.0 / 120.0;
        let p = p * r + 1.0 / 24.0;
        let p = p * r + 1.0 / 6.0;
        let p = p * r + 0.5;
        let p = p * r + 1.0;
        let p = p * r + 1.0;
        // The integer lies in the low bits of `shifted`: as an exponent, it is 2^k.
        let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
        p * power
    }

    #[inline(always)]
    fn root(self) -> f32 {
        self.sqrt()
    }

    fn values_mut(storage: &mut CpuStorage) -> Result<&mut [f32]> {
        match storage {
            CpuStorage::F32(values) => Ok(values),
            _ => candle_core::bail!("a kernel's tensors differ in type"),
        }
    }
}

impl Real for f64 {
    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }

    #[inline(always)]
    fn exponential(self) -> f64 {
        self.exp()
    }

    #[inline(always)]
    fn root(self) -> f64 {
        self.sqrt()
    }

    fn values_mut(storage: &mut CpuStorage) -> Result<&mut [f64]> {
        match storage {
            CpuStorage::F64(values) => Ok(values),
            _ => candle_core::bail!("a kernel's tensors differ in type"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_close_and_keeps_nan() {
        for step in -87_000..=88_000 {
            let x = f64::from(step) / 1000.0;
            let expected = f64::from(x as f32).exp();
            let error = (f64::from((x as f32).exponential()) / expected - 1.0).abs();
            assert!(error < 4e-7, "{x}: {error}");
        }
        assert!(f32::NAN.exponential().is_nan());
        assert!(f32::NAN.logistic().is_nan());
        assert_eq!(0f32.hyperbolic_tangent(), 0.0);
        assert_eq!(200f32.hyperbolic_tangent(), 1.0);
        assert_eq!((-200f32).hyperbolic_tangent(), -1.0);
        assert!((-200f32).logistic() < 1e-30);
    }
}
