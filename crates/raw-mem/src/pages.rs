//! The system calls that map, unmap, purge and resize arenas and large mappings.

use core::{ptr, ptr::NonNull};

use libc::{c_int, c_void};

use crate::{OsCode, PurgeError, align_down, align_up, errno, preserving_errno};

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) mod relocation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// No access. Such pages do not count against limits on data or on committed memory.
    Reserved,
    ReadWrite,
    /// Like `ReadWrite`, but the system does not check whether there is enough memory for the pages.
    ReadWriteUnchecked,
}

impl Access {
    fn protection(self) -> c_int {
        match self {
            Self::Reserved => libc::PROT_NONE,
            Self::ReadWrite | Self::ReadWriteUnchecked => libc::PROT_READ | libc::PROT_WRITE,
        }
    }

    /// Returns the flags of a private anonymous mapping.
    ///
    /// With `MAP_NORESERVE`, Linux would grant requests for far more memory than the machine has.
    fn flags(self) -> c_int {
        let private = libc::MAP_PRIVATE | libc::MAP_ANON;
        if self == Self::ReadWriteUnchecked { private | UNCHECKED } else { private }
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
const UNCHECKED: c_int = libc::MAP_NORESERVE;
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
const UNCHECKED: c_int = 0;

/// Maps `bytes` bytes of zeroed pages, at the address `hint` if it is not 0 and still free.
pub(crate) fn map(hint: usize, bytes: usize, access: Access) -> Result<NonNull<u8>, OsCode> {
    refuse_on_demand()?;
    let hint = ptr::without_provenance_mut(hint);
    // SAFETY: without MAP_FIXED, the system never replaces an existing mapping.
    let start = unsafe { libc::mmap(hint, bytes, access.protection(), access.flags(), -1, 0) };
    if start == libc::MAP_FAILED { Err(last()) } else { NonNull::new(start.cast()).ok_or(last()) }
}

/// Maps `bytes` bytes of zeroed pages at `address`. Fails if any of these pages is already mapped.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) fn map_at(address: NonNull<u8>, bytes: usize, access: Access) -> Result<(), OsCode> {
    refuse_on_demand()?;
    let flags = access.flags() | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the flag keeps the system from replacing an existing mapping. Linux before 4.17 does
    // not know the flag, and treats the address as a hint.
    let start = unsafe { libc::mmap(to_c(address), bytes, access.protection(), flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(last());
    }
    if start != to_c(address) {
        // SAFETY: the pages were mapped just now, and nothing uses them.
        unsafe { libc::munmap(start, bytes) };
        return Err(OsCode(libc::EEXIST));
    }
    Ok(())
}

/// Maps `bytes` bytes of zeroed pages at a multiple of `align`.
///
/// `bytes` must be a multiple of the page size. `align` must be a power of two, and at least the
/// page size. The function maps more memory than requested, and then unmaps the parts before and
/// after the aligned range.
pub(crate) fn map_aligned(
    bytes: usize,
    align: usize,
    access: Access,
) -> Result<NonNull<u8>, OsCode> {
    let all = bytes.checked_add(align).filter(|all| *all <= isize::MAX as usize);
    let all = all.ok_or(OsCode(libc::ENOMEM))?;
    let mapping = map(0, all, access)?;
    let address = mapping.addr().get();
    // The fallback is never used, because the rounded address lies inside the mapping.
    let before = align_up(address, align).unwrap_or(address) - address;
    // SAFETY: `before` is less than `align`, so the result and `bytes` bytes lie in the mapping.
    let start = unsafe { mapping.add(before) };
    // SAFETY: as above.
    let end = unsafe { start.add(bytes) };
    for (unaligned, length) in [(mapping, before), (end, align - before)] {
        if length > 0 {
            // SAFETY: nothing uses this part of the new mapping. A failure loses only addresses.
            let _ = unsafe { unmap(unaligned, length) };
        }
    }
    Ok(start)
}

/// Makes `bytes` bytes of reserved pages, beginning at `start`, readable and writable.
///
/// # Safety
///
/// The range must consist of whole pages that the caller has mapped.
pub(crate) unsafe fn make_writable(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller has mapped the pages, and adding access does not change their contents.
    outcome(unsafe { libc::mprotect(to_c(start), bytes, Access::ReadWrite.protection()) })
}

/// Unmaps `bytes` bytes from `start`. If the system call fails, the range stays mapped.
///
/// # Safety
///
/// - `start` and `bytes` must describe whole pages that the caller has mapped.
/// - If the call succeeds, nothing may access these pages afterwards.
pub(crate) unsafe fn unmap(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller mapped the pages, and nothing uses them (contract of `unmap`).
    outcome(unsafe { libc::munmap(to_c(start), bytes) })
}

/// Returns `bytes` bytes of memory at `start` to the system.
///
/// The pages stay mapped, and read as zero afterwards. We use `madvise` instead of mapping new
/// pages over the old ones with `mmap`. Before Linux 6.12, such an `mmap` could leave the range
/// unmapped if it failed.
///
/// # Safety
///
/// - `start` and `bytes` must describe whole pages that the caller has mapped.
/// - Nothing may rely on the old contents of these pages.
pub(crate) unsafe fn purge(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller mapped the pages and no longer needs their contents (contract of `purge`).
    outcome(unsafe { libc::madvise(to_c(start), bytes, libc::MADV_DONTNEED) })
}

/// Not every C library defines these constants of Linux.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
const MADV_POPULATE_WRITE: c_int = 23;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
const MADV_COLLAPSE: c_int = 25;

/// Advises the system to use huge pages for `bytes` bytes from `start`. The system may refuse.
///
/// # Safety
///
/// The range must consist of whole pages that the caller has mapped.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) unsafe fn advise_huge(start: NonNull<u8>, bytes: usize) {
    if refuse_on_demand().is_ok() {
        // SAFETY: the caller mapped the pages. The call does not change their contents.
        unsafe { libc::madvise(to_c(start), bytes, libc::MADV_HUGEPAGE) };
    }
}

/// Makes huge pages from `bytes` bytes at `start`, without changing their contents.
///
/// Does nothing if the system has no huge pages.
///
/// # Safety
///
/// The range must consist of whole huge pages that the caller has mapped writable.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) unsafe fn make_huge(start: NonNull<u8>, bytes: usize) {
    if refuse_on_demand().is_ok() {
        for at in (0..bytes).step_by(crate::HUGE_PAGE) {
            // SAFETY: the huge page lies in the range.
            let huge = to_c(unsafe { start.add(at) });
            // The system collapses a range only if at least one of its pages is in memory.
            // SAFETY: the caller mapped the pages. The call does not change their contents.
            unsafe { libc::madvise(huge, page_size(), MADV_POPULATE_WRITE) };
            // SAFETY: as above.
            unsafe { libc::madvise(huge, crate::HUGE_PAGE, MADV_COLLAPSE) };
        }
    }
}

