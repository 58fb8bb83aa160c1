//! Frames over a wire that exists only here: a veth pair between two network
//! namespaces. Nothing leaves them. Needs root and `ip`; says so and passes
//! where there is neither.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{self, Read};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ns_model_format::schema::packet_field as name;
use ns_model_format::{Schema, Value};
use ns_runtime::drive::{Control, Limits, drive};
use ns_runtime::exit::{Exit, sink_hint};
use ns_runtime::pace::Pace;
use ns_runtime::sink::{
    Interface, InterfaceSink, Log, OnDown, Oversize, PcapSink, SendThrough, Target, WireOptions,
};
use ns_runtime::{Event, Frame, PacketOptions, PacketRender, Payload, Render, Sink, SinkError};

mod namespaces;
mod schemas;

use namespaces::{Namespaces, receiver, receiver_at};
use schemas::packet_schema;

const WAYS: [SendThrough; 2] = [SendThrough::AfPacket, SendThrough::Pnet];

/// A sink at `wire0`.
fn open_sink(
    payload: &Payload,
    oversize: Oversize,
    send_through: SendThrough,
) -> Result<InterfaceSink, SinkError> {
    let options = WireOptions {
        payload: payload.clone(),
        oversize,
        on_down: OnDown::Abort,
        send_through,
        ..WireOptions::default()
    };
    InterfaceSink::open(vec![Interface::find("wire0")?], options)
}

fn schema() -> Schema {
    let attributes = [name::SRC_IP, name::DST_IP, name::SRC_PORT, name::DST_PORT, name::PROTO];
    let schema = packet_schema(&attributes, &[name::LEN, name::DIRECTION]);
    Schema { conversations: true, ..schema }
}

/// Conversations of 20 packets, 10 us apart.
fn frames(payload: &Payload, count: u64, longest: u64) -> Vec<Event<Frame>> {
    let options = PacketOptions { payload: payload.clone(), ..PacketOptions::default() };
    let mut render = PacketRender::new(&schema(), options).unwrap();
    let mut state = None;
    let event = |number: u64| {
        let (flow, record) = (number / 20, number % 20);
        if record == 0 {
            let proto = [6, 17, 1, 47][flow as usize % 4];
            let tuple = [0x0a00_0001 + flow as i64, 0x0a01_0001, 40_000, 80, proto];
            state = Some(render.begin_flow(flow, &tuple.map(Value::Int)));
        }
        let len = 20 + number * 37 % (longest - 19);
        let values = [Value::Int(len as i64), Value::Int((number / 3 % 2) as i64)];
        let time_ns = number * 10_000;
        let item = render.record(state.as_mut().unwrap(), time_ns, &values);
        Event { time_ns, flow, record: record as u32, item }
    };
    (0..count).map(event).collect()
}

#[test]
fn frames_cross_a_veth_pair_byte_for_byte_as_root() {
    let Some(namespaces) = Namespaces::new(1500) else { return };
    let payload = Payload::random(3);
    let count = 5000;
    let paces = [Pace::TopSpeed, Pace::Speed(1.0)];
    for (way, pace) in WAYS.into_iter().flat_map(|way| paces.map(|pace| (way, pace))) {
        let mut receiver = namespaces.within(1, receiver);
        let driven = namespaces.within(0, || {
            let interface = Interface::find("wire0").unwrap();
            assert_eq!(interface.mtu, 1500);
            let mut sink = open_sink(&payload, Oversize::Error, way).unwrap();
            let events = frames(&payload, count, 1500);
            // Nothing of this is seen on the wire.
            (0..3).for_each(|_| sink.warm_up(&events[0]));
            let events = events.into_iter().map(Ok::<_, io::Error>);
            let control = Control::default();
            let (driven, result) =
                drive(events, &mut sink, pace, true, Limits::default(), &control);
            result.unwrap();
            let counted = driven.interfaces[0].counted;
            assert_eq!(counted, Some(count), "all of it has left: {way:?}");
            driven
        });
        assert_eq!((driven.sent.records, driven.sent.flows, driven.sent.dropped), (count, 250, 0));
        let mut buffer = vec![0; 70_000];
        for event in frames(&payload, count, 1500) {
            let mut expected = Vec::new();
            event.item.append_to(&payload, usize::MAX, &mut expected);
            let len = receiver.read(&mut buffer).expect("a frame is missing");
            assert_eq!(buffer[..len], expected[..], "record {}, {way:?}", event.record);
        }
        if let Some(late) = driven.lateness.summary() {
            println!("{late:?}");
        }
    }
}

