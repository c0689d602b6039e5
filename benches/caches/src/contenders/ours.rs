//! Our caches, and the heap that they are to be faster than.

use std::ptr::NonNull;

use object_cache::{Cached, FreeList, SharedCache, ThreadCache};
use obmalloc::{BlockPtr, GilHeld, KnownArenas, Pools16K, Pymalloc, SizeClass};
use raw_mem::{Malloc, MemAlloc, MmapArenas};

use crate::contender::{Contender, Object, Storage};

/// A free list.
pub(super) struct Free(FreeList<Object, Malloc>);

impl Contender for Free {
    type Held = NonNull<Object>;

    fn new(most: usize) -> Self {
        Self(FreeList::new(most as u32, Malloc))
    }

    #[inline]
    fn take(&mut self) -> NonNull<Object> {
        self.0.take().expect("memory")
    }

    #[inline]
    fn place(&mut self, object: &mut NonNull<Object>) -> *mut Storage {
        object.as_ptr().cast()
    }

    #[inline]
    fn put(&mut self, object: NonNull<Object>) {
        // SAFETY: it came from the list, and the loop gives it up.
        unsafe { self.0.put(object) };
    }
}

/// The same by owning pointers, as most users would have it.
pub(super) struct Owned(&'static FreeList<Storage, Malloc>);

impl Contender for Owned {
    type Held = Cached<Storage, &'static FreeList<Storage, Malloc>>;

    fn new(most: usize) -> Self {
        Self(Box::leak(Box::new(FreeList::new(most as u32, Malloc))))
    }

    #[inline]
    fn take(&mut self) -> Self::Held {
        Cached::new_in(Storage::uninit(), self.0).expect("memory")
    }

    #[inline]
    fn place(&mut self, object: &mut Self::Held) -> *mut Storage {
        &mut **object
    }

    #[inline]
    fn put(&mut self, object: Self::Held) {
        drop(object);
    }
}

/// One thread's cache before a depot.
pub(super) struct Thread(ThreadCache<'static, Object, Malloc>);

impl Contender for Thread {
    type Held = NonNull<Object>;

    fn new(most: usize) -> Self {
        let shared = Box::leak(Box::new(SharedCache::new(most as u32, Malloc)));
        Self(shared.thread())
    }

    #[inline]
    fn take(&mut self) -> NonNull<Object> {
        self.0.take().expect("memory")
    }

    #[inline]
    fn place(&mut self, object: &mut NonNull<Object>) -> *mut Storage {
        object.as_ptr().cast()
    }

    #[inline]
    fn put(&mut self, object: NonNull<Object>) {
        // SAFETY: it came from the cache, and the loop gives it up.
        unsafe { self.0.put(object) };
    }
}

/// The heap itself: blocks of a class.
pub(super) struct Blocks(obmalloc::Heap<MmapArenas, Malloc>);

const CLASS: SizeClass<Pools16K> = SizeClass::of(size_of::<Object>()).expect("a small object");

impl Contender for Blocks {
    type Held = BlockPtr;

    fn new(_: usize) -> Self {
        Self(obmalloc::Heap::new(MmapArenas::new(), Malloc))
    }

    #[inline]
    fn take(&mut self) -> BlockPtr {
        self.0.alloc(CLASS).expect("memory")
    }

    #[inline]
    fn place(&mut self, block: &mut BlockPtr) -> *mut Storage {
        block.start().as_ptr().cast()
    }

    #[inline]
    fn put(&mut self, block: BlockPtr) {
        // SAFETY: it came from the heap.
        unsafe { self.0.free(block) };
    }
}

type Arenas = KnownArenas<MmapArenas, Malloc, Pools16K>;
type Pool = Pymalloc<GilHeld<obmalloc::Heap<Arenas, Malloc, Pools16K>>, Malloc>;

/// The heap as an allocator of any size, which asks of each block whether it is its own.
pub(super) struct Bytes(Pool);

impl Contender for Bytes {
    type Held = NonNull<u8>;

    fn new(_: usize) -> Self {
        let heap = obmalloc::Heap::new(Arenas::new(MmapArenas::new(), Malloc), Malloc);
        // SAFETY: it is used by this thread alone, and nothing in it calls back.
        let heap = unsafe { GilHeld::new(heap) };
        // SAFETY: malloc does not serve memory of the heap's arenas.
        Self(unsafe { Pymalloc::new(heap, Malloc) })
    }

    #[inline]
    fn take(&mut self) -> NonNull<u8> {
        self.0.malloc(size_of::<Object>()).expect("memory")
    }

    #[inline]
    fn place(&mut self, block: &mut NonNull<u8>) -> *mut Storage {
        block.as_ptr().cast()
    }

    #[inline]
    fn put(&mut self, block: NonNull<u8>) {
        // SAFETY: it came from this allocator, and the loop gives it up.
        unsafe { self.0.free(Some(block)) };
    }
}
