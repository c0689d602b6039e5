use std::{thread, vec::Vec};

use super::*;
use crate::{
    Cached,
    testing::{Below, Hooked, Log, below, on_next_free, panic_of},
};

type Shared = SharedCache<u64, Below, 2>;
type Local<'s> = ThreadCache<'s, u64, Below, 2>;

fn take(local: &Local<'_>, count: usize) -> Vec<NonNull<u64>> {
    core::iter::from_fn(|| local.take()).take(count).collect()
}

fn put(local: &Local<'_>, objects: &[NonNull<u64>]) {
    for &object in objects {
        // SAFETY: the objects of these tests come from one shared cache and hold no values.
        unsafe { local.put(object) };
    }
}

fn magazines<A: MemAlloc>(shared: &SharedCache<u64, A, 2>) -> usize {
    shared.depot.magazines()
}

#[test]
fn a_thread_retains_two_magazines_and_the_depot_one_per_slot() {
    let (below, live) = below();
    let shared = Shared::new(3, below);
    let local = shared.thread();
    put(&local, &take(&local, 99));
    assert_eq!((live.count(), magazines(&shared), local.stats().free), ((2 + 2) * 3, 2, 6));
    drop(local);
    assert_eq!(live.count(), 2 * 3);
}

#[test]
fn a_clear_that_panics_retains_the_remaining_objects() {
    let (hooked, live) = Hooked::new();
    let shared = SharedCache::<u64, Hooked, 2>::new(3, hooked);
    let local = shared.thread();
    let objects: Vec<_> = (0..5).map(|_| local.take().unwrap()).collect();
    // SAFETY: the objects come from this cache and hold no values.
    objects.into_iter().for_each(|object| unsafe { local.put(object) });
    on_next_free(|| panic!("a free that panics"));
    assert_eq!(panic_of(|| _ = local.clear()), "a free that panics");
    assert_eq!((live.count(), magazines(&shared), local.stats().free), (4, 1, 2));
    on_next_free(|| panic!("a free that panics"));
    assert_eq!(panic_of(|| _ = shared.clear()), "a free that panics");
    assert_eq!((live.count(), magazines(&shared)), (3, 1));
    assert_eq!((local.clear().objects, shared.clear().objects, live.count()), (2, 1, 0));
}

#[test]
fn a_thread_at_the_edge_of_a_magazine_does_not_visit_the_depot() {
    let (below, live) = below();
    let shared = Shared::new(3, below);
    let local = shared.thread();
    put(&local, &take(&local, 3));
    for _ in 0..10 {
        put(&local, &take(&local, 4));
    }
    assert_eq!((live.count(), magazines(&shared), local.stats().misses), (4, 0, 4));
}

#[test]
fn objects_that_a_thread_leaves_at_its_end_serve_the_next_thread() {
    let (below, live) = below();
    let shared = Shared::new(3, below);
    thread::scope(|scope| {
        scope.spawn(|| {
            let local = shared.thread();
            put(&local, &take(&local, 5));
        });
    });
    assert_eq!((live.count(), magazines(&shared)), (5, 2), "one of them is not full");
    let local = shared.thread();
    let objects = take(&local, 5);
    assert_eq!((local.stats().hits, local.stats().misses, live.count()), (5, 0, 5));
    put(&local, &objects);
}

#[test]
fn storage_returns_below_at_a_threads_end_if_the_depot_is_full() {
    let (below, live) = below();
    let shared = Shared::new(3, below);
    let locals = [0; 3].map(|_| shared.thread());
    locals.iter().for_each(|local| put(local, &take(local, 2)));
    assert_eq!(live.count(), 6);
    drop(locals);
    assert_eq!((live.count(), magazines(&shared)), (4, 2));
}

#[test]
fn the_shared_figures_include_threads_that_have_ended() {
    let shared = Shared::new(3, below().0);
    let local = shared.thread();
    put(&local, &take(&local, 2));
    put(&local, &take(&local, 2));
    drop(local);
    assert_eq!((shared.stats().hits, shared.stats().misses), (2, 2));
}

#[test]
fn the_depot_and_a_thread_are_cleared_separately() {
    let (below, live) = below();
    let shared = Shared::new(3, below);
    let local = shared.thread();
    put(&local, &take(&local, 10));
    assert_eq!(shared.clear(), Cleared { objects: 6, bytes: 96 });
    assert_eq!(local.clear(), Cleared { objects: 4, bytes: 64 });
    assert_eq!(live.count(), 0);
}

#[test]
fn dropping_all_caches_returns_all_storage() {
    let (below, live) = below();
    let shared = Shared::new(3, below);
    put(&shared.thread(), &take(&shared.thread(), 20));
    drop(shared);
    assert_eq!(live.count(), 0);
}

#[test]
fn a_value_that_panics_in_its_destructor_puts_the_storage_back() {
    let log = Log::default();
    let shared = SharedCache::<_, _>::new(3, below().0);
    let local: ThreadCache<'_, _, _> = shared.thread();
    let value = Cached::new_in(log.value(1), &local);
    log.arm([1]);
    assert_eq!(panic_of(|| drop(value)), "bomb 1");
    assert_eq!((log.dropped(), local.stats().free), ([1].into(), 1));
}

#[test]
#[should_panic(expected = "at least one object")]
fn a_magazine_of_no_objects_is_rejected() {
    Shared::new(0, below().0);
}
