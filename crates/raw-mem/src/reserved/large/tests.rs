//! Tests of large mappings.

use proptest::prelude::*;

use core::time::Duration;
use std::vec::Vec;

use super::ReservedRange;
use crate::{ArenaSource, HugePages, LargeMapping, MapError, reserved::testing::*, resize_or_copy};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_large_mapping_is_a_run_of_slots_of_zeroed_whole_pages() {
    let mut source = source();
    let mapping = map_large(&mut source, 2 * SLOT + 1);
    assert_eq!((mapping.bytes, mapping.is_zeroed), (2 * SLOT + 4096, true));
    assert!(is_filled(mapping.start, 0..mapping.bytes, 0));
    assert_eq!(slot_of(&mut source, mapping.start), 0);
    let next = map_large(&mut source, 1);
    assert_eq!((slot_of(&mut source, next.start), next.bytes), (3, 4096));
}

#[test]
fn a_request_beyond_the_range_is_an_error_or_served_elsewhere() {
    let mut source = source();
    for bytes in [usize::MAX, isize::MAX as usize, 1 << 60] {
        let error = source.map_large(bytes, SIZE).unwrap_err();
        let is_expected = matches!(
            error,
            MapError::LargeOs { bytes: found, .. } | MapError::LargeExhausted { bytes: found }
                if found == bytes
        );
        assert!(is_expected, "{error}");
    }
    let mapping = map_large(&mut source, SLOT);
    // SAFETY: the mapping came from this source, and is unchanged because the call fails.
    assert!(unsafe { resize_or_copy(&mut source, mapping.start, SLOT, 1 << 60, SIZE) }.is_err());
    fill(mapping.start, mapping.bytes, 1);
}

#[test]
fn a_wrong_report_of_a_user_leaves_the_mappings_intact() {
    for wrong in [usize::MAX, usize::MAX / 2, (1 << 56) - 100] {
        let mut source = source();
        let [first, second] = [(); 2].map(|()| map_large(&mut source, 3 * SLOT));
        fill(first.start, first.bytes, 1);
        source.retain_large(wrong, 0);
        source.retain_large(0, wrong);
        // The second mapping is in the way, so the first one has to move.
        let moved = resize(&mut source, first, 9 * SLOT);
        assert!(is_filled(moved.start, 0..3 * SLOT, 1));
        source.retain_large(wrong, wrong - 1);
        unmap_large(&mut source, moved);
        unmap_large(&mut source, second);
    }
}

#[test]
fn the_first_large_mapping_that_comes_back_is_given_back() {
    let mut source = source();
    let mapping = map_large(&mut source, 9 * SLOT);
    fill(mapping.start, mapping.bytes, 1);
    unmap_large(&mut source, mapping);
    assert_eq!((retained(&mut source), writable_bytes(&mut source)), (0, 0));
}

#[test]
fn a_loop_of_large_mappings_makes_no_system_call_from_its_second_turn() {
    let mut source = source();
    show_demand(&mut source, 5_000_000_usize.div_ceil(SLOT));
    let first = map_large(&mut source, 5_000_000);
    unmap_large(&mut source, first);
    refuse(Plan::Never);
    for _ in 0..100 {
        let mapping = map_large(&mut source, 5_000_000);
        assert_eq!((mapping.start, mapping.is_zeroed), (first.start, false));
        fill(mapping.start, mapping.bytes, 1);
        unmap_large(&mut source, mapping);
    }
    assert_eq!(calls(), 0);
}

#[test]
fn an_exactly_fitting_retained_run_is_preferred_and_then_the_shortest_longer_one() {
    let mut source = source();
    let sizes = [5, 1, 3, 1, 4, 1];
    show_demand(&mut source, 15);
    let mappings = sizes.map(|slots| map_large(&mut source, slots * SLOT));
    for at in [0, 2, 4] {
        unmap_large(&mut source, mappings[at]);
    }
    refuse(Plan::Never);
    assert_eq!(map_large(&mut source, 4 * SLOT).start, mappings[4].start);
    assert_eq!(map_large(&mut source, SLOT).start, mappings[2].start);
    assert_eq!(map_large(&mut source, 3 * SLOT).start, mappings[0].start);
    assert_eq!((calls(), retained(&mut source)), (0, 4));
}

