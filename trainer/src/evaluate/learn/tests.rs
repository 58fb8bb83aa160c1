use proptest::prelude::*;

use super::*;

fn stream(index: u64) -> Stream {
    Stream::new(1, Purpose::Evaluation, index)
}

/// Standard normal features.
fn normal(rows: usize, cols: usize, index: u64) -> Matrix {
    let mut stream = stream(index);
    let values = (0..rows * cols).map(|_| f64::from(stream.normal())).collect();
    Matrix { rows, cols, values }
}

/// Rows of `classes` classes, labelled 10, 20 and so on: feature `c` of a row
/// of class `c` is 4 standard deviations larger. One feature more is constant.
fn blobs(rows: usize, classes: usize, cols: usize, index: u64) -> (Matrix, Vec<u32>) {
    let mut matrix = normal(rows, cols, index);
    let mut stream = stream(index + 1000);
    let labels: Vec<usize> = (0..rows).map(|_| stream.below(classes)).collect();
    for (row, class) in matrix.values.chunks_mut(cols).zip(&labels) {
        row[*class] += 4.0;
        row[cols - 1] = 0.1;
    }
    (matrix, labels.into_iter().map(|class| 10 * (class as u32 + 1)).collect())
}

#[test]
fn areas_in_closed_form() {
    let positive = [false, false, true, true];
    assert_eq!(auc(&[0.1, 0.4, 0.35, 0.8], &positive), 0.75);
    assert_eq!(auc(&[1.0, 2.0, 3.0, 4.0], &positive), 1.0);
    assert_eq!(auc(&[4.0, 3.0, 2.0, 1.0], &positive), 0.0);
    assert_eq!(auc(&[7.0; 4], &positive), 0.5);
    // Of four pairs, two are right and one is a tie, of 0 with -0.
    assert_eq!(auc(&[0.0, 2.0, -0.0, 3.0], &positive), 2.5 / 4.0);
    assert!(auc(&[1.0, 2.0], &[true, true]).is_nan() && auc(&[], &[]).is_nan());
}

#[test]
fn rank_correlations_in_closed_form() {
    let a = [1.0, 2.0, 3.0, 4.0, 5.0];
    assert_eq!(spearman(&a, &[1.0, 4.0, 9.0, 16.0, 1e9]), Some(1.0));
    assert_eq!(spearman(&a, &[5.0, 4.0, 3.0, 2.0, 1.0]), Some(-1.0));
    // 1 - 6 * (sum of squared differences, 8) / (5 * 24).
    assert!((spearman(&a, &[2.0, 1.0, 4.0, 5.0, 3.0]).unwrap() - 0.6).abs() < 1e-12);
    // Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    let tied = spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    assert!((tied - 4.5 / (4.5_f64 * 5.0).sqrt()).abs() < 1e-12);
    assert_eq!(spearman(&[1.0], &[1.0]), None);
    assert_eq!(spearman(&[], &[]), None);
    assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
    assert_eq!(spearman(&[1.0, f64::NAN], &[1.0, 2.0]), None);
}

proptest! {
    #[test]
    fn areas_are_the_share_of_ordered_pairs(
        pairs in proptest::collection::vec((0_u8..6, any::<bool>()), 0..40),
    ) {
        let (scores, positive): (Vec<f64>, Vec<bool>) =
            pairs.iter().map(|&(score, positive)| (f64::from(score), positive)).unzip();
        let of = |side| pairs.iter().filter(move |pair| pair.1 == side);
        let (mut won, mut all) = (0.0, 0.0);
        for above in of(true) {
            for below in of(false) {
                won += f64::from(above.0 > below.0) + f64::from(above.0 == below.0) / 2.0;
                all += 1.0;
            }
        }
        let area = auc(&scores, &positive);
        prop_assert!(area == won / all || area.is_nan() && all == 0.0);
    }

    #[test]
    fn learners_never_panic(
        (cols, values, labels) in (1_usize..4, 1_usize..12).prop_flat_map(|(cols, rows)| {
            let value = prop_oneof![
                Just(0.0), Just(1e100), Just(-1e100), Just(1e-300), Just(0.1), -1e3..1e3_f64,
            ];
            (
                Just(cols),
                proptest::collection::vec(value, 2 * rows * cols),
                proptest::collection::vec(0_u32..4, 2 * rows),
            )
        }),
        seed: u64,
    ) {
        let rows = labels.len() / 2;
        let (known, unknown) = values.split_at(rows * cols);
        let train = Matrix { rows, cols, values: known.to_vec() };
        let test = Matrix { rows, cols, values: unknown.to_vec() };
        for learner in Learner::ALL {
            let accuracy = accuracy(learner, &train, &labels[..rows], &test, &labels[rows..], seed);
            prop_assert!((0.0..=1.0).contains(&accuracy.unwrap()));
        }
        match two_sample_auc(&train, &test, seed) {
            Ok(area) => prop_assert!((0.0..=1.0).contains(&area)),
            Err(error) => prop_assert!(rows < 2, "{error}"),
        }
    }
}

#[test]
fn every_learner_learns() {
    let (train, labels) = blobs(600, 4, 6, 1);
    let (test, test_labels) = blobs(600, 4, 6, 2);
    for learner in Learner::ALL {
        let accuracy = accuracy(learner, &train, &labels, &test, &test_labels, 1).unwrap();
        // The best possible is about .99; one tree cuts along the axes.
        assert!(accuracy > 0.9, "{}: {accuracy}", learner.name());
    }
}

