//! When each record is due, waiting until then, and how late it went out.
//!
//! The schedule is absolute: every due time follows from the beginning, so no
//! error adds up.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// How early a sleep ends at first; the rest is spun.
const FIRST_MARGIN_NS: u64 = 60_000;
/// Bounds of what is learned of that.
const MARGINS_NS: (u64, u64) = (1_000, 200_000);
/// What is learned is the 95th percentile of how late sleeps end: it grows by 19 steps after
/// one that ended later, and shrinks by one after any other.
const MARGIN_STEP_NS: u64 = 40;
const MARGIN_GROWTH: u64 = 19;
/// A wait that it leaves no time to sleep in teaches nothing. It shrinks by so much then, until
/// there is time: sleeps that were late for a while would else be the last.
const UNSLEPT_STEP_NS: u64 = 1;
/// Room for reading the clock and beginning to spin.
const SPARE_NS: u64 = 1_000;
/// What warming up may take.
const WARM_UP_NS: u64 = 5_000;
/// Longest single wait, so that a request to stop is seen in time.
const LONGEST_WAIT_NS: u64 = 50_000_000;
/// Rates are kept in billionths, to be exact in whole numbers.
const NANO: f64 = 1e9;
/// Later than this is told by its cause.
const LATE_NS: u64 = 100_000;

/// How fast records go out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as they are made.
    TopSpeed,
    /// In the trace's own time, so many times faster.
    Speed(f64),
    /// So many a second, evenly.
    PacketsPerSecond(f64),
    /// So many million bits of frames a second, evenly.
    MegabitsPerSecond(f64),
}

impl Pace {
    /// How many times faster than one nanosecond of the trace a nanosecond, one record a
    /// second, or a million bits a second.
    fn rate(self) -> Option<f64> {
        match self {
            Pace::TopSpeed => None,
            Pace::Speed(rate) | Pace::PacketsPerSecond(rate) | Pace::MegabitsPerSecond(rate) => {
                Some(rate)
            }
        }
    }
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pace::TopSpeed => f.write_str("as fast as possible"),
            Pace::Speed(1.0) => f.write_str("real time"),
            Pace::Speed(speed) => write!(f, "{speed} times real time"),
            Pace::PacketsPerSecond(rate) => write!(f, "{rate} packets/s"),
            Pace::MegabitsPerSecond(rate) => write!(f, "{rate} Mbit/s"),
        }
    }
}

/// When each record is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    /// What was due then: a position, in nanoseconds at rate 1.
    anchor_ns: u128,
    anchor: Option<u128>,
    /// The position of the next record where it does not lie in the trace's time.
    work: u128,
}

impl Schedule {
    /// The first record is due at `begin_ns`, in [`now_ns`]'s time.
    #[must_use]
    pub fn new(pace: Pace, begin_ns: u64) -> Schedule {
        Schedule { pace, anchor_ns: begin_ns.into(), anchor: None, work: 0 }
    }

    /// The first record is due then after all, if none was asked for yet.
    pub fn begin(&mut self, begin_ns: u64) {
        if self.anchor.is_none() {
            self.anchor_ns = begin_ns.into();
        }
    }

    /// When the next record, of time `time_ns`, is due; `None` for at once.
    #[inline]
    pub fn due(&mut self, time_ns: u64) -> Option<u64> {
        let rate = self.pace.rate()?;
        let position = match self.pace {
            Pace::Speed(_) => time_ns.into(),
            _ => self.work,
        };
        let elapsed = position.saturating_sub(*self.anchor.get_or_insert(position));
        let offset = elapsed * NANO as u128 / exact(rate);
        Some(u64::try_from(self.anchor_ns + offset).unwrap_or(u64::MAX))
    }

    /// Goes on to the record after one of so many bytes.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        match self.pace {
            Pace::PacketsPerSecond(_) => self.work += 1_000_000_000,
            Pace::MegabitsPerSecond(_) => self.work += 8_000 * bytes as u128,
            Pace::TopSpeed | Pace::Speed(_) => {}
        }
    }

    /// Goes on at another pace from `now_ns` on.
    pub fn set_pace(&mut self, pace: Pace, now_ns: u64) {
        let now = u128::from(now_ns);
        // From one speed to another the trace's time goes on; else the next record is due now.
        self.anchor = match (self.pace, pace, self.anchor) {
            (Pace::Speed(speed), Pace::Speed(_), Some(anchor)) => {
                let elapsed = now.saturating_sub(self.anchor_ns);
                Some(anchor + elapsed * exact(speed) / NANO as u128)
            }
            _ => None,
        };
        (self.pace, self.anchor_ns, self.work) = (pace, now, 0);
    }

    /// Everything that is still to come is due so much later.
    pub fn shift(&mut self, by_ns: u64) {
        self.anchor_ns += u128::from(by_ns);
    }
}

