//! Which attributes recent flows have, so that no two flows are one by accident.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use ns_model_format::Value;

use crate::hashed::HashedMap;

/// Flows that are remembered at most.
const MOST: usize = 1 << 20;

/// Attributes of the flows that started within the last span, as hashes.
pub(crate) struct Distinct {
    span_ns: u64,
    most: usize,
    /// How many of the flows have them.
    seen: HashedMap<u32>,
    /// Starts and hashes, ascending in time.
    flows: VecDeque<(u64, u64)>,
}

impl Distinct {
    pub(crate) fn new(span_ns: u64) -> Distinct {
        Distinct { span_ns, most: MOST, seen: HashedMap::default(), flows: VecDeque::new() }
    }

    /// Forgets flows that started a span before `now_ns`.
    pub(crate) fn forget(&mut self, now_ns: u64) {
        while self.flows.len() > self.most
            || self
                .flows
                .front()
                .is_some_and(|(start, _)| start.saturating_add(self.span_ns) <= now_ns)
        {
            let Some((_, hash)) = self.flows.pop_front() else { return };
            if let Entry::Occupied(mut count) = self.seen.entry(hash) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    /// Takes attributes for a flow; whether no flow has them yet.
    pub(crate) fn claim(&mut self, hash: u64) -> bool {
        match self.seen.entry(hash) {
            Entry::Vacant(place) => {
                place.insert(0);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Remembers what a flow has, after [`Self::claim`]; in order of start.
    pub(crate) fn remember(&mut self, start_ns: u64, hash: u64) {
        *self.seen.entry(hash).or_insert(0) += 1;
        self.flows.push_back((start_ns, hash));
    }
}

/// A hash of values: two flows' are equal by chance once in 2^64.
pub(crate) fn hash(values: &[Value]) -> u64 {
    values.iter().fold(0, |hash, value| match value {
        Value::Int(number) => mix(hash, 1, *number as u64),
        Value::Float(number) => mix(hash, 2, number.to_bits()),
        Value::Text(index) => mix(hash, 3, u64::from(*index)),
        Value::Wide(wide) => {
            let number = u128::from(*wide);
            mix(mix(hash, 4, number as u64), 5, (number >> 64) as u64)
        }
        _ => mix(hash, 6, 0),
    })
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mix(hash: u64, kind: u64, value: u64) -> u64 {
    let mixed = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    mixed(mixed(hash.wrapping_add(kind.wrapping_mul(0x9E37_79B9_7F4A_7C15))) ^ value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_free_again_a_span_later() {
        let mut distinct = Distinct::new(100);
        assert!(distinct.claim(7));
        assert!(!distinct.claim(7));
        distinct.remember(10, 7);
        // One more had no choice.
        distinct.remember(50, 7);
        distinct.forget(110);
        assert!(!distinct.claim(7));
        distinct.forget(150);
        assert!(distinct.claim(7));
    }

    #[test]
    fn memory_is_bounded() {
        let mut distinct = Distinct { most: 10, ..Distinct::new(u64::MAX / 2) };
        for hash in 0..100 {
            assert!(distinct.claim(hash));
            distinct.remember(hash, hash);
            distinct.forget(hash);
        }
        assert_eq!((distinct.flows.len(), distinct.seen.len()), (10, 10));
    }

    #[test]
    fn hashes_differ_as_values_do() {
        let all = [
            vec![],
            vec![Value::Int(0)],
            vec![Value::Float(0.0)],
            vec![Value::Text(0)],
            vec![Value::Missing],
            vec![Value::Int(0), Value::Int(1)],
            vec![Value::Int(1), Value::Int(0)],
            vec![Value::Wide(1_u128.into())],
            vec![Value::Wide((1_u128 << 64).into())],
        ];
        let hashes: std::collections::HashSet<u64> = all.iter().map(|v| hash(v)).collect();
        assert_eq!(hashes.len(), all.len());
    }
}
