//! A set of pages of an arena, as bits.

#![forbid(unsafe_code)]

use core::ops::Range;

/// The page size that the heap assumes, in bytes.
///
/// If the system's pages are larger, a purge affects only the system pages that lie entirely in its
/// range.
pub(crate) const PAGE: usize = 4096;

const WORD: usize = u64::BITS as usize;

/// The number of words in a set.
pub(crate) const WORDS: usize = 4;

/// The largest number of pages in an arena whose pages can be purged.
pub(crate) const MAX_PAGES: usize = WORDS * WORD;

/// The largest number of pages in a pool whose pages can be purged.
pub(crate) const MOST_PAGES: usize = MAX_PAGES / 8;

/// A set of pages. A page is identified by its position in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pages([u64; WORDS]);

impl Pages {
    pub(crate) const NONE: Self = Self([0; WORDS]);

    pub(crate) fn from_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    pub(crate) fn words(self) -> [u64; WORDS] {
        self.0
    }

    /// Returns true if the set has no pages.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    pub(crate) fn contains(self, page: usize) -> bool {
        self.0[page / WORD] >> (page % WORD) & 1 != 0
    }

    pub(crate) fn insert(&mut self, pages: Range<usize>) {
        for (word, mask) in masks(pages) {
            self.0[word] |= mask;
        }
    }

    pub(crate) fn remove(&mut self, pages: Range<usize>) {
        for (word, mask) in masks(pages) {
            self.0[word] &= !mask;
        }
    }

    /// Returns the pages that are in this set and not in `other`.
    pub(crate) fn without(self, other: Self) -> Self {
        let mut result = self;
        for (word, other) in result.0.iter_mut().zip(other.0) {
            *word &= !other;
        }
        result
    }

    /// Returns the lowest page of the set that lies in `pages`.
    pub(crate) fn first_in(self, pages: Range<usize>) -> Option<usize> {
        masks(pages).find_map(|(word, mask)| {
            let bits = self.0[word] & mask;
            (bits != 0).then(|| word * WORD + bits.trailing_zeros() as usize)
        })
    }

    /// Returns the number of pages of the set that lie in `pages`.
    pub(crate) fn count_in(self, pages: Range<usize>) -> usize {
        masks(pages).map(|(word, mask)| (self.0[word] & mask).count_ones() as usize).sum()
    }

    /// Iterates over the ranges of adjacent pages, beginning with the lowest.
    pub(crate) fn runs(self) -> impl Iterator<Item = Range<usize>> {
        let mut from = 0;
        core::iter::from_fn(move || {
            let start = self.first_in(from..MAX_PAGES)?;
            let others = Self(self.0.map(|word| !word));
            from = others.first_in(start..MAX_PAGES).unwrap_or(MAX_PAGES);
            Some(start..from)
        })
    }
}

/// Returns the words that contain `pages`, and the bits of these pages in each word.
fn masks(pages: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    (pages.start / WORD..pages.end.div_ceil(WORD)).map(move |word| {
        let from = pages.start.saturating_sub(word * WORD);
        let to = (pages.end - word * WORD).min(WORD);
        let below = |bit: usize| if bit == WORD { u64::MAX } else { (1 << bit) - 1 };
        (word, below(to) & !below(from))
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = Range<usize>> {
        (0..=MAX_PAGES, 0..=MAX_PAGES).prop_map(|(one, other)| one.min(other)..one.max(other))
    }

    proptest! {
        #[test]
        fn a_set_of_pages_behaves_like_a_set_of_numbers(
            steps in prop::collection::vec((any::<bool>(), range()), 0..20),
            look in range(),
        ) {
            let (mut pages, mut model) = (Pages::NONE, BTreeSet::new());
            for (inserts, range) in steps {
                if inserts {
                    pages.insert(range.clone());
                    model.extend(range);
                } else {
                    pages.remove(range.clone());
                    model.retain(|page| !range.contains(page));
                }
            }
            prop_assert!((0..MAX_PAGES).all(|page| pages.contains(page) == model.contains(&page)));
            prop_assert_eq!(pages.is_empty(), model.is_empty());
            prop_assert_eq!(pages.first_in(look.clone()), model.range(look.clone()).next().copied());
            prop_assert_eq!(pages.count_in(look.clone()), model.range(look.clone()).count());
            let runs: Vec<_> = pages.runs().collect();
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert!(runs.into_iter().flatten().eq(model.iter().copied()));
            let mut others = Pages::NONE;
            others.insert(look.clone());
            let left = (0..MAX_PAGES).filter(|page| pages.without(others).contains(*page));
            prop_assert!(left.eq(model.into_iter().filter(|page| !look.contains(page))));
        }
    }
}
