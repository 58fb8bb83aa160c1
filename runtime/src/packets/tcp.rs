//! A TCP connection as both of its sides would number and flag it (RFC 9293).
//!
//! Modelled flags are changed only where no packet may carry them, or no packet
//! may follow those before. A flow may begin anywhere in a connection: most of
//! a capture's long flows do.

use super::repairs::Repairs;

/// No more data from this side.
pub(super) const FIN: u8 = 0x01;
/// The connection begins.
pub(super) const SYN: u8 = 0x02;
/// The connection is gone.
pub(super) const RST: u8 = 0x04;
/// Hand over at once.
pub(super) const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub(super) const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub(super) const URG: u8 = 0x20;

/// TCP header without options.
pub(super) const TCP_BYTES: usize = 20;
/// The most that our SYNs carry.
pub(super) const MOST_OPTION_BYTES: usize = 20;
/// Timestamps behind two NOPs, as segments carry them (RFC 7323, appendix A).
const STAMP_BYTES: usize = 12;
/// Of segments that wait for their acknowledgement, so many ends are kept.
const WAITING: usize = 15;
/// And so many of them are acknowledged at once (RFC 1122, 4.2.3.2).
const AT_ONCE: usize = 2;
/// What an acknowledgement stands for where the trace has no packets of the side that it answers:
/// as many segments of an Ethernet's size.
const UNSEEN_BYTES: u32 = AT_ONCE as u32 * 1448;
/// The window of a side that has read all that came, and by how much each update moves it.
const WINDOW: u16 = 64_240;
const WINDOW_UPDATE: u16 = 256;
/// Updates before the window is what it was at first.
const WINDOW_UPDATES: u8 = 6;
/// From so many bytes of options on, our SYNs have timestamps among them.
const STAMPED_SYN_BYTES: usize = 16;

/// One side of a connection.
#[derive(Clone, Copy, Debug)]
struct Side {
    /// The sequence number of what it sends next.
    next: u32,
    /// It has sent something, SYNs included.
    spoke: bool,
    /// It has sent something that is not a SYN.
    beyond_syn: bool,
    /// The flags of its SYN, if it sent one.
    syn: u8,
    /// It has sent a FIN, whose number is `next - 1`.
    fin: bool,
    /// It has sent a RST.
    reset: bool,
    /// The ends of segments that the other side has not acknowledged, `waiting` of them.
    ends: [u32; WAITING],
    waiting: u8,
    /// What it has acknowledged last.
    acknowledged: Option<u32>,
    /// How often it has moved its window since.
    updates: u8,
    /// What its clock of timestamps is ahead of the trace's.
    clock: u32,
    /// The last timestamp that it has sent, if it sent one.
    stamp: Option<u32>,
}

impl Side {
    fn new(initial: u32) -> Side {
        Side {
            next: initial,
            spoke: false,
            beyond_syn: false,
            syn: 0,
            fin: false,
            reset: false,
            ends: [0; WAITING],
            waiting: 0,
            acknowledged: None,
            updates: 0,
            clock: initial,
            stamp: None,
        }
    }
}

impl Side {
    /// Its last segment waits for an acknowledgement; what has waited longest is taken to have
    /// it where too many do.
    #[inline]
    fn wait(&mut self) {
        if usize::from(self.waiting) == WAITING {
            self.ends.copy_within(1.., 0);
            self.waiting -= 1;
        }
        self.ends[usize::from(self.waiting)] = self.next;
        self.waiting += 1;
    }
}

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    sides: [Side; 2],
    /// Bytes of options in the first SYN, `None` if there was none.
    offered: Option<u8>,
    /// Whether segments carry timestamps: as both SYNs say, or as what follows shows.
    stamped: Option<bool>,
}

/// What goes into a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) flags: u8,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    /// Its bytes, as modelled but for a SYN's.
    pub(super) len: usize,
    /// Bytes of options.
    pub(super) options: usize,
    /// The window, if the model has none: an acknowledgement of nothing new says that more was
    /// read (RFC 9293, 3.8.6); with the same window it would say that something was lost
    /// (RFC 5681).
    pub(super) window: u16,
}

