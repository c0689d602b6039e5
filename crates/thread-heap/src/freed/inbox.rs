//! The inbox of a heap. It holds the blocks of the heap that other threads have freed, and tells
//! whether the heap has an owner.
//!
//! One atomic word contains both facts:
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
//! An owner can abandon its heap only while the inbox is empty. One compare-and-swap both checks
//! that the inbox is empty and marks the heap as abandoned. If another thread pushes a block before
//! that, the compare-and-swap fails, and the owner stays the owner. If another thread pushes a
//! block after that, it finds the heap abandoned and becomes its owner. A block therefore never
//! stays in the inbox of a heap without an owner.
//!
//! Any thread may [take over](Inbox::take_over) the waiting blocks, which means to take them out
//! although it is not the owner of the heap. This is safe because the owner regards waiting blocks
//! as in use. The thread must push all of these blocks back, but may first arrange them in another
//! form.

use std::{marker::PhantomData, ptr};

use sync::{
    atomic::{
        AtomicPtr, AtomicUsize,
        Ordering::{self, Acquire, Relaxed, Release},
    },
    link::{Chain, Link, Segment},
};

/// The memory orderings of the operations of an inbox. Tests replace one of them by a weaker
/// ordering to show that the stronger one is needed.
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
    /// The head is null, the mark [`abandoned`], or a pointer to a node. If it is a pointer to a
    /// node, following the links from that node ends at null, and the inbox exclusively owns all of
    /// these nodes.
    head: AtomicPtr<N>,
    /// The number of bytes that were [counted](Inbox::count) since the inbox was last emptied. No
    /// memory access depends on this number, so it may be too high while threads race.
    waiting: AtomicUsize,
    orders: PhantomData<O>,
}

/// Returns the value that the head of an inbox has while the heap has no owner. Nodes are aligned
/// to more than one byte, so the address 1 never belongs to a node.
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
    /// If the heap has no owner, the caller becomes its owner and gets the nodes back. The caller
    /// must free the blocks in the nodes and then [abandon](Self::abandon) the heap.
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
                // INVARIANT: the caller gave up the nodes, and the last of them links to the old
                // head.
                match self.head.compare_exchange_weak(head, first, O::PUSH, Relaxed) {
                    Ok(_) => return None,
                    Err(now) => head = now,
                }
            }
        }
    }

    /// Takes all nodes out. Only the owner of the heap may call this.
    #[inline]
    pub(crate) fn take_all(&self) -> Chain<N> {
        let mut first = self.head.load(Relaxed);
        if !first.is_null() {
            // The count is reset before the swap. If another thread pushes after the swap, its
            // bytes therefore stay counted.
            self.waiting.store(0, Relaxed);
            // INVARIANT: null means an empty inbox with an owner.
            first = self.head.swap(ptr::null_mut(), O::TAKE);
        }
        debug_assert_ne!(first, abandoned(), "only an owner takes");
        // SAFETY: the inbox owned the nodes from `first` to null (invariant of `head`), and no
        // longer refers to them.
        unsafe { Chain::from_head(first) }
    }

    /// Takes all nodes out. The caller need not be the owner of the heap, but must push everything
    /// back. Returns `None` if the inbox is empty or if the heap has no owner.
    #[must_use = "nodes that are not pushed back are lost"]
    pub(crate) fn take_over(&self) -> Option<Chain<N>> {
        let mut head = self.head.load(Relaxed);
        // A swap would also take the nodes. But if the heap is abandoned, the swap would replace
        // the mark by null, and the heap would look as if it had an owner.
        while !head.is_null() && head != abandoned() {
            // INVARIANT: null means an empty inbox with an owner.
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

    /// Adds `bytes`, which the caller has pushed, to the count of waiting bytes. Returns true if
    /// the count has thereby reached or passed a multiple of `step`.
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

    /// Abandons the heap, which the caller must own. Returns false if the inbox is not empty. In
    /// that case the caller is still the owner.
    #[must_use]
    pub(crate) fn abandon(&self) -> bool {
        self.head.compare_exchange(ptr::null_mut(), abandoned(), O::ABANDON, Relaxed).is_ok()
    }

    /// Makes the caller the owner of the heap if the heap has no owner. Returns true if the caller
    /// has become the owner.
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
