//! Tests of the range's address and growth, and of requests for which the range has no room.

use core::{ops::Range, ptr::NonNull, time::Duration};
use std::{env, os::unix::process::CommandExt, process::Command, vec::Vec};

use proptest::prelude::*;

use super::{STARTS, random_starts, reserve_slots};
use crate::{
    ArenaSize, ArenaSource, RESERVED_BYTES,
    pages::{self, Access},
    reserved::testing::*,
    testing::{alone, mappings},
};

const MIB: usize = 1 << 20;

const VARIABLE: &str = "RAW_MEM_LIMITED";

/// Runs the test `name` of this executable again in a process with an address space of 4 GiB.
fn run_limited(name: &str) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--test-threads", "1"]).env(VARIABLE, "1");
    let limit = || {
        let limit = libc::rlimit { rlim_cur: 4 << 30, rlim_max: 4 << 30 };
        // SAFETY: the pointer is valid, and `setrlimit` may be called between fork and exec.
        let outcome = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure only makes a system call.
    unsafe { command.pre_exec(limit) };
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success() && text.contains("1 passed")
}

#[test]
fn the_range_begins_small_in_an_empty_part_of_the_address_space() {
    let mut source = source();
    let _arena = map(&mut source);
    assert_eq!(addresses(&source).len(), 16 * MIB);
    assert!(STARTS.contains(&addresses(&source).start));
    let mut other = self::source();
    let _other = map(&mut other);
    assert_ne!(source.reserved().start, other.reserved().start);
}

#[test]
fn a_range_whose_first_place_is_taken_has_another_one_far_away() {
    let starts = random_starts(0, SLOT);
    assert!(starts[0].abs_diff(starts[1]) > 1 << 40);
    let reserve = || reserve_slots(starts, 256, SIZE, SLOT, Access::Reserved).unwrap().0;
    let ranges = [reserve(), reserve(), reserve()];
    assert_eq!([ranges[0].addr().get(), ranges[1].addr().get()], starts);
    assert!(ranges[2].addr().get().is_multiple_of(SLOT));
    for range in ranges {
        // SAFETY: the pages were mapped above, and nothing uses them.
        unsafe { pages::unmap(range, 256 * SLOT + pages::page_size()) }.unwrap();
    }
}

#[test]
fn the_range_grows_by_at_least_a_half_and_its_start_stays() {
    let mut source = source();
    let start = map(&mut source).addr().get();
    for (bytes, expected) in [(MIB, 16), (16 * MIB, 24), (MIB, 24), (40 * MIB, 58), (MIB, 87)] {
        let mapping = map_large(&mut source, bytes);
        fill(mapping.start, SLOT, 1);
        let (used, all) = (source.reserved(), addresses(&source));
        assert_eq!((used.start, all.start, all.len() / MIB), (start, start, expected), "{bytes}");
        assert_eq!(used.end, mapping.start.addr().get() + bytes);
    }
    writable_bytes(&mut source);
}

#[test]
fn the_last_mapping_grows_in_place_beyond_the_range() {
    let mut source = source();
    let mapping = map_large(&mut source, 3 * SLOT);
    fill(mapping.start, mapping.bytes, 5);
    let grown = resize(&mut source, mapping, 100 * MIB);
    assert_eq!((grown.start, addresses(&source).len()), (mapping.start, 100 * MIB));
    assert_eq!(source.reserved().len(), 100 * MIB);
    assert!(is_filled(grown.start, 0..mapping.bytes, 5));
    // SAFETY: the mapping is in use and has this many bytes.
    fill(unsafe { grown.start.add(grown.bytes - SLOT) }, SLOT, 6);
}

#[test]
fn arenas_beyond_the_first_slots_lie_in_the_range() {
    let mut source = source();
    let arenas: Vec<_> = (0..1000).map(|_| map(&mut source)).collect();
    for (nth, arena) in arenas.iter().enumerate() {
        assert_eq!(slot_of(&mut source, *arena), nth);
    }
    // The range has 256 slots at first, and then 384, 576, 864 and 1296.
    assert_eq!(addresses(&source).len(), 1296 * SLOT);
    arenas.into_iter().for_each(|arena| unmap(&mut source, arena));
}

