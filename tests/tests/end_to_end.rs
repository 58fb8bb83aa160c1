//! From a capture to synthetic packets, through the programs that users run.

use std::path::Path;
use std::process::{Command, Output};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use ns_model_format::Bundle;
use ns_tests::{command, interrupted, lab_capture, program, read};
use pcap_file::pcap::PcapReader;

fn run(name: &str, arguments: &[&str], folder: &Path) -> Output {
    command(folder, name, arguments).output().expect("the program starts")
}

fn succeed(name: &str, arguments: &[&str], folder: &Path) -> String {
    let output = run(name, arguments, folder);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {stderr}");
    stderr
}

/// Trains on the shipped capture, briefly.
fn train(folder: &Path, out: &str, more: &[&str]) {
    let input = lab_capture();
    let input = input.to_str().expect("a plain path");
    let mut arguments = vec!["train", "--input", input, "--out", out, "--seed", "1"];
    arguments.extend(more);
    succeed("ns-train", &arguments, folder);
}

/// One packet as an independent parser sees it.
struct Seen {
    time_ns: u128,
    original_len: u32,
    source: [u8; 4],
    proto: u8,
}

/// Reads a capture of whole packets; every length and checksum must be right.
fn check_packets(capture: &[u8]) -> Vec<Seen> {
    let mut reader = PcapReader::new(capture).expect("a capture");
    let mut seen = Vec::new();
    while let Some(record) = reader.next_raw_packet() {
        let record = record.expect("a whole record");
        let packet = SlicedPacket::from_ethernet(&record.data).expect("legal headers");
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("not IPv4") };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(u32::from(header.total_len) + 14, record.orig_len);
        match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                let sum = tcp.calc_checksum_ipv4(header.source, header.destination);
                assert_eq!(tcp.checksum(), sum.expect("short enough"));
            }
            Some(TransportSlice::Udp(udp)) => {
                let sum = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
                assert_eq!(udp.checksum(), sum.expect("short enough"));
                assert_eq!(usize::from(udp.length()), udp.payload().len() + 8);
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                let sum = icmp.icmp_type().calc_checksum(icmp.payload());
                assert_eq!(icmp.checksum(), sum);
            }
            _ => {}
        }
        seen.push(Seen {
            time_ns: u128::from(record.ts_sec) * 1_000_000 + u128::from(record.ts_frac),
            original_len: record.orig_len,
            source: header.source,
            proto: header.protocol.0,
        });
    }
    assert!(seen.windows(2).all(|pair| pair[0].time_ns <= pair[1].time_ns), "in order of time");
    seen
}

#[test]
fn a_capture_becomes_a_bundle_becomes_valid_packets() {
    let folder = tempfile::tempdir().expect("a folder");
    train(folder.path(), "model.ns", &["--epochs", "2"]);
    let whole = ["--bundle", "model.ns", "--pcap", "a.pcap", "--flows", "1000", "--seed", "7"];
    succeed("ns-replay", &[&whole[..], &["--snaplen", "65535"]].concat(), folder.path());
    let seen = check_packets(&read(folder.path().join("a.pcap")));
    assert!(seen.len() >= 1000, "{} packets of 1000 flows", seen.len());
    assert!(seen.iter().any(|packet| packet.source != seen[0].source));
    assert!(seen.iter().all(|packet| [1, 6, 17].contains(&packet.proto)));
    // Headers only, by default, with the length that the packet would have.
    let headers = ["--bundle", "model.ns", "--pcap", "h.pcap", "--flows", "1000", "--seed", "7"];
    succeed("ns-replay", &headers, folder.path());
    let bytes = read(folder.path().join("h.pcap"));
    let mut reader = PcapReader::new(&bytes[..]).expect("a capture");
    let mut lengths = Vec::new();
    while let Some(record) = reader.next_raw_packet() {
        let record = record.expect("a whole record");
        assert!(record.data.len() <= 96);
        lengths.push(record.orig_len);
    }
    assert!(lengths.iter().eq(seen.iter().map(|packet| &packet.original_len)));
}

#[test]
fn the_same_seed_gives_the_same_bytes_for_any_number_of_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    train(folder.path(), "one.ns", &["--epochs", "1", "--threads", "1"]);
    train(folder.path(), "two.ns", &["--epochs", "1", "--threads", "2"]);
    assert_eq!(read(folder.path().join("one.ns")), read(folder.path().join("two.ns")));
    let mut outputs = Vec::new();
    for (name, threads, slots) in [("a", "1", "256"), ("b", "2", "256"), ("c", "3", "7")] {
        let file = format!("{name}.pcap");
        let arguments = ["--bundle", "one.ns", "--pcap", &file, "--flows", "300", "--seed", "9"];
        let means = ["--threads", threads, "--slots", slots];
        succeed("ns-replay", &[&arguments[..], &means].concat(), folder.path());
        outputs.push(read(folder.path().join(file)));
    }
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);
    let other = ["--bundle", "one.ns", "--pcap", "d.pcap", "--flows", "300", "--seed", "10"];
    succeed("ns-replay", &other, folder.path());
    assert_ne!(outputs[0], read(folder.path().join("d.pcap")));
}

