mod order;

use std::time::Duration;

use candle_core::Device;
use ns_model_format::Column;
use ns_model_format::autoregressive::{Applies, Head, RecordSays, Says, Variable};
use ns_model_format::codec::{TokenOptions, TokensCodec};
use ns_model_format::random::{Purpose, Stream};

use super::chain::{Chain, is_chain, shared_rows, variable};
use super::conditional::{self, ConditionalWeights, Parts};
use super::fit::{self, Options, RecordTraining};
use super::records::{RecordNetwork, Widths};
use super::tokens::Flows;
use crate::arrays::Arrays;
use crate::model::ops::threads::on_threads;

fn bins(count: usize) -> TokensCodec {
    let options =
        TokenOptions { most_values: 0, bins: count, integer: false, ..TokenOptions::default() };
    TokensCodec::of_numbers((0..=count).map(|n| n as f64).collect(), &options)
}

/// Two kinds of flows: kind 0 has one or two records of head token 0 and 1, kind 1 has three or four.
fn chain() -> Chain {
    let variable = |name: &str, size: usize, says: Says, parents: Vec<usize>| Variable {
        name: name.to_owned(),
        size,
        says,
        applies: None,
        told: None,
        file: (!parents.is_empty()).then(|| format!("{name}.onnx")),
        parents,
        absent: Vec::new(),
        contexts: Vec::new(),
    };
    let head = |name: &str, size: usize, says: RecordSays| Head {
        name: name.to_owned(),
        size,
        says,
        file: format!("{name}.onnx"),
        absent: Vec::new(),
    };
    let durations = bins(5);
    let gaps = bins(5);
    let all = |count: u32| vec![(0..count).collect(); 3];
    let chain = Chain {
        shared: Vec::new(),
        variables: vec![
            variable("start", 3, Says::Start { edges: vec![0.0, 0.3, 0.6, 1.0] }, vec![]),
            variable("kind", 2, Says::Field { field: 0, place: 0 }, vec![0]),
            variable("records", 4, Says::Count { tokens: TokensCodec::of_counts(4) }, vec![0, 1]),
            Variable {
                applies: Some(Applies { variable: 2, token: 0, equal: false }),
                ..variable("duration", 5, Says::Duration { tokens: durations }, vec![0, 1, 2])
            },
        ],
        heads: vec![
            head(
                "flags",
                4,
                RecordSays::Joint {
                    fields: vec![0],
                    combinations: (0..4).map(|token| vec![token]).collect(),
                    given: Some(1),
                    first: all(4),
                    later: all(4),
                    after: Vec::new(),
                    since: Vec::new(),
                    begins: Vec::new(),
                    room: Vec::new(),
                },
            ),
            head("length", 6, RecordSays::Field { field: 1, steps: Vec::new() }),
            head("gap", 5, RecordSays::Gap { tokens: gaps }),
        ],
    };
    let shared = chain.variables.iter().map(|v| shared_rows(v, None)).collect();
    Chain { shared, ..chain }
}

fn flows(count: usize) -> Flows {
    long_flows(count, 1)
}

/// The same, with so many times the records.
fn long_flows(count: usize, times: u32) -> Flows {
    let mut draws = Stream::new(3, Purpose::Evaluation, 0);
    let mut flows = Flows::default();
    let mut records = 0;
    for _ in 0..count {
        let kind = u32::from(draws.uniform() < 0.3);
        let length = 1 + 2 * kind + draws.below(2) as u32;
        let duration = if length == 1 { 5 } else { draws.below(5) as u32 };
        flows.attributes.extend([draws.below(3) as u32, kind, length - 1, duration]);
        let length = length * times;
        for record in 0..length {
            flows.records.extend([2 * kind + record % 2, draws.below(6) as u32, record.min(4)]);
            flows.since_us.push(record as f32 * (1.0 + duration as f32));
        }
        records += u64::from(length);
        flows.ends.push(records);
    }
    flows
}

const WIDTHS: Widths = Widths { context: 6, input: 5, hidden: 7, head: 4 };

