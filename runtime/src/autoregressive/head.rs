//! What a record's heads say, and which of their tokens a record can have.

use std::cell::{Cell, RefCell};

use ns_model_format::autoregressive::{Autoregressive, Head, RecordSays};
use ns_model_format::codec::TokensCodec;

use super::joint::{self, Found, Joint};
use super::sample::{self, Draws, LaneSet, NotWith, Rules};
use super::{SAID, Widths};
use crate::kernels::LANES;
use crate::program::Lanes;

/// Before the span ends each record to come is left such a share of the flow's usual gap.
const SHARE_LEFT: f64 = 0.25;
/// Gaps from this record on are steered.
pub(super) const STEERED_FROM: u32 = 16;

/// What a head's last tokens say beside the value of the record before.
pub(super) fn steps(head: &Head) -> &[i32] {
    match &head.says {
        RecordSays::Field { steps, .. } => steps,
        _ => &[],
    }
}

/// A head but for its graph.
pub(super) struct RecordHead {
    /// Which of the model's it is.
    at: usize,
    pub(super) size: usize,
    pub(super) joint: Option<Joint>,
    /// What that was found to allow.
    found: RefCell<Found>,
    /// What its last tokens add to the value before.
    pub(super) steps: Vec<f32>,
    /// Where that value is in what is kept, if there are any.
    pub(super) kept: usize,
    /// An earlier head, and what this one does not say after each of its tokens.
    absent: Vec<(usize, NotWith)>,
    /// Of gaps, tokens and the smallest microseconds of each, from the longest on.
    longest: Vec<(usize, f64)>,
}

impl RecordHead {
    pub(super) fn all(model: &Autoregressive) -> Vec<RecordHead> {
        let widths = Widths::of(model);
        let (mut given, mut places) = (widths.given(), widths.joints_from());
        let mut stepping = widths.steps_from();
        let joints = model.heads.iter().filter(|head| joint::is_joint(head)).count();
        let head = |(at, head): (usize, &Head)| {
            let joint = joint::is_joint(head).then(|| Joint::new(model, at, given, places));
            given += if joint.is_some() { joint::GIVEN } else { 0 };
            places += joint::progress(head);
            let steps: Vec<f32> = steps(head).iter().map(|&step| step as f32).collect();
            let kept = stepping;
            stepping += if steps.is_empty() { 0 } else { SAID };
            let absent = head.absent.iter().map(|absent| {
                (absent.before, NotWith::new(&absent.lists(model.heads[absent.before].size)))
            });
            let longest = match &head.says {
                RecordSays::Gap { tokens } => longest(tokens),
                _ => Vec::new(),
            };
            RecordHead {
                at,
                size: head.size,
                joint,
                found: RefCell::new(Found::new(joints)),
                steps,
                kept,
                absent: absent.collect(),
                longest,
            }
        };
        model.heads.iter().enumerate().map(head).collect()
    }

    /// Draws the tokens of some rows, each at its uniform number.
    #[inline(always)]
    pub(super) fn draw(
        &self,
        known: &Known<'_>,
        Lanes { first, rows, columns: logits }: Lanes<'_>,
        uniform: impl Fn(usize) -> f32,
        draws: &mut Draws,
    ) {
        let mut uniforms = [0.0; LANES];
        for (row, at) in (first..).zip(&mut uniforms[..rows]) {
            *at = uniform(row);
        }
        draws.limit(logits, sample::first(rows), &DrawnRecords { head: self, known, first });
        draws.sum();
        for (row, &token) in (first..).zip(&draws.place(&uniforms)[..rows]) {
            known.tokens(row)[self.at].set(token);
        }
    }
}

/// Records that draw a head's token at once.
struct DrawnRecords<'a> {
    head: &'a RecordHead,
    known: &'a Known<'a>,
    first: usize,
}

impl Rules for DrawnRecords<'_> {
    #[inline(always)]
    fn always(&self, rows: LaneSet, draws: &mut Draws) {
        let DrawnRecords { head, known, first } = *self;
        let (mut begin, mut found) = (0, head.found.borrow_mut());
        for lane in sample::lanes(rows) {
            let (gates, progress) = (known.gates(first + lane), known.progress(first + lane));
            let index = progress[known.widths.clock()] as u32;
            begin |= LaneSet::from(index == 0) << lane;
            let Some(joint) = &head.joint else { continue };
            let before = (index > 0).then(|| (progress[head.at] as usize).saturating_sub(1));
            let left = known.widths.plan(gates).0.saturating_sub(index);
            if let Some(allowed) = joint.allowed(gates, before, progress, left, &mut found) {
                draws.leave(allowed, lane);
            }
        }
        // A first record has none before it.
        draws.take(head.size - head.steps.len()..head.size, begin);
    }

    fn count(&self) -> usize {
        self.head.absent.len() + usize::from(!self.head.longest.is_empty())
    }

    #[inline(always)]
    fn take(&self, rule: usize, rows: LaneSet, draws: &mut Draws) {
        let DrawnRecords { head, known, first } = *self;
        if let Some((before, not_with)) = head.absent.get(rule) {
            let token_of = |lane: usize| known.tokens(first + lane)[*before].get() as usize;
            return draws.take_without(not_with, rows, token_of);
        }
        // No gap ends after the span.
        let [(_, longest_us), .., (_, shortest_us)] = head.longest[..] else { return };
        for lane in sample::lanes(rows) {
            let room_us = known.room_us(first + lane);
            if longest_us > room_us && shortest_us <= room_us {
                let long = head.longest.iter().take_while(|(_, us)| *us > room_us);
                draws.take(long.map(|&(token, _)| token), 1 << lane);
            }
        }
    }
}

