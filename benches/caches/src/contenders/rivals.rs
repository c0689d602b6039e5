//! mimalloc, and pools of objects. Where a pool moves its objects about, it has boxes of them,
//! which is the faster way.

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

/// mimalloc, as Rust's programs have it.
pub(super) struct Mi;

const LAYOUT: Layout = Layout::new::<Object>();

impl Contender for Mi {
    type Held = *mut u8;

    fn new(_: usize) -> Self {
        Self
    }

    #[inline]
    fn take(&mut self) -> *mut u8 {
        // SAFETY: the layout is not of no bytes.
        let block = unsafe { MiMalloc.alloc(LAYOUT) };
        assert!(!block.is_null(), "memory");
        block
    }

    #[inline]
    fn place(&mut self, block: &mut *mut u8) -> *mut Storage {
        block.cast()
    }

    #[inline]
    fn put(&mut self, block: *mut u8) {
        // SAFETY: it came from mimalloc with this layout, and the loop gives it up.
        unsafe { MiMalloc.dealloc(block, LAYOUT) };
    }
}

/// A slab of storage, by keys.
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
        // SAFETY: the key came from `insert`, and its object was not removed.
        unsafe { self.0.get_unchecked_mut(*key) }
    }

    #[inline]
    fn put(&mut self, key: usize) {
        let _ = self.0.remove(key);
    }
}

/// How opool makes an object.
pub(super) struct Boxes;

impl PoolAllocator<Box<Storage>> for Boxes {
    fn allocate(&self) -> Box<Storage> {
        Box::new_uninit()
    }
}

/// opool's pool for one thread.
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

/// object-pool's pool, which any thread may use.
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

/// An arena, and a stack of what is dead in it.
pub(super) struct Arenas {
    dead: Vec<&'static mut Storage>,
    arena: &'static Arena<Storage>,
}

impl Contender for Arenas {
    type Held = &'static mut Storage;

    fn new(most: usize) -> Self {
        let arena = Box::leak(Box::new(Arena::with_capacity(most)));
        Self { dead: Vec::with_capacity(most), arena }
    }

    #[inline]
    fn take(&mut self) -> &'static mut Storage {
        self.dead.pop().unwrap_or_else(|| self.arena.alloc(Storage::uninit()))
    }

    #[inline]
    fn place(&mut self, object: &mut &'static mut Storage) -> *mut Storage {
        &mut **object
    }

    #[inline]
    fn put(&mut self, object: &'static mut Storage) {
        self.dead.push(object);
    }
}

thread_local! {
    #[expect(clippy::vec_box, reason = "what is taken stays in its place")]
    static DEAD: RefCell<Vec<Box<Storage>>> = const { RefCell::new(Vec::new()) };
}

/// A stack of boxes for each thread.
pub(super) struct ThreadLocal;

impl Contender for ThreadLocal {
    type Held = Box<Storage>;

    fn new(_: usize) -> Self {
        Self
    }

    #[inline]
    fn take(&mut self) -> Box<Storage> {
        DEAD.with_borrow_mut(Vec::pop).unwrap_or_else(Box::new_uninit)
    }

    #[inline]
    fn place(&mut self, object: &mut Box<Storage>) -> *mut Storage {
        &mut **object
    }

    #[inline]
    fn put(&mut self, object: Box<Storage>) {
        DEAD.with_borrow_mut(|dead| dead.push(object));
    }
}
