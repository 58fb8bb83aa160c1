//! The command line of `ns-replay`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use ns_model_format::FlowRate;

use crate::condition::Condition;
use crate::device::Device;
use crate::generate::{MOST_QUEUED, QUEUE_CAP};
use crate::pace::Pacing;
use crate::packets::Mac;
use crate::prefix::{Mapping, Prefix};
use crate::sink::{DEFAULT_SNAPLEN, ExportFormat, OnDown, Oversize, Rotation, SendThrough, Target};

mod live;
mod run;
mod serve;
mod wire;

pub use run::main;

const EXAMPLES: &str = "\
Examples:
  ns-replay --bundle model.ns --describe
  ns-replay --bundle model.ns --pcap out.pcap --seed 1
  ns-replay --bundle model.ns --pcap - --flows 100 | tcpdump -r -
  ns-replay --bundle model.ns --pcapng out.pcapng --duration 10min
  ns-replay --bundle model.ns --csv out.csv --duration 10min
  ns-replay --bundle model.ns --pcap day.pcap --duration 1day --rotate-time 1h --flows-out flows.csv
  ns-replay --bundle model.ns --pcap dns.pcap --where dstport=53 --where proto=17
  ns-replay --bundle model.ns --pcap given.pcap --attributes flows.csv
  ns-replay --bundle model.ns --pcap surge.pcap --ramp 1:10:30s --duration 2min
  ns-replay --bundle model.ns --iface eth0 --dry-run
  ns-replay --bundle model.ns --iface eth0 --speed 2 --duration 1h
  ns-replay --bundle model.ns --iface eth0 --iface eth1 --map 0.0.0.0/0=10.0.0.0/8 --pps 10000
  ns-replay --bundle flows.ns --ipfix 192.0.2.1:4739 --speed 10
  ns-replay --bundle model.ns --iface eth0 --allow-net 10.0.0.0/8 --metrics 127.0.0.1:9100

Exit codes:
  0 done, 1 failed, 2 wrong usage or input, 3 no permission, 4 interface, 5 packets dropped,
  7 output not written, 8 `--where` not met by all flows, 130 or 143 stopped by SIGINT or SIGTERM";

/// Streams endless synthetic traffic from a bundle into a file or onto a wire.
#[derive(Clone, Debug, Parser)]
#[command(name = "ns-replay", version, after_help = EXAMPLES)]
#[command(group(ArgGroup::new("target").required(true)
    .args(["iface", "ipfix", "netflow9", "pcap", "pcapng", "csv", "null", "describe"])))]
#[command(group(ArgGroup::new("live").multiple(true).args(["iface", "ipfix", "netflow9"])))]
#[command(group(ArgGroup::new("pace").args(["speed", "pps", "mbps", "topspeed"])))]
pub struct Cli {
    /// The trained model
    #[arg(long, value_name = "FILE")]
    pub bundle: PathBuf,

