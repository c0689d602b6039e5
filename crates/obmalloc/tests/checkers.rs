//! Memory checkers report the use of memory that a heap has returned to the system.

use std::{
    env,
    num::NonZeroUsize,
    process::{Command, Output},
};

use obmalloc::{BlockPtr, Heap, Native, SizeClass};
use raw_mem::{Malloc, MmapArenas};

/// Says what a child process does.
const VARIABLE: &str = "OBMALLOC_TEST_STALE";

/// Allocates 100 blocks, frees all but the first, and returns their pages to the system. Then uses a
/// freed block, or allocates it again first.
fn use_purged_memory(is_stale: bool) {
    let mut heap = Heap::<_, _, Native>::with_geometry(MmapArenas::new(), Malloc);
    let class = SizeClass::of(2048).unwrap();
    let allocate = |heap: &mut Heap<_, _, _>| -> Vec<BlockPtr> {
        (0..100).map(|_| heap.alloc(class).unwrap()).collect()
    };
    let mut blocks = allocate(&mut heap);
    for block in &blocks {
        // SAFETY: the block is in use and has 2048 bytes.
        unsafe { block.start().write_bytes(7, 2048) };
    }
    let stale = blocks[50].start();
    for block in blocks.drain(1..) {
        // SAFETY: the block came from this heap, and is not used as a block afterwards.
        unsafe { heap.free(block) };
    }
    assert!(heap.trim() > 100_000);
    let again = if is_stale { Vec::new() } else { allocate(&mut heap) };
    let is_again = again.iter().any(|block| block.start() == stale);
    assert_eq!(is_again, !is_stale, "the same addresses are used again");
    // SAFETY: the memory is still mapped. If it is stale, a checker must report this access.
    let sum: u32 = (0..2048).map(|at| u32::from(unsafe { stale.add(at).read() })).sum();
    println!("the sum is {sum}");
}

/// Carves the second page of a pool whose pages after the first one are purged. Then uses the new
/// blocks, or the last page, which is still purged.
fn carve_purged_memory(is_stale: bool) {
    const PAGE: usize = 4096;
    const POOL: usize = 4 * PAGE;
    let mut heap = Heap::<_, _, Native>::with_geometry(MmapArenas::new(), Malloc);
    let [large, small] = [2048, 512].map(|size| SizeClass::of(size).unwrap());
    let mut blocks: Vec<_> = (0..100).map(|_| heap.alloc(large).unwrap()).collect();
    for block in blocks.drain(1..) {
        // SAFETY: the block came from this heap, has 2048 bytes, and is not used again.
        unsafe {
            block.start().write_bytes(7, 2048);
            heap.free(block);
        }
    }
    let first = heap.alloc(small).unwrap();
    let pool =
        first.start().map_addr(|address| NonZeroUsize::new(address.get() & !(POOL - 1)).unwrap());
    assert!(heap.trim() > 100_000);
    for _ in 0..PAGE / 512 {
        let block = heap.alloc(small).unwrap();
        assert_eq!(block.start().addr().get() & !(POOL - 1), pool.addr().get());
        // SAFETY: the block is in use and has 512 bytes.
        unsafe { block.start().write_bytes(7, 512) };
    }
    if is_stale {
        // SAFETY: the memory is still mapped. A checker must report this access.
        println!("{}", unsafe { pool.add(3 * PAGE).read() });
    }
    println!("the sum is 0");
}

/// Runs `test` in a child process under `checker`.
fn run(mut checker: Command, test: &str, what: &str) -> Output {
    checker.args(["--exact", test, "--nocapture"]).env(VARIABLE, what);
    checker.output().unwrap()
}

/// Asserts that `checker` reports `error` for stale memory only.
fn is_reported(checker: impl Fn() -> Command, test: &str, error: &str) {
    if let Ok(what) = env::var(VARIABLE) {
        use_purged_memory(what == "stale");
        return carve_purged_memory(what == "stale in a pool");
    }
    for stale in ["stale", "stale in a pool"] {
        let stale = run(checker(), test, stale);
        let stderr = String::from_utf8_lossy(&stale.stderr);
        assert!(!stale.status.success() && stderr.contains(error), "{stale:?}");
    }
    let again = run(checker(), test, "again");
    let stdout = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && stdout.contains("the sum is"), "{again:?}");
}

#[test]
#[cfg(all(target_arch = "x86_64", not(asan)))]
fn memcheck_reports_the_use_of_purged_memory() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: valgrind is not installed");
    }
    let checker = || {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--error-exitcode=9"]).arg(env::current_exe().unwrap());
        valgrind
    };
    is_reported(checker, "memcheck_reports_the_use_of_purged_memory", "Invalid read of size 1");
}

#[test]
#[cfg(asan)]
fn address_sanitizer_reports_the_use_of_purged_memory() {
    let checker = || Command::new(env::current_exe().unwrap());
    let test = "address_sanitizer_reports_the_use_of_purged_memory";
    is_reported(checker, test, "use-after-poison");
}
