//! Autoregressive models from end to end: trained, stopped, resumed, generated from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::LazyLock;
use std::time::Duration;

use ns_model_format::Bundle;
use ns_tests::{
    command, expect, interrupt, interrupted, iterations, lab_capture, names_in, packets, read,
    start,
};
use serde_json::Value;

/// What trains on the shipped capture; what it learns does not matter.
fn on_the_capture<'a>(capture: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--model", "autoregressive", "--seed", "1", "--input", capture], more].concat()
}

fn capture() -> String {
    lab_capture().to_str().expect("a plain path").to_owned()
}

/// A work folder `run`, with a model of the shipped capture in it.
static TRAINED: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let train = ["--epochs", "3", "--work", "run", "-q"];
    expect(0, folder.path(), "ns-train", &on_the_capture(&capture(), &train));
    folder
});

fn model() -> PathBuf {
    TRAINED.path().join("run/model.ns")
}

fn replay(folder: &Path, more: &[&str]) -> (String, String) {
    let model = model();
    let bundle = ["--bundle", model.to_str().expect("a plain path"), "--seed", "7"];
    expect(0, folder, "ns-replay", &[&bundle, more].concat())
}

#[test]
fn threads_and_slots_do_not_show_in_packets() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let generate = |name: &str, more: &[&str]| {
        let arguments = [&["--flows", "700", "--snaplen", "65535", "--pcap", name], more].concat();
        replay(folder, &arguments);
        read(folder.join(name))
    };
    let one = generate("one.pcap", &["--threads", "1"]);
    assert!(one == generate("three.pcap", &["--threads", "3"]), "three threads");
    assert!(one == generate("seven.pcap", &["--slots", "7"]), "seven slots");
    // Another seed is another trace.
    let bundle = model();
    let other =
        ["--bundle", bundle.to_str().expect("a plain path"), "--seed", "8", "--flows", "700"];
    let other = [&other[..], &["--snaplen", "65535", "--pcap", "other.pcap"]].concat();
    expect(0, folder, "ns-replay", &other);
    assert!(one != read(folder.join("other.pcap")), "the seed does not matter");
}

/// Protocol and TCP flags of every row of a table of packets.
fn flags(path: &Path) -> BTreeSet<(String, String)> {
    let mut reader = csv::Reader::from_path(path).expect("a table");
    let rows = reader.deserialize::<BTreeMap<String, String>>();
    rows.map(|row| row.expect("a row"))
        .map(|row| (row["proto"].clone(), row["tcp_flags"].clone()))
        .collect()
}

#[test]
fn packets_have_flags_that_their_protocol_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    expect(0, folder, "ns-train", &["convert", "--input", &capture(), "--out", "real.csv"]);
    replay(folder, &["--flows", "800", "--csv", "made.csv"]);
    let [real, made] = ["real.csv", "made.csv"].map(|name| flags(&folder.join(name)));
    assert!(made.is_subset(&real), "{made:?} of {real:?}");
    let tcp = made.iter().filter(|(protocol, _)| protocol == "6").count();
    assert!(tcp >= 5 && made.contains(&("17".to_owned(), "0".to_owned())), "{made:?}");

    // So nothing has to be repaired in packets.
    let (report, _) = replay(folder, &["--flows", "800", "--null", "--json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let repaired = report["repaired"].as_object().expect("repairs by kind");
    assert!(!repaired.contains_key("tcp_flags"), "{repaired:?}");
}

#[test]
fn no_two_conversations_of_a_span_are_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    // Two thirds of a span; a ping has no ports to tell it from others.
    let some = ["--flows", "600", "--where", "proto=6", "--where", "proto=17"];
    let to = ["--snaplen", "65535", "--pcap", "a.pcap", "--json"];
    let (report, _) = replay(folder, &[&some[..], &to].concat());
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let made = packets(&folder.join("a.pcap"));
    assert!(made.iter().all(|packet| matches!(packet.proto, 6 | 17)));
    let conversations: BTreeSet<_> = made.iter().map(|packet| packet.conversation()).collect();
    assert_eq!(report["flows"], 600);
    assert_eq!(conversations.len(), 600);
}

