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

/// Fits by the name that a configuration uses.
fn fitted(encoding: &str, column: &Column, options: FitOptions<'_>) -> Codec {
    let codec = Codec::fit(encoding, column, options).expect("fits");
    json_round_trip(&codec);
    codec
}

fn values(column: &Column) -> Vec<Value> {
    (0..column.len()).map(|row| column.value(row)).collect()
}

proptest! {
    #[test]
    fn wide_bits_and_octets_are_exact(cells in prop::collection::vec(any::<u128>(), 1..20)) {
        let column = Column::new("ip", crate::ColumnData::Wide(cells));
        for encoding in ["bit", "octets"] {
            let codec = fitted(encoding, &column, FitOptions::default());
            prop_assert_eq!(round_trip(&codec, &column), values(&column));
        }
    }

    #[test]
    fn octets_of_small_numbers_are_exact(cells in prop::collection::vec(0_i64..1 << 24, 1..50)) {
        let column = Column::ints("n", cells);
        let options = FitOptions { n_bits: Some(24), ..FitOptions::default() };
        prop_assert_eq!(round_trip(&fitted("octets", &column, options), &column), values(&column));
    }

    /// Frequent whole numbers come back exactly, others as an f32 resolves their piece.
    #[test]
    fn quantiles_of_whole_numbers_come_back(
        rare in prop::collection::vec(-50_000_i64..1_000_000, 1..300), minus_one: bool
    ) {
        let mut cells = rare;
        cells.extend([40; 200]);
        cells.extend([1500; 90]);
        let column = Column::ints("len", cells);
        let range = if minus_one { Range::MinusOneOne } else { Range::ZeroOne };
        let options = FitOptions { range, integer: true, ..FitOptions::default() };
        let codec = fitted("quantile", &column, options);
        for (value, cell) in round_trip(&codec, &column).into_iter().zip(values(&column)) {
            let error = value.as_i64().unwrap().abs_diff(cell.as_i64().unwrap());
            let frequent = matches!(cell, Value::Int(40 | 1500));
            prop_assert!(error <= if frequent { 0 } else { 200 }, "{value:?} for {cell:?}");
        }
    }

    #[test]
    fn quantiles_of_real_numbers_come_back_nearly(
        cells in prop::collection::vec(0.0_f64..1e12, 1..2_000)
    ) {
        let column = Column::floats("x", cells.clone());
        for encoding in ["quantile", "log_quantile"] {
            let codec = fitted(encoding, &column, FitOptions::default());
            for (value, cell) in round_trip(&codec, &column).into_iter().zip(&cells) {
                let error = (value.as_f64().unwrap() - cell).abs();
                prop_assert!(error <= 1e-3 * (1.0 + cell), "{encoding}: {value:?} for {cell}");
            }
        }
    }

    #[test]
    fn any_output_of_a_quantile_was_possible(
        cells in prop::collection::vec(-1e9_f64..1e9, 1..200), output: f32
    ) {
        let (least, most) = cells.iter().fold((f64::MAX, f64::MIN), |(a, b), &c| (a.min(c), b.max(c)));
        let codec = fitted("quantile", &Column::floats("x", cells), FitOptions::default());
        let value = codec.decode(&[output]).as_f64().unwrap();
        prop_assert!((least..=most).contains(&value));
    }

    #[test]
    fn frequent_and_rare_values_are_exact(
        rare in prop::collection::vec(0_i64..1 << 32, 0..60), k in 1_usize..6
    ) {
        let mut cells = rare;
        for (value, count) in [(80, 30), (443, 20), (53, 10)] {
            cells.extend(vec![value; count]);
        }
        let column = Column::ints("ip", cells);
        for fallback in ["bit", "octets", "quantile"] {
            let options = FitOptions {
                k: Some(k), fallback: Some(fallback), integer: true, ..FitOptions::default()
            };
            let codec = fitted("topk", &column, options);
            prop_assert_eq!(round_trip(&codec, &column), values(&column), "{}", fallback);
        }
    }

    #[test]
    fn missing_values_come_back_missing(cells in prop::collection::vec(any::<Option<u16>>(), 1..60)) {
        let missing: Vec<bool> = cells.iter().map(Option::is_none).collect();
        prop_assume!(missing.contains(&false));
        let numbers = cells.iter().map(|cell| cell.map_or(7, i64::from)).collect();
        let column = Column { missing, ..Column::ints("rtt", numbers) };
        for inner in ["bit", "float", "quantile", "topk"] {
            let options = FitOptions { integer: true, fallback: Some(inner), ..FitOptions::default() };
            let codec = if inner == "topk" {
                let options = FitOptions { fallback: Some("bit"), ..options };
                fitted("topk", &column, options)
            } else {
                fitted("optional", &column, options)
            };
            prop_assert!(codec.takes_missing() || !column.has_missing());
            prop_assert_eq!(round_trip(&codec, &column), values(&column), "{}", inner);
        }
        let codec = fitted("categorical", &column, FitOptions::default());
        prop_assert_eq!(round_trip(&codec, &column), values(&column));
    }
}

