//! From a file's keys to what a run does: every key takes effect, or a notice
//! says why it does not.

use std::path::{Path, PathBuf};

use ns_model_format::codec;
use ns_model_format::manifest::InitialState;
use ns_model_format::schema::{TraceKind, packet_field};
use serde::Serialize;

use super::ConfigError;
use super::chunking::{self, Chunking};
use super::file::{
    ConfigFile, FieldConfig, FieldType, FieldsConfig, FlowKind, Missing, ModelConfig,
    TimestampConfig,
};
use crate::autoregressive::{AutoregressiveConfig, ModelClass};
use crate::ingest::Trace;
use crate::model::config::{Discretize, DoppelgangerConfig, GradientPenaltyAt, NoiseDraw};

/// NetShare's word vectors have this length when the file does not say.
const DEFAULT_VEC_SIZE: usize = 10;
const ENCODINGS: &str = "`categorical`, `topk`, `bit`, `octets`, `quantile`, `log_quantile` or \
                         `word2vec_NAME`";
/// Texts that stand for "no value" unless the file says which do: `-` is
/// Zeek's, the others are what programs write.
pub(crate) const MISSING_VALUES: [&str; 13] = [
    "",
    "-",
    "NaN",
    "nan",
    "NA",
    "N/A",
    "null",
    "NULL",
    "None",
    "inf",
    "-inf",
    "Infinity",
    "-Infinity",
];
/// The class of an autoregressive model.
const AUTOREGRESSIVE: &str = "autoregressive";
/// NetShare's `iteration` when neither it nor `epochs` is given.
const DEFAULT_ITERATIONS: u64 = 200_000;

/// Keys that have no effect, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The keys, as written.
    pub keys: Vec<String>,
    /// Why.
    pub reason: &'static str,
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has = if self.keys.len() == 1 { "has" } else { "have" };
        write!(f, "`{}` {has} no effect here because {}", self.keys.join("`, `"), self.reason)
    }
}

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingLength {
    /// Passes over the flows.
    Epochs(u64),
    /// Generator updates.
    Iterations(u64),
}

/// A configuration with every choice made.
#[derive(Clone, Debug, Serialize)]
pub struct Resolved {
    /// The input that the file names, from where the program runs.
    #[serde(skip)]
    pub input: Option<PathBuf>,
    /// Whether a work folder that exists may be written over.
    #[serde(skip)]
    pub overwrite: bool,
    /// What a record is.
    pub kind: TraceKind,
    /// The time of records.
    pub timestamp: TimestampConfig,
    /// What is a flow.
    pub flow: FlowKind,
    /// Seconds of silence that end a flow.
    pub idle_timeout: Option<f64>,
    /// Records after which a flow is cut into segments.
    pub max_flow_len: Option<u32>,
    /// How the span is cut.
    pub chunks: Chunking,
    /// An earlier training whose weights the first chunk starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretrain_dir: Option<PathBuf>,
    /// Whether the first chunk keeps those weights as they are.
    #[serde(skip_serializing_if = "is_false")]
    pub skip_chunk0_train: bool,
    /// Passes over the samples from one checkpoint that is kept to the next; the
    /// others are there to go on from, and make room for newer ones.
    #[serde(skip)]
    pub epoch_checkpoint_freq: Option<u64>,
    /// Whether float measurements are on each flow's own scale.
    pub self_norm: bool,
    /// Length of word vectors.
    pub vec_size: usize,
    /// Word vectors fitted elsewhere, from where the program runs.
    pub pretrained: Option<PathBuf>,
    /// Texts that stand for "no value".
    pub missing_values: Vec<String>,
    /// Fixed in a flow.
    pub metadata: Vec<FieldConfig>,
    /// One a record.
    pub timeseries: Vec<FieldConfig>,
    /// The networks of an autoregressive model, if that is what is trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoregressive: Option<AutoregressiveConfig>,
    /// The same as the file has them, whichever networks are trained: one file can be for
    /// both.
    #[serde(skip)]
    pub as_autoregressive: AutoregressiveConfig,
    /// The networks of a DoppelGANger.
    pub model: DoppelgangerConfig,
    /// How long to train.
    pub length: TrainingLength,
    /// What has no effect whatever is trained; [`Self::notices`] has all.
    #[serde(skip)]
    pub notices: Vec<Notice>,
}

