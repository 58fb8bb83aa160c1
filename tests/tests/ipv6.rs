//! A capture of both IP versions from end to end: read, learned, generated, judged.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::LazyLock;

use etherparse::{Ethernet2Header, IpHeaders};
use etherparse::{NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice};
use ns_tests::expect;
use pcap_file::pcap::PcapReader;

/// Runs a program, which must end with 0; standard output and standard error.
fn run(folder: &Path, name: &str, arguments: &[&str]) -> (String, String) {
    expect(0, folder, name, arguments)
}

/// A host of the captured network; every host has an address of each version.
fn host(version: u8, number: u16) -> IpAddr {
    match version {
        4 => Ipv4Addr::new(10, 0, (number >> 8) as u8, number as u8).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0x1000 + number / 9, number).into(),
    }
}

fn ethernet() -> PacketBuilderStep<Ethernet2Header> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn ip(from: IpAddr, to: IpAddr) -> PacketBuilderStep<IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet().ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet().ipv6(from.octets(), to.octets(), 57),
        _ => panic!("of one version"),
    }
}

/// The frames of a conversation: three quarters are web requests, the rest name
/// look-ups and a few echoes.
fn conversation(version: u8, number: u16) -> Vec<Vec<u8>> {
    let (client, server) = (host(version, 10 + number % 150), host(version, 1 + number % 3));
    let port = 40_000 + number;
    let there = || ip(client, server);
    let back = || ip(server, client);
    let mut frames = Vec::new();
    let mut write = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        write(&mut frame);
        frames.push(frame);
    };
    let long = vec![7; 200 + usize::from(number % 5) * 300];
    match number % 8 {
        0 => {
            write(&|f| there().udp(port, 53).write(f, &[1; 33]).expect("memory"));
            write(&|f| back().udp(53, port).write(f, &[2; 90]).expect("memory"));
        }
        1 if version == 4 => {
            write(&|f| there().icmpv4_echo_request(7, 1).write(f, &[0; 56]).expect("memory"));
            write(&|f| back().icmpv4_echo_reply(7, 1).write(f, &[0; 56]).expect("memory"));
        }
        1 => {
            write(&|f| there().icmpv6_echo_request(7, 1).write(f, &[0; 56]).expect("memory"));
            write(&|f| back().icmpv6_echo_reply(7, 1).write(f, &[0; 56]).expect("memory"));
        }
        _ => {
            write(&|f| there().tcp(port, 443, 1, 64_240).syn().write(f, &[]).expect("memory"));
            write(&|f| {
                back().tcp(443, port, 9, 65_160).syn().ack(2).write(f, &[]).expect("memory");
            });
            write(&|f| {
                there().tcp(port, 443, 2, 502).psh().ack(10).write(f, &[3; 80]).expect("memory");
            });
            write(&|f| {
                back().tcp(443, port, 10, 509).psh().ack(82).write(f, &long).expect("memory");
            });
            write(&|f| {
                there().tcp(port, 443, 82, 501).fin().ack(10).write(f, &[]).expect("memory")
            });
        }
    }
    frames
}

/// A pcap of conversations, each of the version that `version` says.
fn capture(conversations: u16, version: impl Fn(u16) -> u8) -> Vec<u8> {
    let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    bytes.extend([2_u16, 4].map(u16::to_le_bytes).concat());
    bytes.extend([0_u32, 0, 65_535, 1].map(u32::to_le_bytes).concat());
    for number in 0..conversations {
        for (at, frame) in conversation(version(number), number).iter().enumerate() {
            let us = u32::from(number) * 40_000 + at as u32 * 1_500;
            let length = frame.len() as u32;
            let header = [1_700_000_000 + us / 1_000_000, us % 1_000_000, length, length];
            bytes.extend(header.map(u32::to_le_bytes).concat());
            bytes.extend(frame);
        }
    }
    bytes
}

/// One in three conversations is of IPv6.
fn mixed(number: u16) -> u8 {
    if number.is_multiple_of(3) { 6 } else { 4 }
}

/// A folder with the captures, and a model of each.
static TRAINED: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    std::fs::write(path.join("mixed.pcap"), capture(600, mixed)).expect("written");
    std::fs::write(path.join("six.pcap"), capture(200, |_| 6)).expect("written");
    for (input, class, epochs, out) in [
        ("mixed.pcap", "autoregressive", "3", "mixed.ns"),
        ("mixed.pcap", "doppelganger", "2", "gan.ns"),
        ("six.pcap", "autoregressive", "2", "six.ns"),
    ] {
        let arguments = ["train", "--input", input, "--model", class, "--epochs", epochs];
        let (_, said) = run(path, "ns-train", &[&arguments[..], &["--out", out]].concat());
        assert!(said.contains("of the packets are of IPv6"), "{said}");
    }
    folder
});

/// The IP versions and protocols of a generated capture's packets, whose lengths and
/// checksums must be right.
fn versions(path: &Path) -> Vec<(u8, u8)> {
    let bytes = std::fs::read(path).expect("a capture");
    let mut reader = PcapReader::new(&bytes[..]).expect("a capture");
    let mut found = Vec::new();
    while let Some(record) = reader.next_raw_packet() {
        let record = record.expect("a whole record");
        assert_eq!(record.data.len(), record.orig_len as usize, "the whole packet");
        let packet = SlicedPacket::from_ethernet(&record.data).expect("legal headers");
        match (&packet.net, &packet.transport) {
            (Some(NetSlice::Ipv4(ip)), _) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                assert_eq!(usize::from(ip.header().total_len()), record.data.len() - 14);
                found.push((4, ip.header().protocol().0));
            }
            (Some(NetSlice::Ipv6(ip)), transport) => {
                let header = ip.header();
                assert_eq!(usize::from(header.payload_length()), record.data.len() - 54);
                let ends = (header.source(), header.destination());
                match transport {
                    Some(TransportSlice::Tcp(tcp)) => {
                        let sum = tcp.calc_checksum_ipv6(ends.0, ends.1).expect("it fits");
                        assert_eq!(tcp.checksum(), sum);
                    }
                    Some(TransportSlice::Udp(udp)) => {
                        let sum =
                            udp.to_header().calc_checksum_ipv6(&header.to_header(), udp.payload());
                        assert_eq!(udp.checksum(), sum.expect("it fits"));
                    }
                    Some(TransportSlice::Icmpv6(icmp)) => {
                        assert!(icmp.is_checksum_valid(ends.0, ends.1));
                    }
                    _ => {}
                }
                found.push((6, header.next_header().0));
            }
            (other, _) => panic!("no IP packet: {other:?}"),
        }
    }
    found
}

