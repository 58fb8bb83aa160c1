//! The program on a wire where things go wrong: every fault is told, counted, and ends with the
//! right exit code. Wires are a test's own (`namespaces/`); needs root and `ip`, and a library
//! that runs networks; says so and passes where there is neither.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use serde_json::Value;

mod namespaces;

use namespaces::{Namespaces, receiver};

/// A run in the first of two namespaces. Whatever happens it ends after a minute.
struct Run {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    said: Vec<String>,
}

fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/packets-1.ns")
}

/// Whether the bundle's networks can be run here.
fn can_generate() -> bool {
    let output = Command::new(env!("CARGO_BIN_EXE_ns-replay"))
        .arg("--bundle")
        .arg(bundle())
        .args(["--null", "--flows", "1"])
        .output()
        .unwrap();
    if !output.status.success() {
        println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    output.status.success()
}

fn namespaces(mtu: u32) -> Option<Namespaces> {
    if can_generate() { Namespaces::new(mtu) } else { None }
}

impl Run {
    fn start(namespaces: &Namespaces, arguments: &str) -> Run {
        Run::start_under(namespaces, &[], arguments)
    }

    /// Started by another program, which these words are of.
    fn start_under(namespaces: &Namespaces, under: &[&str], arguments: &str) -> Run {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &namespaces.0[0]])
            .args(under)
            .arg(env!("CARGO_BIN_EXE_ns-replay"))
            .args(["--iface", "wire0", "--json", "--seed", "1", "--bundle"])
            .arg(bundle())
            .args(arguments.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Run { child, stdout, stderr, said: Vec::new() }
    }

    /// Waits for a line with this in it.
    fn until(&mut self, words: &str) {
        loop {
            let mut line = String::new();
            let count = self.stderr.read_line(&mut line).unwrap();
            assert!(count > 0, "it never said `{words}` but {:#?}", self.said);
            self.said.push(line.trim_end().to_owned());
            if line.contains(words) {
                return;
            }
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill has no memory effects; the child has not been waited for.
        #[allow(unsafe_code)]
        let sent = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        assert_eq!(sent, 0);
    }

    /// Waits for its end: its exit code, and its report.
    fn end(mut self) -> (i32, Value, Vec<String>) {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        self.said.extend(self.stderr.lines().map(Result::unwrap));
        let code = self.child.wait().unwrap().code().expect("an exit code");
        let last = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
        (code, last.unwrap_or_default(), self.said)
    }
}

const PACED: &str = "--pps 2000 --duration 60s";
/// Every way to an interface.
const WAYS: [&str; 2] = ["--send-through af-packet", "--send-through pnet"];

/// Lines about the interface's state.
fn transitions(said: &[String]) -> Vec<&String> {
    let about = |line: &&String| line.starts_with("interface `wire0` ") && !line.contains("took");
    said.iter().filter(about).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn an_interface_that_comes_back_is_waited_for_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    // Shut down here, at the other end, and unplugged for good.
    let states = [(0, "is down"), (1, "has no carrier")];
    for (way, (side, state)) in WAYS.into_iter().flat_map(|way| states.map(|state| (way, state))) {
        let mut run = Run::start(&namespaces, &format!("{PACED} {way}"));
        run.until("sending to interface `wire0`");
        let mut receiver = namespaces.within(1, receiver);
        receiver.read_exact(&mut [0; 14]).expect("a frame");
        namespaces.ip(side, "link set wire0 down");
        run.until(&format!("interface `wire0` {state}: waiting until it is up again"));
        namespaces.ip(side, "link set wire0 up");
        run.until("interface `wire0` is up again after ");
        let mut receiver = namespaces.within(1, namespaces::receiver);
        receiver.read_exact(&mut [0; 14]).expect("a frame");
        run.signal(libc::SIGINT);
        let (code, report, said) = run.end();
        assert_eq!((code, &report["ending"]), (130, &"interrupted".into()));
        assert_eq!((&report["dropped"], &report["down_skipped"]), (&0.into(), &0.into()));
        // A line for each transition.
        assert_eq!(transitions(&said).len(), 2, "{said:#?}");
        if side == 0 {
            let interface = &report["interfaces"][0];
            assert_eq!(
                (&interface["counted"], &interface["lost"]),
                (&report["records"], &0.into())
            );
        }
    }
}

#[test]
fn packets_are_left_out_while_the_interface_is_down_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    let mut run = Run::start(&namespaces, &format!("{PACED} --on-down skip"));
    run.until("sending");
    namespaces.ip(0, "link set wire0 down");
    run.until("interface `wire0` is down: leaving its packets out until it is up again");
    namespaces.ip(0, "link set wire0 up");
    run.until("is up again");
    run.signal(libc::SIGTERM);
    let (code, report, said) = run.end();
    assert_eq!((code, &report["ending"]), (143, &"terminated".into()));
    assert!(number(&report["down_skipped"]) > 0, "{report}");
    assert_eq!(transitions(&said).len(), 2, "{said:#?}");
    assert!(said.iter().any(|line| line.ends_with("left out: the interface was down")));
}

