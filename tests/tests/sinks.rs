//! Files of every kind, through the program that users run, read by other programs.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ns_tests::{has_tool, interrupt, lab_capture, program, signal};
use pcap_file::pcap::PcapReader;

fn run(name: &str, arguments: &str, folder: &Path) -> String {
    let output = Command::new(program(name))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {arguments}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn trained() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let input = lab_capture();
    let input = input.to_str().expect("a plain path");
    run(
        "ns-train",
        &format!("train --input {input} --out model.ns --epochs 1 --seed 1"),
        folder.path(),
    );
    folder
}

fn replay(folder: &tempfile::TempDir, arguments: &str) -> String {
    run("ns-replay", &format!("--bundle model.ns --seed 5 -q {arguments}"), folder.path())
}

fn read(folder: &tempfile::TempDir, name: &str) -> Vec<u8> {
    let path = folder.path().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Time in nanoseconds, whole length, and kept bytes of every packet.
fn packets(capture: &[u8]) -> Vec<(u64, u32, Vec<u8>)> {
    let mut reader = PcapReader::new(capture).expect("a capture");
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.expect("a whole packet");
        let time_ns = packet.timestamp.as_nanos() as u64;
        packets.push((time_ns, packet.orig_len, packet.data.into_owned()));
    }
    packets
}

#[test]
fn all_files_hold_the_same_packets() {
    let folder = trained();
    replay(&folder, "--pcap ns.pcap --nanoseconds --flows 300");
    replay(&folder, "--pcap us.pcap --flows 300");
    let exact = packets(&read(&folder, "ns.pcap"));
    let coarse = packets(&read(&folder, "us.pcap"));
    let cut =
        |(time_ns, len, data): &(u64, u32, Vec<u8>)| (time_ns / 1000 * 1000, *len, data.clone());
    assert!(exact.iter().map(cut).eq(coarse));
    assert!(exact.iter().any(|packet| packet.0 % 1000 != 0));
    let rotated = "--pcap r.pcap --nanoseconds --rotate-size 50kB --rotate-time 30s --flows 300";
    replay(&folder, rotated);
    let mut joined = Vec::new();
    let mut count = 0;
    while folder.path().join(format!("r-{count:05}.pcap")).exists() {
        let bytes = read(&folder, &format!("r-{count:05}.pcap"));
        assert!(bytes.len() <= 50_000);
        joined.extend(packets(&bytes));
        count += 1;
    }
    assert!(count > 3, "{count} files");
    assert!(joined == exact);
    if !has_tool("tshark") {
        return;
    }
    replay(&folder, "--pcapng all.pcapng --flows 300");
    let fields =
        ["-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.cap_len"];
    let output = Command::new("tshark")
        .args(["-r", "all.pcapng"])
        .args(fields)
        .current_dir(folder.path())
        .output()
        .expect("tshark starts");
    let lines = String::from_utf8(output.stdout).expect("text");
    let expected = exact.iter().map(|(time_ns, len, data)| {
        let (seconds, fraction) = (time_ns / 1_000_000_000, time_ns % 1_000_000_000);
        format!("{seconds}.{fraction:09}\t{len}\t{}", data.len())
    });
    assert!(lines.lines().eq(expected), "{}", lines.lines().next().unwrap_or_default());
}

/// A file of flows by column.
fn flows(text: &[u8]) -> Vec<HashMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text);
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

#[test]
fn flows_out_tells_of_every_packet() {
    let folder = trained();
    replay(&folder, "--pcap a.pcap --nanoseconds --flows-out a.csv --duration 60s");
    replay(&folder, "--null --flows-out b.csv --duration 60s --threads 3 --slots 9");
    replay(&folder, "--csv rows.csv --flows-out c.csv --duration 60s");
    assert!(read(&folder, "a.csv") == read(&folder, "b.csv"));
    let packets = packets(&read(&folder, "a.pcap"));
    let flows_of_rows = flows(&read(&folder, "c.csv"));
    let flows = flows(&read(&folder, "a.csv"));
    let sum = |flows: &[HashMap<String, String>], name: &str| -> u64 {
        flows.iter().map(|flow| flow[name].parse::<u64>().expect("a count")).sum()
    };
    assert_eq!(sum(&flows, "packets"), packets.len() as u64);
    assert_eq!(sum(&flows, "bytes"), packets.iter().map(|packet| u64::from(packet.1)).sum::<u64>());
    assert!(sum(&flows, "reply_packets") > 0);
    let rows = read(&folder, "rows.csv").iter().filter(|&&byte| byte == b'\n').count() as u64;
    assert_eq!(sum(&flows_of_rows, "records"), rows - 1);
    assert_eq!(rows - 1, packets.len() as u64);
    assert!(!flows_of_rows[0].contains_key("bytes"));
    // Every flow's first and last packet is there, at that nanosecond, and the whole run's.
    let times = packets
        .iter()
        .map(|(time_ns, ..)| format!("{}.{:09}", time_ns / 1_000_000_000, time_ns % 1_000_000_000));
    let times: std::collections::HashSet<String> = times.collect();
    assert!(
        flows.iter().all(|flow| times.contains(&flow["start"]) && times.contains(&flow["end"]))
    );
    // Some were cut by the end of the run, and most were not.
    let complete = flows.iter().filter(|flow| flow["complete"] == "yes").count();
    assert!(complete < flows.len() && complete * 2 > flows.len(), "{complete} of {}", flows.len());
    for (of_rows, flow) in flows_of_rows.iter().zip(&flows) {
        for name in ["flow", "start", "end", "complete", "srcip", "dstport", "proto"] {
            assert_eq!(of_rows[name], flow[name]);
        }
    }
}

