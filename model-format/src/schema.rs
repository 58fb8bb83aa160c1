//! The fields of a trace, each with its fitted encoder.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::{Codec, FloatCodec, Word2VecSpace};
use crate::datetime::DatetimeStyle;
use crate::layout::{Activation, Layout, Segment};
use crate::record::Value;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TraceKind {
    /// An IP packet: can go into a PCAP and onto a wire.
    Packets,
    /// A NetFlow-like row: CSV.
    Netflow,
    /// A row of the user's own schema: CSV.
    Custom,
}

/// How a field's values are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FieldKind {
    /// A whole number.
    Integer,
    /// A whole number of 32 bits, written as a dotted IPv4 address.
    Ipv4,
    /// A real number with at most so many decimals.
    Float {
        /// Most digits after the point.
        decimals: u8,
    },
    /// Text.
    Text,
    /// A whole number of 128 bits, written as an IPv6 address; one that is an
    /// IPv4 address mapped into IPv6 (RFC 4291, section 2.5.5.2) is written dotted.
    Ip,
    /// A whole number of 48 bits, written as six bytes with colons.
    Mac,
    /// 0 or 1, written in words.
    Boolean {
        /// The word for 0.
        no: String,
        /// The word for 1.
        yes: String,
    },
    /// Microseconds since 1970, written as a date and time.
    Datetime(DatetimeStyle),
}

/// One field with its encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The column it comes from and goes to; see [`packet_field`] for a
    /// packet trace's.
    pub name: String,
    /// How it is written.
    pub kind: FieldKind,
    /// How it is encoded.
    pub codec: Codec,
    /// How a missing value is written, if any can be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl Field {
    /// Values of its folded form.
    #[must_use]
    pub fn folded_dim(&self) -> usize {
        self.codec.folded_dim()
    }

    /// The smallest difference of two numbers that their text tells.
    #[must_use]
    pub fn tick(&self) -> f64 {
        match self.kind {
            FieldKind::Float { decimals } => 0.1_f64.powi(i32::from(decimals)),
            _ => 1.0,
        }
    }

    /// The value that a cell of text stands for, the reverse of
    /// [`Self::write_text`]; `None` for text, which is itself.
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub fn parse_cell(&self, cell: &str) -> Result<Option<Value>, String> {
        if self.missing.as_deref() == Some(cell) {
            return Ok(Some(Value::Missing));
        }
        self.kind.parse_cell(cell)
    }

    /// Appends a decoded value as text.
    pub fn write_text(&self, value: Value, out: &mut String) {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _ = match (&self.kind, value) {
            (_, Value::Text(index)) => {
                out.push_str(self.codec.word(index));
                Ok(())
            }
            (_, Value::Missing) => {
                out.push_str(self.missing.as_deref().unwrap_or_default());
                Ok(())
            }
            (FieldKind::Ipv4, value) => {
                let address = value.as_i64().unwrap_or(0).clamp(0, i64::from(u32::MAX)) as u32;
                write!(out, "{}", std::net::Ipv4Addr::from(address))
            }
            (FieldKind::Ip, Value::Wide(address)) => {
                write!(out, "{}", crate::cell::ip_address(address.into()))
            }
            (FieldKind::Mac, Value::Int(address)) => {
                let [_, _, a, b, c, d, e, f] = address.to_be_bytes();
                write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
            }
            (FieldKind::Boolean { no, yes }, value) => {
                out.push_str(if value.as_i64() == Some(1) { yes } else { no });
                Ok(())
            }
            (FieldKind::Datetime(style), value) => {
                let time_us = value.as_i64().unwrap_or(0);
                style.write(time_us.saturating_mul(1_000), out);
                Ok(())
            }
            (FieldKind::Float { decimals }, Value::Float(number)) => {
                let scale = 10_f64.powi(i32::from(*decimals));
                let rounded = (number * scale).round() / scale;
                write!(out, "{}", if rounded.is_finite() { rounded } else { number })
            }
            (_, Value::Float(number)) => write!(out, "{}", number.round()),
            (_, Value::Int(number)) => write!(out, "{number}"),
            (_, Value::Wide(number)) => write!(out, "{}", u128::from(number)),
        };
    }
}

