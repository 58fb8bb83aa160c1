//! Which flows and records of a run are wanted, and what became of the rest.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use ns_model_format::schema::{TraceKind, packet_field};
use ns_model_format::{FieldKind, Schema, Value, cell};

use crate::condition::{Clause, Condition, ConditionError, clauses};
use crate::error::RuntimeError;

/// Protocols that only one version carries.
const ICMP: i64 = 1;
const ICMPV6: i64 = 58;

/// If none of so many first flows can be drawn, none ever will be.
const FLOWS_DRAWN: u64 = 20;
/// If none of so many first flows has a record that is wanted, none ever will.
const FLOWS_ENDED: u64 = 1_000;
/// Values counted of each of the [`FLOWS_DRAWN`] first flows.
const VALUES_COUNTED: u32 = 1_000;
/// Values that an error lists.
const MOST_LISTED: usize = 5;

/// What a flow of packets must be in any case where there are addresses of both IP
/// versions: of one of them, its addresses, its protocol and the field that says which.
/// Holds where these are attributes.
#[derive(Debug)]
struct OneVersion {
    addresses: Vec<usize>,
    version: Option<usize>,
    protocol: Option<usize>,
}

impl OneVersion {
    fn of(schema: &Schema) -> Option<OneVersion> {
        let find = |name| schema.attributes.iter().position(|field| field.name == name);
        let is_of_both = |at: &usize| schema.attributes[*at].kind == FieldKind::Ip;
        let addresses = [packet_field::SRC_IP, packet_field::DST_IP].map(find);
        let found = OneVersion {
            addresses: addresses.into_iter().flatten().filter(is_of_both).collect(),
            version: find(packet_field::VERSION),
            protocol: find(packet_field::PROTO),
        };
        (schema.kind == TraceKind::Packets && !found.addresses.is_empty()).then_some(found)
    }

    fn holds(&self, values: &[Value]) -> bool {
        let of_address = |at: &usize| match values[*at] {
            Value::Wide(number) => {
                Some(if cell::ip_address(number.into()).is_ipv4() { 4 } else { 6 })
            }
            _ => None,
        };
        let of_protocol = |at: usize| match values[at] {
            Value::Int(ICMP) => Some(4),
            Value::Int(ICMPV6) => Some(6),
            _ => None,
        };
        let said = self.version.and_then(|at| values[at].as_i64());
        let told = said.into_iter().chain(self.protocol.and_then(of_protocol));
        let mut versions = told.chain(self.addresses.iter().filter_map(of_address));
        let first = versions.next();
        versions.all(|version| Some(version) == first)
    }
}

/// The conditions of a run, shared by its workers.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    one_version: Option<OneVersion>,
    attributes: Vec<Clause>,
    measurements: Vec<Clause>,
    tries: u32,
    census: Mutex<Census>,
}

/// What the first flows were like, to say so if none of them was wanted. It is
/// a function of the bundle and the seed, for any number of workers.
#[derive(Debug, Default)]
struct Census {
    given_up: u64,
    without_records: u64,
    /// A clause's index (attributes' first) and a value as written.
    values: HashMap<(usize, String), u64>,
}

impl Selection {
    /// Checks the conditions against what a bundle can generate.
    pub(crate) fn new(
        schema: &Schema,
        conditions: &[Condition],
        tries: u32,
    ) -> Result<Selection, ConditionError> {
        let (attributes, measurements) = clauses(schema, conditions)?;
        let one_version = OneVersion::of(schema);
        Ok(Selection { one_version, attributes, measurements, tries, census: Mutex::default() })
    }

    /// Times that a flow's attributes are drawn at most.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether flows may be drawn that are of both IP versions.
    pub(crate) fn is_on_versions(&self) -> bool {
        self.one_version.is_some()
    }

    /// Whether a flow is of one IP version, as far as its attributes say.
    pub(crate) fn is_of_one_version(&self, attributes: &[Value]) -> bool {
        self.one_version.as_ref().is_none_or(|one| one.holds(attributes))
    }

    /// Whether flows are chosen by their attributes.
    pub(crate) fn is_on_attributes(&self) -> bool {
        !self.attributes.is_empty()
    }

    /// The conditions on attributes.
    pub(crate) fn on_attributes(&self) -> &[Clause] {
        &self.attributes
    }

    /// These as they were written.
    pub(crate) fn list_on_attributes(&self) -> String {
        list(&self.attributes)
    }

    /// Whether records are chosen by their measurements.
    pub(crate) fn is_on_measurements(&self) -> bool {
        !self.measurements.is_empty()
    }

    /// Whether try number `attempt` of a flow is one to keep.
    pub(crate) fn wants_flow(&self, flow: u64, attempt: u32, attributes: &[Value]) -> bool {
        let wanted = holds(&self.attributes, attributes);
        if !wanted && flow < FLOWS_DRAWN && attempt < VALUES_COUNTED {
            self.count(0, &self.attributes, attributes);
        }
        wanted
    }

    /// Whether record number `record` of a flow is one to keep.
    pub(crate) fn wants_record(&self, flow: u64, record: u32, measurements: &[Value]) -> bool {
        let wanted = holds(&self.measurements, measurements);
        if !wanted && flow < FLOWS_DRAWN && record < VALUES_COUNTED {
            self.count(self.attributes.len(), &self.measurements, measurements);
        }
        wanted
    }

