//! A magazine is a batch of free objects that move from one thread to another together.
//!
//! ```text
//!   first ─► object ─► object ─► ∅
//!   count: 3, stored in the first object
//! ```
//!
//! The free objects of a magazine hold its links and its length, so a magazine needs no memory of
//! its own. For the same reason, a magazine always contains at least one object. In Bonwick's
//! design, the depot holds full magazines and empty magazines. Our depot has empty slots instead of
//! empty magazines.

use core::ptr::NonNull;

use crate::list::{Chain, Link};

/// One or more free objects, which the magazine owns.
#[must_use = "the objects are lost unless the magazine is passed on"]
pub(super) struct Magazine<N> {
    /// # Invariant
    ///
    /// The magazine owns the chain that begins with `first`, and the length of the chain is stored
    /// in `first`.
    first: NonNull<N>,
}

impl<N: Link> Magazine<N> {
    /// Makes a magazine from a chain of `count` objects. Returns `None` if the chain is empty.
    pub(super) fn seal(chain: Chain<N>, count: u32) -> Option<Self> {
        let first = chain.into_head()?;
        // SAFETY: the chain owned `first`, and we own it now. Every object that can be in a
        // magazine has room for a count.
        unsafe { N::set_count(first, count) };
        // INVARIANT: the length has just been stored.
        Some(Self { first })
    }

    /// Returns the magazine's objects as a chain, and the length of the chain.
    pub(super) fn open(self) -> (Chain<N>, u32) {
        // SAFETY: the magazine owns `first`, which stores the length (invariant of `first`).
        let count = unsafe { N::count(self.first) };
        // SAFETY: the magazine owned the chain that begins with `first` (invariant of `first`), and
        // gives it up here.
        (unsafe { Chain::from_head(Some(self.first)) }, count)
    }

    /// Converts the magazine to a pointer to its first object.
    pub(super) fn into_first(self) -> NonNull<N> {
        self.first
    }

    /// Converts a pointer back to the magazine that it came from.
    ///
    /// # Safety
    ///
    /// - `first` must have come from [`into_first`](Self::into_first).
    /// - The pointer must be converted back only once.
    pub(super) unsafe fn from_first(first: NonNull<N>) -> Self {
        // INVARIANT: `first` came from a magazine, for which the invariant held.
        Self { first }
    }
}
