//! Flow records to a collector: nfcapd takes them, nfdump says what came. Everything is in a
//! network namespace of the test's own. Needs root, `ip`, nfdump, and a library that runs
//! networks; says so and passes where they are not there.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

mod namespaces;

use namespaces::Namespaces;

fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/netflow-1.ns")
}

fn replay(namespaces: &Namespaces, arguments: &str) -> Output {
    Command::new("ip")
        .args(["netns", "exec", &namespaces.0[0], env!("CARGO_BIN_EXE_ns-replay")])
        .args(["--seed", "5", "--flows", "300", "--bundle"])
        .arg(bundle())
        .args(arguments.split_whitespace())
        .output()
        .unwrap()
}

/// What both say of a flow: start and end in milliseconds, addresses, ports, protocol, packets,
/// bytes.
type Row = (i64, i64, String, String, u16, u16, u8, u64, u64);

/// What is to come, from the same run as CSV.
fn expected(folder: &Path, namespaces: &Namespaces, start: &str) -> Vec<Row> {
    let path = folder.join("flows.csv");
    let output = replay(namespaces, &format!("--csv {} {start}", path.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut reader = csv::Reader::from_path(path).unwrap();
    let names = reader.headers().unwrap().clone();
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        let cell =
            |name: &str| row[names.iter().position(|found| found == name).unwrap()].to_owned();
        let number = |name: &str| cell(name).parse::<f64>().unwrap();
        // Times of the table are in microseconds, durations in seconds.
        let begin = (number("ts") / 1e3).floor() as i64;
        let end = begin + (number("td") * 1e3).round() as i64;
        let protocol = match cell("proto").to_lowercase().as_str() {
            "tcp" => 6,
            "udp" => 17,
            "icmp" => 1,
            other => other.parse().unwrap(),
        };
        let (packets, bytes) = (number("pkt") as u64, number("byt") as u64);
        let ports = ["srcport", "dstport"].map(|name| number(name) as u16);
        (begin, end, cell("srcip"), cell("dstip"), ports[0], ports[1], protocol, packets, bytes)
    });
    rows.collect()
}

/// What nfdump says has come.
fn collected(folder: &Path) -> Vec<Row> {
    let format = "fmt:%tsr|%td|%sa|%da|%sp|%dp|%pr|%pkt|%byt";
    let output = Command::new("nfdump")
        .arg("-R")
        .arg(folder)
        .args(["-N", "-q", "-n", "0", "-o", format])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().filter(|line| line.contains('|')).map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ms = |cell: &str| (cell.parse::<f64>().unwrap() * 1e3).round() as i64;
        let port = |cell: &str| cell.split('.').next().unwrap().parse().unwrap();
        let number = |cell: &str| cell.parse::<u64>().unwrap();
        (
            ms(cells[0]),
            ms(cells[0]) + ms(cells[1]),
            cells[2].to_owned(),
            cells[3].to_owned(),
            port(cells[4]),
            port(cells[5]),
            number(cells[6]) as u8,
            number(cells[7]),
            number(cells[8]),
        )
    });
    rows.collect()
}

#[test]
fn a_collector_reads_what_was_generated_as_root() {
    if Command::new("nfcapd").arg("-V").output().is_err() {
        println!("skipped: this machine has no `nfcapd`");
        return;
    }
    let Some(namespaces) = Namespaces::new(1500) else { return };
    let can_generate = replay(&namespaces, "--null");
    if !can_generate.status.success() {
        println!("skipped: {}", String::from_utf8_lossy(&can_generate.stderr));
        return;
    }
    namespaces.ip(0, "link set lo up");
    for option in ["--ipfix", "--netflow9"] {
        let folder = tempfile::tempdir().unwrap();
        let flows = folder.path().join("flows");
        std::fs::create_dir(&flows).unwrap();
        let start = "--start-time 1700000000";
        let mut expected = expected(folder.path(), &namespaces, start);
        let mut collector = Command::new("ip")
            .args(["netns", "exec", &namespaces.0[0], "nfcapd", "-b", "127.0.0.1", "-p", "9995"])
            .arg("-w")
            .arg(&flows)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Until it listens: 9995 is 270B.
        let listens = || {
            let table =
                namespaces.within(0, || std::fs::read_to_string("/proc/thread-self/net/udp"));
            table.unwrap().contains(":270B ")
        };
        while !listens() {
            assert_eq!(collector.try_wait().unwrap(), None, "the collector ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = replay(&namespaces, &format!("{option} 127.0.0.1:9995 --topspeed {start}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        // What is in its socket is read before it sees the signal.
        std::thread::sleep(Duration::from_millis(500));
        // SAFETY: kill has no memory effects; the child has not been waited for.
        #[allow(unsafe_code)]
        unsafe {
            libc::kill(collector.id() as libc::pid_t, libc::SIGTERM);
        }
        collector.wait().unwrap();
        let mut collected = collected(&flows);
        // nfdump shows ICMP's port as its type and code, and knows no other.
        expected.iter_mut().chain(&mut collected).filter(|row| row.6 == 1).for_each(|row| {
            (row.4, row.5) = (0, 0);
        });
        expected.sort();
        collected.sort();
        assert_eq!(collected.len(), expected.len(), "{option}: {said}");
        for (found, expected) in collected.iter().zip(&expected) {
            assert_eq!(found, expected, "{option}");
        }
    }
    // Nobody listens any more: told, and an exit code of its own.
    let output = replay(&namespaces, "--ipfix 127.0.0.1:9995 --topspeed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("datagrams came where nobody listened"), "{said}");
}

#[test]
fn packets_are_no_flow_records() {
    let packets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/packets-1.ns");
    for option in ["--ipfix", "--netflow9"] {
        let output = Command::new(env!("CARGO_BIN_EXE_ns-replay"))
            .arg("--bundle")
            .arg(&packets)
            .args([option, "127.0.0.1:9995"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "error: the bundle holds packets, not flow records");
        assert!(lines[1].starts_with("hint: ") && lines[1].contains("`--iface NAME`"), "{said}");
    }
}
