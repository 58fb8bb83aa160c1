//! A value as a learned vector (NetShare's `word2vec_NAME`).
//!
//! The words of a row (its ports, its protocol) are a sentence; skip-gram with
//! negative sampling (Mikolov et al., NIPS 2013) gives words that occur in
//! like company like vectors. Columns that share NAME share a vocabulary, the
//! [`Word2VecSpace`]. Vectors have length 1, so tanh reaches them, and a
//! generated vector decodes to the nearest by cosine.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::categorical::Choice;
use super::{CodecError, show};
use crate::column::Column;
use crate::layout::{Activation, Segment};
use crate::random::{Purpose, Stream};
use crate::record::Value;

/// How word vectors are fitted.
#[derive(Clone, Copy, Debug)]
pub struct Word2VecOptions {
    /// Length of a vector (`vec_size`).
    pub dim: usize,
    /// The seed of first vectors and negative samples.
    pub seed: u64,
}

const WINDOW: usize = 5;
const NEGATIVES: usize = 5;
const PASSES: usize = 5;
const FIRST_RATE: f32 = 0.025;
const LAST_RATE: f32 = 0.0001;
/// More rows than this add time, not meaning: they are visited in strides.
const MOST_ROWS: usize = 200_000;

/// The vocabulary of one NAME: its words and their unit vectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word2VecSpace {
    words: Vec<Choice>,
    dim: usize,
    /// `words.len() * dim` values, word by word.
    vectors: Vec<f32>,
}

impl Word2VecSpace {
    /// Fits the vectors of all `word2vec_*` columns of a table together;
    /// returns one space a NAME. Deterministic for a seed.
    ///
    /// # Errors
    /// No columns or no rows, vectors of length 0 or above 1024, more words
    /// than 32 bits count.
    pub fn fit(
        columns: &[(&str, &Column)],
        options: Word2VecOptions,
    ) -> Result<BTreeMap<String, Arc<Word2VecSpace>>, CodecError> {
        let Some((_, first)) = columns.iter().find(|(_, column)| !column.is_empty()) else {
            let column = columns.first().map_or(String::new(), |(_, column)| column.name.clone());
            return Err(CodecError::Empty { column });
        };
        if !(1..=1024).contains(&options.dim) {
            return Err(CodecError::Option {
                column: first.name.clone(),
                reason: format!("`vec_size` is {}; expected 1 to 1024", options.dim),
            });
        }
        // One id a (NAME, value), in order of NAME, then value: input order
        // must not show in the result's order.
        let mut sets: BTreeMap<&str, std::collections::BTreeSet<Choice>> = BTreeMap::new();
        for (name, column) in columns {
            let set = sets.entry(name).or_default();
            set.extend((0..column.len()).map(|row| Choice::of(column, row)));
        }
        let mut ids: HashMap<(&str, &Choice), usize> = HashMap::new();
        for (name, set) in &sets {
            for choice in set {
                let id = ids.len();
                ids.insert((name, choice), id);
            }
        }
        let rows = first.len();
        let stride = rows.div_ceil(MOST_ROWS);
        let sentences: Vec<Vec<usize>> = (0..rows)
            .step_by(stride)
            .map(|row| {
                let word =
                    |(name, column): &(&str, &Column)| ids[&(*name, &Choice::of(column, row))];
                columns.iter().map(word).collect()
            })
            .collect();
        let vectors = skip_gram(&sentences, ids.len(), options);
        let mut next = 0;
        Ok(sets
            .into_iter()
            .map(|(name, set)| {
                let from = next * options.dim;
                next += set.len();
                let space = Word2VecSpace {
                    words: set.into_iter().collect(),
                    dim: options.dim,
                    vectors: vectors[from..next * options.dim].to_vec(),
                };
                (name.to_owned(), Arc::new(space))
            })
            .collect())
    }

    /// Checks what a manifest from outside could have wrong.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=1024).contains(&self.dim)
            || self.words.is_empty()
            || self.words.len().checked_mul(self.dim) != Some(self.vectors.len())
        {
            return Err(format!(
                "{} words of {} dimensions need as many values; found {}",
                self.words.len(),
                self.dim,
                self.vectors.len()
            ));
        }
        match self.vectors.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(format!("vector value {value} is not finite")),
            None => Ok(()),
        }
    }

    /// The vectors by blocks of words, in a block dimension by dimension: so
    /// that one instruction multiplies many words. The last block is padded
    /// with zeros.
    fn by_blocks(&self) -> Vec<[f32; BLOCK]> {
        let mut blocks = Vec::new();
        for words in self.vectors.chunks(BLOCK * self.dim.max(1)) {
            for d in 0..self.dim {
                let mut lane = [0.0; BLOCK];
                for (value, word) in lane.iter_mut().zip(words.chunks_exact(self.dim)) {
                    *value = word[d];
                }
                blocks.push(lane);
            }
        }
        blocks
    }
}

/// Words that are compared at once.
const BLOCK: usize = 32;