fn exact(rate: f64) -> u128 {
    ((rate * NANO).round() as u128).max(1)
}

/// Nanoseconds of the monotonic clock, the one that a [`Waiter`] sleeps by.
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[allow(unsafe_code)]
    // SAFETY: one timespec, which lives through the call. This clock always exists.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
    }
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Lets timers of this thread be exact: the usual slack of 50 us saves power. Elsewhere than on
/// Linux timers are as they are.
pub fn make_timers_exact() {
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code)]
    // SAFETY: PR_SET_TIMERSLACK takes one number. If it fails, sleeps end
    // later, which the lateness shows.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong);
    }
}

/// How a sender waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Pacing {
    /// Sleeps until shortly before, as early as this machine's timers need, then spins.
    #[default]
    Precise,
    /// Sleeps until then: the least work, late by what timers need.
    Relaxed,
    /// Spins all the time: takes a whole core.
    Spin,
}

/// Waits until records are due.
#[derive(Clone, Debug)]
pub struct Waiter {
    pacing: Pacing,
    /// How much later than asked for most sleeps end, as learned.
    margin_ns: u64,
}

impl Waiter {
    /// One that has learned nothing yet.
    #[must_use]
    pub fn new(pacing: Pacing) -> Waiter {
        Waiter { pacing, margin_ns: FIRST_MARGIN_NS }
    }

    /// Waits for a due time, at most 50 ms; returns the time, which
    /// is before `due_ns` if there is more to wait. After a sleep that ended in time `warm_up` is
    /// called, which should take a few microseconds at most.
    pub fn wait(&mut self, due_ns: u64, warm_up: impl FnOnce()) -> u64 {
        let begin = now_ns();
        let end = due_ns.min(begin + LONGEST_WAIT_NS);
        let mut now = begin;
        match self.pacing {
            Pacing::Spin => {}
            Pacing::Relaxed => {
                if now < end {
                    now = sleep_until(end);
                }
                return now;
            }
            Pacing::Precise => {
                let wake = end.saturating_sub(self.margin_ns + SPARE_NS);
                if now >= wake {
                    self.learn_unslept(end.saturating_sub(now));
                } else {
                    now = sleep_until(wake);
                    self.learn(now.saturating_sub(wake));
                    if end == due_ns && now + WARM_UP_NS < end {
                        warm_up();
                        now = now_ns();
                    }
                }
            }
        }
        while now < end {
            std::hint::spin_loop();
            now = now_ns();
        }
        now
    }

    fn learn(&mut self, late_ns: u64) {
        self.margin_ns = match late_ns {
            late if late <= self.margin_ns => self.margin_ns - MARGIN_STEP_NS,
            late if late <= MARGINS_NS.1 => self.margin_ns + MARGIN_GROWTH * MARGIN_STEP_NS,
            // No margin helps against this.
            _ => self.margin_ns,
        };
        self.margin_ns = self.margin_ns.clamp(MARGINS_NS.0, MARGINS_NS.1);
    }

    /// Of a wait too short for a sleep before the margin; of a much shorter one, nothing.
    fn learn_unslept(&mut self, wait_ns: u64) {
        if wait_ns > self.margin_ns / 2 {
            self.margin_ns = (self.margin_ns - UNSLEPT_STEP_NS).max(MARGINS_NS.0);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn sleep_until(wake_ns: u64) -> u64 {
    std::thread::sleep(Duration::from_nanos(wake_ns.saturating_sub(now_ns())));
    now_ns()
}

#[cfg(target_os = "linux")]
fn sleep_until(wake_ns: u64) -> u64 {
    let until = libc::timespec {
        tv_sec: (wake_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (wake_ns % 1_000_000_000) as libc::c_long,
    };
    #[allow(unsafe_code)]
    // SAFETY: one timespec, which lives through the call; no remainder is
    // asked for. Woken early by a signal, the caller comes again.
    unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const until,
            std::ptr::null_mut(),
        );
    }
    now_ns()
}

/// Why a record went out late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was generated too late.
    Starved,
    /// The sink was still busy with those before.
    Blocked,
    /// The system woke the sender late.
    Woken,
}

/// How late records went out, by cause.
#[derive(Clone, Debug)]
pub struct Lateness([Option<Histogram<u64>>; 3]);

/// [`Lateness`] in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatenessSummary {
    /// Half of all records were at most this late.
    pub median_us: f64,
    /// 99 in 100 were.
    pub p99_us: f64,
    /// 999 in 1000 were.
    pub p999_us: f64,
    /// The latest.
    pub max_us: f64,
    /// Records more than 100 us late because they were generated too late.
    pub starved: u64,
    /// Records more than 100 us late because the sink was still busy.
    pub blocked: u64,
    /// Records more than 100 us late because the sender was woken late.
    pub woken_late: u64,
}