#[test]
fn frames_above_the_mtu_are_refused_skipped_or_shortened_as_root() {
    let Some(namespaces) = Namespaces::new(1000) else { return };
    let payload = Payload::zero();
    let send = |oversize| {
        namespaces.within(0, || {
            let mut sink = open_sink(&payload, oversize, SendThrough::AfPacket).unwrap();
            let result = sink.write(&frames(&payload, 400, 1500));
            (sink.sent(), result)
        })
    };
    let long = frames(&payload, 400, 1500).iter().filter(|e| e.item.len() > 1014).count() as u64;
    let (_, result) = send(Oversize::Error);
    let error = result.unwrap_err();
    assert!(matches!(error, SinkError::Oversize { mtu: 1000, bytes: 1001.., .. }));
    assert_eq!(Exit::of_sink(&error), Exit::Interface);
    let (sent, result) = send(Oversize::Skip);
    result.unwrap();
    assert_eq!((sent.records, sent.oversize_skipped), (400 - long, long));
    let mut receiver = namespaces.within(1, receiver);
    let (sent, result) = send(Oversize::Truncate);
    result.unwrap();
    assert_eq!((sent.records, sent.oversize_truncated), (400, long));
    let mut buffer = vec![0; 70_000];
    for _ in 0..400 {
        let len = receiver.read(&mut buffer).expect("a frame is missing");
        assert!(len <= 1014);
        let packet = etherparse::SlicedPacket::from_ethernet(&buffer[..len]).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4") };
        let header = ip.header().to_header();
        assert_eq!(usize::from(header.total_len), len - 14);
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        match &packet.transport {
            Some(etherparse::TransportSlice::Tcp(tcp)) => {
                let expected = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload());
                assert_eq!(tcp.checksum(), expected.unwrap());
            }
            Some(etherparse::TransportSlice::Udp(udp)) => {
                let expected = udp.to_header().calc_checksum_ipv4(&header, udp.payload());
                assert_eq!(udp.checksum(), expected.unwrap());
            }
            _ => {}
        }
    }
}

#[test]
fn an_interface_that_cannot_be_used_is_named_as_root() {
    let Some(namespaces) = Namespaces::new(1500) else { return };
    let find = |name: &str| namespaces.within(0, || Interface::find(name).unwrap_err());
    let error = find("eth7");
    assert_eq!(error.to_string(), "no interface `eth7`; there are `lo`, `wire0`");
    assert_eq!(Exit::of_sink(&error), Exit::Interface);
    // The other end down is a cable pulled, which the kernel notices in its own time.
    namespaces.ip(1, "link set wire0 down");
    let error = namespaces.within(0, || {
        let tries = std::iter::repeat_with(|| Interface::find("wire0")).take(100);
        tries.inspect(|_| std::thread::sleep(Duration::from_millis(50))).find_map(Result::err)
    });
    assert_eq!(error.unwrap().to_string(), "interface `wire0` has no carrier");
    namespaces.ip(0, "link set wire0 down");
    let error = find("wire0");
    assert_eq!(error.to_string(), "interface `wire0` is down");
    assert_eq!(sink_hint(&error).unwrap(), "`ip link set wire0 up` brings it up");
}

#[test]
fn an_interface_that_goes_down_ends_the_run_as_root() {
    let Some(namespaces) = Namespaces::new(1500) else { return };
    let payload = Payload::zero();
    for way in WAYS {
        let error = namespaces.within(0, || {
            let mut sink = open_sink(&payload, Oversize::Error, way).unwrap();
            sink.write(&frames(&payload, 10, 1500)).unwrap();
            namespaces.ip(0, "link set wire0 down");
            let error = sink.write(&frames(&payload, 10, 1500)).unwrap_err();
            namespaces.ip(0, "link set wire0 up");
            error
        });
        assert_eq!(error.to_string(), "interface `wire0` is down");
        assert_eq!(Exit::of_sink(&error), Exit::Interface);
    }
}