#[test]
fn an_interface_that_goes_down_ends_the_run_if_asked_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    let mut run = Run::start(&namespaces, &format!("{PACED} --on-down abort"));
    run.until("sending");
    namespaces.ip(0, "link set wire0 down");
    let (code, report, said) = run.end();
    assert_eq!((code, &report["ending"]), (4, &"failed".into()));
    let error = "error: interface `wire0` is down".to_owned();
    assert!(said.contains(&error), "{said:#?}");
    assert!(said.last().unwrap().contains("ip link set wire0 up"), "{said:#?}");
}

#[test]
fn an_interface_that_is_made_anew_is_used_again_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    for way in WAYS {
        let mut run = Run::start(&namespaces, &format!("{PACED} {way}"));
        run.until("sending");
        namespaces.ip(0, "link del wire0");
        // It goes down before it is gone, and either may be seen.
        run.until(": waiting until it is up again");
        namespaces.add_pair("wire0");
        run.until("is up again after");
        let mut receiver = namespaces.within(1, receiver);
        receiver.read_exact(&mut [0; 14]).expect("a frame");
        run.signal(libc::SIGINT);
        let (code, report, _) = run.end();
        assert_eq!(code, 130);
        let counted = &report["interfaces"][0]["counted"];
        assert_eq!(counted, &Value::Null, "another interface's counters");
    }
}

#[test]
fn a_receiver_that_is_gone_is_told_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    let mut run = Run::start(&namespaces, PACED);
    run.until("sending");
    // Its end of the wire goes with it, and so does ours.
    assert!(
        Command::new("ip").args(["netns", "del", &namespaces.0[1]]).status().unwrap().success()
    );
    run.until(": waiting until it is up again");
    run.signal(libc::SIGINT);
    let (code, report, said) = run.end();
    assert_eq!((code, &report["ending"]), (130, &"interrupted".into()), "{said:#?}");
    assert_eq!((&report["dropped"], &report["down_skipped"]), (&0.into(), &0.into()));
}

#[test]
fn one_capability_is_enough_and_needed_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    if Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: this system has no `setpriv`");
        return;
    }
    for way in WAYS {
        let arguments = format!("--topspeed --packets 10 --oversize truncate {way}");
        let only = ["setpriv", "--bounding-set", "-all,+net_raw"];
        let (code, report, said) = Run::start_under(&namespaces, &only, &arguments).end();
        assert_eq!((code, number(&report["records"])), (0, 10), "{said:#?}");
        for dry in ["", "--dry-run"] {
            let arguments = format!("{arguments} {dry}");
            let without = ["setpriv", "--bounding-set", "-net_raw"];
            let (code, _, said) = Run::start_under(&namespaces, &without, &arguments).end();
            assert_eq!(code, 3, "{said:#?}");
            let error = "error: no permission to send raw frames on `wire0`";
            assert!(said.iter().any(|line| line.starts_with(error)), "{said:#?}");
            assert!(said.last().unwrap().contains("setcap cap_net_raw"), "{said:#?}");
        }
    }
}

#[test]
fn a_generator_that_is_too_slow_is_named_as_the_cause_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    // No generator makes a packet every 10 ns.
    let arguments = "--pps 100000000 --packets 5000 --oversize truncate";
    let (code, report, said) = Run::start(&namespaces, arguments).end();
    assert_eq!((code, &report["ending"]), (0, &"done".into()), "{said:#?}");
    assert_eq!((number(&report["records"]), number(&report["dropped"])), (5000, 0));
    assert!(number(&report["lateness"]["starved"]) > 0, "{report}");
    assert!(said.iter().any(|line| line.contains(" generated too late")), "{said:#?}");
}

#[test]
fn signals_end_a_run_with_all_of_it_counted_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let paces = [PACED, "--topspeed --duration 60s", "--speed 0.001"].map(str::to_owned);
        for pace in paces.into_iter().chain([format!("{PACED} {}", WAYS[1])]) {
            let mut receiver = namespaces.within(1, receiver);
            let run = Run::start(&namespaces, &pace);
            receiver.read_exact(&mut [0; 14]).expect("a frame");
            run.signal(signal);
            let (found, report, said) = run.end();
            assert_eq!(found, code, "{said:#?}");
            let interface = &report["interfaces"][0];
            assert_eq!(interface["sent"], report["records"]);
            assert_eq!(interface["counted"], report["records"], "{pace}: {report}");
        }
    }
}

