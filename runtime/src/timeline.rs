//! Puts records of many flows in order of time.
//!
//! A ladder queue (Tang, Goh and Thng, ACM TOMACS 2005): far entries lie
//! unsorted, nearer ones in buckets of equal width that are split further only
//! when their turn comes, and only the nearest few are sorted. Insert and
//! remove cost a constant few nanoseconds whatever the spread of times, and
//! nothing has to be tuned to the trace. Items stay where they were put; only
//! keys move.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::render::Event;

/// Buckets with more entries than this are split before they are sorted.
const SPLIT_ABOVE: usize = 64;
/// Entries that a bucket should get.
const ENTRIES_A_BUCKET: usize = 8;
const MOST_BUCKETS: usize = 1 << 15;
/// Entries that an empty bucket keeps room for: with what the largest crowd needed, memory would
/// grow as long as larger ones come.
const ROOM_KEPT: usize = 4 * ENTRIES_A_BUCKET;

/// The place of an event in the output. The order is total: no two records of
/// a run share flow and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Nanoseconds from the beginning of the run.
    pub time_ns: u64,
    /// The flow's number.
    pub flow: u64,
}

impl Key {
    /// A key after every event's.
    pub const MAX: Key = Key { time_ns: u64::MAX, flow: u64::MAX };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: Key,
    record: u32,
    /// Where the item lies.
    index: u32,
}

/// Buckets of `1 << shift` nanoseconds each.
#[derive(Debug, Default)]
struct Rung {
    start: u64,
    shift: u32,
    /// The first bucket that has not been taken.
    current: usize,
    used: usize,
    buckets: Vec<Vec<Entry>>,
}

impl Rung {
    /// The bucket of a time that is not before `start`.
    fn bucket(&self, time_ns: u64) -> usize {
        ((time_ns - self.start) >> self.shift) as usize
    }

    /// Where bucket `index` begins; past the last one, possibly past any `u64`.
    fn start_of(&self, index: usize) -> u128 {
        u128::from(self.start) + ((index as u128) << self.shift)
    }
}

/// A priority queue of events, earliest first, ties by flow, then record.
#[derive(Debug)]
pub struct Timeline<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
    /// The nearest entries, latest first.
    bottom: Vec<Entry>,
    /// Entries that came for a time whose bucket was already sorted.
    late: BinaryHeap<Reverse<Entry>>,
    /// From far and wide to near and narrow.
    rungs: Vec<Rung>,
    spare: Vec<Vec<Vec<Entry>>>,
    top: Vec<Entry>,
    /// Entries from this time on go to `top`.
    top_start: u128,
    len: usize,
    peak: usize,
}

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Timeline::new()
    }
}

