//! The system calls that move pages without copying.

use core::ptr::NonNull;

use super::{Access, last, page_size, refuse_on_demand, to_c};
use crate::OsCode;

/// The outcome of [`relocate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relocation {
    /// The pages are now in the new range. The old range is still mapped, but reads as zero.
    Moved,
    /// The system keeps the old range as several mappings. Both ranges are unchanged.
    InParts,
    /// The system cannot move the pages. Both ranges are mapped, and the old one is unchanged.
    Refused,
    /// The new range may no longer be mapped. The old range is unchanged.
    TargetLost,
}

/// Moves the pages at `from` to the range at `to`. Both ranges are writable and have `bytes` bytes.
///
/// The old range stays mapped, so no other mapping can get its addresses.
///
/// # Safety
///
/// - The old range at `from` and the new range at `to` must consist of whole pages that the caller
///   has mapped.
/// - The two ranges must not overlap.
/// - If the page directly after the old range is not mapped, nothing may ever use its address,
///   because `relocate` may map a page there.
/// - Nothing may use the old range during the call.
/// - Nothing may rely on the previous contents of the new range.
pub(crate) unsafe fn relocate(from: NonNull<u8>, to: NonNull<u8>, bytes: usize) -> Relocation {
    // SAFETY: the caller has mapped the range, and the page after it is mapped or is never used
    // (contract of `relocate`).
    match unsafe { is_one_mapping(from, bytes) } {
        Ok(true) => {}
        Ok(false) => return Relocation::InParts,
        Err(_) => return Relocation::Refused,
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    let moved = refuse_on_demand().and_then(|()| {
        // SAFETY: the caller owns both ranges, and needs the contents only in the new range.
        let start = unsafe { libc::mremap(to_c(from), bytes, bytes, flags, to_c(to)) };
        if start == libc::MAP_FAILED { Err(last()) } else { Ok(()) }
    });
    match moved {
        Ok(()) => Relocation::Moved,
        // Linux before 5.7 does not know the flags, and has changed nothing.
        Err(OsCode(libc::EINVAL)) => Relocation::Refused,
        // The system first unmaps the new range, and then performs more checks, which can fail.
        Err(_) if map_in_hole(to, bytes) => Relocation::Refused,
        Err(_) => Relocation::TargetLost,
    }
}

/// Asks the kernel whether it keeps the whole range as a single mapping.
///
/// This function tests whether the range is a single mapping. [`relocate`] calls it before it asks
/// `mremap` to move the range, because `mremap` cannot move several mappings together. It fails in
/// that case, but only after it has unmapped the target range.
///
/// To find out whether the range is a single mapping, we ask the kernel to extend the range in
/// place by one page. The kernel normally refuses, because the page after the range is in use. With
/// the error code `ENOMEM`, the range is a single mapping. With `EFAULT`, it consists of several
/// mappings. This function returns any other error to its caller, for example if a sandbox does not
/// allow `mremap`.
///
/// # Safety
///
/// - The caller must have mapped the range.
/// - The page directly after the range must be mapped, or nothing may ever use its address, because
///   this function may map a page there.
unsafe fn is_one_mapping(start: NonNull<u8>, bytes: usize) -> Result<bool, OsCode> {
    refuse_on_demand()?;
    // SAFETY: the caller has mapped the range. If the page after it is mapped, nothing changes.
    // Otherwise, the kernel may add this page to the mapping, but nothing uses the page.
    let extended = unsafe { libc::mremap(to_c(start), bytes, bytes + page_size(), 0) };
    if extended != libc::MAP_FAILED {
        return Ok(false);
    }
    match last() {
        OsCode(libc::ENOMEM) => Ok(true),
        OsCode(libc::EFAULT) => Ok(false),
        code => Err(code),
    }
}

/// Maps new pages at `start` if nothing is mapped there. Returns true if they were mapped.
fn map_in_hole(start: NonNull<u8>, bytes: usize) -> bool {
    let access = Access::ReadWrite;
    let flags = access.flags() | libc::MAP_FIXED_NOREPLACE;
    if refuse_on_demand().is_err() {
        return false;
    }
    // SAFETY: the flag MAP_FIXED_NOREPLACE never replaces an existing mapping.
    let mapped = unsafe { libc::mmap(to_c(start), bytes, access.protection(), flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return false;
    }
    if mapped == to_c(start) {
        return true;
    }
    // Linux before 4.17 does not know the flag, and maps the pages elsewhere.
    if let Some(elsewhere) = NonNull::new(mapped.cast()) {
        // SAFETY: the pages were mapped above, and nothing uses them.
        let _ = unsafe { super::unmap(elsewhere, bytes) };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::{
        self,
        refusals::{Plan, refuse},
    };

    const PAGE: usize = 4096;

    /// Maps `pages` writable pages, followed by a reserved page.
    fn mapped(pages: usize) -> NonNull<u8> {
        let start = pages::map_aligned((pages + 1) * PAGE, PAGE, Access::Reserved).unwrap();
        // SAFETY: the pages were mapped above.
        unsafe { pages::make_writable(start, pages * PAGE) }.unwrap();
        start
    }

    fn byte(start: NonNull<u8>, at: usize) -> u8 {
        // SAFETY: the tests read only pages that they have mapped.
        unsafe { start.add(at).read() }
    }

    fn fill(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the tests write only pages that they have mapped.
        unsafe { start.write_bytes(7, bytes) };
    }

    #[test]
    fn pages_move_and_the_old_range_stays_mapped() {
        let (old, new) = (mapped(4), mapped(4));
        fill(old, 4 * PAGE);
        // SAFETY: the ranges were mapped above, each followed by another page.
        assert_eq!(unsafe { relocate(old, new, 4 * PAGE) }, Relocation::Moved);
        assert_eq!((byte(new, 0), byte(new, 4 * PAGE - 1)), (7, 7));
        assert_eq!(byte(old, 0), 0);
    }

    #[test]
    fn a_range_of_several_mappings_is_noticed_before_anything_changes() {
        let (old, new) = (mapped(4), mapped(4));
        fill(old, 4 * PAGE);
        fill(new, PAGE);
        // The kernel remembers the old offset of a moved page, so the page's mapping does not merge
        // with its neighbours.
        let other = mapped(1);
        fill(other, PAGE);
        // SAFETY: the ranges were mapped above, each followed by another page.
        unsafe {
            assert_eq!(relocate(other, old.add(PAGE), PAGE), Relocation::Moved);
            assert_eq!(relocate(old, new, 4 * PAGE), Relocation::InParts);
        }
        assert_eq!((byte(new, 0), byte(old, 0), byte(old, PAGE)), (7, 7, 7));
    }

    #[test]
    fn a_failed_move_leaves_the_old_range_unchanged() {
        let (old, new) = (mapped(4), mapped(4));
        fill(old, 4 * PAGE);
        for (nth, outcome) in [(1, Relocation::Refused), (2, Relocation::TargetLost)] {
            refuse(Plan::Nth(nth));
            // SAFETY: the ranges were mapped above, each followed by another page.
            assert_eq!(unsafe { relocate(old, new, 4 * PAGE) }, outcome);
            assert_eq!(byte(old, 4 * PAGE - 1), 7);
        }
        refuse(Plan::Never);
    }

    #[test]
    fn a_hole_is_filled_and_mapped_pages_are_not() {
        let start = mapped(4);
        fill(start, 4 * PAGE);
        assert!(!map_in_hole(start, 4 * PAGE));
        assert_eq!(byte(start, 0), 7);
        // SAFETY: the pages were mapped above, and nothing uses them.
        unsafe { pages::unmap(start, 4 * PAGE) }.unwrap();
        assert!(map_in_hole(start, 4 * PAGE));
        assert_eq!(byte(start, 0), 0);
    }
}
