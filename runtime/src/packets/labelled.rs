//! Packets that say what their flow was labelled as.

use std::sync::Arc;

use ns_model_format::schema::packet_field;
use ns_model_format::{Field, FieldKind, Schema, Value};

use super::{Frame, PacketFlow, PacketRender};
use crate::render::{FlowEnd, Render};

/// A frame, and the labels of its flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledFrame {
    /// The frame.
    pub frame: Frame,
    /// `name=value`, all labels separated by commas.
    pub labels: Arc<str>,
}

/// Renders packets with their flows' labels: attributes that are words or of a few
/// values, and of which a packet's headers say nothing.
#[derive(Clone, Debug)]
pub struct LabelledRender {
    packets: PacketRender,
    /// Places among the attributes.
    labels: Vec<usize>,
}

impl LabelledRender {
    /// The same packets as `packets` renders; `None` if its schema has no labels.
    #[must_use]
    pub fn new(packets: &PacketRender) -> Option<LabelledRender> {
        let labels = labels(&packets.schema);
        (!labels.is_empty()).then(|| LabelledRender { packets: packets.clone(), labels })
    }
}

fn labels(schema: &Schema) -> Vec<usize> {
    let is_label = |field: &Field| {
        let is_word = matches!(field.kind, FieldKind::Text | FieldKind::Boolean { .. });
        !packet_field::ALL.contains(&field.name.as_str())
            && (is_word || field.codec.choices().is_some())
    };
    let fields = schema.attributes.iter().enumerate();
    fields.filter(|(_, field)| is_label(field)).map(|(at, _)| at).collect()
}

/// What is remembered of a flow, and its labels.
#[derive(Clone, Debug)]
pub struct LabelledFlow {
    flow: PacketFlow,
    labels: Arc<str>,
}

impl Render for LabelledRender {
    type Flow = LabelledFlow;
    type Item = LabelledFrame;

    fn begin_flow(&mut self, flow: u64, attributes: &[Value]) -> LabelledFlow {
        let mut text = String::new();
        for &at in &self.labels {
            let (Some(field), Some(&value)) =
                (self.packets.schema.attributes.get(at), attributes.get(at))
            else {
                continue;
            };
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(&field.name);
            text.push('=');
            field.write_text(value, &mut text);
        }
        LabelledFlow { flow: self.packets.begin_flow(flow, attributes), labels: text.into() }
    }

    fn record(&mut self, flow: &mut LabelledFlow, time_ns: u64, values: &[Value]) -> LabelledFrame {
        let frame = self.packets.record(&mut flow.flow, time_ns, values);
        LabelledFrame { frame, labels: Arc::clone(&flow.labels) }
    }

    fn end_flow(&mut self, flow: LabelledFlow, end: FlowEnd) {
        self.packets.end_flow(flow.flow, end);
    }
}