/// Unit vectors, `words * dim`, by skip-gram with negative sampling.
fn skip_gram(sentences: &[Vec<usize>], words: usize, options: Word2VecOptions) -> Vec<f32> {
    let dim = options.dim;
    let mut random = Stream::new(options.seed, Purpose::Word2vec, 0);
    let mut vectors: Vec<f32> =
        (0..words * dim).map(|_| (random.uniform() - 0.5) / dim as f32).collect();
    let mut contexts = vec![0.0_f32; words * dim];
    // Negatives are drawn in proportion to count^0.75, as in the paper.
    let mut counts = vec![0_u64; words];
    sentences.iter().flatten().for_each(|&word| counts[word] += 1);
    let mut cumulative = Vec::with_capacity(words);
    let mut total = 0.0_f64;
    for &count in &counts {
        total += (count as f64).powf(0.75);
        cumulative.push(total);
    }
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    let steps = (PASSES * sentences.len()) as f32;
    let mut step = 0_usize;
    let mut gradient = vec![0.0_f32; dim];
    for _ in 0..PASSES {
        random.shuffle(&mut order);
        for &sentence in &order {
            let rate = (FIRST_RATE * (1.0 - step as f32 / steps)).max(LAST_RATE);
            step += 1;
            let sentence = &sentences[sentence];
            for (at, &center) in sentence.iter().enumerate() {
                for (other, &context) in sentence.iter().enumerate() {
                    if other == at || other.abs_diff(at) > WINDOW {
                        continue;
                    }
                    gradient.fill(0.0);
                    for draw in 0..=NEGATIVES {
                        let (target, label) = if draw == 0 {
                            (context, 1.0)
                        } else {
                            let at = random.uniform_f64() * total;
                            let drawn = cumulative.partition_point(|&sum| sum <= at);
                            (drawn.min(words - 1), 0.0)
                        };
                        if draw > 0 && target == context {
                            continue;
                        }
                        let input = &vectors[center * dim..(center + 1) * dim];
                        let output = &mut contexts[target * dim..(target + 1) * dim];
                        let dot: f32 = input.iter().zip(output.iter()).map(|(a, b)| a * b).sum();
                        let error = rate * (label - 1.0 / (1.0 + (-dot).exp()));
                        for d in 0..dim {
                            gradient[d] += error * output[d];
                            output[d] += error * input[d];
                        }
                    }
                    let input = &mut vectors[center * dim..(center + 1) * dim];
                    input.iter_mut().zip(&gradient).for_each(|(value, change)| *value += change);
                }
            }
        }
    }
    for vector in vectors.chunks_exact_mut(dim) {
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 && norm.is_finite() {
            vector.iter_mut().for_each(|value| *value /= norm);
        } else {
            vector.fill(0.0);
            vector[0] = 1.0;
        }
    }
    vectors
}

/// A value among many, as the vector of its word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word2VecCodec {
    name: String,
    // In the manifest spaces stand once a NAME, beside the fields.
    #[serde(skip)]
    space: Arc<Word2VecSpace>,
    #[serde(skip)]
    blocks: Arc<[[f32; BLOCK]]>,
}

impl Word2VecCodec {
    /// The encoder of a column whose words `space` holds.
    #[must_use]
    pub fn new(name: &str, space: Arc<Word2VecSpace>) -> Word2VecCodec {
        let blocks = space.by_blocks().into();
        Word2VecCodec { name: name.to_owned(), space, blocks }
    }

    /// The word whose vector has the largest cosine with `vector`; the first
    /// of equals.
    fn nearest(&self, vector: &[f32]) -> usize {
        let mut best = (0, f32::NEG_INFINITY);
        for (block, lanes) in self.blocks.chunks_exact(self.space.dim.max(1)).enumerate() {
            let mut products = [0.0_f32; BLOCK];
            for (lane, &value) in lanes.iter().zip(vector) {
                for (product, factor) in products.iter_mut().zip(lane) {
                    *product += factor * value;
                }
            }
            let words = (self.space.words.len() - block * BLOCK).min(BLOCK);
            for (index, &product) in products[..words].iter().enumerate() {
                if product > best.1 {
                    best = (block * BLOCK + index, product);
                }
            }
        }
        best.0
    }

    /// Gives a codec that was read from a manifest its space.
    pub(crate) fn link(
        &mut self,
        spaces: &BTreeMap<String, Arc<Word2VecSpace>>,
    ) -> Result<(), String> {
        let space = spaces.get(&self.name);
        let space = space.ok_or(format!("word2vec space `{}` is missing", self.name))?;
        // Its sizes must agree before it is laid out anew.
        space.validate()?;
        *self = Word2VecCodec::new(&self.name, Arc::clone(space));
        Ok(())
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        self.space.validate()
    }

    pub(super) fn segments(&self) -> Vec<Segment> {
        vec![Segment::new(self.space.dim, Activation::Tanh)]
    }

    pub(super) fn encode<'a>(
        &self,
        column: &Column,
        rows: impl Iterator<Item = &'a mut [f32]>,
    ) -> Result<(), CodecError> {
        let words = &self.space.words;
        let index: HashMap<&Choice, usize> =
            words.iter().enumerate().map(|(index, word)| (word, index)).collect();
        let dim = self.space.dim;
        for (row, out) in rows.enumerate().take(column.len()) {
            let Some(&at) = index.get(&Choice::of(column, row)) else {
                return Err(CodecError::Value {
                    column: column.name.clone(),
                    row: row + 1,
                    found: show(column, row),
                    reason: format!("is not in the vocabulary `{}`", self.name),
                });
            };
            out.copy_from_slice(&self.space.vectors[at * dim..(at + 1) * dim]);
        }
        Ok(())
    }

    pub(super) fn decode(&self, folded: &[f32]) -> Value {
        let index = self.nearest(folded);
        self.space.words[index].value(index)
    }

    pub(super) fn word(&self, index: u32) -> &str {
        self.space.words.get(index as usize).map_or("", Choice::word)
    }

    /// The words that it decodes to.
    #[must_use]
    pub fn words(&self) -> &[Choice] {
        &self.space.words
    }

    pub(super) fn describe(&self) -> String {
        format!("word2vec_{} {} words x {}", self.name, self.space.words.len(), self.space.dim)
    }
}
