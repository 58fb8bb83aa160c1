use proptest::prelude::*;

use super::*;

fn between(distance: Distance, a: &Statistic, b: &Statistic) -> f64 {
    distance.between(a, b).expect("two of a kind")
}

fn uniform(from: u32, to: u32) -> Statistic {
    Statistic::numbers((from..to).map(f64::from))
}

#[test]
fn closed_forms_of_shifted_uniforms() {
    // 0..100 and 25..125: every unit of mass moves by 25, a quarter is never shared.
    let (a, b) = (uniform(0, 100), uniform(25, 125));
    assert!((between(Distance::Ks, &a, &b) - 0.25).abs() < 1e-12);
    assert!((between(Distance::W1, &a, &b) - 25.0).abs() < 1e-9);
    assert!((between(Distance::W1Range, &a, &b) - 25.0 / 99.0).abs() < 1e-9);
    // Of different sizes: 0 and 1 against 0, 0, 1, 1, 1, 1: half against a third at 0.
    let (a, b) = (Statistic::numbers([0.0, 1.0]), Statistic::numbers([0., 0., 1., 1., 1., 1.]));
    assert!((between(Distance::W1, &a, &b) - (0.5 - 1.0 / 3.0)).abs() < 1e-12);
}

#[test]
fn the_scale_of_logarithms_is_the_real_one() {
    // ln(1 + x) of 0 and e - 1 is 0 and 1: a deviation of 1/2; e - 1 alone is 1/2 away.
    let x = std::f64::consts::E - 1.0;
    let (a, b) = (Statistic::numbers([0.0, x]), Statistic::numbers([x]));
    assert!((between(Distance::W1Log, &a, &b) - 1.0).abs() < 1e-12);
    // A constant has no deviation: it is not divided by.
    assert!((between(Distance::W1Log, &b, &a) - 0.5).abs() < 1e-12);
}

#[test]
fn closed_forms_of_tables() {
    let (a, b) = (Statistic::values([1, 1, 1, 2]), Statistic::values([1, 2, 2, 2]));
    assert!((between(Distance::Tv, &a, &b) - 0.5).abs() < 1e-12);
    // Shares 3/4, 1/4 against 1/4, 3/4, mixed 1/2, 1/2.
    let expected = 0.75 * (1.5_f64).ln() + 0.25 * (0.5_f64).ln();
    assert!((between(Distance::Jsd, &a, &b) - expected).abs() < 1e-12);
    // By rank they are the same.
    assert!(between(Distance::RankJsd, &a, &b).abs() < 1e-15);
    let far = Statistic::values([7, 8]);
    assert!((between(Distance::Jsd, &a, &far) - std::f64::consts::LN_2).abs() < 1e-12);
    assert!((between(Distance::Tv, &a, &far) - 1.0).abs() < 1e-12);
    assert_eq!(Statistic::dense(&[0, 3, 1]), a);
}

#[test]
fn figures_are_compared_one_by_one() {
    let (a, b) = (Statistic::Figures(vec![1.0, -4.0, f64::NAN]), Statistic::figure(2.0));
    let b = match b {
        Statistic::Figures(mut figures) => {
            figures.extend([-2.0, 5.0]);
            Statistic::Figures(figures)
        }
        other => other,
    };
    assert!((between(Distance::Absolute, &a, &b) - 1.5).abs() < 1e-12);
    assert!((between(Distance::Relative, &a, &b) - 0.75).abs() < 1e-12);
}

#[test]
fn nothing_is_as_far_as_can_be_and_nothing_real_has_no_distance() {
    let (numbers, none) = (uniform(10, 20), Statistic::numbers([]));
    assert_eq!(between(Distance::Ks, &numbers, &none), 1.0);
    assert!((between(Distance::W1, &numbers, &none) - 14.5).abs() < 1e-9);
    let (values, no_values) = (Statistic::values([1, 2]), Statistic::values([]));
    assert_eq!(between(Distance::Jsd, &values, &no_values), std::f64::consts::LN_2);
    assert_eq!(between(Distance::Tv, &values, &no_values), 1.0);
    // A constant has no deviation, though its mean is rounded; what overflows is no distance.
    let (constant, other) = (Statistic::numbers([0.1; 599]), Statistic::numbers([0.3]));
    assert!(between(Distance::W1Log, &constant, &other) < 1.0);
    assert_eq!(
        Distance::W1.between(&Statistic::numbers([1e308]), &Statistic::numbers([-1e308])),
        None
    );
    assert_eq!(Distance::Ks.between(&none, &numbers), None);
    assert_eq!(Distance::Tv.between(&no_values, &values), None);
    assert_eq!(Distance::Tv.between(&numbers, &values), None);
    assert_eq!(Distance::Absolute.between(&Statistic::figure(f64::NAN), &values), None);
}

#[test]
fn correlations() {
    let a = [1.0, 2.0, 3.0, 4.0];
    assert!((pearson(&a, &[2.0, 4.0, 6.0, 8.0]) - 1.0).abs() < 1e-12);
    assert!((pearson(&a, &[1.0, -1.0, -1.0, 1.0])).abs() < 1e-12);
    assert_eq!(pearson(&a, &[5.0; 4]), 0.0);
    assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [2.5, 0.0, 2.5, 1.0]);
}

proptest! {
    #[test]
    fn properties_of_numbers(
        a in prop::collection::vec(-1e3_f64..1e3, 1..60),
        b in prop::collection::vec(-1e3_f64..1e3, 1..60),
    ) {
        let (a, b) = (Statistic::numbers(a), Statistic::numbers(b));
        for distance in [Distance::Ks, Distance::W1, Distance::W1Range, Distance::W1Log] {
            prop_assert_eq!(between(distance, &a, &a), 0.0);
            prop_assert!(between(distance, &a, &b) >= 0.0);
        }
        for distance in [Distance::Ks, Distance::W1] {
            let (there, back) = (between(distance, &a, &b), between(distance, &b, &a));
            prop_assert!((there - back).abs() < 1e-9, "{} {}", there, back);
        }
        prop_assert!(between(Distance::Ks, &a, &b) <= 1.0);
    }

    #[test]
    fn properties_of_tables(
        a in prop::collection::vec(0_u64..9, 1..60),
        b in prop::collection::vec(0_u64..9, 1..60),
        c in prop::collection::vec(0_u64..9, 1..60),
    ) {
        let (a, b, c) = (Statistic::values(a), Statistic::values(b), Statistic::values(c));
        for distance in [Distance::Jsd, Distance::RankJsd, Distance::Tv] {
            prop_assert!(between(distance, &a, &a).abs() < 1e-15);
            let (there, back) = (between(distance, &a, &b), between(distance, &b, &a));
            prop_assert!(there >= 0.0 && (there - back).abs() < 1e-12);
            // TV is a metric, and so is the root of the divergence.
            let root = |d: f64| if distance == Distance::Tv { d } else { d.sqrt() };
            let around = root(between(distance, &a, &c)) + root(between(distance, &c, &b));
            prop_assert!(root(there) <= around + 1e-9);
        }
        prop_assert!(between(Distance::Jsd, &a, &b) <= std::f64::consts::LN_2 + 1e-12);
        let (jsd, tv) = (between(Distance::Jsd, &a, &b), between(Distance::Tv, &a, &b));
        prop_assert!(jsd <= tv * std::f64::consts::LN_2 + 1e-12, "Lin 1991: JSD <= TV ln 2");
    }
}
