//! From events to files, with events made here: no model, no clock, no root.

use std::path::Path;
use std::sync::atomic::Ordering;

use ns_model_format::codec::{BitCodec, Codec, FloatCodec, FloatOptions};
use ns_model_format::schema::{TimeEncoding, TimeUnit, Timestamp, TraceKind, packet_field as name};
use ns_model_format::{Column, Field, FieldKind, Schema, Value};
use ns_runtime::drive::{Control, DriveError, Driven, Limits, drive};
use ns_runtime::exit::Exit;
use ns_runtime::pace::Pace;
use ns_runtime::sink::{CsvSink, NullSink, PcapSink, Target};
use ns_runtime::stats::Ending;
use ns_runtime::{
    Event, Frame, PacketOptions, PacketRender, Payload, Render, RowRender, Sink, SinkError,
};

type Failed = std::io::Error;
type Outcome = (Driven, Result<(), DriveError<Failed>>);

fn schema() -> Schema {
    let field = |name: &str| Field {
        missing: None,
        name: name.to_owned(),
        kind: FieldKind::Integer,
        codec: Codec::Bit(BitCodec::new(name, 32).unwrap()),
    };
    let time = Column::floats("time", vec![0.0, 1.0]);
    let attributes = [name::SRC_IP, name::DST_IP, name::SRC_PORT, name::DST_PORT, name::PROTO];
    Schema {
        kind: TraceKind::Packets,
        columns: ["time", "srcip", "pkt_len"].map(str::to_owned).into(),
        timestamp: Timestamp {
            column: "time".to_owned(),
            unit: TimeUnit::Microseconds,
            decimals: 0,
            encoding: TimeEncoding::Interarrival,
            codec: Codec::Float(FloatCodec::fit(&time, FloatOptions::default()).unwrap()),
            datetime: None,
        },
        conversations: false,
        attributes: attributes.map(field).into(),
        measurements: vec![field(name::LEN)],
        self_norm: false,
        distinct: None,
        segmentation: None,
        spanning: None,
        word2vec: Default::default(),
    }
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
