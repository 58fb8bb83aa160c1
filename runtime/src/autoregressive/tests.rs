//! A model of chaotic graphs, without a library.

mod model;
mod onnx;
mod order;
mod wishes;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ns_model_format::Value;
use ns_model_format::random::{Purpose, Stream};
use safetensors::tensor::{Dtype, TensorView};

use super::*;
use crate::describe::Description;
use crate::generate::{GenerateOptions, start};
use crate::given::GivenFlows;
use crate::graphs::Transposed;
use crate::program::{Rows, RowsMut};
use crate::render::Event;
use crate::testing::Echo;
pub(crate) use model::bundle;
use model::*;

fn uniforms(count: usize) -> Vec<f32> {
    let mut stream = Stream::new(8, Purpose::Attributes, 0);
    (0..count).map(|_| stream.uniform()).collect()
}

/// Tokens of flows at a position, with these tokens given.
fn draw(engine: &mut Fake, rows: usize, position: f32, forced: [f32; 4]) -> Vec<Vec<usize>> {
    draw_all(engine, 9, rows, position, forced)
}

/// The same, of a bundle of so many variables.
fn draw_all(
    engine: &mut Fake,
    variables: usize,
    rows: usize,
    position: f32,
    forced: [f32; 4],
) -> Vec<Vec<usize>> {
    let condition = [&[position][..], &forced].concat().repeat(rows);
    let mut out = Vec::new();
    engine.attributes(rows, &uniforms(rows * 2 * variables), &condition, &mut out).unwrap();
    assert_eq!(out.len(), rows * 2 * variables);
    let tokens = |row: &[f32]| row[..variables].iter().map(|&token| token as usize).collect();
    out.chunks_exact(2 * variables).map(tokens).collect()
}

type Events = Vec<Event<(Vec<Value>, Vec<Value>)>>;

fn try_run(bundle: &Bundle, options: &GenerateOptions) -> Result<Events, RuntimeError> {
    let networks = (0..options.threads).map(|_| vec![fake(bundle)]).collect();
    start(bundle, options, networks, Echo)?.collect()
}

fn run(bundle: &Bundle, options: &GenerateOptions) -> Events {
    try_run(bundle, options).unwrap()
}

/// The same for any number of threads, slots and parts.
fn run_all_ways(bundle: &Bundle, options: &GenerateOptions) -> Events {
    let expected = run(bundle, options);
    for (threads, slots) in [(1, 1), (1, 7), (3, 2), (3, 256), (5, 7)] {
        let queue_cap = if slots == 7 { 20 } else { options.queue_cap };
        let options = GenerateOptions { threads, slots, queue_cap, ..options.clone() };
        assert!(run(bundle, &options) == expected, "{threads} threads, {slots} slots");
    }
    let mut parts: Events = (0..3)
        .flat_map(|part| {
            let threads = 1 + part as usize;
            run(bundle, &GenerateOptions { part: (part, 3), threads, ..options.clone() })
        })
        .collect();
    parts.sort_by_key(|event| (event.time_ns, event.flow, event.record));
    assert!(parts == expected, "in parts");
    expected
}

fn flows(events: &Events) -> BTreeMap<u64, Vec<Value>> {
    events.iter().map(|event| (event.flow, event.item.0.clone())).collect()
}

fn of_flows(count: u64) -> GenerateOptions {
    GenerateOptions { flows: Some(count), ..GenerateOptions::default() }
}

#[test]
fn variables_apply_where_the_manifest_says() {
    let bundle = bundle();
    let rows = draw(&mut fake(&bundle), 500, 0.1, [-1.0; 4]);
    for tokens in &rows {
        assert_eq!(tokens[0], 0);
        assert_eq!((tokens[3] < 256, tokens[4] < 256), (tokens[2] == 2, tokens[2] == 2));
        assert_eq!(tokens[DURATION] == durations().sizes()[0], tokens[COUNT] == 0);
    }
    // All of what there is.
    for (at, size) in [(1, 3), (2, 3), (5, 3), (6, 3)] {
        let found: BTreeSet<usize> = rows.iter().map(|tokens| tokens[at]).collect();
        assert_eq!(found.len(), size);
    }
    assert_eq!(draw(&mut fake(&bundle), 1, 2.0, [-1.0; 4])[0][0], 3);
}

