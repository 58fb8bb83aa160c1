//! Conditions on what is generated: `dstport=53`, `srcip!=10.0.0.0/8`.
//!
//! A condition is on a value as it is written: a number that a CSV would show
//! as 0.25 is 0.25.

use std::fmt::Write;
use std::str::FromStr;

use ns_model_format::schema::{TraceKind, packet_field};
use ns_model_format::{Field, FieldKind, Schema, Value};

/// Choices that an error lists.
const MOST_LISTED: usize = 20;

/// Why a condition cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConditionError {
    /// Not `NAME=VALUE`.
    #[error("`{text}` is no condition: expected `NAME=VALUE` or `NAME!=VALUE`")]
    Syntax {
        /// What was found.
        text: String,
    },
    /// No field of that name.
    #[error(
        "`{condition}`: no field `{name}`; the attributes are {attributes}, the measurements \
             {measurements}"
    )]
    NoField {
        /// The condition.
        condition: String,
        /// The name.
        name: String,
        /// The names of the attributes.
        attributes: String,
        /// The names of the measurements.
        measurements: String,
    },
    /// The field cannot have such a value.
    #[error("`{condition}`: {reason}")]
    Value {
        /// The condition.
        condition: String,
        /// What is wrong, and what there is.
        reason: String,
    },
    /// The conditions on a field leave nothing of it.
    #[error("no value of `{field}` meets {conditions}; {values}")]
    Nothing {
        /// The field.
        field: String,
        /// The conditions on it.
        conditions: String,
        /// The values that it can have.
        values: String,
    },
}

/// One condition, as it is written: `NAME=VALUE` or `NAME!=VALUE`.
///
/// VALUE may be a range `LOW-HIGH` where values are numbers and a prefix
/// `10.0.0.0/8` where they are addresses. Several conditions with `=` on a field
/// are alternatives; different fields, and all conditions with `!=`, must hold
/// together.
///
/// ```
/// let condition: ns_runtime::Condition = "dst_port=1024-2047".parse()?;
/// assert_eq!(condition.to_string(), "dst_port=1024-2047");
/// # Ok::<(), ns_runtime::ConditionError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    name: String,
    is_not: bool,
    value: String,
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Condition, ConditionError> {
        let syntax = || ConditionError::Syntax { text: text.to_owned() };
        let (name, value) = text.split_once('=').ok_or_else(syntax)?;
        let (name, is_not) = match name.strip_suffix('!') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() {
            return Err(syntax());
        }
        Ok(Condition { name: name.to_owned(), is_not, value: value.to_owned() })
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{}", self.name, if self.is_not { "!=" } else { "=" }, self.value)
    }
}

/// The field that a name means: its own, else one that differs in case and
/// underscores only, so that `dst_port` is a packet's `dstport`.
pub(crate) fn find_field(names: &[String], name: &str) -> Option<usize> {
    let plain = |name: &str| name.replace('_', "").to_lowercase();
    let exact = names.iter().position(|known| known == name);
    exact.or_else(|| {
        let mut alike = (0..names.len()).filter(|&index| plain(&names[index]) == plain(name));
        let only = alike.next();
        only.filter(|_| alike.next().is_none())
    })
}

/// The cell in the words of the field: a packet's protocol may be named.
pub(crate) fn plain_cell<'a>(schema: &Schema, field: &Field, cell: &'a str) -> &'a str {
    if schema.kind == TraceKind::Packets && field.name == packet_field::PROTO {
        return match cell.to_ascii_lowercase().as_str() {
            "icmp" => "1",
            "icmpv6" | "ipv6-icmp" => "58",
            "tcp" => "6",
            "udp" => "17",
            _ => cell,
        };
    }
    cell
}

/// What a value is compared with.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Whole(i64, i64),
    Wide(u128, u128),
    Real(f64, f64),
    Word(String),
    Missing,
}

