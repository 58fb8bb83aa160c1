//! Tokens exist, say the values that they were made of, and broken codecs are refused.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

/// Options of every kind, with few values and bins so that all cases come up.
fn options() -> impl Strategy<Value = TokenOptions> {
    let counts = (0_usize..12, 1_u64..4, 1_usize..9, 1_usize..5);
    (counts, any::<bool>(), any::<bool>(), prop::bool::ANY).prop_map(
        |((most_values, least_count, bins, parts), stands_out, log, edges)| TokenOptions {
            most_values,
            least_count,
            known: Vec::new(),
            stands_out,
            bins,
            edges: if edges { vec![-7.0, 0.0, 300.0] } else { Vec::new() },
            log,
            parts,
            skipped: Vec::new(),
            octets: None,
            integer: false,
        },
    )
}

fn tokens_of(codec: &TokensCodec, column: &Column) -> Vec<Vec<u32>> {
    let sizes = codec.sizes();
    let mut tokens = Vec::new();
    codec.tokens(column, &mut tokens).expect("encodable");
    tokens.chunks_exact(sizes.len()).map(<[u32]>::to_vec).collect()
}

/// Every row's tokens are below the sizes, through JSON too. Returns them.
fn checked(codec: &TokensCodec, column: &Column) -> Vec<Vec<u32>> {
    codec.validate().expect("valid");
    let json = serde_json::to_string(codec).expect("serializable");
    let back: TokensCodec = serde_json::from_str(&json).expect("readable");
    assert_eq!(back, *codec);
    let tokens = tokens_of(codec, column);
    assert_eq!(tokens.len(), column.len());
    let sizes = codec.sizes();
    for row in &tokens {
        assert!(row.iter().zip(&sizes).all(|(&token, &size)| (token as usize) < size), "{row:?}");
    }
    tokens
}

/// Places within a bin, the ends too.
const PLACES: [f64; 6] = [0.0, 0.124, 0.5, 0.876, 0.97, 1.0 - 1.0 / 16_777_216.0];

/// What any token says is said by that token, or by a value's own.
fn bins_say_what_is_in_them(codec: &TokensCodec) {
    for token in 0..codec.sizes()[0] as u32 {
        for within in PLACES {
            let value = codec.value(&[token], within);
            let Some(number) = value.as_f64() else {
                assert_eq!((value, token), (Value::Missing, codec.missing_token()));
                continue;
            };
            let again = codec.token_of(number);
            let own = token >= codec.own() && again < codec.own();
            assert!(again == token || own, "{codec:?}: {token} at {within}: {number}: {again}");
        }
    }
}

