//! What a bundle holds, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use ns_model_format::autoregressive::Autoregressive;
use ns_model_format::manifest::Choice;
use ns_model_format::schema::TraceKind;
use ns_model_format::{Bundle, Field};
use serde::Serialize;

use crate::pace::show_duration;
use crate::stats::grouped;

/// A field in a few words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldDescription {
    /// Its name.
    pub name: String,
    /// Its encoder and range.
    pub encoding: String,
}

/// What an autoregressive model draws.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokensDescription {
    /// Width of the LSTM.
    pub hidden: usize,
    /// What is drawn once a flow, in order.
    pub variables: Vec<TokenCount>,
    /// What is drawn for every record, in order.
    pub heads: Vec<TokenCount>,
}

/// Something that is drawn, and how many tokens it has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenCount {
    /// Its name.
    pub name: String,
    /// Its tokens.
    pub tokens: usize,
}

impl TokensDescription {
    fn new(model: &Autoregressive) -> TokensDescription {
        let count = |name: &str, tokens| TokenCount { name: name.to_owned(), tokens };
        TokensDescription {
            hidden: model.hidden,
            variables: model.attributes.iter().map(|v| count(&v.name, v.size)).collect(),
            heads: model.heads.iter().map(|head| count(&head.name, head.size)).collect(),
        }
    }
}

/// What `--describe` tells of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
    /// The bundle's format version.
    pub format: u32,
    /// What a record is.
    pub kind: TraceKind,
    /// Whether flows hold both directions.
    pub conversations: bool,
    /// The columns of a CSV.
    pub columns: Vec<String>,
    /// Fields fixed in a flow.
    pub attributes: Vec<FieldDescription>,
    /// Fields of every record, the time first.
    pub measurements: Vec<FieldDescription>,
    /// When the trained span began, RFC 3339.
    pub begins: String,
    /// Length of the trained span in seconds.
    pub span_s: f64,
    /// Flows that the model learned from.
    pub flows: u64,
    /// Records that the model learned from.
    pub records: u64,
    /// Flows that start in a second, on average over the span.
    pub flows_per_s: f64,
    /// Records in a flow, on average.
    pub records_per_flow: f64,
    /// The model class.
    pub model_class: String,
    /// Chunks of the span with networks of their own.
    pub chunks: usize,
    /// Whether flows go on from chunk to chunk.
    pub flows_span_chunks: bool,
    /// Records that one step of the networks yields.
    pub records_per_step: usize,
    /// What is drawn, if the model is autoregressive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokensDescription>,
    /// Sizes of all files in bytes.
    pub files: BTreeMap<String, u64>,
    /// The program that trained it.
    pub trainer: String,
    /// The source revision of that program.
    pub revision: Option<String>,
    /// The input's file name.
    pub input: String,
    /// SHA-256 of the input.
    pub input_sha256: String,
    /// The seed of training.
    pub seed: u64,
    /// Iterations of training.
    pub iterations: u64,
    /// Input records that were not used, by reason.
    pub not_used: BTreeMap<String, u64>,
    /// The privacy budget spent, if training was private.
    pub privacy: Option<serde_json::Value>,
    /// How the model was chosen, if flows were held out to choose it by.
    pub choice: Option<Choice>,
    /// What happened in training.
    pub events: Vec<String>,
}

impl Description {
    /// Describes a bundle.
    #[must_use]
    pub fn new(bundle: &Bundle) -> Description {
        let manifest = bundle.manifest();
        let (schema, timeline) = (&manifest.schema, &manifest.timeline);
        let describe = |field: &Field| FieldDescription {
            name: field.name.clone(),
            encoding: field.codec.describe(),
        };
        let time = &schema.timestamp.codec;
        let time = FieldDescription {
            name: schema.timestamp.column.clone(),
            encoding: format!("{} (us)", time.describe()),
        };
        let span_s = timeline.arrivals.span_ns() as f64 / 1e9;
        let provenance = manifest.provenance.clone();
        Description {
            format: manifest.format,
            kind: schema.kind,
            conversations: schema.conversations,
            columns: schema.columns.clone(),
            attributes: schema.attributes.iter().map(describe).collect(),
            measurements: std::iter::once(time)
                .chain(schema.measurements.iter().map(describe))
                .collect(),
            begins: show_time(timeline.origin_ns),
            span_s,
            flows: timeline.flows,
            records: timeline.records,
            flows_per_s: timeline.flows as f64 / span_s.max(1e-9),
            records_per_flow: timeline.records as f64 / timeline.flows.max(1) as f64,
            model_class: manifest.model.class.clone(),
            chunks: manifest.timeline.chunks().count(),
            flows_span_chunks: schema.spanning.is_some(),
            records_per_step: manifest.model.chunks.first().map_or(1, |c| c.step.layout.repeat),
            tokens: manifest.model.autoregressive.as_ref().map(TokensDescription::new),
            files: manifest.files.iter().map(|(name, file)| (name.clone(), file.bytes)).collect(),
            trainer: provenance.trainer,
            revision: provenance.revision,
            input: provenance.input,
            input_sha256: provenance.input_sha256,
            seed: provenance.seed,
            iterations: provenance.iterations,
            not_used: provenance.not_used,
            privacy: provenance.privacy,
            choice: provenance.choice,
            events: provenance.events,
        }
    }