/// Makes every choice. `folder` is the file's, for paths in it.
///
/// # Errors
/// A value that is out of range or asks for what cannot be done honestly.
pub fn resolve(file: &ConfigFile, folder: &Path) -> Result<Resolved, ConfigError> {
    let global = &file.global_config;
    let fields = &file.pre_post_processor.config;
    if global.dp == Some(true) || file.model_manager.config.pretrain_dp == Some(true) {
        let key = if global.dp == Some(true) { "dp" } else { "pretrain_dp" };
        return Err(value(
            key,
            "training with differential privacy is not available yet, and training without it \
             in its name would be a false promise; set it to false",
        ));
    }
    check_name(
        "pre_post_processor.class",
        file.pre_post_processor.class.as_deref(),
        &["NetsharePrePostProcessor"],
    )?;
    check_name("model_manager.class", file.model_manager.class.as_deref(), &["NetShareManager"])?;
    check_name("default", file.default.as_deref(), &["single_event_per_row.json"])?;
    check_name(
        "model.class",
        file.model.class.as_deref(),
        &[
            AUTOREGRESSIVE,
            "DoppelGANgerTorchModel",
            "DoppelGANgerTFModel",
            "DoppelGANger",
            "doppelganger",
        ],
    )?;
    let is_autoregressive = file.model.class.as_deref() == Some(AUTOREGRESSIVE);
    let kind = match global.dataset_type.as_deref() {
        Some("pcap") => TraceKind::Packets,
        Some("netflow") => TraceKind::Netflow,
        _ => TraceKind::Custom,
    };
    let Some(timestamp) = fields.timestamp.clone() else {
        return Err(value(
            "pre_post_processor.config.timestamp",
            "missing; every trace needs the column of its times",
        ));
    };
    check_fields(fields)?;
    if let Some(seconds) = fields.idle_timeout
        && !(seconds > 0.0 && seconds.is_finite())
    {
        return Err(value("idle_timeout", &format!("{seconds} is not a time above 0")));
    }
    if fields.max_flow_len == Some(0) {
        return Err(value("max_flow_len", "0 records make no flow; expected 1 or more, or null"));
    }
    let flow = fields.flow.unwrap_or(FlowKind::Unidirectional);
    if flow == FlowKind::Conversation && kind != TraceKind::Packets {
        return Err(value("flow", "`conversation` needs packets: `dataset_type` must be `pcap`"));
    }
    let config = &file.model.config;
    let manager = &file.model_manager.config;
    if manager.skip_chunk0_train == Some(true) && manager.pretrain_dir.is_none() {
        return Err(value("skip_chunk0_train", "there is no `pretrain_dir` to take weights from"));
    }
    if config.epoch_checkpoint_freq == Some(0) {
        return Err(value("epoch_checkpoint_freq", "0 epochs are no interval"));
    }
    let mut notices = Vec::new();
    note_ineffective(file, &mut notices);
    let length = match (config.epochs, config.iteration) {
        (Some(epochs), iteration) => {
            if iteration.is_some() {
                note(&mut notices, &["iteration"], "`epochs` is given");
            }
            TrainingLength::Epochs(epochs)
        }
        (None, iterations) => TrainingLength::Iterations(iterations.unwrap_or(DEFAULT_ITERATIONS)),
    };
    let autoregressive = AutoregressiveConfig::resolve(config)?;
    Ok(Resolved {
        input: global.original_data_file.as_ref().map(|path| folder.join(path)),
        overwrite: global.overwrite == Some(true),
        kind,
        timestamp,
        flow,
        idle_timeout: fields.idle_timeout,
        max_flow_len: fields.max_flow_len,
        chunks: chunking::resolve(file, &mut notices)?,
        pretrain_dir: manager.pretrain_dir.as_ref().map(|path| folder.join(path)),
        skip_chunk0_train: manager.skip_chunk0_train == Some(true),
        epoch_checkpoint_freq: config.epoch_checkpoint_freq,
        self_norm: config.self_norm == Some(true),
        vec_size: fields.word2vec.vec_size.unwrap_or(DEFAULT_VEC_SIZE),
        pretrained: fields.word2vec.pretrain_model_path.as_ref().map(|path| folder.join(path)),
        missing_values: fields
            .missing_values
            .clone()
            .unwrap_or_else(|| MISSING_VALUES.map(str::to_owned).to_vec()),
        metadata: fields.metadata.clone(),
        timeseries: fields.timeseries.clone(),
        autoregressive: is_autoregressive.then(|| autoregressive.clone()),
        as_autoregressive: autoregressive,
        model: resolve_model(config, &mut notices)?,
        length,
        notices,
    })
}

