//! A depot, through which threads pass magazines of free objects to each other.
//!
//! ```text
//!   thread a:  put(magazine)              thread b:  take() -> magazine
//!                   │ null → first (release)             ▲ first → null (acquire)
//!                   ▼                                    │
//!   slots:     [ null | first | null | first | … ]───────┘
//! ```
//!
//! 1. A slot holds either null or a complete magazine. The thread that swaps a magazine out of its
//!    slot owns the magazine.
//! 2. A depot holds at most one magazine per slot.
//!
//! The magazines in a depot are not linked to each other, so no thread follows a link that another
//! thread may change. A thread compares a slot only with null, and never with a pointer to an
//! object. It therefore does not matter if an object was taken and put back in the meantime. No
//! operation holds a lock. Each operation needs a few loads and one atomic exchange, which moves
//! all objects of a magazine at once.
//!
//! | ordering | what it publishes | the model that fails without it |
//! | --- | --- | --- |
//! | put: release | the links, and the last use of the objects | `a_put_without_release_is_rejected` |
//! | take: acquire | the same | `a_take_without_acquire_is_rejected` |
//! | all others: relaxed | nothing: null is no magazine, and such a load is only a hint | |

use core::ptr::{self, NonNull};

use sync::atomic::{
    AtomicPtr,
    Ordering::{self, Acquire, Relaxed, Release},
};

use super::magazine::Magazine;
use crate::list::Link;

/// A fixed number of slots, each of which holds at most one magazine. See the [module's](self)
/// picture.
pub(super) struct Depot<N, const SLOTS: usize> {
    /// # Invariant
    ///
    /// Each slot is either null or a pointer to the first object of a magazine that the depot owns.
    slots: [AtomicPtr<N>; SLOTS],
}

impl<N: Link, const SLOTS: usize> Depot<N, SLOTS> {
    /// Makes an empty depot.
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self { slots: [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS] }
    }

    /// Makes an empty depot. With loom, this function is not `const`, because loom's atomics cannot
    /// be created at compile time.
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self { slots: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())) }
    }

    /// Puts a magazine into an empty slot, from which any thread can take it.
    ///
    /// # Errors
    ///
    /// Returns the magazine if every slot is full.
    pub(super) fn put(&self, magazine: Magazine<N>) -> Result<(), Magazine<N>> {
        self.put_with(magazine, Release)
    }

    /// Takes a magazine out of a slot. Returns `None` if every slot is empty.
    pub(super) fn take(&self) -> Option<Magazine<N>> {
        self.take_with(Acquire)
    }

    fn put_with(&self, magazine: Magazine<N>, publish: Ordering) -> Result<(), Magazine<N>> {
        let first = magazine.into_first();
        for slot in &self.slots {
            let empty = slot.load(Relaxed).is_null();
            // INVARIANT: if the exchange succeeds, the depot owns the magazine.
            if empty
                && slot.compare_exchange(ptr::null_mut(), first.as_ptr(), publish, Relaxed).is_ok()
            {
                return Ok(());
            }
        }
        // SAFETY: `first` came from `into_first`. No slot has received `first`, so no other thread
        // can convert it back to a magazine.
        Err(unsafe { Magazine::from_first(first) })
    }

    fn take_with(&self, receive: Ordering) -> Option<Magazine<N>> {
        self.slots.iter().find_map(|slot| {
            if slot.load(Relaxed).is_null() {
                return None;
            }
            // SAFETY: the slot held the first object of a magazine (invariant of `slots`). The swap
            // has emptied the slot, so no other thread can convert this pointer back to a magazine.
            NonNull::new(slot.swap(ptr::null_mut(), receive))
                .map(|first| unsafe { Magazine::from_first(first) })
        })
    }

    /// Returns the number of magazines in the depot. Other threads may change that number at any
    /// time.
    pub(super) fn magazines(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.load(Relaxed).is_null()).count()
    }
}

#[cfg(test)]
mod models;
