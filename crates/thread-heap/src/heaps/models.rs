//! Models of whole heaps: opened, closed, and freed into from elsewhere, as threads do it.

use std::ptr::{self, NonNull};

use obmalloc::{BlockPtr, Geometry, SizeClass};
use raw_mem::{ArenaSize, ArenaSource, Malloc, MapError, MemAlloc, MmapArenas};
use sync::thread;
use testkit::{
    failing::{FailingArenas, Faults},
    place::ArenaLog,
};

use super::Heaps;
use crate::{
    carrier::Carrier,
    link::Chain,
    shared_arenas::SharedArenas,
    thread_heap::{ThreadHeap, deliver},
};

/// Arenas so large that their map is small: loom makes an object of each entry.
#[derive(Clone, Copy, Debug, Default)]
struct Wide;

impl Geometry for Wide {
    const NAME: &'static str = "wide";
    const ALIGNMENT: usize = 16;
    const SMALL_THRESHOLD: usize = 64;
    const POOL_SIZE: usize = 1 << 24;
    const ARENA_SIZE: usize = 1 << 32;
}

const ARENA: ArenaSize = obmalloc::Shape::<Wide>::ARENA;

type Parts = (FailingArenas<MmapArenas>, Malloc, Wide);
type OneArenaParts = (OneArena, Malloc, Wide);

/// A source of a single arena, which is never touched.
struct OneArena(Option<NonNull<u8>>);

// SAFETY: the arena is no memory, and nobody owns it.
unsafe impl Send for OneArena {}

// SAFETY: the arena is handed out to one at a time; the models do not touch it.
unsafe impl ArenaSource for OneArena {
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        self.0.take().ok_or(MapError::Exhausted { size })
    }

    unsafe fn unmap(&mut self, arena: NonNull<u8>, _size: ArenaSize) {
        self.0 = Some(arena);
    }
}

/// Heaps that end with the model.
struct Stage<P: crate::Parts> {
    /// # Invariant
    ///
    /// Boxed; the stage frees it when the threads are gone.
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
        let heaps: Vec<_> = self.heaps.registry.iter().map(NonNull::from).collect();
        for heap in heaps {
            // SAFETY: no thread is left, and the registry is not walked again.
            unsafe { heap.drop_in_place() };
            // SAFETY: it was made of such a block.
            unsafe { self.heaps.lower.free(Some(heap.cast())) };
        }
        // SAFETY: the invariant.
        let mut heaps = unsafe { Box::from_raw(ptr::from_ref(self.heaps).cast_mut()) };
        let Heaps { map, lower, .. } = &mut *heaps;
        // SAFETY: the map's nodes came from `lower`, and the heaps are gone.
        unsafe { map.release(lower) };
    }
}

fn stage() -> (Stage<Parts>, ArenaLog) {
    let log = ArenaLog::default();
    let source = FailingArenas::new(MmapArenas::new(), Faults::default(), log.clone());
    (Stage::new(source), log)
}

/// A block of the heap that the caller owns.
fn alloc(heap: &ThreadHeap<Parts>) -> BlockPtr {
    // SAFETY: the caller opened the heap.
    unsafe { heap.alloc(SizeClass::of(64).unwrap()) }.expect("there is memory")
}

/// Leaves a heap with a block in use that nobody owns, and returns the block.
fn abandoned_with_a_block(heaps: &'static Heaps<Parts>) -> BlockPtr {
    let heap = heaps.open().unwrap();
    let block = alloc(heap);
    // SAFETY: it was opened above.
    unsafe { heaps.close(heap) };
    block
}

/// Sends a block to another thread.
struct Sent(BlockPtr);

// SAFETY: the block is the holder's alone.
unsafe impl Send for Sent {}

/// Two threads need a heap for the first time, and have it by `open`.
fn two_threads_begin(open: fn(&'static Heaps<Parts>) -> &'static ThreadHeap<Parts>) {
    let (stage, log) = stage();
    let heaps = stage.heaps;
    let use_one = move || {
        let heap = open(heaps);
        let block = alloc(heap);
        // SAFETY: the heap was opened here, and the block is its own.
        unsafe { heap.free(block) };
        ptr::from_ref(heap).addr()
    };
    let other = thread::spawn(use_one);
    let mine = use_one();
    assert_ne!(other.join().unwrap(), mine);
    for heap in heaps.registry.iter() {
        // SAFETY: its owner has gone without closing it.
        unsafe { heaps.close(heap) };
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
            let found = heaps.registry.iter().next();
            found.unwrap_or_else(|| heaps.open().unwrap())
        });
    });
}

