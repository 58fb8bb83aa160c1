//! `ns-train check`: what an input would teach, before it is trained on.
//!
//! The data requirements of a generative model as findings with numbers: size,
//! order, gaps, constants, imbalance, outliers, and what each encoding loses.

mod cli;
mod loss;

pub use cli::CheckArgs;
pub(crate) use cli::run;
pub use loss::Loss;

use std::collections::BTreeMap;

use ns_model_format::codec::{Choice, Codec, counted};
use ns_model_format::{Column, Field, FieldKind};
use serde::Serialize;

use crate::config::{FieldConfig, Resolved};
use crate::dataset::{Dataset, measured_times};
use crate::encoders::configured;
use crate::ingest::{Trace, TraceColumn};

/// Fewer records rarely make a stable model.
const FEW_RECORDS: usize = 10_000;
const FEW_FLOWS: usize = 500;
/// A column with this share of its rows without a value teaches little.
const MOSTLY_MISSING: f64 = 0.9;
/// A category this frequent leaves too little of the others to be learned.
const IMBALANCED: f64 = 0.99;
/// A category with fewer rows is seldom generated.
const FEW_ROWS: u64 = 10;
/// A field that takes so many outputs outweighs all others.
const MANY_OUTPUTS: usize = 1_000;
/// Values that almost all lie in this share of a linear axis are not told apart.
const CROWDED: f64 = 0.02;
/// A silence of this share of the span is worth knowing about.
const LONG_SILENCE: f64 = 0.25;
/// A decoded value that differs in more of the rows than this is a loss worth knowing about.
const LOSSY: f64 = 0.001;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// The model will be worse for it.
    Warning,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is, one word for programs.
    pub what: &'static str,
    /// The column that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The figure that it rests on.
    pub value: f64,
    /// For people.
    pub message: String,
}

/// What an input holds, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Records that can be used.
    pub records: u64,
    /// Flows that they make.
    pub flows: u64,
    /// Time from the first to the last, in seconds.
    pub span_s: f64,
    /// Records that are not used, by reason.
    pub not_used: BTreeMap<String, u64>,
    /// Values of a flow's encoded attributes.
    pub attribute_values: usize,
    /// Values of an encoded record.
    pub record_values: usize,
    /// Memory that training takes, in bytes, about.
    pub memory_bytes: u64,
    /// What each encoding loses.
    pub fields: Vec<Loss>,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

/// Looks at a trace and at what was made of it.
#[must_use]
pub fn check(trace: &Trace, config: &Resolved, dataset: &Dataset) -> Report {
    let mut findings = Findings::default();
    let firsts: Vec<usize> = trace.flows.iter().map(|flow| flow[0] as usize).collect();
    let schema = &dataset.schema;
    let config = &config.of_trace(trace);
    findings.size(trace);
    findings.time(trace);
    findings.flows(trace, config);
    let mut fields = Vec::new();
    let parts = [
        (&config.metadata, &schema.attributes, Some(&firsts)),
        (&config.timeseries, &schema.measurements, None),
    ];
    for (configs, fitted, rows) in parts {
        for (config, field) in configs.iter().zip(fitted) {
            // The encoders were fitted on these columns.
            let Ok(column) = configured(trace, config) else { continue };
            let column = rows.map_or_else(|| column.clone(), |rows| column.pick(rows));
            findings.column(config, field, &column.column);
            let loss = Loss::of(field, &column, rows.is_some());
            findings.loss(&loss);
            fields.push(loss);
        }
    }
    let time = time_loss(trace, config, dataset);
    findings.loss(&time);
    fields.push(time);
    findings.0.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Report {
        records: trace.times_ns.len() as u64,
        flows: trace.flows.len() as u64,
        span_s: dataset.timeline.arrivals.span_ns() as f64 / 1e9,
        not_used: trace.not_used.clone(),
        attribute_values: schema.attribute_layout().dim(),
        record_values: schema.measurement_layout().dim(),
        memory_bytes: memory(config, dataset),
        fields,
        findings: findings.0,
    }
}

/// What the encoding of times loses, in microseconds.
fn time_loss(trace: &Trace, config: &Resolved, dataset: &Dataset) -> Loss {
    let kind = FieldKind::Float { decimals: 3 };
    let field = Field {
        name: config.timestamp.column.clone(),
        kind: kind.clone(),
        codec: dataset.schema.timestamp.codec.clone(),
        missing: None,
    };
    let chunks = dataset.timeline.chunks();
    let chunk = |row: &u32| chunks.of(trace.times_ns[*row as usize].abs_diff(trace.times_ns[0]));
    let part = |a: &u32, b: &u32| chunk(a) == chunk(b);
    let parts = trace.flows.iter().flat_map(|flow| flow.chunk_by(part));
    let column = measured_times(trace, config, parts);
    Loss::of(&field, &TraceColumn { column, kind, missing: None }, false)
}

