//! A source that maps arenas from the operating system.
//!
//! The operating system aligns a mapping only to the page size, so aligning a single arena takes
//! three extra system calls. To save most of these calls, the source reserves an aligned range of
//! addresses for several arenas at once:
//!
//! - A reservation covers a quarter as many arenas as are in use, but at least 1 and at most 17. It
//!   is unmapped once it has become too large for the arenas in use.
//! - Reserved arenas are not accessible, so they do not count against limits on data or committed
//!   memory.
//! - We store the address of an unmapped arena, because it is aligned and can be mapped again.
//! - A large mapping is mapped and unmapped on its own.
//! - A process may have only a limited number of mappings, so the system can refuse to unmap an
//!   arena. Such an arena serves a later request.

use core::ptr::NonNull;

use crate::{
    ArenaSize, ArenaSource, Contents, LargeMapping, MapError, OsCode, PurgeError, align_up,
    pages::{self, Access},
    preserving_errno,
};

/// The largest number of arenas to reserve at once. Alignment can add one more.
const MOST_RESERVED: usize = 16;

/// The ratio of arenas in use to reserved arenas.
const RESERVED_SHARE: usize = 4;

/// The number of addresses of unmapped arenas that the source remembers.
const MOST_PLACES: usize = 32;

/// A source that maps arenas from the operating system, as private anonymous mappings.
///
/// Dropping the source does not unmap the arenas that are still in use.
///
/// ```
/// use raw_mem::{ArenaSize, ArenaSource, MmapArenas};
///
/// let size = ArenaSize::new(1 << 20).unwrap();
/// let mut source = MmapArenas::new();
/// let arena = source.map(size)?;
/// assert_eq!(arena.addr().get() % size.bytes(), 0);
/// // SAFETY: it was mapped just now, and nothing uses it.
/// unsafe { source.unmap(arena, size) };
/// # Ok::<(), raw_mem::MapError>(())
/// ```
#[derive(Debug)]
pub struct MmapArenas {
    reserved: Option<Reserved>,
    /// The total size of the arenas in use, in bytes.
    in_use: usize,
    unmapped: Places,
    retained: Option<NonNull<Retained>>,
}

/// Adjacent arenas whose addresses are reserved but not yet accessible.
#[derive(Debug)]
struct Reserved {
    /// # Invariant
    ///
    /// - The source owns `count` adjacent arenas, each `bytes` bytes long. The first one begins at
    ///   `start`. Their memory is mapped but not accessible.
    /// - `start` is a multiple of `bytes`.
    start: NonNull<u8>,
    count: usize,
    /// The size of one arena, in bytes.
    bytes: usize,
}

/// The list entry at the start of an arena or large mapping that the system refused to unmap.
#[derive(Debug)]
struct Retained {
    next: Option<NonNull<Self>>,
    bytes: usize,
}

/// The addresses of recently unmapped arenas, in the order in which they were unmapped.
#[derive(Debug)]
struct Places {
    addresses: [usize; MOST_PLACES],
    count: usize,
}

// SAFETY: the source exclusively owns its mappings, and mappings are not tied to a thread.
unsafe impl Send for MmapArenas {}

impl MmapArenas {
    /// Creates a source that has mapped nothing yet.
    pub const fn new() -> Self {
        Self {
            reserved: None,
            in_use: 0,
            unmapped: Places { addresses: [0; MOST_PLACES], count: 0 },
            retained: None,
        }
    }

    /// Returns memory for an arena. Uses the method that needs the fewest system calls.
    ///
    /// The memory is zero, unless it belongs to an arena that the system has previously refused to
    /// unmap.
    fn take(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        let bytes = mapped_bytes(size);
        if let Some(arena) = self.take_retained(bytes) {
            return Ok((arena, Contents::Unknown));
        }
        Ok((self.take_new(size, bytes)?, Contents::Zero))
    }

