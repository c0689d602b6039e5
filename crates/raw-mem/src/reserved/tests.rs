//! Tests of arenas in a reserved range.

use std::{thread, vec::Vec};

use super::{testing::*, *};
use crate::{
    MmapArenas, resize_or_copy,
    testing::{alone, permissions_at},
};

#[test]
fn arenas_are_taken_from_the_lowest_slots_of_an_aligned_range() {
    let mut source = source();
    assert!(source.reserved().is_empty());
    let arenas: Vec<_> = (0..100).map(|_| map(&mut source)).collect();
    assert_eq!((source.reserved().start % SLOT, source.reserved().len()), (0, 100 * SLOT));
    for (nth, arena) in arenas.iter().enumerate() {
        assert_eq!(slot_of(&mut source, *arena), nth);
        fill(*arena, SLOT, 1);
    }
    assert_eq!(writable_bytes(&mut source), 100 * SLOT);
    arenas.into_iter().for_each(|arena| unmap(&mut source, arena));
    assert_eq!(writable_bytes(&mut source), 0);
}

#[test]
fn an_arena_that_comes_back_is_inaccessible_and_its_slot_is_zero_when_used_again() {
    let mut source = source();
    let arenas: Vec<_> = (0..5).map(|_| map(&mut source)).collect();
    arenas.iter().for_each(|arena| fill(*arena, SLOT, 9));
    refuse(Plan::Never);
    unmap(&mut source, arenas[3]);
    unmap(&mut source, arenas[1]);
    assert_eq!(writable_bytes(&mut source), 3 * SLOT);
    assert_eq!([map(&mut source), map(&mut source)], [arenas[1], arenas[3]]);
    assert_eq!(calls(), 4);
    assert!(is_filled(arenas[1], 0..SLOT, 0) && is_filled(arenas[3], 0..SLOT, 0));
    assert!(is_filled(arenas[2], 0..SLOT, 9));
}

#[test]
fn an_arena_of_another_size_comes_from_the_wrapped_source() {
    let mut source = source();
    let arena = map(&mut source);
    let other = ArenaSize::new(2 * SLOT).unwrap();
    let elsewhere = source.map(other).unwrap();
    assert!(source.range_at(elsewhere).is_none());
    let large = source.map_large(5 * SLOT, other).unwrap();
    assert!(source.range_at(large.start).is_none() && large.is_zeroed);
    // SAFETY: the mapping came from this source, and the old one is not used again.
    let large =
        unsafe { resize_or_copy(&mut source, large.start, large.bytes, 9 * SLOT, other) }.unwrap();
    // SAFETY: both came from this source and are not used again.
    unsafe {
        source.unmap_large(large.start, large.bytes, other);
        source.unmap(elsewhere, other);
    }
    unmap(&mut source, arena);
    assert_eq!(writable_bytes(&mut source), 0);
}

#[test]
fn an_arena_that_cannot_be_made_inaccessible_is_purged_and_serves_a_later_request() {
    let mut source = source();
    let arenas = [map(&mut source), map(&mut source)];
    fill(arenas[0], SLOT, 5);
    refuse(Plan::Nth(1));
    unmap(&mut source, arenas[0]);
    assert_eq!((retained(&mut source), calls()), (0, 2));
    assert_eq!(writable_bytes(&mut source), 2 * SLOT);
    refuse(Plan::Never);
    assert_eq!(map(&mut source), arenas[0]);
    assert_eq!(calls(), 0);
    assert!(is_filled(arenas[0], 0..SLOT, 0));
}

#[test]
fn slots_that_may_not_be_mapped_are_never_used_again() {
    let mut source = source();
    let arena = map(&mut source);
    refuse(Plan::EachNth(1));
    unmap(&mut source, arena);
    refuse(Plan::Never);
    assert_eq!(retained(&mut source), 0);
    let next = map(&mut source);
    assert_eq!(slot_of(&mut source, next), 1);
}

#[test]
fn if_a_slot_cannot_be_made_writable_the_wrapped_source_serves_the_request() {
    let mut source = source();
    let arena = map(&mut source);
    refuse(Plan::Nth(1));
    let elsewhere = map(&mut source);
    let large = map_large(&mut source, SLOT);
    refuse(Plan::Never);
    assert!(source.range_at(elsewhere).is_none());
    assert!(source.range_at(large.start).is_some());
    unmap(&mut source, elsewhere);
    unmap(&mut source, arena);
}

