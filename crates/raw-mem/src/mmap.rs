//! Arenas from the operating system, carved from larger regions.
//!
//! Mapping each arena alone would waste up to an arena of memory or a second system call on its
//! alignment, and leave a mapping for each. So address space is reserved for many arenas at a time
//! (see [`Region`]): for 4 at first, and then for as many as are in use, up to 64. Under a limit on
//! addresses the reservation is halved until it fits.
//!
//! 1. Regions are kept in ascending order of address, so an arena's region is found by bisection.
//! 2. An arena that comes back gives its memory to the system at once, and stays reserved.
//! 3. A region without an arena in use is unmapped.

use core::{ffi::CStr, ptr::NonNull};

use crate::{
    Advice, AdviseError, ArenaSize, ArenaSource, MapError, own_pages::PageVec, region::Region,
};

/// The operating system, as a source of arenas: anonymous private mappings.
///
/// It keeps its books on pages of its own and asks no allocator. Dropping it unmaps everything,
/// so its arenas must not outlive it.
///
/// ```
/// use raw_mem::{ArenaSize, ArenaSource, MmapArenas};
///
/// let size = ArenaSize::new(1 << 20).unwrap();
/// let mut source = MmapArenas::new();
/// let arena = source.map(size)?;
/// assert_eq!(arena.addr().get() % size.bytes(), 0);
/// // SAFETY: it was mapped just now, and nobody uses it.
/// unsafe { source.unmap(arena, size) };
/// # Ok::<(), raw_mem::MapError>(())
/// ```
pub struct MmapArenas {
    /// # Invariant
    ///
    /// In ascending order of address; no two overlap.
    regions: PageVec<Region>,
    name: &'static CStr,
    huge_pages: bool,
}

impl MmapArenas {
    /// A source that has reserved nothing yet.
    pub const fn new() -> Self {
        Self { regions: PageVec::new(), name: c"obmalloc:arenas", huge_pages: false }
    }

    /// The same source, asking the system to back its arenas with huge pages
    /// (`MADV_HUGEPAGE`: fewer page faults and a larger resident size).
    pub const fn with_huge_pages(mut self) -> Self {
        self.huge_pages = true;
        self
    }

    /// Reserves one more region of arenas of `size`, and returns its place among the regions.
    #[cold]
    fn reserve(&mut self, size: ArenaSize) -> Result<usize, MapError> {
        let in_use: usize = self.regions.iter().map(Region::in_use).sum();
        let region = Region::reserve(size, in_use.next_power_of_two())?;
        region.name(self.name);
        let index = self.regions.partition_point(|other| other.start() < region.start());
        // INVARIANT: it goes before the first region of a higher address.
        self.regions
            .insert(index, region)
            .map_err(|error| MapError::Os { size, code: error.into() })?;
        Ok(index)
    }

    /// The place of the region that `address` would be in.
    fn region_of(&self, address: usize) -> Option<usize> {
        self.regions.partition_point(|region| region.start() <= address).checked_sub(1)
    }
}

impl Default for MmapArenas {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: a region's arenas are readable, writable, aligned and apart from each other, regions do
// not overlap, and an arena is handed out again only after it came back.
unsafe impl ArenaSource for MmapArenas {
    /// O(regions).
    fn map(&mut self, size: ArenaSize) -> Result<NonNull<u8>, MapError> {
        let with_room = |region: &Region| region.size() == size && region.has_room();
        let index = match self.regions.iter().position(with_room) {
            Some(index) => index,
            None => self.reserve(size)?,
        };
        let arena = self.regions[index].take().ok_or(MapError::Exhausted { size })?;
        if self.huge_pages {
            // SAFETY: this advice leaves contents alone. If it is not taken, pages are small.
            let _ = unsafe { self.advise(arena, size.bytes(), Advice::HugePage) };
        }
        Ok(arena)
    }

    /// O(log regions), and a system call.
    unsafe fn unmap(&mut self, arena: NonNull<u8>, _size: ArenaSize) {
        let address = arena.addr().get();
        let Some(index) = self.region_of(address) else {
            debug_assert!(false, "an arena of another source");
            return;
        };
        if self.regions[index].in_use() > 1 {
            self.regions[index].give_back(address);
        } else {
            drop(self.regions.remove(index));
        }
    }

    unsafe fn advise(
        &mut self,
        start: NonNull<u8>,
        len: usize,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        let address = start.addr().get();
        let Some(index) = self.region_of(address) else {
            return Err(AdviseError::OutOfRange { start: address, len });
        };
        // SAFETY: the caller's promise about the contents; the region checks the range.
        unsafe { self.regions[index].advise_in_use(address, len, advice) }
    }

