//! Round trips of every encoder: decode(encode(x)) is x, or as near as stated.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::layout::Layout;

/// Encodes a column, folds each row, and decodes it again.
fn round_trip(codec: &Codec, column: &Column) -> Vec<Value> {
    codec.validate().expect("valid codec");
    let layout = Layout { segments: codec.segments() };
    // A stride and an offset, as in a record with other fields around.
    let (stride, offset) = (layout.dim() + 3, 2);
    let mut encoded = vec![f32::NAN; stride * column.len()];
    codec.encode(column, &mut encoded, stride, offset).expect("encodable");
    let mut folded = vec![0.0; layout.folded_dim()];
    encoded
        .chunks_exact(stride)
        .map(|row| {
            layout.fold(&row[offset..offset + layout.dim()], &mut folded);
            codec.decode(&folded)
        })
        .collect()
}

fn json_round_trip(codec: &Codec) {
    let json = serde_json::to_string(codec).expect("serializable");
    let back: Codec = serde_json::from_str(&json).expect("readable");
    assert_eq!(serde_json::to_string(&back).expect("serializable"), json);
}

proptest! {
    #[test]
    fn bits_are_exact(bits in 1_u8..=63, raw in prop::collection::vec(any::<i64>(), 1..20)) {
        let mask = i64::MAX >> (63 - bits);
        let column = Column::ints("n", raw.iter().map(|value| value & mask).collect());
        let codec = Codec::Bit(BitCodec::new("n", bits).unwrap());
        let expected: Vec<Value> = (0..column.len()).map(|row| column.value(row)).collect();
        prop_assert_eq!(round_trip(&codec, &column), expected);
        json_round_trip(&codec);
    }

    #[test]
    fn categories_are_exact(cells in prop::collection::vec(0_i64..9, 1..40)) {
        let column = Column::ints("n", cells);
        let codec = Codec::Categorical(CategoricalCodec::fit(&column, None).unwrap());
        let expected: Vec<Value> = (0..column.len()).map(|row| column.value(row)).collect();
        prop_assert_eq!(round_trip(&codec, &column), expected);
        json_round_trip(&codec);
    }

    #[test]
    fn text_categories_are_exact(cells in prop::collection::vec("[a-c]{1,2}", 1..40)) {
        let column = Column::texts("t", &cells);
        let codec = Codec::Categorical(CategoricalCodec::fit(&column, None).unwrap());
        for (value, cell) in round_trip(&codec, &column).into_iter().zip(&cells) {
            let Value::Text(index) = value else { panic!("{value:?}") };
            prop_assert_eq!(codec.word(index), cell);
        }
    }

    /// The error is that of an f32 on the scaled axis, two units in the last place.
    #[test]
    fn floats_come_back_within_f32(
        cells in prop::collection::vec(-1e6_f64..1e6, 1..40), minus_one: bool
    ) {
        let column = Column::floats("x", cells.clone());
        let range = if minus_one { Range::MinusOneOne } else { Range::ZeroOne };
        let options = FloatOptions { range, ..FloatOptions::default() };
        let float = FloatCodec::fit(&column, options).unwrap();
        let (min, max) = float.bounds();
        for (value, cell) in round_trip(&Codec::Float(float), &column).into_iter().zip(cells) {
            let error = (value.as_f64().unwrap() - cell).abs();
            prop_assert!(error <= (max - min) * 2.4e-7, "{value:?} for {cell}");
        }
    }

    #[test]
    fn log_floats_come_back_relatively(cells in prop::collection::vec(0_f64..1e9, 1..40)) {
        let column = Column::floats("x", cells.clone());
        let options = FloatOptions { log1p: true, ..FloatOptions::default() };
        let codec = Codec::Float(FloatCodec::fit(&column, options).unwrap());
        for (value, cell) in round_trip(&codec, &column).into_iter().zip(cells) {
            let error = (value.as_f64().unwrap() - cell).abs();
            prop_assert!(error <= (1.0 + cell) * 5e-6, "{value:?} for {cell}");
        }
        json_round_trip(&codec);
    }

    /// A generator may emit anything; every output is some value in range.
    #[test]
    fn any_output_decodes_in_range(output in prop::collection::vec(any::<f32>(), 4)) {
        let column = Column::ints("n", vec![3, 9, 27, 81]);
        let float = FloatOptions { integer: true, ..FloatOptions::default() };
        let float = Codec::Float(FloatCodec::fit(&column, float).unwrap());
        let value = float.decode(&output[..1]).as_i64().unwrap();
        prop_assert!((3..=81).contains(&value));
        let categorical = Codec::Categorical(CategoricalCodec::fit(&column, None).unwrap());
        prop_assert!(matches!(categorical.decode(&output), Value::Int(3 | 9 | 27 | 81)));
        let bits = Codec::Bit(BitCodec::new("n", 4).unwrap());
        prop_assert!((0..16).contains(&bits.decode(&output).as_i64().unwrap()));
    }
}