    /// A table for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let kind = match (self.kind, self.conversations) {
            (TraceKind::Packets, true) => "packets, flows are conversations".to_owned(),
            (TraceKind::Packets, false) => "packets, flows have one direction".to_owned(),
            (TraceKind::Netflow, _) => "NetFlow records".to_owned(),
            _ => "rows of a schema of its own".to_owned(),
        };
        let model = match &self.tokens {
            Some(tokens) => format!("{}, LSTM of {}", self.model_class, tokens.hidden),
            None => format!(
                "{}, {} chunk(s){}, {} record(s) a step",
                self.model_class,
                self.chunks,
                if self.flows_span_chunks { " that flows span" } else { "" },
                self.records_per_step
            ),
        };
        let span = format!("{} from {}", show_duration(self.span_s), self.begins);
        let flows = format!(
            "{} ({:.1}/s), {:.1} records each, {} records",
            grouped(self.flows),
            self.flows_per_s,
            self.records_per_flow,
            grouped(self.records),
        );
        let revision = self.revision.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
        let trainer = format!("{}{revision}", self.trainer);
        let training = format!("{} iterations, seed {}", grouped(self.iterations), self.seed);
        let privacy = self.privacy.as_ref().map_or("none".to_owned(), ToString::to_string);
        let digest = self.input_sha256.get(..16).unwrap_or(&self.input_sha256);
        let input = format!("{} (sha256 {digest}...)", self.input);
        let format = self.format.to_string();
        let rows = [
            ("holds", &kind),
            ("trained span", &span),
            ("flows", &flows),
            ("model", &model),
            ("trained on", &input),
            ("trained by", &trainer),
            ("training", &training),
            ("privacy", &privacy),
            ("format", &format),
        ];
        // Writing to a String cannot fail.
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<14}{value}");
        }
        for (title, fields) in
            [("fixed in a flow", &self.attributes), ("of every record", &self.measurements)]
        {
            let _ = writeln!(text, "\n{title}:");
            let width = fields.iter().map(|field| field.name.len()).max().unwrap_or(0);
            for FieldDescription { name, encoding } in fields {
                let _ = writeln!(text, "  {name:<width$}  {encoding}");
            }
        }
        let drawn = self.tokens.iter().flat_map(|tokens| {
            [("drawn once a flow", &tokens.variables), ("drawn for every record", &tokens.heads)]
        });
        for (title, drawn) in drawn {
            let _ = writeln!(text, "\n{title}:");
            let width = drawn.iter().map(|drawn| drawn.name.len()).max().unwrap_or(0);
            for TokenCount { name, tokens } in drawn {
                let _ = writeln!(text, "  {name:<width$}  {tokens:>5} tokens");
            }
        }
        let _ = writeln!(text, "\nfiles:");
        let width = self.files.keys().map(String::len).max().unwrap_or(0);
        for (name, bytes) in &self.files {
            let _ = writeln!(text, "  {name:<width$}  {:>12} bytes", grouped(*bytes));
        }
        if !self.not_used.is_empty() {
            let _ = writeln!(text, "\ninput records not used:");
            for (reason, count) in &self.not_used {
                let _ = writeln!(text, "  {reason}: {}", grouped(*count));
            }
        }
        if let Some(choice) = &self.choice {
            let share = 100.0 * choice.held_out_share;
            let records = grouped(choice.held_out_records);
            let _ = writeln!(
                text,
                "\nchosen by {records} records of {share:.1}% of the flows, held out:"
            );
            for candidate in &choice.candidates {
                let r = candidate.median_r.map_or("-".to_owned(), |r| format!("{r:.2}"));
                let iterations = grouped(candidate.iteration);
                let mark = match (candidate.chosen, candidate.collapsed) {
                    (true, _) => "  chosen",
                    (_, true) => "  collapsed",
                    _ => "",
                };
                let cell = &candidate.cell;
                let _ =
                    writeln!(text, "  {cell}  {iterations:>9} iterations  median R {r:>6}{mark}");
            }
        }
        if !self.events.is_empty() {
            let _ = writeln!(text, "\nin training:");
            for event in &self.events {
                let _ = writeln!(text, "  {event}");
            }
        }
        text
    }
}

/// RFC 3339, or the number of nanoseconds for what is before 1970.
pub(crate) fn show_time(time_ns: i64) -> String {
    match u64::try_from(time_ns) {
        Ok(time_ns) => {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(time_ns);
            humantime::format_rfc3339_micros(time).to_string()
        }
        Err(_) => format!("{time_ns} ns"),
    }
}
