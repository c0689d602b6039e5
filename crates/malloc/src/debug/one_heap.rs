//! One heap for all threads and all sizes, behind a lock.

use std::{cell::UnsafeCell, ptr::NonNull};

use obmalloc::{BlockPtr, Heap, HeapTag, LargeBlock, Native, NewLarge, SizeClass};
use raw_mem::{MAX_REQUEST, MemAlloc, MmapArenas, PageBlocks, ReservedArenas, calloc_size};

type Inner = Heap<ReservedArenas<MmapArenas>, PageBlocks, Native>;

/// The alignment of every block, in bytes.
pub(super) const ALIGN: usize = 16;

/// A heap that all threads share. Its mutex admits one thread at a time.
pub(super) struct OneHeap {
    /// A mutex of the C library, because fork handlers must lock and unlock it without a guard.
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// # Invariant
    ///
    /// Only the thread that holds the mutex has a reference to the heap.
    heap: UnsafeCell<Inner>,
}

// SAFETY: any thread may use the C library's mutex, which protects the heap.
unsafe impl Sync for OneHeap {}

impl OneHeap {
    pub(super) const fn new() -> Self {
        let heap = Heap::with_geometry(ReservedArenas::new(MmapArenas::new()), PageBlocks);
        Self {
            mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            heap: UnsafeCell::new(heap),
        }
    }

    pub(super) fn lock(&self) {
        // SAFETY: the mutex is initialised and never destroyed.
        unsafe { libc::pthread_mutex_lock(self.mutex.get()) };
    }

    /// Unlocks the mutex, which this thread must have locked.
    pub(super) fn unlock(&self) {
        // SAFETY: the mutex is initialised and never destroyed.
        unsafe { libc::pthread_mutex_unlock(self.mutex.get()) };
    }

    fn enter<R>(&self, visit: impl FnOnce(&mut Inner) -> R) -> R {
        self.lock();
        // SAFETY: this thread holds the mutex (invariant), and the heap never calls back.
        let result = visit(unsafe { &mut *self.heap.get() });
        self.unlock();
        result
    }

    /// Returns the size class of a live block, or `None` if the block is large.
    ///
    /// # Safety
    ///
    /// - `start` must be a live block of this heap.
    unsafe fn class_of(start: NonNull<u8>) -> Option<SizeClass<Native>> {
        // SAFETY: a tag precedes every block of an arena or mapping, so the byte before the block
        // lies in the same arena or mapping.
        let tag = unsafe { Inner::tag_of(start.sub(1)) };
        // SAFETY: the block is live, and is not large.
        if tag == HeapTag::LARGE { None } else { unsafe { SizeClass::at(start) } }
    }

    /// Returns the number of bytes that a live block has.
    ///
    /// # Safety
    ///
    /// - `start` must be a live block of this heap.
    unsafe fn room(start: NonNull<u8>) -> usize {
        // SAFETY: the block is live (contract).
        match unsafe { Self::class_of(start) } {
            Some(class) => class.block_size(),
            // SAFETY: the block is live and large.
            None => unsafe { LargeBlock::from_start(start).size::<Native>() },
        }
    }
}

// SAFETY: each block has the size of its class or mapping, which is at least the requested size.
// Blocks do not overlap. Because of the mutex, any thread may free them.
unsafe impl MemAlloc for OneHeap {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if size > MAX_REQUEST {
            return None;
        }
        self.enter(|heap| match SizeClass::of(size.max(1)) {
            Some(class) => heap.alloc(class).map(BlockPtr::into_start),
            None => heap.alloc_large(size, ALIGN).map(|new| new.block.start()),
        })
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        let bytes = calloc_size(count, size)?;
        let (start, is_zeroed) = self.enter(|heap| match SizeClass::of(bytes.max(1)) {
            Some(class) => Some((heap.alloc_zeroed(class, bytes)?.into_start(), true)),
            None => {
                let NewLarge { block, is_zeroed } = heap.alloc_large(bytes, ALIGN)?;
                Some((block.start(), is_zeroed))
            }
        })?;
        if !is_zeroed {
            // SAFETY: the block is new, and has that many bytes.
            unsafe { start.write_bytes(0, bytes) };
        }
        Some(start)
    }

    /// Always moves the block, so that the use of a pointer to the old block can be detected.
    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        let new = self.malloc(size)?;
        if let Some(old) = ptr {
            // SAFETY: the block is live (contract).
            let kept = unsafe { Self::room(old) }.min(size);
            // SAFETY: both blocks are live, have these bytes, and do not overlap.
            unsafe { new.copy_from_nonoverlapping(old, kept) };
            // SAFETY: the block is live, and the caller uses only the new one (contract).
            unsafe { self.free(ptr) };
        }
        Some(new)
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        let Some(start) = ptr else { return };
        self.enter(|heap| {
            // SAFETY: the block is live, of this heap, and not used again (contract).
            unsafe {
                match Self::class_of(start) {
                    Some(_) => heap.free(BlockPtr::from_start(start)),
                    None => heap.free_large(LargeBlock::from_start(start)),
                }
            }
        });
    }
}