/// The names that a packet trace's columns have, NetShare's where it has one.
pub mod packet_field {
    /// Source address.
    pub const SRC_IP: &str = "srcip";
    /// Destination address.
    pub const DST_IP: &str = "dstip";
    /// Source port.
    pub const SRC_PORT: &str = "srcport";
    /// Destination port.
    pub const DST_PORT: &str = "dstport";
    /// IP protocol number.
    pub const PROTO: &str = "proto";
    /// Capture time.
    pub const TIME: &str = "time";
    /// Length of the IP packet in bytes, its headers included.
    pub const LEN: &str = "pkt_len";
    /// IP version.
    pub const VERSION: &str = "version";
    /// Length of the IP headers in 32-bit words.
    pub const IHL: &str = "ihl";
    /// Type of service, or traffic class.
    pub const TOS: &str = "tos";
    /// IP identification; of IPv6 0, or the lower half of a fragment header's.
    pub const ID: &str = "id";
    /// IP flags, three bits: 2 is don't fragment, 1 more fragments.
    pub const FLAG: &str = "flag";
    /// Fragment offset in units of 8 bytes.
    pub const OFF: &str = "off";
    /// Time to live, or hop limit.
    pub const TTL: &str = "ttl";
    /// TCP flags.
    pub const TCP_FLAGS: &str = "tcp_flags";
    /// TCP window.
    pub const TCP_WINDOW: &str = "tcp_window";
    /// Bytes after the transport header.
    pub const PAYLOAD_LEN: &str = "payload_len";
    /// 0: sent by the side that began the conversation, 1: by the other.
    pub const DIRECTION: &str = "direction";
    /// All of them, as far as a configuration may name them.
    pub const ALL: [&str; 18] = [
        SRC_IP,
        DST_IP,
        SRC_PORT,
        DST_PORT,
        PROTO,
        TIME,
        LEN,
        VERSION,
        IHL,
        TOS,
        ID,
        FLAG,
        OFF,
        TTL,
        TCP_FLAGS,
        TCP_WINDOW,
        PAYLOAD_LEN,
        DIRECTION,
    ];
}

/// The unit of a CSV's timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeUnit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
}

impl TimeUnit {
    /// Nanoseconds in one.
    #[must_use]
    pub fn nanoseconds(self) -> i64 {
        match self {
            TimeUnit::Seconds => 1_000_000_000,
            TimeUnit::Milliseconds => 1_000_000,
            TimeUnit::Microseconds => 1_000,
            TimeUnit::Nanoseconds => 1,
        }
    }
}

/// What the time measurement of a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeEncoding {
    /// Microseconds since the flow's previous record, 0 for its first.
    Interarrival,
    /// Microseconds since the trace began. At generation a record is never
    /// earlier than the one before it in its flow.
    Raw,
}

/// The time of records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// The column's name.
    pub column: String,
    /// The column's unit.
    pub unit: TimeUnit,
    /// Digits after the point when written.
    pub decimals: u8,
    /// What the first measurement of every record says.
    pub encoding: TimeEncoding,
    /// Its encoder, in microseconds: a `float` or a `quantile`.
    #[serde(deserialize_with = "time_codec")]
    pub codec: Codec,
    /// How times are written, if as dates; then [`Self::unit`] means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datetime: Option<DatetimeStyle>,
}

/// Bundles of format 1 have a float encoder here, and do not name it.
fn time_codec<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Codec, D::Error> {
    use serde::de::Error;
    let mut codec = serde_json::Map::deserialize(deserializer)?;
    codec.entry("encoding").or_insert_with(|| "float".into());
    serde_json::from_value(codec.into()).map_err(D::Error::custom)
}

impl Timestamp {
    /// The time, in nanoseconds since the epoch, that a cell stands for: a date
    /// where times are written so, else a decimal number in the column's unit,
    /// cut after the nanoseconds.
    #[must_use]
    pub fn parse_text(&self, cell: &str) -> Option<i64> {
        if self.datetime.is_some() {
            return DatetimeStyle::parse(cell).map(|(time_ns, _)| time_ns);
        }
        let (sign, digits) = match cell.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, cell),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let unit = self.unit.nanoseconds();
        let mut time_ns = whole.parse::<i64>().ok()?.checked_mul(unit)?;
        let mut place = unit;
        for digit in fraction.bytes() {
            place /= 10;
            time_ns = time_ns.checked_add(place * i64::from(digit - b'0'))?;
        }
        Some(sign * time_ns)
    }

    /// Appends a time in nanoseconds since the epoch, in the column's unit.
    pub fn write_text(&self, time_ns: i64, out: &mut String) {
        use std::fmt::Write;
        if let Some(style) = &self.datetime {
            return style.write(time_ns, out);
        }
        let unit = self.unit.nanoseconds();
        let sign = if time_ns < 0 { "-" } else { "" };
        let time_ns = time_ns.saturating_abs();
        // Round to the digits that are written.
        let digits = u32::from(self.decimals.min(9));
        let step = (unit / 10_i64.pow(digits)).max(1);
        let time_ns = time_ns.saturating_add(step / 2) / step * step;
        // Writing to a String cannot fail.
        let _ = write!(out, "{sign}{}", time_ns / unit);
        if digits > 0 {
            let fraction = (time_ns % unit) as f64 / unit as f64;
            let _ = write!(out, "{}", &format!("{fraction:.*}", digits as usize)[1..]);
        }
    }
}

