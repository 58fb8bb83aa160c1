//! What a run did, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::counters::GenerationStats;
use crate::drive::Driven;
use crate::pace::{LatenessSummary, show_duration};
use crate::sink::{InterfaceReport, Sent};

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All was generated that was asked for.
    Done,
    /// The reader of standard output closed it.
    Closed,
    /// SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// An error.
    Failed,
}

/// The final report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Why the run ended.
    pub ending: Ending,
    /// The seed; the same seed and bundle give the same output.
    pub seed: u64,
    /// Where it went.
    pub target: String,
    /// How many files it is in, if they were rotated.
    #[serde(skip_serializing_if = "is_one_at_most")]
    pub files: u64,
    /// Flows begun.
    pub flows: u64,
    /// What a record is: `packets` or `records`.
    #[serde(skip)]
    pub noun: &'static str,
    /// Packets, or rows.
    pub records: u64,
    /// Bytes of full frames, or of text.
    pub bytes: u64,
    /// Generated time from the first record to the last.
    pub span_s: f64,
    /// Time that the run took.
    pub wall_s: f64,
    /// Records by time that the run took.
    pub records_per_s: f64,
    /// Bits by time that the run took.
    pub bits_per_s: f64,
    /// Records that the interface did not take in time.
    pub dropped: u64,
    /// Packets that were due while the interface was down, and left out.
    pub down_skipped: u64,
    /// Datagrams of flow records that came where nobody listened.
    #[serde(skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// Packets above the MTU that were left out.
    pub oversize_skipped: u64,
    /// Packets above the MTU that were shortened.
    pub oversize_truncated: u64,
    /// Packets by what had to be changed of the model's values.
    pub repaired: BTreeMap<&'static str, u64>,
    /// Draws of flows of both IP versions at once: they were drawn again.
    #[serde(skip_serializing_if = "is_zero")]
    pub mixed_versions: u64,
    /// What conditions on flows and records did, if there were any.
    pub selection: Option<SelectionReport>,
    /// How late packets went out, if they were paced.
    pub lateness: Option<LatenessSummary>,
    /// What went to interfaces, and what they have counted themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<InterfaceReport>,
}

/// What conditions on flows and records did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SelectionReport {
    /// The conditions.
    pub conditions: Vec<String>,
    /// Attributes drawn to meet the conditions on them.
    pub draws: u64,
    /// The share of the draws that did; 1 without conditions on attributes.
    pub acceptance: f64,
    /// Flows left out because no draw did.
    pub flows_given_up: u64,
    /// Records left out because their measurements do not meet the conditions.
    pub records_left_out: u64,
}

impl SelectionReport {
    /// The conditions and what generation says of them.
    #[must_use]
    pub fn new(conditions: Vec<String>, stats: &GenerationStats) -> SelectionReport {
        SelectionReport {
            conditions,
            draws: stats.draws,
            acceptance: stats.acceptance(),
            flows_given_up: stats.flows_given_up,
            records_left_out: stats.records_left_out,
        }
    }

    fn to_text(&self, noun: &str) -> String {
        let mut parts = Vec::new();
        if self.draws > 0 {
            let share = 100.0 * self.acceptance;
            let draws = grouped(self.draws);
            parts.push(format!("{share:.3}% of {draws} draws of attributes accepted"));
        }
        if self.flows_given_up > 0 {
            parts.push(format!("{} flows given up", grouped(self.flows_given_up)));
        }
        if self.draws == 0 || self.records_left_out > 0 {
            parts.push(format!("{} {noun} left out", grouped(self.records_left_out)));
        }
        format!("where {}: {}\n", self.conditions.join(", "), parts.join(", "))
    }
}

impl Report {
    /// The report of a run.
    #[must_use]
    pub fn new(driven: &Driven, seed: u64, target: String, noun: &'static str) -> Report {
        let Sent { records, bytes, flows, dropped, files, .. } = driven.sent;
        let wall_s = driven.wall.as_secs_f64();
        let rate = |amount: f64| if wall_s > 0.0 { amount / wall_s } else { 0.0 };
        Report {
            ending: driven.ending,
            seed,
            target,
            files,
            flows,
            noun,
            records,
            bytes,
            span_s: driven.span_ns as f64 / 1e9,
            wall_s,
            records_per_s: rate(records as f64),
            bits_per_s: rate(bytes as f64 * 8.0),
            dropped,
            down_skipped: driven.sent.down_skipped,
            refused: driven.sent.refused,
            oversize_skipped: driven.sent.oversize_skipped,
            oversize_truncated: driven.sent.oversize_truncated,
            repaired: driven.sent.repaired.iter().collect(),
            mixed_versions: 0,
            selection: None,
            lateness: driven.lateness.summary(),
            interfaces: driven.interfaces.clone(),
        }
    }

