//! The widest vectors that this CPU has, for kernels on either side.

/// Whether this CPU has fused multiply-adds, and vectors to do many at once.
#[must_use]
pub fn has_fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}

/// Whether it has vectors of 512 bits.
#[must_use]
pub fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Runs `work` compiled for the widest vectors this CPU has.
///
/// The numbers are those of any other CPU: a compiler never makes a fused multiply-add of a
/// product and a sum, and `mul_add` is exact about its rounding everywhere.
///
/// `work` must be `#[inline(always)]`, and all it calls: what is left out of line, as the
/// closures of `for_each` and its like may be, is compiled for the narrowest, and there a
/// fused multiply-add is a call.
#[inline]
pub fn wide<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
        fn avx512<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        if !has_fused() {
            return work();
        }
        // Sound: the features were detected on this CPU just above.
        #[allow(unsafe_code)]
        return match has_avx512() {
            true => unsafe { avx512(work) },
            false => unsafe { avx2(work) },
        };
    }
    #[cfg(not(target_arch = "x86_64"))]
    work()
}
