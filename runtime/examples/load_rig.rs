//! A load rig of one's own: packets from a bundle, by one's own clock.
//!
//! `cargo run --release -p ns-runtime --example load_rig -- model.ns 5 [libonnxruntime.so]`
//! takes the packets that are due in five seconds and says, for each second, how many they
//! were. Where it counts, a rig would send.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ns_runtime::{Due, FlowRate, GenerateOptions, Generator, PacketOptions, PacketRender};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bundle, seconds, library @ ..] = &arguments[..] else {
        eprintln!("usage: load_rig BUNDLE SECONDS [ONNXRUNTIME]");
        return ExitCode::from(2);
    };
    match replay(Path::new(bundle), seconds, library.first()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn replay(
    bundle: &Path,
    seconds: &str,
    library: Option<&String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut options = GenerateOptions::default();
    options.seed = 1;
    options.duration_ns = Some((1e9 * seconds.parse::<f64>()?) as u64);
    // From none to twice the flows that it was trained on, within two seconds.
    options.flow_rate = FlowRate::ramp(0.0, 2.0, 2_000_000_000);
    options.onnxruntime = library.map(Into::into);
    let generator = Generator::from_path(bundle, options)?;
    let schema = &generator.bundle().manifest().schema;
    let render = PacketRender::new(schema, PacketOptions::default())?;
    let payload = render.payload().clone();
    let mut packets = generator.stream(render)?;

    let mut frame = Vec::new();
    let (mut second, mut sent, mut bytes) = (0, 0, 0);
    let begin = Instant::now();
    loop {
        let now_ns = begin.elapsed().as_nanos() as u64;
        if now_ns / 1_000_000_000 > second {
            second = now_ns / 1_000_000_000;
            println!("{second} s: {sent} packets, {bytes} bytes");
            (sent, bytes) = (0, 0);
        }
        match packets.next_due(now_ns)? {
            Due::Now(packet) => {
                frame.clear();
                packet.item.append_to(&payload, usize::MAX, &mut frame);
                (sent, bytes) = (sent + 1, bytes + frame.len());
            }
            // Whatever else the rig has to do has room here.
            Due::At(time_ns) => {
                std::thread::sleep(
                    Duration::from_nanos(time_ns - now_ns).min(Duration::from_secs(1)),
                );
            }
            Due::Never => break,
        }
    }
    println!("then: {sent} packets, {bytes} bytes");
    Ok(())
}