impl Resolved {
    /// Which networks are trained.
    #[must_use]
    pub fn class(&self) -> ModelClass {
        match self.autoregressive {
            Some(_) => ModelClass::Autoregressive,
            None => ModelClass::Doppelganger,
        }
    }

    /// What has no effect, on the class that is trained.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        let mut notices = self.notices.clone();
        if self.autoregressive.is_some() {
            let keys = present(&[
                ("n_chunks", self.chunks.n_chunks > 1),
                ("self_norm", self.self_norm),
                ("pretrain_dir", self.pretrain_dir.is_some()),
                ("skip_chunk0_train", self.skip_chunk0_train),
                ("epoch_checkpoint_freq", self.epoch_checkpoint_freq.is_some()),
            ]);
            note(
                &mut notices,
                &keys,
                "an autoregressive model is trained, on the whole span at once",
            );
        }
        notices
    }

    /// Trains other networks than the file says.
    pub fn set_class(&mut self, class: ModelClass) {
        match class {
            ModelClass::Doppelganger => self.autoregressive = None,
            ModelClass::Autoregressive => {
                let config = &self.as_autoregressive;
                self.autoregressive.get_or_insert_with(|| config.clone());
            }
        }
    }

    /// Whether flows of both IP versions need a field that says which: they have addresses,
    /// and nothing else says it.
    #[must_use]
    pub(crate) fn lacks_version(&self) -> bool {
        use packet_field::{DST_IP, SRC_IP, VERSION};
        let mut fields = self.metadata.iter().chain(&self.timeseries);
        self.kind == TraceKind::Packets
            && self.metadata.iter().any(|field| [SRC_IP, DST_IP].contains(&field.column.as_str()))
            && fields.all(|field| field.column != VERSION)
    }

    /// The same with the field that a trace has beyond those of the file: the version of
    /// packets of both.
    #[must_use]
    pub(crate) fn of_trace(&self, trace: &Trace) -> Resolved {
        let mut config = self.clone();
        if self.lacks_version() && trace.column(packet_field::VERSION).is_some() {
            let version = FieldConfig::new(packet_field::VERSION, FieldType::Integer);
            let encoding = Some("categorical".to_owned());
            config.metadata.push(FieldConfig { encoding, ..version });
        }
        config
    }

    /// Passes over the flows, instead of those of the file.
    pub fn set_epochs(&mut self, epochs: u64) {
        self.length = TrainingLength::Epochs(epochs);
        self.as_autoregressive.epochs = Some(epochs);
        if let Some(autoregressive) = &mut self.autoregressive {
            autoregressive.epochs = Some(epochs);
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

pub(super) fn value(key: &str, reason: &str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), reason: reason.to_owned() }
}

fn check_name(key: &str, found: Option<&str>, known: &[&str]) -> Result<(), ConfigError> {
    match found {
        Some(found) if !known.contains(&found) => {
            Err(value(key, &format!("`{found}` is not known; expected `{}`", known.join("` or `"))))
        }
        _ => Ok(()),
    }
}