    fn take_new(&mut self, size: ArenaSize, bytes: usize) -> Result<NonNull<u8>, MapError> {
        if self.reserved.as_ref().is_none_or(|reserved| reserved.bytes != bytes) {
            if let Some(arena) = self.map_where_unmapped(bytes) {
                return Ok(arena);
            }
            self.release_reserved();
            self.reserved = Some(Reserved::with_share_of(self.in_use, size)?);
        }
        self.take_reserved().map_err(|code| {
            self.release_reserved();
            MapError::Os { size, code }
        })
    }

    /// Makes the highest reserved arena writable and takes it.
    ///
    /// The arena above it is usually writable, so the system can merge the two mappings.
    fn take_reserved(&mut self) -> Result<NonNull<u8>, OsCode> {
        let Some(reserved) = &mut self.reserved else { return Err(OsCode(libc::ENOMEM)) };
        // SAFETY: the last arena lies inside the reserved range (invariant of `start`).
        let arena = unsafe { reserved.start.add((reserved.count - 1) * reserved.bytes) };
        // SAFETY: the source owns the arena, which is part of the range (invariant of `start`).
        unsafe { pages::make_writable(arena, reserved.bytes) }?;
        // INVARIANT: the last arena was taken, so the range still begins at `start`.
        reserved.count -= 1;
        if reserved.count == 0 {
            self.reserved = None;
        }
        Ok(arena)
    }

    /// Maps an arena at the most recently stored address, if that address is aligned and still
    /// free.
    fn map_where_unmapped(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let place = self.unmapped.pop().filter(|place| place % bytes == 0)?;
        let arena = pages::map(place, bytes, Access::ReadWrite).ok()?;
        if arena.addr().get() % bytes == 0 {
            return Some(arena);
        }
        self.give_back(arena, bytes);
        None
    }

    /// Takes the arena that the system last refused to unmap, if it has `bytes` bytes.
    fn take_retained(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let first = self.retained?;
        // SAFETY: the arena is still mapped, and `give_back` wrote a `Retained` at its start.
        let retained = unsafe { first.read() };
        // A large mapping may be aligned to less than its size.
        if retained.bytes != bytes || first.addr().get() % bytes != 0 {
            return None;
        }
        self.retained = retained.next;
        Some(first.cast())
    }

    /// Unmaps an arena. If the system refuses, retains the arena for a later request.
    fn give_back(&mut self, arena: NonNull<u8>, bytes: usize) {
        // SAFETY: every caller passes a whole mapped arena that nothing else uses.
        if unsafe { pages::unmap(arena, bytes) }.is_ok() {
            self.unmapped.push(arena.addr().get());
            return;
        }
        self.retain(arena, bytes);
    }

    /// Retains an arena or a large mapping that the system has refused to unmap.
    fn retain(&mut self, mapping: NonNull<u8>, bytes: usize) {
        let retained = mapping.cast::<Retained>();
        // SAFETY: unmapping failed, so the pages are still mapped and writable. The start of a page
        // is aligned and has room for a `Retained`.
        unsafe { retained.write(Retained { next: self.retained, bytes }) };
        self.retained = Some(retained);
    }

    /// Tries again to unmap the arenas that the system refused to unmap.
    fn release_retained(&mut self) {
        let mut next = self.retained.take();
        while let Some(retained) = next {
            // SAFETY: the arena is still mapped, and `give_back` wrote a `Retained` at its start.
            let Retained { next: others, bytes } = unsafe { retained.read() };
            self.give_back(retained.cast(), bytes);
            next = others;
        }
    }

    fn release_reserved(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            // SAFETY: the source owns the unused range (invariant of `start`). A failure loses only
            // addresses.
            let _ = unsafe { pages::unmap(reserved.start, reserved.count * reserved.bytes) };
        }
    }

    /// Unmaps the reservation if it has become too large for the arenas in use.
    fn shrink_reserved(&mut self) {
        let in_use = self.in_use;
        let is_large = |reserved: &Reserved| {
            in_use == 0 || reserved.count > 1 + arenas_to_reserve(in_use, reserved.bytes)
        };
        if self.reserved.as_ref().is_some_and(is_large) {
            self.release_reserved();
        }
    }
}

