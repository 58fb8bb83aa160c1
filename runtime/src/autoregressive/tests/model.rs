//! The model of the tests: chaotic graphs, arbitrary tables.

use std::collections::BTreeMap;
use std::ops::Range;

use ns_model_format::arrival::ArrivalProcess;
use ns_model_format::autoregressive::{Applies, Head, RecordSays, Says, Told, Variable};
use ns_model_format::codec::{Codec, TokenOptions, TokensCodec};
use ns_model_format::manifest::{Model, Timeline};
use ns_model_format::random::{Purpose, Stream};
use ns_model_format::schema::TimeEncoding;
use ns_model_format::{Column, Field, FieldKind};
use safetensors::tensor::{Dtype, TensorView};

use super::super::*;
use crate::graphs::Transposed;
use crate::program::{Rows, RowsMut};
use crate::testing;

pub(super) const SPAN_NS: u64 = 100_000_000;
pub(super) const ADDRESS: usize = 2;
pub(super) const COUNT: usize = 7;
pub(super) const DURATION: usize = 8;
/// Of the bundle with a pair, in which what is after it is one further.
pub(super) const PAIR: usize = 1;
pub(super) const PAIRS: [[u32; 2]; 3] = [[0, 0], [0, 1], [2, 1]];
pub(super) const SUPPORT: usize = 10;
pub(super) const FLAGS: [&[u32]; 2] = [&[1, 3], &[0, 1, 2, 3]];

pub(super) fn numbers(values: Vec<i64>, octets: Option<u8>, bins: usize) -> TokensCodec {
    let options = TokenOptions { octets, bins, ..TokenOptions::default() };
    TokensCodec::fit_with(&Column::ints("x", values), &options).unwrap()
}

pub(super) fn durations() -> TokensCodec {
    let options = TokenOptions { bins: 12, log: true, ..TokenOptions::default() };
    let numbers = (0..400).map(|i| (1.05_f64.powi(i / 2) * (1.0 + f64::from(i) / 1e3)).floor());
    TokensCodec::of_numbers(numbers.collect(), &options)
}

/// Attributes `kind` (three values) and `address` (two values, else two octets);
/// measurements `flags` and `direction` that are drawn together, `len`, and `ttl`, which
/// each direction has one of.
pub(crate) fn bundle() -> Bundle {
    bundle_with(|_| ())
}

/// The same; kind and address are drawn as a pair first, or each alone, `len` may be that of
/// the record before, the last variable says which flags a flow has, and `ttl` is what its
/// context tells, the kind's own token.
pub(super) fn paired_bundle() -> Bundle {
    bundle_with(|model| {
        let later = |at: &mut usize| *at += usize::from(*at >= PAIR);
        for variable in &mut model.attributes {
            variable.parents.iter_mut().for_each(later);
            variable.applies.iter_mut().for_each(|applies| later(&mut applies.variable));
            if let Says::Field { field, place: 0 } = variable.says {
                variable.parents.push(PAIR);
                variable.told = Some(Told { variable: PAIR, place: field });
            }
            if variable.name == "ttl" {
                variable.contexts = vec![variable.parents.clone()];
            }
        }
        let variable = |name: &str, size, says| Variable {
            name: name.to_owned(),
            size,
            says,
            applies: None,
            told: None,
            file: Some("none".to_owned()),
            parents: vec![0],
            absent: Vec::new(),
            contexts: Vec::new(),
        };
        let says = Says::Pair { fields: [0, 1], pairs: PAIRS.to_vec() };
        model.attributes.insert(PAIR, variable("kind address", PAIRS.len() + 1, says));
        let sets = FLAGS.iter().map(|set| set.to_vec()).collect();
        let says = Says::Support { head: 0, kinds: vec![0, 0, 1, 1, 2, 2, 3, 3], sets };
        model.attributes.push(variable("flags", FLAGS.len() + 1, says));
        if let RecordSays::Joint { given, .. } = &mut model.heads[0].says {
            given.iter_mut().for_each(later);
        }
        model.heads[1].says = RecordSays::Field { field: 2, steps: vec![-1, 0, 3] };
        model.heads[1].size += 3;
    })
}

