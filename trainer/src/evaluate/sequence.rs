//! Group 3: records one after another.

use super::distance::{Distance, Statistic, pearson};
use super::joint::{length_bin, log2_bin, mixed, sizes, small_categories};
use super::measure::{Group, Measure, Picture};
use super::sample::Sample;
use super::table::Frame;
use ns_model_format::schema::{TraceKind, packet_field};

/// Flows with fewer records have no autocorrelation worth the name.
const LONG: usize = 10;
/// Lags of autocorrelation.
const LAGS: usize = 5;

/// What is measured of records one after another.
pub(super) fn measures(frame: &Frame) -> Vec<Measure> {
    let is_packets = frame.kind == TraceKind::Packets;
    let (records, plural) = if is_packets { ("packet", "packets") } else { ("record", "records") };
    let of_group = |name: &str, label: String, unit, distances: &[Distance], of| {
        Measure::new(Group::Sequence, name, label, unit, distances, of)
    };
    type Of = fn(&Sample<'_>) -> Statistic;
    let mut all = vec![
        of_group(
            "flow_len",
            format!("{plural} a flow"),
            plural,
            &[Distance::Ks, Distance::W1],
            (|sample| Statistic::numbers(sample.flows().map(|flow| flow.len() as f64))) as Of,
        )
        .shown(Picture::Tail),
        of_group(
            "single",
            format!("share of flows with one {records}"),
            "share",
            &[Distance::Absolute],
            |sample| {
                let single = sample.flows().filter(|flow| flow.len() == 1).count();
                Statistic::figure(single as f64 / sample.flow_count().max(1) as f64)
            },
        ),
        of_group("flow_duration", "duration of flows".to_owned(), "s", &[Distance::Ks], |sample| {
            let long = sample.flows().filter(|flow| flow.len() > 1);
            Statistic::numbers(long.map(|flow| sample.gap(flow[0], flow[flow.len() - 1])))
        })
        .shown(Picture::Tail),
        of_group(
            "gap",
            "inter-arrival time in flows".to_owned(),
            "s",
            &[Distance::Ks, Distance::W1Log],
            |sample| {
                let gaps = sample.flows().flat_map(|flow| flow.windows(2));
                Statistic::numbers(gaps.map(|pair| sample.gap(pair[0], pair[1])))
            },
        )
        .shown(Picture::Cdf { log: true }),
        of_group(
            "gap_overall",
            "inter-arrival time overall".to_owned(),
            "s",
            &[Distance::Ks],
            |sample| {
                Statistic::numbers(sample.rows.windows(2).map(|pair| sample.gap(pair[0], pair[1])))
            },
        )
        .shown(Picture::Cdf { log: true }),
        of_group(
            "gap_autocorrelation",
            "autocorrelation of log gaps in flows".to_owned(),
            "correlation",
            &[Distance::Absolute],
            |sample| Statistic::figure(autocorrelation(sample, 1, log_gaps)),
        ),
    ];
    if let Some(size) = sizes(frame).first().copied() {
        let (name, label) = match is_packets {
            true => ("len_autocorrelation", "autocorrelation of lengths in flows".to_owned()),
            false => {
                let name = &frame.columns[size].name;
                ("size_autocorrelation", format!("autocorrelation of {name} in flows"))
            }
        };
        let of = move |sample: &Sample<'_>| {
            let lag = |lag| {
                autocorrelation(sample, lag, |sample, flow| {
                    flow.iter().map(|&row| sample.number(size, row)).collect()
                })
            };
            Statistic::Figures((1..=LAGS).map(lag).collect())
        };
        let distances = [Distance::Absolute];
        all.push(Measure::new(Group::Sequence, name, label, "correlation", &distances, of));
    }
    all.extend(flow_bytes(frame));
    all.extend(bigrams(frame));
    all.extend(rates(frame, plural));
    all
}

fn log_gaps(sample: &Sample<'_>, flow: &[u32]) -> Vec<f64> {
    flow.windows(2).map(|pair| (sample.gap(pair[0], pair[1]) + 1e-6).ln()).collect()
}

/// The mean over flows of at least [`LONG`] records of the correlation of a
/// series with itself `lag` later; over real records only, never over padding.
fn autocorrelation(
    sample: &Sample<'_>,
    lag: usize,
    series: impl Fn(&Sample<'_>, &[u32]) -> Vec<f64>,
) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for flow in sample.flows().filter(|flow| flow.len() >= LONG) {
        let series = series(sample, flow);
        let Some(ahead) = series.get(lag..).filter(|ahead| ahead.len() > 1) else { continue };
        // A constant says nothing of what follows what.
        if series.iter().all(|x| x.is_finite()) && series.iter().any(|x| *x != series[0]) {
            sum += pearson(&series[..ahead.len()], ahead);
            count += 1;
        }
    }
    if count == 0 { f64::NAN } else { sum / f64::from(count) }
}

