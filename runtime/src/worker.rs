//! One worker: which flows get slots, and what is ready to leave.
//!
//! The watermark is the earliest time that any flow, live or still to start,
//! can yet produce. What lies before it leaves in order. Every chunk of the span
//! has a lane of its own; the one that holds the watermark is stepped next, and
//! in it whoever holds the watermark is among the flows stepped, so it always
//! moves on.
//!
//! Flows in slots run ahead of the watermark, which keeps the batch full, until
//! the queue has `queue_cap` records (or two steps a live flow, if that is more). Then only flows up to a horizon, the time
//! of half the queue, are stepped, until that half has left. Should that fill
//! the queue twice over, only flows that precede its very first record are
//! stepped: each has nothing in the queue, so it grows by one step a live flow
//! at most, and no cap, however small, can block the flow that is waited for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::attributes::Preparer;
use crate::error::RuntimeError;
use crate::lane::Lane;
use crate::live::Handed;
use crate::networks::Networks;
use crate::render::{Event, Render};
use crate::rolling::Slots;
use crate::stages::{Stage, timed};
use crate::timeline::{Key, Timeline};

/// Events handed over at once.
const MOST_EVENTS: usize = 4096;

/// Records that a worker computes at least though nobody takes them. With more than it takes to be
/// never waited for, their memory leaves the caches before they do.
const LEAST_AHEAD: usize = 1 << 14;

/// Times that a worker stops working ahead, and is not waited for, until half is enough.
const STOPS: u32 = 64;

pub(crate) struct Worker<N, R: Render> {
    /// One a chunk of the span.
    lanes: Vec<Lane<N, R>>,
    preparer: Preparer,
    timeline: Timeline<R::Item>,
    queue_cap: usize,
    /// Records in the queue that it stops working ahead at.
    ahead: usize,
    /// Times that it has since it was waited for.
    stops: u32,
    /// Flows after this key are not stepped; set while the queue is too long.
    horizon: Option<Key>,
    /// No event to come is before this, and the lane that it will be in;
    /// `None` if none is to come.
    watermark: Option<(Key, usize)>,
    records_a_step: usize,
    handed: Vec<Handed<R::Flow>>,
    /// Set when nobody takes the events any more.
    stop: Arc<AtomicBool>,
}

impl<N: Networks, R: Render> Worker<N, R> {
    pub(crate) fn new(
        slots: Vec<Slots<N, R>>,
        preparer: Preparer,
        queue_cap: usize,
        stop: Arc<AtomicBool>,
    ) -> Worker<N, R> {
        Worker {
            watermark: preparer.peek(),
            records_a_step: slots.iter().map(Slots::records_a_step).max().unwrap_or(1),
            lanes: slots.into_iter().enumerate().map(|(at, slots)| Lane::new(at, slots)).collect(),
            preparer,
            timeline: Timeline::new(),
            queue_cap: queue_cap.max(1),
            ahead: queue_cap,
            stops: 0,
            horizon: None,
            handed: Vec::new(),
            stop,
        }
    }

    /// Appends the next events; `false` if there are no more, or on `stop`.
    pub(crate) fn fill(
        &mut self,
        out: &mut VecDeque<Event<R::Item>>,
    ) -> Result<bool, RuntimeError> {
        loop {
            let limit = self.watermark.map_or(Key::MAX, |(key, _)| key);
            let timeline = &mut self.timeline;
            let mut events = 0;
            timed(Stage::Timeline, || {
                while events < MOST_EVENTS
                    && let Some(event) = timeline.pop_through(limit)
                {
                    out.push_back(event);
                    events += 1;
                }
            });
            if events > 0 {
                return Ok(true);
            }
            if !self.advance()? {
                return Ok(false);
            }
        }
    }

    /// Computes more events, which wait as long as nobody takes them; `false` if so many wait that
    /// it is better to wait with them, there are no more, or on `stop`.
    pub(crate) fn work_ahead(&mut self) -> Result<bool, RuntimeError> {
        if self.timeline.len() < self.ahead {
            return self.advance();
        }
        self.stops += 1;
        if self.stops == STOPS {
            self.ahead = (self.ahead / 2).max(LEAST_AHEAD.min(self.queue_cap));
            self.stops = 0;
        }
        Ok(false)
    }

    /// Somebody waits for its events: if it has stopped working ahead since the last time, that
    /// was too early.
    pub(crate) fn is_waited_for(&mut self) {
        if std::mem::take(&mut self.stops) > 0 {
            self.ahead = self.ahead.saturating_mul(2).min(self.queue_cap);
        }
    }

    /// Steps who is waited for; `false` if there are no more flows, or on `stop`.
    fn advance(&mut self) -> Result<bool, RuntimeError> {
        let Some((watermark, lane)) = self.watermark else { return Ok(false) };
        if self.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.step(watermark, lane)?;
        let lanes = self.lanes.iter().enumerate();
        let firsts = lanes.filter_map(|(at, lane)| lane.first().map(|key| (key, at)));
        self.watermark = firsts.chain(self.preparer.peek()).min();
        Ok(true)
    }

    /// Steps the flows of a lane, those that are not too far ahead.
    fn step(&mut self, watermark: Key, at: usize) -> Result<(), RuntimeError> {
        let limit = self.limit(watermark);
        let lane = &mut self.lanes[at];
        lane.schedule(limit, &mut self.preparer)?;
        lane.slots.step(&mut self.timeline, &mut self.handed)?;
        lane.refresh();
        for flow in self.handed.drain(..) {
            // A bundle was checked for tags of chunks that it does not have.
            if let Some(lane) = self.lanes.get_mut(flow.to) {
                lane.receive(flow);
            }
        }
        Ok(())
    }

    /// Flows after this key are not to be stepped now.
    fn limit(&mut self, watermark: Key) -> Key {
        let length = self.timeline.len();
        // Every live flow has part of a step in the queue, whatever the cap: a
        // cap below that would have flows stepped one by one for no memory won.
        let live: usize = self.lanes.iter().map(Lane::live).sum();
        let queue_cap = self.queue_cap.max(2 * live * self.records_a_step);
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
}