#[test]
fn gradients_of_records_agree_with_differences() {
    // The longer ones are two shards, whose gradients are added; of the longest only the second
    // has records in the last window.
    let ends = vec![512, 1024, 1624, 2224];
    let mut longest = long_flows(4, 700);
    longest.records.truncate(3 * 2224);
    longest.since_us.truncate(2224);
    let longest = Flows { ends, ..longest };
    for (flows, count) in [(flows(5), 5), (long_flows(5, 60), 5), (longest, 4)] {
        let chain = chain();
        let mut network = RecordNetwork::new(&chain, WIDTHS, 1, &Device::Cpu).unwrap();
        let chosen: Vec<usize> = (0..count).collect();
        let mut stream = Stream::new(8, Purpose::Training, 0);
        let last = network.last_window(&flows, &chosen, &mut stream).unwrap();
        let loss = |network: &mut RecordNetwork| {
            let mut stream = Stream::new(9, Purpose::Training, 0);
            network.loss_and_gradients(&flows, &chosen, last.clone(), &mut stream).unwrap()
        };
        loss(&mut network);
        let gradients: Vec<Vec<f32>> = network
            .parameters()
            .iter()
            .map(|p| p.gradient.flatten_all().unwrap().to_vec1().unwrap())
            .collect();
        let values = network.values().unwrap();
        let mut checked = 0;
        for (tensor, gradient) in gradients.iter().enumerate() {
            for at in (0..gradient.len()).step_by(gradient.len().div_ceil(5)) {
                let mut moved = |by: f32| {
                    let mut values = values.clone();
                    values[tensor][at] += by;
                    network.set(&values).unwrap();
                    loss(&mut network)
                };
                let expected = (moved(2e-3) - moved(-2e-3)) / 4e-3;
                let found = f64::from(gradient[at]);
                assert!(
                    (found - expected).abs() < 2e-3 + 2e-2 * expected.abs(),
                    "{count} flows, tensor {tensor}, value {at}: {found}, expected {expected}"
                );
                checked += 1;
            }
        }
        assert!(checked > 60, "{checked}");
    }
}

#[test]
fn any_number_of_threads_learns_the_same_records() {
    let (chain, flows) = (chain(), long_flows(60, 12));
    let options = Options {
        units: 8,
        widths: WIDTHS,
        learning_rate: 1e-3,
        weight_decay: 0.05,
        epochs: Some(2),
    };
    let learned = |threads: usize| {
        on_threads(threads, || {
            let mut training =
                RecordTraining::new(&chain, &flows, (&options, 5), &Device::Cpu).unwrap();
            while !training.is_over() {
                training.step().unwrap();
            }
            training.finish().unwrap()
        })
    };
    let alone = learned(1);
    assert!([2, 5].into_iter().all(|threads| learned(threads) == alone));
}

/// The logits of a variable of so many tokens, whose parents are all that are before it.
fn logits(weights: &ConditionalWeights, before: &[u32], size: usize) -> Vec<f32> {
    let units = weights.bias.len();
    let row = |table: &Vec<f32>, token: u32, at: usize| table[token as usize * units + at];
    let tables = || weights.tables.iter().zip(before);
    let sum = |at| tables().map(|(table, &token)| row(table, token, at)).sum::<f32>();
    let first: Vec<f32> = (0..units).map(|at| (sum(at) + weights.bias[at]).max(0.0)).collect();
    let product = |from: &[f32], matrix: &[f32], bias: &[f32], to: usize| {
        let column = matrix.iter().skip(to).step_by(bias.len());
        from.iter().zip(column).map(|(a, b)| a * b).sum::<f32>() + bias[to]
    };
    let second = |to| product(&first, &weights.hidden, &weights.hidden_bias, to).max(0.0);
    let all: Vec<f32> = (0..units).map(|at| first[at] + second(at)).collect();
    let mut logits: Vec<f32> =
        (0..size).map(|to| product(&all, &weights.out, &weights.out_bias, to)).collect();
    for context in &weights.evidence {
        let sizes = [3, 2, 4];
        let key = Variable::key(context.of.iter().map(|&at| (before[at], sizes[at])));
        let Ok(place) = context.keys.binary_search(&key) else { continue };
        let begin = place.checked_sub(1).map_or(0, |before| context.ends[before] as usize);
        for at in begin..context.ends[place] as usize {
            logits[context.tokens[at] as usize] += context.values[at];
        }
    }
    logits
}

