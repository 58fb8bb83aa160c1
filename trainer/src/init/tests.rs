//! Tables of different kinds: what is found in them.

use std::path::Path;

use super::*;
use crate::config::{Resolved, parse, resolve};

fn init(rows: &str, hints: &Hints) -> Result<(String, Resolved), InitError> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), rows).expect("written");
    let text = for_table(file.path(), hints, OnError::Stop)?;
    let config = parse(&text, "init").unwrap_or_else(|error| panic!("{error}\n{text}"));
    let config = resolve(&config, Path::new(".")).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Ok((text, config))
}

fn columns(fields: &[crate::config::FieldConfig]) -> Vec<&str> {
    fields.iter().map(|field| field.column.as_str()).collect()
}

#[test]
fn a_five_tuple_names_the_flow_whatever_its_columns_are_called() {
    for header in ["sa,da,sp,dp,pr,ts,byt", "id.orig_h,id.resp_h,id.orig_p,id.resp_p,proto,ts,n"] {
        let mut text = format!("{header}\n");
        for row in 0..200 {
            text += &format!(
                "10.0.0.{},192.0.2.1,{},443,tcp,{}.25,{}\n",
                row % 9,
                40_000 + row,
                1_700_000_000 + row,
                row * row * 50
            );
        }
        let (_, config) = init(&text, &Hints::default()).expect("a good table");
        let names: Vec<&str> = header.split(',').collect();
        assert_eq!(columns(&config.metadata), names[..5]);
        assert_eq!(config.timestamp.column, "ts");
        assert_eq!(columns(&config.timeseries), names[6..]);
        assert_eq!(config.timeseries[0].encoding(), Some("log_quantile"));
    }
}

#[test]
fn a_device_and_what_is_fixed_with_it_name_the_flow() {
    let mut text = "timestamp,reading,device_id,room,\"odd, name\",serial,spare\n".to_owned();
    for row in 0..300 {
        let device = row % 7;
        text += &format!(
            "2026-01-01T00:{:02}:{:02}Z,{}.5,dev{device},room{},{},x{row},-\n",
            row / 60,
            row % 60,
            row % 13,
            device / 2,
            if row % 3 == 0 { "-".to_owned() } else { (row % 3).to_string() },
        );
    }
    let (text, config) = init(&text, &Hints::default()).expect("a good table");
    assert_eq!(columns(&config.metadata), ["device_id", "room"]);
    assert_eq!(columns(&config.timeseries), ["reading", "odd, name"]);
    for said in [
        "left out: { \"column\": \"serial\"",
        "left out: { \"column\": \"spare\"",
        "33.3% have no value",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn hints_are_followed_and_what_is_missing_is_said() {
    let rows = "a,b,c\n1,x,5\n2,x,6\n3,y,7\n4,y,8\n";
    let time = init(rows, &Hints::default()).expect_err("no time").to_string();
    assert!(time.contains("`--time COLUMN`") && time.contains("`a`, `b`, `c`"), "{time}");
    let hints =
        Hints { time: Some("a".to_owned()), flow: vec!["b".to_owned()], ..Hints::default() };
    let (_, config) = init(rows, &hints).expect("told");
    assert_eq!((columns(&config.metadata), columns(&config.timeseries)), (vec!["b"], vec!["c"]));
    let hints = Hints { time: Some("z".to_owned()), ..Hints::default() };
    let error = init(rows, &hints).expect_err("no such column").to_string();
    assert_eq!(error, "no column `z`; there are `a`, `b`, `c`");
    let flow = init("ts,x\n1700000000,0.5\n1700000001,0.25\n", &Hints::default());
    assert!(flow.expect_err("no flow").to_string().contains("`--flow COLUMN,...`"));
    assert!(init("ts,x\n", &Hints::default()).is_err());
}

#[test]
fn strange_names_make_no_strange_configuration() {
    let rows = "ts,\"a \"\"quoted\"\" // name\",\"x\ny\"\n1700000000,v,1\n1700000001,v,2\n1700000002,w,3\n";
    let hints = Hints { flow: vec!["a \"quoted\" // name".to_owned()], ..Hints::default() };
    // A header over two lines is read as one line: such a column cannot be named.
    match init(rows, &hints) {
        Ok((_, config)) => assert_eq!(config.metadata.len(), 1),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[test]
fn long_numbers_that_name_something_stay_apart() {
    let mut text = "ts,user_id,v,,v\n".to_owned();
    for row in 0..600_u64 {
        let v = if row == 7 { "Infinity".to_owned() } else { format!("{row}.5") };
        text +=
            &format!("{},{},{v},x,y\n", 1_700_000_000 + row, 1_234_567_890_123_456_700 + row % 60);
    }
    let (_, config) = init(&text, &Hints::default()).expect("a good table");
    assert_eq!(columns(&config.metadata), ["user_id"]);
    // As words: a float would take neighbours for one another.
    assert_eq!(config.metadata[0].kind, FieldType::String);
    // Unnamed columns, and a second one of a name, cannot be asked for.
    assert_eq!(columns(&config.timeseries), ["v"]);
    assert_eq!(config.timeseries[0].kind, FieldType::Float);
}
