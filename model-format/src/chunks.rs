//! Chunks: parts of the trained span with networks of their own.
//!
//! A record belongs to the chunk that its time lies in; a flow's records in one
//! chunk are a *part* of it. A flow that goes on in a later chunk is handed
//! over there, with all that it is.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Most knots of a distribution; it is linear between knots.
const MOST_KNOTS: usize = 65;

/// Where the chunks of a span begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    starts_ns: Vec<u64>,
    span_ns: u64,
}

impl Chunks {
    /// Chunks that begin at these times, in nanoseconds from the beginning of
    /// the span: ascending from 0, all within the span. None given: the whole
    /// span is one.
    #[must_use]
    pub fn new(starts_ns: &[u64], span_ns: u64) -> Chunks {
        let starts_ns = if starts_ns.is_empty() { vec![0] } else { starts_ns.to_vec() };
        Chunks { starts_ns, span_ns: span_ns.max(1) }
    }

    /// How many; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.starts_ns.len()
    }

    /// Length of the span in nanoseconds, at least 1.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        self.span_ns
    }

    /// Where each begins.
    #[must_use]
    pub fn starts_ns(&self) -> &[u64] {
        &self.starts_ns
    }

    /// The chunk that a time of the span lies in; after its end, the last.
    #[must_use]
    pub fn of(&self, time_ns: u64) -> usize {
        self.starts_ns.partition_point(|&start| start <= time_ns).saturating_sub(1)
    }

    /// The times of chunk `index`; empty if there is none of that number.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<u64> {
        let start = |index: usize| self.starts_ns.get(index).copied().unwrap_or(self.span_ns);
        start(index)..start(index + 1)
    }

    /// Where in chunk `index` a time lies, in \[0, 1\]: the condition that every
    /// network is given. The chunk's end is where it begins.
    #[must_use]
    pub fn position(&self, index: usize, time_ns: u64) -> f32 {
        let Range { start, end } = self.range(index);
        let length = end.saturating_sub(start).max(1);
        ((time_ns.saturating_sub(start) % length) as f64 / length as f64) as f32
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        let ascending = self.starts_ns.windows(2).all(|pair| pair[0] < pair[1]);
        let last = self.starts_ns[self.starts_ns.len() - 1];
        if self.starts_ns[0] != 0 || !ascending || last >= self.span_ns {
            return Err("chunks must begin at 0, one after another, within the span".to_owned());
        }
        Ok(())
    }
}

/// How flows that started in earlier chunks go on in this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedOver {
    /// Where in the chunk their parts begin, as shares of it: ascending
    /// quantiles at equal steps of probability from 0 to 1.
    pub begins: Vec<f32>,
    /// The share of these parts that have a second segment; 0 where flows are not cut.
    #[serde(default)]
    pub goes_on: f32,
}

impl HandedOver {
    /// Of parts that begin at these shares of the chunk; `None` without parts.
    #[must_use]
    pub fn fit(mut begins: Vec<f32>, goes_on: f32) -> Option<HandedOver> {
        begins.sort_by(f32::total_cmp);
        let last = begins.len().checked_sub(1)?;
        let knots = begins.len().min(MOST_KNOTS);
        let knot = |knot: usize| match knots {
            1 => begins[0],
            _ => {
                let at = (knot * last) as f64 / (knots - 1) as f64;
                let (low, part) = (at as usize, at.fract() as f32);
                begins[low] + (begins[(low + 1).min(last)] - begins[low]) * part
            }
        };
        Some(HandedOver { begins: (0..knots).map(knot).collect(), goes_on })
    }

    /// Where a part begins, for a uniform draw in (0, 1).
    #[must_use]
    pub fn begin(&self, uniform: f32) -> f32 {
        let last = self.begins.len().saturating_sub(1);
        let at = uniform.clamp(0.0, 1.0) * last as f32;
        let low = (at as usize).min(last);
        match (self.begins.get(low), self.begins.get((low + 1).min(last))) {
            (Some(&low_knot), Some(&high)) => low_knot + (high - low_knot) * (at - low as f32),
            _ => 0.0,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        let shares = self.begins.iter().chain([&self.goes_on]);
        if self.begins.is_empty()
            || self.begins.len() > MOST_KNOTS
            || !self.begins.is_sorted()
            || shares.into_iter().any(|share| !(0.0..=1.0).contains(share))
        {
            return Err("handed_over is out of range".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_one_chunk() {
        let chunks = Chunks::new(&[0, 10, 40], 100);
        chunks.validate().unwrap();
        let of: Vec<usize> = [0, 9, 10, 39, 40, 99, 100].map(|time| chunks.of(time)).into();
        assert_eq!(of, [0, 0, 1, 1, 2, 2, 2]);
        assert_eq!(
            (0..4).map(|k| chunks.range(k)).collect::<Vec<_>>(),
            [0..10, 10..40, 40..100, 100..100]
        );
        assert_eq!([chunks.position(1, 10), chunks.position(1, 25)], [0.0, 0.5]);
        assert_eq!([chunks.position(2, 100), chunks.position(7, 3)], [0.0, 0.0]);
        let whole = Chunks::new(&[], 8);
        assert_eq!((whole.count(), whole.of(5), whole.position(0, 2)), (1, 0, 0.25));
    }

    #[test]
    fn chunks_that_cannot_be_are_refused() {
        for starts in [&[1][..], &[0, 0], &[0, 5, 4], &[0, 100]] {
            assert!(Chunks::new(starts, 100).validate().is_err(), "{starts:?}");
        }
    }

    #[test]
    fn begins_are_drawn_as_seen() {
        assert_eq!(HandedOver::fit(Vec::new(), 0.0), None);
        let one = HandedOver::fit(vec![0.25], 0.5).unwrap();
        assert_eq!([one.begin(0.01), one.begin(0.99)], [0.25, 0.25]);
        let begins: Vec<f32> = (0..1000).rev().map(|i| (i as f32 / 1000.0).powi(2)).collect();
        let many = HandedOver::fit(begins, 0.0).unwrap();
        many.validate().unwrap();
        assert_eq!(many.begins.len(), MOST_KNOTS);
        for share in [0.1_f32, 0.5, 0.9] {
            assert!((many.begin(share) - share * share).abs() < 0.01);
        }
        let bad = HandedOver { begins: vec![0.5, f32::NAN], goes_on: 0.0 };
        assert!(bad.validate().is_err());
        assert!(HandedOver { begins: vec![0.5], goes_on: 1.5 }.validate().is_err());
    }
}
