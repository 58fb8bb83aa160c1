//! Flow records to a collector over UDP: IPFIX (RFC 7011) and NetFlow version 9 (RFC 3954).

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::{Sent, Sink, SinkError};
use crate::flow_records::FlowRecord;
use crate::render::Event;

/// How long a refusal of the last datagram is waited for.
const ANSWER: std::time::Duration = std::time::Duration::from_millis(100);
/// Longest datagram: with its headers it fits a usual MTU, tunnels included.
const MOST_BYTES: usize = 1400;
/// Templates are told again after so many datagrams: a collector may have begun later.
const TEMPLATES_EVERY: u64 = 64;
/// Times that a full queue is asked again, a millisecond apart.
const TRIES: u32 = 100;
/// Numbers of the templates, above those of sets.
const TEMPLATE_V4: u16 = 256;
const TEMPLATE_V6: u16 = 257;
/// First and last time: IPFIX tells them in milliseconds since 1970, ...
const IPFIX_FIELDS: [(u16, u16); 2] = [(152, 8), (153, 8)];
/// ... NetFlow in milliseconds since the exporter began.
const NETFLOW_FIELDS: [(u16, u16); 2] = [(22, 4), (21, 4)];
/// Ports, protocol, type of service, TCP flags, packets, bytes; the same numbers in both.
const COMMON_FIELDS: [(u16, u16); 7] = [(7, 2), (11, 2), (4, 1), (5, 1), (6, 1), (2, 8), (1, 8)];

/// How flow records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// RFC 7011.
    Ipfix,
    /// RFC 3954.
    NetFlow9,
}

/// Makes datagrams of flow records.
#[derive(Debug)]
struct Writer {
    format: ExportFormat,
    /// When the run begins, since 1970, in whole seconds as NetFlow tells when it began.
    begin_ms: u64,
    /// When the run begins.
    origin_ns: u64,
    bytes: Vec<u8>,
    /// Where the data set that is being filled begins, and its template.
    set: Option<(usize, u16)>,
    /// Records in the datagram, and those of IPFIX and templates told before it.
    records: u32,
    templates: u32,
    /// The latest time in it.
    latest_ms: u64,
    datagrams: u64,
    /// Records in all datagrams before.
    exported: u64,
}

impl Writer {
    fn new(format: ExportFormat, origin_ns: i64) -> Writer {
        let origin_ns = u64::try_from(origin_ns).unwrap_or(0);
        // A whole second, since NetFlow tells it so.
        let begin_ms = origin_ns / 1_000_000_000 * 1000;
        Writer {
            format,
            begin_ms,
            origin_ns,
            bytes: Vec::with_capacity(MOST_BYTES),
            set: None,
            records: 0,
            templates: 0,
            latest_ms: begin_ms,
            datagrams: 0,
            exported: 0,
        }
    }

    fn put(&mut self, number: u128, bytes: usize) {
        self.bytes.extend_from_slice(&number.to_be_bytes()[16 - bytes..]);
    }

    fn record_bytes(&self, is_v6: bool) -> usize {
        self.fields(is_v6).map(|(_, len)| usize::from(len)).sum()
    }

    fn fields(&self, is_v6: bool) -> impl Iterator<Item = (u16, u16)> {
        let addresses = if is_v6 { [(27, 16), (28, 16)] } else { [(8, 4), (12, 4)] };
        let times = match self.format {
            ExportFormat::Ipfix => IPFIX_FIELDS,
            ExportFormat::NetFlow9 => NETFLOW_FIELDS,
        };
        addresses.into_iter().chain(COMMON_FIELDS).chain(times)
    }

