//! Group 2: fields together.

use super::distance::{Distance, Statistic, pearson, ranks};
use super::fields::service_of;
use super::measure::{Group, Measure};
use super::sample::Sample;
use super::table::{Frame, Role};
use ns_model_format::schema::{TraceKind, packet_field};

/// Categories with more values have too many combinations to be counted.
const FEW: usize = 32;
/// Columns that are counted or correlated together at most.
const MOST_COLUMNS: usize = 10;
/// Categories that enter one joint count at most.
const MOST_CATEGORIES: usize = 4;

/// What is measured of fields together.
pub(super) fn measures(frame: &Frame) -> Vec<Measure> {
    let mut all = vec![joint(frame)];
    if let Some([src, dst]) = frame.address_pair() {
        let of = move |sample: &Sample<'_>| {
            let pair =
                |&row: &u32| u64::from(sample.id(src, row)) << 32 | u64::from(sample.id(dst, row));
            Statistic::values(sample.rows.iter().map(pair))
        };
        let (name, label) = ("address_pair", "pairs of addresses");
        all.push(Measure::new(Group::Joint, name, label, "pair", &[Distance::RankJsd], of));
    }
    all.extend(contingency(frame));
    all.extend(record_correlation(frame));
    all.extend(log_correlation(frame));
    all.push(flow_correlation(frame));
    all
}

/// A value of several, as one number: FNV-1a over words, enough to tell
/// thousands of combinations apart.
pub(super) fn mixed(values: impl IntoIterator<Item = u64>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for value in values {
        hash ^= value;
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }
    hash
}

/// A length in parts of 64 bytes, the last for all above 1,535.
pub(super) fn length_bin(bytes: f64) -> u64 {
    ((bytes / 64.0) as u64).min(24)
}

/// floor(log2(1 + x)), apart for what is missing or below 0.
pub(super) fn log2_bin(number: f64) -> u64 {
    match number {
        x if x.is_nan() => 1000,
        x if x < 0.0 => 1001,
        x => (x + 1.0).log2() as u64,
    }
}

/// Quantities whose sizes go together: a flow record's packets and bytes, else the first two.
pub(super) fn sizes(frame: &Frame) -> Vec<usize> {
    match (frame.record.packets, frame.record.bytes) {
        (Some(packets), Some(bytes)) => vec![packets, bytes],
        _ => quantities(frame).into_iter().take(2).collect(),
    }
}

fn quantities(frame: &Frame) -> Vec<usize> {
    let all = frame.columns.iter().enumerate();
    all.filter(|(_, column)| column.role == Role::Quantity).map(|(at, _)| at).collect()
}

/// Columns with few values.
pub(super) fn small_categories(frame: &Frame) -> Vec<usize> {
    let all = frame.columns.iter().enumerate();
    all.filter(|(_, column)| {
        matches!(column.role, Role::Category | Role::Proto) && column.values.len() <= FEW
    })
    .map(|(at, _)| at)
    .collect()
}

/// Protocol, service and length of packets; categories, service and sizes of others.
fn joint(frame: &Frame) -> Measure {
    let port = frame.dst_port();
    if let (TraceKind::Packets, Some(tuple), Some(length)) =
        (frame.kind, frame.tuple, frame.column(packet_field::LEN))
    {
        let of = move |sample: &Sample<'_>| {
            Statistic::values(sample.rows.iter().map(|&row| {
                let port = sample.whole(tuple.dst_port, row);
                let service = if port < 1024 { port as u64 } else { 1024 };
                let proto = u64::from(sample.id(tuple.proto, row));
                length_bin(sample.number(length, row)) | service << 8 | proto << 24
            }))
        };
        let label = "protocol, service and length";
        let name = "proto_service_len";
        return Measure::new(Group::Joint, name, label, "combination", &[Distance::Jsd], of);
    }
    let (mut categories, sizes) = (small_categories(frame), sizes(frame));
    // The protocol first, then as they come.
    categories.sort_by_key(|&at| frame.columns[at].role != Role::Proto);
    categories.truncate(MOST_CATEGORIES);
    let names: Vec<&str> =
        categories.iter().chain(&sizes).map(|&at| frame.columns[at].name.as_str()).collect();
    let label = format!("{}{} together", names.join(", "), port.map_or("", |_| ", service"));
    let of = move |sample: &Sample<'_>| {
        Statistic::values(sample.rows.iter().map(|&row| {
            let categories = categories.iter().map(|&at| u64::from(sample.id(at, row)));
            let service = port.map(|at| {
                let port = sample.whole(at, row);
                if port < 1024 { port as u64 } else { 1024 }
            });
            let sizes = sizes.iter().map(|&at| log2_bin(sample.number(at, row)));
            mixed(categories.chain(service).chain(sizes))
        }))
    };
    Measure::new(Group::Joint, "joint", label, "combination", &[Distance::Jsd], of)
}

