//! The runtime as a program that embeds it sees it. One test: it counts the process's threads.

use std::path::Path;

use ns_runtime::{
    Due, GenerateOptions, Generator, PacketOptions, PacketRender, RuntimeError, Stream,
};
use ns_tests::{SampleModel, sample_bundle};

/// The names of the process's threads.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    let mut names: Vec<String> = tasks.filter_map(|task| name(task.ok()?).ok()).collect();
    names.sort();
    names
}

fn options() -> GenerateOptions {
    let mut options = GenerateOptions::default();
    options.flows = Some(200);
    options.max_flow_records = 100;
    options
}

fn packets(generator: Generator) -> Stream<ns_runtime::Frame> {
    let schema = &generator.bundle().manifest().schema;
    let render = PacketRender::new(schema, PacketOptions::default()).expect("packets");
    generator.stream(render).expect("a stream")
}

#[test]
fn a_load_rig_takes_what_is_due_by_its_own_clock() {
    fn is_send<T: Send>(_: &T) {}
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.ns");
    let bytes = sample_bundle(SampleModel::default()).to_bytes().expect("a bundle");
    std::fs::write(&path, &bytes).expect("written");

    // The path that is named is the one that is used: before anything is loaded.
    let mut missing = options();
    missing.onnxruntime = Some("/nowhere/libonnxruntime.so".into());
    match Generator::from_bytes(&bytes, missing) {
        Err(RuntimeError::OnnxRuntimeMissing { tried }) => {
            assert_eq!(tried, [Path::new("/nowhere/libonnxruntime.so")]);
        }
        other => panic!("{other:?}"),
    }

    // The library has a thread of its own, once a process.
    ns_runtime::engine::load_library(None).expect("ONNX Runtime");
    let before = threads();
    let generator = Generator::from_bytes(&bytes, options()).expect("opened");
    is_send(&generator);
    let all: Vec<_> = packets(generator).map(|packet| packet.expect("a packet")).collect();
    assert!(all.len() > 200);

    let mut stream = packets(Generator::from_path(&path, options()).expect("opened"));
    is_send(&stream);
    let (mut seen, mut now_ns, mut waits) = (0, 0, 0);
    let mut waited_for = None;
    loop {
        match stream.next_due(now_ns).expect("it goes on") {
            Due::Now(packet) => {
                assert!(packet.time_ns <= now_ns);
                assert!(packet == all[seen], "packet {seen}");
                // Who waits for a time finds a packet of that time.
                assert_eq!(waited_for.take().unwrap_or(packet.time_ns), packet.time_ns);
                seen += 1;
            }
            Due::At(time_ns) => {
                assert!(time_ns > now_ns && time_ns == all[seen].time_ns);
                assert_eq!(stream.next_due(now_ns).expect("nothing new"), Due::At(time_ns));
                waits += 1;
                // A clock that ticks in hundredths of a second, and once a while exactly.
                now_ns = if waits % 10 == 0 { time_ns } else { time_ns + 10_000_000 };
                waited_for = (waits % 10 == 0).then_some(time_ns);
            }
            Due::Never => break,
        }
    }
    assert_eq!(seen, all.len());
    assert_eq!(stream.next_due(u64::MAX).expect("still nothing"), Due::Never);
    // Nobody has asked for threads.
    assert_eq!(threads(), before);
    let mut two = options();
    two.threads = 2;
    let mut stream = packets(Generator::from_path(&path, two).expect("opened"));
    assert!(matches!(stream.next_due(0), Ok(Due::Now(_))));
    drop(stream);
    // The kernel lists a thread a moment longer than it takes to join it.
    for _ in 0..10_000 {
        if threads() == before {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(threads(), before);
}