    /// Send on a network interface, in real time and without end unless said otherwise; given
    /// twice, the side that begins a conversation sends on the first, the other on the second
    #[arg(long, value_name = "NAME")]
    pub iface: Vec<String>,
    /// Send flow records to a collector as IPFIX, in real time and without end unless said otherwise
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_collector)]
    pub ipfix: Option<SocketAddr>,
    /// The same as NetFlow version 9
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_collector)]
    pub netflow9: Option<SocketAddr>,
    /// Write a PCAP, one trained span long unless said otherwise; `-` is standard output
    #[arg(long, value_name = "FILE", value_parser = parse_target)]
    pub pcap: Option<Target>,
    /// Write a PCAPNG with nanoseconds, and the labels of flows as comments; `-` is standard
    /// output
    #[arg(long, value_name = "FILE", value_parser = parse_target)]
    pub pcapng: Option<Target>,
    /// Write a CSV, one trained span long unless said otherwise; `-` is standard output
    #[arg(long, value_name = "FILE", value_parser = parse_target)]
    pub csv: Option<Target>,
    /// Generate and count only
    #[arg(long)]
    pub null: bool,
    /// Say what the bundle holds
    #[arg(long)]
    pub describe: bool,

    /// Also write a CSV with a line for every flow that had a record: when it began and ended,
    /// how much it was, and its attributes; `-` is standard output
    #[arg(long, value_name = "FILE", value_parser = parse_target, help_heading = "Files")]
    #[arg(conflicts_with = "describe")]
    pub flows_out: Option<Target>,
    /// Go on in another file before one exceeds this size, such as `100MB` or `1GiB`:
    /// NAME-00000.pcap and so on, each whole
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Files")]
    #[arg(conflicts_with_all = ["iface", "ipfix", "netflow9", "null", "describe"])]
    pub rotate_size: Option<u64>,
    /// Go on in another file after every so much time of the trace, such as `10min`
    #[arg(long, value_name = "TIME", value_parser = parse_period, help_heading = "Files")]
    #[arg(conflicts_with_all = ["iface", "ipfix", "netflow9", "null", "describe"])]
    pub rotate_time: Option<Duration>,

    /// Stop after so many flows
    #[arg(long, value_name = "N", help_heading = "How much")]
    pub flows: Option<u64>,
    /// Stop after so many packets, or rows
    #[arg(long, value_name = "N", help_heading = "How much")]
    pub packets: Option<u64>,
    /// Stop after so much time, such as `90s` or `1h 30min`: of the trace; on an interface or to
    /// a collector of the clock
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(help_heading = "How much")]
    pub duration: Option<Duration>,
    /// Go on until stopped
    #[arg(long, help_heading = "How much", conflicts_with_all = ["flows", "duration"])]
    pub forever: bool,

    /// Only what has this value: attributes are drawn given it, by DoppelGANger until they have
    /// it; of measurements, records without it are left out. May be repeated: values of one
    /// name are alternatives, different names must hold together. Also `NAME!=VALUE`, ranges
    /// `dstport=1024-2047` and prefixes `srcip=10.0.0.0/8`; `--describe` lists the names
    #[arg(long = "where", value_name = "NAME=VALUE", help_heading = "Which flows")]
    pub conditions: Vec<Condition>,
    /// Draws of a flow's attributes; a flow that never meets `--where` is left out, is counted,
    /// takes a place in `--flows`, and makes the exit code 8
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = "Which flows")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000), requires = "conditions")]
    pub where_tries: u32,
    /// Flows with the attributes in this CSV, one a row, each once unless said otherwise. Its
    /// header names all attributes, or any of an autoregressive model's, which draws the others
    /// given these; it may name the time column: the flows' starts
    #[arg(long, value_name = "FILE", help_heading = "Which flows")]
    pub attributes: Option<PathBuf>,

    /// The same seed and bundle give the same output; drawn at random if not given
    #[arg(long, value_name = "N", help_heading = "Generation")]
    pub seed: Option<u64>,
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Generation")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Flows that a worker computes together
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Generation")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub slots: u32,
    /// Records that may wait for their turn in a worker before it stops running ahead: less
    /// memory where few do, which then is that of the flows in progress alone. Changes nothing of
    /// what is generated
    #[arg(long, value_name = "N", default_value_t = QUEUE_CAP as u32, help_heading = "Generation")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=MOST_QUEUED as i64))]
    pub queue_cap: u32,
    /// What runs the networks: `auto` is `cpu`, which is faster at networks of this size; `cuda:N`
    /// is a GPU, and needs an ONNX Runtime with CUDA (the package onnxruntime-gpu), CUDA and
    /// cuDNN, or is an error. On a GPU other threads or slots are other bytes
    #[arg(long, value_name = "auto|cpu|cuda:N", default_value_t, help_heading = "Generation")]
    pub device: Device,
    /// The ONNX Runtime library, which then runs all of the networks; without this the CPU runs most
    /// of them without it, and what needs it finds it by ORT_DYLIB_PATH, beside this program, in
    /// target/onnxruntime, or as the system does
    #[arg(long, value_name = "FILE", help_heading = "Generation")]
    pub onnxruntime: Option<PathBuf>,

    /// Times of a PCAP in nanoseconds (magic number a1b23c4d), not in microseconds
    #[arg(long, help_heading = "Packets", requires = "pcap")]
    pub nanoseconds: bool,
    /// Bytes of each frame that a file keeps; the true length stands beside them
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_SNAPLEN, help_heading = "Packets")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=262_144))]
    pub snaplen: u32,
    /// What follows the headers: `quiet` (zeros, but another byte for services whose analysers
    /// take zeros for a broken message), `zero`, `random`, or a file's bytes over and over
    #[arg(long, value_name = "quiet|zero|random|FILE", default_value = "quiet")]
    #[arg(help_heading = "Packets")]
    pub payload: String,
    /// When the trace begins: a time such as `2026-01-31T12:00:00Z`, seconds since 1970, or
    /// `now`; by default when the trained one began, for a collector now
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Packets")]
    pub start_time: Option<i64>,
    /// Source Ethernet address; by default the interface's
    #[arg(long, value_name = "MAC", value_parser = parse_mac, help_heading = "Packets")]
    pub src_mac: Option<Mac>,
    /// Destination Ethernet address [default: 02:00:00:00:00:02; of two interfaces the other's]
    #[arg(long, value_name = "MAC", value_parser = parse_mac, help_heading = "Packets")]
    pub dst_mac: Option<Mac>,
    /// Move the addresses of one network into another, such as `0.0.0.0/0=10.0.0.0/8`; may be
    /// repeated, the first that knows an address moves it
    #[arg(long, value_name = "FROM=TO", help_heading = "Packets")]
    #[arg(conflicts_with_all = ["csv", "flows_out"])]
    pub map: Vec<Mapping>,

    /// Packets may only go to this network: one to elsewhere is not sent, and ends the run. May be
    /// repeated
    #[arg(long, value_name = "PREFIX", help_heading = "On the wire", requires = "iface")]
    pub allow_net: Vec<Prefix>,
    /// Tag frames for this VLAN
    #[arg(long, value_name = "ID", help_heading = "On the wire", requires = "iface")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub vlan: Option<u16>,
    /// What becomes of packets above the interface's MTU
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = "On the wire")]
    pub oversize: Oversize,
    /// What becomes of the run while an interface is down, gone or without a carrier
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = "On the wire")]
    pub on_down: OnDown,
    /// How frames get to the interface; `pnet` is slower, for wires on which sockets that take
    /// many frames at once misbehave
    #[arg(long, value_name = "HOW", value_enum, default_value_t, help_heading = "On the wire")]
    #[arg(requires = "iface")]
    pub send_through: SendThrough,
    /// Tell monitoring how the run is: Prometheus's text at http://IP:PORT/metrics
    #[arg(long, value_name = "IP:PORT", help_heading = "On the wire", requires = "live")]
    pub metrics: Option<SocketAddr>,
    /// Make a Unix socket that takes a command a line: `status`, `pause`, `resume`,
    /// `speed FACTOR`, `pps N`, `mbps N`, `topspeed`; only this user may write to it
    #[arg(long, value_name = "PATH", help_heading = "On the wire", requires = "live")]
    pub control: Option<PathBuf>,

    /// So many times faster than real time
    #[arg(long, value_name = "FACTOR", value_parser = parse_rate, help_heading = "Pace")]
    pub speed: Option<f64>,
    /// So many times as many flows arrive as were learned; the times within a flow stay
    #[arg(long, value_name = "FACTOR", value_parser = parse_flow_rate, help_heading = "Pace")]
    pub flow_rate: Option<FlowRate>,
    /// A flow rate that changes evenly from FROM to TO within TIME of the trace, and stays, such
    /// as `0:3:10min`
    #[arg(long, value_name = "FROM:TO:TIME", value_parser = parse_ramp, help_heading = "Pace")]
    #[arg(conflicts_with = "flow_rate")]
    pub ramp: Option<FlowRate>,
    /// So many packets a second, evenly
    #[arg(long, value_name = "N", value_parser = parse_rate, help_heading = "Pace")]
    pub pps: Option<f64>,
    /// So many million bits of frames a second, evenly
    #[arg(long, value_name = "N", value_parser = parse_rate, help_heading = "Pace")]
    pub mbps: Option<f64>,
    /// As fast as possible; files are written so unless said otherwise
    #[arg(long, help_heading = "Pace")]
    pub topspeed: bool,
    /// How the sender waits for the next packet
    #[arg(long, value_name = "HOW", value_enum, default_value_t, help_heading = "Pace")]
    pub pacing: Pacing,

    /// Check everything and say what would be done, but do not do it
    #[arg(long, help_heading = "Reports")]
    pub dry_run: bool,
    /// Report as one JSON document on standard output; on an interface as lines, one a second
    /// and the report
    #[arg(long, help_heading = "Reports")]
    pub json: bool,
    /// Report nothing but errors
    #[arg(short, long, help_heading = "Reports", conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, help_heading = "Reports")]
    pub verbose: bool,
    /// No progress on a terminal
    #[arg(long, help_heading = "Reports")]
    pub no_progress: bool,
}

