//! Encoding whole traces.

use std::io::Write;
use std::path::Path;

use super::*;
use crate::config::{parse, resolve};
use crate::ingest::{Reading, table};
use ns_model_format::codec::Codec;
use ns_model_format::schema::SpanTags;

const CONFIG: &str = r#"{
    "global_config": { "dataset_type": "netflow" },
    "pre_post_processor": { "config": {
        "max_flow_len": 3,
        "timestamp": { "column": "ts", "unit": "us" },
        "metadata": [
            { "column": "host", "type": "integer", "encoding": "bit", "n_bits": 2 },
            { "column": "proto", "type": "string", "encoding": "word2vec_proto" }
        ],
        "timeseries": [ { "column": "bytes", "type": "float" } ]
    } }
}"#;

fn build_from(rows: &str, config: &str) -> Result<Dataset, DatasetError> {
    build_table(&format!("ts,host,proto,bytes\n{rows}"), config)
}

fn build_table(text: &str, config: &str) -> Result<Dataset, DatasetError> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(file, "{text}").expect("written");
    let config = resolve(&parse(config, "test").expect("good"), Path::new(".")).expect("good");
    let trace =
        table::read(&[file.path().to_owned()], &config, Reading::default()).expect("a good file");
    build(&trace, &config, 1)
}

