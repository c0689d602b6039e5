//! `Limited` warns once if a soft limit is exceeded. Each case runs in a child process, because the
//! warning goes to stderr.

#![cfg(all(target_os = "linux", not(miri), not(loom)))]

use std::{env, process::Command, ptr::NonNull};

use allocator_api::{
    Limited,
    raw_mem::{Limits, Malloc, MemAlloc},
};

const CASE: &str = "OBMALLOC_TEST_SOFT_LIMIT";

const MIB: usize = 1 << 20;

/// An allocator that refuses blocks of 1 MiB or more. It knows the usable size of its blocks only
/// if its field is true.
struct Small(bool);

// SAFETY: `Malloc` serves every request that is not refused.
unsafe impl MemAlloc for Small {
    fn malloc(&self, size: usize) -> Option<NonNull<u8>> {
        if size < MIB { Malloc.malloc(size) } else { None }
    }

    fn calloc(&self, count: usize, size: usize) -> Option<NonNull<u8>> {
        if count.checked_mul(size)? < MIB { Malloc.calloc(count, size) } else { None }
    }

    unsafe fn realloc(&self, ptr: Option<NonNull<u8>>, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: the contract is the same.
        if size < MIB { unsafe { Malloc.realloc(ptr, size) } } else { None }
    }

    unsafe fn free(&self, ptr: Option<NonNull<u8>>) {
        // SAFETY: the contract is the same.
        unsafe { Malloc.free(ptr) }
    }

    unsafe fn usable_size(&self, ptr: NonNull<u8>) -> Option<usize> {
        // SAFETY: the contract is the same.
        if self.0 { unsafe { Malloc.usable_size(ptr) } } else { None }
    }
}

fn run(case: &str) {
    let limited = |knows_sizes, bytes| {
        Limited::new(Small(knows_sizes), Limits::soft(bytes), |_| unreachable!("no hard limit"))
    };
    match case {
        "usable" => {
            // The block has more bytes than requested.
            let limited = limited(true, 1001);
            assert!(limited.malloc(1001).is_some() && limited.used() > 1001);
            assert!(limited.malloc(1001).is_some());
        }
        "refused" | "refused without sizes" => {
            let limited = limited(case == "refused", 10_000);
            let block = limited.malloc(100);
            assert!(limited.malloc(MIB).is_none() && limited.calloc(1, MIB).is_none());
            // SAFETY: the block is live. It stays live, because the call fails.
            assert!(unsafe { limited.realloc(block, MIB) }.is_none());
            assert!(limited.highwater() < 10_000, "nothing else was in use");
            // SAFETY: the block is live, and is replaced by the result.
            assert!(unsafe { limited.realloc(block, 20_000) }.is_some());
        }
        _ => panic!("there is no case {case}"),
    }
}

#[test]
fn child() {
    if let Ok(case) = env::var(CASE) {
        run(&case);
    }
}

/// Returns the warnings that the case writes in a child.
fn warnings(case: &str) -> Vec<String> {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(CASE, case);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{case}: {stderr}");
    stderr.lines().filter(|line| line.contains("soft limit")).map(str::to_owned).collect()
}

/// Regression test: there was no warning if the usable size of a block exceeded the limit but its
/// requested size did not. The next block did not lead to a warning either.
#[test]
fn a_block_whose_usable_size_exceeds_the_soft_limit_leads_to_the_warning() {
    assert_eq!(warnings("usable").len(), 1);
}

/// Regression test: the refused request led to the only warning, which counted bytes that were
/// never in use.
#[test]
fn a_request_that_the_allocator_below_refuses_leads_to_no_warning() {
    for case in ["refused", "refused without sizes"] {
        let warnings = warnings(case);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(" uses 20"), "{warnings:?}");
    }
}