#[test]
fn if_the_range_cannot_grow_the_wrapped_source_serves_the_request() {
    let mut source = source();
    let arena = map(&mut source);
    let end = NonNull::new(core::ptr::without_provenance_mut(addresses(&source).end + 4096));
    let obstacle = end.unwrap();
    pages::map_at(obstacle, 4096, Access::Reserved).unwrap();
    let elsewhere = map_large(&mut source, 16 * MIB);
    assert!(!source.reserved().contains(&elsewhere.start.addr().get()));
    fill(elsewhere.start, SLOT, 1);
    assert!(is_filled(arena, 0..SLOT, 0));
    // SAFETY: the page was mapped above.
    unsafe { pages::unmap(obstacle, 4096) }.unwrap();
    let inside = map_large(&mut source, 16 * MIB);
    assert!(source.reserved().contains(&inside.start.addr().get()));
    unmap_large(&mut source, elsewhere);
}

#[test]
fn if_the_system_refuses_ample_growth_the_range_grows_as_far_as_necessary() {
    let mut source = source();
    let _all = map_large(&mut source, 16 * MIB);
    refuse(Plan::Nth(1));
    let arena = map(&mut source);
    refuse(Plan::Never);
    assert_eq!(slot_of(&mut source, arena), 256);
    assert_eq!(addresses(&source).len(), 16 * MIB + SLOT);
}

#[test]
fn the_range_never_exceeds_its_largest_size() {
    // The ranges of other tests may lie where this range has to grow.
    alone("reserved::range::tests::the_range_never_exceeds_its_largest_size", || {
        let mut source = source();
        // The system refuses a single mapping that is larger than the machine's memory.
        const PART: usize = 1 << 30;
        let parts = RESERVED_BYTES as usize / PART;
        let all: Vec<_> = (0..parts).map(|_| map_large(&mut source, PART)).collect();
        assert_eq!(source.reserved().len() as u64, RESERVED_BYTES);
        let arena = map(&mut source);
        assert!(!source.reserved().contains(&arena.addr().get()));
        unmap(&mut source, arena);
        all.into_iter().for_each(|part| unmap_large(&mut source, part));
    });
}

#[test]
fn a_trim_unmaps_slots_that_were_never_used() {
    alone("reserved::range::tests::a_trim_unmaps_slots_that_were_never_used", || {
        let mut source = source();
        let arenas: [_; 3] = std::array::from_fn(|_| map(&mut source));
        unmap(&mut source, arenas[2]);
        let all = addresses(&source);
        source.trim();
        let unused = addresses(&source).end + 4096..all.end + 4096;
        let is_mapped =
            mappings().iter().any(|other| other.start < unused.end && other.end > unused.start);
        assert!(!is_mapped);
        assert_eq!(source.reserved(), all.start..all.start + 3 * SLOT);
        let writable = writable_bytes(&mut source);
        assert_eq!((addresses(&source), writable), (source.reserved(), 2 * SLOT));
        refuse(Plan::Never);
        source.trim();
        assert_eq!(calls(), 0);
        let mapping = map_large(&mut source, 2 * SLOT);
        fill(mapping.start, mapping.bytes, 1);
        assert_eq!(mapping.start.addr().get(), all.start + 2 * SLOT);
    });
}

#[test]
fn slots_that_cannot_be_unmapped_stay_reserved() {
    let mut source = source();
    let _arena = map(&mut source);
    refuse(Plan::Nth(1));
    source.trim();
    refuse(Plan::Never);
    assert_eq!((addresses(&source).len(), writable_bytes(&mut source)), (16 * MIB, SLOT));
}

