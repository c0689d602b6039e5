//! A source that cuts arenas from a buffer, without an operating system or an allocator.

use core::{marker::PhantomData, mem::MaybeUninit, num::NonZero, ptr::NonNull};

use crate::{ArenaSize, ArenaSource, MapError, align_up};

/// The list entry in the first words of an unmapped arena.
struct Returned {
    size: ArenaSize,
    next: Option<NonNull<Returned>>,
}

const _: () = assert!(size_of::<Returned>() <= 64, "it fits the smallest arena");

/// A source that cuts arenas from the front of a buffer.
///
/// An arena that the user unmaps stays in the buffer. The source puts it on a list of free arenas
/// and hands it out again for a later request of the same size.
///
/// The source aligns each arena to the arena's own size. The buffer passed to [`new`](Self::new)
/// should have the same alignment, because otherwise the bytes before its first aligned address
/// stay unused.
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
    rest: NonNull<[MaybeUninit<u8>]>,
    /// # Invariant
    ///
    /// Every arena on the list came from the buffer, is not in use, and begins with a `Returned`.
    returned: Option<NonNull<Returned>>,
    buffer: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

// SAFETY: the source borrows the buffer exclusively, and the buffer is not tied to a thread.
unsafe impl Send for FixedRegion<'_> {}

impl<'a> FixedRegion<'a> {
    /// Creates a source that cuts its arenas from `buffer`.
    pub const fn new(buffer: &'a mut [MaybeUninit<u8>]) -> Self {
        Self { rest: NonNull::from_mut(buffer), returned: None, buffer: PhantomData }
    }

    /// Removes an unmapped arena of `size` from the list. O(unmapped arenas).
    fn take_returned(&mut self, size: ArenaSize) -> Option<NonNull<u8>> {
        let mut link: *mut Option<NonNull<Returned>> = &raw mut self.returned;
        loop {
            // SAFETY: `link` is the head of the list or a `next` field on it, borrowed exclusively.
            let arena = unsafe { *link }?;
            // SAFETY: every arena on the list begins with a `Returned` (invariant of `returned`).
            let entry = unsafe { &mut *arena.as_ptr() };
            if entry.size == size {
                // SAFETY: `link` points into the list, as for the read above.
                unsafe { *link = entry.next };
                return Some(arena.cast());
            }
            link = &raw mut entry.next;
        }
    }

    /// Cuts a new arena of `size`, or returns `None` if the rest of the buffer is too short.
    fn cut(&mut self, size: ArenaSize) -> Option<NonNull<u8>> {
        let start = self.rest.cast::<u8>();
        let aligned = align_up(start.addr().get(), size.bytes())?;
        let before = aligned - start.addr().get();
        let left = self.rest.len().checked_sub(before)?.checked_sub(size.bytes())?;
        let arena = start.map_addr(|address| NonZero::new(aligned).unwrap_or(address));
        // SAFETY: the arena ends inside the buffer, because the subtraction for `left` succeeded.
        let behind = unsafe { arena.add(size.bytes()) };
        self.rest = NonNull::slice_from_raw_parts(behind.cast(), left);
        Some(arena)
    }
}

// SAFETY: each part of the buffer is cut once and is aligned to its size. It is returned again only
// after it was unmapped.
unsafe impl ArenaSource for FixedRegion<'_> {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        self.take_returned(size).or_else(|| self.cut(size)).ok_or(MapError::Exhausted { size })
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        let entry = arena.cast();
        // SAFETY: the arena came from this source and is unused (contract of `unmap`). Its start is
        // large enough and aligned for a `Returned`, because an arena has at least 64 bytes.
        unsafe { entry.write(Returned { size, next: self.returned }) };
        // INVARIANT: the unused arena came from the buffer and begins with the `Returned` above.
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
        // SAFETY: both arenas came from this source and are no longer used.
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
