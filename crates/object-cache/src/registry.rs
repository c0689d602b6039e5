//! All caches of a runtime, for its garbage collector and for whoever is out of memory.
//!
//! ```text
//!   registry ──► scope of a call ──► scope of the call around it ──► ∅
//!                [floats, lists]     [frames]
//! ```
//!
//! 1. A scope is in the list exactly while its call runs, so the caches in it are borrowed.
//! 2. Calls usually end in the reverse of the order in which they began. Calls in coroutines that
//!    have a stack of their own may end in any order, so a scope is taken out wherever it stands.

use core::{cell::Cell, ptr, ptr::NonNull};

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
    outer: Cell<Option<NonNull<Scope>>>,
    /// Calls of [`each`](Registry::each) that are reading the scope.
    readers: Cell<usize>,
}

impl Scope {
    fn of(caches: &[Named<'_>]) -> Self {
        let caches = NonNull::from(caches);
        Self {
            caches: NonNull::slice_from_raw_parts(caches.cast(), caches.len()),
            outer: Cell::new(None),
            readers: Cell::new(0),
        }
    }
}

impl Registry {
    /// A registry of no caches.
    pub const fn new() -> Self {
        Self { innermost: Cell::new(None) }
    }

    /// Calls `body`; while it runs, `caches` are registered. Calls can be nested.
    ///
    /// If `body` runs in a coroutine, it must not end while another coroutine visits the caches.
    /// Otherwise the call aborts the process, because the visitor would use caches that no longer
    /// exist.
    ///
    /// # Panics
    ///
    /// Panics when `body` does; the caches are not registered any more then.
    pub fn during<R>(&self, caches: &[Named<'_>], body: impl FnOnce() -> R) -> R {
        let scope = Scope::of(caches);
        // SAFETY: the guard is dropped before this call ends, and it is not lent to `body`.
        let _leave = unsafe { self.enter(&scope) };
        body()
    }

    /// Puts `scope` into the list until the guard is dropped.
    ///
    /// # Safety
    ///
    /// The guard must be dropped, not forgotten, while the scope's caches are still borrowed.
    unsafe fn enter<'s>(&'s self, scope: &'s Scope) -> Leave<'s> {
        scope.outer.set(self.innermost.get());
        // INVARIANT: the guard takes the scope out before the call ends (contract).
        self.innermost.set(Some(NonNull::from(scope)));
        Leave { registry: self, scope }
    }

    /// Calls `see` with each registered cache, those of the outermost call first.
    pub fn each(&self, mut see: impl FnMut(&Named<'_>)) {
        Self::each_from(self.innermost.get(), &mut see);
    }

    fn each_from(scope: Option<NonNull<Scope>>, see: &mut dyn FnMut(&Named<'_>)) {
        let Some(scope) = scope else { return };
        // SAFETY: `innermost`'s invariant: the call is still running, and holds its scope.
        let scope = unsafe { scope.as_ref() };
        let _reading = Reading::of(scope);
        Self::each_from(scope.outer.get(), see);
        // SAFETY: the call still borrows its caches. It cannot end before `_reading` is dropped.
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

/// Keeps the call of a scope from ending.
struct Reading<'s>(&'s Scope);

impl<'s> Reading<'s> {
    fn of(scope: &'s Scope) -> Self {
        scope.readers.set(scope.readers.get() + 1);
        Self(scope)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.readers.set(self.0.readers.get() - 1);
    }
}

/// Takes a scope out when its call ends, by an unwinding as well.
struct Leave<'s> {
    registry: &'s Registry,
    scope: &'s Scope,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.scope.readers.get() > 0 {
            abort_instead_of_leaving();
        }
        let mut link = &self.registry.innermost;
        while let Some(scope) = link.get() {
            // SAFETY: `innermost`'s invariant.
            let scope = unsafe { scope.as_ref() };
            if ptr::eq(scope, self.scope) {
                // INVARIANT: the other scopes stay linked, and this one is gone.
                link.set(scope.outer.get());
                return;
            }
            link = &scope.outer;
        }
    }
}

/// Aborts the process, because a panic cannot unwind out of a function with the C ABI.
#[cold]
extern "C" fn abort_instead_of_leaving() -> ! {
    panic!("caches are unregistered while a coroutine visits them");
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

    /// As calls in coroutines do that are resumed in turn.
    #[test]
    fn calls_that_end_in_any_order_leave_the_others_registered() {
        let (registry, [a, b, c]) = (Registry::new(), [0; 3].map(|_| with_one_dead()));
        let named = [
            [Named { name: "a", cache: &a }],
            [Named { name: "b", cache: &b }],
            [Named { name: "c", cache: &c }],
        ];
        let scopes = named.each_ref().map(|caches| Scope::of(caches));
        // SAFETY: each guard is dropped below.
        let [a, b, c] = scopes.each_ref().map(|scope| unsafe { registry.enter(scope) });
        assert_eq!(names(&registry), ["a", "b", "c"]);
        drop(b);
        assert_eq!(names(&registry), ["a", "c"]);
        drop(c);
        assert_eq!(names(&registry), ["a"]);
        drop(a);
        assert_eq!(names(&registry), [""; 0]);
    }

    #[test]
    fn a_call_that_would_end_under_a_visitor_ends_the_process() {
        const CHILD: &str = "OBJECT_CACHE_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let (registry, cache) = (Registry::new(), with_one_dead());
            let caches = [Named { name: "a", cache: &cache }];
            let scope = Scope::of(&caches);
            // SAFETY: the guard is dropped below, or the process ends.
            let mut leave = Some(unsafe { registry.enter(&scope) });
            registry.each(|_| leave = None);
            std::process::exit(0);
        }
        let name = "registry::tests::a_call_that_would_end_under_a_visitor_ends_the_process";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert_eq!(child.status.code(), None, "it ended by a signal: {child:?}");
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
