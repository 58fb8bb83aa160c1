//! One worker: which flows get slots, and what is ready to leave.
//!
//! The watermark is the earliest time that any flow, live or still to start,
//! can yet produce. What lies before it leaves in order. Whoever holds the
//! watermark is always among the flows stepped next, so it always moves on.
//!
//! Flows in slots run ahead of the watermark, which keeps the batch full, until
//! the queue has `queue_cap` records (or two steps a live flow, if that is more). Then only flows up to a horizon, the time
//! of half the queue, are stepped, until that half has left. Should that fill
//! the queue twice over, only flows that precede its very first record are
//! stepped: each has nothing in the queue, so it grows by one step a live flow
//! at most, and no cap, however small, can block the flow that is waited for.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::attributes::{Prepared, Preparer};
use crate::error::RuntimeError;
use crate::networks::Networks;
use crate::render::{Event, Render};
use crate::rolling::{Parked, Slots};
use crate::timeline::{Key, Timeline};

/// Events handed over at once.
const MOST_EVENTS: usize = 4096;

pub(crate) struct Worker<N, R: Render> {
    slots: Slots<N, R>,
    preparer: Preparer,
    parked: BinaryHeap<Parked<R::Flow>>,
    timeline: Timeline<R::Item>,
    queue_cap: usize,
    /// Flows after this key are not stepped; set while the queue is too long.
    horizon: Option<Key>,
    /// No event to come is before this; `None` if none is to come.
    watermark: Option<Key>,
    order: Vec<(Key, usize)>,
    /// Set when nobody takes the events any more.
    stop: Arc<AtomicBool>,
}

impl<N: Networks, R: Render> Worker<N, R> {
    pub(crate) fn new(
        slots: Slots<N, R>,
        preparer: Preparer,
        queue_cap: usize,
        stop: Arc<AtomicBool>,
    ) -> Worker<N, R> {
        let watermark = preparer.peek();
        Worker {
            slots,
            preparer,
            parked: BinaryHeap::new(),
            timeline: Timeline::new(),
            queue_cap: queue_cap.max(1),
            horizon: None,
            watermark,
            order: Vec::new(),
            stop,
        }
    }

    /// Appends the next events; `false` if there are no more, or on `stop`.
    pub(crate) fn fill(
        &mut self,
        out: &mut impl Extend<Event<R::Item>>,
    ) -> Result<bool, RuntimeError> {
        loop {
            let limit = self.watermark.unwrap_or(Key::MAX);
            let timeline = &mut self.timeline;
            let mut events = 0;
            let ready = std::iter::from_fn(|| timeline.pop_through(limit)).take(MOST_EVENTS);
            out.extend(ready.inspect(|_| events += 1));
            if events > 0 {
                return Ok(true);
            }
            if self.watermark.is_none() || self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            self.schedule()?;
            self.slots.step(&mut self.timeline)?;
            self.watermark = self.slots.keys().chain(self.waiting()).min();
        }
    }

    /// The earliest flow without a slot.
    fn waiting(&self) -> Option<Key> {
        let parked = self.parked.peek().map(|parked| parked.live.key());
        parked.into_iter().chain(self.preparer.peek()).min()
    }

    /// Chooses who is stepped next. Afterwards the flow at the watermark has a slot.
    fn schedule(&mut self) -> Result<(), RuntimeError> {
        let limit = self.limit();
        if limit < Key::MAX {
            // From the back: a parked flow's slot is filled by the last flow.
            for slot in (0..self.slots.len()).rev() {
                if self.slots.key(slot) > limit {
                    self.parked.push(self.slots.park(slot)?);
                }
            }
        }
        while !self.slots.is_full()
            && let Some(next) = self.take_waiting(limit)?
        {
            self.place(next)?;
        }
        match (self.waiting(), self.slots.keys().min()) {
            (Some(waiting), Some(first)) if waiting < first && waiting <= limit => self.swap(),
            _ => Ok(()),
        }
    }

    /// Flows after this key are not to be stepped now.
    fn limit(&mut self) -> Key {
        let Some(watermark) = self.watermark else {
            return Key::MAX;
        };
        let length = self.timeline.len();
        // Every live flow has part of a step in the queue, whatever the cap: a
        // cap below that would have flows stepped one by one for no memory won.
        let live = self.slots.len() + self.parked.len();
        let queue_cap = self.queue_cap.max(2 * live * self.slots.records_a_step());
        if length >= queue_cap.saturating_mul(2) {
            return self.timeline.min_key().map_or(Key::MAX, |first| first.max(watermark));
        }
        if length <= queue_cap / 2 {
            self.horizon = None;
        } else if self.horizon.is_some_and(|horizon| watermark >= horizon)
            || (self.horizon.is_none() && length >= queue_cap)
        {
            let middle = self.timeline.time_of_nth(length / 2);
            self.horizon = middle.map(|time_ns| Key { time_ns, flow: u64::MAX });
        }
        self.horizon.map_or(Key::MAX, |horizon| horizon.max(watermark))
    }

    /// Parks the flows that are furthest ahead for ones that wait: up to a
    /// quarter of the slots at a time, since who waits next is held back too.
    fn swap(&mut self) -> Result<(), RuntimeError> {
        self.order.clear();
        self.order.extend(self.slots.keys().zip(0..));
        self.order.sort_unstable_by(|a, b| b.cmp(a));
        self.order.truncate(self.slots.len().div_ceil(4));
        let mut coming = Vec::with_capacity(self.order.len());
        while let Some(&(furthest, _)) = self.order.get(coming.len())
            && self.waiting().is_some_and(|waiting| waiting < furthest)
            && let Some(next) = self.take_waiting(Key::MAX)?
        {
            coming.push(next);
        }
        // From the back, so that the flow that fills a hole is never one to go.
        self.order.truncate(coming.len());
        self.order.sort_unstable_by_key(|&(_, slot)| std::cmp::Reverse(slot));
        for &(_, slot) in &self.order {
            self.parked.push(self.slots.park(slot)?);
        }
        coming.into_iter().try_for_each(|next| self.place(next))
    }

    /// Takes the earliest flow without a slot, if it is not after `limit`.
    fn take_waiting(&mut self, limit: Key) -> Result<Option<Waiting<R::Flow>>, RuntimeError> {
        let parked = self.parked.peek().map(|parked| parked.live.key());
        let new = self.preparer.peek();
        if parked.is_some_and(|parked| parked <= limit && new.is_none_or(|new| parked < new)) {
            return Ok(self.parked.pop().map(Waiting::Parked));
        }
        if new.is_some_and(|new| new <= limit) {
            return Ok(self.preparer.take(&mut self.slots.networks)?.map(Waiting::New));
        }
        Ok(None)
    }

    fn place(&mut self, flow: Waiting<R::Flow>) -> Result<(), RuntimeError> {
        match flow {
            Waiting::Parked(flow) => self.slots.resume(flow),
            Waiting::New(flow) => self.slots.admit(flow),
        }
    }
}

/// A flow on its way to a slot.
enum Waiting<F> {
    Parked(Parked<F>),
    New(Prepared),
}