/// Shares of all pairs of values of all pairs of columns with few values (those
/// with more by their most frequent, and the service): the mean total variation,
/// since each pair of columns has the same weight.
fn contingency(frame: &Frame) -> Option<Measure> {
    let port = frame.dst_port();
    let mut columns: Vec<usize> = frame
        .columns
        .iter()
        .enumerate()
        .filter(|(_, column)| matches!(column.role, Role::Category | Role::Proto))
        .map(|(at, _)| at)
        .collect();
    columns.truncate(MOST_COLUMNS - 1);
    columns.extend(port);
    if columns.len() < 2 {
        return None;
    }
    let of = move |sample: &Sample<'_>| {
        let codes: Vec<Codes> = columns.iter().map(|&at| Codes::of(sample, at)).collect();
        let mut pairs = Vec::new();
        for a in 0..codes.len() {
            for b in a + 1..codes.len() {
                let mut counts = vec![0_u32; codes[a].most * codes[b].most];
                for (x, y) in codes[a].of.iter().zip(&codes[b].of) {
                    counts[usize::from(*x) * codes[b].most + usize::from(*y)] += 1;
                }
                let which = ((a as u64) << 8 | b as u64) << 32;
                let seen = (0_u64..).zip(counts).filter(|(_, count)| *count > 0);
                pairs.extend(seen.map(|(place, count)| (which | place, f64::from(count))));
            }
        }
        Statistic::Counts(pairs)
    };
    let label = "pairs of categories";
    Some(Measure::new(Group::Joint, "contingency", label, "pair", &[Distance::Tv], of))
}

/// Each record's category of a column as a small number: its rank in the real trace,
/// rare ones together; of a port its service.
struct Codes {
    of: Vec<u16>,
    /// All are below this.
    most: usize,
}

impl Codes {
    fn of(sample: &Sample<'_>, at: usize) -> Codes {
        let column = &sample.frame.columns[at];
        let code = |id: u32| match column.role {
            Role::Port => match service_of(column.number(id).unwrap_or(-1)) {
                32768 => 1025,
                service => service as u16,
            },
            _ => {
                let rank = column.top.iter().take(FEW).position(|&top| top == id);
                rank.unwrap_or(FEW) as u16
            }
        };
        let codes: Vec<u16> = (0..column.values.len() as u32).map(code).collect();
        let ids = sample.table.ids(at);
        Codes {
            of: sample.rows.iter().map(|&row| codes[ids[row as usize] as usize]).collect(),
            most: if column.role == Role::Port { 1026 } else { FEW + 1 },
        }
    }
}

/// The upper triangle of a matrix of correlations.
pub(super) fn triangle(columns: &[Vec<f64>]) -> Vec<f64> {
    let pairs = (0..columns.len()).flat_map(|a| (a + 1..columns.len()).map(move |b| (a, b)));
    pairs.map(|(a, b)| pearson(&columns[a], &columns[b])).collect()
}

/// The columns that [`record_correlation`] correlates, by name.
pub(crate) fn correlated(frame: &Frame) -> Vec<(Option<usize>, String)> {
    let mut columns = quantities(frame);
    if frame.kind == TraceKind::Packets {
        columns.extend(frame.column(packet_field::TTL));
    }
    columns.truncate(MOST_COLUMNS);
    let mut named: Vec<(Option<usize>, String)> =
        columns.into_iter().map(|at| (Some(at), frame.columns[at].name.clone())).collect();
    named.push((None, "gap".to_owned()));
    named
}