#[test]
fn a_quantity_in_bits_stays_within_what_was_seen() {
    let lengths = Column::ints("len", vec![40, 52, 1500]);
    let codec = Codec::Bit(BitCodec::fit(&lengths, None).unwrap());
    assert_eq!(codec.segments().len(), 11);
    assert_eq!(round_trip(&codec, &lengths), [Value::Int(40), Value::Int(52), Value::Int(1500)]);
    assert_eq!(codec.decode(&[1.0; 11]), Value::Int(1500));
    assert_eq!(codec.decode(&[0.0; 11]), Value::Int(40));
    let zeros = Column::ints("off", vec![0, 0]);
    let codec = Codec::Bit(BitCodec::fit(&zeros, None).unwrap());
    assert_eq!(codec.decode(&[1.0]), Value::Int(0));
    json_round_trip(&codec);
}

#[test]
fn a_constant_column_decodes_to_its_constant() {
    for log1p in [false, true] {
        let column = Column::floats("x", vec![64.0; 5]);
        let options = FloatOptions { log1p, ..FloatOptions::default() };
        let codec = Codec::Float(FloatCodec::fit(&column, options).unwrap());
        assert_eq!(round_trip(&codec, &column), vec![Value::Float(64.0); 5]);
    }
    let column = Column::texts("t", ["tcp"; 4]);
    let codec = Codec::Categorical(CategoricalCodec::fit(&column, None).unwrap());
    assert_eq!(round_trip(&codec, &column), vec![Value::Text(0); 4]);
}

#[test]
fn words_come_back_and_like_company_makes_like_vectors() {
    // Ports 1..=20 go with tcp, 21..=40 with udp.
    let ports: Vec<i64> = (0..4000).map(|row| 1 + row % 40).collect();
    let protos: Vec<&str> = ports.iter().map(|&p| if p <= 20 { "tcp" } else { "udp" }).collect();
    let (ports, protos) = (Column::ints("port", ports), Column::texts("proto", protos));
    let options = Word2VecOptions { dim: 10, seed: 1 };
    let columns = [("port", &ports), ("proto", &protos)];
    let spaces = Word2VecSpace::fit(&columns, options).unwrap();
    assert_eq!(spaces, Word2VecSpace::fit(&columns, options).unwrap(), "seeded");
    let codec = Codec::Word2vec(Word2VecCodec::new("port", Arc::clone(&spaces["port"])));
    let expected: Vec<Value> = (0..ports.len()).map(|row| ports.value(row)).collect();
    assert_eq!(round_trip(&codec, &ports), expected);
    let mut encoded = vec![0.0; 40 * 10];
    codec.encode(&Column::ints("port", (1..=40).collect()), &mut encoded, 10, 0).unwrap();
    let vector = |port: usize| &encoded[(port - 1) * 10..port * 10];
    let cosine =
        |a: usize, b: usize| -> f32 { vector(a).iter().zip(vector(b)).map(|(x, y)| x * y).sum() };
    assert!(cosine(3, 9) > cosine(3, 33) + 0.2, "{} {}", cosine(3, 9), cosine(3, 33));
}

#[test]
fn errors_name_column_row_and_value() {
    let error = |codec: Codec, column: &Column| {
        let dim: usize = codec.segments().iter().map(|segment| segment.dim).sum();
        let mut out = vec![0.0; dim * column.len()];
        codec.encode(column, &mut out, dim, 0).unwrap_err().to_string()
    };
    let ports = Column::ints("src_port", vec![80, 70_000]);
    assert_eq!(
        error(Codec::Bit(BitCodec::new("src_port", 16).unwrap()), &ports),
        "column `src_port`, row 2: value `70000` exceeds 16 bits"
    );
    let choices = [Choice::Int(80), Choice::Int(443)];
    let codec = CategoricalCodec::fit(&ports, Some(&choices)).unwrap();
    assert_eq!(
        error(Codec::Categorical(codec), &ports),
        "column `src_port`, row 2: value `70000` is not among the 2 choices"
    );
    let twice = CategoricalCodec::fit(&ports, Some(&[Choice::Int(80), Choice::Int(80)]));
    assert_eq!(twice.unwrap_err().to_string(), "column `src_port`: choice `80` is listed twice");
    let text = FloatCodec::fit(&Column::texts("td", ["-"]), FloatOptions::default());
    assert_eq!(text.unwrap_err().to_string(), "column `td`: expected numbers, found text `-`");
}
