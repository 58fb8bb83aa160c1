//! A seeded sample of whole flows, so that an input of any size is learned
//! from in bounded memory.
//!
//! Every flow has a 64-bit number drawn from what names it and the seed
//! ([`FlowSampler::flow`]). Records of flows whose number is below a threshold
//! are kept. When too many are kept, the threshold falls to the next of a
//! fixed series, and what falls out is dropped. So which flows are in the end
//! kept depends on the input and the seed, not on the order of records.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::NotUsed;

/// Records that are kept if nothing else is asked for.
pub const DEFAULT_MAX_RECORDS: u32 = 4_000_000;
/// One flow may hold this part of all records that are kept.
const FLOW_PART: u64 = 4;

/// Draws a number from what names a flow: feed it, then [`FlowHash::finish`].
#[derive(Clone, Copy, Debug)]
pub struct FlowHash(u64);

impl FlowHash {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

    /// Takes in a number.
    pub fn add(&mut self, number: u64) {
        // Both halves of a long product, as wyhash has it.
        let product = u128::from(self.0 ^ number)
            * u128::from(FlowHash::MULTIPLIER ^ self.0.rotate_left(32) | 1);
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(FlowHash::MULTIPLIER);
    }

    /// Takes in bytes; their number counts too, so that `ab`, `c` is not `a`, `bc`.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes.len() as u64);
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.add(u64::from_le_bytes(word));
        }
    }

    /// The number drawn, any of 64 bits with equal chance.
    #[must_use]
    pub fn finish(self) -> u64 {
        // The finisher of MurmurHash3.
        let mut bits = self.0;
        bits = (bits ^ (bits >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        bits = (bits ^ (bits >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        bits ^ (bits >> 33)
    }
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Keep it.
    Keep,
    /// Leave it out; it is counted.
    Leave,
    /// Keep it, then drop all kept records whose flow [`FlowSampler::keeps`] no more.
    KeepAndThin,
}

/// Decides which records are kept.
#[derive(Clone, Debug)]
pub struct FlowSampler {
    key: FlowHash,
    most_records: u64,
    most_of_flow: u64,
    /// Flows below it are kept; 2^64 at first.
    threshold: u128,
    /// Records seen of each flow below the threshold.
    flows: HashMap<u64, u64, BuildHasherDefault<AlreadyMixed>>,
    kept: u64,
    not_sampled: u64,
    /// Flows whose last 32 bits are below it are held out.
    held_out_below: u64,
    held_out: u64,
}

/// What [`super::Reading::held_out`] is a part of.
pub(crate) const MILLION: u32 = 1_000_000;

/// The reason why records of flows that are held out are not used.
pub(crate) const HELD_OUT: &str = "of flows held out to judge the model by";

/// All flows.
const WHOLE: u128 = 1 << 64;

impl FlowSampler {
    /// A sampler that keeps `most_records` (at least 1).
    #[must_use]
    pub fn new(seed: u64, most_records: u32) -> FlowSampler {
        let most_records = u64::from(most_records.max(1));
        let mut key = FlowHash(0);
        key.add(seed);
        FlowSampler {
            key,
            most_records,
            most_of_flow: (most_records / FLOW_PART).max(1),
            threshold: WHOLE,
            flows: HashMap::default(),
            kept: 0,
            not_sampled: 0,
            held_out_below: 0,
            held_out: 0,
        }
    }

    /// One for an input that is read so.
    #[must_use]
    pub fn of(reading: super::Reading) -> FlowSampler {
        let mut sampler = FlowSampler::new(reading.seed, reading.max_records);
        sampler.held_out_below = (u64::from(reading.held_out) << 32) / u64::from(MILLION);
        sampler
    }

    /// One that only draws flows' numbers, and others than [`Self::new`] does
    /// for the same seed: a part made by them is no sample of its own.
    #[must_use]
    pub fn for_parts(seed: u64) -> FlowSampler {
        let mut sampler = FlowSampler::new(seed, u32::MAX);
        sampler.key.add_bytes(b"parts");
        sampler
    }

    /// Begins a flow's number: feed it what names the flow.
    #[must_use]
    pub fn flow(&self) -> FlowHash {
        self.key
    }

    /// Whether a flow is in the sample as it is now.
    #[must_use]
    pub fn keeps(&self, flow: u64) -> bool {
        u128::from(flow) < self.threshold && !self.holds_out(flow)
    }

    /// Whether a flow is held out. The sample goes by a number's first bits, this by
    /// its last: neither says anything of the other.
    #[must_use]
    pub fn holds_out(&self, flow: u64) -> bool {
        (flow & u64::from(u32::MAX)) < self.held_out_below
    }

    /// What to do with a record of a flow.
    pub fn offer(&mut self, flow: u64) -> Verdict {
        if self.holds_out(flow) {
            self.held_out += 1;
            return Verdict::Leave;
        }
        if !self.keeps(flow) {
            self.not_sampled += 1;
            return Verdict::Leave;
        }
        let seen = self.flows.entry(flow).or_default();
        *seen += 1;
        if *seen > self.most_of_flow {
            return Verdict::Leave;
        }
        self.kept += 1;
        if self.kept <= self.most_records {
            return Verdict::Keep;
        }
        while self.kept > self.most_records {
            self.lower();
        }
        Verdict::KeepAndThin
    }

    fn lower(&mut self) {
        // Steps of an eighth: not many, and the sample stays nearly as large as it may be.
        self.threshold -= self.threshold.div_ceil(8);
        let threshold = self.threshold;
        let (most, mut kept, mut dropped) = (self.most_of_flow, 0, 0);
        self.flows.retain(|&flow, seen| {
            let stays = u128::from(flow) < threshold;
            if stays {
                kept += (*seen).min(most);
            } else {
                dropped += *seen;
            }
            stays
        });
        self.kept = kept;
        self.not_sampled += dropped;
    }

    /// The share of all flows that is kept, 1 if all are.
    #[must_use]
    pub fn share(&self) -> f64 {
        let held_out = self.held_out_below as f64 / (1_u64 << 32) as f64;
        self.threshold as f64 / WHOLE as f64 * (1.0 - held_out)
    }

    /// Records that were held out.
    #[must_use]
    pub fn held_out(&self) -> u64 {
        self.held_out
    }

    /// Adds what was left out to the counts, by reason.
    pub fn count_not_used(&self, not_used: &mut NotUsed) {
        let beyond: u64 =
            self.flows.values().map(|seen| seen.saturating_sub(self.most_of_flow)).sum();
        let most = self.most_of_flow;
        for (count, reason) in [
            (self.not_sampled, "of flows outside the sample".to_owned()),
            (self.held_out, HELD_OUT.to_owned()),
            (beyond, format!("beyond the first {most} of their flow")),
        ] {
            if count > 0 {
                not_used.insert(reason, count);
            }
        }
    }
}

/// Flow numbers are mixed already; the map reads the ends, of which one is
/// small for all flows below a threshold.
#[derive(Default)]
struct AlreadyMixed(u64);

impl Hasher for AlreadyMixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.rotate_left(24);
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys are u64, which come the other way.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Offers records as (flow, number) and keeps those that should be.
    fn sample(seed: u64, most: u32, records: &[(u64, u32)]) -> (Vec<(u64, u32)>, FlowSampler) {
        let mut sampler = FlowSampler::new(seed, most);
        let mut kept = Vec::new();
        let of = |sampler: &FlowSampler, flow: u64| {
            let mut hash = sampler.flow();
            hash.add(flow);
            hash.finish()
        };
        for &(flow, number) in records {
            let drawn = of(&sampler, flow);
            match sampler.offer(drawn) {
                Verdict::Leave => continue,
                Verdict::Keep => kept.push((flow, number)),
                Verdict::KeepAndThin => {
                    kept.push((flow, number));
                    kept.retain(|&(flow, _)| sampler.keeps(of(&sampler, flow)));
                }
            }
        }
        kept.sort_unstable();
        (kept, sampler)
    }

    fn flows(count: u64, records_each: u32) -> Vec<(u64, u32)> {
        (0..count).flat_map(|flow| (0..records_each).map(move |record| (flow, record))).collect()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        let records = flows(100, 10);
        let (kept, sampler) = sample(1, 1000, &records);
        assert_eq!((kept, sampler.share()), (records, 1.0));
        let mut not_used = NotUsed::new();
        sampler.count_not_used(&mut not_used);
        assert!(not_used.is_empty());
    }

    #[test]
    fn a_sample_is_of_whole_flows_and_its_share_is_told() {
        let records = flows(10_000, 10);
        let (kept, sampler) = sample(3, 20_000, &records);
        assert!((15_000..=20_000).contains(&kept.len()), "{}", kept.len());
        assert!(kept.chunks(10).all(|flow| flow.iter().all(|record| record.0 == flow[0].0)));
        let share = kept.len() as f64 / records.len() as f64;
        assert!((sampler.share() / share - 1.0).abs() < 0.1, "{} {share}", sampler.share());
        let mut not_used = NotUsed::new();
        sampler.count_not_used(&mut not_used);
        assert_eq!(not_used["of flows outside the sample"], 100_000 - kept.len() as u64);
        assert_ne!(sample(4, 20_000, &records).0, kept);
    }

    #[test]
    fn one_flow_holds_a_quarter_at_most() {
        let mut records = flows(50, 1);
        records.extend((0..1000).map(|number| (77, number)));
        let (kept, sampler) = sample(5, 100, &records);
        assert_eq!(kept.iter().filter(|record| record.0 == 77).count(), 25);
        assert_eq!(kept.len(), 75);
        let mut not_used = NotUsed::new();
        sampler.count_not_used(&mut not_used);
        assert_eq!(not_used["beyond the first 25 of their flow"], 975);
    }

    #[test]
    fn bytes_are_told_apart_by_where_they_end() {
        let of = |parts: &[&str]| {
            let mut hash = FlowSampler::new(1, 1).flow();
            parts.iter().for_each(|part| hash.add_bytes(part.as_bytes()));
            hash.finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["a"]), of(&["a\0"]));
        assert_eq!(of(&["a long name", ""]), of(&["a long name", ""]));
    }

    #[test]
    fn numbers_of_neighbours_are_spread_evenly() {
        let sampler = FlowSampler::new(9, 1);
        let mut counts = [0_u32; 64];
        for flow in 0..64_000_u64 {
            let mut hash = sampler.flow();
            hash.add(flow);
            counts[(hash.finish() >> 58) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn the_order_of_records_does_not_matter(
            seed in 0_u64..5,
            most in 1_u32..300,
            lengths in prop::collection::vec(1_u32..30, 1..60),
            turn in 0_usize..1000,
        ) {
            let mut records: Vec<(u64, u32)> = Vec::new();
            for (flow, &length) in lengths.iter().enumerate() {
                records.extend((0..length).map(|record| (flow as u64, record)));
            }
            let (kept, sampler) = sample(seed, most, &records);
            prop_assert!(kept.len() <= most as usize);
            let at = turn % records.len();
            records.rotate_left(at);
            let (again, turned) = sample(seed, most, &records);
            prop_assert_eq!(sampler.share(), turned.share());
            let mut counts = [NotUsed::new(), NotUsed::new()];
            sampler.count_not_used(&mut counts[0]);
            turned.count_not_used(&mut counts[1]);
            prop_assert_eq!(&counts[0], &counts[1]);
            let left_out: u64 = counts[0].values().sum();
            prop_assert_eq!(left_out as usize + kept.len(), records.len());
            // Of flows longer than their part, the first records seen are kept.
            let flows = |kept: &[(u64, u32)]| kept.iter().map(|r| r.0).collect::<Vec<_>>();
            prop_assert_eq!(flows(&kept), flows(&again));
        }
    }
}
