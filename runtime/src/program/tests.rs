use ns_model_format::manifest::Tensor;
use ns_model_format::random::{Purpose, Stream};

use super::*;
use crate::testing::graphs::{self, Writer};

fn normals(count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    Stream::new(9, Purpose::Weights, 0).fill_normal(&mut values);
    values
}

/// All outputs of a program, one after the other.
fn run(program: &mut Program, rows: usize, inputs: &[&[f32]]) -> Vec<Vec<f32>> {
    let mut all = vec![Vec::new(); program.outputs.len()];
    let dim = inputs[0].len() / rows;
    let fill = |mut to: RowsMut<'_>| {
        let from = inputs[0].chunks_exact(dim).skip(to.first);
        to.iter_mut().zip(from).for_each(|(to, from)| to.copy_from_slice(from));
    };
    program.run(rows, &inputs[1..], fill, |outputs| {
        for (output, all) in all.iter_mut().enumerate() {
            outputs.of(output).iter().for_each(|row| all.extend_from_slice(row));
        }
    });
    all
}

fn tensors<const N: usize>(all: [(&str, usize); N]) -> [Tensor; N] {
    all.map(|(name, dim)| Tensor::new(name, dim))
}

fn read(model: &[u8], inputs: &[Tensor], outputs: &[Tensor]) -> Option<Program> {
    Program::read(model, inputs, outputs, &mut { MOST_NUMBERS })
}

fn lstm_program(h: usize) -> Program {
    let inputs = tensors([("x", 4 * h), ("h", h), ("c", h)]);
    let outputs = tensors([("heads", 7), ("h_next", h), ("c_next", h)]);
    read(&graphs::lstm(3, h, 7), &inputs, &outputs).unwrap()
}

#[test]
fn an_lstm_is_computed_as_its_formulas_say() {
    let h = 5;
    let mut program = lstm_program(h);
    let rows = 2 * TILE + 3;
    let (x, state) = (normals(rows * 4 * h), normals(rows * h));
    let cell: Vec<f32> = state.iter().map(|value| value * 2.0).collect();
    let found = run(&mut program, rows, &[&x, &state, &cell]);
    let mut stream = Stream::new(3, Purpose::Weights, 1);
    let weights = graphs::matrix(&mut stream, h, 4 * h);
    let of_heads = graphs::matrix(&mut stream, 2 * h, 7);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for row in 0..rows {
        let gate = |part: usize, at: usize| {
            let column = part * h + at;
            let products = (0..h).map(|k| state[row * h + k] * weights[k * 4 * h + column]);
            f64::from(x[row * 4 * h + column]) + products.map(f64::from).sum::<f64>()
        };
        for at in 0..h {
            let kept = sigmoid(gate(1, at)) * f64::from(cell[row * h + at]);
            let c = kept + sigmoid(gate(0, at)) * gate(3, at).tanh();
            let h_next = sigmoid(gate(2, at)) * c.tanh();
            let near = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 2e-6;
            assert!(near(found[1][row * h + at], h_next), "row {row}");
            assert!(near(found[2][row * h + at], c), "row {row}");
        }
    }
    let joined = found[1].chunks(h).zip(found[2].chunks(h)).map(|(h, c)| [h, c].concat());
    for (joined, heads) in joined.zip(found[0].chunks(7)) {
        for (at, &found) in heads.iter().enumerate() {
            let terms = joined.iter().zip(of_heads[at..].iter().step_by(7));
            assert_eq!(found, terms.fold(0.0, |sum, (x, weight)| x.mul_add(*weight, sum)));
        }
    }
}

#[test]
fn a_row_depends_on_itself_alone() {
    let h = 17;
    let mut program = lstm_program(h);
    let rows = TILE + 6;
    let (x, state) = (normals(rows * 4 * h), normals(rows * h));
    let all = run(&mut program, rows, &[&x, &state, &state]);
    for row in (0..rows).rev() {
        let state = &state[row * h..][..h];
        let one = run(&mut program, 1, &[&x[row * 4 * h..][..4 * h], state, state]);
        assert!(all.iter().zip(&one).all(|(all, one)| all[row * one.len()..][..one.len()] == *one));
    }
}