impl Default for Lateness {
    fn default() -> Lateness {
        // An hour in three digits; these bounds are always accepted.
        Lateness([(); 3].map(|()| Histogram::new_with_bounds(1, 3_600_000_000_000, 3).ok()))
    }
}

impl Lateness {
    /// Counts a record.
    #[inline]
    pub fn record(&mut self, cause: Cause, late_ns: u64) {
        if let Some(histogram) = &mut self.0[cause as usize] {
            histogram.saturating_record(late_ns);
        }
    }

    /// Counts all that another has counted.
    pub fn add(&mut self, other: &Lateness) {
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            if let (Some(to), Some(from)) = (to, from) {
                // Both have the same bounds, so it always fits.
                let _ = to.add(from);
            }
        }
    }

    fn all(&self) -> Option<Histogram<u64>> {
        let mut parts = self.0.iter().flatten();
        let mut all = parts.next()?.clone();
        // As above.
        parts.for_each(|part| _ = all.add(part));
        Some(all)
    }

    /// The numbers, `None` if nothing was paced.
    #[must_use]
    pub fn summary(&self) -> Option<LatenessSummary> {
        let all = self.all().filter(|histogram| !histogram.is_empty())?;
        let at = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
        let late = |cause: Cause| {
            let histogram = self.0[cause as usize].as_ref();
            histogram.map_or(0, |histogram| histogram.count_between(LATE_NS + 1, u64::MAX))
        };
        Some(LatenessSummary {
            median_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: all.max() as f64 / 1e3,
            starved: late(Cause::Starved),
            blocked: late(Cause::Blocked),
            woken_late: late(Cause::Woken),
        })
    }

    /// For each bound, how many records were at most so late, to the histogram's three
    /// digits; then how many there are, and the sum of their lateness.
    #[must_use]
    pub fn cumulative(&self, bounds_ns: &[u64]) -> (Vec<u64>, u64, f64) {
        let Some(all) = self.all() else { return (vec![0; bounds_ns.len()], 0, 0.0) };
        let counts = bounds_ns.iter().map(|&bound| all.count_between(0, bound)).collect();
        (counts, all.len(), all.mean() * all.len() as f64)
    }
}

