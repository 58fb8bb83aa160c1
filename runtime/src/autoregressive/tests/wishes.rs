//! Flows under conditions have the distribution that the model gives to those that meet them.

use std::collections::BTreeMap;

use super::*;
use crate::draw::DrawPlan;
use crate::form::Form;

const ROWS: usize = 60_000;
/// No token given.
const FREE: [f32; 4] = [-1.0; 4];

/// The same tokens given to flows all over the span.
fn conditions_of(flows: usize, given: [f32; 4]) -> Vec<f32> {
    (0..flows)
        .flat_map(|flow| {
            let position = ((flow % 4) as f32 + 0.5) / 4.0;
            std::iter::once(position).chain(given)
        })
        .collect()
}

fn plan(bundle: &Bundle, conditions: &[&str]) -> DrawPlan {
    let conditions = conditions.iter().map(|text| text.parse().unwrap()).collect();
    let options = GenerateOptions { conditions, ..GenerateOptions::default() };
    let manifest = bundle.manifest();
    DrawPlan::new(&manifest.schema, manifest.model.autoregressive.as_ref(), &options).unwrap()
}

/// Flows of each start, counted by kind, address and whether they have many records.
type Kinds = BTreeMap<(u32, (u32, u32, bool)), f64>;

struct Lab {
    bundle: Bundle,
    engine: Fake,
    width: usize,
}

impl Lab {
    fn new(bundle: Bundle) -> Lab {
        let engine = fake(&bundle);
        let width = 2 * bundle.manifest().model.autoregressive.as_ref().unwrap().attributes.len();
        Lab { bundle, engine, width }
    }

    /// Counts rows by what they are, by their weights;
    fn kinds(&self, rows: &[f32], weights: impl Iterator<Item = f64>) -> Kinds {
        let at = usize::from(self.width == 22);
        let mut kinds = Kinds::new();
        for (row, weight) in rows.chunks_exact(self.width).zip(weights) {
            let key = (row[1 + at] as u32, row[2 + at] as u32, row[7 + at] > 4.0);
            let key = (row[0] as u32, key);
            *kinds.entry(key).or_default() += weight;
        }
        kinds.retain(|_, weight| *weight > 0.0);
        kinds
    }

    /// The flows among free ones that meet the conditions, and the share of them.
    fn rejection(&mut self, conditions: &[&str]) -> (Kinds, f64) {
        let plan = plan(&self.bundle, conditions);
        let model = self.bundle.manifest().model.autoregressive.as_ref().unwrap();
        let form = Form::of(self.bundle.manifest()).remove(0);
        let mut decoder = form.attribute_decoder(&self.bundle.manifest().schema);
        assert_eq!(self.width, 2 * model.attributes.len());
        let mut rows = Vec::new();
        let noise = uniforms(ROWS * self.width);
        self.engine.attributes(ROWS, &noise, &conditions_of(ROWS, FREE), &mut rows).unwrap();
        let meets = rows.chunks_exact(self.width).map(|row| {
            let values = decoder.decode(row);
            f64::from(plan.selection.wants_flow(u64::MAX, 0, &values))
        });
        let meets: Vec<f64> = meets.collect();
        let share = meets.iter().sum::<f64>() / ROWS as f64;
        (self.kinds(&rows, meets.into_iter()), share)
    }

    fn drafts(
        &mut self,
        wishes: &Wishes,
        each: usize,
        rule: Rule,
        given: [f32; 4],
    ) -> (Vec<f32>, Vec<f64>) {
        let flows = ROWS / each;
        let mut stream = Stream::new(77, Purpose::Attributes, 5);
        let noise: Vec<f32> = (0..ROWS * self.width).map(|_| stream.uniform()).collect();
        let condition = conditions_of(flows, given);
        let drafts = Drafts { each, noise: &noise, condition: &condition, wishes, rule };
        let (mut rows, mut logs) = (Vec::new(), Vec::new());
        self.engine.drafts(&drafts, &mut rows, &mut logs).unwrap();
        assert_eq!((rows.len(), logs.len()), (flows * self.width, flows));
        (rows, logs)
    }
}

/// Flows of the same start differ no more than chance makes them, with a margin of five
/// deviations of chi-squared and a bias of `bias` of the frequencies.
fn assert_alike(one: &Kinds, other: &Kinds, bias: f64, what: &str) {
    let total = |kinds: &Kinds, start: u32| -> f64 {
        kinds.iter().filter(|(key, _)| key.0 == start).map(|(_, weight)| weight).sum()
    };
    let (mut squares, mut cells, mut starts) = (0.0, 0.0, 0);
    for start in 0..4 {
        let (all_one, all_other) = (total(one, start), total(other, start));
        if all_one < 100.0 || all_other < 100.0 {
            continue;
        }
        starts += 1;
        let keys = one.keys().chain(other.keys()).filter(|key| key.0 == start);
        for key in keys.collect::<BTreeSet<_>>() {
            let of = |kinds: &Kinds, all: f64| kinds.get(key).copied().unwrap_or(0.0) / all;
            let (a, b) = (of(one, all_one), of(other, all_other));
            let variance = (a + b) / 2.0 * (1.0 / all_one + 1.0 / all_other);
            let apart = ((a - b).abs() - bias).max(0.0);
            squares += apart * apart / variance;
            cells += 1.0;
        }
    }
    assert!(starts > 0, "{what}: too few flows");
    let bound = cells + 5.0 * f64::sqrt(2.0 * cells);
    assert!(squares <= bound, "{what}: {squares:.1} over {bound:.1}\n{one:?}\n{other:?}");
}