/// What a program in lanes makes, row by row.
fn run_in_lanes(program: &mut ProgramInLanes, rows: usize, values: &[f32]) -> Vec<f32> {
    let (mut found, mut next) = (Vec::new(), 0);
    let dim = values.len() / rows;
    let fill = |mut to: RowsMut<'_>| {
        let from = values.chunks_exact(dim).skip(to.first);
        to.iter_mut().zip(from).for_each(|(to, from)| to.copy_from_slice(from));
    };
    program.run(rows, fill, |lanes| {
        assert_eq!(lanes.first, next);
        next += lanes.rows;
        let row = |lane: usize| lanes.columns.iter().map(move |column| column[lane]);
        (0..lanes.rows).for_each(|lane| found.extend(row(lane)));
    });
    assert_eq!(next, rows);
    found
}

/// Checks that a graph's rows are the same side by side.
fn check_in_lanes(graph: &[u8], inputs: usize, columns: usize) {
    let (a, out) = (tensors([("a", inputs)]), tensors([("out", columns)]));
    let mut program = read(graph, &a, &out).unwrap();
    let mut budget = MOST_NUMBERS;
    let mut beside = ProgramInLanes::new(program.clone(), &mut budget).unwrap();
    assert!(budget < MOST_NUMBERS);
    for rows in [1, LANES, 2 * TILE + LANES + 3] {
        let values = normals(rows * inputs);
        let [expected] = &run(&mut program, rows, &[&values])[..] else { panic!() };
        let found = run_in_lanes(&mut beside, rows, &values);
        assert_eq!(&found, expected, "{inputs} {columns} {rows}");
        // Rows that are turned.
        let (mut turned, mut next) = (vec![f32::NAN; rows * columns], 0);
        Rows::new(columns, expected).in_lanes(|lanes| {
            assert_eq!(lanes.first, next);
            next += lanes.rows;
            for (at, column) in lanes.columns.iter().enumerate() {
                for (row, value) in (lanes.first..next).zip(column) {
                    turned[row * columns + at] = *value;
                }
            }
        });
        assert_eq!((next, &turned), (rows, expected));
    }
    assert!(ProgramInLanes::new(program, &mut { 10 }).is_err(), "beyond the budget");
}

#[test]
fn rows_side_by_side_are_the_same_rows() {
    for (inputs, columns, bias) in [(1, 1, true), (24, 9, true), (7, 132, false), (24, 79, true)] {
        let writer = Writer::new(5).bias("b", columns).node("Relu", &["a"], "r");
        let graph = writer.gemm(("r", inputs), bias.then_some("b"), ("out", columns));
        check_in_lanes(&graph.finish(&[("a", inputs)], &[("out", columns)]), inputs, columns);
    }
    // More before the product, and nothing.
    let finish = |writer: Writer| writer.finish(&[("a", 24)], &[("out", 13)]);
    let deep = Writer::new(1).node("Relu", &["a"], "r").gemm(("r", 24), None, ("b", 30));
    let deep = deep.node("Relu", &["b"], "c").gemm(("c", 30), None, ("out", 13));
    check_in_lanes(&finish(deep), 24, 13);
    check_in_lanes(&finish(Writer::new(1).gemm(("a", 24), None, ("out", 13))), 24, 13);
    // Of a part of what there is.
    for (part, dim) in [("one", 5), ("other", 19)] {
        let parts = Writer::new(2).widths("parts", &[5, 19]).node("Relu", &["a"], "r");
        let parts = parts.cut("r", "parts", &["one", "other"]).gemm((part, dim), None, ("out", 13));
        check_in_lanes(&finish(parts), 24, 13);
        let parts = Writer::new(2).widths("parts", &[5, 19]).cut("a", "parts", &["one", "other"]);
        let parts = parts.node("Relu", &[part], "r").gemm(("r", dim), None, ("out", 13));
        check_in_lanes(&finish(parts), 24, 13);
    }
    // What ends in anything else stays as it is.
    let (a, out) = (tensors([("a", 24)]), tensors([("out", 24)]));
    let ends = Writer::new(1).node("Relu", &["a"], "out");
    let ends = read(&ends.finish(&[("a", 24)], &[("out", 24)]), &a, &out).unwrap();
    let cut = Writer::new(1).widths("parts", &[5, 19]).gemm(("a", 24), None, ("b", 24));
    let cut = cut.cut("b", "parts", &["one", "out"]).finish(&[("a", 24)], &[("out", 19)]);
    let cut = read(&cut, &a, &tensors([("out", 19)])).unwrap();
    for program in [ends, cut, lstm_program(5)] {
        assert!(ProgramInLanes::new(program, &mut { MOST_NUMBERS }).is_err());
    }
}