/// Returns the size of the mapping for an arena, which is at least a page.
fn mapped_bytes(size: ArenaSize) -> usize {
    size.bytes().max(pages::page_size())
}

/// Returns how many arenas of `bytes` bytes to reserve while `in_use` bytes are in use.
fn arenas_to_reserve(in_use: usize, bytes: usize) -> usize {
    (in_use / RESERVED_SHARE / bytes).clamp(1, MOST_RESERVED)
}

/// Returns the size in bytes of a large mapping with room for `bytes` bytes.
///
/// An arena map has only a single entry for the addresses within an arena's size from the start of
/// a large mapping. No other memory may lie there (contract of [`ArenaSource`]), so the mapping is
/// at least as large as an arena, even if `bytes` is less.
fn pages_of_large(bytes: usize, align: ArenaSize) -> Option<usize> {
    pages::whole_pages(bytes.max(mapped_bytes(align)))
}

impl Reserved {
    /// Reserves arenas in proportion to the `in_use` bytes. If the system refuses, reserves fewer.
    fn with_share_of(in_use: usize, size: ArenaSize) -> Result<Self, MapError> {
        let mut arenas = arenas_to_reserve(in_use, mapped_bytes(size));
        loop {
            // A mapping with room for one more arena always contains `arenas` aligned arenas.
            match Self::within(size, arenas + 1) {
                Err(_) if arenas > 1 => arenas /= 2,
                // A mapping of exactly one arena may still fit, and may be aligned by chance.
                Err(error) => return Self::within(size, 1).map_err(|_| error),
                reserved => return reserved,
            }
        }
    }

    /// Maps room for `arenas` arenas without access, and unmaps the unaligned ends.
    fn within(size: ArenaSize, arenas: usize) -> Result<Self, MapError> {
        let exhausted = MapError::Exhausted { size };
        let bytes = mapped_bytes(size);
        let all = bytes.checked_mul(arenas).filter(|all| *all <= isize::MAX as usize);
        let all = all.ok_or(exhausted)?;
        let mapping =
            pages::map(0, all, Access::Reserved).map_err(|code| MapError::Os { size, code })?;
        let before = align_up(mapping.addr().get(), bytes).ok_or(exhausted)? - mapping.addr().get();
        let count = all.saturating_sub(before) / bytes;
        let before = if count == 0 { all } else { before };
        // SAFETY: `before` is at most the length of the mapping.
        let start = unsafe { mapping.add(before) };
        // SAFETY: `before` bytes and `count` arenas together are at most as long as the mapping.
        let end = unsafe { start.add(count * bytes) };
        for (unaligned, length) in [(mapping, before), (end, all - before - count * bytes)] {
            if length > 0 {
                // SAFETY: nothing uses this part of the new mapping. A failure loses only
                // addresses.
                let _ = unsafe { pages::unmap(unaligned, length) };
            }
        }
        // INVARIANT: `start` is aligned, and the arenas from there are mapped without access.
        if count == 0 { Err(exhausted) } else { Ok(Self { start, count, bytes }) }
    }
}

impl Places {
    fn push(&mut self, address: usize) {
        if self.count == MOST_PLACES {
            self.addresses.rotate_left(1);
            self.count -= 1;
        }
        self.addresses[self.count] = address;
        self.count += 1;
    }

    fn pop(&mut self) -> Option<usize> {
        self.count = self.count.checked_sub(1)?;
        Some(self.addresses[self.count])
    }
}

impl Default for MmapArenas {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MmapArenas {
    fn drop(&mut self) {
        self.trim();
    }
}

// SAFETY: an arena is writable and aligned, and overlaps no other arena. It is returned again only
// after its user has passed it to `unmap`. The system maps zeroed pages.
unsafe impl ArenaSource for MmapArenas {
    /// Usually makes one system call, and four when it must reserve new addresses.
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        Ok(self.map_with_contents(size)?.0)
    }

