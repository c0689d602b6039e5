//! The cost of the loop, and the least that a list of free objects must do.

use std::{cell::Cell, ptr::NonNull};

use crate::contender::{Contender, Object, Storage};

/// Always the same storage.
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

/// A linked list of free objects without a bound or figures. It never frees an object.
pub(super) struct BareList {
    /// # Invariant
    ///
    /// The list owns every object from here on, and their first word is the link to the next one.
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
        // SAFETY: `head`'s invariant.
        self.head.set(unsafe { object.read() }.0);
        object
    }

    #[inline]
    fn place(&mut self, object: &mut NonNull<Link>) -> *mut Storage {
        object.as_ptr().cast()
    }

    #[inline]
    fn put(&mut self, object: NonNull<Link>) {
        // SAFETY: the benchmark loop took the object and gives it up.
        unsafe { object.write(Link(self.head.get())) };
        // INVARIANT: the link has just been written.
        self.head.set(Some(object));
    }
}