impl Test {
    fn new(field: &Field, text: &str) -> Result<Test, String> {
        if let (FieldKind::Ip, Some((address, bits))) = (&field.kind, text.split_once('/')) {
            let expected = || format!("expected a prefix such as `2001:db8::/32`, found `{text}`");
            // A prefix of IPv4 addresses is one of those mapped into IPv6.
            let mapped = if address.contains(':') { 0 } else { 96 };
            let address = ns_model_format::cell::ip(address).ok_or_else(expected)?;
            let bits = bits.parse().ok().map(|bits: u32| bits.saturating_add(mapped));
            let bits = bits.filter(|bits| *bits <= 128).ok_or_else(expected)?;
            let hosts = u128::MAX.checked_shr(bits).unwrap_or(0);
            return Ok(Test::Wide(address & !hosts, address | hosts));
        }
        if let (FieldKind::Ipv4, Some((address, bits))) = (&field.kind, text.split_once('/')) {
            let expected = || format!("expected a prefix such as `10.0.0.0/8`, found `{text}`");
            let address = address.parse::<std::net::Ipv4Addr>().map_err(|_| expected())?;
            let bits = bits.parse().ok().filter(|bits| *bits <= 32).ok_or_else(expected)?;
            let hosts = u32::MAX.checked_shr(bits).unwrap_or(0);
            let first = u32::from(address) & !hosts;
            return Ok(Test::Whole(first.into(), (first | hosts).into()));
        }
        let one = field.parse_cell(text);
        // A minus at the beginning is a sign, and so is one after the middle's.
        let middle = || text.get(1..).and_then(|rest| rest.find('-')).map(|at| at + 1);
        if let (Err(reason), Some(middle)) = (&one, middle()) {
            let ends = (field.parse_cell(&text[..middle]), field.parse_cell(&text[middle + 1..]));
            return match ends {
                (Ok(Some(low)), Ok(Some(high))) => match (low, high) {
                    (Value::Int(low), Value::Int(high)) if low <= high => {
                        Ok(Test::Whole(low, high))
                    }
                    (Value::Float(low), Value::Float(high)) if low <= high => {
                        Ok(Test::Real(low, high))
                    }
                    _ => Err(format!("the range `{text}` is empty")),
                },
                _ => Err(reason.clone()),
            };
        }
        Ok(match one? {
            None => Test::Word(text.to_owned()),
            Some(Value::Missing) => Test::Missing,
            Some(Value::Wide(number)) => Test::Wide(number.into(), number.into()),
            Some(Value::Float(number)) => Test::Real(number, number),
            Some(value) => {
                let number = value.as_i64().unwrap_or(0);
                Test::Whole(number, number)
            }
        })
    }

    fn matches(&self, field: &Field, value: Value) -> bool {
        match (self, value) {
            (Test::Missing, value) => value == Value::Missing,
            (_, Value::Missing) => false,
            (Test::Word(word), Value::Text(index)) => field.codec.word(index) == word,
            (Test::Word(word), value) => {
                let mut text = String::new();
                field.write_text(value, &mut text);
                text == *word
            }
            (_, Value::Text(index)) => {
                field.kind.parse_cell(field.codec.word(index)).is_ok_and(|value| {
                    value.is_some_and(|value| self.matches_number(&field.kind, value))
                })
            }
            (_, value) => self.matches_number(&field.kind, value),
        }
    }

    fn matches_number(&self, kind: &FieldKind, value: Value) -> bool {
        match self {
            Test::Whole(low, high) => {
                value.as_i64().is_some_and(|number| (*low..=*high).contains(&number))
            }
            Test::Wide(low, high) => {
                matches!(value, Value::Wide(number) if (*low..=*high).contains(&number.into()))
            }
            Test::Real(low, high) => {
                let number = as_written(kind, value.as_f64().unwrap_or(f64::NAN));
                (*low..=*high).contains(&number)
            }
            Test::Word(_) | Test::Missing => false,
        }
    }

    /// Whether a value is before all that it holds for, or after: of numbers, in their order.
    fn misses(&self, kind: &FieldKind, value: Value) -> (bool, bool) {
        let outside = match (self, value) {
            (Test::Whole(low, high), value) => value.as_i64().map(|n| (n < *low, n > *high)),
            (Test::Wide(low, high), Value::Wide(number)) => {
                let number = u128::from(number);
                Some((number < *low, number > *high))
            }
            (Test::Real(low, high), value) => {
                value.as_f64().map(|n| as_written(kind, n)).map(|n| (n < *low, n > *high))
            }
            _ => None,
        };
        outside.unwrap_or((false, false))
    }

    /// Whether numbers from `least` to `most` reach into it.
    fn meets(&self, kind: &FieldKind, (least, most): (f64, f64)) -> bool {
        let (least, most) = (as_written(kind, least), as_written(kind, most));
        match self {
            Test::Whole(low, high) => *low as f64 <= most && *high as f64 >= least,
            Test::Real(low, high) => *low <= most && *high >= least,
            // Whether there is a value is not said by bounds.
            Test::Missing => true,
            Test::Wide(..) | Test::Word(_) => false,
        }
    }
}