/// Purges the whole pages in the range of `len` bytes from `start`. See [`purge`]. `errno` is
/// unchanged.
///
/// # Safety
///
/// - The `len` bytes that begin at `start` must lie in memory that the caller has mapped.
/// - Nothing may rely on the old contents of these bytes.
pub(crate) unsafe fn purge_inside(start: NonNull<u8>, len: usize) -> Result<(), PurgeError> {
    let (page, address) = (page_size(), start.addr().get());
    let end = align_down(address + len, page);
    let Some(first) = align_up(address, page).filter(|first| *first < end) else {
        return Ok(());
    };
    let len = end - first;
    preserving_errno(|| {
        // SAFETY: the first whole page begins less than `len` bytes after `start`.
        let start = unsafe { start.add(first - address) };
        // SAFETY: the pages are mapped and no longer needed (contract of `purge_inside`).
        let purged = unsafe { purge(start, len) };
        purged.map_err(|code| PurgeError::Os { start: first, len, code })
    })
}

/// Returns `bytes` bytes of memory at `start` to the system, and makes the range inaccessible.
///
/// A single system call replaces the old mapping with an inaccessible one, so no other mapping can
/// take the addresses in between. If the call fails, the old mapping usually remains unchanged.
/// However, Linux before 6.12 may leave the range unmapped if the kernel runs out of memory during
/// the call.
///
/// # Safety
///
/// - `start` and `bytes` must describe whole pages that the caller has mapped.
/// - Nothing may access these pages afterwards, even if the call fails.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) unsafe fn withdraw(start: NonNull<u8>, bytes: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    let none = Access::Reserved;
    let flags = none.flags() | libc::MAP_FIXED;
    // SAFETY: the caller mapped the pages, and nothing uses them (contract of `withdraw`).
    let mapped = unsafe { libc::mmap(to_c(start), bytes, none.protection(), flags, -1, 0) };
    if mapped == libc::MAP_FAILED { Err(last()) } else { Ok(()) }
}