proptest! {
    #[test]
    fn whole_numbers_have_tokens_that_say_them(
        mut cells in prop::collection::vec(-400_i64..1_000_000, 1..200),
        frequent in prop::collection::vec(-400_i64..1500, 0..6),
        options in options(),
    ) {
        cells.extend(frequent.iter().flat_map(|&value| [value; 9]));
        let column = Column::ints("n", cells);
        let codec = TokensCodec::fit_with(&column, &TokenOptions { integer: true, ..options }).unwrap();
        for (row, tokens) in checked(&codec, &column).iter().enumerate() {
            if tokens[0] < codec.own() {
                prop_assert_eq!(codec.value(tokens, 0.7), column.value(row));
            }
        }
        let (least, most) = codec.bounds().unwrap();
        for token in 0..codec.sizes()[0] as u32 {
            let number = codec.value(&[token], PLACES[5]).as_f64().unwrap();
            prop_assert!((least..=most).contains(&number), "{number}");
        }
        bins_say_what_is_in_them(&codec);
    }

    #[test]
    fn real_numbers_have_tokens_that_say_them(
        mut cells in prop::collection::vec(-1e3_f64..1e9, 1..200),
        frequent in prop::collection::vec(0.0_f64..1e3, 0..4),
        options in options(),
    ) {
        cells.extend(frequent.iter().flat_map(|&value| [value; 9]));
        let column = Column::floats("x", cells);
        let codec = TokensCodec::fit_with(&column, &options).unwrap();
        for (row, tokens) in checked(&codec, &column).iter().enumerate() {
            if tokens[0] < codec.own() {
                prop_assert_eq!(codec.value(tokens, 0.7), column.value(row));
            }
        }
        bins_say_what_is_in_them(&codec);
    }

    #[test]
    fn missing_numbers_have_a_token(
        cells in prop::collection::vec(any::<Option<u16>>(), 1..60), options in options()
    ) {
        let missing: Vec<bool> = cells.iter().map(Option::is_none).collect();
        prop_assume!(missing.contains(&false));
        let numbers = cells.iter().map(|cell| cell.map_or(7, i64::from)).collect();
        let column = Column { missing, ..Column::ints("rtt", numbers) };
        let codec = TokensCodec::fit_with(&column, &TokenOptions { integer: true, ..options }).unwrap();
        for (tokens, cell) in checked(&codec, &column).iter().zip(&cells) {
            prop_assert_eq!(codec.value(tokens, 0.5) == Value::Missing, cell.is_none());
        }
        bins_say_what_is_in_them(&codec);
    }

    #[test]
    fn texts_have_tokens_that_say_them_or_others_of_their_bin(
        cells in prop::collection::vec(prop::option::weighted(0.9, "[a-d]{0,3}"), 1..200),
        options in options(),
    ) {
        let missing: Vec<bool> = cells.iter().map(Option::is_none).collect();
        let words: Vec<String> = cells.iter().map(|cell| cell.clone().unwrap_or_default()).collect();
        let column = Column { missing, ..Column::texts("t", &words) };
        let codec = TokensCodec::fit_with(&column, &options).unwrap();
        for (tokens, cell) in checked(&codec, &column).iter().zip(&cells) {
            let word = |within: f64| match codec.value(tokens, within) {
                Value::Text(index) => Some(codec.word(index)),
                value => { assert_eq!(value, Value::Missing); None }
            };
            if tokens[0] < codec.own() {
                prop_assert_eq!(word(0.5), cell.as_deref());
            }
            for within in PLACES {
                let again = match word(within) {
                    Some(word) => Column::texts("t", [word]),
                    None => Column { missing: vec![true], ..Column::texts("t", [""]) },
                };
                prop_assert_eq!(&tokens_of(&codec, &again)[0], tokens);
            }
        }
    }

    #[test]
    fn addresses_come_back_from_their_octets(
        mut rare in prop::collection::vec(any::<u32>(), 1..40), frequent: u32
    ) {
        rare.extend([frequent; 3]);
        let column = Column::ints("srcip", rare.into_iter().map(i64::from).collect());
        let options = TokenOptions { octets: Some(4), least_count: 2, ..TokenOptions::default() };
        let codec = TokensCodec::fit_with(&column, &options).unwrap();
        for (row, tokens) in checked(&codec, &column).iter().enumerate() {
            prop_assert_eq!(tokens.len(), codec.sizes().len());
            prop_assert_eq!(codec.value(tokens, 0.5), column.value(row));
        }
    }

    #[test]
    fn ipv6_addresses_come_back_from_their_octets(
        mut rare in prop::collection::vec(any::<u128>(), 1..40), frequent: u128
    ) {
        rare.extend([frequent; 3]);
        let column = Column::new("srcip", ColumnData::Wide(rare));
        let options = TokenOptions { octets: Some(16), least_count: 2, ..TokenOptions::default() };
        let codec = TokensCodec::fit_with(&column, &options).unwrap();
        prop_assert!(codec.own() >= 1);
        for (row, tokens) in checked(&codec, &column).iter().enumerate() {
            prop_assert_eq!(codec.value(tokens, 0.5), column.value(row));
        }
    }

    #[test]
    fn counts_have_tokens_that_say_them(most in 1_u64..1_000_000, count in 1_u64..1_000_000) {
        let codec = TokensCodec::of_counts(most);
        codec.validate().expect("valid");
        let token = codec.token_of(count.min(most) as f64);
        prop_assert!((token as usize) < codec.sizes()[0]);
        if count.min(most) <= 16 {
            prop_assert_eq!(codec.value(&[token], 0.5), Value::Int(count.min(most) as i64));
        }
        bins_say_what_is_in_them(&codec);
    }

    #[test]
    fn numbers_to_skip_come_out_of_no_bin_and_all_others_do(
        cells in prop::collection::vec(0_i64..400, 4..120), frequent in 0_i64..400, few: bool
    ) {
        // Neighbours that are frequent, too: a bin may be all tokens.
        let cells: Vec<i64> = cells.into_iter().map(|n| if few { n % 12 } else { n }).collect();
        let column = Column::ints("port", [cells.clone(), vec![frequent; 9]].concat());
        let mut skipped = cells.clone();
        skipped.sort_unstable();
        skipped.dedup();
        let options =
            TokenOptions { bins: 4, parts: 1, stands_out: !few, skipped, ..TokenOptions::default() };
        let codec = TokensCodec::fit_with(&column, &options).unwrap();
        checked(&codec, &column);
        bins_say_what_is_in_them(&codec);
        let Rest::Bins(Bins { edges, skipped: found, .. }) = &codec.rest else { return Ok(()) };
        for (bin, pair) in edges.windows(2).enumerate() {
            let mut others: Vec<i64> = (pair[0] as i64..pair[1] as i64).collect();
            let named = |n: &i64| codec.is_exact(codec.token_of(*n as f64));
            let to_skip = |n: &i64| options.skipped.contains(n) || named(n);
            let rows = cells.iter().filter(|n| others.contains(n) && !named(n)).count();
            let left = others.iter().filter(|n| !to_skip(n)).count();
            if left > 0 && 2 * left >= rows {
                others.retain(|n| !to_skip(n));
            }
            prop_assert!(!others.iter().any(|n| found.contains(n)));
            let places = 8 * others.len();
            let mut said: Vec<Value> = (0..places)
                .map(|place| codec.value(&[codec.own() + bin as u32], place as f64 / places as f64))
                .collect();
            said.dedup();
            prop_assert_eq!(said, others.into_iter().map(Value::Int).collect::<Vec<_>>());
        }
    }

    /// Networks may say any token, JSON any codec that is checked.
    #[test]
    fn changed_codecs_are_refused_or_say_something(
        which in 0_usize..6, place: prop::sample::Index, change in changes(), token: u16
    ) {
        let mut json = serde_json::to_value(&examples()[which]).unwrap();
        let mut places = Vec::new();
        places_of(&json, &mut String::new(), &mut places);
        let place = place.get(&places);
        let found = json.pointer_mut(place).expect("a place");
        *found = match change {
            Json::Null => Json::Null,
            Json::Array(_) if found.is_array() => json!([]),
            change => change,
        };
        let Ok(codec) = serde_json::from_value::<TokensCodec>(json) else { return Ok(()) };
        if codec.validate().is_err() {
            return Ok(());
        }
        let sizes = codec.sizes();
        let mut tokens = vec![u32::from(token) % 300; sizes.len()];
        for within in PLACES {
            if let Value::Text(index) = codec.value(&tokens, within) {
                prop_assert!(codec.choices().is_none_or(|all| (index as usize) < all.len()));
            }
        }
        tokens[0] = u32::MAX;
        let _ = codec.value(&tokens, 0.5);
        // What it takes it encodes within its sizes.
        for column in [
            Column::ints("n", vec![-5, 3, 443, 1 << 40]),
            Column::floats("n", vec![-5.5, 3.25]),
            Column::texts("n", ["a", "b", "zz", "c9"]),
            Column::new("n", ColumnData::Wide(vec![1, u128::MAX])),
        ] {
            for row in 0..column.len() {
                let mut tokens = Vec::new();
                if codec.tokens(&column.pick(&[row]), &mut tokens).is_ok() {
                    let fits = tokens.iter().zip(&sizes).all(|(&t, &size)| (t as usize) < size);
                    prop_assert!(fits, "{codec:?}: {column:?} to {tokens:?}, sizes {sizes:?}");
                }
            }
        }
    }
}