    /// Packets that were due and did not go out, nor were left out on purpose.
    #[must_use]
    pub fn lost(&self) -> u64 {
        // What an interface says that it dropped may be others', if it sent all of ours.
        let ours = |interface: &InterfaceReport| {
            let missing = interface.counted.map(|counted| interface.sent.saturating_sub(counted));
            interface.lost.min(missing.unwrap_or(0))
        };
        let by_interfaces: u64 = self.interfaces.iter().map(ours).sum();
        self.dropped + self.down_skipped + self.refused + by_interfaces
    }

    /// Whether conditions left something undone: a flow that none of its draws
    /// made, or everything.
    #[must_use]
    pub fn conditions_unmet(&self) -> bool {
        let unmet = |selection: &SelectionReport| selection.flows_given_up > 0;
        self.selection.as_ref().is_some_and(|selection| unmet(selection) || self.records == 0)
    }

    /// A few lines for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let files = match self.files {
            0 | 1 => String::new(),
            files => format!(" in {} files", grouped(files)),
        };
        // Writing to a String cannot fail.
        let mut text = format!(
            "{} {} of {} flows, {} bytes{files}, to {}\n",
            grouped(self.records),
            self.noun,
            grouped(self.flows),
            grouped(self.bytes),
            self.target,
        );
        let _ = writeln!(
            text,
            "{} of generated time in {}: {} {}/s, {} bit/s",
            show_duration(self.span_s),
            show_duration(self.wall_s),
            grouped(self.records_per_s as u64),
            self.noun,
            scaled(self.bits_per_s),
        );
        if let Some(selection) = &self.selection {
            text.push_str(&selection.to_text(self.noun));
        }
        if let Some(late) = &self.lateness {
            let _ = writeln!(
                text,
                "late by {:.1} us (median), {:.1} us (99%), {:.1} us (99.9%), {:.1} us (most)",
                late.median_us, late.p99_us, late.p999_us, late.max_us
            );
            let causes = [
                (late.starved, "generated too late"),
                (late.blocked, "behind others that the interface was slow to take"),
                (late.woken_late, "because the system woke the sender late"),
            ];
            let causes = causes.into_iter().filter(|(count, _)| *count > 0);
            let causes: Vec<String> =
                causes.map(|(count, why)| format!("{} {why}", grouped(count))).collect();
            if !causes.is_empty() {
                let _ = writeln!(text, "more than 100 us late: {}", causes.join(", "));
            }
        }
        for interface in &self.interfaces {
            text.push_str(&reconciled(interface));
        }
        let counts = [
            (self.dropped, "dropped: the interface did not take them in time"),
            (self.down_skipped, "left out: the interface was down"),
            (self.oversize_skipped, "skipped: longer than the MTU"),
            (self.oversize_truncated, "shortened to the MTU"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            let _ = writeln!(text, "{} {} {what}", grouped(count), self.noun);
        }
        if self.refused > 0 {
            let datagrams = grouped(self.refused);
            let _ = writeln!(text, "{datagrams} datagrams came where nobody listened");
        }
        if self.mixed_versions > 0 {
            let draws = grouped(self.mixed_versions);
            let _ =
                writeln!(text, "{draws} draws were of both IP versions at once, and drawn again");
        }
        if !self.repaired.is_empty() {
            let kinds: Vec<String> =
                self.repaired.iter().map(|(kind, n)| format!("{kind} {}", grouped(*n))).collect();
            let _ = writeln!(text, "repaired: {}", kinds.join(", "));
        }
        let _ = writeln!(text, "seed {}", self.seed);
        text
    }
}

/// What was sent beside what the interface has counted.
fn reconciled(interface: &InterfaceReport) -> String {
    let InterfaceReport { name, sent, counted, lost } = interface;
    let mut text = format!("interface `{name}` took {}", grouped(*sent));
    match *counted {
        None => text += ", its counters began anew meanwhile",
        Some(counted) if counted == *sent => text += " and counted as many",
        Some(counted) if counted > *sent => {
            let others = grouped(counted - sent);
            text += &format!(" and counted {}: {others} from elsewhere", grouped(counted));
        }
        Some(counted) => {
            let missing = grouped(sent - counted);
            text += &format!(" and counted {}: {missing} lost after that", grouped(counted));
        }
    }
    if *lost > 0 {
        text += &format!(", {} of them dropped or failed, it says", grouped(*lost));
    }
    text + "\n"
}

fn is_one_at_most(number: &u64) -> bool {
    *number <= 1
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with a prefix: 1.25 G.
pub(crate) fn scaled(number: f64) -> String {
    let prefixes = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    match prefixes.iter().find(|(least, _)| number >= *least) {
        Some((unit, prefix)) => format!("{:.2} {prefix}", number / unit),
        None => format!("{number:.0} "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([grouped(0), grouped(999), grouped(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!([scaled(12.0), scaled(1_250_000_000.0)], ["12 ", "1.25 G"]);
    }
}
