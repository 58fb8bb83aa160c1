//! From events to files, with events made here: no model, no clock, no root.

use std::path::Path;
use std::sync::atomic::Ordering;

use ns_model_format::codec::{CategoricalCodec, Codec};
use ns_model_format::schema::packet_field as name;
use ns_model_format::{Column, Field, FieldKind, Schema, Value};
use ns_runtime::drive::{Control, DriveError, Driven, Limits, drive};
use ns_runtime::exit::Exit;
use ns_runtime::pace::Pace;
use ns_runtime::packets::{LabelledFrame, LabelledRender};
use ns_runtime::render::FlowEnd;
use ns_runtime::sink::{
    CsvFormat, CsvSink, FileSink, FlowNotes, FlowRender, FlowSink, LinkState, NullSink, PcapFormat,
    PcapSink, PcapngFormat, Rotation, Sent, Target,
};
use ns_runtime::stats::Ending;
use ns_runtime::{
    Event, Frame, PacketOptions, PacketRender, Payload, Render, RowRender, Sink, SinkError,
};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};

mod schemas;

use schemas::packet_schema;

type Failed = std::io::Error;
type Outcome = (Driven, Result<(), DriveError<Failed>>);

/// Of packets; in rows not every field is a column.
fn schema() -> Schema {
    let attributes = [name::SRC_IP, name::DST_IP, name::SRC_PORT, name::DST_PORT, name::PROTO];
    let columns = ["time", "srcip", "pkt_len"].map(str::to_owned).into();
    Schema { columns, ..packet_schema(&attributes, &[name::LEN]) }
}

/// Records a millisecond apart, ten a flow, lengths from 28 up.
fn events<R: Render>(mut render: R, count: u64) -> Vec<Event<R::Item>> {
    let mut flow = None;
    let record = |number: u64| {
        if number.is_multiple_of(10) {
            let values = [number as i64, 2, 40_000, 9999, 17].map(Value::Int);
            flow = Some(render.begin_flow(number / 10, &values));
        }
        let time_ns = number * 1_000_000;
        let values = [Value::Int(28 + number as i64 % 1400)];
        Event {
            time_ns,
            flow: number / 10,
            record: (number % 10) as u32,
            item: render.record(flow.as_mut().unwrap(), time_ns, &values),
        }
    };
    (0..count).map(record).collect()
}

fn frames(count: u64) -> Vec<Event<Frame>> {
    events(PacketRender::new(&schema(), PacketOptions::default()).unwrap(), count)
}

fn pcap(path: &Path, snaplen: u32) -> PcapSink {
    let target = Target::File(path.to_owned());
    PcapSink::create(&target, Payload::default(), snaplen, 1_000_000_000_000_000_000).unwrap()
}

fn play(sink: &mut dyn Sink<Frame>, events: Vec<Event<Frame>>, limits: Limits) -> Outcome {
    let events = events.into_iter().map(Ok);
    drive(events, sink, Pace::TopSpeed, false, limits, &Control::default())
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_pcap_is_read_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcap");
    for snaplen in [96, 262_144] {
        let mut sink = pcap(&path, snaplen);
        let (driven, result) = play(&mut sink, frames(3000), Limits::default());
        result.unwrap();
        assert_eq!(
            (driven.ending, driven.sent.records, driven.sent.flows),
            (Ending::Done, 3000, 300)
        );
        assert_eq!(files(folder.path()), ["out.pcap"]);
        let file = std::fs::File::open(&path).unwrap();
        let mut reader = pcap_file::pcap::PcapReader::new(file).unwrap();
        let mut bytes = 0;
        for event in frames(3000) {
            let packet = reader.next_packet().unwrap().unwrap();
            let mut expected = Vec::new();
            event.item.append_to(&Payload::default(), snaplen as usize, &mut expected);
            assert_eq!(&packet.data[..], &expected[..]);
            assert_eq!(packet.orig_len as usize, event.item.len());
            let since = packet.timestamp.as_nanos() as u64 - 1_000_000_000_000_000_000;
            assert_eq!(since, event.time_ns);
            bytes += event.item.len() as u64;
        }
        assert!(reader.next_packet().is_none());
        assert_eq!(driven.sent.bytes, bytes);
    }
}

