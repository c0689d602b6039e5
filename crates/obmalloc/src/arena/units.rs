//! A bit mask of the free units of an arena. Our own geometry uses it to find adjacent free units.
//!
//! ```text
//!   unit       0    1    2    3    4    5    …   62   63
//!   free       ·    ·    1    1    1    ·        1    1
//!   carved     1    1    1    ·    ·    1        ·    1      its header is written
//!   dirty      1    ·    1    ·    ·    ·        ·    1      its memory is not known to be zero
//!   idle       ·    ·    1    ·    ·    ·        ·    1      it was free and dirty a while ago
//! ```

#![forbid(unsafe_code)]

use raw_mem::Contents;

/// The free units of an arena of at most 64 units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    free: u64,
    carved: u64,
    dirty: u64,
    /// The units that have been free and dirty since the last call of [`Units::note_idle`].
    idle: u64,
}

/// Adjacent units of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: usize,
    pub(crate) units: usize,
}

impl Run {
    fn bits(self) -> u64 {
        (u64::MAX >> (u64::BITS as usize - self.units)) << self.first
    }
}

impl Units {
    /// The units of a record without an arena.
    pub(crate) const NONE: Self = Self { free: 0, carved: 0, dirty: 0, idle: 0 };

    /// Returns the units of a new arena of `units` units, all of them free.
    pub(crate) fn all_free(units: usize, contents: Contents) -> Self {
        let all = u64::MAX >> (u64::BITS as usize - units);
        let dirty = if contents == Contents::Zero { 0 } else { all };
        Self { free: all, carved: 0, dirty, idle: 0 }
    }

    /// Returns the number of free units whose header is written.
    pub(crate) fn free_and_carved(self) -> usize {
        (self.free & self.carved).count_ones() as usize
    }

    pub(crate) fn is_carved(self, unit: usize) -> bool {
        self.carved >> unit & 1 != 0
    }

    /// Returns the units that are not known to be zero, as bits.
    pub(crate) fn dirty(self) -> u64 {
        self.dirty
    }

    /// Returns the number of free units.
    pub(crate) fn count(self) -> usize {
        self.free.count_ones() as usize
    }

    /// Returns the free and dirty units as bits. Ignores the units before `first`, which must be
    /// less than 64.
    pub(crate) fn free_and_dirty_from(self, first: usize) -> u64 {
        self.free & self.dirty & u64::MAX << first
    }

    /// Returns the free unit to use next: the lowest dirty one, or the lowest one if none is dirty.
    ///
    /// Ignores the units before `first`, which must be less than 64.
    pub(crate) fn lowest_from(self, first: usize) -> Option<usize> {
        let dirty = bits(self.free_and_dirty_from(first)).next();
        dirty.or_else(|| bits(self.free & u64::MAX << first).next())
    }

    /// Finds `units` adjacent free units, the first of which has an index that is a multiple of
    /// `align`.
    ///
    /// `align` must be a power of two. The result never contains the arena's first unit, which
    /// holds the headers.
    ///
    /// Prefers units that are all *dirty*, which means not known to be zero. Memory may already
    /// back dirty units, so using them may need no new memory. If several groups of adjacent units
    /// are equally good, returns the one with the highest index.
    pub(crate) fn find_run(self, units: usize, align: usize) -> Option<Run> {
        let aligned = ALIGNED[align.ilog2() as usize % ALIGNED.len()];
        let highest = |mask: u64| {
            let starts = run_starts(mask & !1, units) & aligned;
            Some(Run { first: starts.checked_ilog2()? as usize, units })
        };
        highest(self.free & self.dirty).or_else(|| highest(self.free))
    }

    /// Takes the units of `run`, which must be free.
    pub(crate) fn take(&mut self, run: Run) {
        debug_assert_eq!(self.free & run.bits(), run.bits());
        self.free &= !run.bits();
        self.idle &= !run.bits();
    }

    /// Records that the header of `unit` is written.
    pub(crate) fn note_carved(&mut self, unit: usize) {
        self.carved |= 1 << unit;
    }

    /// Marks the units of `run` as free and as not known to be zero.
    pub(crate) fn put(&mut self, run: Run) {
        debug_assert_eq!(self.free & run.bits(), 0);
        self.free |= run.bits();
        self.dirty |= run.bits();
    }