#[test]
fn a_frequent_length_is_hit_by_a_range_of_outputs() {
    let mut lengths = vec![40; 420];
    lengths.extend((0..500).map(|i| 41 + i));
    lengths.extend([1500; 80]);
    let codec = fitted(
        "quantile",
        &Column::ints("pkt_len", lengths),
        FitOptions { integer: true, ..FitOptions::default() },
    );
    for output in [0.0, 0.1, 0.3, 0.41] {
        assert_eq!(codec.decode(&[output]), Value::Int(40), "{output}");
    }
    for output in [0.93, 0.97, 1.0, 2.0] {
        assert_eq!(codec.decode(&[output]), Value::Int(1500), "{output}");
    }
    assert_eq!(codec.decode(&[f32::NAN]), Value::Int(40));
}

#[test]
fn text_has_frequent_words_and_a_vocabulary_for_the_rest() {
    let words: Vec<String> =
        (0..400).map(|i| format!("host{}", if i < 300 { i % 3 } else { i })).collect();
    let column = Column::texts("query", &words);
    let spaces =
        Word2VecSpace::fit(&[("query", &column)], Word2VecOptions { dim: 4, seed: 1 }).unwrap();
    let options = FitOptions {
        k: Some(2),
        fallback: Some("word2vec_query"),
        spaces: Some(&spaces),
        ..FitOptions::default()
    };
    let codec = Codec::fit("topk", &column, options).unwrap();
    for (value, word) in round_trip(&codec, &column).into_iter().zip(&words) {
        let Value::Text(index) = value else { panic!("{value:?}") };
        assert_eq!(codec.word(index), word);
    }
    let error = Codec::fit("topk", &column, FitOptions { k: Some(2), ..FitOptions::default() });
    assert!(error.unwrap_err().to_string().contains("needs `fallback`"));
}

#[test]
fn bits_beside_frequent_values_say_what_was_never_seen() {
    let seen = Column::ints("ip", vec![10, 10, 11, 11, 12]);
    let options =
        |fallback| FitOptions { k: Some(64), fallback, n_bits: Some(32), ..FitOptions::default() };
    let codec = fitted("topk", &seen, options(Some("bit")));
    // 12 was seen once.
    assert!(codec.describe().starts_with("topk 2, else"), "{}", codec.describe());
    let given = Column::ints("ip", vec![12, 10, 3_232_235_777]);
    assert_eq!(round_trip(&codec, &given), values(&given));
    // Without any that was seen once, too.
    let codec = fitted("topk", &seen.pick(&[0, 1, 2, 3]), options(Some("bit")));
    assert_eq!(round_trip(&codec, &given), values(&given));
    let codec = fitted("topk", &seen, options(None));
    assert_eq!(codec.describe(), "topk all 3");
}

#[test]
fn the_most_frequent_are_kept_however_rare_they_are() {
    let column = Column::texts("device", (0..100).map(|device| format!("d{device}")));
    let spaces =
        Word2VecSpace::fit(&[("d", &column)], Word2VecOptions { dim: 4, seed: 1 }).unwrap();
    let options = FitOptions {
        k: Some(64),
        fallback: Some("word2vec_d"),
        spaces: Some(&spaces),
        ..FitOptions::default()
    };
    let codec = Codec::fit("topk", &column, options).unwrap();
    assert!(codec.describe().starts_with("topk 64, else"), "{}", codec.describe());
    let wide = FitOptions { n_bits: Some(136), ..FitOptions::default() };
    assert!(Codec::fit("octets", &Column::ints("n", vec![1]), wide).is_err());
}