#[test]
fn a_request_that_covers_retained_slots_makes_only_the_others_writable() {
    let mut source = source();
    show_demand(&mut source, 2);
    let small = map_large(&mut source, 2 * SLOT);
    unmap_large(&mut source, small);
    refuse(Plan::Never);
    let mapping = map_large(&mut source, 4 * SLOT);
    assert_eq!((mapping.start, mapping.is_zeroed, calls()), (small.start, false, 1));
    fill(mapping.start, mapping.bytes, 1);
    assert_eq!(writable_bytes(&mut source), 4 * SLOT);
}

/// Leaves retained runs of 5 and 3 slots, filled with 7, and a used slot after each of them.
fn two_retained_runs(source: &mut Source) {
    show_demand(source, 8);
    let mappings = [5, 1, 3, 1].map(|slots| map_large(source, slots * SLOT));
    for at in [0, 2] {
        fill(mappings[at].start, mappings[at].bytes, 7);
        unmap_large(source, mappings[at]);
    }
    assert_eq!(retained(source), 8);
}

#[test]
fn the_memory_of_retained_slots_moves_to_where_a_longer_run_is_free() {
    let mut source = source();
    two_retained_runs(&mut source);
    refuse(Plan::Never);
    let mapping = map_large(&mut source, 8 * SLOT);
    assert_eq!((slot_of(&mut source, mapping.start), mapping.is_zeroed), (10, false));
    assert!(is_filled(mapping.start, 0..8 * SLOT, 7));
    // One call makes the slots writable. Each of the two runs is checked, moved and withdrawn.
    assert_eq!((calls(), retained(&mut source)), (7, 0));
    assert_eq!(writable_bytes(&mut source), 10 * SLOT);
    unmap_large(&mut source, mapping);
    assert_eq!(retained(&mut source), 8);
}

#[test]
fn memory_moves_only_while_it_is_in_few_pieces() {
    for most in 0..=2 {
        let mut source = source();
        two_retained_runs(&mut source);
        range(&mut source).most_pieces = most;
        let mapping = map_large(&mut source, 8 * SLOT);
        assert_eq!(range(&mut source).slots.piece_count(), most);
        assert_eq!(mapping.is_zeroed, most == 0);
        unmap_large(&mut source, mapping);
        source.trim();
        assert_eq!(range(&mut source).slots.piece_count(), 0);
    }
}

#[test]
fn a_mapping_stays_zero_if_retained_slots_would_cover_less_than_half_of_it() {
    let mut source = source();
    two_retained_runs(&mut source);
    let mapping = map_large(&mut source, 17 * SLOT);
    assert!(mapping.is_zeroed);
    assert!(is_filled(mapping.start, 0..17 * SLOT, 0));
    unmap_large(&mut source, mapping);
    assert!(!map_large(&mut source, 16 * SLOT).is_zeroed);
}

#[test]
fn a_mapping_stays_zero_if_adjacent_retained_slots_cover_less_than_half_and_no_other_can_move() {
    for (slots, is_zeroed) in [(4, false), (5, true)] {
        let mut source = source();
        show_demand(&mut source, 3);
        let mappings = [1, 1, 2].map(|slots| map_large(&mut source, slots * SLOT));
        for at in [0, 2] {
            fill(mappings[at].start, mappings[at].bytes, 7);
            unmap_large(&mut source, mappings[at]);
        }
        assert_eq!(retained(&mut source), 3);
        range(&mut source).can_move = false;
        assert_eq!(map_large(&mut source, slots * SLOT).is_zeroed, is_zeroed, "{slots} slots");
    }
}

#[test]
fn a_range_without_a_free_slot_grows_by_the_slots_that_are_needed() {
    let mut source = source();
    let length = |source: &Source| addresses(source).len() / SLOT;
    map(&mut source);
    while range(&mut source).slots.find_one().is_some() {
        map(&mut source);
    }
    for _ in 0..4 {
        let before = length(&source);
        // Half the size is less, so the range grows by this odd number.
        let needed = (before / 2 + 1) | 1;
        map_large(&mut source, needed * SLOT);
        assert_eq!(length(&source), before + needed);
    }
}

