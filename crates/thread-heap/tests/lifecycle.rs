//! The life of a heap: opened, abandoned, adopted, owned for a moment, and short of memory.

#![cfg(not(loom))]

#[path = "common/block.rs"]
mod block;
#[path = "common/team.rs"]
mod team;

use std::{
    ptr::{self, NonNull},
    thread,
    time::Duration,
};

use obmalloc::{BlockPtr, SizeClass};
use raw_mem::{Malloc, MemAlloc, MmapArenas, RetainingArenas};
use testkit::{
    failing::{FailingAlloc, FailingArenas, Faults, Plan},
    place::ArenaLog,
};
use thread_heap::{Heaps, ThreadGeometry, ThreadHeap};

use crate::{
    block::{Block, Slot},
    team::{ByHand, Holder, Member, OfTheProcess, Team},
};

fn class(size: usize) -> SizeClass<ThreadGeometry> {
    SizeClass::of(size).expect("it is small")
}

/// Blocks of all sizes, a little more than fit `arenas`.
fn fill(member: &impl Member, arenas: usize) -> Vec<Block> {
    fill_with(member, 0..arenas << 12)
}

/// Blocks of these numbers; each has a size of its number.
fn fill_with(member: &impl Member, numbers: impl Iterator<Item = usize>) -> Vec<Block> {
    let sizes = numbers.map(|number| 1 + number % 512);
    sizes.map(|size| Block::fill(member.alloc(class(size)), class(size), size as u64)).collect()
}

