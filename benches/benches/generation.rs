//! Packets a second from a bundle, headers rendered, on one worker: the fixed
//! bench sizes (LSTM 100, attribute generator 512, 10 records a step), random
//! weights, at long and short flows. The time is that of the whole road:
//! attributes, gates, steps, decoding, packets, timeline.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ns_model_format::Bundle;
use ns_runtime::{GenerateOptions, Generator, PacketOptions, PacketRender};
use ns_tests::{SampleModel, sample_bundle};

/// Packets of so many flows.
fn generate(bundle: &Arc<Bundle>, flows: u64) -> u64 {
    let mut options = GenerateOptions::default();
    options.seed = 7;
    options.flows = Some(flows);
    let schema = &bundle.manifest().schema;
    let render = PacketRender::new(schema, PacketOptions::default()).expect("packets");
    let generator = Generator::open(Arc::clone(bundle), options).expect("onnxruntime");
    let mut packets = 0;
    for event in generator.stream(render).expect("a stream") {
        black_box(event.expect("a packet"));
        packets += 1;
    }
    packets
}

fn generation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("generation");
    group.sample_size(10);
    for (name, goes_on_bias, flows) in [("long flows", 9.0, 2_000), ("short flows", 1.0, 10_000)] {
        let model = SampleModel {
            seed: 1,
            sample_len: 10,
            hidden: 100,
            units: 512,
            goes_on_bias,
            self_norm: false,
        };
        let bundle = Arc::new(sample_bundle(model));
        let packets = generate(&bundle, flows);
        let a_flow = packets as f64 / flows as f64;
        group.throughput(Throughput::Elements(packets));
        group.bench_function(format!("{name}, {a_flow:.1} packets a flow"), |bencher| {
            bencher.iter(|| generate(&bundle, flows));
        });
    }
    group.finish();
}

criterion_group!(benches, generation);
criterion_main!(benches);