fn check_fields(fields: &FieldsConfig) -> Result<(), ConfigError> {
    if let Some(encoding) = fields.timestamp.as_ref().and_then(|time| time.gap_encoding.as_deref())
        && !matches!(encoding, "float" | "quantile" | "log_quantile")
    {
        let reason = format!("`{encoding}` is not `float`, `quantile` or `log_quantile`");
        return Err(value("timestamp.gap_encoding", &reason));
    }
    if fields.metadata.is_empty() {
        return Err(value("metadata", "no columns; at least one must name a flow"));
    }
    let mut seen = std::collections::HashSet::new();
    if let Some(timestamp) = &fields.timestamp {
        seen.insert(timestamp.column.as_str());
    }
    let names = fields.metadata.iter().map(|field| (field, true));
    let quantities = fields.timeseries.iter().map(|field| (field, false));
    for (field, is_name) in names.chain(quantities) {
        let wrong = |reason: &str| {
            let (column, reason) = (field.column.clone(), reason.to_owned());
            Err(ConfigError::Column { column, reason })
        };
        if !seen.insert(&field.column) {
            return wrong("is named twice");
        }
        check_encoding(field, is_name).or_else(|reason| wrong(&reason))?;
    }
    Ok(())
}

/// Whether a field's encoding is known and takes its type.
fn check_encoding(field: &FieldConfig, is_name: bool) -> Result<(), String> {
    use FieldType::{Boolean, Datetime, Float, Integer, IpString, Mac, String};
    let Some(encoding) = field.encoding() else {
        return Err(format!("`encoding` is missing; expected {ENCODINGS}"));
    };
    let is_word2vec = |name: &str| name.len() > 9 && name.starts_with("word2vec_");
    match (field.kind, encoding) {
        (_, name) if codec::is_registered(name) => {}
        (Float, "bit" | "octets") => return Err(format!("a float has no encoding `{encoding}`")),
        (String, "bit" | "octets") => {
            return Err("text has no bits; use `categorical`, `topk` or `word2vec_NAME`".to_owned());
        }
        (String, "quantile" | "log_quantile" | "float") => {
            return Err(format!("text has no encoding `{encoding}`; it is for numbers"));
        }
        (IpString | Mac, "quantile" | "log_quantile" | "float") => {
            return Err("an address is a name, not a quantity; use `bit` or `topk`".to_owned());
        }
        (Integer, "bit" | "octets") if is_name && field.n_bits.is_none() => {
            return Err(format!("`{encoding}` needs `n_bits`"));
        }
        (_, "categorical" | "topk" | "bit" | "octets") => {}
        (Integer | Float | Boolean | Datetime, "quantile" | "log_quantile" | "float") => {}
        (_, name) if is_word2vec(name) => {}
        (_, other) => {
            return Err(format!("encoding `{other}` is not known; expected {ENCODINGS}"));
        }
    }
    let fallback = field.fallback.as_deref();
    match (encoding, fallback) {
        (_, None) => {}
        ("topk", Some("bit" | "octets" | "quantile" | "log_quantile" | "float")) => {}
        ("topk", Some(name)) if is_word2vec(name) => {}
        ("topk", Some(other)) => {
            return Err(format!(
                "`fallback` `{other}` is not known; expected `bit`, `octets`, `quantile`, \
                 `log_quantile`, `float` or `word2vec_NAME`"
            ));
        }
        (_, Some(_)) => return Err("`fallback` is for `topk`".to_owned()),
    }
    let has_categories = matches!(encoding, "categorical" | "topk") || is_word2vec(encoding);
    if field.missing == Some(Missing::Category) && !has_categories {
        return Err(format!(
            "`missing`: `{encoding}` has no categories, so \"no value\" cannot be one; use \
             \"indicator\""
        ));
    }
    Ok(())
}

pub(super) fn note(notices: &mut Vec<Notice>, keys: &[&str], reason: &'static str) {
    if !keys.is_empty() {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        notices.push(Notice { keys, reason });
    }
}

/// The keys of a list that are present in the file.
pub(super) fn present<'a>(keys: &[(&'a str, bool)]) -> Vec<&'a str> {
    keys.iter().filter(|(_, present)| *present).map(|(key, _)| *key).collect()
}