#[test]
fn a_softmax_is_of_so_many_columns_each() {
    let graph = |writer: Writer| writer.finish(&[("a", 6)], &[("b", 6)]);
    let shaped = |there: u64, back: u64| {
        let there = Writer::new(1).widths("there", &[u64::MAX, there]);
        let grouped = there.widths("back", &[u64::MAX, back]).node("Reshape", &["a", "there"], "g");
        graph(grouped.softmax("g", "s").node("Reshape", &["s", "back"], "b"))
    };
    let (a, b) = (tensors([("a", 6)]), tensors([("b", 6)]));
    let mut program = read(&shaped(3, 6), &a, &b).unwrap();
    let rows = TILE + 1;
    let values = normals(rows * 6);
    let found = run(&mut program, rows, &[&values]);
    for (logits, found) in values.chunks(3).zip(found[0].chunks(3)) {
        let exponentials: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp()).collect();
        let sum: f64 = exponentials.iter().sum();
        let near = |(found, exact): (&f32, f64)| (f64::from(*found) - exact / sum).abs() < 3e-7;
        assert!(found.iter().zip(exponentials).all(near), "{logits:?}: {found:?}");
    }
    let broken = run(&mut program, 1, &[&[f32::NAN, 1.0, 2.0, 1e30, -1e30, f32::NEG_INFINITY]]);
    assert!(broken[0][..3].iter().all(|value| value.is_nan()));
    assert_eq!(broken[0][3..], [1.0, 0.0, 0.0]);
    // Another number of columns, none, too many; not as many as before.
    assert!([4, 0, u64::MAX, 12].iter().all(|&there| read(&shaped(there, 6), &a, &b).is_none()));
    assert!([3, 12].iter().all(|&back| read(&shaped(3, back), &a, &b).is_none()));
    // What is in groups is not added up, and is no output.
    let grouped = || Writer::new(1).widths("w", &[u64::MAX, 3]).node("Reshape", &["a", "w"], "g");
    assert!(read(&graph(grouped().node("Relu", &["g"], "b")), &a, &b).is_none());
    assert!(read(&graph(grouped().softmax("g", "b")), &a, &b).is_none());
    assert!(read(&graph(Writer::new(1).softmax("a", "b")), &a, &b).is_none());
}

#[test]
fn what_is_not_known_is_left_to_onnx_runtime() {
    let is_read =
        |model: &[u8], outputs: &[Tensor]| read(model, &tensors([("a", 6)]), outputs).is_some();
    let b = tensors([("b", 5)]);
    assert!(is_read(&graphs::dense(1, ("a", 6), ("b", 5)), &b));
    // Other widths and names.
    assert!(!is_read(&graphs::dense(1, ("a", 6), ("b", 4)), &b));
    assert!(!is_read(&graphs::dense(1, ("a", 6), ("c", 5)), &b));
    assert!(!is_read(&graphs::dense(1, ("x", 6), ("b", 5)), &b));
    // Other operators, values that there are not, names given twice.
    let of = |writer: Writer| writer.finish(&[("a", 6)], &[("b", 6)]);
    let six = tensors([("b", 6)]);
    assert!(is_read(&of(Writer::new(1).node("Relu", &["a"], "b")), &six));
    assert!(!is_read(&of(Writer::new(1).node("Softmax", &["a"], "b")), &six));
    assert!(!is_read(&of(Writer::new(1).node("Relu", &["none"], "b")), &six));
    assert!(!is_read(&of(Writer::new(1).node("Add", &["a"], "b")), &six));
    let twice = Writer::new(1).node("Relu", &["a"], "b").node("Tanh", &["a"], "b");
    assert!(!is_read(&of(twice), &six));
    let cut =
        |widths: &[u64]| of(Writer::new(1).widths("cut", widths).cut("a", "cut", &["b", "c"]));
    assert!(!is_read(&cut(&[6, 0]), &six) && !is_read(&cut(&[7, u64::MAX]), &six));
    assert!(!is_read(b"", &six) && !is_read(&[0x3a, 0xff], &six));
    // Any damage is refused or read as something else, never a panic.
    let whole = graphs::lstm(1, 3, 6);
    let inputs = tensors([("x", 12), ("h", 3), ("c", 3)]);
    let outputs = tensors([("heads", 6), ("h_next", 3), ("c_next", 3)]);
    assert!(read(&whole, &inputs, &outputs).is_some());
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        if let Some(mut program) = read(&damaged, &inputs, &outputs) {
            run(&mut program, 3, &[&normals(36), &normals(9), &normals(9)]);
        }
        assert!(read(&whole[..at], &inputs, &outputs).is_none());
    }
}

