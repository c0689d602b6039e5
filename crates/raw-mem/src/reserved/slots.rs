//! The states of the slots of a reserved range.
//!
//! | state | access | pages | `used` | `retained` | `closed` |
//! | --- | --- | --- | --- | --- | --- |
//! | free, closed | none | none | 0 | 0 | 1 |
//! | free, open | writable | none | 0 | 0 | 0 |
//! | retained | writable | some | 0 | 1 | 0 |
//! | used | writable | some | 1 | 0 | 0 |
//!
//! A free slot is normally *closed*, which means that it is inaccessible. Adjacent closed slots
//! form a single mapping of the system, and the system limits the number of mappings. If there are
//! too many runs of closed slots, a slot that becomes free stays *open*, which means writable.
//!
//! A slot is *stale* if its memory may contain old data. A retained slot is stale, because it keeps
//! the memory of its last use, and it remains stale when it is used again. A slot that becomes free
//! is normally not stale, because its memory is returned to the system.
//!
//! If the range uses huge pages, all free slots are open. A free slot can then be stale, because
//! the memory of a huge page is returned to the system only when all slots in the huge page are
//! free.

#![forbid(unsafe_code)]

use core::ops::Range;

use super::bits;

/// The number of bitmaps.
pub(super) const BITMAPS: usize = 5;

/// The kind of unused slots that a request prefers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// Slots whose memory was retained, because the request can reuse it.
    Retained,
    /// Slots without old data, because the request would have to clear or replace it.
    Fresh,
}

/// The states of all slots, in bitmaps that the caller provides.
pub(super) struct Slots<'a> {
    used: &'a mut [usize],
    retained: &'a mut [usize],
    stale: &'a mut [usize],
    closed: &'a mut [usize],
    /// The slots at which a piece of moved memory begins.
    ///
    /// When the memory of adjacent slots moves together to other slots, the new slots form a piece.
    /// The system keeps each piece as a mapping of its own and limits the number of mappings, so we
    /// count the pieces. We no longer count a piece once its first slot is closed.
    pieces: &'a mut [usize],
    /// The number of slots, at most `max`.
    len: usize,
    max: usize,
    /// Every slot below this one is used.
    hint: usize,
    /// This slot and all higher slots are free, and have not been used since they were added.
    top: usize,
    /// The number of retained slots.
    retained_count: usize,
    /// The number of runs of adjacent closed slots.
    closed_runs: usize,
    /// The number of slots in `pieces`.
    piece_count: usize,
}

