//! Heavy hitters and the sketches that count them in little memory.
//!
//! A downstream task of NetShare (Yin et al., SIGCOMM '22): a synthetic trace
//! is of use for choosing a sketch if the sketches err on it as they do on the
//! real one.

use std::collections::HashMap;

use ns_model_format::random::{Purpose, Stream};

/// Rows of the hashed sketches: each key has a counter in each.
const DEPTH: usize = 4;

/// Which sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The least of a key's counters (Cormode and Muthukrishnan, "An Improved
    /// Data Stream Summary: The Count-Min Sketch", J. Algorithms 2005).
    CountMin,
    /// The same, raising only the counters that are least (conservative update:
    /// Estan and Varghese, "New Directions in Traffic Measurement and
    /// Accounting", SIGCOMM '02).
    CountMinConservative,
    /// The median of counters with random signs (Charikar, Chen and
    /// Farach-Colton, "Finding Frequent Items in Data Streams", ICALP '02).
    CountSketch,
    /// Counters that pass from the rarest key to a new one (Metwally, Agrawal
    /// and El Abbadi, "Efficient Computation of Frequent and Top-k Elements in
    /// Data Streams", ICDT '05).
    SpaceSaving,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Kind; 4] =
        [Kind::CountMin, Kind::CountMinConservative, Kind::CountSketch, Kind::SpaceSaving];

    /// As reports name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::CountMin => "count-min",
            Kind::CountMinConservative => "count-min, conservative update",
            Kind::CountSketch => "count-sketch",
            Kind::SpaceSaving => "space-saving",
        }
    }
}

/// A sketch: counts keys, approximately.
#[derive(Clone, Debug)]
pub(crate) enum Sketch {
    /// Count-min, in both ways, and count-sketch.
    Hashed(Hashed),
    /// Space-saving.
    SpaceSaving(SpaceSaving),
}

impl Sketch {
    /// An empty sketch of `counters` counters: space-saving has at least 1; the
    /// hashed ones have a multiple of 4, rounded down, at least 4. Its hash
    /// functions are drawn by `seed`; space-saving has none.
    pub(crate) fn new(kind: Kind, counters: usize, seed: u64) -> Sketch {
        match kind {
            Kind::SpaceSaving => Sketch::SpaceSaving(SpaceSaving::new(counters)),
            _ => Sketch::Hashed(Hashed::new(kind, counters, seed)),
        }
    }

    /// Counts `key` once more.
    pub(crate) fn add(&mut self, key: u32) {
        match self {
            Sketch::Hashed(sketch) => sketch.add(key),
            Sketch::SpaceSaving(sketch) => sketch.add(key),
        }
    }

    /// How often `key` was added, estimated.
    pub(crate) fn estimate(&self, key: u32) -> f64 {
        match self {
            Sketch::Hashed(sketch) => sketch.estimate(key),
            Sketch::SpaceSaving(sketch) => sketch.estimate(key) as f64,
        }
    }
}

/// A table of counters, `[DEPTH, width]`; a key has one in each row.
#[derive(Clone, Debug)]
pub(crate) struct Hashed {
    kind: Kind,
    /// What tells the hash functions of the rows apart.
    keys: [u64; DEPTH],
    width: usize,
    table: Vec<i64>,
}

impl Hashed {
    fn new(kind: Kind, counters: usize, seed: u64) -> Hashed {
        let mut stream = Stream::new(seed, Purpose::Evaluation, u64::MAX);
        let width = (counters / DEPTH).max(1);
        Hashed {
            kind,
            keys: std::array::from_fn(|_| stream.next_u64()),
            width,
            table: vec![0; DEPTH * width],
        }
    }

    /// A key's counter in each row, as indices into the table, and its sign
    /// there.
    fn cells(&self, key: u32) -> [(usize, i64); DEPTH] {
        std::array::from_fn(|row| {
            let hash = mix(self.keys[row] ^ u64::from(key));
            // The upper 32 bits choose the counter, the lowest the sign.
            let column = (((hash >> 32) * self.width as u64) >> 32) as usize;
            (row * self.width + column, if hash & 1 == 0 { 1 } else { -1 })
        })
    }

    fn add(&mut self, key: u32) {
        let cells = self.cells(key);
        match self.kind {
            Kind::CountSketch => cells.iter().for_each(|&(at, sign)| self.table[at] += sign),
            Kind::CountMinConservative => {
                let raised = self.least(&cells) + 1;
                cells.iter().for_each(|&(at, _)| self.table[at] = self.table[at].max(raised));
            }
            _ => cells.iter().for_each(|&(at, _)| self.table[at] += 1),
        }
    }

