//! Tests of huge pages.

use core::{ops::Range, ptr::NonNull};
use std::{fs, time::Duration, vec::Vec};

use crate::{
    ArenaSource, HUGE_PAGE, HugePages,
    pages::{self, Access},
    reserved::testing::*,
};

/// The number of slots in a huge page.
const SLOTS: usize = HUGE_PAGE / SLOT;

fn source_with(huge: HugePages) -> Source {
    let mut source = source();
    source.use_huge_pages(huge);
    source
}

/// Maps `count` arenas and writes to all their pages.
fn fill_arenas(source: &mut Source, count: usize) -> Vec<NonNull<u8>> {
    let arenas: Vec<_> = (0..count).map(|_| map(source)).collect();
    arenas.iter().for_each(|arena| fill(*arena, SLOT, 7));
    arenas
}

/// Returns the number of bytes of `addresses` that are in memory, and how many of these are in huge
/// pages.
fn in_memory(addresses: Range<usize>) -> (usize, usize) {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut is_inside, mut resident, mut huge) = (false, 0, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Some((start, end)) = name.split_once('-') {
            let address = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            is_inside = address(start) >= addresses.start && address(end) <= addresses.end;
        }
        let bytes = || value.parse::<usize>().unwrap_or(0) << 10;
        match name {
            "Rss:" if is_inside => resident += bytes(),
            "AnonHugePages:" if is_inside => huge += bytes(),
            _ => {}
        }
    }
    (resident, huge)
}

/// Returns the addresses of the range and of the page after it.
fn whole(source: &Source) -> Range<usize> {
    addresses(source).start..addresses(source).end + pages::page_size()
}

/// Returns true if the system uses huge pages for memory with that advice, and for no other memory.
fn system_takes_advice() -> bool {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    setting.is_ok_and(|setting| setting.contains("[madvise]"))
}

#[test]
fn arenas_are_in_huge_pages_only_if_a_setting_asks_for_them() {
    for huge in [HugePages::Off, HugePages::Advise, HugePages::Explicit] {
        let mut source = source_with(huge);
        let _arenas = fill_arenas(&mut source, 4 * SLOTS);
        assert!(source.reserved().start.is_multiple_of(HUGE_PAGE) || !huge.is_on());
        let (resident, in_huge) = in_memory(whole(&source));
        assert!(resident >= 4 * HUGE_PAGE, "{huge:?}: {resident} bytes are in memory");
        if system_takes_advice() {
            assert_eq!(in_huge >= HUGE_PAGE, huge.is_on(), "{huge:?}: {in_huge} bytes");
        }
    }
}

#[test]
fn a_huge_page_goes_back_when_none_of_its_slots_is_used() {
    let mut source = source_with(HugePages::Advise);
    let mut arenas = fill_arenas(&mut source, 2 * SLOTS);
    let last = arenas.remove(SLOTS / 2);
    refuse(Plan::Never);
    for arena in arenas.drain(..SLOTS - 1) {
        unmap(&mut source, arena);
    }
    assert_eq!((calls(), source.retained_bytes()), (0, (SLOTS - 1) * SLOT));
    assert_eq!(in_memory(whole(&source)).0, 2 * HUGE_PAGE);
    unmap(&mut source, last);
    assert_eq!((calls(), source.retained_bytes()), (1, 0));
    assert_eq!(in_memory(whole(&source)).0, HUGE_PAGE);
    assert!(arenas.iter().all(|arena| is_filled(*arena, 0..SLOT, 7)));
}

#[test]
fn a_trim_breaks_huge_pages_apart_and_counts_what_it_gives_back() {
    let mut source = source_with(HugePages::Advise);
    let mut arenas = fill_arenas(&mut source, SLOTS);
    let left = arenas.split_off(SLOTS - 1);
    arenas.into_iter().for_each(|arena| unmap(&mut source, arena));
    assert_eq!(in_memory(whole(&source)).0, HUGE_PAGE);
    assert_eq!(source.trim(), (SLOTS - 1) * SLOT);
    assert_eq!((in_memory(whole(&source)).0, source.retained_bytes()), (SLOT, 0));
    assert!(is_filled(left[0], 0..SLOT, 7));
    assert_eq!(source.trim(), 0);
}

#[test]
fn a_slot_that_kept_its_memory_is_not_called_zero() {
    let mut source = source_with(HugePages::Advise);
    let arenas = fill_arenas(&mut source, 3);
    unmap(&mut source, arenas[1]);
    let (again, contents) = source.map_with_contents(SIZE).unwrap();
    assert_eq!((again, contents), (arenas[1], crate::Contents::Unknown));
    assert!(is_filled(again, 0..SLOT, 7));
    unmap(&mut source, again);
    source.trim();
    let (again, contents) = source.map_with_contents(SIZE).unwrap();
    assert_eq!((again, contents), (arenas[1], crate::Contents::Zero));
    assert!(is_filled(again, 0..SLOT, 0));
}

