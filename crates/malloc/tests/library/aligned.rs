//! The functions that allocate aligned memory.

use std::ptr;

use crate::{
    api::{Filled, Ptr, api, errno, refused, set_errno},
    basics::sizes,
};

fn alignments() -> impl Iterator<Item = usize> {
    (0..=23).map(|power| 1 << power)
}

fn posix_memalign(align: usize, size: usize) -> (i32, Ptr) {
    let mut out = ptr::dangling_mut();
    // SAFETY: `out` is writable.
    let code = unsafe { (api().posix_memalign)(&mut out, align, size) };
    (code, out)
}

fn check(block: Ptr, align: usize, size: usize) {
    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{align} {size}: {block:?}");
    Filled::new(block, size, align).assert_at(block, size);
    // SAFETY: the block is live.
    unsafe {
        assert!((api().malloc_usable_size)(block) >= size);
        (api().free)(block);
    }
}

#[test]
fn memory_has_every_alignment_up_to_8_mib() {
    let api = api();
    for align in alignments() {
        let few = align > 1 << 16;
        for size in sizes().into_iter().filter(|size| !few || size % 3 == 0) {
            // SAFETY: the functions have no precondition.
            unsafe {
                check((api.memalign)(align, size), align.max(16), size);
                check((api.aligned_alloc)(align, size), align.max(16), size);
            }
            if align >= 8 {
                let (code, block) = posix_memalign(align, size);
                assert_eq!(code, 0);
                check(block, align.max(16), size);
            }
        }
    }
}

#[test]
fn posix_memalign_reports_errors_by_its_result_alone() {
    for align in [0, 1, 2, 4, 12, 24, 4097, usize::MAX] {
        set_errno(77);
        assert_eq!(posix_memalign(align, 100), (libc::EINVAL, ptr::dangling_mut()));
        assert_eq!(errno(), 77);
    }
    for (align, size) in [(16, usize::MAX), (4096, 1 << 62), (1 << 63, 1), (64, usize::MAX - 62)] {
        set_errno(77);
        assert_eq!(posix_memalign(align, size), (libc::ENOMEM, ptr::dangling_mut()));
        assert_eq!(errno(), 77);
    }
}

#[test]
fn aligned_alloc_refuses_what_is_not_a_power_of_two() {
    for align in [0, 3, 24, 4097, usize::MAX] {
        // SAFETY: the function has no precondition.
        assert_eq!(refused(|| unsafe { (api().aligned_alloc)(align, 100) }), libc::EINVAL);
    }
    // SAFETY: as above.
    assert_eq!(refused(|| unsafe { (api().aligned_alloc)(64, usize::MAX) }), libc::ENOMEM);
    // SAFETY: as above.
    check(unsafe { (api().aligned_alloc)(64, 100) }, 64, 100);
}

#[test]
fn memalign_rounds_the_alignment_up() {
    for (align, rounded) in [(0, 16), (1, 16), (24, 32), (4097, 8192)] {
        // SAFETY: the function has no precondition.
        check(unsafe { (api().memalign)(align, 100) }, rounded, 100);
    }
    for align in [usize::MAX, (1 << 63) + 1] {
        // SAFETY: as above.
        assert_eq!(refused(|| unsafe { (api().memalign)(align, 100) }), libc::EINVAL);
    }
    // SAFETY: as above.
    assert_eq!(refused(|| unsafe { (api().memalign)(1 << 63, 100) }), libc::ENOMEM);
}

#[test]
fn pages_begin_at_pages() {
    // SAFETY: sysconf reads a constant.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    for size in sizes() {
        // SAFETY: the functions have no precondition.
        unsafe {
            check((api().valloc)(size), page, size);
            check((api().pvalloc)(size), page, size.next_multiple_of(page));
        }
    }
    // SAFETY: as above.
    unsafe {
        check((api().pvalloc)(0), page, page);
        assert_eq!(refused(|| (api().pvalloc)(usize::MAX - 100)), libc::ENOMEM);
        assert_eq!(refused(|| (api().valloc)(usize::MAX - 100)), libc::ENOMEM);
    }
}
