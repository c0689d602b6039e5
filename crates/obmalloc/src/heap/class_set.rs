//! Sets of size classes.

#![forbid(unsafe_code)]

use crate::geometry::{Geometry, MAX_CLASSES, size_class::SizeClass};

/// The number of words of a set.
pub(crate) const WORDS: usize = MAX_CLASSES / u64::BITS as usize;

const _: () = assert!(WORDS * u64::BITS as usize == MAX_CLASSES);

/// Returns the index of the word for `class`, and the mask of its bit. The index is never out of
/// bounds.
pub(crate) fn place<G: Geometry>(class: SizeClass<G>) -> (usize, u64) {
    (class.index() / u64::BITS as usize % WORDS, 1 << (class.index() % u64::BITS as usize))
}

/// A set of size classes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassSet([u64; WORDS]);

impl ClassSet {
    pub(crate) const EMPTY: Self = Self([0; WORDS]);

    pub(crate) fn contains<G: Geometry>(self, class: SizeClass<G>) -> bool {
        let (word, bit) = place(class);
        self.0[word] & bit != 0
    }

    pub(crate) fn insert<G: Geometry>(&mut self, class: SizeClass<G>) {
        let (word, bit) = place(class);
        self.0[word] |= bit;
    }
}