/// A number with the digits that it is written with.
fn as_written(kind: &FieldKind, number: f64) -> f64 {
    match kind {
        FieldKind::Float { decimals } => {
            let scale = 10_f64.powi(i32::from(*decimals));
            let rounded = (number * scale).round() / scale;
            if rounded.is_finite() { rounded } else { number }
        }
        _ => number.round(),
    }
}

/// All conditions on one field.
#[derive(Clone, Debug)]
pub(crate) struct Clause {
    /// The field's place among the attributes, or the measurements.
    pub(crate) at: usize,
    field: Field,
    any: Vec<Test>,
    none: Vec<Test>,
    /// As they were written.
    of: Vec<Condition>,
}

impl Clause {
    pub(crate) fn matches(&self, value: Value) -> bool {
        let matches = |test: &Test| test.matches(&self.field, value);
        (self.any.is_empty() || self.any.iter().any(matches)) && !self.none.iter().any(matches)
    }

    /// Where among numbers 0 to `last`, whose values ascend, it holds: from and to, ascending.
    pub(crate) fn holds_among(
        &self,
        last: u128,
        value: impl Fn(u128) -> Value,
    ) -> Vec<(u128, u128)> {
        let kind = &self.field.kind;
        // The first for which something is so that is so for all after it.
        let first = |is: &dyn Fn(Value) -> bool| {
            let (mut from, mut to) = (0, last);
            while from < to {
                let middle = from + (to - from) / 2;
                if is(value(middle)) { to = middle } else { from = middle + 1 }
            }
            from
        };
        let mut cuts = vec![0];
        for test in self.any.iter().chain(&self.none) {
            cuts.push(first(&|value| !test.misses(kind, value).0));
            cuts.push(first(&|value| test.misses(kind, value).1));
        }
        // No cut tells the last from those before it where it alone is after.
        cuts.push(last);
        cuts.sort_unstable();
        cuts.dedup();
        let mut found: Vec<(u128, u128)> = Vec::new();
        for (index, &from) in cuts.iter().enumerate() {
            let to = cuts.get(index + 1).map_or(last, |next| next - 1);
            if !self.matches(value(from)) {
                continue;
            }
            match found.last_mut() {
                Some((_, before)) if *before + 1 == from => *before = to,
                _ => found.push((from, to)),
            }
        }
        found
    }

    /// What an error says where a field has no such value, of those that it has.
    pub(crate) fn not_known(&self, known: &[Value]) -> ConditionError {
        let values = match self.any.first() {
            // What is left out is all that there is.
            None => self.what_there_is(),
            Some(test) => {
                let missed = |value: &Value| test.misses(&self.field.kind, *value);
                let order = |a: &&Value, b: &&Value| {
                    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
                    number(a).total_cmp(&number(b))
                };
                let below = known.iter().filter(|value| missed(value).0).max_by(order);
                let above = known.iter().filter(|value| missed(value).1).min_by(order);
                let shown: Vec<String> = below
                    .into_iter()
                    .chain(above)
                    .map(|value| format!("`{}`", self.show(*value)))
                    .collect();
                let name = self.name();
                match shown.is_empty() {
                    true => self.what_there_is(),
                    false => format!("the nearest of `{name}` are {}", shown.join(" and ")),
                }
            }
        };
        ConditionError::Nothing { field: self.name().to_owned(), conditions: self.list(), values }
    }

    /// The conditions as they were written.
    pub(crate) fn list(&self) -> String {
        let texts: Vec<String> = self.of.iter().map(|condition| format!("`{condition}`")).collect();
        texts.join(", ")
    }

    /// The field's name.
    pub(crate) fn name(&self) -> &str {
        &self.field.name
    }

    /// A value of the field as it is written.
    pub(crate) fn show(&self, value: Value) -> String {
        let mut text = String::new();
        self.field.write_text(value, &mut text);
        text
    }

    fn add(&mut self, schema: &Schema, condition: &Condition) -> Result<(), ConditionError> {
        let fail = |reason| ConditionError::Value { condition: condition.to_string(), reason };
        self.of.push(condition.clone());
        let cell = plain_cell(schema, &self.field, &condition.value);
        let test = Test::new(&self.field, cell).map_err(fail)?;
        if condition.is_not {
            self.none.push(test);
            return Ok(());
        }
        let possible = test == Test::Missing && self.field.codec.takes_missing();
        let possible = possible
            || match (self.field.codec.choices(), self.field.codec.bounds()) {
                (Some(_), _) => self.values().any(|value| test.matches(&self.field, value)),
                (_, Some(bounds)) => test.meets(&self.field.kind, bounds),
                _ => true,
            };
        if !possible {
            return Err(fail(self.what_there_is()));
        }
        self.any.push(test);
        Ok(())
    }

