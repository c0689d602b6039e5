//! Functions that search and change ranges of bits in an array of words.

#![forbid(unsafe_code)]

use core::ops::Range;

const BITS: usize = usize::BITS as usize;

/// Returns the number of words that `bits` bits need.
pub(super) const fn words_for(bits: usize) -> usize {
    bits.div_ceil(BITS)
}

pub(super) fn is_set(words: &[usize], bit: usize) -> bool {
    words[bit / BITS] >> (bit % BITS) & 1 == 1
}

/// Returns the first set bit in `range`, or the end of the range.
pub(super) fn first_one(words: &[usize], range: Range<usize>) -> usize {
    first(words, range, 0)
}

/// Returns the first clear bit in `range`, or the end of the range.
pub(super) fn first_zero(words: &[usize], range: Range<usize>) -> usize {
    first(words, range, usize::MAX)
}

fn first(words: &[usize], range: Range<usize>, flip: usize) -> usize {
    let mut at = range.start;
    while at < range.end {
        let word = (words[at / BITS] ^ flip) >> (at % BITS);
        if word != 0 {
            return range.end.min(at + word.trailing_zeros() as usize);
        }
        at = (at / BITS + 1) * BITS;
    }
    range.end
}

/// Returns the highest run of set bits below `end`.
///
/// Returns an empty run at 0 if no bit is set there.
pub(super) fn last_run(words: &[usize], end: usize) -> Range<usize> {
    let stop = end_of_last(words, end, 0);
    let start = end_of_last(words, stop, usize::MAX);
    start..stop
}

/// Returns the number after the last set bit below `end`, or 0 if no such bit is set.
fn end_of_last(words: &[usize], end: usize, flip: usize) -> usize {
    let mut at = end;
    while at > 0 {
        let first = (at - 1) / BITS * BITS;
        let word = (words[first / BITS] ^ flip) << (BITS - (at - first));
        if word != 0 {
            return at - word.leading_zeros() as usize;
        }
        at = first;
    }
    0
}

/// Returns the number after the last set bit in `range`, or the start of the range if no bit is
/// set.
pub(super) fn after_last_one(words: &[usize], range: Range<usize>) -> usize {
    let mut at = range.end;
    while at > range.start {
        let first = (at - 1) / BITS * BITS;
        let word = words[first / BITS] << (BITS - (at - first));
        if word != 0 {
            return range.start.max(at - word.leading_zeros() as usize);
        }
        at = first;
    }
    range.start
}

/// Returns the number of runs of set bits in `range`.
pub(super) fn runs(words: &[usize], range: Range<usize>) -> usize {
    let mut count = 0;
    let mut at = first_one(words, range.clone());
    while at < range.end {
        count += 1;
        at = first_one(words, first_zero(words, at..range.end)..range.end);
    }
    count
}

/// Returns the number of bits in `range` that are set.
pub(super) fn count(words: &[usize], range: Range<usize>) -> usize {
    masks(range).map(|(at, mask)| (words[at] & mask).count_ones() as usize).sum()
}

pub(super) fn set(words: &mut [usize], range: Range<usize>) {
    masks(range).for_each(|(at, mask)| words[at] |= mask);
}

pub(super) fn clear(words: &mut [usize], range: Range<usize>) {
    masks(range).for_each(|(at, mask)| words[at] &= !mask);
}

/// Returns the index of each word that contains bits of `range`, together with these bits.
fn masks(range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let mut at = range.start;
    core::iter::from_fn(move || {
        let bits = range.end.checked_sub(at).filter(|left| *left > 0)?.min(BITS - at % BITS);
        let mask = (usize::MAX >> (BITS - bits)) << (at % BITS);
        let word = at / BITS;
        at += bits;
        Some((word, mask))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    const LEN: usize = 4 * BITS;

    fn ranges() -> impl Strategy<Value = Vec<(bool, Range<usize>)>> {
        let range = (0..=LEN, 0..=LEN).prop_map(|(one, other)| one.min(other)..one.max(other));
        prop::collection::vec((any::<bool>(), range), 1..30)
    }

    proptest! {
        #[test]
        fn every_function_agrees_with_an_array_of_booleans(steps in ranges()) {
            let mut words = [0; 4];
            let mut model = [false; LEN];
            for (value, range) in steps {
                match value {
                    true => set(&mut words, range.clone()),
                    false => clear(&mut words, range.clone()),
                }
                model[range.clone()].fill(value);
                for at in range.clone() {
                    prop_assert_eq!(is_set(&words, at), value);
                }
                let find = |value| range.clone().find(|at| model[*at] == value);
                prop_assert_eq!(first_one(&words, range.clone()), find(true).unwrap_or(range.end));
                prop_assert_eq!(first_zero(&words, range.clone()), find(false).unwrap_or(range.end));
                let ones = model[range.clone()].iter().filter(|bit| **bit).count();
                prop_assert_eq!(count(&words, range.clone()), ones);
                let last = range.clone().rfind(|at| model[*at]).map_or(range.start, |at| at + 1);
                prop_assert_eq!(after_last_one(&words, range.clone()), last);
                let starts = |at: &usize| model[*at] && (*at == range.start || !model[*at - 1]);
                prop_assert_eq!(runs(&words, range.clone()), range.clone().filter(starts).count());
                let stop = model[..range.end].iter().rposition(|bit| *bit).map_or(0, |at| at + 1);
                let start = model[..stop].iter().rposition(|bit| !*bit).map_or(0, |at| at + 1);
                prop_assert_eq!(last_run(&words, range.end), start..stop);
            }
        }
    }
}