#[test]
fn a_row_depends_on_itself_alone() {
    let bundle = bundle();
    let mut engine = fake(&bundle);
    // Few that are alike, and many.
    for (rows, starts) in [(20, 1), (300, 1), (300, 100)] {
        let start = |row: usize| (row % starts) as f32 / 100.0 + 0.003;
        let condition: Vec<f32> =
            (0..rows).flat_map(|row| [start(row), -1.0, -1.0, -1.0, -1.0]).collect();
        let (noise, mut all, mut one) = (uniforms(rows * 18), Vec::new(), Vec::new());
        engine.attributes(rows, &noise, &condition, &mut all).unwrap();
        let given = noise.chunks_exact(18).zip(condition.chunks_exact(5));
        for ((noise, condition), row) in given.zip(all.chunks_exact(18)) {
            engine.attributes(1, noise, condition, &mut one).unwrap();
            assert_eq!(one, row);
        }
    }
}

#[test]
fn given_tokens_are_kept_and_the_others_drawn() {
    let bundle = bundle();
    let rows = draw(&mut fake(&bundle), 100, 0.1, [1.0, 2.0, 7.0, 9.0]);
    assert!(rows.iter().all(|tokens| tokens[1..5] == [1, 2, 7, 9]));
    assert!(rows.iter().any(|tokens| tokens[5..] != rows[0][5..]));
    // Octets stay away from addresses that have none; too large a token is the last.
    let rows = draw(&mut fake(&bundle), 100, 0.1, [99.0, 0.0, 7.0, 9.0]);
    assert!(rows.iter().all(|tokens| tokens[1..5] == [2, 0, 256, 256]));
}

#[test]
fn no_duration_begins_past_the_end_of_the_span() {
    let bundle = bundle();
    let durations = durations();
    let position = 0.9999;
    let left_us = 0.0001 * 100_000.0;
    let rows = draw(&mut fake(&bundle), 500, position, [-1.0; 4]);
    let drawn = || rows.iter().map(|tokens| tokens[DURATION]).filter(|&t| t < durations.sizes()[0]);
    assert!(drawn().all(|token| durations.number_at(token as u32, 0.0) <= left_us + 0.01));
    assert!(drawn().collect::<BTreeSet<_>>().len() > 1);
    // Where none is left, any may be.
    assert!(draw(&mut fake(&bundle), 50, 1.0, [-1.0; 4]).iter().any(|t| t[DURATION] > 0));
}

#[test]
fn records_keep_to_their_plan() {
    let bundle = bundle();
    let events = run(&bundle, &of_flows(300));
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    let mut ttls: BTreeMap<(u64, i64), Value> = BTreeMap::new();
    let mut kinds = BTreeSet::new();
    for Event { flow, record, item: (attributes, values), .. } in &events {
        *counts.entry(*flow).or_default() += 1;
        let number = |value: Value| value.as_i64().unwrap();
        let (kind, flags, direction) =
            (number(attributes[0]), number(values[0]), number(values[1]));
        let combination = 2 * flags + direction;
        let allowed: &[i64] = match (kind, record) {
            (10, 0) => &[0, 1],
            (10, _) => &[4, 5],
            (20, 0) => &[2],
            (20, _) => &[6, 7],
            _ => &[0, 1, 2, 3, 4, 5, 6, 7],
        };
        assert!(allowed.contains(&combination), "{kind} {record} {combination}");
        kinds.insert(kind);
        let ttl = *ttls.entry((*flow, direction)).or_insert(values[3]);
        assert_eq!(ttl, values[3]);
    }
    assert_eq!(kinds.len(), 3);
    let different: BTreeSet<u32> = counts.values().copied().collect();
    assert!(different.len() > 10 && different.iter().all(|count| (1..=40).contains(count)));
    // The two directions of a flow differ in some.
    assert!(
        ttls.iter()
            .any(|(&(flow, of), ttl)| of == 0 && ttls.get(&(flow, 1)).is_some_and(|t| t != ttl))
    );
}

