//! Models of blocks above the small threshold: spans, and blocks in pools of several units.
//!
//! Loom runs a model in every possible interleaving of its threads, but detects data races only on
//! its own types. The headers of pools are plain memory, so the models in this module only assert
//! that other threads read the correct values from a header. To detect data races on headers,
//! `cargo xtask stress --under thread` runs the stress tests with ThreadSanitizer.
//!
//! A pool consists of units, and each unit has a header. Other threads read three fields of this
//! header, which the owner of the heap writes only while no block of the unit is in use. The unit's
//! size class and its link to the pool's first unit are written when the owner takes the pool from
//! the arena or puts it back. The offset of the first block is written when the unit is used for
//! the first time.

use obmalloc::{HeaderRule, RetainRule, Rules, Shape};

use super::*;

const MIB: usize = 1 << 20;

/// A geometry like `Wide` that has spans and pools of several units.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tall;

impl Geometry for Tall {
    const NAME: &'static str = "tall";
    const SIZES: Sizes = Sizes {
        alignment: 4 << 10,
        small_threshold: 32 << 10,
        linked_threshold: 32 << 10,
        arena_threshold: 256 * MIB,
        pool_size: 64 * MIB,
        ..Wide::SIZES
    };
    const RULES: Rules =
        Rules { headers: HeaderRule::InArena, retain: RetainRule::EachClass, ..Rules::CPYTHON };
}

type TallHeaps = Heaps<PartsOf<Tall>>;
type TallOwner = Owner<PartsOf<Tall>>;

const SMALL: usize = 4 << 10;

/// The block size of a pool of six units, in which the fourth block begins in an inner unit.
const MEDIUM: usize = 24 * MIB;

pub(super) const SPAN: usize = 40 * MIB;

fn class(size: usize) -> SizeClass<Tall> {
    SizeClass::of(size).unwrap()
}

fn free(owner: &mut TallOwner, block: BlockPtr) {
    // SAFETY: the block came from a heap of the same family, and is not used again.
    unsafe { owner.free(block) };
}

fn in_use(owner: &TallOwner) -> usize {
    owner.check_invariants();
    owner.stats().bytes.in_use
}

struct SentOwner(TallOwner);

// SAFETY: only one thread at a time uses the owner, and joining orders their accesses.
unsafe impl Send for SentOwner {}

/// Passes `owner` to a thread that works with it and then returns it.
///
/// The main thread frees blocks meanwhile. Only the main thread stores to an inbox, because loom
/// otherwise misses some interleavings.
fn work_in_a_thread(
    owner: TallOwner,
    work: impl FnOnce(&mut TallOwner) + Send + 'static,
) -> impl FnOnce() -> TallOwner {
    let sent = SentOwner(owner);
    let worker = thread::spawn(move || {
        let SentOwner(mut owner) = { sent };
        work(&mut owner);
        SentOwner(owner)
    });
    move || worker.join().unwrap().0
}

#[test]
#[cfg_attr(loom, ignore = "one thread, so there is nothing to explore")]
fn the_sizes_of_the_models_have_the_classes_that_they_are_meant_to_have() {
    assert!(class(SMALL).is_small() && class(SPAN).is_span());
    assert!(!class(MEDIUM).is_small() && !class(MEDIUM).is_span());
    assert_eq!((class(MEDIUM).units(), class(MEDIUM).block_size()), (6, MEDIUM));
}

/// An owner frees a span of another heap, and leaks its own heap without closing it.
fn a_span_is_freed_by_another_owner(free: fn(&mut TallOwner, BlockPtr)) {
    let (stage, log) = stage::<Tall>();
    let heaps = stage.heaps;
    let (mut owner, mut other) = (heaps.open().unwrap(), heaps.open().unwrap());
    let span = alloc_of(&mut owner, SPAN);
    let join = work_in_a_thread(owner, |owner| {
        let span = alloc_of(owner, SPAN);
        self::free(owner, span);
    });
    free(&mut other, span);
    mem::forget(other);
    let mut owner = join();
    owner.flush();
    assert_eq!(in_use(&owner), 0, "the span was sent at once");
    drop(owner);
    assert_eq!(log.mapped(), 0);
}