#[test]
fn an_mtu_that_became_smaller_meanwhile_is_noticed_as_root() {
    let Some(namespaces) = Namespaces::new(1500) else { return };
    let payload = Payload::zero();
    let long = frames(&payload, 100, 1500).iter().filter(|e| e.item.len() > 1014).count() as u64;
    for way in WAYS {
        let (sent, result) = namespaces.within(0, || {
            namespaces.ip(0, "link set wire0 mtu 1500");
            let mut sink = open_sink(&payload, Oversize::Skip, way).unwrap();
            namespaces.ip(0, "link set wire0 mtu 1000");
            let result = sink.write(&frames(&payload, 100, 1500));
            (sink.sent(), result)
        });
        result.unwrap();
        assert_eq!((sent.records, sent.oversize_skipped), (100 - long, long), "{way:?}");
    }
}

#[test]
fn an_interface_that_is_up_again_is_not_taken_for_down_as_root() {
    let Some(namespaces) = Namespaces::new(1500) else { return };
    let payload = Payload::zero();
    for send_through in WAYS {
        let said = namespaces.within(0, || {
            let said = Arc::new(Mutex::new(Vec::new()));
            let log = {
                let said = Arc::clone(&said);
                Log(Arc::new(move |line: &str| said.lock().unwrap().push(line.to_owned())))
            };
            let options = WireOptions { send_through, log, ..WireOptions::default() };
            let interfaces = vec![Interface::find("wire0").unwrap()];
            let mut sink = InterfaceSink::open(interfaces, options).unwrap();
            let until = |sink: &mut InterfaceSink, ready: bool| {
                while sink.ready().unwrap() != ready {
                    std::thread::sleep(Duration::from_millis(5));
                }
            };
            sink.write(&frames(&payload, 10, 1500)).unwrap();
            // Seen without sending, so that the socket has yet to say it.
            namespaces.ip(0, "link set wire0 down");
            until(&mut sink, false);
            namespaces.ip(0, "link set wire0 up");
            until(&mut sink, true);
            sink.write(&frames(&payload, 10, 1500)).unwrap();
            assert_eq!(sink.sent().records, 20);
            said.lock().unwrap().clone()
        });
        assert_eq!(said.len(), 2, "{said:#?}");
        assert!(said[1].starts_with("interface `wire0` is up again after "), "{said:#?}");
    }
}

#[test]
fn without_permission_the_hint_is_setcap_as_root() {
    let Some(namespaces) = Namespaces::new(1500) else { return };
    let errors = namespaces.within(0, || {
        let interface = Interface::find("wire0").unwrap();
        give_up_root();
        WAYS.map(|send_through| {
            let options = WireOptions { send_through, ..WireOptions::default() };
            InterfaceSink::open(vec![interface.clone()], options).unwrap_err()
        })
    });
    for error in errors {
        assert_eq!(error.to_string(), "no permission to send raw frames on `wire0`");
        assert_eq!(Exit::of_sink(&error), Exit::Permission);
        assert!(sink_hint(&error).unwrap().contains("setcap cap_net_raw"));
    }
}

#[test]
fn permission_that_is_given_up_is_missed_only_by_a_new_interface_as_root() {
    let Some(namespaces) = Namespaces::new(1500) else { return };
    for send_through in WAYS {
        let (sent, sends) = mpsc::channel();
        let (anew, made_anew) = mpsc::channel();
        let error = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                namespaces.within(0, move || {
                    let options = WireOptions { send_through, ..WireOptions::default() };
                    let interfaces = vec![Interface::find("wire0").unwrap()];
                    let mut sink = InterfaceSink::open(interfaces, options).unwrap();
                    give_up_root();
                    sink.write(&frames(&Payload::zero(), 10, 1500)).unwrap();
                    sent.send(sink.sent().records).unwrap();
                    made_anew.recv().unwrap();
                    loop {
                        match sink.ready() {
                            Ok(_) => std::thread::sleep(Duration::from_millis(5)),
                            Err(error) => return error,
                        }
                    }
                })
            });
            assert_eq!(sends.recv(), Ok(10), "what was opened before stays open");
            namespaces.ip(0, "link del wire0");
            namespaces.add_pair("wire0");
            anew.send(()).unwrap();
            sender.join().unwrap()
        });
        assert_eq!(error.to_string(), "no permission to send raw frames on `wire0`");
        assert_eq!(Exit::of_sink(&error), Exit::Permission);
    }
}

/// Takes from this thread the capabilities that come with being root.
fn give_up_root() {
    // SAFETY: the system call changes this thread only.
    #[allow(unsafe_code)]
    let dropped = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
    assert_eq!(dropped, 0);
}