#[test]
fn long_flows_are_cut_into_tagged_segments() {
    // Host 1 has 7 records: segments of 3, 3, 1. Host 2 has 2.
    let mut rows: Vec<String> = (0..7).map(|t| format!("{},1,tcp,{}", t * 100, t)).collect();
    rows.insert(1, "50,2,udp,4".to_owned());
    rows.push("650,2,udp,6".to_owned());
    let dataset = build_from(&rows.join("\n"), CONFIG).expect("good rows");
    let samples = &dataset.chunks[0];
    assert_eq!(samples.lengths().collect::<Vec<_>>(), [3, 3, 1, 2]);
    let attributes = samples.attribute_layout.dim();
    assert_eq!(attributes, 2 * 2 + 10 + 2);
    let goes_on: Vec<f32> =
        (0..4).map(|sample| samples.attributes_of(sample)[attributes - 1]).collect();
    assert_eq!(goes_on, [1.0, 1.0, 0.0, 0.0]);
    // Conditions: where in the 650 us span the flow starts, whether the segment does.
    let starts = 50.0 / 650.0;
    let conditions: Vec<f32> =
        (0..4).flat_map(|sample| samples.condition(sample).to_vec()).collect();
    assert_eq!(conditions, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, starts, 1.0]);
    // A record: gap, bytes, flag (no, yes). Gaps are scaled by the longest, 600 us.
    let record = samples.measurement_layout.dim();
    let records: Vec<f32> = (0..4).flat_map(|sample| samples.records_of(sample)).collect();
    let flags: Vec<f32> = records.chunks(record).map(|r| r[record - 1]).collect();
    assert_eq!(flags, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
    let gaps: Vec<f32> = records.chunks(record).map(|r| r[0] * 600.0).collect();
    let expected = [0.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 0.0, 600.0];
    assert!(gaps.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{gaps:?}");
    let cut = dataset.schema.segmentation.expect("flows were cut");
    assert_eq!(cut.max_records, 3);
    assert!(cut.goes_on.iter().all(|share| (0.0..1.0).contains(share)), "{:?}", cut.goes_on);
    assert_eq!((dataset.timeline.flows, dataset.timeline.records), (2, 9));
    assert_eq!(dataset.timeline.arrivals.span_ns(), 650_000);
}

#[test]
fn where_no_two_flows_are_alike_the_field_that_tells_them_apart_is_named() {
    let rows = "0,1,tcp,5\n10,2,tcp,5\n20,1,udp,5\n30,3,udp,5\n2000000,1,tcp,5";
    let distinct = |config: &str| build_from(rows, config).expect("good rows").schema.distinct;
    assert_eq!(distinct(CONFIG).as_deref(), Some("host"));
    // The last row is then a flow of its own, with the attributes of the first.
    assert_eq!(distinct(&CONFIG.replace("\"max", "\"idle_timeout\": 1, \"max")), None);
    let chunks = r#""netflow", "n_chunks": 2"#;
    let rows = "0,1,tcp,5\n10,2,tcp,5\n20,0,udp,5\n30,3,udp,5";
    let chunked = build_from(rows, &CONFIG.replace(r#""netflow""#, chunks)).expect("good rows");
    assert_eq!((chunked.chunks.len(), chunked.schema.distinct), (2, None));
}

#[test]
fn flows_that_fit_are_not_cut() {
    let dataset = build_from("0,1,tcp,5\n10,2,tcp,5\n20,1,tcp,5", CONFIG).expect("good rows");
    assert_eq!(dataset.schema.segmentation, None);
    assert_eq!(dataset.chunks[0].condition_dim, 1);
}

#[test]
fn self_normalised_measurements_tell_their_scale() {
    let config =
        CONFIG.replace("} }\n}", "} },\n    \"model\": { \"config\": { \"self_norm\": true } }\n}");
    let rows = "0,1,tcp,10\n100,1,tcp,30\n300,1,tcp,20\n0,2,udp,50\n";
    let dataset = build_from(rows, &config).expect("good rows");
    let samples = &dataset.chunks[0];
    // Time and bytes, two attributes each, after everything else.
    assert_eq!(samples.additional_dim, 4);
    let attributes = samples.attribute_layout.dim();
    let scales = |sample: usize| samples.attributes_of(sample)[attributes - 4..].to_vec();
    // Bytes are 0, .5, .25 of 10..50 in the first flow; time 0, .5, 1 of 0..200 us.
    let near = |a: f32, b: f32| (a - b).abs() < 2e-4;
    assert!(near(scales(0)[0], 0.5) && near(scales(0)[1], 0.5), "{:?}", scales(0));
    assert!(near(scales(0)[2], 0.25) && near(scales(0)[3], 0.25), "{:?}", scales(0));
    assert!(near(scales(1)[2], 1.0) && near(scales(1)[3], 0.0), "{:?}", scales(1));
    let record = samples.measurement_layout.dim();
    let records = (0..2).flat_map(|sample| samples.records_of(sample)).collect::<Vec<f32>>();
    let bytes: Vec<f32> = records.chunks(record).map(|record| record[1]).collect();
    let expected = [0.0, 1.0, 0.5, 0.5];
    assert!(bytes.iter().zip(expected).all(|(&a, b)| near(a, b)), "{bytes:?}");
    // The runtime finds them where they are.
    let own: Vec<usize> = dataset.schema.own_scales().map(|(at, _)| at).collect();
    assert_eq!(own, [0, 1]);
}

#[test]
fn a_trace_of_one_instant_has_a_span() {
    let dataset = build_from("5,1,tcp,1\n5,2,udp,1", CONFIG).expect("good rows");
    assert_eq!(dataset.timeline.arrivals.span_ns(), SHORTEST_SPAN_NS);
}

#[test]
fn one_flow_is_too_few() {
    let error = build_from("0,1,tcp,5\n10,1,tcp,6", CONFIG).expect_err("one flow");
    assert_eq!(error.to_string(), "1 flow in 2 records; training needs at least 2");
}

#[test]
fn a_value_that_does_not_fit_is_named_by_its_input_row() {
    // Sorted by time the bad row comes first; in the file it is the third.
    let error = build_from("10,1,tcp,5\n20,2,tcp,6\n5,9,tcp,6", CONFIG).expect_err("9 in 2 bits");
    assert_eq!(error.to_string(), "column `host`, row 3: value `9` exceeds 2 bits");
    let choices = CONFIG.replace(
        "\"bytes\", \"type\": \"float\"",
        "\"bytes\", \"type\": \"integer\", \"encoding\": \"categorical\", \"choices\": [5, 6]",
    );
    let error = build_from("10,1,tcp,5\n20,2,tcp,7\n5,3,tcp,6", &choices).expect_err("7");
    assert_eq!(error.to_string(), "column `bytes`, row 2: value `7` is not among the 2 choices");
}

/// Flows of hosts 1 to 3 over 0..1000 us, at most 3 records a sample.
fn spanning(global: &str, fields: &str) -> Dataset {
    let mut times: Vec<(u64, u8)> = Vec::new();
    // Host 1 everywhere (10 records), host 2 in the first half only, host 3 late.
    times.extend((0..10).map(|i| (i * 100, 1)));
    times.extend([(10, 2), (20, 2), (900, 3), (1000, 3)]);
    times.sort_unstable();
    let rows: Vec<String> = times.iter().map(|(t, host)| format!("{t},{host},tcp,1")).collect();
    let config = CONFIG
        .replace("\"netflow\"", &format!("\"netflow\", {global}"))
        .replace("\"max_flow_len\"", &format!("{fields} \"max_flow_len\""));
    build_from(&rows.join("\n"), &config).expect("good rows")
}

/// The tags of a chunk's samples: after the host's two bits and the protocol's
/// ten numbers "goes on", then one a chunk; and the condition.
fn tags(samples: &Samples) -> Vec<(Vec<f32>, Vec<f32>)> {
    let of = |sample: usize| {
        let tags = samples.attributes_of(sample)[2 * 2 + 10..].chunks(2).map(|t| t[1]).collect();
        (tags, samples.condition(sample).to_vec())
    };
    (0..samples.len()).map(of).collect()
}

#[test]
fn flows_that_span_chunks_are_tagged_in_each() {
    let dataset = spanning("\"n_chunks\": 2", "");
    assert_eq!(dataset.timeline.chunk_starts_ns, [0, 500_000]);
    assert_eq!(dataset.notes, [""; 0]);
    let spanning = dataset.schema.spanning.expect("host 1 does");
    assert_eq!((spanning.chunks, spanning.tags), (2, SpanTags::EveryPart));
    assert_eq!(dataset.schema.condition_dim(), 3);
    let [first, second] = &dataset.chunks[..] else { panic!("two chunks") };
    // Host 1: segments of 3 and 2 in each chunk; condition: where the part
    // begins, whether the segment starts it, whether it starts the flow.
    let yes_no = |goes_on, chunks: [f32; 2]| [&[goes_on][..], &chunks].concat();
    assert_eq!(
        tags(first),
        [
            (yes_no(1.0, [1.0, 1.0]), vec![0.0, 1.0, 1.0]),
            (yes_no(0.0, [1.0, 1.0]), vec![0.0, 0.0, 1.0]),
            (yes_no(0.0, [1.0, 0.0]), vec![0.02, 1.0, 1.0]),
        ]
    );
    assert_eq!(
        tags(second),
        [
            (yes_no(1.0, [1.0, 1.0]), vec![0.0, 1.0, 0.0]),
            (yes_no(0.0, [1.0, 1.0]), vec![0.0, 0.0, 0.0]),
            (yes_no(0.0, [0.0, 1.0]), vec![0.8, 1.0, 1.0]),
        ]
    );
    assert_eq!(first.lengths().chain(second.lengths()).collect::<Vec<_>>(), [3, 2, 2, 3, 2, 2]);
    assert_eq!([first.room, second.room], [3, 3]);
    // A part's first record has no gap before it.
    assert_eq!(second.records_of(0)[0], 0.0);
    assert!(second.records_of(1)[0] > 0.0);
    assert_eq!(dataset.handed_over[0], None);
    let handed_over = dataset.handed_over[1].as_ref().expect("host 1");
    assert_eq!((&handed_over.begins[..], handed_over.goes_on), (&[0.0][..], 1.0));
    assert_eq!((dataset.timeline.flows, dataset.timeline.records), (3, 14));
}

#[test]
fn the_first_part_alone_tells_where_it_is_asked_to() {
    let dataset = spanning("\"n_chunks\": 2", "\"split_name\": \"multichunk_dep_v1\",");
    let tags: Vec<Vec<f32>> = tags(&dataset.chunks[1]).into_iter().map(|(tags, _)| tags).collect();
    // Host 1 came from before; host 3 starts here.
    assert_eq!(tags, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]);
}

#[test]
fn chunks_of_equal_size_are_cut_at_record_times() {
    let dataset = spanning("\"n_chunks\": 2", "\"df2chunks\": \"fixed_size\",");
    // The eighth of 14 records.
    assert_eq!(dataset.timeline.chunk_starts_ns, [0, 500_000]);
    let records: Vec<usize> = dataset.chunks.iter().map(Samples::records).collect();
    assert_eq!(records, [7, 7]);
}

#[test]
fn chunks_with_too_little_are_joined_to_their_neighbours() {
    // In tenths of the span flows start in the first and the last but one only.
    let dataset = spanning("\"n_chunks\": 10", "");
    assert_eq!(dataset.timeline.chunk_starts_ns, [0, 900_000]);
    assert_eq!(
        dataset.notes,
        ["chunks with fewer than 2 samples, or in which no flow starts, are joined to their \
          neighbours (2, 3, 4, 5, 6, 7, 8, 9 of 10): 2 chunks are left"]
    );
    assert_eq!(dataset.chunks.iter().map(Samples::records).sum::<usize>(), 14);
    // The first has none either: all records lie in one thousandth and at the end.
    let one = spanning("\"n_chunks\": 1000", "");
    assert_eq!(one.timeline.chunk_starts_ns, [0; 0]);
    assert_eq!((one.chunks.len(), one.schema.spanning), (1, None));
}

#[test]
fn every_block_is_encoded_as_one_would_be() {
    // More records than a block has, in flows of 1 to 40.
    let mut rows = String::new();
    let hosts: [u64; 3] = [1, 2, 3];
    for row in 0..40_000_u64 {
        let burst = row / 900;
        let host = hosts[(row * row / 7 + burst) as usize % 3];
        rows += &format!("{},{host},p{burst},{}\n", row * 10, row % 50);
    }
    let all = build_from(rows.trim_end(), CONFIG).expect("good rows");
    let samples = &all.chunks[0];
    assert_eq!(samples.records(), 40_000);
    // Every record of every flow, in order: gaps add up, bytes are the row's.
    let record = samples.measurement_layout.dim();
    let mut bytes: Vec<u64> = Vec::new();
    for sample in 0..samples.len() {
        bytes.extend(
            samples.records_of(sample).chunks(record).map(|r| (r[1] * 49.0).round() as u64),
        );
    }
    let (mut found, mut expected) = ([0_usize; 50], [0_usize; 50]);
    bytes.iter().for_each(|&byte| found[byte as usize] += 1);
    (0..40_000).for_each(|row| expected[row % 50] += 1);
    assert_eq!(found, expected);
    crate::train::set_threads(1);
    let one_thread = build_from(rows.trim_end(), CONFIG).expect("good rows");
    crate::train::set_threads(0);
    assert_eq!(&one_thread.chunks[0], samples);
}

#[test]
fn names_that_are_known_elsewhere_or_that_many_records_are_of_have_tokens() {
    let config = r#"{
        "global_config": { "dataset_type": "netflow" },
        "model": { "class": "autoregressive" },
        "pre_post_processor": { "config": {
            "timestamp": { "column": "ts", "unit": "us" },
            "metadata": [
                { "column": "src", "type": "ip_string", "encoding": "bit" },
                { "column": "dst", "type": "ip_string", "encoding": "bit" },
                { "column": "sport", "type": "integer", "encoding": "bit", "n_bits": 16 },
                { "column": "dport", "type": "integer", "encoding": "bit", "n_bits": 16 }
            ],
            "timeseries": [ { "column": "bytes", "type": "float" } ]
        } }
    }"#;
    let mut rows = String::from("ts,src,dst,sport,dport,bytes\n");
    let mut row = |ts: usize, from: &str, to: &str, ports: [usize; 2]| {
        rows += &format!("{ts},{from},{to},{},{},{ts}\n", ports[0], ports[1]);
    };
    for flow in 0..60 {
        row(flow, "10.0.0.1", "10.0.0.2", [40_000 + 137 * flow, 502]);
    }
    // One answer came first; one host sends to a group all the time; one is hardly there.
    row(60, "10.0.0.2", "10.0.0.1", [502, 49_999]);
    (0..40).for_each(|at| row(61 + at, "10.0.0.7", "224.0.0.251", [50_001, 5353]));
    row(200, "10.0.0.9", "10.0.0.2", [50_003, 5355]);
    let dataset = build_table(&rows, config).expect("good rows");
    let is_known = |field: usize, number: i64| {
        let Codec::Tokens(codec) = &dataset.schema.attributes[field].codec else { panic!() };
        codec.is_exact(codec.token_of(number as f64))
    };
    let host = |last: i64| 0x0a00_0000 + last;
    let known: Vec<bool> = [1, 2, 7, 9].map(|last| is_known(0, host(last))).to_vec();
    assert_eq!(known, [true, true, true, false]);
    assert!(is_known(1, 0xe000_00fb) && is_known(1, host(1)));
    assert!(is_known(2, 502) && !is_known(2, 50_001));
    assert!(is_known(3, 502) && is_known(3, 5353) && !is_known(3, 49_999) && !is_known(3, 5355));
}
