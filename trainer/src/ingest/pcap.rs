//! PCAP files, and reading captures of either kind.

use std::io;
use std::path::Path;

use ns_model_format::Packet;

use super::ip::{self, Record};
use super::source::Source;
use super::unusable::{Tally, Unusable};
use super::{IngestError, NotUsed, OnError, pcapng};

/// The packets of a capture in order of time, and what was left out.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// In order of time; of equal times, in the file's order.
    pub packets: Vec<Packet>,
    /// Records that are no usable packet, by reason.
    pub not_used: NotUsed,
    /// Records in the file: packets and those not used.
    pub records: u64,
}

/// Reads a whole capture into memory.
///
/// # Errors
/// The file cannot be read, is not a capture, is damaged (unless skipped), or
/// holds no usable packet.
pub fn read(path: &Path, on_error: OnError) -> Result<Capture, IngestError> {
    let source =
        Source::open(path).map_err(|source| IngestError::Io { path: path.to_owned(), source })?;
    collect(source, path, on_error)
}

/// Reads a capture from memory; `path` stands for it in errors.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8], path: &Path, on_error: OnError) -> Result<Capture, IngestError> {
    let source = Source::new(io::Cursor::new(bytes.to_vec()))
        .map_err(|source| IngestError::Io { path: path.to_owned(), source })?;
    collect(source, path, on_error)
}

fn collect(mut source: Source, path: &Path, on_error: OnError) -> Result<Capture, IngestError> {
    let mut counts = Counts::default();
    let mut packets = Vec::new();
    stream(&mut source, path, on_error, &mut counts, |packet, _| packets.push(packet))?;
    let records = counts.records;
    let not_used = counts.tally.into_not_used();
    if packets.is_empty() {
        return Err(IngestError::Empty { path: path.to_owned(), others: 0, not_used });
    }
    packets.sort_by_key(|packet| packet.time_ns);
    Ok(Capture { packets, not_used, records })
}

/// What is counted while captures are read.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Records that are no usable packet.
    pub(super) tally: Tally,
    /// Records: packets and those not used.
    pub(super) records: u64,
    /// Packets that carry another IP packet.
    pub(super) carrying: u64,
}

/// What a file's reader finds.
pub(super) enum Event<'a> {
    /// A record with a captured frame.
    Record(Record<'a>),
    /// A record of another kind.
    Unusable(Unusable),
}

/// Why a file's reader stops before the end.
pub(super) enum Fault {
    /// The file ends in the middle of a record.
    Cut,
    /// Something that cannot be.
    Damage {
        /// Where it begins.
        offset: u64,
        /// What it is.
        reason: String,
    },
    /// The system's.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

/// Hands a capture's packets over in the file's order, each with its record. A file that merely ends
/// early is read up to there.
///
/// # Errors
/// The file cannot be read, is not a capture, or is damaged (unless skipped).
pub(super) fn stream(
    source: &mut Source,
    path: &Path,
    on_error: OnError,
    counts: &mut Counts,
    mut packet: impl FnMut(Packet, &Record<'_>),
) -> Result<(), IngestError> {
    let not_a_capture = |reason: String| IngestError::NotACapture { path: path.to_owned(), reason };
    let io_error = |source| IngestError::Io { path: path.to_owned(), source };
    // Counted in this file, for errors; `counts` may go on from others.
    let mut records = 0_u64;
    let take = |event: Event<'_>| {
        records += 1;
        let found = match &event {
            Event::Record(record) => ip::packet(record).map(|found| (found, record)),
            Event::Unusable(reason) => Err(*reason),
        };
        match found {
            Ok(((found, carries), record)) => {
                counts.carrying += u64::from(carries);
                packet(found, record);
            }
            Err(reason) => counts.tally.count(reason),
        }
    };
    let head = match source.fill(HEADER) {
        Ok(head) => &head[..head.len().min(HEADER)],
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(not_a_capture(format!("it is damaged gzip: {error}")));
        }
        Err(error) => return Err(io_error(error)),
    };
    let read = if head.starts_with(&pcapng::MAGIC) {
        pcapng::read(source, take)
    } else {
        let header = Header::parse(head).map_err(not_a_capture)?;
        source.consume(HEADER);
        header.read(source, take)
    };
    counts.records += records;
    let (offset, reason) = match read {
        Ok(()) => return Ok(()),
        Err(Fault::Cut) => {
            counts.tally.count(Unusable::CutByEndOfFile);
            counts.records += 1;
            return Ok(());
        }
        Err(Fault::Damage { offset, reason }) => (offset, reason),
        Err(Fault::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            (source.position(), format!("damaged gzip: {error}"))
        }
        Err(Fault::Io(error)) => return Err(io_error(error)),
    };
    if on_error == OnError::Stop {
        let reason = format!(
            "{reason}{} (`--on-error skip` uses what comes before)",
            if source.is_compressed() { ", counted after decompression" } else { "" }
        );
        let record = records + 1;
        return Err(IngestError::Record { path: path.to_owned(), record, offset, reason });
    }
    counts.tally.count(Unusable::DamagedFromHere);
    counts.records += 1;
    Ok(())
}

/// Whether a file's first bytes, after decompression, are those of a capture.
#[must_use]
pub fn is_capture(head: &[u8]) -> bool {
    head.starts_with(&pcapng::MAGIC)
        || head.first_chunk().is_some_and(|magic| format_of(*magic).is_some())
}

