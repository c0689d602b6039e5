//! Every cache against a model: random sequences of making and ending objects.
//!
//! The allocator below knows what is live, so that a block handed out twice, freed twice or lost
//! is found there; every value writes down its end; every object carries its number, so that two
//! objects in one place are found by reading them.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::NonNull,
    rc::Rc,
};

use object_cache::{
    BareHome, BlockCache, Cache, Cached, CachedRc, CachedRun, Counted, FreeList, HuskList,
    KeyedFreeList, Recycle, SharedCache,
};
use proptest::prelude::*;
use raw_mem::{Malloc, MemAlloc};
use testkit::{
    failing::{FailingAlloc, Faults, LiveBlocks, Plan},
    property,
};

/// What a test does to a cache. Objects are named by a number, of those that live.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// Makes an object.
    Make,
    /// Calls a constructor that panics.
    MakeAndPanic,
    /// Ends the life of an object.
    End(usize),
    /// Ends the life of an object that panics while it is dropped.
    EndAndPanic(usize),
    Clear,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        12 => Just(Op::Make),
        1 => Just(Op::MakeAndPanic),
        10 => any::<usize>().prop_map(Op::End),
        1 => any::<usize>().prop_map(Op::EndAndPanic),
        1 => Just(Op::Clear),
    ];
    prop::collection::vec(op, 1..200)
}

/// How often each value was dropped, by number.
#[derive(Clone, Default)]
struct Ends(Rc<RefCell<BTreeMap<u64, u32>>>);

impl Ends {
    fn value(&self, number: u64) -> Value {
        Value { number, check: !number, bomb: Cell::new(false), ends: self.clone() }
    }

    fn of(&self, number: u64) -> u32 {
        self.0.borrow().get(&number).copied().unwrap_or(0)
    }
}

/// An object that knows when its storage was overwritten.
struct Value {
    number: u64,
    check: u64,
    bomb: Cell<bool>,
    ends: Ends,
}

impl Value {
    fn assert_is(&self, number: u64) {
        assert_eq!((self.number, self.check), (number, !number), "the object is its own");
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.assert_is(self.number);
        *self.ends.0.borrow_mut().entry(self.number).or_default() += 1;
        assert!(!self.bomb.get(), "a value that panics while it is dropped");
    }
}

/// The allocator below, which fails at every `step`-th request, and its live blocks.
fn below(step: usize) -> (FailingAlloc<Malloc>, LiveBlocks) {
    let alloc = FailingAlloc::new(Malloc, Faults::new(Plan::Every(step)));
    let live = alloc.live();
    (alloc, live)
}

fn panics(body: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(body)).is_err(), "a panic goes through");
}

/// The objects that live, and the caches' way to make them.
struct Play<P> {
    live: Vec<(u64, P)>,
    ends: Ends,
    made: u64,
}

impl<P> Play<P> {
    fn new() -> Self {
        Self { live: Vec::new(), ends: Ends::default(), made: 0 }
    }

    /// Plays one operation into the cache behind `make`. `value` finds a value behind a pointer.
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
                let made = make(&mut || self.ends.value(number));
                self.live.extend(made.map(|pointer| (number, pointer)));
                self.made += 1;
            }
            Op::MakeAndPanic => {
                // Without memory the constructor is not called.
                let _ = catch_unwind(AssertUnwindSafe(|| make(&mut || panic!("no value"))));
            }
            Op::End(_) | Op::EndAndPanic(_) if self.live.is_empty() => {}
            Op::End(which) => {
                let (number, pointer) = self.live.swap_remove(which % self.live.len());
                drop(pointer);
                assert_eq!(self.ends.of(number), 1, "a value is dropped once");
            }
            Op::EndAndPanic(which) => {
                let (number, pointer) = self.live.swap_remove(which % self.live.len());
                value(&pointer).bomb.set(true);
                panics(|| drop(pointer));
                assert_eq!(self.ends.of(number), 1, "a value is dropped once");
            }
            Op::Clear => clear(),
        }
        for (number, pointer) in &self.live {
            value(pointer).assert_is(*number);
            assert_eq!(self.ends.of(*number), 0, "a live value was not dropped");
        }
    }

    fn end(self) {
        drop(self.live);
        assert!(self.ends.0.borrow().values().all(|&ends| ends == 1), "every value, once");
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
fn a_free_list_keeps_its_promises() {
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
            assert_eq!(blocks.count(), play.live.len() + free(&cache), "nothing is lost");
        }
        play.end();
        drop(cache);
        assert_eq!(blocks.count(), 0);
    });
}

#[test]
fn counted_pointers_keep_the_promises() {
    property::check(200, (ops(), 1..8_u32, 2..20_usize), |(ops, bound, step)| {
        let (alloc, blocks) = below(step);
        let cache = FreeList::<Counted<Value>, _>::new(bound, alloc);
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
            assert_eq!(blocks.count(), play.live.len() + free(&cache), "nothing is lost");
        }
        play.end();
        drop(cache);
        assert_eq!(blocks.count(), 0);
    });
}

