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
    let reading = Reading { on_error, ..Reading::default() };
    table::read(&[file.path().to_owned()], &config(NETFLOW), reading)
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
    let column = |name: &str| trace.column(name).expect("a column");
    assert_eq!(column("srcip").column.value(0), Value::Int(0x0a00_0001));
    assert_eq!(column("srcip").kind, FieldKind::Ipv4);
    assert_eq!(column("td").kind, FieldKind::Float { decimals: 2 });
    assert_eq!(column("td").column.data, ColumnData::Float(vec![1.0, 0.25, 0.5]));
    assert_eq!(column("pkt").kind, FieldKind::Integer);
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
        "row 2, column `dstport`: expected a whole number or an IP address, found `http`"
    );
    let trace = read_csv(&text, OnError::Skip).expect("two good rows");
    assert_eq!(trace.input_rows, [1, 3]);
    assert!(trace.column("pkt").expect("a column").column.is_missing(1));
    assert_eq!(trace.not_used["rows with a bad cell"], 2);
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
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("three.pcap");
    std::fs::write(
        &file,
        pcap::tests::capture_of(&[
            pcap::tests::udp_frame([10, 0, 0, 9], [10, 0, 0, 1], 4000, 53, 20),
            pcap::tests::udp_frame([10, 0, 0, 1], [10, 0, 0, 9], 53, 4000, 90),
            pcap::tests::udp_frame([10, 0, 0, 9], [10, 0, 0, 1], 4000, 53, 30),
        ]),
    )
    .expect("written");
    let files = [file];
    let read = |text: &str| packets::trace(&files, &config(text), Reading::default());
    let both = read(crate::config::DEFAULT_PCAP);
    let both = both.expect("packet columns");
    assert_eq!(both.flows, [vec![0, 1, 2]]);
    let ints = |trace: &Trace, name: &str| match &trace.column(name).expect("a column").column.data
    {
        ColumnData::Int(cells) => cells.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(ints(&both, "direction"), [0, 1, 0]);
    assert_eq!(ints(&both, "srcport"), [4000, 4000, 4000]);
    assert_eq!(ints(&both, "pkt_len"), [48, 118, 58]);
    let one_way = crate::config::DEFAULT_PCAP
        .replace("\"conversation\"", "\"unidirectional\"")
        .replace("{ \"column\": \"direction\", \"type\": \"integer\", \"encoding\": \"categorical\", \"choices\": [0, 1] },", "");
    let one_way = read(&one_way).expect("packet columns");
    assert_eq!(one_way.flows, [vec![0, 2], vec![1]]);
    assert_eq!(ints(&one_way, "srcport"), [4000, 53, 4000]);
}

/// An Ethernet frame with an IPv6 UDP packet between hosts of one network.
fn udp6_frame(src: u8, dst: u8, src_port: u16, dst_port: u16, payload: usize) -> Vec<u8> {
    let host = |last: u8| {
        let mut address = [0; 16];
        (address[0], address[1], address[15]) = (0xfd, 0x01, last);
        address
    };
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv6(host(src), host(dst), 64)
        .udp(src_port, dst_port)
        .write(&mut frame, &vec![0; payload])
        .expect("written to memory");
    frame
}

