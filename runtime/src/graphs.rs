//! Graphs, run here if they are of a few operations, else by ONNX Runtime.

use std::path::Path;

use ns_model_format::Bundle;
use ns_model_format::manifest::Tensor;

use crate::device::Device;
use crate::engine::{Graph, OnnxRuntime, StepGraph};
use crate::error::RuntimeError;
use crate::program::{Lanes, MOST_NUMBERS, Program, ProgramInLanes, Rows, RowsMut};

/// A graph of one input and one output.
pub(crate) trait Dense: Send + 'static {
    /// Runs `rows` rows through, some at a time: `fill` writes their inputs, `take` is given
    /// what comes out.
    fn run(
        &mut self,
        rows: usize,
        fill: impl FnMut(RowsMut<'_>),
        take: impl FnMut(Rows<'_>),
    ) -> Result<(), RuntimeError>;
}

/// A graph of one input and one output, which is made side by side.
pub(crate) trait InLanes: Send + 'static {
    /// As [`Dense::run`], but `take` is given sixteen rows at a time.
    fn run(
        &mut self,
        rows: usize,
        fill: impl FnMut(RowsMut<'_>),
        take: impl FnMut(Lanes<'_>),
    ) -> Result<(), RuntimeError>;
}

/// A [`Dense`] graph as an [`InLanes`] one.
pub(crate) struct Transposed<G>(pub(crate) G);

impl<G: Dense> InLanes for Transposed<G> {
    fn run(
        &mut self,
        rows: usize,
        fill: impl FnMut(RowsMut<'_>),
        mut take: impl FnMut(Lanes<'_>),
    ) -> Result<(), RuntimeError> {
        self.0.run(rows, fill, |rows| rows.in_lanes(&mut take))
    }
}

/// A graph that is stepped, with its states.
pub(crate) trait Recurrent: Send + 'static {
    /// See [`crate::networks::Networks::resize`].
    fn resize(&mut self, rows: usize) -> Result<(), RuntimeError>;

    /// State `index`, `[rows, dim]`.
    fn state(&mut self, index: usize) -> Result<&mut [f32], RuntimeError>;

    /// Steps all rows, some at a time: `fill` writes those of the first input, the other
    /// inputs but the states are `given`, `[rows, dim]` each; `take` is given what comes out.
    fn step(
        &mut self,
        given: &[&[f32]],
        fill: impl FnMut(RowsMut<'_>),
        take: impl FnMut(Rows<'_>),
    ) -> Result<(), RuntimeError>;
}

/// A graph of one output.
pub(crate) enum DenseGraph {
    Own(Program),
    OnnxRuntime(Box<Library<Graph>>),
}

/// A graph of ONNX Runtime, with all rows of its first input and of its output.
pub(crate) struct Library<G> {
    graph: G,
    dims: [usize; 2],
    input: Vec<f32>,
    output: Vec<f32>,
}

impl<G> Library<G> {
    fn new(graph: G, inputs: &[Tensor], output: &Tensor) -> Library<G> {
        let input = inputs.first().map_or(0, |input| input.dim);
        let (dims, input, output) = ([input, output.dim], Vec::new(), Vec::new());
        Library { graph, dims, input, output }
    }

    fn fill(&mut self, rows: usize, mut fill: impl FnMut(RowsMut<'_>)) {
        self.input.resize(rows * self.dims[0], 0.0);
        fill(RowsMut::new(self.dims[0], &mut self.input));
    }
}

/// Loads the graphs of a bundle.
pub(crate) struct Loader<'a> {
    bundle: &'a Bundle,
    /// An ONNX Runtime that is to run all of them.
    onnxruntime: Option<&'a Path>,
    device: Device,
    /// Numbers that programs may yet hold.
    budget: usize,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(
        bundle: &'a Bundle,
        onnxruntime: Option<&'a Path>,
        device: Device,
    ) -> Loader<'a> {
        Loader { bundle, onnxruntime, device, budget: MOST_NUMBERS }
    }

    fn own(&mut self, file: &str, inputs: &[Tensor], outputs: &[Tensor]) -> Option<Program> {
        if self.device.cuda().is_some() || self.onnxruntime.is_some() {
            return None;
        }
        let bytes = self.bundle.file(file)?;
        Program::read(bytes, inputs, outputs, &mut self.budget)
    }

    /// # Errors
    /// It is not what is expected; no ONNX Runtime, if that is needed; no such device.
    pub(crate) fn dense(
        &mut self,
        file: &str,
        inputs: &[Tensor],
        output: &Tensor,
    ) -> Result<DenseGraph, RuntimeError> {
        if let Some(program) = self.own(file, inputs, std::slice::from_ref(output)) {
            return Ok(DenseGraph::Own(program));
        }
        let onnxruntime = OnnxRuntime::open(self.onnxruntime, self.device)?;
        let outputs = vec![output.clone()];
        let graph = Graph::load(&onnxruntime, self.bundle, file, inputs.to_vec(), outputs)?;
        Ok(DenseGraph::OnnxRuntime(Box::new(Library::new(graph, inputs, output))))
    }

    /// The same, for sixteen rows at a time.
    ///
    /// # Errors
    /// As those of [`Self::dense`].
    pub(crate) fn in_lanes(
        &mut self,
        file: &str,
        inputs: &[Tensor],
        output: &Tensor,
    ) -> Result<LanesGraph, RuntimeError> {
        let graph = match self.dense(file, inputs, output)? {
            DenseGraph::Own(program) => match ProgramInLanes::new(program, &mut self.budget) {
                Ok(program) => return Ok(LanesGraph::Own(program)),
                Err(program) => DenseGraph::Own(program),
            },
            graph => graph,
        };
        Ok(LanesGraph::Transposed(Transposed(graph)))
    }

    /// `states` are the names before and after a step, and the width.
    ///
    /// # Errors
    /// As those of [`Self::dense`].
    pub(crate) fn recurrent(
        &mut self,
        file: &str,
        inputs: &[Tensor],
        output: &Tensor,
        states: &[(&str, &str, usize)],
    ) -> Result<RecurrentGraph, RuntimeError> {
        let (mut all, mut outputs) = (inputs.to_vec(), vec![output.clone()]);
        all.extend(states.iter().map(|&(before, _, dim)| Tensor::new(before, dim)));
        outputs.extend(states.iter().map(|&(_, after, dim)| Tensor::new(after, dim)));
        if let Some(program) = self.own(file, &all, &outputs) {
            let none = vec![Vec::new(); states.len()];
            return Ok(RecurrentGraph::Own(Box::new(Step {
                program,
                dims: states.iter().map(|(_, _, dim)| *dim).collect(),
                rows: 0,
                next: none.clone(),
                states: none,
            })));
        }
        let onnxruntime = OnnxRuntime::open(self.onnxruntime, self.device)?;
        let states = states.iter().copied();
        let graph = StepGraph::load(
            &onnxruntime,
            self.bundle,
            file,
            inputs.to_vec(),
            output.clone(),
            states,
        )?;
        Ok(RecurrentGraph::OnnxRuntime(0, Box::new(Library::new(graph, inputs, output))))
    }
}

/// Copies rows that lie one after another.
pub(crate) fn copy(from: &[f32], mut to: RowsMut<'_>) {
    let from = from.chunks_exact(to.dim().max(1)).skip(to.first);
    to.iter_mut().zip(from).for_each(|(to, from)| to.copy_from_slice(from));
}

impl DenseGraph {
    /// Runs rows through whose inputs are given, `[rows, dim]` each, to `out [rows, dim]`.
    pub(crate) fn run_given(
        &mut self,
        rows: usize,
        inputs: &[&[f32]],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        match self {
            DenseGraph::Own(program) => {
                let [first, given @ ..] = inputs else { return Ok(()) };
                out.clear();
                program.run(
                    rows,
                    given,
                    |to| copy(first, to),
                    |outputs| outputs.of(0).iter().for_each(|row| out.extend_from_slice(row)),
                );
                Ok(())
            }
            DenseGraph::OnnxRuntime(library) => library.graph.run_into(rows, inputs, out),
        }
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
                graph.run_into(rows, &[input], output)?;
                take(Rows::new(dims[1], output));
            }
        }
        Ok(())
    }
}

/// A graph of one output, which is made side by side.
pub(crate) enum LanesGraph {
    Own(ProgramInLanes),
    Transposed(Transposed<DenseGraph>),
}

impl InLanes for LanesGraph {
    fn run(
        &mut self,
        rows: usize,
        fill: impl FnMut(RowsMut<'_>),
        take: impl FnMut(Lanes<'_>),
    ) -> Result<(), RuntimeError> {
        match self {
            LanesGraph::Own(program) => {
                program.run(rows, fill, take);
                Ok(())
            }
            LanesGraph::Transposed(graph) => graph.run(rows, fill, take),
        }
    }
}

/// A graph that is stepped, with its states.
pub(crate) enum RecurrentGraph {
    Own(Box<Step>),
    OnnxRuntime(usize, Box<Library<StepGraph>>),
}

/// A step that is run here.
pub(crate) struct Step {
    program: Program,
    dims: Vec<usize>,
    rows: usize,
    states: Vec<Vec<f32>>,
    next: Vec<Vec<f32>>,
}

impl Recurrent for RecurrentGraph {
    fn resize(&mut self, rows: usize) -> Result<(), RuntimeError> {
        match self {
            RecurrentGraph::Own(step) => {
                step.rows = rows;
                for (state, dim) in step.states.iter_mut().zip(&step.dims) {
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
        given: &[&[f32]],
        fill: impl FnMut(RowsMut<'_>),
        mut take: impl FnMut(Rows<'_>),
    ) -> Result<(), RuntimeError> {
        match self {
            RecurrentGraph::Own(step) => {
                let Step { program, rows, states, next, .. } = &mut **step;
                next.iter_mut().for_each(Vec::clear);
                let states_given = states.iter().map(Vec::as_slice);
                let others: Vec<&[f32]> = given.iter().copied().chain(states_given).collect();
                program.run(*rows, &others, fill, |outputs| {
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
                let inputs: Vec<&[f32]> =
                    std::iter::once(&input[..]).chain(given.iter().copied()).collect();
                graph.step(&inputs)?;
                take(Rows::new(dims[1], graph.output()?));
            }
        }
        Ok(())
    }
}
