//! Models of whole heaps, in which threads open and close heaps while others free blocks.

use std::{
    mem,
    ptr::{self, NonNull},
};

use obmalloc::{BlockPtr, Geometry, SizeClass, Sizes};
use raw_mem::{ArenaSize, ArenaSource, Malloc, MapError, MemAlloc, MmapArenas};
use sync::{link::Segment, thread};
use testkit::{
    failing::{FailingArenas, Faults},
    place::ArenaLog,
};

use super::{Heaps, ThreadHeap, owner::Owner};
use crate::{freed::batch::Batch, shared_arenas::SharedArenas};

mod above_small;
mod figures;

/// A geometry with very large arenas, so that loom creates few entries of the arena map.
#[derive(Clone, Copy, Debug, Default)]
struct Wide;

impl Geometry for Wide {
    const NAME: &'static str = "wide";
    const SIZES: Sizes = Sizes { pool_size: 1 << 24, arena_size: 1 << 32, ..obmalloc::Tiny::SIZES };
}

const ARENA: ArenaSize = obmalloc::Shape::<Wide>::ARENA;

type PartsOf<G> = (FailingArenas<MmapArenas>, Malloc, G);
type Parts = PartsOf<Wide>;
type OneArenaParts = (OneArena, Malloc, Wide);

/// A source with one arena, whose memory is never accessed.
struct OneArena(Option<NonNull<u8>>);

// SAFETY: the models do not access the arena.
unsafe impl Send for OneArena {}

// SAFETY: `map` returns the arena again only after `unmap`, and the models never access it.
unsafe impl ArenaSource for OneArena {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        self.0.take().ok_or(MapError::Exhausted { size })
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, _size: ArenaSize) {
        self.0 = Some(arena);
    }
}

struct Stage<P: crate::Parts> {
    /// # Invariant
    ///
    /// The heaps came from a `Box`. The stage frees them after all threads have ended.
    heaps: &'static Heaps<P>,
}

impl<P: crate::Parts<Lower = Malloc>> Stage<P> {
    fn new(source: P::Source) -> Self {
        Self { heaps: Box::leak(Box::new(Heaps::new(source, Malloc))) }
    }
}

impl<P: crate::Parts> Drop for Stage<P> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let heaps: Vec<_> = self.heaps.list.iter().map(NonNull::from).collect();
        for heap in heaps {
            // SAFETY: all threads have ended, and the list is not walked again.
            unsafe { heap.drop_in_place() };
            // SAFETY: `Heaps` created the heap in a block of this allocator.
            unsafe { self.heaps.shared.lower().free(Some(heap.cast())) };
        }
        // SAFETY: the heaps were allocated by a `Box` (invariant of `heaps`).
        let mut heaps = unsafe { Box::from_raw(ptr::from_ref(self.heaps).cast_mut()) };
        let (map, lower) = heaps.shared.map_mut();
        // SAFETY: the nodes of the map came from `lower`, and no heap uses them any more.
        unsafe { map.release(lower) };
    }
}

fn stage<G: Geometry>() -> (Stage<PartsOf<G>>, ArenaLog) {
    let log = ArenaLog::default();
    let source = FailingArenas::new(MmapArenas::new(), Faults::default(), log.clone());
    (Stage::new(source), log)
}

fn alloc(heap: &mut Owner<Parts>) -> BlockPtr {
    alloc_of(heap, 64)
}

fn alloc_of<G: Geometry>(heap: &mut Owner<PartsOf<G>>, size: usize) -> BlockPtr {
    heap.alloc(SizeClass::of(size).unwrap()).expect("there is memory")
}

fn free_remote<G: Geometry>(heaps: &Heaps<PartsOf<G>>, block: BlockPtr) {
    // SAFETY: the block came from these heaps, and is not used again.
    unsafe { heaps.free_remote(block) };
}

struct Sent(BlockPtr);

// SAFETY: a block belongs to whoever holds it, and may be held by any thread.
unsafe impl Send for Sent {}