/// The conversations of packets of TCP and UDP: protocol, and both ends in order.
fn conversations(path: &Path) -> BTreeSet<(String, [(String, String); 2])> {
    let mut reader = csv::Reader::from_path(path).expect("a table");
    let rows = reader.deserialize::<BTreeMap<String, String>>().map(|row| row.expect("a row"));
    let of_ports = rows.filter(|row| matches!(row["proto"].as_str(), "6" | "17"));
    let conversation = |row: BTreeMap<String, String>| {
        let end =
            |side: &str| (row[&format!("{side}ip")].clone(), row[&format!("{side}port")].clone());
        let mut ends = [end("src"), end("dst")];
        ends.sort();
        (row["proto"].clone(), ends)
    };
    of_ports.map(conversation).collect()
}

#[test]
fn conversations_that_were_learned_from_do_not_come_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    expect(0, folder, "ns-train", &["convert", "--input", &capture(), "--out", "real.csv"]);
    replay(folder, &["--flows", "2000", "--csv", "made.csv"]);
    let [real, made] = ["real.csv", "made.csv"].map(|name| conversations(&folder.join(name)));
    // Two ports that are always the same might be; this capture has no such conversations.
    let again: Vec<_> = made.intersection(&real).collect();
    assert!(again.len() <= 1, "{again:?} of {}", made.len());
}

#[test]
fn parts_merge_into_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::create_dir(folder.join("run")).expect("made");
    for entry in std::fs::read_dir(TRAINED.path().join("run")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let name = path.file_name().expect("a name");
            std::fs::copy(&path, folder.join("run").join(name)).expect("copied");
        }
    }
    let generate = |more: &[&str]| {
        let common = ["generate", "-q", "--work", "run", "--flows", "600", "--seed", "5"];
        expect(0, folder, "ns-train", &[&common, more].concat());
        read(folder.join("run/synthetic.pcap"))
    };
    let whole = generate(&[]);
    assert!(whole == generate(&["--parts", "3", "--threads", "2", "--overwrite"]), "other bytes");
}

#[test]
fn conditions_are_met_and_given_attributes_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let to = |name| ["--snaplen", "65535", "--pcap", name];
    replay(folder, &[&["--flows", "100", "--where", "proto=17"][..], &to("udp.pcap")].concat());
    let udp = packets(&folder.join("udp.pcap"));
    assert!(udp.len() >= 100 && udp.iter().all(|packet| packet.proto == 17));
    let conversations: BTreeSet<_> = udp.iter().map(|packet| packet.conversation()).collect();
    assert_eq!(conversations.len(), 100);

    // Ports and addresses among those of the capture, some that it has not.
    let csv = "time,proto,src_ip,src_port,dst_ip,dst_port\n\
               1700000000500000,udp,10.77.1.1,49999,10.77.1.2,53\n\
               1700000000000000,6,10.77.1.2,50001,10.77.1.9,443\n\
               1700000002000000,6,10.77.3.3,50003,10.77.1.8,1234\n";
    std::fs::write(folder.join("flows.csv"), csv).expect("written");
    replay(folder, &[&["--attributes", "flows.csv"][..], &to("given.pcap")].concat());
    let given: BTreeSet<_> =
        packets(&folder.join("given.pcap")).iter().map(|packet| packet.conversation()).collect();
    let expected = BTreeSet::from([
        ([([10, 77, 1, 1], 49_999), ([10, 77, 1, 2], 53)], 17),
        ([([10, 77, 1, 2], 50_001), ([10, 77, 1, 9], 443)], 6),
        ([([10, 77, 1, 8], 1234), ([10, 77, 3, 3], 50_003)], 6),
    ]);
    assert_eq!(given, expected);
}