#[test]
fn a_full_disk_keeps_whole_records_as_root() {
    let Some(_namespaces) = Namespaces::new(1500) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.pcap");
    let payload = Payload::zero();
    let disk_full = || -> Option<(SinkError, Vec<u8>)> {
        let target = std::ffi::CString::new(folder.path().to_str()?).ok()?;
        // SAFETY: a mount namespace of this thread's own, so that the small
        // file system is seen nowhere else and goes with the thread; all
        // strings end in a zero and live through the calls.
        #[allow(unsafe_code)]
        let mounted = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(
                    c"none".as_ptr(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    std::ptr::null(),
                ) == 0
                && libc::mount(
                    c"tmpfs".as_ptr(),
                    target.as_ptr(),
                    c"tmpfs".as_ptr(),
                    0,
                    c"size=512k".as_ptr().cast(),
                ) == 0
        };
        if !mounted {
            println!("skipped: cannot mount: {}", io::Error::last_os_error());
            return None;
        }
        let to = Target::File(path.clone());
        let mut sink = PcapSink::create(&to, payload.clone(), 262_144, 0).unwrap();
        let events = frames(&payload, 5000, 1500).into_iter().map(Ok::<_, io::Error>);
        let (limits, control) = (Limits::default(), Control::default());
        let (driven, result) = drive(events, &mut sink, Pace::TopSpeed, false, limits, &control);
        match result.unwrap_err() {
            ns_runtime::drive::DriveError::Sink(error) => {
                if let SinkError::Full { records, .. } = error {
                    assert_eq!(driven.sent.records, records);
                }
                Some((error, std::fs::read(&path).unwrap()))
            }
            other => panic!("{other}"),
        }
    };
    let Some((error, bytes)) = std::thread::scope(|scope| scope.spawn(disk_full).join().unwrap())
    else {
        return;
    };
    assert_eq!(Exit::of_sink(&error), Exit::Output);
    let SinkError::Full { records, bytes: kept, .. } = error else { panic!("{error}") };
    assert_eq!(kept as usize, bytes.len());
    assert!((400_000..=524_288).contains(&bytes.len()));
    let mut reader = pcap_file::pcap::PcapReader::new(&bytes[..]).unwrap();
    let mut count = 0;
    while let Some(packet) = reader.next_packet() {
        packet.unwrap();
        count += 1;
    }
    assert_eq!(count, records);
}

#[test]
fn full_frames_are_accepted_by_a_real_stack_as_root() {
    let Some(namespaces) = Namespaces::new(1500) else { return };
    namespaces.ip(1, "addr add 10.9.0.2/24 dev wire0");
    let listener = namespaces.within(1, || UdpSocket::bind("10.9.0.2:7000").unwrap());
    listener.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let payload = Payload::random(1);
    namespaces.within(0, || {
        let interface = Interface::find("wire0").unwrap();
        let source = interface.mac;
        let mut sink = open_sink(&payload, Oversize::Error, SendThrough::AfPacket).unwrap();
        // Broadcast at the link, so that the stack takes it for its own.
        let options = PacketOptions {
            source,
            destination: [0xff; 6],
            payload: payload.clone(),
            ..PacketOptions::default()
        };
        let mut render = PacketRender::new(&schema(), options).unwrap();
        let tuple = [0x0a09_0001, 0x0a09_0002, 40_000, 7000, 17].map(Value::Int);
        let mut flow = render.begin_flow(0, &tuple);
        let events: Vec<_> = [28, 29, 128, 1500]
            .map(|len| Event {
                time_ns: 0,
                flow: 0,
                record: 0,
                item: render.record(&mut flow, 0, &[Value::Int(len), Value::Int(0)]),
            })
            .into();
        sink.write(&events).unwrap();
    });
    let mut buffer = [0; 2000];
    for len in [0, 1, 100, 1472] {
        let (found, from) = listener.recv_from(&mut buffer).expect("the stack dropped a packet");
        assert_eq!((found, from.to_string()), (len, "10.9.0.1:40000".to_owned()));
    }
}