    /// The header, filled in at the end; templates now and then.
    fn begin(&mut self) {
        let header = match self.format {
            ExportFormat::Ipfix => 16,
            ExportFormat::NetFlow9 => 20,
        };
        self.bytes.clear();
        self.bytes.resize(header, 0);
        (self.set, self.records, self.templates) = (None, 0, 0);
        if !self.datagrams.is_multiple_of(TEMPLATES_EVERY) {
            return;
        }
        self.templates = 2;
        let begin = self.bytes.len();
        let set = if self.format == ExportFormat::Ipfix { 2 } else { 0 };
        self.put(set, 2);
        self.put(0, 2);
        for (template, is_v6) in [(TEMPLATE_V4, false), (TEMPLATE_V6, true)] {
            let fields: Vec<(u16, u16)> = self.fields(is_v6).collect();
            self.put(template.into(), 2);
            self.put(fields.len() as u128, 2);
            for (field, len) in fields {
                self.put(field.into(), 2);
                self.put(len.into(), 2);
            }
        }
        self.end_set(begin);
    }

    /// Pads a set to words of 4 bytes, and writes its length.
    fn end_set(&mut self, begin: usize) {
        while !(self.bytes.len() - begin).is_multiple_of(4) {
            self.bytes.push(0);
        }
        let len = (self.bytes.len() - begin) as u16;
        self.bytes[begin + 2..begin + 4].copy_from_slice(&len.to_be_bytes());
    }

    /// Adds a record; `false` if there is no room, and the datagram must go first.
    fn add(&mut self, time_ns: u64, record: &FlowRecord) -> bool {
        if self.bytes.is_empty() {
            self.begin();
        }
        let template = if record.is_v6 { TEMPLATE_V6 } else { TEMPLATE_V4 };
        // A set's header, and padding.
        if self.bytes.len() + self.record_bytes(record.is_v6) + 4 + 3 > MOST_BYTES {
            return false;
        }
        match self.set {
            Some((_, of)) if of == template => {}
            before => {
                if let Some((begin, _)) = before {
                    self.end_set(begin);
                }
                self.set = Some((self.bytes.len(), template));
                self.put(template.into(), 2);
                self.put(0, 2);
            }
        }
        for address in record.addresses {
            self.put(address, if record.is_v6 { 16 } else { 4 });
        }
        for port in record.ports {
            self.put(port.into(), 2);
        }
        for byte in [record.protocol, record.tos, record.tcp_flags] {
            self.bytes.push(byte);
        }
        self.put(record.packets.into(), 8);
        self.put(record.bytes.into(), 8);
        let start_ms = self.origin_ns.saturating_add(time_ns) / 1_000_000;
        let end_ms = start_ms.saturating_add(record.duration_ms);
        self.latest_ms = self.latest_ms.max(start_ms);
        for time_ms in [start_ms, end_ms] {
            match self.format {
                ExportFormat::Ipfix => self.put(time_ms.into(), 8),
                // It begins anew after 49 days, as it does in a router.
                ExportFormat::NetFlow9 => {
                    self.put(u128::from((time_ms - self.begin_ms) as u32), 4);
                }
            }
        }
        self.records += 1;
        true
    }

    /// The datagram as it stands, `None` if there is no record in it.
    fn end(&mut self) -> Option<&[u8]> {
        if self.records == 0 {
            return None;
        }
        if let Some((begin, _)) = self.set.take() {
            self.end_set(begin);
        }
        // Whole seconds, so that NetFlow's times, told from when the exporter began, are exact.
        let now_s = self.latest_ms.div_ceil(1000);
        let mut header = Vec::with_capacity(20);
        let mut put = |number: u64, bytes: usize| {
            header.extend_from_slice(&number.to_be_bytes()[8 - bytes..]);
        };
        match self.format {
            ExportFormat::Ipfix => {
                put(10, 2);
                put(self.bytes.len() as u64, 2);
                put(now_s, 4);
                put(self.exported, 4);
            }
            ExportFormat::NetFlow9 => {
                put(9, 2);
                put((self.records + self.templates).into(), 2);
                put(now_s * 1000 - self.begin_ms, 4);
                put(now_s, 4);
                put(self.datagrams, 4);
            }
        }
        // The observation domain.
        put(1, 4);
        self.bytes[..header.len()].copy_from_slice(&header);
        self.exported += u64::from(self.records);
        self.datagrams += 1;
        Some(&self.bytes)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        (self.set, self.records) = (None, 0);
    }
}

