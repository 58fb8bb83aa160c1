//! Scheduling, order and limits, on a model without a library.

use std::collections::HashMap;

use std::sync::Mutex;

use ns_model_format::schema::{Segmentation, SpanTags, TimeEncoding};

use super::*;
use crate::testing::{Echo, Fake, REPEAT, bundle, chunked_bundle};

/// Chunks of 20, 30 and 50 ms.
const CHUNKS: [u64; 3] = [0, 20_000_000, 50_000_000];

type Item = <Echo as Render>::Item;

fn run_with(bundle: &Bundle, fakes: Vec<Fake>, options: &GenerateOptions) -> Stream<Item> {
    // Each of these stands for the networks of all chunks.
    let chunks = bundle.manifest().model.chunks.len();
    let of = |fake: Fake| (0..chunks).map(|number| Fake { number, ..fake.clone() }).collect();
    start(bundle, options, fakes.into_iter().map(of).collect(), Echo).unwrap()
}

fn run(bundle: &Bundle, stop: f32, options: &GenerateOptions) -> Vec<Event<Item>> {
    let fakes = vec![Fake::new(bundle, stop); options.threads];
    run_with(bundle, fakes, options).collect::<Result<_, _>>().unwrap()
}

/// In order, and every flow's records numbered from 0 without a gap.
fn assert_sound(events: &[Event<Item>]) {
    assert!(events.is_sorted_by_key(|event| (event.time_ns, event.flow, event.record)));
    let mut next: HashMap<u64, u32> = HashMap::new();
    for event in events {
        let next = next.entry(event.flow).or_default();
        assert_eq!(event.record, *next);
        *next += 1;
    }
}

fn cut() -> Option<Segmentation> {
    Some(Segmentation { max_records: 7, goes_on: vec![0.9, 0.5] })
}