/// Flows longer than `max_records` are cut into segments. A segment is told
/// whether it starts its flow (a condition), and says whether the flow goes on
/// after it (one more yes/no attribute, the last).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segmentation {
    /// Records of a full segment.
    pub max_records: u32,
    /// Entry `k`: the share of flows with a segment `k + 1` (counted from 0)
    /// that have a segment `k + 2` too. A first segment's own generated
    /// attribute decides about segment 1; this table decides about the rest,
    /// its last entry for all further.
    pub goes_on: Vec<f32>,
}

/// Flows go on in later chunks of the span. A part of a flow is told whether it
/// starts its flow (a condition), and has one yes/no attribute a chunk: whether
/// the flow has records there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spanning {
    /// How many chunks; as many as the model has.
    pub chunks: u32,
    /// Which parts tell where the flow has records.
    pub tags: SpanTags,
}

/// Which parts of a flow that spans chunks tell where it has records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanTags {
    /// All of them (NetShare's `multichunk_dep_v2`).
    #[default]
    EveryPart,
    /// The one that starts the flow; the others say no for every chunk
    /// (NetShare's `multichunk_dep_v1`).
    FirstPart,
}

/// All fields of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// What a record is.
    pub kind: TraceKind,
    /// The columns of a CSV, in order: names of attributes, measurements and the timestamp.
    pub columns: Vec<String>,
    /// The time of records: the first measurement.
    pub timestamp: Timestamp,
    /// Whether a flow is a conversation, both directions in one
    /// (its measurements then hold [`packet_field::DIRECTION`]).
    pub conversations: bool,
    /// Fixed in a flow.
    pub attributes: Vec<Field>,
    /// One vector a record.
    pub measurements: Vec<Field>,
    /// Whether every float measurement, the time too, is on each flow's own
    /// scale, which two additional attributes a measurement tell: half the sum
    /// and half the difference of its largest and smallest encoded value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub self_norm: bool,
    /// If no two flows that start within one span are to have the same attributes, the one
    /// of these that is drawn again first. Not for an autoregressive model, of which no two
    /// are alike in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<String>,
    /// How long flows were cut, if any were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Segmentation>,
    /// Records of the longest flow in a chunk, if none were cut: a flow ends there, whatever
    /// its flag says. Not for an autoregressive model, which plans how many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest: Option<u32>,
    /// How flows go on from chunk to chunk, if any do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spanning: Option<Spanning>,
    /// The vocabularies of `word2vec_*` fields, by NAME.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub word2vec: BTreeMap<String, Arc<Word2VecSpace>>,
}

impl Schema {
    /// The generated attributes of a flow: all attribute fields in order, then,
    /// where flows were cut, the yes/no "goes on", where flows span chunks, a
    /// yes/no a chunk, then [`Self::additional_layout`].
    #[must_use]
    pub fn attribute_layout(&self) -> Layout {
        let mut segments: Vec<Segment> =
            self.attributes.iter().flat_map(|field| field.codec.segments()).collect();
        if self.segmentation.is_some() {
            segments.push(Segment::new(2, Activation::Softmax));
        }
        let chunks = self.spanning.map_or(0, |spanning| spanning.chunks as usize);
        segments.extend(std::iter::repeat_n(Segment::new(2, Activation::Softmax), chunks));
        segments.extend(self.additional_layout().segments);
        Layout { segments }
    }

    /// Which segments of [`Self::attribute_layout`] are tags: "goes on", where
    /// flows were cut, and one a chunk, where flows span chunks.
    #[must_use]
    pub fn tag_segments(&self) -> (Option<usize>, Range<usize>) {
        let fields: usize = self.attributes.iter().map(|f| f.codec.segments().len()).sum();
        let goes_on = self.segmentation.is_some().then_some(fields);
        let chunks = fields + usize::from(goes_on.is_some());
        let count = self.spanning.map_or(0, |spanning| spanning.chunks as usize);
        (goes_on, chunks..chunks + count)
    }