#[test]
fn the_range_grows_so_that_a_mapping_need_not_contain_an_old_slot() {
    let mut source = source();
    show_demand(&mut source, 1);
    let small = map_large(&mut source, SLOT);
    fill(small.start, small.bytes, 1);
    unmap_large(&mut source, small);
    let slots = addresses(&source).len() / SLOT;
    assert_eq!(retained(&mut source), 1);
    let mapping = map_large(&mut source, slots * SLOT);
    assert_eq!((slot_of(&mut source, mapping.start), mapping.is_zeroed), (1, true));
}

#[test]
fn a_retained_slot_of_two_mappings_does_not_keep_the_others_from_moving() {
    let mut source = source();
    show_demand(&mut source, 15);
    let mapping = map_large(&mut source, 4 * SLOT + SLOT / 2);
    let _behind = map(&mut source);
    fill(mapping.start, mapping.bytes, 1);
    let grown = resize(&mut source, mapping, 9 * SLOT);
    let _last = map_large(&mut source, 6 * SLOT);
    fill(grown.start, grown.bytes, 9);
    unmap_large(&mut source, grown);
    assert_eq!(retained(&mut source), 9);
    let other = map_large(&mut source, 12 * SLOT);
    let has_moved = |slot: &usize| is_filled(other.start, slot * SLOT..(slot + 1) * SLOT, 9);
    // The system has moved half of the fifth slot to its place, so it is two mappings.
    assert_eq!((0..12).filter(has_moved).count(), 8);
}

#[test]
fn the_memory_of_retained_slots_moves_behind_a_mapping_that_grows() {
    let mut source = source();
    show_demand(&mut source, 12);
    let mapping = map_large(&mut source, 4 * SLOT);
    let _behind = map(&mut source);
    let other = map_large(&mut source, 4 * SLOT);
    let _last = map(&mut source);
    fill(mapping.start, mapping.bytes, 1);
    fill(other.start, other.bytes, 2);
    unmap_large(&mut source, other);
    assert_eq!(retained(&mut source), 4);
    let grown = resize(&mut source, mapping, 7 * SLOT);
    assert!(is_filled(grown.start, 0..4 * SLOT, 1));
    assert!(is_filled(grown.start, 4 * SLOT..7 * SLOT, 2));
    assert_eq!((slot_of(&mut source, grown.start), retained(&mut source)), (10, 1));
}

#[test]
fn pages_that_a_shrunk_mapping_gives_back_are_no_longer_counted() {
    let mut source = source();
    show_demand(&mut source, 2);
    let mapping = map_large(&mut source, 2 * SLOT);
    fill(mapping.start, mapping.bytes, 1);
    unmap_large(&mut source, mapping);
    let mapping = map_large(&mut source, SLOT + 4096 * 8);
    refuse(Plan::Never);
    let small = resize(&mut source, mapping, SLOT + 4096);
    assert_eq!((calls(), source.range.as_ref().unwrap().tails), (1, 0));
    assert!(is_filled(small.start, 0..small.bytes, 1));
    let grown = resize(&mut source, small, 2 * SLOT);
    assert!(is_filled(grown.start, small.bytes..2 * SLOT, 0));
}

#[test]
fn retained_slots_that_the_system_keeps_in_parts_move_one_part_after_the_other() {
    let mut source = source();
    two_retained_runs(&mut source);
    let mapping = map_large(&mut source, 8 * SLOT);
    let _behind = map_large(&mut source, 10 * SLOT);
    fill(mapping.start, mapping.bytes, 9);
    unmap_large(&mut source, mapping);
    // These eight slots are several mappings of the system.
    let longer = map_large(&mut source, 9 * SLOT);
    assert!(is_filled(longer.start, 0..8 * SLOT, 9));
    assert!(is_filled(longer.start, 8 * SLOT..9 * SLOT, 0));
    assert_eq!((retained(&mut source), writable_bytes(&mut source)), (0, 21 * SLOT));
}

