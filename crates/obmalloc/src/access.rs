//! Who may enter a heap: one at a time, by the caller's promise or by a lock.

use core::{cell::UnsafeCell, fmt};

/// A heap, or anything else with one owner at a time, behind a door.
pub trait Access {
    /// What is behind the door.
    type Heap;

    /// Calls `visit` with the heap, alone.
    ///
    /// `visit` must not enter the same heap again.
    fn enter<R>(&self, visit: impl FnOnce(&mut Self::Heap) -> R) -> R;
}

/// Entered by whoever holds a lock that this type does not know, such as CPython's GIL. It costs
/// nothing.
pub struct GilHeld<H>(UnsafeCell<H>);

// SAFETY: who made it promised that no two threads are inside at once.
unsafe impl<H: Send> Sync for GilHeld<H> {}

impl<H> GilHeld<H> {
    /// A door without a lock.
    ///
    /// # Safety
    ///
    /// As long as it is in use, no thread calls [`enter`](Access::enter) while another one, or
    /// itself, is inside.
    pub const unsafe fn new(heap: H) -> Self {
        Self(UnsafeCell::new(heap))
    }
}

impl<H> Access for GilHeld<H> {
    type Heap = H;

    #[inline]
    fn enter<R>(&self, visit: impl FnOnce(&mut H) -> R) -> R {
        // SAFETY: the promise of `new`: nobody else is inside.
        visit(unsafe { &mut *self.0.get() })
    }
}

impl<H> fmt::Debug for GilHeld<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GilHeld(..)")
    }
}

#[cfg(feature = "std")]
pub use locked::{Locked, LockedGuard};

#[cfg(feature = "std")]
mod locked {
    use super::{Access, fmt};

    /// Entered by one thread at a time, the others wait.
    pub struct Locked<H>(sync::Mutex<H>);

    /// Keeps a [`Locked`] heap closed while it lives, and opens it when it is dropped.
    pub type LockedGuard<'a, H> = sync::MutexGuard<'a, H>;

    impl<H> Locked<H> {
        sync::const_unless_model! {
            /// A door with a lock.
            pub fn new(heap: H) -> Self {
                Self(sync::Mutex::new(heap))
            }
        }

        /// Closes the door until the guard is dropped: for what must not happen while a thread is
        /// inside, such as a fork.
        pub fn close(&self) -> LockedGuard<'_, H> {
            sync::lock(&self.0)
        }
    }

    impl<H> Access for Locked<H> {
        type Heap = H;

        #[inline]
        fn enter<R>(&self, visit: impl FnOnce(&mut H) -> R) -> R {
            visit(&mut sync::lock(&self.0))
        }
    }

    impl<H> fmt::Debug for Locked<H> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Locked(..)")
        }
    }
}
