//! A region: one reservation of address space, cut into up to 64 arenas.
//!
//! ```text
//!   reservation of up to 64 arenas' worth, wherever the system puts it
//!   ├─ ─ ┬───────┬───────┬───────┬ ─ ─ ─ ┬───────┬─ ─┤
//!   │    │ arena │ arena │ arena │  ...  │ arena │   │
//!   └─ ─ ┴───────┴───────┴───────┴ ─ ─ ─ ┴───────┴─ ─┘
//!        first: a multiple of the arena's size
//! ```
//!
//! What lies before the first and behind the last arena is never touched, so it costs addresses
//! and no memory. The same is true of an arena that is not in use: its pages are with the system.

use core::{ffi::CStr, ptr::NonNull};

use memmap2::{MmapOptions, MmapRaw};

use crate::{Advice, AdviseError, ArenaSize, MapError, OsCode, align_up};

/// The most arenas of a region: the bits of [`Region::free`].
const MOST_ARENAS: usize = 64;

/// The fewest arenas' worth that is asked for at first.
const FEWEST_ARENAS: usize = 4;

/// One reservation and the arenas in it.
pub(crate) struct Region {
    map: MmapRaw,
    /// The first arena.
    ///
    /// # Invariant
    ///
    /// Aligned to `size`, and `count` arenas from here lie inside `map`.
    first: NonNull<u8>,
    size: ArenaSize,
    count: usize,
    /// Bit i: arena i is not in use. Bits from `count` on are clear.
    free: u64,
}

// SAFETY: a region is an address range and books about it; nothing of it belongs to a thread.
unsafe impl Send for Region {}

impl Region {
    /// Reserves room for `worth` arenas of `size`, within the bounds of a region, or for as many as
    /// the system grants.
    pub(crate) fn reserve(size: ArenaSize, worth: usize) -> Result<Self, MapError> {
        let worth = worth.clamp(FEWEST_ARENAS, MOST_ARENAS);
        let mut outcome = Self::reserve_worth(size, worth);
        let mut worth = worth / 2;
        while worth > 0 && outcome.is_err() {
            // The first answer is the system's own; a small reservation may also lack alignment.
            outcome = Self::reserve_worth(size, worth).or(outcome);
            worth /= 2;
        }
        outcome
    }

    /// Reserves the address space of `worth` arenas: one of them is lost unless the system
    /// happens to align the reservation.
    fn reserve_worth(size: ArenaSize, worth: usize) -> Result<Self, MapError> {
        let too_large = MapError::Exhausted { size };
        let bytes = size.bytes().checked_mul(worth).ok_or(too_large)?;
        if bytes > isize::MAX as usize {
            return Err(too_large);
        }
        let mut options = MmapOptions::new();
        options.len(bytes);
        // Miri knows no such flag.
        #[cfg(not(miri))]
        options.no_reserve_swap();
        let map = options.map_anon().map_err(|error| MapError::Os { size, code: error.into() })?;
        // At once: a slice over memory that will hold other people's blocks must not exist.
        let map = MmapRaw::from(map);
        let start = map.as_mut_ptr();
        let before = align_up(start.addr(), size.bytes()).ok_or(too_large)? - start.addr();
        let count = bytes.saturating_sub(before) / size.bytes();
        if count == 0 {
            return Err(too_large);
        }
        // SAFETY: `count` arenas fit behind it, so `before` is inside the mapping; and a mapping
        // is not at null.
        let first = unsafe { NonNull::new_unchecked(start.add(before)) };
        // INVARIANT: `before` rounds the start up to a multiple of `size`.
        Ok(Self { map, first, size, count, free: u64::MAX >> (MOST_ARENAS - count) })
    }

    /// The size of the region's arenas.
    pub(crate) fn size(&self) -> ArenaSize {
        self.size
    }

    /// The address of the first arena.
    pub(crate) fn start(&self) -> usize {
        self.first.addr().get()
    }

    /// The region has an arena that is not in use.
    pub(crate) fn has_room(&self) -> bool {
        self.free != 0
    }

    /// The number of arenas in use.
    pub(crate) fn in_use(&self) -> usize {
        self.count - self.free.count_ones() as usize
    }