#[test]
fn limits_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    train(folder.path(), "model.ns", &["--epochs", "0"]);
    let packets = |more: &[&str]| {
        let arguments = ["--bundle", "model.ns", "--pcap", "x.pcap", "--seed", "3"];
        let arguments = [&arguments[..], &["--snaplen", "65535"], more].concat();
        succeed("ns-replay", &arguments, folder.path());
        check_packets(&read(folder.path().join("x.pcap")))
    };
    assert_eq!(packets(&["--packets", "77"]).len(), 77);
    let two_seconds = packets(&["--duration", "2s"]);
    let span = two_seconds[two_seconds.len() - 1].time_ns - two_seconds[0].time_ns;
    assert!(span < 2_000_000, "{span} us");
    // Past the 96 s that it learned from.
    let long = packets(&["--duration", "300s"]);
    let span = long[long.len() - 1].time_ns - long[0].time_ns;
    assert!((250_000_000..300_000_000).contains(&span), "{span} us");
}

#[test]
fn a_trained_model_is_nearer_than_an_untrained_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut medians = Vec::new();
    for (name, epochs) in [("untrained", "0"), ("trained", "40")] {
        let (bundle, capture) = (format!("{name}.ns"), format!("{name}.pcap"));
        train(folder.path(), &bundle, &["--epochs", epochs]);
        let arguments = ["--bundle", &bundle, "--pcap", &capture, "--flows", "905", "--seed", "7"];
        succeed("ns-replay", &arguments, folder.path());
        let real = lab_capture();
        let real = real.to_str().expect("a plain path");
        let compare = ["evaluate", "--real", real, "--synthetic", &capture, "--json"];
        let output = run("ns-train", &compare, folder.path());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        medians.push(report["summary"]["median_r"].as_f64().expect("a number"));
    }
    assert!(medians[1] < 0.8 * medians[0], "untrained and trained: {medians:?}");
}

#[test]
fn flow_records_come_back_in_their_columns() {
    let folder = tempfile::tempdir().expect("a folder");
    // 400 records of 300 flows: integer and dotted addresses, whole and real numbers.
    let mut csv = "srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,type,label\n".to_owned();
    for row in 0..400_u64 {
        let host = 1 + row * 7919 % 300;
        csv += &format!(
            "{},10.0.{}.{},{},{},{},{}.0,{:.3},{},{},background,0\n",
            3_232_235_520_u64 + host,
            host % 4,
            host % 250,
            1024 + host,
            [53, 80, 443][(host % 3) as usize],
            ["UDP", "TCP", "TCP"][(host % 3) as usize],
            1_458_298_072_364_000_u64 + row * 50_000,
            (row % 90) as f64 / 7.0,
            1 + row % 40,
            60 * (1 + row % 40),
        );
    }
    std::fs::write(folder.path().join("flows.csv"), csv).expect("written");
    let config = ns_tests::repository().join("configs/netflow.json");
    let config = std::fs::read_to_string(config).expect("a configuration");
    std::fs::write(folder.path().join("plain.json"), &config).expect("written");
    // The same with every flow on its own scale.
    let own_scale = config.replace("\"epochs\": 400", "\"epochs\": 400, \"self_norm\": true");
    assert_ne!(own_scale, config);
    std::fs::write(folder.path().join("own-scale.json"), own_scale).expect("written");
    for config in ["plain.json", "own-scale.json"] {
        check_flow_records(folder.path(), config);
    }
    // Flow records are no packets.
    let output = run("ns-replay", &["--bundle", "n.ns", "--pcap", "n.pcap"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("--csv"), "{stderr}");
    assert!(!folder.path().join("n.pcap").exists());
}

/// Trains on `flows.csv` and reads what comes out.
fn check_flow_records(folder: &Path, config: &str) {
    let train = ["train", "--config", config, "--input", "flows.csv", "--out", "n.ns"];
    succeed("ns-train", &[&train[..], &["--epochs", "3"]].concat(), folder);
    let replay = ["--bundle", "n.ns", "--csv", "n.csv", "--flows", "500", "--seed", "1"];
    succeed("ns-replay", &replay, folder);
    let text = String::from_utf8(read(folder.join("n.csv"))).expect("text");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,type"));
    let mut last = 0;
    let mut rows = 0;
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), 10, "{line}");
        cells[0].parse::<u32>().expect("a whole number, as in the input");
        cells[1].parse::<std::net::Ipv4Addr>().expect("dotted, as in the input");
        cells[2].parse::<u16>().expect("a port");
        assert!(["TCP", "UDP"].contains(&cells[4]), "{line}");
        let time: u64 = cells[5].parse().expect("whole microseconds");
        assert!(time >= last, "in order of time");
        last = time;
        cells[6].parse::<f64>().expect("a real number");
        cells[7].parse::<u64>().expect("a whole number");
        rows += 1;
    }
    assert!(rows >= 500, "{rows} rows of 500 flows");
}

