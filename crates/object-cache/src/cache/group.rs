#![forbid(unsafe_code)]

use core::fmt;

use crate::list::{CacheStats, Cleared};

/// A cache, independent of the type of its objects.
pub trait Cache {
    /// Returns the storage of all free objects to the allocator below the cache.
    ///
    /// # Panics
    ///
    /// Panics if the allocator below the cache panics.
    fn clear(&self) -> Cleared;

    /// Calls `visit` once for each list, with the length of the list's objects and the list's
    /// figures.
    ///
    /// The length is `None` unless the cache has a separate list for each length.
    fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats));
}

impl<C: Cache + ?Sized> Cache for &C {
    fn clear(&self) -> Cleared {
        (**self).clear()
    }

    fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats)) {
        (**self).each_list(visit);
    }
}

/// The caches of a runtime, each with the name of its objects' type.
///
/// ```
/// use object_cache::{Cache, CacheGroup, Cached, FreeList};
/// use raw_mem::Malloc;
///
/// let floats = FreeList::<f64, _>::new(100, Malloc);
/// let points = FreeList::<[f64; 2], _>::new(100, Malloc);
/// let caches = CacheGroup(&[("Float", &floats), ("Point", &points)]);
///
/// drop((Cached::new_in(3.14, &floats), Cached::new_in([0.0; 2], &points)));
/// assert_eq!(caches.clear().bytes, 8 + 16);
/// ```
#[derive(Clone, Copy)]
pub struct CacheGroup<'a>(pub &'a [(&'a str, &'a dyn Cache)]);

impl Cache for CacheGroup<'_> {
    /// Clears every cache, as CPython does at the end of a full garbage collection.
    fn clear(&self) -> Cleared {
        let mut cleared = Cleared::default();
        self.0.iter().for_each(|(_, cache)| cleared += cache.clear());
        cleared
    }

    fn each_list(&self, visit: &mut dyn FnMut(Option<usize>, CacheStats)) {
        self.0.iter().for_each(|(_, cache)| cache.each_list(visit));
    }
}

impl fmt::Debug for CacheGroup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("CacheGroup", self, f)
    }
}

pub(crate) fn show(name: &str, cache: &dyn Cache, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut shown = f.debug_struct(name);
    cache.each_list(&mut |length, stats| {
        if let Some(length) = length {
            shown.field("length", &length);
        }
        shown.field("stats", &stats);
    });
    shown.finish_non_exhaustive()
}

#[cfg(test)]
mod tests;