/// Bytes of a flow: of its packets' lengths, or of its records' byte counts.
fn flow_bytes(frame: &Frame) -> Option<Measure> {
    let bytes = match frame.kind {
        TraceKind::Packets => frame.column(packet_field::LEN),
        _ => frame.record.bytes,
    }?;
    let of = move |sample: &Sample<'_>| {
        let sum = |flow: &[u32]| flow.iter().map(|&row| sample.number(bytes, row)).sum();
        Statistic::numbers(sample.flows().map(sum))
    };
    let measure =
        Measure::new(Group::Sequence, "flow_bytes", "bytes a flow", "bytes", &[Distance::Ks], of);
    Some(measure.shown(Picture::Tail))
}

/// What follows what in a flow: lengths in parts of 64 bytes, by protocol; of
/// other records, small categories and the first size.
fn bigrams(frame: &Frame) -> Option<Measure> {
    type State = Box<dyn Fn(&Sample<'_>, u32) -> u64 + Send + Sync>;
    let (name, label, state): (_, _, State);
    let proto = frame.tuple.map(|tuple| tuple.proto);
    if let (TraceKind::Packets, Some(length)) = (frame.kind, frame.column(packet_field::LEN)) {
        (name, label) = ("len_bigram", "pairs of successive lengths");
        state = Box::new(move |sample, row| length_bin(sample.number(length, row)));
    } else {
        let measurements = |at: &usize| !frame.columns[*at].is_attribute;
        let categories: Vec<usize> =
            small_categories(frame).into_iter().filter(measurements).collect();
        let size = sizes(frame).into_iter().find(measurements);
        if categories.is_empty() && size.is_none() {
            return None;
        }
        (name, label) = ("record_bigram", "pairs of successive records");
        state = Box::new(move |sample, row| {
            let categories = categories.iter().map(|&at| u64::from(sample.id(at, row)));
            let size = size.map(|at| log2_bin(sample.number(at, row)));
            mixed(categories.chain(size))
        });
    }
    let of = move |sample: &Sample<'_>| {
        let mut pairs = Vec::new();
        for flow in sample.flows() {
            let mut states = flow.iter().map(|&row| state(sample, row));
            let proto = proto.map_or(0, |at| sample.id(at, flow[0]));
            let Some(mut last) = states.next() else { continue };
            for next in states {
                pairs.push(mixed([u64::from(proto), last, next]));
                last = next;
            }
        }
        Statistic::values(pairs)
    };
    Some(Measure::new(Group::Sequence, name, label, "pair", &[Distance::Jsd], of))
}

/// Records in each bin of the span, empty ones too.
pub(crate) fn in_bins(sample: &Sample<'_>, bin_ns: i64) -> Vec<f64> {
    let bins = (sample.frame.span_ns / bin_ns) as usize;
    let mut counts = vec![0.0; bins];
    let since = |row: u32| sample.time_ns(row) - sample.table.origin_ns;
    // What comes before the beginning has no bin.
    for &row in sample.rows.iter().filter(|&&row| since(row) >= 0) {
        if let Some(count) = counts.get_mut((since(row) / bin_ns) as usize) {
            *count += 1.0;
        }
    }
    counts
}

/// How many records a bin of time has, and how that varies at four scales: the
/// index of dispersion, variance over mean, is 1 for a Poisson process at any
/// scale and grows with it where traffic is self-similar (Leland et al., 1994).
fn rates(frame: &Frame, records: &'static str) -> Vec<Measure> {
    // A scale with bins enough for a distribution.
    let Some(&bin_ns) = frame.bins_ns.get(1).or(frame.bins_ns.first()) else { return Vec::new() };
    let seconds = |ns: i64| crate::evaluate::seconds(ns);
    let rate = Measure::new(
        Group::Sequence,
        "rate",
        format!("{records} in {}", seconds(bin_ns)),
        records,
        &[Distance::Ks],
        move |sample| Statistic::numbers(in_bins(sample, bin_ns)),
    );
    let bins_ns = frame.bins_ns.clone();
    let scales: Vec<String> = bins_ns.iter().rev().map(|&ns| seconds(ns)).collect();
    let burstiness = Measure::new(
        Group::Sequence,
        "burstiness",
        format!("log index of dispersion at {}", scales.join(", ")),
        "ln ratio",
        &[Distance::Absolute],
        move |sample| {
            let dispersion = |&bin_ns: &i64| {
                let counts = in_bins(sample, bin_ns);
                let mean = counts.iter().sum::<f64>() / counts.len() as f64;
                let square = counts.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
                let variance = square / counts.len() as f64;
                if mean > 0.0 { (variance / mean).max(1e-9).ln() } else { f64::NAN }
            };
            Statistic::Figures(bins_ns.iter().map(dispersion).collect())
        },
    );
    vec![rate, burstiness]
}
