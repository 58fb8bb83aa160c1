//! The keys of a configuration file: NetShare's, and our own beside them.
//!
//! Every key is optional here. What a missing one means is decided where it is
//! used: in a file, NetShare's default.

use serde::{Deserialize, Serialize};

use ns_model_format::codec::{Choice, Range};
use ns_model_format::schema::TimeUnit;

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// What to read.
    pub global_config: GlobalConfig,
    /// The name of the defaults to start from; NetShare's are built in.
    pub default: Option<String>,
    /// Fields and flows.
    pub pre_post_processor: PrePostProcessor,
    /// How NetShare runs its chunks.
    pub model_manager: ModelManager,
    /// The networks and their training.
    pub model: ModelSection,
}

/// `global_config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GlobalConfig {
    /// Whether a work folder that exists may be written over.
    pub overwrite: Option<bool>,
    /// The input, when `--input` is not given; relative to the file's folder.
    pub original_data_file: Option<String>,
    /// `pcap`, `netflow` or any other word.
    pub dataset_type: Option<String>,
    /// Parts that the trace is cut into along time.
    pub n_chunks: Option<u32>,
    /// Differential privacy.
    pub dp: Option<bool>,
    /// Accepted, without effect.
    pub allowed_data_types: Option<Vec<String>>,
    /// Accepted, without effect.
    pub allowed_data_encodings: Option<Vec<String>>,
}

/// `pre_post_processor`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrePostProcessor {
    /// `NetsharePrePostProcessor`.
    pub class: Option<String>,
    /// Its keys.
    pub config: FieldsConfig,
}

/// `pre_post_processor.config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FieldsConfig {
    /// The time of records.
    pub timestamp: Option<TimestampConfig>,
    /// How word vectors are fitted.
    pub word2vec: Word2VecConfig,
    /// What is fixed in a flow, and names it.
    pub metadata: Vec<FieldConfig>,
    /// What every record has its own of.
    pub timeseries: Vec<FieldConfig>,
    /// What is a flow; ours.
    pub flow: Option<FlowKind>,
    /// Seconds of silence after which a flow with the same metadata is another; ours.
    pub idle_timeout: Option<f64>,
    /// Records after which a flow is cut into segments.
    pub max_flow_len: Option<u32>,
    /// Texts that stand for "no value"; ours.
    pub missing_values: Option<Vec<String>>,
    /// Accepted, without effect.
    pub norm_option: Option<i64>,
    /// How NetShare tags flows that span chunks.
    pub split_name: Option<String>,
    /// How NetShare cuts chunks.
    pub df2chunks: Option<String>,
    /// How NetShare shortens flows.
    pub truncate: Option<String>,
}

/// What is a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowKind {
    /// Records that share the metadata: one direction of a conversation. NetShare's.
    Unidirectional,
    /// Both directions of a 5-tuple, seen from its first sender.
    Conversation,
}

/// `timestamp`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimestampConfig {
    /// The column.
    pub column: String,
    /// Accepted; times are always generated.
    #[serde(default)]
    pub generation: Option<bool>,
    /// What is modelled.
    #[serde(default)]
    pub encoding: Option<TimeEncodingName>,
    /// The interval of the encoded time.
    #[serde(default)]
    pub normalization: Option<Range>,
    /// ln(1 + x) of the microseconds first; ours.
    #[serde(default)]
    pub log1p_norm: Option<bool>,
    /// How the time measurement is encoded: `float`, `quantile` or `log_quantile`; ours.
    #[serde(default)]
    pub gap_encoding: Option<String>,
    /// The column's unit, when its size does not tell; ours.
    #[serde(default)]
    pub unit: Option<TimeUnit>,
}

/// `timestamp.encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeEncodingName {
    /// Gaps within a flow.
    Interarrival,
    /// Positions in the trace.
    Raw,
}

/// `word2vec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Word2VecConfig {
    /// Length of a vector.
    pub vec_size: Option<usize>,
    /// Accepted, without effect.
    pub model_name: Option<String>,
    /// Accepted, without effect.
    pub annoy_n_trees: Option<u32>,
    /// Vectors fitted elsewhere.
    pub pretrain_model_path: Option<String>,
}

