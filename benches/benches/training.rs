//! One training iteration at the sizes of NetShare's pcap example (159
//! attribute and 11 measurement values, sample_len 10, LSTM 100, MLPs 5 x 512,
//! batch 100, 5 critic rounds), at 10 and 100 LSTM steps, one thread; a condition
//! of one value comes on top. Where `./run bench --python PATH training` names a
//! Python with torch and ../shared is there, the same iteration as a plain
//! PyTorch loop runs in turn with ours, and the ratio of CPU times is printed.
//! A build with the feature `cuda`, where there is a GPU, does the same there
//! first, by the clock on the wall, at batches from 100 to what fills the card.

use std::ffi::OsStr;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use candle_core::Device;
use criterion::{Criterion, criterion_group, criterion_main};
use ns_model_format::random::{Purpose, Stream};
use ns_model_format::{Activation, Layout, Segment};
use ns_trainer::device::Choice;
use ns_trainer::model::config::DoppelgangerConfig;
use ns_trainer::train::{Samples, Trainer, set_threads};

const SAMPLES: usize = 1000;

/// NetShare's batch, in samples.
const BATCH: usize = 100;

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

fn trainer(samples: Samples, batch_size: usize, device: &Device) -> Trainer {
    let config = DoppelgangerConfig { sample_len: 10, batch_size, ..DoppelgangerConfig::default() };
    Trainer::new(samples, config, 1, device).expect("samples that fit")
}

fn training(criterion: &mut Criterion) {
    match Choice::Cuda(0).open() {
        Ok(device) => [100, 1000].iter().for_each(|&records| on_gpu(&device, records)),
        Err(reason) => println!("not on a GPU: {reason:#}"),
    }
    let mut group = criterion.benchmark_group("training iteration");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for records in [100, 1000] {
        set_threads(1);
        let samples = samples(records);
        let data = samples.bytes();
        let mut trainer = trainer(samples, BATCH, &Device::Cpu);
        group.bench_function(format!("{} LSTM steps", records / 10), |bencher| {
            bencher.iter(|| black_box(trainer.iteration().expect("finite losses")));
        });
        report(&mut trainer, records, data);
    }
    group.finish();
}

/// Prints what an iteration takes on a GPU, batch by batch, beside PyTorch's.
fn on_gpu(device: &Device, records: usize) {
    let steps = records / 10;
    for batch in [BATCH, 10 * BATCH, 100 * BATCH] {
        let mut trainer = trainer(samples(records), batch, device);
        let iterations = (20 * BATCH / batch).max(3);
        // The first ones compile kernels and choose products.
        measure(&mut trainer, 3);
        let python = std::env::var_os("NS_BENCH_PYTHON");
        let (mut ours, mut foreach, mut fused) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(measure(&mut trainer, iterations).wall_ms);
            if let Some(python) = &python {
                let peer = |mode| peer(python, mode, "cuda", (records, batch), iterations);
                foreach.extend(peer("foreach").map(|times| times.wall_ms));
                fused.extend(peer("fused").map(|times| times.wall_ms));
            }
        }
        let (ours, foreach, fused) = (median(ours), median(foreach), median(fused));
        print!(
            "{steps} LSTM steps on the GPU, batch {batch}: {ours:.2} ms an iteration, {:.0} samples/ms",
            batch as f64 / ours
        );
        match foreach.min(fused) {
            theirs if theirs.is_finite() => println!(
                "; PyTorch {foreach:.2} ms foreach, {fused:.2} ms fused: {:.2}x as fast as the faster",
                theirs / ours
            ),
            _ => println!(),
        }
    }
}

/// Times of one iteration.
#[derive(Clone, Copy)]
struct Times {
    cpu_ms: f64,
    wall_ms: f64,
}

/// Rounds of everything that is compared, one after another, so that what
/// else the machine does meets all alike.
const ROUNDS: usize = 3;

