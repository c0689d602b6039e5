//! In builds with debug assertions, a heap detects errors while a program runs. Each error happens
//! in a child process.

#![cfg(all(unix, debug_assertions, not(miri), not(loom)))]

use std::{env, os::unix::process::ExitStatusExt, process::Command};

use obmalloc::{BlockPtr, Heap, Native, SizeClass};
use raw_mem::{Malloc, MmapArenas, ReservedArenas};

const CASE: &str = "OBMALLOC_TEST_ERROR";

fn err(case: &str) {
    match case {
        "double free of a large block" => free_a_large_block_twice(false),
        "double free of a large block of a heap" => free_a_large_block_twice(true),
        "double free of a span" => free_twice(100_000),
        "double free in a free pool" => free_in_a_free_pool(),
        "double free" | "write after free" => misuse_a_small_block(case),
        _ => panic!("there is no case {case}"),
    }
}

fn misuse_a_small_block(case: &str) {
    let mut heap = Heap::new(MmapArenas::new(), Malloc);
    let class = SizeClass::of(40).unwrap();
    let [first, second] = [(); 2].map(|()| heap.alloc(class).unwrap().into_start());
    // SAFETY: these calls break the contract on purpose. The heap must detect that and abort.
    unsafe {
        let free = |heap: &mut Heap<_, _>, start| heap.free(BlockPtr::from_start(start));
        free(&mut heap, first);
        if case == "double free" {
            free(&mut heap, first);
        } else {
            // This write turns the list of free blocks into a cycle.
            first.cast().write(first);
            let other = SizeClass::of(100).unwrap();
            let _blocks: Vec<_> = (0..100_000).map(|_| heap.alloc(other)).collect();
        }
        free(&mut heap, second);
    }
}

/// Allocates a span of at least `size` bytes and frees it twice. Another block keeps the arena
/// mapped.
fn free_twice(size: usize) {
    let mut heap = Heap::<_, _, Native>::with_geometry(MmapArenas::new(), Malloc);
    let _other = heap.alloc(SizeClass::of(16).unwrap());
    let start = heap.alloc(SizeClass::of(size).unwrap()).unwrap().into_start();
    for _ in 0..2 {
        // SAFETY: these calls break the contract on purpose. The heap must detect that and abort.
        unsafe { heap.free(BlockPtr::from_start(start)) };
    }
}

/// Frees all blocks of two pools that have several units each. Then frees one of these blocks
/// again.
///
/// That block begins in a later unit of the first pool. The first pool is free at that time,
/// because the class retains only the second one.
fn free_in_a_free_pool() {
    let mut heap = Heap::<_, _, Native>::with_geometry(MmapArenas::new(), Malloc);
    let _other = heap.alloc(SizeClass::of(16).unwrap());
    let class = SizeClass::<Native>::of(6000).unwrap();
    let blocks: Vec<_> = (0..2 * 16).map(|_| heap.alloc(class).unwrap().into_start()).collect();
    for start in blocks.iter().chain([&blocks[10]]) {
        // SAFETY: these calls break the contract on purpose. The heap must detect that and abort.
        unsafe { heap.free(BlockPtr::from_start(*start)) };
    }
}

/// Frees a large block twice. After the first free, the heap retains the block.
///
/// If `is_owned` is true, the block belongs to the heap. Otherwise, it belongs to no heap.
fn free_a_large_block_twice(is_owned: bool) {
    let arenas = ReservedArenas::new(MmapArenas::new());
    let mut heap = Heap::<_, _, Native>::with_geometry(arenas, Malloc);
    let alloc = if is_owned { Heap::alloc_large } else { Heap::map_large };
    let free = if is_owned { Heap::free_large } else { Heap::unmap_large };
    for _ in 0..3 {
        let block = alloc(&mut heap, 1 << 20, 16).unwrap().block;
        // SAFETY: the block came from this heap, and is in use. Only the deliberate double free
        // below uses the block again.
        unsafe { free(&mut heap, block) };
        if heap.retained_large().0 > 0 {
            // SAFETY: this call breaks the contract on purpose. The heap must detect that and abort.
            unsafe { free(&mut heap, block) };
        }
    }
}

#[test]
fn child() {
    if let Ok(case) = env::var(CASE) {
        err(&case);
    }
}

fn report(case: &str) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CASE, case);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), Some(6), "{case} must abort: {stderr}");
    stderr
}

#[test]
fn a_double_free_is_found_at_the_second_free() {
    let report = report("double free");
    assert!(report.starts_with("obmalloc: the block of 48 bytes at 0x"), "{report}");
    assert!(report.ends_with(" was freed twice\n"), "{report}");
}

#[test]
fn a_double_free_is_found_in_every_kind_of_memory() {
    for (case, block) in [
        ("of a span", "block of 114688 bytes"),
        ("in a free pool", "block"),
        ("of a large block", "block of 1175552 bytes"),
        ("of a large block of a heap", "block of 1175552 bytes"),
    ] {
        let report = report(&format!("double free {case}"));
        assert!(report.starts_with(&format!("obmalloc: the {block} at 0x")), "{report}");
        assert!(report.ends_with(" was freed twice\n"), "{report}");
    }
}

#[test]
fn a_write_after_free_that_breaks_a_free_list_is_found_later() {
    let report = report("write after free");
    assert!(report.contains("rule 2: the free list ends"), "{report}");
    assert!(report.ends_with("obmalloc: a heap broke one of its rules\n"), "{report}");
}
