//! Runs a bundle's graphs in ONNX Runtime. The only file that names `ort`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ns_model_format::Bundle;
use ns_model_format::manifest::Tensor;
use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProvider};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};

use crate::device::Device;
use crate::error::RuntimeError;
use crate::locate;
use crate::onnx_check;

/// The library, loaded, and where it is. At most one is loaded in a process; the environment
/// lives until the process ends.
static LOADED: Mutex<Option<(Environment, PathBuf)>> = Mutex::new(None);

/// Loads ONNX Runtime, or returns what is loaded already: a process has one.
fn environment(given: Option<&Path>) -> Result<(Environment, PathBuf), RuntimeError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = &*loaded {
        return Ok(loaded.clone());
    }
    let path = locate::locate(given)?;
    let unusable =
        |reason: String| RuntimeError::OnnxRuntimeUnusable { path: path.clone(), reason };
    let builder = ort::init_from(&path).map_err(|error| match error {
        // The loader's own search is the last resort: nothing was found.
        ort::LoadDynamicError::Dlopen { .. } if path.components().count() == 1 => {
            RuntimeError::OnnxRuntimeMissing { tried: locate::places() }
        }
        ort::LoadDynamicError::Dlopen { error, .. } => unusable(error.to_string()),
        ort::LoadDynamicError::MissingApi { .. } => {
            unusable("it does not export `OrtGetApiBase`".to_owned())
        }
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            unusable(format!("version {version_str} is too old; expected 1.{}", ort::MINOR_VERSION))
        }
        other => unusable(other.to_string()),
    })?;
    let environment = builder
        .with_name("netshare")
        .with_telemetry(false)
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    Ok(loaded.insert((environment, path)).clone())
}

/// Finds and loads ONNX Runtime, as [`crate::Generator::open`] does: whoever
/// wants to generate later can know now whether that will work.
///
/// # Errors
/// No library, not a library, too old a version.
pub fn load_library(given: Option<&Path>) -> Result<(), RuntimeError> {
    environment(given).map(drop)
}

/// The library on a device.
#[derive(Clone, Debug)]
pub(crate) struct OnnxRuntime {
    environment: Environment,
    library: PathBuf,
    device: Device,
}

impl OnnxRuntime {
    /// # Errors
    /// No library, not a library, too old a version; one without what the device needs.
    pub(crate) fn open(given: Option<&Path>, device: Device) -> Result<OnnxRuntime, RuntimeError> {
        let (environment, library) = environment(given)?;
        let opened = OnnxRuntime { environment, library, device };
        if device.cuda().is_some() {
            let has_cuda = CUDA::is_available();
            if !has_cuda.map_err(|error| opened.unusable(&error.to_string()))? {
                return Err(opened.unusable("this build has no CUDA provider"));
            }
        }
        Ok(opened)
    }

    /// Why there is nothing to be had from the device.
    fn unusable(&self, reason: &str) -> RuntimeError {
        // The provider's own words go over several lines.
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        RuntimeError::Device { device: self.device, library: self.library.clone(), reason }
    }

    /// One thread, nothing shared: a worker is one core.
    fn builder(&self) -> ort::Result<SessionBuilder> {
        Ok(Session::builder(&self.environment)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_optimization_level(GraphOptimizationLevel::All)?)
    }

    fn session(&self, file: &str, bytes: &[u8]) -> Result<Session, RuntimeError> {
        let refuse = |error: ort::Error| RuntimeError::Graph {
            file: file.to_owned(),
            reason: error.to_string(),
        };
        let on_cpu = || self.builder().and_then(|mut builder| builder.commit_from_memory(bytes));
        let Some(number) = self.device.cuda() else { return on_cpu().map_err(refuse) };
        // Full float32, as on the CPU.
        let cuda = CUDA::default().with_device_id(number.into()).with_tf32(false);
        let session = self.builder().and_then(|mut builder| {
            // Not as a list of providers, which goes on without those that fail.
            cuda.register(&mut builder)?;
            builder.commit_from_memory(bytes)
        });
        // Either the GPU is at fault or the graph: that shows without the GPU.
        session.map_err(|error| match on_cpu() {
            Ok(_) => self.unusable(&error.to_string()),
            Err(error) => refuse(error),
        })
    }
}