#[test]
fn pretrained_vectors_are_taken_as_they_are() {
    let ports = Column::ints("port", vec![80, 443, 80]);
    let columns = [("port", &ports)];
    let spaces = Word2VecSpace::pretrained(&columns, "2 2\n80 3 4\n443 -1 0\n").unwrap();
    let codec = Codec::Word2vec(Word2VecCodec::new("port", Arc::clone(&spaces["port"])));
    let mut encoded = vec![0.0; 6];
    codec.encode(&ports, &mut encoded, 2, 0).unwrap();
    assert_eq!(encoded, [0.6, 0.8, -1.0, 0.0, 0.6, 0.8]);
    for (text, error) in [
        ("", "line 1: expected the number of words and of dimensions"),
        ("2 2\n80 3 4\n443 1", "line 3: expected a word and 2 numbers"),
        ("3 2\n80 3 4\n443 1 1", "line 1 promises 3 words, the file has 2"),
        ("1 2\n80 3 4", "no vector for value `443` of `word2vec_port`; fit without it"),
    ] {
        assert_eq!(Word2VecSpace::pretrained(&columns, text).unwrap_err(), error);
    }
}

#[test]
fn a_manifest_s_encoders_are_checked() {
    for json in [
        r#"{"encoding":"quantile","range":"ZERO_ONE","log1p":false,"integer":false,"pieces":[]}"#,
        r#"{"encoding":"quantile","range":"ZERO_ONE","log1p":false,"integer":false,"pieces":[[0.5,1,2]]}"#,
        r#"{"encoding":"quantile","range":"ZERO_ONE","log1p":false,"integer":false,"pieces":[[0.5,3,4],[1,1,2]]}"#,
        r#"{"encoding":"quantile","range":"ZERO_ONE","log1p":true,"integer":false,"pieces":[[1,-2,4]]}"#,
        r#"{"encoding":"quantile","range":"ZERO_ONE","log1p":false,"integer":true,"pieces":[[1,1.2,1.4]]}"#,
        r#"{"encoding":"topk","top":[1,1],"rest":null}"#,
        r#"{"encoding":"topk","top":[],"rest":null}"#,
        r#"{"encoding":"topk","top":[1],"rest":{"encoding":"topk","top":[2],"rest":null}}"#,
        r#"{"encoding":"octets","octets":[[1,2],[]]}"#,
        r#"{"encoding":"octets","octets":[]}"#,
        r#"{"encoding":"bit","n_bits":129}"#,
        r#"{"encoding":"optional","inner":{"encoding":"optional","inner":{"encoding":"bit","n_bits":3}}}"#,
        r#"{"encoding":"custom","name":"nobody's","state":null}"#,
    ] {
        let codec: Codec = serde_json::from_str(json).expect(json);
        assert!(codec.validate().is_err(), "{json}");
    }
}

/// A parity bit and the rest: what a program might register.
#[derive(Debug)]
struct Parity;

impl CustomEncoder for Parity {
    fn state(&self) -> serde_json::Value {
        serde_json::json!({})
    }
    fn segments(&self) -> Vec<Segment> {
        vec![Segment::new(2, Activation::Softmax)]
    }
    fn encode(&self, column: &Column, rows: &mut Rows<'_>) -> Result<(), CodecError> {
        for (row, out) in rows.enumerate() {
            let odd = column.value(row).as_i64().is_some_and(|value| value % 2 != 0);
            out.copy_from_slice(if odd { &[0.0, 1.0] } else { &[1.0, 0.0] });
        }
        Ok(())
    }
    fn decode(&self, folded: &[f32]) -> Value {
        Value::Int(i64::from(folded[0] > 0.5))
    }
    fn describe(&self) -> String {
        "of two".to_owned()
    }
}

struct ParityEncoding;

impl CustomEncoding for ParityEncoding {
    fn fit(
        &self,
        _column: &Column,
        _options: &FitOptions<'_>,
    ) -> Result<Arc<dyn CustomEncoder>, CodecError> {
        Ok(Arc::new(Parity))
    }
    fn read(&self, _state: &serde_json::Value) -> Result<Arc<dyn CustomEncoder>, String> {
        Ok(Arc::new(Parity))
    }
}

#[test]
fn a_program_s_own_encoding_is_found_by_its_name() {
    let column = Column::ints("n", vec![3, 8, 5]);
    assert!(Codec::fit("parity", &column, FitOptions::default()).is_err());
    register("parity", Arc::new(ParityEncoding)).unwrap();
    assert!(register("parity", Arc::new(ParityEncoding)).is_err());
    assert!(register("bit", Arc::new(ParityEncoding)).is_err());
    let codec = fitted("parity", &column, FitOptions::default());
    let mut read: Codec = serde_json::from_str(&serde_json::to_string(&codec).unwrap()).unwrap();
    assert!(read.validate().is_err(), "not linked yet");
    read.link(&WordSpaces::new()).unwrap();
    assert_eq!(round_trip(&read, &column), [Value::Int(1), Value::Int(0), Value::Int(1)]);
    assert_eq!(read.describe(), "parity of two");
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
