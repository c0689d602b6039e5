//! Code that the tests of this module share.

use std::cell::Cell;

pub(super) use crate::{
    errno,
    pages::refusals::{Plan, calls, refuse},
};

use super::*;
use crate::{MmapArenas, resize_or_copy, testing::mappings};

pub(super) const SLOT: usize = 1 << 16;
pub(super) const SIZE: ArenaSize = ArenaSize::new(SLOT).unwrap();

pub(super) type Source = ReservedArenas<MmapArenas>;

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::from_secs(1000)) };
}

/// Creates a source with a clock that only [`wait`] advances.
pub(super) fn source() -> Source {
    ReservedArenas::with_clock(MmapArenas::new(), || NOW.get())
}

pub(super) fn wait(time: Duration) {
    NOW.set(NOW.get() + time);
}

pub(super) fn map(source: &mut Source) -> NonNull<u8> {
    source.map(SIZE).unwrap()
}

pub(super) fn unmap(source: &mut Source, arena: NonNull<u8>) {
    // SAFETY: the tests unmap each arena once, and only arenas of this source.
    unsafe { source.unmap(arena, SIZE) }
}

pub(super) fn map_large(source: &mut Source, bytes: usize) -> LargeMapping {
    source.map_large(bytes, SIZE).unwrap()
}

pub(super) fn unmap_large(source: &mut Source, mapping: LargeMapping) {
    // SAFETY: the tests unmap each mapping once, and only mappings of this source.
    unsafe { source.unmap_large(mapping.start, mapping.bytes, SIZE) }
}

/// Maps and unmaps `slots` slots once, so that the same number of slots is retained the next time.
pub(super) fn show_demand(source: &mut Source, slots: usize) {
    let mapping = map_large(source, slots * SLOT);
    unmap_large(source, mapping);
    assert_eq!(retained(source), 0);
}

pub(super) fn resize(source: &mut Source, mapping: LargeMapping, bytes: usize) -> LargeMapping {
    // SAFETY: the tests continue with the result.
    unsafe { resize_or_copy(source, mapping.start, mapping.bytes, bytes, SIZE) }.unwrap()
}

/// Writes `byte` to the start and to the end of every page.
pub(super) fn fill(start: NonNull<u8>, bytes: usize, byte: u8) {
    for at in (0..bytes).step_by(4096).flat_map(|page| [page, page + 4095]) {
        // SAFETY: the memory is mapped, has `bytes` bytes, and belongs to the test.
        unsafe { start.add(at).write(byte) };
    }
}

/// Returns true if `byte` is at the start of every page of `part`, and at the end of `part`.
pub(super) fn is_filled(start: NonNull<u8>, part: core::ops::Range<usize>, byte: u8) -> bool {
    let last = part.end - 1;
    // SAFETY: the memory is mapped, is long enough, and belongs to the test.
    part.step_by(4096).chain([last]).all(|at| unsafe { start.add(at).read() } == byte)
}

pub(super) fn slot_of(source: &mut Source, start: NonNull<u8>) -> usize {
    (start.addr().get() - source.reserved().start) / SLOT
}

pub(super) fn range(source: &mut Source) -> &mut ReservedRange {
    source.range.as_mut().expect("there is a range")
}

pub(super) fn retained(source: &mut Source) -> usize {
    source.range.as_ref().map_or(0, |range| range.slots.retained_count())
}

/// Returns the addresses of all slots, including those that were never used.
pub(super) fn addresses(source: &Source) -> core::ops::Range<usize> {
    let range = source.range.as_ref().expect("there is a range");
    let base = range.addresses().start;
    base..base + range.slots.len() * range.slot_size().bytes()
}

/// Returns the number of writable bytes in the range. Asserts that the range has no hole.
pub(super) fn writable_bytes(source: &mut Source) -> usize {
    // The page after the slots is reserved as well.
    let (base, end) = (addresses(source).start, addresses(source).end + 4096);
    let (mut at, mut writable) = (base, 0);
    for mapping in mappings() {
        let (start, stop) = (mapping.start.max(base), mapping.end.min(end));
        if start < stop {
            assert_eq!(start, at, "the range has a hole");
            at = stop;
            writable += if mapping.permissions.starts_with("rw") { stop - start } else { 0 };
        }
    }
    assert_eq!(at, end, "the range has a hole at its end");
    writable
}
