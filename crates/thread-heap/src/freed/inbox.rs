//! The blocks of a heap that other threads freed, and whether the heap has an owner.
//!
//! One word says both:
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
//! An owner can abandon its heap only while the inbox is empty, and one compare-and-swap does both.
//! A push therefore either comes before it and makes it fail, or finds the heap abandoned and makes
//! the pushing thread the owner. So no block is ever left in an inbox without an owner.
//!
//! Any thread may [take over](Inbox::take_over) the waiting blocks, because the owner regards them as
//! in use. The thread must push all of them back. It may do so in another form.

use std::{marker::PhantomData, ptr};

use sync::{
    atomic::{
        AtomicPtr, AtomicUsize,
        Ordering::{self, Acquire, Relaxed, Release},
    },
    link::{Chain, Link, Segment},
};

/// The orderings of an inbox's operations. Tests weaken one to show that it is needed.
pub(crate) trait Orders {
    const PUSH: Ordering = Release;
    const TAKE: Ordering = Acquire;
    const TAKE_OVER: Ordering = Acquire;
    const ABANDON: Ordering = Release;
    const ADOPT: Ordering = Acquire;
}

/// The orderings that are needed.
#[derive(Debug)]
pub(crate) struct Sound;

impl Orders for Sound {}

/// The inbox of a heap.
#[derive(Debug)]
pub(crate) struct Inbox<N, O = Sound> {
    /// # Invariant
    ///
    /// Null, [`abandoned`], or a node from which links lead to null. The inbox exclusively owns
    /// those nodes.
    head: AtomicPtr<N>,
    /// The bytes that were [counted](Inbox::count) since the inbox was last emptied. No memory
    /// access depends on this number, so it may be too high while threads race.
    waiting: AtomicUsize,
    orders: PhantomData<O>,
}

/// The head of an inbox without an owner. Nodes are aligned, so no node has this address.
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

    /// Pushes `nodes` for the owner to find.
    ///
    /// If the heap has no owner, the caller becomes its owner and gets the nodes back. It must
    /// handle them and then [abandon](Self::abandon) the heap.
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
                // INVARIANT: the nodes were given up, and the last one links to the old head.
                match self.head.compare_exchange_weak(head, first, O::PUSH, Relaxed) {
                    Ok(_) => return None,
                    Err(now) => head = now,
                }
            }
        }
    }

    /// Takes everything out. Only the owner may call this.
    #[inline]
    pub(crate) fn take_all(&self) -> Chain<N> {
        let mut first = self.head.load(Relaxed);
        if !first.is_null() {
            // Before the swap, so that a push after the swap stays counted.
            self.waiting.store(0, Relaxed);
            // INVARIANT: null means an empty inbox with an owner.
            first = self.head.swap(ptr::null_mut(), O::TAKE);
        }
        debug_assert_ne!(first, abandoned(), "only an owner takes");
        // SAFETY: the inbox owned the nodes from `first` to null (invariant of `head`), and has
        // given them up.
        unsafe { Chain::from_head(first) }
    }

    /// Takes everything out, for a thread that need not be the owner. The caller must push all of it
    /// back. Returns `None` if the inbox is empty or has no owner.
    #[must_use = "nodes that are not pushed back are lost"]
    pub(crate) fn take_over(&self) -> Option<Chain<N>> {
        let mut head = self.head.load(Relaxed);
        // A swap would get the nodes as well, but could make an abandoned heap look owned.
        while !head.is_null() && head != abandoned() {
            // INVARIANT: null means an empty inbox with an owner.
            let outcome =
                self.head.compare_exchange_weak(head, ptr::null_mut(), O::TAKE_OVER, Relaxed);
            match outcome {
                // SAFETY: the inbox owned the nodes from its head to null (invariant of `head`),
                // and has given them up.
                Ok(first) => return Some(unsafe { Chain::from_head(first) }),
                Err(now) => head = now,
            }
        }
        None
    }

    /// Counts `bytes` that were pushed. Returns true if the count has passed a multiple of `step`.
    #[inline]
    pub(crate) fn count(&self, bytes: usize, step: usize) -> bool {
        let before = self.waiting.fetch_add(bytes, Relaxed);
        before / step != before.wrapping_add(bytes) / step
    }

    /// Returns about how many bytes were pushed since the inbox was last emptied.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Resets the count of waiting bytes to zero, and returns the old count.
    pub(crate) fn restart_count(&self) -> usize {
        self.waiting.swap(0, Relaxed)
    }

    /// Leaves the heap without an owner. Returns false if the inbox is not empty; the caller is
    /// then still the owner.
    #[must_use]
    pub(crate) fn abandon(&self) -> bool {
        self.head.compare_exchange(ptr::null_mut(), abandoned(), O::ABANDON, Relaxed).is_ok()
    }

    /// Makes the caller the owner if the heap has none. Returns true if it does so.
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
