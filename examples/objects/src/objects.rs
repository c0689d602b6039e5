//! Where objects of a fixed size live: in the cache of their type, or straight from below.

use core::{marker::PhantomData, ptr::NonNull};

use object_cache::{BareHome, Counted, FreeList, Home, drop_and_put};
use raw_mem::MemAlloc;

use crate::{Dict, Layers, List, layers::Store};

/// The home of every object of a fixed size. Takes no room: the thread's [`Store`] is found when
/// it is needed.
#[derive(Debug)]
pub struct Objects<L>(PhantomData<L>);

impl<L> Objects<L> {
    pub(crate) const HERE: Self = Self(PhantomData);
}

impl<L> Clone for Objects<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Objects<L> {}

/// A type with a cache of its own.
pub trait Fixed<L: Layers>: Sized {
    /// Its cache.
    fn cache(store: &Store<L>) -> &FreeList<Counted<Self>, L::Below>;
}

macro_rules! fixed {
    ($($Type:ty: $field:ident),*) => {
        $(impl<L: Layers> Fixed<L> for $Type {
            #[inline]
            fn cache(store: &Store<L>) -> &FreeList<Counted<Self>, L::Below> {
                &store.$field
            }
        })*
    };
}

fixed!(i64: ints, f64: floats, List<L>: lists, Dict<L>: dicts);

// SAFETY: `drop_and_put` ends a life once.
unsafe impl<L: Layers, T: Fixed<L>> Home<Counted<T>> for Objects<L> {
    #[inline]
    unsafe fn retire(&self, object: NonNull<Counted<T>>) {
        // SAFETY: the caller's promise.
        unsafe { drop_and_put(self, object) }
    }
}

// SAFETY: either the cache's promise, or the allocator's: a block of the object's size, aligned to
// 16 bytes, which is the caller's until it is freed. No object needs more than 16.
unsafe impl<L: Layers, T: Fixed<L>> BareHome<Counted<T>> for Objects<L> {
    #[inline]
    fn take(&self) -> Option<NonNull<Counted<T>>> {
        const { assert!(align_of::<Counted<T>>() <= 16) };
        if L::CACHED {
            T::cache(L::store()).take()
        } else {
            L::store().below.malloc(size_of::<Counted<T>>()).map(NonNull::cast)
        }
    }

    #[inline]
    unsafe fn put(&self, storage: NonNull<Counted<T>>) {
        if L::CACHED {
            // SAFETY: the caller's promise; with this choice of layers it came from the cache.
            unsafe { T::cache(L::store()).put(storage) }
        } else {
            // SAFETY: the caller's promise; with this choice it came from below.
            unsafe { L::store().below.free(Some(storage.cast())) }
        }
    }
}
