//! A graph, run here if it is of a few operations, else by ONNX Runtime.

use std::path::Path;

use ns_model_format::Bundle;
use ns_model_format::manifest::Tensor;

use super::{Dense, Recurrent};
use crate::device::Device;
use crate::engine::{Graph, OnnxRuntime, StepGraph};
use crate::error::RuntimeError;
use crate::program::{MOST_NUMBERS, Program, Rows, RowsMut};

/// A graph of one input and one output.
pub(crate) enum DenseGraph {
    Own(Program),
    OnnxRuntime(Box<Library<Graph>>),
}

/// A graph of ONNX Runtime, with all rows of its first input and of its first output.
pub(crate) struct Library<G> {
    graph: G,
    dims: [usize; 2],
    input: Vec<f32>,
    output: Vec<f32>,
}

impl<G> Library<G> {
    fn new(graph: G, input: usize, output: usize) -> Library<G> {
        Library { graph, dims: [input, output], input: Vec::new(), output: Vec::new() }
    }

    fn fill(&mut self, rows: usize, mut fill: impl FnMut(RowsMut<'_>)) {
        self.input.resize(rows * self.dims[0], 0.0);
        fill(RowsMut::new(self.dims[0], &mut self.input));
    }
}

/// Loads the graphs of a bundle.
pub(crate) struct Loader<'a> {
    bundle: &'a Bundle,
    /// Where ONNX Runtime is, if it is needed.
    onnxruntime: Option<&'a Path>,
    device: Device,
    /// Numbers that programs may yet hold.
    budget: usize,
}

impl<'a> Loader<'a> {
    pub(super) fn new(
        bundle: &'a Bundle,
        onnxruntime: Option<&'a Path>,
        device: Device,
    ) -> Loader<'a> {
        Loader { bundle, onnxruntime, device, budget: MOST_NUMBERS }
    }

    fn own(&mut self, file: &str, inputs: &[Tensor], outputs: &[Tensor]) -> Option<Program> {
        if self.device.cuda().is_some() {
            return None;
        }
        let bytes = self.bundle.file(file)?;
        Program::read(bytes, inputs, outputs, &mut self.budget)
    }

    pub(super) fn dense(
        &mut self,
        file: &str,
        input: Tensor,
        output: Tensor,
    ) -> Result<DenseGraph, RuntimeError> {
        let dims = [input.dim, output.dim];
        let (inputs, outputs) = (vec![input], vec![output]);
        if let Some(program) = self.own(file, &inputs, &outputs) {
            return Ok(DenseGraph::Own(program));
        }
        let onnxruntime = OnnxRuntime::open(self.onnxruntime, self.device)?;
        let graph = Graph::load(&onnxruntime, self.bundle, file, inputs, outputs)?;
        Ok(DenseGraph::OnnxRuntime(Box::new(Library::new(graph, dims[0], dims[1]))))
    }

    /// `states` are the names before and after a step, and the width.
    pub(super) fn recurrent(
        &mut self,
        file: &str,
        input: Tensor,
        output: Tensor,
        states: [(&str, &str, usize); 2],
    ) -> Result<RecurrentGraph, RuntimeError> {
        let (mut inputs, mut outputs) = (vec![input.clone()], vec![output.clone()]);
        inputs.extend(states.map(|(before, _, dim)| Tensor::new(before, dim)));
        outputs.extend(states.map(|(_, after, dim)| Tensor::new(after, dim)));
        if let Some(program) = self.own(file, &inputs, &outputs) {
            return Ok(RecurrentGraph::Own(Box::new(Step {
                program,
                dims: states.map(|(_, _, dim)| dim),
                rows: 0,
                states: Default::default(),
                next: Default::default(),
            })));
        }
        let onnxruntime = OnnxRuntime::open(self.onnxruntime, self.device)?;
        let (states, dims) = (states.into_iter(), [input.dim, output.dim]);
        let graph = StepGraph::load(&onnxruntime, self.bundle, file, vec![input], output, states)?;
        Ok(RecurrentGraph::OnnxRuntime(0, Box::new(Library::new(graph, dims[0], dims[1]))))
    }
}

impl Dense for DenseGraph {
    fn run(
        &mut self,
        rows: usize,
        fill: impl FnMut(RowsMut<'_>),
        mut take: impl FnMut(Rows<'_>),
    ) -> Result<(), RuntimeError> {
        match self {
            DenseGraph::Own(program) => program.run(rows, &[], fill, |outputs| take(outputs.of(0))),
            DenseGraph::OnnxRuntime(library) => {
                library.fill(rows, fill);
                let Library { graph, input, output, dims } = &mut **library;
                graph.run_into(rows, [input], output)?;
                take(Rows::new(dims[1], output));
            }
        }
        Ok(())
    }
}

/// The graph of the LSTM, with its states.
pub(crate) enum RecurrentGraph {
    Own(Box<Step>),
    OnnxRuntime(usize, Box<Library<StepGraph>>),
}

/// A step that is run here.
pub(crate) struct Step {
    program: Program,
    dims: [usize; 2],
    rows: usize,
    states: [Vec<f32>; 2],
    next: [Vec<f32>; 2],
}

impl Recurrent for RecurrentGraph {
    fn resize(&mut self, rows: usize) -> Result<(), RuntimeError> {
        match self {
            RecurrentGraph::Own(step) => {
                step.rows = rows;
                for (state, dim) in step.states.iter_mut().zip(step.dims) {
                    state.resize(rows * dim, 0.0);
                }
                Ok(())
            }
            RecurrentGraph::OnnxRuntime(count, library) => {
                *count = rows;
                library.graph.resize(rows)
            }
        }
    }

    fn state(&mut self, index: usize) -> Result<&mut [f32], RuntimeError> {
        match self {
            RecurrentGraph::Own(step) => Ok(&mut step.states[index]),
            RecurrentGraph::OnnxRuntime(_, library) => library.graph.state(index),
        }
    }

    fn step(
        &mut self,
        fill: impl FnMut(RowsMut<'_>),
        mut take: impl FnMut(Rows<'_>),
    ) -> Result<(), RuntimeError> {
        match self {
            RecurrentGraph::Own(step) => {
                let Step { program, rows, states: [h, c], next, .. } = &mut **step;
                next.iter_mut().for_each(Vec::clear);
                program.run(*rows, &[h, c], fill, |outputs| {
                    take(outputs.of(0));
                    for (state, next) in next.iter_mut().enumerate() {
                        outputs.of(1 + state).iter().for_each(|row| next.extend_from_slice(row));
                    }
                });
                std::mem::swap(&mut step.states, &mut step.next);
            }
            RecurrentGraph::OnnxRuntime(rows, library) => {
                library.fill(*rows, fill);
                let Library { graph, input, dims, .. } = &mut **library;
                graph.step([input])?;
                take(Rows::new(dims[1], graph.output()?));
            }
        }
        Ok(())
    }
}
