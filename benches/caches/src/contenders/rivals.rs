//! The allocator mimalloc, and object pools of other crates. Some pools move their objects, so
//! these objects are boxes.

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::RefCell,
};

use mimalloc::MiMalloc;
use object_pool::{Pool, Reusable};
use opool::{LocalPool, PoolAllocator, RefLocalGuard};
use slab::Slab;
use typed_arena::Arena;

use crate::contender::{Contender, Object, Storage};

pub(super) struct Mi;

const LAYOUT: Layout = Layout::new::<Object>();

impl Contender for Mi {
    type Held = *mut u8;

    fn new(_: usize) -> Self {
        Self
    }

    #[inline]
    fn take(&mut self) -> *mut u8 {
        // SAFETY: the size in the layout is not zero.
        let block = unsafe { MiMalloc.alloc(LAYOUT) };
        assert!(!block.is_null(), "there is memory for an object");
        block
    }

    #[inline]
    fn place(&mut self, block: &mut *mut u8) -> *mut Storage {
        block.cast()
    }

    #[inline]
    fn put(&mut self, block: *mut u8) {
        // SAFETY: the block came from mimalloc, and the loop gives up its ownership.
        unsafe { MiMalloc.dealloc(block, LAYOUT) };
    }
}

/// A slab, whose users hold keys instead of pointers.
pub(super) struct Slabs(Slab<Storage>);

impl Contender for Slabs {
    type Held = usize;

    fn new(most: usize) -> Self {
        Self(Slab::with_capacity(most))
    }

    #[inline]
    fn take(&mut self) -> usize {
        self.0.insert(Storage::uninit())
    }

    #[inline]
    fn place(&mut self, key: &mut usize) -> *mut Storage {
        // SAFETY: `insert` returned the key, and the key's object has not been removed since.
        unsafe { self.0.get_unchecked_mut(*key) }
    }

    #[inline]
    fn put(&mut self, key: usize) {
        let _ = self.0.remove(key);
    }
}

pub(super) struct Boxes;

impl PoolAllocator<Box<Storage>> for Boxes {
    fn allocate(&self) -> Box<Storage> {
        Box::new_uninit()
    }
}

/// The pool of the crate opool for a single thread.
pub(super) struct Opool(&'static LocalPool<Boxes, Box<Storage>>);

impl Contender for Opool {
    type Held = RefLocalGuard<'static, Boxes, Box<Storage>>;

    fn new(most: usize) -> Self {
        Self(Box::leak(Box::new(LocalPool::new(most, Boxes))))
    }

    #[inline]
    fn take(&mut self) -> Self::Held {
        self.0.get()
    }

    #[inline]
    fn place(&mut self, guard: &mut Self::Held) -> *mut Storage {
        &mut ***guard
    }

    #[inline]
    fn put(&mut self, guard: Self::Held) {
        drop(guard);
    }
}

/// The pool of the crate object-pool for all threads.
pub(super) struct ObjectPool(&'static Pool<Box<Storage>>);

impl Contender for ObjectPool {
    type Held = Reusable<'static, Box<Storage>>;

    fn new(most: usize) -> Self {
        Self(Box::leak(Box::new(Pool::new(most, Box::new_uninit))))
    }

    #[inline]
    fn take(&mut self) -> Self::Held {
        self.0.pull(Box::new_uninit)
    }

    #[inline]
    fn place(&mut self, object: &mut Self::Held) -> *mut Storage {
        &mut ***object
    }

    #[inline]
    fn put(&mut self, object: Self::Held) {
        drop(object);
    }
}

/// An arena, and a stack of the free objects in it.
pub(super) struct Arenas {
    free: Vec<&'static mut Storage>,
    arena: &'static Arena<Storage>,
}

impl Contender for Arenas {
    type Held = &'static mut Storage;

    fn new(most: usize) -> Self {
        let arena = Box::leak(Box::new(Arena::with_capacity(most)));
        Self { free: Vec::with_capacity(most), arena }
    }

    #[inline]
    fn take(&mut self) -> &'static mut Storage {
        self.free.pop().unwrap_or_else(|| self.arena.alloc(Storage::uninit()))
    }

    #[inline]
    fn place(&mut self, object: &mut &'static mut Storage) -> *mut Storage {
        &mut **object
    }

    #[inline]
    fn put(&mut self, object: &'static mut Storage) {
        self.free.push(object);
    }
}

thread_local! {
    #[expect(clippy::vec_box, reason = "objects must not move")]
    static FREE: RefCell<Vec<Box<Storage>>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct ThreadLocal;

impl Contender for ThreadLocal {
    type Held = Box<Storage>;

    fn new(_: usize) -> Self {
        Self
    }

    #[inline]
    fn take(&mut self) -> Box<Storage> {
        FREE.with_borrow_mut(Vec::pop).unwrap_or_else(Box::new_uninit)
    }

    #[inline]
    fn place(&mut self, object: &mut Box<Storage>) -> *mut Storage {
        &mut **object
    }

    #[inline]
    fn put(&mut self, object: Box<Storage>) {
        FREE.with_borrow_mut(|free| free.push(object));
    }
}