fn share_of_v6(versions: &[(u8, u8)]) -> f64 {
    versions.iter().filter(|found| found.0 == 6).count() as f64 / versions.len() as f64
}

#[test]
fn what_is_generated_is_of_both_versions_and_right() {
    let folder = TRAINED.path();
    for (bundle, least, most) in
        [("mixed.ns", 0.2, 0.5), ("gan.ns", 0.0, 1.0), ("six.ns", 1.0, 1.0)]
    {
        let replay = |threads: &str, out: &str| {
            let whole = ["--snaplen", "65535", "--seed", "3", "--flows", "400"];
            let more = ["--bundle", bundle, "--threads", threads, "--pcap", out];
            run(folder, "ns-replay", &[&whole[..], &more].concat())
        };
        let one = format!("{bundle}.1.pcap");
        replay("1", &one);
        let found = versions(&folder.join(&one));
        let share = share_of_v6(&found);
        assert!((least..=most).contains(&share), "{bundle}: {share}");
        // Each version has its ICMP.
        assert!(!found.contains(&(4, 58)) && !found.contains(&(6, 1)), "{bundle}");
        let three = format!("{bundle}.3.pcap");
        replay("3", &three);
        let bytes = |name: &str| std::fs::read(folder.join(name)).expect("a file");
        assert!(bytes(&one) == bytes(&three), "{bundle}: threads show in the output");
    }
}

#[test]
fn rows_are_of_one_version_each_and_can_be_chosen() {
    let folder = TRAINED.path();
    let rows = |out: &str, conditions: &[&str]| {
        let arguments = ["--bundle", "mixed.ns", "--flows", "150", "--seed", "5", "--csv", out];
        run(folder, "ns-replay", &[&arguments[..], conditions].concat());
        let mut reader = csv::Reader::from_path(folder.join(out)).expect("a table");
        let header = reader.headers().expect("a header").clone();
        let at = |name: &str| header.iter().position(|column| column == name).expect("a column");
        let columns = ["srcip", "dstip", "version", "proto"].map(at);
        let mut seen = BTreeSet::new();
        for row in reader.records() {
            let row = row.expect("a row");
            let [source, destination, version, proto] = columns.map(|at| row[at].to_owned());
            for address in [&source, &destination] {
                let address: IpAddr = address.parse().expect("an address");
                assert_eq!(address.is_ipv6(), version == "6", "{row:?}");
            }
            assert!(!matches!((&*version, &*proto), ("4", "58") | ("6", "1")), "{row:?}");
            seen.insert(version);
        }
        seen.into_iter().collect::<String>()
    };
    assert_eq!(rows("all.csv", &[]), "46");
    assert_eq!(rows("six.csv", &["--where", "version=6"]), "6");
    assert_eq!(rows("prefix.csv", &["--where", "srcip=2001:db8::/32"]), "6");
    assert_eq!(rows("four.csv", &["--where", "srcip=10.0.0.0/8"]), "4");
}

#[test]
fn every_command_takes_such_a_capture() {
    let folder = TRAINED.path();
    run(folder, "ns-replay", &["--bundle", "mixed.ns", "--pcap", "synthetic.pcap", "-q"]);
    let (said, _) = run(folder, "ns-train", &["check", "--input", "mixed.pcap", "--json"]);
    assert!(said.contains("\"version\""), "{said}");
    run(folder, "ns-train", &["convert", "--input", "mixed.pcap", "--out", "mixed.csv"]);
    run(folder, "ns-train", &["convert", "--input", "mixed.pcap", "--out", "mixed.parquet"]);
    let table = std::fs::read_to_string(folder.join("mixed.csv")).expect("a table");
    assert!(table.contains(",10.0.0.2,"), "no IPv4 address");
    assert!(table.contains(",2001:db8:7::1000:1,"), "no IPv6 address");
    // The tables say what the capture says.
    for table in ["mixed.csv", "mixed.parquet"] {
        let init = ["init", "--input", table, "--out", "own.json", "--force"];
        run(folder, "ns-train", &init);
        let own = std::fs::read_to_string(folder.join("own.json")).expect("a configuration");
        assert!(own.contains("ip_string"), "{own}");
    }
    let split = ["split", "--input", "mixed.pcap", "--by", "flow", "--out", "parts"];
    run(folder, "ns-train", &split);
    let pair = ["--real", "mixed.pcap", "--synthetic", "synthetic.pcap"];
    let (report, _) =
        run(folder, "ns-train", &[&["evaluate", "--quick", "--json"], &pair[..]].concat());
    let report: serde_json::Value = serde_json::from_str(&report).expect("a document");
    let text = report.to_string();
    for rate in ["valid_addresses", "smallest_length"] {
        assert!(text.contains(rate), "{rate}");
    }
    run(folder, "ns-train", &[&["visualize", "--quick", "--out", "page.html"], &pair[..]].concat());
}