#[test]
fn a_request_is_served_although_the_memory_of_retained_slots_cannot_move() {
    for nth in 1..8 {
        let mut source = source();
        two_retained_runs(&mut source);
        refuse(Plan::Nth(nth));
        let mapping = map_large(&mut source, 8 * SLOT);
        refuse(Plan::Never);
        fill(mapping.start, mapping.bytes, 1);
        assert!(is_filled(mapping.start, 0..8 * SLOT, 1));
        unmap_large(&mut source, mapping);
        source.trim();
        // `map_large` makes seven system calls, and we let one of them fail. Call 3 moves the
        // memory of three retained slots to the new mapping, and call 6 that of five. If one of
        // these two calls fails, the slots to which it should move the memory may no longer be
        // mapped, so the source never uses them again.
        let lost = match nth {
            3 => 3 * SLOT,
            6 => 5 * SLOT,
            _ => 0,
        };
        assert_eq!((retained(&mut source), writable_bytes(&mut source)), (0, 2 * SLOT + lost));
        // The second and the fifth call ask whether the retained slots are a single mapping.
        let has_failed = matches!(nth, 2 | 3 | 5 | 6);
        assert_eq!(source.range.as_ref().unwrap().can_move, !has_failed);
    }
}

#[test]
fn in_use_and_retained_slots_never_exceed_the_recent_peak() {
    let mut source = source();
    show_demand(&mut source, 12);
    let big = map_large(&mut source, 10 * SLOT);
    let small = map_large(&mut source, 2 * SLOT);
    unmap_large(&mut source, big);
    assert_eq!(retained(&mut source), 10);
    // Eleven slots do not fit into the ten retained ones. The retained slots now exceed the allowed
    // number.
    let bigger = map_large(&mut source, 11 * SLOT);
    assert_eq!(slot_of(&mut source, bigger.start), 12);
    assert_eq!(retained(&mut source), 0);
    unmap_large(&mut source, small);
    unmap_large(&mut source, bigger);
    // The thirteenth slot was never returned to the system and then requested again.
    assert_eq!(retained(&mut source), 12);
    assert_eq!(writable_bytes(&mut source), 12 * SLOT);
}

#[test]
fn a_growing_mapping_is_retained_from_its_second_turn() {
    let mut source = source();
    for turn in 1..4 {
        let mut mapping = map_large(&mut source, SLOT);
        for slots in [2, 4, 8, 16] {
            let _behind = map(&mut source);
            mapping = resize(&mut source, mapping, slots * SLOT);
        }
        unmap_large(&mut source, mapping);
        assert_eq!(retained(&mut source), if turn == 1 { 0 } else { 16 });
    }
}

#[test]
fn a_mapping_that_grows_again_and_again_makes_no_system_call() {
    let mut source = source();
    let turn = |source: &mut Source| {
        let mut mapping = map_large(source, SLOT / 2);
        for slots in [1, 2, 4, 8, 16] {
            mapping = resize(source, mapping, slots * SLOT);
            fill(mapping.start, mapping.bytes, 1);
        }
        unmap_large(source, mapping);
    };
    (0..2).for_each(|_| turn(&mut source));
    refuse(Plan::Never);
    (0..500).for_each(|_| turn(&mut source));
    assert_eq!(calls(), 0);
}

#[test]
fn retained_slots_are_given_back_after_the_decay_time() {
    let mut source = source();
    show_demand(&mut source, 10);
    let big = map_large(&mut source, 10 * SLOT);
    unmap_large(&mut source, big);
    for left in [10, 10, 10, 1] {
        wait(SECOND * 2 / 3);
        // One slot was in use recently, so one slot is still retained.
        let small = map_large(&mut source, SLOT);
        unmap_large(&mut source, small);
        assert_eq!(retained(&mut source), left);
    }
    let arena = map(&mut source);
    assert_eq!((retained(&mut source), writable_bytes(&mut source)), (0, SLOT));
    let small = map_large(&mut source, SLOT);
    unmap_large(&mut source, small);
    assert_eq!(retained(&mut source), 1);
    wait(SECOND);
    unmap(&mut source, arena);
    assert_eq!((retained(&mut source), writable_bytes(&mut source)), (0, 0));
}

