//! What can be done with a cache of any type, and with several caches together.

use core::fmt;

use crate::list::{CacheStats, Cleared};

/// A cache of any type.
pub trait Cache {
    /// Returns the storage of all free objects to the layer below.
    ///
    /// # Panics
    ///
    /// Panics if the layer below does.
    fn clear(&self) -> Cleared;

    /// Calls `visit` with the figures of each list. The first argument is the length of the list's
    /// objects if the cache has a list for each length.
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

/// The caches of a runtime, each with the name of the type that it caches.
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

/// Formats `cache` for `Debug`: its name and the figures of its lists.
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
mod tests {
    use std::format;

    use raw_mem::Malloc;

    use super::*;
    use crate::{Cached, FreeList, cpython::TupleLists};

    #[test]
    fn debug_output_shows_the_figures_of_each_list() {
        let cache = FreeList::new(10, Malloc);
        drop(Cached::new_in(1_u64, &cache));
        let text = format!("{cache:?}");
        assert!(text.starts_with("FreeList { stats: CacheStats { free: 1, "), "{text}");
        let tuples = TupleLists::<(), u64, _, 2>::new(10, Malloc);
        assert_eq!(format!("{tuples:?}").matches("length: ").count(), 2);
    }

    #[test]
    fn clearing_a_group_clears_every_cache() {
        let caches = [(); 3].map(|()| FreeList::new(10, Malloc));
        caches.iter().for_each(|cache| drop(Cached::new_in(1_u64, cache)));
        let [a, b, c] = &caches;
        let outer = CacheGroup(&[("a", a), ("b", &CacheGroup(&[("b", b), ("c", c)]))]);
        assert_eq!(format!("{outer:?}").matches("free: 1").count(), 3);
        assert_eq!(outer.clear(), Cleared { objects: 3, bytes: 24 });
        assert_eq!([a, b, c].map(|cache| cache.stats().free), [0; 3]);
    }
}
