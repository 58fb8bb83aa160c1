//! How far a synthetic capture is from the real one.
//!
//! A distance alone says little: two halves of the same capture differ too.
//! So each is given with that floor, and as R, the ratio of the two
//! (1: as near as the halves are to one another).

use std::collections::HashMap;

use ns_model_format::random::{Purpose, Stream};
use ns_model_format::{FiveTuple, Packet};

use super::metrics::{jensen_shannon, kolmogorov_smirnov, total_variation};

/// The packets of each flow (one direction of a 5-tuple) in order of time.
pub type Flows = Vec<Vec<Packet>>;

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// What is compared.
    pub name: &'static str,
    /// Which distance.
    pub distance: &'static str,
    /// Between half of the real flows and as many synthetic ones.
    pub value: f64,
    /// Between two random halves of the real flows.
    pub floor: f64,
}

impl Metric {
    /// `value / floor`; none where the floor is too small to divide by.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.floor > 1e-6 && self.value.is_finite()).then(|| self.value / self.floor)
    }
}

/// Groups packets into flows by 5-tuple, in order of first packet.
#[must_use]
pub fn flows(packets: &[Packet]) -> Flows {
    let mut index: HashMap<FiveTuple, usize> = HashMap::new();
    let mut flows: Flows = Vec::new();
    for packet in packets {
        let at = *index.entry(packet.tuple).or_insert_with(|| {
            flows.push(Vec::new());
            flows.len() - 1
        });
        flows[at].push(*packet);
    }
    flows
}

/// Compares, at equal sizes: half of the real flows with the other half, and
/// with as many synthetic flows, both drawn by `seed`.
#[must_use]
pub fn compare(real: &Flows, synthetic: &Flows, seed: u64) -> Vec<Metric> {
    let drawn = |flows: &Flows, stream: u64| -> Vec<usize> {
        let mut order: Vec<usize> = (0..flows.len()).collect();
        Stream::new(seed, Purpose::Shuffle, stream).shuffle(&mut order);
        order
    };
    let order = drawn(real, 0);
    let (first, second) = order.split_at(order.len() / 2);
    let pick = |flows: &Flows, chosen: &[usize]| -> Flows {
        chosen.iter().map(|&flow| flows[flow].clone()).collect()
    };
    let (first, second) = (pick(real, first), pick(real, second));
    let mut generated = drawn(synthetic, 1);
    generated.truncate(first.len());
    let generated = pick(synthetic, &generated);
    let floor = distances(&first, &second);
    let value = distances(&first, &generated);
    value
        .into_iter()
        .zip(floor)
        .map(|((name, distance, value), (_, _, floor))| Metric { name, distance, value, floor })
        .collect()
}

type Distance = (&'static str, &'static str, f64);

fn distances(a: &Flows, b: &Flows) -> Vec<Distance> {
    let ks = |name, of: &dyn Fn(&Flows) -> Vec<f64>| {
        (name, "KS", kolmogorov_smirnov(&mut of(a), &mut of(b)))
    };
    let packets = |flows: &Flows| -> Vec<Packet> { flows.iter().flatten().copied().collect() };
    let (pa, pb) = (packets(a), packets(b));
    let tv = |name, of: &dyn Fn(&Packet) -> u32| {
        (name, "TV", total_variation(pa.iter().map(of), pb.iter().map(of)))
    };
    let per_flow = |of: fn(&Vec<Packet>) -> f64| {
        move |flows: &Flows| -> Vec<f64> { flows.iter().map(of).collect() }
    };
    let tcp_flags = |packets: &[Packet]| -> Vec<u8> {
        packets.iter().filter(|p| p.tuple.proto == 6).map(|p| p.tcp_flags & 0x3f).collect()
    };
    let joint = |packet: &Packet| {
        (packet.tuple.proto, service(packet.tuple.dst_port), (packet.len_bytes / 64).min(24))
    };
    vec![
        tv("protocol", &|packet| packet.tuple.proto.into()),
        tv("service (destination port)", &|packet| service(packet.tuple.dst_port)),
        ks("packet length", &|flows| {
            flows.iter().flatten().map(|packet| packet.len_bytes.into()).collect()
        }),
        ks("packets a flow", &per_flow(|flow| flow.len() as f64)),
        ks("bytes a flow", &per_flow(|flow| flow.iter().map(|p| f64::from(p.len_bytes)).sum())),
        ks("flow duration", &|flows| {
            flows.iter().filter(|flow| flow.len() > 1).map(|flow| duration_s(flow)).collect()
        }),
        ks("inter-arrival time in a flow", &|flows| {
            flows.iter().flat_map(|flow| gaps_s(flow)).collect()
        }),
        tv("time to live", &|packet| packet.ttl.into()),
        ("TCP flags", "TV", total_variation(tcp_flags(&pa), tcp_flags(&pb))),
        (
            "protocol, service and length",
            "JSD",
            jensen_shannon(pa.iter().map(joint), pb.iter().map(joint)),
        ),
    ]
}

/// Well-known ports by themselves, the rest as registered or ephemeral.
fn service(port: u16) -> u32 {
    match port {
        0..1024 => port.into(),
        1024..32768 => 1024,
        32768.. => 32768,
    }
}

fn duration_s(flow: &[Packet]) -> f64 {
    match (flow.first(), flow.last()) {
        (Some(first), Some(last)) => (last.time_ns - first.time_ns) as f64 / 1e9,
        _ => 0.0,
    }
}

fn gaps_s(flow: &[Packet]) -> impl Iterator<Item = f64> + '_ {
    flow.windows(2).map(|pair| (pair[1].time_ns - pair[0].time_ns) as f64 / 1e9)
}