    fn estimate(&self, key: u32) -> f64 {
        let cells = self.cells(key);
        if self.kind != Kind::CountSketch {
            return self.least(&cells) as f64;
        }
        let mut signed = cells.map(|(at, sign)| sign * self.table[at]);
        signed.sort_unstable();
        (signed[DEPTH / 2 - 1] + signed[DEPTH / 2]) as f64 / 2.0
    }

    fn least(&self, cells: &[(usize, i64); DEPTH]) -> i64 {
        cells.iter().map(|&(at, _)| self.table[at]).min().unwrap_or(0)
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast Splittable
/// Pseudorandom Number Generators", OOPSLA '14): every bit of the result
/// depends on every bit of `x`.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The counters of the keys that are watched, in constant time a key.
#[derive(Clone, Debug)]
pub(crate) struct SpaceSaving {
    /// Key and count, by ascending count; no key where a counter is free.
    counters: Vec<(Option<u32>, u64)>,
    /// Where a watched key's counter is.
    places: HashMap<u32, usize>,
    /// Where the last counter with each count is.
    last: HashMap<u64, usize>,
}

impl SpaceSaving {
    fn new(counters: usize) -> SpaceSaving {
        let counters = counters.max(1);
        SpaceSaving {
            counters: vec![(None, 0); counters],
            places: HashMap::new(),
            last: HashMap::from([(0, counters - 1)]),
        }
    }

    fn add(&mut self, key: u32) {
        let place = match self.places.get(&key) {
            Some(&place) => place,
            None => {
                // Of the keys with the least count, the one that has had it for longest.
                let place = self.last[&self.counters[0].1];
                if let Some(old) = self.counters[place].0.replace(key) {
                    self.places.remove(&old);
                }
                place
            }
        };
        // Last of those with its count, it can be raised without breaking the order.
        let count = self.counters[place].1;
        let end = self.last[&count];
        self.counters.swap(place, end);
        if let Some(moved) = self.counters[place].0 {
            self.places.insert(moved, place);
        }
        self.places.insert(key, end);
        self.counters[end].1 += 1;
        self.last.entry(count + 1).or_insert(end);
        match end.checked_sub(1).filter(|&before| self.counters[before].1 == count) {
            Some(before) => self.last.insert(count, before),
            None => self.last.remove(&count),
        };
    }

    /// A watched key's count, or the least count: no other key has more.
    fn estimate(&self, key: u32) -> u64 {
        let place = self.places.get(&key).copied().unwrap_or(0);
        self.counters[place].1
    }
}

/// The keys with at least `threshold_share` (0 to 1) of the sum of `counts`,
/// which are indexed by key, and with any count at all.
pub(crate) fn heavy_hitters(counts: &[u64], threshold_share: f64) -> Vec<u32> {
    let threshold = threshold_share * counts.iter().sum::<u64>() as f64;
    let heavy = |&count: &u64| count > 0 && count as f64 >= threshold;
    (0..).zip(counts).filter(|(_, count)| heavy(count)).map(|(key, _)| key).collect()
}

/// The mean of |estimate - true| / true over the heavy hitters of a stream of
/// keys and over hash functions drawn by each of `seeds`, for a sketch with so
/// many counters (see [`Sketch::new`]).
///
/// Keys are dense: memory grows with the largest. None if there is no heavy
/// hitter or no seed.
pub(crate) fn estimation_error(
    keys: impl Iterator<Item = u32>,
    kind: Kind,
    counters: usize,
    threshold_share: f64,
    seeds: &[u64],
) -> Option<f64> {
    // Without hash functions one run says it all.
    let runs = if kind == Kind::SpaceSaving { seeds.len().min(1) } else { seeds.len() };
    let mut sketches: Vec<Sketch> =
        seeds[..runs].iter().map(|&seed| Sketch::new(kind, counters, seed)).collect();
    let mut counts: Vec<u64> = Vec::new();
    for key in keys {
        if key as usize >= counts.len() {
            counts.resize(key as usize + 1, 0);
        }
        counts[key as usize] += 1;
        sketches.iter_mut().for_each(|sketch| sketch.add(key));
    }
    let heavy = heavy_hitters(&counts, threshold_share);
    let error = |sketch: &Sketch, key: u32| {
        let count = counts[key as usize] as f64;
        (sketch.estimate(key) - count).abs() / count
    };
    let sum: f64 =
        sketches.iter().flat_map(|sketch| heavy.iter().map(|&key| error(sketch, key))).sum();
    let terms = sketches.len() * heavy.len();
    (terms > 0).then(|| sum / terms as f64)
}

#[cfg(test)]
mod tests;
