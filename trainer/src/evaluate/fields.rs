//! Group 1: each field by itself.

use super::distance::{Distance, Statistic};
use super::measure::{Group, Labels, Measure, Picture, called, name_of};
use super::sample::Sample;
use super::table::{Frame, Role};
use ns_model_format::schema::{TraceKind, packet_field};

/// Texts and names with more distinct values are compared by rank too: most of them
/// occur once, and which they are is chance.
const MANY: usize = 256;

/// What is measured of each field.
pub(super) fn measures(frame: &Frame) -> Vec<Measure> {
    let mut all = Vec::new();
    for (at, column) in frame.columns.iter().enumerate() {
        let (label, unit) = called(frame, at);
        let name = name_of(frame, at);
        let measure = |name: String, label: String, distances: &[Distance]| {
            Measure::new(Group::Fields, name, label, unit, distances, move |sample| {
                Statistic::dense(&sample.counts(at))
            })
        };
        match column.role {
            _ if frame.kind == TraceKind::Packets && name == packet_field::TCP_FLAGS => {
                all.extend(tcp_flags(frame, at));
            }
            Role::Address => {
                all.push(
                    measure(name, label, &[Distance::RankJsd])
                        .shown(Picture::Bars(Labels::Column(at))),
                );
            }
            Role::Port => {
                all.push(measure(name.clone(), label.clone(), &[Distance::Jsd]));
                let class = move |sample: &Sample<'_>| Statistic::values(port_classes(sample, at));
                let (name, label) = (name + "_class", label + ", rare ones in ranges");
                all.push(Measure::new(Group::Fields, name, label, unit, &[Distance::Jsd], class));
                if frame.dst_port() == Some(at) {
                    all.push(service(at));
                }
            }
            Role::Proto => {
                let bars = Picture::Bars(Labels::Column(at));
                all.push(measure(name, label, &[Distance::Jsd]).shown(bars));
            }
            Role::Category => {
                let bars = Picture::Bars(Labels::Column(at));
                if column.values.len() > MANY {
                    all.push(measure(name, label, &[Distance::Jsd, Distance::RankJsd]).shown(bars));
                } else if frame.kind == TraceKind::Packets {
                    all.push(measure(name, label, &[Distance::Tv]).shown(bars));
                } else {
                    all.push(measure(name, label, &[Distance::Jsd]).shown(bars));
                }
            }
            Role::Quantity => {
                let of = move |sample: &Sample<'_>| {
                    Statistic::numbers(sample.rows.iter().map(|&row| sample.number(at, row)))
                };
                let distances = [Distance::Ks, Distance::W1, Distance::W1Log];
                let log = frame.kind != TraceKind::Packets;
                all.push(
                    Measure::new(Group::Fields, &name, &label, unit, &distances, of)
                        .shown(Picture::Cdf { log }),
                );
                if column.may_miss {
                    let of = move |sample: &Sample<'_>| {
                        let missing = |row: &&u32| sample.number(at, **row).is_nan();
                        let count = sample.rows.iter().filter(missing).count();
                        Statistic::figure(count as f64 / sample.rows.len().max(1) as f64)
                    };
                    let (name, label) = (name + "_missing", format!("share without {label}"));
                    let distances = [Distance::Absolute];
                    all.push(Measure::new(Group::Fields, name, label, "share", &distances, of));
                }
            }
        }
    }
    all.push(arrival());
    all
}

/// When records arrive.
fn arrival() -> Measure {
    let of = |sample: &Sample<'_>| {
        // From where the trace begins, not from the sample's first record, which may be any.
        let origin = sample.table.origin_ns;
        let times = sample.rows.iter().map(|&row| sample.time_ns(row) - origin);
        Statistic::numbers(times.map(|ns| ns as f64 / 1e9))
    };
    let distances = [Distance::W1Range];
    Measure::new(Group::Fields, "time", "time of arrival", "s", &distances, of)
        .shown(Picture::Cdf { log: false })
}

/// Of TCP packets, the six flags of RFC 9293 without ECN's.
fn tcp_flags(frame: &Frame, at: usize) -> Option<Measure> {
    let proto = frame.tuple?.proto;
    let of = move |sample: &Sample<'_>| {
        let frame = sample.frame;
        let tcp = sample.rows.iter().filter(|&&row| frame.proto(sample.id(proto, row)) == Some(6));
        Statistic::values(tcp.map(|&row| sample.whole(at, row) as u64 & 0x3f))
    };
    let (label, unit) = called(frame, at);
    let measure = Measure::new(Group::Fields, "tcp_flags", label, unit, &[Distance::Tv], of);
    Some(measure.shown(Picture::Bars(Labels::TcpFlags)))
}

/// The destination port where it names a service, else in one of two ranges.
fn service(at: usize) -> Measure {
    let of = move |sample: &Sample<'_>| {
        let classes = class_of_ids(sample, at, service_of);
        let ids = sample.table.ids(at);
        Statistic::values(sample.rows.iter().map(|&row| classes[ids[row as usize] as usize]))
    };
    let label = "service (destination port)";
    Measure::new(Group::Fields, "service", label, "port", &[Distance::Tv], of)
        .shown(Picture::Bars(Labels::Service))
}

/// Below 1024 a port is itself; above, 1024 or 32768 for its range.
pub(super) fn service_of(port: i64) -> u64 {
    match port {
        ..1024 => port.max(0) as u64,
        1024..32768 => 1024,
        _ => 32768,
    }
}

/// What [`service_of`] gives, in words.
pub(super) fn service_name(service: u64) -> String {
    match service {
        1024 => "1024-32767".to_owned(),
        32768 => "32768-65535".to_owned(),
        port => port.to_string(),
    }
}

/// Something of the whole number that each category of a column stands for.
pub(super) fn class_of_ids(sample: &Sample<'_>, at: usize, of: impl Fn(i64) -> u64) -> Vec<u64> {
    let column = &sample.frame.columns[at];
    (0..column.values.len() as u32).map(|id| of(column.number(id).unwrap_or(-1))).collect()
}

/// Each record's port: exact below 1024 and where it is among the real trace's
/// most frequent, else by its range (IANA's ephemeral ports begin at 49152,
/// Linux's at 32768).
fn port_classes(sample: &Sample<'_>, at: usize) -> Vec<u64> {
    let column = &sample.frame.columns[at];
    let classes: Vec<u64> = (0..column.values.len() as u32)
        .map(|id| {
            let port = column.number(id).unwrap_or(-1).max(0) as u64;
            match port {
                _ if column.top.contains(&id) => port,
                ..1024 => port,
                1024..32768 => 1 << 16,
                32768..49152 => 2 << 16,
                _ => 3 << 16,
            }
        })
        .collect();
    let ids = sample.table.ids(at);
    sample.rows.iter().map(|&row| classes[ids[row as usize] as usize]).collect()
}
