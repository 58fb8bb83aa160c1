//! Encoding whole traces.

use std::io::Write;
use std::path::Path;

use super::*;
use crate::config::{parse, resolve};
use crate::ingest::{Reading, csv};

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
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(file, "ts,host,proto,bytes\n{rows}").expect("written");
    let config = resolve(&parse(config, "test").expect("good"), Path::new(".")).expect("good");
    let trace =
        csv::read(&[file.path().to_owned()], &config, Reading::default()).expect("a good file");
    build(&trace, &config, 1)
}

#[test]
fn long_flows_are_cut_into_tagged_segments() {
    // Host 1 has 7 records: segments of 3, 3, 1. Host 2 has 2.
    let mut rows: Vec<String> = (0..7).map(|t| format!("{},1,tcp,{}", t * 100, t)).collect();
    rows.insert(1, "50,2,udp,4".to_owned());
    rows.push("650,2,udp,6".to_owned());
    let dataset = build_from(&rows.join("\n"), CONFIG).expect("good rows");
    let samples = &dataset.samples;
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
fn flows_that_fit_are_not_cut() {
    let dataset = build_from("0,1,tcp,5\n10,2,tcp,5\n20,1,tcp,5", CONFIG).expect("good rows");
    assert_eq!(dataset.schema.segmentation, None);
    assert_eq!(dataset.samples.condition_dim, 1);
}

#[test]
fn self_normalised_measurements_tell_their_scale() {
    let config =
        CONFIG.replace("} }\n}", "} },\n    \"model\": { \"config\": { \"self_norm\": true } }\n}");
    let rows = "0,1,tcp,10\n100,1,tcp,30\n300,1,tcp,20\n0,2,udp,50\n";
    let dataset = build_from(rows, &config).expect("good rows");
    let samples = &dataset.samples;
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
