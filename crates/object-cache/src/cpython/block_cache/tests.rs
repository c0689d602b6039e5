use std::{boxed::Box, cell::RefCell, rc::Rc, sync::Mutex, vec::Vec};

use super::*;
use crate::{
    Cached,
    testing::{Below, Hooked, Plan, below, failing, on_next_free, panic_of},
};

type Int = [u64; 3];
type Ints = BlockCache<Int, Below>;

fn take(ints: &Ints, count: usize) -> Vec<NonNull<Int>> {
    core::iter::from_fn(|| ints.take()).take(count).collect()
}

fn put(ints: &Ints, objects: &[NonNull<Int>]) {
    for &object in objects {
        // SAFETY: the objects of these tests come from the cache and hold no values.
        unsafe { ints.put(object) };
    }
}

#[test]
fn a_block_has_the_size_of_cpython_2s() {
    assert_eq!((Ints::OBJECTS, Ints::WHOLE.bytes), (41, 992));
    assert_eq!(BlockCache::<u128, Below, 64>::OBJECTS, 3, "the link takes 16 bytes here");
}

#[test]
fn the_highest_address_of_a_new_block_is_taken_first() {
    let (below, live) = below();
    let ints = Ints::new(below);
    let objects = take(&ints, 41);
    assert!(objects.windows(2).all(|pair| pair[0].addr().get() == pair[1].addr().get() + 24));
    assert_eq!((ints.blocks(), live.count()), (1, 1));
    take(&ints, 1);
    assert_eq!(ints.blocks(), 2);
}

#[test]
fn a_put_returns_nothing_to_the_layer_below() {
    let (below, live) = below();
    let ints = Ints::new(below);
    put(&ints, &take(&ints, 200));
    assert_eq!((live.count(), ints.stats().free), (5, 205));
    assert_eq!((ints.stats().misses, ints.stats().overflows), (5, 0));
}

#[test]
fn compaction_returns_the_blocks_without_an_object_in_use() {
    let (below, live) = below();
    let ints = Ints::new(below);
    let objects = take(&ints, 3 * 41);
    let used = objects[50];
    put(&ints, &objects[..50]);
    put(&ints, &objects[51..]);
    assert_eq!(ints.compact(), Cleared { objects: 82, bytes: 2 * 992 });
    assert_eq!((ints.blocks(), live.count(), ints.stats().free), (1, 1, 40));
    let again = take(&ints, 40);
    assert!(!again.contains(&used));
    assert_eq!(ints.blocks(), 1, "the free objects of the retained block are used again");
    put(&ints, &again);
    put(&ints, &[used]);
    assert_eq!(ints.compact(), Cleared { objects: 41, bytes: 992 });
    assert_eq!(live.count(), 0);
}

#[test]
fn compaction_changes_nothing_if_every_object_is_in_use() {
    let ints = Ints::new(below().0);
    let objects = take(&ints, 41);
    assert_eq!((ints.compact(), ints.blocks()), (Cleared::default(), 1));
    put(&ints, &objects);
}

#[test]
fn clearing_as_a_cache_compacts() {
    let ints = Ints::new(below().0);
    put(&ints, &take(&ints, 1));
    assert_eq!(Cache::clear(&ints), Cleared { objects: 41, bytes: 992 });
    assert_eq!(ints.blocks(), 0);
}

type HookedInts = BlockCache<Int, Hooked>;
type Live = Vec<Cached<Int, &'static HookedInts>>;

/// `MADE` keeps the address of the leaked cache, so LeakSanitizer does not report it.
fn leaked(below: Hooked) -> &'static HookedInts {
    static MADE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let ints = Box::leak(Box::new(HookedInts::new(below)));
    MADE.lock().unwrap().push(core::ptr::from_mut(ints).expose_provenance());
    ints
}

fn live(ints: &'static HookedInts, count: usize) -> Live {
    (0..count as u64).map(|nth| Cached::new_in([nth; 3], ints).unwrap()).collect()
}

/// Regression test (defect D6).
#[test]
fn a_block_allocated_during_a_compaction_is_retained() {
    let (hooked, blocks) = Hooked::new();
    let ints = leaked(hooked);
    let mut all = live(ints, 82);
    all.sort_by_key(|int| core::ptr::from_ref(&**int).addr());
    let used = all.pop().unwrap();
    let value = *used;
    drop(all);
    let made = Rc::new(RefCell::new(Live::new()));
    let more = Rc::clone(&made);
    on_next_free(move || more.borrow_mut().extend(live(ints, 40)));
    assert_eq!(ints.compact(), Cleared { objects: 41, bytes: 992 });
    assert_eq!((ints.blocks(), blocks.count(), ints.stats().free), (2, 2, 41));
    assert_eq!(ints.compact(), Cleared::default());
    assert_eq!((*used, made.borrow().len()), (value, 40));
    drop((used, made.take()));
    assert_eq!(ints.compact().objects, 82);
    assert_eq!((ints.blocks(), blocks.count(), ints.stats().free), (0, 0, 0));
}

#[test]
fn a_compaction_that_panics_loses_nothing() {
    let (hooked, blocks) = Hooked::new();
    let ints = leaked(hooked);
    drop(live(ints, 123));
    on_next_free(|| panic!("a free that panics"));
    assert_eq!(panic_of(|| _ = ints.compact()), "a free that panics");
    assert_eq!((ints.blocks(), blocks.count(), ints.stats().free), (2, 2, 82));
    assert_eq!(ints.compact(), Cleared { objects: 82, bytes: 2 * 992 });
    assert_eq!((ints.blocks(), blocks.count(), ints.stats().free), (0, 0, 0));
}

/// The inner compaction finds free objects in a block that the outer one has taken.
#[test]
fn a_compaction_within_another_loses_nothing() {
    let (hooked, blocks) = Hooked::new();
    let ints = leaked(hooked);
    let mut all = live(ints, 123);
    all.sort_by_key(|int| core::ptr::from_ref(&**int).addr());
    let late = all.split_off(60);
    drop(all);
    on_next_free(move || {
        drop(late);
        assert_eq!(ints.compact(), Cleared::default(), "the outer one has their blocks");
    });
    assert_eq!(ints.compact(), Cleared { objects: 41, bytes: 992 });
    assert_eq!((ints.blocks(), ints.stats().free), (2, 82));
    assert_eq!(ints.compact(), Cleared { objects: 82, bytes: 2 * 992 });
    assert_eq!((ints.blocks(), blocks.count(), ints.stats().free), (0, 0, 0));
}

#[test]
fn dropping_the_cache_returns_every_block() {
    let (below, live) = below();
    let ints = Ints::new(below);
    take(&ints, 100);
    drop(ints);
    assert_eq!(live.count(), 0);
}

#[test]
fn free_objects_still_serve_when_memory_is_exhausted() {
    let ints = Ints::new(failing(Plan::From(2)).0);
    assert_eq!(take(&ints, 100).len(), 41);
}
