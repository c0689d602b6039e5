//! Large memory grows in place or by moving pages, without copying its contents.

#![cfg(all(target_os = "linux", not(miri)))]

use std::{
    alloc::{Layout, alloc, dealloc, realloc},
    mem::MaybeUninit,
};

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

/// Returns the number of pages that the kernel has provided to this process on access.
fn page_faults() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: `usage` has room for the result.
    let code = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    assert_eq!(code, 0);
    // SAFETY: the call succeeded, so it has written the result.
    unsafe { usage.assume_init() }.ru_minflt
}

#[test]
fn growing_large_memory_touches_no_page() {
    const SIZE: usize = 64 << 20;
    let layout = Layout::from_size_align(SIZE, 16).expect("a valid layout");
    // SAFETY: the layout is not empty. The memory is freed once, with its last layout.
    unsafe {
        let start = alloc(layout);
        assert!(!start.is_null());
        start.write_bytes(7, SIZE);
        let before = page_faults();
        let grown = realloc(start, layout, 2 * SIZE);
        let faults = page_faults() - before;
        assert!(!grown.is_null());
        assert!(faults < 1000, "{faults} pages were touched");
        assert_eq!((grown.read(), grown.add(SIZE - 1).read()), (7, 7));
        dealloc(grown, Layout::from_size_align(2 * SIZE, 16).expect("a valid layout"));
    }
}