/// Latest time that is taken, in 2043: spans of time stay far from the ends of their range.
pub(super) const LATEST_TIME_NS: i64 = i64::MAX / 4;

/// The length of a record's frame, which may not be above what programs write.
pub(super) fn check_captured(captured: u32, link_type: u32) -> Result<usize, String> {
    /// libpcap's largest, but for the links below, which carry no IP.
    const MOST: u32 = 262_144;
    const MOST_BUS: u32 = 128 << 20;
    // D-Bus, USBPcap.
    let most = if matches!(link_type, 231 | 249) { MOST_BUS } else { MOST };
    if captured > most {
        return Err(format!("{captured} captured bytes, more than {most}"));
    }
    Ok(captured as usize)
}

/// Bytes of a file's header.
const HEADER: usize = 24;
/// Bytes before each frame.
const RECORD_HEADER: usize = 16;

/// What the first bytes of a pcap say: big-endian or not, nanoseconds a unit
/// of a time's fraction, and bytes after each record's header that no reader needs.
fn format_of(magic: [u8; 4]) -> Option<(bool, u32, usize)> {
    let formats = [
        (0xa1b2_c3d4_u32, 1_000, 0),
        (0xa1b2_3c4d, 1, 0),
        // Alexey Kuznetzov's patched libpcap: interface, protocol and packet type follow.
        (0xa1b2_cd34, 1_000, 8),
    ];
    let find = |value: u32| formats.iter().find(|format| format.0 == value);
    let big = find(u32::from_be_bytes(magic)).map(|format| (true, format.1, format.2));
    big.or_else(|| find(u32::from_le_bytes(magic)).map(|format| (false, format.1, format.2)))
}

/// A pcap's header.
struct Header {
    big_endian: bool,
    fraction_ns: u32,
    extra: usize,
    link_type: u32,
    lengths: Lengths,
}

/// In which order a record's two lengths are; before version 2.3 the original
/// one came first, and in 2.3 programs did not agree.
#[derive(Clone, Copy)]
enum Lengths {
    CapturedFirst,
    OriginalFirst,
    SmallerIsCaptured,
}

impl Header {
    fn parse(head: &[u8]) -> Result<Header, String> {
        let magic = head.first_chunk().copied();
        let Some((big_endian, fraction_ns, extra)) = magic.and_then(format_of) else {
            return Err(not_a_capture(head));
        };
        let Some(head) = head.first_chunk::<HEADER>() else {
            return Err(format!("it ends inside its header, after {} bytes", head.len()));
        };
        let link_type = number(big_endian, [head[20], head[21], head[22], head[23]]);
        let version = [[head[4], head[5]], [head[6], head[7]]].map(|bytes| {
            if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        });
        let lengths = match version {
            [2, 0..3] => Lengths::OriginalFirst,
            [2, 3] => Lengths::SmallerIsCaptured,
            _ => Lengths::CapturedFirst,
        };
        // The upper half says whether frames end in a checksum.
        Ok(Header { big_endian, fraction_ns, extra, link_type: link_type & 0xffff, lengths })
    }

    fn read(self, source: &mut Source, mut take: impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let header_len = RECORD_HEADER + self.extra;
        loop {
            let offset = source.position();
            let head = source.fill(header_len)?;
            if head.len() < header_len {
                return if head.is_empty() && !source.is_cut() { Ok(()) } else { Err(Fault::Cut) };
            }
            let field = |at: usize| {
                number(self.big_endian, [head[at], head[at + 1], head[at + 2], head[at + 3]])
            };
            let time_ns = i64::from(field(0)) * 1_000_000_000
                + i64::from(field(4)) * i64::from(self.fraction_ns);
            let (captured, original_len) = match (self.lengths, field(8), field(12)) {
                (Lengths::CapturedFirst, first, second) => (first, second),
                (Lengths::OriginalFirst, first, second) => (second, first),
                (Lengths::SmallerIsCaptured, first, second) => {
                    (first.min(second), first.max(second))
                }
            };
            let captured = check_captured(captured, self.link_type)
                .map_err(|reason| Fault::Damage { offset, reason })?;
            let whole = header_len + captured;
            let Some(data) = source.fill(whole)?.get(header_len..whole) else {
                return Err(Fault::Cut);
            };
            take(Event::Record(Record {
                link_type: self.link_type,
                time_ns: (time_ns <= LATEST_TIME_NS).then_some(time_ns),
                data,
                original_len,
            }));
            source.consume(whole);
        }
    }
}

fn number(big_endian: bool, bytes: [u8; 4]) -> u32 {
    if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
}

/// What a file is instead, as far as its first bytes tell.
fn not_a_capture(head: &[u8]) -> String {
    let compressed = [
        (&[0x28, 0xb5, 0x2f, 0xfd][..], "zstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
        (b"BZh", "bzip2"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
        (&[0x1f, 0x8b], "gzip, twice"),
    ];
    if head.is_empty() {
        return "it is empty".to_owned();
    }
    match compressed.iter().find(|(magic, _)| head.starts_with(magic)) {
        Some((_, name)) => format!("it is compressed with {name}; decompress it first"),
        None => "it begins like no pcap or pcapng file".to_owned(),
    }
}

#[cfg(test)]
pub(in crate::ingest) mod tests;