/// A thread has a heap by `open`, while the last block of an abandoned one is freed elsewhere.
fn an_opening_meets_the_last_remote_free(
    open: fn(&'static Heaps<Parts>) -> &'static ThreadHeap<Parts>,
) {
    let (stage, log) = stage();
    let heaps = stage.heaps;
    let sent = Sent(abandoned_with_a_block(heaps));
    let freer = thread::spawn(move || {
        let Sent(block) = { sent };
        // SAFETY: the block is of these heaps, none of which this thread owns.
        unsafe { heaps.free_remote(block) };
    });
    let heap = open(heaps);
    let block = alloc(heap);
    // SAFETY: the heap was opened here, and the block is its own.
    unsafe { heap.free(block) };
    // SAFETY: as above.
    unsafe { heaps.close(heap) };
    freer.join().unwrap();
    assert_eq!(log.mapped(), 0);
}

#[test]
fn an_adoption_meets_the_last_remote_free() {
    sync::model(|| an_opening_meets_the_last_remote_free(|heaps| heaps.open().unwrap()));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_heap_adopted_in_two_steps_is_rejected() {
    sync::rejected(|| {
        an_opening_meets_the_last_remote_free(|heaps| {
            let mut heaps_of_nobody = heaps.registry.iter();
            let adopted = heaps_of_nobody.find(|heap| heap.inbox.adopt_in_two_steps());
            adopted.unwrap_or_else(|| heaps.open().unwrap())
        });
    });
}

/// The owner closes its heap, by `close`, while its last block is freed elsewhere.
fn a_close_meets_the_last_remote_free(close: fn(&Heaps<Parts>, &ThreadHeap<Parts>)) {
    let (stage, log) = stage();
    let heaps = stage.heaps;
    let heap = heaps.open().unwrap();
    let sent = Sent(alloc(heap));
    let freer = thread::spawn(move || {
        let Sent(block) = { sent };
        // SAFETY: the block is of these heaps, none of which this thread owns.
        unsafe { heaps.free_remote(block) };
    });
    close(heaps, heap);
    freer.join().unwrap();
    assert_eq!(log.mapped(), 0);
}

#[test]
fn whoever_comes_last_gives_the_last_arena_back() {
    sync::model(|| {
        // SAFETY: the model has opened the heap.
        a_close_meets_the_last_remote_free(|heaps, heap| unsafe { heaps.close(heap) });
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_close_without_a_second_look_is_rejected() {
    sync::rejected(|| {
        a_close_meets_the_last_remote_free(|_, heap| {
            // SAFETY: the model has opened the heap.
            unsafe { heap.flush() };
            let _ = heap.inbox.abandon();
        });
    });
}

/// The owner closes its heap while another thread takes over its inbox, which holds the last block,
/// and pushes it back by `push_back`.
fn a_close_meets_a_takeover(push_back: fn(&ThreadHeap<Parts>, Chain<Carrier>)) {
    let (stage, log) = stage();
    let heaps = stage.heaps;
    let heap = heaps.open().unwrap();
    let block = alloc(heap);
    // SAFETY: the block is of these heaps. This thread frees it as one would that owns none.
    unsafe { heaps.free_remote(block) };
    let taker = thread::spawn(move || {
        if let Some(nodes) = heap.inbox.take_over() {
            for node in nodes {
                // SAFETY: the node is ours, and given to the chain.
                push_back(heap, unsafe { Chain::of(node) });
            }
        }
    });
    // SAFETY: the model has opened the heap.
    unsafe { heaps.close(heap) };
    taker.join().unwrap();
    assert_eq!(log.mapped(), 0);
}

#[test]
fn a_takeover_gives_the_last_arena_back_if_the_owner_has_gone() {
    sync::model(|| {
        a_close_meets_a_takeover(|heap, chain| {
            deliver(heap, chain);
        });
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_takeover_that_does_not_become_the_owner_is_rejected() {
    sync::rejected(|| a_close_meets_a_takeover(|heap, chain| drop(heap.inbox.push(chain))));
}

#[test]
fn two_flushes_and_a_remote_free_meet() {
    sync::model(|| {
        let (stage, log) = stage();
        let heaps = stage.heaps;
        let (idle, mine) = (heaps.open().unwrap(), heaps.open().unwrap());
        let sent = Sent(alloc(idle));
        let freer = thread::spawn(move || {
            let Sent(block) = { sent };
            // SAFETY: the block is of these heaps, none of which this thread owns.
            unsafe { heaps.free_remote(block) };
            heaps.take_over_inboxes(0);
        });
        // SAFETY: the model has opened the heap.
        unsafe { mine.flush() };
        freer.join().unwrap();
        for heap in [idle, mine] {
            // SAFETY: the model has opened both.
            unsafe { heaps.close(heap) };
        }
        assert_eq!(log.mapped(), 0);
    });
}

/// An arena goes back, by `give_back`, while another thread maps, which may get the same.
fn an_arena_is_mapped_while_it_goes_back(
    give_back: fn(&'static Heaps<OneArenaParts>, NonNull<u8>),
) {
    let base = NonNull::new(ptr::without_provenance_mut(ARENA.bytes())).unwrap();
    let stage = Stage::<OneArenaParts>::new(OneArena(Some(base)));
    let heaps = stage.heaps;
    let arena = SharedArenas::of(heaps).map(ARENA).unwrap();
    let mapper = thread::spawn(move || {
        if let Ok(arena) = SharedArenas::of(heaps).map(ARENA) {
            assert!(heaps.holds(arena.addr().get()), "the arena is ours");
        }
    });
    give_back(heaps, arena);
    mapper.join().unwrap();
}

#[test]
fn an_arena_that_is_mapped_again_is_ours() {
    sync::model(|| {
        an_arena_is_mapped_while_it_goes_back(|heaps, arena| {
            // SAFETY: it came from there, and nobody uses it.
            unsafe { SharedArenas::of(heaps).unmap(arena, ARENA) };
        });
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn an_arena_struck_out_after_it_went_back_is_rejected() {
    sync::rejected(|| {
        an_arena_is_mapped_while_it_goes_back(|heaps, arena| {
            // SAFETY: it came from there, and nobody uses it.
            unsafe { heaps.source().unmap(arena, ARENA) };
            // SAFETY: as above.
            unsafe { heaps.map().retract(arena.addr().get()) };
        });
    });
}