/// One graph, checked against what the manifest says of it.
pub(crate) struct Graph {
    session: Session,
    file: String,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

impl Graph {
    pub(crate) fn load(
        onnxruntime: &OnnxRuntime,
        bundle: &Bundle,
        file: &str,
        inputs: Vec<Tensor>,
        outputs: Vec<Tensor>,
    ) -> Result<Graph, RuntimeError> {
        let refuse = |reason: String| RuntimeError::Graph { file: file.to_owned(), reason };
        let bytes = bundle.file(file).ok_or_else(|| refuse("is not in the bundle".to_owned()))?;
        onnx_check::check(bytes).map_err(refuse)?;
        let session = onnxruntime.session(file, bytes)?;
        check_outlets("input", session.inputs(), &inputs).map_err(refuse)?;
        check_outlets("output", session.outputs(), &outputs).map_err(refuse)?;
        // A value that is input and output at once would be our own buffer.
        if let Some(both) = outputs.iter().find(|out| inputs.iter().any(|i| i.name == out.name)) {
            return Err(refuse(format!("`{}` is both input and output", both.name)));
        }
        Ok(Graph { session, file: file.to_owned(), inputs, outputs })
    }

    /// Runs a batch of `rows`; returns the outputs in the manifest's order.
    fn run(
        &mut self,
        rows: usize,
        inputs: &[&[f32]],
        states: &[DynValue],
    ) -> Result<Vec<DynValue>, RuntimeError> {
        let Graph { session, file, inputs: described, outputs: expected } = self;
        let fail = |reason: String| RuntimeError::Run { file: file.clone(), reason };
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> =
            Vec::with_capacity(described.len());
        for (tensor, data) in described.iter().zip(inputs.iter().copied()) {
            let data = data.get(..rows * tensor.dim).ok_or_else(|| fail(short(tensor, rows)))?;
            let view = TensorRef::from_array_view(([rows, tensor.dim], data));
            let view = view.map_err(|error| fail(error.to_string()))?;
            values.push((Cow::Borrowed(&tensor.name), view.into()));
        }
        for (tensor, state) in described[inputs.len()..].iter().zip(states) {
            values.push((Cow::Borrowed(&tensor.name), state.into()));
        }
        let mut results = session.run(values).map_err(|error| fail(error.to_string()))?;
        let mut out = Vec::with_capacity(expected.len());
        for tensor in expected.iter() {
            let value = results.remove(&tensor.name).ok_or_else(|| fail(short(tensor, rows)))?;
            let shape = value.dtype().tensor_shape();
            // A graph may declare one shape and yield another.
            if shape.is_none_or(|shape| shape[..] != [rows as i64, tensor.dim as i64]) {
                let found = shape.map_or_else(String::new, |shape| format!("{:?}", &shape[..]));
                let (name, dim) = (&tensor.name, tensor.dim);
                return Err(fail(format!("`{name}` is {found}; expected [{rows}, {dim}]")));
            }
            out.push(value);
        }
        Ok(out)
    }

    /// The same for a graph of one output, which is copied out.
    pub(crate) fn run_into(
        &mut self,
        rows: usize,
        inputs: &[&[f32]],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        let values = self.run(rows, inputs, &[])?;
        out.clear();
        for value in &values {
            out.extend_from_slice(floats(value, &self.file)?);
        }
        Ok(())
    }
}

fn short(tensor: &Tensor, rows: usize) -> String {
    format!("`{}` has no {rows} rows of {}", tensor.name, tensor.dim)
}

fn floats<'v>(value: &'v DynValue, file: &str) -> Result<&'v [f32], RuntimeError> {
    let data = value.try_extract_tensor::<f32>();
    data.map(|(_, data)| data)
        .map_err(|error| RuntimeError::Run { file: file.to_owned(), reason: error.to_string() })
}

