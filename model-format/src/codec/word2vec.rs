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

use super::choice::{Choice, Lookup, counted};
use super::nearest::Nearest;
use super::{CodecError, Encoder, FitOptions, Rows, WordSpaces};
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
            set.extend(counted(column).into_iter().map(|(choice, _)| choice));
        }
        let sets: BTreeMap<&str, Vec<Choice>> =
            sets.into_iter().map(|(name, set)| (name, set.into_iter().collect())).collect();
        let mut count = 0;
        let first_ids: BTreeMap<&str, usize> = sets
            .iter()
            .map(|(name, set)| {
                let first = count;
                count += set.len();
                (*name, first)
            })
            .collect();
        let lookups: Vec<(usize, Lookup<'_>)> = columns
            .iter()
            .map(|(name, column)| (first_ids[name], Lookup::new(column, &sets[name])))
            .collect();
        let rows = first.len();
        let stride = rows.div_ceil(MOST_ROWS);
        let sentences: Vec<Vec<usize>> = (0..rows)
            .step_by(stride)
            .map(|row| {
                // Every word is in its set, which was made of the column.
                let word = |(first, lookup): &(usize, Lookup<'_>)| {
                    lookup.place(row).map(|place| first + place)
                };
                lookups.iter().filter_map(word).collect()
            })
            .collect();
        drop(lookups);
        let vectors = skip_gram(&sentences, count, options);
        Ok(sets
            .into_iter()
            .map(|(name, words)| {
                let from = first_ids[name] * options.dim;
                let vectors = vectors[from..][..words.len() * options.dim].to_vec();
                (name.to_owned(), Arc::new(Word2VecSpace { words, dim: options.dim, vectors }))
            })
            .collect())
    }

    /// Takes the vectors of all columns' words from a text that another
    /// program wrote, in the format of the original word2vec: a line with the
    /// number of words and dimensions, then a word and its values a line. Words
    /// are values as they are written in the input (`80`, `tcp`), whatever
    /// their column. Vectors are brought to length 1.
    ///
    /// # Errors
    /// A line that cannot be read, or a value without a vector.
    pub fn pretrained(
        columns: &[(&str, &Column)],
        text: &str,
    ) -> Result<BTreeMap<String, Arc<Word2VecSpace>>, String> {
        let mut lines = text.lines();
        let numbers: Vec<usize> = lines
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        let &[count, dim] = &numbers[..] else {
            return Err("line 1: expected the number of words and of dimensions".to_owned());
        };
        if !(1..=1024).contains(&dim) {
            return Err(format!("line 1: {dim} dimensions; expected 1 to 1024"));
        }
        let mut vectors: HashMap<&str, Vec<f32>> = HashMap::new();
        for (number, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let mut parts = line.trim().rsplitn(dim + 1, ' ');
            let mut values: Vec<f32> = parts
                .by_ref()
                .take(dim)
                .map_while(|part| part.parse().ok().filter(|value: &f32| value.is_finite()))
                .collect();
            values.reverse();
            let (Some(word), true) = (parts.next(), values.len() == dim) else {
                return Err(format!("line {}: expected a word and {dim} numbers", number + 2));
            };
            to_unit_length(&mut values);
            vectors.insert(word, values);
        }
        if vectors.len() != count {
            return Err(format!("line 1 promises {count} words, the file has {}", vectors.len()));
        }
        let mut spaces: BTreeMap<String, Arc<Word2VecSpace>> = BTreeMap::new();
        let mut sets: BTreeMap<&str, std::collections::BTreeSet<Choice>> = BTreeMap::new();
        for (name, column) in columns {
            let set = sets.entry(name).or_default();
            set.extend(counted(column).into_iter().map(|(choice, _)| choice));
        }
        for (name, words) in sets {
            let mut space = Word2VecSpace { words: Vec::new(), dim, vectors: Vec::new() };
            for word in words {
                let vector = vectors.get(word.to_string().as_str()).ok_or_else(|| {
                    format!("no vector for value `{word}` of `word2vec_{name}`; fit without it")
                })?;
                space.vectors.extend_from_slice(vector);
                space.words.push(word);
            }
            spaces.insert(name.to_owned(), Arc::new(space));
        }
        Ok(spaces)
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
}

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
    vectors.chunks_exact_mut(dim).for_each(to_unit_length);
    vectors
}

/// Scales a vector of at least one value to length 1.
fn to_unit_length(vector: &mut [f32]) {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 0.0 && norm.is_finite() {
        vector.iter_mut().for_each(|value| *value /= norm);
    } else {
        vector.fill(0.0);
        vector[0] = 1.0;
    }
}

/// A value among many, as the vector of its word.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word2VecCodec {
    name: String,
    // In the manifest spaces stand once a NAME, beside the fields.
    #[serde(skip)]
    space: Arc<Word2VecSpace>,
    #[serde(skip)]
    nearest: Arc<Nearest>,
}

impl PartialEq for Word2VecCodec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.space == other.space
    }
}

impl Word2VecCodec {
    /// The encoder of a column whose words `space` holds.
    #[must_use]
    pub fn new(name: &str, space: Arc<Word2VecSpace>) -> Word2VecCodec {
        let nearest = Arc::new(Nearest::new(&space.vectors, space.dim));
        Word2VecCodec { name: name.to_owned(), space, nearest }
    }

    /// The words that the field can take.
    #[must_use]
    pub fn words(&self) -> &[Choice] {
        &self.space.words
    }
}

impl Encoder for Word2VecCodec {
    fn fit(column: &Column, options: &FitOptions<'_>) -> Result<Self, CodecError> {
        let space = options.spaces.and_then(|spaces| spaces.get(options.name));
        let space = space.ok_or_else(|| CodecError::Option {
            column: column.name.clone(),
            reason: format!("the vocabulary `{}` is missing", options.name),
        })?;
        Ok(Word2VecCodec::new(options.name, Arc::clone(space)))
    }

    fn link(&mut self, spaces: &WordSpaces) -> Result<(), String> {
        let space = spaces.get(&self.name);
        let space = space.ok_or(format!("word2vec space `{}` is missing", self.name))?;
        // Its sizes must agree before it is laid out anew.
        space.validate()?;
        *self = Word2VecCodec::new(&self.name, Arc::clone(space));
        Ok(())
    }

    fn validate(&self) -> Result<(), String> {
        self.space.validate()
    }

    fn segments(&self) -> Vec<Segment> {
        vec![Segment::new(self.space.dim, Activation::Tanh)]
    }

    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        let lookup = Lookup::new(column, &self.space.words);
        let dim = self.space.dim;
        for (row, out) in rows.enumerate().take(column.len()) {
            let Some(at) = lookup.place(row) else {
                let reason = format!("is not in the vocabulary `{}`", self.name);
                return Err(CodecError::value(column, row, reason));
            };
            out.copy_from_slice(&self.space.vectors[at * dim..(at + 1) * dim]);
        }
        Ok(())
    }

    fn decode(&self, folded: &[f32]) -> Value {
        let index = self.nearest.find(folded);
        self.space.words[index].value(index)
    }

    fn word(&self, index: u32) -> &str {
        self.space.words.get(index as usize).map_or("", Choice::word)
    }

    fn describe(&self) -> String {
        format!("word2vec_{} {} words x {}", self.name, self.space.words.len(), self.space.dim)
    }
}