    /// Takes the lowest arena that is not in use.
    pub(crate) fn take(&mut self) -> Option<NonNull<u8>> {
        let index = self.free.trailing_zeros() as usize;
        if index == MOST_ARENAS {
            return None;
        }
        self.free &= self.free - 1;
        // SAFETY: `free` has bits below `count` only, and `first`'s invariant puts those arenas
        // inside the mapping.
        Some(unsafe { self.first.add(index * self.size.bytes()) })
    }

    /// Takes back the arena at `address`, and gives its memory to the system.
    pub(crate) fn give_back(&mut self, address: usize) {
        let offset = address - self.start();
        debug_assert!(self.holds(offset, self.size.bytes()), "an arena that is not in use");
        self.free |= 1 << (offset / self.size.bytes());
        // SAFETY: nobody uses the arena any more, so its contents may go. If the system does not
        // take it, the arena can be used again all the same.
        let _ = unsafe { self.advise(address, self.size.bytes(), Advice::DontNeed) };
    }

    /// `len` bytes at `offset` from the first arena lie inside one arena that is in use.
    fn holds(&self, offset: usize, len: usize) -> bool {
        let (index, within) = (offset / self.size.bytes(), offset % self.size.bytes());
        index < self.count && len <= self.size.bytes() - within && self.free & (1 << index) == 0
    }

    /// Advises on a range inside one arena in use, rounded inwards to pages.
    ///
    /// # Safety
    ///
    /// As for [`ArenaSource::advise`](crate::ArenaSource::advise).
    pub(crate) unsafe fn advise_in_use(
        &self,
        address: usize,
        len: usize,
        advice: Advice,
    ) -> Result<(), AdviseError> {
        let offset = address.wrapping_sub(self.start());
        if !self.holds(offset, len) {
            return Err(AdviseError::OutOfRange { start: address, len });
        }
        // SAFETY: the range is inside the mapping; the rest is the caller's promise.
        unsafe { self.advise(address, len, advice) }
    }

    /// # Safety
    ///
    /// The range lies in this region's arenas, and with [`Advice::DontNeed`] and
    /// [`Advice::Free`] nobody relies on its contents.
    #[cfg(all(unix, not(miri)))]
    unsafe fn advise(&self, address: usize, len: usize, advice: Advice) -> Result<(), AdviseError> {
        let page = page_size();
        let end = crate::align_down(address + len, page);
        let Some(start) = align_up(address, page).filter(|start| *start < end) else {
            return Ok(());
        };
        let offset = start - self.map.as_mut_ptr().addr();
        let outcome = match advice {
            // SAFETY: the range is ours and its contents may go, as the caller promises.
            Advice::DontNeed => unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    offset,
                    end - start,
                )
            },
            // SAFETY: as above.
            Advice::Free => unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::Free, offset, end - start)
            },
            #[cfg(target_os = "linux")]
            Advice::HugePage => {
                self.map.advise_range(memmap2::Advice::HugePage, offset, end - start)
            }
            #[cfg(not(target_os = "linux"))]
            Advice::HugePage => return Err(AdviseError::Unsupported { advice }),
        };
        outcome.map_err(|error| AdviseError::Os {
            advice,
            start,
            len: end - start,
            code: OsCode::from(error),
        })
    }

    /// # Safety
    ///
    /// None: there is no advice to give here.
    #[cfg(not(all(unix, not(miri))))]
    unsafe fn advise(&self, _: usize, _: usize, advice: Advice) -> Result<(), AdviseError> {
        Err(AdviseError::Unsupported { advice })
    }

    /// Shows `name` beside the region's mapping, where the kernel keeps such names.
    pub(crate) fn name(&self, name: &'static CStr) {
        #[cfg(all(target_os = "linux", not(miri)))]
        // SAFETY: the range is this mapping's, the name is a C string that lives for ever, and
        // the call changes nothing but what /proc/self/maps shows.
        unsafe {
            libc::prctl(
                libc::PR_SET_VMA,
                libc::PR_SET_VMA_ANON_NAME,
                self.map.as_mut_ptr(),
                self.map.len(),
                name.as_ptr(),
            );
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        let _ = name;
    }
}

/// The bytes of a page of the system.
#[cfg(all(unix, not(miri)))]
fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}