/// Waits until a training has done something, unless it ends before.
fn wait_until(child: &mut Child, done: impl Fn() -> bool) {
    while !done() && child.try_wait().expect("it is waited for").is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Does a test with longer and longer trainings, until none ends before it is stopped: how
/// fast a machine is decides nothing.
fn with_enough_epochs(test: impl Fn(&Path, &str) -> bool) {
    for epochs in ["2", "8", "32", "128"] {
        let folder = tempfile::tempdir().expect("a folder");
        if test(folder.path(), epochs) {
            return;
        }
    }
    panic!("no training was stopped before its end");
}

#[test]
fn killed_and_resumed_is_as_good_as_unbroken() {
    with_enough_epochs(|folder, epochs| {
        let capture = capture();
        let unit = folder.join("run/units/model/chunk-0");
        let [variables, checkpoint] =
            ["variables", "checkpoint"].map(|name| unit.join(format!("{name}.safetensors")));
        let often = ["--epochs", epochs, "--work", "run", "--checkpoint-minutes", "0.002"];
        let begin = on_the_capture(&capture, &often);
        let resume = ["train", "--work", "run", "--resume"];
        // While variables are trained, when they are, and twice while records are.
        for sitting in 0..4 {
            let before = std::fs::read(&checkpoint).ok();
            let mut child = start(folder, if sitting == 0 { &begin } else { &resume });
            wait_until(&mut child, || match sitting {
                0 => unit.exists(),
                1 => variables.exists(),
                _ => std::fs::read(&checkpoint).ok() != before,
            });
            child.kill().expect("it is killed by SIGKILL");
            child.wait().expect("it ends");
            if unit.join("trained.safetensors").exists() {
                return false;
            }
        }
        expect(0, folder, "ns-train", &resume);
        let unbroken = ["--epochs", epochs, "--out", "unbroken.ns"];
        let (_, said) = expect(0, folder, "ns-train", &on_the_capture(&capture, &unbroken));
        let bundle = Bundle::open(&folder.join("unbroken.ns")).expect("a bundle");
        let trained = format!("trained {} iterations", bundle.manifest().provenance.iterations);
        assert!(said.contains(&trained), "{trained}: {said}");
        let same = read(folder.join("run/model.ns")) == read(folder.join("unbroken.ns"));
        assert!(same, "other bytes");
        // What was only there to go on from does not stay; the curve has no step twice.
        assert_eq!(
            names_in(&unit),
            ["generator.safetensors", "metrics.jsonl", "trained.safetensors"]
        );
        let iterations = iterations(&folder.join("run/metrics.jsonl"));
        assert!(iterations.is_sorted_by(|a, b| a < b), "{iterations:?}");
        true
    });
}

#[test]
fn stopped_by_a_signal_it_leaves_a_usable_bundle() {
    with_enough_epochs(|folder, epochs| {
        let capture = capture();
        let arguments = ["--epochs", epochs, "--work", "run", "--checkpoint-minutes", "0.002"];
        let mut child = start(folder, &on_the_capture(&capture, &arguments));
        let unit = folder.join("run/units/model/chunk-0");
        wait_until(&mut child, || unit.join("checkpoint.safetensors").exists());
        interrupt(&child);
        let code = child.wait().expect("it ends").code();
        if unit.join("trained.safetensors").exists() {
            return false;
        }
        assert_eq!(code, Some(130));
        let rows = ["--bundle", "run/model.ns", "--flows", "50", "--csv", "a.csv"];
        expect(0, folder, "ns-replay", &rows);
        assert!(read(folder.join("a.csv")).split(|&byte| byte == b'\n').count() > 50);
        // The model that it left may be the whole training's already: where no later epoch is
        // better, or the signal came after the last.
        expect(0, folder, "ns-train", &["train", "--work", "run", "--resume"]);
        let unbroken = ["--epochs", epochs, "--out", "unbroken.ns"];
        expect(0, folder, "ns-train", &on_the_capture(&capture, &unbroken));
        let same = read(folder.join("run/model.ns")) == read(folder.join("unbroken.ns"));
        assert!(same, "other bytes");
        true
    });
}

#[test]
fn stopped_while_its_variables_train_it_leaves_a_model_and_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let capture = capture();
    let begin = on_the_capture(&capture, &["--epochs", "1", "--work", "run"]);
    assert_eq!(interrupted(&mut command(folder, "ns-train", &begin)), Some(130));
    Bundle::open(&folder.join("run/model.ns")).expect("a bundle");
    expect(0, folder, "ns-train", &["train", "--work", "run", "--resume"]);
    let whole = on_the_capture(&capture, &["--epochs", "1", "--work", "whole"]);
    expect(0, folder, "ns-train", &whole);
    assert!(read(folder.join("run/model.ns")) == read(folder.join("whole/model.ns")));
}

