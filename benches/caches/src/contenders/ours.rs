//! Our caches, and our heap, which the caches must outperform.

use std::ptr::NonNull;

use object_cache::{
    Cached, FreeList, SharedCache, StorageSource, ThreadCache, cpython::BlockCache, thread_cache,
};
use obmalloc::{BlockPtr, GilHeld, KnownArenas, Pools16K, Pymalloc, SizeClass};
use raw_mem::{Malloc, MemAlloc, MmapArenas};

use crate::contender::{Contender, Object, Storage};

pub(crate) trait Source<T>: StorageSource<T> {
    fn new(most: usize) -> Self;
}

pub(super) type Free = FreeList<Object, Malloc>;
pub(super) type FreeRef = &'static FreeList<Storage, Malloc>;
pub(super) type Thread = ThreadCache<'static, Object, Malloc>;
pub(super) type Blocks = BlockCache<Object, Malloc>;

thread_cache! {
    /// A cache that every thread has its own instance of.
    pub(crate) struct Declared: Storage, magazine = 1000, below: Malloc = Malloc;
}

impl Source<Object> for Free {
    fn new(most: usize) -> Self {
        Self::new(most as u32, Malloc)
    }
}

impl Source<Storage> for FreeRef {
    fn new(most: usize) -> Self {
        Box::leak(Box::new(FreeList::new(most as u32, Malloc)))
    }
}

impl Source<Object> for Thread {
    fn new(most: usize) -> Self {
        Box::leak(Box::new(SharedCache::new(most as u32, Malloc))).thread()
    }
}

impl Source<Storage> for Declared {
    fn new(_: usize) -> Self {
        Self
    }
}

impl Source<Object> for Blocks {
    fn new(_: usize) -> Self {
        Self::new(Malloc)
    }
}

/// A contender that calls the functions of a source directly.
pub(super) struct Bare<S>(S);

impl<S: Source<Object>> Contender for Bare<S> {
    type Held = NonNull<Object>;

    fn new(most: usize) -> Self {
        Self(S::new(most))
    }

    #[inline]
    fn take(&mut self) -> NonNull<Object> {
        self.0.take().expect("there is memory for an object")
    }

    #[inline]
    fn place(&mut self, object: &mut NonNull<Object>) -> *mut Storage {
        object.as_ptr().cast()
    }

    #[inline]
    fn put(&mut self, object: NonNull<Object>) {
        // SAFETY: the object came from the source, and the benchmark loop gives up its ownership.
        unsafe { self.0.put(object) };
    }
}

/// A contender that uses a source through owning pointers, as most programs do.
pub(super) struct Owned<S>(S);

impl<S: Source<Storage> + Copy> Contender for Owned<S> {
    type Held = Cached<Storage, S>;

    fn new(most: usize) -> Self {
        Self(S::new(most))
    }

    #[inline]
    fn take(&mut self) -> Self::Held {
        Cached::new_in(Storage::uninit(), self.0).expect("there is memory for an object")
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

/// Our heap, called directly for blocks of one size class.
pub(super) struct HeapBlocks(obmalloc::Heap<MmapArenas, Malloc>);

const CLASS: SizeClass<Pools16K> = SizeClass::of(size_of::<Object>()).expect("a small object");

impl Contender for HeapBlocks {
    type Held = BlockPtr;

    fn new(_: usize) -> Self {
        Self(obmalloc::Heap::new(MmapArenas::new(), Malloc))
    }

    #[inline]
    fn take(&mut self) -> BlockPtr {
        self.0.alloc(CLASS).expect("there is memory for a block")
    }

    #[inline]
    fn place(&mut self, block: &mut BlockPtr) -> *mut Storage {
        block.start().as_ptr().cast()
    }

    #[inline]
    fn put(&mut self, block: BlockPtr) {
        // SAFETY: the block came from this heap, and the benchmark loop gives up its ownership.
        unsafe { self.0.free(block) };
    }
}

type Arenas = KnownArenas<MmapArenas, Malloc, Pools16K>;
type Pool = Pymalloc<GilHeld<obmalloc::Heap<Arenas, Malloc, Pools16K>>, Malloc>;

/// Our heap behind an allocator for all sizes, which looks up the owner of each freed block.
pub(super) struct Bytes(Pool);

impl Contender for Bytes {
    type Held = NonNull<u8>;

    fn new(_: usize) -> Self {
        let heap = obmalloc::Heap::new(Arenas::new(MmapArenas::new(), Malloc), Malloc);
        // SAFETY: only this thread uses the heap, and no code in the heap calls back into it.
        let heap = unsafe { GilHeld::new(heap) };
        // SAFETY: malloc never returns memory of the heap's arenas.
        Self(unsafe { Pymalloc::new(heap, Malloc) })
    }

    #[inline]
    fn take(&mut self) -> NonNull<u8> {
        self.0.malloc(size_of::<Object>()).expect("there is memory for a block")
    }

    #[inline]
    fn place(&mut self, block: &mut NonNull<u8>) -> *mut Storage {
        block.as_ptr().cast()
    }

    #[inline]
    fn put(&mut self, block: NonNull<u8>) {
        // SAFETY: the block came from this allocator, and the loop gives up its ownership.
        unsafe { self.0.free(Some(block)) };
    }
}
