//! A panic in a cache ends the process if an allocator is clearing the cache, because an allocator
//! must not unwind. The panic happens in a child process.

#![cfg(all(unix, not(miri), not(loom)))]

use std::{
    env,
    os::unix::process::ExitStatusExt,
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
};

use object_cache::{Cache, CacheStats, Cleared, RetryAfterClear};
use raw_mem::{MAX_REQUEST, Malloc, MemAlloc};

const IS_CHILD: &str = "OBMALLOC_TEST_PANIC";

struct Panicking;

impl Cache for Panicking {
    fn clear(&self) -> Cleared {
        panic!("the cache panics")
    }

    fn each_list(&self, _: &mut dyn FnMut(Option<usize>, CacheStats)) {}
}

#[test]
fn child() {
    if env::var_os(IS_CHILD).is_some() {
        let heap = RetryAfterClear::new(Malloc, Panicking);
        let _ = catch_unwind(AssertUnwindSafe(|| heap.malloc(MAX_REQUEST)));
    }
}

/// Regression test: the panic unwound out of the allocator, even out of `Global`.
#[test]
fn a_panic_in_a_cache_that_an_allocator_clears_ends_the_process() {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(IS_CHILD, "1");
    let output = command.output().unwrap();
    assert_eq!(output.status.signal(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
}
