//! The means of generation, `--threads`, `--slots`, `--queue-cap` and `--device`: what they may
//! change, and what not.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock};

use ns_model_format::Bundle;
use ns_runtime::{Device, GenerateOptions, Generator, RuntimeError};
use ns_tests::{SampleModel, expect, lab_capture, program, repository, sample_bundle};

/// A bundle of each model class; what they have learned does not matter.
static BUNDLES: LazyLock<(tempfile::TempDir, [PathBuf; 2])> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let bundles = ["doppelganger.ns", "autoregressive.ns"].map(|name| folder.path().join(name));
    sample_bundle(SampleModel::default()).write(&bundles[0]).expect("written");
    let capture = lab_capture();
    let of = ["--model", "autoregressive", "--input", capture.to_str().expect("a plain path")];
    let train = ["--epochs", "2", "--seed", "1", "-q", "--out", "autoregressive.ns"];
    expect(0, folder.path(), "ns-train", &[&["train"], &of[..], &train].concat());
    (folder, bundles)
});

fn replay(bundle: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("ns-replay"));
    command.arg("--bundle").arg(bundle).args(["--seed", "1"]).args(arguments);
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// What goes to standard output.
fn made(bundle: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = replay(bundle, arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    output.stdout
}

/// A build of ONNX Runtime without CUDA: the one that `./run setup` fetches.
fn without_cuda() -> PathBuf {
    repository().join("target/onnxruntime/libonnxruntime.so")
}

#[test]
fn without_cuda_a_gpu_is_an_error_that_says_what_to_do() {
    let (folder, library) = (tempfile::tempdir().expect("a folder"), without_cuda());
    for bundle in &BUNDLES.1 {
        let out = folder.path().join("out.pcap");
        let [library_text, out_text] = [&library, &out].map(|path| path.to_str().expect("text"));
        let means = ["--onnxruntime", library_text, "--device", "cuda:0"];
        let output = replay(bundle, &[&means[..], &["--pcap", out_text]].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let expected = format!(
            "error: cannot run on `cuda:0` with ONNX Runtime `{library_text}`: this build has no \
             CUDA provider\nhint: `--device cpu` needs no GPU; for CUDA `pip install \
             onnxruntime-gpu`, "
        );
        assert!(stderr.starts_with(&expected), "{stderr}");
        for what in ["ORT_DYLIB_PATH", "libonnxruntime_providers_cuda.so", "cuDNN"] {
            assert!(stderr.contains(what), "{stderr}");
        }
        assert!(!out.exists());

        let mut options = GenerateOptions::default();
        (options.onnxruntime, options.device) = (Some(library.clone()), Device::Cuda(1));
        match Generator::open(Arc::new(Bundle::open(bundle).expect("a bundle")), options) {
            Err(RuntimeError::Device { device: Device::Cuda(1), library: of, .. }) => {
                assert_eq!(of, library);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn auto_is_the_cpu() {
    for bundle in &BUNDLES.1 {
        let some = ["--pcap", "-", "--flows", "20"];
        let expected = made(bundle, &some);
        assert!(expected.len() > 1_000, "{}", expected.len());
        for device in ["auto", "cpu"] {
            assert!(made(bundle, &[&some[..], &["--device", device]].concat()) == expected);
        }
    }
}

#[test]
fn threads_slots_and_the_cap_are_not_in_the_output() {
    for bundle in &BUNDLES.1 {
        let some = ["--pcap", "-", "--flows", "400", "--snaplen", "65535"];
        let with = |means: &[&str]| made(bundle, &[&some[..], means].concat());
        let expected = with(&[]);
        assert!(expected.len() > 100_000, "{}", expected.len());
        for threads in ["1", "2"] {
            for slots in ["16", "64", "256"] {
                let means = ["--threads", threads, "--slots", slots];
                assert!(with(&means) == expected, "{}: {means:?}", bundle.display());
                for cap in ["1", "2", "300"] {
                    let means = [&means[..], &["--queue-cap", cap]].concat();
                    assert!(with(&means) == expected, "{}: {means:?}", bundle.display());
                }
            }
        }
    }
}

#[test]
fn a_queue_for_nothing_is_wrong_usage() {
    let output = replay(Path::new("none.ns"), &["--null", "--queue-cap", "0"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("'0'") && stderr.contains("1..=268435456"), "{stderr}");
}

#[test]
fn a_device_that_is_none_is_wrong_usage() {
    let output = replay(Path::new("none.ns"), &["--null", "--device", "gpu"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("'gpu'") && stderr.contains("`auto`, `cpu` or `cuda:N`"), "{stderr}");
}

/// With the library that `ORT_DYLIB_PATH` names, if it has CUDA and there is a GPU.
#[test]
fn with_a_gpu_flows_are_as_on_the_cpu() {
    for bundle in &BUNDLES.1 {
        let rows =
            |device: &str| replay(bundle, &["--csv", "-", "--flows", "300", "--device", device]);
        let found = rows("cuda:0");
        if !found.status.success() {
            let stderr = text(&found.stderr);
            assert!(stderr.starts_with("error: cannot run on `cuda:0`"), "{stderr}");
            return println!("skipped, no GPU: {stderr}");
        }
        // Sums are rounded otherwise, so a draw near a limit may come out on its other side,
        // and its flow go another way from there. Most do not.
        let mut rest: HashMap<&str, usize> = HashMap::new();
        text(&found.stdout).lines().for_each(|row| *rest.entry(row).or_default() += 1);
        let expected = rows("cpu").stdout;
        let (mut same, mut all) = (0, 0);
        for row in text(&expected).lines() {
            all += 1;
            if let Some(left) = rest.get_mut(row).filter(|left| **left > 0) {
                *left -= 1;
                same += 1;
            }
        }
        println!("{}: {same} of {all} rows are the same", bundle.display());
        assert!(all > 300 && 2 * same > all, "{same} of {all} rows are the same");
    }
}