#[test]
fn a_csv_has_the_schema_s_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.csv");
    let render = RowRender::new(&schema(), 5_000);
    let mut sink = CsvSink::create(&Target::File(path.clone()), &render.header()).unwrap();
    let events = events(render, 12).into_iter().map(Ok);
    let limits = Limits { records: Some(11), ..Limits::default() };
    let (driven, result): Outcome =
        drive(events, &mut sink, Pace::TopSpeed, false, limits, &Control::default());
    result.unwrap();
    assert_eq!((driven.sent.records, driven.sent.flows), (11, 2));
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 12);
    assert_eq!(lines[..2], ["time,srcip,pkt_len", "5,0,28"]);
    assert_eq!(lines[11], "10005,10,38");
    assert_eq!(driven.sent.bytes as usize, text.len() - lines[0].len() - 1);
}

#[test]
fn a_failed_run_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcap");
    for threaded in [false, true] {
        let mut sink = pcap(&path, 96);
        let failure = std::iter::once(Err(Failed::other("broken")));
        let events = frames(1000).into_iter().map(Ok).chain(failure);
        let pace = if threaded { Pace::Speed(1e9) } else { Pace::TopSpeed };
        let (driven, result) =
            drive(events, &mut sink, pace, threaded, Limits::default(), &Control::default());
        assert!(matches!(result, Err(DriveError::Generate(_))));
        assert_eq!(driven.ending, Ending::Failed);
        assert_eq!(files(folder.path()), ["out.pcap.part"]);
        drop(sink);
        assert_eq!(files(folder.path()), [""; 0]);
    }
}

#[test]
fn a_stop_finishes_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcap");
    for (signal, ending, exit) in [
        (libc::SIGINT, Ending::Interrupted, Exit::Interrupted),
        (libc::SIGTERM, Ending::Terminated, Exit::Terminated),
    ] {
        let control = Control::default();
        let mut sink = pcap(&path, 96);
        let endless = (0..).flat_map(|round| {
            if round == 3 {
                control.stop.store(signal as usize, Ordering::Relaxed);
            }
            frames(1000).into_iter().map(Ok::<_, Failed>)
        });
        let (driven, result) =
            drive(endless, &mut sink, Pace::TopSpeed, false, Limits::default(), &control);
        result.unwrap();
        assert_eq!((driven.ending, Exit::of_ending(driven.ending, 0, false)), (ending, exit));
        let file = std::fs::File::open(&path).unwrap();
        let mut reader = pcap_file::pcap::PcapReader::new(file).unwrap();
        let mut count = 0_u64;
        while let Some(packet) = reader.next_packet() {
            packet.unwrap();
            count += 1;
        }
        assert!((2000..=4000).contains(&count));
        assert_eq!(count, driven.sent.records);
    }
}