#[test]
fn the_owner_reclaims_a_span_that_another_thread_frees() {
    sync::model(|| a_span_is_freed_by_another_owner(free));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_span_that_waits_in_an_outbox_is_rejected() {
    sync::rejected(|| {
        a_span_is_freed_by_another_owner(|owner, span| {
            // SAFETY: the span belongs to another heap of the family, and is not used again.
            unsafe { owner.post(span) };
        });
    });
}

/// Another thread frees the last block in use of a pool. The block begins in an inner unit.
fn a_block_in_an_inner_unit_is_freed(free: fn(&TallHeaps, BlockPtr)) {
    let (stage, log) = stage::<Tall>();
    let heaps = stage.heaps;
    let mut owner = heaps.open().unwrap();
    // This block keeps the arena mapped.
    let last = alloc_of(&mut owner, SMALL);
    let blocks = [(); 4].map(|()| alloc_of(&mut owner, MEDIUM));
    let pool = blocks[0].start();
    let [first, second, third, inner] = blocks;
    assert_eq!(inner.start().addr().get() - pool.addr().get(), 3 * MEDIUM);
    [first, second, third].into_iter().for_each(|block| self::free(&mut owner, block));
    // The owner changes every other field of the headers.
    let join = work_in_a_thread(owner, |owner| {
        let others = [MEDIUM, SPAN, SMALL].map(|size| alloc_of(owner, size));
        others.into_iter().for_each(|block| self::free(owner, block));
        owner.flush();
    });
    assert_eq!(what_the_headers_say(inner.start()), (Some(class(MEDIUM)), pool.addr().get(), 0));
    free(heaps, inner);
    let mut owner = join();
    owner.flush();
    assert_eq!(in_use(&owner), SMALL);
    self::free(&mut owner, last);
    drop(owner);
    assert_eq!(log.mapped(), 0);
}

/// Returns the class of a block, the start of its pool, and the offset of the first block.
fn what_the_headers_say(block: NonNull<u8>) -> (Option<SizeClass<Tall>>, usize, usize) {
    // SAFETY: the block is in use, or its arena is still mapped and the model expects a panic.
    unsafe {
        (
            SizeClass::at(block),
            Shape::<Tall>::pool_at(block).addr().get(),
            Shape::<Tall>::first_block_at(block),
        )
    }
}

#[test]
fn the_headers_of_a_block_in_an_inner_unit_lead_to_its_pool_while_the_owner_works() {
    sync::model(|| a_block_in_an_inner_unit_is_freed(free_remote));
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn headers_that_are_read_after_the_block_was_sent_are_rejected() {
    sync::rejected(|| {
        a_block_in_an_inner_unit_is_freed(|heaps, block| {
            let start = block.start();
            let before = what_the_headers_say(start);
            free_remote(heaps, block);
            assert_eq!(what_the_headers_say(start), before);
        });
    });
}

/// The distance from the start of a span to the word that the owner writes, on a purged page.
const WORD: usize = 64 << 10;

/// Frees a span and takes over its inbox. The owner then reclaims the span and uses it again.
fn a_takeover_purges_a_span(take_over: fn(&'static ThreadHeap<PartsOf<Tall>>)) {
    let (stage, log) = stage::<Tall>();
    let heaps = stage.heaps;
    let mut owner = heaps.open().unwrap();
    // This block keeps the arena mapped.
    let last = alloc_of(&mut owner, SMALL);
    let (freed, heap) = (alloc_of(&mut owner, SPAN), owner.heap());
    let join = work_in_a_thread(owner, |owner| {
        // If the other span waits in the inbox, this request reclaims it and takes it.
        let span = alloc_of(owner, SPAN);
        // SAFETY: the word lies in the block.
        let word = unsafe { span.start().add(WORD) }.cast::<u64>();
        for round in 1..3 {
            // SAFETY: as above.
            unsafe { word.write(round) };
            owner.flush();
            // SAFETY: as above.
            assert_eq!(unsafe { word.read() }, round, "a block in use was purged");
        }
        free(owner, span);
    });
    free_remote(heaps, freed);
    take_over(heap);
    let mut owner = join();
    free(&mut owner, last);
    drop(owner);
    assert_eq!(log.mapped(), 0);
}

#[test]
fn a_takeover_that_purges_a_span_meets_its_owner() {
    sync::model(|| {
        a_takeover_purges_a_span(|heap| {
            heap.heaps.take_over_inboxes(|_| true);
        });
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_span_that_is_purged_after_it_was_pushed_back_is_rejected() {
    sync::rejected(|| {
        a_takeover_purges_a_span(|heap| {
            for node in heap.inbox.take_over().into_iter().flatten() {
                // SAFETY: we own the node, and give it up.
                let nodes = unsafe { Segment::of(node) };
                if heap.deliver(nodes) {
                    // SAFETY: wrong on purpose, because the owner may use the block again.
                    let _ = unsafe { heap.heaps.shared.lock().source.purge(node.cast(), SPAN) };
                }
            }
        });
    });
}

#[test]
fn the_adoption_of_a_heap_with_a_span_meets_the_remote_free_of_the_span() {
    sync::model(|| {
        an_opening_meets_the_last_remote_free::<Tall>(SPAN, |heaps| heaps.open().unwrap());
    });
}

#[test]
fn the_adoption_of_a_heap_with_a_medium_pool_meets_the_last_remote_free() {
    sync::model(|| {
        an_opening_meets_the_last_remote_free::<Tall>(MEDIUM, |heaps| heaps.open().unwrap());
    });
}

#[test]
#[cfg_attr(not(loom), ignore = "only loom can reject")]
fn a_heap_with_a_span_that_is_adopted_in_two_steps_is_rejected() {
    sync::rejected(|| an_opening_meets_the_last_remote_free::<Tall>(SPAN, adopt_in_two_steps));
}
