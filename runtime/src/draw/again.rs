//! Draws flows again that are like an earlier one.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::distinct::{self, Distinct};
use super::plan::Means;
use super::{CANDIDATES, Drawer, MOST_DRAFTS, MOST_ROWS, Wanted};
use crate::autoregressive::Rule;
use crate::decode::AttributeDecoder;
use crate::error::RuntimeError;
use crate::networks::Networks;
use crate::stages::{Stage, timed};

/// Times that a flow is drawn again because another has its attributes.
const REDRAWS: u32 = 12;
/// The first of them draw only the field that is drawn last.
const OF_LAST_FIELD: u32 = 8;

impl Drawer {
    /// Draws those again whose attributes an earlier flow has, up to [`REDRAWS`] times
    /// each, from the try on that was kept. The company counts here.
    pub(crate) fn make_distinct<N: Networks>(
        &mut self,
        networks: &mut N,
        decoder: &mut AttributeDecoder,
        Wanted { keys, condition, rows }: Wanted<'_>,
        distinct: &mut Distinct,
    ) -> Result<(), RuntimeError> {
        let Some(first) = keys.first() else { return Ok(()) };
        distinct.forget(first.time_ns);
        let selection = Arc::clone(&self.plan.selection);
        let is_free = matches!(self.plan.means, Means::Free);
        let width = rows.len() / keys.len();
        let hash =
            |decoder: &mut AttributeDecoder, row: &[f32]| distinct::hash(&decoder.decode(row));
        let mut hashes: Vec<u64> = rows.chunks_exact(width).map(|row| hash(decoder, row)).collect();
        let mut pending: Vec<usize> =
            (0..keys.len()).filter(|&flow| !distinct.claim(hashes[flow])).collect();
        let mut redraws = vec![0; keys.len()];
        let (mut draws, mut mixed) = (0, 0);
        let has_last_field = !self.last_field.is_empty();
        let kept = self.attempts.clone();
        let (most_drafts, _) = self.plan.most_drafts();
        // Drafts that conditions took count.
        let last = |flow: usize| if is_free { kept[flow] + 1 + REDRAWS } else { most_drafts };
        loop {
            pending.retain(|&flow| self.attempts[flow] + 1 < last(flow));
            let Some(&first) = pending.first() else { break };
            // Those of which the next try is of one kind.
            let how = self.plan.try_at(self.attempts[first] + 1);
            let is_now = |&flow: &usize| self.plan.try_at(self.attempts[flow] + 1) == how;
            let (mut now, mut later): (Vec<usize>, Vec<usize>) =
                pending.into_iter().partition(is_now);
            later.extend(now.split_off(now.len().min(MOST_DRAFTS / how.drafts as usize)));
            let each = match how.rule {
                Rule::Accept => {
                    // All of one kind.
                    let left = |&flow: &usize| self.plan.tries_left(self.attempts[flow] + 1);
                    let left = now.iter().filter_map(left).min().unwrap_or(1) as usize;
                    (MOST_ROWS / now.len()).clamp(1, CANDIDATES).min(left.max(1))
                }
                Rule::All | Rule::Choose => 1,
            };
            let drafts_of = |from: u32| (0..each as u32).map(move |k| from + 1 + k * how.drafts);
            let tries: Vec<(usize, u32)> = now
                .iter()
                .flat_map(|&flow| drafts_of(self.attempts[flow]).map(move |draft| (flow, draft)))
                .collect();
            // All else of a flow stays as it was drawn: flows that are alike are of frequent
            // kinds, and would become rarer if all were drawn again.
            let keeps = |flow: usize| {
                (is_free && has_last_field && redraws[flow] < OF_LAST_FIELD).then_some(kept[flow])
            };
            self.push_tries(how, &tries, keys, condition, keeps);
            timed(Stage::Again, || self.make_tries(networks, how))?;
            let mut found = self.rows.chunks_exact_mut(width).zip(&self.logs);
            let attempts = &mut self.attempts;
            now.retain(|&flow| {
                let mut is_left = true;
                for (row, &log) in found.by_ref().take(each) {
                    if !is_left {
                        continue;
                    }
                    attempts[flow] += how.drafts;
                    draws += u64::from(how.drafts);
                    if attempts[flow] >= last(flow) {
                        is_left = false;
                        continue;
                    }
                    if log == f64::NEG_INFINITY {
                        continue;
                    }
                    decoder.make_discrete(row);
                    // Noise has no part that is a field's: its columns are taken over.
                    if is_free
                        && !has_last_field
                        && attempts[flow] <= kept[flow] + OF_LAST_FIELD
                        && !decoder.keep_but_told(&rows[flow * width..][..width], row)
                    {
                        continue;
                    }
                    let values = decoder.decode(row);
                    if !selection.is_of_one_version(&values) {
                        mixed += 1;
                        continue;
                    }
                    if !selection.wants_flow(keys[flow].flow, attempts[flow], &values) {
                        continue;
                    }
                    rows[flow * width..][..width].copy_from_slice(row);
                    hashes[flow] = distinct::hash(&values);
                    redraws[flow] += 1;
                    is_left = !distinct.claim(hashes[flow]) && redraws[flow] < REDRAWS;
                }
                is_left
            });
            pending = now;
            pending.append(&mut later);
            pending.sort_unstable();
        }
        self.counters.mixed_versions.fetch_add(mixed, Relaxed);
        if selection.is_on_attributes() {
            self.counters.draws.fetch_add(draws, Relaxed);
        }
        for (key, hash) in keys.iter().zip(hashes) {
            distinct.remember(key.time_ns, hash);
        }
        Ok(())
    }
}
