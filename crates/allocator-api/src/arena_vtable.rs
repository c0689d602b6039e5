//! An arena source with the C interface of CPython's arena allocator.
//!
//! We can make an [`ArenaVTable`] from an [`ArenaSource`], but not the other way round, because an
//! `ArenaSource` must return arenas that are aligned to their size, and the C functions in an
//! `ArenaVTable` do not promise this alignment. CPython 3.11 and later call the vtable's function
//! `alloc` not only for arenas, but also for the memory of their data stack, which contains the
//! frames of Python functions. The size of this memory need not be a size that arenas can have, so
//! the `alloc` of our vtables accepts every size and rounds it up to the next size of an arena.

use core::{
    ffi::c_void,
    fmt,
    mem::offset_of,
    ptr::{self, NonNull},
};

use raw_mem::{ArenaSize, ArenaSource};
use sync::Mutex;

/// The functions of an arena allocator. CPython: `PyObjectArenaAllocator`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ArenaVTable {
    /// The first argument of both functions.
    pub ctx: *mut c_void,
    /// Allocates `size` bytes. Returns null if the allocation fails.
    pub alloc: unsafe extern "C" fn(ctx: *mut c_void, size: usize) -> *mut c_void,
    /// Frees the memory that `alloc` returned for the same `size`. Ignores a null `ptr`.
    pub free: unsafe extern "C" fn(ctx: *mut c_void, ptr: *mut c_void, size: usize),
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<ArenaVTable>() == 24 && align_of::<ArenaVTable>() == 8);
    assert!(offset_of!(ArenaVTable, ctx) == 0 && offset_of!(ArenaVTable, alloc) == 8);
    assert!(offset_of!(ArenaVTable, free) == 16);
};

// SAFETY: a vtable consists of three addresses, and only unsafe code uses what they point to.
unsafe impl Send for ArenaVTable {}
// SAFETY: a vtable consists of three addresses, and only unsafe code uses what they point to.
unsafe impl Sync for ArenaVTable {}

/// An arena source behind a lock.
///
/// Callers cannot access the source itself. Otherwise, they could replace the source, which would
/// unmap arenas in use.
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
    /// Unmaps the free arenas that the source retains.
    pub fn trim(&self) {
        sync::lock(&self.0).trim();
    }
}

impl<S> fmt::Debug for LockedSource<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockedSource(..)")
    }
}

/// Regression test (defects D2): code that replaces the source of a vtable must not compile.
///
/// ```
/// # use allocator_api::{ArenaVTable, LockedSource};
/// # use raw_mem::MmapArenas;
/// static SOURCE: LockedSource<MmapArenas> = LockedSource::new(MmapArenas::new());
/// static VTABLE: ArenaVTable = ArenaVTable::of(&SOURCE);
/// SOURCE.trim();
/// ```
///
/// ```compile_fail,E0308
/// # use allocator_api::{ArenaVTable, LockedSource};
/// # use raw_mem::MmapArenas;
/// static SOURCE: std::sync::Mutex<MmapArenas> = std::sync::Mutex::new(MmapArenas::new());
/// static VTABLE: ArenaVTable = ArenaVTable::of(&SOURCE);
/// *SOURCE.lock().unwrap() = MmapArenas::new();
/// ```
#[cfg(doctest)]
struct TheSourceCannotBeReplaced;

impl ArenaVTable {
    /// Returns a vtable that allocates arenas from `source`, each aligned to its size.
    ///
    /// ```
    /// use allocator_api::{ArenaVTable, LockedSource};
    /// use raw_mem::MmapArenas;
    ///
    /// static SOURCE: LockedSource<MmapArenas> = LockedSource::new(MmapArenas::new());
    /// static VTABLE: ArenaVTable = ArenaVTable::of(&SOURCE);
    /// ```
    pub const fn of<S: ArenaSource + Send>(source: &'static LockedSource<S>) -> Self {
        Self { ctx: ptr::from_ref(source).cast_mut().cast(), alloc: alloc::<S>, free: free::<S> }
    }
}

fn arena_size(size: usize) -> Option<ArenaSize> {
    ArenaSize::new(size.checked_next_power_of_two()?.max(64))
}