fn note_ineffective(file: &ConfigFile, notices: &mut Vec<Notice>) {
    let global = &file.global_config;
    let fields = &file.pre_post_processor.config;
    let manager = &file.model_manager.config;
    let model = &file.model.config;
    let columns = || fields.metadata.iter().chain(&fields.timeseries);
    let mut group = |keys: &[(&str, bool)], reason: &'static str| {
        note(notices, &present(keys), reason);
    };
    group(
        &[
            ("allowed_data_types", global.allowed_data_types.is_some()),
            ("allowed_data_encodings", global.allowed_data_encodings.is_some()),
        ],
        "every field's own `type` and `encoding` are checked",
    );
    group(
        &[(
            "timestamp.generation",
            fields.timestamp.as_ref().is_some_and(|time| time.generation == Some(false)),
        )],
        "records always have a time",
    );
    group(
        &[
            ("word2vec.model_name", fields.word2vec.model_name.is_some()),
            ("word2vec.annoy_n_trees", fields.word2vec.annoy_n_trees.is_some()),
        ],
        "vectors lie in the bundle and the nearest is found exactly",
    );
    group(
        &[("norm_option", fields.norm_option.is_some_and(|option| option != 0))],
        "each field's own `normalization` and `log1p_norm` are used",
    );
    group(
        &[("categorical_mapping", columns().any(|field| field.categorical_mapping == Some(true)))],
        "`bit` encodes the number itself",
    );
    group(&[("run", manager.run.is_some())], "`--out` tells runs apart");
    group(
        &[
            ("vis_freq", model.vis_freq.is_some()),
            ("vis_num_sample", model.vis_num_sample.is_some()),
            ("extra_checkpoint_freq", model.extra_checkpoint_freq.is_some()),
            ("debug", model.debug.is_some()),
        ],
        "`metrics.jsonl` and checkpoints tell how training goes; `--held-out` judges samples",
    );
    group(&[("num_cores", model.num_cores.is_some())], "`--threads` says how many threads to use");
    group(
        &[
            ("noise", model.noise == Some(true)),
            ("attr_noise_type", model.attr_noise_type.as_deref() == Some("normal")),
            ("feature_noise_type", model.feature_noise_type.as_deref() == Some("normal")),
            ("combined_disc", model.combined_disc.is_some()),
            ("scale", model.scale.is_some()),
            ("sn_mode", model.sn_mode.is_some()),
            ("rnn_mlp_num_layers", model.rnn_mlp_num_layers.is_some()),
            ("fix_feature_network", model.fix_feature_network.is_some()),
        ],
        "NetShare's PyTorch model does not read it, or has no other way",
    );
    group(
        &[("use_adaptive_rolling", model.use_adaptive_rolling.is_some())],
        "generation always rolls a flow until it ends",
    );
    group(
        &[
            ("use_gt_lengths", model.use_gt_lengths.is_some()),
            ("use_uniform_lengths", model.use_uniform_lengths.is_some()),
        ],
        "a flow's length is generated with it",
    );
    group(
        &[
            ("dp_noise_multiplier", model.dp_noise_multiplier.is_some()),
            ("dp_l2_norm_clip", model.dp_l2_norm_clip.is_some()),
        ],
        "`dp` is false",
    );
}