#[test]
fn packets_of_both_versions_are_one_trace_that_tells_them_apart() {
    let (_folder, paths) = folder_of(&[(
        "a.pcap",
        pcap::tests::capture_of(&[
            udp6_frame(9, 1, 4000, 53, 20),
            pcap::tests::udp_frame([10, 0, 0, 9], [10, 0, 0, 1], 4000, 53, 30),
            udp6_frame(1, 9, 53, 4000, 90),
        ]),
    )]);
    let default = config(crate::config::DEFAULT_PCAP);
    let trace = packets::trace(&paths, &default, Reading::default()).expect("a good capture");
    assert_eq!(trace.flows, [vec![0, 2], vec![1]]);
    let column = |name: &str| trace.column(name).expect("a column");
    let number = |text: &str| ns_model_format::cell::ip(text).expect("an address");
    let sources = [number("fd01::9"), number("10.0.0.9"), number("fd01::9")];
    assert_eq!(column("srcip").column.data, ColumnData::Wide(sources.to_vec()));
    assert_eq!(column("dstip").kind, FieldKind::Ip);
    assert_eq!(column("version").column.data, ColumnData::Int(vec![6, 4, 6]));
    assert_eq!(column("direction").column.data, ColumnData::Int(vec![0, 0, 1]));
    assert_eq!(column("pkt_len").column.data, ColumnData::Int(vec![68, 58, 138]));
    assert_eq!(trace.order[..7].join(","), "srcip,dstip,srcport,dstport,proto,version,time");
    assert_eq!(trace.remarks.len(), 1);
    // The encoders follow, and so does what is fitted.
    let fitted = default.of_trace(&trace);
    assert_eq!(fitted.metadata.len(), default.metadata.len() + 1);
    let spaces = Default::default();
    let source = crate::encoders::fit(&fitted.metadata[0], column("srcip"), false, &spaces);
    // 128 bits of two each, and which values have an output of their own: none here.
    assert_eq!(source.expect("fits").codec.dim(), 258);
    // A configuration that has the version, or no addresses, stays as it is.
    let own = crate::config::DEFAULT_PCAP.replacen(
        "{ \"column\": \"ttl\", \"type\": \"integer\", \"encoding\": \"bit\" }",
        "{ \"column\": \"version\", \"type\": \"integer\", \"encoding\": \"bit\" }",
        1,
    );
    let own = config(&own);
    let trace = packets::trace(&paths, &own, Reading::default()).expect("a good capture");
    assert_eq!(trace.columns.len(), own.metadata.len() + own.timeseries.len());
    assert_eq!(own.of_trace(&trace).metadata.len(), own.metadata.len());
}

#[test]
fn packets_of_one_version_need_no_column_for_it() {
    let (_folder, paths) =
        folder_of(&[("a.pcap", pcap::tests::capture_of(&[udp6_frame(9, 1, 4000, 53, 20)]))]);
    let config = config(crate::config::DEFAULT_PCAP);
    let trace = packets::trace(&paths, &config, Reading::default()).expect("a good capture");
    assert!(trace.column("version").is_none());
    assert_eq!(trace.column("srcip").expect("a column").kind, FieldKind::Ip);
    assert_eq!(config.of_trace(&trace).metadata.len(), config.metadata.len());
}

#[test]
fn ipv6_is_sampled_by_conversation_beside_ipv4() {
    let frames: Vec<Vec<u8>> = (0..1200_u16)
        .flat_map(|port| {
            let (a, b) = ([10, 0, 0, 9], [10, 0, 0, 1]);
            [
                udp6_frame(port as u8, 255, port, 53, 20),
                pcap::tests::udp_frame(a, b, port, 53, 20),
                udp6_frame(255, port as u8, 53, port, 90),
                pcap::tests::udp_frame(b, a, 53, port, 90),
            ]
        })
        .collect();
    let (_folder, paths) = folder_of(&[("a.pcap", pcap::tests::capture_of(&frames))]);
    let (_folder, four) = folder_of(&[(
        "a.pcap",
        pcap::tests::capture_of(&frames.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>()),
    )]);
    let config = config(crate::config::DEFAULT_PCAP);
    let reading = Reading { max_records: 1000, ..Reading::default() };
    let trace = packets::trace(&paths, &config, reading).expect("good captures");
    assert!(trace.flows.iter().all(|flow| flow.len() == 2));
    let kept = trace.times_ns.len();
    assert!((700..=1000).contains(&kept), "{kept}");
    let versions = &trace.column("version").expect("both versions").column;
    let of_v6 = (0..kept).filter(|&row| versions.value(row) == Value::Int(6)).count();
    assert!((kept / 3..kept * 2 / 3).contains(&of_v6), "{of_v6} of {kept}");
    // Source and destination belong together, also after others were dropped.
    let (sources, destinations) = (trace.column("srcip"), trace.column("dstip"));
    let address = |column: Option<&TraceColumn>, row| match column.expect("there").column.value(row)
    {
        Value::Wide(number) => ns_model_format::cell::ip_address(number.into()),
        other => panic!("{other:?}"),
    };
    for row in 0..kept {
        let pair = [address(sources, row).to_string(), address(destinations, row).to_string()];
        match pair[0].contains(':') {
            true => assert!(pair[0].starts_with("fd01::") && pair[1] == "fd01::ff", "{pair:?}"),
            false => assert_eq!(pair, ["10.0.0.9", "10.0.0.1"]),
        }
    }
    // A flow's number is its own, whatever is beside it.
    let ports = |trace: &Trace| {
        let (ports, versions) = (trace.column("srcport"), trace.column("version"));
        let is_v4 = |row: &usize| {
            versions.is_none_or(|versions| versions.column.value(*row) == Value::Int(4))
        };
        let mut ports: Vec<i64> = (0..trace.times_ns.len())
            .filter(is_v4)
            .filter_map(|row| ports.expect("there").column.value(row).as_i64())
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    let reading = Reading { max_records: 500, ..Reading::default() };
    let four = packets::trace(&four, &config, reading).expect("good captures");
    let (all, four) = (ports(&trace), ports(&four));
    let both = all.iter().filter(|port| four.contains(port)).count();
    assert_eq!(both, all.len().min(four.len()), "{} and {}", all.len(), four.len());
}

const KINDS: &str = r#"{
    "global_config": { "dataset_type": "custom" },
    "pre_post_processor": { "config": {
        "timestamp": { "column": "when" },
        "metadata": [ { "column": "host", "type": "ip_string" }, { "column": "mac", "type": "mac" } ],
        "timeseries": [
            { "column": "ok", "type": "boolean" },
            { "column": "since", "type": "datetime" },
            { "column": "rtt", "type": "float" },
            { "column": "name", "type": "string", "encoding": "categorical" }
        ]
    } }
}"#;