impl<'a> Slots<'a> {
    /// Creates the states of a range that has no slots yet and will have at most `max`.
    ///
    /// `words` must be zero, and [`BITMAPS`] times as long as one bitmap.
    pub(super) fn new(words: &'a mut [usize], max: usize) -> Self {
        let (used, words) = words.split_at_mut(bits::words_for(max));
        let (retained, words) = words.split_at_mut(bits::words_for(max));
        let (stale, words) = words.split_at_mut(bits::words_for(max));
        let (closed, pieces) = words.split_at_mut(bits::words_for(max));
        Self {
            used,
            retained,
            stale,
            closed,
            pieces,
            len: 0,
            max,
            hint: 0,
            top: 0,
            retained_count: 0,
            closed_runs: 0,
            piece_count: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of slots that can still be added.
    pub(super) fn addable(&self) -> usize {
        self.max - self.len
    }

    /// Returns the number after the highest slot that was ever used.
    pub(super) fn top(&self) -> usize {
        self.top
    }

    /// Adds `count` slots after the last one, and marks them as closed.
    ///
    /// With huge pages, these slots are writable, so the caller then marks them as open.
    pub(super) fn add(&mut self, count: usize) {
        debug_assert!(count <= self.addable(), "too many slots");
        let added = self.len..self.len + count;
        self.len += count;
        self.close(added);
    }

    /// Returns the number of runs of adjacent closed slots.
    #[cfg(test)]
    pub(super) fn closed_runs(&self) -> usize {
        self.closed_runs
    }

    /// Records that the free slots of `run` are inaccessible.
    pub(super) fn close(&mut self, run: Range<usize>) {
        debug_assert!(self.are_free(run.clone()), "a slot is in use");
        self.forget_pieces(run.clone());
        self.change_access(run, bits::set);
    }

    /// Records that the slots of `run` are writable.
    pub(super) fn open(&mut self, run: Range<usize>) {
        self.change_access(run, bits::clear);
    }

    fn change_access(&mut self, run: Range<usize>, change: fn(&mut [usize], Range<usize>)) {
        let around = run.start.saturating_sub(1)..self.max.min(run.end + 1);
        let before = bits::runs(self.closed, around.clone());
        change(self.closed, run);
        self.closed_runs = self.closed_runs + bits::runs(self.closed, around) - before;
    }

    /// Returns `run`, which is in use, together with the adjacent open slots on both sides.
    pub(super) fn with_open_neighbours(&self, run: Range<usize>) -> Range<usize> {
        let is_open = |at| self.are_free(at..at + 1) && !bits::is_set(self.closed, at);
        let (mut start, mut end) = (run.start, run.end);
        if start > 0 && is_open(start - 1) {
            start = [&self.used, &self.retained, &self.closed]
                .into_iter()
                .fold(0, |first, states| bits::after_last_one(states, first..start));
        }
        if end < self.top && is_open(end) {
            end = [&self.used, &self.retained, &self.closed]
                .into_iter()
                .fold(self.top, |last, states| bits::first_one(states, end..last));
        }
        start..end
    }

    /// Returns the first run of open slots at or after slot `from`.
    pub(super) fn next_open(&self, from: usize) -> Option<Range<usize>> {
        let others = [&self.used, &self.retained, &self.closed];
        let mut start = from;
        while let Some(other) = others.iter().find(|other| is_set_before(other, start, self.top)) {
            start = bits::first_zero(other, start..self.top);
        }
        let end = others.iter().fold(self.top, |end, other| bits::first_one(other, start..end));
        (start < end).then_some(start..end)
    }

    /// Returns how many runs of closed slots there would be if all slots of `run` were closed.
    ///
    /// None of the slots of `run` may be closed already.
    pub(super) fn closed_runs_with(&self, run: Range<usize>) -> usize {
        let before = run.start > 0 && bits::is_set(self.closed, run.start - 1);
        let behind = is_set_before(self.closed, run.end, self.len);
        self.closed_runs + 1 - usize::from(before) - usize::from(behind)
    }

    /// Treats the free slots after the last used or retained slot as if they had never been used.
    ///
    /// Returns true if there were any such slots.
    pub(super) fn forget_free_end(&mut self) -> bool {
        let used = bits::last_run(self.used, self.top).end;
        let retained = bits::last_run(self.retained, self.top).end;
        let top = used.max(retained);
        let is_lower = top < self.top;
        self.top = top;
        self.hint = self.hint.min(top);
        is_lower
    }

    /// Removes the slots that were never used.
    pub(super) fn remove_unused(&mut self) {
        self.open(self.top..self.len);
        self.len = self.top;
    }

    /// Returns how many slots to add to the range to get a run of `count` unused slots at its end.
    pub(super) fn missing_at_end(&self, count: usize) -> usize {
        let free = self.len - bits::last_run(self.used, self.top).end;
        count.saturating_sub(free)
    }

    /// Returns how many slots to add so that the range ends with `count` slots without old data.
    ///
    /// None of these `count` slots is used or retained.
    pub(super) fn missing_fresh_at_end(&self, count: usize) -> usize {
        let used = bits::last_run(self.used, self.top).end;
        let stale = bits::last_run(self.stale, self.top).end;
        count.saturating_sub(self.len - used.max(stale))
    }

    pub(super) fn retained_count(&self) -> usize {
        self.retained_count
    }

    /// Returns the number of pieces of moved memory.
    pub(super) fn piece_count(&self) -> usize {
        self.piece_count
    }

    /// Records that the memory of the slots `from` has moved to as many slots, beginning with `to`.
    pub(super) fn note_moved(&mut self, from: Range<usize>, to: usize) {
        self.forget_pieces(to..to + from.len());
        self.add_piece(to);
        let mut at = from.start + 1;
        loop {
            at = bits::first_one(self.pieces, at..from.end);
            if at >= from.end {
                return;
            }
            self.add_piece(to + at - from.start);
            at += 1;
        }
    }

    fn add_piece(&mut self, at: usize) {
        bits::set(self.pieces, at..at + 1);
        self.piece_count += 1;
    }

    fn forget_pieces(&mut self, run: Range<usize>) {
        if self.piece_count > 0 {
            self.piece_count -= bits::count(self.pieces, run.clone());
            bits::clear(self.pieces, run);
        }
    }

    /// Returns true if no slot is used.
    pub(super) fn is_unused(&self) -> bool {
        bits::first_one(self.used, 0..self.top) == self.top
    }

    /// Returns the lowest slot that is not used.
    pub(super) fn find_one(&mut self) -> Option<Range<usize>> {
        self.hint = bits::first_zero(self.used, self.hint..self.top);
        (self.hint < self.len).then_some(self.hint..self.hint + 1)
    }

    /// Returns the first slot of a run of exactly `count` retained slots, or of the shortest longer
    /// run of retained slots.
    fn find_retained(&self, count: usize) -> Option<usize> {
        if self.retained_count < count {
            return None;
        }
        let mut shortest: Option<Range<usize>> = None;
        let mut at = self.hint;
        loop {
            let start = bits::first_one(self.retained, at..self.top);
            if start == self.top {
                return shortest.map(|run| run.start);
            }
            at = bits::first_zero(self.retained, start..self.top);
            let len = at - start;
            if len == count {
                return Some(start);
            }
            if len > count && shortest.as_ref().is_none_or(|run| len < run.len()) {
                shortest = Some(start..at);
            }
        }
    }

    /// Returns `count` adjacent slots that are not used.
    ///
    /// With [`Wants::Retained`], the function chooses the run of slots with the most retained
    /// slots. With [`Wants::Fresh`], it chooses the run with the fewest slots that may contain old
    /// data. Among equally good runs, it prefers one in the smallest gap between used slots, and
    /// then the lowest one.
    ///
    /// The time is proportional to the number of slots.
    pub(super) fn find_run(&self, count: usize, wants: Wants) -> Option<Range<usize>> {
        let mut best: Option<(usize, usize, usize)> = None;
        let mut at = self.hint;
        loop {
            let start = bits::first_zero(self.used, at..self.top);
            at = bits::first_one(self.used, start..self.top);
            let gap = start..if at == self.top { self.len } else { at };
            if count <= gap.len() {
                let (unwanted, first) = self.best_part(gap.clone(), count, wants);
                let found = (unwanted, gap.len(), first);
                best = Some(best.map_or(found, |best| best.min(found)));
            }
            if at == self.top {
                return best.map(|(_, _, first)| first..first + count);
            }
        }
    }

    /// Finds the run of `count` adjacent slots in `gap` that has the fewest unwanted slots.
    ///
    /// With [`Wants::Retained`], the unwanted slots are those that are not retained.
    /// With [`Wants::Fresh`], they are those that may contain old data. Returns the number of
    /// unwanted slots in the run, and the first slot of the run.
    fn best_part(&self, gap: Range<usize>, count: usize, wants: Wants) -> (usize, usize) {
        let (marks, rank): (_, fn(usize, usize) -> usize) = match wants {
            Wants::Retained => (&*self.retained, |marked, count| count - marked),
            Wants::Fresh => (&*self.stale, |marked, _| marked),
        };
        // No slot from `top` on is marked.
        let end = gap.end.min(self.top);
        let all = bits::count(marks, gap.start..end.max(gap.start));
        // No run can be better than one with this rank.
        let ideal = if wants == Wants::Retained { rank(all.min(count), count) } else { 0 };
        let mut marked = bits::count(marks, gap.start..gap.start + count);
        let mut best = (rank(marked, count), gap.start);
        let mut left = gap.start;
        while best.0 > ideal && left + count < gap.end && left < end {
            if marked == 0 {
                // The runs that end before the next marked slot are no better.
                let next = bits::first_one(marks, left + count..end);
                if next >= end {
                    break;
                }
                (left, marked) = (next + 1 - count, 1);
            } else {
                marked += usize::from(bits::is_set(marks, left + count));
                marked -= usize::from(bits::is_set(marks, left));
                left += 1;
            }
            best = best.min((rank(marked, count), left));
        }
        best
    }

    /// Returns true if all slots of `run` exist and none is used.
    pub(super) fn can_take(&self, run: Range<usize>) -> bool {
        run.end <= self.len && bits::count(self.used, run) == 0
    }

    /// Returns the smallest part of `run` that contains all its closed slots.
    pub(super) fn closed_part(&self, run: Range<usize>) -> Range<usize> {
        let start = bits::first_one(self.closed, run.clone());
        start..bits::after_last_one(self.closed, start..run.end)
    }

    /// Returns true if a slot of `run` may contain old data.
    pub(super) fn has_stale(&self, run: Range<usize>) -> bool {
        bits::count(self.stale, run) > 0
    }

    /// Returns the number of retained slots in `run`.
    pub(super) fn retained_in(&self, run: Range<usize>) -> usize {
        bits::count(self.retained, run)
    }

    /// Returns the first slots of `run` that contain no old data.
    pub(super) fn first_fresh(&self, run: Range<usize>) -> Range<usize> {
        let start = bits::first_zero(self.stale, run.clone());
        start..bits::first_one(self.stale, start..run.end)
    }

    /// Records that the slots of `run` may contain old data.
    pub(super) fn mark_stale(&mut self, run: Range<usize>) {
        bits::set(self.stale, run);
    }

    /// Marks a run of free and retained slots as used. Returns the number of slots that were
    /// retained.
    pub(super) fn take(&mut self, run: Range<usize>) -> usize {
        debug_assert!(self.can_take(run.clone()), "a slot is used twice");
        let retained = self.forget_retained(run.clone());
        self.top = self.top.max(run.end);
        self.open(run.clone());
        bits::set(self.used, run);
        retained
    }

    /// Marks `count` adjacent retained slots as used. The result is writable and stale.
    pub(super) fn take_retained(&mut self, count: usize) -> Option<Range<usize>> {
        let start = self.find_retained(count)?;
        let run = start..start + count;
        bits::clear(self.retained, run.clone());
        bits::set(self.used, run.clone());
        self.retained_count -= count;
        Some(run)
    }

    /// Marks a run of used slots as retained.
    pub(super) fn retain(&mut self, run: Range<usize>) {
        debug_assert_eq!(bits::count(self.used, run.clone()), run.len(), "a slot is unused");
        bits::clear(self.used, run.clone());
        bits::set(self.retained, run.clone());
        bits::set(self.stale, run.clone());
        self.hint = self.hint.min(run.start);
        self.retained_count += run.len();
    }

    /// Marks a run of used slots as free. They stay open.
    pub(super) fn release(&mut self, run: Range<usize>) {
        debug_assert_eq!(bits::count(self.used, run.clone()), run.len(), "a slot is unused");
        bits::clear(self.used, run.clone());
        bits::clear(self.stale, run.clone());
        self.hint = self.hint.min(run.start);
    }

    /// Marks slots that are not closed as used, although nothing uses their memory.
    pub(super) fn lose(&mut self, run: Range<usize>) {
        bits::set(self.used, run);
    }

    /// Marks a run of used slots as free although their memory may contain old data.
    pub(super) fn release_stale(&mut self, run: Range<usize>) {
        self.release(run.clone());
        self.mark_stale(run);
    }

    /// Records that the memory of the free slots of `run` is zero.
    pub(super) fn clear_stale(&mut self, run: Range<usize>) {
        debug_assert!(self.are_free(run.clone()), "a slot is in use");
        bits::clear(self.stale, run);
    }

    /// Returns true if no slot of `run` is used or retained.
    pub(super) fn are_free(&self, run: Range<usize>) -> bool {
        bits::count(self.used, run.clone()) + bits::count(self.retained, run) == 0
    }

    /// Returns the first run of stale free slots at or after slot `from`.
    pub(super) fn left_over(&self, from: usize) -> Option<Range<usize>> {
        let mut at = from;
        loop {
            let start = bits::first_one(self.stale, at..self.top);
            let end = bits::first_zero(self.stale, start..self.top);
            let end = bits::first_one(self.used, start..end);
            let end = bits::first_one(self.retained, start..end);
            if start < end {
                return Some(start..end);
            }
            if start >= self.top {
                return None;
            }
            at = bits::first_zero(self.used, start..self.top);
            at = bits::first_zero(self.retained, at..self.top);
        }
    }

    /// Returns the number of free slots that are stale.
    pub(super) fn left_over_count(&self) -> usize {
        let (mut at, mut count) = (0, 0);
        while let Some(run) = self.left_over(at) {
            count += run.len();
            at = run.end;
        }
        count
    }

    /// Finds the highest run of retained slots below `end`, and marks up to `most` of them as used.
    ///
    /// The marked slots are the last ones of the run.
    pub(super) fn take_last_retained(&mut self, end: usize, most: usize) -> Option<Range<usize>> {
        let all = bits::last_run(self.retained, end.min(self.top));
        let run = all.start.max(all.end.saturating_sub(most))..all.end;
        if run.is_empty() {
            return None;
        }
        self.take(run.clone());
        Some(run)
    }

    fn forget_retained(&mut self, run: Range<usize>) -> usize {
        if self.retained_count == 0 {
            return 0;
        }
        let count = bits::count(self.retained, run.clone());
        self.retained_count -= count;
        bits::clear(self.retained, run);
        count
    }
}

/// Returns true if `at` is below `end`, and its bit is set.
fn is_set_before(words: &[usize], at: usize, end: usize) -> bool {
    at < end && bits::is_set(words, at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    use super::*;

    const LEN: usize = 150;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum State {
        Free,
        Retained,
        Used,
    }

    /// A model of the slots' states in an array. The rules are the same, but without optimisations.
    #[derive(Debug)]
    struct Model([State; LEN]);

    impl Model {
        fn is(&self, run: Range<usize>, state: State) -> bool {
            self.0[run].iter().all(|found| *found == state)
        }

        fn runs(&self, state: State) -> Vec<Range<usize>> {
            let chunks = self.0.chunk_by(|left, right| (*left == state) == (*right == state));
            let mut start = 0;
            let ranges = chunks.map(|chunk| {
                start += chunk.len();
                start - chunk.len()..start
            });
            ranges.filter(|run| self.is(run.clone(), state)).collect()
        }

        fn find_retained(&self, count: usize) -> Option<Range<usize>> {
            let runs = self.runs(State::Retained);
            let found = runs.iter().filter(|run| run.len() >= count).min_by_key(|run| run.len())?;
            Some(found.start..found.start + count)
        }

        fn find_run(&self, count: usize, wants: Wants) -> Option<Range<usize>> {
            let is_used = |at: &usize| self.0[*at] == State::Used;
            let fits = |start: &usize| !(*start..start + count).any(|at| is_used(&at));
            let rank = |start: &usize| {
                let run = *start..start + count;
                let retained = self.0[run.clone()].iter().filter(|at| **at == State::Retained);
                let before = (0..run.start).rev().take_while(|at| !is_used(at)).count();
                let after = (run.end..LEN).take_while(|at| !is_used(at)).count();
                let retained = retained.count();
                let unwanted = if wants == Wants::Retained { count - retained } else { retained };
                (unwanted, before + after, *start)
            };
            let start = (0..=LEN - count).filter(fits).min_by_key(rank)?;
            Some(start..start + count)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        TakeOne,
        TakeRun(usize),
        Retain(usize),
        Release(usize),
        TakeRetained(usize, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::TakeOne),
            (1..40_usize).prop_map(Step::TakeRun),
            any::<usize>().prop_map(Step::Retain),
            any::<usize>().prop_map(Step::Release),
            (0..=LEN, 1..20_usize).prop_map(|(end, most)| Step::TakeRetained(end, most)),
        ];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        #[test]
        fn slots_agree_with_an_array_of_states(steps in steps()) {
            let mut words = vec![0; BITMAPS * bits::words_for(LEN)];
            let mut slots = Slots::new(&mut words, LEN);
            slots.add(LEN);
            let mut model = Model([State::Free; LEN]);
            let mut taken: Vec<Range<usize>> = Vec::new();
            for step in steps {
                match step {
                    Step::TakeOne => {
                        let lowest = model.0.iter().position(|state| *state != State::Used);
                        let found = slots.find_one();
                        prop_assert_eq!(&found, &lowest.map(|at| at..at + 1));
                        taken.extend(found);
                    }
                    Step::TakeRun(count) => {
                        let fresh = slots.find_run(count, Wants::Fresh);
                        prop_assert_eq!(&fresh, &model.find_run(count, Wants::Fresh));
                        let found = slots.find_run(count, Wants::Retained);
                        prop_assert_eq!(&found, &model.find_run(count, Wants::Retained));
                        let taken_whole = slots.take_retained(count);
                        prop_assert_eq!(&taken_whole, &model.find_retained(count));
                        if let Some(run) = taken_whole {
                            prop_assert!(slots.has_stale(run.clone()));
                            model.0[run.clone()].fill(State::Used);
                            taken.push(run);
                            continue;
                        }
                        taken.extend(found);
                    }
                    Step::Retain(nth) | Step::Release(nth) if !taken.is_empty() => {
                        let run = taken.swap_remove(nth % taken.len());
                        if matches!(step, Step::Retain(_)) {
                            slots.retain(run.clone());
                            model.0[run].fill(State::Retained);
                        } else {
                            slots.release(run.clone());
                            slots.close(run.clone());
                            model.0[run].fill(State::Free);
                        }
                        continue;
                    }
                    Step::TakeRetained(end, most) => {
                        let stop = (0..end).rfind(|at| model.0[*at] == State::Retained);
                        let found = slots.take_last_retained(end, most);
                        prop_assert_eq!(found.as_ref().map(|run| run.end - 1), stop);
                        if let Some(run) = found {
                            prop_assert!(run.len() <= most && model.is(run.clone(), State::Retained));
                            model.0[run.clone()].fill(State::Used);
                            taken.push(run);
                        }
                        continue;
                    }
                    _ => continue,
                }
                let Some(run) = taken.last().cloned() else { continue };
                if model.is(run.clone(), State::Used) {
                    continue;
                }
                let free = run.clone().filter(|at| model.0[*at] == State::Free);
                let bounds = (free.clone().min(), free.max().map(|at| at + 1));
                let part = slots.closed_part(run.clone());
                let expected = (!part.is_empty()).then_some((part.start, part.end)).unzip();
                prop_assert_eq!(expected, bounds);
                let was_retained = model.0[run.clone()].contains(&State::Retained);
                prop_assert_eq!(slots.has_stale(run.clone()), was_retained);
                prop_assert!(slots.can_take(run.clone()));
                let before = slots.retained_count();
                let reused = slots.take(run.clone());
                prop_assert_eq!(slots.retained_count(), before - reused);
                prop_assert!(!slots.can_take(run.clone()));
                model.0[run].fill(State::Used);
                let retained = model.0.iter().filter(|state| **state == State::Retained).count();
                prop_assert_eq!(slots.retained_count(), retained);
                prop_assert_eq!(slots.is_unused(), taken.is_empty());
                prop_assert_eq!(slots.closed_runs(), model.runs(State::Free).len());
            }
        }
    }

    #[test]
    fn a_run_beyond_the_last_slot_cannot_be_taken() {
        let mut words = vec![0; BITMAPS * bits::words_for(LEN)];
        let mut slots = Slots::new(&mut words, LEN);
        slots.add(LEN);
        assert_eq!(slots.find_run(LEN + 1, Wants::Retained), None);
        assert!(!slots.can_take(LEN - 1..LEN + 1));
        slots.take(0..LEN);
        assert_eq!((slots.find_one(), slots.find_run(1, Wants::Retained)), (None, None));
    }

    #[test]
    fn slots_can_be_added_and_removed_unless_they_were_used() {
        let mut words = vec![0; BITMAPS * bits::words_for(LEN)];
        let mut slots = Slots::new(&mut words, LEN);
        assert_eq!((slots.find_one(), slots.missing_at_end(3), slots.addable()), (None, 3, LEN));
        slots.add(10);
        slots.take(0..7);
        assert_eq!((slots.len(), slots.top(), slots.missing_at_end(5)), (10, 7, 2));
        slots.add(2);
        assert_eq!((slots.find_run(5, Wants::Retained), slots.addable()), (Some(7..12), LEN - 12));
        slots.release(4..7);
        assert_eq!(slots.missing_at_end(10), 2);
        slots.remove_unused();
        assert_eq!(
            (slots.len(), slots.find_run(4, Wants::Retained), slots.missing_at_end(4)),
            (7, None, 1)
        );
        assert_eq!(slots.find_run(3, Wants::Retained), Some(4..7));
    }
}