/// Grows or shrinks a mapping in place, if the system can.
///
/// # Safety
///
/// - `start` and `old` must be the address and the size in bytes of whole pages that the caller has
///   mapped.
/// - `new`, the new size of the mapping in bytes, must be a non-zero multiple of the page size.
/// - If the call succeeds, nothing may access the memory beyond the first `new` bytes.
pub(crate) unsafe fn resize(start: NonNull<u8>, old: usize, new: usize) -> Result<(), OsCode> {
    if new == old {
        return Ok(());
    }
    if new < old {
        // SAFETY: the first `new` bytes stay, so the pages after them begin inside the mapping.
        let behind = unsafe { start.add(new) };
        // SAFETY: the caller has mapped these pages, and nothing uses them (contract of `resize`).
        return unsafe { unmap(behind, old - new) };
    }
    // SAFETY: the caller has mapped the pages (contract of `resize`).
    unsafe { extend(start, old, new) }
}

/// Extends a mapping of `old` bytes to `new` bytes if the addresses after it are free.
///
/// # Safety
///
/// The first `old` bytes from `start` must be whole pages that the caller has mapped.
#[cfg(target_os = "linux")]
unsafe fn extend(start: NonNull<u8>, old: usize, new: usize) -> Result<(), OsCode> {
    refuse_on_demand()?;
    // SAFETY: without MREMAP_MAYMOVE, the call only adds pages at addresses that are free.
    let extended = unsafe { libc::mremap(to_c(start), old, new, 0) };
    if extended == libc::MAP_FAILED { Err(last()) } else { Ok(()) }
}

/// Fails, because only Linux can extend a mapping.
#[cfg(not(target_os = "linux"))]
unsafe fn extend(_start: NonNull<u8>, _old: usize, _new: usize) -> Result<(), OsCode> {
    Err(OsCode(libc::ENOMEM))
}

/// Rounds a number of bytes up to whole pages. The result is at least one page.
///
/// Returns `None` if the result would exceed the largest size of a block.
pub(crate) fn whole_pages(bytes: usize) -> Option<usize> {
    align_up(bytes.max(1), page_size()).filter(|bytes| *bytes <= isize::MAX as usize)
}

/// Returns the size of a page in bytes, without a system call.
pub(crate) fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

fn to_c(start: NonNull<u8>) -> *mut c_void {
    start.as_ptr().cast()
}

fn outcome(result: c_int) -> Result<(), OsCode> {
    if result == 0 { Ok(()) } else { Err(last()) }
}

fn last() -> OsCode {
    OsCode(errno::get())
}

/// Does nothing. Tests replace this function to simulate failing system calls.
#[cfg(not(test))]
#[inline(always)]
fn refuse_on_demand() -> Result<(), OsCode> {
    Ok(())
}

#[cfg(test)]
use refusals::refuse_on_demand;

#[cfg(test)]
pub(crate) mod refusals {
    use std::cell::Cell;

    use crate::{OsCode, errno};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Plan {
        Never,
        Nth(usize),
        /// From the first number to the second one, both included.
        Between(usize, usize),
        EachNth(usize),
    }

    thread_local! {
        static STATE: Cell<(Plan, usize)> = const { Cell::new((Plan::Never, 0)) };
    }

    /// Sets the plan of the current thread and restarts its count of system calls.
    pub(crate) fn refuse(plan: Plan) {
        STATE.set((plan, 0));
    }

    pub(crate) fn calls() -> usize {
        STATE.get().1
    }

    pub(super) fn refuse_on_demand() -> Result<(), OsCode> {
        let (plan, calls) = STATE.get();
        let call = calls + 1;
        STATE.set((plan, call));
        let refused = match plan {
            Plan::Never => false,
            Plan::Nth(nth) => call == nth,
            Plan::Between(first, last) => (first..=last).contains(&call),
            Plan::EachNth(nth) => call.is_multiple_of(nth),
        };
        if !refused {
            return Ok(());
        }
        errno::set(libc::ENOMEM);
        Err(OsCode(libc::ENOMEM))
    }
}
