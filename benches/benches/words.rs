//! The nearest word vector: the tree that decodes `word2vec_NAME`, beside a
//! scan of all words, by size of the vocabulary. Queries are word vectors with
//! noise, as a trained generator's are.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ns_model_format::Column;
use ns_model_format::codec::{Codec, Word2VecCodec, Word2VecSpace};
use ns_model_format::random::{Purpose, Stream};

const DIM: usize = 10;
const QUERIES: usize = 1_000;
/// A normal draw's share of a unit vector's length, by value.
const NOISE: f32 = 0.1;

/// Values of `words` unit vectors, and of the queries.
fn vectors(words: usize) -> (Vec<f32>, Vec<f32>) {
    let mut random = Stream::new(words as u64, Purpose::Word2vec, 0);
    let mut values = vec![0.0; words * DIM];
    random.fill_normal(&mut values);
    for vector in values.chunks_exact_mut(DIM) {
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|value| *value /= length);
    }
    let mut queries = Vec::with_capacity(QUERIES * DIM);
    for _ in 0..QUERIES {
        let word = (random.uniform() * words as f32) as usize % words;
        queries.extend((0..DIM).map(|d| values[word * DIM + d] + NOISE * random.normal()));
    }
    (values, queries)
}

/// The codec of a vocabulary with these vectors, through the text format.
fn codec(values: &[f32]) -> Codec {
    let words = values.len() / DIM;
    let mut text = format!("{words} {DIM}\n");
    for (word, vector) in values.chunks_exact(DIM).enumerate() {
        let vector: Vec<String> = vector.iter().map(f32::to_string).collect();
        text += &format!("{word} {}\n", vector.join(" "));
    }
    let column = Column::ints("word", (0..words as i64).collect());
    let spaces = Word2VecSpace::pretrained(&[("word", &column)], &text).expect("well formed");
    Codec::Word2vec(Word2VecCodec::new("word", Arc::clone(&spaces["word"])))
}

fn scan(values: &[f32], query: &[f32]) -> usize {
    let mut best = (f32::NEG_INFINITY, 0);
    for (word, vector) in values.chunks_exact(DIM).enumerate() {
        let product: f32 = vector.iter().zip(query).map(|(a, b)| a * b).sum();
        if product > best.0 {
            best = (product, word);
        }
    }
    best.1
}

fn words(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("words");
    group.sample_size(10).throughput(Throughput::Elements(QUERIES as u64));
    for words in [1_000, 16_000, 65_536] {
        let (values, queries) = vectors(words);
        let codec = codec(&values);
        group.bench_function(format!("tree of {words}"), |bencher| {
            bencher.iter(|| queries.chunks_exact(DIM).for_each(|q| _ = black_box(codec.decode(q))));
        });
        group.bench_function(format!("scan of {words}"), |bencher| {
            bencher
                .iter(|| queries.chunks_exact(DIM).for_each(|q| _ = black_box(scan(&values, q))));
        });
    }
    group.finish();
}

criterion_group!(benches, words);
criterion_main!(benches);