fn bundle_with(edit: impl FnOnce(&mut Autoregressive)) -> Bundle {
    let mut manifest = testing::bundle(TimeEncoding::Interarrival, None).manifest().clone();
    let field = |name: &str, codec: TokensCodec| Field {
        missing: None,
        name: name.to_owned(),
        kind: FieldKind::Integer,
        codec: Codec::Tokens(codec),
    };
    let three = |values: &[i64]| values.iter().flat_map(|&value| [value; 3]).collect::<Vec<_>>();
    let kind = numbers(three(&[10, 20, 30]), None, 1);
    let address = numbers([three(&[500, 1000]), (2000..2050).collect()].concat(), Some(2), 1);
    let flags = numbers(three(&[0, 1, 2, 3]), None, 1);
    let direction = numbers(three(&[0, 1]), None, 1);
    let lengths = numbers([three(&[40, 1500]), (100..300).collect()].concat(), None, 5);
    let ttl = numbers(three(&[64, 128]), None, 1);
    assert_eq!(address.sizes(), [3, 256, 256]);
    let variable = |name: &str, size, says, parents: &[usize]| Variable {
        name: name.to_owned(),
        size,
        says,
        applies: None,
        told: None,
        file: (!parents.is_empty()).then(|| "none".to_owned()),
        parents: parents.to_vec(),
        absent: Vec::new(),
        contexts: Vec::new(),
    };
    let octet = |place, parents: &[usize]| Variable {
        applies: Some(Applies { variable: ADDRESS, token: 2, equal: true }),
        ..variable("octet", 256, Says::Field { field: 1, place }, parents)
    };
    let constant = |direction| Says::Constant { measurement: 3, direction: Some(direction) };
    let (counts, durations) = (TokensCodec::of_counts(40), durations());
    let size = |codec: &TokensCodec| codec.sizes()[0];
    let gaps = numbers((0..2_000).map(|i| i * i).collect(), None, 20);
    let attributes = vec![
        variable("start", 4, Says::Start { edges: vec![0.0, 0.25, 0.5, 0.75, 1.0] }, &[]),
        variable("kind", 3, Says::Field { field: 0, place: 0 }, &[0]),
        variable("address", 3, Says::Field { field: 1, place: 0 }, &[0, 1]),
        octet(1, &[1, 2]),
        octet(2, &[2, 3]),
        variable("ttl", 3, constant(0), &[1]),
        variable("ttl back", 3, constant(1), &[1, 5]),
        variable("count", size(&counts), Says::Count { tokens: counts }, &[1, 2]),
        Variable {
            applies: Some(Applies { variable: COUNT, token: 0, equal: false }),
            ..variable("duration", size(&durations), Says::Duration { tokens: durations }, &[7])
        },
    ];
    let head = |name: &str, size, says| {
        let (name, file) = (name.to_owned(), "none".to_owned());
        Head { name, size, says, file, absent: Vec::new() }
    };
    let joint = RecordSays::Joint {
        fields: vec![0, 1],
        combinations: (0..4).flat_map(|f| [vec![f, 0], vec![f, 1]]).collect(),
        given: Some(1),
        first: vec![vec![0, 1], vec![2], vec![], vec![]],
        later: vec![vec![4, 5], vec![6, 7], vec![], vec![]],
        after: Vec::new(),
        since: Vec::new(),
        begins: Vec::new(),
        room: Vec::new(),
    };
    let heads = vec![
        head("flags", 8, joint),
        head("len", size(&lengths), RecordSays::Field { field: 2, steps: Vec::new() }),
        head("gap", size(&gaps), RecordSays::Gap { tokens: gaps }),
    ];
    manifest.schema.attributes = vec![field("kind", kind), field("address", address)];
    manifest.schema.measurements = vec![
        field("flags", flags),
        field("direction", direction),
        field("len", lengths),
        field("ttl", ttl),
    ];
    manifest.schema.columns =
        ["kind", "address", "time", "flags", "direction", "len", "ttl"].map(str::to_owned).to_vec();
    let mut model = Autoregressive {
        tables: "tables".to_owned(),
        units: 6,
        context: 5,
        hidden: 3,
        head: 4,
        attributes,
        context_file: "none".to_owned(),
        step_file: "none".to_owned(),
        heads,
    };
    edit(&mut model);
    let tables = tables_file(&model, |_, _| true);
    manifest.model = Model {
        class: "autoregressive".to_owned(),
        weights: "none".to_owned(),
        chunks: Vec::new(),
        autoregressive: Some(model),
    };
    let starts: Vec<u64> = (0..300).map(|i| (i / 3) * 1_000_000).collect();
    manifest.timeline =
        Timeline { arrivals: ArrivalProcess::fit(&starts, SPAN_NS), ..manifest.timeline };
    let files = [("none".to_owned(), Vec::new()), ("tables".to_owned(), tables)];
    Bundle::new(manifest, BTreeMap::from(files)).unwrap()
}