    /// The values that the field can have, where they are listed.
    fn values(&self) -> impl Iterator<Item = Value> {
        let choices = self.field.codec.choices().unwrap_or_default();
        choices.iter().zip(0..).map(|(choice, index)| match choice {
            ns_model_format::codec::Choice::Int(number) => Value::Int(*number),
            ns_model_format::codec::Choice::Text(_) => Value::Text(index),
            ns_model_format::codec::Choice::Wide(number) => Value::Wide(*number),
            ns_model_format::codec::Choice::Missing => Value::Missing,
        })
    }

    fn what_there_is(&self) -> String {
        let name = &self.field.name;
        if let (None, Some((least, most))) = (self.field.codec.choices(), self.field.codec.bounds())
        {
            let show = |number| self.show(Value::Float(number));
            return format!("`{name}` is from {} to {}", show(least), show(most));
        }
        let count = self.values().count();
        let mut text = format!("`{name}` is one of ");
        for (index, value) in self.values().take(MOST_LISTED).enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}`{}`", if index > 0 { ", " } else { "" }, self.show(value));
        }
        if count > MOST_LISTED {
            let _ = write!(text, " and {} more", count - MOST_LISTED);
        }
        text
    }

    fn is_impossible(&self) -> bool {
        self.field.codec.choices().is_some() && !self.values().any(|value| self.matches(value))
    }
}

/// The conditions field by field: those on attributes, those on measurements.
pub(crate) fn clauses(
    schema: &Schema,
    conditions: &[Condition],
) -> Result<(Vec<Clause>, Vec<Clause>), ConditionError> {
    let names = |fields: &[Field]| fields.iter().map(|field| field.name.clone()).collect();
    let (attributes, measurements): (Vec<String>, Vec<String>) =
        (names(&schema.attributes), names(&schema.measurements));
    let all = [attributes.clone(), measurements.clone()].concat();
    let (mut on_attributes, mut on_measurements) = (Vec::new(), Vec::new());
    for condition in conditions {
        let list = |names: &[String]| match names {
            [] => "none".to_owned(),
            names => format!("`{}`", names.join("`, `")),
        };
        let at = find_field(&all, &condition.name).ok_or_else(|| ConditionError::NoField {
            condition: condition.to_string(),
            name: condition.name.clone(),
            attributes: list(&attributes),
            measurements: list(&measurements),
        })?;
        let (clauses, fields, at) = match at.checked_sub(attributes.len()) {
            None => (&mut on_attributes, &schema.attributes, at),
            Some(at) => (&mut on_measurements, &schema.measurements, at),
        };
        clause_of(clauses, &fields[at], at).add(schema, condition)?;
    }
    match on_attributes.iter().chain(&on_measurements).find(|clause| clause.is_impossible()) {
        Some(clause) => Err(ConditionError::Nothing {
            field: clause.name().to_owned(),
            conditions: clause.list(),
            values: clause.what_there_is(),
        }),
        None => Ok((on_attributes, on_measurements)),
    }
}

/// The clause on a field, a new one if there is none yet.
fn clause_of<'a>(clauses: &'a mut Vec<Clause>, field: &Field, at: usize) -> &'a mut Clause {
    let index = clauses.iter().position(|clause| clause.at == at).unwrap_or_else(|| {
        let (any, none, of) = (Vec::new(), Vec::new(), Vec::new());
        clauses.push(Clause { at, field: field.clone(), any, none, of });
        clauses.len() - 1
    });
    &mut clauses[index]
}

#[cfg(test)]
mod tests {
    use ns_model_format::Column;
    use ns_model_format::codec::{BitCodec, CategoricalCodec, Codec, FloatCodec, FloatOptions};

    use super::*;

    fn field(name: &str, kind: FieldKind) -> Field {
        let codec = match kind {
            FieldKind::Text => {
                let column = Column::texts(name, ["background", "dns"]);
                Codec::Categorical(CategoricalCodec::fit(&column, None).unwrap())
            }
            FieldKind::Float { .. } => {
                let column = Column::floats(name, vec![-2.0, 10.0]);
                Codec::Float(FloatCodec::fit(&column, FloatOptions::default()).unwrap())
            }
            FieldKind::Ipv4 => Codec::Bit(BitCodec::new(name, 32).unwrap()),
            _ => Codec::Bit(BitCodec::new(name, 16).unwrap()),
        };
        Field { name: name.to_owned(), kind, codec, missing: None }
    }