fn changes() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        Just(json!([])),
        Just(json!("none")),
        any::<bool>().prop_map(Json::from),
        (-3_i64..300).prop_map(Json::from),
        prop_oneof![Just(1e308), Just(-1e308), Just(4_294_967_295.0), -9.0..999.0]
            .prop_map(Json::from),
        any::<u32>().prop_map(Json::from),
    ]
}

/// Pointers to all values of a document.
fn places_of(json: &Json, path: &mut String, places: &mut Vec<String>) {
    places.push(path.clone());
    let children: Vec<(String, &Json)> = match json {
        Json::Array(all) => all.iter().enumerate().map(|(at, one)| (at.to_string(), one)).collect(),
        Json::Object(all) => all.iter().map(|(name, one)| (name.clone(), one)).collect(),
        _ => Vec::new(),
    };
    for (name, child) in children {
        let length = path.len();
        path.push('/');
        path.push_str(&name);
        places_of(child, path, places);
        path.truncate(length);
    }
}

/// A codec of every kind.
fn examples() -> [TokensCodec; 6] {
    let fit = |column: &Column, options: TokenOptions| {
        TokensCodec::fit_with(column, &options).expect("fits")
    };
    let few =
        TokenOptions { most_values: 3, least_count: 2, bins: 4, parts: 3, ..Default::default() };
    let numbers: Vec<i64> = (0..60).map(|n| if n % 3 == 0 { 443 } else { n * n }).collect();
    let missing = (0..60).map(|n| n == 7).collect();
    let words: Vec<String> = (0..40).map(|n| format!("c{}", n % 20)).collect();
    let wide = (0..30_u128).map(|n| if n < 9 { 1 } else { n << 70 }).collect();
    [
        fit(
            &Column { missing, ..Column::ints("n", numbers.clone()) },
            TokenOptions { log: true, ..few.clone() },
        ),
        fit(&Column::ints("n", numbers), TokenOptions { octets: Some(4), ..few.clone() }),
        fit(&Column::texts("t", &words), few.clone()),
        fit(
            &Column::new("ip", ColumnData::Wide(wide)),
            TokenOptions { octets: Some(16), ..few.clone() },
        ),
        fit(&Column::ints("n", vec![1, 2, 3, 1, 2, 3]), few.clone()),
        fit(
            &Column::ints("n", (0..60).map(|n| n * n).collect()),
            TokenOptions { skipped: (0..60).map(|n| n * n).collect(), parts: 1, ..few },
        ),
    ]
}

