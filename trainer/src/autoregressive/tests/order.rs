//! What is learned of the order that a flow's records have.

use std::collections::BTreeMap;

use ns_model_format::autoregressive::RecordSays;
use ns_model_format::codec::{Codec, TokenOptions, TokensCodec};
use ns_model_format::schema::packet_field;
use ns_model_format::{Column, Field, FieldKind};

use crate::autoregressive::joint::{Joined, again, joint_head};
use crate::autoregressive::measured::{Measured, Records};

const SYN: i64 = 2;
const ACK: i64 = 16;
const FIN: i64 = 17;
const DATA: i64 = 24;

/// For each value of the flags, those that can come after it and how many records.
type Order = BTreeMap<i64, (Vec<i64>, u32)>;

/// What is learned, which values begin anew, and how often each flow does, if that is learned.
fn learned(flows: &[Vec<i64>]) -> (Order, Vec<i64>, Option<Vec<u32>>) {
    let column = Column::ints(packet_field::TCP_FLAGS, flows.concat());
    let codec = TokensCodec::fit_with(&column, &TokenOptions::default()).unwrap();
    let field = Field {
        name: packet_field::TCP_FLAGS.to_owned(),
        kind: FieldKind::Integer,
        codec: Codec::Tokens(codec.clone()),
        missing: None,
    };
    let mut tokens = Vec::new();
    codec.tokens(&column, &mut tokens).unwrap();
    let measured = [Measured { field: &field, codec: &codec, tokens }];
    let ends: Vec<u64> = flows
        .iter()
        .scan(0, |end, flow| {
            *end += flow.len() as u64;
            Some(*end)
        })
        .collect();
    let records = Records { ends: &ends, directions: None };
    let joined = Joined::new(&[0], &measured);
    let head = joint_head(&[0], &joined, &measured, &records, &[], &[]);
    let RecordSays::Joint { combinations, since, begins, room, .. } = head.says else {
        panic!("no joint head")
    };
    let flags = |at: &u32| codec.value(&combinations[*at as usize], 0.0).as_i64().unwrap();
    let sorted = |list: &[u32]| {
        let mut list: Vec<i64> = list.iter().map(flags).collect();
        list.sort_unstable();
        list
    };
    let each = (0..).zip(since.iter().zip(room));
    let each = each.map(|(at, (since, room))| (flags(&at), (sorted(since), room)));
    let again = again(&[0], &joined, &measured, &records);
    (each.collect(), sorted(&begins), again.map(|(_, counts)| counts))
}

fn connection(records: usize) -> Vec<i64> {
    let body = (0..records).map(|at| if at % 2 == 0 { DATA } else { ACK });
    [SYN].into_iter().chain(body).chain([FIN, ACK, ACK]).collect()
}

#[test]
fn a_connection_closes_near_its_end_and_may_begin_anew() {
    let mut flows: Vec<Vec<i64>> = (0..60).map(|at| connection(10 + at)).collect();
    // Some ports are used twice.
    flows.extend((0..4).map(|at| [connection(20 + at), connection(9)].concat()));
    let (learned, begins, again) = learned(&flows);
    assert_eq!(begins, [SYN]);
    assert_eq!(again, Some([[0; 60].as_slice(), &[1; 4]].concat()));
    assert_eq!(learned[&FIN], (vec![SYN, ACK], 2));
    assert_eq!(learned[&DATA], (vec![SYN, ACK, FIN, DATA], u32::MAX));
    assert_eq!(learned[&SYN].1, u32::MAX);
    assert_eq!(learned[&ACK].1, u32::MAX);
}

#[test]
fn few_flows_say_nothing_of_the_end() {
    let flows: Vec<Vec<i64>> = (0..4).map(|at| connection(10 + at)).collect();
    let (learned, _, again) = learned(&flows);
    assert_eq!(learned[&FIN].1, u32::MAX);
    assert_eq!(again, None);
}