/// One entry of `metadata` or `timeseries`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldConfig {
    /// The column.
    pub column: String,
    /// What its cells are.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// `categorical`, `bit`, `word2vec_NAME`; ours: `topk`, `quantile`,
    /// `log_quantile`, `octets`, or one that the program registered. A `float` needs none.
    #[serde(default)]
    pub encoding: Option<String>,
    /// The interval of an encoded float.
    #[serde(default)]
    pub normalization: Option<Range>,
    /// ln(1 + x) first.
    #[serde(default)]
    pub log1p_norm: Option<bool>,
    /// Smallest value, instead of the smallest seen.
    #[serde(default)]
    pub min_x: Option<f64>,
    /// Largest value, instead of the largest seen.
    #[serde(default)]
    pub max_x: Option<f64>,
    /// Width of a `bit` field; if missing, what its type or its largest value needs.
    #[serde(default)]
    pub n_bits: Option<u8>,
    /// How many values a `topk` field holds exactly; ours.
    #[serde(default)]
    pub k: Option<usize>,
    /// How a `topk` field encodes the others; ours.
    #[serde(default)]
    pub fallback: Option<String>,
    /// What becomes of rows without a value; ours.
    #[serde(default)]
    pub missing: Option<Missing>,
    /// What a registered encoding is given; ours.
    #[serde(default)]
    pub options: Option<serde_json::Value>,
    /// The values of a `categorical` field, instead of those seen.
    #[serde(default)]
    pub choices: Option<Vec<Choice>>,
    /// Accepted, without effect.
    #[serde(default)]
    pub categorical_mapping: Option<bool>,
}

impl FieldConfig {
    /// A field with nothing said but its column and type.
    #[must_use]
    pub fn new(column: &str, kind: FieldType) -> FieldConfig {
        FieldConfig {
            column: column.to_owned(),
            kind,
            encoding: None,
            normalization: None,
            log1p_norm: None,
            min_x: None,
            max_x: None,
            n_bits: None,
            k: None,
            fallback: None,
            missing: None,
            options: None,
            choices: None,
            categorical_mapping: None,
        }
    }

    /// The encoding that is given, or that its type has by itself.
    #[must_use]
    pub fn encoding(&self) -> Option<&str> {
        self.encoding.as_deref().or(match self.kind {
            FieldType::Float => Some("float"),
            FieldType::IpString | FieldType::Mac | FieldType::Boolean => Some("bit"),
            FieldType::Datetime => Some("quantile"),
            FieldType::Integer | FieldType::String => None,
        })
    }

    /// NAME, if the encoding or its fallback is `word2vec_NAME`.
    #[must_use]
    pub fn word2vec_name(&self) -> Option<&str> {
        let names = [self.encoding.as_deref(), self.fallback.as_deref()];
        names.into_iter().flatten().find_map(|name| name.strip_prefix("word2vec_"))
    }
}

/// A field's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    /// Whole numbers, dotted IPv4 addresses too.
    Integer,
    /// Numbers.
    Float,
    /// Text.
    String,
    /// IPv4 or IPv6 addresses as text.
    IpString,
    /// Ethernet addresses, six bytes with colons or dashes; ours.
    Mac,
    /// Two words such as `T` and `F`; ours.
    Boolean,
    /// Dates with times; ours.
    Datetime,
}

/// What becomes of rows without a value in a column. Without this key: a
/// category of its own where the encoding has categories, else `indicator`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// "No value" is one more category.
    Category,
    /// One more yes/no output says whether there is a value.
    Indicator,
    /// This stands in its place.
    Constant(serde_json::Value),
    /// The row is left out, and counted.
    Drop,
}

/// `model_manager`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelManager {
    /// `NetShareManager`.
    pub class: Option<String>,
    /// Its keys.
    pub config: ModelManagerConfig,
}