#[test]
fn slots_queue_and_threads_do_not_show_in_the_output() {
    let whole = |encoding, cut| bundle(encoding, cut);
    let chunks = |encoding, cut, tags| chunked_bundle(encoding, cut, Some(tags), &CHUNKS);
    for bundle in [
        whole(TimeEncoding::Interarrival, None),
        whole(TimeEncoding::Interarrival, cut()),
        whole(TimeEncoding::Raw, None),
        chunks(TimeEncoding::Interarrival, cut(), SpanTags::EveryPart),
        chunks(TimeEncoding::Interarrival, None, SpanTags::FirstPart),
        chunks(TimeEncoding::Raw, None, SpanTags::EveryPart),
        chunked_bundle(TimeEncoding::Interarrival, cut(), None, &CHUNKS),
    ] {
        let options = GenerateOptions { flows: Some(400), ..GenerateOptions::default() };
        let expected = run(&bundle, 0.03, &options);
        assert_sound(&expected);
        assert!(expected.len() > 2_000, "{}", expected.len());
        for slots in [1, 2, 256] {
            for queue_cap in [1, 2, 17, 1 << 18] {
                for threads in [1, 3] {
                    let options = GenerateOptions { slots, queue_cap, threads, ..options.clone() };
                    let found = run(&bundle, 0.03, &options);
                    assert!(found == expected, "{slots} slots, cap {queue_cap}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn another_seed_is_another_run() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let run = |seed| {
        let options = GenerateOptions { seed, flows: Some(20), ..GenerateOptions::default() };
        run(&bundle, 0.2, &options)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn by_default_one_span_of_flows_is_generated_to_their_end() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let events = run(&bundle, 0.2, &GenerateOptions::default());
    assert_sound(&events);
    let firsts = events.iter().filter(|event| event.record == 0);
    assert!(firsts.clone().all(|event| event.time_ns < 100_000_000));
    let flows = firsts.count();
    assert!((200..400).contains(&flows), "{flows}");
    assert_eq!(events[0].time_ns, 0);
}

#[test]
fn a_number_of_flows_goes_past_the_span() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let options = GenerateOptions { flows: Some(1_000), ..GenerateOptions::default() };
    let events = run(&bundle, 0.2, &options);
    let firsts: Vec<_> = events.iter().filter(|event| event.record == 0).collect();
    assert_eq!(firsts.len(), 1_000);
    assert!(firsts.iter().any(|event| event.time_ns > 200_000_000));
}

#[test]
fn a_duration_cuts_the_undisturbed_run() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let duration_ns = Some(250_000_000);
    let cut = GenerateOptions { duration_ns, ..GenerateOptions::default() };
    let endless = GenerateOptions { forever: true, ..GenerateOptions::default() };
    let fakes = vec![Fake::new(&bundle, 0.05)];
    let whole = run_with(&bundle, fakes, &endless).map(Result::unwrap);
    let expected: Vec<_> = whole.take_while(|event| event.time_ns < 250_000_000).collect();
    assert!(expected.len() > 2_000);
    assert!(run(&bundle, 0.05, &cut) == expected);
}

#[test]
fn memory_is_bounded_by_the_live_flows_and_batches_stay_full() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    // Some 400 flows live at any time, far more than slots and cap would hold.
    let options =
        GenerateOptions { flows: Some(5_000), queue_cap: 1, slots: 64, ..Default::default() };
    let mut stream = run_with(&bundle, vec![Fake::new(&bundle, 0.03)], &options);
    let lasts = run(&bundle, 0.03, &options).into_iter().map(|event| (event.flow, event.time_ns));
    let lasts: HashMap<u64, u64> = lasts.collect();
    let (mut count, mut most_live) = (0, 0);
    let mut live = std::collections::BTreeSet::new();
    for event in &mut stream {
        let event = event.unwrap();
        count += 1;
        live.insert((lasts[&event.flow], event.flow));
        while live.first().is_some_and(|&(last, _)| last < event.time_ns) {
            live.pop_first();
        }
        most_live = most_live.max(live.len());
    }
    let stats = stream.stats();
    assert_eq!(stats.records, count);
    assert!(stats.parked > 0);
    assert!((100..1_500).contains(&most_live), "{most_live}");
    // Four steps a live flow is the most that the queue is let grow to.
    let bound = 4 * REPEAT * (most_live + 64) + 64 * REPEAT;
    assert!(stats.peak_queue < bound as u64, "{stats:?}, {most_live} live");
    let batch = stats.records_computed as f64 / (stats.steps * REPEAT as u64) as f64;
    assert!(batch > 24.0, "{batch} of 64 slots used");
}

#[test]
fn what_comes_before_the_first_record_does_not_depend_on_how_much_is_asked_for() {
    let million = 1_000_000;
    for bundle in [
        bundle(TimeEncoding::Interarrival, None),
        bundle(TimeEncoding::Raw, None),
        chunked_bundle(TimeEncoding::Interarrival, cut(), Some(SpanTags::EveryPart), &CHUNKS),
    ] {
        for slots in [16, 64, 256] {
            let first = |options: GenerateOptions| {
                let prepared = Arc::new(Mutex::new(Vec::new()));
                let fake = Fake { asked: Some(prepared.clone()), ..Fake::new(&bundle, 0.03) };
                let options = GenerateOptions { slots, ..options };
                let mut stream = run_with(&bundle, vec![fake], &options);
                let event = stream.next().unwrap().unwrap();
                let stats = stream.stats();
                assert!(stats.flows_begun <= slots as u64 && stats.steps <= 2, "{stats:?}");
                let prepared = prepared.lock().unwrap().len();
                // The batches that slots are filled from grow fourfold.
                assert!(prepared <= 16 + 5 * slots, "{prepared} flows for {slots} slots");
                (event, stats, prepared)
            };
            let some = first(GenerateOptions { flows: Some(1_000), ..Default::default() });
            let flows = GenerateOptions { flows: Some(10 * million), ..Default::default() };
            assert_eq!(first(flows), some);
            assert_eq!(first(GenerateOptions { forever: true, ..Default::default() }), some);
            // The same number of flows from the span itself.
            let dense = GenerateOptions { flow_rate: 1e5.into(), ..Default::default() };
            first(dense);
        }
    }
}

#[test]
fn flows_that_never_stop_are_capped_and_counted() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let options =
        GenerateOptions { flows: Some(5), max_flow_records: 100, ..GenerateOptions::default() };
    let mut stream = run_with(&bundle, vec![Fake::new(&bundle, -1.0)], &options);
    let events: Vec<_> = (&mut stream).collect::<Result<_, _>>().unwrap();
    assert_eq!(events.len(), 500);
    let stats = stream.stats();
    assert_eq!((stats.flows_capped, stats.flows_finished, stats.flows_begun), (5, 5, 5));
}

#[test]
fn a_model_of_nan_ends_with_one_record_a_flow() {
    let bundle = bundle(TimeEncoding::Raw, cut());
    let options = GenerateOptions { flows: Some(50), ..GenerateOptions::default() };
    let fake = Fake { broken: true, ..Fake::new(&bundle, 0.1) };
    let events: Vec<_> = run_with(&bundle, vec![fake], &options).collect::<Result<_, _>>().unwrap();
    assert_sound(&events);
    assert!((50..1_000).contains(&events.len()));
}

#[test]
fn segments_carry_long_flows_on() {
    let bundle = bundle(TimeEncoding::Interarrival, cut());
    let options = GenerateOptions { flows: Some(300), ..GenerateOptions::default() };
    // No flag ever says stop: every segment is full, and a flow has whole segments.
    let events = run(&bundle, -1.0, &options);
    let mut lengths: HashMap<u64, u32> = HashMap::new();
    for event in &events {
        *lengths.entry(event.flow).or_default() += 1;
    }
    assert!(lengths.values().all(|length| length % 7 == 0));
    let more_than = |length: u32| lengths.values().filter(|&&found| found > length).count() as f64;
    // Half go on (the fake's attribute), of these 0.9, then 0.5, 0.5, ...
    let share = |of: u32| more_than(7 * (of + 1)) / more_than(7 * of);
    assert!((0.35..0.65).contains(&(more_than(7) / 300.0)), "{}", more_than(7));
    assert!((0.8..0.98).contains(&share(1)), "{}", share(1));
    assert!((0.35..0.65).contains(&share(2)), "{}", share(2));
}

#[test]
fn an_error_or_a_panic_of_a_worker_is_the_stream_s_last_word() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    for threads in [1, 3] {
        let options = GenerateOptions { threads, forever: true, ..GenerateOptions::default() };
        let fake = Fake { fails_in: Some(20), ..Fake::new(&bundle, 0.1) };
        let mut stream = run_with(&bundle, vec![fake; threads], &options);
        let error = stream.find_map(Result::err).unwrap();
        assert_eq!(error.to_string(), "graph `none` failed: told to");
        assert!(stream.next().is_none());
    }
    let options = GenerateOptions { threads: 2, forever: true, ..GenerateOptions::default() };
    let fake = Fake { fails_in: Some(20), panics: true, ..Fake::new(&bundle, 0.1) };
    let mut stream = run_with(&bundle, vec![fake; 2], &options);
    let error = stream.find_map(Result::err).unwrap();
    assert!(error.to_string().contains("stopped by a panic"), "{error}");
}