#[test]
fn a_training_that_the_time_ends_is_whole_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    // Less than it takes to read the flows.
    let capture = capture();
    let brief = on_the_capture(&capture, &["--work", "run", "--max-minutes", "0.0001"]);
    let (_, said) = expect(0, folder, "ns-train", &brief);
    assert!(said.contains("note: the time was up; it ended the networks of "), "{said}");
    assert!(said.contains(" variables, and the records' network after 0.0 of at most "), "{said}");
    let bundle = Bundle::open(&folder.join("run/model.ns")).expect("a bundle");
    assert_eq!(bundle.manifest().provenance.events.len(), 1);
    let replay = ["--bundle", "run/model.ns", "--flows", "50", "--pcap", "a.pcap"];
    expect(0, folder, "ns-replay", &[&replay[..], &["--snaplen", "65535"]].concat());
    assert!(packets(&folder.join("a.pcap")).len() > 50);
    // It is done, not stopped.
    let (status, _) = expect(0, folder, "ns-train", &["status", "--work", "run", "--json"]);
    let status: Value = serde_json::from_str(&status).expect("one document");
    assert_eq!(status["state"], "done");
}

/// Trains one pass on a table whose flows are named by the fields in `metadata`, and
/// generates; a row's cells by column.
fn rows_like(
    table: &str,
    (metadata, timeseries): (&str, &str),
    flows: u32,
) -> (Vec<BTreeMap<String, String>>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        r#"{{
            "global_config": {{ "dataset_type": "custom" }},
            "pre_post_processor": {{ "config": {{
                "timestamp": {{ "column": "ts" }},
                "metadata": [{metadata}],
                "timeseries": [{timeseries}]
            }} }},
            "model": {{ "class": "autoregressive", "config": {{ "max_epochs": 1, "num_units": 16 }} }}
        }}"#
    );
    std::fs::write(folder.path().join("c.json"), config).expect("written");
    std::fs::write(folder.path().join("table.csv"), table).expect("written");
    let train = ["train", "--config", "c.json", "--input", "table.csv", "-q"];
    expect(0, folder.path(), "ns-train", &train);
    let flows = flows.to_string();
    let replay = ["--bundle", "model.ns", "--flows", &flows, "--csv", "-", "-q"];
    let (rows, _) = expect(0, folder.path(), "ns-replay", &replay);
    let mut reader = csv::Reader::from_reader(rows.as_bytes());
    let rows: Vec<BTreeMap<String, String>> =
        reader.deserialize().map(|row| row.expect("a row of as many cells")).collect();
    assert!(!rows.is_empty());
    (rows, folder)
}

const HOST: &str = r#"{ "column": "host", "type": "string", "encoding": "categorical" }"#;
const SIZE: &str = r#"{ "column": "size", "type": "integer", "encoding": "bit" }"#;

/// Records of hosts: row by row the time in seconds, the host, and a cell.
fn table(column: &str, rows: impl Iterator<Item = (f64, u32, String)>) -> String {
    let mut table = format!("ts,host,{column}\n");
    for (time, host, cell) in rows {
        let _ = writeln!(table, "{:.6},h{host},{cell}", 1_500_000_000.0 + time);
    }
    table
}

fn hosts(rows: &[BTreeMap<String, String>]) -> BTreeSet<&str> {
    rows.iter().map(|row| row["host"].as_str()).collect()
}

#[test]
fn a_constant_stays_constant() {
    let records = (0..400).map(|row| (f64::from(row), row % 40, "5".to_owned()));
    let (rows, _) = rows_like(&table("size", records), (HOST, SIZE), 40);
    assert!(rows.iter().all(|row| row["size"] == "5"));
    // Many of the forty names that there are, of which few are likely at a time: no flow is
    // drawn again for ever.
    assert!(hosts(&rows).len() >= 15, "{}", hosts(&rows).len());
}

