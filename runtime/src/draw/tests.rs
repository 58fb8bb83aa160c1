//! Conditions and given attributes, on a model without a library.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ns_model_format::Bundle;
use ns_model_format::schema::{Segmentation, TimeEncoding};

use super::*;
use crate::counters::GenerationStats;
use crate::generate::{GenerateOptions, start};
use crate::render::Event;
use crate::testing::{Echo, Fake, bundle};

type Events = Vec<Event<(Vec<Value>, Vec<Value>)>>;

fn options(conditions: &[&str]) -> GenerateOptions {
    let conditions = conditions.iter().map(|text| text.parse().unwrap()).collect();
    GenerateOptions { flows: Some(200), conditions, ..GenerateOptions::default() }
}

fn run_with(
    bundle: &Bundle,
    fake: Fake,
    options: &GenerateOptions,
) -> Result<(Events, GenerationStats), RuntimeError> {
    let mut stream = start(bundle, options, vec![vec![fake]; options.threads], Echo)?;
    let events = (&mut stream).collect::<Result<_, _>>()?;
    Ok((events, stream.stats()))
}

fn run(bundle: &Bundle, options: &GenerateOptions) -> (Events, GenerationStats) {
    run_with(bundle, Fake::new(bundle, 0.1), options).unwrap()
}

/// The same for every number of threads and slots.
fn run_all_ways(bundle: &Bundle, options: &GenerateOptions) -> (Events, GenerationStats) {
    let (events, stats) = run(bundle, options);
    for (threads, slots) in [(1, 1), (1, 7), (3, 2), (3, 256)] {
        let options = GenerateOptions { threads, slots, ..options.clone() };
        let (found, of_found) = run(bundle, &options);
        assert!(found == events, "{threads} threads, {slots} slots");
        let counts = |stats: &GenerationStats| {
            (stats.draws, stats.flows_drawn, stats.flows_given_up, stats.records_left_out)
        };
        assert_eq!(counts(&of_found), counts(&stats));
    }
    (events, stats)
}

fn flows(events: &Events) -> BTreeSet<u64> {
    events.iter().map(|event| event.flow).collect()
}

#[test]
fn flows_are_drawn_until_their_attributes_match() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let (events, stats) = run_all_ways(&bundle, &options(&["kind=20"]));
    assert!(events.iter().all(|event| event.item.0 == [Value::Int(20)]));
    assert_eq!(flows(&events).len(), 200);
    assert_eq!((stats.flows_drawn, stats.flows_given_up), (200, 0));
    // One of three kinds, about as likely: over seeds the mean is a quarter.
    assert!((0.2..0.42).contains(&stats.acceptance()), "{}", stats.acceptance());
    // Flows whose first draw matches are those of a run without conditions.
    let (free, _) = run(&bundle, &options(&[]));
    let is_20 = |event: &&Event<(Vec<Value>, Vec<Value>)>| event.item.0 == [Value::Int(20)];
    for event in free.iter().filter(is_20) {
        assert!(events.contains(event));
    }
}

#[test]
fn flows_whose_tries_run_out_are_left_out_and_counted() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let options = GenerateOptions { condition_tries: 1, ..options(&["kind=20"]) };
    let (events, stats) = run_all_ways(&bundle, &options);
    assert_eq!(stats.draws, 200);
    assert_eq!(stats.flows_drawn + stats.flows_given_up, 200);
    assert_eq!(flows(&events).len() as u64, stats.flows_drawn);
    assert!((40..90).contains(&stats.flows_drawn), "{stats:?}");
}

#[test]
fn what_no_flow_can_have_ends_the_run_with_what_there_is() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    for threads in [1, 3, 40] {
        // Of NaN, the first choice is the largest.
        let fake = Fake { broken: true, ..Fake::new(&bundle, 0.1) };
        let options = GenerateOptions { threads, forever: true, ..options(&["kind=20"]) };
        let options = GenerateOptions { flows: None, condition_tries: 50, ..options };
        let fake = Fake { broken_attributes: true, ..fake };
        let error = run_with(&bundle, fake, &options).unwrap_err();
        assert_eq!(
            error.to_string(),
            "none of the first 20 flows met `kind=20` in 50 tries each; `kind` is most often \
             `10` (100.0%)"
        );
        assert!(error.hint().unwrap().contains("--where-tries"));
    }
}

