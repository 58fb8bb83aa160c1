//! Why a record is no usable packet.

use std::collections::BTreeMap;
use std::fmt;

use super::NotUsed;

/// A reason, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unusable {
    Arp,
    Ieee8023,
    EtherType(u16),
    PppProtocol(u16),
    LinkType(u32),
    IpVersion(u8),
    MplsWithoutIp,
    CutInLinkHeader,
    CutInIpHeader,
    CutBeforePorts,
    NoIpv4Header,
    NoIpv6Header,
    ShortIpHeader,
    LengthBelowHeader,
    LengthBeyondFrame,
    ExtensionBeyondLength,
    MappedAddress,
    NoTime,
    TimeOutOfRange,
    NoPacket(u32),
    CutByEndOfFile,
    DamagedFromHere,
    NoCapture,
    /// The reasons of a damaged file have no end; this one is for the rest.
    Other,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Unusable::Arp => "ARP",
            Unusable::Ieee8023 => "IEEE 802.3 frames",
            Unusable::EtherType(number) => return write!(f, "of EtherType {number:#06x}"),
            Unusable::PppProtocol(number) => return write!(f, "of PPP protocol {number:#06x}"),
            Unusable::LinkType(number) => return write!(f, "of link type {number}"),
            Unusable::IpVersion(version) => return write!(f, "of IP version {version}"),
            Unusable::MplsWithoutIp => "of MPLS without an IP packet",
            Unusable::CutInLinkHeader => "cut inside the link header",
            Unusable::CutInIpHeader => "cut inside the IP header",
            Unusable::CutBeforePorts => "cut before the ports",
            Unusable::NoIpv4Header => "of EtherType IPv4 without an IPv4 header",
            Unusable::NoIpv6Header => "of EtherType IPv6 without an IPv6 header",
            Unusable::ShortIpHeader => "with an IP header length below 20",
            Unusable::LengthBelowHeader => "with an IP length below its header's",
            Unusable::LengthBeyondFrame => "with an IP length beyond the frame",
            Unusable::ExtensionBeyondLength => {
                "with IPv6 extension headers beyond the packet's length"
            }
            Unusable::MappedAddress => "of IPv6 with an IPv4 address mapped into it",
            Unusable::NoTime => "without a time (simple packet block)",
            Unusable::TimeOutOfRange => "with a time out of range",
            Unusable::NoPacket(kind) => {
                return write!(f, "that are no packets (block type {kind:#010x})");
            }
            Unusable::CutByEndOfFile => "cut short by the end of the file",
            Unusable::DamagedFromHere => "cut short or damaged from there on",
            Unusable::NoCapture => "that are files without a capture",
            Unusable::Other => "for other reasons",
        };
        f.write_str(text)
    }
}

/// Counts by reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    counts: BTreeMap<Unusable, u64>,
}

impl Tally {
    /// Reasons told apart; a random file has thousands.
    const MOST_REASONS: usize = 64;

    pub(crate) fn count(&mut self, reason: Unusable) {
        let full = self.counts.len() >= Tally::MOST_REASONS;
        let reason =
            if full && !self.counts.contains_key(&reason) { Unusable::Other } else { reason };
        *self.counts.entry(reason).or_default() += 1;
    }

    pub(crate) fn into_not_used(self) -> NotUsed {
        self.counts.into_iter().map(|(reason, count)| (reason.to_string(), count)).collect()
    }
}
