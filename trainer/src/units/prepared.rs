//! An input, read and encoded, as files that units of work start from.

use std::path::{Component, Path, PathBuf};

use ns_model_format::Schema;
use ns_model_format::chunks::HandedOver;
use ns_model_format::manifest::Timeline;
use serde::{Deserialize, Serialize};

use super::Plan;
use crate::autoregressive::chain::{Chain, is_chain};
use crate::autoregressive::fit::batches_an_epoch;
use crate::files::write_whole;
use crate::fit::Prepared;
use crate::ingest::NotUsed;
use crate::train::Samples;
use crate::work::WorkError;

/// What units need of an input beside its samples: `units/prepared/prepared.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) input: String,
    pub(crate) input_sha256: String,
    pub(crate) not_used: NotUsed,
    pub(crate) schema: Schema,
    pub(crate) timeline: Timeline,
    pub(crate) handed_over: Vec<Option<HandedOver>>,
    /// How many of each chunk.
    pub(crate) samples: Vec<u64>,
    pub(crate) held_out: Option<HeldOut>,
    /// The variables of an autoregressive model; then the only samples are flows as their
    /// tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chain: Option<Chain>,
    /// Batches of a pass over them, about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batches: Option<u64>,
}

/// Flows to judge models by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HeldOut {
    /// A capture or table in the same folder.
    pub(crate) file: PathBuf,
    /// Their share of all flows of the input.
    pub(crate) share: f64,
    pub(crate) records: u64,
}

impl Facts {
    /// The file's name.
    pub(crate) const FILE: &'static str = "prepared.json";

    /// The name of a chunk's samples.
    pub(crate) fn samples_file(chunk: usize) -> String {
        format!("chunk-{chunk}.safetensors")
    }

    /// Writes an input's files; what needs no file later is not kept.
    pub(crate) fn write(
        prepared: Prepared,
        held_out: Option<HeldOut>,
        folder: &Path,
    ) -> Result<Facts, WorkError> {
        let dataset = prepared.dataset;
        let (chain, flows) = dataset.tokens.unzip();
        let facts = Facts {
            input: prepared.input,
            input_sha256: prepared.input_sha256,
            not_used: prepared.not_used,
            schema: dataset.schema,
            timeline: dataset.timeline,
            handed_over: dataset.handed_over,
            samples: match &flows {
                Some(flows) => vec![flows.len() as u64],
                None => dataset.chunks.iter().map(|samples| samples.len() as u64).collect(),
            },
            held_out,
            chain,
            batches: flows.as_ref().map(batches_an_epoch),
        };
        if let Some(flows) = flows {
            flows.write(&folder.join(Facts::samples_file(0)))?;
        }
        for (chunk, samples) in dataset.chunks.into_iter().enumerate() {
            samples.write(&folder.join(Facts::samples_file(chunk)))?;
        }
        // Last: where it is, the rest is.
        let path = folder.join(Facts::FILE);
        let fail = |source| WorkError::Write { path: path.clone(), source };
        let text = serde_json::to_string(&facts).map_err(|error| fail(error.into()))?;
        write_whole(&path, text.as_bytes()).map_err(fail)?;
        Ok(facts)
    }

    /// Reads them back.
    pub(crate) fn read(folder: &Path) -> Result<Facts, WorkError> {
        let path = folder.join(Facts::FILE);
        let text = std::fs::read(&path)
            .map_err(|source| WorkError::Read { path: path.clone(), source })?;
        let damaged = |reason: String| WorkError::Damaged { path: path.clone(), reason };
        let mut facts: Facts =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        facts.schema.link().map_err(damaged)?;
        let is_name = |file: &PathBuf| {
            let mut parts = file.components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        };
        let reason = match &facts.held_out {
            _ if facts.chain.as_ref().is_some_and(|chain| !is_chain(chain)) => {
                "its variables do not fit one another"
            }
            _ if facts.handed_over.len() != facts.samples.len() => {
                "its chunks do not fit one another"
            }
            Some(held_out) if !is_name(&held_out.file) => {
                "the flows held out are in another folder"
            }
            Some(HeldOut { share, .. }) if !(*share > 0.0 && *share <= 1.0) => "no such share",
            _ => return Ok(facts),
        };
        Err(WorkError::Damaged { path, reason: reason.to_owned() })
    }

    /// Whether they are those of a plan.
    pub(crate) fn fit(&self, plan: &Plan, folder: &Path) -> Result<(), WorkError> {
        let (found, chunks) = (self.samples.len(), plan.chunks);
        if found == chunks {
            return Ok(());
        }
        let reason = format!("it has {found} chunks, the plan has {chunks}");
        Err(WorkError::Damaged { path: folder.join(Facts::FILE), reason })
    }

    /// Reads a chunk's samples.
    pub(crate) fn samples(folder: &Path, chunk: usize) -> Result<Samples, WorkError> {
        Samples::read(&folder.join(Facts::samples_file(chunk)))
    }
}