    /// The additional attributes under [`Self::self_norm`], generated from the
    /// others: two a float measurement, in order.
    #[must_use]
    pub fn additional_layout(&self) -> Layout {
        let segments = self.own_scales().flat_map(|(_, codec)| {
            let middle = Codec::Float(codec.clone()).segments();
            middle.into_iter().chain([Segment::new(1, Activation::Sigmoid)])
        });
        Layout { segments: segments.collect() }
    }

    /// The measurements on a flow's own scale, with where each lies in a folded
    /// record; none without [`Self::self_norm`].
    pub fn own_scales(&self) -> impl Iterator<Item = (usize, &FloatCodec)> {
        let mut offset = 1;
        let fields = self.measurements.iter().filter_map(move |field| {
            let at = offset;
            offset += field.folded_dim();
            match &field.codec {
                Codec::Float(codec) => Some((at, codec)),
                _ => None,
            }
        });
        let time = match &self.timestamp.codec {
            Codec::Float(codec) => Some((0, codec)),
            _ => None,
        };
        let all = time.into_iter().chain(fields);
        all.take(if self.self_norm { usize::MAX } else { 0 })
    }

    /// One record: the time, all measurement fields in order, then the
    /// generation flag, yes if another record follows.
    #[must_use]
    pub fn measurement_layout(&self) -> Layout {
        let mut segments = self.timestamp.codec.segments();
        segments.extend(self.measurements.iter().flat_map(|field| field.codec.segments()));
        segments.push(Segment::new(2, Activation::Softmax));
        Layout { segments }
    }

    /// Values of the condition given to every network beside the attributes:
    /// where the flow's part begins, as a share of the chunk in \[0, 1\]; where
    /// flows were cut, 1 if the segment starts its part, else 0; where flows span
    /// chunks, 1 if the part starts its flow, else 0.
    #[must_use]
    pub fn condition_dim(&self) -> usize {
        1 + usize::from(self.segmentation.is_some()) + usize::from(self.spanning.is_some())
    }

    /// The condition, as [`Self::condition_dim`] says, appended to `out`.
    pub fn write_condition(
        &self,
        position: f32,
        starts_part: bool,
        starts_flow: bool,
        out: &mut Vec<f32>,
    ) {
        out.push(position);
        out.extend(self.segmentation.is_some().then_some(f32::from(starts_part)));
        out.extend(self.spanning.is_some().then_some(f32::from(starts_flow)));
    }

    /// Gives the `word2vec_*` encoders their vocabularies after reading: a bundle does it itself,
    /// whoever reads a schema from elsewhere has to.
    ///
    /// # Errors
    /// A vocabulary is missing, or not such as the encoder needs.
    pub fn link(&mut self) -> Result<(), String> {
        for field in self.attributes.iter_mut().chain(&mut self.measurements) {
            let linked = field.codec.link(&self.word2vec);
            linked.map_err(|e| format!("field `{}`: {e}", field.name))?;
        }
        Ok(())
    }