    /// Usually makes one system call, and four when it must reserve new addresses.
    fn map_with_contents(&mut self, size: ArenaSize) -> Result<(NonNull<u8>, Contents), MapError> {
        let arena = self.take(size)?;
        self.in_use += mapped_bytes(size);
        Ok(arena)
    }

    /// Usually makes one system call. `errno` is unchanged.
    unsafe fn unmap(&mut self, arena: NonNull<u8>, size: ArenaSize) {
        let bytes = mapped_bytes(size);
        debug_assert!(bytes <= self.in_use, "an arena of another source");
        preserving_errno(|| {
            self.give_back(arena, bytes);
            self.in_use = self.in_use.saturating_sub(bytes);
            self.shrink_reserved();
        });
    }

    /// Makes one system call (`madvise`). `errno` is unchanged.
    unsafe fn purge(&mut self, start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
        // SAFETY: the range lies in a mapped arena and is no longer needed (contract of `purge`).
        unsafe { pages::purge_inside(start, len) }
    }

    /// Makes two or three system calls.
    fn map_large(&mut self, bytes: usize, align: ArenaSize) -> Result<LargeMapping, MapError> {
        let exhausted = MapError::LargeExhausted { bytes };
        let whole = pages_of_large(bytes, align).ok_or(exhausted)?;
        let start = pages::map_aligned(whole, mapped_bytes(align), Access::ReadWrite)
            .map_err(|code| MapError::LargeOs { bytes, code })?;
        Ok(LargeMapping { start, bytes: whole, is_zeroed: true })
    }

    /// Usually makes one system call. `errno` is unchanged.
    unsafe fn unmap_large(&mut self, start: NonNull<u8>, bytes: usize, _align: ArenaSize) {
        preserving_errno(|| {
            // SAFETY: the mapping consists of whole pages, and nothing uses it (contract).
            if unsafe { pages::unmap(start, bytes) }.is_err() {
                // SAFETY: as above.
                let _ = unsafe { pages::purge(start, bytes) };
                self.retain(start, bytes);
            }
        });
    }

    /// Makes at most one system call. Grows only if the addresses after the mapping are free.
    unsafe fn resize_large(
        &mut self,
        start: NonNull<u8>,
        old: usize,
        new: usize,
        align: ArenaSize,
    ) -> Result<LargeMapping, MapError> {
        let exhausted = MapError::LargeExhausted { bytes: new };
        let bytes = pages_of_large(new, align).ok_or(exhausted)?;
        // SAFETY: the pages belong to the mapping. The pages after `bytes` are no longer needed.
        match unsafe { pages::resize(start, old, bytes) } {
            Ok(()) => Ok(LargeMapping { start, bytes, is_zeroed: true }),
            // The system refused to unmap the pages after `bytes`, so they still belong to the
            // mapping.
            Err(_) if bytes < old => Ok(LargeMapping { start, bytes: old, is_zeroed: true }),
            Err(code) => Err(MapError::LargeOs { bytes: new, code }),
        }
    }