#[test]
fn pairs_tell_their_fields() {
    let bundle = paired_bundle();
    let draw = |pairs: std::ops::Range<usize>, forced: [f32; 4]| {
        draw_all(&mut fake_of(&bundle, &[(PAIR, pairs)]), 11, 500, 0.1, forced)
    };
    let (mut told, mut open) = (BTreeSet::new(), BTreeSet::new());
    for tokens in [draw(0..3, [-1.0; 4]), draw(3..4, [-1.0; 4])].concat() {
        match PAIRS.get(tokens[PAIR]) {
            Some(pair) => {
                assert_eq!(tokens[2..4], pair.map(|token| token as usize));
                told.insert(*pair);
            }
            None => {
                open.insert(tokens[2..4].to_vec());
            }
        }
        assert_eq!(tokens[4] < 256, tokens[3] == 2);
    }
    assert_eq!((told.len(), open.len()), (3, 9));
    for (given, pair) in [([2.0, 1.0], 2), ([1.0, 1.0], 3), ([0.0, 2.0], 3)] {
        let tokens = draw(0..4, [given[0], given[1], 3.0, 4.0]);
        assert!(tokens.iter().all(|t| t[PAIR] == pair && t[2..4] == given.map(|t| t as usize)));
    }
}

#[test]
fn a_context_tells_what_flows_like_it_had() {
    let bundle = paired_bundle();
    let mut engine = fake(&bundle);
    let rows = draw_all(&mut engine, 11, 300, 0.1, [-1.0; 4]);
    let (kind, ttl) = (PAIR + 1, PAIR + 5);
    assert!(rows.iter().all(|tokens| tokens[ttl] == tokens[kind]));
    assert_eq!(rows.iter().map(|tokens| tokens[kind]).collect::<BTreeSet<_>>().len(), 3);
    // The other direction's has no context.
    assert!(rows.iter().any(|tokens| tokens[ttl + 1] != tokens[kind]));
}

#[test]
fn flows_have_the_combinations_planned_and_values_come_again() {
    let bundle = paired_bundle();
    let number = |value: Value| value.as_i64().unwrap();
    for (set, planned) in FLAGS.iter().enumerate() {
        let engine = fake_of(&bundle, &[(SUPPORT, set..set + 1)]);
        let stream = start(&bundle, &of_flows(400), vec![vec![engine]], Echo).unwrap();
        let mut flags: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        let (mut lengths, mut again, mut records) = (BTreeMap::new(), [0; 3], 0);
        for Event { flow, item: (attributes, values), .. } in stream.map(Result::unwrap) {
            let length = number(values[2]);
            let in_bin = ![40, 1500].contains(&length);
            if let Some(before) = lengths.insert(flow, length).filter(|_| in_bin) {
                for (again, step) in again.iter_mut().zip([-1, 0, 3]) {
                    *again += u32::from(length - before == step);
                }
            }
            assert!((40..=1500).contains(&length), "{length}");
            records += 1;
            // Of the others their lists leave less than what is planned.
            if number(attributes[0]) == 30 {
                flags.entry(flow).or_default().push(number(values[0]) as u32);
            }
        }
        let all = flags.values().filter(|flags| flags.len() >= planned.len());
        assert!(all.clone().count() > 50);
        for flags in all {
            let found: BTreeSet<u32> = flags.iter().copied().collect();
            assert!(found.iter().eq(*planned), "{flags:?}");
        }
        // One token each in ten or so; in bins of 40 values chance makes few.
        assert!(again.iter().all(|again| again * 25 > records), "{again:?} of {records}");
    }
    run_all_ways(&bundle, &of_flows(300));
}

#[test]
fn means_never_change_the_output() {
    let bundle = bundle();
    let events = run_all_ways(&bundle, &of_flows(700));
    assert_eq!(flows(&events).len(), 700);
    // Flows were parked, and went on as if they had not been.
    let options = GenerateOptions { slots: 7, queue_cap: 20, ..of_flows(700) };
    let mut stream = start(&bundle, &options, vec![vec![fake(&bundle)]], Echo).unwrap();
    assert!(stream.by_ref().map(Result::unwrap).eq(events) && stream.stats().parked > 100);
    let span = run_all_ways(&bundle, &GenerateOptions { seed: 5, ..GenerateOptions::default() });
    assert!((200..400).contains(&flows(&span).len()));
}