fn read_kinds(rows: &str, change: impl Fn(String) -> String) -> Result<Trace, IngestError> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(file, "when,host,mac,ok,since,rtt,name\n{rows}").expect("written");
    table::read(&[file.path().to_owned()], &config(&change(KINDS.to_owned())), Reading::default())
}

const KIND_ROWS: &str = "\
2026-01-31T12:00:01.5Z,10.0.0.1,02:00:00:00:00:01,T,2025-01-01 00:00:00,0.5,-
2026-01-31T12:00:00.25Z,2001:db8::1,02-00-00-00-00-ff,F,2025-01-02 00:00:00,-,a
2026-01-31T12:00:02Z,10.0.0.1,02:00:00:00:00:01,T,-,,a
";

#[test]
fn cells_are_read_by_type_and_written_as_they_came() {
    let trace = read_kinds(KIND_ROWS, |config| config).expect("good rows");
    assert_eq!(trace.flows, [vec![0], vec![1, 2]]);
    assert_eq!(trace.times_ns[1] - trace.times_ns[0], 1_250_000_000);
    let column = |name: &str| trace.column(name).expect("a column");
    assert_eq!(column("host").kind, FieldKind::Ip);
    let address: std::net::Ipv6Addr = "2001:db8::1".parse().expect("an address");
    assert_eq!(column("host").column.value(0), Value::Wide(u128::from(address).into()));
    assert_eq!(column("mac").column.value(0), Value::Int(0x0200_0000_00ff));
    assert_eq!(column("ok").kind, FieldKind::Boolean { no: "F".into(), yes: "T".into() });
    assert_eq!(column("rtt").column.missing, [true, false, true]);
    assert_eq!(column("rtt").missing.as_deref(), Some("-"));
    assert!(!column("name").column.has_missing(), "text that is a word of its own");
    // What an encoder gives back is written as it was read.
    let spaces = Default::default();
    let config = config(KINDS);
    for field in config.metadata.iter().chain(&config.timeseries) {
        let column = column(&field.column);
        let fitted = crate::encoders::fit(field, column, true, &spaces).expect("fits");
        let mut encoded = vec![0.0; 3 * fitted.codec.dim()];
        fitted.codec.encode(&column.column, &mut encoded, fitted.codec.dim(), 0).expect("encodes");
        let layout = ns_model_format::Layout { segments: fitted.codec.segments() };
        let mut texts = Vec::new();
        for row in encoded.chunks(fitted.codec.dim()) {
            let mut folded = vec![0.0; layout.folded_dim()];
            layout.fold(row, &mut folded);
            let mut text = String::new();
            fitted.write_text(fitted.codec.decode(&folded), &mut text);
            texts.push(text);
        }
        let expected = match field.column.as_str() {
            "host" => ["2001:db8::1", "10.0.0.1", "10.0.0.1"],
            "mac" => ["02:00:00:00:00:ff", "02:00:00:00:00:01", "02:00:00:00:00:01"],
            "ok" => ["F", "T", "T"],
            "since" => ["2025-01-02 00:00:00", "2025-01-01 00:00:00", "-"],
            "rtt" => ["-", "0.5", "-"],
            _ => ["a", "-", "a"],
        };
        assert_eq!(texts, expected, "{}", field.column);
    }
}

