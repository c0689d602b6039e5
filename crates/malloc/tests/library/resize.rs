//! `realloc` and `reallocarray`.

use std::ptr;

use crate::{
    api::{Filled, api, errno, refused, set_errno},
    basics::sizes,
};

#[test]
fn contents_are_kept_between_all_pairs_of_sizes() {
    let api = api();
    for old in sizes() {
        for new in sizes() {
            // SAFETY: the function has no precondition.
            let filled = Filled::new(unsafe { (api.malloc)(old) }, old, old ^ new);
            // SAFETY: the block is live, and only the result is used from now on.
            let block = unsafe { (api.realloc)(filled.ptr, new) };
            assert!(block.addr().is_multiple_of(16));
            filled.assert_at(block, old.min(new));
            Filled::new(block, new, 3).assert_at(block, new);
            // SAFETY: the block is live.
            unsafe {
                assert!((api.malloc_usable_size)(block) >= new);
                (api.free)(block);
            }
        }
    }
}

#[test]
fn a_block_that_grows_and_shrinks_step_by_step_keeps_its_contents() {
    let api = api();
    let mut block = ptr::null_mut();
    let mut len = 0;
    let steps = (0..3000_usize).map(|step| (step.min(3000 - step)).pow(2) / 2 + 1);
    for size in steps {
        let old = Filled::new(
            if len == 0 {
                block = unsafe_malloc(size);
                block
            } else {
                block
            },
            len,
            5,
        );
        // SAFETY: the block is live, and only the result is used from now on.
        block = unsafe { (api.realloc)(block, size) };
        old.assert_at(block, len.min(size));
        len = size;
    }
    // SAFETY: the block is live.
    unsafe { (api.free)(block) };
}

fn unsafe_malloc(size: usize) -> crate::api::Ptr {
    // SAFETY: the function has no precondition.
    unsafe { (api().malloc)(size) }
}

#[test]
fn a_size_of_zero_frees_the_block_and_returns_null() {
    let api = api();
    for size in sizes() {
        set_errno(77);
        // SAFETY: the block is live, and is given up with this call.
        assert!(unsafe { (api.realloc)((api.malloc)(size), 0) }.is_null());
        assert_eq!(errno(), 77);
        // SAFETY: as above.
        assert!(unsafe { (api.reallocarray)((api.malloc)(size), 0, 8) }.is_null());
    }
}

#[test]
fn a_refused_request_leaves_the_block_unchanged() {
    let api = api();
    for size in sizes() {
        // SAFETY: the function has no precondition.
        let filled = Filled::new(unsafe { (api.malloc)(size) }, size, 9);
        // SAFETY: the block is live, and stays live because the requests are refused.
        unsafe {
            assert_eq!(refused(|| (api.realloc)(filled.ptr, usize::MAX)), libc::ENOMEM);
            assert_eq!(refused(|| (api.realloc)(filled.ptr, 1 << 62)), libc::ENOMEM);
            assert_eq!(refused(|| (api.reallocarray)(filled.ptr, 1 << 33, 1 << 33)), libc::ENOMEM);
        }
        filled.assert_at(filled.ptr, size);
        // SAFETY: the block is live.
        unsafe { (api.free)(filled.ptr) };
    }
}

#[test]
fn aligned_memory_can_be_resized() {
    let api = api();
    for align in [32, 512, 4096, 1 << 20] {
        for size in sizes() {
            // SAFETY: the function has no precondition.
            let filled = Filled::new(unsafe { (api.memalign)(align, size) }, size, align);
            // SAFETY: the block is live, and only the result is used from now on.
            let block = unsafe { (api.realloc)(filled.ptr, 2 * size) };
            filled.assert_at(block, size);
            // SAFETY: the block is live.
            unsafe { (api.free)(block) };
        }
    }
}

#[test]
fn an_array_has_room_for_all_its_elements() {
    // SAFETY: null is allowed.
    let block = unsafe { (api().reallocarray)(ptr::null_mut(), 1000, 24) };
    Filled::new(block, 24_000, 1).assert_at(block, 24_000);
    // SAFETY: the block is live.
    unsafe { (api().free)(block) };
}