/// Trains a variable of 16 units to its end.
fn trained(chain: &Chain, at: usize, flows: &Flows) -> ConditionalWeights {
    let (train, validation) = fit::divided(flows.len(), 1);
    let parts = Parts { train: &train, validation: &validation };
    let mut go_on = || true;
    let how = (16, false);
    let trained = conditional::train((chain, at), flows, parts, how, 1, &mut go_on);
    let (weights, whole) = trained.unwrap();
    assert!(whole);
    weights
}

#[test]
fn what_depends_on_what_is_learned() {
    let (chain, flows) = (chain(), flows(2000));
    let weights = trained(&chain, 2, &flows);
    for kind in 0..2_usize {
        let logits = logits(&weights, &[1, kind as u32], 4);
        let probabilities = conditional::softmax_of(&logits);
        let own = probabilities[2 * kind] + probabilities[2 * kind + 1];
        assert!(own > 0.98, "{kind}: {probabilities:?}");
        assert!((probabilities[2 * kind] - 0.5).abs() < 0.08, "{kind}: {probabilities:?}");
    }
}

/// Flows of two variables of so many tokens after the start.
fn two(sizes: [usize; 2], pairs: impl Iterator<Item = [u32; 2]>) -> (Chain, Flows) {
    let Chain { mut variables, heads, shared } = chain();
    variables.truncate(3);
    for (variable, size) in variables[1..].iter_mut().zip(sizes) {
        variable.size = size;
        variable.says = Says::Field { field: 0, place: 0 };
    }
    let attributes: Vec<u32> =
        pairs.enumerate().flat_map(|(i, [a, b])| [i as u32 % 3, a, b]).collect();
    let ends = (1..=attributes.len() as u64 / 3).collect();
    (Chain { variables, heads, shared }, Flows { attributes, ends, ..Flows::default() })
}

#[test]
fn what_few_flows_of_a_kind_had_is_known_of_it() {
    // Forty kinds, four flows of each, all with the same one of 80 values.
    let (chain, flows) = two([40, 80], (0..160).map(|i| [i % 40, (i % 40) * 2]));
    let weights = trained(&chain, 2, &flows);
    let told = |evidence: bool| {
        let mut weights = weights.clone();
        weights.evidence.retain(|_| evidence);
        let own = |kind: u32| {
            conditional::softmax_of(&logits(&weights, &[1, kind], 80))[kind as usize * 2]
        };
        (0..40).map(own).sum::<f32>() / 40.0
    };
    assert!(told(true) > 0.8, "{}", told(true));
    assert!(told(true) > told(false) + 0.2, "{} without", told(false));
}

#[test]
fn names_are_evidence_of_two_flows_or_more() {
    // Forty kinds, three flows of each: two with the kind's own value, one with another.
    let value = |i: u32| if i < 80 { i % 40 * 2 } else { (i * 7 + 13) % 40 * 2 + 1 };
    let (chain, flows) = two([40, 80], (0..120).map(|i| [i % 40, value(i)]));
    let evidence = trained(&chain, 2, &flows).evidence;
    let of_kind = evidence.iter().find(|context| context.of == [1]).unwrap();
    assert_eq!(of_kind.tokens, (0..40).map(|kind| kind * 2).collect::<Vec<u32>>());
}

#[test]
fn a_flow_is_no_evidence_of_itself() {
    // Each kind comes once, with a value that says nothing: what is remembered would be
    // learned by heart.
    let (chain, flows) = two([300, 4], (0..300).map(|i| [i, (i * 7 + i / 5) % 4]));
    let weights = trained(&chain, 2, &flows);
    let own = |kind: u32| {
        let value = (kind * 7 + kind / 5) % 4;
        conditional::softmax_of(&logits(&weights, &[kind % 3, kind], 4))[value as usize]
    };
    let mean = (0..300).map(own).sum::<f32>() / 300.0;
    assert!(mean < 0.35, "{mean}");
}

