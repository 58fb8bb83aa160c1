//! DoppelGANger's networks: the graphs of a chunk.

use std::path::Path;

use ns_model_format::Bundle;
use ns_model_format::manifest::Chunk;

use crate::device::Device;
use crate::error::RuntimeError;
use crate::graphs::{self, DenseGraph, Loader, Recurrent, RecurrentGraph};
use crate::networks::Networks;
use crate::program::Rows;

/// The graphs of a chunk.
pub struct DoppelgangerEngine {
    attributes: DenseGraph,
    gates: DenseGraph,
    step: RecurrentGraph,
    records: Vec<f32>,
}

impl DoppelgangerEngine {
    /// Loads a chunk's graphs.
    ///
    /// # Errors
    /// A graph that is not what the manifest says; no ONNX Runtime, if a graph needs it; no such
    /// device.
    pub fn load(
        bundle: &Bundle,
        chunk: &Chunk,
        onnxruntime: Option<&Path>,
        device: Device,
    ) -> Result<DoppelgangerEngine, RuntimeError> {
        let mut loader = Loader::new(bundle, onnxruntime, device);
        let Chunk { attributes, gates, step, .. } = chunk;
        let states: Vec<_> =
            step.states.iter().map(|s| (s.input.as_str(), s.output.as_str(), s.dim)).collect();
        Ok(DoppelgangerEngine {
            attributes: loader.dense(
                &attributes.file,
                &[attributes.noise.clone(), attributes.condition.clone()],
                &attributes.attributes,
            )?,
            gates: loader.dense(
                &gates.file,
                &[gates.attributes.clone(), gates.condition.clone()],
                &gates.gates,
            )?,
            step: loader.recurrent(
                &step.file,
                &[step.gates.clone(), step.noise.clone()],
                &step.records,
                &states,
            )?,
            records: Vec::new(),
        })
    }
}

impl Networks for DoppelgangerEngine {
    fn attributes(
        &mut self,
        rows: usize,
        noise: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        self.attributes.run_given(rows, &[noise, condition], out)
    }

    fn gates(
        &mut self,
        rows: usize,
        attributes: &[f32],
        condition: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<(), RuntimeError> {
        self.gates.run_given(rows, &[attributes, condition], out)
    }

    fn resize(&mut self, rows: usize) -> Result<(), RuntimeError> {
        self.step.resize(rows)
    }

    fn state(&mut self, index: usize) -> Result<&mut [f32], RuntimeError> {
        self.step.state(index)
    }

    fn step(&mut self, gates: &[f32], noise: &[f32]) -> Result<(), RuntimeError> {
        let DoppelgangerEngine { step, records, .. } = self;
        records.clear();
        let take = |rows: Rows<'_>| {
            rows.iter().for_each(|row| records.extend_from_slice(row));
        };
        step.step(&[noise], |to| graphs::copy(gates, to), take)
    }

    fn records(&self) -> Result<&[f32], RuntimeError> {
        Ok(&self.records)
    }
}