    /// Notes a flow whose tries ran out; an error once it is plain that none will do.
    pub(crate) fn flow_given_up(&self, flow: u64) -> Result<(), RuntimeError> {
        let mut census = self.census();
        census.given_up += u64::from(flow < FLOWS_DRAWN);
        census.without_records += u64::from(flow < FLOWS_ENDED);
        // Every worker is told, else one would go on for ever.
        if census.given_up < FLOWS_DRAWN {
            return Ok(());
        }
        let what = format!(
            "none of the first {FLOWS_DRAWN} flows met {} in {} tries each{}",
            list(&self.attributes),
            self.tries,
            most_frequent(&census, 0, &self.attributes)
        );
        Err(RuntimeError::NothingMatches { what, more_tries_may_help: true })
    }

    /// Notes a flow that ended without a record to keep; an error once it is
    /// plain that none will have any.
    pub(crate) fn flow_without_records(&self, flow: u64) -> Result<(), RuntimeError> {
        let mut census = self.census();
        census.without_records += u64::from(flow < FLOWS_ENDED);
        if census.without_records < FLOWS_ENDED {
            return Ok(());
        }
        let what = format!(
            "none of the first {FLOWS_ENDED} flows has a record with {}{}",
            list(&self.measurements),
            most_frequent(&census, self.attributes.len(), &self.measurements)
        );
        Err(RuntimeError::NothingMatches { what, more_tries_may_help: false })
    }

    fn census(&self) -> std::sync::MutexGuard<'_, Census> {
        // Counts stay counts, whoever panicked while it held them.
        self.census.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, first: usize, clauses: &[Clause], values: &[Value]) {
        let mut census = self.census();
        for (index, clause) in (first..).zip(clauses) {
            *census.values.entry((index, clause.show(values[clause.at]))).or_default() += 1;
        }
    }
}

/// What there was instead, as the end of a sentence; nothing, where what was drawn was all
/// drawn given the conditions.
fn most_frequent(census: &Census, first: usize, clauses: &[Clause]) -> String {
    let mut text = String::new();
    for (index, clause) in (first..).zip(clauses) {
        let of_field = census.values.iter().filter(|((at, _), _)| *at == index);
        let mut counts: Vec<(u64, &str)> =
            of_field.map(|((_, value), count)| (*count, value.as_str())).collect();
        if counts.is_empty() {
            continue;
        }
        let all: u64 = counts.iter().map(|(count, _)| count).sum();
        counts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        // Writing to a String cannot fail.
        let _ = write!(text, "; `{}` is most often ", clause.name());
        for (place, (count, value)) in counts.iter().take(MOST_LISTED).enumerate() {
            let separator = if place > 0 { ", " } else { "" };
            let share = 100.0 * *count as f64 / all.max(1) as f64;
            let _ = write!(text, "{separator}`{value}` ({share:.1}%)");
        }
    }
    text
}

/// The conditions that the clauses were made of.
fn list(clauses: &[Clause]) -> String {
    clauses.iter().map(Clause::list).collect::<Vec<_>>().join(", ")
}

fn holds(clauses: &[Clause], values: &[Value]) -> bool {
    clauses.iter().all(|clause| clause.matches(values[clause.at]))
}

#[cfg(test)]
mod tests {
    use ns_model_format::Field;
    use ns_model_format::schema::TimeEncoding;

    use super::*;

    #[test]
    fn a_flow_of_packets_is_of_one_version() {
        let schema = |kind, names: &[(&str, FieldKind)]| {
            let bundle = crate::testing::bundle(TimeEncoding::Interarrival, None);
            let mut schema = bundle.manifest().schema.clone();
            let field = schema.attributes[0].clone();
            let of = |(name, kind): &(&str, FieldKind)| Field {
                name: (*name).to_owned(),
                kind: kind.clone(),
                ..field.clone()
            };
            schema.attributes = names.iter().map(of).collect();
            schema.kind = kind;
            schema
        };
        let both = [("srcip", FieldKind::Ip), ("dstip", FieldKind::Ip)];
        let more = [("proto", FieldKind::Integer), ("version", FieldKind::Integer)];
        let all = [&both[..], &more].concat();
        let four = Value::Wide(cell::ip("10.0.0.1").unwrap().into());
        let six = Value::Wide(cell::ip("2001:db8::1").unwrap().into());
        let holds = |schema: &Schema, values: &[Value]| {
            let selection = Selection::new(schema, &[], 1).unwrap();
            selection.is_of_one_version(values)
        };
        let packets = schema(TraceKind::Packets, &all);
        for (pair, proto, version, expected) in [
            ([four, four], 6, 4, true),
            ([six, six], 6, 6, true),
            ([six, four], 6, 6, false),
            ([four, six], 6, 6, false),
            ([four, four], 6, 6, false),
            ([four, four], 1, 4, true),
            ([four, four], 58, 4, false),
            ([six, six], 58, 6, true),
            ([six, six], 1, 6, false),
        ] {
            let values = [pair[0], pair[1], Value::Int(proto), Value::Int(version)];
            assert_eq!(holds(&packets, &values), expected, "{values:?}");
        }
        assert!(!holds(&schema(TraceKind::Packets, &both), &[four, six]));
        // Rows may be anything, and so may addresses of which no other version is known.
        assert!(holds(&schema(TraceKind::Custom, &both), &[four, six]));
        let v4 = schema(TraceKind::Packets, &[("srcip", FieldKind::Ipv4), more[0].clone()]);
        assert!(!Selection::new(&v4, &[], 1).unwrap().is_on_versions());
        assert!(holds(&v4, &[Value::Int(1), Value::Int(58)]));
    }
}
