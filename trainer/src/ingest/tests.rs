//! From files to traces: what flows are, what is counted, what is said.

use std::io::Write;
use std::path::Path;

use ns_model_format::schema::FieldKind;
use ns_model_format::{ColumnData, Value};

use super::*;
use crate::config::{Resolved, parse, resolve};

const NETFLOW: &str = include_str!("../../../configs/netflow.json");

fn config(text: &str) -> Resolved {
    let file = parse(text, "config").expect("a good file");
    resolve(&file, Path::new(".")).expect("a good configuration")
}

fn read_csv(contents: &str, on_error: OnError) -> Result<Trace, IngestError> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(contents.as_bytes()).expect("written");
    csv::read(file.path(), &config(NETFLOW), on_error)
}

/// An error's text without the temporary file's name.
fn message(result: Result<Trace, IngestError>) -> String {
    let text = result.expect_err("an error").to_string();
    let (_, rest) = text.split_once("`: ").unwrap_or(("", &text));
    rest.to_owned()
}

const HEADER: &str = "srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,type\n";

#[test]
fn rows_that_share_metadata_are_a_flow_in_order_of_time() {
    let rows = "\
10.0.0.1,10.0.0.2,1000,53,UDP,1700000000000003,0.5,1,60,a
10.0.0.3,10.0.0.2,1000,53,UDP,1700000000000002,0.25,2,60,b
10.0.0.1,10.0.0.2,1000,53,UDP,1700000000000001,1,3,61,a
";
    let trace = read_csv(&format!("{HEADER}{rows}"), OnError::Stop).expect("a good file");
    assert_eq!(trace.flows, [vec![0, 2], vec![1]]);
    assert_eq!(trace.input_rows, [3, 2, 1]);
    assert_eq!(trace.times_ns[0], 1_700_000_000_000_001_000);
    assert_eq!(trace.order.join(","), HEADER.trim_end());
    let (address, kind) = trace.column("srcip").expect("a column");
    assert_eq!((address.value(0), kind), (Value::Int(0x0a00_0001), FieldKind::Ipv4));
    let (td, kind) = trace.column("td").expect("a column");
    assert_eq!(kind, FieldKind::Float { decimals: 2 });
    assert_eq!(td.data, ColumnData::Float(vec![1.0, 0.25, 0.5]));
    assert_eq!(trace.column("pkt").map(|(_, kind)| kind), Some(FieldKind::Integer));
}

#[test]
fn a_bad_cell_is_named_by_row_and_column_or_counted() {
    let rows = "\
1,2,1000,53,UDP,1700000000000001,0.5,1,60,a
1,2,1000,http,UDP,1700000000000002,0.5,1,60,a
1,2,1000,53,UDP,1700000000000003,0.5,-,60,a
1,2,1000,53,UDP,yesterday,0.5,1,60,a
1,2,1000,53,UDP
";
    let text = format!("{HEADER}{rows}");
    assert_eq!(
        message(read_csv(&text, OnError::Stop)),
        "row 2, column `dstport`: expected a whole number or an IPv4 address, found `http`"
    );
    let trace = read_csv(&text, OnError::Skip).expect("one good row");
    assert_eq!(trace.input_rows, [1]);
    assert_eq!(trace.not_used["rows with a bad cell"], 3);
    assert_eq!(trace.not_used["rows with too few or too many cells"], 1);
}

#[test]
fn a_missing_column_and_an_empty_file_are_named() {
    assert_eq!(
        message(read_csv("srcip,dstip,ts\n1,2,3\n", OnError::Stop)),
        "no column `srcport`; it has `srcip`, `dstip`, `ts`"
    );
    assert_eq!(
        message(read_csv("", OnError::Stop)),
        "no column `ts`; it has none: the file is empty"
    );
    let text = read_csv(HEADER, OnError::Stop).expect_err("no rows").to_string();
    assert!(text.ends_with("has no usable records"), "{text}");
}

#[test]
fn silence_longer_than_the_timeout_ends_a_flow() {
    let flows = group_flows([1, 1, 2, 1], &[0, 5, 6, 20], Some(10));
    assert_eq!(flows, [vec![0, 1], vec![2], vec![3]]);
    assert_eq!(group_flows([1, 1, 2, 1], &[0, 5, 6, 20], None), [vec![0, 1, 3], vec![2]]);
}

#[test]
fn a_conversation_is_seen_from_its_first_sender() {
    let capture = pcap::parse(
        &pcap::tests::capture_of(&[
            pcap::tests::udp_frame([10, 0, 0, 9], [10, 0, 0, 1], 4000, 53, 20),
            pcap::tests::udp_frame([10, 0, 0, 1], [10, 0, 0, 9], 53, 4000, 90),
            pcap::tests::udp_frame([10, 0, 0, 9], [10, 0, 0, 1], 4000, 53, 30),
        ]),
        Path::new("test"),
        OnError::Stop,
    )
    .expect("a good capture");
    let both = packets::trace(capture.clone(), &config(crate::config::DEFAULT_PCAP));
    let both = both.expect("packet columns");
    assert_eq!(both.flows, [vec![0, 1, 2]]);
    let ints = |trace: &Trace, name: &str| match &trace.column(name).expect("a column").0.data {
        ColumnData::Int(cells) => cells.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(ints(&both, "direction"), [0, 1, 0]);
    assert_eq!(ints(&both, "srcport"), [4000, 4000, 4000]);
    assert_eq!(ints(&both, "pkt_len"), [48, 118, 58]);
    let one_way = crate::config::DEFAULT_PCAP
        .replace("\"conversation\"", "\"unidirectional\"")
        .replace("{ \"column\": \"direction\", \"type\": \"integer\", \"encoding\": \"categorical\", \"choices\": [0, 1] },", "");
    let one_way = packets::trace(capture, &config(&one_way)).expect("packet columns");
    assert_eq!(one_way.flows, [vec![0, 2], vec![1]]);
    assert_eq!(ints(&one_way, "srcport"), [4000, 53, 4000]);
}

#[test]
fn a_damaged_record_that_is_skipped_is_one_of_the_records() {
    let whole = include_bytes!("../../../tests/captures/lab.pcap");
    for cut in [400, 1_000, 3_000] {
        let capture = pcap::parse(&whole[..cut], Path::new("cut"), OnError::Skip).expect("packets");
        let not_used: u64 = capture.not_used.values().sum();
        assert!(not_used > 0);
        assert_eq!(capture.records, capture.packets.len() as u64 + not_used);
    }
}
