//! When flows start: a renewal process whose gaps depend on the time in the span.
//!
//! The span is cut into bins. Each bin holds the empirical distribution of the
//! gaps that follow a start in it, as quantile knots. The process is stepped
//! from start to start, so flows come out in order; past the span it goes round.
//!
//! A bin in which no flow started is silent: no flow starts there. Gaps are
//! measured without the silent bins that they leap over, and stepping leaps over
//! the same ones, so a silence is kept as it is and takes nothing from the rate
//! of the bins around it.

use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;

/// Most knots of a bin; its distribution is linear between knots.
const MOST_KNOTS: usize = 65;
/// Flows that a bin should hold for its distribution to mean something.
const FLOWS_A_BIN: usize = 50;
const MOST_BINS_A_CHUNK: usize = 128;
/// A bin with many more than that is cut into so many at most.
const MOST_PARTS: usize = 32;
/// What a bundle may ask to be kept: [`MOST_BINS_A_CHUNK`] for the most chunks.
const MOST_BINS: usize = 128 * 10_000;

/// The fitted process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrivalProcess {
    /// Length of the span in nanoseconds, at least 1.
    span_ns: u64,
    /// Per bin, ascending gaps in nanoseconds at equal steps of probability
    /// from 0 to 1; none in a silent bin.
    bins: Vec<Vec<f64>>,
    /// Where each bin begins; empty for bins of equal length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bin_starts_ns: Vec<u64>,
}

impl ArrivalProcess {
    /// Fits the process on flow starts, in nanoseconds from the beginning of
    /// the span, ascending, all within the span. The gap after the last start
    /// goes round to the first.
    ///
    /// Panics if `starts` is empty or not ascending within the span.
    #[must_use]
    pub fn fit(starts: &[u64], span_ns: u64) -> ArrivalProcess {
        ArrivalProcess::fit_chunks(starts, &Chunks::new(&[], span_ns))
    }

    /// The same, with bins of each chunk's own: as many as its flows allow.
    ///
    /// Panics as [`Self::fit`] does.
    #[must_use]
    pub fn fit_chunks(starts: &[u64], chunks: &Chunks) -> ArrivalProcess {
        let span_ns = chunks.span_ns();
        assert!(!starts.is_empty(), "no flow starts");
        assert!(starts.is_sorted() && starts[starts.len() - 1] <= span_ns, "starts out of order");
        let mut process = ArrivalProcess { span_ns, bins: Vec::new(), bin_starts_ns: Vec::new() };
        let mut uneven = false;
        for index in 0..chunks.count() {
            let range = chunks.range(index);
            let flows = starts.partition_point(|&start| start < range.end)
                - starts.partition_point(|&start| start < range.start);
            let bins = (flows / FLOWS_A_BIN).clamp(1, MOST_BINS_A_CHUNK);
            let length = range.end - range.start;
            for bin in 0..bins {
                // Where many flows start, how many changes more often.
                let from = range.start + start_of(bin, length, bins);
                let to = range.start + start_of(bin + 1, length, bins);
                let within = starts.partition_point(|&start| start < to)
                    - starts.partition_point(|&start| start < from);
                let parts = (within / FLOWS_A_BIN).clamp(1, MOST_PARTS);
                uneven |= parts > 1;
                let edge = |part| from + start_of(part, to - from, parts);
                process.bin_starts_ns.extend((0..parts).map(edge));
            }
        }
        process.bin_starts_ns.dedup();
        process.bins.resize(process.bin_starts_ns.len(), Vec::new());
        if chunks.count() == 1 && !uneven {
            process.bin_starts_ns.clear();
        }
        let bins: Vec<usize> = starts.iter().map(|&start| process.bin_of(start)).collect();
        // A bin that holds anything is not silent; what, comes below.
        bins.iter().for_each(|&bin| process.bins[bin] = vec![0.0]);
        let mut gaps: Vec<Vec<f64>> = vec![Vec::new(); process.bins.len()];
        let busy_before = process.busy_before();
        let busy: Vec<u64> = starts
            .iter()
            .zip(&bins)
            .map(|(&start, &bin)| busy_before[bin] + (start - process.start_of(bin)))
            .collect();
        let round = busy_before[process.bins.len()];
        for (index, &bin) in bins.iter().enumerate() {
            let next = busy.get(index + 1).copied().unwrap_or(busy[0] + round);
            gaps[bin].push((next - busy[index]) as f64);
        }
        let knots = |gaps: Vec<f64>| if gaps.is_empty() { gaps } else { knots(gaps) };
        process.bins = gaps.into_iter().map(knots).collect();
        process
    }