#[test]
fn known_values_have_tokens_however_rare() {
    let options =
        |known: Vec<Choice>| TokenOptions { known, octets: Some(4), ..Default::default() };
    let numbers = Column::ints("n", vec![5, 5, 5, 7, 9, 9]);
    let known = options(vec![Choice::Int(7), Choice::Int(8)]);
    let codec = TokensCodec::fit_with(&numbers, &known).expect("fits");
    let exact = [5, 7, 8, 9].map(|n| codec.is_exact(codec.token_of(f64::from(n))));
    // What is not there has none either.
    assert_eq!(exact, [true, true, false, false]);
    let words = Column::texts("t", ["a", "a", "a", "b", "c"].map(str::to_owned));
    let few = TokenOptions { bins: 1, octets: None, ..options(vec![Choice::Text("c".to_owned())]) };
    let codec = TokensCodec::fit_with(&words, &few).expect("fits");
    let mut tokens = Vec::new();
    codec.tokens(&words, &mut tokens).expect("tokens");
    assert_eq!(
        tokens.iter().map(|&t| codec.is_exact(t)).collect::<Vec<_>>(),
        [true, true, true, false, true]
    );
}

#[test]
fn broken_codecs_are_refused() {
    let refused = |example: usize, pointer: &str, change: Json, reason: &str| {
        let mut json = serde_json::to_value(&examples()[example]).unwrap();
        *json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} of {example}")) = change;
        let codec: TokensCodec = serde_json::from_value(json).expect("readable");
        let found = codec.validate().expect_err(pointer);
        assert!(found.contains(reason), "{pointer}: {found}");
    };
    refused(0, "/values/numbers", json!([5.0, 4.0]), "not in ascending order");
    refused(0, "/values/numbers", json!([4.0, 4.0]), "not in ascending order");
    refused(0, "/rest/bins/edges", json!([]), "not in ascending order");
    refused(0, "/rest/bins/edges", json!([1.0]), "not in ascending order");
    refused(0, "/rest/bins/edges", json!([1.0, 3.0, 2.0]), "not in ascending order");
    refused(0, "/rest/bins/inner/0", json!(-1e9), "cut outside");
    refused(0, "/rest/bins/inner", json!([1.0]), "cut outside");
    refused(0, "/rest", json!({"seen": [0]}), "another type");
    refused(5, "/rest/bins/skipped", json!([4, 1]), "are skipped");
    refused(5, "/rest/bins/skipped", json!([-1]), "are skipped");
    refused(5, "/rest/bins/skipped", json!((0..3481).collect::<Vec<i64>>()), "are skipped");
    refused(5, "/rest/bins/log", json!(true), "are skipped");
    refused(5, "/integer", json!(false), "are skipped");
    refused(1, "/rest/octets", json!(0), "0 octets");
    refused(1, "/rest/octets", json!(17), "17 octets");
    refused(2, "/values/choices/own", json!(50), "50 have tokens");
    refused(2, "/rest/seen", json!([]), "do not divide");
    refused(2, "/rest/seen", json!([3, 9, 9]), "do not divide");
    refused(2, "/rest/seen", json!([3, 900]), "do not divide");
    refused(2, "/rest", json!({"bins": {"edges": [0.0, 1.0], "log": false}}), "another type");
    refused(2, "/rest", json!("none"), "do not divide");
    refused(2, "/missing", json!(true), "of texts");
    refused(4, "/values/numbers", json!([]), "0 tokens");
}