#[test]
fn ctrl_c_keeps_the_model_so_far() {
    for class in ["autoregressive", "doppelganger"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut training = Command::new(program("ns-train"));
        training
            .args(["train", "--out", "model.ns", "--epochs", "1000000", "--model", class])
            .arg("--input")
            .arg(lab_capture())
            .current_dir(folder.path());
        assert_eq!(interrupted(&mut training), Some(130), "{class}");
        let bundle = Bundle::open(&folder.path().join("model.ns")).expect("a whole bundle");
        assert_eq!(bundle.manifest().model.class, class);
        let replay = ["--bundle", "model.ns", "--null", "--flows", "3"];
        succeed("ns-replay", &replay, folder.path());
    }
}

/// Files that a failed run left beside what was there.
fn left_behind(folder: &Path, expected: &[&str]) -> Vec<String> {
    std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !expected.contains(&name.as_str()))
        .collect()
}

#[test]
fn bad_input_is_one_clear_error_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = read(lab_capture());
    let config = std::fs::read_to_string(ns_tests::repository().join("configs/netflow.json"))
        .expect("a configuration");
    let files: [(&str, Vec<u8>); 8] = [
        ("text.pcap", b"hello".to_vec()),
        ("cut.pcap", capture[..capture.len() - 5].to_vec()),
        ("empty.csv", Vec::new()),
        ("columns.csv", b"srcip,ts\n1,2\n".to_vec()),
        (
            "cell.csv",
            b"srcip,dstip,srcport,dstport,proto,ts,td,pkt,byt,type\n1,2,x,4,TCP,5,6,7,8,a\n"
                .to_vec(),
        ),
        ("netflow.json", config.clone().into_bytes()),
        ("typo.json", config.replace("\"metadata\"", "\"metdata\"").into_bytes()),
        ("broken.json", b"{ \"global_config\": ".to_vec()),
    ];
    for (name, contents) in &files {
        std::fs::write(folder.path().join(name), contents).expect("written");
    }
    let cases: [(&[&str], &str); 8] = [
        (&["--input", "missing.pcap"], "cannot read `missing.pcap`: No such file"),
        (&["--input", "text.pcap"], "`text.pcap` is no capture; as a table: "),
        (&["--input", "empty.csv", "--config", "netflow.json"], "no column `ts`"),
        (
            &["--input", "columns.csv", "--config", "netflow.json"],
            "no column `dstip`; it has `srcip`, `ts`",
        ),
        (
            &["--input", "cell.csv", "--config", "netflow.json"],
            "`cell.csv`: row 1, column `srcport`: expected a whole number or an IP address, \
             found `x`",
        ),
        (&["--input", "cell.csv", "--config", "typo.json"], "did you mean `metadata`?"),
        (
            &["--input", "cell.csv", "--config", "broken.json"],
            "broken.json: global_config: EOF while parsing",
        ),
        (&["--input", "cut.pcap", "--out", "no/such/folder/x.ns"], "cannot write `no/such/folder"),
    ];
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    for (arguments, expected) in cases {
        let output = run("ns-train", &[&["train"], arguments].concat(), folder.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: `{stderr}` does not say `{expected}`");
        let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{arguments:?}: {stderr}");
        assert_eq!(left_behind(folder.path(), &names), [""; 0], "{arguments:?}");
    }
}

#[test]
fn a_bad_bundle_is_one_clear_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = ns_tests::sample_bundle(ns_tests::SampleModel::default());
    let bytes = bundle.to_bytes().expect("small enough");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for (name, contents) in
        [("cut.ns", &bytes[..bytes.len() / 2]), ("flipped.ns", &flipped), ("text.ns", b"hello")]
    {
        std::fs::write(folder.path().join(name), contents).expect("written");
    }
    for (name, expected) in [
        ("missing.ns", "cannot read `missing.ns`"),
        ("cut.ns", "damaged or cut short"),
        ("flipped.ns", "damaged or cut short"),
        ("text.ns", "not a NetShare bundle"),
    ] {
        let output = run("ns-replay", &["--bundle", name, "--pcap", "x.pcap"], folder.path());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert!(stderr.contains(expected), "{name}: `{stderr}` does not say `{expected}`");
        let known = ["cut.ns", "flipped.ns", "text.ns"];
        assert_eq!(left_behind(folder.path(), &known), [""; 0], "{name}");
    }
}
