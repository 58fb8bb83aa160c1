//! Beside tcpreplay, on a veth pair of its own between two network namespaces: top speed from
//! frames that are there already and from a model, and how evenly packets come at a fixed rate.
//! Both take turns; a ratio is that of the medians. Needs root, `ip` and `tcpreplay`.
//!
//! `./run bench wire [--runs N] [--seconds S] [--bundle FILE]...`: N turns (5), each so long
//! (1), and paced ones five times as long; models to send from beside the golden one and one of the
//! sizes of `generation`'s.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ns_model_format::schema::packet_field as name;
use ns_model_format::{Bundle, Value};
use ns_runtime::drive::{Control, Driven, Limits, Timing, drive};
use ns_runtime::pace::{Pace, Pacing};
use ns_runtime::sink::{
    Interface, InterfaceSink, OnDown, Oversize, PcapSink, SendThrough, Target, WireOptions,
};
use ns_runtime::{
    Event, Frame, GenerateOptions, Generator, PacketOptions, PacketRender, Payload, Render, Sink,
};
use ns_tests::{SampleModel, sample_bundle};

#[path = "../../runtime/tests/namespaces/mod.rs"]
mod namespaces;

use namespaces::{Namespaces, receiver};

/// Frames that are there already.
const FRAMES: u64 = 4096;
/// Packets a second of paced runs.
const RATE: u64 = 10_000;

struct Options {
    runs: usize,
    seconds: f64,
    bundles: Vec<PathBuf>,
}

fn options() -> Options {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/packets-1.ns");
    let mut options = Options { runs: 5, seconds: 1.0, bundles: vec![golden] };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("`{word}` needs a value"));
        match word.as_str() {
            "--runs" => options.runs = value().parse().expect("a number of runs"),
            "--seconds" => options.seconds = value().parse().expect("a number of seconds"),
            "--bundle" => options.bundles.push(value().into()),
            // Cargo's own, and filters for other benchmarks.
            _ => {}
        }
    }
    options
}

/// UDP frames of these lengths, over and over.
fn frames(lens: &[usize]) -> Vec<Event<Frame>> {
    let golden = Bundle::open(&options().bundles[0]).expect("the golden bundle");
    let mut schema = golden.manifest().schema.clone();
    schema.measurements.retain(|field| field.name == name::LEN);
    let mut render = PacketRender::new(&schema, PacketOptions::default()).expect("packets");
    let value = |field: &str| match field {
        name::SRC_IP => 0x0a00_0001,
        name::DST_IP => 0x0a00_0002,
        name::PROTO => 17,
        _ => 40_000,
    };
    let tuple: Vec<Value> =
        schema.attributes.iter().map(|field| Value::Int(value(&field.name))).collect();
    let mut flow = render.begin_flow(0, &tuple);
    let frame = |number: u64| {
        let len = lens[number as usize % lens.len()] - 14;
        let item = render.record(&mut flow, 0, &[Value::Int(len as i64)]);
        Event { time_ns: 0, flow: 0, record: number as u32, item }
    };
    (0..FRAMES).map(frame).collect()
}

fn sink(payload: Payload) -> InterfaceSink {
    sink_through(SendThrough::default(), payload)
}

fn sink_through(send_through: SendThrough, payload: Payload) -> InterfaceSink {
    let options = WireOptions {
        payload,
        oversize: Oversize::Truncate,
        on_down: OnDown::Abort,
        send_through,
        ..WireOptions::default()
    };
    let interface = Interface::find("wire0").expect("the wire");
    InterfaceSink::open(vec![interface], options).expect("the right to send")
}

/// A capture for tcpreplay.
fn capture(folder: &Path, events: &[Event<Frame>]) -> PathBuf {
    let path = folder.join("frames.pcap");
    let payload = PacketOptions::default().payload;
    let target = Target::File(path.clone());
    let mut sink = PcapSink::create(&target, payload, 65_535, 0).expect("a file");
    sink.write(events).expect("room");
    Sink::<Frame>::finish(&mut sink).expect("room");
    path
}