#[test]
fn zeros_are_one_value_whatever_their_sign() {
    let mut cells = vec![0.0; 100];
    cells[3] = -0.0;
    cells.extend((1..40).map(f64::from));
    let column = Column::floats("x", cells);
    let options = TokenOptions { integer: false, ..TokenOptions::default() };
    let codec = TokensCodec::fit_with(&column, &options).unwrap();
    let tokens = tokens_of(&codec, &column);
    assert!(tokens[..100].iter().all(|row| row == &[0]), "{:?}", &tokens[..5]);
    assert_eq!(codec.value(&[0], 0.9), Value::Float(0.0));
}

#[test]
fn numbers_that_octets_cannot_say_are_refused() {
    let options = TokenOptions { octets: Some(4), least_count: 2, ..TokenOptions::default() };
    let error = |column: &Column| {
        let codec = TokensCodec::fit_with(column, &options).unwrap();
        codec.tokens(column, &mut Vec::new()).unwrap_err().to_string()
    };
    assert_eq!(
        error(&Column::ints("byt", vec![1, 1 << 32])),
        "column `byt`, row 2: value `4294967296` is no whole number of 4 octets"
    );
    assert_eq!(
        error(&Column::ints("byt", vec![-1, 3])),
        "column `byt`, row 1: value `-1` is no whole number of 4 octets"
    );
    assert!(error(&Column::floats("byt", vec![3.0, 3.5])).contains("row 2: value `3.5` is no"));
}