    /// The process of all flows, where this one was fitted to a sample that
    /// holds `share` (above 0, at most 1) of them: the gaps are as much shorter.
    #[must_use]
    pub fn of_whole(mut self, share: f64) -> ArrivalProcess {
        self.bins.iter_mut().flatten().for_each(|gap| *gap *= share);
        self
    }

    /// Length of the span in nanoseconds.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        self.span_ns
    }

    /// When the first flow starts: at 0, unless the span begins silent.
    #[must_use]
    pub fn first_ns(&self) -> u64 {
        self.after(0, 0)
    }

    /// The start after one at `time_ns` (from the beginning of the first span;
    /// any later span reads the same bins), for a uniform draw in (0, 1), with
    /// starts `rate` times as dense as fitted.
    #[must_use]
    pub fn next_ns(&self, time_ns: u64, uniform: f64, rate: f64) -> u64 {
        let knots = &self.bins[self.bin_of(time_ns % self.span_ns)];
        let Some(last) = knots.len().checked_sub(1) else {
            return self.after(time_ns, 0);
        };
        let at = uniform.clamp(0.0, 1.0) * last as f64;
        let low = (at as usize).min(last);
        let high = (low + 1).min(last);
        let gap = knots[low] + (knots[high] - knots[low]) * (at - low as f64);
        self.after(time_ns, (gap.round() / rate).round() as u64)
    }

    /// The time `gap_ns` after another, silent bins not counted; never in one.
    fn after(&self, time_ns: u64, gap_ns: u64) -> u64 {
        if !self.bins.iter().any(Vec::is_empty) {
            return time_ns.saturating_add(gap_ns);
        }
        let (mut at, mut left) = (time_ns, gap_ns);
        let first = self.bin_of(time_ns % self.span_ns);
        let mut from = time_ns % self.span_ns;
        let mut round = 0;
        for bin in (first..self.bins.len()).chain(0..first) {
            match self.leap(bin, from, &mut at, &mut left) {
                Some(busy) => round += busy,
                None => return at,
            }
            from = self.start_of((bin + 1) % self.bins.len());
        }
        // The gap is longer than a round less what of the first bin was past.
        if !self.bins[first].is_empty() {
            round += time_ns % self.span_ns - self.start_of(first);
        }
        let whole = left / u64::max(round, 1);
        (at, left) = (at.saturating_add(whole.saturating_mul(self.span_ns)), left % round.max(1));
        for bin in (first..self.bins.len()).chain(0..=first) {
            if self.leap(bin, from, &mut at, &mut left).is_none() {
                return at;
            }
            from = self.start_of((bin + 1) % self.bins.len());
        }
        at
    }

    /// Moves `at` to the end of a bin, of which it is at `from`, or by what is
    /// left of a gap: `None`. Returns how much of the gap that took.
    fn leap(&self, bin: usize, from: u64, at: &mut u64, left: &mut u64) -> Option<u64> {
        let room = self.start_of(bin + 1).saturating_sub(from);
        let busy = if self.bins[bin].is_empty() { 0 } else { room };
        if *left < busy {
            *at = at.saturating_add(*left);
            return None;
        }
        *left -= busy;
        *at = at.saturating_add(room);
        Some(busy)
    }

    /// The bin of a time of the span.
    fn bin_of(&self, time_ns: u64) -> usize {
        let bins = self.bins.len();
        let bin = match self.bin_starts_ns.len() {
            0 => (u128::from(time_ns) * bins as u128 / u128::from(self.span_ns)) as usize,
            _ => self.bin_starts_ns.partition_point(|&start| start <= time_ns).saturating_sub(1),
        };
        bin.min(bins - 1)
    }

    /// Where a bin begins; the one after the last, at the span's end.
    fn start_of(&self, bin: usize) -> u64 {
        match self.bin_starts_ns.get(bin) {
            Some(&start) => start,
            None if self.bin_starts_ns.is_empty() => start_of(bin, self.span_ns, self.bins.len()),
            None => self.span_ns,
        }
    }

    /// For each bin and the span's end, how much of the span before it is not silent.
    fn busy_before(&self) -> Vec<u64> {
        let mut busy = 0;
        let mut before = vec![0];
        for (bin, knots) in self.bins.iter().enumerate() {
            if !knots.is_empty() {
                busy += self.start_of(bin + 1) - self.start_of(bin);
            }
            before.push(busy);
        }
        before
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        let ascending = |knots: &Vec<f64>| {
            knots.iter().all(|gap| gap.is_finite() && *gap >= 0.0 && *gap < 9e18)
                && knots.is_sorted()
        };
        let starts = &self.bin_starts_ns;
        let starts_fit = starts.is_empty()
            || (starts.len() == self.bins.len()
                && starts[0] == 0
                && starts.windows(2).all(|pair| pair[0] < pair[1])
                && starts[starts.len() - 1] < self.span_ns);
        if self.span_ns == 0
            || self.span_ns > i64::MAX as u64 / 4
            || !(1..=MOST_BINS).contains(&self.bins.len())
            || !self.bins.iter().all(ascending)
            || !starts_fit
        {
            return Err("the arrival process is out of range".to_owned());
        }
        // Time must pass, else an endless run would never leave its first instant.
        if self.bins.iter().flatten().all(|gap| *gap < 1.0) {
            return Err("the arrival process has no gap above zero".to_owned());
        }
        if self.busy_before()[self.bins.len()] == 0 {
            return Err("the arrival process is silent".to_owned());
        }
        Ok(())
    }
}

