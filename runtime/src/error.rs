//! Why generation cannot begin or go on.

use std::path::PathBuf;

use crate::device::Device;

/// An error of the generation side: the library, the graphs, the workers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// No ONNX Runtime library in any of the places where one is looked for.
    #[error("ONNX Runtime was not found (tried {})", list(tried))]
    OnnxRuntimeMissing {
        /// The places, in the order tried.
        tried: Vec<PathBuf>,
    },
    /// A library was found, and it cannot be used.
    #[error("cannot use `{}` as ONNX Runtime: {reason}", path.display())]
    OnnxRuntimeUnusable {
        /// The library.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The device that was asked for cannot be used.
    #[error("cannot run on `{device}` with ONNX Runtime `{}`: {reason}", library.display())]
    Device {
        /// The device.
        device: Device,
        /// The library that was to use it.
        library: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The bundle cannot be read.
    #[error("cannot use the bundle")]
    Bundle(#[from] ns_model_format::BundleError),
    /// A graph of the bundle is not what the manifest says, or does what a
    /// bundle's graph must not.
    #[error("graph `{file}`: {reason}")]
    Graph {
        /// The file in the bundle.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A graph failed while it ran.
    #[error("graph `{file}` failed: {reason}")]
    Run {
        /// The file in the bundle.
        file: String,
        /// ONNX Runtime's words.
        reason: String,
    },
    /// The bundle or the options ask for what this version cannot do.
    #[error("{what} is not supported")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// An option is out of its range.
    #[error("option `{option}` is {found}; expected {expected}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A condition on what is generated cannot be met.
    #[error(transparent)]
    Condition(#[from] crate::condition::ConditionError),
    /// Nothing that was generated met the conditions.
    #[error("{what}")]
    NothingMatches {
        /// The conditions, how long they were tried, and what there is instead.
        what: String,
        /// Whether more draws a flow may find something.
        more_tries_may_help: bool,
    },
    /// A worker thread could not be started or ended without a result.
    #[error("generation worker {worker}: {reason}")]
    Worker {
        /// The worker's number, from 0.
        worker: usize,
        /// What happened.
        reason: String,
    },
}

impl RuntimeError {
    /// What the reader can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            RuntimeError::OnnxRuntimeMissing { .. } | RuntimeError::OnnxRuntimeUnusable { .. } => {
                Some(
                    "run `./run setup` in the source tree, or `pip install onnxruntime` and pass \
                     `--onnxruntime PATH` (the file onnxruntime/capi/libonnxruntime.so.*)",
                )
            }
            RuntimeError::Device { .. } => Some(
                "`--device cpu` needs no GPU; for CUDA `pip install onnxruntime-gpu`, name its \
                 onnxruntime/capi/libonnxruntime.so.* in ORT_DYLIB_PATH (or `--onnxruntime`), with \
                 libonnxruntime_providers_cuda.so beside it, and have an NVIDIA driver, and CUDA and \
                 cuDNN where the loader finds them (LD_LIBRARY_PATH)",
            ),
            RuntimeError::NothingMatches { more_tries_may_help: true, .. } => {
                Some("a rare value needs more tries: `--where-tries N`")
            }
            _ => None,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    paths.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_says_where_it_was_sought_and_what_to_do() {
        let tried = vec![PathBuf::from("/a/libonnxruntime.so"), PathBuf::from("libonnxruntime.so")];
        let error = RuntimeError::OnnxRuntimeMissing { tried };
        assert_eq!(
            error.to_string(),
            "ONNX Runtime was not found (tried `/a/libonnxruntime.so`, `libonnxruntime.so`)"
        );
        assert!(error.hint().unwrap().contains("./run setup"));
    }
}
