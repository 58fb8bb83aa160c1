//! The word whose vector has the largest inner product with a query, exactly.
//!
//! A ball tree: words are split at the median of their widest dimension until
//! [`BLOCK`] are left, which are compared at once. Every node knows a center c
//! and the radius R of its words around it; since q·w = q·c + q·(w - c), no
//! word of it gives more than q·c + |q| R, and a node that cannot beat the best
//! word so far is not entered.

/// Words that are compared at once.
const BLOCK: usize = 32;
/// Bounds and products are computed in f32; a bound is taken so much larger.
const SLACK: f32 = 1e-5;

/// One node of the tree: a leaf has a block, others two children.
#[derive(Clone, Debug)]
struct Node {
    radius: f32,
    /// |c| + R, to scale the slack.
    reach: f32,
    content: Content,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    /// Words `from..from + count` of the order.
    Leaf { from: usize, count: usize },
    /// The second child; the first follows its parent.
    Split { second: usize },
}

/// The vectors of a vocabulary, laid out to be searched.
#[derive(Clone, Debug, Default)]
pub(super) struct Nearest {
    dim: usize,
    nodes: Vec<Node>,
    /// `dim` values a node.
    centers: Vec<f32>,
    /// The words, leaf by leaf.
    order: Vec<u32>,
    /// The words of a leaf dimension by dimension, padded with zeros.
    lanes: Vec<[f32; BLOCK]>,
    /// For each word in `order` that begins a leaf, where its lanes begin.
    leaf_lanes: Vec<usize>,
}

impl Nearest {
    /// Takes `words * dim` finite values, word by word.
    pub(super) fn new(vectors: &[f32], dim: usize) -> Nearest {
        let words = vectors.len() / dim.max(1);
        let mut nearest = Nearest {
            dim,
            order: (0..words as u32).collect(),
            leaf_lanes: vec![0; words],
            ..Nearest::default()
        };
        if words > 0 && dim > 0 {
            nearest.build(vectors, 0, words);
        }
        nearest
    }

    fn build(&mut self, vectors: &[f32], from: usize, until: usize) {
        let dim = self.dim;
        let vector = |word: u32| &vectors[word as usize * dim..][..dim];
        let words = &self.order[from..until];
        let mut low = vec![f32::INFINITY; dim];
        let mut high = vec![f32::NEG_INFINITY; dim];
        for &word in words {
            for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(vector(word)) {
                *low = low.min(value);
                *high = high.max(value);
            }
        }
        let center: Vec<f32> =
            low.iter().zip(&high).map(|(low, high)| low + (high - low) / 2.0).collect();
        let length =
            |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
        let distance = |word: u32| {
            length(&mut vector(word).iter().zip(&center).map(|(value, center)| value - center))
        };
        let radius = words.iter().map(|&word| distance(word)).fold(0.0, f32::max);
        let reach = length(&mut center.iter().copied()) + radius;
        self.centers.extend_from_slice(&center);
        let node = self.nodes.len();
        let count = until - from;
        self.nodes.push(Node { radius, reach, content: Content::Leaf { from, count } });
        if count <= BLOCK {
            self.leaf_lanes[from] = self.lanes.len();
            // Of equal products the first word counts, so words stay in order.
            self.order[from..until].sort_unstable();
            for d in 0..dim {
                let mut lane = [0.0; BLOCK];
                for (value, &word) in lane.iter_mut().zip(&self.order[from..until]) {
                    *value = vectors[word as usize * dim + d];
                }
                self.lanes.push(lane);
            }
            return;
        }
        let spread = |d: &usize| high[*d] - low[*d];
        let widest = (0..dim).max_by(|a, b| spread(a).total_cmp(&spread(b))).unwrap_or(0);
        let middle = count / 2;
        let key = |word: &u32| vectors[*word as usize * dim + widest];
        self.order[from..until]
            .select_nth_unstable_by(middle, |a, b| key(a).total_cmp(&key(b)).then(a.cmp(b)));
        self.build(vectors, from, from + middle);
        self.nodes[node].content = Content::Split { second: self.nodes.len() };
        self.build(vectors, from + middle, until);
    }

