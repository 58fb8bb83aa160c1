//! Distances of groups 1 to 4 between two captures, with their floor and the
//! Markov baseline: fitting it, and a split. Packets a flow are those of the
//! shipped capture.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ns_tests::lab_capture;
use ns_trainer::evaluate::{Comparison, Options, packet_fields};
use ns_trainer::fit;
use ns_trainer::ingest::Reading;

fn distances(criterion: &mut Criterion) {
    let fields = packet_fields().expect("the fields of packets");
    let trace = fit::read(&[lab_capture()], &fields, Reading::default()).expect("the capture");
    let packets = trace.times_ns.len() as u64;
    let mut group = criterion.benchmark_group("evaluate");
    group.sample_size(10).throughput(Throughput::Elements(packets));
    let mut options = Options::default();
    options.splits = 1;
    let compare =
        || Comparison::new(&trace, &trace, None, &fields, options).expect("flows enough to halve");
    group.bench_function("tables and baseline", |b| b.iter(|| black_box(compare())));
    let comparison = compare();
    group.bench_function("a split", |b| b.iter(|| black_box(comparison.metrics(|_| {}))));
    group.finish();
}

criterion_group!(benches, distances);
criterion_main!(benches);