const CONDITIONS: [&[&str]; 7] = [
    &["kind=20"],
    &["address=500"],
    &["address!=500"],
    &["address=256-511"],
    &["address=0-700", "address=40000-50000"],
    &["kind!=10", "address=1000-30000"],
    &["kind=30", "address=1000"],
];

#[test]
fn accepted_and_chosen_drafts_are_as_those_that_rejection_leaves() {
    for bundle in [bundle(), paired_bundle()] {
        let mut lab = Lab::new(bundle);
        for conditions in CONDITIONS {
            let (expected, share) = lab.rejection(conditions);
            let plan = plan(&lab.bundle, conditions);
            let wishes = plan.wishes().unwrap();
            let (rows, logs) = lab.drafts(wishes, 1, Rule::Accept, FREE);
            let taken = || logs.iter().map(|log| f64::from(*log > f64::NEG_INFINITY));
            assert_alike(&lab.kinds(&rows, taken()), &expected, 0.0, &format!("{conditions:?}"));
            let accepted = taken().sum::<f64>() / ROWS as f64;
            let error = (share * (1.0 - share) * 2.0 / ROWS as f64).sqrt();
            assert!((accepted - share).abs() < 5.0 * error, "{conditions:?} {accepted} {share}");
            // Of 48 drafts, not all of which weigh much: a bias of no more than 3%.
            let (rows, logs) = lab.drafts(wishes, 48, Rule::Choose, FREE);
            assert!(logs.iter().all(|log| log.is_finite()));
            let chosen = lab.kinds(&rows, std::iter::repeat(1.0));
            assert_alike(&chosen, &expected, 0.03, &format!("chosen, {conditions:?}"));
            // What flows weigh on average is how many of them there are.
            let mean = logs.iter().map(|log| log.exp()).sum::<f64>() / logs.len() as f64;
            assert!((mean / share - 1.0).abs() < 0.2, "{conditions:?} {mean} {share}");
        }
    }
}

#[test]
fn tilts_change_which_drafts_there_are_and_not_what_flows_are() {
    let mut lab = Lab::new(bundle());
    let weights = |logs: &[f64]| -> Vec<f64> { logs.iter().map(|log| log.exp()).collect() };
    for condition in ["address=256-511", "address!=500"] {
        let (expected, share) = lab.rejection(&[condition]);
        let mut wishes = plan(&lab.bundle, &[condition]).wishes().unwrap().clone();
        wishes.tilt(1, &[3.0, 0.3, 1.0]);
        wishes.tilt(ADDRESS, &[1.0, 0.4, 2.0]);
        let (rows, logs) = lab.drafts(&wishes, 1, Rule::Choose, FREE);
        let ratio = weights(&logs).iter().sum::<f64>() / ROWS as f64 / share;
        assert!((ratio - 1.0).abs() < 0.1, "{condition}: {ratio}");
        let of_kind = |kinds: &Kinds, kind| -> f64 {
            kinds.iter().filter(|((_, of), _)| of.0 == kind).map(|(_, count)| count).sum()
        };
        let drafts = lab.kinds(&rows, std::iter::repeat(1.0));
        assert!(of_kind(&drafts, 0) > 2.0 * of_kind(&drafts, 1));
        let (rows, _) = lab.drafts(&wishes, 48, Rule::Choose, FREE);
        assert_alike(&lab.kinds(&rows, std::iter::repeat(1.0)), &expected, 0.03, condition);
    }
}

#[test]
fn what_is_not_given_is_drawn_given_the_rest() {
    let mut lab = Lab::new(bundle());
    let model = lab.bundle.manifest().model.autoregressive.clone().unwrap();
    // The address's own token, which is drawn after the kind.
    let wishes = Wishes::given(&model, &[false, true]);
    let given = [-1.0, 1.0, 0.0, 0.0];
    let (rows, _) = lab.drafts(&wishes, 32, Rule::Choose, given);
    let mut free = Vec::new();
    lab.engine
        .attributes(ROWS, &uniforms(ROWS * lab.width), &conditions_of(ROWS, FREE), &mut free)
        .unwrap();
    let is_given: Vec<f64> =
        free.chunks_exact(lab.width).map(|row| f64::from(row[ADDRESS] == 1.0)).collect();
    let expected = lab.kinds(&free, is_given.into_iter());
    assert_alike(&lab.kinds(&rows, std::iter::repeat(1.0)), &expected, 0.03, "given");
}

