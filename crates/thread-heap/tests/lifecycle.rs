//! Opening, abandoning, adopting and closing heaps, with enough memory and with too little.

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
use thread_heap::{Heaps, Owner, ThreadGeometry};

use crate::{
    block::{Block, Slot},
    team::{Family, Member, OfTheProcess, Parts, Team},
};

fn class(size: usize) -> SizeClass<ThreadGeometry> {
    SizeClass::of(size).expect("it is small")
}

/// Allocates blocks of all sizes that fill a little more than `arenas` arenas.
fn fill(member: &mut impl Member, arenas: usize) -> Vec<Block> {
    fill_with(member, 0..arenas << 12)
}

/// Allocates one block for each number. The number determines the size of the block.
fn fill_with(member: &mut impl Member, numbers: impl Iterator<Item = usize>) -> Vec<Block> {
    let sizes = numbers.map(|number| 1 + number % 512);
    sizes.map(|size| Block::fill(member.alloc(class(size)), class(size), size as u64)).collect()
}

/// Runs `body` in a new thread, and returns its result after that thread has left the team.
fn left_by<T, R>(team: T, body: impl FnOnce(&mut T::Member) -> R + Send + 'static) -> R
where
    T: Team,
    R: Send + 'static,
{
    thread::spawn(move || body(&mut team.join())).join().expect("the thread does not panic")
}

/// Returns the number of blocks in use, after checking the invariants of the heap.
fn check(owner: &Owner<Parts>) -> usize {
    owner.check_invariants();
    owner.stats().classes().iter().map(|class| class.in_use).sum()
}

fn block_of_100(member: &mut impl Member) -> Block {
    Block::fill(member.alloc(class(100)), class(100), 1)
}

#[test]
fn an_owner_that_sends_blocks_of_others_reclaims_its_own() {
    let team = Family::new();
    let (mut mine, mut other) = (team.join(), team.join());
    let (own, of_other) = (fill(&mut mine, 1), fill_with(&mut other, 0..100));
    free_remote(team, own);
    assert!(check(&mine) > 1000, "they wait in the inbox");
    for block in of_other {
        // SAFETY: the block came from this team.
        unsafe { mine.free(block.check()) };
    }
    assert_eq!(check(&mine), 0);
    drop((mine, other));
    team.assert_nothing_is_mapped();
}

fn free_remote(team: Family, blocks: impl IntoIterator<Item = Block>) {
    for block in blocks {
        // SAFETY: the block came from this team.
        unsafe { team.heaps.free_remote(block.check()) };
    }
}

#[test]
fn the_last_remote_free_into_an_abandoned_heap_unmaps_its_last_arena() {
    let team = Family::new();
    let mut blocks = left_by(team, |member| fill(member, 3));
    assert!(team.arenas.mapped() >= 3);
    let last = blocks.pop();
    free_remote(team, blocks);
    assert_eq!(team.arenas.mapped(), 1);
    free_remote(team, last);
    team.assert_nothing_is_mapped();
}

#[test]
fn a_heap_that_is_abandoned_empty_unmaps_its_arenas_at_once() {
    let team = Family::new();
    left_by(team, |member| {
        // SAFETY: the blocks came from the member's own heap.
        fill(member, 2).into_iter().for_each(|block| unsafe { member.free(block.check()) });
    });
    team.assert_nothing_is_mapped();
}

#[test]
fn a_starting_thread_adopts_an_abandoned_heap_and_the_rules_hold() {
    let team = Family::new();
    let (before, mut blocks) = left_by(team, |member| (member.tag().0.addr(), fill(member, 2)));
    free_remote(team, blocks.drain(1000..3000));
    left_by(team, move |member| {
        assert_eq!(member.tag().0.addr(), before, "another heap was opened");
        assert_eq!(check(member), blocks.len());
        let more = fill(member, 2);
        assert_eq!(check(member), blocks.len() + more.len());
        for block in blocks.into_iter().chain(more) {
            // SAFETY: the blocks came from the member's heap.
            unsafe { member.free(block.check()) };
        }
        assert_eq!(check(member), 0);
    });
    team.assert_nothing_is_mapped();
}

#[test]
fn a_heap_that_has_an_owner_is_not_adopted() {
    let team = Family::new();
    let (one, other) = (team.join(), team.join());
    assert_ne!(one.tag(), other.tag());
    drop(one);
    let third = team.join();
    assert_ne!(third.tag(), other.tag());
}

#[test]
fn blocks_that_others_freed_serve_the_next_requests_of_their_owner() {
    let team = Family::new();
    let mut owner = team.join();
    // Every second group of sizes is freed, so each arena stays in use.
    let (freed, in_use): (Vec<_>, Vec<_>) =
        fill(&mut owner, 4).into_iter().enumerate().partition(|(nth, _)| nth / 256 % 2 == 0);
    let arenas = team.arenas.ever();
    left_by(team, move |member| {
        // SAFETY: the blocks came from this team.
        freed.into_iter().for_each(|(_, block)| unsafe { member.free(block.check()) });
    });
    let again = fill_with(&mut owner, (0..4 << 12).filter(|nth| nth / 256 % 2 == 0));
    assert_eq!(team.arenas.ever(), arenas, "new arenas were mapped");
    let in_use = in_use.into_iter().map(|(_, block)| block);
    // SAFETY: the blocks came from the owner's heap.
    again.into_iter().chain(in_use).for_each(|block| unsafe { owner.free(block.check()) });
    assert_eq!(check(&owner), 0);
}

#[test]
fn the_blocks_in_an_outbox_are_sent_when_their_thread_ends() {
    let team = Family::new();
    let mut owner = team.join();
    let block = block_of_100(&mut owner);
    left_by(team, |member| {
        // SAFETY: the block came from this team.
        unsafe { member.free(block.check()) };
        assert_eq!(check(member), 0);
    });
    assert_eq!(check(&owner), 1, "the block waits in the inbox");
    owner.flush();
    assert_eq!(check(&owner), 0);
    team.assert_nothing_is_mapped();
}

#[test]
fn a_flush_sends_the_blocks_in_the_outbox() {
    let team = Family::new();
    let block = left_by(team, block_of_100);
    let other = team.heaps.open().expect("the abandoned heap");
    let mut freer = team.join();
    // SAFETY: the block came from this team.
    unsafe { freer.free(block.check()) };
    assert_eq!(team.arenas.mapped(), 1);
    freer.flush();
    drop(other);
    team.assert_nothing_is_mapped();
}

#[test]
fn the_figures_of_all_heaps_leave_out_those_that_another_thread_owns() {
    let team = Family::new();
    let ended = left_by(team, |member| Block::fill(Member::alloc(member, class(40)), class(40), 1));
    let (mine, mut other) = (team.heaps.open().expect("the abandoned heap"), team.join());
    let held = block_of_100(&mut other);
    let stats = team.heaps.stats(&[&mine]);
    assert_eq!((stats.walked, stats.elsewhere), (1, 1));
    assert_eq!(stats.total.bytes.in_use, 48);
    drop(mine);
    // SAFETY: the block came from this team.
    unsafe { other.free(held.check()) };
    drop(other);
    let stats = team.heaps.stats(&[]);
    assert_eq!((stats.walked, stats.elsewhere), (2, 0));
    assert_eq!((stats.total.bytes.in_use, stats.total.arenas.allocated), (48, 2));
    free_remote(team, [ended]);
    team.assert_nothing_is_mapped();
}

#[test]
fn a_thread_without_a_heap_frees_what_another_allocated() {
    let slot = Slot::default();
    thread::scope(|scope| {
        let maker = scope.spawn(|| {
            let mut member = OfTheProcess.join();
            slot.swap(Some(Block::fill(member.alloc(class(40)), class(40), 7)));
        });
        maker.join().expect("there is memory");
        scope.spawn(|| {
            let block = slot.swap(None).expect("it was put there");
            // SAFETY: the block came from the process's heaps.
            unsafe { OfTheProcess.join().free(block.check()) };
        });
    });
}

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

fn alloc(owner: &mut Owner<FaultyParts>) -> Option<BlockPtr> {
    owner.alloc(class(64))
}

#[test]
fn no_heap_is_opened_without_memory_for_its_metadata() {
    let faulty = Faulty::new();
    faulty.lower_faults.restart(Plan::Nth(1));
    assert!(faulty.heaps.open().is_none());
    assert!(faulty.heaps.open().is_some());
}

/// An allocator that requires more alignment than its own blocks have.
#[derive(Clone, Copy)]
#[repr(align(4096))]
struct OverAligned;

// SAFETY: `Malloc` serves every request.
unsafe impl MemAlloc for OverAligned {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        Malloc.malloc(size)
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        Malloc.calloc(count, size)
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: `ptr` came from `Malloc` (contract of `realloc`).
        unsafe { Malloc.realloc(ptr, size) }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: `ptr` came from `Malloc` (contract of `free`).
        unsafe { Malloc.free(ptr) }
    }
}