    /// The most that a word of the node can give.
    fn bound(&self, node: usize, query: &[f32], length: f32) -> f32 {
        let center = &self.centers[node * self.dim..][..self.dim];
        let product: f32 = center.iter().zip(query).map(|(a, b)| a * b).sum();
        let Node { radius, reach, .. } = self.nodes[node];
        product + length * (radius + SLACK * reach)
    }

    /// The index of the nearest word, the first of equals; 0 for a query with NaN.
    pub(super) fn find(&self, query: &[f32]) -> usize {
        let length = query.iter().map(|value| value * value).sum::<f32>().sqrt();
        // NaN compares with nothing; where products overflow, all words are equal.
        if !length.is_finite() || self.nodes.is_empty() {
            return 0;
        }
        let mut best = (f32::NEG_INFINITY, u32::MAX);
        // A path to a leaf leaves one node a level behind: 2^48 words are not to be had.
        let mut waiting = [(0_usize, f32::INFINITY); 64];
        let mut depth = 1;
        while depth > 0 {
            depth -= 1;
            let (mut node, bound) = waiting[depth];
            if bound < best.0 {
                continue;
            }
            loop {
                match self.nodes[node].content {
                    Content::Leaf { from, count } => {
                        self.compare(from, count, query, &mut best);
                        break;
                    }
                    Content::Split { second } => {
                        let first = node + 1;
                        let bounds =
                            (self.bound(first, query, length), self.bound(second, query, length));
                        let (near, far, far_bound) = if bounds.0 >= bounds.1 {
                            (first, second, bounds.1)
                        } else {
                            (second, first, bounds.0)
                        };
                        if far_bound >= best.0 {
                            waiting[depth] = (far, far_bound);
                            depth += 1;
                        }
                        node = near;
                    }
                }
            }
        }
        best.1.min(self.order.len() as u32 - 1) as usize
    }

    fn compare(&self, from: usize, count: usize, query: &[f32], best: &mut (f32, u32)) {
        let lanes = &self.lanes[self.leaf_lanes[from]..][..self.dim];
        let mut products = [0.0_f32; BLOCK];
        for (lane, &value) in lanes.iter().zip(query) {
            for (product, factor) in products.iter_mut().zip(lane) {
                *product += factor * value;
            }
        }
        for (&product, &word) in products[..count].iter().zip(&self.order[from..]) {
            if product > best.0 || (product == best.0 && word < best.1) {
                *best = (product, word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};

    fn scan(vectors: &[f32], dim: usize, query: &[f32]) -> usize {
        let mut best = (f32::NEG_INFINITY, 0);
        for (word, vector) in vectors.chunks_exact(dim).enumerate() {
            let product = vector.iter().zip(query).fold(0.0, |sum, (a, b)| sum + a * b);
            if product > best.0 {
                best = (product, word);
            }
        }
        best.1
    }

    #[test]
    fn the_tree_finds_what_a_scan_finds() {
        for (words, dim) in [(1, 3), (31, 10), (33, 1), (5000, 10), (3000, 2)] {
            let mut random = Stream::new(words as u64, Purpose::Word2vec, 0);
            let mut vectors: Vec<f32> = (0..words * dim).map(|_| random.uniform() - 0.5).collect();
            // Words that are equal, and some that all lie together.
            let half = vectors.len() / 2 / dim * dim;
            vectors.copy_within(0..half / 2 / dim * dim, half);
            vectors[..half / 4].iter_mut().for_each(|value| *value = 0.25 + *value * 1e-3);
            let nearest = Nearest::new(&vectors, dim);
            for _ in 0..300 {
                let query: Vec<f32> = (0..dim).map(|_| 2.0 * random.uniform() - 1.0).collect();
                assert_eq!(nearest.find(&query), scan(&vectors, dim, &query), "{words} x {dim}");
            }
            for word in 0..words.min(50) {
                let query = &vectors[word * dim..][..dim];
                assert_eq!(nearest.find(query), scan(&vectors, dim, query));
            }
        }
    }

    #[test]
    fn what_is_no_number_finds_the_first_word() {
        let nearest = Nearest::new(&[1.0, 0.0, 0.0, 1.0], 2);
        assert_eq!(nearest.find(&[f32::NAN, 0.0]), 0);
        assert_eq!(nearest.find(&[f32::INFINITY, 0.0]), 0);
        assert_eq!(nearest.find(&[0.0, 0.0]), 0);
    }
}
