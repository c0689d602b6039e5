//! `malloc`, `calloc`, `free`, and the functions that return statistics.

use std::{collections::BTreeSet, thread};

use crate::api::{Filled, Ptr, api, errno, refused, set_errno};

/// Sizes just below and above each limit at which requests are served in a different way.
pub(crate) fn sizes() -> Vec<usize> {
    let borders = [16, 512, 1 << 10, 8 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 496 << 10];
    let large = [512 << 10, 1 << 20, 4 << 20];
    let around = |border: usize| [border - 1, border, border + 1];
    let small = [1, 2, 7, 8, 100, 300];
    small.into_iter().chain(borders.into_iter().chain(large).flat_map(around)).collect()
}

fn free(ptr: Ptr) {
    // SAFETY: every test frees its own live memory once.
    unsafe { (api().free)(ptr) };
}

#[test]
fn memory_of_every_size_is_aligned_and_as_large_as_requested() {
    for size in sizes() {
        // SAFETY: the function has no precondition.
        let block = unsafe { (api().malloc)(size) };
        assert!(block.addr().is_multiple_of(16), "{size}");
        Filled::new(block, size, size).assert_at(block, size);
        free(block);
    }
}

#[test]
fn all_of_the_usable_size_can_be_used() {
    for size in sizes() {
        // If the first block is shorter than it claims, filling it damages the second block.
        // SAFETY: the function has no precondition.
        let blocks = [(); 2].map(|()| unsafe { (api().malloc)(size) });
        let usable = blocks.map(|block| {
            // SAFETY: the block is live.
            unsafe { (api().malloc_usable_size)(block) }
        });
        assert!(usable.iter().all(|usable| *usable >= size), "{size}: {usable:?}");
        let filled = [0, 1].map(|at| Filled::new(blocks[at], usable[at], at));
        for at in [0, 1] {
            filled[at].assert_at(blocks[at], usable[at]);
            free(blocks[at]);
        }
    }
    // SAFETY: null is allowed.
    assert_eq!(unsafe { (api().malloc_usable_size)(std::ptr::null_mut()) }, 0);
}

#[test]
fn requests_of_no_bytes_get_unique_pointers() {
    let api = api();
    // SAFETY: the functions have no precondition.
    let request = |turn: usize| unsafe {
        match turn % 6 {
            0 => (api.malloc)(0),
            1 => (api.calloc)(0, 8),
            2 => (api.calloc)(8, 0),
            3 => (api.realloc)(std::ptr::null_mut(), 0),
            4 => (api.memalign)(64 << (turn / 6 % 9), 0),
            _ => (api.valloc)(0),
        }
    };
    let blocks: Vec<Ptr> = (0..600).map(request).collect();
    let addresses: BTreeSet<_> = blocks.iter().map(|block| block.addr()).collect();
    assert!(addresses.len() == 600 && !addresses.contains(&0));
    for block in blocks {
        // A block of 0 usable bytes could have the same address as another block.
        // SAFETY: the block is live.
        assert!(unsafe { (api.malloc_usable_size)(block) } > 0);
        free(block);
    }
}

#[test]
fn calloc_clears_memory_that_was_used_before() {
    for size in sizes() {
        for _ in 0..3 {
            // SAFETY: the function has no precondition.
            let block = unsafe { (api().calloc)(1, size) };
            // SAFETY: the block has that many initialised bytes.
            let bytes = unsafe { std::slice::from_raw_parts(block.cast::<u8>(), size) };
            assert!(bytes.iter().all(|byte| *byte == 0), "{size}");
            Filled::new(block, size, 7);
            free(block);
        }
    }
}

#[test]
fn sizes_that_no_address_space_can_hold_are_refused() {
    let api = api();
    for size in [1 << 63, usize::MAX, usize::MAX - 15, isize::MAX as usize, 1 << 62] {
        // SAFETY: the functions have no precondition.
        unsafe {
            assert_eq!(refused(|| (api.malloc)(size)), libc::ENOMEM);
            assert_eq!(refused(|| (api.calloc)(1, size)), libc::ENOMEM);
            assert_eq!(refused(|| (api.calloc)(size, 16)), libc::ENOMEM);
            assert_eq!(refused(|| (api.reallocarray)(std::ptr::null_mut(), size, 2)), libc::ENOMEM);
        }
    }
}

#[test]
fn freeing_keeps_errno_and_ignores_null() {
    set_errno(77);
    free(std::ptr::null_mut());
    for size in sizes() {
        // SAFETY: the function has no precondition.
        let block = unsafe { (api().malloc)(size) };
        set_errno(77);
        free(block);
        assert_eq!(errno(), 77, "{size}");
    }
}

#[test]
fn every_function_that_frees_accepts_every_block() {
    let api = api();
    for size in sizes() {
        // SAFETY: each block is freed once.
        unsafe {
            (api.free_sized)((api.malloc)(size), size);
            (api.free_aligned_sized)((api.aligned_alloc)(64, size), 64, size);
            (api.cfree)((api.calloc)(size, 1));
            (api.__libc_free)((api.__libc_malloc)(size));
            (api.free)((api.__libc_calloc)(size, 1));
            (api.free)((api.__libc_realloc)((api.__libc_memalign)(32, size), size + 1));
            (api.free)((api.__libc_valloc)(size));
            (api.free)((api.__libc_pvalloc)(size));
        }
    }
}

#[test]
fn memory_may_be_freed_by_another_thread() {
    for size in sizes() {
        let blocks: Vec<usize> = thread::spawn(move || {
            // SAFETY: the function has no precondition.
            (0..50).map(|_| unsafe { (api().malloc)(size) }.expose_provenance()).collect()
        })
        .join()
        .unwrap();
        blocks.into_iter().for_each(|address| free(std::ptr::with_exposed_provenance_mut(address)));
    }
}

#[test]
fn the_old_figures_are_those_of_mallinfo2_and_a_trim_is_reported() {
    let api = api();
    // SAFETY: the functions have no precondition.
    let block = unsafe { (api.malloc)(200_000) };
    // SAFETY: as above.
    let (new, old) = unsafe { ((api.mallinfo2)(), (api.mallinfo)()) };
    assert!(new.uordblks >= 200_000 && new.uordblks + new.fordblks <= new.arena, "{new:?}");
    assert!(old.uordblks >= 200_000 && old.arena >= 200_000, "{old:?}");
    free(block);
    // SAFETY: as above.
    assert_eq!(unsafe { (api.mallopt)(libc::M_MMAP_THRESHOLD, 1 << 20) }, 0);
    // SAFETY: as above.
    assert!((0..=1).contains(&unsafe { (api.malloc_trim)(0) }));
}

#[test]
fn malloc_info_writes_xml() {
    let mut text = [0_u8; 1000];
    // SAFETY: the buffer has 1000 bytes and outlives the stream.
    let stream = unsafe { libc::fmemopen(text.as_mut_ptr().cast(), 1000, c"w".as_ptr()) };
    // SAFETY: the stream is open.
    unsafe {
        assert_eq!((api().malloc_info)(1, stream), libc::EINVAL);
        assert_eq!((api().malloc_info)(0, stream), 0);
        libc::fclose(stream);
    }
    let text = String::from_utf8_lossy(&text);
    assert!(
        text.starts_with("<malloc version=\"obmalloc-") && text.contains("</malloc>"),
        "{text}"
    );
}