/// Exactly the tensors expected, each `[batch, dim]` of float32.
fn check_outlets(what: &str, found: &[Outlet], expected: &[Tensor]) -> Result<(), String> {
    if let Some(extra) = found.iter().find(|o| !expected.iter().any(|t| t.name == o.name())) {
        return Err(format!("has an {what} `{}` that the manifest does not name", extra.name()));
    }
    for tensor in expected {
        let Some(outlet) = found.iter().find(|outlet| outlet.name() == tensor.name) else {
            return Err(format!("has no {what} `{}`", tensor.name));
        };
        let ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } = outlet.dtype() else {
            return Err(format!("{what} `{}` is not float32", tensor.name));
        };
        // -1 is a dimension without a number: the batch must be one.
        let fits = matches!(shape[..], [-1, dim] if dim == tensor.dim as i64);
        if !fits {
            let (name, dim, found) = (&tensor.name, tensor.dim, &shape[..]);
            return Err(format!("{what} `{name}` is {found:?}; expected [batch, {dim}]"));
        }
    }
    Ok(())
}

/// A graph that hands states from step to step: its last inputs and outputs.
pub(crate) struct StepGraph {
    graph: Graph,
    rows: usize,
    state_dims: Vec<usize>,
    /// `[rows, dim]` each. A step's outputs are the next step's inputs as they are.
    states: Vec<DynValue>,
    output: Option<DynValue>,
}

impl StepGraph {
    /// `states` are the names before and after a step, and the width.
    pub(crate) fn load<'a>(
        onnxruntime: &OnnxRuntime,
        bundle: &Bundle,
        file: &str,
        mut inputs: Vec<Tensor>,
        output: Tensor,
        states: impl Iterator<Item = (&'a str, &'a str, usize)>,
    ) -> Result<StepGraph, RuntimeError> {
        let (mut outputs, mut state_dims) = (vec![output], Vec::new());
        for (before, after, dim) in states {
            inputs.push(Tensor::new(before, dim));
            outputs.push(Tensor::new(after, dim));
            state_dims.push(dim);
        }
        let graph = Graph::load(onnxruntime, bundle, file, inputs, outputs)?;
        Ok(StepGraph { graph, rows: 0, state_dims, states: Vec::new(), output: None })
    }

    /// See [`crate::networks::Networks::resize`].
    pub(crate) fn resize(&mut self, rows: usize) -> Result<(), RuntimeError> {
        let mut states = Vec::with_capacity(self.state_dims.len());
        for (index, &dim) in self.state_dims.iter().enumerate() {
            let mut data = vec![0.0_f32; rows * dim];
            if let Some(before) = self.states.get(index) {
                let before = floats(before, &self.graph.file)?;
                let kept = before.len().min(data.len());
                data[..kept].copy_from_slice(&before[..kept]);
            }
            let tensor = ort::value::Tensor::from_array(([rows, dim], data));
            let tensor = tensor.map_err(|error| RuntimeError::Run {
                file: self.graph.file.clone(),
                reason: error.to_string(),
            });
            states.push(tensor?.into_dyn());
        }
        self.states = states;
        self.rows = rows;
        Ok(())
    }

    /// See [`crate::networks::Networks::state`].
    pub(crate) fn state(&mut self, index: usize) -> Result<&mut [f32], RuntimeError> {
        let data = self.states[index].try_extract_tensor_mut::<f32>();
        data.map(|(_, data)| data).map_err(|error| RuntimeError::Run {
            file: self.graph.file.clone(),
            reason: error.to_string(),
        })
    }

    /// Steps all rows.
    pub(crate) fn step(&mut self, inputs: &[&[f32]]) -> Result<(), RuntimeError> {
        let mut outputs = self.graph.run(self.rows, inputs, &self.states)?;
        self.states = outputs.split_off(1);
        self.output = outputs.pop();
        Ok(())
    }

    /// The last step's output.
    pub(crate) fn output(&self) -> Result<&[f32], RuntimeError> {
        match &self.output {
            Some(output) => floats(output, &self.graph.file),
            None => Ok(&[]),
        }
    }
}