#[test]
fn a_heap_is_never_created_in_memory_that_is_not_aligned_for_it() {
    static HEAPS: Heaps<(MmapArenas, OverAligned, ThreadGeometry)> =
        Heaps::new(MmapArenas::new(), OverAligned);
    for _ in 0..20 {
        if let Some(owner) = HEAPS.open() {
            // The tag of a heap is its address.
            let address = std::hint::black_box(owner.tag().0.addr());
            assert!(address.is_multiple_of(align_of::<OverAligned>()));
        }
    }
}

/// Regression test: arenas that had been unmapped still counted as retained (mutants 7 and 8).
#[test]
fn flushed_heaps_retain_no_arena() {
    static HEAPS: Heaps<(RetainingArenas<MmapArenas>, Malloc, ThreadGeometry)> = Heaps::new(
        RetainingArenas::with_decay(MmapArenas::new(), Duration::from_secs(3600)),
        Malloc,
    );
    let mut owner = HEAPS.open().expect("there is memory");
    let mut most = 0;
    for count in [1000, 10_000] {
        let blocks: Vec<_> =
            (0..count).map(|_| owner.alloc(class(512)).expect("there is memory")).collect();
        // SAFETY: the blocks came from this heap.
        blocks.into_iter().for_each(|block| unsafe { owner.free(block) });
        most = most.max(HEAPS.lock_source().retained());
        owner.flush();
        assert_eq!(HEAPS.lock_source().retained(), 0, "after {count} blocks");
    }
    assert!(most > 0, "no arena was ever retained");
}