fn resolve_model(
    config: &ModelConfig,
    notices: &mut Vec<Notice>,
) -> Result<DoppelgangerConfig, ConfigError> {
    let d = DoppelgangerConfig::default();
    refuse("feed_back", config.feed_back == Some(true), "the generator has no feedback")?;
    refuse("noise", config.noise == Some(false), "a generator without noise repeats itself")?;
    let layers = config.generator_feature_num_layers;
    refuse(
        "generator_feature_num_layers",
        layers.is_some_and(|layers| layers != 1),
        "the generator has one LSTM layer",
    )?;
    check_name("attr_noise_type", config.attr_noise_type.as_deref(), &["normal"])?;
    check_name("feature_noise_type", config.feature_noise_type.as_deref(), &["normal"])?;
    let c = config;
    let initial_state = choose(
        ("initial_state", &c.initial_state),
        d.initial_state,
        [("random", InitialState::Normal), ("zero", InitialState::Zero)],
    )?;
    let gp_at = choose(
        ("gp_at", &c.gp_at),
        d.gp_at,
        [("interpolate", GradientPenaltyAt::Interpolate), ("fake", GradientPenaltyAt::Fake)],
    )?;
    let noise_draw = choose(
        ("noise_draw", &c.noise_draw),
        d.noise_draw,
        [("per_iteration", NoiseDraw::PerIteration), ("per_round", NoiseDraw::PerRound)],
    )?;
    let discretize = choose(
        ("discretize", &c.discretize),
        d.discretize,
        [("argmax", Discretize::Argmax), ("sample", Discretize::Sample)],
    )?;
    let model = DoppelgangerConfig {
        batch_size: c.batch_size.unwrap_or(d.batch_size),
        sample_len: c.sample_len.unwrap_or(d.sample_len),
        d_rounds: c.d_rounds.unwrap_or(d.d_rounds),
        g_rounds: c.g_rounds.unwrap_or(d.g_rounds),
        num_packing: c.num_packing.unwrap_or(d.num_packing),
        g_lr: c.g_lr.unwrap_or(d.g_lr),
        d_lr: c.d_lr.unwrap_or(d.d_lr),
        attr_d_lr: c.attr_d_lr.unwrap_or(d.attr_d_lr),
        g_beta1: c.g_beta1.unwrap_or(d.g_beta1),
        d_beta1: c.d_beta1.unwrap_or(d.d_beta1),
        attr_d_beta1: c.attr_d_beta1.unwrap_or(d.attr_d_beta1),
        d_gp_coe: c.d_gp_coe.unwrap_or(d.d_gp_coe),
        attr_d_gp_coe: c.attr_d_gp_coe.unwrap_or(d.attr_d_gp_coe),
        g_attr_d_coe: c.g_attr_d_coe.unwrap_or(d.g_attr_d_coe),
        adam_eps: c.adam_eps.unwrap_or(d.adam_eps),
        adam_amsgrad: c.adam_amsgrad.unwrap_or(d.adam_amsgrad),
        generator_feature_num_units: c
            .generator_feature_num_units
            .unwrap_or(d.generator_feature_num_units),
        generator_attribute_num_layers: c
            .generator_attribute_num_layers
            .unwrap_or(d.generator_attribute_num_layers),
        generator_attribute_num_units: c
            .generator_attribute_num_units
            .unwrap_or(d.generator_attribute_num_units),
        discriminator_num_layers: c.discriminator_num_layers.unwrap_or(d.discriminator_num_layers),
        discriminator_num_units: c.discriminator_num_units.unwrap_or(d.discriminator_num_units),
        attr_discriminator_num_layers: c
            .attr_discriminator_num_layers
            .unwrap_or(d.attr_discriminator_num_layers),
        attr_discriminator_num_units: c
            .attr_discriminator_num_units
            .unwrap_or(d.attr_discriminator_num_units),
        use_attr_discriminator: c.use_attr_discriminator.unwrap_or(d.use_attr_discriminator),
        attribute_latent_dim: c.attribute_latent_dim.unwrap_or(d.attribute_latent_dim),
        feature_latent_dim: c.feature_latent_dim.unwrap_or(d.feature_latent_dim),
        initial_state,
        gp_at,
        noise_draw,
        discretize,
        generator_ema: c.generator_ema.unwrap_or(d.generator_ema),
        leaky_relu: c.leaky_relu.unwrap_or(d.leaky_relu),
    };
    model.validate()?;
    if c.noise_draw.is_some() && model.d_rounds == 1 {
        note(notices, &["noise_draw"], "an iteration has one critic round (`d_rounds`)");
    }
    Ok(model)
}

/// What a key's word stands for.
fn choose<T: Copy>(
    (key, found): (&str, &Option<String>),
    default: T,
    known: [(&str, T); 2],
) -> Result<T, ConfigError> {
    check_name(key, found.as_deref(), &known.map(|(name, _)| name))?;
    let chosen = known.iter().find(|(name, _)| found.as_deref() == Some(name));
    Ok(chosen.map_or(default, |&(_, value)| value))
}

fn refuse(key: &str, asked: bool, reason: &str) -> Result<(), ConfigError> {
    if asked { Err(value(key, reason)) } else { Ok(()) }
}
