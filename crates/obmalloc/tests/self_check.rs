//! In builds with debug assertions, a heap detects errors while a program runs. Each error happens
//! in a child process.

#![cfg(all(unix, debug_assertions, not(miri), not(loom)))]

use std::{env, os::unix::process::ExitStatusExt, process::Command};

use obmalloc::{BlockPtr, Heap, SizeClass};
use raw_mem::{Malloc, MmapArenas};

const CASE: &str = "OBMALLOC_TEST_ERROR";

fn err(case: &str) {
    let mut heap = Heap::new(MmapArenas::new(), Malloc);
    let class = SizeClass::of(40).unwrap();
    let [first, second] = [(); 2].map(|()| heap.alloc(class).unwrap().into_start());
    // SAFETY: the program breaks the rules of the heap, which must end the process.
    unsafe {
        let free = |heap: &mut Heap<_, _>, start| heap.free(BlockPtr::from_start(start));
        free(&mut heap, first);
        match case {
            "double free" => free(&mut heap, first),
            "write after free" => {
                // The list of free blocks is now a cycle.
                first.cast().write(first);
                let other = SizeClass::of(100).unwrap();
                let _blocks: Vec<_> = (0..100_000).map(|_| heap.alloc(other)).collect();
            }
            _ => panic!("there is no case {case}"),
        }
        free(&mut heap, second);
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
fn a_write_after_free_that_breaks_a_free_list_is_found_later() {
    let report = report("write after free");
    assert!(report.contains("rule 2: the free list ends"), "{report}");
    assert!(report.ends_with("obmalloc: a heap broke one of its rules\n"), "{report}");
}
