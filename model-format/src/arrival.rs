//! When flows start: how many in each part of the span, and how bursty.
//!
//! The span is cut into bins. Each holds how many flows start in it, how far from its two
//! ends, and the lengths of the intervals between them. To generate, intervals of
//! all lengths come in random order, stretched to fill the bin; so each time round has as
//! many flows, there is nothing between the starts that was not there, and a bin in which
//! no flow starts stays silent. Past the span it goes round.

use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;
use crate::flow_rate::FlowRate;
use crate::random::{Purpose, Stream};

/// Most intervals that a bin keeps: of more, so many quantiles.
const MOST_INTERVALS: usize = 65;
/// Flows of a bin, unless there are too many: few, since where many start, such as those
/// that a capture's beginning finds already there, is to be kept.
const FLOWS_A_BIN: usize = 10;
const MOST_BINS_A_CHUNK: usize = 2048;
/// What a bundle may ask to be kept: 128 for the most chunks.
const MOST_BINS: usize = 128 * 10_000;
/// Flows of a span, and the fewest.
const MOST_FLOWS: f64 = 1e12;
const FEWEST_FLOWS: f64 = 1e-6;
/// Starts that are drawn at once: a bin of more is cut evenly.
const AT_ONCE: f64 = 2048.0;
const MOST_PIECES: f64 = 1e6;
const MOST_AT_ONCE: f64 = 1e6;

/// The fitted process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Described")]
pub struct ArrivalProcess {
    /// Length of the span in nanoseconds, at least 1.
    span_ns: u64,
    bins: Vec<Bin>,
    /// Where each bin begins; empty for bins of equal length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bin_starts_ns: Vec<u64>,
}

/// A part of the span.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bin {
    /// How many flows start in it; of a sample, a fraction may be left.
    flows: f64,
    /// From its beginning to the first of them.
    first_ns: f64,
    /// From the last of them to its end.
    last_ns: f64,
    /// Ascending lengths of the intervals between them in nanoseconds, equally probable.
    intervals_ns: Vec<f64>,
}

/// A process as a bundle has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    span_ns: u64,
    bins: Vec<DescribedBin>,
    #[serde(default)]
    bin_starts_ns: Vec<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DescribedBin {
    Now(Bin),
    /// Of format 4 and before: the gaps that follow a start in it.
    Gaps(Vec<f64>),
}

impl From<Described> for ArrivalProcess {
    fn from(Described { span_ns, bins, bin_starts_ns }: Described) -> ArrivalProcess {
        let mut process = ArrivalProcess { span_ns, bins: Vec::new(), bin_starts_ns };
        process.bins.resize(bins.len(), Bin::default());
        for (at, bin) in bins.into_iter().enumerate() {
            let length = process.start_of(at + 1).saturating_sub(process.start_of(at));
            process.bins[at] = match bin {
                DescribedBin::Now(bin) => bin,
                DescribedBin::Gaps(gaps) => Bin::of_gaps(gaps, length as f64),
            };
        }
        process
    }
}

