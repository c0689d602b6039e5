//! Numbers that only the owner of a heap writes, and that any thread may read.
//!
//! Each number is written by only one thread, so an update needs no atomic read-modify-write
//! operation. All loads and stores are atomic, so another thread reads either the old value or the
//! new one, never a mixture.
//!
//! Whenever a block is freed, we decrement a [`Count`] and test whether it has reached 0. On
//! x86-64, we use inline assembly for this, because it needs only two instructions. The compiler
//! would generate three.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use Ordering::{Acquire, Relaxed, Release};

/// A number that changes with nearly every request.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Count(AtomicU32);

impl Count {
    pub(crate) const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, value: u32) {
        self.0.store(value, Relaxed);
    }

    #[inline]
    pub(crate) fn increment(&self) {
        self.set(self.get() + 1);
    }
}

/// Decrements the count at the offset `OFFSET` of `header`, and returns true if it became 0.
///
/// The offset is encoded in the instruction itself, so no other instruction has to compute it.
///
/// # Safety
///
/// - `header` must contain a nonzero [`Count`] at `OFFSET`.
/// - Only the calling thread may write to this count.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
pub(crate) unsafe fn decrement<H, const OFFSET: usize>(header: &H) -> bool {
    // SAFETY: the instruction does to the count (contract) what `Relaxed` loads and stores would do.
    // A store of four aligned bytes is atomic on this processor.
    unsafe {
        core::arch::asm!(
            "dec dword ptr [{header} + {offset}]",
            "jnz {not_zero}",
            header = in(reg) core::ptr::from_ref(header),
            offset = const OFFSET,
            not_zero = label { return false },
            options(nostack),
        );
    }
    true
}

/// Decrements the count at the offset `OFFSET` of `header`, and returns true if it became 0.
///
/// # Safety
///
/// - `header` must contain a nonzero [`Count`] at `OFFSET`.
/// - Only the calling thread may write to this count.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline(always)]
pub(crate) unsafe fn decrement<H, const OFFSET: usize>(header: &H) -> bool {
    // SAFETY: a count is at this offset (contract), and is only shared.
    let count = unsafe { &*core::ptr::from_ref(header).byte_add(OFFSET).cast::<Count>() };
    let value = count.get() - 1;
    count.set(value);
    value == 0
}

/// A byte that only slow paths change.
///
/// If a thread reads a byte with [`watch`](Self::watch), it also sees everything that the owner
/// wrote before it set the byte.
///
/// In models, `A` is an atomic of loom. Such an atomic cannot be part of a header.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Byte<A = AtomicU8>(A);

/// The operations of an atomic byte.
pub(crate) trait AtomicByte {
    fn load(&self, order: Ordering) -> u8;

    fn store(&self, value: u8, order: Ordering);
}

impl AtomicByte for AtomicU8 {
    fn load(&self, order: Ordering) -> u8 {
        self.load(order)
    }

    fn store(&self, value: u8, order: Ordering) {
        self.store(value, order);
    }
}

impl Byte {
    pub(crate) const fn new(value: u8) -> Self {
        Self(AtomicU8::new(value))
    }

    /// Returns the byte. Only the owner and threads that hold a block of the pool may rely on the
    /// result.
    #[inline]
    pub(crate) fn get(&self) -> u8 {
        // SAFETY: only the calling thread writes to the byte, or no thread does (see above). A
        // plain load can be part of a comparison.
        unsafe { *self.0.as_ptr() }
    }
}

impl<A: AtomicByte> Byte<A> {
    #[inline]
    pub(crate) fn watch(&self) -> u8 {
        self.watch_with(Acquire)
    }

    #[inline]
    fn watch_with(&self, order: Ordering) -> u8 {
        self.0.load(order)
    }

    #[inline]
    pub(crate) fn set(&self, value: u8) {
        self.set_with(value, Release);
    }

    #[inline]
    fn set_with(&self, value: u8, order: Ordering) {
        self.0.store(value, order);
    }
}

#[cfg(test)]
mod tests {
    use sync::{Arc, UnsafeCell, thread};

    use super::*;

    /// A header whose state is set last, as in `PoolHeader::write_to`.
    struct Header {
        first: UnsafeCell<u16>,
        state: Byte<sync::atomic::AtomicU8>,
    }

    // SAFETY: only one thread writes to the cell. Others read it after they have seen the state.
    unsafe impl Sync for Header {}

    #[cfg(loom)]
    impl AtomicByte for sync::atomic::AtomicU8 {
        fn load(&self, order: Ordering) -> u8 {
            self.load(order)
        }

        fn store(&self, value: u8, order: Ordering) {
            self.store(value, order);
        }
    }

    fn a_header_is_written_while_another_thread_looks(
        set: fn(&Byte<sync::atomic::AtomicU8>, u8),
        watch: fn(&Byte<sync::atomic::AtomicU8>) -> u8,
    ) {
        let state = Byte(sync::atomic::AtomicU8::new(0));
        let header = Arc::new(Header { first: UnsafeCell::new(0), state });
        let other = Arc::clone(&header);
        let watcher = thread::spawn(move || {
            if watch(&other.state) != 0 {
                // SAFETY: the header was written before its state, and is not written again.
                assert_eq!(other.first.with(|first| unsafe { *first }), 48);
            }
        });
        // SAFETY: no thread reads the field before the state is set.
        header.first.with_mut(|first| unsafe { *first = 48 });
        set(&header.state, 1);
        watcher.join().unwrap();
    }

    #[test]
    fn a_header_whose_state_is_seen_has_been_written() {
        sync::model(|| a_header_is_written_while_another_thread_looks(Byte::set, Byte::watch));
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_state_that_is_set_without_release_is_rejected() {
        sync::rejected(|| {
            let set = |state: &Byte<_>, value| state.set_with(value, Relaxed);
            a_header_is_written_while_another_thread_looks(set, Byte::watch);
        });
    }

    #[test]
    #[cfg_attr(not(loom), ignore = "only loom can reject")]
    fn a_state_that_is_watched_without_acquire_is_rejected() {
        sync::rejected(|| {
            let watch = |state: &Byte<_>| state.watch_with(Relaxed);
            a_header_is_written_while_another_thread_looks(Byte::set, watch);
        });
    }
}
