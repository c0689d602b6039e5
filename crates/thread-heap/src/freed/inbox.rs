//! The inbox of a heap, which holds blocks that other threads have freed.
//!
//! One atomic word stores both the list of waiting blocks and whether the heap has an owner:
//!
//! ```text
//!                    push                       take_all
//!     null ─────────────────────► node ► node ─────────────► null
//!      │ ▲                        (owned, blocks wait)
//!      │ │ adopt, or a push that finds no owner
//!      ▼ │
//!   ABANDONED   (no owner, no blocks)
//! ```
//!
//! A heap can be abandoned only while its inbox is empty, so no block waits in a heap without an
//! owner.

use std::{marker::PhantomData, ptr};

use sync::{
    atomic::{
        AtomicBool, AtomicPtr, AtomicUsize,
        Ordering::{self, Acquire, Relaxed, Release},
    },
    link::{Chain, Link, Segment},
};

/// An owner counts as idle if it has not taken any nodes for this time, in milliseconds.
///
/// A thread usually waits for a processor for less time than this.
pub(crate) const IDLE_AFTER: usize = 100;

/// The memory orderings of an inbox. Tests weaken them one at a time.
pub(crate) trait Orders {
    const PUSH: Ordering = Release;
    const TAKE: Ordering = Acquire;
    const TAKE_OVER: Ordering = Acquire;
    const ABANDON: Ordering = Release;
    const ADOPT: Ordering = Acquire;
}

#[derive(Debug)]
pub(crate) struct Sound;

impl Orders for Sound {}

#[derive(Debug)]
pub(crate) struct Inbox<N, O = Sound> {
    /// # Invariant
    ///
    /// The head is null, equal to [`abandoned`], or the first node of a list that ends at null.
    ///
    /// The inbox exclusively owns all nodes of the list.
    head: AtomicPtr<N>,
    /// The approximate number of waiting bytes. A race between push and take can make it too high.
    waiting: AtomicUsize,
    /// The approximate number of purged bytes that wait. `waiting` does not include them.
    purged: AtomicUsize,
    /// True if the owner has taken nodes since the last call of [`is_idle`](Self::is_idle).
    was_taken: AtomicBool,
    /// The time of the last call of [`is_idle`](Self::is_idle) that found `was_taken`, in ms, or 0.
    taken_at: AtomicUsize,
    orders: PhantomData<O>,
}

/// Returns the value of `head` for a heap without an owner: the address 1, which no node can have.
fn abandoned<N>() -> *mut N {
    const { assert!(align_of::<N>() > 1) };
    ptr::without_provenance_mut(1)
}

impl<N: Link, O: Orders> Inbox<N, O> {
    sync::const_unless_model! {
        /// Creates the empty inbox of a heap that has an owner.
        pub(crate) fn new() -> Self {
            Self {
                head: AtomicPtr::new(ptr::null_mut()),
                waiting: AtomicUsize::new(0),
                purged: AtomicUsize::new(0),
                was_taken: AtomicBool::new(false),
                taken_at: AtomicUsize::new(0),
                orders: PhantomData,
            }
        }
    }

    /// Pushes `nodes`, which hold freed blocks of this heap, for the owner of the heap.
    ///
    /// If the heap has no owner, no thread would take `nodes` out of the inbox. The function then
    /// makes the caller the owner of the heap, and returns `nodes`. The caller must free the blocks
    /// in `nodes`, and must then [abandon](Self::abandon) the heap.
    #[must_use = "nodes that come back make the caller the owner"]
    pub(crate) fn push(&self, nodes: Segment<N>) -> Option<Segment<N>> {
        let mut head = self.head.load(Relaxed);
        loop {
            if head == abandoned() {
                match self.own(head) {
                    Ok(()) => return Some(nodes),
                    Err(now) => head = now,
                }
            } else {
                nodes.link_to(head);
                let first = nodes.first().as_ptr();
                // INVARIANT: the caller gave up the nodes, and the last one links to the old head.
                match self.head.compare_exchange_weak(head, first, O::PUSH, Relaxed) {
                    Ok(_) => return None,
                    Err(now) => head = now,
                }
            }
        }
    }