#[test]
fn a_trim_gives_back_all_retained_slots() {
    let mut source = source();
    show_demand(&mut source, 10);
    let mapping = map_large(&mut source, 10 * SLOT);
    unmap_large(&mut source, mapping);
    assert_eq!(retained(&mut source), 10);
    source.trim();
    assert_eq!((retained(&mut source), writable_bytes(&mut source)), (0, 0));
}

#[test]
fn a_mapping_grows_within_its_last_slot_without_a_system_call() {
    let mut source = source();
    let mapping = map_large(&mut source, SLOT + 1);
    refuse(Plan::Never);
    let grown = resize(&mut source, mapping, 2 * SLOT);
    assert_eq!((grown.start, grown.bytes, grown.is_zeroed), (mapping.start, 2 * SLOT, true));
    assert_eq!(calls(), 0);
    assert!(is_filled(grown.start, 0..grown.bytes, 0));
}

#[test]
fn a_mapping_grows_in_place_into_free_and_retained_slots() {
    let mut source = source();
    show_demand(&mut source, 4);
    let mapping = map_large(&mut source, 2 * SLOT);
    let behind = map_large(&mut source, 2 * SLOT);
    fill(mapping.start, mapping.bytes, 1);
    fill(behind.start, behind.bytes, 2);
    unmap_large(&mut source, behind);
    refuse(Plan::Never);
    let grown = resize(&mut source, mapping, 4 * SLOT);
    assert_eq!((grown.start, grown.is_zeroed, calls()), (mapping.start, false, 0));
    let grown = resize(&mut source, grown, 7 * SLOT);
    assert_eq!((grown.start, grown.is_zeroed, calls()), (mapping.start, false, 1));
    assert!(is_filled(grown.start, 0..2 * SLOT, 1));
    assert!(is_filled(grown.start, 4 * SLOT..7 * SLOT, 0));
    let grown = resize(&mut source, grown, 9 * SLOT);
    assert!(grown.is_zeroed);
}

#[test]
fn a_mapping_that_cannot_grow_in_place_moves_with_its_contents() {
    let mut source = source();
    let mapping = map_large(&mut source, 2 * SLOT + 9000);
    let _behind = map(&mut source);
    fill(mapping.start, mapping.bytes, 7);
    let grown = resize(&mut source, mapping, 5 * SLOT);
    assert_eq!(slot_of(&mut source, grown.start), 4);
    assert!(grown.is_zeroed);
    assert!(is_filled(grown.start, 0..mapping.bytes, 7));
    assert!(is_filled(grown.start, mapping.bytes..5 * SLOT, 0));
    assert_eq!(writable_bytes(&mut source), 6 * SLOT);
    assert_eq!(retained(&mut source), 0);
}

#[test]
fn a_mapping_that_the_system_keeps_in_parts_moves_with_its_contents() {
    let mut source = source();
    let mut mapping = map_large(&mut source, SLOT + 5000);
    fill(mapping.start, mapping.bytes, 7);
    for slots in 3..12 {
        let _behind = loop {
            // The arena takes the slot that the mapping needs in order to grow.
            let arena = map(&mut source);
            if arena > mapping.start {
                break arena;
            }
        };
        let grown = resize(&mut source, mapping, slots * SLOT + 5000);
        assert_ne!(grown.start, mapping.start);
        assert!(is_filled(grown.start, 0..mapping.bytes, 7));
        assert!(is_filled(grown.start, mapping.bytes..grown.bytes, 0) || !grown.is_zeroed);
        fill(grown.start, grown.bytes, 7);
        mapping = grown;
        writable_bytes(&mut source);
    }
}

#[test]
fn moving_a_large_mapping_does_not_copy_it() {
    let mut source = source();
    let mapping = map_large(&mut source, 512 * SLOT);
    fill(mapping.start, mapping.bytes, 7);
    let _behind = map(&mut source);
    refuse(Plan::Never);
    let grown = resize(&mut source, mapping, 600 * SLOT);
    assert!(is_filled(grown.start, 0..mapping.bytes, 7));
    // The five system calls add slots, make them writable, check the old mapping, move its pages,
    // and withdraw it.
    assert_eq!(calls(), 5);
}

