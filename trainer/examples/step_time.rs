//! Time of a training iteration on the sizes of NetShare's pcap example, as
//! the PyTorch peer measures it: 159 attribute and 11 measurement values,
//! 10 records a step, batch 100.
//!
//! usage: step_time [RECORDS] [THREADS] [ITERATIONS]

use candle_core::Device;
use ns_model_format::layout::{Activation, Layout, Segment};
use ns_model_format::random::{Purpose, Stream};
use ns_trainer::model::DoppelgangerConfig;
use ns_trainer::train::{Samples, Trainer, set_threads};
use std::time::Instant;

const FLOWS: usize = 200;

fn samples(records: usize) -> Samples {
    let mut attributes = vec![Segment::new(2, Activation::Softmax); 64];
    attributes.push(Segment::new(31, Activation::Sigmoid));
    let measurements = vec![
        Segment::new(4, Activation::Sigmoid),
        Segment::new(3, Activation::Softmax),
        Segment::new(2, Activation::Sigmoid),
        Segment::new(2, Activation::Softmax),
    ];
    let mut stream = Stream::new(1, Purpose::Training, 0);
    let mut draw = |count: usize| (0..count).map(|_| stream.uniform()).collect::<Vec<f32>>();
    Samples {
        attribute_layout: Layout { segments: attributes },
        measurement_layout: Layout { segments: measurements },
        condition_dim: 0,
        attributes: draw(FLOWS * 159),
        conditions: Vec::new(),
        records: draw(FLOWS * records * 11),
        offsets: (0..=FLOWS).map(|flow| flow * records).collect(),
    }
}

/// User and system time of this process, in milliseconds.
fn cpu_ms() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Fields 14 and 15, counted behind the name, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) * 10.0)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let mut argument = |default| arguments.next().unwrap_or(Ok(default));
    let (records, threads, iterations) = (argument(100)?, argument(1)?, argument(10)?.max(1));
    set_threads(threads);
    let config = DoppelgangerConfig::default();
    let mut trainer = Trainer::new(samples(records), config, 1, &Device::Cpu)?;
    for _ in 0..3 {
        trainer.iteration()?;
    }
    let mut times = Vec::with_capacity(iterations);
    let before = cpu_ms();
    let mut losses = None;
    for _ in 0..iterations {
        let begin = Instant::now();
        losses = Some(trainer.iteration()?);
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let cpu = before.zip(cpu_ms()).map_or(f64::NAN, |(before, after)| after - before);
    times.sort_by(f64::total_cmp);
    println!(
        "records={records} threads={threads}: min {:.1} median {:.1} ms/iteration, cpu {:.1} ms, \
         {losses:?}",
        times[0],
        times[iterations / 2],
        cpu / iterations as f64,
    );
    Ok(())
}
