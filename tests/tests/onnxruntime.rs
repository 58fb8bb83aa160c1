//! No usable ONNX Runtime: errors that say what to do. A file of its own, since
//! a process loads one library at most and no test here may load any.

use std::path::Path;
use std::sync::Arc;

use ns_runtime::{GenerateOptions, Generator, RuntimeError};
use ns_tests::{SampleModel, sample_bundle};

fn open(library: &Path) -> RuntimeError {
    let mut options = GenerateOptions::default();
    options.onnxruntime = Some(library.to_owned());
    let bundle = Arc::new(sample_bundle(SampleModel::default()));
    Generator::open(bundle, options).expect_err("no library there")
}

#[test]
fn a_missing_library_is_an_error_with_the_fix() {
    let error = open(Path::new("/nowhere/libonnxruntime.so"));
    assert_eq!(
        error.to_string(),
        "ONNX Runtime was not found (tried `/nowhere/libonnxruntime.so`)"
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("--onnxruntime PATH")));
}

#[test]
fn a_file_that_is_no_library_is_an_error() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), b"not a library").expect("written");
    let error = open(file.path()).to_string();
    assert!(error.starts_with("cannot use `/") && error.contains("` as ONNX Runtime: "), "{error}");
}

#[test]
fn another_library_is_an_error() {
    // Some library that every Linux system has, and that is not ONNX Runtime.
    let found = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/libm.so.6", "/usr/lib/libm.so.6"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.is_file());
    let Some(library) = found else {
        println!("skipped: no libm.so.6 to try");
        return;
    };
    let error = open(library).to_string();
    assert!(error.ends_with("does not export `OrtGetApiBase`"), "{error}");
}
