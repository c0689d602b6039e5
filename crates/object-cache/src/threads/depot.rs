//! A depot, through which threads pass magazines (batches of free objects) to each other.
//!
//! A depot has a fixed number of slots. Each slot is null or points to a magazine. A thread takes a
//! magazine by swapping null into its slot, and then owns the magazine. The ABA problem cannot
//! arise, because compare-and-exchange operations compare a slot only with null.
//!
//! | ordering | what it publishes | the model that fails without it |
//! | --- | --- | --- |
//! | put: release | the links, and the last use of the objects | `a_put_without_release_is_rejected` |
//! | take: acquire | the same | `a_take_without_acquire_is_rejected` |
//! | all others: relaxed | nothing, because null is not a magazine and other loads are only hints | |

use core::ptr::{self, NonNull};

use sync::atomic::{
    AtomicPtr,
    Ordering::{self, Acquire, Relaxed, Release},
};

use super::magazine::Magazine;
use crate::list::Link;

/// A fixed number of slots for magazines (batches of free objects).
pub(super) struct Depot<N, const SLOTS: usize> {
    /// # Invariant
    ///
    /// Each slot is null, or points to the first object of a magazine that the depot owns.
    slots: [AtomicPtr<N>; SLOTS],
}

impl<N: Link, const SLOTS: usize> Depot<N, SLOTS> {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self { slots: [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS] }
    }

    /// Creates an empty depot. Loom's atomics cannot be created at compile time.
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self { slots: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())) }
    }

    /// Puts a magazine into an empty slot, or returns it as an error if every slot is full.
    pub(super) fn put(&self, magazine: Magazine<N>) -> Result<(), Magazine<N>> {
        self.put_with(magazine, Release)
    }

    /// Takes a magazine out of a slot, or returns `None` if every slot is empty.
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
        // SAFETY: `first` came from `into_first`, and no slot has received it.
        Err(unsafe { Magazine::from_first(first) })
    }

    fn take_with(&self, receive: Ordering) -> Option<Magazine<N>> {
        self.slots.iter().find_map(|slot| {
            if slot.load(Relaxed).is_null() {
                return None;
            }
            // SAFETY: the slot held a magazine (invariant of `slots`) that the swap gave to us
            // alone.
            NonNull::new(slot.swap(ptr::null_mut(), receive))
                .map(|first| unsafe { Magazine::from_first(first) })
        })
    }

    /// Returns the number of magazines, which other threads may change at any time.
    pub(super) fn magazines(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.load(Relaxed).is_null()).count()
    }
}

#[cfg(test)]
mod models;