/// What a thread leaves that joined, did `body`, and ended.
fn left_by<T, R>(team: T, body: impl FnOnce(&T::Member) -> R + Send + 'static) -> R
where
    T: Team,
    R: Send + 'static,
{
    thread::spawn(move || body(&team.join())).join().expect("the thread ends well")
}

fn check(holder: &Holder) -> usize {
    // SAFETY: the holder is the owner.
    unsafe { holder.heap.check_invariants() };
    // SAFETY: as above.
    unsafe { holder.heap.stats() }.classes().iter().map(|class| class.in_use).sum()
}

#[test]
fn an_owner_that_sends_blocks_of_others_takes_its_own_home() {
    let team = ByHand::new();
    let (mine, other) = (team.join(), team.join());
    let (own, of_other) = (fill(&mine, 1), fill_with(&other, 0..100));
    free_remote(team, own);
    assert!(check(&mine) > 1000, "they wait in the inbox");
    for block in of_other {
        // SAFETY: the block is of this team.
        unsafe { mine.free(block.check()) };
    }
    assert_eq!(check(&mine), 0);
    drop((mine, other));
    team.nothing_is_left();
}

/// Frees blocks as a thread does that has no heap.
fn free_remote(team: ByHand, blocks: impl IntoIterator<Item = Block>) {
    for block in blocks {
        // SAFETY: the block is of this team; this thread owns none of its heaps.
        unsafe { team.heaps.free_remote(block.check()) };
    }
}

#[test]
fn a_heap_that_nobody_adopts_gives_its_arenas_back_on_the_last_remote_free() {
    let team = ByHand::new();
    let mut blocks = left_by(team, |member| fill(member, 3));
    assert!(team.arenas.mapped() >= 3);
    let last = blocks.pop();
    free_remote(team, blocks);
    assert_eq!(team.arenas.mapped(), 1);
    free_remote(team, last);
    team.nothing_is_left();
}

#[test]
fn a_heap_that_is_abandoned_empty_gives_its_arenas_back_at_once() {
    let team = ByHand::new();
    left_by(team, |member| {
        // SAFETY: the blocks are the member's own.
        fill(member, 2).into_iter().for_each(|block| unsafe { member.free(block.check()) });
    });
    team.nothing_is_left();
}

#[test]
fn a_starting_thread_adopts_an_abandoned_heap_and_the_rules_hold() {
    let team = ByHand::new();
    let (before, mut blocks) =
        left_by(team, |member| (ptr::from_ref(member.heap).addr(), fill(member, 2)));
    free_remote(team, blocks.drain(1000..3000));
    left_by(team, move |member| {
        assert_eq!(ptr::from_ref(member.heap).addr(), before, "another heap was opened");
        assert_eq!(check(member), blocks.len());
        let more = fill(member, 2);
        assert_eq!(check(member), blocks.len() + more.len());
        for block in blocks.into_iter().chain(more) {
            // SAFETY: the blocks are of the member's heap.
            unsafe { member.free(block.check()) };
        }
        assert_eq!(check(member), 0);
    });
    team.nothing_is_left();
}

#[test]
fn a_heap_that_is_owned_is_not_adopted() {
    let team = ByHand::new();
    let (one, other) = (team.join(), team.join());
    assert!(!ptr::eq(one.heap, other.heap));
    drop(one);
    let third = team.join();
    assert!(!ptr::eq(third.heap, other.heap));
}

#[test]
fn blocks_that_others_freed_serve_the_next_requests_of_their_owner() {
    let team = ByHand::new();
    let owner = team.join();
    // The smaller half of the sizes leaves, so no arena can go.
    let (freed, kept): (Vec<_>, Vec<_>) =
        fill(&owner, 4).into_iter().enumerate().partition(|(nth, _)| nth / 256 % 2 == 0);
    let arenas = team.arenas.ever();
    left_by(team, move |member| {
        // SAFETY: the blocks are of this team.
        freed.into_iter().for_each(|(_, block)| unsafe { member.free(block.check()) });
    });
    // As many of the classes that left.
    let again = fill_with(&owner, (0..4 << 12).filter(|nth| nth / 256 % 2 == 0));
    assert_eq!(team.arenas.ever(), arenas, "new arenas were mapped");
    let kept = kept.into_iter().map(|(_, block)| block);
    // SAFETY: the blocks are the owner's.
    again.into_iter().chain(kept).for_each(|block| unsafe { owner.free(block.check()) });
    assert_eq!(check(&owner), 0);
}

#[test]
fn blocks_that_wait_in_an_outbox_are_sent_when_their_thread_ends() {
    let team = ByHand::new();
    let owner = team.join();
    let block = Block::fill(owner.alloc(class(100)), class(100), 1);
    left_by(team, |member| {
        // SAFETY: the block is of this team.
        unsafe { member.free(block.check()) };
        assert_eq!(check(member), 0);
    });
    assert_eq!(check(&owner), 1, "it is on its way");
    // SAFETY: the owner's own heap.
    unsafe { owner.heap.flush() };
    assert_eq!(check(&owner), 0);
    team.nothing_is_left();
}

#[test]
fn a_flush_sends_what_waits() {
    let team = ByHand::new();
    let block = left_by(team, |member| Block::fill(member.alloc(class(100)), class(100), 1));
    let other = team.heaps.open().expect("the abandoned heap");
    let freer = team.join();
    // SAFETY: the block is of this team.
    unsafe { freer.free(block.check()) };
    assert_eq!(team.arenas.mapped(), 1);
    // SAFETY: each heap is closed or flushed by this thread, which opened both.
    unsafe {
        freer.heap.flush();
        team.heaps.close(other);
    }
    team.nothing_is_left();
}

#[test]
fn the_figures_of_all_heaps_leave_out_those_that_another_thread_owns() {
    let team = ByHand::new();
    let ended = left_by(team, |member| Block::fill(member.alloc(class(40)), class(40), 1));
    let (mine, other) = (team.heaps.open().expect("the abandoned heap"), team.join());
    let held = other.alloc(class(100));
    // SAFETY: this thread opened the heap.
    let stats = unsafe { team.heaps.stats(Some(mine)) };
    assert_eq!((stats.walked, stats.elsewhere), (1, 1));
    assert_eq!(stats.total.bytes.in_use, 48);
    // SAFETY: this thread opened both heaps; the blocks are of this team.
    unsafe {
        team.heaps.close(mine);
        other.free(held);
    }
    drop(other);
    // SAFETY: no heap is said to be owned.
    let stats = unsafe { team.heaps.stats(None) };
    assert_eq!((stats.walked, stats.elsewhere), (2, 0));
    assert_eq!((stats.total.bytes.in_use, stats.total.arenas.allocated), (48, 2));
    free_remote(team, [ended]);
    team.nothing_is_left();
}

#[test]
fn a_thread_without_a_heap_frees_what_another_allocated() {
    let slot = Slot::default();
    thread::scope(|scope| {
        let maker = scope.spawn(|| {
            let member = OfTheProcess.join();
            slot.swap(Some(Block::fill(member.alloc(class(40)), class(40), 7)));
        });
        maker.join().expect("there is memory");
        scope.spawn(|| {
            let block = slot.swap(None).expect("it was put there");
            // SAFETY: the block is the process's.
            unsafe { OfTheProcess.join().free(block.check()) };
        });
    });
}

/// Heaps without memory where `faults` say so.
type FaultyParts = (FailingArenas<MmapArenas>, FailingAlloc<Malloc>, ThreadGeometry);

struct Faulty {
    heaps: &'static Heaps<FaultyParts>,
    arena_faults: Faults,
    lower_faults: Faults,
    arenas: ArenaLog,
}

impl Faulty {
    fn new() -> Self {
        let (arena_faults, lower_faults) = (Faults::default(), Faults::default());
        let arenas = ArenaLog::default();
        let source = FailingArenas::new(MmapArenas::new(), arena_faults.clone(), arenas.clone());
        let lower = FailingAlloc::new(Malloc, lower_faults.clone());
        let heaps = Box::leak(Box::new(Heaps::new(source, lower)));
        Self { heaps, arena_faults, lower_faults, arenas }
    }
}

fn alloc(heap: &ThreadHeap<FaultyParts>) -> Option<BlockPtr> {
    // SAFETY: the tests below are one thread each, which opened the heap.
    unsafe { heap.alloc(class(64)) }
}

#[test]
fn without_memory_for_its_record_no_heap_is_opened() {
    let faulty = Faulty::new();
    faulty.lower_faults.restart(Plan::Nth(1));
    assert!(faulty.heaps.open().is_none());
    assert!(faulty.heaps.open().is_some());
}

/// A layer below whose handle needs more alignment than its blocks have.
#[derive(Clone, Copy)]
#[repr(align(4096))]
struct OverAligned;

// SAFETY: every promise is malloc's.
unsafe impl MemAlloc for OverAligned {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        Malloc.malloc(size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        Malloc.calloc(count, size)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise.
        unsafe { Malloc.realloc(ptr, size) }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the caller's promise.
        unsafe { Malloc.free(ptr) }
    }
}

#[test]
fn a_heap_is_never_made_in_memory_that_is_not_aligned_for_it() {
    static HEAPS: Heaps<(MmapArenas, OverAligned, ThreadGeometry)> =
        Heaps::new(MmapArenas::new(), OverAligned);
    for _ in 0..20 {
        if let Some(heap) = HEAPS.open() {
            let place = std::hint::black_box(ptr::from_ref(heap));
            assert!(place.is_aligned());
        }
    }
}

/// mutants 7 and 8: the source counted arenas as retained that had been given back.
#[test]
fn flushed_heaps_retain_no_arena() {
    static HEAPS: Heaps<(RetainingArenas<MmapArenas>, Malloc, ThreadGeometry)> = Heaps::new(
        RetainingArenas::with_decay(MmapArenas::new(), Duration::from_secs(3600)),
        Malloc,
    );
    let heap = HEAPS.open().expect("there is memory");
    let mut most = 0;
    for count in [1000, 10_000] {
        // SAFETY: this thread opened the heap.
        let alloc = || unsafe { heap.alloc(class(512)) }.expect("there is memory");
        let blocks: Vec<_> = (0..count).map(|_| alloc()).collect();
        // SAFETY: as above; the blocks are the heap's.
        blocks.into_iter().for_each(|block| unsafe { heap.free(block) });
        most = most.max(HEAPS.close_source().retained());
        // SAFETY: as above.
        unsafe { heap.flush() };
        assert_eq!(HEAPS.close_source().retained(), 0, "after {count} blocks");
    }
    assert!(most > 0, "the source never had arenas kept");
}

#[test]
fn without_an_arena_a_request_fails_and_the_next_one_may_not() {
    let faulty = Faulty::new();
    let heap = faulty.heaps.open().expect("there is memory");
    faulty.arena_faults.restart(Plan::From(1));
    assert_eq!(alloc(heap), None);
    faulty.arena_faults.restart(Plan::Never);
    assert!(alloc(heap).is_some());
}

/// F5 of the field report: the source may have an arena once retained memory is released.
#[test]
fn a_request_that_finds_no_arena_is_repeated_after_a_flush() {
    let faulty = Faulty::new();
    let heap = faulty.heaps.open().expect("there is memory");
    let other = faulty.heaps.open().expect("there is memory");
    let blocks: Vec<_> = (0..20).filter_map(|_| alloc(other)).collect();
    // SAFETY: this thread opened the heap.
    unsafe { faulty.heaps.close(other) };
    // SAFETY: this thread owns the heap, and gives up blocks of the other one.
    blocks.into_iter().for_each(|block| unsafe { heap.free_any(block) });
    assert_eq!(faulty.arenas.mapped(), 1, "the freed blocks are held back");
    faulty.arena_faults.restart(Plan::Nth(1));
    assert!(alloc(heap).is_some());
    assert_eq!(faulty.arenas.mapped(), 1, "the other heap has given its arena back");
}

#[test]
fn an_arena_that_cannot_be_entered_in_the_books_goes_back() {
    // The first request asks the layer below for arena records, the map's root, and a leaf.
    for request in 1..=3 {
        let faulty = Faulty::new();
        let heap = faulty.heaps.open().expect("there is memory");
        faulty.lower_faults.restart(Plan::From(request));
        assert_eq!((alloc(heap), faulty.arenas.mapped()), (None, 0), "request {request}");
        faulty.lower_faults.restart(Plan::Never);
        let block = alloc(heap).expect("there is memory");
        assert!(faulty.heaps.holds(block.start().addr().get()));
    }
}

#[test]
fn the_heaps_know_their_addresses_until_an_arena_goes() {
    let team = ByHand::new();
    let block = left_by(team, |member| Block::fill(member.alloc(class(64)), class(64), 3));
    let block = block.check();
    let address = block.start().addr().get();
    assert!(team.heaps.holds(address) && !team.heaps.holds(ptr::from_ref(&team).addr()));
    // SAFETY: the block is of this team; this thread owns none of its heaps.
    unsafe { team.heaps.free_remote(block) };
    assert!(!team.heaps.holds(address));
}
