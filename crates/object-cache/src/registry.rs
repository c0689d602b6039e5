//! All caches of a runtime, for its garbage collector and for whoever is out of memory.
//!
//! ```text
//!   registry ──► scope of a call ──► scope of the call around it ──► ∅
//!                [floats, lists]     [frames]
//! ```
//!
//! 1. A scope is in the list exactly while its call runs, so the caches in it are borrowed.

use core::{cell::Cell, ptr::NonNull};

use crate::{Cache, Cleared, Report};

/// A cache and the name of what it caches.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    /// The name of the type, as in `PyFloatObject`.
    pub name: &'a str,
    /// Its cache.
    pub cache: &'a dyn Cache,
}

/// The caches that exist now. Has no memory of its own, and keeps nothing alive.
///
/// ```
/// use object_cache::{Cached, FreeList, Named, Registry};
/// use raw_mem::Malloc;
///
/// let registry = Registry::new();
/// let floats = FreeList::new(100, Malloc);
/// registry.during(&[Named { name: "Float", cache: &floats }], || {
///     drop(Cached::new_in(3.14, &floats));   // the program
///     assert!(registry.report().to_string().contains("1 free Floats * 8 bytes each"));
///     assert_eq!(registry.clear_all().objects, 1);
/// });
/// assert_eq!(registry.clear_all().objects, 0);   // it knows no cache any more
/// ```
#[derive(Default)]
pub struct Registry {
    /// # Invariant
    ///
    /// Every scope from here on belongs to a call of [`during`](Registry::during) that has not
    /// returned.
    innermost: Cell<Option<NonNull<Scope>>>,
}

/// The caches of one call, without their lifetime.
struct Scope {
    caches: NonNull<[Named<'static>]>,
    outer: Option<NonNull<Scope>>,
}

impl Registry {
    /// A registry of no caches.
    pub const fn new() -> Self {
        Self { innermost: Cell::new(None) }
    }

    /// Calls `body`; while it runs, `caches` are registered. Calls can be nested.
    ///
    /// # Panics
    ///
    /// Panics when `body` does; the caches are not registered any more then.
    pub fn during<R>(&self, caches: &[Named<'_>], body: impl FnOnce() -> R) -> R {
        let caches = NonNull::from(caches);
        let caches = NonNull::slice_from_raw_parts(caches.cast(), caches.len());
        let scope = Scope { caches, outer: self.innermost.get() };
        // INVARIANT: the guard takes the scope out again before this call returns.
        self.innermost.set(Some(NonNull::from(&scope)));
        let _leave = Leave { registry: self, outer: scope.outer };
        body()
    }

    /// Calls `see` with each registered cache, those of the outermost call first.
    pub fn each(&self, mut see: impl FnMut(&Named<'_>)) {
        Self::each_from(self.innermost.get(), &mut see);
    }

    fn each_from(scope: Option<NonNull<Scope>>, see: &mut dyn FnMut(&Named<'_>)) {
        let Some(scope) = scope else { return };
        // SAFETY: `innermost`'s invariant: the call is still running, and holds its scope.
        let scope = unsafe { scope.as_ref() };
        Self::each_from(scope.outer, see);
        // SAFETY: the call still borrows its caches; the reference ends with this function.
        unsafe { scope.caches.as_ref() }.iter().for_each(see);
    }

    /// Empties every registered cache, and says how much was given down.
    ///
    /// CPython: what a full collection does at its end.
    pub fn clear_all(&self) -> Cleared {
        let mut cleared = Cleared::default();
        self.each(|named| cleared += named.cache.clear());
        cleared
    }

    /// The figures of every registered cache, as text.
    pub fn report(&self) -> Report<'_> {
        Report::new(self)
    }
}

/// Clearing a registry clears every cache in it.
impl Cache for Registry {
    fn clear(&self) -> Cleared {
        self.clear_all()
    }

    fn each_list(&self, see: &mut dyn FnMut(Option<usize>, crate::Stats)) {
        self.each(|named| named.cache.each_list(see));
    }
}

/// Takes a scope out when its call ends, by an unwinding as well.
struct Leave<'r> {
    registry: &'r Registry,
    outer: Option<NonNull<Scope>>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        // INVARIANT: what was registered before this call still is.
        self.registry.innermost.set(self.outer);
    }
}

#[cfg(test)]
mod tests {
    use std::{string::String, vec::Vec};

    use raw_mem::Malloc;

    use super::*;
    use crate::{Cached, FreeList, testing::panic_of};

    fn names(registry: &Registry) -> Vec<String> {
        let mut names = Vec::new();
        registry.each(|named| names.push(named.name.into()));
        names
    }

    fn with_one_dead() -> FreeList<u64, Malloc> {
        let cache = FreeList::new(10, Malloc);
        drop(Cached::new_in(1, &cache));
        cache
    }

    #[test]
    fn clearing_reaches_every_cache_of_every_call_around() {
        let (registry, [a, b, c]) = (Registry::new(), [0; 3].map(|_| with_one_dead()));
        let outer = [Named { name: "a", cache: &a }, Named { name: "b", cache: &b }];
        registry.during(&outer, || {
            registry.during(&[Named { name: "c", cache: &c }], || {
                assert_eq!(names(&registry), ["a", "b", "c"]);
                assert_eq!(registry.clear_all(), Cleared { objects: 3, bytes: 24 });
            });
        });
        assert_eq!([a, b, c].map(|cache| cache.stats().free), [0; 3]);
    }

    #[test]
    fn a_cache_is_registered_exactly_while_the_call_runs() {
        let (registry, cache) = (Registry::new(), with_one_dead());
        let caches = [Named { name: "a", cache: &cache }];
        assert_eq!(names(&registry), [""; 0]);
        registry.during(&caches, || assert_eq!(names(&registry), ["a"]));
        assert_eq!(names(&registry), [""; 0]);
        panic_of(|| registry.during(&caches, || panic!("the program")));
        assert_eq!((names(&registry).len(), registry.clear_all().objects), (0, 0));
    }
}