#[test]
fn a_stream_that_is_dropped_stops_its_workers() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let options = GenerateOptions { threads: 3, forever: true, ..GenerateOptions::default() };
    let mut stream = run_with(&bundle, vec![Fake::new(&bundle, 0.1); 3], &options);
    assert!(stream.next().is_some());
    let counters = Arc::downgrade(&stream.counters);
    drop(stream);
    // Dropping joined the threads, and nothing of theirs is left.
    assert!(counters.upgrade().is_none());
}

#[test]
fn options_out_of_range_are_named() {
    let refused = |options: GenerateOptions| options.check().unwrap_err().to_string();
    let error = refused(GenerateOptions { slots: 0, ..GenerateOptions::default() });
    assert_eq!(error, "option `slots` is 0; expected 1 to 65536");
    let error =
        refused(GenerateOptions { flow_rate: f64::NAN.into(), ..GenerateOptions::default() });
    assert!(error.starts_with("option `flow_rate` is NaN"), "{error}");
}

/// What happens at the boundaries of chunks, with records a microsecond apart
/// and parts of one record (a flag that always says stop).
#[test]
fn a_flow_goes_on_in_the_chunks_that_its_tags_name() {
    for (tags, cut) in
        [(SpanTags::EveryPart, None), (SpanTags::FirstPart, None), (SpanTags::EveryPart, cut())]
    {
        let segments = cut.is_some();
        let bundle = chunked_bundle(TimeEncoding::Interarrival, cut, Some(tags), &CHUNKS);
        let options = GenerateOptions { flows: Some(900), ..GenerateOptions::default() };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let fake = Fake { asked: Some(asked.clone()), ..Fake::new(&bundle, 2.0) };
        let mut stream = run_with(&bundle, vec![fake], &options);
        let events: Vec<_> = (&mut stream).collect::<Result<_, _>>().unwrap();
        assert_sound(&events);
        let mut flows: HashMap<u64, Vec<&Event<Item>>> = HashMap::new();
        events.iter().for_each(|event| flows.entry(event.flow).or_default().push(event));
        assert_eq!(flows.len(), 900);
        let chunk_of = |event: &Event<Item>| match event.time_ns % 100_000_000 {
            0..20_000_000 => 0,
            20_000_000..50_000_000 => 1,
            _ => 2,
        };
        let (mut spans, mut handed, mut from_first) = (0, 0, 0);
        for flow in flows.values() {
            // One identity: what was given at the start.
            assert!(flow.iter().all(|event| event.item.0 == flow[0].item.0));
            let chunks: Vec<usize> = flow.iter().map(|event| chunk_of(event)).collect();
            from_first += usize::from(chunks[0] == 0);
            if segments {
                // A part's further records may lie anywhere.
                continue;
            }
            assert!(chunks.is_sorted(), "{chunks:?}");
            // Not past the span: that is another round's.
            assert_eq!(flow[0].time_ns / 100_000_000, flow[flow.len() - 1].time_ns / 100_000_000);
            let mut parts: Vec<&Event<Item>> = Vec::new();
            for (event, &chunk) in flow.iter().zip(&chunks) {
                if parts.last().is_none_or(|last| chunk_of(last) != chunk) {
                    parts.push(event);
                }
            }
            for part in &parts[1..] {
                let (start, length) = [(0, 20), (20, 30), (50, 50)][chunk_of(part)];
                let offset = part.time_ns % 100_000_000 - start * 1_000_000;
                let share = offset as f64 / (length as f64 * 1e6);
                assert!((0.0999..=0.2001).contains(&share), "{share}");
            }
            handed += parts.len() - 1;
            spans += usize::from(parts.len() > 1);
        }
        assert_eq!((stream.stats().flows_begun, stream.stats().flows_finished), (900, 900));
        // The fake's tags are much like coin tosses: of the first chunk's flows three
        // quarters go on somewhere, of the second's a half, of the third's none.
        assert!((150..210).contains(&from_first), "{from_first}");
        if !segments {
            assert_eq!(stream.stats().handed_over, handed as u64);
            let expected = 0.2 * 900.0 * 0.75 + 0.3 * 900.0 * 0.5;
            assert!((spans as f64 - expected).abs() < 0.25 * expected, "{spans} of {expected}");
        }
        check_asked(&asked.lock().unwrap(), tags, segments);
    }
}

