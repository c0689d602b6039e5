//! A stack of abandoned heaps, from which a new thread takes a heap without looking at others.
//!
//! The stack is a linked list of heaps that their owners have abandoned. A heap on the stack can
//! nevertheless have an owner: a thread that frees a block of an abandoned heap owns the heap for a
//! moment, and leaves it on the stack meanwhile. A thread that takes a heap from the stack must
//! therefore try to become its owner, which fails if the heap has one. Each heap stores in its
//! inbox whether it has an owner.
//!
//! ```text
//!   owner                              thread that needs a heap
//!   1. abandons the heap               1. unlinks the heap from the stack
//!   2. marks it as stacked             2. removes the mark
//!   3. links it if it was unmarked     3. tries to adopt the heap, and otherwise takes the next one
//! ```
//!
//! The mark of a heap says that the heap is on the stack, so that no thread links it a second time.
//! A thread that has unlinked a heap may remove the mark while the owner of the heap sets it. No
//! abandoned heap is lost in this race, because both threads exchange the mark atomically:
//!
//! - If the mark is removed first, the owner finds the heap unmarked, and links it again.
//! - If the mark is set first, the thread that removes it sees that the heap is abandoned, and can
//!   adopt the heap.
//!
//! Threads link heaps without a lock, but must hold a lock to unlink one. The lock prevents the ABA
//! problem. Without it, a thread that unlinks heap A could read that heap B lies below A, and could
//! then be interrupted. Other threads could unlink A and B, use B, and link A again. The
//! compare-and-swap of the first thread would then succeed, and would put B on top of the stack
//! although B is in use.

use std::{
    marker::PhantomData,
    ptr::{self, NonNull},
};

use sync::atomic::{
    AtomicBool, AtomicPtr,
    Ordering::{self, AcqRel, Acquire, Relaxed, Release},
};

use crate::heap_list::visits;

/// What a [`HeapStack`] stores in each of its objects.
#[derive(Debug)]
pub(crate) struct Stacked<T> {
    /// The object below this one, if this object is in a stack.
    below: AtomicPtr<T>,
    /// True if the object is in a stack, or is about to be linked or was just unlinked.
    ///
    /// A thread that changes the mark to true must link the object.
    mark: AtomicBool,
}

impl<T> Stacked<T> {
    sync::const_unless_model! {
        pub(crate) fn new() -> Self {
            Self { below: AtomicPtr::new(ptr::null_mut()), mark: AtomicBool::new(false) }
        }
    }

    /// Marks an object without linking it, as if a thread had been interrupted in between.
    #[cfg(test)]
    pub(crate) fn set_mark(&self) {
        self.mark.store(true, Relaxed);
    }

    /// Removes the mark of an object that is in no stack.
    pub(crate) fn forget(&self) {
        self.mark.store(false, Relaxed);
    }
}

/// An object that can be in one [`HeapStack`] at a time.
pub(crate) trait Stackable: Sized {
    fn stacked(&self) -> &Stacked<Self>;
}

/// The memory orderings of a stack. Tests weaken them one at a time.
pub(crate) trait Orders: Send + Sync {
    const LINK: Ordering = Release;
    const UNLINK: Ordering = Acquire;
    const SET_MARK: Ordering = AcqRel;
    const REMOVE_MARK: Ordering = AcqRel;
}

#[derive(Debug)]
pub(crate) struct Sound;

impl Orders for Sound {}

#[derive(Debug)]
pub(crate) struct HeapStack<T, O = Sound> {
    /// # Invariant
    ///
    /// Null, or an object that lives forever. The links of the objects have the same property.
    top: AtomicPtr<T>,
    orders: PhantomData<O>,
}

impl<T: Stackable + 'static, O: Orders> HeapStack<T, O> {
    sync::const_unless_model! {
        pub(crate) fn new() -> Self {
            Self { top: AtomicPtr::new(ptr::null_mut()), orders: PhantomData }
        }
    }

    /// Puts `object` on top of the stack, unless it is already in a stack.
    ///
    /// The caller must have abandoned the heap before the call.
    pub(crate) fn push(&self, object: &'static T) {
        if !object.stacked().mark.swap(true, O::SET_MARK) {
            self.link(object);
        }
    }

    /// Takes the topmost object, or returns `None` if the stack is empty.
    ///
    /// `lock` must acquire a lock that all callers share. It is not called if the stack is empty.
    ///
    /// The caller must try to adopt the returned heap, which fails if the heap has an owner. The
    /// heap is not lost in this case, because its owner pushes it again after abandoning it.
    pub(crate) fn pop<L>(&self, lock: impl FnOnce() -> L) -> Option<&'static T> {
        if self.top.load(Relaxed).is_null() {
            return None;
        }
        let object = {
            let _lock = lock();
            self.unlink()?
        };
        visits::count();
        object.stacked().mark.swap(false, O::REMOVE_MARK);
        Some(object)
    }

    /// Empties the stack. Its objects stay [marked](Stacked::forget).
    ///
    /// No other thread may use the stack at the same time.
    pub(crate) fn clear(&self) {
        // INVARIANT: null is an empty stack.
        self.top.store(ptr::null_mut(), Relaxed);
    }

    fn link(&self, object: &'static T) {
        let place = ptr::from_ref(object).cast_mut();
        let mut top = self.top.load(Relaxed);
        loop {
            object.stacked().below.store(top, Relaxed);
            // INVARIANT: the object lives forever, and links to the object that was on top before.
            match self.top.compare_exchange_weak(top, place, O::LINK, Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    fn unlink(&self) -> Option<&'static T> {
        let mut top = self.top.load(O::UNLINK);
        loop {
            // SAFETY: the object lives forever (invariant of `top`), and is only shared.
            let object: &'static T = unsafe { NonNull::new(top)?.as_ref() };
            let below = object.stacked().below.load(Relaxed);
            // INVARIANT: `below` is null, or an object that lives forever.
            //
            // The exchange can be Relaxed. A thread that later loads `below` from `top` still
            // synchronises with the thread that linked `below`, because a read-modify-write
            // operation continues the release sequences of earlier links.
            match self.top.compare_exchange_weak(top, below, Relaxed, O::UNLINK) {
                Ok(_) => return Some(object),
                Err(now) => top = now,
            }
        }
    }
}

#[cfg(test)]
mod tests;
