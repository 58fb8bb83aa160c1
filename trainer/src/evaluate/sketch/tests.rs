use proptest::prelude::*;

use super::*;

/// A stream of keys in which few are frequent: half of the draws are below 4.
fn keys() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(prop_oneof![0_u32..4, 0_u32..200], 0..600)
}

fn counts(keys: &[u32]) -> Vec<u64> {
    let mut counts = vec![0; 200];
    keys.iter().for_each(|&key| counts[key as usize] += 1);
    counts
}

fn filled(kind: Kind, counters: usize, seed: u64, keys: &[u32]) -> Sketch {
    let mut sketch = Sketch::new(kind, counters, seed);
    keys.iter().for_each(|&key| sketch.add(key));
    sketch
}

proptest! {
    #[test]
    fn count_min_never_underestimates_and_conservative_update_is_no_worse(
        keys in keys(), counters in 0_usize..300, seed: u64,
    ) {
        let plain = filled(Kind::CountMin, counters, seed, &keys);
        let conservative = filled(Kind::CountMinConservative, counters, seed, &keys);
        for (key, &count) in (0..).zip(&counts(&keys)) {
            prop_assert!(conservative.estimate(key) >= count as f64);
            prop_assert!(conservative.estimate(key) <= plain.estimate(key));
        }
    }

    #[test]
    fn space_saving_overestimates_by_at_most_its_share(keys in keys(), counters in 1_usize..100) {
        let sketch = filled(Kind::SpaceSaving, counters, 0, &keys);
        let bound = keys.len() as f64 / counters as f64;
        for (key, &count) in (0..).zip(&counts(&keys)) {
            let over = sketch.estimate(key) - count as f64;
            prop_assert!((0.0..=bound).contains(&over), "{over} {bound}");
        }
    }

    #[test]
    fn space_saving_keeps_its_order_and_its_sum(keys in keys(), counters in 1_usize..100) {
        let Sketch::SpaceSaving(sketch) = filled(Kind::SpaceSaving, counters, 0, &keys) else {
            unreachable!()
        };
        prop_assert!(sketch.counters.is_sorted_by_key(|counter| counter.1));
        prop_assert_eq!(sketch.counters.iter().map(|c| c.1).sum::<u64>(), keys.len() as u64);
        prop_assert!(sketch.places.iter().all(|(&key, &at)| sketch.counters[at].0 == Some(key)));
        let watched = sketch.counters.iter().filter(|counter| counter.0.is_some()).count();
        prop_assert_eq!(watched, sketch.places.len());
    }

    #[test]
    fn a_counter_for_every_key_makes_space_saving_exact(keys in keys()) {
        let error = estimation_error(keys.iter().copied(), Kind::SpaceSaving, 200, 0.0, &[1]);
        prop_assert_eq!(error, (!keys.is_empty()).then_some(0.0));
    }

    #[test]
    fn a_key_alone_is_counted_exactly(n in 1_usize..1000, key: u32, counters in 0_usize..64) {
        for kind in Kind::ALL {
            let sketch = filled(kind, counters, 7, &vec![key; n]);
            prop_assert_eq!(sketch.estimate(key), n as f64);
        }
    }
}

#[test]
fn count_sketch_is_unbiased() {
    // 100 keys with counts 1..=100 in 4 x 16 counters: an error of one row has
    // variance of at most 338,350 / 16, so the mean of 400 has a standard error
    // of at most 7.3 (a median varies less); the bound is four of these.
    let keys: Vec<u32> = (0..100).flat_map(|key| vec![key; key as usize + 1]).collect();
    let mean = |kind| {
        let errors = (0..400).map(|seed| filled(kind, 64, seed, &keys).estimate(49) - 50.0);
        errors.sum::<f64>() / 400.0
    };
    assert!(mean(Kind::CountSketch).abs() < 29.1, "{}", mean(Kind::CountSketch));
    // Count-min is not: the least of four rows is still far above.
    assert!(mean(Kind::CountMin) > 100.0, "{}", mean(Kind::CountMin));
}

#[test]
fn hashes_spread_dense_keys_evenly_and_signs_are_balanced() {
    let sketch = Hashed::new(Kind::CountSketch, 4 * 64, 3);
    for row in 0..DEPTH {
        let (mut loads, mut signs) = (vec![0_f64; 64], 0);
        for key in 0..64_000 {
            let (at, sign) = sketch.cells(key)[row];
            loads[at - row * 64] += 1.0;
            signs += sign;
        }
        // Chi-squared with 63 degrees of freedom: below 120 but once in 10^5.
        let chi: f64 = loads.iter().map(|load| (load - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 120.0, "{chi}");
        // Four standard deviations of the sum of 64,000 signs.
        assert!(signs.abs() < 1012, "{signs}");
    }
}

#[test]
fn heavy_hitters_have_the_share_or_more() {
    assert_eq!(heavy_hitters(&[10, 0, 85, 5], 0.1), [0, 2]);
    assert_eq!(heavy_hitters(&[10, 0, 85, 5], 0.0), [0, 2, 3]);
    assert!(heavy_hitters(&[1; 100], 0.02).is_empty());
    assert!(heavy_hitters(&[], 0.1).is_empty() && heavy_hitters(&[0, 0], 0.1).is_empty());
}

#[test]
fn errors_in_closed_form() {
    // One counter a row: count-min gives the whole stream's length, 10.
    let keys = || [0, 0, 0, 0, 0, 1, 1, 1, 1, 2].into_iter();
    let error = estimation_error(keys(), Kind::CountMin, 4, 0.4, &[1, 2, 3]);
    assert!((error.unwrap() - (5.0 / 5.0 + 6.0 / 4.0) / 2.0).abs() < 1e-12);
    // Two counters of space-saving: 2 takes the counter of 1, and has 5.
    let error = estimation_error(keys(), Kind::SpaceSaving, 2, 0.4, &[1, 2, 3]);
    assert!((error.unwrap() - (0.0 + 1.0 / 4.0) / 2.0).abs() < 1e-12);
    assert_eq!(estimation_error(keys(), Kind::CountMin, 4, 0.9, &[1]), None);
    assert_eq!(estimation_error(keys(), Kind::CountMin, 4, 0.4, &[]), None);
    assert_eq!(estimation_error(std::iter::empty(), Kind::CountSketch, 4, 0.1, &[1]), None);
}

#[test]
fn more_memory_errs_less() {
    // Counts that fall as 1 / rank, 2000 keys.
    let keys: Vec<u32> =
        (0..2000_u32).flat_map(|key| vec![key; 2000 / (key as usize + 1)]).collect();
    let seeds: Vec<u64> = (0..8).collect();
    for kind in Kind::ALL {
        let error = |counters| {
            let keys = keys.iter().copied();
            estimation_error(keys, kind, counters, 0.001, &seeds).unwrap()
        };
        assert!(error(4096) <= error(256) && error(4096) < 0.2, "{} {}", kind.name(), error(4096));
    }
}