/// A time as people write it.
pub(crate) fn show_duration(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    // Three parts of a unit are enough to read.
    let rounded = if seconds >= 1.0 {
        Duration::from_millis(duration.as_millis() as u64)
    } else if seconds >= 1e-3 {
        Duration::from_micros(duration.as_micros() as u64)
    } else {
        duration
    };
    humantime::format_duration(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_drift() {
        let mut real = Schedule::new(Pace::Speed(1.0), 1000);
        assert_eq!(real.due(70), Some(1000));
        assert_eq!(real.due(u64::MAX / 2), Some(1000 + u64::MAX / 2 - 70));
        let mut double = Schedule::new(Pace::Speed(2.0), 0);
        assert_eq!((double.due(0), double.due(3_000_000_001)), (Some(0), Some(1_500_000_000)));
        let mut even = Schedule::new(Pace::PacketsPerSecond(3.0), 0);
        let next = |schedule: &mut Schedule, bytes| {
            let due = schedule.due(0);
            schedule.advance(bytes);
            due
        };
        let due: Vec<_> = (0..4).map(|_| next(&mut even, 60)).collect();
        assert_eq!(due, [Some(0), Some(333_333_333), Some(666_666_666), Some(1_000_000_000)]);
        let mut bits = Schedule::new(Pace::MegabitsPerSecond(2.5), 7);
        let due: Vec<_> = [1250, 125, 9].map(|bytes| next(&mut bits, bytes)).into();
        assert_eq!(due, [Some(7), Some(4_000_007), Some(4_400_007)]);
        assert_eq!(Schedule::new(Pace::TopSpeed, 0).due(5), None);
        // The slowest rate that can be asked for is exact as well.
        let mut slow = Schedule::new(Pace::PacketsPerSecond(0.0015), 0);
        assert_eq!((next(&mut slow, 0), slow.due(0)), (Some(0), Some(666_666_666_666)));
    }

    #[test]
    fn another_pace_goes_on_where_the_last_one_was() {
        let mut schedule = Schedule::new(Pace::Speed(1.0), 1_000);
        assert_eq!((schedule.due(0), schedule.due(500)), (Some(1_000), Some(1_500)));
        // At 1200 the trace is at 200; twice as fast it is at 500 after 150 more.
        schedule.set_pace(Pace::Speed(2.0), 1_200);
        assert_eq!(schedule.due(500), Some(1_350));
        schedule.shift(10_000);
        assert_eq!(schedule.due(500), Some(11_350));
        schedule.set_pace(Pace::PacketsPerSecond(1e6), 20_000);
        assert_eq!(schedule.due(500), Some(20_000));
        schedule.advance(60);
        assert_eq!(schedule.due(500), Some(21_000));
        schedule.set_pace(Pace::TopSpeed, 30_000);
        assert_eq!(schedule.due(500), None);
    }

    #[test]
    fn a_wait_never_ends_early() {
        make_timers_exact();
        for pacing in [Pacing::Precise, Pacing::Relaxed, Pacing::Spin] {
            let mut waiter = Waiter::new(pacing);
            for wait in [0, 1_000, 100_000, 2_000_000] {
                let due = now_ns() + wait;
                assert!(waiter.wait(due, || {}) >= due);
            }
            let due = now_ns() + 1000 * LONGEST_WAIT_NS;
            let now = waiter.wait(due, || panic!("it is not due"));
            assert!(now < due, "long waits are cut");
        }
    }

    #[test]
    fn the_margin_follows_how_late_sleeps_end() {
        let mut waiter = Waiter::new(Pacing::Precise);
        (0..10_000).for_each(|_| waiter.learn(0));
        assert_eq!(waiter.margin_ns, MARGINS_NS.0);
        // One sleep in ten ends 30 us late: too many to pass over. One in a hundred is not.
        (0..10_000).for_each(|number| waiter.learn(if number % 10 == 0 { 30_000 } else { 3_000 }));
        assert!((28_000..33_000).contains(&waiter.margin_ns), "{}", waiter.margin_ns);
        (0..10_000).for_each(|number| waiter.learn(if number % 100 == 0 { 30_000 } else { 3_000 }));
        assert!((2_000..5_000).contains(&waiter.margin_ns), "{}", waiter.margin_ns);
        (0..10_000).for_each(|_| waiter.learn(MARGINS_NS.1));
        assert!(waiter.margin_ns > MARGINS_NS.1 - 2 * MARGIN_STEP_NS, "{}", waiter.margin_ns);
        let learned = waiter.clone();
        (0..10_000).for_each(|_| waiter.learn(u64::MAX));
        assert_eq!(waiter.margin_ns, learned.margin_ns, "nothing helps against those");
    }

    #[test]
    fn a_margin_as_long_as_the_waits_does_not_stay() {
        let mut waiter = Waiter::new(Pacing::Precise);
        (0..10_000).for_each(|_| waiter.learn(MARGINS_NS.1));
        // Waits of 100 us: none is slept in until the margin is shorter.
        (0..1_000_000).for_each(|_| waiter.learn_unslept(100_000));
        assert!(waiter.margin_ns < 100_000, "{}", waiter.margin_ns);
        let learned = Waiter { margin_ns: 50_000, ..waiter };
        let mut waiter = learned.clone();
        (0..1_000_000).for_each(|_| waiter.learn_unslept(5_000));
        assert_eq!(waiter.margin_ns, learned.margin_ns, "within a train of packets");
    }

    #[test]
    fn lateness_is_told_by_cause() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.summary(), None);
        (0..90).for_each(|_| lateness.record(Cause::Woken, 500));
        (0..6).for_each(|_| lateness.record(Cause::Starved, 5_000_000));
        let mut more = Lateness::default();
        (0..3).for_each(|_| more.record(Cause::Blocked, 200_000));
        more.record(Cause::Woken, 150_000);
        lateness.add(&more);
        let summary = lateness.summary().unwrap();
        assert_eq!((summary.starved, summary.blocked, summary.woken_late), (6, 3, 1));
        assert!((0.49..0.51).contains(&summary.median_us), "{summary:?}");
        assert!((4_990.0..5_010.0).contains(&summary.max_us), "{summary:?}");
        let (counts, all, sum) = lateness.cumulative(&[1_000, 1_000_000]);
        assert_eq!((counts, all), (vec![90, 94], 100));
        assert!((30e6..31e6).contains(&sum), "{sum}");
    }
}
