//! Packets a second from a bundle, headers rendered, on one worker, for both model classes.
//! The time is that of the whole road: attributes, gates, steps, decoding, packets, timeline.
//!
//! * DoppelGANger: the fixed bench sizes (LSTM 100, attribute generator 512, 10 records a
//!   step), random weights, at 100 packets a flow and at about 9, as a backbone's have.
//! * Autoregressive: a model of the capture that is shipped, with default widths, trained
//!   for two passes first.
//!
//! Beside the rate a table of where the time goes: nanoseconds a packet and share, stage by
//! stage, what writing a PCAP adds, how much faster two workers are than one, and what two runs
//! at once that share nothing gain on this machine. Where
//! `./run bench --python PATH generation` names a Python with torch and ../shared is there, the
//! same LSTM in PyTorch runs in the same run, stepped with one head an output, as NetShare does,
//! and with all heads in one.

use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ns_model_format::Bundle;
use ns_runtime::sink::{FileSink, PcapFormat, PcapSink, Sink, Target};
use ns_runtime::{Event, Frame, GenerateOptions, Generator, PacketOptions, PacketRender, stages};
use ns_tests::{SampleModel, lab_capture, sample_bundle};
use ns_trainer::ingest::Reading;

/// Runs of each that are compared.
const TURNS: usize = 5;

/// So many flows of a bundle.
struct Case {
    bundle: Arc<Bundle>,
    flows: u64,
    /// Packets that a flow has at most.
    longest: u32,
    threads: usize,
}

fn stream(case: &Case) -> impl Iterator<Item = Event<Frame>> {
    let mut options = GenerateOptions::default();
    options.seed = 7;
    options.flows = Some(case.flows);
    options.max_flow_records = case.longest;
    options.threads = case.threads;
    let schema = &case.bundle.manifest().schema;
    let render = PacketRender::new(schema, PacketOptions::default()).expect("packets");
    let generator = Generator::open(Arc::clone(&case.bundle), options).expect("the graphs");
    generator.stream(render).expect("a stream").map(|event| event.expect("a packet"))
}

/// How many packets it makes.
fn generate(case: &Case) -> u64 {
    stream(case).map(|event| _ = black_box(event)).count() as u64
}

/// Prints where the time goes; returns packets a second of the whole road.
fn table(case: &Case) -> f64 {
    let events = stream(case);
    let (packets, spent) = stages::measure(|| events.map(|event| _ = black_box(event)).count());
    let all: Duration = spent.iter().map(|(_, time)| *time).sum();
    let row = |name: &str, time: Duration| {
        let share = 100.0 * time.as_secs_f64() / all.as_secs_f64();
        let ns = time.as_secs_f64() * 1e9 / packets as f64;
        println!("  {name:16} {ns:8.0} ns a packet {share:5.1}%");
    };
    spent.iter().filter(|(_, time)| !time.is_zero()).for_each(|(stage, time)| {
        row(&format!("{stage:?}"), *time);
    });
    row("all", all);
    let of_step = spent.iter().find(|(stage, _)| *stage == stages::Stage::Step);
    if let Some((_, step)) = of_step.filter(|(_, step)| !step.is_zero()) {
        println!("  steps alone: {:.1} M packets/s", packets as f64 / step.as_secs_f64() / 1e6);
    }
    row("writing a PCAP", write(case));
    packets as f64 / all.as_secs_f64()
}

/// Prints how much faster two workers are than one, and how much more two runs at once do that
/// share nothing, which is what the machine gives: medians of runs in turn.
fn two_workers(case: &mut Case) {
    let mut seconds = [const { Vec::new() }; 3];
    for turn in 0..3 * TURNS {
        let kind = turn % 3;
        case.threads = if kind == 1 { 2 } else { 1 };
        let begin = Instant::now();
        std::thread::scope(|scope| {
            if kind == 2 {
                scope.spawn(|| generate(case));
            }
            generate(case);
        });
        seconds[kind].push(begin.elapsed().as_secs_f64());
    }
    case.threads = 1;
    let [one, two, both] = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[TURNS / 2]
    });
    let (workers, runs) = (one / two, 2.0 * one / both);
    println!("  two workers: {workers:.2}x one; two runs at once: {runs:.2}x");
}

/// Prints how much faster than PyTorch's LSTM alone the whole road is. That counts every place of
/// a step as a packet, as in flows of many packets they are.
fn beside_pytorch(ours: f64) {
    let Some(python) = std::env::var_os("NS_BENCH_PYTHON") else {
        return println!("no PyTorch to compare with: ./run bench --python PATH generation");
    };
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("../../shared/peers/torch_generate.py");
    let Some(text) = ns_benches::printed(Command::new(python).arg(script)) else { return };
    for (heads, what) in [("many", "one head an output"), ("one", "all heads in one")] {
        let lines = text.lines().filter(|line| line.contains(&format!("heads={heads} ")));
        let rates = lines.filter_map(|line| {
            let (_, rest) = line.split_once("B=")?;
            let rate = line.strip_suffix(" cpu")?.rsplit(' ').next()?;
            Some((rest.trim_start().split(' ').next()?.parse().ok()?, rate.parse::<f64>().ok()?))
        });
        let rates: Vec<(u32, f64)> = rates.collect();
        for (batch, rate) in rates {
            let ratio = ours / (rate * 1e6);
            println!(
                "  PyTorch, {what}, batch {batch}: {rate:.3} M packets/s of CPU time; ours {ratio:.1}x"
            );
        }
    }
}

/// How long a PCAP of the packets takes to write.
fn write(case: &Case) -> Duration {
    let events: Vec<Event<Frame>> = stream(case).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let format = PcapFormat {
        payload: PacketOptions::default().payload,
        snaplen: ns_runtime::sink::DEFAULT_SNAPLEN,
        origin_ns: 0,
        nanoseconds: false,
    };
    let target = Target::File(folder.path().join("out.pcap"));
    let mut sink: PcapSink = FileSink::begin::<Frame>(&target, format).expect("a file");
    let begin = Instant::now();
    events.chunks(256).for_each(|batch| sink.write(batch).expect("room"));
    sink.finish().expect("room");
    begin.elapsed()
}

/// A model of the capture that is shipped.
fn trained() -> Bundle {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let generator = ns_trainer::Generator::from_inputs([lab_capture()], Reading::default());
    let generator = generator.expect("a capture").epochs(2).threads(1);
    generator.train(folder.path().join("work")).expect("it trains").bundle
}

fn generation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("generation");
    group.sample_size(10);
    let sample = |goes_on_bias| sample_bundle(SampleModel::of_bench(goes_on_bias));
    let cases = [
        ("doppelganger, long flows", sample(9.0), 60_000, 100),
        ("doppelganger, short flows", sample(2.05), 100_000, u32::MAX),
        ("autoregressive", trained(), 20_000, u32::MAX),
    ];
    for (name, bundle, flows, longest) in cases {
        let mut case = Case { bundle: Arc::new(bundle), flows, longest, threads: 1 };
        let packets = generate(&case);
        let name = format!("{name}, {:.1} packets a flow", packets as f64 / flows as f64);
        println!("{name}:");
        let rate = table(&case);
        two_workers(&mut case);
        if name.contains("long flows") {
            beside_pytorch(rate);
        }
        group.throughput(Throughput::Elements(packets));
        group.bench_function(name, |bencher| bencher.iter(|| generate(&case)));
    }
    group.finish();
}

criterion_group!(benches, generation);
criterion_main!(benches);
