//! Packets a second from a bundle, headers rendered, on one worker, for both model classes.
//! The time is that of the whole road: attributes, gates, steps, decoding, packets, timeline.
//!
//! * DoppelGANger: the fixed bench sizes (LSTM 100, attribute generator 512, 10 records a
//!   step), random weights, at long and short flows.
//! * Autoregressive: a model of the capture that is shipped, with default widths, trained
//!   for two passes first.
//!
//! Beside the rate a table of where the time goes: nanoseconds a packet and share, stage by
//! stage, and what writing a PCAP adds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ns_model_format::Bundle;
use ns_runtime::sink::{FileSink, PcapFormat, PcapSink, Sink, Target};
use ns_runtime::{Event, Frame, GenerateOptions, Generator, PacketOptions, PacketRender, stages};
use ns_tests::{SampleModel, lab_capture, sample_bundle};
use ns_trainer::ingest::Reading;

fn stream(bundle: &Arc<Bundle>, flows: u64) -> impl Iterator<Item = Event<Frame>> {
    let mut options = GenerateOptions::default();
    options.seed = 7;
    options.flows = Some(flows);
    let schema = &bundle.manifest().schema;
    let render = PacketRender::new(schema, PacketOptions::default()).expect("packets");
    let generator = Generator::open(Arc::clone(bundle), options).expect("the graphs");
    generator.stream(render).expect("a stream").map(|event| event.expect("a packet"))
}

/// Packets of so many flows.
fn generate(bundle: &Arc<Bundle>, flows: u64) -> u64 {
    stream(bundle, flows).map(|event| _ = black_box(event)).count() as u64
}

/// Prints where the time goes.
fn table(bundle: &Arc<Bundle>, flows: u64) {
    let events = stream(bundle, flows);
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
    row("writing a PCAP", write(bundle, flows));
}

/// How long a PCAP of the packets takes to write.
fn write(bundle: &Arc<Bundle>, flows: u64) -> Duration {
    let events: Vec<Event<Frame>> = stream(bundle, flows).collect();
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
    let sample = |goes_on_bias| {
        sample_bundle(SampleModel {
            seed: 1,
            sample_len: 10,
            hidden: 100,
            units: 512,
            goes_on_bias,
            self_norm: false,
        })
    };
    let cases = [
        ("doppelganger, long flows", sample(9.0), 2_000),
        ("doppelganger, short flows", sample(1.0), 10_000),
        ("autoregressive", trained(), 20_000),
    ];
    for (name, bundle, flows) in cases {
        let bundle = Arc::new(bundle);
        let packets = generate(&bundle, flows);
        let name = format!("{name}, {:.1} packets a flow", packets as f64 / flows as f64);
        println!("{name}:");
        table(&bundle, flows);
        group.throughput(Throughput::Elements(packets));
        group.bench_function(name, |bencher| bencher.iter(|| generate(&bundle, flows)));
    }
    group.finish();
}

criterion_group!(benches, generation);
criterion_main!(benches);