    fn name(&mut self, name: &'static CStr) {
        self.name = name;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ArenaSize = ArenaSize::new(1 << 20).unwrap();

    fn map(source: &mut MmapArenas) -> NonNull<u8> {
        source.map(SIZE).unwrap()
    }

    fn unmap(source: &mut MmapArenas, arena: NonNull<u8>) {
        // SAFETY: the tests give back what they mapped, once.
        unsafe { source.unmap(arena, SIZE) }
    }

    fn resident_kib() -> usize {
        let status = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let line = status.lines().find(|line| line.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn arenas_are_aligned_to_their_size_and_apart() {
        let mut source = MmapArenas::new();
        for bytes in [1 << 12, 1 << 18, 1 << 20, 1 << 21] {
            let size = ArenaSize::new(bytes).unwrap();
            let mut starts: Vec<_> =
                (0..150).map(|_| source.map(size).unwrap().addr().get()).collect();
            starts.sort_unstable();
            assert!(starts.iter().all(|start| start % bytes == 0));
            assert!(starts.windows(2).all(|pair| pair[0] + bytes <= pair[1]));
        }
    }

    #[test]
    fn few_reservations_serve_many_arenas() {
        let mut source = MmapArenas::new();
        for _ in 0..200 {
            map(&mut source);
        }
        assert!(source.regions.len() <= 8, "{} regions", source.regions.len());
    }

    #[test]
    fn an_arena_that_came_back_is_handed_out_before_new_address_space_is_taken() {
        let mut source = MmapArenas::new();
        let arenas: Vec<_> = (0..10).map(|_| map(&mut source)).collect();
        let reserved = source.regions.len();
        unmap(&mut source, arenas[1]);
        let again: Vec<_> = core::iter::from_fn(|| {
            let room = source.regions.iter().any(Region::has_room);
            room.then(|| map(&mut source))
        })
        .collect();
        assert!(again.contains(&arenas[1]));
        assert_eq!(source.regions.len(), reserved);
    }

    #[test]
    #[cfg(target_os = "linux")]
    #[cfg_attr(miri, ignore = "Miri has no resident memory")]
    fn an_arena_that_comes_back_gives_its_memory_to_the_system() {
        let mut source = MmapArenas::new();
        let keeper = map(&mut source);
        let arenas: Vec<_> = (0..40).map(|_| map(&mut source)).collect();
        for arena in &arenas {
            // SAFETY: the arena is mapped, and this test's alone.
            unsafe { arena.write_bytes(1, SIZE.bytes()) };
        }
        let full = resident_kib();
        for arena in arenas {
            unmap(&mut source, arena);
        }
        let empty = resident_kib();
        assert!(full - empty > 30 * 1024, "{full} KiB, then {empty} KiB");
        unmap(&mut source, keeper);
    }

    #[test]
    fn a_region_is_unmapped_with_its_last_arena() {
        let mut source = MmapArenas::new();
        let arenas: Vec<_> = (0..300).map(|_| map(&mut source)).collect();
        for arena in arenas {
            unmap(&mut source, arena);
        }
        assert_eq!(source.regions.len(), 0);
    }

    #[test]
    #[cfg(unix)]
    #[cfg_attr(miri, ignore = "Miri takes no advice")]
    fn advice_touches_whole_pages_inside_the_range_only() {
        let mut source = MmapArenas::new();
        let arena = map(&mut source);
        // SAFETY: the arena is mapped and this test's alone; the range is inside it.
        let contents = unsafe {
            arena.write_bytes(7, 16 * 4096);
            source.advise(arena.add(100), 3 * 4096, Advice::DontNeed).unwrap();
            core::slice::from_raw_parts(arena.as_ptr(), 16 * 4096)
        };
        assert!(contents[..4096].iter().all(|byte| *byte == 7));
        assert!(contents[4096..3 * 4096].iter().all(|byte| *byte == 0));
        assert!(contents[3 * 4096..].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn advice_outside_of_arenas_in_use_is_refused() {
        let mut source = MmapArenas::new();
        let arena = map(&mut source);
        let mut advise = |start: NonNull<u8>, len| {
            // SAFETY: nobody relies on the contents of these arenas.
            unsafe { source.advise(start, len, Advice::DontNeed) }
        };
        let below = arena.map_addr(|addr| core::num::NonZero::new(addr.get() - 1).unwrap());
        for (start, len) in [(arena, SIZE.bytes() + 1), (below, 4096), (NonNull::dangling(), 1)] {
            assert!(matches!(advise(start, len), Err(AdviseError::OutOfRange { .. })));
        }
    }

    #[test]
    fn an_arena_beyond_the_address_space_is_an_error() {
        let size = ArenaSize::new(1 << (usize::BITS - 2)).unwrap();
        assert!(MmapArenas::new().map(size).is_err());
    }
}