impl Connection {
    /// A connection that nobody has spoken on, with both initial numbers.
    pub(super) fn new(initial: [u32; 2]) -> Connection {
        Connection { sides: initial.map(Side::new), offered: None, stamped: None }
    }

    /// The next segment from side `from`: `modelled` flags, or those of a
    /// connection in order if the model has none, of `modelled_len` bytes, of which at
    /// most `most_options` are options.
    #[inline]
    pub(super) fn segment(
        &mut self,
        from: usize,
        modelled: Option<u8>,
        modelled_len: usize,
        most_options: usize,
        repairs: &mut Repairs,
    ) -> Segment {
        let mut flags = match modelled {
            Some(flags) => {
                let legal = self.legal_combination(from, flags);
                repairs.add_if(legal != flags, Repairs::TCP_FLAGS);
                let in_order = self.legal_order(from, legal);
                repairs.add_if(in_order != legal, Repairs::TCP_ORDER);
                in_order
            }
            None => self.orderly_flags(from, modelled_len),
        };
        if flags & SYN != 0 {
            return self.syn(from, flags, modelled_len, most_options, repairs);
        }
        let len = modelled_len.max(TCP_BYTES);
        repairs.add_if(len != modelled_len, Repairs::LENGTH);
        let options = self.stamp_bytes(flags, len, most_options);
        let payload = (len - TCP_BYTES - options) as u32;
        if modelled.is_none() && payload > 0 {
            flags |= PSH;
        }
        let side = &mut self.sides[from];
        let left = most_options - options;
        if side.fin && flags == ACK && len.is_multiple_of(4) && payload as usize <= left {
            // After its FIN a side only acknowledges: the bytes of a packet are those of the
            // options that the trace had there.
            let (sequence, acknowledgement) = (side.next, self.acknowledge(from, true));
            let options = len - TCP_BYTES;
            let window = self.window(from);
            return Segment { flags, sequence, acknowledgement, len, options, window };
        }
        let sequence = if side.fin && (payload > 0 || flags & FIN != 0) && flags & RST == 0 {
            // Nothing new can follow a FIN: this is sent again, up to the FIN.
            let again = flags & FIN != 0;
            repairs.add_if(payload > 0 && !again, Repairs::TCP_ORDER);
            side.next.wrapping_sub(1).wrapping_sub(payload)
        } else {
            let sequence = side.next;
            // A RST's data, if any, takes no numbers: nothing follows it.
            if flags & RST == 0 {
                side.next = sequence.wrapping_add(payload + u32::from(flags & FIN));
                if payload > 0 || flags & FIN != 0 {
                    side.wait();
                }
            }
            sequence
        };
        side.spoke = true;
        side.beyond_syn = true;
        side.fin |= flags & FIN != 0;
        side.reset |= flags & RST != 0;
        let pure = flags == ACK && payload == 0;
        let acknowledgement = if flags & ACK != 0 { self.acknowledge(from, pure) } else { 0 };
        Segment { flags, sequence, acknowledgement, len, options, window: self.window(from) }
    }

    fn window(&self, from: usize) -> u16 {
        WINDOW + WINDOW_UPDATE * u16::from(self.sides[from].updates)
    }

    /// What a segment from a side acknowledges: all that came, but where it does nothing else, one
    /// or two segments and at most half of those that wait, since others of its kind may follow at
    /// once. Once both sides have closed it may be the last.
    #[inline]
    fn acknowledge(&mut self, from: usize, pure: bool) -> u32 {
        let Side { acknowledged: before, fin, .. } = self.sides[from];
        let other = &mut self.sides[1 - from];
        let waiting = usize::from(other.waiting);
        let mut number = other.next;
        if pure && !(fin && other.fin) && waiting > 1 {
            let taken = waiting.div_ceil(2).min(AT_ONCE);
            number = other.ends[taken - 1];
            other.ends.copy_within(taken.., 0);
            other.waiting -= taken as u8;
        } else {
            other.waiting = 0;
            if pure && !other.spoke && before == Some(number) {
                // It must be new to be said, and stays new if that side speaks after all.
                other.next = number.wrapping_add(UNSEEN_BYTES);
                number = other.next;
            }
        }
        let side = &mut self.sides[from];
        side.updates = match (before == Some(number), pure) {
            (true, true) => (side.updates + 1) % WINDOW_UPDATES,
            (true, false) => side.updates,
            (false, _) => 0,
        };
        side.acknowledged = Some(number);
        number
    }

