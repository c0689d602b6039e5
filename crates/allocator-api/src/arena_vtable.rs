//! A source of arenas as C sees it: three words.
//!
//! ```text
//!   0      8       16     24
//!   ┌──────┬───────┬──────┐
//!   │ ctx  │ alloc │ free │   ArenaAllocator
//!   └──┬───┴───────┴──────┘
//!      └─► a source behind a lock
//! ```
//!
//! CPython asks its arena allocator for more than arenas: the chunks of its threads' data stacks
//! come from it too (3.11 and later), and `free` may get null (3.13). So any size is served here,
//! rounded up to the next size that a source has.
//!
//! There is no way back: an arena vtable promises no alignment, and an
//! [`ArenaSource`] does.

use core::{
    ffi::c_void,
    fmt,
    mem::offset_of,
    ptr::{self, NonNull},
};

use raw_mem::{ArenaSize, ArenaSource};
use sync::Mutex;

/// A table of two functions and their context. CPython: `PyObjectArenaAllocator`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ArenaAllocator {
    /// The first argument of both functions.
    pub ctx: *mut c_void,
    /// Allocates `size` bytes; null when there is no memory.
    pub alloc: unsafe extern "C" fn(ctx: *mut c_void, size: usize) -> *mut c_void,
    /// Frees what `alloc` returned for `size`; does nothing with null.
    pub free: unsafe extern "C" fn(ctx: *mut c_void, ptr: *mut c_void, size: usize),
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<ArenaAllocator>() == 24 && align_of::<ArenaAllocator>() == 8);
    assert!(offset_of!(ArenaAllocator, ctx) == 0 && offset_of!(ArenaAllocator, alloc) == 8);
    assert!(offset_of!(ArenaAllocator, free) == 16);
};

// SAFETY: three addresses; using them is for those who promise that it is right.
unsafe impl Send for ArenaAllocator {}
// SAFETY: as above.
unsafe impl Sync for ArenaAllocator {}

/// A source of arenas behind a lock, for a vtable.
///
/// The type never lends the source, because users of the vtable rely on its arenas.
pub struct LockedSource<S>(Mutex<S>);

impl<S> LockedSource<S> {
    sync::const_unless_model! {
        /// Wraps `source` with a lock.
        pub fn new(source: S) -> Self {
            Self(Mutex::new(source))
        }
    }
}

impl<S: ArenaSource> LockedSource<S> {
    /// Gives back what the source retains for later requests.
    pub fn trim(&self) {
        sync::lock(&self.0).trim();
    }
}

impl<S> fmt::Debug for LockedSource<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockedSource(..)")
    }
}

/// As defects D2: the source of a vtable was replaced, which unmapped arenas in use.
///
/// ```
/// # use allocator_api::{ArenaAllocator, LockedSource};
/// # use raw_mem::MmapArenas;
/// static SOURCE: LockedSource<MmapArenas> = LockedSource::new(MmapArenas::new());
/// static VTABLE: ArenaAllocator = ArenaAllocator::of(&SOURCE);
/// SOURCE.trim();
/// ```
///
/// ```compile_fail,E0308
/// # use allocator_api::{ArenaAllocator, LockedSource};
/// # use raw_mem::MmapArenas;
/// static SOURCE: std::sync::Mutex<MmapArenas> = std::sync::Mutex::new(MmapArenas::new());
/// static VTABLE: ArenaAllocator = ArenaAllocator::of(&SOURCE);
/// *SOURCE.lock().unwrap() = MmapArenas::new();
/// ```
#[cfg(doctest)]
struct NobodyElseReachesTheSource;

impl ArenaAllocator {
    /// The vtable of `source`. Its arenas are aligned to their size.
    ///
    /// ```
    /// use allocator_api::{ArenaAllocator, LockedSource};
    /// use raw_mem::MmapArenas;
    ///
    /// static SOURCE: LockedSource<MmapArenas> = LockedSource::new(MmapArenas::new());
    /// static VTABLE: ArenaAllocator = ArenaAllocator::of(&SOURCE);
    /// ```
    pub const fn of<S: ArenaSource + Send>(source: &'static LockedSource<S>) -> Self {
        Self { ctx: ptr::from_ref(source).cast_mut().cast(), alloc: alloc::<S>, free: free::<S> }
    }
}

/// The arena that serves `size` bytes.
fn arena_size(size: usize) -> Option<ArenaSize> {
    ArenaSize::new(size.checked_next_power_of_two()?.max(64))
}