    fn schema() -> Schema {
        let bundle =
            crate::testing::bundle(ns_model_format::schema::TimeEncoding::Interarrival, None);
        let mut schema = bundle.manifest().schema.clone();
        schema.kind = TraceKind::Packets;
        schema.attributes = vec![
            field("srcip", FieldKind::Ipv4),
            field("dstport", FieldKind::Integer),
            field("proto", FieldKind::Integer),
        ];
        schema.measurements =
            vec![field("type", FieldKind::Text), field("td", FieldKind::Float { decimals: 2 })];
        schema
    }

    /// Whether the value meets all conditions, which are on one field.
    fn matches(conditions: &[&str], value: Value) -> bool {
        let (attributes, measurements) = try_clauses(conditions).unwrap();
        let all: Vec<Clause> = attributes.into_iter().chain(measurements).collect();
        assert_eq!(all.len(), 1);
        all[0].matches(value)
    }

    fn try_clauses(conditions: &[&str]) -> Result<(Vec<Clause>, Vec<Clause>), ConditionError> {
        let conditions: Result<Vec<Condition>, _> =
            conditions.iter().map(|text| text.parse()).collect();
        clauses(&schema(), &conditions?)
    }

    #[test]
    fn values_ranges_and_prefixes_match() {
        assert!(matches(&["dst_port=53"], Value::Int(53)));
        assert!(!matches(&["dstport=53"], Value::Int(54)));
        assert!(matches(&["DSTPORT=53", "dstport=80"], Value::Int(80)));
        assert!(matches(&["dstport=1024-2047"], Value::Int(1024)));
        assert!(!matches(&["dstport=1024-2047"], Value::Int(2048)));
        assert!(!matches(&["dstport!=53"], Value::Int(53)));
        assert!(!matches(&["dstport=1-100", "dstport!=53"], Value::Int(53)));
        assert!(matches(&["src_ip=10.0.0.0/8"], Value::Int(0x0aff_ffff)));
        assert!(!matches(&["srcip=10.0.0.0/8"], Value::Int(0x0b00_0000)));
        assert!(matches(&["srcip=0.0.0.0/0"], Value::Int(0xffff_ffff)));
        assert!(matches(&["srcip=10.0.0.1/32"], Value::Int(0x0a00_0001)));
        assert!(matches(&["srcip=10.0.0.1-10.0.0.9"], Value::Int(0x0a00_0005)));
        assert!(matches(&["proto=UDP"], Value::Int(17)));
        assert!(matches(&["type=dns"], Value::Text(1)));
        assert!(matches(&["type!=dns"], Value::Text(0)));
        assert!(matches(&["td=0.25"], Value::Float(0.251)));
        assert!(matches(&["td=-2--1"], Value::Float(-1.5)));
        assert!(!matches(&["td=-2--1"], Value::Float(-0.5)));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_there_is() {
        let error = |conditions: &[&str]| try_clauses(conditions).unwrap_err().to_string();
        assert_eq!(error(&["dstport=70000"]), "`dstport=70000`: `dstport` is from 0 to 65535");
        assert_eq!(error(&["type=web"]), "`type=web`: `type` is one of `background`, `dns`");
        assert_eq!(error(&["td=11"]), "`td=11`: `td` is from -2 to 10");
        assert_eq!(
            error(&["srcip=10.0.0.0/33"]),
            "`srcip=10.0.0.0/33`: expected a prefix such as `10.0.0.0/8`, found `10.0.0.0/33`"
        );
        assert_eq!(
            error(&["dstport=https"]),
            "`dstport=https`: expected a whole number, found `https`"
        );
        assert_eq!(error(&["dstport=9-1"]), "`dstport=9-1`: the range `9-1` is empty");
        assert_eq!(
            error(&["label=x"]),
            "`label=x`: no field `label`; the attributes are `srcip`, `dstport`, `proto`, the \
             measurements `type`, `td`"
        );
        assert_eq!(
            error(&["type!=dns", "type!=background"]),
            "no value of `type` meets `type!=dns`, `type!=background`; `type` is one of \
             `background`, `dns`"
        );
        for wrong in ["dstport", "=5", "!=5", ""] {
            assert!(error(&[wrong]).contains("is no condition"), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-z_]{0,8}!?=?[-0-9./é]{0,12}") {
            let _ = try_clauses(&[&text]);
            let _ = try_clauses(&[&format!("td={text}"), &format!("srcip={text}")]);
        }
    }
}
