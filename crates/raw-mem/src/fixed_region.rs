//! Arenas from a buffer of the caller's: no operating system, no allocator.
//!
//! ```text
//!   ├─ ─ ┬───────┬───────┬──────────────────┤
//!   │    │ arena │ arena │ not yet cut      │
//!   └─ ─ ┴───────┴───────┴──────────────────┘
//!                        cut: grows to the end
//! ```
//!
//! An arena that came back holds, in its own first words, its size and the next such arena.

use core::{marker::PhantomData, mem::MaybeUninit, num::NonZero, ptr::NonNull};

use crate::{ArenaSize, ArenaSource, MapError, align_up};

/// What an arena that came back says in its first words.
struct Returned {
    size: ArenaSize,
    next: Option<NonNull<Returned>>,
}

const _: () = assert!(size_of::<Returned>() <= 64, "it fits the smallest arena");

/// A buffer, as a source of arenas.
///
/// Arenas are cut from the front, each aligned to its size; one that came back serves the next
/// request of its size. The buffer is best aligned to the largest size asked for.
///
/// ```
/// use core::mem::MaybeUninit;
/// use raw_mem::{ArenaSize, ArenaSource, FixedRegion};
///
/// let mut buffer = [MaybeUninit::uninit(); 8192];
/// let mut source = FixedRegion::new(&mut buffer);
/// let size = ArenaSize::new(1024).unwrap();
/// assert!(source.map(size).is_ok());
/// ```
#[derive(Debug)]
pub struct FixedRegion<'a> {
    /// What is not cut yet.
    rest: NonNull<[MaybeUninit<u8>]>,
    /// # Invariant
    ///
    /// Every arena on the chain was cut from the buffer, is in nobody's use, and begins with a
    /// `Returned`.
    returned: Option<NonNull<Returned>>,
    buffer: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

// SAFETY: the buffer is borrowed exclusively, so it may move to another thread with its borrower.
unsafe impl Send for FixedRegion<'_> {}

impl<'a> FixedRegion<'a> {
    /// Arenas cut from `buffer`.
    pub const fn new(buffer: &'a mut [MaybeUninit<u8>]) -> Self {
        Self { rest: NonNull::from_mut(buffer), returned: None, buffer: PhantomData }
    }

    /// Takes the first returned arena of `size` off the chain. O(returned arenas).
    fn take_returned(&mut self, size: ArenaSize) -> Option<NonNull<u8>> {
        let mut link: *mut Option<NonNull<Returned>> = &raw mut self.returned;
        loop {
            // SAFETY: `link` is the head or the link of an arena on the chain, which holds a
            // `Returned`; only this loop has a pointer to it.
            let arena = unsafe { *link }?;
            // SAFETY: `returned`'s invariant.
            let entry = unsafe { &mut *arena.as_ptr() };
            if entry.size == size {
                // SAFETY: as above; the arena leaves the chain, the rest of which keeps it.
                unsafe { *link = entry.next };
                return Some(arena.cast());
            }
            link = &raw mut entry.next;
        }
    }

    /// Cuts a new arena of `size` from the rest.
    fn cut(&mut self, size: ArenaSize) -> Option<NonNull<u8>> {
        let start = self.rest.cast::<u8>();
        let aligned = align_up(start.addr().get(), size.bytes())?;
        let before = aligned - start.addr().get();
        let left = self.rest.len().checked_sub(before)?.checked_sub(size.bytes())?;
        let arena = start.map_addr(|address| NonZero::new(aligned).unwrap_or(address));
        // SAFETY: `left` says that the arena ends inside the rest.
        let behind = unsafe { arena.add(size.bytes()) };
        self.rest = NonNull::slice_from_raw_parts(behind.cast(), left);
        Some(arena)
    }
}

// SAFETY: an arena is cut from the exclusively borrowed buffer once, aligned, and handed out
// again only after it came back.
unsafe impl ArenaSource for FixedRegion<'_> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        self.take_returned(size).or_else(|| self.cut(size)).ok_or(MapError::Exhausted { size })
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        let entry = arena.cast();
        // SAFETY: the caller gives back an arena of this source, which is in nobody's use, large
        // enough and aligned to 64 bytes at least.
        unsafe { entry.write(Returned { size, next: self.returned }) };
        // INVARIANT: the entry was written just now.
        self.returned = Some(entry);
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    fn size(bytes: usize) -> ArenaSize {
        ArenaSize::new(bytes).unwrap()
    }

    #[test]
    fn arenas_are_cut_until_the_buffer_ends() {
        let mut buffer = vec![MaybeUninit::uninit(); 64 * 1024];
        let range = buffer.as_ptr_range();
        let mut source = FixedRegion::new(&mut buffer);
        let arenas: Vec<_> = core::iter::from_fn(|| source.map(size(4096)).ok()).collect();
        assert!(arenas.len() >= 15);
        for arena in arenas {
            let start = arena.addr().get();
            assert_eq!(start % 4096, 0);
            assert!(start >= range.start.addr() && start + 4096 <= range.end.addr());
        }
    }

    #[test]
    fn a_returned_arena_serves_the_next_request_of_its_size() {
        let mut buffer = vec![MaybeUninit::uninit(); 16 * 1024];
        let mut source = FixedRegion::new(&mut buffer);
        let [small, large] = [1024, 4096].map(|bytes| source.map(size(bytes)).unwrap());
        // SAFETY: both came from this source and are not used any more.
        unsafe {
            source.unmap(small, size(1024));
            source.unmap(large, size(4096));
        }
        assert_eq!(source.map(size(1024)), Ok(small));
        assert_eq!(source.map(size(4096)), Ok(large));
    }

    #[test]
    fn an_exhausted_buffer_says_what_was_asked() {
        let mut source = FixedRegion::new(&mut []);
        let error = source.map(size(64)).unwrap_err();
        assert_eq!(error, MapError::Exhausted { size: size(64) });
        assert!(error.to_string().contains("64 bytes"));
    }
}