    /// Checks what a manifest from outside could have wrong.
    pub(crate) fn validate(&self) -> Result<(), String> {
        for field in self.attributes.iter().chain(&self.measurements) {
            field.codec.validate().map_err(|e| format!("field `{}`: {e}", field.name))?;
        }
        self.timestamp.codec.validate().map_err(|e| format!("timestamp: {e}"))?;
        let kinds = self.attributes.iter().chain(&self.measurements).map(|field| &field.kind);
        let styles = kinds.filter_map(|kind| match kind {
            FieldKind::Datetime(style) => Some(style),
            _ => None,
        });
        styles.chain(&self.timestamp.datetime).try_for_each(DatetimeStyle::validate)?;
        if self.timestamp.codec.decode_number(0.0).is_none() {
            return Err("timestamp: its encoder is neither `float` nor `quantile`".to_owned());
        }
        let fields = || {
            let names = self.attributes.iter().chain(&self.measurements).map(|field| &field.name);
            names.chain([&self.timestamp.column])
        };
        if let Some(name) = self.columns.iter().find(|name| !fields().any(|field| field == *name)) {
            return Err(format!("column `{name}` is no field"));
        }
        let mut names: Vec<&String> = fields().collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two fields are named `{}`", pair[0]));
        }
        if let Some(name) = &self.distinct
            && self.attributes.iter().all(|field| field.name != *name)
        {
            return Err(format!("distinct: no attribute is named `{name}`"));
        }
        if self.longest == Some(0) || (self.longest.is_some() && self.segmentation.is_some()) {
            return Err("longest: expected 1 or more, and flows that are not cut".to_owned());
        }
        match &self.segmentation {
            Some(cut)
                if cut.max_records == 0
                    || cut.goes_on.is_empty()
                    || cut.goes_on.iter().any(|share| !(0.0..=1.0).contains(share)) =>
            {
                Err("segmentation is out of range".to_owned())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::FloatOptions;
    use crate::column::Column;

    fn timestamp(unit: TimeUnit, decimals: u8) -> Timestamp {
        let column = Column::floats("ts", vec![0.0, 1.0]);
        Timestamp {
            column: "ts".to_owned(),
            unit,
            decimals,
            encoding: TimeEncoding::Interarrival,
            codec: Codec::Float(FloatCodec::fit(&column, FloatOptions::default()).unwrap()),
            datetime: None,
        }
    }

    #[test]
    fn times_are_written_in_the_column_s_unit() {
        let text = |unit, decimals, time_ns| {
            let mut out = String::new();
            timestamp(unit, decimals).write_text(time_ns, &mut out);
            out
        };
        assert_eq!(text(TimeUnit::Microseconds, 0, 1_458_298_072_364_000_400), "1458298072364000");
        assert_eq!(text(TimeUnit::Seconds, 6, 1_521_911_720_865_716_000), "1521911720.865716");
        assert_eq!(text(TimeUnit::Seconds, 2, 1_999_999_999), "2.00");
        assert_eq!(text(TimeUnit::Milliseconds, 0, 1_600_000), "2");
        assert_eq!(text(TimeUnit::Nanoseconds, 3, 17), "17.000");
        assert_eq!(text(TimeUnit::Seconds, 1, -1_500_000_000), "-1.5");
    }

    #[test]
    fn fields_are_written_by_kind() {
        let float = |decimals| Field {
            name: "x".to_owned(),
            kind: FieldKind::Float { decimals },
            codec: timestamp(TimeUnit::Seconds, 0).codec,
            missing: None,
        };
        let text = |field: &Field, value| {
            let mut out = String::new();
            field.write_text(value, &mut out);
            out
        };
        assert_eq!(text(&float(3), Value::Float(305.635_999_999)), "305.636");
        assert_eq!(text(&float(3), Value::Float(2.0)), "2");
        let address = Field { kind: FieldKind::Ipv4, ..float(0) };
        assert_eq!(text(&address, Value::Int(0x0a00_0001)), "10.0.0.1");
        let integer = Field { kind: FieldKind::Integer, ..float(0) };
        assert_eq!(text(&integer, Value::Float(3.6)), "4");
    }

    #[test]
    fn cells_are_read_as_their_kind() {
        let read = |kind: FieldKind, cell| kind.parse_cell(cell);
        assert_eq!(read(FieldKind::Integer, "-7"), Ok(Some(Value::Int(-7))));
        assert_eq!(read(FieldKind::Integer, "80.0"), Ok(Some(Value::Int(80))));
        let error = "expected a whole number, found `80.5`".to_owned();
        assert_eq!(read(FieldKind::Integer, "80.5"), Err(error));
        assert_eq!(read(FieldKind::Ipv4, "10.0.0.1"), Ok(Some(Value::Int(0x0a00_0001))));
        assert_eq!(read(FieldKind::Ipv4, "167772161"), Ok(Some(Value::Int(0x0a00_0001))));
        assert!(read(FieldKind::Ipv4, "4294967296").is_err());
        let float = FieldKind::Float { decimals: 1 };
        assert_eq!(read(float.clone(), "0.25"), Ok(Some(Value::Float(0.25))));
        assert!(read(float.clone(), "inf").is_err() && read(float, "").is_err());
        assert_eq!(read(FieldKind::Text, "80"), Ok(None));
    }

    #[test]
    fn times_are_read_in_their_unit() {
        let read = |unit, cell: &str| timestamp(unit, 0).parse_text(cell);
        assert_eq!(read(TimeUnit::Seconds, "1.000000001"), Some(1_000_000_001));
        assert_eq!(read(TimeUnit::Milliseconds, "-2.5"), Some(-2_500_000));
        assert_eq!(read(TimeUnit::Nanoseconds, "7.9"), Some(7));
        for wrong in ["", "-", ".5", "1e3", "1.2.3", "+1", "now", "9223372036854775807"] {
            assert_eq!(read(TimeUnit::Seconds, wrong), None, "{wrong}");
        }
    }
}
