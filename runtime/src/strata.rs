//! Uniform numbers that are spread over flows more evenly than chance would.
//!
//! Each flow's number is uniform; it is those of many flows together that are even, so a
//! trace of a thousand flows has the shares that its model says, not those of a thousand
//! throws of dice. Each dimension is a scrambled van der Corput sequence (Owen, *Randomly
//! permuted (t,m,s)-nets and (t,s)-sequences*, 1995), in which flows of a block of
//! [`STRATA`] come in random order: neighbours tell nothing of one another. Dimensions are
//! independent, as in Latin hypercubes (McKay, Beckman and Conover, 1979).

use ns_model_format::random::{Purpose, Stream};

/// Flows of a block, each in a stratum of its own.
pub(crate) const STRATA: u32 = 1 << STRATUM_BITS;
const STRATUM_BITS: u32 = 8;
/// Halves of 2^-23 are exact in float32 up to 1.
const BITS: u32 = 23;

/// The uniform numbers of flows, so many dimensions each.
#[derive(Clone, Debug)]
pub(crate) struct Strata {
    seed: u64,
    /// The block whose orders these are.
    block: u64,
    /// For each dimension what scrambles it, for good.
    scrambles: Vec<u32>,
    /// For each dimension the order of this block.
    orders: Vec<Order>,
}

/// A permutation of the strata.
#[derive(Clone, Copy, Debug)]
struct Order([u32; 4]);

impl Order {
    fn draw(stream: &mut Stream) -> Order {
        Order(std::array::from_fn(|_| stream.next_u32()))
    }

    /// Odd factors, sums and shifts downwards are one to one.
    fn at(self, index: u32) -> u32 {
        self.0.iter().fold(index, |x, &key| {
            let x = x.wrapping_mul(key | 1).wrapping_add(key >> 16) & (STRATA - 1);
            x ^ (x >> (STRATUM_BITS / 2))
        })
    }
}

impl Strata {
    pub(crate) fn new(seed: u64, dimensions: usize) -> Strata {
        let mut stream = Stream::new(seed, Purpose::Strata, u64::MAX);
        let scrambles = (0..dimensions).map(|_| stream.next_u32()).collect();
        let mut strata = Strata { seed, block: 0, scrambles, orders: Vec::new() };
        strata.enter(0);
        strata
    }

    fn enter(&mut self, block: u64) {
        let mut stream = Stream::new(self.seed, Purpose::Strata, block);
        self.block = block;
        self.orders.clear();
        self.orders.extend(self.scrambles.iter().map(|_| Order::draw(&mut stream)));
    }

    /// Fills a row with a flow's numbers, in the open interval (0, 1).
    pub(crate) fn fill(&mut self, flow: u64, row: &mut [f32]) {
        let (block, index) = (flow / u64::from(STRATA), (flow % u64::from(STRATA)) as u32);
        if block != self.block {
            self.enter(block);
        }
        let dimensions = self.orders.iter().zip(&self.scrambles);
        for (number, (order, &scramble)) in row.iter_mut().zip(dimensions) {
            let stratum = order.at(index);
            let inside = scrambled((block as u32).reverse_bits(), mixed(scramble ^ stratum));
            let bits = stratum << (BITS - STRATUM_BITS) | inside >> (32 + STRATUM_BITS - BITS);
            *number = (bits as f32 + 0.5) * (1.0 / (1 << BITS) as f32);
        }
    }
}

/// Nested uniform scrambling: each bit is flipped by a hash of the bits above it (Laine and
/// Karras, *Stratified sampling for stochastic transparency*, 2011).
fn scrambled(bits: u32, key: u32) -> u32 {
    let mut x = bits.reverse_bits().wrapping_add(key);
    x ^= x.wrapping_mul(0x6c50_b47c);
    x ^= x.wrapping_mul(0xb82f_1e52);
    x ^= x.wrapping_mul(0xc7af_e638);
    x ^= x.wrapping_mul(0x8d22_f6e6);
    x.reverse_bits()
}

/// A hash of 32 bits.
fn mixed(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMENSIONS: usize = 6;

    fn rows(seed: u64, flows: std::ops::Range<u64>) -> Vec<[f32; DIMENSIONS]> {
        let mut strata = Strata::new(seed, DIMENSIONS);
        let row = |flow| {
            let mut row = [0.0; DIMENSIONS];
            strata.fill(flow, &mut row);
            row
        };
        flows.map(row).collect()
    }

    #[test]
    fn blocks_have_a_number_in_every_stratum_and_so_have_many_blocks_in_finer_ones() {
        for (blocks, first) in [(1, 0), (1, 5), (4, 0), (4, 12), (64, 64)] {
            let count = u64::from(STRATA) * blocks;
            let flows = u64::from(STRATA) * first..u64::from(STRATA) * (first + blocks);
            let rows = rows(7, flows);
            for dimension in 0..DIMENSIONS {
                let mut strata: Vec<u64> =
                    rows.iter().map(|row| (row[dimension] * count as f32) as u64).collect();
                strata.sort_unstable();
                assert!(strata.iter().copied().eq(0..count), "{blocks} blocks from {first}");
            }
        }
    }

    #[test]
    fn numbers_are_a_function_of_seed_and_flow() {
        let all = rows(3, 0..2000);
        assert_eq!(rows(3, 700..900), all[700..900]);
        let mut strata = Strata::new(3, DIMENSIONS);
        for flow in [1999, 3, 256, 255, 1024] {
            let mut row = [0.0; DIMENSIONS];
            strata.fill(flow as u64, &mut row);
            assert_eq!(row, all[flow]);
        }
        assert_ne!(rows(4, 0..100), all[..100]);
        assert!(all.iter().flatten().all(|number| *number > 0.0 && *number < 1.0));
    }

    #[test]
    fn neighbours_and_dimensions_tell_nothing_of_one_another() {
        let correlation = |pairs: Vec<(f32, f32)>| {
            let centred = |(x, y): &(f32, f32)| f64::from(x - 0.5) * f64::from(y - 0.5);
            12.0 * pairs.iter().map(centred).sum::<f64>() / pairs.len() as f64
        };
        let mut greatest: f64 = 0.0;
        for seed in 0..8 {
            let rows = rows(seed, 0..8192);
            for step in [1, 2, 3, 64, 255, 256, 257, 512] {
                for one in 0..DIMENSIONS {
                    for other in 0..DIMENSIONS {
                        let pairs = rows.iter().zip(&rows[step..]);
                        let pairs = pairs.map(|(a, b)| (a[one], b[other])).collect();
                        greatest = greatest.max(correlation(pairs).abs());
                    }
                }
            }
        }
        // Chance alone: 0.011 each, 2304 of them.
        assert!(greatest < 0.055, "{greatest}");
    }
}
