//! What had to be changed of modelled values to make a legal packet.

use serde::Serialize;

/// A set of repairs made on one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs(u16);

impl Repairs {
    /// Nothing.
    pub const NONE: Repairs = Repairs(0);
    /// The packet's length did not fit its headers, or 65535 bytes.
    pub const LENGTH: Repairs = Repairs(1);
    /// The first packet of a conversation came from its second side.
    pub const DIRECTION: Repairs = Repairs(2);
    /// A combination of TCP flags that no packet may have.
    pub const TCP_FLAGS: Repairs = Repairs(4);
    /// TCP flags that may not follow those before.
    pub const TCP_ORDER: Repairs = Repairs(8);
    /// IP flags and fragment offset that do not fit together or the length.
    pub const FRAGMENT: Repairs = Repairs(16);
    /// A time to live of 0.
    pub const TTL: Repairs = Repairs(32);
    /// A protocol that is neither a number nor a known name, or that the IP version does not carry.
    pub const PROTOCOL: Repairs = Repairs(64);
    /// A value that does not fit its header field.
    pub const RANGE: Repairs = Repairs(128);

    /// Addresses of both IP versions in one packet.
    pub const VERSION: Repairs = Repairs(256);

    /// The names of all kinds, in the order of their bits.
    pub const NAMES: [&str; 9] = [
        "length",
        "direction",
        "tcp_flags",
        "tcp_order",
        "fragment",
        "ttl",
        "protocol",
        "range",
        "version",
    ];

    /// Adds the repairs of another set.
    #[inline]
    pub fn add(&mut self, other: Repairs) {
        self.0 |= other.0;
    }

    /// Adds a kind of repair if it was made.
    #[inline]
    pub(super) fn add_if(&mut self, made: bool, kind: Repairs) {
        self.0 |= if made { kind.0 } else { 0 };
    }

    /// Whether nothing was changed.
    #[inline]
    #[must_use]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether all kinds of the other set are in this one.
    #[must_use]
    pub fn contains(self, other: Repairs) -> bool {
        self.0 & other.0 == other.0
    }
}

/// How many packets needed each kind of repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairCounts([u64; 9]);

impl RepairCounts {
    /// Counts one packet.
    #[inline]
    pub fn count(&mut self, repairs: Repairs) {
        if repairs.is_none() {
            return;
        }
        for (bit, count) in self.0.iter_mut().enumerate() {
            *count += u64::from(repairs.0 >> bit & 1);
        }
    }

    /// The kinds that occurred, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Repairs::NAMES.into_iter().zip(self.0).filter(|&(_, count)| count > 0)
    }
}

impl Serialize for RepairCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}
