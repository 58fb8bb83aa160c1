//! Counter-based random numbers: every draw is a function of its key.
//!
//! Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3",
//! SC '11). A stream is named by (seed, purpose, index), so what a flow draws
//! does not depend on which thread draws it, in which slot, or after what.

use crate::normal::{self, PAIRS};
use crate::wide::wide;

/// What a stream is for; streams of different purposes never overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Purpose {
    /// First values of trained weights; the index numbers the tensor.
    Weights = 1,
    /// Order in which training visits flows; the index numbers the pass.
    Shuffle = 2,
    /// Noise while training; the index numbers the iteration.
    Training = 3,
    /// Word vectors; the index numbers the space.
    Word2vec = 4,
    /// When flows start; the index numbers the pieces of all rounds' bins.
    Arrivals = 5,
    /// A generated flow's attribute noise; the index is the flow number.
    Attributes = 6,
    /// A generated flow's first state; the index is the flow number.
    State = 7,
    /// A generated flow's noise, step by step; the index is the flow number.
    Steps = 8,
    /// What a packet needs beside the model: sequence numbers, IP ids.
    Packets = 9,
    /// Where a generated flow's further parts begin, part by part; the index is
    /// the flow number.
    Parts = 10,
    /// Seeds of the training of further chunks; the index is the chunk.
    Chunks = 11,
    /// Which flows are compared, and what is drawn to compare with; the index
    /// numbers the use.
    Evaluation = 12,
    /// In which order flows take strata; the index numbers the block of flows.
    Strata = 13,
    /// Drafts that are looked at before a run under conditions; the index numbers them.
    Drafts = 14,
}

/// Draws of a stream that are made elsewhere, on a GPU say: draw `n` of the stream is word
/// `n % 4` of Philox4x32-10 of the counter `[n / 4, purpose, index, index >> 32]` under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    /// The key.
    pub key: [u32; 2],
    /// The counter but for its first word.
    pub counter: [u32; 3],
    /// The number of the first draw.
    pub first: u64,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    purpose: u32,
    index: u64,
    block: u32,
    buffer: [u32; 4],
    used: usize,
    spare: Option<f32>,
}

impl Stream {
    /// The stream of `index` for `purpose` under `seed`, from its beginning.
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose, index: u64) -> Stream {
        Stream::at(seed, purpose, index, 0)
    }

    /// The same from block `block` on; a block is four draws of 32 bits, so
    /// streams that begin `n` blocks apart share nothing for `4 n` draws.
    #[must_use]
    pub fn at(seed: u64, purpose: Purpose, index: u64, block: u32) -> Stream {
        Stream {
            key: [seed as u32, (seed >> 32) as u32],
            purpose: purpose as u32,
            index,
            block,
            buffer: [0; 4],
            used: 4,
            spare: None,
        }
    }

    /// 32 random bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter = [self.block, self.purpose, self.index as u32, (self.index >> 32) as u32];
            self.buffer = philox4x32(counter, self.key);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        let value = self.buffer[self.used];
        self.used += 1;
        value
    }

    /// Leaves the next `count` normals to whoever makes them of their draws, two of two, as
    /// [`Stream::normal`] does, and goes on after them. `None` where they would begin or end
    /// within a pair.
    pub fn hand_over_normals(&mut self, count: usize) -> Option<Draws> {
        if self.spare.is_some() || !count.is_multiple_of(2) {
            return None;
        }
        let counter = [self.purpose, self.index as u32, (self.index >> 32) as u32];
        let first = 4 * u64::from(self.block) - (4 - self.used as u64);
        let next = first + count as u64;
        self.block = (next / 4) as u32;
        self.used = 4;
        let within = (next % 4) as usize;
        if within > 0 {
            self.next_u32();
            self.used = within;
        }
        Some(Draws { key: self.key, counter, first })
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
    }

    /// Uniform in the open interval (0, 1), 24 bits.
    #[inline]
    pub fn uniform(&mut self) -> f32 {
        normal::uniform(self.next_u32())
    }

    /// Uniform in the open interval (0, 1), 52 bits.
    #[inline]
    pub fn uniform_f64(&mut self) -> f64 {
        ((self.next_u64() >> 12) as f64 + 0.5) * (1.0 / 4_503_599_627_370_496.0)
    }

    /// Uniform in `0..bound` (0 for a bound of 0), by multiplication (Lemire,
    /// ACM TOMACS 2019, without its rejection: the bias is below `bound / 2^64`).
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Fills a slice with uniform numbers, as [`Stream::uniform`] gives them one by one.
    pub fn fill_uniform(&mut self, out: &mut [f32]) {
        let alone = (4 - self.used).min(out.len());
        let (first, rest) = out.split_at_mut(alone);
        first.fill_with(|| self.uniform());
        let (many, last) = rest.as_chunks_mut::<{ 2 * PAIRS }>();
        for out in many {
            let mut draws = [0; 2 * PAIRS];
            self.fill_blocks(&mut draws);
            for (out, draw) in out.iter_mut().zip(draws) {
                *out = normal::uniform(draw);
            }
        }
        last.fill_with(|| self.uniform());
    }

    /// Standard normal (Box and Muller, 1958).
    #[inline]
    pub fn normal(&mut self) -> f32 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        let (first, second) = normal::pair_alone(self.next_u32(), self.next_u32());
        self.spare = Some(second);
        first
    }

    /// Fills a slice with standard normals.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        let alone = self.draws_to_block().min(out.len());
        let (first, rest) = out.split_at_mut(alone);
        first.fill_with(|| self.normal());
        let (many, last) = rest.as_chunks_mut::<{ 2 * PAIRS }>();
        for out in many {
            let mut draws = [[0; 2]; PAIRS];
            self.fill_blocks(draws.as_flattened_mut());
            let mut normals = [[0.0; 2]; PAIRS];
            normal::pairs(&draws, &mut normals);
            out.copy_from_slice(normals.as_flattened());
        }
        last.fill_with(|| self.normal());
    }

    /// Normals until the next one begins a block: all of them if it never does.
    fn draws_to_block(&self) -> usize {
        match (self.spare, self.used % 2) {
            (_, 1) => usize::MAX,
            (spare, _) => 4 - self.used + usize::from(spare.is_some()),
        }
    }

    /// Fills a slice with the draws of whole blocks; the last block is used up.
    fn fill_blocks(&mut self, out: &mut [u32]) {
        let counter = [self.block, self.purpose, self.index as u32, (self.index >> 32) as u32];
        let blocks = out.as_chunks_mut::<4>().0;
        self.block = self.block.wrapping_add(blocks.len() as u32);
        let key = self.key;
        wide(
            #[inline(always)]
            || {
                for (at, block) in (0..).zip(blocks) {
                    let [first, one, two, three] = counter;
                    *block = philox4x32([first.wrapping_add(at), one, two, three], key);
                }
            },
        );
    }

    /// Puts a slice in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[inline(always)]
fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let low = u64::from(counter[0]) * 0xD251_1F53;
        let high = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_known_answers() {
        let ones = u32::MAX;
        assert_eq!(
            philox4x32([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32([ones; 4], [ones; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_stream_can_be_entered_at_any_block() {
        let mut from_start = Stream::new(7, Purpose::Steps, 1 << 40);
        for _ in 0..12 {
            from_start.next_u32();
        }
        let mut entered = Stream::at(7, Purpose::Steps, 1 << 40, 3);
        assert_eq!(from_start.next_u64(), entered.next_u64());
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let mut stream = Stream::new(1, Purpose::Training, 0);
        let draws: Vec<f64> = (0..100_000).map(|_| f64::from(stream.normal())).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        // Four standard errors: 1/sqrt(n) and sqrt(2/n).
        assert!(mean.abs() < 0.013 && (variance - 1.0).abs() < 0.018, "{mean} {variance}");
    }

    #[test]
    fn many_draws_are_those_that_are_drawn_one_by_one() {
        for (before, drawn) in [(0, 0), (0, 1), (1, 0), (2, 0), (2, 3), (3, 1), (0, 4)] {
            for len in [0, 1, 5, 31, 32, 33, 200] {
                let mut one = Stream::new(3, Purpose::State, 9);
                (0..before).for_each(|_| _ = one.next_u32());
                (0..drawn).for_each(|_| _ = one.normal());
                let mut many = one.clone();
                let mut out = vec![0.0; len];
                many.fill_normal(&mut out);
                let alone: Vec<f32> = (0..len).map(|_| one.normal()).collect();
                assert_eq!(out, alone, "{before} {drawn} {len}");
                assert_eq!(many.normal(), one.normal());
                many.fill_uniform(&mut out);
                let alone: Vec<f32> = (0..len).map(|_| one.uniform()).collect();
                assert_eq!(out, alone, "{before} {drawn} {len}, uniform");
                assert_eq!((many.next_u32(), many.normal()), (one.next_u32(), one.normal()));
            }
        }
    }

    #[test]
    fn draws_that_are_handed_over_are_those_of_the_stream() {
        for (before, count) in [(0, 2), (1, 6), (3, 8), (4, 100), (6, 4)] {
            let mut stream = Stream::new(7, Purpose::Training, 1 << 33);
            (0..before).for_each(|_| _ = stream.next_u32());
            let mut other = stream.clone();
            let draws = other.hand_over_normals(count).unwrap();
            for number in draws.first..draws.first + count as u64 {
                let [purpose, low, high] = draws.counter;
                let words = philox4x32([(number / 4) as u32, purpose, low, high], draws.key);
                assert_eq!(words[number as usize % 4], stream.next_u32());
            }
            assert_eq!(other.next_u64(), stream.next_u64());
            stream.normal();
            assert_eq!(stream.hand_over_normals(2), None);
        }
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut items: Vec<usize> = (0..1000).collect();
        Stream::new(1, Purpose::Shuffle, 0).shuffle(&mut items);
        assert_ne!(items[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        items.sort_unstable();
        assert!(items.into_iter().eq(0..1000));
    }
}
