//! The storage of objects of a fixed size. It comes from the cache of the object's type, or
//! directly from the allocator below the caches.

use std::{marker::PhantomData, ptr::NonNull};

use object_cache::{FreeList, RcBox, StorageSource};
use raw_mem::MemAlloc;

use crate::{
    layers::{Layers, Store},
    value::{Dict, List},
};

/// The source of storage for objects of a fixed size. The type has no fields and takes no space in
/// an object's pointer, because it looks up the thread's [`Store`] when the store is needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Objects<L>(PhantomData<L>);

/// A type of objects that has its own cache.
pub trait Fixed<L: Layers>: Sized {
    /// Returns the cache of this type in `store`.
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

// SAFETY: storage comes either from the cache, which gives the required guarantees, or from the
// allocator below, whose blocks have the object's size and are aligned to 16 bytes. Neither of them
// is ever dropped.
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
            // SAFETY: the storage came from `take` (contract of `put`), which took it from the
            // cache.
            unsafe { T::cache(L::store()).put(storage) }
        } else {
            // SAFETY: the storage came from `take` (contract of `put`), which took it from the
            // allocator below.
            unsafe { L::store().below.free(Some(storage.cast())) }
        }
    }
}