#[test]
fn giving_back_leaves_the_error_number_as_it_was() {
    let mut source = source();
    let arena = map(&mut source);
    let large = map_large(&mut source, 3 * SLOT);
    let other = map_large(&mut source, SLOT);
    preserving_errno(|| {
        errno::set(libc::EBADF);
        refuse(Plan::EachNth(1));
        // SAFETY: the arena is mapped, and its contents are not needed.
        assert!(unsafe { source.purge(arena, SLOT) }.is_err());
        unmap(&mut source, arena);
        unmap_large(&mut source, large);
        wait(Duration::from_secs(5));
        unmap_large(&mut source, other);
        source.trim();
        assert!(calls() > 3);
        assert_eq!(errno::get(), libc::EBADF);
    });
    refuse(Plan::Never);
}

#[test]
fn whole_pages_are_purged_inside_and_outside_of_the_range() {
    let mut source = source();
    let inside = map(&mut source);
    let other = ArenaSize::new(2 * SLOT).unwrap();
    let outside = source.map(other).unwrap();
    for arena in [inside, outside] {
        fill(arena, SLOT, 7);
        // SAFETY: the arenas are mapped and belong to this test.
        unsafe { source.purge(arena.add(100), 3 * 4096) }.unwrap();
        assert!(is_filled(arena, 0..1, 7));
        assert!(is_filled(arena, 4096..3 * 4096, 0));
        assert!(is_filled(arena, 3 * 4096..SLOT, 7));
    }
}

#[test]
fn dropping_the_source_unmaps_the_range_unless_a_slot_is_used() {
    alone("reserved::tests::dropping_the_source_unmaps_the_range_unless_a_slot_is_used", || {
        let mut source = source();
        let arena = map(&mut source);
        let addresses = addresses(&source);
        unmap(&mut source, arena);
        drop(source);
        assert_eq!([addresses.start, addresses.end].map(permissions_at), [None, None]);
    });

    let mut source = source();
    let arena = map(&mut source);
    fill(arena, SLOT, 3);
    drop(source);
    assert!(is_filled(arena, 0..SLOT, 3));
}

#[test]
fn the_source_can_be_moved_to_another_thread() {
    let mut source = Source::new(MmapArenas::new());
    let start = map_large(&mut source, SLOT).start.addr();
    let base = thread::spawn(move || source.reserved().start).join().unwrap();
    assert_eq!(base, start.get());
}

#[test]
fn an_arena_is_known_to_be_zero_unless_its_slot_was_retained() {
    let mut source = source();
    let mut contents = || {
        let (arena, contents) = source.map_with_contents(SIZE).unwrap();
        assert!(contents == Contents::Unknown || is_filled(arena, 0..SLOT, 0));
        fill(arena, SLOT, 9);
        (arena, contents)
    };
    let (first, second) = (contents(), contents());
    assert_eq!([first.1, second.1], [Contents::Zero; 2]);
    unmap(&mut source, first.0);
    assert_eq!(source.map_with_contents(SIZE).unwrap(), first);
    unmap(&mut source, first.0);
    show_demand(&mut source, 1);
    let mapping = map_large(&mut source, SLOT);
    unmap_large(&mut source, mapping);
    assert_eq!(source.map_with_contents(SIZE).unwrap(), (first.0, Contents::Unknown));
}

#[test]
fn free_slots_at_the_end_are_given_back_after_the_range_is_published_as_shorter() {
    let mut source = ReservedArenas::new(MmapArenas::new());
    let arenas = [(); 5].map(|()| source.map(SIZE).unwrap());
    let before = source.reserved();
    for arena in [arenas[2], arenas[3], arenas[4]] {
        // SAFETY: the arena came from this source, and nothing uses it.
        unsafe { source.unmap(arena, SIZE) };
    }
    let mut published = Vec::new();
    // SAFETY: nothing relies on the earlier range, and no wrapper stores it.
    unsafe { source.shrink_reserved(&mut |range| published.push(range)) };
    let shorter = before.start..before.start + 2 * SIZE.bytes();
    assert_eq!(published, core::slice::from_ref(&shorter));
    assert_eq!(source.reserved(), shorter);
    // Another mapping can use these addresses now.
    let place = before.start + 3 * SIZE.bytes();
    let other = pages::map(place, 4096, pages::Access::ReadWrite).unwrap();
    assert_eq!(other.addr().get(), place);
    // SAFETY: the page was mapped above, and nothing uses it.
    unsafe { pages::unmap(other, 4096) }.unwrap();
    let again = source.map(SIZE).unwrap();
    // SAFETY: the arenas came from this source, and nothing uses them.
    unsafe {
        again.write_bytes(1, SIZE.bytes());
        for arena in [arenas[0], arenas[1], again] {
            source.unmap(arena, SIZE);
        }
    }
}