/// All tables with arbitrary values, but that a context tells the token that its key is;
/// `keep` may leave one out or change its shape.
pub(super) fn tables_file(
    model: &Autoregressive,
    mut keep: impl FnMut(&str, &mut [usize; 2]) -> bool,
) -> Vec<u8> {
    let (lstm, heads) = (4 * model.hidden, model.heads.len() * model.head);
    let mut shapes: Vec<(String, [usize; 2])> = vec![
        ("record.remaining".to_owned(), [32, lstm]),
        ("record.index".to_owned(), [32, lstm]),
        ("record.budget".to_owned(), [64, lstm]),
        ("head.remaining".to_owned(), [32, heads]),
        ("head.budget".to_owned(), [64, heads]),
    ];
    for (i, variable) in model.attributes.iter().enumerate() {
        shapes.push((format!("context.{i}"), [variable.size + 1, model.context]));
        for &j in &variable.parents {
            let rows = model.attributes[j].size + 1;
            shapes.push((format!("attributes.{i}.{j}"), [rows, model.units]));
        }
    }
    for (k, head) in model.heads.iter().enumerate() {
        shapes.push((format!("record.{k}"), [head.size + 1, lstm]));
        for j in 0..k {
            shapes.push((format!("head.{k}.{j}"), [model.heads[j].size, model.head]));
        }
    }
    shapes.retain_mut(|(name, shape)| keep(name, shape));
    let mut stream = Stream::new(3, Purpose::Weights, 0);
    let mut values = |[rows, width]: [usize; 2]| -> Vec<u8> {
        (0..rows * width).flat_map(|_| stream.normal().to_le_bytes()).collect()
    };
    let data: Vec<Vec<u8>> = shapes.iter().map(|&(_, shape)| values(shape)).collect();
    let views = shapes.iter().zip(&data).map(|((name, shape), data)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap())
    });
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let tells = |(i, variable): (usize, &Variable)| -> Vec<(String, Dtype, Vec<u8>)> {
        let tokens: Vec<u32> = (0..variable.size as u32).collect();
        let ends: Vec<u32> = tokens.iter().map(|token| token + 1).collect();
        let (words, values) = (Dtype::U32, vec![50.0_f32.to_bits(); variable.size]);
        let tables = |n: usize| {
            [("keys", words, &tokens), ("ends", words, &ends), ("tokens", words, &tokens)]
                .into_iter()
                .chain([("values", Dtype::F32, &values)])
                .map(|(part, dtype, of)| (format!("evidence.{i}.{n}.{part}"), dtype, bytes(of)))
                .collect::<Vec<_>>()
        };
        (0..variable.contexts.len()).flat_map(tables).collect()
    };
    let mut lists: Vec<_> = model.attributes.iter().enumerate().flat_map(tells).collect();
    lists.retain(|(name, ..)| keep(name, &mut [0; 2]));
    let lists = lists.iter().map(|(name, dtype, data)| {
        (name.clone(), TensorView::new(*dtype, vec![data.len() / 4], data).unwrap())
    });
    safetensors::serialize(views.chain(lists), None).unwrap()
}

/// A number in [0, 1) that jumps for every small change.
pub(super) fn jump(values: &[f32], at: usize) -> f32 {
    let hash = values.iter().fold(0x811c_9dc5_u32 ^ at as u32, |hash, value| {
        (hash ^ value.to_bits()).wrapping_mul(0x0100_0193).rotate_left(11)
    });
    (hash.wrapping_mul(0x9E37_79B1) >> 8) as f32 / 16_777_216.0
}

#[derive(Clone)]
pub(super) struct FakeDense {
    pub(super) dim: usize,
    pub(super) size: usize,
    /// The tokens that there may be.
    pub(super) only: Range<usize>,
    /// Fails in so many runs, with a panic if `panics`.
    pub(super) fails_in: Option<usize>,
    pub(super) panics: bool,
}