#[test]
fn flows_of_one_record_have_one_record() {
    // A host's name says nothing of its time.
    let records = (0..150).map(|row| (f64::from(row), row * 37 % 150, (row % 9).to_string()));
    let (rows, _) = rows_like(&table("size", records), (HOST, SIZE), 60);
    assert_eq!((rows.len(), hosts(&rows).len()), (60, 60));
}

#[test]
fn two_flows_are_enough() {
    let records = (0..30).map(|row| (f64::from(row), row % 2, row.to_string()));
    let (rows, _) = rows_like(&table("size", records), (HOST, SIZE), 2);
    assert_eq!(hosts(&rows), BTreeSet::from(["h0", "h1"]));
}

#[test]
fn texts_of_which_no_two_are_alike_share_bins() {
    let records = (0..100_000).map(|row| (f64::from(row), row, (row % 9).to_string()));
    let (rows, _) = rows_like(&table("size", records), (HOST, SIZE), 500);
    let known = |host: &str| host[1..].parse::<u32>().is_ok_and(|number| number < 100_000);
    assert!(rows.iter().all(|row| known(&row["host"])));
    // Bins hold thousands.
    assert!(hosts(&rows).len() >= 490, "{}", hosts(&rows).len());
}

#[test]
fn what_is_said_again_and_again_is_repeated() {
    const NAME: &str = r#"{ "column": "name", "type": "string", "encoding": "categorical" }"#;
    // Three times each, names of hundreds: one pass over them learns no two as a pair.
    let name = |row: u32| (row / 400 / 3 * 7 + row % 400).wrapping_mul(2_654_435_761) >> 24;
    let records = (0..3600).map(|row| (f64::from(row), row % 400, format!("n{}", name(row))));
    let (rows, _) = rows_like(&table("name", records), (HOST, NAME), 400);
    let mut flows: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    rows.iter().for_each(|row| flows.entry(&row["host"]).or_default().push(&row["name"]));
    let pairs = || flows.values().flat_map(|names| names.windows(2));
    let repeated = pairs().filter(|pair| pair[0] == pair[1]).count();
    let share = repeated as f64 / pairs().count() as f64;
    assert!((0.4..0.9).contains(&share), "{share}, in the table 0.75");
}

#[test]
fn counters_count_on() {
    const COUNTER: &str = r#"{ "column": "counter", "type": "integer", "encoding": "bit" }"#;
    const CLOCK: &str = r#"{ "column": "clock", "type": "float", "encoding": "quantile" }"#;
    let begin = |flow: u32| flow.wrapping_mul(2_654_435_761) >> 12;
    let cells = |row: u32| {
        let (flow, record) = (row % 400, row / 400);
        // Every third record counts two on; the other field is hundredths.
        let counted = record + record / 3;
        format!("{},{}.{:02}", begin(flow) + counted, begin(flow) % 977, counted)
    };
    let records = (0..3600).map(|row| (f64::from(row), row % 400, cells(row)));
    let columns = (HOST, &*format!("{COUNTER}, {CLOCK}"));
    let (rows, _) = rows_like(&table("counter,clock", records), columns, 400);
    let mut flows: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    for row in &rows {
        let hundredths = (row["clock"].parse::<f64>().expect("a number") * 100.0).round();
        let counter = row["counter"].parse().expect("a whole number");
        flows.entry(&row["host"]).or_default().push((counter, hundredths as i64));
    }
    let pairs = || flows.values().flat_map(|values| values.windows(2));
    let all = pairs().count() as f64;
    let share = |of: fn(&(i64, i64)) -> i64, step: i64| {
        pairs().filter(|pair| of(&pair[1]) - of(&pair[0]) == step).count() as f64 / all
    };
    for of in [|values: &(i64, i64)| values.0, |values: &(i64, i64)| values.1] {
        let [one, two] = [1, 2].map(|step| share(of, step));
        // In the table three quarters and a quarter; one pass over it learns most of that.
        assert!(one > 0.4 && two > 0.1 && one + two > 0.6, "{one} and {two} of {all}");
    }
    let largest = (0..400).map(begin).max().expect("flows") + 20;
    assert!(
        flows.values().flatten().all(|(counter, _)| (0..=i64::from(largest)).contains(counter))
    );
}

