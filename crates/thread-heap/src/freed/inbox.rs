//! The inbox of a heap. It holds the blocks of the heap that other threads have freed, and also
//! stores whether the heap has an owner.
//!
//! Both are stored in one atomic word:
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
//! An owner can abandon its heap only while the inbox is empty. A single compare-and-swap checks
//! that the inbox is empty and marks the heap as abandoned. If another thread pushes a block before
//! the compare-and-swap, the compare-and-swap fails, and the owner stays the owner. If another
//! thread pushes a block after the compare-and-swap, this thread finds that the heap is abandoned,
//! and becomes its owner. Therefore no block ever waits in the inbox of a heap without an owner.
//!
//! Any thread may [take over](Inbox::take_over) an inbox. This means that the thread takes the
//! waiting blocks out of the inbox, although it need not be the owner of the heap. It is safe
//! because the owner treats waiting blocks as blocks in use. The thread must push all of these
//! blocks back to the inbox, but may first combine them into other nodes, such as a table.

use std::{marker::PhantomData, ptr};

use sync::{
    atomic::{
        AtomicPtr, AtomicUsize,
        Ordering::{self, Acquire, Relaxed, Release},
    },
    link::{Chain, Link, Segment},
};

/// The memory orderings of the operations of an inbox. Tests implement this trait with one ordering
/// that is too weak, to show that the stronger ordering is needed.
pub(crate) trait Orders {
    const PUSH: Ordering = Release;
    const TAKE: Ordering = Acquire;
    const TAKE_OVER: Ordering = Acquire;
    const ABANDON: Ordering = Release;
    const ADOPT: Ordering = Acquire;
}

/// The orderings that are used outside of tests.
#[derive(Debug)]
pub(crate) struct Sound;

impl Orders for Sound {}

/// The inbox of a heap.
#[derive(Debug)]
pub(crate) struct Inbox<N, O = Sound> {
    /// # Invariant
    ///
    /// The head is null, the mark [`abandoned`], or a pointer to a node. If the head points to a
    /// node, following the links from this node reaches further nodes and ends at null. The inbox
    /// exclusively owns all of these nodes.
    head: AtomicPtr<N>,
    /// The number of bytes that were [counted](Inbox::count) since the inbox was last emptied. It
    /// is only an estimate: if one thread pushes and another one empties the inbox at the same
    /// time, the number may be too high. This is harmless, because no memory access depends on it.
    waiting: AtomicUsize,
    orders: PhantomData<O>,
}

/// Returns the mark that the head of an inbox contains while the heap has no owner. The mark is the
/// address 1. A node is aligned to more than one byte, so this is never the address of a node.
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
                orders: PhantomData,
            }
        }
    }

    /// Pushes `nodes` to the inbox, where the owner of the heap will find them.
    ///
    /// If the heap has no owner, the caller becomes the owner of the heap, and the function returns
    /// the nodes instead of pushing them. The caller must then free the blocks in the nodes and
    /// [abandon](Self::abandon) the heap.
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
                // INVARIANT: the caller gave up the nodes, and the link of the last node leads to
                // the old head.
                match self.head.compare_exchange_weak(head, first, O::PUSH, Relaxed) {
                    Ok(_) => return None,
                    Err(now) => head = now,
                }
            }
        }
    }

    /// Takes all nodes out of the inbox. Only the owner of the heap may call this function.
    #[inline]
    pub(crate) fn take_all(&self) -> Chain<N> {
        let mut first = self.head.load(Relaxed);
        if !first.is_null() {
            // The count is reset before the swap. If it were reset after the swap, the bytes that
            // another thread pushes and counts in between would be lost from the count.
            self.waiting.store(0, Relaxed);
            // INVARIANT: null is the head of an empty inbox whose heap has an owner.
            first = self.head.swap(ptr::null_mut(), O::TAKE);
        }
        debug_assert_ne!(first, abandoned(), "only an owner takes");
        // SAFETY: the inbox owned the nodes from `first` to null (invariant of `head`), and no
        // longer refers to them.
        unsafe { Chain::from_head(first) }
    }

    /// Takes all nodes out of the inbox. The caller need not be the owner of the heap, but must
    /// later push all blocks in these nodes back to the inbox. Returns `None` if the inbox is empty
    /// or if the heap has no owner.
    #[must_use = "nodes that are not pushed back are lost"]
    pub(crate) fn take_over(&self) -> Option<Chain<N>> {
        let mut head = self.head.load(Relaxed);
        // An unconditional swap with null would also take the nodes. But if the heap is abandoned,
        // the swap would replace the mark `abandoned` by null, and the heap would look as if it had
        // an owner.
        while !head.is_null() && head != abandoned() {
            // INVARIANT: null is the head of an empty inbox whose heap has an owner.
            let outcome =
                self.head.compare_exchange_weak(head, ptr::null_mut(), O::TAKE_OVER, Relaxed);
            match outcome {
                // SAFETY: the inbox owned the nodes from its head to null (invariant of `head`),
                // and no longer refers to them.
                Ok(first) => return Some(unsafe { Chain::from_head(first) }),
                Err(now) => head = now,
            }
        }
        None
    }

    /// Adds `bytes` to the count of waiting bytes. The caller must have pushed blocks of this total
    /// size. Returns true if the count has reached or passed a multiple of `step` by this addition.
    #[inline]
    pub(crate) fn count(&self, bytes: usize, step: usize) -> bool {
        let before = self.waiting.fetch_add(bytes, Relaxed);
        before / step != before.wrapping_add(bytes) / step
    }

    /// Returns the approximate number of bytes that were pushed since the inbox was last emptied.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Resets the count of waiting bytes to zero, and returns the previous count.
    pub(crate) fn restart_count(&self) -> usize {
        self.waiting.swap(0, Relaxed)
    }

    /// Abandons the heap, whose owner must be the caller. Returns false if the inbox is not empty.
    /// In that case the caller is still the owner of the heap.
    #[must_use]
    pub(crate) fn abandon(&self) -> bool {
        self.head.compare_exchange(ptr::null_mut(), abandoned(), O::ABANDON, Relaxed).is_ok()
    }

    /// Makes the caller the owner of the heap, if the heap has no owner. Returns true if the caller
    /// has become the owner by this call.
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
