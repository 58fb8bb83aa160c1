//! A lane: the flows of one chunk of the span, in its slots, parked, or handed
//! over from earlier chunks and still to begin.

use std::collections::BinaryHeap;

use crate::attributes::{Prepared, Preparer};
use crate::error::RuntimeError;
use crate::live::{Handed, Live, Parked};
use crate::networks::Networks;
use crate::render::Render;
use crate::rolling::Slots;
use crate::timeline::Key;

/// Flows handed over whose gates are computed at once.
const HANDED_BATCH: usize = 64;

pub(crate) struct Lane<N, R: Render> {
    chunk: usize,
    pub(crate) slots: Slots<N, R>,
    pub(crate) parked: BinaryHeap<Parked<R::Flow>>,
    handed: BinaryHeap<Handed<R::Flow>>,
    /// The earliest of the lane's flows, since [`Self::refresh`]; those that
    /// have not begun at all are the preparer's.
    first: Option<Key>,
    order: Vec<(Key, usize)>,
}

/// A flow on its way to a slot.
enum Waiting<F> {
    Parked(Parked<F>),
    Handed(Live<F>, Box<[f32]>),
    New(Prepared),
}

impl<N: Networks, R: Render> Lane<N, R> {
    pub(crate) fn new(chunk: usize, slots: Slots<N, R>) -> Lane<N, R> {
        let (parked, handed) = (BinaryHeap::new(), BinaryHeap::new());
        Lane { chunk, slots, parked, handed, first: None, order: Vec::new() }
    }

    /// The earliest of the flows that have begun.
    pub(crate) fn first(&self) -> Option<Key> {
        self.first
    }

    /// Live flows: each has part of a step in the queue.
    pub(crate) fn live(&self) -> usize {
        self.slots.len() + self.parked.len()
    }

    /// Takes over a flow from another chunk.
    pub(crate) fn receive(&mut self, flow: Handed<R::Flow>) {
        let key = flow.live.key();
        self.first = Some(self.first.map_or(key, |first| first.min(key)));
        self.handed.push(flow);
    }

    /// To be called after the lane's flows have moved on.
    pub(crate) fn refresh(&mut self) {
        self.first = self.slots.keys().chain(self.waiting_here()).min();
    }

    /// Chooses who is stepped next, none after `limit`. Afterwards the earliest
    /// flow of the lane has a slot, if it is not after `limit`.
    pub(crate) fn schedule(
        &mut self,
        limit: Key,
        preparer: &mut Preparer,
    ) -> Result<(), RuntimeError> {
        if limit < Key::MAX {
            // From the back: a parked flow's slot is filled by the last flow.
            for slot in (0..self.slots.len()).rev() {
                if self.slots.key(slot) > limit {
                    self.parked.push(self.slots.park(slot)?);
                }
            }
        }
        while !self.slots.is_full()
            && let Some(next) = self.take_waiting(limit, preparer)?
        {
            self.place(next)?;
        }
        match (self.waiting(preparer), self.slots.keys().min()) {
            (Some(waiting), Some(first)) if waiting < first && waiting <= limit => {
                self.swap(preparer)
            }
            _ => Ok(()),
        }
    }

    /// Parks the flows that are furthest ahead for ones that wait: up to a
    /// quarter of the slots at a time, since who waits next is held back too.
    fn swap(&mut self, preparer: &mut Preparer) -> Result<(), RuntimeError> {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(self.slots.keys().zip(0..));
        order.sort_unstable_by(|a, b| b.cmp(a));
        order.truncate(self.slots.len().div_ceil(4));
        let mut coming = Vec::with_capacity(order.len());
        while let Some(&(furthest, _)) = order.get(coming.len())
            && self.waiting(preparer).is_some_and(|waiting| waiting < furthest)
            && let Some(next) = self.take_waiting(Key::MAX, preparer)?
        {
            coming.push(next);
        }
        // From the back, so that the flow that fills a hole is never one to go.
        order.truncate(coming.len());
        order.sort_unstable_by_key(|&(_, slot)| std::cmp::Reverse(slot));
        for &(_, slot) in &order {
            self.parked.push(self.slots.park(slot)?);
        }
        self.order = order;
        coming.into_iter().try_for_each(|next| self.place(next))
    }

    /// The earliest flow that has begun and has no slot.
    fn waiting_here(&self) -> Option<Key> {
        let parked = self.parked.peek().map(|parked| parked.live.key());
        parked.into_iter().chain(self.handed.peek().map(|handed| handed.live.key())).min()
    }

    /// The earliest flow without a slot.
    fn waiting(&self, preparer: &Preparer) -> Option<Key> {
        self.waiting_here().into_iter().chain(self.new_flow(preparer)).min()
    }

    /// The next flow to start, if it starts in this chunk.
    fn new_flow(&self, preparer: &Preparer) -> Option<Key> {
        preparer.peek().filter(|&(_, chunk)| chunk == self.chunk).map(|(key, _)| key)
    }

    /// Takes the earliest flow without a slot, if it is not after `limit`.
    fn take_waiting(
        &mut self,
        limit: Key,
        preparer: &mut Preparer,
    ) -> Result<Option<Waiting<R::Flow>>, RuntimeError> {
        let Some(next) = self.waiting(preparer).filter(|&next| next <= limit) else {
            return Ok(None);
        };
        if self.parked.peek().is_some_and(|parked| parked.live.key() == next) {
            return Ok(self.parked.pop().map(Waiting::Parked));
        }
        if self.handed.peek().is_some_and(|handed| handed.live.key() == next) {
            return self.take_handed();
        }
        Ok(preparer.take(&mut self.slots.networks)?.map(Waiting::New))
    }

    /// Takes the earliest flow that was handed over; its gates are computed
    /// together with those of the next ones.
    fn take_handed(&mut self) -> Result<Option<Waiting<R::Flow>>, RuntimeError> {
        if self.handed.peek().is_some_and(|handed| handed.gates.is_none()) {
            let mut batch = Vec::new();
            while batch.len() < HANDED_BATCH
                && self.handed.peek().is_some_and(|handed| handed.gates.is_none())
            {
                batch.extend(self.handed.pop());
            }
            self.slots.part_gates(&mut batch)?;
            self.handed.extend(batch);
        }
        let flow = self.handed.pop();
        Ok(flow.and_then(|flow| Some(Waiting::Handed(flow.live, flow.gates?))))
    }

    fn place(&mut self, flow: Waiting<R::Flow>) -> Result<(), RuntimeError> {
        match flow {
            Waiting::Parked(flow) => self.slots.resume(flow),
            Waiting::Handed(live, gates) => self.slots.begin_part(live, &gates),
            Waiting::New(flow) => self.slots.admit(flow),
        }
    }
}