    /// Iterates over the free units that are not known to be zero, beginning with the lowest.
    ///
    /// If `only_idle` is true, skips units that were not free and dirty at the last [`note_idle`].
    ///
    /// [`note_idle`]: Self::note_idle
    pub(crate) fn free_and_dirty(self, only_idle: bool) -> impl Iterator<Item = usize> {
        bits(self.free & self.dirty & if only_idle { self.idle } else { u64::MAX })
    }

    /// Records which units are free and dirty now.
    pub(crate) fn note_idle(&mut self) {
        self.idle = self.free & self.dirty;
    }

    /// Records that the memory of `unit`, which must be free, is zero.
    pub(crate) fn note_zero(&mut self, unit: usize) {
        debug_assert!(self.free >> unit & 1 != 0);
        self.dirty &= !(1 << unit);
        self.idle &= !(1 << unit);
    }

    /// Returns true if the memory of `run` that its present pool has not used yet is known to be
    /// zero.
    pub(crate) fn is_zero(self, run: Run) -> bool {
        self.dirty & run.bits() == 0
    }
}

/// For each power of two, the units whose number is a multiple of it.
const ALIGNED: [u64; 8] = {
    let mut masks = [0; 8];
    let mut align = 0;
    while align < masks.len() {
        let mut unit = 0;
        while unit < u64::BITS {
            masks[align] |= 1 << unit;
            unit += 1 << align;
        }
        align += 1;
    }
    masks
};

fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let lowest = mask.checked_ilog2().map(|_| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(lowest)
    })
}

/// Returns the bits of `mask` at which at least `units` adjacent set bits begin.
fn run_starts(mask: u64, units: usize) -> u64 {
    let (mut starts, mut length) = (mask, 1);
    while length < units {
        let step = length.min(units - length);
        starts &= starts >> step;
        length += step;
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds the same run as `find_run` by testing each unit.
    fn slow(mask: u64, units: usize, align: usize) -> Option<usize> {
        let is_run = |first: usize| (first..first + units).all(|unit| mask >> unit & 1 != 0);
        (1..=64 - units).rev().find(|first| first % align == 0 && is_run(*first))
    }

    #[test]
    fn the_highest_run_of_free_units_is_found() {
        let mut mask = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..2000_u64 {
            mask = mask.rotate_left(7).wrapping_mul(0x2545_f491_4f6c_dd1d) | mask >> 3 | round;
            for (units, align) in
                [(1, 1), (2, 1), (3, 1), (5, 2), (8, 8), (30, 1), (31, 1), (4, 32)]
            {
                let found = Units { free: mask, ..Units::NONE }.find_run(units, align);
                assert_eq!(
                    found.map(|run| run.first),
                    slow(mask, units, align),
                    "{mask:x} {units}"
                );
            }
        }
    }

    #[test]
    fn units_that_were_used_before_are_preferred() {
        let mut units = Units::all_free(64, Contents::Zero);
        let first = units.find_run(2, 1).unwrap();
        assert_eq!(first, Run { first: 62, units: 2 });
        units.take(first);
        let second = units.find_run(2, 1).unwrap();
        units.take(second);
        units.put(second);
        units.put(first);
        assert_eq!(units.find_run(2, 1), Some(first));
        units.take(first);
        assert_eq!(units.find_run(2, 1), Some(second));
        assert_eq!(units.find_run(3, 1).unwrap().first, 59);
        assert_eq!(units.lowest_from(0), Some(60));
    }

    #[test]
    fn only_units_that_were_never_used_are_zero() {
        let mut units = Units::all_free(4, Contents::Zero);
        let run = Run { first: 1, units: 2 };
        assert!(units.is_zero(run) && units.count() == 4);
        units.take(run);
        assert!(units.is_zero(run) && units.count() == 2);
        units.put(run);
        assert!(!units.is_zero(Run { first: 2, units: 2 }) && units.count() == 4);
        let used_before = Units::all_free(4, Contents::Unknown);
        assert!(!used_before.is_zero(run) && used_before.count() == 4);
    }

    #[test]
    fn the_first_unit_is_never_part_of_a_run() {
        assert_eq!(
            Units::all_free(2, Contents::Zero).find_run(1, 1),
            Some(Run { first: 1, units: 1 })
        );
        assert_eq!(Units::all_free(2, Contents::Zero).find_run(2, 1), None);
        assert_eq!(Units::all_free(64, Contents::Zero).find_run(64, 1), None);
        assert_eq!(
            Units::all_free(64, Contents::Zero).find_run(63, 1).map(|run| run.first),
            Some(1)
        );
    }
}