#[test]
fn no_two_flows_share_their_attributes() {
    let bundle = bundle();
    let only = [(ADDRESS, 2..3), (ADDRESS + 1, 0..20), (ADDRESS + 2, 0..20)];
    let engine = || fake_of(&bundle, &only);
    // Within one span, of 1,200 that there may be, not all as likely.
    let stream = start(&bundle, &of_flows(200), vec![vec![engine()]], Echo).unwrap();
    let events: Events = stream.collect::<Result<_, _>>().unwrap();
    let flows = flows(&events);
    let distinct: HashSet<String> = flows.values().map(|values| format!("{values:?}")).collect();
    assert_eq!((flows.len(), distinct.len()), (200, 200));
    // The first draws of the same flows are not all different.
    let condition: Vec<f32> = [0.1, -1.0, -1.0, -1.0, -1.0].repeat(300);
    let mut rows = Vec::new();
    engine().attributes(300, &uniforms(300 * 18), &condition, &mut rows).unwrap();
    let first: HashSet<String> = rows.chunks(18).map(|row| format!("{:?}", &row[1..5])).collect();
    assert!(first.len() < 290, "{}", first.len());
}

#[test]
fn where_values_do_not_suffice_flows_are_alike() {
    let bundle = bundle();
    let engine = || fake_of(&bundle, &[(ADDRESS, 0..2)]);
    let stream = start(&bundle, &of_flows(60), vec![vec![engine()], vec![engine()]], Echo).unwrap();
    let events: Events = stream.collect::<Result<_, _>>().unwrap();
    let flows = flows(&events);
    let distinct: HashSet<String> = flows.values().map(|values| format!("{values:?}")).collect();
    assert_eq!((flows.len(), distinct.len()), (60, 6));
}

#[test]
fn attributes_may_come_again_after_a_span() {
    let bundle = bundle();
    let events = run_all_ways(&bundle, &of_flows(1_500));
    let flows = flows(&events);
    let frequent = |values: &&Vec<Value>| matches!(values[1], Value::Int(500 | 1000));
    let count = flows.values().filter(frequent).count();
    assert!(count > 20, "{count}");
}

#[test]
fn conditions_are_met() {
    let bundle = bundle();
    for (conditions, most) in [(vec!["kind=20"], 200), (vec!["kind!=10", "address=256-511"], 200)] {
        let conditions = conditions.iter().map(|text| text.parse().unwrap()).collect();
        let options = GenerateOptions { conditions, ..of_flows(most) };
        let events = run_all_ways(&bundle, &options);
        let flows = flows(&events);
        assert!(flows.len() as u64 > most / 2, "{}", flows.len());
        assert!(flows.values().all(|values| values[0] != Value::Int(10)));
    }
}

#[test]
fn given_attributes_are_kept_as_they_are() {
    let bundle = bundle();
    let csv = "address,kind\n500,10\n1234,20\n65535,30\n500,10\n";
    let path = Path::new("flows.csv");
    let given = GivenFlows::from_reader(csv.as_bytes(), path, &bundle.manifest().schema).unwrap();
    let options = GenerateOptions { attributes: Some(Arc::new(given)), ..of_flows(8) };
    let events = run_all_ways(&bundle, &options);
    let rows = [[10, 500], [20, 1234], [30, 65535], [10, 500]].map(|row| row.map(Value::Int));
    for (flow, values) in flows(&events) {
        assert_eq!(values, rows[flow as usize % 4], "{flow}");
    }
    let read = |csv: &str| {
        GivenFlows::from_reader(csv.as_bytes(), path, &bundle.manifest().schema)
            .unwrap_err()
            .to_string()
    };
    assert!(read("kind,address\n40,500\n").contains("not from 10 to 30"));
    assert!(read("kind,address\n10,70000\n").contains("no whole number of 2 octets"));
}