/// The rows that the networks of gates were given: kind (3), "goes on" where
/// there are segments, a tag a chunk.
fn check_asked(asked: &[crate::testing::Asked], tags: SpanTags, segments: bool) {
    let (mut firsts, mut others) = (0, 0);
    for (chunk, attributes, condition) in asked {
        // Columns are in order of activation: tags are the sigmoids.
        let told = &attributes[usize::from(segments)..][..3];
        let starts_flow = *condition.last().unwrap();
        assert_eq!(condition.len(), 2 + usize::from(segments));
        assert!((0.0..=1.0).contains(&condition[0]));
        let earlier = told[..*chunk].iter().sum::<f32>();
        if starts_flow == 1.0 {
            firsts += 1;
            // Not before it starts, and where it is.
            assert_eq!((earlier, told[*chunk]), (0.0, 1.0), "{told:?} in {chunk}");
        } else {
            others += 1;
            match tags {
                SpanTags::EveryPart => assert!(earlier >= 1.0 && told[*chunk] == 1.0),
                SpanTags::FirstPart => assert_eq!(told, [0.0; 3]),
            }
        }
    }
    assert!(firsts >= 900 && others > 100, "{firsts} {others}");
}

#[test]
fn a_duration_cuts_an_undisturbed_run_of_several_chunks_too() {
    let tags = Some(SpanTags::EveryPart);
    let bundle = chunked_bundle(TimeEncoding::Interarrival, cut(), tags, &CHUNKS);
    let options = GenerateOptions { duration_ns: Some(130_000_000), ..Default::default() };
    let endless = GenerateOptions { forever: true, ..GenerateOptions::default() };
    let whole = run_with(&bundle, vec![Fake::new(&bundle, 0.2)], &endless).map(Result::unwrap);
    let expected: Vec<_> = whole.take_while(|event| event.time_ns < 130_000_000).collect();
    assert!(expected.len() > 1_000);
    assert!(run(&bundle, 0.2, &options) == expected);
}