/// Numbers that a program holds.
fn numbers(program: &Program) -> usize {
    let matrices = program.steps.iter().filter_map(|step| match &step.operation {
        Operation::Gemm(_, matrix, _) => Some((Arc::as_ptr(matrix), matrix.len())),
        _ => None,
    });
    let matrices: std::collections::HashMap<_, _> = matrices.collect();
    let buffers: usize = program.buffers.iter().map(|buffer| buffer.values.len()).sum();
    buffers + matrices.values().sum::<usize>()
}

#[test]
fn a_graph_holds_no_more_than_the_budget() {
    let (inputs, outputs) = (tensors([("0", 96)]), tensors([("out", 96)]));
    // One matrix in thousands of nodes, each onto the last.
    let chain = |nodes: usize| {
        let mut writer = Writer::new(1).gemm(("0", 96), None, ("1", 96));
        for node in 1..nodes {
            let (a, b) = (node.to_string(), (node + 1).to_string());
            writer = writer.node("Gemm", &[&a, "weights of 1"], &b);
        }
        let last = nodes.to_string();
        writer.node("Identity", &[&last], "out").finish(&[("0", 96)], &[("out", 96)])
    };
    let mut budget = MOST_NUMBERS;
    let model = chain(5000);
    let mut program = Program::read(&model, &inputs, &outputs, &mut budget).unwrap();
    assert_eq!(program.steps.len(), 5000);
    assert_eq!(numbers(&program), 96 * 96 + 5001 * TILE * 96);
    assert_eq!(budget, MOST_NUMBERS - numbers(&program));
    // They compute with it.
    let rows = normals(96);
    let mut short = read(&chain(2), &inputs, &outputs).unwrap();
    let once = run(&mut short, 1, &[&rows]);
    assert!(once[0].iter().all(|x| x.is_finite() && *x != 0.0));
    assert_eq!(run(&mut program, 1, &[&rows])[0].len(), 96);
    // All graphs of a bundle have one budget, and what is not read costs nothing.
    let before = budget;
    assert!(Program::read(&model, &inputs, &outputs, &mut { MOST_NUMBERS / 8 }).is_none());
    for _ in 0..MOST_NUMBERS / (MOST_NUMBERS - before) {
        _ = Program::read(&model, &inputs, &outputs, &mut budget);
    }
    let left = budget;
    assert!(left < MOST_NUMBERS - before);
    assert!(Program::read(&model, &inputs, &outputs, &mut budget).is_none());
    assert_eq!(budget, left);
    // A value of one column takes as many as one of sixteen, and widths double in no bytes.
    let narrow = |nodes: usize| {
        let mut writer = Writer::new(1);
        for node in 0..nodes {
            writer = writer.node("Relu", &["a"], &node.to_string());
        }
        writer.node("Identity", &["0"], "b").finish(&[("a", 1)], &[("b", 1)])
    };
    let one = |name| tensors([(name, 1)]);
    let most = MOST_NUMBERS / (TILE * 16) - 1;
    assert!(read(&narrow(1000), &one("a"), &one("b")).is_some());
    assert!(read(&narrow(most + 1), &one("a"), &one("b")).is_none());
    let mut writer = Writer::new(1);
    for node in 0..60 {
        let a = node.to_string();
        writer = writer.join(&[&a, &a], &(node + 1).to_string());
    }
    let doubled = writer.node("Identity", &["0"], "b").finish(&[("0", 1)], &[("b", 1)]);
    assert!(read(&doubled, &one("0"), &one("b")).is_none());
}
