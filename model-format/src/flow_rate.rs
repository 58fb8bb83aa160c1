//! How densely flows arrive, compared with those that were learned.

/// Least and greatest factor.
const RANGE: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

/// So many times as many flows as were learned: the same at all times, or at first
/// changing evenly. Only when flows start depends on it, never what happens within one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowRate {
    from: f64,
    to: f64,
    over_ns: u64,
}

impl From<f64> for FlowRate {
    fn from(rate: f64) -> FlowRate {
        FlowRate { from: rate, to: rate, over_ns: 0 }
    }
}

impl FlowRate {
    /// `from` times at the beginning, then evenly more or less until it is `to` times
    /// after `over_ns` nanoseconds, and so from then on.
    #[must_use]
    pub fn ramp(from: f64, to: f64, over_ns: u64) -> FlowRate {
        FlowRate { from, to, over_ns }
    }

    /// Whether both factors can be generated: from 0.000001 to 1000000, where a ramp may
    /// begin with 0.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        RANGE.contains(&self.to) && (RANGE.contains(&self.from) || self.from == 0.0)
    }

    /// The factor at the beginning, and the one that stays.
    #[must_use]
    pub fn ends(&self) -> (f64, f64) {
        if self.over_ns == 0 { (self.to, self.to) } else { (self.from, self.to) }
    }

    /// How long it changes, in nanoseconds.
    #[must_use]
    pub fn over_ns(&self) -> u64 {
        self.over_ns
    }

    /// When a flow starts that would start at `time_ns` if the rate were 1.
    #[must_use]
    pub fn start_ns(&self, time_ns: u64) -> u64 {
        if self.ends() == (1.0, 1.0) {
            return time_ns;
        }
        let (area, over) = (self.area(0, self.over_ns), self.over_ns as f64);
        let time = time_ns as f64;
        let start = match time < area {
            true => self.solve(0, time),
            false => over + (time - area) / self.to,
        };
        start.round() as u64
    }

    /// Whether it is not yet what it will stay.
    pub(crate) fn changes_after(&self, time_ns: u64) -> bool {
        time_ns < self.over_ns && self.from != self.to
    }

    /// The greatest factor.
    pub(crate) fn most(&self) -> f64 {
        self.ends().0.max(self.to)
    }

    /// The mean factor of a time that is not empty.
    pub(crate) fn mean(&self, begin_ns: u64, end_ns: u64) -> f64 {
        self.area(begin_ns, end_ns) / (end_ns - begin_ns) as f64
    }

    /// How long after `begin_ns` a share of the flows has started that start until `end_ns`.
    pub(crate) fn place_ns(&self, begin_ns: u64, end_ns: u64, share: f64) -> f64 {
        let changing_end = end_ns.min(self.over_ns).max(begin_ns);
        let changing = self.area(begin_ns, changing_end);
        let wanted = share * self.area(begin_ns, end_ns);
        if wanted <= changing {
            return self.solve(begin_ns, wanted);
        }
        (changing_end - begin_ns) as f64 + (wanted - changing) / self.to
    }

    fn at(&self, time_ns: u64) -> f64 {
        if time_ns >= self.over_ns {
            return self.to;
        }
        self.from + self.slope() * time_ns as f64
    }

    fn slope(&self) -> f64 {
        (self.to - self.from) / self.over_ns as f64
    }

    /// The factor summed up over a time.
    fn area(&self, begin_ns: u64, end_ns: u64) -> f64 {
        let middle_ns = self.over_ns.clamp(begin_ns, end_ns);
        let (changing, rest) = ((middle_ns - begin_ns) as f64, (end_ns - middle_ns) as f64);
        changing * (self.at(begin_ns) + self.at(middle_ns)) / 2.0 + self.to * rest
    }

    /// How long after `begin_ns` the sum is `area`, while the factor changes.
    fn solve(&self, begin_ns: u64, area: f64) -> f64 {
        if begin_ns >= self.over_ns {
            return area / self.to;
        }
        let at = self.at(begin_ns);
        // Of at x + slope x^2 / 2 = area, the root that is right for a slope of 0 too.
        let root = (at * at + 2.0 * self.slope() * area).max(0.0).sqrt();
        if at + root > 0.0 { 2.0 * area / (at + root) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_rate_divides_times_and_one_leaves_them() {
        let exact = FlowRate::from(1.0);
        assert_eq!(exact.start_ns(u64::MAX - 1), u64::MAX - 1);
        assert_eq!(FlowRate::from(4.0).start_ns(1_000), 250);
        assert!(!FlowRate::from(4.0).changes_after(0));
        assert_eq!(FlowRate::from(3.0).mean(5, 9), 3.0);
        assert_eq!(FlowRate::from(3.0).place_ns(5, 9, 0.25), 1.0);
    }

    #[test]
    fn a_ramp_has_its_flows_where_the_rate_says() {
        // From 1 to 3 over 1000: after 500 it is 2, and 750 flows of rate 1 have come.
        let ramp = FlowRate::ramp(1.0, 3.0, 1_000);
        assert_eq!(ramp.mean(0, 1_000), 2.0);
        assert_eq!(ramp.start_ns(750), 500);
        assert_eq!(ramp.start_ns(2_000), 1_000);
        assert_eq!(ramp.start_ns(2_300), 1_100);
        assert_eq!((ramp.changes_after(999), ramp.changes_after(1_000)), (true, false));
        for (begin, end) in [(0, 1_000), (200, 700), (900, 1_900), (1_500, 1_700)] {
            let place = |share: f64| begin as f64 + ramp.place_ns(begin, end, share);
            assert!((place(1.0) - end as f64).abs() < 1e-6);
            for step in 1..10 {
                let until = place(f64::from(step) / 10.0);
                let area = ramp.area(begin, until as u64) / ramp.area(begin, end);
                assert!((area - f64::from(step) / 10.0).abs() < 0.01, "{begin} {step}");
            }
        }
        let from_nothing = FlowRate::ramp(0.0, 2.0, 100);
        assert_eq!((from_nothing.start_ns(0), from_nothing.start_ns(25)), (0, 50));
        let down = FlowRate::ramp(2.0, 1.0, 1_000);
        assert_eq!((down.start_ns(1_500), down.start_ns(1_600)), (1_000, 1_100));
    }

    #[test]
    fn rates_out_of_range_are_told() {
        assert!(FlowRate::ramp(0.0, 1.0, 5).is_valid() && FlowRate::from(1e6).is_valid());
        for rate in [f64::NAN, 0.0, -1.0, 1e7, 1e-7] {
            assert!(!FlowRate::from(rate).is_valid(), "{rate}");
            assert!(!FlowRate::ramp(1.0, rate, 5).is_valid(), "{rate}");
        }
        assert!(!FlowRate::ramp(-1.0, 1.0, 5).is_valid());
    }
}