#[test]
fn a_request_without_an_arena_fails_and_a_later_one_succeeds() {
    let faulty = Faulty::new();
    let mut heap = faulty.heaps.open().expect("there is memory");
    faulty.arena_faults.restart(Plan::From(1));
    assert_eq!(alloc(&mut heap), None);
    faulty.arena_faults.restart(Plan::Never);
    assert!(alloc(&mut heap).is_some());
}

/// Regression test: a request must be repeated after a flush, because the flush can make an arena
/// available (F5 of the field report).
#[test]
fn a_request_that_finds_no_arena_is_repeated_after_a_flush() {
    let faulty = Faulty::new();
    let mut heap = faulty.heaps.open().expect("there is memory");
    let mut other = faulty.heaps.open().expect("there is memory");
    let blocks: Vec<_> = (0..20).filter_map(|_| alloc(&mut other)).collect();
    drop(other);
    // SAFETY: the blocks came from a heap of the same family.
    blocks.into_iter().for_each(|block| unsafe { heap.free(block) });
    assert_eq!(faulty.arenas.mapped(), 1, "the freed blocks wait in the outbox");
    faulty.arena_faults.restart(Plan::Nth(1));
    assert!(alloc(&mut heap).is_some());
    assert_eq!(faulty.arenas.mapped(), 1, "the other heap has unmapped its arena");
}

#[test]
fn an_arena_without_memory_for_its_metadata_is_unmapped() {
    // The first allocation needs memory for arena records, the root of the map and a leaf.
    for request in 1..=3 {
        let faulty = Faulty::new();
        let mut heap = faulty.heaps.open().expect("there is memory");
        faulty.lower_faults.restart(Plan::From(request));
        assert_eq!((alloc(&mut heap), faulty.arenas.mapped()), (None, 0), "request {request}");
        faulty.lower_faults.restart(Plan::Never);
        let block = alloc(&mut heap).expect("there is memory");
        assert!(faulty.heaps.holds(block.start().addr().get()));
    }
}

#[test]
fn the_heaps_hold_an_address_until_its_arena_is_unmapped() {
    let team = Family::new();
    let block = left_by(team, |member| Block::fill(Member::alloc(member, class(64)), class(64), 3));
    let block = block.check();
    let address = block.start().addr().get();
    assert!(team.heaps.holds(address) && !team.heaps.holds(ptr::from_ref(&team).addr()));
    // SAFETY: the block came from this team.
    unsafe { team.heaps.free_remote(block) };
    assert!(!team.heaps.holds(address));
}