/// Sends flow records to a collector.
#[derive(Debug)]
pub struct ExportSink {
    socket: UdpSocket,
    collector: SocketAddr,
    writer: Writer,
    sent: Sent,
}

impl ExportSink {
    /// Opens a socket to the collector; `origin_ns` is when the run begins, since 1970.
    ///
    /// # Errors
    /// There is no way to it.
    pub fn open(
        collector: SocketAddr,
        format: ExportFormat,
        origin_ns: i64,
    ) -> Result<ExportSink, SinkError> {
        let any = if collector.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let open = || {
            let socket = UdpSocket::bind(any)?;
            socket.connect(collector)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| SinkError::Collector { collector, source })?;
        let writer = Writer::new(format, origin_ns);
        Ok(ExportSink { socket, collector, writer, sent: Sent::default() })
    }

    fn send(&mut self) -> Result<(), SinkError> {
        let Some(datagram) = self.writer.end() else { return Ok(()) };
        let mut tries = 0;
        while let Err(source) = self.socket.send(datagram) {
            match source.raw_os_error() {
                Some(libc::EINTR) => {}
                // What it says is of a datagram before: nobody listened there.
                Some(libc::ECONNREFUSED) => self.sent.refused += 1,
                Some(libc::ENOBUFS) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => return Err(SinkError::Collector { collector: self.collector, source }),
            }
        }
        self.writer.clear();
        Ok(())
    }
}

impl Sink<FlowRecord> for ExportSink {
    fn write(&mut self, events: &[Event<FlowRecord>]) -> Result<(), SinkError> {
        for event in events {
            if !self.writer.add(event.time_ns, &event.item) {
                self.send()?;
                // There is room in an empty one.
                self.writer.add(event.time_ns, &event.item);
            }
            self.sent.count(event);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.send()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.send()?;
        if self.writer.datagrams > 0 {
            // What came of the last one is told to who asks, a moment later.
            std::thread::sleep(ANSWER);
            let error = self.socket.take_error().ok().flatten();
            let refused = error.is_some_and(|e| e.raw_os_error() == Some(libc::ECONNREFUSED));
            self.sent.refused += u64::from(refused);
        }
        Ok(())
    }

    fn sent(&self) -> Sent {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(is_v6: bool, packets: u64) -> FlowRecord {
        FlowRecord { is_v6, addresses: [1, 2], packets, ..FlowRecord::default() }
    }

    #[test]
    fn datagrams_have_room_and_lengths_that_fit() {
        for format in [ExportFormat::Ipfix, ExportFormat::NetFlow9] {
            let mut writer = Writer::new(format, 1_700_000_000_123_000_000);
            assert_eq!(writer.end(), None);
            let (mut datagrams, mut records) = (0, 0);
            for number in 0..5000_u64 {
                let record = record(number % 5 == 0, number);
                if !writer.add(number * 1_000_000, &record) {
                    let bytes = writer.end().expect("records");
                    assert!(bytes.len() <= MOST_BYTES && bytes.len().is_multiple_of(4));
                    assert!(bytes.len() > 1200);
                    if format == ExportFormat::Ipfix {
                        assert_eq!(
                            usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
                            bytes.len()
                        );
                        let before = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
                        assert_eq!(before, records);
                    }
                    // Numbers of data sets begin at 256.
                    let header = if format == ExportFormat::Ipfix { 16 } else { 20 };
                    let has_templates = bytes[header] == 0;
                    assert_eq!(has_templates, datagrams % TEMPLATES_EVERY == 0);
                    // Sets fill the datagram to its end.
                    let mut at = header;
                    while at < bytes.len() {
                        at += usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
                    }
                    assert_eq!(at, bytes.len());
                    writer.clear();
                    assert!(writer.add(number * 1_000_000, &record));
                    datagrams += 1;
                    records = number as u32;
                }
            }
            assert!(datagrams > TEMPLATES_EVERY);
        }
    }
}