#[test]
fn in_a_limited_address_space_nearly_all_of_the_rest_can_be_used() {
    if env::var_os(VARIABLE).is_none() {
        let name = "reserved::range::tests::\
            in_a_limited_address_space_nearly_all_of_the_rest_can_be_used";
        assert!(run_limited(name));
        return;
    }
    let mut source = source();
    let arena = map(&mut source);
    let mut sizes = (0..3500).rev().map(|mebibytes| mebibytes * MIB);
    let large = sizes.find_map(|bytes| source.map_large(bytes, SIZE).ok()).unwrap();
    assert!(large.bytes > 3000 * MIB, "{large:?}");
    fill(large.start, MIB, 3);
    let small = resize(&mut source, large, SLOT);
    assert!(is_filled(small.start, 0..small.bytes, 3));
    unmap_large(&mut source, small);
    unmap(&mut source, arena);
}

#[test]
fn if_the_system_refuses_the_reservation_it_is_not_tried_again() {
    // The plans refuse the mapping for the bitmaps, both mappings for slots, and every call.
    for plan in [Plan::Nth(1), Plan::Between(2, 3), Plan::EachNth(1)] {
        let mut source = source();
        refuse(plan);
        let arena = source.map(SIZE);
        refuse(Plan::Never);
        let large = map_large(&mut source, SLOT);
        assert!(source.range.is_none() && source.reserved().is_empty());
        unmap_large(&mut source, large);
        arena.into_iter().for_each(|arena| unmap(&mut source, arena));
    }
}

#[test]
fn if_the_system_refuses_many_slots_the_range_begins_with_one() {
    let mut source = source();
    refuse(Plan::Nth(2));
    let arena = map(&mut source);
    refuse(Plan::Never);
    assert_eq!(addresses(&source).len(), SLOT);
    let next = map(&mut source);
    assert_eq!([arena, next].map(|arena| slot_of(&mut source, arena)), [0, 1]);
}

#[test]
fn arenas_that_are_smaller_than_a_slot_may_be_come_from_the_wrapped_source() {
    let mut source = source();
    let tiny = ArenaSize::new(64).unwrap();
    let arena = source.map(tiny).unwrap();
    assert!(source.reserved().is_empty());
    // SAFETY: the arena came from this source, and nothing uses it.
    unsafe { source.unmap(arena, tiny) };
}

/// Returns the parts of the range that are mappings of their own, and whether they are writable.
fn parts(source: &Source) -> Vec<(Range<usize>, bool)> {
    let all = addresses(source);
    let inside = mappings().into_iter().filter(|part| part.start < all.end && part.end > all.start);
    inside.map(|part| (part.start..part.end, part.permissions.starts_with("rw"))).collect()
}

/// Returns the number of runs of inaccessible memory in the range.
fn inaccessible_runs(source: &Source) -> usize {
    parts(source).chunk_by(|one, next| one.1 == next.1).filter(|run| !run[0].1).count()
}

#[test]
fn however_slots_become_free_the_range_has_few_mappings_and_is_inaccessible_in_the_end() {
    const ARENAS: usize = 200;
    const MOST: usize = 8;
    let ascending: Vec<_> = (0..ARENAS).collect();
    let descending: Vec<_> = ascending.iter().rev().copied().collect();
    let scattered: Vec<_> = ascending.iter().map(|nth| nth * 77 % ARENAS).collect();
    for order in [ascending, descending, scattered] {
        let mut source = source();
        let mut arenas: Vec<_> = (0..ARENAS).map(|_| map(&mut source)).collect();
        range(&mut source).most_closed_runs = MOST;
        arenas.iter().for_each(|arena| fill(*arena, SLOT, 1));
        // In the first round, the freed slots are used again.
        for (parity, again) in [(1, true), (1, false), (0, false)] {
            let freed = order.iter().copied().filter(|nth| nth % 2 == parity);
            for nth in freed.clone() {
                unmap(&mut source, arenas[nth]);
                let count = parts(&source).len();
                assert!(count <= 2 * MOST + 3, "{count} mappings");
            }
            for nth in freed.filter(|_| again) {
                arenas[nth] = map(&mut source);
                assert!(is_filled(arenas[nth], 0..SLOT, 0));
                fill(arenas[nth], SLOT, 2);
            }
            arenas.sort();
        }
        assert_eq!(writable_bytes(&mut source), 0);
    }
}

