//! The rule for how much free memory is retained.
//!
//! Memory is counted in slots. An arena is one slot, and a large mapping has one or more.
//!
//! At first, an arena source returns all free memory to the system. If the program soon requests
//! memory again, the source begins to retain memory, because retained memory could have served the
//! request. Two rules limit how much memory the source retains:
//!
//! - The sum of used and retained memory may exceed the recent peak of used memory by at most a
//!   certain percentage. Each arena source sets this percentage.
//! - Once the program has requested no memory for the decay time, which is one second by default,
//!   the source retains no memory.

#![forbid(unsafe_code)]

use core::time::Duration;

/// The default decay time of a source.
pub(crate) const DECAY: Duration = Duration::from_secs(1);

/// Statistics about recent requests and frees, which determine how much memory may be retained.
#[derive(Debug)]
pub(crate) struct Demand {
    decay: Duration,
    /// The sum of memory in use and retained memory may exceed the recent peak of memory in use by
    /// this percentage.
    above_peak: usize,
    now: Duration,
    /// When memory was last requested.
    requested: Duration,
    /// The number of slots that may be retained, unless the peaks allow fewer.
    limit: usize,
    /// The number of slots that were returned to the system and have not been requested again.
    given_back: usize,
    /// The time when slots were last returned to the system.
    gave_back: Duration,
    in_use: usize,
    /// When the current period started. A period is as long as the decay time.
    started: Duration,
    /// The largest number of slots in use in the current period.
    peak: usize,
    previous_peak: usize,
}

impl Demand {
    /// Creates the state of a program that has requested nothing yet.
    ///
    /// Memory stays retained only while the program keeps requesting memory. Once the time `decay`
    /// has passed without a request, nothing stays retained, not even memory that was freed only
    /// recently.
    ///
    /// Memory in use and retained memory together may exceed the recent peak of memory in use by at
    /// most `above_peak` percent.
    pub(crate) const fn new(decay: Duration, above_peak: usize) -> Self {
        Self {
            decay,
            above_peak,
            now: Duration::ZERO,
            requested: Duration::ZERO,
            limit: 0,
            given_back: 0,
            gave_back: Duration::ZERO,
            in_use: 0,
            started: Duration::ZERO,
            peak: 0,
            previous_peak: 0,
        }
    }

    /// Sets the current time, to which all later calls refer.
    #[inline]
    pub(crate) fn advance_to(&mut self, now: Duration) {
        // If the coarse clock still shows the same time, nothing can have expired, unless the decay
        // time is zero.
        if now != self.now || self.decay.is_zero() {
            self.now = now;
            self.expire();
        }
    }

    /// Discards information that is too old to matter at the current time.
    fn expire(&mut self) {
        if self.has_passed_since(self.requested) {
            self.limit = 0;
            self.peak = self.in_use;
            self.previous_peak = self.in_use;
        }
        if self.has_passed_since(self.gave_back) {
            self.given_back = 0;
        }
        if self.has_passed_since(self.started) {
            // If a whole period has passed without a call, the number of slots in use did not
            // change during that period.
            let is_recent = self.now.saturating_sub(self.started) < self.decay.saturating_mul(2);
            self.previous_peak = if is_recent { self.peak } else { self.in_use };
            self.peak = self.in_use;
            self.started = self.now;
        }
    }

    fn has_passed_since(&self, start: Duration) -> bool {
        self.now.saturating_sub(start) >= self.decay
    }

    /// Records a request for `slots` slots, `reused` of which had been retained.
    ///
    /// Raises the limit on retained slots if this request needs slots that were recently returned
    /// to the system.
    pub(crate) fn request(&mut self, slots: usize, reused: usize) {
        self.requested = self.now;
        self.occupy(slots);
        self.peak = self.peak.max(self.in_use);
        let missed = self.given_back.min(slots.saturating_sub(reused));
        self.given_back -= missed;
        self.limit = self.limit.saturating_add(missed);
    }

    /// Records that `slots` retained or free slots are in use again, although none of them was
    /// requested.
    pub(crate) fn occupy(&mut self, slots: usize) {
        self.in_use = self.in_use.saturating_add(slots);
    }

    /// Records that `slots` slots are no longer in use.
    pub(crate) fn vacate(&mut self, slots: usize) {
        self.in_use = self.in_use.saturating_sub(slots);
    }

    /// Records that `slots` slots, which are not in use, were returned to the system.
    pub(crate) fn give_back(&mut self, slots: usize) {
        if slots > 0 {
            self.given_back = self.given_back.saturating_add(slots);
            self.gave_back = self.now;
        }
    }

    /// Returns how many slots may be retained.
    pub(crate) fn allowed(&self) -> usize {
        self.limit.min(self.below_most())
    }