#[test]
fn records_without_the_value_are_left_out() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let (free, _) = run(&bundle, &options(&[]));
    let (events, stats) = run_all_ways(&bundle, &options(&["bits=3", "bits=8-9", "kind!=20"]));
    let (kept, _) = run(&bundle, &options(&["kind!=20"]));
    let wanted = |event: &&Event<(Vec<Value>, Vec<Value>)>| {
        [3, 8, 9].map(Value::Int).contains(&event.item.1[0])
    };
    let plain =
        |event: &Event<(Vec<Value>, Vec<Value>)>| (event.time_ns, event.flow, event.item.clone());
    let expected: Vec<_> = kept.iter().filter(wanted).map(plain).collect();
    assert!(expected.len() > 100 && free.len() > events.len());
    assert_eq!(events.iter().map(plain).collect::<Vec<_>>(), expected);
    assert_eq!(stats.records_left_out as usize, kept.len() - events.len());
    assert_eq!(stats.records as usize, events.len());
    // Numbered without gaps, so that a flow's first record is its record 0.
    let mut next: BTreeMap<u64, u32> = BTreeMap::new();
    for event in &events {
        let next = next.entry(event.flow).or_default();
        assert_eq!(event.record, *next);
        *next += 1;
    }
}

#[test]
fn what_no_record_can_have_ends_an_endless_run() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    for threads in [1, 3] {
        let fake = Fake { broken: true, ..Fake::new(&bundle, 0.1) };
        let options = GenerateOptions { threads, forever: true, ..options(&["bits=5"]) };
        let options = GenerateOptions { flows: None, ..options };
        let error = run_with(&bundle, fake, &options).unwrap_err();
        assert_eq!(
            error.to_string(),
            "none of the first 1000 flows has a record with `bits=5`; `bits` is most often `0` \
             (100.0%)"
        );
    }
}

fn given(bundle: &Bundle, text: &str) -> Arc<GivenFlows> {
    let schema = &bundle.manifest().schema;
    Arc::new(GivenFlows::from_reader(text.as_bytes(), Path::new("x.csv"), schema).unwrap())
}

#[test]
fn given_flows_come_in_order_and_round_again() {
    let cut = Some(Segmentation { max_records: 7, goes_on: vec![0.9, 0.5] });
    for segmentation in [None, cut] {
        let bundle = bundle(TimeEncoding::Interarrival, segmentation);
        let attributes = Some(given(&bundle, "kind\n30\n10\n10\n20\n"));
        let kinds = [30, 10, 10, 20].map(Value::Int);
        let check = |events: &Events, count: u64| {
            assert_eq!(flows(events), (0..count).collect());
            for event in events {
                assert_eq!(event.item.0, [kinds[event.flow as usize % 4]]);
            }
        };
        let once = GenerateOptions { attributes, ..GenerateOptions::default() };
        check(&run_all_ways(&bundle, &once).0, 4);
        let more = GenerateOptions { flows: Some(10), ..once };
        check(&run_all_ways(&bundle, &more).0, 10);
    }
}

#[test]
fn given_starts_are_kept_and_go_on_after_the_last() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let attributes = given(&bundle, "time,kind\n5000030,10\n5000000,20\n5000010,30\n");
    assert_eq!(attributes.origin_ns(), Some(5_000_000_000));
    let options = GenerateOptions { attributes: Some(attributes), ..options(&[]) };
    let (events, _) = run_all_ways(&bundle, &GenerateOptions { flows: Some(5), ..options });
    let mut firsts: Vec<_> = events.iter().filter(|event| event.record == 0).collect();
    firsts.sort_by_key(|event| event.flow);
    let firsts: Vec<_> = firsts.iter().map(|event| (event.time_ns, event.item.0[0])).collect();
    let expected = [(0, 20), (10_000, 30), (30_000, 10), (45_000, 20), (55_000, 30)];
    assert_eq!(firsts, expected.map(|(time, kind)| (time, Value::Int(kind))));
}