/// Maps five arenas. Frees the one in slot 1, which stays writable.
fn with_an_open_slot() -> (Source, Vec<NonNull<u8>>) {
    let mut source = source();
    let arenas: Vec<_> = (0..5).map(|_| map(&mut source)).collect();
    // The slots that were never used are the only closed run.
    range(&mut source).most_closed_runs = 1;
    fill(arenas[1], SLOT, 1);
    unmap(&mut source, arenas[1]);
    assert_eq!((writable_bytes(&mut source), retained(&mut source)), (5 * SLOT, 0));
    range(&mut source).most_closed_runs = 8;
    (source, arenas)
}

#[test]
fn a_trim_makes_writable_free_slots_inaccessible_when_there_are_fewer_runs() {
    let (mut source, arenas) = with_an_open_slot();
    source.trim();
    assert_eq!(writable_bytes(&mut source), 4 * SLOT);
    assert_eq!(map(&mut source), arenas[1]);
    assert!(is_filled(arenas[1], 0..SLOT, 0));
}

/// Regression test: the trim reported success, so a request that failed was repeated in vain.
#[test]
fn a_trim_in_which_every_system_call_fails_reports_that_it_did_nothing() {
    let (mut source, _) = with_an_open_slot();
    refuse(Plan::EachNth(1));
    let did_anything = range(&mut source).trim();
    refuse(Plan::Never);
    assert!(!did_anything);
}

#[test]
fn writable_free_slots_are_lost_if_they_may_no_longer_be_mapped() {
    let (mut source, arenas) = with_an_open_slot();
    refuse(Plan::EachNth(1));
    unmap(&mut source, arenas[2]);
    refuse(Plan::Never);
    let next = map(&mut source);
    assert_eq!(slot_of(&mut source, next), 5);
}

#[derive(Clone, Debug)]
enum Step {
    Map(usize),
    Resize(usize, usize),
    Unmap(usize),
    Wait,
    Trim,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Map(1)),
        2 => (1..9_usize).prop_map(Step::Map),
        2 => (any::<usize>(), 1..9_usize).prop_map(|(nth, slots)| Step::Resize(nth, slots)),
        5 => any::<usize>().prop_map(Step::Unmap),
        1 => Just(Step::Wait),
        1 => Just(Step::Trim),
    ];
    prop::collection::vec(step, 1..100)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_number_of_inaccessible_runs_is_known_and_limited(steps in steps(), most in 1..4_usize) {
        let mut source = source();
        let mut used: Vec<_> = (0..40).map(|_| map_large(&mut source, SLOT)).collect();
        range(&mut source).most_closed_runs = most;
        for step in steps {
            match step {
                Step::Map(slots) => {
                    let mapping = map_large(&mut source, slots * SLOT);
                    fill(mapping.start, mapping.bytes, 1);
                    used.push(mapping);
                }
                Step::Resize(nth, slots) if !used.is_empty() => {
                    let nth = nth % used.len();
                    let mapping = used.swap_remove(nth);
                    used.push(resize(&mut source, mapping, slots * SLOT));
                }
                Step::Unmap(nth) if !used.is_empty() => {
                    let nth = nth % used.len();
                    let mapping = used.swap_remove(nth);
                    unmap_large(&mut source, mapping);
                }
                Step::Resize(..) | Step::Unmap(_) => {}
                Step::Wait => {
                    wait(Duration::from_secs(5));
                    source.decay();
                }
                Step::Trim => {
                    source.trim();
                }
            }
            let runs = range(&mut source).slots.closed_runs();
            // The slots that were never used are one more run.
            prop_assert!(runs <= most + 1, "{runs} runs");
            prop_assert_eq!(inaccessible_runs(&source), runs);
        }
    }
}