    /// Returns the largest number of slots that the recent peak allows, minus the number in use.
    pub(crate) fn below_most(&self) -> usize {
        let peak = self.peak.max(self.previous_peak);
        // Users report how much they retain. Even a wrong number must not cause an overflow.
        let above = peak.saturating_mul(self.above_peak) / 100;
        peak.saturating_add(above).saturating_sub(self.in_use)
    }

    /// Returns the number of slots that are in use.
    #[cfg_attr(
        not(all(target_os = "linux", target_pointer_width = "64")),
        allow(dead_code, reason = "only a reserved range needs this number")
    )]
    pub(crate) fn in_use(&self) -> usize {
        self.in_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Requests and returns `slots` slots twice, beginning at the time of 10 seconds.
    fn demand(slots: usize) -> Demand {
        let mut demand = Demand::new(MS(1000), 0);
        demand.advance_to(MS(10_000));
        for _ in 0..2 {
            demand.request(slots, 0);
            demand.vacate(slots);
            demand.give_back(slots);
        }
        demand
    }

    /// Keeps the demand alive without requesting memory.
    fn touch(demand: &mut Demand, now: Duration) {
        demand.advance_to(now);
        demand.request(0, 0);
    }

    /// Regression test: a computation with the decay time overflowed.
    #[test]
    fn the_decay_time_and_the_clock_may_be_as_large_as_possible() {
        let mut demand = Demand::new(Duration::MAX, 0);
        for now in [MS(0), Duration::MAX - MS(1), Duration::MAX, MS(0)] {
            demand.advance_to(now);
            demand.request(1, 0);
        }
        assert_eq!(demand.in_use(), 4);
    }

    #[test]
    fn the_first_free_memory_may_not_be_retained() {
        let mut demand = Demand::new(MS(1000), 0);
        demand.advance_to(MS(10_000));
        demand.request(8, 0);
        demand.vacate(8);
        assert_eq!(demand.allowed(), 0);
    }

    #[test]
    fn as_much_may_be_retained_as_was_given_back_and_requested_again() {
        let mut demand = Demand::new(MS(1000), 0);
        demand.advance_to(MS(10_000));
        demand.request(10, 0);
        demand.vacate(4);
        demand.give_back(4);
        demand.request(3, 0);
        demand.vacate(9);
        assert_eq!(demand.allowed(), 3);
        demand.request(9, 3);
        demand.vacate(9);
        assert_eq!(demand.allowed(), 4);
    }

    #[test]
    fn reused_memory_does_not_raise_the_limit() {
        let mut demand = demand(8);
        demand.request(8, 8);
        demand.vacate(8);
        assert_eq!(demand.allowed(), 8);
    }

    #[test]
    fn in_use_and_retained_slots_do_not_exceed_the_peak() {
        let mut demand = demand(8);
        demand.request(3, 3);
        assert_eq!(demand.allowed(), 5);
        demand.request(7, 5);
        assert_eq!(demand.allowed(), 0);
        demand.vacate(10);
        assert_eq!(demand.allowed(), 10);
    }

    #[test]
    fn the_source_may_allow_a_part_of_the_peak_above_it() {
        let mut demand = Demand { above_peak: 50, ..demand(8) };
        demand.request(3, 3);
        assert_eq!(demand.allowed(), 8);
        demand.request(6, 5);
        assert_eq!((demand.in_use(), demand.allowed()), (9, 4));
    }

    #[test]
    fn a_peak_counts_for_at_least_one_period_and_at_most_two() {
        let mut demand = demand(8);
        touch(&mut demand, MS(10_900));
        assert_eq!(demand.allowed(), 8);
        touch(&mut demand, MS(11_800));
        assert_eq!(demand.allowed(), 8);
        touch(&mut demand, MS(12_700));
        assert_eq!(demand.allowed(), 8);
        touch(&mut demand, MS(12_800));
        assert_eq!(demand.allowed(), 0);
    }

    #[test]
    fn nothing_may_be_retained_if_nothing_was_requested_for_the_decay_time() {
        let mut demand = demand(8);
        demand.advance_to(MS(10_999));
        assert_eq!(demand.allowed(), 8);
        demand.advance_to(MS(11_000));
        assert_eq!(demand.allowed(), 0);
        demand.request(8, 0);
        demand.vacate(8);
        assert_eq!(demand.allowed(), 0);
    }

    #[test]
    fn memory_that_was_given_back_long_ago_does_not_raise_the_limit() {
        let mut demand = Demand::new(MS(1000), 0);
        demand.advance_to(MS(10_000));
        demand.request(8, 0);
        demand.vacate(8);
        demand.give_back(8);
        touch(&mut demand, MS(10_900));
        demand.advance_to(MS(11_100));
        demand.request(8, 0);
        demand.vacate(8);
        assert_eq!(demand.allowed(), 0);
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let mut demand = demand(8);
        demand.advance_to(MS(0));
        assert_eq!(demand.allowed(), 8);
    }
}