#[test]
fn a_queue_that_stays_full_drops_and_says_so_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    let [a, _] = &namespaces.0;
    let shape =
        format!("netns exec {a} tc qdisc add dev wire0 root tbf rate 64kbit burst 2kb limit 3kb");
    let shaped = Command::new("ip").args(shape.split(' ')).output();
    if !shaped.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: this system cannot shape: {shaped:?}");
        return;
    }
    for way in WAYS {
        let arguments = format!("--topspeed --packets 300 --oversize truncate {way}");
        let (code, report, said) = Run::start(&namespaces, &arguments).end();
        assert_eq!((code, &report["ending"]), (5, &"done".into()), "{said:#?}");
        let (sent, dropped) = (number(&report["records"]), number(&report["dropped"]));
        assert_eq!(sent + dropped, 300);
        assert!(dropped > 0 && sent > 0);
        // All that was taken has left before the report.
        assert_eq!(report["interfaces"][0]["counted"], report["records"], "{way}");
        assert!(said.iter().any(|line| line.contains("the interface did not take them in time")));
    }
}

#[test]
fn packets_above_the_mtu_end_the_run_unless_told_otherwise_as_root() {
    let Some(namespaces) = namespaces(600) else { return };
    let (code, _, said) = Run::start(&namespaces, "--topspeed --packets 5000").end();
    assert_eq!(code, 4);
    let error = said.iter().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("bytes exceeds the MTU of `wire0`, 600 bytes"), "{error}");
    assert!(said.last().unwrap().contains("--oversize skip"));
    for (how, count) in [("skip", "oversize_skipped"), ("truncate", "oversize_truncated")] {
        let arguments = format!("--topspeed --packets 5000 --oversize {how}");
        let (code, report, said) = Run::start(&namespaces, &arguments).end();
        assert_eq!(code, 0, "{said:#?}");
        assert!(number(&report[count]) > 0);
        assert_eq!(number(&report["records"]) + number(&report["oversize_skipped"]), 5000);
    }
}

#[test]
fn nothing_goes_where_it_may_not_and_a_dry_run_says_so_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    let mut receiver = namespaces.within(1, receiver);
    for dry in ["", "--dry-run"] {
        let arguments = format!("--topspeed --packets 100 --allow-net 10.0.0.0/8 {dry}");
        let (code, _, said) = Run::start(&namespaces, &arguments).end();
        assert_eq!(code, 2, "{said:#?}");
        let error = said.iter().find(|line| line.starts_with("error: ")).unwrap();
        assert!(error.ends_with("is refused: packets may only go to `10.0.0.0/8`"), "{error}");
        let mapped = format!("{arguments} --map 0.0.0.0/0=10.0.0.0/8");
        let (code, _, said) = Run::start(&namespaces, &mapped).end();
        assert_eq!(code, 0, "{said:#?}");
    }
    // The hundred that were allowed are all there is.
    let mut frame = [0; 2000];
    for _ in 0..100 {
        assert!(receiver.read(&mut frame).expect("a frame") > 34);
        assert_eq!((frame[30], frame[12..14].to_vec()), (10, vec![8, 0]));
    }
    assert!(receiver.read(&mut frame).is_err(), "nothing else came");
}

#[test]
fn an_interface_with_the_default_route_is_warned_of_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    let warns = |said: &[String]| said.iter().any(|line| line.starts_with("warning: interface"));
    let (_, _, said) = Run::start(&namespaces, "--topspeed --packets 1").end();
    assert!(!warns(&said), "{said:#?}");
    namespaces.ip(0, "addr add 10.9.0.1/24 dev wire0");
    namespaces.ip(0, "route add default via 10.9.0.2");
    let (code, _, said) = Run::start(&namespaces, "--topspeed --packets 1").end();
    assert_eq!((code, warns(&said)), (0, true), "{said:#?}");
}

#[test]
fn every_way_sends_the_same_frames_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    let sent = WAYS.map(|way| {
        let mut receiver = namespaces.within(1, receiver);
        let arguments =
            format!("--topspeed --packets 500 --oversize truncate --payload random {way}");
        let (code, report, said) = Run::start(&namespaces, &arguments).end();
        assert_eq!((code, number(&report["records"])), (0, 500), "{said:#?}");
        let mut frame = [0; 2000];
        let frames = (0..500).map(|_| {
            let len = receiver.read(&mut frame).expect("a frame");
            frame[..len].to_vec()
        });
        frames.collect::<Vec<_>>()
    });
    assert!(sent[0] == sent[1]);
}

