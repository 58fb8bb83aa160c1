//! What the sender does between a generator and a sink: causes of lateness, pauses, changes of
//! pace, links that are waited for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ns_runtime::Event;
use ns_runtime::drive::{Control, Limits, Timing, drive};
use ns_runtime::pace::{LatenessSummary, Pace, Pacing};
use ns_runtime::sink::{Sent, Sink, SinkError};
use ns_runtime::stats::Ending;

type Record = Event<Box<str>>;

/// Takes records, and does as it is told.
#[derive(Default)]
struct Taker {
    taken: Vec<u64>,
    /// How many records it had when it was first told to flush with any.
    flushed: Option<usize>,
    /// How long each write takes.
    slow: Duration,
    /// Takes so many records, then is not ready so many times.
    not_ready: Option<(usize, u32)>,
}

impl Sink<Box<str>> for Taker {
    fn write(&mut self, events: &[Record]) -> Result<(), SinkError> {
        std::thread::sleep(self.slow);
        for (index, event) in events.iter().enumerate() {
            if self.not_ready.is_some_and(|(after, times)| self.taken.len() == after && times > 0) {
                let unsent = events.len() - index;
                return Err(SinkError::NotReady { name: "link".to_owned(), unsent });
            }
            self.taken.push(event.time_ns);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let taken = self.taken.len();
        self.flushed = self.flushed.or((taken > 0).then_some(taken));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn sent(&self) -> Sent {
        Sent { records: self.taken.len() as u64, ..Sent::default() }
    }

    fn ready(&mut self) -> Result<bool, SinkError> {
        let Some((_, times)) = &mut self.not_ready else { return Ok(true) };
        *times -= 1;
        Ok(*times == 0)
    }
}

/// Records a millisecond apart.
fn records(count: u64) -> impl Iterator<Item = Result<Record, SinkError>> {
    (0..count).map(|number| {
        let item = "x".repeat(124).into();
        Ok(Event { time_ns: number * 1_000_000, flow: 0, record: number as u32, item })
    })
}

fn run(
    events: impl Iterator<Item = Result<Record, SinkError>>,
    sink: &mut Taker,
    timing: impl Into<Timing>,
    control: &Control,
) -> (Ending, Option<LatenessSummary>, Duration) {
    let (driven, result) = drive(events, sink, timing, true, Limits::default(), control);
    result.unwrap();
    (driven.ending, driven.lateness.summary(), driven.wall)
}

#[test]
fn lateness_is_the_generator_s_if_it_is_slow() {
    let slow = records(20).inspect(|_| std::thread::sleep(Duration::from_millis(5)));
    let (_, late, _) = run(slow, &mut Taker::default(), Pace::Speed(1.0), &Control::default());
    let late = late.unwrap();
    assert!(late.starved > 10 && late.max_us > 10_000.0, "{late:?}");
    assert!(late.starved > late.blocked + late.woken_late, "{late:?}");
}

#[test]
fn lateness_is_the_sink_s_if_it_is_slow() {
    let mut sink = Taker { slow: Duration::from_millis(5), ..Taker::default() };
    let (_, late, _) = run(records(200), &mut sink, Pace::Speed(1.0), &Control::default());
    let late = late.unwrap();
    assert!(late.blocked > late.starved + late.woken_late, "{late:?}");
}

#[test]
fn nothing_goes_out_early_at_any_pace() {
    for (pace, least_ms) in [
        (Pace::Speed(2.0), 50),
        (Pace::PacketsPerSecond(2000.0), 50),
        // Frames of 1000 bits, of which there are 99 before the last.
        (Pace::MegabitsPerSecond(2.0), 49),
    ] {
        for pacing in [Pacing::Precise, Pacing::Relaxed, Pacing::Spin] {
            let timing = Timing { pacing, ..Timing::from(pace) };
            let mut sink = Taker::default();
            let (ending, _, wall) = run(records(101), &mut sink, timing, &Control::default());
            assert_eq!((ending, sink.taken.len()), (Ending::Done, 101));
            assert!(wall >= Duration::from_millis(least_ms), "{pace:?} {pacing:?} {wall:?}");
        }
    }
}

#[test]
fn the_first_record_does_not_wait_for_others() {
    for (pace, threaded) in
        [(Pace::TopSpeed, false), (Pace::TopSpeed, true), (Pace::Speed(1.0), true)]
    {
        let (mut sink, limits) = (Taker::default(), Limits::default());
        let control = Control::default();
        let (_, result) = drive(records(50), &mut sink, pace, threaded, limits, &control);
        result.unwrap();
        assert_eq!((sink.flushed, sink.taken.len()), (Some(1), 50), "{pace:?}, {threaded}");
    }
}

#[test]
fn a_pause_holds_everything_and_does_not_count() {
    let control = Control::default();
    control.pause();
    let mut sink = Taker::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(600));
            assert_eq!(control.sent().records, 0);
            control.resume();
        });
        let (_, late, _) = run(records(50), &mut sink, Pace::Speed(1.0), &control);
        // Were the pause counted, all records would be more than half a second late.
        assert!(late.unwrap().median_us < 500_000.0, "{late:?}");
    });
    assert_eq!(sink.taken.len(), 50);
    // A pause is no shelter from a stop.
    control.pause();
    control.stop.store(libc::SIGTERM as usize, Ordering::Relaxed);
    let (ending, ..) = run(records(50), &mut Taker::default(), Pace::Speed(1.0), &control);
    assert_eq!(ending, Ending::Terminated);
}

#[test]
fn another_pace_counts_at_once() {
    let control = Control::default();
    let mut sink = Taker::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while control.sent().records == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            control.set_pace(Pace::TopSpeed);
        });
        // At this rate the second record is due in a quarter of an hour.
        let (ending, ..) = run(records(500), &mut sink, Pace::PacketsPerSecond(0.001), &control);
        assert_eq!(ending, Ending::Done);
    });
    assert_eq!(sink.taken.len(), 500);
}

#[test]
fn a_link_that_is_down_is_waited_for_and_nothing_is_lost() {
    for pace in [Pace::TopSpeed, Pace::Speed(1.0)] {
        let mut sink = Taker { not_ready: Some((300, 5)), ..Taker::default() };
        let (ending, ..) = run(records(500), &mut sink, pace, &Control::default());
        assert_eq!(ending, Ending::Done);
        let expected: Vec<u64> = (0..500).map(|number| number * 1_000_000).collect();
        assert_eq!(sink.taken, expected);
    }
}

#[test]
fn a_link_that_stays_down_can_be_stopped_waiting_for() {
    let control = Control::default();
    let mut sink = Taker { not_ready: Some((10, u32::MAX)), ..Taker::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while control.sent().records < 10 {
                std::thread::sleep(Duration::from_millis(1));
            }
            control.stop.store(libc::SIGINT as usize, Ordering::Relaxed);
        });
        let (ending, ..) = run(records(500), &mut sink, Pace::TopSpeed, &control);
        assert_eq!(ending, Ending::Interrupted);
    });
    assert_eq!(sink.taken.len(), 10);
}