fn free_in_a_thread<G: Geometry>(
    heaps: &'static Heaps<PartsOf<G>>,
    block: BlockPtr,
) -> thread::JoinHandle<()> {
    let sent = Sent(block);
    thread::spawn(move || {
        let Sent(block) = { sent };
        free_remote(heaps, block);
    })
}

fn two_threads_begin(open: fn(&'static Heaps<Parts>) -> Owner<Parts>) {
    let (stage, log) = stage::<Wide>();
    let heaps = stage.heaps;
    let use_one = move || {
        let mut owner = open(heaps);
        let block = alloc(&mut owner);
        // SAFETY: the block came from this heap, and is not used again.
        unsafe { owner.free(block) };
        let address = ptr::from_ref(owner.heap()).addr();
        // The thread ends without closing its heap.
        mem::forget(owner);
        address
    };
    let other = thread::spawn(use_one);
    let mine = use_one();
    assert_ne!(other.join().unwrap(), mine);
    for heap in heaps.list.iter() {
        // SAFETY: the owner of the heap has ended without closing the heap.
        drop(unsafe { Owner::new(heap) });
    }
    assert_eq!(log.mapped(), 0);
}

#[test]
fn the_first_uses_of_two_threads_open_two_heaps() {
    sync::model(|| two_threads_begin(|heaps| heaps.open().unwrap()));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_heap_that_is_found_and_not_adopted_is_rejected() {
    sync::rejected(|| {
        two_threads_begin(|heaps| {
            // SAFETY: wrong on purpose, because the heap may have an owner.
            let found = heaps.list.iter().next().map(|heap| unsafe { Owner::new(heap) });
            found.unwrap_or_else(|| heaps.open().unwrap())
        });
    });
}

type Open<G> = fn(&'static Heaps<PartsOf<G>>) -> Owner<PartsOf<G>>;

fn an_opening_meets_the_last_remote_free<G: Geometry>(size: usize, open: Open<G>) {
    let (stage, log) = stage::<G>();
    let heaps = stage.heaps;
    // The heap is abandoned while the block is in use.
    let block = alloc_of(&mut heaps.open().unwrap(), size);
    let freer = free_in_a_thread(heaps, block);
    let mut owner = open(heaps);
    let block = alloc_of(&mut owner, size);
    // SAFETY: the block came from this heap, and is not used again.
    unsafe { owner.free(block) };
    drop(owner);
    freer.join().unwrap();
    assert_eq!(log.mapped(), 0);
    let count = heaps.list.iter().count();
    let owners: Vec<_> = (0..count).map(|_| heaps.open().unwrap()).collect();
    assert_eq!(heaps.list.iter().count(), count, "an abandoned heap was not found");
    drop(owners);
}

fn adopt_in_two_steps<G: Geometry>(heaps: &'static Heaps<PartsOf<G>>) -> Owner<PartsOf<G>> {
    let adopted = heaps.list.iter().find(|heap| heap.inbox.adopt_in_two_steps());
    // SAFETY: wrong on purpose, because another thread may have adopted the heap as well.
    let adopted = adopted.map(|heap| unsafe { Owner::new(heap) });
    adopted.unwrap_or_else(|| heaps.open().unwrap())
}

#[test]
fn an_adoption_meets_the_last_remote_free() {
    sync::model(|| {
        an_opening_meets_the_last_remote_free::<Wide>(64, |heaps| heaps.open().unwrap());
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_heap_that_is_missing_from_the_stack_is_rejected() {
    sync::rejected(|| {
        an_opening_meets_the_last_remote_free::<Wide>(64, |heaps| {
            let Some(heap) = heaps.abandoned.pop(|| heaps.shared.lock()) else {
                return heaps.open().unwrap();
            };
            let adopted = Owner::adopt(heap);
            // Wrong on purpose, because a thread that owned the heap may have stacked it again.
            while heaps.abandoned.pop(|| ()).is_some() {}
            adopted.unwrap_or_else(|| heaps.open().unwrap())
        });
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_heap_adopted_in_two_steps_is_rejected() {
    sync::rejected(|| an_opening_meets_the_last_remote_free::<Wide>(64, adopt_in_two_steps));
}

fn a_close_meets_the_last_remote_free(close: fn(Owner<Parts>)) {
    let (stage, log) = stage::<Wide>();
    let mut owner = stage.heaps.open().unwrap();
    let freer = free_in_a_thread(stage.heaps, alloc(&mut owner));
    close(owner);
    freer.join().unwrap();
    assert_eq!(log.mapped(), 0);
}

#[test]
fn whoever_comes_last_unmaps_the_last_arena() {
    sync::model(|| a_close_meets_the_last_remote_free(drop));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_close_without_a_second_look_is_rejected() {
    sync::rejected(|| {
        a_close_meets_the_last_remote_free(|mut owner| {
            owner.flush();
            let heap = owner.heap();
            mem::forget(owner);
            let _ = heap.inbox.abandon();
        });
    });
}

type PushBack = fn(&'static ThreadHeap<Parts>, Segment<Batch>);

fn a_close_meets_a_takeover(push_back: PushBack) {
    let (stage, log) = stage::<Wide>();
    let heaps = stage.heaps;
    let mut owner = heaps.open().unwrap();
    free_remote(heaps, alloc(&mut owner));
    let heap = owner.heap();
    let taker = thread::spawn(move || {
        if let Some(nodes) = heap.inbox.take_over() {
            for node in nodes {
                // SAFETY: we own the node, and give it up.
                push_back(heap, unsafe { Segment::of(node) });
            }
        }
    });
    drop(owner);
    taker.join().unwrap();
    assert_eq!(log.mapped(), 0);
}

#[test]
fn a_takeover_unmaps_the_last_arena_if_the_owner_has_gone() {
    sync::model(|| {
        a_close_meets_a_takeover(|heap, nodes| {
            heap.deliver(nodes);
        });
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_takeover_that_does_not_become_the_owner_is_rejected() {
    sync::rejected(|| a_close_meets_a_takeover(|heap, nodes| drop(heap.inbox.push(nodes))));
}

#[test]
fn two_flushes_and_a_remote_free_meet() {
    sync::model(|| {
        let (stage, log) = stage::<Wide>();
        let heaps = stage.heaps;
        let (mut idle, mut mine) = (heaps.open().unwrap(), heaps.open().unwrap());
        let sent = Sent(alloc(&mut idle));
        let freer = thread::spawn(move || {
            let Sent(block) = { sent };
            free_remote(heaps, block);
            heaps.take_over_inboxes(|_| true);
        });
        mine.flush();
        freer.join().unwrap();
        drop((idle, mine));
        assert_eq!(log.mapped(), 0);
    });
}

fn an_arena_is_mapped_while_one_is_unmapped(unmap: fn(&'static Heaps<OneArenaParts>, NonNull<u8>)) {
    let base = NonNull::new(ptr::without_provenance_mut(ARENA.bytes())).unwrap();
    let stage = Stage::<OneArenaParts>::new(OneArena(Some(base)));
    let heaps = stage.heaps;
    let arena = SharedArenas::of(&heaps.shared).map(ARENA).unwrap();
    let mapper = thread::spawn(move || {
        if let Ok(arena) = SharedArenas::of(&heaps.shared).map(ARENA) {
            assert!(heaps.holds(arena.addr().get()), "the arena is in the map");
        }
    });
    unmap(heaps, arena);
    mapper.join().unwrap();
}

#[test]
fn an_arena_that_is_mapped_again_is_in_the_map() {
    sync::model(|| {
        an_arena_is_mapped_while_one_is_unmapped(|heaps, arena| {
            // SAFETY: the arena was mapped at this address, and nothing uses it.
            unsafe { SharedArenas::of(&heaps.shared).unmap(arena, ARENA) };
        });
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn an_arena_retracted_after_it_was_unmapped_is_rejected() {
    sync::rejected(|| {
        an_arena_is_mapped_while_one_is_unmapped(|heaps, arena| {
            // SAFETY: the arena was mapped at this address, and nothing uses it.
            unsafe { heaps.shared.lock().source.unmap(arena, ARENA) };
            // SAFETY: as above.
            unsafe { heaps.shared.map().retract(arena.addr().get()) };
        });
    });
}