/// Two flows: the second starts where the first does, so many spans later.
fn spans_apart(bundle: &Bundle, spans: u64) -> Arc<GivenFlows> {
    let span_us = bundle.manifest().timeline.arrivals.span_ns() / 1000;
    let csv = format!("kind,time\n10,7\n20,{}\n", 1_007 + spans * span_us);
    let schema = &bundle.manifest().schema;
    Arc::new(GivenFlows::from_reader(csv.as_bytes(), Path::new("given.csv"), schema).unwrap())
}

#[test]
fn times_are_exact_a_million_spans_later() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let span_ns = bundle.manifest().timeline.arrivals.span_ns();
    let second = |spans| {
        let attributes = Some(spans_apart(&bundle, spans));
        let options = GenerateOptions { attributes, ..GenerateOptions::default() };
        let mut events = run(&bundle, 0.02, &options);
        events.retain(|event| event.flow == 1);
        events
    };
    let now = second(0);
    assert!(now.len() > 5, "{}", now.len());
    for spans in [1, 1_000_000, 10_000_000_000] {
        let later = second(spans);
        let moved = now.iter().map(|event| Event {
            time_ns: event.time_ns + spans * span_ns,
            item: event.item.clone(),
            ..*event
        });
        assert!(later.iter().eq(moved.collect::<Vec<_>>().iter()), "{spans}");
    }
}

#[test]
fn there_is_no_seam_where_spans_meet() {
    let bundle = bundle(TimeEncoding::Interarrival, None);
    let span_ns = bundle.manifest().timeline.arrivals.span_ns();
    let (spans, phases) = (40, 20);
    let options =
        GenerateOptions { duration_ns: Some(spans * span_ns), ..GenerateOptions::default() };
    let mut counts = vec![vec![0.0; phases]; spans as usize];
    for event in run(&bundle, 0.1, &options) {
        let phase = (event.time_ns % span_ns) * phases as u64 / span_ns;
        counts[(event.time_ns / span_ns) as usize][phase as usize] += 1.0;
    }
    // Until flows end as fast as they begin.
    let steady = &counts[10..];
    let rows = steady.len() as f64;
    let mean = |phase: usize| steady.iter().map(|row| row[phase]).sum::<f64>() / rows;
    let overall = (0..phases).map(mean).sum::<f64>() / phases as f64;
    assert!(overall > 50.0, "{overall}");
    for phase in [0, phases - 1] {
        let squares = steady.iter().map(|row| (row[phase] - mean(phase)).powi(2));
        let error = (squares.sum::<f64>() / rows / rows).sqrt();
        let off = mean(phase) - overall;
        assert!(off.abs() < 4.0 * error, "{phase}: {off} {error} {overall}");
    }
}