/// About what training holds at once: the encoded samples, every network's
/// weights with their gradient and two moments, and a batch on its way through.
fn memory(config: &Resolved, dataset: &Dataset) -> u64 {
    // Chunks are trained one after another, with networks of one size.
    let Some(samples) = dataset.chunks.iter().max_by_key(|samples| samples.bytes()) else {
        return 0;
    };
    let bytes: usize = dataset.chunks.iter().map(crate::train::Samples::bytes).sum();
    let model = &config.model;
    let attributes = samples.attribute_layout.dim() + samples.condition_dim;
    let record = samples.measurement_layout.dim();
    let length = samples.padded_len(model.sample_len);
    let mlp = |inputs: usize, layers: usize, units: usize, outputs: usize| {
        (inputs + units * layers.saturating_sub(2) + outputs) * units
    };
    let sequence = (length * record + attributes) * model.num_packing;
    let hidden = model.generator_feature_num_units;
    let (layers, units) = (model.discriminator_num_layers, model.discriminator_num_units);
    let weights = mlp(sequence, layers, units, 1)
        + mlp(
            attributes * model.num_packing,
            model.attr_discriminator_num_layers,
            model.attr_discriminator_num_units,
            1,
        )
        + mlp(
            model.attribute_latent_dim,
            model.generator_attribute_num_layers,
            model.generator_attribute_num_units,
            attributes,
        )
        + hidden * (4 * (hidden + attributes) + model.sample_len * record);
    let rows = model.batch_size * model.num_packing;
    // Real, generated and interpolated, forward and back.
    let batch = rows * (6 * (length * record + attributes) + 8 * layers * units)
        + rows * length.div_ceil(model.sample_len) * 12 * hidden;
    (bytes + 4 * (4 * weights + batch)) as u64
}

