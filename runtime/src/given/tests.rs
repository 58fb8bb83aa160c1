use ns_model_format::FieldKind;
use ns_model_format::codec::{BitCodec, CategoricalCodec, FloatCodec, FloatOptions};
use ns_model_format::schema::{TimeEncoding, TraceKind};

use super::*;

fn schema() -> Schema {
    let bundle = crate::testing::bundle(TimeEncoding::Interarrival, None);
    let mut schema = bundle.manifest().schema.clone();
    let field =
        |name: &str, kind, codec| Field { name: name.to_owned(), kind, codec, missing: None };
    let float = |integer, low, high| {
        let options = FloatOptions { integer, ..FloatOptions::default() };
        Codec::Float(FloatCodec::fit(&Column::floats("x", vec![low, high]), options).unwrap())
    };
    let words = Column::texts("app", ["web", "mail", "dns"]);
    let lengths = Column::ints("size", vec![40, 1500]);
    schema.kind = TraceKind::Packets;
    schema.attributes = vec![
        field("srcip", FieldKind::Ipv4, Codec::Bit(BitCodec::new("srcip", 32).unwrap())),
        field("proto", FieldKind::Integer, float(true, 0.0, 255.0)),
        field(
            "app",
            FieldKind::Text,
            Codec::Categorical(CategoricalCodec::fit(&words, None).unwrap()),
        ),
        field("load", FieldKind::Float { decimals: 3 }, float(false, -1.0, 1.0)),
        field("size", FieldKind::Integer, Codec::Bit(BitCodec::fit(&lengths, None).unwrap())),
    ];
    schema
}

fn read(text: &str) -> Result<GivenFlows, String> {
    let reading = GivenFlows::from_reader(text.as_bytes(), Path::new("x.csv"), &schema());
    reading.map_err(|error| error.to_string())
}

#[test]
fn rows_are_kept_as_they_are_given() {
    let flows = read(
        "app,size, src_ip ,proto,load\nweb,40,10.0.0.1,udp,0.1234567\nmail,1500,167772162,6,-1\n",
    );
    let flows = flows.unwrap();
    assert_eq!((flows.len(), flows.origin_ns()), (2, None));
    let text = |row: u64| {
        let mut text = String::new();
        for (field, &value) in flows.fields.iter().zip(flows.values(row)) {
            field.write_text(value, &mut text);
            text.push(' ');
        }
        text
    };
    assert_eq!(text(0), "10.0.0.1 17 web 0.123 40 ");
    assert_eq!(text(3), "10.0.0.2 6 mail -1 1500 ");
    assert_eq!(flows.values(0)[3], Value::Float(0.123_456_7));
    // A bit a value, its most significant first: 10.0.0.1.
    assert_eq!(flows.folded(0)[..8], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(flows.folded(0).len(), 32 + 1 + 3 + 1 + 11);
}

#[test]
fn rows_are_put_in_order_of_their_starts() {
    let flows =
        read("time,srcip,proto,app,load,size\n9,10.0.0.1,6,web,0,40\n2,10.0.0.2,6,web,0,40\n")
            .unwrap();
    assert_eq!(flows.origin_ns(), Some(2_000));
    assert_eq!(flows.values(0)[0], Value::Int(0x0a00_0002));
    assert_eq!(
        [0, 1, 2, 3].map(|flow| flows.start_ns(flow, 7)),
        [0, 7_000, 14_000, 21_000].map(Some)
    );
    let one = read("time,srcip,proto,app,load,size\n9,10.0.0.1,6,web,0,40\n").unwrap();
    assert_eq!([0, 1, 2].map(|flow| one.start_ns(flow, 7)), [0, 7, 14].map(Some));
}

#[test]
fn errors_name_file_row_and_column() {
    let header = "srcip,proto,app,load,size\n";
    let good = "10.0.0.1,6,web,0.5,40\n";
    let row = |text: &str| read(&format!("{header}{good}{text}\n{good}")).unwrap_err();
    assert_eq!(
        row("10.0.0.256,6,web,0,40"),
        "`x.csv`: row 2, column `srcip`: expected an IPv4 address, found `10.0.0.256`"
    );
    assert_eq!(
        row("10.0.0.1,256,web,0,40"),
        "`x.csv`: row 2, column `proto`: `256` is not from 0 to 255"
    );
    assert_eq!(
        row("10.0.0.1,6,ftp,0,40"),
        "`x.csv`: row 2, column `app`: `ftp` is not among the 3 choices"
    );
    assert_eq!(
        row("10.0.0.1,6,web,2,40"),
        "`x.csv`: row 2, column `load`: `2` is not from -1 to 1"
    );
    assert_eq!(
        row("10.0.0.1,6,web,0,39"),
        "`x.csv`: row 2, column `size`: `39` is not from 40 to 1500"
    );
    assert_eq!(
        row("10.0.0.1,6,web,0,5000"),
        "`x.csv`: row 2, column `size`: `5000` exceeds 11 bits"
    );
    assert_eq!(row("10.0.0.1,6"), "`x.csv`: row 2: 2 cells, the header has 5");
    assert_eq!(read(header).unwrap_err(), "`x.csv` has no rows");
    assert_eq!(
        read("srcip,app,size\n").unwrap_err(),
        "`x.csv`: all attributes are needed; missing: `proto`, `load`"
    );
    assert_eq!(
        read("srcip,bits\n").unwrap_err(),
        "`x.csv`: column `bits` is no attribute; the attributes are `srcip`, `proto`, `app`, \
         `load`, `size`, and the time column `time` may be there"
    );
    assert_eq!(read("srcip,src_ip\n").unwrap_err(), "`x.csv`: column `src_ip` stands twice");
    assert_eq!(
        read("time,srcip,proto,app,load,size\nnoon,10.0.0.1,6,web,0,40\n").unwrap_err(),
        "`x.csv`: row 1, column `time`: `noon` is no time in units of 1000 ns"
    );
}

#[test]
fn rows_beyond_a_block_are_numbered_on() {
    let good = "10.0.0.1,6,web,0.5,40\n";
    let text =
        format!("srcip,proto,app,load,size\n{}10.0.0.1,6,ftp,0,40\n", good.repeat(BLOCK + 5));
    assert!(read(&text).unwrap_err().starts_with("`x.csv`: row 4102, column `app`"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
        let header = b"time,srcip,proto,app,load,size\n1,10.0.0.1,6,web,0,40\n";
        let bytes = [&header[..], &bytes].concat();
        let _ = GivenFlows::from_reader(&bytes[..], Path::new("x"), &schema());
    }
}