/// Ranks of each record's numbers and of the gap before it, a vector a column;
/// what is missing, and the gap before a flow's first record, ranks lowest.
pub(crate) fn ranked(sample: &Sample<'_>, columns: &[Option<usize>]) -> Vec<Vec<f64>> {
    columns
        .iter()
        .map(|column| {
            let numbers: Vec<f64> = match column {
                Some(at) => {
                    let number = |row: u32| match sample.frame.columns[*at].role {
                        Role::Quantity => sample.number(*at, row),
                        _ => sample.whole(*at, row) as f64,
                    };
                    let all = sample.flows().flatten();
                    all.map(|&row| number(row))
                        .map(|x| if x.is_nan() { -1e300 } else { x })
                        .collect()
                }
                None => sample
                    .flows()
                    .flat_map(|flow| {
                        let gaps = flow.windows(2).map(|pair| sample.gap(pair[0], pair[1]));
                        std::iter::once(-1.0).chain(gaps)
                    })
                    .collect(),
            };
            ranks(&numbers)
        })
        .collect()
}

/// Spearman's rank correlations of a record's numbers.
fn record_correlation(frame: &Frame) -> Option<Measure> {
    let (columns, names): (Vec<Option<usize>>, Vec<String>) = correlated(frame).into_iter().unzip();
    if columns.len() < 2 {
        return None;
    }
    let of = move |sample: &Sample<'_>| Statistic::Figures(triangle(&ranked(sample, &columns)));
    let label = format!("rank correlations of {}", names.join(", "));
    let distances = [Distance::Absolute];
    Some(Measure::new(Group::Joint, "spearman", label, "correlation", &distances, of))
}

/// Pearson's correlations of ln(1 + |x|), of tables' quantities.
fn log_correlation(frame: &Frame) -> Option<Measure> {
    let mut columns = quantities(frame);
    columns.truncate(MOST_COLUMNS);
    if columns.len() < 2 || frame.kind == TraceKind::Packets {
        return None;
    }
    let of = move |sample: &Sample<'_>| {
        let logs = |&at: &usize| -> Vec<f64> {
            let numbers = sample.rows.iter().map(|&row| sample.number(at, row));
            numbers.map(|x| if x.is_nan() { 0.0 } else { x.abs().ln_1p() }).collect()
        };
        let logs: Vec<Vec<f64>> = columns.iter().map(logs).collect();
        Statistic::Figures(triangle(&logs))
    };
    let (label, distances) = ("correlations of logarithms", [Distance::Absolute]);
    Some(Measure::new(Group::Joint, "pearson_log", label, "correlation", &distances, of))
}

/// Spearman's rank correlations of flows' figures: records, duration, and means
/// of quantities.
fn flow_correlation(frame: &Frame) -> Measure {
    let mut columns = quantities(frame);
    columns.truncate(MOST_COLUMNS - 2);
    let of = move |sample: &Sample<'_>| {
        let mut figures = vec![Vec::new(); columns.len() + 2];
        for flow in sample.flows() {
            figures[0].push(flow.len() as f64);
            figures[1].push(sample.gap(flow[0], flow[flow.len() - 1]));
            for (figures, &at) in figures[2..].iter_mut().zip(&columns) {
                let present =
                    || flow.iter().map(|&row| sample.number(at, row)).filter(|x| !x.is_nan());
                figures.push(present().sum::<f64>() / present().count().max(1) as f64);
            }
        }
        let ranked: Vec<Vec<f64>> = figures.iter().map(|figures| ranks(figures)).collect();
        Statistic::Figures(triangle(&ranked))
    };
    let label = "rank correlations of flows' figures";
    let distances = [Distance::Absolute];
    Measure::new(Group::Joint, "flow_spearman", label, "correlation", &distances, of)
}
