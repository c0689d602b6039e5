//! Compares every cache with a model, using random sequences of operations.
//!
//! The tests detect blocks that are returned twice, freed twice, lost or overwritten.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    rc::Rc,
};

use object_cache::{
    Cache, Cached, CachedRc, FreeList, RcBox, SharedCache, StorageSource,
    cpython::{BlockCache, TupleLists},
};
use proptest::prelude::*;
use raw_mem::{Malloc, MemAlloc};
use testkit::{
    failing::{FailingAlloc, Faults, LiveBlocks, Plan},
    property,
};

/// An operation on a cache. The numbers choose one of the live objects.
#[derive(Clone, Copy, Debug)]
enum Op {
    Make,
    MakeAndPanic,
    Drop(usize),
    DropAndPanic(usize),
    Clear,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        12 => Just(Op::Make),
        1 => Just(Op::MakeAndPanic),
        10 => any::<usize>().prop_map(Op::Drop),
        1 => any::<usize>().prop_map(Op::DropAndPanic),
        1 => Just(Op::Clear),
    ];
    prop::collection::vec(op, 1..200)
}

#[derive(Clone, Default)]
struct Drops(Rc<RefCell<BTreeMap<u64, u32>>>);

impl Drops {
    fn value(&self, number: u64) -> Value {
        Value { number, check: !number, bomb: Cell::new(false), drops: self.clone() }
    }

    fn of(&self, number: u64) -> u32 {
        self.0.borrow().get(&number).copied().unwrap_or(0)
    }
}

struct Value {
    number: u64,
    check: u64,
    bomb: Cell<bool>,
    drops: Drops,
}

impl Value {
    fn assert_is(&self, number: u64) {
        assert_eq!((self.number, self.check), (number, !number), "no other object overwrote it");
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.assert_is(self.number);
        *self.drops.0.borrow_mut().entry(self.number).or_default() += 1;
        assert!(!self.bomb.get(), "a value that panics in its destructor");
    }
}

/// Returns an allocator that fails at every `step`-th request, and a counter of its live blocks.
fn below(step: usize) -> (FailingAlloc<Malloc>, LiveBlocks) {
    let alloc = FailingAlloc::new(Malloc, Faults::new(Plan::Every(step)));
    let live = alloc.live();
    (alloc, live)
}

fn panics(body: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(body)).is_err(), "the panic is propagated");
}

struct Play<P> {
    live: Vec<(u64, P)>,
    drops: Drops,
    made: u64,
}

impl<P> Play<P> {
    fn new() -> Self {
        Self { live: Vec::new(), drops: Drops::default(), made: 0 }
    }

    fn step(
        &mut self,
        op: Op,
        make: impl FnOnce(&mut dyn FnMut() -> Value) -> Option<P>,
        value: impl Fn(&P) -> &Value,
        clear: impl FnOnce(),
    ) {
        match op {
            Op::Make => {
                let number = self.made;
                let made = make(&mut || self.drops.value(number));
                self.live.extend(made.map(|pointer| (number, pointer)));
                self.made += 1;
            }
            Op::MakeAndPanic => {
                // If there is no memory, the constructor is not called, so nothing panics.
                let _ = catch_unwind(AssertUnwindSafe(|| make(&mut || panic!("no value"))));
            }
            Op::Drop(_) | Op::DropAndPanic(_) if self.live.is_empty() => {}
            Op::Drop(which) => {
                let (number, pointer) = self.live.swap_remove(which % self.live.len());
                drop(pointer);
                assert_eq!(self.drops.of(number), 1, "a value is dropped exactly once");
            }
            Op::DropAndPanic(which) => {
                let (number, pointer) = self.live.swap_remove(which % self.live.len());
                value(&pointer).bomb.set(true);
                panics(|| drop(pointer));
                assert_eq!(self.drops.of(number), 1, "a value is dropped exactly once");
            }
            Op::Clear => clear(),
        }
        for (number, pointer) in &self.live {
            value(pointer).assert_is(*number);
            assert_eq!(self.drops.of(*number), 0, "a live value is not dropped");
        }
    }

    fn end(self) {
        drop(self.live);
        assert!(
            self.drops.0.borrow().values().all(|&drops| drops == 1),
            "every value is dropped exactly once"
        );
    }
}

