//! Chosen flows: `--where` and `--attributes`, through the programs that users run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use ns_tests::{Seen, expect, has_tool, lab_capture, packets};

/// A folder with `model.ns`, trained briefly on the shipped capture.
static TRAINED: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let input = lab_capture();
    let input = input.to_str().expect("a plain path");
    let brief = ["--seed", "1", "--epochs", "5", "--model", "doppelganger"];
    let files = ["--out", "model.ns", "--input", input];
    expect(0, folder.path(), "ns-train", &[&["train"], &brief[..], &files].concat());
    folder
});

fn model() -> PathBuf {
    TRAINED.path().join("model.ns")
}

/// Replays the model, expects an exit code; standard output and standard error.
fn replay(code: i32, folder: &Path, arguments: &[&str]) -> (String, String) {
    let model = model();
    let bundle = ["--bundle", model.to_str().expect("a plain path"), "--seed", "7"];
    expect(code, folder, "ns-replay", &[&bundle, arguments].concat())
}

/// Packets of 100 flows that meet the conditions, the same for two threads.
fn chosen(conditions: &[&str]) -> Vec<Seen> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut arguments = vec!["--flows", "100", "--snaplen", "65535"];
    conditions.iter().for_each(|condition| arguments.extend(["--where", condition]));
    let at = folder.path();
    replay(0, at, &[&arguments[..], &["--pcap", "a.pcap"]].concat());
    replay(0, at, &[&arguments[..], &["--pcap", "b.pcap", "--threads", "2"]].concat());
    let bytes = ["a.pcap", "b.pcap"].map(|name| std::fs::read(at.join(name)).expect("a capture"));
    assert!(bytes[0] == bytes[1], "{conditions:?}: threads show in the output");
    if conditions == ["proto=udp"] && has_tool("tshark") {
        let tshark = Command::new("tshark")
            .args(["-r", "a.pcap", "-Y", "!udp"])
            .current_dir(at)
            .output()
            .expect("tshark starts");
        assert!(tshark.status.success() && tshark.stdout.is_empty());
    }
    packets(&at.join("a.pcap"))
}

#[test]
fn only_flows_with_the_attributes_are_generated() {
    let udp = chosen(&["proto=udp"]);
    assert!(udp.len() >= 100 && udp.iter().all(|packet| packet.proto == 17));
    let flows: BTreeSet<_> = udp.iter().map(|packet| packet.conversation()).collect();
    // Of 100; a model of few epochs begins some of them twice.
    assert!(flows.len() > 80, "{}", flows.len());
    let dns = chosen(&["dst_port=53"]);
    // ICMP has no ports, whatever a model of few epochs says.
    let has_ports = |packet: &&Seen| [6, 17].contains(&packet.proto);
    assert!(dns.len() >= 100 && dns.iter().filter(has_ports).count() > 0);
    assert!(dns.iter().filter(has_ports).all(|packet| packet.ports.contains(&53)));
    // What a model of few epochs has of everything: any value of one name, both names.
    let either = chosen(&["proto=6", "dstport=53", "dstport=1024-65535"]);
    assert!(either.iter().all(|packet| packet.proto == 6));
    let named = |port: &u16| *port == 53 || *port >= 1024;
    assert!(either.iter().all(|packet| packet.ports.iter().any(named)));
}

#[test]
fn records_without_the_measurement_are_left_out() {
    let some = chosen(&["ttl=50-64"]);
    assert!(!some.is_empty() && some.iter().all(|packet| (50..=64).contains(&packet.ttl)));
}