#[test]
fn a_full_device_is_an_output_error() {
    let mut sink = pcap(Path::new("/dev/full"), 96);
    let (_, result) = play(&mut sink, frames(1000), Limits::default());
    match result {
        Err(DriveError::Sink(error @ SinkError::Full { records: 0, .. })) => {
            assert_eq!(Exit::of_sink(&error), Exit::Output);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_cannot_be_made_is_an_output_error() {
    let target = Target::parse("/nonexistent/out.pcap");
    let error = PcapSink::create(&target, Payload::zero(), 96, 0).unwrap_err();
    assert_eq!(error.to_string(), "cannot create `/nonexistent/out.pcap`");
    assert_eq!(Exit::of_sink(&error), Exit::Output);
}

#[test]
fn paced_records_all_go_out_in_order() {
    for pace in [Pace::Speed(1e6), Pace::PacketsPerSecond(1e6), Pace::TopSpeed] {
        let mut sink = NullSink::new();
        let events = frames(5000).into_iter().map(Ok::<_, Failed>);
        let (driven, result) =
            drive(events, &mut sink, pace, true, Limits::default(), &Control::default());
        result.unwrap();
        assert_eq!((driven.sent.records, driven.sent.flows), (5000, 500));
        assert_eq!(driven.span_ns, 4999 * 1_000_000);
        assert_eq!(driven.lateness.summary().is_some(), pace != Pace::TopSpeed);
    }
}

/// The schema with two labels: a word, and a number of few values.
fn labelled_schema() -> Schema {
    let mut schema = schema();
    let words = Column::texts("label", ["benign", "scan, slow", "αβγ"]);
    let numbers = Column::ints("severity", vec![0, 7]);
    let label = |column: &Column, kind| Field {
        missing: None,
        name: column.name.clone(),
        kind,
        codec: Codec::Categorical(CategoricalCodec::fit(column, None).unwrap()),
    };
    schema.attributes.push(label(&words, FieldKind::Text));
    schema.attributes.push(label(&numbers, FieldKind::Integer));
    schema
}

#[test]
fn a_pcapng_is_read_back_with_nanoseconds_and_labels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcapng");
    let origin_ns = 1_000_000_000_000_000_001;
    let schema = labelled_schema();
    let packets = PacketRender::new(&schema, PacketOptions::default()).unwrap();
    let mut render = LabelledRender::new(&packets).unwrap();
    // Lengths of every remainder, and one that is cut.
    let lengths = [28, 29, 30, 31, 32, 1400];
    let frame = |(index, &length): (usize, &i64)| {
        let values = [1, 2, 40_000, 9999, 17].map(Value::Int);
        let labels = [Value::Text(index as u32 % 3), Value::Int([0, 7][index % 2])];
        let flow = &mut render.begin_flow(index as u64, &[&values[..], &labels].concat());
        let time_ns = index as u64 * 1_000_000_007;
        let item = render.record(flow, time_ns, &[Value::Int(length)]);
        Event { time_ns, flow: index as u64, record: 0, item }
    };
    let events: Vec<_> = lengths.iter().enumerate().map(frame).collect();
    let format = PcapngFormat { payload: Payload::default(), snaplen: 96, origin_ns };
    let target = Target::File(path.clone());
    let mut sink = FileSink::begin::<LabelledFrame>(&target, format.clone()).unwrap();
    sink.write(&events).unwrap();
    Sink::<LabelledFrame>::finish(&mut sink).unwrap();
    let mut reader = PcapNgReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let Block::InterfaceDescription(interface) = reader.next_block().unwrap().unwrap() else {
        panic!("no interface")
    };
    assert_eq!(interface.options, [InterfaceDescriptionOption::IfTsResol(9)]);
    let comments = ["benign, severity=0", "scan, slow, severity=7", "αβγ, severity=0"];
    let comments = [comments, ["benign, severity=7", "scan, slow, severity=0", "αβγ, severity=7"]];
    for (event, comment) in events.iter().zip(comments.concat()) {
        let Block::EnhancedPacket(packet) = reader.next_block().unwrap().unwrap() else {
            panic!("no packet")
        };
        let mut expected = Vec::new();
        event.item.frame.append_to(&Payload::default(), 96, &mut expected);
        assert_eq!(packet.data, expected);
        assert_eq!(packet.original_len as usize, event.item.frame.len());
        assert_eq!(packet.timestamp.as_nanos() as u64, origin_ns as u64 + event.time_ns);
        let comment = format!("label={comment}");
        assert_eq!(packet.options, [EnhancedPacketOption::Comment(comment.into())]);
    }
    assert!(reader.next_block().is_none());
    // Without labels there are no options.
    let mut sink = FileSink::begin::<Frame>(&target, format).unwrap();
    play(&mut sink, frames(3000), Limits::default()).1.unwrap();
    let mut reader = PcapNgReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let mut count = 0;
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.unwrap() else { continue };
        assert!(packet.options.is_empty());
        count += 1;
    }
    assert_eq!(count, 3000);
}

#[test]
fn a_pcap_has_nanoseconds_if_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcap");
    let (payload, origin_ns) = (Payload::default(), 1_000_000_000_000_000_123);
    let format = PcapFormat { payload, snaplen: 96, origin_ns, nanoseconds: true };
    let mut sink = FileSink::begin::<Frame>(&Target::File(path.clone()), format).unwrap();
    play(&mut sink, frames(2), Limits::default()).1.unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[..4], 0xa1b2_3c4d_u32.to_le_bytes());
    let mut reader = pcap_file::pcap::PcapReader::new(&bytes[..]).unwrap();
    for time_ns in [0, 1_000_000] {
        let packet = reader.next_packet().unwrap().unwrap();
        assert_eq!(packet.timestamp.as_nanos() as i64, origin_ns + time_ns);
    }
}

fn rotated(folder: &Path, rotation: Rotation) -> (Driven, Vec<(String, Vec<u8>)>) {
    let target = Target::File(folder.join("out.pcap"));
    let format =
        PcapFormat { payload: Payload::default(), snaplen: 96, origin_ns: 0, nanoseconds: false };
    let mut sink = FileSink::rotating::<Frame>(&target, format, rotation).unwrap();
    let (driven, result) = play(&mut sink, frames(3000), Limits::default());
    result.unwrap();
    let mut names = files(folder);
    names.sort();
    let read = |name: String| {
        let bytes = std::fs::read(folder.join(&name)).unwrap();
        std::fs::remove_file(folder.join(&name)).unwrap();
        (name, bytes)
    };
    (driven, names.into_iter().map(read).collect())
}

