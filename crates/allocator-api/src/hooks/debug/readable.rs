//! The pages that the debug hooks have found readable.
//!
//! The check of a block must not read memory that is not mapped. Asking the system for each block
//! would be slow, so a table that all hooks share remembers pages that can be read. A page enters
//! the table when a hook writes there, or when the system says that the page can be read. The pages
//! of a large block leave the table before the block is freed, because the allocator may unmap
//! them.
//!
//! The table of readable pages can be out of date. For example, an allocator may divide a page into
//! small blocks, and unmap the page once all of these blocks are free. The page can then no longer
//! be read, but stays in the table, because the hooks remove pages only when a large block is freed
//! or resized.

#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use raw_mem::preserving_errno;

/// The number of address bits inside a page. The smallest page of any system has 4096 bytes.
const PAGE_BITS: u32 = 12;

/// The number of adjacent pages that share an entry of the table.
const GROUP: usize = 16;

/// The number of entries of the table, which cover 1 GiB if the pages are adjacent.
const ENTRIES: usize = 1 << 14;

/// The size in bytes from which the pages of a block are forgotten when the block is freed.
///
/// The threshold is below the size at which any common allocator maps a block by itself.
const LARGE: usize = 1 << 16;

/// The table. The index of a group's entry is the number of the group modulo [`ENTRIES`].
///
/// Each entry describes a group of 16 adjacent pages. The lowest 16 bits of the entry say which of
/// these pages can be read. The other bits store the number of the group, which is its address
/// divided by 64 KiB, the size of a group. Such a number has 16 bits fewer than an address, so it
/// always fits. The entries are only hints, and no other memory access is ordered by them, so
/// `Relaxed` is enough.
static FOUND: [AtomicUsize; ENTRIES] = [const { AtomicUsize::new(0) }; ENTRIES];

/// Returns the entry for `page`, and its value if the page is the only readable page of its group.
fn entry(page: usize) -> (&'static AtomicUsize, usize) {
    let group = page / GROUP;
    (&FOUND[group % ENTRIES], group << GROUP | 1 << (page % GROUP))
}

/// Returns true if an entry with the value `found` contains the page with the value `wanted`.
const fn contains(found: usize, wanted: usize) -> bool {
    found & wanted == wanted && found >> GROUP == wanted >> GROUP
}

/// Returns the first and the last page of the `len` bytes at `start`. `len` must not be 0.
fn ends(start: *const u8, len: usize) -> (usize, usize) {
    let last = start.addr().wrapping_add(len - 1);
    (start.addr() >> PAGE_BITS, last >> PAGE_BITS)
}

/// Returns true if the table contains `page`.
#[inline]
fn is_known(page: usize) -> bool {
    let (entry, wanted) = entry(page);
    contains(entry.load(Relaxed), wanted)
}

/// Returns true if the `len` bytes at `start` can be read.
///
/// Asks the system only if the table does not contain their pages. `errno` is unchanged.
#[inline]
pub(super) fn is_readable(start: *const u8, len: usize) -> bool {
    let (first, last) = ends(start, len);
    let is_found = is_known(first) && (first == last || (first + 1..=last).all(is_known));
    is_found || is_readable_now(start, len)
}

#[cold]
#[inline(never)]
fn is_readable_now(start: *const u8, len: usize) -> bool {
    let result = preserving_errno(|| raw_mem::test_readable(start, len));
    if result == Some(true) {
        remember(start, len);
    }
    // If the memory cannot be tested, a valid program must go on.
    result != Some(false)
}

/// Remembers that the `len` bytes at `start` can be read.
#[inline]
pub(super) fn remember(start: *const u8, len: usize) {
    let (first, last) = ends(start, len);
    if !is_known(first) || (first != last && !is_known(last)) {
        (first..=last).for_each(add);
    }
}

#[cold]
#[inline(never)]
fn add(page: usize) {
    let (entry, wanted) = entry(page);
    let old = entry.load(Relaxed);
    let is_same_group = old >> GROUP == wanted >> GROUP;
    let new = if is_same_group { old | wanted } else { wanted };
    // An entry of the table describes 16 adjacent pages, and `new` contains `page` and the
    // neighbours of `page` that `old` contains. If another thread has changed the entry since we
    // loaded `old`, that thread may have removed a neighbour because it is about to free the
    // neighbour's memory. Storing `new` would add the neighbour again, so we store nothing. `page`
    // then stays out of the table, so the next check whether `page` can be read may need a system
    // call.
    let _ = entry.compare_exchange(old, new, Relaxed, Relaxed);
}

/// Forgets the pages of the `len` bytes at `start` if they are the memory of a large block.
#[inline]
pub(super) fn forget(start: *const u8, len: usize) {
    if len < LARGE {
        return;
    }
    let (first, last) = ends(start, len);
    for page in first..=last {
        let (entry, wanted) = entry(page);
        let without = |old| contains(old, wanted).then_some(old & !(1 << (page % GROUP)));
        // Nothing changes if the table does not contain the page.
        let _ = entry.fetch_update(Relaxed, Relaxed, without);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::ptr;

    use super::*;

    /// Returns an address on page number `page`. No program has memory there.
    fn at(page: usize) -> *const u8 {
        ptr::without_provenance((usize::MAX >> 1) + 1 + (page << PAGE_BITS))
    }

    fn is_known(start: *const u8, len: usize) -> bool {
        let (first, last) = ends(start, len);
        (first..=last).all(super::is_known)
    }

    #[test]
    fn a_large_block_is_forgotten_and_a_small_one_is_not() {
        let (start, len) = (at(10), LARGE + 1);
        assert!(!is_known(start, 1));
        remember(start, len);
        forget(start, LARGE - 1);
        assert!(is_known(start, len) && !is_known(start, len + 4096));
        remember(at(9), 1);
        forget(start, len);
        assert!((10..28).all(|page| !is_known(at(page), 1)));
        assert!(is_known(at(9), 1), "the page before the block");
    }

    #[test]
    fn pages_that_share_an_entry_replace_each_other() {
        let (one, other) = (at(1000), at(1000 + ENTRIES * GROUP));
        remember(one, 1);
        assert!(is_known(one, 1) && !is_known(other, 1));
        remember(other, 1);
        assert!(!is_known(one, 1) && is_known(other, 1));
        forget(one, LARGE);
        assert!(is_known(other, 1), "a page of another group");
    }

    #[test]
    fn bytes_on_two_pages_are_readable_only_if_both_pages_are() {
        let start = at(2001).wrapping_sub(8);
        remember(start, 8);
        assert!(is_known(start, 8) && !is_known(start, 9));
        remember(start, 9);
        assert!(is_known(start, 16));
    }

    #[test]
    #[cfg(all(unix, not(miri)))]
    fn the_first_page_and_the_last_are_not_readable() {
        assert!(!is_readable(ptr::without_provenance(0x230), 16));
        assert!(!is_readable(ptr::without_provenance(usize::MAX - 7), 16));
        assert!(!is_readable(ptr::without_provenance(usize::MAX - 15), 16));
        let word = 5_u64;
        assert!(is_readable((&raw const word).cast(), 8) && is_known((&raw const word).cast(), 8));
    }
}