    /// Takes all nodes out of the inbox. Only the owner of the heap may call this.
    #[inline]
    pub(crate) fn take_all(&self) -> Chain<N> {
        let mut first = self.head.load(Relaxed);
        if !first.is_null() {
            // We reset the counts before the swap. A reset after it could erase bytes that another
            // thread has added in between.
            self.waiting.store(0, Relaxed);
            self.purged.store(0, Relaxed);
            self.was_taken.store(true, Relaxed);
            // INVARIANT: null is an empty inbox with an owner.
            first = self.head.swap(ptr::null_mut(), O::TAKE);
        }
        debug_assert_ne!(first, abandoned(), "only an owner takes");
        // SAFETY: the inbox owned these nodes (invariant of `head`), and no longer refers to them.
        unsafe { Chain::from_head(first) }
    }

    /// Takes all nodes out of the inbox. Returns `None` if the inbox is empty or the heap has no
    /// owner.
    ///
    /// Any thread may call this, but must afterwards push all blocks in the nodes back.
    #[must_use = "nodes that are not pushed back are lost"]
    pub(crate) fn take_over(&self) -> Option<Chain<N>> {
        let mut head = self.head.load(Relaxed);
        // A plain swap would erase the mark that the heap is abandoned.
        while !head.is_null() && head != abandoned() {
            // INVARIANT: null is an empty inbox with an owner.
            let outcome =
                self.head.compare_exchange_weak(head, ptr::null_mut(), O::TAKE_OVER, Relaxed);
            match outcome {
                // SAFETY: the inbox owned these nodes (invariant of `head`), and no longer refers
                // to them.
                Ok(first) => return Some(unsafe { Chain::from_head(first) }),
                Err(now) => head = now,
            }
        }
        None
    }

    /// Adds `bytes` to the number of waiting bytes. The caller must have pushed blocks of this
    /// total size.
    ///
    /// Returns true if the number has reached or passed a multiple of `step`.
    #[inline]
    pub(crate) fn count(&self, bytes: usize, step: usize) -> bool {
        let before = self.waiting.fetch_add(bytes, Relaxed);
        before / step != before.wrapping_add(bytes) / step
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Returns the number of waiting bytes, including those whose memory has been purged.
    pub(crate) fn all_waiting(&self) -> usize {
        self.waiting().saturating_add(self.purged.load(Relaxed))
    }

    /// Counts `bytes` bytes as purged. The caller must push their blocks back afterwards.
    ///
    /// The owner resets the count when it takes the blocks, so a later addition would leave the
    /// count too high.
    pub(crate) fn note_purged(&self, bytes: usize) {
        self.purged.fetch_add(bytes, Relaxed);
    }

    /// Resets the number of purged bytes, because the blocks of [`note_purged`](Self::note_purged)
    /// were reclaimed instead of pushed back.
    pub(crate) fn forget_purged(&self) {
        self.purged.store(0, Relaxed);
    }

    pub(crate) fn restart_count(&self) -> usize {
        self.waiting.swap(0, Relaxed)
    }

    /// Returns true if the owner has not taken any nodes for [`IDLE_AFTER`].
    ///
    /// `now` is the current time in milliseconds, counted from an arbitrary moment.
    ///
    /// If several threads call this function at the same time, their results may differ. This is
    /// harmless, because the result only affects how soon the memory of freed blocks is purged.
    pub(crate) fn is_idle(&self, now: usize) -> bool {
        if self.was_taken.load(Relaxed) {
            self.was_taken.store(false, Relaxed);
            self.taken_at.store(now.max(1), Relaxed);
            return false;
        }
        let taken_at = self.taken_at.load(Relaxed);
        taken_at == 0 || now.wrapping_sub(taken_at) >= IDLE_AFTER
    }

    /// Gives up the caller's ownership of the heap. If blocks are waiting, does nothing and returns
    /// false.
    #[must_use]
    pub(crate) fn abandon(&self) -> bool {
        // The next owner counts as idle until it takes nodes.
        self.was_taken.store(false, Relaxed);
        self.taken_at.store(0, Relaxed);
        self.head.compare_exchange(ptr::null_mut(), abandoned(), O::ABANDON, Relaxed).is_ok()
    }

    /// Returns true if the heap has no owner.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.head.load(Relaxed) == abandoned()
    }

    /// Makes the caller the owner if the heap is abandoned. Returns true on success.
    #[must_use]
    pub(crate) fn adopt(&self) -> bool {
        let head = self.head.load(Relaxed);
        head == abandoned() && self.own(head).is_ok()
    }

    #[inline]
    fn own(&self, abandoned: *mut N) -> Result<(), *mut N> {
        self.head.compare_exchange(abandoned, ptr::null_mut(), O::ADOPT, Relaxed).map(|_| ())
    }
}

#[cfg(test)]
mod tests;
