//! Where objects of a fixed size are stored: in the cache of their type, or in memory from below
//! it.

use std::{marker::PhantomData, ptr::NonNull};

use object_cache::{FreeList, RcBox, StorageSource};
use raw_mem::MemAlloc;

use crate::{
    layers::{Layers, Store},
    value::{Dict, List},
};

/// The source of storage for objects of a fixed size. It has no size itself, because it finds the
/// thread's [`Store`] when it is needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Objects<L>(PhantomData<L>);

/// A type with a cache of its own.
pub trait Fixed<L: Layers>: Sized {
    /// Returns the type's cache.
    fn cache(store: &Store<L>) -> &FreeList<RcBox<Self>, L::Below>;
}

macro_rules! fixed {
    ($($Type:ty: $field:ident),*) => {
        $(impl<L: Layers> Fixed<L> for $Type {
            #[inline]
            fn cache(store: &Store<L>) -> &FreeList<RcBox<Self>, L::Below> {
                &store.$field
            }
        })*
    };
}

fixed!(i64: ints, f64: floats, List<L>: lists, Dict<L>: dicts);

// SAFETY: the guarantees are the cache's, or those of the allocator below, whose blocks have the
// object's size and are aligned to 16 bytes. Neither is ever dropped.
unsafe impl<L: Layers, T: Fixed<L>> StorageSource<RcBox<T>> for Objects<L> {
    #[inline]
    fn take(&self) -> Option<NonNull<RcBox<T>>> {
        const { assert!(align_of::<RcBox<T>>() <= 16) };
        if L::CACHED {
            T::cache(L::store()).take()
        } else {
            L::store().below.malloc(size_of::<RcBox<T>>()).map(NonNull::cast)
        }
    }

    #[inline]
    unsafe fn put(&self, storage: NonNull<RcBox<T>>) {
        if L::CACHED {
            // SAFETY: the storage came from `take` (contract), which used the cache.
            unsafe { T::cache(L::store()).put(storage) }
        } else {
            // SAFETY: the storage came from `take` (contract), which used the allocator below.
            unsafe { L::store().below.free(Some(storage.cast())) }
        }
    }
}
