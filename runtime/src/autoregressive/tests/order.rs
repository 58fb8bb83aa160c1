//! Which combinations a flow can have, after those that it has had and before its end.

use super::*;
use crate::autoregressive::joint::{Found, Joint};
use ns_model_format::autoregressive::{RecordSays, Says};

/// Combinations of a connection: it begins, has data, closes, acknowledges, is reset.
const BEGIN: u32 = 0;
const DATA: u32 = 1;
const CLOSE: u32 = 2;
const ACKNOWLEDGE: u32 = 3;
const RESET: u32 = 4;

/// Of flows that have all of one of these, and begin anew as often as planned, if it is.
fn connection(sets: &[&[u32]], again: Option<f32>) -> Joint {
    let bundle = paired_bundle();
    let mut model = bundle.manifest().model.autoregressive.clone().unwrap();
    let all = vec![BEGIN, DATA, CLOSE, ACKNOWLEDGE, RESET];
    // A reset answers an acknowledgement.
    let most = vec![BEGIN, DATA, CLOSE, ACKNOWLEDGE];
    let over = vec![BEGIN, ACKNOWLEDGE, RESET];
    // Where it is planned what begins anew, a reset is only ever a flow's last.
    let reset = if again.is_some() { Vec::new() } else { vec![BEGIN] };
    model.heads[0].says = RecordSays::Joint {
        fields: vec![0, 1],
        combinations: (0..5).map(|token| vec![token, 0]).collect(),
        given: None,
        first: vec![vec![BEGIN]],
        later: vec![all.clone()],
        after: vec![most.clone(), most.clone(), most.clone(), all.clone(), reset],
        since: vec![all.clone(), all.clone(), over, all, vec![BEGIN]],
        begins: vec![BEGIN],
        room: vec![u32::MAX, u32::MAX, 2, u32::MAX, u32::MAX],
    };
    if again.is_some() {
        let mut planned = model.attributes[0].clone();
        planned.says = Says::Again { head: 0, most: 3 };
        model.attributes.push(planned);
    }
    for variable in &mut model.attributes {
        if let Says::Support { kinds, sets: all, .. } = &mut variable.says {
            *kinds = (0..5).collect();
            *all = sets.iter().map(|set| set.to_vec()).collect();
        }
    }
    Joint::new(&model, 0, 0, 0)
}

/// What may come after these, with so many records to come.
fn allowed(before: &[u32], left: u32) -> Vec<u32> {
    allowed_of(&[], before, left)
}

/// In a flow that has all of these.
fn allowed_of(sets: &[&[u32]], before: &[u32], left: u32) -> Vec<u32> {
    allowed_as_planned(None, sets, before, left)
}

/// In a flow that is to begin anew so often.
fn allowed_as_planned(again: Option<f32>, sets: &[&[u32]], before: &[u32], left: u32) -> Vec<u32> {
    ask(&connection(sets, again), again, before, left, &mut Found::new(1))
}

fn ask(
    joint: &Joint,
    again: Option<f32>,
    before: &[u32],
    left: u32,
    found: &mut Found,
) -> Vec<u32> {
    let (gates, mut progress) = ([0.0, 0.0, again.unwrap_or(0.0)], [0.0; 3]);
    before.iter().for_each(|&token| joint.note(token, &gates, &mut progress));
    let last = before.last().map(|&token| token as usize);
    joint.allowed(&gates, last, &progress, left, found).unwrap().to_vec()
}

#[test]
fn what_is_remembered_is_what_is_found() {
    let mut stream = Stream::new(2, Purpose::Steps, 0);
    let mut below = |most: u32| (stream.uniform() * most as f32) as u32;
    let sets: [&[&[u32]]; 2] = [&[], &[&[BEGIN, DATA, CLOSE, RESET]]];
    for again in [None, Some(1.0)] {
        for sets in sets {
            let joint = connection(sets, again);
            // One that keeps all, and one that has room for a few lists.
            let (mut all, mut few) = (Found::new(1), Found::new(1 << 12));
            for _ in 0..4_000 {
                let before: Vec<u32> = (0..below(5)).map(|_| below(5)).collect();
                let left = 1 + below(40);
                let fresh = ask(&joint, again, &before, left, &mut Found::new(1));
                for found in [&mut all, &mut few] {
                    assert_eq!(ask(&joint, again, &before, left, found), fresh);
                }
                // More than enough is as good as enough.
                if left == 40 {
                    assert_eq!(ask(&joint, again, &before, u32::MAX, &mut all), fresh);
                }
            }
        }
    }
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
    assert_eq!(allowed(&[BEGIN, CLOSE, ACKNOWLEDGE], 1), [BEGIN, ACKNOWLEDGE, RESET]);
    assert_eq!(allowed(&[BEGIN, CLOSE, BEGIN], 1), [BEGIN, DATA, CLOSE, ACKNOWLEDGE]);
}