#[test]
fn missing_values_are_dropped_or_replaced_if_asked_for() {
    let rtt = r#""rtt", "type": "float""#;
    let with = |what: &str| {
        read_kinds(KIND_ROWS, |config| config.replace(rtt, &format!("{rtt}, \"missing\": {what}")))
    };
    let dropped = with("\"drop\"").expect("one row left");
    assert_eq!((dropped.times_ns.len(), dropped.not_used["rows without `rtt`"]), (1, 2));
    let replaced = with("{ \"constant\": 7.5 }").expect("good rows");
    let rtt = &replaced.column("rtt").expect("a column").column;
    assert_eq!(rtt.data, ColumnData::Float(vec![7.5, 0.5, 7.5]));
    assert!(!rtt.has_missing());
}

/// Captures in a folder, as (name, contents).
fn folder_of(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("written");
    }
    let files = files::list(&[folder.path().to_owned()]).expect("files");
    (folder, files)
}

#[test]
fn captures_of_a_folder_are_one_trace_in_order_of_time() {
    let frame =
        |port, payload| pcap::tests::udp_frame([10, 0, 0, 9], [10, 0, 0, 1], port, 53, payload);
    // Both begin at the same time, a millisecond between frames.
    let (_folder, paths) = folder_of(&[
        ("b.pcap", pcap::tests::capture_of(&[frame(1, 1), frame(1, 2)])),
        ("a.pcap", pcap::tests::capture_of(&[frame(2, 3), frame(2, 4), frame(1, 5)])),
        (".c.pcap", b"hidden".to_vec()),
    ]);
    let config = config(crate::config::DEFAULT_PCAP);
    let trace = packets::trace(&paths, &config, Reading::default()).expect("good captures");
    let column = |name: &str| match &trace.column(name).expect("a column").column.data {
        ColumnData::Int(cells) => cells.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(column("pkt_len"), [31, 29, 32, 30, 33]);
    assert_eq!(trace.flows, [vec![0, 2], vec![1, 3, 4]]);
    assert_eq!(files::names(&paths), "a.pcap, b.pcap");
    let one = packets::trace(&paths[..1], &config, Reading::default()).expect("a good capture");
    assert_ne!(trace.input_sha256, one.input_sha256);
}

#[test]
fn an_error_names_the_file_of_several() {
    let good = pcap::tests::capture_of(&[pcap::tests::udp_frame([1; 4], [2; 4], 3, 4, 5)]);
    let (_folder, paths) =
        folder_of(&[("a.pcap", good), ("b.txt", b"a note for whoever reads this".to_vec())]);
    let config = config(crate::config::DEFAULT_PCAP);
    let stop = packets::trace(&paths, &config, Reading::default()).expect_err("a note");
    assert!(stop.to_string().contains("b.txt` is not a capture"), "{stop}");
    let reading = Reading { on_error: OnError::Skip, ..Reading::default() };
    let trace = packets::trace(&paths, &config, reading).expect("one good capture");
    assert_eq!(trace.not_used["that are files without a capture"], 1);
}

#[test]
fn large_captures_are_sampled_by_conversation_in_any_order_of_files() {
    let frames = |first: u16| -> Vec<Vec<u8>> {
        (0..600_u16)
            .flat_map(|at| {
                let port = first + at / 2;
                let (a, b) = ([10, 0, 0, 9], [10, 0, 0, 1]);
                [
                    pcap::tests::udp_frame(a, b, port, 53, 20),
                    pcap::tests::udp_frame(b, a, 53, port, 90),
                ]
            })
            .collect()
    };
    let (_folder, mut paths) = folder_of(&[
        ("a.pcap", pcap::tests::capture_of(&frames(1000))),
        ("b.pcap", pcap::tests::capture_of(&frames(1200))),
    ]);
    let config = config(crate::config::DEFAULT_PCAP);
    let reading = Reading { max_records: 500, ..Reading::default() };
    let trace = packets::trace(&paths, &config, reading).expect("good captures");
    let kept = trace.times_ns.len();
    assert!((300..=500).contains(&kept), "{kept}");
    let share = kept as f64 / 2400.0;
    assert!((trace.share / share - 1.0).abs() < 0.25, "{} {share}", trace.share);
    assert_eq!(trace.not_used["of flows outside the sample"], 2400 - kept as u64);
    // All of a conversation or nothing: 4 packets in one file, 8 in both.
    assert!(trace.flows.iter().all(|flow| flow.len() == 4 || flow.len() == 8));
    paths.reverse();
    let turned = packets::trace(&paths, &config, reading).expect("good captures");
    assert_eq!((turned.times_ns, turned.share), (trace.times_ns, trace.share));
}

#[test]
fn large_csvs_are_sampled_by_flow() {
    let mut rows = String::new();
    for row in 0..3000 {
        let time = 1_700_000_000_000_000_u64 + row;
        rows.push_str(&format!("{},2,1000,53,UDP,{time},0.5,1,60,word{row}\n", row % 1000));
    }
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(format!("{HEADER}{rows}").as_bytes()).expect("written");
    let reading = Reading { max_records: 400, ..Reading::default() };
    let paths = [file.path().to_owned()];
    let trace = table::read(&paths, &config(NETFLOW), reading).expect("good rows");
    let kept = trace.times_ns.len();
    assert!((200..=400).contains(&kept), "{kept}");
    assert!(trace.flows.iter().all(|flow| flow.len() == 3));
    assert_eq!(trace.not_used["of flows outside the sample"], 3000 - kept as u64);
    assert!(trace.share < 0.2, "{}", trace.share);
    let twice =
        table::read(&[&paths[..], &paths[..]].concat(), &config(NETFLOW), Reading::default());
    assert_eq!(twice.expect("good rows").times_ns.len(), 6000);
}

#[test]
fn a_compressed_csv_is_read_and_one_cut_short_is_said_to_be() {
    let rows: String = (0..2000)
        .map(|row| format!("{row},2,1000,53,UDP,{},0.5,1,60,a\n", 1_700_000_000_000_000_u64 + row))
        .collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(format!("{HEADER}{rows}").as_bytes()).expect("written");
    let whole = gzip.finish().expect("written");
    let (_folder, paths) =
        folder_of(&[("cut.csv", whole[..whole.len() - 4].to_vec()), ("whole.csv.gz", whole)]);
    let read = |path: &PathBuf| {
        table::read(std::slice::from_ref(path), &config(NETFLOW), Reading::default())
            .expect("good rows")
    };
    assert_eq!((read(&paths[1]).times_ns.len(), read(&paths[1]).not_used.len()), (2000, 0));
    assert_eq!(read(&paths[0]).not_used["cut short by the end of the file"], 1);
}

#[test]
fn a_damaged_record_that_is_skipped_is_counted_among_the_records() {
    let mut bytes = pcap::tests::capture_of(&[pcap::tests::udp_frame(
        [10, 0, 0, 9],
        [10, 0, 0, 1],
        4000,
        53,
        20,
    )]);
    // A record that claims more bytes than any has.
    bytes.extend([0; 8]);
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.extend([0; 60]);
    let capture = pcap::parse(&bytes, Path::new("test"), OnError::Skip).expect("one packet");
    let left_out: u64 = capture.not_used.values().sum();
    assert_eq!((capture.packets.len(), left_out, capture.records), (1, 1, 2));
}

fn parse_rows(rows: &str, on_error: OnError) -> Result<Trace, IngestError> {
    let text = format!("{HEADER}{rows}");
    let reading = Reading { on_error, ..Reading::default() };
    table::parse(text.as_bytes(), Path::new("t.csv"), &config(NETFLOW), reading)
}

const GOOD_ROW: &str = "1,2,1000,53,UDP,1700000000000001,0.5,1,60,a\n";

#[test]
fn a_quote_that_is_not_closed_is_an_error_and_no_silent_end() {
    let rows = format!(
        "{GOOD_ROW}1,2,1000,53,UDP,1700000000000001,0.5,1,60,\"a\n{}",
        GOOD_ROW.repeat(300)
    );
    let error = message(parse_rows(&rows, OnError::Stop));
    assert!(
        error.starts_with("row 2: it goes over 30") && error.ends_with("not closed?"),
        "{error}"
    );
    let rows = format!("{GOOD_ROW}\"{}", "x".repeat(17 << 20));
    let error = parse_rows(&rows, OnError::Skip).expect_err("too long");
    assert!(format!("{error:?}").contains("longer than 16 MiB"), "{error:?}");
}

#[test]
fn a_first_row_of_the_wrong_length_spoils_no_other() {
    let rows = format!("1,2,3\n{GOOD_ROW}{GOOD_ROW}");
    let trace = parse_rows(&rows, OnError::Skip).expect("two good rows");
    assert_eq!((trace.input_rows, trace.not_used.values().sum()), (vec![2, 3], 1_u64));
    let error = message(parse_rows(&rows, OnError::Stop));
    assert_eq!(error, "row 1: 3 cells; the header has 10");
}