impl<T> Timeline<T> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Timeline<T> {
        Timeline {
            items: Vec::new(),
            free: Vec::new(),
            bottom: Vec::new(),
            late: BinaryHeap::new(),
            rungs: Vec::new(),
            spare: Vec::new(),
            top: Vec::new(),
            top_start: 0,
            len: 0,
            peak: 0,
        }
    }

    /// Events in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the queue holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most events that were ever in the queue.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// Inserts an event.
    ///
    /// Panics if the queue holds 2^32 events.
    #[inline]
    pub fn push(&mut self, event: Event<T>) {
        let Event { time_ns, flow, record, item } = event;
        let index = match self.free.pop() {
            Some(index) => {
                self.items[index as usize] = Some(item);
                index
            }
            None => {
                assert!(self.items.len() < u32::MAX as usize, "too many events in the queue");
                self.items.push(Some(item));
                (self.items.len() - 1) as u32
            }
        };
        // Where the next one goes was left long ago.
        if let Some(&next) = self.free.last() {
            prefetch(&self.items[next as usize]);
        }
        self.len += 1;
        self.peak = self.peak.max(self.len);
        self.insert(time_ns, flow, record, index);
    }

    /// In numbers, which stay in registers.
    fn insert(&mut self, time_ns: u64, flow: u64, record: u32, index: u32) {
        let entry = Entry { key: Key { time_ns, flow }, record, index };
        if u128::from(time_ns) >= self.top_start {
            self.top.push(entry);
            return;
        }
        for rung in &mut self.rungs {
            if u128::from(time_ns) >= rung.start_of(rung.current) {
                let bucket = rung.bucket(time_ns);
                rung.buckets[bucket].push(entry);
                return;
            }
        }
        self.late.push(Reverse(entry));
    }

    /// The place of the earliest event.
    pub fn min_key(&mut self) -> Option<Key> {
        self.min_entry().map(|(entry, _)| entry.key)
    }

    /// Removes the earliest event if its place is not after `limit`.
    #[inline]
    pub fn pop_through(&mut self, limit: Key) -> Option<Event<T>> {
        let (entry, is_late) = self.min_entry()?;
        if entry.key > limit {
            return None;
        }
        if is_late {
            self.late.pop();
        } else {
            self.bottom.pop();
        }
        self.len -= 1;
        // Every entry owns its place until it is removed, so the item is there.
        let item = self.items[entry.index as usize].take()?;
        self.free.push(entry.index);
        let Key { time_ns, flow } = entry.key;
        Some(Event { time_ns, flow, record: entry.record, item })
    }

    /// A time that about `count` of the events are not after; exact only as far
    /// as the events have been sorted.
    pub fn time_of_nth(&mut self, count: usize) -> Option<u64> {
        self.min_entry()?;
        let mut seen = self.bottom.len() + self.late.len();
        if count < seen {
            // The late lie among the sorted, where exactly does not matter.
            let place = count.min(self.bottom.len().saturating_sub(1));
            let sorted = self.bottom.iter().rev().nth(place).map(|entry| entry.key.time_ns);
            return sorted.or_else(|| self.late.peek().map(|Reverse(entry)| entry.key.time_ns));
        }
        for rung in self.rungs.iter().rev() {
            for index in rung.current..rung.used {
                seen += rung.buckets[index].len();
                if count < seen {
                    return Some(clamped(rung.start_of(index + 1)));
                }
            }
        }
        // Of the unsorted rest, a sample of 64 says enough.
        let stride = (self.top.len() / 64).max(1);
        let mut sample: Vec<u64> =
            self.top.iter().step_by(stride).map(|entry| entry.key.time_ns).collect();
        sample.sort_unstable();
        let rank = (count - seen) / stride;
        sample
            .get(rank.min(sample.len().saturating_sub(1)))
            .copied()
            .or(Some(clamped(self.top_start)))
    }

    #[inline]
    fn min_entry(&mut self) -> Option<(Entry, bool)> {
        if self.bottom.is_empty() && self.late.is_empty() {
            self.refill();
        }
        match (self.bottom.last(), self.late.peek()) {
            (Some(bottom), Some(Reverse(late))) if late < bottom => Some((*late, true)),
            (Some(bottom), _) => Some((*bottom, false)),
            (None, Some(Reverse(late))) => Some((*late, true)),
            (None, None) => None,
        }
    }

    /// Sorts the next bucket into the empty `bottom`, if there is any left.
    fn refill(&mut self) {
        loop {
            let Some(rung) = self.rungs.last_mut() else {
                if self.top.is_empty() {
                    self.top_start = 0;
                    return;
                }
                self.spread_top();
                continue;
            };
            while rung.current < rung.used && rung.buckets[rung.current].is_empty() {
                rung.current += 1;
            }
            if rung.current == rung.used {
                if let Some(rung) = self.rungs.pop() {
                    self.spare.push(rung.buckets);
                }
                continue;
            }
            let (start, shift) = (clamped(rung.start_of(rung.current)), rung.shift);
            self.bottom.shrink_to(ROOM_KEPT);
            // Swapped, not taken: the vectors' memory goes round.
            std::mem::swap(&mut self.bottom, &mut rung.buckets[rung.current]);
            rung.current += 1;
            if self.bottom.len() <= SPLIT_ABOVE || shift == 0 {
                // What is needed next has left the caches since it was put: while this bucket is
                // emptied, the next one's items come back, and the entries of that after it.
                let mut next = rung.buckets[rung.current..rung.used].iter();
                for entry in next.next().into_iter().flatten() {
                    prefetch(&self.items[entry.index as usize]);
                }
                next.next().and_then(|bucket| bucket.first()).into_iter().for_each(prefetch);
                self.bottom.sort_unstable_by(|a, b| b.cmp(a));
                return;
            }
            let mut crowd = std::mem::take(&mut self.bottom);
            let last = start.saturating_add((1 << shift) - 1);
            self.spread(&mut crowd, start, last);
            self.bottom = crowd;
        }
    }

    fn spread_top(&mut self) {
        let mut top = std::mem::take(&mut self.top);
        let times = || top.iter().map(|entry| entry.key.time_ns);
        let (start, last) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        let end = self.spread(&mut top, start, last);
        self.top_start = end;
        self.top = top;
    }

    /// Makes a rung that covers `start..=last` and empties `entries` into it;
    /// returns where it ends.
    fn spread(&mut self, entries: &mut Vec<Entry>, start: u64, last: u64) -> u128 {
        let wanted = (entries.len() / ENTRIES_A_BUCKET).next_power_of_two();
        let wanted = wanted.clamp(2, MOST_BUCKETS) as u64;
        let range = last - start;
        let mut shift = 0;
        while range >> shift >= wanted {
            shift += 1;
        }
        let used = (range >> shift) as usize + 1;
        let mut buckets = self.spare.pop().unwrap_or_default();
        if buckets.len() < used {
            buckets.resize_with(used, Vec::new);
        }
        let mut rung = Rung { start, shift, current: 0, used, buckets };
        for entry in entries.drain(..) {
            let bucket = rung.bucket(entry.key.time_ns);
            rung.buckets[bucket].push(entry);
        }
        let end = rung.start_of(used);
        self.rungs.push(rung);
        end
    }
}