#[test]
fn a_growing_mapping_is_copied_once_the_system_has_failed_to_move_one() {
    let mut source = source();
    let mapping = map_large(&mut source, 4 * SLOT);
    let _behind = map(&mut source);
    fill(mapping.start, mapping.bytes, 7);
    // The third call moves the pages. The first two make slots writable and check the mapping.
    refuse(Plan::Nth(3));
    let grown = resize(&mut source, mapping, 6 * SLOT);
    refuse(Plan::Never);
    assert!(is_filled(grown.start, 0..4 * SLOT, 7));
    assert!(!source.range.as_ref().unwrap().can_move);
    // One of these arenas takes the slot that the mapping needs in order to grow in place.
    while map(&mut source) < grown.start {}
    source.trim();
    let before = writable_bytes(&mut source);
    // The source has failed to move pages before, so it must now copy them. A source that tried to
    // move them would first make three system calls, which add slots, make them writable and check
    // the old mapping. Its fourth call would move the pages. We let the fourth call fail, so such a
    // source would lose slots.
    refuse(Plan::Nth(4));
    let copied = resize(&mut source, grown, 9 * SLOT);
    refuse(Plan::Never);
    assert!(is_filled(copied.start, 0..4 * SLOT, 7));
    unmap_large(&mut source, copied);
    source.trim();
    assert_eq!(writable_bytes(&mut source), before - 6 * SLOT);
}

#[test]
fn a_mapping_shrinks_in_place_and_the_pages_behind_are_given_back() {
    let mut source = source();
    let mapping = map_large(&mut source, 6 * SLOT);
    fill(mapping.start, mapping.bytes, 7);
    refuse(Plan::Never);
    let small = resize(&mut source, mapping, 2 * SLOT + 5000);
    assert_eq!((small.start, small.bytes, calls()), (mapping.start, 2 * SLOT + 8192, 2));
    assert!(is_filled(small.start, 0..small.bytes, 7));
    assert_eq!(writable_bytes(&mut source), 3 * SLOT);
    let grown = resize(&mut source, small, 6 * SLOT);
    assert!(grown.is_zeroed);
    assert!(is_filled(grown.start, small.bytes..6 * SLOT, 0));
}

#[test]
fn pages_that_could_not_be_given_back_are_not_called_zero() {
    let mut source = source();
    let mapping = map_large(&mut source, SLOT);
    fill(mapping.start, mapping.bytes, 7);
    refuse(Plan::Nth(1));
    let small = resize(&mut source, mapping, 4096);
    refuse(Plan::Never);
    assert_eq!(small.start, mapping.start);
    assert!(!resize(&mut source, small, SLOT).is_zeroed);
}

#[derive(Clone, Debug)]
enum Step {
    Map(usize),
    Unmap(usize),
    Resize(usize, usize),
    Arena,
    UnmapArena(usize),
    Wait,
    Trim,
    UseHugePages(HugePages),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || (1..6 * SLOT).prop_map(|bytes| bytes);
    let huge =
        prop_oneof![Just(HugePages::Off), Just(HugePages::Advise), Just(HugePages::Explicit)];
    let step = prop_oneof![
        bytes().prop_map(Step::Map),
        any::<usize>().prop_map(Step::Unmap),
        (any::<usize>(), bytes()).prop_map(|(nth, bytes)| Step::Resize(nth, bytes)),
        Just(Step::Arena),
        any::<usize>().prop_map(Step::UnmapArena),
        Just(Step::Wait),
        Just(Step::Trim),
        huge.prop_map(Step::UseHugePages),
    ];
    prop::collection::vec(step, 1..40)
}

fn plans() -> impl Strategy<Value = Plan> {
    let nth = (1..60_usize).prop_map(Plan::Nth);
    prop_oneof![Just(Plan::Never), nth, (1..9_usize).prop_map(Plan::EachNth)]
}

/// Live mappings, each with the byte that fills it.
type Live = Vec<(LargeMapping, u8)>;

