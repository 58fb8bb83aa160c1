//! When each record is due, and waiting until then.
//!
//! The schedule is absolute: every due time follows from the beginning, so no
//! error adds up. The last stretch before it is spun, because a sleep alone
//! wakes late by what the timer and the scheduler need.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// How early the sleep ends; the rest is spun.
const SPIN_NS: u64 = 60_000;
/// Longest single sleep, so that a request to stop is seen in time.
const LONGEST_SLEEP_NS: u64 = 50_000_000;
/// Rates are kept in thousandths, to be exact in whole numbers.
const MILLI: f64 = 1000.0;

/// How fast records go out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as they are made.
    TopSpeed,
    /// In the trace's own time, so many times faster.
    Speed(f64),
    /// So many a second, evenly.
    PacketsPerSecond(f64),
}

/// When each record is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    begin_ns: u128,
    first_ns: Option<u64>,
    index: u128,
    pace: Pace,
}

impl Schedule {
    /// The first record is due at `begin_ns`, in [`now_ns`]'s time.
    #[must_use]
    pub fn new(pace: Pace, begin_ns: u64) -> Schedule {
        Schedule { begin_ns: u128::from(begin_ns), first_ns: None, index: 0, pace }
    }

    /// When the next record, of time `time_ns`, is due; `None` for at once.
    #[inline]
    pub fn next(&mut self, time_ns: u64) -> Option<u64> {
        let offset = match self.pace {
            Pace::TopSpeed => return None,
            Pace::Speed(speed) => {
                let first = *self.first_ns.get_or_insert(time_ns);
                let elapsed = u128::from(time_ns.saturating_sub(first));
                elapsed * MILLI as u128 / milli(speed)
            }
            Pace::PacketsPerSecond(rate) => {
                let offset = self.index * (1e9 * MILLI) as u128 / milli(rate);
                self.index += 1;
                offset
            }
        };
        Some(u64::try_from(self.begin_ns + offset).unwrap_or(u64::MAX))
    }
}

fn milli(rate: f64) -> u128 {
    ((rate * MILLI).round() as u128).max(1)
}

/// Nanoseconds of the monotonic clock, the one that [`sleep_towards`] sleeps by.
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

/// Lets timers of this thread be exact: the usual slack of 50 us saves power.
pub fn make_timers_exact() {
    #[allow(unsafe_code)]
    // SAFETY: PR_SET_TIMERSLACK takes one number. If it fails, sleeps end
    // later, which the lateness shows.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong);
    }
}

/// Waits for a due time, at most 50 ms; returns the time, which
/// is before `due_ns` if there is more to wait.
pub fn sleep_towards(due_ns: u64) -> u64 {
    let now = now_ns();
    let wake = due_ns.saturating_sub(SPIN_NS).min(now + LONGEST_SLEEP_NS);
    if wake > now {
        let until = libc::timespec {
            tv_sec: (wake / 1_000_000_000) as libc::time_t,
            tv_nsec: (wake % 1_000_000_000) as libc::c_long,
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
    }
    let mut now = now_ns();
    if due_ns.saturating_sub(now) <= SPIN_NS {
        while now < due_ns {
            std::hint::spin_loop();
            now = now_ns();
        }
    }
    now
}

/// How late records went out.
#[derive(Clone, Debug)]
pub struct Lateness(Option<Histogram<u64>>);

/// [`Lateness`] in numbers, in microseconds.
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
}

impl Default for Lateness {
    fn default() -> Lateness {
        // An hour in three digits; these bounds are always accepted.
        Lateness(Histogram::new_with_bounds(1, 3_600_000_000_000, 3).ok())
    }
}

impl Lateness {
    /// Counts a record.
    #[inline]
    pub fn record(&mut self, late_ns: u64) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(late_ns);
        }
    }

    /// The numbers, `None` if nothing was paced.
    #[must_use]
    pub fn summary(&self) -> Option<LatenessSummary> {
        let histogram = self.0.as_ref().filter(|histogram| !histogram.is_empty())?;
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Some(LatenessSummary {
            median_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        })
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
        assert_eq!(real.next(70), Some(1000));
        assert_eq!(real.next(u64::MAX / 2), Some(1000 + u64::MAX / 2 - 70));
        let mut double = Schedule::new(Pace::Speed(2.0), 0);
        assert_eq!((double.next(0), double.next(3_000_000_001)), (Some(0), Some(1_500_000_000)));
        let mut even = Schedule::new(Pace::PacketsPerSecond(3.0), 0);
        let due: Vec<_> = (0..4).map(|_| even.next(0)).collect();
        assert_eq!(due, [Some(0), Some(333_333_333), Some(666_666_666), Some(1_000_000_000)]);
        assert_eq!(Schedule::new(Pace::TopSpeed, 0).next(5), None);
    }

    #[test]
    fn a_wait_never_ends_early() {
        make_timers_exact();
        for wait in [0, 1_000, 100_000, 2_000_000] {
            let due = now_ns() + wait;
            assert!(sleep_towards(due) >= due);
        }
        let due = now_ns() + 10 * LONGEST_SLEEP_NS;
        assert!(sleep_towards(due) < due, "long waits are cut");
    }
}