    /// Bytes of timestamps that a segment that is no SYN has if there is room for them.
    #[inline]
    pub(super) fn stamp_bytes_of(&self, flags: u8, len: usize) -> usize {
        let shows = || flags & !FIN == ACK && len == TCP_BYTES + STAMP_BYTES;
        if self.stamped.unwrap_or_else(shows) { STAMP_BYTES } else { 0 }
    }

    /// Bytes of timestamps in a segment that is no SYN.
    ///
    /// The model knows how long a segment is, not its header. Where no SYN has said whether
    /// timestamps are in use, an acknowledgement of just their size says so: nobody hands over twelve
    /// bytes without a push.
    #[inline]
    fn stamp_bytes(&mut self, flags: u8, len: usize, most_options: usize) -> usize {
        let bytes = self.stamp_bytes_of(flags, len);
        if bytes == 0 || len < TCP_BYTES + bytes || most_options < bytes {
            return 0;
        }
        self.stamped = Some(true);
        bytes
    }

    /// The nearest flags that a packet may carry at all.
    #[inline]
    fn legal_combination(&self, from: usize, flags: u8) -> u8 {
        let mut legal = flags;
        if legal & SYN != 0 && legal & (FIN | RST) != 0 {
            // Of two that exclude each other, the one that the side's past allows.
            legal &= if self.may_begin(from) { !(FIN | RST) } else { !SYN };
        }
        if legal & (FIN | RST) == FIN | RST {
            legal &= !FIN;
        }
        // Everything acknowledges but the first SYN, and a RST that answers nothing.
        if legal & (SYN | RST) == 0 { legal | ACK } else { legal }
    }

    /// Whether a SYN from the side is in order: its first words, the same
    /// again, or a new connection after the old one ended.
    #[inline]
    fn may_begin(&self, from: usize) -> bool {
        let side = &self.sides[from];
        !side.beyond_syn || self.is_over()
    }

    #[inline]
    fn is_over(&self) -> bool {
        let [one, other] = &self.sides;
        one.reset || other.reset || (one.fin && (other.fin || !other.spoke))
    }

    /// The nearest flags that may follow what was sent before.
    #[inline]
    fn legal_order(&self, from: usize, flags: u8) -> u8 {
        let side = &self.sides[from];
        let other = &self.sides[1 - from];
        if flags & SYN != 0 {
            if !self.may_begin(from) {
                return flags & !SYN | ACK;
            }
            // Only the first SYN of a connection acknowledges nothing; that SYN
            // may be sent again, and a later one is an answer to it.
            let answers = other.spoke && side.syn == 0 && !self.is_over();
            return if answers { flags | ACK } else { flags };
        }
        if side.reset && flags & RST == 0 {
            // A closed side answers whatever still comes with RSTs.
            return flags & !(FIN | PSH | URG) | RST;
        }
        flags
    }

    /// Flags where the model has none: a handshake where the lengths allow it, then data.
    #[inline]
    fn orderly_flags(&self, from: usize, len: usize) -> u8 {
        let other = &self.sides[1 - from];
        let first = !self.sides[from].spoke;
        let fits = len <= TCP_BYTES + MOST_OPTION_BYTES;
        match (first && fits, from, other.spoke) {
            (true, 0, false) => SYN,
            (true, 1, true) if other.syn != 0 => SYN | ACK,
            _ => ACK,
        }
    }