/// Calls `S::map`.
///
/// # Safety
///
/// `ctx` is the reference that [`ArenaAllocator::of`] was given.
unsafe extern "C" fn alloc<S: ArenaSource>(ctx: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's promise; the referent is `'static`.
    let source = unsafe { &*ctx.cast::<LockedSource<S>>() };
    let arena = arena_size(size).and_then(|size| sync::lock(&source.0).map(size).ok());
    arena.map_or(ptr::null_mut(), NonNull::as_ptr).cast()
}

/// Calls `S::unmap`.
///
/// # Safety
///
/// As for [`alloc`]; and `arena` is null, or came from it for the same `size` and is not used
/// any more.
unsafe extern "C" fn free<S: ArenaSource>(ctx: *mut c_void, arena: *mut c_void, size: usize) {
    // SAFETY: as in `alloc`.
    let source = unsafe { &*ctx.cast::<LockedSource<S>>() };
    if let (Some(arena), Some(size)) = (NonNull::new(arena.cast()), arena_size(size)) {
        // SAFETY: it came from this source for this size, and is given up.
        unsafe { sync::lock(&source.0).unmap(arena, size) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use raw_mem::{MallocArenas, MapError, MmapArenas, NoAlloc};

    use super::*;

    #[test]
    fn any_size_is_served_and_aligned_and_null_can_be_freed() {
        static SOURCE: LockedSource<MmapArenas> = LockedSource::new(MmapArenas::new());
        let ArenaAllocator { ctx, alloc, free } = ArenaAllocator::of(&SOURCE);
        for size in [1, 4096, 16_384, 48 << 10, 1 << 20, (1 << 20) + 1] {
            // SAFETY: `ctx` belongs to `alloc`.
            let arena = unsafe { alloc(ctx, size) };
            assert!(!arena.is_null());
            assert_eq!(arena.addr() % size.next_power_of_two(), 0);
            // SAFETY: the arena has `size` bytes, is this test's alone, and goes back once; null
            // may be freed.
            unsafe {
                arena.cast::<u8>().write_bytes(0xff, size);
                free(ctx, arena, size);
                free(ctx, ptr::null_mut(), size);
            }
        }
    }

    /// Counts its arenas and trims in [`MAPPED`] and [`TRIMS`].
    struct Counted(MmapArenas);

    static MAPPED: AtomicUsize = AtomicUsize::new(0);
    static TRIMS: AtomicUsize = AtomicUsize::new(0);

    // SAFETY: the arenas are those of the source below.
    unsafe impl ArenaSource for Counted {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            MAPPED.fetch_add(size.bytes(), Relaxed);
            self.0.map(size)
        }

        unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
            MAPPED.fetch_sub(size.bytes(), Relaxed);
            // SAFETY: the caller's promise.
            unsafe { self.0.unmap(arena, size) };
        }

        fn trim(&mut self) {
            TRIMS.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn an_arena_goes_back_to_the_source_with_its_size_and_a_trim_reaches_it() {
        static SOURCE: LockedSource<Counted> = LockedSource::new(Counted(MmapArenas::new()));
        let ArenaAllocator { ctx, alloc, free } = ArenaAllocator::of(&SOURCE);
        for (size, bytes) in [(1, 64), (65, 128), (48 << 10, 64 << 10)] {
            // SAFETY: `ctx` belongs to `alloc`.
            let arena = unsafe { alloc(ctx, size) };
            assert_eq!(MAPPED.load(Relaxed), bytes);
            // SAFETY: the arena goes back once.
            unsafe { free(ctx, arena, size) };
            assert_eq!(MAPPED.load(Relaxed), 0);
        }
        SOURCE.trim();
        assert_eq!(TRIMS.load(Relaxed), 1);
    }

    #[test]
    fn a_source_without_memory_gives_null() {
        static SOURCE: LockedSource<MallocArenas<NoAlloc>> =
            LockedSource::new(MallocArenas::new(NoAlloc));
        let ArenaAllocator { ctx, alloc, .. } = ArenaAllocator::of(&SOURCE);
        // SAFETY: `ctx` belongs to `alloc`.
        let outcomes = unsafe { [alloc(ctx, 1 << 20), alloc(ctx, usize::MAX)] };
        assert!(outcomes.iter().all(|arena| arena.is_null()));
    }
}