#[test]
fn the_report_tells_how_many_were_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = ["--null", "--flows", "200", "--json", "--where", "proto=17"];
    let (report, text) = replay(0, folder.path(), &arguments);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let selection = &report["selection"];
    assert_eq!(selection["conditions"][0], "proto=17");
    let draws = selection["draws"].as_u64().expect("a number");
    assert!(draws >= 200);
    assert_eq!(selection["acceptance"].as_f64().expect("a number"), 200.0 / draws as f64);
    assert!(text.contains("where proto=17: ") && text.contains("draws of attributes"), "{text}");
    // Without conditions nothing is said of them.
    let (report, _) = replay(0, folder.path(), &["--null", "--flows", "20", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert!(report["selection"].is_null());
}

#[test]
fn exit_codes_tell_what_was_not_met() {
    let folder = tempfile::tempdir().expect("a folder");
    let unmet = ["--null", "--flows", "200", "--where", "proto=17", "--where-tries", "1"];
    assert!(replay(8, folder.path(), &unmet).1.contains("flows given up"));
    let nowhere = ["--pcap", "no.pcap", "--where", "srcip=1.2.3.4", "--where-tries", "20"];
    let error = replay(8, folder.path(), &nowhere).1;
    assert!(error.contains("none of the first 20 flows met `srcip=1.2.3.4` in 20 tries each"));
    assert!(error.contains("`srcip` is most often `"), "{error}");
    assert!(!folder.path().join("no.pcap").exists());
    for (condition, reason) in [
        ("label=1", "no field `label`; the attributes are `srcip`, `dstip`, `srcport`"),
        ("proto=99", "`proto` is one of `"),
        ("ttl=256", "`ttl` is from "),
        ("dstport", "is no condition"),
    ] {
        let error = replay(2, folder.path(), &["--pcap", "no.pcap", "--where", condition]).1;
        assert!(error.contains(reason), "{error}");
        assert!(!folder.path().join("no.pcap").exists());
    }
}

#[test]
fn given_attributes_become_flows() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    // Services that the capture has, source ports between those it has, addresses of any kind;
    // microseconds, as its own.
    let csv = "time,proto,src_ip,src_port,dst_ip,dst_port\n\
               1700000000500000,udp,10.1.1.1,40000,10.9.9.9,53\n\
               1700000000000000,6,10.1.1.2,45001,10.9.9.9,443\n\
               1700000002000000,6,10.1.1.3,50123,10.9.9.8,53\n";
    std::fs::write(at.join("flows.csv"), csv).expect("written");
    let arguments = ["--attributes", "flows.csv", "--pcap", "a.pcap", "--snaplen", "65535"];
    replay(0, at, &arguments);
    let seen = packets(&at.join("a.pcap"));
    let mut firsts: BTreeMap<_, u64> = BTreeMap::new();
    for packet in &seen {
        firsts.entry(packet.conversation()).or_insert(packet.time_us);
    }
    let ip = |last: [u8; 2]| [10, last[0], last[0], last[1]];
    let expected = BTreeMap::from([
        (([(ip([1, 1]), 40_000), (ip([9, 9]), 53)], 17), 1_700_000_000_500_000),
        (([(ip([1, 2]), 45_001), (ip([9, 9]), 443)], 6), 1_700_000_000_000_000),
        (([(ip([1, 3]), 50_123), (ip([9, 8]), 53)], 6), 1_700_000_002_000_000),
    ]);
    assert_eq!(firsts, expected);

    // The rows again, and then the first once more: the three flows come first, as before.
    let more = ["--attributes", "flows.csv", "--pcap", "b.pcap", "--flows", "7"];
    let stderr = replay(0, at, &[&more[..], &["--snaplen", "65535"]].concat()).1;
    assert!(stderr.contains(" of 7 flows"), "{stderr}");
    assert_eq!(packets(&at.join("b.pcap")).first(), seen.first());
    let bad = "srcip,dstip,srcport,dstport,proto\n10.0.0.1,10.0.0.2,40000,53,6\n1,2,40000,53,boo\n";
    std::fs::write(at.join("bad.csv"), bad).expect("written");
    let error = replay(2, at, &["--attributes", "bad.csv", "--null"]).1;
    assert!(error.contains("`bad.csv`: row 2, column `proto`: expected a whole number"), "{error}");
    let both = ["--attributes", "flows.csv", "--null", "--where", "proto=6"];
    assert!(replay(2, at, &both).1.contains("not both"));
}
