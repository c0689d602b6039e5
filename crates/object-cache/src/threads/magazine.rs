//! A magazine: free objects that change threads together.
//!
//! ```text
//!   first ─► object ─► object ─► ∅
//!   count: 3, stored in the first object
//! ```
//!
//! A magazine has no memory of its own, so there are no empty ones. Bonwick's depot holds full and
//! empty magazines. Ours holds full magazines and empty slots.

use core::ptr::NonNull;

use crate::list::{Chain, Link};

/// One or more free objects, owned by the holder of the magazine.
#[must_use = "the objects are lost unless the magazine is passed on"]
pub(super) struct Magazine<N> {
    /// # Invariant
    ///
    /// The magazine owns the chain that begins here. Its length is stored here.
    first: NonNull<N>,
}

impl<N: Link> Magazine<N> {
    /// Makes a magazine of a chain of `count` objects. Returns `None` if there are none.
    pub(super) fn seal(chain: Chain<N>, count: u32) -> Option<Self> {
        let first = chain.into_head()?;
        // SAFETY: the chain owned its objects. Objects of magazines have room for a count.
        unsafe { N::set_count(first, count) };
        // INVARIANT: the length has just been stored.
        Some(Self { first })
    }

    /// Returns the chain and its length.
    pub(super) fn open(self) -> (Chain<N>, u32) {
        // SAFETY: `first`'s invariant.
        let count = unsafe { N::count(self.first) };
        // SAFETY: as above. The magazine no longer owns the chain.
        (unsafe { Chain::from_head(Some(self.first)) }, count)
    }

    /// Converts the magazine to a pointer.
    pub(super) fn into_first(self) -> NonNull<N> {
        self.first
    }

    /// Converts the pointer back to the magazine.
    ///
    /// # Safety
    ///
    /// `first` must have come from [`into_first`](Self::into_first), and must be converted only
    /// once.
    pub(super) unsafe fn from_first(first: NonNull<N>) -> Self {
        // INVARIANT: that of the magazine that was converted to `first`.
        Self { first }
    }
}