impl FakeDense {
    fn new(dim: usize, size: usize) -> FakeDense {
        FakeDense { dim, size, only: 0..size, fails_in: None, panics: false }
    }
}

impl Dense for FakeDense {
    fn run(
        &mut self,
        rows: usize,
        mut fill: impl FnMut(RowsMut<'_>),
        mut take: impl FnMut(Rows<'_>),
    ) -> Result<(), RuntimeError> {
        let (mut input, mut out) = (vec![0.0; rows * self.dim], Vec::new());
        fill(RowsMut::new(self.dim, &mut input));
        if let Some(left) = &mut self.fails_in {
            assert!(*left > 0 || !self.panics, "told to");
            if *left == 0 {
                let (file, reason) = ("none".to_owned(), "told to".to_owned());
                return Err(RuntimeError::Run { file, reason });
            }
            *left -= 1;
        }
        for row in input.chunks_exact(self.dim) {
            out.extend((0..self.size).map(|at| match self.only.contains(&at) {
                true => 3.0 * jump(row, at),
                false => f32::NEG_INFINITY,
            }));
        }
        take(Rows::new(self.size, &out));
        Ok(())
    }
}

#[derive(Clone)]
pub(super) struct FakeLstm {
    pub(super) hidden: usize,
    pub(super) heads_dim: usize,
    pub(super) states: [Vec<f32>; 2],
}

impl Recurrent for FakeLstm {
    fn resize(&mut self, rows: usize) -> Result<(), RuntimeError> {
        self.states.iter_mut().for_each(|state| state.resize(rows * self.hidden, 0.0));
        Ok(())
    }

    fn state(&mut self, index: usize) -> Result<&mut [f32], RuntimeError> {
        Ok(&mut self.states[index])
    }

    fn step(
        &mut self,
        _: &[&[f32]],
        mut fill: impl FnMut(RowsMut<'_>),
        mut take: impl FnMut(Rows<'_>),
    ) -> Result<(), RuntimeError> {
        let [h, c] = &mut self.states;
        let rows = h.chunks_exact_mut(self.hidden).zip(c.chunks_exact_mut(self.hidden));
        let (mut x, mut heads) = (vec![0.0; rows.len() * 4 * self.hidden], Vec::new());
        fill(RowsMut::new(4 * self.hidden, &mut x));
        for (x, (h, c)) in x.chunks_exact(4 * self.hidden).zip(rows) {
            let all = [x, h, c].concat();
            c.iter_mut().enumerate().for_each(|(at, c)| *c = jump(&all, at));
            h.iter_mut().enumerate().for_each(|(at, h)| *h = jump(&all, 100 + at));
            heads.extend((0..self.heads_dim).map(|at| jump(h, at)));
        }
        take(Rows::new(self.heads_dim, &heads));
        Ok(())
    }
}

pub(super) type Fake = AutoregressiveEngine<Transposed<FakeDense>, FakeDense, FakeLstm>;

pub(super) fn fake(bundle: &Bundle) -> Fake {
    fake_of(bundle, &[])
}

/// The same with variables that are only certain tokens.
pub(super) fn fake_of(bundle: &Bundle, only: &[(usize, Range<usize>)]) -> Fake {
    let manifest = bundle.manifest();
    let model = manifest.model.autoregressive.as_ref().unwrap();
    let widths = Widths::of(model);
    let tables = Tables::read(model, bundle.file(&model.tables).unwrap()).unwrap();
    let heads_dim = widths.heads * widths.head;
    let graphs = Graphs {
        attributes: model
            .attributes
            .iter()
            .enumerate()
            .map(|(at, v)| {
                v.file.as_ref()?;
                let only = only.iter().find(|(of, _)| *of == at).map(|(_, only)| only.clone());
                let dense = FakeDense::new(model.units, v.size);
                Some(Transposed(FakeDense { only: only.unwrap_or(0..v.size), ..dense }))
            })
            .collect(),
        context: FakeDense::new(model.context, widths.context()),
        step: FakeLstm { hidden: model.hidden, heads_dim, states: Default::default() },
        heads: model
            .heads
            .iter()
            .map(|head| Transposed(FakeDense::new(model.head, head.size)))
            .collect(),
    };
    AutoregressiveEngine::new(model, &manifest.schema, SPAN_NS, Arc::new(tables), graphs)
}