#[test]
fn a_flow_begins_anew_as_often_as_planned() {
    let of = |again: f32, before: &[u32], left| allowed_as_planned(Some(again), &[], before, left);
    // With nothing more to begin, it closes near its end only; a first beginning may come again.
    assert_eq!(of(0.0, &[BEGIN], 100), [BEGIN, DATA, ACKNOWLEDGE]);
    assert_eq!(of(0.0, &[BEGIN, DATA], 100), [DATA, ACKNOWLEDGE]);
    assert_eq!(of(0.0, &[BEGIN, DATA], 3), [DATA, CLOSE, ACKNOWLEDGE]);
    // Where it begins once more, it may close at any time, until it has.
    assert_eq!(of(1.0, &[BEGIN, DATA], 100), [BEGIN, DATA, CLOSE, ACKNOWLEDGE]);
    assert_eq!(of(1.0, &[BEGIN, DATA, CLOSE], 99), [BEGIN, ACKNOWLEDGE]);
    let twice = [BEGIN, DATA, CLOSE, BEGIN, BEGIN, DATA];
    assert_eq!(of(1.0, &twice, 98), [DATA, ACKNOWLEDGE]);
    assert_eq!(of(2.0, &twice, 98), [BEGIN, DATA, CLOSE, ACKNOWLEDGE]);
    // What is only ever a flow's last stays that.
    let answered = [BEGIN, ACKNOWLEDGE];
    assert_eq!(of(1.0, &answered, 100), [BEGIN, DATA, CLOSE, ACKNOWLEDGE]);
    assert_eq!(of(1.0, &answered, 1), [BEGIN, DATA, CLOSE, ACKNOWLEDGE, RESET]);
    // The last token leaves open how often.
    let often = [twice, twice, twice].concat();
    assert_eq!(of(2.0, &often, 98), [DATA, ACKNOWLEDGE]);
    assert_eq!(of(3.0, &often, 98), [BEGIN, DATA, CLOSE, ACKNOWLEDGE]);
}

#[test]
fn what_a_flow_has_comes_in_time() {
    let all = &[&[BEGIN, DATA, CLOSE, ACKNOWLEDGE, RESET][..]];
    let begun = [BEGIN, DATA];
    assert_eq!(allowed_of(all, &begun, 5), [BEGIN, DATA, ACKNOWLEDGE]);
    assert_eq!(allowed_of(all, &begun, 4), [BEGIN, DATA, ACKNOWLEDGE]);
    // It closes, what answers is acknowledged, and reset: none of these is right after another.
    assert_eq!(allowed_of(all, &begun, 3), [CLOSE]);
    assert_eq!(allowed_of(all, &[BEGIN, DATA, CLOSE], 2), [ACKNOWLEDGE]);
    assert_eq!(allowed_of(all, &[BEGIN, DATA, CLOSE, ACKNOWLEDGE], 1), [RESET]);
    // There is no way in two: as much as there can be.
    assert_eq!(allowed_of(all, &begun, 2), [CLOSE, ACKNOWLEDGE]);
}

#[test]
fn nothing_comes_after_which_what_a_flow_has_cannot() {
    let all = &[&[BEGIN, DATA, CLOSE, ACKNOWLEDGE][..]];
    // Data comes before the end, rather than in a connection that begins anew.
    assert_eq!(allowed_of(all, &[BEGIN, ACKNOWLEDGE], 3), [BEGIN, DATA, ACKNOWLEDGE]);
    assert_eq!(allowed_of(all, &[BEGIN, DATA], 3), [BEGIN, DATA, CLOSE, ACKNOWLEDGE]);
    // But where it is over, it begins anew.
    assert_eq!(allowed_of(all, &[BEGIN, CLOSE], 3), [BEGIN, ACKNOWLEDGE]);
    assert_eq!(allowed_of(all, &[BEGIN, CLOSE, ACKNOWLEDGE, BEGIN], 1), [DATA]);
}
