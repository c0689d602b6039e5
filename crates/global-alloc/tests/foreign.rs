//! The usable size of a block, and pointers that another allocator returned.
//!
//! Regression tests (field reports F11 and F12).

#![cfg(all(target_os = "linux", not(miri)))]

use std::{
    alloc::{Layout, alloc, dealloc, realloc},
    ffi::CString,
    hint::black_box,
    os::unix::process::ExitStatusExt,
    process::{Command, Output},
};

#[global_allocator]
static GLOBAL: global_alloc::ObMalloc = global_alloc::ObMalloc::new();

#[test]
fn all_usable_bytes_can_be_written_and_are_at_least_the_size_of_the_layout() {
    let sizes = [1, 15, 16, 17, 100, 511, 512, 513, 1000, 4096, 100_000, 1 << 20];
    for align in [1, 8, 16, 32, 512, 4096] {
        let layouts = sizes.map(|size| Layout::from_size_align(size, align).expect("a layout"));
        // SAFETY: no layout is empty.
        let blocks = layouts.map(|layout| unsafe { alloc(layout) });
        for (byte, (block, layout)) in (0..).zip(blocks.iter().zip(&layouts)) {
            // SAFETY: the block is in use.
            let usable = unsafe { GLOBAL.usable_size(*block) };
            assert!(usable >= layout.size(), "{usable} bytes for {layout:?}");
            // SAFETY: `usable` bytes may be written.
            unsafe { block.write_bytes(byte, usable) };
        }
        for (byte, (block, layout)) in (0..).zip(blocks.iter().zip(&layouts)) {
            // SAFETY: the bytes were written. The block is freed once, with its layout.
            unsafe {
                let bytes = std::slice::from_raw_parts(*block, GLOBAL.usable_size(*block));
                assert!(bytes.iter().all(|now| *now == byte), "{layout:?} was overwritten");
                dealloc(*block, *layout);
            }
        }
    }
}

#[test]
fn the_usable_size_of_a_small_block_is_the_block_size_of_its_class() {
    let usable = |text: &String| {
        // SAFETY: the string has memory of the global allocator.
        unsafe { GLOBAL.usable_size(text.as_ptr()) }
    };
    assert_eq!([1, 16, 17, 33, 512].map(|len| usable(&"x".repeat(len))), [16, 16, 32, 48, 512]);
}

/// Set in the child processes of the tests.
const CHILD: &str = "OBMALLOC_TEST_FOREIGN";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs the test `name` of this program in a child process.
fn run_child(name: &str) -> Output {
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(program);
    command.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
    command.output().expect("the child starts")
}

/// Asserts that the child `name` aborts with one line on stderr, which contains `expected`.
fn aborts_with_one_line(name: &str, expected: &str) {
    let output = run_child(name);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}: {stderr}", output.status);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("obmalloc: cannot ") && stderr.contains(expected), "{stderr}");
}

/// Returns a string in memory of the C library.
fn duplicate() -> *mut libc::c_char {
    // SAFETY: the argument is a C string.
    let copy = unsafe { libc::strdup(c"hello".as_ptr()) };
    assert!(!copy.is_null());
    copy
}

#[test]
#[cfg(debug_assertions)]
fn freeing_a_small_foreign_pointer_ends_the_process_with_one_line() {
    if is_child() {
        // SAFETY: none. The test is about this mistake.
        drop(unsafe { CString::from_raw(duplicate()) });
    }
    aborts_with_one_line(
        "freeing_a_small_foreign_pointer_ends_the_process_with_one_line",
        "with size 6 and alignment 1: it did not come from this allocator",
    );
}

#[test]
#[cfg(debug_assertions)]
fn resizing_a_small_foreign_pointer_ends_the_process_with_one_line() {
    if is_child() {
        let layout = Layout::new::<[u8; 6]>();
        // SAFETY: none. The test is about this mistake.
        black_box(unsafe { realloc(duplicate().cast(), layout, 100) });
    }
    aborts_with_one_line(
        "resizing_a_small_foreign_pointer_ends_the_process_with_one_line",
        "cannot resize the memory at 0x",
    );
}

#[test]
#[cfg(debug_assertions)]
fn freeing_a_block_with_a_larger_layout_ends_the_process_with_one_line() {
    if is_child() {
        let block = Box::into_raw(Box::new([1_u8; 30]));
        // SAFETY: none. The test is about this mistake.
        unsafe { dealloc(block.cast(), Layout::new::<[u8; 1000]>()) };
    }
    aborts_with_one_line(
        "freeing_a_block_with_a_larger_layout_ends_the_process_with_one_line",
        "with size 1000 and alignment 1: it is a block of 32 bytes",
    );
}

#[test]
fn a_small_block_that_is_passed_to_free_of_c_ends_the_process() {
    if is_child() {
        let text = CString::new("hello").expect("a text without zeros");
        // SAFETY: none. The test is about this mistake.
        unsafe { libc::free(text.into_raw().cast()) };
    }
    let output = run_child("a_small_block_that_is_passed_to_free_of_c_ends_the_process");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
}