/// Reads a frame, and the tag that the system has taken off it.
fn read_tagged(from: &File, buffer: &mut [u8]) -> (usize, Option<u16>) {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0_u64; 16];
    // SAFETY: msghdr and tpacket_auxdata are numbers and pointers, for which all zeros is a value.
    // All that the message points at lives through the calls, and its sizes are given; the
    // system says of its control data how much there is.
    #[allow(unsafe_code)]
    unsafe {
        let on: libc::c_int = 1;
        let (fd, size) = (from.as_raw_fd(), size_of_val(&on) as u32);
        libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, (&raw const on).cast(), size);
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let len = libc::recvmsg(fd, &raw mut message, 0);
        assert!(len > 0, "a frame is missing: {}", io::Error::last_os_error());
        let first = libc::CMSG_FIRSTHDR(&raw const message);
        let data = first
            .as_ref()
            .map(|_| libc::CMSG_DATA(first).cast::<libc::tpacket_auxdata>().read_unaligned());
        let valid = |data: &libc::tpacket_auxdata| data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        (len as usize, data.filter(valid).map(|data| data.tp_vlan_tci))
    }
}

#[test]
fn each_side_has_an_interface_and_frames_a_tag_as_root() {
    let Some(namespaces) = Namespaces::new(1500) else { return };
    namespaces.add_pair("wire1");
    WAYS.into_iter().for_each(|way| send_both_sides(&namespaces, way));
}

fn send_both_sides(namespaces: &Namespaces, send_through: SendThrough) {
    let payload = Payload::random(5);
    let receivers = ["wire0", "wire1"].map(|name| namespaces.within(1, || receiver_at(name)));
    let reports = namespaces.within(0, || {
        let interfaces = ["wire0", "wire1"].map(|name| Interface::find(name).unwrap());
        let options = WireOptions {
            payload: payload.clone(),
            vlan: Some(300),
            on_down: OnDown::Abort,
            send_through,
            ..WireOptions::default()
        };
        let mut sink = InterfaceSink::open(interfaces.into(), options).unwrap();
        let mut events = frames(&payload, 2000, 1500);
        sink.write(&events.split_off(1)).unwrap();
        sink.write(&events).unwrap();
        sink.finish().unwrap();
        sink.interfaces()
    });
    let mut events = frames(&payload, 2000, 1500);
    let first = events.remove(0);
    events.push(first);
    let mut buffer = vec![0; 70_000];
    let mut counts = [0; 2];
    for event in &events {
        let side = event.item.side();
        let mut expected = Vec::new();
        event.item.append_to(&payload, usize::MAX, &mut expected);
        let (len, tag) = read_tagged(&receivers[side], &mut buffer);
        assert_eq!((&buffer[..len], tag), (&expected[..], Some(300)));
        counts[side] += 1;
    }
    assert!(counts.iter().all(|&count| count > 500), "{counts:?}");
    for (report, count) in reports.iter().zip(counts) {
        assert_eq!((report.sent, report.counted, report.lost), (count, Some(count), 0));
    }
}

#[test]
fn nothing_goes_where_it_is_not_allowed_as_root() {
    let Some(namespaces) = Namespaces::new(1500) else { return };
    let payload = Payload::zero();
    let mut receiver = namespaces.within(1, receiver);
    let send = |allow: &[&str]| {
        namespaces.within(0, || {
            let options = WireOptions {
                payload: payload.clone(),
                allow: allow.iter().map(|prefix| prefix.parse().unwrap()).collect(),
                ..WireOptions::default()
            };
            let interfaces = vec![Interface::find("wire0").unwrap()];
            let mut sink = InterfaceSink::open(interfaces, options).unwrap();
            let result = sink.write(&frames(&payload, 100, 1500));
            (sink.sent().records, result)
        })
    };
    // Both directions are asked about: 10.1.0.1 answers what 10.0.0.1 and others say.
    let (sent, result) = send(&["10.1.0.0/16"]);
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a packet to 10.0.0.1 is refused: packets may only go to `10.1.0.0/16`"
    );
    assert_eq!((sent, Exit::of_sink(&error)), (0, Exit::Usage));
    assert!(sink_hint(&error).unwrap().contains("--map 0.0.0.0/0=PREFIX"));
    let (sent, result) = send(&["10.1.0.1", "2001:db8::/32", "10.0.0.0/24"]);
    result.unwrap();
    assert_eq!(sent, 100);
    let mut buffer = vec![0; 2000];
    for event in frames(&payload, 100, 1500) {
        // The first that comes is of the second try.
        let len = receiver.read(&mut buffer).expect("a frame is missing");
        assert!(buffer[..len].starts_with(event.item.headers()));
    }
}