/// The times of a capture's packets.
fn times_ns(bytes: &[u8]) -> Vec<u64> {
    let mut reader = pcap_file::pcap::PcapReader::new(bytes).unwrap();
    let mut next = || Some(reader.next_packet()?.unwrap().timestamp.as_nanos() as u64);
    std::iter::from_fn(&mut next).collect()
}

#[test]
fn files_rotate_by_size_and_time_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (one, whole) = rotated(folder.path(), Rotation::default());
    let (_, whole) = &whole[0];
    assert_eq!(one.sent.files, 1);
    for rotation in [
        Rotation { bytes: Some(10_000), time_ns: None },
        Rotation { bytes: None, time_ns: Some(700_000_000) },
        Rotation { bytes: Some(50_000), time_ns: Some(700_000_000) },
        // Less than a record: each has a file.
        Rotation { bytes: Some(1), time_ns: None },
    ] {
        let (driven, files) = rotated(folder.path(), rotation);
        assert_eq!(driven.sent, Sent { files: files.len() as u64, ..one.sent });
        let mut joined = whole[..24].to_vec();
        for (number, (name, bytes)) in files.iter().enumerate() {
            assert_eq!(*name, format!("out-{number:05}.pcap"));
            assert_eq!(bytes[..24], whole[..24]);
            let times = times_ns(bytes);
            assert!(!times.is_empty(), "{name}");
            let too_long = |most: u64| bytes.len() as u64 > most && times.len() > 1;
            assert!(!rotation.bytes.is_some_and(too_long), "{name}: {}", bytes.len());
            if let Some(period) = rotation.time_ns {
                assert_eq!(times[0] / period, times[times.len() - 1] / period, "{name}");
            }
            joined.extend_from_slice(&bytes[24..]);
        }
        assert!(joined == *whole, "{rotation:?}");
        let expected = match (rotation.bytes, rotation.time_ns) {
            (Some(1), _) => 3000,
            (None, _) => 5,
            (Some(most), None) => (whole.len() as u64).div_ceil(most - 300) as usize,
            (Some(_), Some(_)) => 10,
        };
        assert!(files.len().abs_diff(expected) <= expected / 10, "{} {expected}", files.len());
    }
}

#[test]
fn a_failed_run_leaves_the_files_that_were_finished() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::File(folder.path().join("out.csv"));
    let render = RowRender::new(&schema(), 0);
    let format = CsvFormat { header: render.header() };
    let rotation = Rotation { bytes: None, time_ns: Some(100_000_000) };
    let mut sink = FileSink::rotating::<Box<str>>(&target, format, rotation).unwrap();
    let failure = std::iter::once(Err(Failed::other("broken")));
    let events = events(render, 350).into_iter().map(Ok).chain(failure);
    let (driven, result) =
        drive(events, &mut sink, Pace::TopSpeed, false, Limits::default(), &Control::default());
    assert!(matches!(result, Err(DriveError::Generate(_))));
    assert_eq!(driven.ending, Ending::Failed);
    drop(sink);
    let mut names = files(folder.path());
    names.sort();
    assert!(!names.is_empty() && names.iter().all(|name| name.ends_with(".csv")), "{names:?}");
    for name in names {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(text.starts_with("time,srcip,pkt_len\n") && text.lines().count() == 101);
    }
}

#[test]
fn what_is_no_regular_file_does_not_rotate() {
    let rotation = Rotation { bytes: Some(1000), time_ns: None };
    for target in [Target::parse("/dev/null"), Target::Stdout] {
        let format = CsvFormat { header: "time".to_owned() };
        let error = FileSink::rotating::<Box<str>>(&target, format, rotation).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot rotate `{target}`"));
    }
}

/// Frames of two flows at once, noted as generation does: flow 0 ends, with a reply; flow 1
/// is cut; flow 2 has no record that goes out.
fn noted(notes: &FlowNotes) -> Vec<Event<Frame>> {
    let mut schema = schema();
    schema.conversations = true;
    schema
        .measurements
        .push(Field { name: name::DIRECTION.to_owned(), ..schema.measurements[0].clone() });
    let packets = PacketRender::new(&schema, PacketOptions::default()).unwrap();
    let mut render = FlowRender::new(packets, Some(notes.clone()));
    let mut begin =
        |flow: u64| render.begin_flow(flow, &[flow as i64, 2, 40_000, 53, 17].map(Value::Int));
    let [mut zero, mut one, two] = [begin(0), begin(1), begin(2)];
    let mut events = Vec::new();
    for (time_ns, flow, record, len, direction) in
        [(1, 0, 0, 100, 0), (5, 1, 0, 50, 0), (7, 0, 1, 200, 1), (2_000_000_009, 1, 1, 60, 0)]
    {
        let values = [len, direction].map(Value::Int);
        let item = render.record(if flow == 0 { &mut zero } else { &mut one }, time_ns, &values);
        events.push(Event { time_ns, flow, record, item });
    }
    let end = |flow, time_ns, complete| FlowEnd { flow, time_ns, complete };
    render.end_flow(two, end(2, 6, true));
    // Its last record was left out.
    render.end_flow(zero, end(0, 9, true));
    render.end_flow(one, end(1, 3_000_000_000, false));
    events
}

