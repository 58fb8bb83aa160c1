//! Where the time of generation goes, for benchmarks.
//!
//! Off unless [`measure`] runs, and then of its thread alone: batches are timed, never single
//! records, and what one stage does within another counts for the inner one.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// A part of the way from a bundle to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The networks of flows' attributes.
    Attributes,
    /// Drawing tokens of attributes.
    AttributeTokens,
    /// Both of flows that are drawn again.
    Again,
    /// What flows are given for their records.
    Gates,
    /// The rest of what is done for a batch of flows: arrivals, decoding, which are alike.
    Flows,
    /// Noise of records.
    Noise,
    /// What goes into the networks of records.
    Inputs,
    /// The LSTM's step, or all of a step where that is one graph.
    Step,
    /// The networks of what is drawn for a record.
    Heads,
    /// Drawing tokens of records.
    RecordTokens,
    /// Values of records.
    Records,
    /// Decoding, rendering, into the queue in order of time.
    Emit,
    /// Out of that queue.
    Timeline,
    /// Who is in which slot, and whatever the caller does with records.
    Rest,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Stage; 14] = [
        Stage::Attributes,
        Stage::AttributeTokens,
        Stage::Again,
        Stage::Gates,
        Stage::Flows,
        Stage::Noise,
        Stage::Inputs,
        Stage::Step,
        Stage::Heads,
        Stage::RecordTokens,
        Stage::Records,
        Stage::Emit,
        Stage::Timeline,
        Stage::Rest,
    ];
}

struct Clock {
    spent: [Duration; Stage::ALL.len()],
    stage: Stage,
    since: Instant,
}

impl Clock {
    /// Goes over to a stage; returns the one before.
    fn switch(&mut self, stage: Stage) -> Stage {
        let now = Instant::now();
        self.spent[self.stage as usize] += now - self.since;
        self.since = now;
        let again = (self.stage, stage) == (Stage::Again, Stage::AttributeTokens);
        std::mem::replace(&mut self.stage, if again { Stage::Again } else { stage })
    }
}

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

fn switch(stage: Stage) -> Option<Stage> {
    CLOCK.with_borrow_mut(|clock| clock.as_mut().map(|clock| clock.switch(stage)))
}

/// Runs `work`, and tells how long each stage took on this thread: of a generator with one
/// worker, which is inline.
pub fn measure<R>(work: impl FnOnce() -> R) -> (R, Vec<(Stage, Duration)>) {
    let clock = Clock {
        spent: [Duration::ZERO; Stage::ALL.len()],
        stage: Stage::Rest,
        since: Instant::now(),
    };
    CLOCK.set(Some(clock));
    let result = work();
    switch(Stage::Rest);
    let spent = CLOCK.take().map_or([Duration::ZERO; Stage::ALL.len()], |clock| clock.spent);
    (result, Stage::ALL.into_iter().zip(spent).collect())
}

/// Runs a batch's part of a stage.
#[inline]
pub(crate) fn timed<R>(stage: Stage, work: impl FnOnce() -> R) -> R {
    let before = switch(stage);
    let result = work();
    before.map(switch);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_stages_count_and_the_outer_one_goes_on() {
        assert_eq!(timed(Stage::Step, || 3), 3);
        let ((), spent) = measure(|| {
            timed(Stage::Emit, || {
                timed(Stage::Step, || std::thread::sleep(Duration::from_millis(20)));
            });
        });
        let of = |stage| spent.iter().find(|(of, _)| *of == stage).unwrap().1;
        assert!(of(Stage::Step) >= Duration::from_millis(20));
        assert_eq!(of(Stage::Heads), Duration::ZERO);
        assert!(CLOCK.with_borrow(Option::is_none));
    }
}