#[test]
fn a_range_whose_memory_cannot_be_returned_does_not_grow() {
    let mut source = source_with(HugePages::Advise);
    let mut length = 0;
    for turn in 0..6 {
        let mapping = map_large(&mut source, 2 * SLOTS * SLOT);
        for huge_page in [0, HUGE_PAGE] {
            // The system purges no range with a locked page.
            // SAFETY: the page lies in the mapping.
            let code = unsafe { libc::mlock(mapping.start.add(huge_page).as_ptr().cast(), 1) };
            assert_eq!(code, 0, "a page can be locked");
        }
        unmap_large(&mut source, mapping);
        wait(Duration::from_secs(10));
        source.decay();
        if turn == 0 {
            length = addresses(&source).len();
        }
        assert_eq!((turn, addresses(&source).len()), (turn, length));
    }
}

#[test]
fn a_range_that_exists_already_can_use_huge_pages() {
    let mut source = source();
    let arenas = fill_arenas(&mut source, 5);
    unmap(&mut source, arenas[3]);
    source.use_huge_pages(HugePages::Advise);
    assert_eq!(writable_bytes(&mut source), whole(&source).len());
    let more = fill_arenas(&mut source, 12 * SLOTS);
    assert_eq!(writable_bytes(&mut source), whole(&source).len());
    for arena in [0, 1, 2, 4].map(|nth| arenas[nth]).iter().chain(&more) {
        assert!(is_filled(*arena, 0..SLOT, 7));
        unmap(&mut source, *arena);
    }
    source.trim();
    assert_eq!((in_memory(whole(&source)).0, source.retained_bytes()), (0, 0));
}

#[test]
fn without_huge_pages_in_the_system_arenas_consist_of_small_ones() {
    refuse(Plan::EachNth(1));
    let mut source = source();
    source.use_huge_pages(HugePages::Explicit);
    // The system refuses every call, so there is no range.
    assert!(source.map(SIZE).is_err());
    refuse(Plan::Never);
    let mut source = self::source();
    let _first = map(&mut source);
    // The system refuses this advice and all later ones.
    refuse(Plan::Nth(2));
    source.use_huge_pages(HugePages::Explicit);
    refuse(Plan::EachNth(1));
    let arenas = fill_arenas(&mut source, 2 * SLOTS);
    refuse(Plan::Never);
    assert!(arenas.iter().all(|arena| is_filled(*arena, 0..SLOT, 7)));
    assert!(source.reserved().contains(&arenas[SLOTS].addr().get()));
}

#[test]
fn a_range_that_cannot_be_made_writable_goes_on_without_huge_pages() {
    let mut source = source();
    let arenas = fill_arenas(&mut source, 2);
    refuse(Plan::Nth(1));
    source.use_huge_pages(HugePages::Advise);
    refuse(Plan::Never);
    unmap(&mut source, arenas[0]);
    assert_eq!(writable_bytes(&mut source), SLOT);
}

/// Forks a child that writes to all pages of `arenas`.
///
/// Returns true if the child survives and each process sees only its own writes.
fn child_can_write_to(arenas: &[NonNull<u8>]) -> bool {
    // SAFETY: the child only writes to memory that is mapped, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        arenas.iter().for_each(|arena| fill(*arena, SLOT, 8));
        let is_intact = arenas.iter().all(|arena| is_filled(*arena, 0..SLOT, 8));
        // SAFETY: the call ends the child without running anything else.
        unsafe { libc::_exit(if is_intact { 0 } else { 1 }) };
    }
    arenas.iter().for_each(|arena| fill(*arena, SLOT, 9));
    let mut status = 1;
    // SAFETY: the pointer is valid.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    status == 0 && arenas.iter().all(|arena| is_filled(*arena, 0..SLOT, 9))
}

#[test]
fn a_fork_needs_no_reserved_pool_of_huge_pages() {
    for huge in [HugePages::Advise, HugePages::Explicit] {
        let mut source = source_with(huge);
        let arenas = fill_arenas(&mut source, 4 * SLOTS);
        assert!(child_can_write_to(&arenas), "{huge:?}");
    }
}

#[test]
fn free_slots_are_inaccessible_only_without_huge_pages() {
    use super::ReservedRange;

    assert_eq!(ReservedRange::access_when_free(HugePages::Off), Access::Reserved);
    assert_eq!(ReservedRange::access_when_free(HugePages::Explicit), Access::ReadWriteUnchecked);
}