#[test]
fn a_seed_says_it_all() {
    let (train, labels) = blobs(200, 3, 5, 3);
    // Labels that cannot be learned show every difference between two models.
    let (test, _) = blobs(200, 3, 5, 4);
    let mut random = stream(5);
    let test_labels: Vec<u32> = (0..200).map(|_| 10 * (random.below(3) as u32 + 1)).collect();
    for learner in Learner::ALL {
        let run = || accuracy(learner, &train, &labels, &test, &test_labels, 9).unwrap();
        assert_eq!(run(), run(), "{}", learner.name());
    }
    let (a, b) = (normal(200, 4, 6), normal(200, 4, 7));
    let area = |seed| two_sample_auc(&a, &b, seed).unwrap();
    assert_eq!(area(1), area(1));
    assert_ne!(area(1), area(2));
}

#[test]
fn labels_that_training_lacks_are_wrong() {
    let (train, labels) = blobs(300, 2, 4, 8);
    let (test, mut test_labels) = blobs(300, 2, 4, 9);
    test_labels.iter_mut().skip(150).for_each(|label| *label = 7);
    for learner in Learner::ALL {
        let accuracy = accuracy(learner, &train, &labels, &test, &test_labels, 1).unwrap();
        assert!((0.45..=0.5).contains(&accuracy), "{}: {accuracy}", learner.name());
        // The only label is predicted.
        let only = super::accuracy(learner, &train, &[20; 300], &test, &test_labels, 1).unwrap();
        let share = test_labels.iter().filter(|&&label| label == 20).count() as f64 / 300.0;
        assert_eq!(only, share);
    }
}

#[test]
fn constant_features_leave_the_commonest_label() {
    let constant = Matrix { rows: 30, cols: 2, values: vec![0.1; 60] };
    let mut labels = vec![3; 30];
    labels[..10].fill(5);
    // Neighbours at the same distance are any.
    for learner in Learner::ALL.into_iter().filter(|&l| l != Learner::NearestNeighbours) {
        let accuracy = accuracy(learner, &constant, &labels, &constant, &labels, 1).unwrap();
        assert!((accuracy - 2.0 / 3.0).abs() < 1e-12, "{}: {accuracy}", learner.name());
    }
    assert_eq!(two_sample_auc(&constant, &constant, 1).unwrap(), 0.5);
}

#[test]
fn samples_of_one_distribution_cannot_be_told_apart() {
    // 2 x 2000 rows: an area over 1000 and 1000 rows has a standard error of
    // .013, the mean of two .009.
    let area = two_sample_auc(&normal(2000, 8, 10), &normal(2000, 8, 11), 1).unwrap();
    assert!((0.45..0.55).contains(&area), "{area}");
}

#[test]
fn samples_that_differ_are_told_apart() {
    let (a, mut b) = (normal(500, 8, 12), normal(300, 8, 13));
    b.values.iter_mut().step_by(8).for_each(|value| *value += 6.0);
    let area = two_sample_auc(&a, &b, 1).unwrap();
    assert!(area > 0.99, "{area}");
    // Features alike one by one, but tied to each other in one sample only.
    let (a, mut tied) = (normal(1000, 2, 14), normal(1000, 2, 15));
    tied.values.chunks_mut(2).for_each(|row| row[1] = row[0]);
    let area = two_sample_auc(&a, &tied, 1).unwrap();
    assert!(area > 0.9, "{area}");
}

#[test]
fn unusable_input_is_refused_with_its_numbers() {
    let (matrix, labels) = blobs(20, 2, 4, 16);
    let run = |train: &Matrix, test: &Matrix, labels: &[u32]| {
        Learner::ALL.map(|learner| {
            let trained = &vec![1; train.rows];
            accuracy(learner, train, trained, test, labels, 1).unwrap_err().to_string()
        })
    };
    let expect = |found: [String; 6], expected: &str| {
        assert!(found.iter().all(|error| error == expected), "{found:?}");
    };
    let none = Matrix { rows: 0, cols: 4, values: Vec::new() };
    let expected = "0 rows of 4 features, at least 1 of 1 are needed";
    expect(run(&none, &matrix, &labels), expected);
    expect(run(&matrix, &none, &[]), expected);
    let flat = Matrix { rows: 20, cols: 0, values: Vec::new() };
    expect(run(&flat, &flat, &labels), "20 rows of 0 features, at least 1 of 1 are needed");
    let short = Matrix { rows: 20, cols: 4, values: vec![0.0; 79] };
    expect(run(&matrix, &short, &labels), "matrix of 20 x 4: 79 values");
    expect(run(&matrix, &normal(20, 3, 17), &labels), "3 features, expected 4");
    expect(run(&matrix, &matrix, &labels[1..]), "19 labels for 20 rows");
    for value in [f64::NAN, f64::INFINITY, -1e101] {
        let mut odd = matrix.clone();
        odd.values[9] = value;
        let expected = format!("feature 1 of row 2: {value} is not within 1e100 of 0");
        expect(run(&odd, &matrix, &labels), &expected);
        expect(run(&matrix, &odd, &labels), &expected);
        assert_eq!(two_sample_auc(&matrix, &odd, 1).unwrap_err().to_string(), expected);
    }
    let one = normal(1, 4, 18);
    let error = two_sample_auc(&matrix, &one, 1).unwrap_err().to_string();
    assert_eq!(error, "1 rows of 4 features, at least 2 of 1 are needed");
}