fn assert_zero_if_promised(mapping: LargeMapping, from: usize) {
    if mapping.is_zeroed && from < mapping.bytes {
        assert!(is_filled(mapping.start, from..mapping.bytes, 0), "{mapping:?} is not zero");
    }
}

/// Returns the number of pages after the live mappings that may be backed by memory.
fn tails_of(range: &ReservedRange, live: &Live) -> usize {
    let inside = live.iter().filter(|(mapping, _)| range.contains(mapping.start.addr().get()));
    inside
        .map(|(mapping, _)| {
            range.tail_of(&range.run_of(mapping.start, mapping.bytes), mapping.bytes)
        })
        .sum()
}

fn live_through(plan: Plan, steps: &[Step]) {
    let mut source = source();
    let (mut live, mut arenas): (Live, Live) = (Vec::new(), Vec::new());
    refuse(plan);
    for (number, step) in steps.iter().enumerate() {
        let byte = u8::try_from(number + 1).unwrap();
        match *step {
            Step::Map(bytes) => {
                let Ok(mapping) = source.map_large(bytes, SIZE) else { continue };
                assert!(mapping.bytes >= bytes && mapping.start.addr().get() % SLOT == 0);
                assert_zero_if_promised(mapping, 0);
                fill(mapping.start, mapping.bytes, byte);
                live.push((mapping, byte));
            }
            Step::Unmap(nth) if !live.is_empty() => {
                let (mapping, _) = live.swap_remove(nth % live.len());
                unmap_large(&mut source, mapping);
            }
            Step::Resize(nth, bytes) if !live.is_empty() => {
                let nth = nth % live.len();
                let (old, byte) = live[nth];
                // SAFETY: the mapping is live. If the call fails, the mapping is unchanged.
                let new = unsafe { resize_or_copy(&mut source, old.start, old.bytes, bytes, SIZE) };
                let Ok(new) = new else { continue };
                assert!(new.bytes >= bytes);
                assert!(is_filled(new.start, 0..old.bytes.min(new.bytes), byte), "{plan:?}");
                assert_zero_if_promised(new, old.bytes);
                fill(new.start, new.bytes, byte);
                live[nth].0 = new;
            }
            Step::Arena => {
                let Ok(start) = source.map(SIZE) else { continue };
                fill(start, SLOT, byte);
                arenas.push((LargeMapping { start, bytes: SLOT, is_zeroed: false }, byte));
            }
            Step::UnmapArena(nth) if !arenas.is_empty() => {
                let (arena, _) = arenas.swap_remove(nth % arenas.len());
                unmap(&mut source, arena.start);
            }
            Step::Wait => wait(SECOND / 3),
            Step::Trim => {
                source.trim();
            }
            Step::UseHugePages(huge) => source.use_huge_pages(huge),
            _ => continue,
        }
        for (mapping, byte) in live.iter().chain(&arenas) {
            assert!(is_filled(mapping.start, 0..mapping.bytes, *byte), "{plan:?}");
        }
        if let Some(range) = &source.range
            && plan == Plan::Never
        {
            assert!(range.slots.retained_count() <= range.demand.allowed());
            assert_eq!(range.tails, tails_of(range, &live));
        }
    }
    refuse(Plan::Never);
    live.into_iter().for_each(|(mapping, _)| unmap_large(&mut source, mapping));
    arenas.into_iter().for_each(|(arena, _)| unmap(&mut source, arena.start));
    source.trim();
    if source.range.is_some() {
        assert_eq!(retained(&mut source), 0);
        let (writable, left_over) = (writable_bytes(&mut source), source.retained_bytes());
        let uses_huge = steps.iter().any(|step| matches!(step, Step::UseHugePages(_)));
        assert!(
            writable == 0 || uses_huge || plan != Plan::Never,
            "{writable} bytes are still writable"
        );
        assert!(left_over == 0 || plan != Plan::Never, "{left_over} bytes are still in memory");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn live_memory_stays_intact_whichever_system_call_is_refused(
        plan in plans(),
        steps in steps(),
    ) {
        live_through(plan, &steps);
    }
}