impl Cli {
    /// Whether what goes out is taken by somebody as it comes.
    fn is_live(&self) -> bool {
        !self.iface.is_empty() || self.collector().is_some()
    }

    /// Where flow records go, and how they are written.
    fn collector(&self) -> Option<(SocketAddr, ExportFormat)> {
        let ipfix = self.ipfix.map(|collector| (collector, ExportFormat::Ipfix));
        ipfix.or_else(|| self.netflow9.map(|collector| (collector, ExportFormat::NetFlow9)))
    }

    /// The file to write, if one is asked for.
    pub(crate) fn file(&self) -> Option<&Target> {
        self.pcap.as_ref().or(self.pcapng.as_ref()).or(self.csv.as_ref())
    }

    fn rotation(&self) -> Rotation {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Rotation { bytes: self.rotate_size, time_ns: self.rotate_time.map(nanoseconds) }
    }
}

fn parse_target(text: &str) -> Result<Target, String> {
    if text.is_empty() { Err("a file name is empty".to_owned()) } else { Ok(Target::parse(text)) }
}

fn parse_collector(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| {
        format!("expected an address such as `192.0.2.1:2055` or `collector.example:4739`: {error}")
    })?;
    found.next().ok_or_else(|| "this name has no address".to_owned())
}

fn parse_size(text: &str) -> Result<u64, String> {
    let expected = || "expected a size from 1kB on, such as `100MB` or `1GiB`".to_owned();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bytes = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        "t" | "tb" => 1_000_000_000_000,
        "tib" => 1 << 40,
        _ => return Err(expected()),
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(bytes));
    size.filter(|&size| size >= 1_000).ok_or_else(expected)
}