#[test]
fn values_are_missing_where_they_were() {
    let rtt = r#"{ "column": "rtt", "type": "float", "missing": "indicator" }"#;
    let cell =
        |row: u32| if row.is_multiple_of(3) { String::new() } else { format!("{}.25", row % 200) };
    let records = (0..1200).map(|row| (f64::from(row), row % 120, cell(row)));
    let (rows, _) = rows_like(&table("rtt", records), (HOST, rtt), 120);
    let missing = rows.iter().filter(|row| row["rtt"].is_empty()).count();
    assert!(missing > 0 && missing < rows.len(), "{missing} of {}", rows.len());
    let number = |cell: &str| cell.parse::<f64>().is_ok_and(|rtt| (0.0..200.0).contains(&rtt));
    assert!(rows.iter().all(|row| row["rtt"].is_empty() || number(&row["rtt"])));
}

#[test]
fn records_at_one_time_stay_together() {
    // Written in microseconds.
    let time = |row: u32| f64::from(row / 10) + 0.000_125;
    let records = (0..400).map(|row| (time(row), row / 10, (row % 9).to_string()));
    let (rows, _) = rows_like(&table("size", records), (HOST, SIZE), 40);
    // Flows begin about a second apart.
    let mut times: Vec<f64> = rows.iter().map(|row| row["ts"].parse().expect("a time")).collect();
    times.sort_by(f64::total_cmp);
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 1e-4).count();
    assert!(rows.len() >= 300 && gaps < 40, "{gaps} gaps in {} rows", rows.len());
}

#[test]
fn a_table_at_one_time_is_a_table() {
    let records = (0..60).map(|row| (0.0, row % 20, (row % 9).to_string()));
    let (rows, _) = rows_like(&table("size", records), (HOST, SIZE), 20);
    assert!(rows.len() >= 20);
}

#[test]
fn addresses_of_version_6_are_addresses() {
    let address = r#"{ "column": "ip", "type": "ip_string" }"#;
    let mut text = "ts,ip,size\n".to_owned();
    for row in 0..600_u32 {
        let host = row / 3;
        // Some are frequent, most are not, some are of version 4.
        let ip = match host % 4 {
            0 => "2001:db8::1".to_owned(),
            1 => format!("10.0.0.{}", host % 200),
            _ => format!("2001:db8:{:x}::{:x}", host * 31, host),
        };
        let _ = writeln!(text, "{},{ip},{}", 1_500_000_000 + row, row % 7);
    }
    let (rows, _) = rows_like(&text, (address, SIZE), 100);
    let mut version_6 = 0;
    for row in &rows {
        let ip: std::net::IpAddr = row["ip"].parse().expect("an address");
        version_6 += usize::from(ip.is_ipv6());
    }
    assert!(version_6 > 0 && version_6 < rows.len(), "{version_6} of {}", rows.len());
}

#[test]
fn numbers_of_more_bits_than_said_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let config = r#"{
        "global_config": { "dataset_type": "custom" },
        "pre_post_processor": { "config": {
            "timestamp": { "column": "ts" },
            "metadata": [{ "column": "host", "type": "integer", "encoding": "bit", "n_bits": 32 }],
            "timeseries": []
        } },
        "model": { "class": "autoregressive", "config": { "epochs": 1 } }
    }"#;
    std::fs::write(folder.join("c.json"), config).expect("written");
    let rows = (0..20_u64).map(|row| format!("{row},{}\n", row << 30));
    std::fs::write(folder.join("t.csv"), format!("ts,host\n{}", rows.collect::<String>()))
        .expect("written");
    let train = ["train", "--config", "c.json", "--input", "t.csv"];
    let (_, said) = expect(2, folder, "ns-train", &train);
    assert!(said.contains("column `host`, row 5: value `4294967296` is no whole number"), "{said}");
}