#[test]
fn a_description_says_what_is_drawn() {
    let description = Description::new(&bundle());
    let text = description.to_text();
    for line in [
        "model         autoregressive, LSTM of 3",
        "  octet       256 tokens",
        "  flags      8 tokens",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let json = serde_json::to_value(&description).unwrap();
    assert_eq!(json["tokens"]["hidden"], 3);
    assert_eq!(json["tokens"]["variables"][1]["tokens"], 3);
}

#[test]
fn bad_tables_are_refused_with_what_is_expected() {
    let bundle = bundle();
    let model = bundle.manifest().model.autoregressive.as_ref().unwrap();
    let error = |bytes: &[u8]| Tables::read(model, bytes).unwrap_err().to_string();
    let missing = tables_file(model, |name, _| name != "record.1");
    assert_eq!(error(&missing), "graph `tables`: has no table `record.1`");
    let narrow = tables_file(model, |name, shape| {
        shape[0] -= usize::from(name == "head.2.0");
        true
    });
    assert_eq!(error(&narrow), "graph `tables`: `head.2.0` is [7, 4]; expected [8, 4]");
    assert!(error(b"").contains("is no safetensors file"));
    let whole = tables_file(model, |_, _| true);
    assert!(error(&whole[..whole.len() - 4]).contains("is no safetensors file"));
    let data = [0; 8];
    let halves = TensorView::new(Dtype::F16, vec![2, 2], &data).unwrap();
    let halves = safetensors::serialize([("attributes.1.0", halves)], None).unwrap();
    assert!(error(&halves).contains("`attributes.1.0` is F16; expected F32"));
    let bundle = paired_bundle();
    let model = bundle.manifest().model.autoregressive.as_ref().unwrap();
    for (part, name) in ["keys", "ends", "tokens", "values"].map(|part| (part, "evidence.6.0")) {
        let missing = tables_file(model, |table, _| table != format!("{name}.{part}"));
        let found = Tables::read(model, &missing).unwrap_err().to_string();
        assert_eq!(found, format!("graph `tables`: has no table `{name}.{part}`"));
    }
}

#[test]
fn a_worker_that_fails_ends_the_run_and_keeps_nobody_waiting() {
    let bundle = bundle();
    for (panics, fails_in) in [(false, 0), (false, 2), (false, 7), (true, 0), (true, 2), (true, 7)]
    {
        for failing in 0..3 {
            let engine = |worker| {
                let mut engine = fake(&bundle);
                if worker == failing {
                    let context = engine.context();
                    (context.fails_in, context.panics) = (Some(fails_in), panics);
                }
                vec![engine]
            };
            let options = GenerateOptions { flows: None, forever: true, ..of_flows(0) };
            let stream = start(&bundle, &options, (0..3).map(engine).collect(), Echo).unwrap();
            let error = stream.filter_map(Result::err).next().unwrap().to_string();
            let expected = match panics {
                true => format!("generation worker {failing}: stopped by a panic"),
                false => "graph `none` failed: told to".to_owned(),
            };
            assert_eq!(error, expected);
        }
    }
}

#[test]
fn broken_graphs_end_flows_all_the_same() {
    struct Broken(usize);
    impl Dense for Broken {
        fn run(
            &mut self,
            rows: usize,
            _: impl FnMut(RowsMut<'_>),
            mut take: impl FnMut(Rows<'_>),
        ) -> Result<(), RuntimeError> {
            take(Rows::new(self.0, &vec![f32::NAN; rows * self.0]));
            Ok(())
        }
    }
    let bundle = bundle();
    let manifest = bundle.manifest();
    let model = manifest.model.autoregressive.as_ref().unwrap();
    let widths = Widths::of(model);
    let tables = Tables::read(model, bundle.file(&model.tables).unwrap()).unwrap();
    let graphs = Graphs {
        attributes: model.attributes.iter().map(|v| Some(Transposed(Broken(v.size)))).collect(),
        context: Broken(widths.context()),
        step: FakeLstm { hidden: 3, heads_dim: 12, states: Default::default() },
        heads: model.heads.iter().map(|head| Transposed(Broken(head.size))).collect(),
    };
    let engine =
        AutoregressiveEngine::new(model, &manifest.schema, SPAN_NS, Arc::new(tables), graphs);
    let stream = start(&bundle, &of_flows(20), vec![vec![engine]], Echo).unwrap();
    assert_eq!(stream.count(), 20);
}