fn parse_period(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_millis(1) { Err("expected 1ms or more".to_owned()) } else { Ok(time) }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e12).contains(&rate) => Ok(rate),
        _ => Err("expected a number from 0.001 to 1e12".to_owned()),
    }
}

fn parse_flow_rate(text: &str) -> Result<FlowRate, String> {
    let rate = text.parse::<f64>().ok().map(FlowRate::from).filter(FlowRate::is_valid);
    rate.ok_or_else(|| "expected a number from 0.000001 to 1000000".to_owned())
}

fn parse_ramp(text: &str) -> Result<FlowRate, String> {
    let expected = || {
        "expected FROM:TO:TIME such as `1:3:10min`, FROM and TO from 0.000001 to 1000000, or FROM 0"
            .to_owned()
    };
    let mut parts = text.splitn(3, ':');
    let mut part = || parts.next().ok_or_else(expected);
    let (from, to, over) = (part()?, part()?, part()?);
    let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else { return Err(expected()) };
    let over = humantime::parse_duration(over).map_err(|error| format!("`{over}`: {error}"))?;
    let over_ns = u64::try_from(over.as_nanos()).map_err(|_| expected())?;
    let ramp = FlowRate::ramp(from, to, over_ns);
    if ramp.is_valid() && over_ns > 0 { Ok(ramp) } else { Err(expected()) }
}

fn parse_mac(text: &str) -> Result<Mac, String> {
    let expected = || "expected six bytes such as `02:00:00:00:00:02`".to_owned();
    let mut mac = Mac::default();
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| {
            (1..=2).contains(&part.len()) && part.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(expected)?;
    }
    if parts.next().is_some() { Err(expected()) } else { Ok(mac) }
}

fn parse_time(text: &str) -> Result<i64, String> {
    let expected = || {
        "expected a time such as `2026-01-31T12:00:00Z`, seconds since 1970, or `now`".to_owned()
    };
    if let Ok(seconds) = text.parse::<f64>() {
        let fits = (0.0..=u32::MAX.into()).contains(&seconds);
        return if fits { Ok((seconds * 1e9).round() as i64) } else { Err(expected()) };
    }
    let time = match text {
        "now" => std::time::SystemTime::now(),
        _ => humantime::parse_rfc3339_weak(text).map_err(|_| expected())?,
    };
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| expected())?;
    i64::try_from(since.as_nanos()).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_examples_of_the_help_parse() {
        let lines = EXAMPLES.lines().filter(|line| line.trim_start().starts_with("ns-replay"));
        let mut count = 0;
        for line in lines {
            let words = line.split('|').next().unwrap_or("").split_whitespace();
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            count += 1;
        }
        assert_eq!(count, 14);
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(parse_mac("02:00:0a:0:00:ff"), Ok([2, 0, 10, 0, 0, 255]));
        for wrong in
            ["", "02:00:00:00:00", "02:00:00:00:00:02:03", "g2:00:00:00:00:02", "+1:0:0:0:0:0"]
        {
            assert!(parse_mac(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_time("1.5"), Ok(1_500_000_000));
        assert_eq!(parse_time("1970-01-01T00:00:02Z"), Ok(2_000_000_000));
        assert!(parse_time("yesterday").is_err() && parse_time("-1").is_err());
        assert!(parse_rate("0").is_err() && parse_rate("nan").is_err());
        assert_eq!(parse_flow_rate("3"), Ok(3.0.into()));
        assert_eq!(parse_ramp("0:2.5:1m 30s"), Ok(FlowRate::ramp(0.0, 2.5, 90_000_000_000)));
        for wrong in ["", "1:2", "1:2:", "1:0:5s", "-1:2:5s", "1:2:5", "1:nan:5s", "1:2:0s"] {
            assert!(parse_ramp(wrong).is_err(), "{wrong}");
        }
        assert!(parse_flow_rate("0").is_err() && parse_flow_rate("inf").is_err());
        assert_eq!(parse_target("-"), Ok(Target::Stdout));
        let sizes = ["1000", "100MB", "1 GiB", "2k"].map(parse_size);
        assert_eq!(sizes, [1_000, 100_000_000, 1 << 30, 2_000].map(Ok));
        for wrong in ["", "999", "MB", "1.5GB", "1XB", "-5kB", "99999999999TB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert!(parse_period("10min").is_ok() && parse_period("1us").is_err());
    }
}