#[test]
fn given_attributes_and_conditions_on_them_exclude_one_another() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let attributes = Some(given(&bundle, "kind\n30\n"));
    let both = GenerateOptions { attributes, ..options(&["kind=10"]) };
    assert!(both.check_against(&bundle).unwrap_err().to_string().contains("not both"));
    let records = GenerateOptions { conditions: vec!["bits!=3".parse().unwrap()], ..both };
    records.check_against(&bundle).unwrap();
}

/// The same bundle with another schema.
fn with_schema(bundle: &Bundle, change: impl Fn(&mut ns_model_format::Schema)) -> Bundle {
    let mut manifest = bundle.manifest().clone();
    change(&mut manifest.schema);
    Bundle::new(manifest, BTreeMap::from([("none".to_owned(), Vec::new())])).unwrap()
}

#[test]
fn flows_of_a_bundle_that_says_so_are_drawn_until_no_two_are_alike() {
    let alike = bundle(TimeEncoding::Interarrival, None);
    let distinct = with_schema(&alike, |schema| schema.distinct = Some("kind".to_owned()));
    let kinds = |bundle: &Bundle| {
        (0..20)
            .map(|seed| {
                let options = GenerateOptions { seed, flows: Some(3), ..options(&[]) };
                let (events, _) = run_all_ways(bundle, &options);
                let kind = |event: &Event<(Vec<Value>, Vec<Value>)>| match event.item.0[0] {
                    Value::Int(kind) => kind,
                    _ => 0,
                };
                events.iter().map(kind).collect::<BTreeSet<i64>>().len()
            })
            .collect::<Vec<_>>()
    };
    // Of three kinds that are as likely, three flows have all once in nine times.
    assert!(kinds(&alike).iter().filter(|&&kinds| kinds == 3).count() < 10);
    assert!(kinds(&distinct).iter().filter(|&&kinds| kinds == 3).count() >= 19);
    // There are no more kinds than three: more flows are as they come.
    assert_eq!(flows(&run_all_ways(&distinct, &options(&[])).0).len(), 200);
    // A condition is met, and its tries bound those for this too.
    let (events, stats) = run_all_ways(&distinct, &options(&["kind=20-30"]));
    assert!(events.iter().all(|event| event.item.0 != [Value::Int(10)]));
    assert_eq!(stats.flows_drawn, 200);
}

#[test]
fn no_flow_is_longer_than_the_longest_that_was_learned() {
    let any = bundle(TimeEncoding::Interarrival, None);
    let lengths = |longest| {
        let bundle = with_schema(&any, |schema| schema.longest = longest);
        let (events, _) = run_all_ways(&bundle, &options(&[]));
        let length = |flow: u64| events.iter().filter(|event| event.flow == flow).count();
        flows(&events).into_iter().map(length).collect::<Vec<_>>()
    };
    let (free, bounded) = (lengths(None), lengths(Some(2)));
    assert!(free.iter().any(|&length| length > 2), "{free:?}");
    assert_eq!(bounded, free.iter().map(|&length| length.min(2)).collect::<Vec<_>>());
}

#[test]
fn a_bundle_of_several_chunks_cannot_ask_for_distinct_flows() {
    let chunks = crate::testing::chunked_bundle(TimeEncoding::Interarrival, None, None, &[0, 9]);
    let mut manifest = chunks.manifest().clone();
    manifest.schema.distinct = Some("kind".to_owned());
    let error = Bundle::new(manifest, BTreeMap::from([("none".to_owned(), Vec::new())]));
    assert!(error.unwrap_err().to_string().contains("`distinct` is for one chunk"));
}