    #[inline(never)]
    fn syn(
        &mut self,
        from: usize,
        flags: u8,
        modelled_len: usize,
        most_options: usize,
        repairs: &mut Repairs,
    ) -> Segment {
        if self.sides[from].beyond_syn || (self.is_over() && flags & ACK == 0) {
            // A new connection on the old addresses: numbers go on from a place
            // that no segment of the old one can reach.
            let initial = |side: &Side| side.next.wrapping_add(0x0100_0000);
            self.sides = [Side::new(initial(&self.sides[0])), Side::new(initial(&self.sides[1]))];
            self.offered = None;
            self.stamped = None;
        }
        // A SYN carries options but no payload; options come in words of 4 bytes.
        let options = modelled_len.saturating_sub(TCP_BYTES).div_ceil(4) * 4;
        let options = options.min(most_options);
        let len = TCP_BYTES + options;
        repairs.add_if(len != modelled_len, Repairs::LENGTH);
        if flags & ACK == 0 {
            self.offered = Some(options as u8);
        }
        // Offered by the one and accepted by the other (RFC 7323, 3.2).
        let stamped = options >= STAMPED_SYN_BYTES;
        if !stamped || flags & ACK != 0 {
            self.stamped = Some(stamped && self.offers_stamps());
        }
        let side = &mut self.sides[from];
        if side.syn == 0 {
            side.next = side.next.wrapping_add(1);
        }
        side.syn = flags;
        side.spoke = true;
        let sequence = side.next.wrapping_sub(1);
        let acknowledgement = if flags & ACK != 0 { self.acknowledge(from, false) } else { 0 };
        Segment { flags, sequence, acknowledgement, len, options, window: WINDOW }
    }

    /// Whether the first SYN, if there was one, had timestamps.
    fn offers_stamps(&self) -> bool {
        self.offered.is_none_or(|bytes| usize::from(bytes) >= STAMPED_SYN_BYTES)
    }

    /// Timestamps of a segment from side `from`, in milliseconds, from a place that differs
    /// between connections and sides; it echoes what the other side has sent last.
    fn stamps(&mut self, from: usize, flags: u8, time_ns: u64) -> [u8; 10] {
        let now = (time_ns / 1_000_000) as u32;
        let other = &self.sides[1 - from];
        let echo = match (flags & ACK != 0, other.stamp) {
            (false, _) => 0,
            (true, Some(stamp)) => stamp,
            (true, None) => now.wrapping_add(other.clock),
        };
        let side = &mut self.sides[from];
        let stamp = now.wrapping_add(side.clock);
        side.stamp = Some(stamp);
        let mut option = [8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        option[2..6].copy_from_slice(&stamp.to_be_bytes());
        option[6..].copy_from_slice(&echo.to_be_bytes());
        option
    }

    /// Fills a segment's options (RFC 9293, 2018, 7323). What is left is NOPs, and stands for
    /// what the trace had there.
    pub(super) fn write_options(
        &mut self,
        from: usize,
        segment: &Segment,
        most_segment: u16,
        time_ns: u64,
        out: &mut [u8],
    ) {
        const NOP: u8 = 1;
        let offered = self.offered.map_or(MOST_OPTION_BYTES, usize::from);
        let answer = segment.flags & ACK != 0;
        let len = out.len();
        out.fill(NOP);
        if segment.flags & SYN == 0 {
            if self.stamped == Some(true)
                && let Some(room) = out.get_mut(2..STAMP_BYTES)
            {
                room.copy_from_slice(&self.stamps(from, segment.flags, time_ns));
            }
            return;
        }
        let mut at = 0;
        let mut put = |option: &[u8]| {
            if let Some(room) = out.get_mut(at..at + option.len()) {
                room.copy_from_slice(option);
                at += option.len();
            }
        };
        let [high, low] = most_segment.to_be_bytes();
        let mss = [2, 4, high, low];
        let sack_permitted = [4, 2];
        let window_scale = [NOP, 3, 3, 7];
        let scales = |options: usize| matches!(options, 12 | 20);
        let stamped = len >= STAMPED_SYN_BYTES && (!answer || self.offers_stamps());
        if len >= 4 {
            put(&mss);
        }
        if len >= 8 && (!answer || offered >= 8) {
            if !stamped {
                put(&[NOP, NOP]);
            }
            put(&sack_permitted);
        }
        if stamped {
            put(&self.stamps(from, segment.flags, time_ns));
        }
        if (answer && len >= 12 && scales(offered)) || (!answer && scales(len)) {
            put(&window_scale);
        }
    }
}
