//! Which combinations a flow can have, after those that it has had and before its end.

use super::*;
use crate::autoregressive::joint::Joint;
use ns_model_format::autoregressive::{RecordSays, Says};

/// Combinations of a connection: it begins, has data, closes, acknowledges.
const BEGIN: u32 = 0;
const DATA: u32 = 1;
const CLOSE: u32 = 2;
const ACKNOWLEDGE: u32 = 3;

fn connection() -> Joint {
    let bundle = bundle();
    let mut model = bundle.manifest().model.autoregressive.clone().unwrap();
    let all = vec![BEGIN, DATA, CLOSE, ACKNOWLEDGE];
    model.heads[0].says = RecordSays::Joint {
        fields: vec![0, 1],
        combinations: (0..4).map(|token| vec![token, 0]).collect(),
        given: None,
        first: vec![vec![BEGIN]],
        later: vec![all.clone()],
        after: vec![all.clone(); 4],
        since: vec![all.clone(), all.clone(), vec![BEGIN, ACKNOWLEDGE], all],
        begins: vec![BEGIN],
        room: vec![u32::MAX, u32::MAX, 2, u32::MAX],
    };
    model.attributes.retain(|variable| !matches!(variable.says, Says::Support { .. }));
    Joint::new(&model, 0, 0, 0)
}

/// What may come after these, with so many records to come.
fn allowed(before: &[u32], left: u32) -> Vec<u32> {
    let (joint, gates) = (connection(), [0.0, 0.0]);
    let mut progress = [0.0; 2];
    before.iter().for_each(|&token| joint.note(token, &gates, &mut progress));
    let (last, mut some) = (before.last().map(|&token| token as usize), Vec::new());
    joint.allowed(&gates, last, &progress, left, &mut some).unwrap().to_vec()
}

#[test]
fn what_closes_a_flow_comes_near_its_end_only() {
    assert_eq!(allowed(&[BEGIN, DATA], 100), [BEGIN, DATA, ACKNOWLEDGE]);
    assert_eq!(allowed(&[BEGIN, DATA], 4), [BEGIN, DATA, ACKNOWLEDGE]);
    // Two come after it.
    assert_eq!(allowed(&[BEGIN, DATA], 3), [BEGIN, DATA, CLOSE, ACKNOWLEDGE]);
    assert_eq!(allowed(&[BEGIN, DATA], 1), [BEGIN, DATA, CLOSE, ACKNOWLEDGE]);
}

#[test]
fn what_is_over_is_over_until_something_begins_anew() {
    assert_eq!(allowed(&[BEGIN, CLOSE], 2), [BEGIN, ACKNOWLEDGE]);
    assert_eq!(allowed(&[BEGIN, CLOSE, ACKNOWLEDGE], 1), [BEGIN, ACKNOWLEDGE]);
    assert_eq!(allowed(&[BEGIN, CLOSE, BEGIN], 1), [BEGIN, DATA, CLOSE, ACKNOWLEDGE]);
}