/// Has the CPU fetch a value that is needed soon, without waiting for it.
#[inline]
fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..size_of::<T>()).step_by(64).chain([size_of::<T>().saturating_sub(1)]) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = std::ptr::from_ref(value).cast::<i8>().wrapping_add(offset);
        // SAFETY: SSE is part of x86-64. A hint reads nothing, and may be of any address.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(address);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

fn clamped(time: u128) -> u64 {
    u64::try_from(time).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(timeline: &mut Timeline<(u64, u64, u32)>, time_ns: u64, flow: u64, record: u32) {
        timeline.push(Event { time_ns, flow, record, item: (time_ns, flow, record) });
    }

    /// Pushes in rounds and pops through a limit after each, against a heap.
    fn check(rounds: &[(Vec<(u64, u64)>, u64)]) {
        let mut timeline = Timeline::new();
        let mut reference = BinaryHeap::new();
        let mut record = 0;
        for (pushes, limit) in rounds {
            for &(time_ns, flow) in pushes {
                push(&mut timeline, time_ns, flow, record);
                reference.push(Reverse((time_ns, flow, record)));
                record += 1;
            }
            let limit = Key { time_ns: *limit, flow: u64::MAX };
            while let Some(event) = timeline.pop_through(limit) {
                let Reverse(expected) = reference.pop().unwrap();
                assert_eq!((event.time_ns, event.flow, event.record), expected);
                assert_eq!(event.item, expected);
            }
            assert!(reference.peek().is_none_or(|Reverse(next)| next.0 > limit.time_ns));
            assert_eq!(timeline.len(), reference.len());
            let next = reference.peek().map(|Reverse(next)| next.0);
            assert_eq!(timeline.min_key().map(|key| key.time_ns), next);
        }
        while let Some(event) = timeline.pop_through(Key::MAX) {
            assert_eq!(event.item, reference.pop().unwrap().0);
        }
        assert!(reference.is_empty() && timeline.is_empty());
    }

    #[test]
    fn buckets_do_not_keep_the_room_of_a_crowd() {
        let mut timeline = Timeline::new();
        for round in 0..200 {
            let begin = round * 1_000_000;
            // A crowd that moves, among others far and wide.
            (0..500).for_each(|record| push(&mut timeline, begin + round * 5_000, 1, record));
            (0..500).for_each(|record| {
                push(&mut timeline, begin + u64::from(record) * 40_000, 2, record);
            });
            let limit = Key { time_ns: begin + 1_000_000, flow: u64::MAX };
            while timeline.pop_through(limit).is_some() {}
        }
        while timeline.pop_through(Key::MAX).is_some() {}
        assert!(timeline.rungs.is_empty() && !timeline.spare.is_empty());
        let room = timeline.spare.iter().flatten().map(Vec::capacity).max();
        assert!(room.is_some_and(|room| room <= ROOM_KEPT), "{room:?}");
    }

    fn time() -> impl Strategy<Value = u64> {
        // Ties, a dense stretch, a heavy tail, and the very end of time.
        prop_oneof![0..4_u64, 0..100_000_u64, any::<u64>(), Just(u64::MAX)]
    }

    proptest! {
        #[test]
        fn any_pushes_come_out_sorted(
            rounds in prop::collection::vec(
                (prop::collection::vec((time(), 0..5_u64), 0..400), time()), 1..12)
        ) {
            check(&rounds);
        }
    }

    #[test]
    fn a_crowd_at_one_instant_is_ordered_by_flow() {
        let pushes: Vec<(u64, u64)> = (0..5_000).map(|i| (7, (i * 7919) % 5_000)).collect();
        check(&[(pushes.clone(), 6), (pushes, 7)]);
    }

    #[test]
    fn the_nth_time_is_near_the_true_one() {
        let mut timeline = Timeline::new();
        for index in 0..100_000_u64 {
            push(&mut timeline, index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 34, 0, 0);
        }
        let whole = 1_u64 << 30;
        for _ in 0..2 {
            let half = timeline.time_of_nth(50_000).unwrap();
            assert!((whole * 4 / 10..whole * 6 / 10).contains(&half), "{half}");
        }
        assert_eq!(Timeline::<()>::new().time_of_nth(0), None);
    }
}