/// Tokens and the smallest microseconds of each, from the longest on.
fn longest(tokens: &TokensCodec) -> Vec<(usize, f64)> {
    let of = |token: u32| (token as usize, tokens.number_at(token, 0.0));
    let mut all: Vec<_> = (0..tokens.sizes()[0] as u32).map(of).collect();
    all.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    all
}

/// What is known of the rows of a batch when a head is drawn.
pub(super) struct Known<'a> {
    pub(super) widths: Widths,
    pub(super) gates: &'a [f32],
    pub(super) progress: &'a [f32],
    /// `[rows, heads]`.
    pub(super) tokens: &'a [Cell<u32>],
}

impl<'a> Known<'a> {
    #[inline(always)]
    fn gates(&self, row: usize) -> &'a [f32] {
        let width = self.widths.gates();
        &self.gates[row * width..][..width]
    }

    #[inline(always)]
    fn progress(&self, row: usize) -> &'a [f32] {
        let width = self.widths.progress();
        &self.progress[row * width..][..width]
    }

    /// Those of the heads before.
    #[inline(always)]
    fn tokens(&self, row: usize) -> &'a [Cell<u32>] {
        &self.tokens[row * self.widths.heads..][..self.widths.heads]
    }

    /// Microseconds that a row's gap may take; any that it likes if it has none.
    #[inline(always)]
    fn room_us(&self, row: usize) -> f64 {
        let (widths, gates) = (self.widths, self.gates(row));
        match &self.progress(row)[widths.clock()..] {
            [0.0, ..] => f64::INFINITY,
            clock => room_us(widths.plan(gates), widths.left_us(gates), clock),
        }
    }
}

/// Microseconds since a flow's first record.
#[inline(always)]
pub(super) fn elapsed_us(clock: &[f32]) -> f64 {
    f64::from(clock[1]) * 1e6 + f64::from(clock[2])
}

/// Microseconds that a gap may take: what is left of the span, but for what the records after
/// it need. Else one long gap would leave them no time, and all would come at once.
#[inline(always)]
pub(super) fn room_us((records, plan_us): (u32, f64), span_us: f64, clock: &[f32]) -> f64 {
    let index = clock[0] as u32;
    let [sum_us, longest_us] = [clock[3], clock[4]].map(f64::from);
    let left_us = (span_us - elapsed_us(clock)).max(0.0);
    let usual_us = match index {
        ..STEERED_FROM => plan_us / f64::from(records.max(2) - 1),
        _ => (sum_us - longest_us) / f64::from(index - 2),
    };
    let after = f64::from(records.saturating_sub(index + 1));
    left_us - after * (SHARE_LEFT * usual_us).min(left_us / (after + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoregressive::test_bundle;

    #[test]
    fn no_gap_ends_after_the_span() {
        let bundle = test_bundle();
        let model = bundle.manifest().model.autoregressive.clone().unwrap();
        let (heads, widths) = (RecordHead::all(&model), Widths::of(&model));
        let (gap, rows) = (heads.last().unwrap(), 3);
        // Of three records in 100 us: a first one, and second ones with so much left of the span.
        let left_us = [20.0, 1e9, 20.0];
        let (mut gates, mut progress) =
            (vec![0.0; rows * widths.gates()], vec![0.0; rows * widths.progress()]);
        for row in 0..rows {
            let plan = row * widths.gates() + widths.context();
            gates[plan..plan + 3].copy_from_slice(&[3.0, 100.0, left_us[row]]);
            progress[row * widths.progress() + widths.clock()] = f32::from(row > 0);
        }
        let tokens = vec![Cell::new(0); rows * heads.len()];
        let known = Known { widths, gates: &gates, progress: &progress, tokens: &tokens };
        let mut draws = Draws::default();
        let logits = vec![[0.0; LANES]; gap.size];
        let records = DrawnRecords { head: gap, known: &known, first: 0 };
        draws.limit(&logits, sample::first(rows), &records);
        let taken = |lane: usize| {
            let is_taken = |(token, _): &&(usize, f64)| draws.is_taken(*token, lane);
            gap.longest.iter().filter(is_taken).map(|(_, us)| *us).collect::<Vec<f64>>()
        };
        assert!(taken(0).is_empty() && taken(1).is_empty());
        // Half of what is left is for the record after it, or a quarter of the usual gap.
        let room_us = known.room_us(2);
        assert_eq!(room_us, 20.0 - 10.0);
        let late: Vec<f64> =
            gap.longest.iter().map(|(_, us)| *us).filter(|us| *us > room_us).collect();
        assert!(!late.is_empty() && late.len() < gap.size);
        assert_eq!(taken(2), late);
    }
}
