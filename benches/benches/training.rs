//! One training iteration at the sizes of NetShare's pcap example (159
//! attribute and 11 measurement values, sample_len 10, LSTM 100, MLPs 5 x 512,
//! batch 100, 5 critic rounds), at 10 and 100 LSTM steps, one thread. Where
//! `./run bench --python PATH training` names a Python with torch and
//! ../shared is there, the same iteration as a plain PyTorch loop runs beside
//! it, and the ratio is printed.

use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use candle_core::Device;
use criterion::{Criterion, criterion_group, criterion_main};
use ns_model_format::random::{Purpose, Stream};
use ns_model_format::{Activation, Layout, Segment};
use ns_trainer::model::config::DoppelgangerConfig;
use ns_trainer::train::{Samples, Trainer, set_threads};

const SAMPLES: usize = 1000;

/// Random samples of `records` records each.
fn samples(records: usize) -> Samples {
    let pairs = |count| vec![Segment::new(2, Activation::Softmax); count];
    let singles = |count| vec![Segment::new(1, Activation::Sigmoid); count];
    let attribute_layout = Layout { segments: [pairs(64), singles(31)].concat() };
    let flag_and_choice = [singles(4), vec![Segment::new(3, Activation::Softmax)], singles(2)];
    let measurement_layout = Layout { segments: [flag_and_choice.concat(), pairs(1)].concat() };
    let mut random = Stream::new(1, Purpose::Training, 0);
    let (attribute_dim, record_dim) = (attribute_layout.dim(), measurement_layout.dim());
    let mut uniforms =
        |count: usize| -> Vec<f32> { (0..count).map(|_| random.uniform()).collect() };
    let mut samples = Samples::new(attribute_layout, measurement_layout, 1, 0);
    for _ in 0..SAMPLES {
        let (attributes, condition) = (uniforms(attribute_dim), uniforms(1));
        let mut encoded = uniforms(records * record_dim);
        for (index, record) in encoded.chunks_mut(record_dim).enumerate() {
            let more = index + 1 < records;
            record[record_dim - 2..].copy_from_slice(if more { &[0.0, 1.0] } else { &[1.0, 0.0] });
        }
        samples.push(&attributes, &condition, &encoded).expect("values of the layouts");
    }
    samples
}

fn training(criterion: &mut Criterion) {
    set_threads(1);
    let mut group = criterion.benchmark_group("training iteration");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for records in [100, 1000] {
        let config = DoppelgangerConfig { sample_len: 10, ..DoppelgangerConfig::default() };
        let trainer = Trainer::new(samples(records), config, 1, &Device::Cpu);
        let mut trainer = trainer.expect("samples that fit");
        group.bench_function(format!("{} LSTM steps", records / 10), |bencher| {
            bencher.iter(|| black_box(trainer.iteration().expect("finite losses")));
        });
        compare(&mut trainer, records);
    }
    group.finish();
}

/// Prints our median and PyTorch's, measured one after the other.
fn compare(trainer: &mut Trainer, records: usize) {
    let Some(python) = std::env::var_os("NS_BENCH_PYTHON") else {
        println!("no PyTorch to compare with: ./run bench --python PATH training");
        return;
    };
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("../../shared/peers/torch_train.py");
    let output = Command::new(python)
        .arg(script)
        .args(["--mode", "fused", "--threads", "1", "--iters", "10", "--len", &records.to_string()])
        .output();
    let text = match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        other => {
            println!("PyTorch did not run: {other:?}");
            return;
        }
    };
    let mut times: Vec<f64> = (0..11)
        .map(|_| {
            let begin = Instant::now();
            black_box(trainer.iteration().expect("finite losses"));
            begin.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let ours = times[times.len() / 2];
    let mut words = text.split_whitespace().skip_while(|word| *word != "median").skip(1);
    let Some(theirs) = words.next().and_then(|word| word.parse::<f64>().ok()) else {
        println!("PyTorch printed no median: {text}");
        return;
    };
    println!(
        "{} LSTM steps: {ours:.1} ms, PyTorch {theirs:.1} ms, ratio {:.2}",
        records / 10,
        ours / theirs
    );
}

criterion_group!(benches, training);
criterion_main!(benches);