fn free(cache: &dyn Cache) -> usize {
    let mut free = 0;
    cache.each_list(&mut |_, stats| {
        assert!(stats.free <= stats.bound, "the bound holds");
        free += stats.free;
    });
    free
}

#[test]
fn a_free_list_matches_the_model() {
    property::check(400, (ops(), 1..8_u32, 2..20_usize), |(ops, bound, step)| {
        let (alloc, blocks) = below(step);
        let cache = FreeList::new(bound, alloc);
        let mut play = Play::new();
        for op in ops {
            play.step(
                op,
                |value| Cached::make_in(value, &cache),
                |pointer| pointer,
                || _ = cache.clear(),
            );
            assert_eq!(blocks.count(), play.live.len() + free(&cache), "no storage is lost");
        }
        play.end();
        drop(cache);
        assert_eq!(blocks.count(), 0);
    });
}

#[test]
fn counted_pointers_match_the_model() {
    property::check(200, (ops(), 1..8_u32, 2..20_usize), |(ops, bound, step)| {
        let (alloc, blocks) = below(step);
        let cache = FreeList::<RcBox<Value>, _>::new(bound, alloc);
        let mut play = Play::new();
        for op in ops {
            play.step(
                op,
                |value| {
                    let pointer = CachedRc::make_in(value, &cache)?;
                    let other = CachedRc::clone(&pointer);
                    assert_eq!(CachedRc::count(&other), 2);
                    Some(pointer)
                },
                |pointer| pointer,
                || _ = cache.clear(),
            );
            assert_eq!(blocks.count(), play.live.len() + free(&cache), "no storage is lost");
        }
        play.end();
        drop(cache);
        assert_eq!(blocks.count(), 0);
    });
}

type Tuples = TupleLists<u8, Value, FailingAlloc<Malloc>, 3>;

/// A tuple of `len` values, the first `made` of which are live.
struct Tuple<'c> {
    object: NonNull<u8>,
    made: usize,
    len: usize,
    cache: &'c Tuples,
}

impl<'c> Tuple<'c> {
    fn new(cache: &'c Tuples, len: usize, mut item: impl FnMut(usize) -> Value) -> Option<Self> {
        let object = cache.take(len)?;
        let mut tuple = Self { object, made: 0, len, cache };
        for index in 0..len {
            let value = item(index);
            // SAFETY: the storage has room for `len` items.
            unsafe { Tuples::items(object).add(index).write(value) };
            tuple.made += 1;
        }
        Some(tuple)
    }

    fn first(&self) -> &Value {
        // SAFETY: the tuple has at least one item, and all of its items are live.
        unsafe { Tuples::items(self.object).as_ref() }
    }
}

impl Drop for Tuple<'_> {
    fn drop(&mut self) {
        struct Put<'t, 'c>(&'t Tuple<'c>);
        impl Drop for Put<'_, '_> {
            fn drop(&mut self) {
                // SAFETY: the storage came from the cache with this length, and holds no value.
                unsafe { self.0.cache.put(self.0.object, self.0.len) };
            }
        }
        let put = Put(self);
        // SAFETY: the storage came from a cache of this type.
        let first = unsafe { Tuples::items(put.0.object) };
        // SAFETY: the first `made` items are live and not used again.
        unsafe { NonNull::slice_from_raw_parts(first, put.0.made).drop_in_place() };
    }
}

#[test]
fn tuple_lists_match_the_model() {
    property::check(200, (ops(), 1..4_u32, 2..20_usize), |(ops, bound, step)| {
        let (alloc, blocks) = below(step);
        let cache = Tuples::new(bound, alloc);
        let mut play = Play::new();
        let mut others = 1_u64 << 32;
        for (op, len) in ops.into_iter().zip((1..=4).cycle()) {
            let drops = play.drops.clone();
            play.step(
                op,
                |value| {
                    Tuple::new(&cache, len, |index| {
                        others += 1;
                        if index == 0 { value() } else { drops.value(others) }
                    })
                },
                Tuple::first,
                || _ = cache.clear(),
            );
            assert_eq!(blocks.count(), play.live.len() + free(&cache), "no storage is lost");
        }
        play.end();
        drop(cache);
        assert_eq!(blocks.count(), 0);
    });
}

