//! Maps of what is a hash already.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by hashes.
pub(crate) type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<Hashed>>;

/// A hash of some numbers.
#[inline(always)]
pub(crate) fn hash(numbers: impl Iterator<Item = u32>) -> u64 {
    numbers.fold(0, |hash: u64, number| {
        (hash.rotate_left(23) ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    })
}

/// A hash that is one already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a hash is a number");
    }

    fn write_u64(&mut self, hash: u64) {
        // The map takes the low bits.
        self.0 = hash ^ (hash >> 32);
    }
}
