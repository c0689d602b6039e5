//! A magazine is a batch of free objects that move from one thread to another together.
//!
//! A magazine has at least one object, because its objects hold the links and the length.

use core::ptr::NonNull;

use crate::list::{Chain, Link};

#[must_use = "the objects are lost unless the magazine is passed on"]
pub(super) struct Magazine<N> {
    /// # Invariant
    ///
    /// The magazine owns the chain that begins with `first`, which stores the length of the chain.
    first: NonNull<N>,
}

impl<N: Link> Magazine<N> {
    /// Creates a magazine from a chain of `count` objects, or returns `None` if the chain is empty.
    pub(super) fn seal(chain: Chain<N>, count: u32) -> Option<Self> {
        let first = chain.into_head()?;
        // SAFETY: the chain owned `first`, and every object of a magazine has room for a count.
        unsafe { N::set_count(first, count) };
        // INVARIANT: the length has just been stored.
        Some(Self { first })
    }

    pub(super) fn open(self) -> (Chain<N>, u32) {
        // SAFETY: the magazine owns `first`, which stores the length (invariant of `first`).
        let count = unsafe { N::count(self.first) };
        // SAFETY: the magazine owned the chain at `first` (invariant of `first`), and gives it up.
        (unsafe { Chain::from_head(Some(self.first)) }, count)
    }

    pub(super) fn into_first(self) -> NonNull<N> {
        self.first
    }

    /// # Safety
    ///
    /// - `first` must have come from [`into_first`](Self::into_first).
    /// - The pointer must be converted back only once.
    pub(super) unsafe fn from_first(first: NonNull<N>) -> Self {
        // INVARIANT: `first` came from a magazine, for which the invariant held.
        Self { first }
    }
}