/// # Safety
///
/// - `ctx` must come from a vtable created by [`ArenaVTable::of`] with type parameter `S`.
unsafe extern "C" fn alloc<S: ArenaSource>(ctx: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: `ctx` is a `&'static LockedSource<S>` (contract of `alloc`).
    let source = unsafe { &*ctx.cast::<LockedSource<S>>() };
    let arena = arena_size(size).and_then(|size| sync::lock(&source.0).map(size).ok());
    arena.map_or(ptr::null_mut(), NonNull::as_ptr).cast()
}

/// # Safety
///
/// - `ctx` must be the context of a vtable that [`ArenaVTable::of`] created for a source of type
///   `S`.
/// - `arena` must be null, or an arena that [`alloc`] returned for the same `ctx` and `size`.
/// - `arena` must not have been freed before, and must not be used after this call.
unsafe extern "C" fn free<S: ArenaSource>(ctx: *mut c_void, arena: *mut c_void, size: usize) {
    // SAFETY: `ctx` is a `&'static LockedSource<S>` (contract of `free`).
    let source = unsafe { &*ctx.cast::<LockedSource<S>>() };
    if let (Some(arena), Some(size)) = (NonNull::new(arena.cast()), arena_size(size)) {
        // SAFETY: the arena came from this source with this size, and is unused (contract).
        unsafe { sync::lock(&source.0).unmap(arena, size) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use raw_mem::{MallocArenas, MapError, MmapArenas, NoAlloc};

    use super::*;

    #[test]
    fn any_size_is_served_with_alignment_and_null_can_be_freed() {
        static SOURCE: LockedSource<MmapArenas> = LockedSource::new(MmapArenas::new());
        let ArenaVTable { ctx, alloc, free } = ArenaVTable::of(&SOURCE);
        for size in [1, 4096, 16_384, 48 << 10, 1 << 20, (1 << 20) + 1] {
            // SAFETY: `ctx` belongs to `alloc`.
            let arena = unsafe { alloc(ctx, size) };
            assert!(!arena.is_null());
            assert_eq!(arena.addr() % size.next_power_of_two(), 0);
            // SAFETY: the arena has `size` bytes and is freed once. Null may be freed.
            unsafe {
                arena.cast::<u8>().write_bytes(0xff, size);
                free(ctx, arena, size);
                free(ctx, ptr::null_mut(), size);
            }
        }
    }

    struct CountingSource(MmapArenas);

    static MAPPED: AtomicUsize = AtomicUsize::new(0);
    static TRIMS: AtomicUsize = AtomicUsize::new(0);

    // SAFETY: every request goes unchanged to the wrapped source.
    unsafe impl ArenaSource for CountingSource {
        fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
            MAPPED.fetch_add(size.bytes(), Relaxed);
            self.0.map(size)
        }

        unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
            MAPPED.fetch_sub(size.bytes(), Relaxed);
            // SAFETY: the arena came from the wrapped source (contract of `unmap`).
            unsafe { self.0.unmap(arena, size) };
        }

        fn trim(&mut self) -> usize {
            TRIMS.fetch_add(1, Relaxed);
            0
        }
    }

    #[test]
    fn the_source_gets_arenas_back_with_their_size_and_is_trimmed() {
        static SOURCE: LockedSource<CountingSource> =
            LockedSource::new(CountingSource(MmapArenas::new()));
        let ArenaVTable { ctx, alloc, free } = ArenaVTable::of(&SOURCE);
        for (size, bytes) in [(1, 64), (65, 128), (48 << 10, 64 << 10)] {
            // SAFETY: `ctx` belongs to `alloc`.
            let arena = unsafe { alloc(ctx, size) };
            assert_eq!(MAPPED.load(Relaxed), bytes);
            // SAFETY: the arena is freed once, with its size.
            unsafe { free(ctx, arena, size) };
            assert_eq!(MAPPED.load(Relaxed), 0);
        }
        SOURCE.trim();
        assert_eq!(TRIMS.load(Relaxed), 1);
    }

    #[test]
    fn a_source_without_memory_returns_null() {
        static SOURCE: LockedSource<MallocArenas<NoAlloc>> =
            LockedSource::new(MallocArenas::new(NoAlloc));
        let ArenaVTable { ctx, alloc, .. } = ArenaVTable::of(&SOURCE);
        // SAFETY: `ctx` belongs to `alloc`.
        let outcomes = unsafe { [alloc(ctx, 1 << 20), alloc(ctx, usize::MAX)] };
        assert!(outcomes.iter().all(|arena| arena.is_null()));
    }
}