impl ArrivalProcess {
    /// Fits the process on flow starts, in nanoseconds from the beginning of
    /// the span, ascending, all within the span.
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
        for index in 0..chunks.count() {
            let range = chunks.range(index);
            let until = |time| starts.partition_point(|&start| start < time);
            let within = &starts[until(range.start)..until(range.end)];
            let most = MOST_BINS_A_CHUNK.min((MOST_BINS / chunks.count()).max(1));
            let bins = (within.len() / FLOWS_A_BIN).clamp(1, most);
            // A bin begins where its first flow starts.
            let edge =
                |bin: usize| if bin == 0 { range.start } else { within[bin * within.len() / bins] };
            process.bin_starts_ns.extend((0..bins).map(edge));
        }
        process.bin_starts_ns.dedup();
        process.bins.resize(process.bin_starts_ns.len(), Bin::default());
        if process.bins.len() == 1 {
            process.bin_starts_ns.clear();
        }
        let mut rest = starts;
        for bin in 0..process.bins.len() {
            let (from, to) = (process.start_of(bin), process.start_of(bin + 1));
            let is_last = bin + 1 == process.bins.len();
            let count = if is_last { rest.len() } else { rest.partition_point(|&s| s < to) };
            let (within, after) = rest.split_at(count);
            rest = after;
            process.bins[bin] = Bin::fit(within, from, to);
        }
        process
    }

    /// The process of all flows, where this one was fitted to a sample that
    /// holds `share` (above 0) of them: there are as many more.
    #[must_use]
    pub fn of_whole(mut self, share: f64) -> ArrivalProcess {
        for bin in &mut self.bins {
            bin.flows /= share;
            bin.first_ns *= share.min(1.0);
            bin.last_ns *= share.min(1.0);
        }
        self
    }

    /// Length of the span in nanoseconds.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        self.span_ns
    }

    /// The starts of flows, ascending, without end, `rate` times as dense as fitted. The
    /// first is where the first bin begins that has any.
    #[must_use]
    pub fn starts(self, seed: u64, rate: impl Into<FlowRate>) -> Starts {
        let rate = rate.into();
        let (_, to) = rate.ends();
        let mut total = 0.0;
        let mut before = vec![0.0];
        for bin in &self.bins {
            total += to * bin.flows;
            before.push(total);
        }
        // All rounds together are rounded, so no fraction of a flow is lost.
        let rounding = Stream::new(seed, Purpose::Arrivals, u64::MAX).uniform_f64();
        Starts {
            process: self,
            seed,
            rate,
            before,
            ramped: 0.0,
            rounding,
            round: 0,
            bin: 0,
            piece: 0,
            ahead: Vec::new(),
            begun: false,
        }
    }

    /// Where a bin begins; the one after the last, at the span's end.
    fn start_of(&self, bin: usize) -> u64 {
        match self.bin_starts_ns.get(bin) {
            Some(&start) => start,
            None if self.bin_starts_ns.is_empty() => start_of(bin, self.span_ns, self.bins.len()),
            None => self.span_ns,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        let fits = |bin: &Bin| {
            let intervals = &bin.intervals_ns;
            let ends = [bin.first_ns, bin.last_ns];
            (0.0..=MOST_FLOWS).contains(&bin.flows)
                && intervals.iter().chain(&ends).all(|length| (0.0..9e18).contains(length))
                && intervals.is_sorted()
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
            || !self.bins.iter().all(fits)
            || !starts_fit
        {
            return Err("the arrival process is out of range".to_owned());
        }
        let flows: f64 = self.bins.iter().map(|bin| bin.flows).sum();
        if !(FEWEST_FLOWS..=MOST_FLOWS).contains(&flows) {
            return Err("the arrival process has no flows, or too many".to_owned());
        }
        Ok(())
    }
}

impl Bin {
    fn fit(starts: &[u64], from: u64, to: u64) -> Bin {
        let (Some(&first), Some(&last)) = (starts.first(), starts.last()) else {
            return Bin::default();
        };
        let between = starts.windows(2).map(|pair| (pair[1] - pair[0]) as f64);
        Bin {
            flows: starts.len() as f64,
            first_ns: (first - from) as f64,
            last_ns: to.saturating_sub(last) as f64,
            intervals_ns: quantiles(between.collect()),
        }
    }

    /// As many flows as a bin has room for gaps.
    fn of_gaps(gaps: Vec<f64>, length: f64) -> Bin {
        let Some(last) = gaps.len().checked_sub(1) else { return Bin::default() };
        let steps = gaps.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
        let mean = if last == 0 { gaps[0] } else { steps.sum::<f64>() / last as f64 };
        let flows = if mean > 0.0 { length / mean } else { gaps.len() as f64 };
        let last_ns = if mean > 0.0 { mean.min(length) } else { 0.0 };
        Bin { flows, first_ns: 0.0, last_ns, intervals_ns: gaps }
    }

    /// The length at a probability: one of those there were, so that none comes between
    /// a burst and a silence.
    fn interval_ns(&self, probability: f64) -> f64 {
        let lengths = &self.intervals_ns;
        let at = (probability * lengths.len() as f64) as usize;
        // Of one flow nothing is known.
        lengths.get(at.min(lengths.len().saturating_sub(1))).copied().unwrap_or(1.0)
    }
}

/// The starts of flows, one after another: [`ArrivalProcess::starts`].
#[derive(Clone, Debug)]
pub struct Starts {
    process: ArrivalProcess,
    seed: u64,
    rate: FlowRate,
    /// How many flows there are before each bin, and before the span's end, at the rate
    /// that stays.
    before: Vec<f64>,
    /// How many more there have been while the rate changed.
    ramped: f64,
    rounding: f64,
    /// What is drawn next: which round, bin, and piece of it.
    round: u64,
    bin: usize,
    piece: u64,
    /// Those drawn, the next one last.
    ahead: Vec<u64>,
    begun: bool,
}

impl Starts {
    /// Length of the span in nanoseconds.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        self.process.span_ns
    }

    /// Draws a piece of a bin; no if time has come to its end.
    fn draw(&mut self) -> bool {
        let Starts { process, before, .. } = self;
        let bins = process.bins.len();
        let changes = |time_ns: Option<u64>| time_ns.is_some_and(|at| self.rate.changes_after(at));
        let changed = !changes(self.round.checked_mul(process.span_ns));
        if (self.bin, self.piece) == (0, 0) && changed {
            // Rounds in which no flow starts are passed over, all but the last of them.
            let so_far = self.round as f64 * before[bins] + self.ramped + self.rounding;
            let empty = ((1.0 - so_far.fract()) / before[bins]).floor() - 1.0;
            self.round = self.round.saturating_add(empty.max(0.0) as u64);
        }
        let Some(round_ns) = self.round.checked_mul(process.span_ns) else { return false };
        let Some(_) = round_ns.checked_add(process.span_ns) else { return false };
        let bin = &process.bins[self.bin];
        let (from, to) = (process.start_of(self.bin), process.start_of(self.bin + 1));
        let flows = before[self.bin + 1] - before[self.bin];
        let (_, rate) = self.rate.ends();
        let changes = changes(Some(round_ns + from));
        let most = if changes { self.rate.most() / rate } else { 1.0 };
        let pieces = (most * flows / AT_ONCE).ceil().clamp(1.0, MOST_PIECES) as u64;
        let edge = |piece: u64| {
            from + (u128::from(to - from) * u128::from(piece) / u128::from(pieces)) as u64
        };
        let (begin, end) = (edge(self.piece), edge(self.piece + 1));
        let so_far = |piece: u64, ramped: f64| {
            let rounds = self.round as f64 * before[bins];
            let within = before[self.bin] + flows * (piece as f64 / pieces as f64);
            (rounds + within + ramped + self.rounding).floor()
        };
        let begun = so_far(self.piece, self.ramped);
        if changes && begin < end {
            let mean = self.rate.mean(round_ns + begin, round_ns + end);
            self.ramped += flows / pieces as f64 * (mean / rate - 1.0);
        }
        let count = (so_far(self.piece + 1, self.ramped) - begun).clamp(0.0, MOST_AT_ONCE);
        if count > 0.0 {
            let count = count as usize;
            // Every piece has a stream of its own.
            let index = self.round.wrapping_mul(bins as u64).wrapping_add(self.bin as u64) << 20;
            let mut stream =
                Stream::new(self.seed, Purpose::Arrivals, index.wrapping_add(self.piece));
            // A silence at an end of the bin stays there. Where only some of its flows start,
            // or where it is cut, they do not all begin with it.
            let whole = pieces == 1 && count as f64 + 1.0 > bin.flows;
            let length = (end - begin) as f64;
            // Of more flows the ends are as much shorter.
            let scale = (bin.flows / count as f64).min(1.0);
            let (first, last) =
                if whole { (scale * bin.first_ns, scale * bin.last_ns) } else { (0.0, 0.0) };
            let between = if whole { count - 1 } else { count + 1 };
            let mut order: Vec<u32> = (0..between as u32).collect();
            stream.shuffle(&mut order);
            let strata = order.iter().map(|&stratum| {
                let place = f64::from(stratum) + stream.uniform_f64();
                bin.interval_ns(place / between as f64)
            });
            let mut intervals: Vec<f64> = strata.collect();
            let sum = intervals.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            let stretch = ((length - first - last).max(0.0) / sum).min(f64::MAX);
            intervals.iter_mut().for_each(|interval| *interval *= stretch);
            intervals.truncate(if whole { between } else { count });
            if whole {
                intervals.insert(0, first);
            }
            let mut at = 0.0;
            self.ahead.extend(intervals.iter().map(|interval| {
                at += interval;
                let place = match changes && length > 0.0 {
                    true => self.rate.place_ns(round_ns + begin, round_ns + end, at / length),
                    false => at,
                };
                round_ns + begin + (place as u64).min((end - begin).saturating_sub(1))
            }));
            if !self.begun {
                self.ahead[0] = round_ns + begin;
                self.begun = true;
            }
            self.ahead.reverse();
        }
        self.piece += 1;
        if self.piece == pieces {
            (self.piece, self.bin) = (0, self.bin + 1);
        }
        if self.bin == bins {
            (self.bin, self.round) = (0, self.round + 1);
        }
        true
    }
}