#[test]
fn a_flow_depends_on_itself_alone_whatever_others_are_given() {
    for bundle in [bundle(), paired_bundle()] {
        let mut lab = Lab::new(bundle);
        let model = lab.bundle.manifest().model.autoregressive.clone().unwrap();
        let given = Wishes::given(&model, &[true, true]);
        let wished = plan(&lab.bundle, &["address=256-511"]);
        for wishes in [&given, wished.wishes().unwrap()] {
            // So few, so many that all sixteens are full, and none of another start.
            for (flows, starts) in [(3, 4), (200, 4), (200, 1)] {
                let tokens = [[-1.0; 4], [1.0, -1.0, -1.0, -1.0], [-1.0, 0.0, -1.0, -1.0]];
                let tokens = tokens.iter().cycle().step_by(2);
                let condition: Vec<f32> = (0..flows)
                    .zip(tokens)
                    .flat_map(|(flow, tokens)| {
                        let position = ((flow % starts) as f32 + 0.5) / 4.0;
                        std::iter::once(position).chain(*tokens)
                    })
                    .collect();
                let noise = uniforms(flows * lab.width);
                let mut draw = |noise: &[f32], condition: &[f32]| {
                    let rule = Rule::Accept;
                    let drafts = Drafts { each: 1, noise, condition, wishes, rule };
                    let (mut rows, mut logs) = (Vec::new(), Vec::new());
                    lab.engine.drafts(&drafts, &mut rows, &mut logs).unwrap();
                    (rows, logs)
                };
                let (rows, logs) = draw(&noise, &condition);
                assert!(flows < 9 || logs.iter().any(|log| *log < 0.0 && log.is_finite()));
                let all = noise.chunks_exact(lab.width).zip(condition.chunks_exact(5));
                for ((noise, condition), (row, log)) in
                    all.zip(rows.chunks_exact(lab.width).zip(logs))
                {
                    assert_eq!(draw(noise, condition), (row.to_vec(), vec![log]));
                }
            }
        }
    }
}

#[test]
fn a_rare_value_is_always_met() {
    let bundle = bundle();
    let conditions = vec!["address=12345".parse().unwrap(), "kind=30".parse().unwrap()];
    let options = GenerateOptions { conditions, ..of_flows(30) };
    let events = run_all_ways(&bundle, &options);
    let flows = flows(&events);
    assert_eq!(flows.len(), 30);
    assert!(flows.values().all(|values| *values == [Value::Int(30), Value::Int(12345)]));
    let mut stream = start(&bundle, &options, vec![vec![fake(&bundle)]], Echo).unwrap();
    assert!(stream.by_ref().all(|event| event.is_ok()));
    assert_eq!((stream.stats().flows_drawn, stream.stats().flows_given_up), (30, 0));
}

#[test]
fn what_no_flow_has_is_refused_before_any_is_drawn() {
    let bundle = bundle();
    let run = |only: &[(usize, std::ops::Range<usize>)], condition: &str| {
        let options =
            GenerateOptions { conditions: vec![condition.parse().unwrap()], ..of_flows(5) };
        let engine = fake_of(&bundle, only);
        start(&bundle, &options, vec![vec![engine]], Echo).map(drop).unwrap_err().to_string()
    };
    let error = run(&[(ADDRESS, 0..2)], "address=12345");
    assert_eq!(error, "no flow of this model meets `address=12345`");
    assert!(run(&[], "kind=25").contains("the nearest of `kind` are `20` and `30`"));
}

#[test]
fn some_attributes_may_be_given() {
    let bundle = bundle();
    let read = |csv: &str| {
        let schema = &bundle.manifest().schema;
        Arc::new(GivenFlows::from_reader(csv.as_bytes(), Path::new("x.csv"), schema).unwrap())
    };
    let options =
        GenerateOptions { attributes: Some(read("address\n500\n1234\n")), ..of_flows(60) };
    let addresses = [500, 1234].map(Value::Int);
    let all = flows(&run_all_ways(&bundle, &options));
    assert_eq!(all.len(), 60);
    assert!(all.iter().all(|(flow, values)| values[1] == addresses[*flow as usize % 2]));
    let kinds: BTreeSet<String> = all.values().map(|v| format!("{:?}", v[0])).collect();
    assert_eq!(kinds.len(), 3);
    // Starts alone.
    let options = GenerateOptions { attributes: Some(read("time\n0\n5\n")), ..of_flows(40) };
    let all = flows(&run_all_ways(&bundle, &options));
    let distinct: HashSet<String> = all.values().map(|values| format!("{values:?}")).collect();
    assert!(distinct.len() > 20, "{}", distinct.len());
}