/// Packets a second and processor seconds of tcpreplay.
fn tcpreplay(namespaces: &Namespaces, file: &Path, arguments: &[String]) -> (f64, f64) {
    let before = used(libc::RUSAGE_CHILDREN);
    let output = Command::new("ip")
        .args(["netns", "exec", &namespaces.0[0], "tcpreplay", "-i", "wire0"])
        .args(["--preload-pcap", "--no-flow-stats"])
        .args(arguments)
        .arg(file)
        .output()
        .expect("tcpreplay starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    // "Rated: 12.3 Bps, 4.5 Mbps, 6789.0 pps"
    let rate = text.lines().find(|line| line.contains(" pps")).and_then(|line| {
        line.split_whitespace().rev().nth(1).and_then(|number| number.parse().ok())
    });
    (rate.unwrap_or_else(|| panic!("{text}")), used(libc::RUSAGE_CHILDREN) - before)
}

/// Processor seconds of this process, its thread, or its children.
fn used(whose: libc::c_int) -> f64 {
    // SAFETY: rusage is plain numbers, for which all zeros is a value; it lives through the call.
    #[allow(unsafe_code)]
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(whose, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Both in turns: the median of each.
fn turns<T>(
    runs: usize,
    mut ours: impl FnMut() -> T,
    mut theirs: impl FnMut() -> T,
) -> [Vec<T>; 2] {
    let pairs = (0..runs).map(|_| (ours(), theirs()));
    let (ours, theirs) = pairs.unzip();
    [ours, theirs]
}

fn row(name: &str, [ours, theirs]: [f64; 2]) {
    println!("{name:34} {ours:12.0} {theirs:12.0} {:8.2}", ours / theirs);
}

fn top_speed(namespaces: &Namespaces, folder: &Path, options: &Options) {
    let imix = [60, 60, 60, 60, 60, 60, 60, 590, 590, 590, 590, 1514];
    let packet_sockets = SendThrough::default();
    for (what, lens, through) in [
        ("60 bytes", &[60][..], packet_sockets),
        ("IMIX", &imix, packet_sockets),
        ("1514 bytes", &[1514], packet_sockets),
        ("60 bytes, pnet", &[60], SendThrough::Pnet),
    ] {
        let events = frames(lens);
        let file = capture(folder, &events);
        let ours = || {
            namespaces.within(0, || {
                let mut sink = sink_through(through, PacketOptions::default().payload);
                let begin = Instant::now();
                let mut count = 0;
                while begin.elapsed().as_secs_f64() < options.seconds {
                    events.chunks(256).for_each(|batch| sink.write(batch).expect("a wire"));
                    count += events.len();
                }
                count as f64 / begin.elapsed().as_secs_f64()
            })
        };
        let rate = ours();
        let loops = (options.seconds * rate / FRAMES as f64).ceil();
        let arguments = ["--topspeed".to_owned(), format!("--loop={loops}")];
        let theirs = || tcpreplay(namespaces, &file, &arguments).0;
        row(
            &format!("preloaded, {what}, packets/s"),
            turns(options.runs, ours, theirs).map(median),
        );
    }
}

fn live(namespaces: &Namespaces, folder: &Path, options: &Options) {
    // A flow in a hundred ends with each packet.
    let quick = sample_bundle(SampleModel::of_bench(4.6));
    let opened = options.bundles.iter().map(|path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        (name, Bundle::open(path).expect("a bundle"))
    });
    for (name, bundle) in opened.chain([("flows of 100 packets".to_owned(), quick)]) {
        let bundle = Arc::new(bundle);
        let schema = &bundle.manifest().schema;
        let generate = |sink: &mut dyn Sink<Frame>, records| {
            let mut options = GenerateOptions::default();
            options.forever = true;
            let render = PacketRender::new(schema, PacketOptions::default()).expect("packets");
            let generator = Generator::open(Arc::clone(&bundle), options).expect("the graphs");
            let events = generator.stream(render).expect("a stream");
            let limits = Limits { records: Some(records), wall: None };
            let control = Control::default();
            let (driven, result) = drive(events, sink, Pace::TopSpeed, true, limits, &control);
            result.expect("it sends");
            driven
        };
        let rate = |driven: &Driven| driven.sent.records as f64 / driven.wall.as_secs_f64();
        let (mut nowhere, payload) =
            (ns_runtime::sink::NullSink::new(), PacketOptions::default().payload);
        let alone = rate(&generate(&mut nowhere, 500_000));
        let records = (alone * options.seconds) as u64;
        let events = {
            let render = PacketRender::new(schema, PacketOptions::default()).expect("packets");
            let generator = Generator::open(Arc::clone(&bundle), GenerateOptions::default());
            let events = generator.expect("the graphs").stream(render).expect("a stream");
            let fits = |event: &Event<Frame>| event.item.len() <= 1514;
            events.map(|event| event.expect("a packet")).filter(fits).take(FRAMES as usize)
        };
        let file = capture(folder, &events.collect::<Vec<_>>());
        let ours = || namespaces.within(0, || rate(&generate(&mut sink(payload.clone()), records)));
        let loops = (records / FRAMES).max(1);
        let arguments = ["--topspeed".to_owned(), format!("--loop={loops}")];
        let theirs = || tcpreplay(namespaces, &file, &arguments).0;
        row(&format!("from {name}, packets/s"), turns(options.runs, ours, theirs).map(median));
        println!("{:34} {alone:12.0}", "  the model alone makes");
    }
}

/// What a receiver says of packets that should come evenly.
struct Evenness {
    /// How far the mean rate is off, in parts of it.
    rate_error: f64,
    /// After the earliest that a schedule of the exact rate allows, in microseconds.
    median_us: f64,
    p99_us: f64,
    /// How much later the last tenth comes than the first, in the median, in microseconds.
    drift_us: f64,
    /// Processor seconds a second.
    load: f64,
}

fn evenness(arrivals_ns: &[u64], load: f64) -> Evenness {
    let step = 1e9 / RATE as f64;
    let first = arrivals_ns[0];
    let mut late: Vec<f64> = arrivals_ns
        .iter()
        .zip(0..)
        .map(|(at, index)| (*at as i64 - first as i64) as f64 - f64::from(index) * step)
        .collect();
    let tenth = late.len() / 10;
    let drift = median(late[late.len() - tenth..].to_vec()) - median(late[..tenth].to_vec());
    let span = (arrivals_ns[arrivals_ns.len() - 1] - first) as f64;
    let expected = (arrivals_ns.len() - 1) as f64 * step;
    late.sort_by(f64::total_cmp);
    let least = late[0];
    let at = |share: f64| (late[(share * (late.len() - 1) as f64) as usize] - least) / 1e3;
    Evenness {
        rate_error: span / expected - 1.0,
        median_us: at(0.5),
        p99_us: at(0.99),
        drift_us: drift / 1e3,
        load,
    }
}

/// Takes arrivals at the other end while a sender works; returns them, what the sender
/// returned, and the processor seconds that taking them took.
fn received<T>(namespaces: &Namespaces, send: impl FnOnce() -> T) -> (Vec<u64>, T, f64) {
    let socket = namespaces.within(1, receiver);
    namespaces::stamp_arrivals(&socket);
    // The system begins to note times a while after it was asked, from a queue of its own.
    std::thread::sleep(Duration::from_millis(500));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let mut arrivals = Vec::new();
            loop {
                let ending = done.load(Ordering::Relaxed);
                namespaces::take_arrivals(&socket, &mut arrivals);
                if ending {
                    return (arrivals, used(libc::RUSAGE_THREAD));
                }
                // Seldom, so that the sender is not in its way.
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let sent = send();
        done.store(true, Ordering::Relaxed);
        let (arrivals, used) = taker.join().expect("a taker");
        (arrivals, sent, used)
    })
}

fn paced(namespaces: &Namespaces, folder: &Path, options: &Options) {
    let events = frames(&[60]);
    let file = capture(folder, &events);
    let seconds = 5.0 * options.seconds;
    let packets = (seconds * RATE as f64) as u64;
    println!(
        "\n{:34} {:>10} {:>10} {:>10} {:>10} {:>8}",
        format!("{RATE} packets/s, {seconds} s"),
        "rate off",
        "p50 us",
        "p99 us",
        "drift us",
        "load"
    );
    let show = |name: &str, found: Vec<Evenness>| {
        let of = |get: fn(&Evenness) -> f64| median(found.iter().map(get).collect());
        println!(
            "{name:34} {:9.5}% {:10.2} {:10.1} {:10.1} {:8.2}",
            100.0 * of(|found| found.rate_error.abs()),
            of(|found| found.median_us),
            of(|found| found.p99_us),
            of(|found| found.drift_us.abs()),
            of(|found| found.load),
        );
    };
    let theirs = || {
        let arguments =
            [format!("--pps={RATE}"), format!("--limit={packets}"), "--loop=0".to_owned()];
        let (arrivals, (_, used), _) =
            received(namespaces, || tcpreplay(namespaces, &file, &arguments));
        evenness(&arrivals, used / seconds)
    };
    let ours = |pacing| {
        let before = used(libc::RUSAGE_SELF);
        let (arrivals, (), taking) = received(namespaces, || {
            namespaces.within(0, || {
                let mut sink = sink(PacketOptions::default().payload);
                let endless = events.iter().cycle().cloned().map(Ok::<_, io::Error>);
                let timing = Timing { pacing, ..Timing::from(Pace::PacketsPerSecond(RATE as f64)) };
                let limits = Limits { records: Some(packets), wall: None };
                let control = Control::default();
                drive(endless, &mut sink, timing, true, limits, &control).1.expect("it sends");
            });
        });
        evenness(&arrivals, (used(libc::RUSAGE_SELF) - before - taking) / seconds)
    };
    let mut found: [Vec<Evenness>; 4] = Default::default();
    for _ in 0..options.runs {
        for (to, pacing) in found.iter_mut().zip([Pacing::Precise, Pacing::Relaxed, Pacing::Spin]) {
            to.push(ours(pacing));
        }
        found[3].push(theirs());
    }
    let names = ["ns-replay, precise", "ns-replay, relaxed", "ns-replay, spin", "tcpreplay"];
    names.into_iter().zip(found).for_each(|(name, found)| show(name, found));
}

fn main() {
    if Command::new("tcpreplay").arg("-V").output().is_err() {
        println!("skipped: this machine has no `tcpreplay`");
        return;
    }
    let Some(namespaces) = Namespaces::new(1500) else { return };
    let (options, folder) = (options(), tempfile::tempdir().expect("a temporary folder"));
    println!("{:34} {:>12} {:>12} {:>8}", "top speed", "ns-replay", "tcpreplay", "ratio");
    top_speed(&namespaces, folder.path(), &options);
    live(&namespaces, folder.path(), &options);
    paced(&namespaces, folder.path(), &options);
}
