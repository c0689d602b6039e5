//! Two lower bounds: the benchmark loop alone, and a minimal list of free objects.

use std::{cell::Cell, ptr::NonNull};

use crate::contender::{Contender, Object, Storage};

/// A contender that always returns the same storage, so that only the loop is measured.
pub(super) struct Nothing(Box<Storage>);

impl Contender for Nothing {
    type Held = ();

    fn new(_: usize) -> Self {
        Self(Box::new_uninit())
    }

    #[inline]
    fn take(&mut self) {}

    #[inline]
    fn place(&mut self, (): &mut ()) -> *mut Storage {
        &mut *self.0
    }

    #[inline]
    fn put(&mut self, (): ()) {}
}

/// A linked list of free objects that has no bound and counts nothing.
pub(super) struct BareList {
    /// # Invariant
    ///
    /// The list owns every object that can be reached from `head`. Each object begins with a link
    /// to the next.
    head: Cell<Option<NonNull<Link>>>,
}

pub(super) struct Link(Option<NonNull<Link>>);

#[cold]
#[inline(never)]
fn new() -> NonNull<Link> {
    NonNull::from(Box::leak(Box::<Object>::new_uninit())).cast()
}

impl Contender for BareList {
    type Held = NonNull<Link>;

    fn new(_: usize) -> Self {
        Self { head: Cell::new(None) }
    }

    #[inline]
    fn take(&mut self) -> NonNull<Link> {
        let Some(object) = self.head.get() else {
            return new();
        };
        // SAFETY: `object` is the head of the list and begins with a link (invariant of `head`).
        self.head.set(unsafe { object.read() }.0);
        object
    }

    #[inline]
    fn place(&mut self, object: &mut NonNull<Link>) -> *mut Storage {
        object.as_ptr().cast()
    }

    #[inline]
    fn put(&mut self, object: NonNull<Link>) {
        // SAFETY: the benchmark loop took the object from here, and gives up its ownership.
        unsafe { object.write(Link(self.head.get())) };
        // INVARIANT: the list now owns `object`, whose link has just been written.
        self.head.set(Some(object));
    }
}