#[test]
fn a_family_by_length_keeps_its_promises() {
    property::check(200, (ops(), 1..4_u32, 2..20_usize), |(ops, bound, step)| {
        let (alloc, blocks) = below(step);
        let cache = KeyedFreeList::<u8, Value, _, 3>::new(bound, alloc);
        let mut play = Play::<CachedRun<'_, u8, Value, _, 3>>::new();
        // The other items of a run have numbers of their own.
        let mut others = 1_u64 << 32;
        for (op, len) in ops.into_iter().zip((1..=4).cycle()) {
            let ends = play.ends.clone();
            play.step(
                op,
                |value| {
                    cache.run(7, len, |index| {
                        others += 1;
                        if index == 0 { value() } else { ends.value(others) }
                    })
                },
                |pointer| &pointer[0],
                || _ = cache.clear(),
            );
            assert!(play.live.iter().all(|(_, run)| *run.header() == 7));
            assert_eq!(blocks.count(), play.live.len() + free(&cache), "nothing is lost");
        }
        play.end();
        drop(cache);
        assert_eq!(blocks.count(), 0);
    });
}

#[test]
fn a_block_cache_keeps_its_promises() {
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
            assert_eq!(objects, play.live.len() + free(&cache), "nothing is lost");
        }
        play.end();
        let _ = cache.compact();
        assert_eq!(blocks.count(), 0, "a block in which nothing lives is given down");
    });
}

#[test]
fn a_thread_cache_keeps_its_promises() {
    property::check(200, (ops(), 1..4_u32, 2..20_usize), |(ops, magazine, step)| {
        let (alloc, blocks) = below(step);
        let shared = SharedCache::<Value, _, 2>::new(magazine, alloc);
        // Two caches, in turn: an object may end in another than it was made in.
        let locals = [shared.thread(), shared.thread()];
        let mut play = Play::new();
        for (op, local) in ops.into_iter().zip(locals.iter().cycle()) {
            play.step(
                op,
                |value| Cached::make_in(value, local),
                |pointer| pointer,
                || _ = shared.clear(),
            );
            let kept = locals.iter().map(|local| free(local)).sum::<usize>();
            let in_depot = blocks.count() - play.live.len() - kept;
            assert!(in_depot <= free(&shared), "nothing is lost");
        }
        play.end();
        drop(locals);
        let _ = shared.clear();
        assert_eq!(blocks.count(), 0);
    });
}

/// A husk: a value with a buffer, one for each life.
struct Buffer {
    bytes: Vec<u8>,
    lives: Rc<Cell<usize>>,
}

thread_local! {
    static LIVES: Rc<Cell<usize>> = Rc::default();
}

impl Recycle for Buffer {
    fn fresh() -> Self {
        let lives = LIVES.with(Rc::clone);
        lives.set(lives.get() + 1);
        Self { bytes: Vec::new(), lives }
    }

    fn recycle(&mut self) {
        self.bytes.clear();
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.lives.set(self.lives.get() - 1);
    }
}

#[test]
fn husks_are_as_fresh_ones_and_none_is_lost() {
    property::check(200, (ops(), 1..8_u32, 2..20_usize), |(ops, bound, step)| {
        let (alloc, blocks) = below(step);
        let cache = HuskList::<Buffer, _>::new(bound, alloc);
        let mut live = Vec::new();
        for op in ops {
            match op {
                Op::Make | Op::MakeAndPanic => {
                    if let Some(mut buffer) = Cached::revive_in(&cache) {
                        assert!(buffer.bytes.is_empty());
                        buffer.bytes.extend_from_slice(&[1; 10]);
                        live.push(buffer);
                    }
                }
                Op::End(which) | Op::EndAndPanic(which) if !live.is_empty() => {
                    drop(live.swap_remove(which % live.len()));
                }
                Op::Clear => _ = cache.clear(),
                _ => {}
            }
            assert_eq!(blocks.count(), live.len() + free(&cache), "nothing is lost");
            assert_eq!(LIVES.with(|lives| lives.get()), blocks.count(), "a value in each");
        }
        drop(live);
        drop(cache);
        assert_eq!((blocks.count(), LIVES.with(|lives| lives.get())), (0, 0));
    });
}

/// Storage, by address, and the type that it serves.
#[derive(Default)]
struct Types(BTreeMap<usize, &'static str>);

impl Types {
    /// Takes storage of `cache` for `name`; it must not have served another type since it came
    /// from below.
    fn take<T>(&mut self, cache: &impl BareHome<T>, name: &'static str) -> Option<NonNull<T>> {
        let storage = cache.take()?;
        let before = self.0.insert(storage.addr().get(), name);
        assert!(before.is_none_or(|before| before == name), "{name} in the storage of {before:?}");
        Some(storage)
    }

    /// What went back below may serve any type.
    fn forget_what_went_down(&mut self, blocks: &LiveBlocks) {
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
                Op::End(which) | Op::EndAndPanic(which) => {
                    end(&floats, &mut live_floats, which);
                    end(&ints, &mut live_ints, which);
                }
                Op::Clear => _ = floats.clear(),
            }
            types.forget_what_went_down(&blocks);
        }
        live_floats.drain(..).for_each(|storage| put(&floats, storage));
        live_ints.drain(..).for_each(|storage| put(&ints, storage));
    });
}

fn end<T, A: MemAlloc>(cache: &FreeList<T, A>, live: &mut Vec<NonNull<T>>, which: usize) {
    if !live.is_empty() {
        put(cache, live.swap_remove(which % live.len()));
    }
}

fn put<T, A: MemAlloc>(cache: &FreeList<T, A>, storage: NonNull<T>) {
    // SAFETY: the storage came from this cache, once, and holds no value.
    unsafe { cache.put(storage) };
}