/// Findings as they come.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        what: &'static str,
        column: Option<&str>,
        value: f64,
        message: String,
    ) {
        let column = column.map(str::to_owned);
        self.0.push(Finding { severity, what, column, value, message });
    }

    fn size(&mut self, trace: &Trace) {
        let (records, flows) = (trace.times_ns.len(), trace.flows.len());
        if records < FEW_RECORDS {
            let message = format!(
                "{records} records; at least {FEW_RECORDS} are recommended for a stable model"
            );
            self.add(Severity::Warning, "few_records", None, records as f64, message);
        }
        if flows < FEW_FLOWS {
            let message = format!(
                "{flows} flows; with fewer than {FEW_FLOWS} attributes are learned by heart"
            );
            self.add(Severity::Warning, "few_flows", None, flows as f64, message);
        }
    }

    fn time(&mut self, trace: &Trace) {
        let times = &trace.times_ns;
        let backwards = trace.input_rows.windows(2).filter(|pair| pair[1] < pair[0]).count();
        // Of several files the rows are counted anew, and say nothing about order.
        let last = trace.input_rows.iter().max().copied().unwrap_or(0);
        if backwards > 0 && last >= trace.input_rows.len() as u64 {
            let message = format!("{backwards} records are not in order of time; they are sorted");
            self.add(Severity::Note, "unsorted", None, backwards as f64, message);
        }
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return };
        let span = last.abs_diff(*first) as f64;
        let silence =
            times.windows(2).map(|pair| pair[1].abs_diff(pair[0])).max().unwrap_or(0) as f64;
        if span > 0.0 && silence / span >= LONG_SILENCE {
            let message = format!(
                "one silence of {:.1} s is {:.0}% of the span: two captures in one?",
                silence / 1e9,
                100.0 * silence / span
            );
            self.add(Severity::Warning, "long_silence", None, silence / span, message);
        }
        if span == 0.0 && times.len() > 1 {
            let message = "all records have the same time".to_owned();
            self.add(Severity::Warning, "no_time", None, 0.0, message);
        }
    }

    fn flows(&mut self, trace: &Trace, config: &Resolved) {
        let singles = trace.flows.iter().filter(|flow| flow.len() == 1).count();
        let share = singles as f64 / trace.flows.len() as f64;
        if share > 0.5 {
            let severity = if share > 0.95 { Severity::Warning } else { Severity::Note };
            let message = format!(
                "{:.1}% of the flows have one record: sequences teach little; are all of these \
                 columns needed to name a flow?",
                100.0 * share
            );
            self.add(severity, "singletons", None, share, message);
        }
        let longest = trace.flows.iter().map(Vec::len).max().unwrap_or(0);
        match config.max_flow_len {
            None if longest > 1_000 => {
                let message = format!(
                    "the longest flow has {longest} records, and every sample is as long in \
                     training; set `max_flow_len` to cut it into segments"
                );
                self.add(Severity::Warning, "long_flows", None, longest as f64, message);
            }
            Some(most) if longest > most as usize => {
                let long = trace.flows.iter().filter(|flow| flow.len() > most as usize).count();
                let message = format!(
                    "{long} flows have more than {most} records, the longest {longest}: they are \
                     cut into segments"
                );
                self.add(Severity::Note, "long_flows", None, longest as f64, message);
            }
            _ => {}
        }
    }

    fn column(&mut self, config: &FieldConfig, field: &Field, column: &Column) {
        let name = Some(config.column.as_str());
        let rows = column.len();
        let missing = column.missing.iter().filter(|missing| **missing).count();
        if missing > 0 {
            let share = missing as f64 / rows as f64;
            let severity = if share >= MOSTLY_MISSING { Severity::Warning } else { Severity::Note };
            let message = format!("{missing} of {rows} have no value ({:.1}%)", 100.0 * share);
            self.add(severity, "missing", name, share, message);
        }
        let outputs = field.codec.dim();
        if outputs >= MANY_OUTPUTS {
            let message = format!(
                "takes {outputs} outputs, which outweigh the other fields; `topk` or \
                 `word2vec_NAME` take fewer"
            );
            self.add(Severity::Warning, "many_outputs", name, outputs as f64, message);
        }
        let counts = counted(column);
        if counts.len() == 1 {
            let mut value = String::new();
            match &counts[0].0 {
                Choice::Text(text) => value.push_str(text),
                _ => field.write_text(column.value(0), &mut value),
            }
            let message = format!("has the same value in every row: `{value}`");
            self.add(Severity::Note, "constant", name, 1.0, message);
            return;
        }
        if matches!(field.codec, Codec::Categorical(_)) {
            self.categories(
                name,
                rows,
                &counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(),
            );
        }
        if let Codec::Float(codec) = &field.codec {
            self.outliers(name, codec, column);
        }
    }

    fn categories(&mut self, name: Option<&str>, rows: usize, counts: &[u64]) {
        let most = counts.iter().max().copied().unwrap_or(0) as f64 / rows as f64;
        if most >= IMBALANCED {
            let message = format!(
                "one of {} categories has {:.2}% of the rows; the others may be lost",
                counts.len(),
                100.0 * most
            );
            self.add(Severity::Warning, "imbalance", name, most, message);
        }
        let few = counts.iter().filter(|count| **count < FEW_ROWS).count();
        if few > 0 {
            let message =
                format!("{few} of {} categories have fewer than {FEW_ROWS} rows", counts.len());
            self.add(Severity::Note, "rare_categories", name, few as f64, message);
        }
    }

    /// Whether almost all of a linearly scaled column lies in a sliver of its range.
    fn outliers(
        &mut self,
        name: Option<&str>,
        codec: &ns_model_format::codec::FloatCodec,
        column: &Column,
    ) {
        let mut encoded: Vec<f32> = (0..column.len())
            .filter_map(|row| column.value(row).as_f64())
            .map(|value| codec.encode_number(value))
            .collect();
        encoded.sort_unstable_by(f32::total_cmp);
        let at = |share: f64| encoded[((encoded.len() - 1) as f64 * share) as usize];
        if encoded.is_empty() {
            return;
        }
        let width = f64::from(at(0.995) - at(0.005));
        if width < CROWDED {
            let message = format!(
                "99% of the values lie in {:.2}% of the encoded range: outliers stretch it; \
                 `quantile` or `log1p_norm` keep them apart",
                100.0 * width
            );
            self.add(Severity::Warning, "outliers", name, width, message);
        }
    }

    fn loss(&mut self, loss: &Loss) {
        let changed = 1.0 - loss.exact;
        if changed > LOSSY && loss.relative_error.is_none_or(|error| error.is_nan() || error > 1e-3)
        {
            let message = format!(
                "{:.1}% of the values come out of `{}` changed",
                100.0 * changed,
                loss.encoding
            );
            let name = Some(loss.column.as_str());
            self.add(Severity::Warning, "encoding_loss", name, changed, message);
        }
    }
}

#[cfg(test)]
mod tests;