const FLOWS_HEADER: &str = "flow,start,end,packets,bytes,reply_packets,reply_bytes,complete,\
                            srcip,dstip,srcport,dstport,proto";

#[test]
fn every_flow_has_a_line_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.csv");
    let mut schema = schema();
    schema.conversations = true;
    for batch in [1, 2, 4] {
        let (notes, mut null) = (FlowNotes::default(), NullSink::new());
        let target = Target::File(path.clone());
        let mut sink =
            FlowSink::create(&target, &schema, 1_500_000_000, notes.clone(), &mut null).unwrap();
        let events = noted(&notes);
        for (at, events) in events.chunks(batch).enumerate() {
            sink.write(events).unwrap();
            if at % 2 == 0 {
                sink.flush().unwrap();
            }
        }
        assert_eq!(files(folder.path()), ["flows.csv.part"]);
        sink.finish().unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!(
                "{FLOWS_HEADER}\n\
                 0,1.500000001,1.500000007,2,328,1,214,yes,0,2,40000,53,17\n\
                 1,1.500000005,3.500000009,2,138,0,0,no,1,2,40000,53,17\n"
            ),
            "{batch}"
        );
        drop(sink);
        std::fs::remove_file(&path).unwrap();
    }
}

/// Takes so many records, then fails.
struct Failing {
    left: u64,
    sent: Sent,
    error: fn() -> SinkError,
}

impl Sink<Frame> for Failing {
    fn write(&mut self, events: &[Event<Frame>]) -> Result<(), SinkError> {
        let taken = (events.len() as u64).min(self.left);
        (self.left, self.sent.records) = (self.left - taken, self.sent.records + taken);
        if taken < events.len() as u64 { Err((self.error)()) } else { Ok(()) }
    }
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
    fn sent(&self) -> Sent {
        self.sent
    }
}

#[test]
fn what_went_out_before_an_error_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.csv");
    let mut schema = schema();
    schema.conversations = true;
    let down = || SinkError::Down { name: "x".to_owned(), state: LinkState::Down };
    for error in [down as fn() -> SinkError, || SinkError::Closed] {
        let notes = FlowNotes::default();
        let mut failing = Failing { left: 3, sent: Sent::default(), error };
        let target = Target::File(path.clone());
        let mut sink = FlowSink::create(&target, &schema, 0, notes.clone(), &mut failing).unwrap();
        let (_, result) = play(&mut sink, noted(&notes), Limits::default());
        assert_eq!(result.is_ok(), matches!(error(), SinkError::Closed));
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        // Whether flow 0 goes on is not known at its last record.
        assert_eq!(
            lines[1..],
            [
                "1,0.000000005,0.000000005,1,64,0,0,no,1,2,40000,53,17",
                "0,0.000000001,0.000000007,2,328,1,214,no,0,2,40000,53,17",
            ]
        );
    }
}

#[test]
fn a_full_disk_for_flows_leaves_the_packets() {
    let folder = tempfile::tempdir().unwrap();
    let notes = FlowNotes::default();
    let mut packets = pcap(&folder.path().join("out.pcap"), 96);
    let target = Target::parse("/dev/full");
    let mut sink = FlowSink::create(&target, &schema(), 0, notes.clone(), &mut packets).unwrap();
    let (driven, result) = play(&mut sink, noted(&notes), Limits::default());
    match result {
        Err(DriveError::Sink(SinkError::Full { path, .. })) => {
            assert_eq!(path, Path::new("/dev/full"));
        }
        other => panic!("{other:?}"),
    }
    // It is noticed with the first record, which does not wait for others.
    assert_eq!(driven.sent.records, 1);
    drop(sink);
    drop(packets);
    let bytes = std::fs::read(folder.path().join("out.pcap")).unwrap();
    assert_eq!(times_ns(&bytes).len(), 1);
}
