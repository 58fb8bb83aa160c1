//! A flow that has begun and not ended: in a slot, parked, or handed over.

use crate::decode::Scales;
use crate::timeline::Key;

/// A flow that has begun and not ended.
pub(crate) struct Live<F> {
    pub(crate) number: u64,
    /// Time of its last record, or where its part begins.
    pub(crate) clock_ns: u64,
    /// Number of its next record.
    pub(crate) record: u32,
    /// Records of it that were left out.
    pub(crate) left_out: u32,
    pub(crate) step: u32,
    /// Segments begun before this one, in all parts and in this part.
    pub(crate) segment: u32,
    pub(crate) segment_of_part: u32,
    /// Records since its segment began.
    pub(crate) in_segment: u32,
    /// Parts before this one.
    pub(crate) part: u32,
    /// Whether the next record is its part's first: then it lies at the clock.
    pub(crate) at_begin: bool,
    /// Where in the chunk its part begins.
    pub(crate) position: f32,
    /// Whether its part goes on after this segment.
    pub(crate) goes_on: bool,
    /// The chunks of its further parts, those of past ones included.
    pub(crate) later_chunks: Box<[u32]>,
    /// As long as anything follows, its discrete attributes.
    pub(crate) attributes: Option<Box<[f32]>>,
    /// Bounds of the measurements that are on the flow's own scale.
    pub(crate) scales: Scales,
    /// Where the span lies that it started in, for times told from the span's beginning.
    pub(crate) span_start_ns: u64,
    pub(crate) context: F,
}

impl<F> Live<F> {
    /// None of its further records is before this.
    pub(crate) fn key(&self) -> Key {
        Key { time_ns: self.clock_ns, flow: self.number }
    }

    /// The chunk of its next part.
    pub(crate) fn next_chunk(&self) -> Option<usize> {
        self.later_chunks.get(self.part as usize).map(|&chunk| chunk as usize)
    }

    /// Forgets the attributes if nothing will need them.
    pub(crate) fn settle(&mut self) {
        if !self.goes_on && self.next_chunk().is_none() {
            self.attributes = None;
        }
    }
}

/// A flow that has been handed over to a chunk and has not begun there.
pub(crate) struct Handed<F> {
    /// The chunk.
    pub(crate) to: usize,
    pub(crate) live: Live<F>,
    /// What its steps are given there, once computed.
    pub(crate) gates: Option<Box<[f32]>>,
}

/// A live flow without a slot.
pub(crate) struct Parked<F> {
    pub(crate) live: Live<F>,
    /// Its gates, then its states.
    pub(crate) rows: Box<[f32]>,
}

/// In a binary heap, whose greatest comes first, the earliest flow is the greatest.
macro_rules! earliest_first {
    ($flow:ident) => {
        impl<F> Ord for $flow<F> {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                other.live.key().cmp(&self.live.key())
            }
        }

        impl<F> PartialOrd for $flow<F> {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl<F> PartialEq for $flow<F> {
            fn eq(&self, other: &Self) -> bool {
                self.live.key() == other.live.key()
            }
        }

        impl<F> Eq for $flow<F> {}
    };
}

earliest_first!(Parked);
earliest_first!(Handed);
