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
}

impl Side {
    fn new(initial: u32) -> Side {
        Side { next: initial, spoke: false, beyond_syn: false, syn: 0, fin: false, reset: false }
    }
}

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    sides: [Side; 2],
    /// Bytes of options in the first SYN, `None` if there was none.
    offered: Option<u8>,
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
}

impl Connection {
    /// A connection that nobody has spoken on, with both initial numbers.
    pub(super) fn new(initial: [u32; 2]) -> Connection {
        Connection { sides: initial.map(Side::new), offered: None }
    }

    /// The next segment from side `from`: `modelled` flags, or those of a
    /// connection in order if the model has none, of `modelled_len` bytes, of which a
    /// SYN and what follows a FIN have at most `most_options` of options.
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
        let payload = (len - TCP_BYTES) as u32;
        if modelled.is_none() && payload > 0 {
            flags |= PSH;
        }
        let side = &mut self.sides[from];
        if side.fin && flags == ACK && len.is_multiple_of(4) && payload as usize <= most_options {
            // After its FIN a side only acknowledges: the bytes of a packet are those of the
            // options that the trace had there, timestamps mostly (RFC 7323).
            let (sequence, acknowledgement) = (side.next, self.sides[1 - from].next);
            return Segment { flags, sequence, acknowledgement, len, options: payload as usize };
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
            }
            sequence
        };
        side.spoke = true;
        side.beyond_syn = true;
        side.fin |= flags & FIN != 0;
        side.reset |= flags & RST != 0;
        let acknowledgement = if flags & ACK != 0 { self.sides[1 - from].next } else { 0 };
        Segment { flags, sequence, acknowledgement, len, options: 0 }
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
        }
        // A SYN carries options but no payload; options come in words of 4 bytes.
        let options = modelled_len.saturating_sub(TCP_BYTES).div_ceil(4) * 4;
        let options = options.min(most_options);
        let len = TCP_BYTES + options;
        repairs.add_if(len != modelled_len, Repairs::LENGTH);
        if flags & ACK == 0 {
            self.offered = Some(options as u8);
        }
        let side = &mut self.sides[from];
        if side.syn == 0 {
            side.next = side.next.wrapping_add(1);
        }
        side.syn = flags;
        side.spoke = true;
        let sequence = side.next.wrapping_sub(1);
        let acknowledgement = if flags & ACK != 0 { self.sides[1 - from].next } else { 0 };
        Segment { flags, sequence, acknowledgement, len, options }
    }

    /// Fills a SYN's options (RFC 9293, 2018, 7323). Timestamps are offered
    /// but never accepted, since no later packet carries them; what is left is NOPs, and so
    /// are the options of other segments, which stand for what the trace had there.
    pub(super) fn write_options(
        &self,
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
        if len >= 4 {
            put(&mss);
        }
        if len >= 8 && (!answer || offered >= 8) {
            if answer || len < 16 {
                put(&[NOP, NOP]);
            }
            put(&sack_permitted);
        }
        if !answer && len >= 16 {
            // Milliseconds, from a place that differs between connections.
            let now = ((time_ns / 1_000_000) as u32).wrapping_add(segment.sequence);
            let [a, b, c, d] = now.to_be_bytes();
            put(&[8, 10, a, b, c, d, 0, 0, 0, 0]);
        }
        if (answer && len >= 12 && scales(offered)) || (!answer && scales(len)) {
            put(&window_scale);
        }
    }
}