/// Prints what criterion does not: CPU time beside PyTorch's, what a second
/// thread brings, and memory.
fn report(trainer: &mut Trainer, records: usize, data: usize) {
    let iterations = if records > 100 { 5 } else { 15 };
    let python = std::env::var_os("NS_BENCH_PYTHON");
    let (mut ours, mut foreach, mut fused) = (Vec::new(), Vec::new(), Vec::new());
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        ours.push(measure(trainer, iterations).cpu_ms);
        if let Some(python) = &python {
            let peer = |mode| peer(python, mode, "cpu", (records, BATCH), iterations);
            foreach.extend(peer("foreach").map(|times| times.cpu_ms));
            fused.extend(peer("fused").map(|times| times.cpu_ms));
        }
        // One at a time in turn: a second core that comes and goes is no news.
        for _ in 0..iterations {
            set_threads(1);
            let one = measure(trainer, 1);
            set_threads(2);
            pairs.push((one, measure(trainer, 1)));
        }
        set_threads(1);
    }
    let steps = records / 10;
    let ours = median(ours);
    println!("{steps} LSTM steps, one thread: {ours:.1} ms of CPU time an iteration");
    let peers = [("foreach", median(foreach)), ("fused", median(fused))];
    match peers.into_iter().filter(|(_, ms)| ms.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1)) {
        Some((faster, theirs)) => println!(
            "{steps} LSTM steps, PyTorch: {:.1} ms foreach, {:.1} ms fused; ratio to {faster} {:.2}",
            peers[0].1,
            peers[1].1,
            ours / theirs
        ),
        None if python.is_some() => println!("PyTorch did not run"),
        None => println!("no PyTorch to compare with: ./run bench --python PATH training"),
    }
    // Pairs in which both cores were there tell what two threads bring.
    let cores = |times: &Times| times.cpu_ms / times.wall_ms;
    pairs.sort_by(|(_, a), (_, b)| cores(b).total_cmp(&cores(a)));
    pairs.truncate(pairs.len() / 3);
    println!(
        "{steps} LSTM steps, two threads: {:.2}x as fast as one (CPU/wall {:.2}) in the third of iterations with the most \
         of two cores",
        median(pairs.iter().map(|(one, two)| one.cpu_ms / two.wall_ms).collect()),
        median(pairs.iter().map(|(_, two)| cores(two)).collect()),
    );
    let resident = resident_bytes().saturating_sub(data) >> 20;
    println!("{steps} LSTM steps, resident: {resident} MiB beside {} MiB of data", data >> 20);
}

/// NaN of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Means over a few iterations.
fn measure(trainer: &mut Trainer, iterations: usize) -> Times {
    let (cpu, wall) = (cpu_ms(), Instant::now());
    for _ in 0..iterations {
        black_box(trainer.iteration().expect("finite losses"));
    }
    let each = |total: f64| total / iterations as f64;
    Times { wall_ms: each(wall.elapsed().as_secs_f64() * 1e3), cpu_ms: each(cpu_ms() - cpu) }
}

/// CPU time of all threads that live.
fn cpu_ms() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
    threads
        .filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<f64>().ok()
        })
        .sum::<f64>()
        / 1e6
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kib.expect("a size in kB") * 1024
}

/// PyTorch's iteration.
fn peer(
    python: &OsStr,
    mode: &str,
    device: &str,
    (records, batch): (usize, usize),
    iterations: usize,
) -> Option<Times> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/peers/torch_train.py");
    // The batch is a constant of the script.
    let program = std::fs::read_to_string(&path).ok()?;
    let program = program.replacen(&format!("B={BATCH};"), &format!("B={batch};"), 1);
    let arguments = ["--mode", mode, "--threads", "1", "--device", device];
    let mut command = Command::new(python);
    command.args(["-c", &program]).args(arguments);
    command.args(["--iters", &iterations.to_string(), "--len", &records.to_string()]);
    let text = ns_benches::printed(&mut command)?;
    let number = |name: &str| {
        let mut words = text.split_whitespace().skip_while(|word| *word != name).skip(1);
        words.next()?.parse().ok()
    };
    Some(Times { wall_ms: number("median")?, cpu_ms: number("cpu")? })
}

criterion_group!(benches, training);
criterion_main!(benches);
