//! A magazine: dead objects that change hands together.
//!
//! ```text
//!   lead ─► object ─► object ─► ∅
//!   count: 3, written in the lead
//! ```
//!
//! A magazine has no memory of its own, so an empty one is none at all: where Bonwick's depot
//! keeps full and empty magazines apart, ours keeps full ones and empty slots.

use core::ptr::NonNull;

use crate::link::{Chain, Lead};

/// Dead objects, at least one, that are nobody's but the holder's.
#[must_use = "its objects are lost unless it is handed on"]
pub(crate) struct Magazine<N> {
    /// # Invariant
    ///
    /// The chain from here on is ours, and its length is written here.
    lead: NonNull<N>,
}

impl<N: Lead> Magazine<N> {
    /// Seals a chain of `count` objects; `None` when there are none.
    pub(crate) fn seal(chain: Chain<N>, count: u32) -> Option<Self> {
        let lead = chain.into_head()?;
        // SAFETY: the chain owned its objects.
        unsafe { N::set_count(lead, count) };
        // INVARIANT: the length was written just now.
        Some(Self { lead })
    }

    /// The chain and its length.
    pub(crate) fn open(self) -> (Chain<N>, u32) {
        // SAFETY: `lead`'s invariant.
        let count = unsafe { N::count(self.lead) };
        // SAFETY: as above; the magazine is gone.
        (unsafe { Chain::from_head(Some(self.lead)) }, count)
    }

    /// Gives the magazine up as a pointer.
    pub(crate) fn into_lead(self) -> NonNull<N> {
        self.lead
    }

    /// # Safety
    ///
    /// `lead` came from [`into_lead`](Self::into_lead), and this is the one use of it.
    pub(crate) unsafe fn from_lead(lead: NonNull<N>) -> Self {
        // INVARIANT: that of the magazine that was given up.
        Self { lead }
    }
}