#[test]
fn two_interfaces_carry_a_side_each_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    namespaces.add_pair("wire1");
    let run = Run::start(&namespaces, "--iface wire1 --topspeed --packets 3000");
    let (code, report, said) = run.end();
    assert_eq!(code, 0, "{said:#?}");
    let sent = |side: usize| number(&report["interfaces"][side]["counted"]);
    assert_eq!(sent(0) + sent(1), 3000);
    assert!(sent(0) > 100 && sent(1) > 100, "{report}");
    for wrong in ["--iface wire0", "--iface wire1 --iface wire2"] {
        assert_eq!(Run::start(&namespaces, wrong).end().0, 2);
    }
}

#[test]
fn a_run_is_paused_and_its_rate_changed_through_a_socket_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let mut receiver = namespaces.within(1, receiver);
    let run = Run::start(&namespaces, &format!("{PACED} --control {}", path.display()));
    receiver.read_exact(&mut [0; 14]).expect("a frame");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = BufReader::new(UnixStream::connect(&path).unwrap());
    let mut ask = |line: &str| -> Value {
        client.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    };
    assert_eq!(ask("pause")["paused"], true);
    // What was on its way comes; then nothing, for as long as the receiver waits.
    let mut came = 0;
    while receiver.read(&mut [0; 2000]).is_ok() {
        came += 1;
    }
    // All that there would have been are 120,000.
    assert!(came < 100_000);
    assert!(ask("pps")["error"].is_string());
    assert!(ask("pps 4000")["error"].is_null());
    assert_eq!(ask("resume")["paused"], false);
    receiver.read_exact(&mut [0; 14]).expect("a frame");
    assert_eq!(ask("status")["dropped"]["queue_full"], 0);
    run.signal(libc::SIGINT);
    let (code, _, said) = run.end();
    assert_eq!((code, path.exists()), (130, false), "{said:#?}");
    // A socket's name that is taken by a file is refused, and the file stays.
    std::fs::write(&path, "mine").unwrap();
    let (code, _, said) = Run::start(&namespaces, &format!("--control {}", path.display())).end();
    assert_eq!(code, 2, "{said:#?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

/// Reads metrics as Prometheus does, and prints a few of them.
const SCRAPE: &str = "
import sys, urllib.request
from prometheus_client.parser import text_string_to_metric_families
text = urllib.request.urlopen(sys.argv[1], timeout=10).read().decode()
found = {}
for family in text_string_to_metric_families(text):
    assert family.documentation and family.type != 'unknown', family
    for sample in family.samples:
        found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
buckets = [(float(labels[0][1]), value) for (name, labels), value in found.items()
           if name == 'netshare_lateness_seconds_bucket']
assert buckets == sorted(buckets) and buckets[-1][0] == float('inf'), buckets
assert [value for _, value in buckets] == sorted(value for _, value in buckets), buckets
assert buckets[-1][1] == found['netshare_lateness_seconds_count', ()]
for cause in ['queue_full', 'interface_down', 'over_mtu']:
    assert found['netshare_dropped_packets_total', (('cause', cause),)] == 0
print(int(found['netshare_packets_total', ()]), int(found['netshare_flows_total', ()]))
";

#[test]
fn metrics_are_what_prometheus_reads_as_root() {
    let Some(namespaces) = namespaces(1500) else { return };
    let pythons = ["python3", "/usr/bin/python3"];
    let parses = |python: &&&str| {
        let output = Command::new(python).args(["-c", "import prometheus_client"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(python) = pythons.iter().find(parses) else {
        println!("skipped: no Python here has `prometheus_client`");
        return;
    };
    namespaces.ip(0, "link set lo up");
    let mut run = Run::start(&namespaces, &format!("{PACED} --metrics 127.0.0.1:9100"));
    // After the first look there is something to tell.
    let mut line = String::new();
    run.stdout.read_line(&mut line).unwrap();
    let seen: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(seen["event"], "progress");
    let scraped = Command::new("ip")
        .args(["netns", "exec", &namespaces.0[0], python, "-c", SCRAPE])
        .arg("http://127.0.0.1:9100/metrics")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&scraped.stdout);
    assert!(scraped.status.success(), "{}", String::from_utf8_lossy(&scraped.stderr));
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!(numbers[0] >= number(&seen["packets"]) && numbers[1] > 0, "{text} {seen}");
    run.signal(libc::SIGINT);
    // The rest of its lines is read by `end`, the report the last of them.
    let (code, report, _) = run.end();
    assert_eq!((code, &report["event"]), (130, &"report".into()));
}

#[test]
fn a_reader_that_has_gone_ends_the_run() {
    if !can_generate() {
        return;
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_ns-replay"))
        .args(["--pcap", "-", "--forever", "--seed", "1", "--bundle"])
        .arg(bundle())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The file's header, then no more is read.
    child.stdout.take().unwrap().read_exact(&mut [0; 24]).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(0), ""));
}