#[test]
fn ports_that_systems_give_out_share_a_row() {
    let seen = [vec![80_i64; 9], vec![3128; 9], (1..60).map(|n| n * n + 20).collect()].concat();
    let options = TokenOptions { bins: 4, parts: 1, edges: vec![1024.0], ..Default::default() };
    let codec = TokensCodec::fit_with(&Column::ints("port", seen), &options).unwrap();
    let size = codec.sizes()[0];
    let port = variable("port".to_owned(), size, Says::Field { field: 0, place: 0 });
    let rows = shared_rows(&port, Some(&codec));
    let row = |port: f64| rows[codec.token_of(port) as usize];
    assert_eq!(rows.len(), size + 1);
    // Services, other ports below 1024, all above, and that there is none.
    assert_eq!([80.0, 84.0, 700.0, 1100.0, 3000.0, 3128.0].map(row), [0, 1, 1, 2, 2, 2]);
    assert_eq!(rows[size], 3);

    // However few there are.
    let Chain { mut variables, heads, mut shared } = chain();
    let codec = TokensCodec::fit_with(&Column::ints("port", vec![53; 9]), &options).unwrap();
    variables[1] = Variable { size: codec.sizes()[0], ..variables[1].clone() };
    shared[1] = shared_rows(&variables[1], Some(&codec));
    assert_eq!(shared[1], [0, 3]);
    assert!(is_chain(&Chain { variables, heads, shared }));
}

#[test]
fn training_goes_on_from_a_checkpoint_to_the_same_weights() {
    let (chain, flows) = (chain(), flows(300));
    let options = Options {
        units: 8,
        widths: WIDTHS,
        learning_rate: 1e-3,
        weight_decay: 0.05,
        epochs: Some(3),
    };
    let begin = || RecordTraining::new(&chain, &flows, (&options, 5), &Device::Cpu).unwrap();
    let mut whole = begin();
    let mut losses = Vec::new();
    while !whole.is_over() {
        losses.push(whole.step().unwrap().train);
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let third = losses.len() / 3;
    assert!(mean(&losses[2 * third..]) < mean(&losses[..third]), "{losses:?}");
    let mut first = begin();
    for _ in 0..losses.len() / 2 {
        first.step().unwrap();
    }
    let mut arrays = Arrays::default();
    let state = first.checkpoint(&mut arrays).unwrap();
    let mut second = begin();
    second.resume(&mut arrays, state).unwrap();
    while !second.is_over() {
        second.step().unwrap();
    }
    assert_eq!(second.finish().unwrap(), whole.finish().unwrap());
}

#[test]
fn variables_whose_time_is_up_are_calibrated_and_counted() {
    let (chain, flows) = (chain(), flows(2000));
    let options =
        Options { units: 8, widths: WIDTHS, learning_rate: 1e-3, weight_decay: 0.05, epochs: None };
    let trained = |time: Option<Duration>, go_on: bool| {
        let mut asked = 0;
        let mut watch = |_: usize| {
            asked += 1;
            go_on
        };
        fit::conditionals(&chain, &flows, (&options, 1), 2, time, &mut watch).unwrap()
    };
    let none = trained(Some(Duration::ZERO), true);
    assert!(none.whole);
    assert_eq!((none.weights.len(), none.cut), (3, 3));
    // They know how frequent tokens are: kind 1 is three of ten.
    let kind = conditional::softmax_of(&none.weights[0].out_bias);
    assert!((kind[1] - 0.3).abs() < 0.05, "{kind:?}");
    let all = trained(Some(Duration::MAX), true);
    assert!(all.whole && all.cut == 0);
    assert_eq!(all.weights, trained(None, true).weights);
    // Stopping is another thing: what is left is to be trained.
    let stopped = trained(None, false);
    assert!(!stopped.whole && stopped.cut == 0 && stopped.weights.len() == 3);
}