/// `model_manager.config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelManagerConfig {
    /// A model to start from.
    pub pretrain_dir: Option<String>,
    /// Whether the first chunk is taken as trained.
    pub skip_chunk0_train: Option<bool>,
    /// Whether later chunks start from the first.
    pub pretrain_non_dp: Option<bool>,
    /// How much shorter later chunks train.
    pub pretrain_non_dp_reduce_time: Option<f64>,
    /// The same with privacy.
    pub pretrain_dp: Option<bool>,
    /// Accepted, without effect.
    pub run: Option<i64>,
}

/// `model`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// `DoppelGANgerTorchModel`, or ours, `autoregressive`.
    pub class: Option<String>,
    /// Its keys.
    pub config: ModelConfig,
}

/// `model.config`. Where a list stands for a value, it is a grid: [`super::cells`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "NetShare's keys; config/resolve.rs says what each does")]
pub struct ModelConfig {
    pub batch_size: Option<usize>,
    pub sample_len: Option<usize>,
    pub iteration: Option<u64>,
    pub epochs: Option<u64>,
    pub vis_freq: Option<u64>,
    pub vis_num_sample: Option<u64>,
    pub d_rounds: Option<usize>,
    pub g_rounds: Option<usize>,
    pub num_packing: Option<usize>,
    pub noise: Option<bool>,
    pub attr_noise_type: Option<String>,
    pub feature_noise_type: Option<String>,
    pub rnn_mlp_num_layers: Option<usize>,
    pub feed_back: Option<bool>,
    pub g_lr: Option<f64>,
    pub g_beta1: Option<f64>,
    pub d_lr: Option<f64>,
    pub d_beta1: Option<f64>,
    pub d_gp_coe: Option<f64>,
    pub adam_eps: Option<f64>,
    pub adam_amsgrad: Option<bool>,
    pub generator_feature_num_layers: Option<usize>,
    pub generator_feature_num_units: Option<usize>,
    pub generator_attribute_num_layers: Option<usize>,
    pub generator_attribute_num_units: Option<usize>,
    pub discriminator_num_layers: Option<usize>,
    pub discriminator_num_units: Option<usize>,
    pub initial_state: Option<String>,
    pub leaky_relu: Option<bool>,
    pub attr_d_lr: Option<f64>,
    pub attr_d_beta1: Option<f64>,
    pub attr_d_gp_coe: Option<f64>,
    pub g_attr_d_coe: Option<f64>,
    pub attr_discriminator_num_layers: Option<usize>,
    pub attr_discriminator_num_units: Option<usize>,
    pub use_attr_discriminator: Option<bool>,
    pub self_norm: Option<bool>,
    pub fix_feature_network: Option<bool>,
    pub debug: Option<bool>,
    pub combined_disc: Option<bool>,
    pub use_gt_lengths: Option<bool>,
    pub use_uniform_lengths: Option<bool>,
    pub num_cores: Option<usize>,
    pub sn_mode: Option<String>,
    pub scale: Option<f64>,
    pub extra_checkpoint_freq: Option<u64>,
    pub epoch_checkpoint_freq: Option<u64>,
    pub dp_noise_multiplier: Option<f64>,
    pub dp_l2_norm_clip: Option<f64>,
    pub use_adaptive_rolling: Option<bool>,
    pub attribute_latent_dim: Option<usize>,
    pub feature_latent_dim: Option<usize>,
    /// Where the gradient penalty is taken: `interpolate` or `fake`; ours.
    pub gp_at: Option<String>,
    /// When attribute and record noise is drawn anew: `per_iteration`, or for every
    /// critic round, `per_round`; ours.
    pub noise_draw: Option<String>,
    /// Widths of an autoregressive model's networks, its learning rate, and its weight
    /// decay; ours.
    pub attribute_units: Option<usize>,
    pub context_units: Option<usize>,
    pub input_units: Option<usize>,
    pub num_units: Option<usize>,
    pub head_units: Option<usize>,
    pub lr: Option<f64>,
    pub weight_decay: Option<f64>,
    /// Passes over the flows of an autoregressive model, at most; ours.
    pub max_epochs: Option<u64>,
    /// How attributes are made discrete in training: `argmax` or `sample`; ours.
    pub discretize: Option<String>,
    /// Decay an iteration of the moving average of the generator's weights; ours.
    pub generator_ema: Option<f64>,
}