    /// Unmaps only addresses that are not backed by memory, so the result is 0.
    fn trim(&mut self) -> usize {
        preserving_errno(|| {
            self.release_reserved();
            self.release_retained();
        });
        0
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{fs, vec::Vec};

    use super::*;
    use crate::{
        errno,
        pages::refusals::{Plan, calls, refuse},
        resize_or_copy,
        testing::{alone, permissions_at},
    };

    const SIZE: ArenaSize = ArenaSize::new(1 << 20).unwrap();

    fn map(source: &mut MmapArenas) -> NonNull<u8> {
        source.map(SIZE).unwrap()
    }

    fn unmap(source: &mut MmapArenas, arena: NonNull<u8>) {
        // SAFETY: the tests unmap each arena once, and only arenas of this source.
        unsafe { source.unmap(arena, SIZE) }
    }

    fn fill(arena: NonNull<u8>, byte: u8) {
        // SAFETY: the arena is mapped, and only this test uses it.
        unsafe { arena.write_bytes(byte, 4096) };
        // SAFETY: as above.
        unsafe { arena.add(SIZE.bytes() - 64).write_bytes(byte, 64) };
    }

    fn is_filled(arena: NonNull<u8>, byte: u8) -> bool {
        // SAFETY: the arena is mapped, and only this test uses it.
        let contents = unsafe { core::slice::from_raw_parts(arena.as_ptr(), SIZE.bytes()) };
        let (first, rest) = contents.split_at(4096);
        first.iter().chain(&rest[rest.len() - 64..]).all(|found| *found == byte)
    }

    fn reserved(source: &MmapArenas) -> usize {
        source.reserved.as_ref().map_or(0, |reserved| reserved.count)
    }

    fn is_mapped(arena: NonNull<u8>) -> bool {
        permissions_at(arena.addr().get()).is_some()
    }

    /// Returns the size of the process's address space in bytes.
    #[cfg(target_os = "linux")]
    fn address_space() -> usize {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').next().unwrap().parse::<usize>().unwrap() * 4096
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn reserved_arenas_of_another_size_are_unmapped() {
        let mut source = MmapArenas::new();
        let sizes = [SIZE, ArenaSize::new(2 << 20).unwrap()];
        let before = address_space();
        let mut arenas = Vec::new();
        for size in sizes.into_iter().cycle().take(400) {
            arenas.push((source.map(size).unwrap(), size));
        }
        let growth = address_space() - before;
        assert!(growth < 3 << 30, "600 MiB of arenas need {growth} bytes");
        for (arena, size) in arenas {
            // SAFETY: the arena came from this source, and nothing uses it.
            unsafe { source.unmap(arena, size) };
        }
    }

    #[test]
    fn a_large_mapping_takes_up_a_whole_arena_before_and_after_it_shrinks() {
        let mut source = MmapArenas::new();
        let is_whole = |mapping: &LargeMapping| {
            // SAFETY: the offsets lie within one arena, so no address overflows.
            let page = |offset| unsafe { mapping.start.add(offset) };
            (0..SIZE.bytes()).step_by(4096).all(|offset| is_mapped(page(offset)))
        };
        let small = source.map_large(SIZE.bytes() / 2, SIZE).unwrap();
        assert!(is_whole(&small));
        let large = source.map_large(3 * SIZE.bytes(), SIZE).unwrap();
        // SAFETY: the mapping came from this source, and only the result is used afterwards.
        let shrunk = unsafe {
            source.resize_large(large.start, large.bytes, SIZE.bytes() / 2, SIZE).unwrap()
        };
        assert!(is_whole(&shrunk) && shrunk.bytes < large.bytes);
        for mapping in [small, shrunk] {
            // SAFETY: the mapping came from this source, and is not used again.
            unsafe { source.unmap_large(mapping.start, mapping.bytes, SIZE) };
        }
    }

    #[test]
    fn arenas_are_aligned_to_their_size_and_apart() {
        let mut source = MmapArenas::new();
        for bytes in [1 << 6, 1 << 12, 1 << 18, 1 << 20, 1 << 21] {
            let size = ArenaSize::new(bytes).unwrap();
            let mut arenas: Vec<_> = (0..150).map(|_| source.map(size).unwrap()).collect();
            arenas.sort_unstable();
            assert!(arenas.iter().all(|arena| arena.addr().get() % bytes == 0));
            assert!(
                arenas
                    .windows(2)
                    .all(|pair| { pair[0].addr().get() + bytes <= pair[1].addr().get() })
            );
            for arena in arenas {
                // SAFETY: it was mapped above.
                unsafe { source.unmap(arena, size) };
            }
        }
        assert_eq!(source.in_use, 0);
    }

    #[test]
    fn addresses_are_reserved_in_proportion_to_what_is_in_use() {
        let mut source = MmapArenas::new();
        let mut arenas = Vec::new();
        for count in 1..=200 {
            arenas.push(map(&mut source));
            assert!(reserved(&source) <= 1 + (count / RESERVED_SHARE).min(MOST_RESERVED));
        }
        while let Some(arena) = arenas.pop() {
            unmap(&mut source, arena);
            assert!(reserved(&source) <= 1 + (arenas.len() / RESERVED_SHARE).max(1));
        }
        assert_eq!(reserved(&source), 0);
    }

    #[test]
    fn many_arenas_need_little_more_than_one_system_call_each() {
        let mut source = MmapArenas::new();
        refuse(Plan::Never);
        let arenas: Vec<_> = (0..400).map(|_| map(&mut source)).collect();
        assert!(calls() < 600, "{} system calls", calls());
        refuse(Plan::Never);
        for arena in arenas {
            unmap(&mut source, arena);
        }
        assert!(calls() <= 401, "{} system calls", calls());
    }

    #[test]
    fn reserved_arenas_can_be_neither_read_nor_written() {
        let mut source = MmapArenas::new();
        let _arenas: Vec<_> = (0..41).map(|_| map(&mut source)).collect();
        let next = source.reserved.as_ref().expect("more than it used is reserved").start;
        assert_eq!(permissions_at(next.addr().get()).as_deref(), Some("---p"));
    }

    #[test]
    fn an_arena_that_comes_back_is_unmapped_and_the_next_one_takes_its_place() {
        alone(
            "mmap::tests::an_arena_that_comes_back_is_unmapped_and_the_next_one_takes_its_place",
            || {
                let mut source = MmapArenas::new();
                let arenas: Vec<_> = (0..10).map(|_| map(&mut source)).collect();
                source.release_reserved();
                fill(arenas[4], 1);
                unmap(&mut source, arenas[4]);
                assert!(!is_mapped(arenas[4]));
                refuse(Plan::Never);
                assert_eq!(map(&mut source), arenas[4]);
                assert_eq!(calls(), 1);
                assert!(is_filled(arenas[4], 0));
            },
        );
    }

    #[test]
    fn an_arena_whose_old_place_is_taken_goes_elsewhere() {
        let mut source = MmapArenas::new();
        let mut other = MmapArenas::new();
        let arena = core::iter::repeat_with(|| {
            let arena = map(&mut source);
            unmap(&mut source, arena);
            other.unmapped.push(arena.addr().get());
            (map(&mut other), arena)
        });
        // Another test might map memory at the same address in between, so we try up to 100 times.
        let (arena, _) = arena.take(100).find(|(taken, arena)| taken == arena).unwrap();
        fill(arena, 7);
        assert_ne!(map(&mut source), arena);
        assert!(is_filled(arena, 7));
    }

    #[test]
    fn the_latest_places_are_remembered() {
        let mut places = Places { addresses: [0; MOST_PLACES], count: 0 };
        (1..=MOST_PLACES + 2).for_each(|address| places.push(address));
        let latest: Vec<_> = core::iter::from_fn(|| places.pop()).collect();
        assert!(latest.into_iter().eq((3..=MOST_PLACES + 2).rev()));
    }

    #[test]
    fn dropping_the_source_gives_up_its_reservation_and_leaves_arenas_in_use() {
        alone(
            "mmap::tests::dropping_the_source_gives_up_its_reservation_and_leaves_arenas_in_use",
            || {
                let mut source = MmapArenas::new();
                let arenas: Vec<_> = (0..41).map(|_| map(&mut source)).collect();
                arenas.iter().for_each(|arena| fill(*arena, 3));
                let next = source.reserved.as_ref().unwrap().start;
                drop(source);
                assert!(!is_mapped(next));
                assert!(arenas.iter().all(|arena| is_filled(*arena, 3)));
            },
        );
    }

    /// Regression test (mutants 9 and 10).
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_reservation_that_does_not_fit_is_halved() {
        let size = ArenaSize::new(1 << 45).unwrap();
        let mut source = MmapArenas::new();
        source.in_use = 4 * MOST_RESERVED * size.bytes();
        // Fewer than four arenas of this size fit into a 47-bit address space.
        assert!(Reserved::within(size, 4).is_err());
        let reserved = Reserved::with_share_of(source.in_use, size).unwrap();
        assert!((1..=3).contains(&reserved.count));
        source.reserved = Some(reserved);
        source.release_reserved();
    }

    #[test]
    fn an_arena_beyond_the_address_space_is_an_error() {
        let size = ArenaSize::new(1 << (usize::BITS - 2)).unwrap();
        assert!(MmapArenas::new().map(size).is_err());
    }

    /// Returns the number of arenas that cannot be mapped while the system calls of `plan` fail.
    fn live_through(plan: Plan) -> usize {
        let mut source = MmapArenas::new();
        let mut arenas: Vec<(NonNull<u8>, u8)> = Vec::new();
        let mut refused = 0;
        refuse(plan);
        for step in 0..60_u8 {
            if step % 3 == 2 && !arenas.is_empty() {
                let (arena, byte) = arenas.swap_remove(usize::from(step) % arenas.len());
                assert!(is_filled(arena, byte), "{plan:?}");
                unmap(&mut source, arena);
            } else if let Ok(arena) = source.map(SIZE) {
                assert!(arenas.iter().all(|(other, _)| *other != arena), "{plan:?}");
                fill(arena, step);
                arenas.push((arena, step));
            } else {
                refused += 1;
            }
        }
        for (arena, byte) in arenas {
            assert!(is_filled(arena, byte), "{plan:?}");
            unmap(&mut source, arena);
        }
        refuse(Plan::Never);
        source.trim();
        assert!(source.reserved.is_none() && source.retained.is_none() && source.in_use == 0);
        refused
    }

    #[test]
    fn a_call_that_fails_leaves_every_arena_in_use_as_it_was() {
        assert_eq!(live_through(Plan::Never), 0);
        for call in 1..=calls_of_a_life() {
            assert!(live_through(Plan::Nth(call)) <= 1, "call {call}");
        }
        for each in 1..8 {
            live_through(Plan::EachNth(each));
        }
    }

    fn calls_of_a_life() -> usize {
        let mut source = MmapArenas::new();
        refuse(Plan::Never);
        let arenas: Vec<_> = (0..40).map(|_| map(&mut source)).collect();
        arenas.into_iter().for_each(|arena| unmap(&mut source, arena));
        calls() + 20
    }

    #[test]
    fn an_arena_that_cannot_be_unmapped_serves_a_later_request_or_goes_with_a_trim() {
        alone(
            "mmap::tests::an_arena_that_cannot_be_unmapped_serves_a_later_request_or_goes_with_a_trim",
            || {
                let mut source = MmapArenas::new();
                let arenas = [map(&mut source), map(&mut source)];
                source.release_reserved();
                refuse(Plan::EachNth(1));
                arenas.into_iter().for_each(|arena| unmap(&mut source, arena));
                assert!(arenas.into_iter().all(is_mapped));
                assert_eq!(map(&mut source), arenas[1]);
                refuse(Plan::Never);
                source.trim();
                assert!(!is_mapped(arenas[0]));
            },
        );
    }

    #[test]
    fn a_refused_arena_makes_the_source_give_up_its_reservation() {
        let mut source = MmapArenas::new();
        let _arenas: Vec<_> = (0..41).map(|_| map(&mut source)).collect();
        assert!(reserved(&source) > 0);
        // The next system call makes a reserved arena writable.
        refuse(Plan::Nth(1));
        assert!(matches!(source.map(SIZE), Err(MapError::Os { code: OsCode(libc::ENOMEM), .. })));
        assert_eq!(reserved(&source), 0);
        refuse(Plan::Never);
        map(&mut source);
    }

    #[test]
    fn giving_back_leaves_the_error_number_as_it_was() {
        let mut source = MmapArenas::new();
        let arena = map(&mut source);
        refuse(Plan::EachNth(1));
        preserving_errno(|| {
            // SAFETY: no file has this descriptor, so the call fails and sets `errno`.
            unsafe { libc::close(-1) };
            unmap(&mut source, arena);
            source.trim();
            assert_eq!((errno::get(), calls() > 2), (libc::EBADF, true));
            assert!(pages::map(0, 4096, Access::Reserved).is_err());
            assert_eq!(errno::get(), libc::ENOMEM);
        });
        refuse(Plan::Never);
    }

    #[test]
    fn a_large_mapping_is_aligned_zeroed_and_keeps_its_contents_when_it_is_resized() {
        alone(
            "mmap::tests::a_large_mapping_is_aligned_zeroed_and_keeps_its_contents_when_it_is_resized",
            || {
                let mut source = MmapArenas::new();
                let first = source.map_large(3 * SIZE.bytes() + 1, SIZE).unwrap();
                let second = source.map_large(1, SIZE).unwrap();
                assert_eq!((first.bytes, second.bytes), (3 * SIZE.bytes() + 4096, SIZE.bytes()));
                let mut mapping = first;
                for bytes in [SIZE.bytes(), 40 * SIZE.bytes(), 2 * SIZE.bytes(), 80 * SIZE.bytes()]
                {
                    let (start, old) = (mapping.start, mapping.bytes);
                    assert!(mapping.is_zeroed && start.addr().get().is_multiple_of(SIZE.bytes()));
                    fill(start, 9);
                    // SAFETY: the mapping is live, and replaced by the result.
                    mapping =
                        unsafe { resize_or_copy(&mut source, start, old, bytes, SIZE) }.unwrap();
                    assert_eq!(mapping.bytes, bytes);
                    assert!(is_filled(mapping.start, 9));
                }
                let all = [mapping, second];
                all.into_iter().for_each(|LargeMapping { start, bytes, .. }| {
                    // SAFETY: the mapping came from this source, and nothing uses it.
                    unsafe { source.unmap_large(start, bytes, SIZE) };
                });
                assert!(all.into_iter().all(|mapping| !is_mapped(mapping.start)));
            },
        );
    }

    #[test]
    fn a_large_mapping_that_cannot_be_unmapped_goes_with_a_trim() {
        let mut source = MmapArenas::new();
        let mapping = source.map_large(2 * SIZE.bytes(), SIZE).unwrap();
        refuse(Plan::Nth(1));
        // SAFETY: the mapping came from this source, and nothing uses it.
        unsafe { source.unmap_large(mapping.start, mapping.bytes, SIZE) };
        refuse(Plan::Never);
        assert!(source.retained.is_some());
        source.trim();
        assert!(source.retained.is_none());
    }

    #[test]
    fn a_large_mapping_that_cannot_be_resized_is_unchanged() {
        let mut source = MmapArenas::new();
        let mapping = source.map_large(2 * SIZE.bytes(), SIZE).unwrap();
        fill(mapping.start, 9);
        refuse(Plan::EachNth(1));
        let (start, old) = (mapping.start, mapping.bytes);
        // SAFETY: the mapping is live, and unchanged if the call fails.
        let (grown, shrunk) = unsafe {
            let grown = source.resize_large(start, old, 1 << 30, SIZE);
            (grown, source.resize_large(start, old, 4096, SIZE).unwrap())
        };
        refuse(Plan::Never);
        assert_eq!(grown, Err(MapError::LargeOs { bytes: 1 << 30, code: OsCode(libc::ENOMEM) }));
        assert_eq!((shrunk.start, shrunk.bytes), (start, old));
        assert!(is_filled(start, 9));
    }

    #[test]
    fn only_whole_pages_inside_the_range_are_purged() {
        let mut source = MmapArenas::new();
        let arena = map(&mut source);
        // SAFETY: the arena is mapped and used only by this test, and the range lies inside it.
        let contents = unsafe {
            arena.write_bytes(7, 16 * 4096);
            source.purge(arena.add(100), 3 * 4096).unwrap();
            source.purge(arena.add(5000), 100).unwrap();
            core::slice::from_raw_parts(arena.as_ptr(), 16 * 4096)
        };
        assert!(contents[..4096].iter().all(|byte| *byte == 7));
        assert!(contents[4096..3 * 4096].iter().all(|byte| *byte == 0));
        assert!(contents[3 * 4096..].iter().all(|byte| *byte == 7));
    }
}
