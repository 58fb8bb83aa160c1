//! The keys about chunks: how the span is cut, and how each chunk's training begins.

use ns_model_format::schema::SpanTags;
use serde::Serialize;

use super::file::ConfigFile;
use super::resolve::{note, present, value};
use super::{ConfigError, Notice};

/// How much shorter NetShare trains further chunks when the file does not say.
const DEFAULT_REDUCE_TIME: f64 = 4.0;
const MOST_CHUNKS: u32 = 10_000;

/// Where a trace is cut into chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CutBy {
    /// Into equal durations.
    #[default]
    FixedTime,
    /// Into equal numbers of records.
    FixedSize,
}

/// Chunks of the span, each with networks of its own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Chunking {
    /// How many, at most.
    pub n_chunks: u32,
    /// Where they are cut.
    pub df2chunks: CutBy,
    /// Which parts of a flow that spans chunks tell where it has records.
    pub tags: SpanTags,
    /// Further chunks start from the first one's weights and train so many times
    /// shorter; without, each is trained from nothing, as long as the first.
    pub reduce_time: Option<f64>,
}

impl Default for Chunking {
    /// The whole span as one.
    fn default() -> Chunking {
        Chunking {
            n_chunks: 1,
            df2chunks: CutBy::FixedTime,
            tags: SpanTags::EveryPart,
            reduce_time: Some(DEFAULT_REDUCE_TIME),
        }
    }
}

/// Makes the choices about chunks. A missing `n_chunks` is one: whoever wants
/// chunks says so.
pub(super) fn resolve(
    file: &ConfigFile,
    notices: &mut Vec<Notice>,
) -> Result<Chunking, ConfigError> {
    let fields = &file.pre_post_processor.config;
    let manager = &file.model_manager.config;
    let n_chunks = file.global_config.n_chunks.unwrap_or(1);
    if !(1..=MOST_CHUNKS).contains(&n_chunks) {
        return Err(value("n_chunks", &format!("{n_chunks} is not in 1 to {MOST_CHUNKS}")));
    }
    let df2chunks = match fields.df2chunks.as_deref() {
        None | Some("fixed_time") => CutBy::FixedTime,
        Some("fixed_size") => CutBy::FixedSize,
        Some(other) => {
            let reason = format!("`{other}` is not known; expected `fixed_time` or `fixed_size`");
            return Err(value("df2chunks", &reason));
        }
    };
    let tags = match fields.split_name.as_deref() {
        None | Some("multichunk_dep_v2") => SpanTags::EveryPart,
        Some("multichunk_dep_v1") => SpanTags::FirstPart,
        Some(other) => {
            let known = "`multichunk_dep_v2` or `multichunk_dep_v1`";
            let reason = format!("`{other}` is not known; expected {known}");
            return Err(value("split_name", &reason));
        }
    };
    let reduce_time = manager.pretrain_non_dp_reduce_time.unwrap_or(DEFAULT_REDUCE_TIME);
    if !(reduce_time >= 1.0 && reduce_time.is_finite()) {
        let reason = format!("{reduce_time} is not a number of 1 or more");
        return Err(value("pretrain_non_dp_reduce_time", &reason));
    }
    let pretrain = manager.pretrain_non_dp.unwrap_or(true);
    let mut group = |keys: &[(&str, bool)], reason: &'static str| {
        note(notices, &present(keys), reason);
    };
    if n_chunks == 1 {
        group(
            &[
                ("split_name", fields.split_name.is_some()),
                ("df2chunks", fields.df2chunks.is_some()),
                ("truncate", fields.truncate.is_some()),
                ("pretrain_non_dp", manager.pretrain_non_dp.is_some()),
                ("pretrain_non_dp_reduce_time", manager.pretrain_non_dp_reduce_time.is_some()),
            ],
            "it is about chunks, and the whole span is one",
        );
    } else {
        let per_chunk = |value: &str| value == "per_chunk";
        group(
            &[("truncate", !fields.truncate.as_deref().is_none_or(per_chunk))],
            "`max_flow_len` is always that of a flow's records in one chunk",
        );
        group(
            &[(
                "pretrain_non_dp_reduce_time",
                !pretrain && manager.pretrain_non_dp_reduce_time.is_some(),
            )],
            "`pretrain_non_dp` is false: every chunk is trained from nothing",
        );
    }
    let reduce_time = pretrain.then_some(reduce_time);
    Ok(Chunking { n_chunks, df2chunks, tags, reduce_time })
}