impl Iterator for Starts {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        while self.ahead.is_empty() {
            if !self.draw() {
                return None;
            }
        }
        self.ahead.pop()
    }
}

/// Where the first times lie that fall into bin `bin` of so many equal ones.
fn start_of(bin: usize, span_ns: u64, bins: usize) -> u64 {
    (bin as u128 * u128::from(span_ns)).div_ceil(bins as u128) as u64
}

/// A sample in order, or the middles of equal parts of it if it is large.
fn quantiles(mut lengths: Vec<f64>) -> Vec<f64> {
    lengths.sort_by(f64::total_cmp);
    let parts = MOST_INTERVALS.min(lengths.len());
    let middle = |part: usize| (2 * part + 1) * lengths.len() / (2 * parts);
    (0..parts).map(|part| lengths[middle(part)]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn generate(process: &ArrivalProcess, until: u64) -> Vec<u64> {
        process.clone().starts(3, 1.0).take_while(|&start| start < until).collect()
    }

    fn within(starts: &[u64], range: std::ops::Range<u64>) -> usize {
        starts.iter().filter(|start| range.contains(start)).count()
    }

    #[test]
    fn every_round_has_the_flows_of_every_bin() {
        // 1000 flows in the first half of ten seconds, 200 in the second.
        let span = 10_000_000_000_u64;
        let odd = |i: u64| i * i * 7919 % 4_000_000;
        let mut starts: Vec<u64> = (0..1000).map(|i| i * 5_000_000 + odd(i)).collect();
        starts.extend((0..200).map(|i| 5_000_000_000 + i * 25_000_000 + odd(i)));
        let process = ArrivalProcess::fit(&starts, span);
        process.validate().unwrap();
        let generated = generate(&process, 20 * span);
        assert!(generated.is_sorted());
        for round in 0..20 {
            let begin = round * span;
            assert_eq!(within(&generated, begin..begin + span), 1200, "{round}");
            let early = within(&generated, begin..begin + span / 2);
            assert!(early.abs_diff(1000) <= FLOWS_A_BIN, "{round}: {early}");
        }
        // No two rounds are alike.
        let round = |at: u64| generated.iter().map(move |start| start.wrapping_sub(at * span));
        assert!(round(1).skip(1200).take(50).ne(round(2).skip(2400).take(50)));
    }

    #[test]
    fn intervals_are_those_that_there_were() {
        // Bursts of ten flows a microsecond apart, a second between them.
        let (span, burst) = (100_000_000_000_u64, 1_000_000_000);
        let starts: Vec<u64> =
            (0..100).flat_map(|b| (0..10).map(move |i| b * burst + i * 1_000)).collect();
        let process = ArrivalProcess::fit(&starts, span);
        let generated = generate(&process, span);
        assert_eq!(generated.len(), 1000);
        let gaps: Vec<u64> = generated.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let short = gaps.iter().filter(|&&gap| gap < 2_000).count();
        let long = gaps.iter().filter(|&&gap| gap > burst / 2).count();
        assert_eq!((short, long), (900, 99));
    }

    #[test]
    fn flows_that_were_there_before_the_capture_start_at_its_beginning() {
        // 30 flows in the first 0.2 s of 20 s, then one a second.
        let span = 20_000_000_000_u64;
        let mut starts: Vec<u64> = (0..30).map(|i| i * 6_000_000).collect();
        starts.extend((1..20).map(|i| i * 1_000_000_000));
        let process = ArrivalProcess::fit(&starts, span);
        for round in generate(&process, 50 * span).chunks(49) {
            let early = round.iter().filter(|&&start| start % span < 300_000_000).count();
            assert!((20..=32).contains(&early), "{early}");
        }
    }

    #[test]
    fn one_flow_starts_every_span() {
        let process = ArrivalProcess::fit(&[0], 1_000);
        let starts = generate(&process, 50_000);
        assert_eq!(starts.len(), 50);
        assert!(starts.iter().enumerate().all(|(round, start)| start / 1_000 == round as u64));
        assert_eq!(starts[0], 0);
    }

    #[test]
    fn bursts_at_one_instant_stay_bursts() {
        let process = ArrivalProcess::fit(&[0; 300], 1_000_000);
        process.validate().unwrap();
        let starts = generate(&process, 50_000_000);
        assert_eq!(starts.len(), 50 * 300);
        let same = starts.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(same > 50 * 280, "{same}");
    }

    #[test]
    fn a_sample_gives_the_rate_of_the_whole() {
        // 1200 flows in a minute, of which every fifth is in the sample.
        let span = 60_000_000_000_u64;
        let starts: Vec<u64> = (0..240).map(|i| i * 250_000_000).collect();
        let process = ArrivalProcess::fit(&starts, span).of_whole(0.2);
        process.validate().unwrap();
        assert_eq!(generate(&process, 20 * span).len(), 20 * 1200);
        assert_eq!(process.span_ns(), span);
    }

    #[test]
    fn fractions_of_flows_add_up() {
        let starts: Vec<u64> = (0..1000).map(|i| i * 1_000_000).collect();
        let process = ArrivalProcess::fit(&starts, 1_000_000_000);
        // Few flows do not take long to come to.
        let rare: Vec<u64> = process.clone().starts(9, 1e-10).take(3).collect();
        let between = rare.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(between.clone().all(|gap| gap.abs_diff(10_000_000_000_000_000) <= 2_000_000_000));
        for rate in [0.0007, 0.3, 1.7, 1234.5] {
            let until = if rate > 1000.0 { 1_000_000_000 } else { 100_000_000_000 };
            let count = process.clone().starts(9, rate).take_while(|&s| s < until).count();
            let expected = rate * until as f64 / 1e6;
            assert!((count as f64 - expected).abs() <= 1.0, "{rate}: {count} {expected}");
        }
    }

    #[test]
    fn a_ramp_has_as_many_flows_as_its_rate_says() {
        // 100 flows a second, in spans of 10 s; from 0.5 to 3 times over 35 s, and down again.
        let starts: Vec<u64> = (0..1000).map(|i| i * 10_000_000).collect();
        let second = 1_000_000_000;
        for (from, to) in [(0.5, 3.0), (0.0, 2.0), (4.0, 0.25), (900.0, 1.0)] {
            // Bins of ten flows, and one that is longer than the ramp.
            for process in [
                ArrivalProcess::fit(&starts, 10 * second),
                ArrivalProcess::fit(&[0, 100 * second], 100 * second).of_whole(2e-4),
            ] {
                process.validate().unwrap();
                let ramp = FlowRate::ramp(from, to, 35 * second);
                let generated: Vec<u64> =
                    process.starts(1, ramp).take_while(|&start| start < 70 * second).collect();
                assert!(generated.is_sorted());
                let until = |time: u64| generated.partition_point(|&start| start < time) as f64;
                for time in (1..=70).map(|at| at * second) {
                    let t = (time.min(35 * second)) as f64 / second as f64;
                    let rest = (time as f64 / second as f64 - t).max(0.0);
                    let expected = 100.0 * (from * t + (to - from) * t * t / 70.0 + to * rest);
                    let off = (until(time) - expected).abs();
                    assert!(off <= 20.0 + 0.03 * expected, "{from} {to} {time}: {off} {expected}");
                }
                let t = 35.0;
                let all = 100.0 * ((from + to) / 2.0 * t + to * t);
                assert!((until(70 * second) - all).abs() <= 2.0 + 0.03 * all, "{all}");
            }
        }
    }

    #[test]
    fn a_million_spans_later_starts_are_exact() {
        let (span, rounds) = (1_000_000_007_u64, 1_000_000);
        let last = ArrivalProcess::fit(&[0], span).starts(1, 1.0).nth(rounds as usize);
        assert_eq!(last, Some(rounds * span));
        let process = ArrivalProcess::fit(&[5, 300_000_000, 999_999_999], span);
        let mut at = 0;
        let mut starts = process.clone().starts(7, 1.0);
        for round in 0..rounds {
            for _ in 0..3 {
                let start = starts.next().unwrap();
                assert!(start >= at && start / span == round, "{round}: {start}");
                at = start;
            }
        }
        let thirds = process.starts(7, 1.0 / 3.0).take_while(|&start| start < rounds * span);
        assert_eq!(thirds.count().abs_diff(rounds as usize), 0);
    }

    #[test]
    fn gaps_of_older_bundles_are_read() {
        let text = r#"{"span_ns": 100, "bins": [[2.0, 4.0, 9.0], []], "bin_starts_ns": [0, 60]}"#;
        let process: ArrivalProcess = serde_json::from_str(text).unwrap();
        process.validate().unwrap();
        assert_eq!(process.bins[1], Bin::default());
        // A mean of 4.75, in 60.
        assert!((process.bins[0].flows - 60.0 / 4.75).abs() < 1e-9);
        let again = serde_json::to_string(&process).unwrap();
        assert_eq!(serde_json::from_str::<ArrivalProcess>(&again).unwrap(), process);
    }

    #[test]
    fn a_process_without_flows_or_out_of_range_is_refused() {
        let bin = |flows, intervals_ns: &[f64]| Bin {
            flows,
            intervals_ns: intervals_ns.to_vec(),
            ..Bin::default()
        };
        let of = |bins, bin_starts_ns| ArrivalProcess { span_ns: 9, bins, bin_starts_ns };
        let two = vec![bin(1.0, &[4.0, 5.0]), bin(0.0, &[])];
        of(two.clone(), vec![]).validate().unwrap();
        of(two.clone(), vec![0, 3]).validate().unwrap();
        for bin_starts_ns in [vec![0], vec![1, 2], vec![0, 9], vec![5, 0]] {
            let process = of(two.clone(), bin_starts_ns);
            assert!(process.validate().is_err(), "{process:?}");
        }
        for bad in [
            bin(0.0, &[]),
            Bin { last_ns: f64::INFINITY, ..bin(1.0, &[1.0]) },
            bin(1e300, &[1.0]),
            bin(f64::NAN, &[1.0]),
            bin(1e-9, &[1.0]),
            bin(1.0, &[2.0, 1.0]),
            bin(1.0, &[f64::NAN]),
            bin(1.0, &[-1.0]),
        ] {
            let process = of(vec![bad], vec![]);
            assert!(process.validate().is_err(), "{process:?}");
        }
        // Time comes to its end.
        let process = ArrivalProcess { span_ns: u64::MAX / 9, ..of(two, vec![]) };
        assert_eq!(process.starts(0, 1.0).count(), 9);
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
            assert_eq!(generated.len(), 20 * 2000, "{chunks:?}");
            let early = generated.iter().filter(|&&start| start % span < span / 2).count();
            assert!(early.abs_diff(20 * 1000) <= 20 * FLOWS_A_BIN, "{early} {chunks:?}");
            // Silent, but for where in the bin of the silence the flows beside it are.
            let silent =
                |start: &&u64| (15_000_000_000..85_000_000_000).contains(&(**start % span));
            assert_eq!(generated.iter().find(silent), None, "{chunks:?}");
        }
    }

    proptest! {
        #[test]
        fn bins_have_their_flows_whatever_their_lengths(
            mut starts in prop::collection::vec(0..5_000_u64, 1..400),
            more in 0..3_u64,
            seed in any::<u64>(),
        ) {
            starts.sort_unstable();
            let span = starts[starts.len() - 1] + more;
            prop_assume!(span > 0);
            let process = ArrivalProcess::fit(&starts, span);
            prop_assert!(process.validate().is_ok());
            let rounds = 3;
            let generated: Vec<u64> =
                process.clone().starts(seed, 1.0).take_while(|&s| s < rounds * span).collect();
            prop_assert!(generated.is_sorted());
            prop_assert_eq!(generated.len(), 3 * starts.len());
            for bin in 0..process.bins.len() {
                let range = process.start_of(bin)..process.start_of(bin + 1);
                let of_bin = |start: &&u64| range.contains(&(*start % span));
                let count = generated.iter().filter(of_bin).count() as f64;
                prop_assert_eq!(count, 3.0 * process.bins[bin].flows);
            }
        }
    }
}