#[test]
fn a_block_cache_matches_the_model() {
    property::check(200, (ops(), 2..20_usize), |(ops, step)| {
        let (alloc, blocks) = below(step);
        let cache = BlockCache::<Value, _, 200>::new(alloc);
        let mut play = Play::new();
        for op in ops {
            play.step(
                op,
                |value| Cached::make_in(value, &cache),
                |pointer| pointer,
                || _ = cache.compact(),
            );
            assert_eq!(blocks.count(), cache.blocks());
            let objects = cache.blocks() * BlockCache::<Value, FailingAlloc<Malloc>, 200>::OBJECTS;
            assert_eq!(objects, play.live.len() + free(&cache), "no storage is lost");
        }
        play.end();
        let _ = cache.compact();
        assert_eq!(blocks.count(), 0, "blocks without an object in use are returned");
    });
}

#[test]
fn a_thread_cache_matches_the_model() {
    property::check(200, (ops(), 1..4_u32, 2..20_usize), |(ops, magazine, step)| {
        let (alloc, blocks) = below(step);
        let shared = SharedCache::<Value, _, 2>::new(magazine, alloc);
        // Two caches take turns, so each may receive an object of the other.
        let locals = [shared.thread(), shared.thread()];
        let mut play = Play::new();
        for (op, local) in ops.into_iter().zip(locals.iter().cycle()) {
            play.step(
                op,
                |value| Cached::make_in(value, local),
                |pointer| pointer,
                || _ = shared.clear(),
            );
            let in_locals = locals.iter().map(|local| free(local)).sum::<usize>();
            let in_depot = blocks.count() - play.live.len() - in_locals;
            assert!(in_depot <= free(&shared), "no storage is lost");
        }
        play.end();
        drop(locals);
        let _ = shared.clear();
        assert_eq!(blocks.count(), 0);
    });
}

#[derive(Default)]
struct Types(BTreeMap<usize, &'static str>);

impl Types {
    /// Takes storage for the type `name`. Asserts that the storage has not served another type.
    fn take<T>(&mut self, cache: &impl StorageSource<T>, name: &'static str) -> Option<NonNull<T>> {
        let storage = cache.take()?;
        let before = self.0.insert(storage.addr().get(), name);
        assert!(before.is_none_or(|before| before == name), "{name} in the storage of {before:?}");
        Some(storage)
    }

    fn forget_returned(&mut self, blocks: &LiveBlocks) {
        self.0.retain(|&address, _| {
            let block = NonNull::without_provenance(address.try_into().expect("not null"));
            blocks.contains(block)
        });
    }
}

#[test]
fn types_never_share_storage() {
    property::check(200, (ops(), 1..8_u32), |(ops, bound)| {
        let (alloc, blocks) = below(usize::MAX);
        let (floats, ints) =
            (FreeList::<f64, _>::new(bound, &alloc), FreeList::<i64, _>::new(bound, &alloc));
        let (mut types, mut live_floats, mut live_ints) = (Types::default(), vec![], vec![]);
        for (op, turn) in ops.into_iter().zip(0..) {
            match op {
                Op::Make | Op::MakeAndPanic if turn % 2 == 0 => {
                    live_floats.extend(types.take(&floats, "float"));
                }
                Op::Make | Op::MakeAndPanic => live_ints.extend(types.take(&ints, "int")),
                Op::Drop(which) | Op::DropAndPanic(which) => {
                    put_one(&floats, &mut live_floats, which);
                    put_one(&ints, &mut live_ints, which);
                }
                Op::Clear => _ = floats.clear(),
            }
            types.forget_returned(&blocks);
        }
        live_floats.drain(..).for_each(|storage| put(&floats, storage));
        live_ints.drain(..).for_each(|storage| put(&ints, storage));
    });
}

fn put_one<T, A: MemAlloc>(cache: &FreeList<T, A>, live: &mut Vec<NonNull<T>>, which: usize) {
    if !live.is_empty() {
        put(cache, live.swap_remove(which % live.len()));
    }
}

fn put<T, A: MemAlloc>(cache: &FreeList<T, A>, storage: NonNull<T>) {
    // SAFETY: the storage came from this cache, is put once, and holds no value.
    unsafe { cache.put(storage) };
}
