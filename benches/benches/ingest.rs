//! Reading a capture: ours to the flows that training takes, beside `tshark
//! -T fields` with the same fields and `capinfos`, where these are installed,
//! one after the other on the same file, each as a process of its own:
//! the faster of two runs, and peak memory.
//!
//! The file is the shipped capture over and over (64 MB, some 70 bytes a
//! packet), or the one that `NS_BENCH_CAPTURE` names.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ns_tests::lab_capture;
use ns_trainer::config;
use ns_trainer::ingest::{Reading, packets};

/// Set for the process that reads.
const CHILD: &str = "NS_BENCH_INGEST";
const CAPTURE: &str = "NS_BENCH_CAPTURE";
const BYTES: usize = 64 << 20;
/// Bytes of a pcap's header.
const HEADER: usize = 24;
const RUNS: usize = 2;

const TSHARK: &[&str] = &[
    "-n",
    "-T",
    "fields",
    "-e",
    "frame.time_epoch",
    "-e",
    "ip.src",
    "-e",
    "ip.dst",
    "-e",
    "ip.proto",
    "-e",
    "ip.len",
    "-e",
    "ip.ttl",
    "-e",
    "tcp.srcport",
    "-e",
    "tcp.dstport",
    "-e",
    "tcp.flags",
    "-e",
    "udp.srcport",
    "-e",
    "udp.dstport",
];

fn main() {
    if let Some(path) = std::env::var_os(CHILD) {
        return read(PathBuf::from(path));
    }
    // cargo gives `--bench` and then the names that were asked for.
    let names: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if !names.is_empty() && !names.iter().any(|name| "ingest".contains(name.as_str())) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = std::env::var_os(CAPTURE).map_or_else(|| repeated(folder.path()), PathBuf::from);
    let bytes = std::fs::metadata(&path).expect("a capture").len();
    let this = std::env::current_exe().expect("this program");
    let ours = Command::new(this);
    let Some(ours) = measure("ours", ours, &[], Some(&path)) else { return };
    let packets: f64 = ours.output.trim().parse().expect("a number of packets");
    println!("{}: {:.1} MB, {packets} packets", path.display(), bytes as f64 / 1e6);
    let mut rows = vec![ours];
    for (name, arguments) in [("tshark", TSHARK), ("capinfos", &[][..])] {
        let mut command = Command::new(name);
        if name == "tshark" {
            command.arg("-r");
        }
        command.arg(&path);
        rows.extend(measure(name, command, arguments, None));
    }
    println!(
        "{:10} {:>9} {:>9} {:>12} {:>9} {:>7}",
        "", "s", "MB/s", "packets/s", "RSS MB", "time"
    );
    let ours = rows[0].time.as_secs_f64();
    for row in &rows {
        let seconds = row.time.as_secs_f64();
        println!(
            "{:10} {seconds:>9.3} {:>9.0} {:>12.0} {:>9.0} {:>6.2}x",
            row.name,
            bytes as f64 / 1e6 / seconds,
            packets / seconds,
            row.peak_bytes as f64 / 1e6,
            seconds / ours,
        );
    }
}

/// Reads a capture as training does and prints how many packets are used.
fn read(path: PathBuf) {
    let file = config::parse(config::DEFAULT_PCAP, "configs/pcap.json").expect("a good file");
    let config = config::resolve(&file, Path::new(".")).expect("a good configuration");
    let trace = packets::trace(&[path], &config, Reading::default()).expect("a good capture");
    println!("{}", trace.times_ns.len() as u64 + trace.not_used.values().sum::<u64>());
}

/// The shipped capture's records, as often as it takes.
fn repeated(folder: &Path) -> PathBuf {
    let capture = std::fs::read(lab_capture()).expect("the shipped capture");
    let (header, records) = capture.split_at(HEADER);
    let path = folder.join("repeated.pcap");
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(header).expect("written");
    for _ in 0..BYTES.div_ceil(records.len()) {
        file.write_all(records).expect("written");
    }
    path
}

struct Measured {
    name: &'static str,
    time: Duration,
    peak_bytes: u64,
    output: String,
}

/// Runs a program; none, said, if it is not installed.
fn measure(
    name: &'static str,
    mut command: Command,
    arguments: &[&str],
    child: Option<&Path>,
) -> Option<Measured> {
    command.args(arguments).stderr(Stdio::null());
    if let Some(path) = child {
        command.env(CHILD, path);
    }
    let mut best: Option<Measured> = None;
    for _ in 0..RUNS {
        // Only ours is read; a pipe nobody empties would stall the others.
        command.stdout(if child.is_some() { Stdio::piped() } else { Stdio::null() });
        let begin = Instant::now();
        let Ok(mut process) = command.spawn() else {
            println!("{name} is not installed");
            return None;
        };
        let mut peak_bytes = 0;
        while process.try_wait().expect("a process").is_none() {
            peak_bytes = peak(process.id()).max(peak_bytes);
            std::thread::sleep(Duration::from_millis(2));
        }
        let time = begin.elapsed();
        let output = process.wait_with_output().expect("a process");
        assert!(output.status.success(), "{name}: {}", output.status);
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        if best.as_ref().is_none_or(|best| time < best.time) {
            best = Some(Measured { name, time, peak_bytes, output });
        }
    }
    best
}

/// A process's highest resident memory so far.
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}
