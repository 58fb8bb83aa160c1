//! Which flows and records of a run are wanted, and what became of the rest.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use ns_model_format::schema::{TraceKind, packet_field};
use ns_model_format::{Field, FieldKind, Schema, Value, cell};

use crate::condition::{Clause, Condition, ConditionError, clauses};
use crate::error::RuntimeError;

/// If none of so many first flows can be drawn, none ever will be.
const FLOWS_DRAWN: u64 = 20;
/// If none of so many first flows has a record that is wanted, none ever will.
const FLOWS_ENDED: u64 = 1_000;
/// Values counted of each of the [`FLOWS_DRAWN`] first flows.
const VALUES_COUNTED: u32 = 1_000;
/// Values that an error lists.
const MOST_LISTED: usize = 5;

/// What a flow of packets must be in any case where there are addresses of both IP
/// versions: of one of them. Holds where its attributes tell.
#[derive(Debug)]
struct OneVersion {
    addresses: Vec<usize>,
    /// The field that says which it is.
    version: Option<usize>,
}

impl OneVersion {
    fn of(schema: &Schema) -> Option<OneVersion> {
        let addresses = [packet_field::SRC_IP, packet_field::DST_IP];
        let is_address =
            |field: &Field| field.kind == FieldKind::Ip && addresses.contains(&field.name.as_str());
        let fields = || schema.attributes.iter().enumerate();
        let is_version = |field: &Field| field.name == packet_field::VERSION;
        let found = OneVersion {
            addresses: fields().filter(|(_, f)| is_address(f)).map(|(at, _)| at).collect(),
            version: fields().find(|(_, field)| is_version(field)).map(|(at, _)| at),
        };
        let told = found.addresses.len() + usize::from(found.version.is_some());
        let is_needed = schema.kind == TraceKind::Packets && !found.addresses.is_empty();
        (is_needed && told > 1).then_some(found)
    }

    fn holds(&self, values: &[Value]) -> bool {
        let of_address = |at: &usize| match values[*at] {
            Value::Wide(number) => {
                Some(if cell::ip_address(number.into()).is_ipv4() { 4 } else { 6 })
            }
            _ => None,
        };
        let addresses = self.addresses.iter().filter_map(of_address);
        let mut versions = addresses.chain(self.version.and_then(|at| values[at].as_i64()));
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
            "none of the first {FLOWS_DRAWN} flows met {} in {} tries each; {}",
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
            "none of the first {FLOWS_ENDED} flows has a record with {}; {}",
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

fn most_frequent(census: &Census, first: usize, clauses: &[Clause]) -> String {
    let mut text = String::new();
    for (index, clause) in (first..).zip(clauses) {
        let of_field = census.values.iter().filter(|((at, _), _)| *at == index);
        let mut counts: Vec<(u64, &str)> =
            of_field.map(|((_, value), count)| (*count, value.as_str())).collect();
        let all: u64 = counts.iter().map(|(count, _)| count).sum();
        counts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{}`{}` is most often ",
            if index > first { "; " } else { "" },
            clause.name()
        );
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
