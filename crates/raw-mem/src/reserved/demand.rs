//! How many slots large mappings have needed recently, which limits how many may be retained.

#![forbid(unsafe_code)]

use core::time::Duration;

/// The number of slots in use, and its peaks in the current and in the previous period.
#[derive(Debug)]
pub(super) struct Demand {
    period: Duration,
    in_use: usize,
    started: Duration,
    peak: usize,
    previous_peak: usize,
}

impl Demand {
    /// Starts to measure in periods of the length `period`.
    pub(super) const fn new(period: Duration) -> Self {
        Self { period, in_use: 0, started: Duration::ZERO, peak: 0, previous_peak: 0 }
    }

    /// Starts a new period at the time `now` if the current one has ended.
    pub(super) fn advance_to(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.started);
        if passed < self.period {
            return;
        }
        // If a whole period has passed without a call, the number did not change during it.
        self.previous_peak = if passed < 2 * self.period { self.peak } else { self.in_use };
        self.peak = self.in_use;
        self.started = now;
    }

    /// Replaces `old` slots in use by `new` ones.
    pub(super) fn change(&mut self, old: usize, new: usize) {
        self.in_use = (self.in_use + new).saturating_sub(old);
        self.peak = self.peak.max(self.in_use);
    }

    /// Forgets the peaks, so that nothing may be retained until large mappings come back.
    pub(super) fn forget(&mut self) {
        self.peak = self.in_use;
        self.previous_peak = self.in_use;
    }

    /// Returns how many slots may be retained.
    pub(super) fn room(&self) -> usize {
        self.peak.max(self.previous_peak) - self.in_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn demand(slots: usize) -> Demand {
        let mut demand = Demand::new(MS(1000));
        demand.advance_to(MS(10_000));
        demand.change(0, slots);
        demand.change(slots, 0);
        demand
    }

    #[test]
    fn what_was_in_use_may_be_retained() {
        let mut demand = demand(8);
        assert_eq!(demand.room(), 8);
        demand.change(0, 3);
        assert_eq!(demand.room(), 5);
        demand.change(3, 10);
        assert_eq!(demand.room(), 0);
    }

    #[test]
    fn a_peak_counts_for_at_least_one_period_and_at_most_two() {
        let mut demand = demand(8);
        demand.advance_to(MS(10_999));
        assert_eq!(demand.room(), 8);
        demand.advance_to(MS(11_999));
        assert_eq!(demand.room(), 8);
        demand.advance_to(MS(12_999));
        assert_eq!(demand.room(), 0);
    }

    #[test]
    fn a_peak_before_a_pause_of_two_periods_does_not_count() {
        let mut demand = demand(8);
        demand.change(0, 2);
        demand.advance_to(MS(12_000));
        assert_eq!(demand.room(), 0);
        demand.change(2, 0);
        assert_eq!(demand.room(), 2);
    }

    #[test]
    fn forgotten_peaks_leave_no_room() {
        let mut demand = demand(8);
        demand.change(0, 2);
        demand.forget();
        assert_eq!(demand.room(), 0);
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let mut demand = demand(8);
        demand.advance_to(MS(0));
        assert_eq!(demand.room(), 8);
    }
}