#[test]
fn flow_rate_and_ramp_change_when_flows_start_and_nothing_else() {
    let folder = trained();
    let run = |name: &str, arguments: &str| {
        replay(&folder, &format!("--null --flows-out {name} {arguments}"));
        flows(&read(&folder, name))
    };
    // Flows have as many packets, and take as long; a few are much longer than all others, so many
    // are looked at.
    let length = |flow: &HashMap<String, String>| {
        let [start, end] = ["start", "end"].map(|name| {
            let (seconds, fraction) = flow[name].split_once('.').expect("a point");
            let seconds: u64 = seconds.parse().expect("seconds");
            seconds * 1_000_000_000 + fraction.parse::<u64>().expect("nanoseconds")
        });
        (end - start, start)
    };
    let once = run("once.csv", "--duration 480s");
    let thrice = run("thrice.csv", "--duration 480s --flow-rate 3");
    let ramp = run("ramp.csv", "--duration 480s --ramp 1:5:240s");
    let ratio = |flows: &[HashMap<String, String>]| flows.len() as f64 / once.len() as f64;
    assert!((ratio(&thrice) - 3.0).abs() < 0.1, "{}", ratio(&thrice));
    // Three times for the first half, five times for the second.
    assert!((ratio(&ramp) - 4.0).abs() < 0.4, "{}", ratio(&ramp));
    let mean = |flows: &[HashMap<String, String>]| {
        let packets: f64 =
            flows.iter().map(|flow| flow["packets"].parse::<f64>().expect("n")).sum();
        let time: f64 = flows.iter().map(|flow| length(flow).0 as f64).sum();
        (packets / flows.len() as f64, time / flows.len() as f64)
    };
    let (packets, time) = mean(&once);
    for flows in [&thrice, &ramp] {
        let (found_packets, found_time) = mean(flows);
        assert!((found_packets / packets - 1.0).abs() < 0.3, "{packets} {found_packets}");
        assert!((found_time / time - 1.0).abs() < 0.3, "{time} {found_time}");
    }
    let plan = replay(&folder, "--null --ramp 1:5:48s --dry-run");
    assert!(plan.contains("from 1 to 5 times as trained over 48s"), "{plan}");
}

#[test]
fn an_interrupted_run_finishes_all_its_files() {
    let folder = trained();
    let mut child = Command::new(program("ns-replay"))
        .args("--bundle model.ns --pcap x.pcap --rotate-time 20s --flows-out x.csv".split(' '))
        .args("--forever --seed 5 --speed 100".split(' '))
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    // The second file is begun when the first is there.
    while !folder.path().join("x-00000.pcap").exists() {
        assert!(child.try_wait().expect("it runs").is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    // One right after the other, as from a terminal and `timeout` at once, are one request, and
    // either of them may be seen first.
    interrupt(&child);
    signal(&child, libc::SIGTERM);
    let code = child.wait().expect("it ends").code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
        .collect();
    names.sort();
    assert!(names.iter().all(|name| !name.ends_with(".part")), "{names:?}");
    let captures = names.iter().filter(|name| name.ends_with(".pcap"));
    let count: usize = captures.map(|name| packets(&read(&folder, name)).len()).sum();
    let told = flows(&read(&folder, "x.csv"));
    let told: usize = told.iter().map(|flow| flow["packets"].parse::<usize>().expect("n")).sum();
    assert_eq!(told, count);
}

#[test]
fn a_second_signal_ends_a_run_that_cannot_write() {
    let folder = trained();
    let mut child = Command::new(program("ns-replay"))
        .args("--bundle model.ns --pcap - --forever --seed 5 -q".split(' '))
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    // Nobody reads on, so that soon it waits for room, whatever it is asked.
    let mut pipe = child.stdout.take().expect("piped");
    pipe.read_exact(&mut [0; 24]).expect("a header");
    interrupt(&child);
    // Those of the first half second are the same request.
    while child.try_wait().expect("its state").is_none() {
        std::thread::sleep(Duration::from_millis(20));
        interrupt(&child);
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    drop(pipe);
}