/// Where the first times lie that fall into bin `bin` of so many equal ones.
fn start_of(bin: usize, span_ns: u64, bins: usize) -> u64 {
    (bin as u128 * u128::from(span_ns)).div_ceil(bins as u128) as u64
}

/// Quantile knots of a sample. The piecewise-linear distribution through them
/// has the sample's mean exactly, so that the arrival rate is kept.
fn knots(mut gaps: Vec<f64>) -> Vec<f64> {
    gaps.sort_by(f64::total_cmp);
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let count = gaps.len().clamp(1, MOST_KNOTS);
    let mut knots: Vec<f64> = (0..count)
        .map(|knot| {
            let at = knot as f64 * (gaps.len() - 1) as f64 / (count.max(2) - 1) as f64;
            let (low, part) = (at as usize, at.fract());
            let high = (low + 1).min(gaps.len() - 1);
            gaps[low] + (gaps[high] - gaps[low]) * part
        })
        .collect();
    let linear_mean = if count == 1 {
        knots[0]
    } else {
        knots.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).sum::<f64>() / (count - 1) as f64
    };
    if linear_mean > 0.0 {
        knots.iter_mut().for_each(|gap| *gap *= mean / linear_mean);
    }
    knots
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::{Purpose, Stream};

    fn generate(process: &ArrivalProcess, until: u64) -> Vec<u64> {
        let mut random = Stream::new(3, Purpose::Arrivals, 0);
        let (mut time, mut starts) = (0, Vec::new());
        while time < until {
            starts.push(time);
            time = process.next_ns(time, random.uniform_f64(), 1.0);
        }
        starts
    }

    #[test]
    fn the_rate_over_time_is_kept() {
        // 1000 flows in the first half of ten seconds, 200 in the second.
        let span = 10_000_000_000_u64;
        let mut starts: Vec<u64> = (0..1000).map(|i| i * 5_000_000).collect();
        starts.extend((0..200).map(|i| 5_000_000_000 + i * 25_000_000));
        let process = ArrivalProcess::fit(&starts, span);
        process.validate().unwrap();
        let generated = generate(&process, 20 * span);
        let per_span = generated.len() as f64 / 20.0;
        assert!((1150.0..1250.0).contains(&per_span), "{per_span}");
        let late = generated.iter().filter(|&&start| start % span >= span / 2).count() as f64;
        assert!((180.0..220.0).contains(&(late / 20.0)), "{late}");
    }

    #[test]
    fn one_flow_repeats_every_span() {
        let process = ArrivalProcess::fit(&[0], 1_000);
        assert_eq!(generate(&process, 3_000), [0, 1_000, 2_000]);
    }

    #[test]
    fn bursts_at_one_instant_are_kept() {
        // 300 flows at time 0, then nothing: gaps of zero and one of the whole span.
        let process = ArrivalProcess::fit(&[0; 300], 1_000_000);
        process.validate().unwrap();
        let generated = generate(&process, 50_000_000);
        let per_span = generated.len() as f64 / 50.0;
        assert!((150.0..600.0).contains(&per_span), "{per_span}");
    }

    #[test]
    fn a_sample_gives_the_rate_of_the_whole() {
        // 1200 flows in a minute, of which every fifth is in the sample.
        let span = 60_000_000_000_u64;
        let starts: Vec<u64> = (0..240).map(|i| i * 250_000_000).collect();
        let process = ArrivalProcess::fit(&starts, span).of_whole(0.2);
        process.validate().unwrap();
        let per_span = generate(&process, 20 * span).len() as f64 / 20.0;
        assert!((1150.0..1250.0).contains(&per_span), "{per_span}");
        assert_eq!(process.span_ns(), span);
    }

    #[test]
    fn a_process_that_stands_still_is_refused() {
        let still =
            ArrivalProcess { span_ns: 1, bins: vec![vec![0.0, 0.0]], bin_starts_ns: Vec::new() };
        assert!(still.validate().is_err());
        let silent = ArrivalProcess { bins: vec![Vec::new(); 2], span_ns: 9, ..still.clone() };
        assert!(silent.validate().is_err());
        // Bins that are not where they should be.
        for bin_starts_ns in [vec![0], vec![1, 2], vec![0, 9], vec![5, 0]] {
            let bins = vec![vec![1.0]; 2];
            let process = ArrivalProcess { span_ns: 9, bins, bin_starts_ns };
            assert!(process.validate().is_err(), "{process:?}");
        }
    }

    #[test]
    fn a_long_silence_is_kept_and_the_rate_too() {
        // 1000 flows in the first tenth of 100 s, 1000 in the last, one gap of 80 s.
        let span = 100_000_000_000_u64;
        let mut starts: Vec<u64> = (0..1000).map(|i| i * 10_000_000).collect();
        starts.extend((0..1000).map(|i| 90_000_000_000 + i * i * 10_000));
        for chunks in [&[][..], &[0, 50_000_000_000], &[0, 3_000_000_000, 30_000_000_000]] {
            let process = ArrivalProcess::fit_chunks(&starts, &Chunks::new(chunks, span));
            process.validate().unwrap();
            let generated = generate(&process, 20 * span);
            assert_eq!(generated[0], 0);
            assert!(generated.is_sorted());
            let per_span = generated.len() as f64 / 20.0;
            assert!((1900.0..2100.0).contains(&per_span), "{per_span} {chunks:?}");
            let early = generated.iter().filter(|&&start| start % span < span / 2).count() as f64;
            assert!((900.0..1100.0).contains(&(early / 20.0)), "{early} {chunks:?}");
            // Silent to within a bin, which here is 100 s in 40, or a chunk's share.
            let silent =
                |start: &&u64| (15_000_000_000..85_000_000_000).contains(&(**start % span));
            assert_eq!(generated.iter().find(silent), None, "{chunks:?}");
        }
    }

    #[test]
    fn a_span_that_begins_silent_is_entered_where_it_ends() {
        let bins = vec![Vec::new(), vec![3.0], Vec::new(), vec![3.0]];
        let process = ArrivalProcess { span_ns: 40, bins, bin_starts_ns: Vec::new() };
        process.validate().unwrap();
        assert_eq!(process.first_ns(), 10);
        let starts = generate(&process, 130);
        assert_eq!(starts[0], 0);
        // 10, 13, 16, 19, then 22 would be two past the end of the bin.
        assert_eq!(starts[1..10], [10, 13, 16, 19, 32, 35, 38, 51, 54]);
        // Bins of their own lengths say the same.
        let edges = ArrivalProcess { bin_starts_ns: vec![0, 10, 20, 30], ..process.clone() };
        assert_eq!(generate(&edges, 130), starts);
        // Whole rounds at once.
        assert_eq!(process.next_ns(10, 0.5, 3.0 / 45.0), 95);
        assert_eq!(process.next_ns(10, 0.5, 1e-30), u64::MAX)
    }

    proptest! {
        #[test]
        fn gaps_leap_over_silences_alone(
            busy in prop::collection::vec(any::<bool>(), 1..12),
            lengths in prop::collection::vec(1..9_u64, 12),
            equal in any::<bool>(),
            (time, first, second) in (0..300_u64, 0..300_u64, 0..300_u64),
        ) {
            prop_assume!(busy.contains(&true));
            let bins = busy.iter().map(|&busy| if busy { vec![1.0] } else { Vec::new() });
            let mut starts = vec![0];
            lengths[..busy.len()].iter().for_each(|length| starts.push(starts[starts.len() - 1] + length));
            let span_ns = starts.pop().unwrap_or(1);
            let starts = if equal { Vec::new() } else { starts };
            let process = ArrivalProcess { span_ns, bins: bins.collect(), bin_starts_ns: starts };
            prop_assume!(process.validate().is_ok());
            let silent = |time: u64| process.bins[process.bin_of(time % span_ns)].is_empty();
            let time = process.after(time, 0);
            let after = process.after(time, first);
            // What lies between, without the silent part, is the gap.
            prop_assert!(!silent(time) && !silent(after));
            let between = (time..after).filter(|&time| !silent(time)).count() as u64;
            prop_assert_eq!(between, first);
            prop_assert_eq!(process.after(after, second), process.after(time, first + second));
        }
    }
}
